/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs of the crash harness; see crash.h.
 *
 * Two universes are used: the run's own, in which the program executes undisturbed, and one for
 * images, which is made anew from the first at each persistence point that is visited. The visit
 * happens inside the engine's submit or a completion, which is harmless: engines have no state
 * outside their own structures, and an image is only taken from media and the oracle.
 *
 * Generations after the first crash in place: the power goes off at a drawn event, the session is
 * abandoned, the media keep a drawn part of what was not durable.
 */
#include "lib/crash.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/tap.h"

#define OPS_MAX 256
#define RECOVERY_TRIES 5
#define EAGAIN_TRIES 8

struct run {
	const struct crash_profile *p;
	uint64_t seed;
	struct crash_config cfg;
	struct crash_op ops[OPS_MAX];
	bool dropped[OPS_MAX];
	uint32_t count;
	struct crash_universe main, image;
	struct oracle *main_oracle, *image_oracle;
	struct rng rng;      /* program and geometry, then which images are taken */
	struct rng pick;     /* which images are taken; apart, so that they change nothing */
	uint32_t stride, stride_left;
	uint64_t images;
	bool visiting;
};

/* ---- geometry and program -------------------------------------------------------------------- */

static uint32_t one_of(struct rng *rng, const uint32_t *from, uint32_t count)
{
	return from[rng_below(rng, count)];
}

