/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Universes and sessions; see crash_session.h.
 *
 * A session that makes no progress is a failure (P8: nothing hangs for ever): neither
 * STALL_STEPS steps nor STALL_NS of simulated time may pass while an operation is under way and
 * none ends.
 */
#include "lib/crash_session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STALL_STEPS 4000000
#define STALL_NS UINT64_C(600000000000)
#define BURY_ROUNDS 1000
#define BURY_STEP_NS UINT64_C(1000000000)
#define READ_SECTORS 48u

/* ---- universes ------------------------------------------------------------------------------- */

static void must(int rc, const char *what)
{
	if (rc)
		crash_fail("%s: %s", what, strerror(-rc));
}

static struct sim_disk *new_backing(struct crash_universe *u)
{
	const struct crash_config *cfg = u->cfg;
	struct sim_disk_options opt = {
		.size_bytes = (cfg->lba_base + cfg->sectors) * DEV_SECTOR_BYTES + cfg->backing_more,
		.block_bytes = cfg->block_bytes,
		.latency_ns = cfg->latency_ns * 4,
		.jitter_ns = cfg->jitter_ns * 4,
	};
	struct sim_disk *disk;

	must(sim_disk_new(&u->world, &opt, &disk), "making a backing disk");
	return disk;
}

void universe_init(struct crash_universe *u, const struct crash_target *t,
		   const struct crash_config *cfg, uint64_t seed, struct oracle *oracle)
{
	memset(u, 0, sizeof(*u));
	sim_world_init(&u->world, seed);
	u->cfg = cfg;
	u->oracle = oracle;
	must(sim_disk_new(&u->world,
			  &(struct sim_disk_options){.size_bytes = cfg->disk_bytes,
						     .latency_ns = cfg->latency_ns,
						     .jitter_ns = cfg->jitter_ns},
			  &u->disk),
	     "making a disk");
	if (t->has_backing) {
		u->backing = new_backing(u);
		return;
	}
	if (t->has_store) {
		must(sim_bucket_new(&u->world,
				    &(struct sim_bucket_options){.latency_ns = cfg->latency_ns * 4,
								 .jitter_ns = cfg->jitter_ns * 4},
				    &u->bucket),
		     "making a bucket");
		return;
	}
	u->memory.image = calloc(cfg->sectors, DEV_SECTOR_BYTES);
	assert(u->memory.image);
}

void universe_free(struct crash_universe *u)
{
	sim_disk_free(u->disk);
	sim_disk_free(u->backing);
	if (u->bucket)
		sim_bucket_free(u->bucket);
	free(u->memory.image);
}

void universe_image(const struct crash_universe *src, struct sim_keep keep,
		    struct sim_keep keep_home, struct crash_universe *dst)
{
	uint8_t *image = dst->memory.image;

	must(sim_disk_image(src->disk, keep, dst->disk), "taking an image of the disk");
	if (src->bucket)
		must(sim_bucket_image(src->bucket, keep_home, dst->bucket), "taking an image");
	if (src->backing)
		must(sim_disk_image(src->backing, keep_home, dst->backing),
		     "taking an image of the backing disk");
	if (image)
		memcpy(image, src->memory.image, (size_t)src->cfg->sectors * DEV_SECTOR_BYTES);
	dst->memory = src->memory;
	dst->memory.image = image;
	dst->cache_lost = src->cache_lost;
	dst->home_unknown = src->home_unknown;
	dst->tolerant = src->tolerant;
	dst->world.clock_ns = src->world.clock_ns;
	dst->world.power_off = false;
	dst->world.cut_at = 0;
	oracle_copy(dst->oracle, src->oracle);
}

void universe_crash(struct crash_universe *u, struct sim_keep keep)
{
	must(sim_disk_crash(u->disk, keep), "crashing the disk");
	if (u->bucket)
		sim_bucket_crash(u->bucket, keep);
	if (u->backing)
		must(sim_disk_crash(u->backing, keep), "crashing the backing disk");
	sim_world_power_on(&u->world);
}

