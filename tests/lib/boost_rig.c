/* SPDX-License-Identifier: BSD-3-Clause */
#include "lib/boost_rig.h"

#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"

#define MAX_IO_SECTORS 512u
#define STEP_NS UINT64_C(10000000)

static void brig_tick(struct host_single *hs)
{
	struct brig *rig = hs->owner;

	if (rig->boost)
		boost_tick(rig->boost);
}

static struct brig *the_rig; /* a case has one */

static void brig_identity(struct dev *dev, char *ret)
{
	(void)dev;
	memcpy(ret, the_rig->identity, sizeof(the_rig->identity));
}

static void (*sim_submit)(struct dev *dev, struct dev_req *req);

static void brig_submit(struct dev *dev, struct dev_req *req)
{
	if (req->op != DEV_READ && the_rig->nrequests < BRIG_REQUESTS)
		the_rig->requests[the_rig->nrequests++] =
			(struct brig_request){req->op, req->off_bytes, req->len_bytes};
	sim_submit(dev, req);
}

/* Shows so much less as cut_bytes says by now. */
static int brig_resize_look(struct dev *dev)
{
	dev->size_bytes = the_rig->backing_bytes - the_rig->cut_bytes;
	return 0;
}

static void brig_open_media(struct brig *rig)
{
	CHECK_OK(sim_dev_open(rig->cache_disk, &rig->cache));
	CHECK_OK(sim_dev_open(rig->backing_disk, &rig->backing));
	rig->backing_ops = *rig->backing->ops;
	rig->backing_ops.identity = brig_identity;
	sim_submit = rig->backing_ops.submit;
	rig->backing_ops.submit = brig_submit;
	rig->backing_ops.resize_look = brig_resize_look;
	rig->backing->ops = &rig->backing_ops;
	rig->backing->size_bytes = rig->backing_bytes - rig->cut_bytes;
	rig->backing->can_zero = rig->can_zero;
	rig->hs.dev = rig->cache;
	rig->hs.backing = rig->backing;
}

static void brig_close_media(struct brig *rig)
{
	dev_close(rig->cache);
	dev_close(rig->backing);
	rig->cache = rig->hs.dev = NULL;
	rig->backing = rig->hs.backing = NULL;
}

void brig_reopen_media(struct brig *rig)
{
	brig_close_media(rig);
	brig_open_media(rig);
}

void brig_format(struct brig *rig)
{
	const struct wlog_format_options opt = {
		.id.log_uuid = uuid_from_bits(rng_next(&rig->hs.rng), 1),
		.random = rng_next(&rig->hs.rng),
		.force = true,
	};

	CHECK_OK(wlog_format(rig->cache, &opt, NULL, &rig->err));
}

struct brig *brig_new(uint64_t seed, const struct brig_options *opt)
{
	const struct brig_options none = {0}, *o = opt ? opt : &none;
	struct brig *rig = calloc(1, sizeof(*rig));
	struct sim_disk_options cache = {.size_bytes = o->cache_bytes};
	struct sim_disk_options backing = {.size_bytes = o->backing_bytes,
					   .block_bytes = o->block_bytes};

	CHECK(rig != NULL);
	if (!cache.size_bytes)
		cache.size_bytes = BRIG_CACHE_BYTES;
	if (!backing.size_bytes)
		backing.size_bytes = BRIG_SECTORS * DEV_SECTOR_BYTES;
	the_rig = rig;
	host_single_init(&rig->hs, seed);
	sim_world_init(&rig->world, seed);
	rig->hs.world = &rig->world;
	rig->hs.owner = rig;
	rig->hs.tick = brig_tick;
	rig->can_zero = true;
	rig->block_bytes = o->block_bytes ? o->block_bytes : DEV_SECTOR_BYTES;
	rig->backing_bytes = backing.size_bytes;
	rig->sectors = (uint32_t)(backing.size_bytes / DEV_SECTOR_BYTES);
	rig->oracle = calloc(rig->sectors, sizeof(*rig->oracle));
	CHECK(rig->oracle != NULL);
	CHECK_OK(sim_disk_new(&rig->world, &cache, &rig->cache_disk));
	CHECK_OK(sim_disk_new(&rig->world, &backing, &rig->backing_disk));
	brig_open_media(rig);
	brig_format(rig);
	boost_options_default(&rig->opt);
	rig->opt.log.segment_bytes = 64u << 10;
	rig->opt.log.buffers = 16;
	rig->opt.nr_max_batched_migration = 4;
	return rig;
}