#define ONE_OF(rng, ...)                                                                           \
	one_of(rng, (const uint32_t[]){__VA_ARGS__},                                               \
	       sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* Drawn last, so that it changes nothing for others. */
static void backing_random(struct crash_config *cfg, struct rng *rng)
{
	cfg->lba_base = ONE_OF(rng, 0, 0, 128, 264);
	cfg->backing_more = ONE_OF(rng, 0, 0, 4096, 256 << 10);
	cfg->block_bytes = ONE_OF(rng, 512, 512, 4096);
	cfg->batch_segments = ONE_OF(rng, 1, 2, 4, 32);
	cfg->adopt = rng_chance(rng, 1, 2);
	cfg->moody = rng_chance(rng, 1, 2);
}

void crash_config_random(struct crash_config *cfg, const struct crash_profile *p, struct rng *rng)
{
	uint32_t ring_kib = ONE_OF(rng, 64, 64, 68, 80, 96, 128, 256);

	if (p->disk_kib && ring_kib > p->disk_kib)
		ring_kib = p->disk_kib;
	if (ring_kib < p->disk_kib_min)
		ring_kib = p->disk_kib_min;
	memset(cfg, 0, sizeof(*cfg));
	cfg->sectors = ONE_OF(rng, 16, 40, 64, 96, 128);
	/* So that they lie on both sides of the border between two shards of a checkpoint. */
	if (p->target->has_store && rng_chance(rng, 1, 2))
		cfg->lba_base = 2048 - cfg->sectors / 2;
	cfg->disk_bytes = (128 + ring_kib) << 10;
	cfg->segment_bytes = ONE_OF(rng, 4096, 4096, 8192, 16384, 32768);
	cfg->buffers = ONE_OF(rng, 4, 4, 5, 8, 16);
	cfg->writes_in_flight = ONE_OF(rng, 1, 2, 4, 8);
	cfg->barrier_deadline_us = ONE_OF(rng, 0, 0, 100, 3000);
	cfg->batch_bytes = ONE_OF(rng, 4096, 8192, 16384, 32768, 65536);
	cfg->puts_in_flight = ONE_OF(rng, 1, 2, 3, 4, 8);
	cfg->checkpoint_objects = ONE_OF(rng, 1, 2, 3, 5, 16);
	cfg->part_bytes = ONE_OF(rng, 4096, 8192, 1u << 20);
	cfg->shard_log2 = ONE_OF(rng, 3, 4, 5, 25);
	cfg->header_cache_bytes = ONE_OF(rng, 0, 4096, 1u << 20);
	cfg->batch_age_ns = ONE_OF(rng, 1, 1000000, 2000000000);
	cfg->latency_ns = ONE_OF(rng, 0, 0, 0, 100000);
	cfg->jitter_ns = cfg->latency_ns * ONE_OF(rng, 0, 4);
	cfg->ops_in_flight = (uint32_t)rng_between(rng, 1, 8);
	cfg->max_write = ring_kib * 2 / 4;
	if (!p->big_writes && rng_chance(rng, 2, 3))
		cfg->max_write = (uint32_t)rng_between(rng, 1, 8);
	if (cfg->max_write > cfg->sectors)
		cfg->max_write = cfg->sectors;
	cfg->hot = ONE_OF(rng, 0, 1, 4, 12);
	cfg->lazy_home = rng_chance(rng, 1, 2);
	if (p->target->has_backing)
		backing_random(cfg, rng);
}

/* The blocks that it touches, whole. */
static void place_blocks(struct crash_op *op, uint32_t block)
{
	uint32_t end = (op->lba + op->sectors + block - 1) / block * block;

	op->lba = op->lba / block * block;
	op->sectors = end - op->lba;
}

static void place(struct crash_op *op, const struct crash_config *cfg, struct rng *rng)
{
	uint32_t within = cfg->hot && rng_chance(rng, 3, 4) ? cfg->hot : cfg->sectors;

	op->sectors = rng_chance(rng, 1, 2) ? 1 + (uint32_t)rng_below(rng, 2) :
					      1 + (uint32_t)rng_below(rng, cfg->max_write);
	op->lba = (uint32_t)rng_below(rng, within);
	if (op->sectors > cfg->sectors - op->lba)
		op->sectors = cfg->sectors - op->lba;
	if (cfg->block_bytes > DEV_SECTOR_BYTES)
		place_blocks(op, cfg->block_bytes / DEV_SECTOR_BYTES);
}

void crash_op_random(struct crash_op *op, const struct crash_config *cfg, struct rng *rng)
{
	static const struct {
		enum crash_op_kind kind;
		uint32_t weight;
	} mix[] = {
		{CRASH_WRITE, 60}, {CRASH_ZERO, 4},  {CRASH_DISCARD, 5},    {CRASH_READ, 12},
		{CRASH_FLUSH, 12}, {CRASH_DRAIN, 2}, {CRASH_CHECKPOINT, 2}, {CRASH_REOPEN, 1},
		{CRASH_PAUSE, 2},
	};
	uint64_t pick = rng_below(rng, 100);
	unsigned int i = 0;

	while (pick >= mix[i].weight)
		pick -= mix[i++].weight;
	op->kind = mix[i].kind;
	op->fua = rng_chance(rng, 1, 10);
	place(op, cfg, rng);
}

static void make_program(struct run *r)
{
	r->count = (uint32_t)rng_between(&r->rng, r->p->ops / 4 + 1, r->p->ops);
	assert(r->count <= OPS_MAX);
	for (uint32_t i = 0; i < r->count; i++)
		crash_op_random(&r->ops[i], &r->cfg, &r->rng);
}

/* ---- driving --------------------------------------------------------------------------------- */

/*
 * A new session, opened. -EAGAIN says that somebody else was at work meanwhile: a late request of
 * the dead owner.
 */
static int try_open(struct run *r, struct crash_universe *u, bool discard, uint64_t seed,
		    struct crash_session **ret, struct err *err)
{
	int rc = 0;

	for (uint64_t i = 0; i < EAGAIN_TRIES; i++) {
		*ret = session_new(r->p->target, u, seed + i);
		err_clear(err);
		rc = session_open(*ret, discard, err);
		if (rc != -EAGAIN || u->world.power_off)
			break;
		session_abandon(*ret);
		*ret = NULL;
	}
	if (rc == -EAGAIN)
		crash_fail("does not open: %s", err_text(err, rc));
	return rc;
}

/* Opens in a universe that must open. NULL when the power went off meanwhile. */
static struct crash_session *open_session(struct run *r, struct crash_universe *u)
{
	struct crash_session *s;
	struct err err = ERR_INIT;
	int rc = try_open(r, u, false, rng_next(&u->world.rng), &s, &err);

	if (u->world.power_off) {
		session_abandon(s);
		return NULL;
	}
	if (rc)
		crash_fail("does not open: %s", err_text(&err, rc));
	return s;
}

/* A clean close and another open; NULL when the power went off. */
static struct crash_session *reopen(struct run *r, struct crash_session *s)
{
	struct crash_universe *u = s->u;

	return session_close(s) ? open_session(r, u) : NULL;
}

/*
 * Runs the operations. Returns the session, which may be another by now, idle, or NULL when the
 * power has gone off and it has been abandoned.
 */
static struct crash_session *drive(struct run *r, struct crash_session *s,
				   const struct crash_op *ops, const bool *dropped, uint32_t count)
{
	struct sim_world *world = &s->u->world;
	uint32_t next = 0;

	for (;;) {
		while (next < count && dropped && dropped[next])
			next++;
		if (next < count && session_can(s, &ops[next]) &&
		    rng_chance(&s->sh.rng, 1, 3)) {
			if (ops[next].kind == CRASH_REOPEN)
				s = reopen(r, s);
			else
				session_submit(s, &ops[next]);
			next++;
		} else if (!session_step(s) && !world->power_off && next == count) {
			return s;
		} else if (next == count && !s->sh.in_flight && !s->busy_wishes) {
			return s;
		}
		if (!s)
			return NULL;
		if (world->power_off) {
			session_abandon(s);
			return NULL;
		}
	}
}

/* Reads everything and compares: nothing is under way, so there is one right answer. */
static bool check_now(struct crash_session *s)
{
	uint64_t ids[ORACLE_SECTORS_MAX];
	int error;

	if (!session_read_all(s, ids, &error)) {
		if (!s->u->world.power_off)
			crash_fail("reading everything: %s", strerror(-error));
		return false;
	}
	if (!oracle_check_prefix(s->u->oracle, ids, s->u->oracle->n, NULL))
		crash_fail("without a crash: %s", s->u->oracle->text);
	return true;
}

/* ---- exploring an image ---------------------------------------------------------------------- */

static struct sim_keep draw_keep(struct rng *rng)
{
	return SIM_KEEP_RANDOM(rng_next(rng));
}

/* Recovery, with power cuts inside. The session is open at the end. */
static struct crash_session *recover(struct run *r, struct crash_universe *u, struct rng *rng)
{
	struct crash_session *s;
	struct err err = ERR_INIT;
	bool discard = u->cache_lost && rng_chance(rng, 1, 2);
	int rc;

	for (unsigned int try = 0;; try++) {
		universe_check_home(u, false);

		bool cut = try < RECOVERY_TRIES &&
			   rng_chance(rng, r->p->cut_recovery_percent, 100);

		u->world.cut_at = cut ? u->world.events + 1 + rng_below(rng, 14) : 0;
		rc = try_open(r, u, discard, rng_next(rng), &s, &err);
		if (!u->world.power_off)
			break;
		crash_trace("cut inside recovery");
		session_abandon(s);
		universe_crash(u, draw_keep(rng));
	}
	u->world.cut_at = 0;
	if (rc && !discard && u->cache_lost) {
		/* P6: a missing cache is refused, until the user says to discard it. */
		if (rc != -ENODEV && rc != -EXDEV && rc != -ESTALE)
			crash_fail("a lost cache: %s", err_text(&err, rc));
		session_abandon(s);
		rc = try_open(r, u, true, rng_next(rng), &s, &err);
	}
	if (rc)
		crash_fail("does not recover: %s", err_text(&err, rc));
	return s;
}

/* The promises, on a session that has just recovered. The image becomes the base. */
static void judge(struct run *r, struct crash_session *s)
{
	struct oracle *o = s->u->oracle;
	uint64_t ids[ORACLE_SECTORS_MAX];
	uint32_t lo = s->u->cache_lost ? o->lo_home : o->lo;
	uint32_t end;
	int error;

	if (!session_read_all(s, ids, &error))
		crash_fail("reading after recovery: %s", strerror(-error));
	r->images++;
	if (s->u->cache_lost && s->u->backing) {
		/* No prefix without the cache: each sector by itself. */
		if (!oracle_check_home(o, ids, lo))
			crash_fail("the cache was lost; %s", o->text);
		oracle_rebase(o, ids);
		s->u->cache_lost = false;
		return;
	}
	if (!oracle_check_prefix(o, ids, lo, &end))
		crash_fail("%s%s", s->u->cache_lost ? "the cache was lost; " : "", o->text);
	crash_trace("image: %u of %u, at least %u", end, o->n, lo);
	oracle_recovered(o, end, s->u->cache_lost);
	s->u->cache_lost = false;
}

/* Of its own, that the cache can be lost in front of. */
static bool has_home(const struct crash_target *t)
{
	return t->has_store || t->has_backing;
}

/* More operations on a recovered volume, up to the next crash. False: closed, no crash. */
static bool live_on(struct run *r, struct crash_session *s, struct rng *rng)
{
	struct crash_universe *u = s->u;
	struct crash_op ops[16];
	uint32_t count = (uint32_t)rng_between(rng, 1, 16);
	bool kill = rng_chance(rng, r->p->kill_percent, 100);

	for (uint32_t i = 0; i < count; i++)
		crash_op_random(&ops[i], &r->cfg, rng);
	if (!kill)
		u->world.cut_at = u->world.events + 1 + rng_below(rng, 4 * count);
	s = drive(r, s, ops, NULL, count);
	if (s && kill) {
		session_kill(s, draw_keep(rng));
		return true;
	}
	if (s && rng_chance(rng, 1, 2) && check_now(s)) {
		/* It came to its end before the cut; so the cut is somewhere in the close. */
		u->world.cut_at = u->world.events + 1 + rng_below(rng, 12);
		if (session_close(s)) {
			u->world.cut_at = 0;
			return rng_chance(rng, 1, 2);
		}
	} else if (s) {
		session_abandon(s);
	}
	universe_crash(u, draw_keep(rng));
	if (has_home(r->p->target) && rng_chance(rng, r->p->lose_cache_percent, 100)) {
		crash_trace("the cache is lost");
		universe_lose_cache(u);
	}
	return true;
}

static void explore(struct run *r, struct crash_universe *u, uint64_t seed)
{
	uint32_t generations = r->p->generations ? r->p->generations : 1;
	struct rng rng;

	rng_seed(&rng, seed);
	rng_seed(&u->world.rng, rng_next(&rng));
	for (uint32_t gen = 1;; gen++) {
		struct crash_session *s = recover(r, u, &rng);

		judge(r, s);
		if (gen >= generations || rng_chance(&rng, 1, 3)) {
			session_abandon(s);
			return;
		}
		if (!live_on(r, s, &rng))
			return;
	}
}

static void visit_joint(struct run *r, struct sim_keep keep, struct sim_keep keep_home)
{
	uint64_t seed = rng_next(&r->pick);

	crash_trace_image(true);
	universe_image(&r->main, keep, keep_home, &r->image);
	crash_trace("crash at event %" PRIu64 ", keep %d %" PRIu64 " and %d %" PRIu64,
		    r->main.world.events, (int)keep.what, keep.n, (int)keep_home.what,
		    keep_home.n);
	if (has_home(r->p->target) && rng_chance(&r->pick, r->p->lose_cache_percent, 100)) {
		crash_trace("the cache is lost");
		universe_lose_cache(&r->image);
	}
	explore(r, &r->image, seed);
	crash_trace_image(false);
}

static void visit(struct run *r, struct sim_keep keep)
{
	visit_joint(r, keep, keep);
}

/* What one disk keeps beside nothing of the other, and each prefix of the home's writes. */
static void visit_backing(struct run *r)
{
	uint64_t loose = sim_disk_undurable(r->main.backing);

	if (loose == 0)
		return;
	visit_joint(r, SIM_KEEP_NONE, SIM_KEEP_ALL);
	visit_joint(r, SIM_KEEP_ALL, SIM_KEEP_NONE);
	for (uint64_t n = 1; n < loose && n < 4; n++)
		visit_joint(r, SIM_KEEP_NONE, SIM_KEEP_PREFIX(n));
	visit_joint(r, SIM_KEEP_NONE, draw_keep(&r->pick));
}

static void visit_all(struct run *r)
{
	uint64_t loose = sim_disk_undurable(r->main.disk);

	visit(r, SIM_KEEP_NONE);
	visit(r, SIM_KEEP_ALL);
	for (uint64_t n = 1; n < loose && n < 4; n++)
		visit(r, SIM_KEEP_PREFIX(n));
	if (loose > 0)
		visit(r, draw_keep(&r->pick));
	if (loose > 1)
		visit(r, draw_keep(&r->pick));
	if (r->main.backing)
		visit_backing(r);
}

static void on_event(struct sim_world *world, void *arg)
{
	struct run *r = arg;

	(void)world;
	if (r->visiting || --r->stride_left)
		return;
	r->visiting = true;
	r->stride_left = r->stride;
	if (r->p->dense)
		visit_all(r);
	else
		visit(r, draw_keep(&r->pick));
	r->visiting = false;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void run_program(struct run *r)
{
	struct crash_session *s;
	struct err err = ERR_INIT;
	int rc;

	universe_init(&r->main, r->p->target, &r->cfg, rng_next(&r->rng), r->main_oracle);
	universe_init(&r->image, r->p->target, &r->cfg, 1, r->image_oracle);
	rc = r->p->target->create(&r->main, &err);
	if (rc)
		crash_fail("creating: %s", err_text(&err, rc));
	r->main.world.on_event = on_event;
	r->main.world.on_event_arg = r;
	s = open_session(r, &r->main);
	s = drive(r, s, r->ops, r->dropped, r->count);
	if (check_now(s))
		session_close(s);
	if (sim_disk_scribbles(r->main.disk) ||
	    (r->main.backing && sim_disk_scribbles(r->main.backing)))
		crash_fail("memory of a write was changed before its completion");
	universe_free(&r->main);
	universe_free(&r->image);
}

/* One run; returns how many images it checked. dropped: operations to leave out, or NULL. */
static uint64_t run_seed(const struct crash_profile *p, uint64_t seed, const bool *dropped)
{
	struct run *r = calloc(1, sizeof(*r));
	uint64_t images;

	assert(r);
	crash_begin(p->test, seed);
	r->p = p;
	r->seed = seed;
	r->main_oracle = malloc(sizeof(*r->main_oracle));
	r->image_oracle = malloc(sizeof(*r->image_oracle));
	assert(r->main_oracle && r->image_oracle);
	rng_seed(&r->rng, seed);
	crash_config_random(&r->cfg, p, &r->rng);
	oracle_init(r->main_oracle, seed + 1, r->cfg.sectors);
	oracle_init(r->image_oracle, seed + 1, r->cfg.sectors);
	make_program(r);
	if (dropped)
		memcpy(r->dropped, dropped, sizeof(r->dropped));
	rng_seed(&r->pick, rng_next(&r->rng));
	r->stride = p->dense ? 1 : (uint32_t)rng_between(&r->rng, 1, 3);
	r->stride_left = r->stride;
	run_program(r);
	images = r->images;
	free(r->main_oracle);
	free(r->image_oracle);
	free(r);
	return images;
}

/* ---- shrinking ------------------------------------------------------------------------------- */

static bool still_fails(const struct crash_profile *p, uint64_t seed, const bool *dropped)
{
	int status = 0;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stderr))
			_exit(0);
		alarm(60);
		run_seed(p, seed, dropped);
		_exit(0);
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status != 0;
}