void universe_check_home(struct crash_universe *u, bool clean)
{
	struct oracle *o = u->oracle;
	uint64_t ids[ORACLE_SECTORS_MAX];
	const uint8_t *all;
	bool ok;

	if (!u->backing || (u->home_unknown && !clean))
		return;
	all = sim_disk_durable(u->backing);
	ok = oracle_decode_all(o, all + u->cfg->lba_base * DEV_SECTOR_BYTES, ids);
	if (ok && !clean)
		ok = oracle_check_home(o, ids, o->lo_home);
	else if (ok && o->failed)
		ok = oracle_check_sectors(o, ids, o->n);
	else if (ok)
		ok = oracle_check_prefix(o, ids, o->n, NULL);
	if (!ok)
		crash_fail("the backing device alone%s: %s", clean ? ", after a clean close" : "",
			   o->text);
}

void universe_lose_cache(struct crash_universe *u)
{
	struct sim_disk *blank;

	must(sim_disk_new(&u->world,
			  &(struct sim_disk_options){.size_bytes = u->cfg->disk_bytes,
						     .latency_ns = u->cfg->latency_ns,
						     .jitter_ns = u->cfg->jitter_ns},
			  &blank),
	     "making a disk");
	sim_disk_free(u->disk);
	u->disk = blank;
	u->cache_lost = true;
}

/* ---- operations ------------------------------------------------------------------------------ */

static void progress(struct crash_session *s)
{
	s->progress_step = s->sh.steps;
	s->progress_ns = s->u->world.clock_ns;
}

static const char *op_name(enum dev_op op)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "zero"};

	return names[op];
}

static void op_failed(struct crash_session *s, struct sim_op *op)
{
	s->errors++;
	if (op->id)
		oracle_fail(s->u->oracle, op->id);
	if (!s->u->tolerant)
		crash_fail("%s of lba %u+%u: %s", op_name(op->req.op), op->lba, op->sectors,
			   strerror(-op->req.result));
}

static void op_taken(struct sim_op *op)
{
	struct crash_session *s = op->owner;

	if (!s->dead)
		oracle_sequence(s->u->oracle, op->id, wlog_last_lsn(s->sh.log));
}

static void op_finished(struct sim_op *op)
{
	struct crash_session *s = op->owner;
	size_t slot = (size_t)(op - s->ops);
	struct oracle *o = s->u->oracle;

	s->ops_used &= ~(1u << slot);
	if (s->dead)
		return;
	progress(s);
	crash_trace("done %s lba %u+%u id %llu: %d", op_name(op->req.op), op->lba, op->sectors,
		    (unsigned long long)op->id, op->req.result);
	if (op->req.result) {
		op_failed(s, op);
		return;
	}
	switch (op->req.op) {
	case DEV_READ:
		if (!oracle_check_read(o, op->lba, op->sectors, s->floors[slot], s->mem[slot]))
			crash_fail("%s", o->text);
		break;
	case DEV_FLUSH:
		oracle_durable(o, op->mark);
		break;
	default:
		oracle_acknowledge(o, op->id);
		if (op->req.fua)
			oracle_durable(o, oracle_seq_of(o, op->id));
	}
}

static void wish_done(struct crash_wish *wish, int error)
{
	struct crash_session *s = wish->session;

	s->busy_wishes &= ~(1u << (wish - s->wishes));
	if (s->dead)
		return;
	progress(s);
	crash_trace("done %s: %d", wish->checkpoint ? "checkpoint" : "drain", error);
	if (!error)
		oracle_destaged(s->u->oracle, wish->mark);
	else if (!s->u->tolerant)
		crash_fail("%s: %s", wish->checkpoint ? "checkpoint" : "drain", strerror(-error));
}