void brig_free(struct brig *rig)
{
	if (rig->boost)
		brig_crash(rig, SIM_KEEP_ALL);
	brig_close_media(rig);
	sim_disk_free(rig->cache_disk);
	sim_disk_free(rig->backing_disk);
	free(rig->oracle);
	free(rig);
}

int brig_look(struct brig *rig, bool with_cache, bool discard)
{
	int r;

	err_clear(&rig->err);
	r = boost_open(&rig->hs.host, rig->backing, with_cache ? rig->cache : NULL, discard,
		       &rig->opt, &rig->boost, &rig->boost_cut, &rig->err);
	if (r) {
		rig->boost = NULL;
		CHECK(rig->err.text[0] != 0);
		test_note("open: %s", rig->err.text);
	}
	return r;
}

int brig_acquire(struct brig *rig)
{
	const int r = boost_acquire(rig->boost, &rig->err);

	if (r)
		test_note("acquire: %s", rig->err.text);
	return r;
}

int brig_open(struct brig *rig)
{
	int r = brig_look(rig, true, false);

	if (r)
		return r;
	r = brig_acquire(rig);
	if (r) {
		boost_close(rig->boost);
		rig->boost = NULL;
	}
	return r;
}

static void brig_gone(struct brig *rig)
{
	boost_close(rig->boost);
	rig->boost = NULL;
	rig->hs.wake_ns = UINT64_MAX;
}

void brig_release(struct brig *rig)
{
	CHECK_OK(brig_drain(rig));
	CHECK_OK(boost_release(rig->boost, &rig->err));
	host_single_settle(&rig->hs);
	CHECK(boost_idle(rig->boost));
	brig_gone(rig);
}

void brig_close(struct brig *rig)
{
	host_enter(&rig->hs.host);
	boost_stop(rig->boost);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	CHECK(boost_idle(rig->boost));
	brig_gone(rig);
}

void brig_crash(struct brig *rig, struct sim_keep keep)
{
	CHECK_OK(sim_disk_crash(rig->cache_disk, keep));
	CHECK_OK(sim_disk_crash(rig->backing_disk, keep));
	list_init(&rig->hs.works);
	brig_gone(rig);
	list_init(&rig->hs.host.ready);
	list_init(&rig->hs.host.fills);
	brig_close_media(rig);
	brig_open_media(rig);
}

/* ---- requests */

static void brig_fill(uint8_t *buf, uint32_t lba, uint32_t sectors, uint32_t mark)
{
	for (uint32_t i = 0; i < sectors; i++) {
		uint32_t *at = (void *)(buf + (size_t)i * DEV_SECTOR_BYTES);

		for (unsigned int k = 0; k < DEV_SECTOR_BYTES / 8; k++) {
			at[2 * k] = mark;
			at[2 * k + 1] = mark ? lba + i : 0;
		}
	}
}

int brig_write(struct brig *rig, uint32_t lba, uint32_t sectors)
{
	uint8_t *buf = malloc((size_t)sectors * DEV_SECTOR_BYTES);
	const uint32_t mark = ++rig->next_mark;
	int r;

	brig_fill(buf, lba, sectors, mark);
	r = host_single_io(&rig->hs, boost_log(rig->boost), DEV_WRITE, lba, sectors, buf, false);
	for (uint32_t i = 0; !r && i < sectors; i++)
		rig->oracle[lba + i] = mark;
	free(buf);
	return r;
}

int brig_zero(struct brig *rig, enum dev_op op, uint32_t lba, uint32_t sectors)
{
	int r = host_single_io(&rig->hs, boost_log(rig->boost), op, lba, sectors, NULL, false);

	for (uint32_t i = 0; !r && i < sectors; i++)
		rig->oracle[lba + i] = 0;
	return r;
}

int brig_flush(struct brig *rig)
{
	return host_single_io(&rig->hs, boost_log(rig->boost), DEV_FLUSH, 0, 0, NULL, false);
}

struct brig_wait {
	struct drain drain;
	bool done;
	int error;
};

static void brig_wait_done(struct drain *drain, int error)
{
	struct brig_wait *w = container_of(drain, struct brig_wait, drain);

	w->done = true;
	w->error = error;
}

int brig_drain(struct brig *rig)
{
	struct brig_wait w = {.drain.done = brig_wait_done};

	host_enter(&rig->hs.host);
	boost_drain(rig->boost, &w.drain);
	host_leave(&rig->hs.host);
	for (unsigned int i = 0; !w.done && i < 100000; i++)
		host_single_advance(&rig->hs, STEP_NS);
	CHECK(w.done);
	return w.error;
}