/* Drops pieces of the program, from halves down to single operations. */
static void shrink(const struct crash_profile *p, uint64_t seed)
{
	bool dropped[OPS_MAX] = {false}, attempt[OPS_MAX];
	uint32_t left = 0;

	if (!still_fails(p, seed, dropped)) {
		test_note("seed %" PRIu64 " does not fail", seed);
		return;
	}
	for (uint32_t piece = p->ops / 2; piece > 0; piece /= 2) {
		for (uint32_t at = 0; at < p->ops; at += piece) {
			uint32_t n = p->ops - at < piece ? p->ops - at : piece;

			memcpy(attempt, dropped, sizeof(attempt));
			memset(attempt + at, true, n);
			if (memcmp(attempt, dropped, sizeof(attempt)) != 0 &&
			    still_fails(p, seed, attempt))
				memcpy(dropped, attempt, sizeof(dropped));
		}
	}
	for (uint32_t i = 0; i < p->ops; i++)
		left += !dropped[i];
	test_note("shrunk to at most %u operations", left);
	run_seed(p, seed, dropped);
}

void crash_run(const struct crash_profile *p)
{
	uint64_t want = crash_images(p->share_ppm);
	uint64_t images = 0, runs = 0;
	bool only;

	do {
		uint64_t seed = crash_seed(runs, &only);

		if (only && getenv("VARVE_CRASH_SHRINK"))
			shrink(p, seed);
		else
			images += run_seed(p, seed, NULL);
		runs++;
	} while (!only && images < want);
	test_note("%" PRIu64 " images in %" PRIu64 " runs", images, runs);
}