static void make_wish(struct crash_session *s, bool checkpoint)
{
	unsigned int slot = s->busy_wishes & 1;
	struct crash_wish *wish = &s->wishes[slot];

	progress(s);
	crash_trace("%s", checkpoint ? "checkpoint" : "drain");
	*wish = (struct crash_wish){.done = wish_done, .session = s, .checkpoint = checkpoint};
	/* A checkpoint alone moves nothing: it vouches for what a drain would not have to. */
	wish->mark = checkpoint ? 0 : oracle_mark(s->u->oracle);
	s->busy_wishes |= 1u << slot;
	host_enter(&s->sh.host);
	s->target->wish(s, wish);
	host_leave(&s->sh.host);
}

bool session_can(const struct crash_session *s, const struct crash_op *op)
{
	switch (op->kind) {
	case CRASH_DRAIN:
	case CRASH_CHECKPOINT:
		return s->busy_wishes != 3;
	case CRASH_REOPEN:
	case CRASH_PAUSE:
		return !s->sh.in_flight && !s->busy_wishes;
	default:
		return s->sh.in_flight < s->u->cfg->ops_in_flight &&
		       oracle_has_room(s->u->oracle);
	}
}

static struct sim_op *take_slot(struct crash_session *s)
{
	unsigned int slot = 0;

	while (s->ops_used & (1u << slot))
		slot++;
	assert(slot < SESSION_OPS_MAX);
	s->ops_used |= 1u << slot;
	return &s->ops[slot];
}

static enum dev_op dev_op_of(enum crash_op_kind kind)
{
	switch (kind) {
	case CRASH_WRITE:
		return DEV_WRITE;
	case CRASH_ZERO:
		return DEV_ZERO;
	case CRASH_DISCARD:
		return DEV_DISCARD;
	case CRASH_READ:
		return DEV_READ;
	default:
		return DEV_FLUSH;
	}
}

static void prepare(struct crash_session *s, struct sim_op *op, const struct crash_op *spec)
{
	size_t slot = (size_t)(op - s->ops);
	struct oracle *o = s->u->oracle;

	memset(op, 0, sizeof(*op));
	op->owner = s;
	op->done = op_finished;
	op->taken = op_taken;
	op->lba = spec->lba;
	op->sectors = spec->sectors;
	op->req.op = dev_op_of(spec->kind);
	if (op->req.op == DEV_WRITE && op->sectors > wlog_max_io_bytes(s->sh.log) / 512)
		op->sectors = wlog_max_io_bytes(s->sh.log) / 512;
	op->req.fua = spec->fua && op->req.op != DEV_READ && op->req.op != DEV_FLUSH;
	op->req.off_bytes = (s->u->cfg->lba_base + spec->lba) * DEV_SECTOR_BYTES;
	dev_req_buf(&op->req, s->mem[slot], (size_t)op->sectors * DEV_SECTOR_BYTES);
	if (op->req.op == DEV_FLUSH) {
		op->mark = oracle_mark(o);
		op->req.len_bytes = 0;
	} else if (op->req.op == DEV_READ) {
		oracle_read_floor(o, op->lba, op->sectors, s->floors[slot]);
		memset(s->mem[slot], 0xa5, op->req.len_bytes);
	} else {
		op->id = oracle_write(o, op->req.op == DEV_WRITE ? ORACLE_DATA : ORACLE_ZERO,
				      op->lba, op->sectors);
		oracle_stamp(o, op->id, op->lba, s->mem[slot], op->sectors);
	}
}

void session_submit(struct crash_session *s, const struct crash_op *spec)
{
	struct sim_op *op;
	int rc;

	progress(s);
	if (spec->kind == CRASH_DRAIN || spec->kind == CRASH_CHECKPOINT) {
		make_wish(s, spec->kind == CRASH_CHECKPOINT);
		return;
	}
	if (spec->kind == CRASH_PAUSE || spec->kind == CRASH_REOPEN)
		return;
	op = take_slot(s);
	prepare(s, op, spec);
	crash_trace("%s%s lba %u+%u id %llu mark %u", op_name(op->req.op),
		    op->req.fua ? " fua" : "", op->lba, op->sectors, (unsigned long long)op->id,
		    op->mark);
	rc = sim_host_submit(&s->sh, op);
	if (rc) {
		s->ops_used &= ~(1u << (op - s->ops));
		op->req.result = rc;
		op_failed(s, op);
	}
}