struct brig_direct {
	struct dev_req req;
	bool done;
};

static void brig_direct_done(struct dev_req *req)
{
	container_of(req, struct brig_direct, req)->done = true;
}

int brig_read(struct brig *rig, uint32_t lba, uint32_t sectors, void *buf)
{
	struct brig_direct d = {.req = {.op = DEV_READ, .done = brig_direct_done}};

	if (boost_log(rig->boost))
		return host_single_io(&rig->hs, boost_log(rig->boost), DEV_READ, lba, sectors, buf,
				      false);
	d.req.off_bytes = (uint64_t)lba * DEV_SECTOR_BYTES;
	dev_req_buf(&d.req, buf, (size_t)sectors * DEV_SECTOR_BYTES);
	host_enter(&rig->hs.host);
	boost_read(rig->boost, &d.req);
	host_leave(&rig->hs.host);
	for (unsigned int i = 0; !d.done && i < 1000; i++)
		host_single_advance(&rig->hs, STEP_NS);
	CHECK(d.done);
	return d.req.result;
}

/* ---- what there should be */

static void brig_compare(struct brig *rig, const uint8_t *buf, uint32_t lba, uint32_t sectors,
			 const char *where)
{
	uint8_t want[DEV_SECTOR_BYTES];

	for (uint32_t i = 0; i < sectors; i++) {
		const uint32_t *got = (const void *)(buf + (size_t)i * DEV_SECTOR_BYTES);

		brig_fill(want, lba + i, 1, rig->oracle[lba + i]);
		if (memcmp(got, want, sizeof(want)) != 0)
			FAIL("%s: sector %u has mark %u of lba %u, should have %u", where, lba + i,
			     got[0], got[1], rig->oracle[lba + i]);
	}
}

void brig_verify(struct brig *rig)
{
	uint8_t *buf = malloc(MAX_IO_SECTORS * DEV_SECTOR_BYTES);

	for (uint32_t lba = 0; lba < rig->sectors; lba += MAX_IO_SECTORS) {
		const uint32_t left = rig->sectors - lba;
		const uint32_t n = left < MAX_IO_SECTORS ? left : MAX_IO_SECTORS;

		CHECK_OK(brig_read(rig, lba, n, buf));
		brig_compare(rig, buf, lba, n, "volume");
	}
	free(buf);
}

void brig_verify_home(struct brig *rig)
{
	brig_compare(rig, sim_disk_durable(rig->backing_disk), 0, rig->sectors, "backing device");
}

uint32_t brig_home_mark(struct brig *rig, uint32_t lba)
{
	const uint8_t *bytes = sim_disk_durable(rig->backing_disk);
	uint32_t mark;

	memcpy(&mark, bytes + (size_t)lba * DEV_SECTOR_BYTES, sizeof(mark));
	return mark;
}

void brig_random_op(struct brig *rig)
{
	const uint32_t block = rig->block_bytes / DEV_SECTOR_BYTES;
	struct rng *rng = &rig->hs.rng;
	uint32_t sectors = (uint32_t)rng_between(rng, 1, rng_chance(rng, 1, 8) ? 300 : 24) * block;
	const uint64_t what = rng_below(rng, 16);
	uint32_t lba;

	if (sectors > rig->sectors / 2)
		sectors = block;
	lba = (uint32_t)rng_below(rng, (rig->sectors - sectors) / block + 1) * block;
	if (what == 0)
		CHECK_OK(brig_zero(rig, DEV_DISCARD, lba, sectors));
	else if (what == 1)
		CHECK_OK(brig_zero(rig, DEV_ZERO, lba, sectors));
	else if (what == 2)
		CHECK_OK(brig_flush(rig));
	else
		CHECK_OK(brig_write(rig, lba, sectors));
}

struct boost_status brig_status(struct brig *rig)
{
	struct boost_status st;

	host_enter(&rig->hs.host);
	boost_status(rig->boost, &st);
	host_leave(&rig->hs.host);
	return st;
}

void brig_fault(struct sim_disk *disk, enum dev_op op, uint64_t nth, uint64_t times)
{
	const struct sim_fault fault = {
		.kind = SIM_DEV_ERROR,
		.ops = 1u << op,
		.error = -5,
		.nth = nth,
		.times = times,
	};

	CHECK_OK(sim_disk_fault(disk, &fault));
}