/* ---- sessions -------------------------------------------------------------------------------- */

struct crash_session *session_new(const struct crash_target *t, struct crash_universe *u,
				  uint64_t seed)
{
	return session_new_on(t, u, seed, 0, u->disk);
}

struct crash_session *session_new_on(const struct crash_target *t, struct crash_universe *u,
				     uint64_t seed, unsigned int machine, struct sim_disk *disk)
{
	struct crash_session *s = calloc(1, sizeof(*s));

	assert(s);
	s->target = t;
	s->u = u;
	sim_host_init(&s->sh, &u->world, seed);
	s->sh.owner = s;
	s->sh.tick = t->tick;
	must(sim_dev_open(disk, &s->sh.dev), "opening the disk");
	s->cache = s->sh.dev;
	if (u->bucket)
		must(sim_store_open(u->bucket, machine, &s->sh.store), "opening the bucket");
	if (u->backing)
		must(sim_dev_open(u->backing, &s->sh.backing), "opening the backing disk");
	s->backing = s->sh.backing;
	for (unsigned int i = 0; i < SESSION_OPS_MAX; i++) {
		s->mem[i] = malloc((size_t)u->cfg->sectors * DEV_SECTOR_BYTES);
		s->floors[i] = malloc(u->cfg->sectors * sizeof(*s->floors[i]));
		assert(s->mem[i] && s->floors[i]);
	}
	return s;
}

static void session_free(struct crash_session *s)
{
	dev_close(s->sh.dev);
	dev_close(s->sh.backing);
	store_close(s->sh.store);
	for (unsigned int i = 0; i < SESSION_OPS_MAX; i++) {
		free(s->mem[i]);
		free(s->floors[i]);
	}
	free(s);
}

int session_open(struct crash_session *s, bool discard_cache, struct err *err)
{
	int rc = s->target->open(s, discard_cache, err);

	if (!rc)
		rc = s->target->acquire(s, err);
	s->acquired = !rc;
	progress(s);
	crash_trace("open%s: %d %s", discard_cache ? " without the cache" : "", rc,
		    rc ? err_text(err, rc) : "");
	return rc;
}

static void check_progress(const struct crash_session *s)
{
	if (!s->sh.in_flight && !s->busy_wishes)
		return;
	if (s->sh.steps - s->progress_step > STALL_STEPS)
		crash_fail("no operation ends any more: %u in flight, after %u steps",
			   s->sh.in_flight, STALL_STEPS);
	if (s->u->world.clock_ns - s->progress_ns > STALL_NS)
		crash_fail("no operation ends any more: %u in flight, after %llu s of waiting",
			   s->sh.in_flight, (unsigned long long)(STALL_NS / 1000000000));
}

/* What the engine reports to be in the home may not be lost with the cache. */
static void note_home(struct crash_session *s)
{
	struct oracle *o = s->u->oracle;
	uint32_t before = o->lo_home;
	uint64_t lsn = s->target->destaged_lsn(s);

	oracle_destaged_lsn(o, lsn);
	if (o->lo_home != before)
		crash_trace("the home has no. %u, LSN %llu", o->lo_home, (unsigned long long)lsn);
}

bool session_step(struct crash_session *s)
{
	bool more = sim_host_step(&s->sh);

	if (s->u->world.power_off)
		return false;
	if (!more && (s->sh.in_flight || s->busy_wishes))
		crash_fail("hangs: %u operations in flight and nothing that could end them",
			   s->sh.in_flight);
	check_progress(s);
	if (s->acquired && !s->reading && s->sh.steps % 8 == 0)
		note_home(s);
	return more;
}

void session_settle(struct crash_session *s)
{
	while ((s->sh.in_flight || s->busy_wishes) && session_step(s))
		;
}

/* What may be there is for the caller to judge. */
static void read_all_done(struct sim_op *op)
{
	struct crash_session *s = op->owner;

	s->ops_used &= ~(1u << (op - s->ops));
	progress(s);
}

int session_read_range(struct crash_session *s, uint32_t lba, uint32_t n, void *to)
{
	struct sim_op *op = take_slot(s);
	size_t slot = (size_t)(op - s->ops);

	prepare(s, op, &(struct crash_op){.kind = CRASH_READ, .lba = lba, .sectors = n});
	op->done = read_all_done;
	/*
	 * Before a recovery is judged the oracle does not know which writes it has dropped, so that
	 * their LSNs say nothing.
	 */
	s->reading = true;
	progress(s);
	sim_host_submit(&s->sh, op);
	while (s->sh.in_flight && session_step(s))
		;
	s->reading = false;
	if (s->u->world.power_off)
		return -ENODEV;
	memcpy(to, s->mem[slot], (size_t)n * DEV_SECTOR_BYTES);
	return op->req.result;
}

int session_read(struct crash_session *s, uint32_t lba, void *sector)
{
	return session_read_range(s, lba, 1, sector);
}

bool session_read_all(struct crash_session *s, uint64_t *ids, int *ret_error)
{
	uint32_t sectors = s->u->cfg->sectors;
	uint8_t *all = malloc((size_t)sectors * DEV_SECTOR_BYTES);

	assert(all);
	*ret_error = 0;
	for (uint32_t lba = 0; lba < sectors && !*ret_error; lba += READ_SECTORS) {
		uint32_t n = sectors - lba < READ_SECTORS ? sectors - lba : READ_SECTORS;

		*ret_error = session_read_range(s, lba, n, all + (size_t)lba * DEV_SECTOR_BYTES);
	}
	if (!*ret_error && !oracle_decode_all(s->u->oracle, all, ids))
		crash_fail("after recovery: %s", s->u->oracle->text);
	free(all);
	return !*ret_error;
}

/* A wish to the end; false when the power is off. */
static bool fulfil(struct crash_session *s, bool checkpoint)
{
	make_wish(s, checkpoint);
	session_settle(s);
	return !s->u->world.power_off;
}

bool session_close(struct crash_session *s)
{
	struct err err = ERR_INIT;
	struct oracle *o = s->u->oracle;
	int rc;

	session_settle(s);
	if (s->u->world.power_off || !fulfil(s, false) || !fulfil(s, true)) {
		session_abandon(s);
		return false;
	}
	while (!s->target->idle(s) && session_step(s))
		;
	rc = s->u->world.power_off ? 0 : s->target->release(s, &err);
	if (s->u->world.power_off) {
		session_abandon(s);
		return false;
	}
	crash_trace("close: %d", rc);
	if (rc && !s->u->tolerant)
		crash_fail("a clean close: %s", err_text(&err, rc));
	if (!rc) {
		oracle_destaged(o, oracle_mark(o));
		universe_check_home(s->u, true);
		s->u->home_unknown = false;
	}
	session_abandon(s);
	return true;
}

void session_abandon(struct crash_session *s)
{
	unsigned int rounds = 0;
	bool power_off = s->u->world.power_off;

	s->dead = true;
	/* Whatever it submits while it is brought down must not reach the media. */
	s->u->world.power_off = true;
	if (s->engine && s->target->stop)
		s->target->stop(s);
	while (s->engine) {
		while (sim_host_bury(&s->sh))
			;
		if (s->target->idle(s))
			break;
		if (rounds++ > BURY_ROUNDS)
			crash_fail("does not become idle when its devices are gone");
		/* What is repeated until a timeout gets its time. */
		s->u->world.clock_ns += BURY_STEP_NS;
		host_enter(&s->sh.host);
		s->target->tick(&s->sh);
		host_leave(&s->sh.host);
	}
	if (s->engine)
		s->target->close(s);
	s->u->world.power_off = power_off;
	session_free(s);
}

void session_kill(struct crash_session *s, struct sim_keep keep)
{
	crash_trace("kill");
	sim_dev_kill(s->sh.dev);
	if (s->sh.backing)
		sim_dev_kill(s->sh.backing);
	if (s->sh.store)
		sim_store_kill(s->sh.store, keep);
	session_abandon(s);
}
