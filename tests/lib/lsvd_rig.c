/* SPDX-License-Identifier: BSD-3-Clause */
#include "lib/lsvd_rig.h"

#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"

#define MAX_IO_SECTORS 512u

static void rig_tick(struct host_single *hs)
{
	struct lsvd_rig *rig = hs->owner;

	if (rig->lsvd)
		lsvd_tick(rig->lsvd);
}

static void rig_open_media(struct lsvd_rig *rig)
{
	const struct dev_mem_options opt = {.bytes = rig->cache_bytes};

	CHECK_OK(sim_store_open(rig->bucket, 1, &rig->store));
	CHECK_OK(dev_mem_open(&opt, &rig->cache, NULL));
	rig->hs.store = rig->store;
	rig->hs.dev = rig->cache;
}

static void rig_close_media(struct lsvd_rig *rig)
{
	store_close(rig->store);
	dev_close(rig->cache);
	rig->store = rig->hs.store = NULL;
	rig->cache = rig->hs.dev = NULL;
}

static void rig_format(struct lsvd_rig *rig)
{
	const struct wlog_format_options opt = {
		.id.log_uuid = uuid_from_bits(rng_next(&rig->hs.rng), 1),
		.random = rng_next(&rig->hs.rng),
	};

	CHECK_OK(wlog_format(rig->cache, &opt, NULL, &rig->err));
}

struct lsvd_rig *rig_new(uint64_t seed)
{
	struct lsvd_rig *rig = calloc(1, sizeof(*rig));
	const struct sim_bucket_options bopt = {0};
	struct lsvd_create_options copt = {.size_bytes = RIG_SECTORS * DEV_SECTOR_BYTES};

	CHECK(rig != NULL);
	host_single_init(&rig->hs, seed);
	sim_world_init(&rig->world, seed);
	rig->hs.world = &rig->world;
	rig->hs.owner = rig;
	rig->hs.tick = rig_tick;
	CHECK_OK(sim_bucket_new(&rig->world, &bopt, &rig->bucket));
	CHECK_OK(dev_mem_bytes_new(RIG_CACHE_BYTES, &rig->cache_bytes));
	rig_open_media(rig);
	rig->uuid = copt.uuid = uuid_from_bits(seed, 77);
	CHECK_OK(lsvd_create(rig->store, RIG_NAME, &copt, &rig->err));
	rig_format(rig);
	lsvd_options_default(&rig->opt);
	rig->opt.log.segment_bytes = 64u << 10;
	rig->opt.log.buffers = 16;
	rig->opt.batch_bytes = 128u << 10;
	rig->opt.checkpoint_part_bytes = 4096;
	rig->opt.shard_sectors_log2 = 11;
	return rig;
}

void rig_free(struct lsvd_rig *rig)
{
	if (rig->lsvd)
		rig_crash(rig);
	rig_close_media(rig);
	sim_bucket_free(rig->bucket);
	dev_mem_bytes_put(rig->cache_bytes);
	free(rig);
}

int rig_look(struct lsvd_rig *rig, bool with_cache, bool discard)
{
	int r;

	err_clear(&rig->err);
	r = lsvd_open(&rig->hs.host, rig->store, RIG_NAME, with_cache ? rig->cache : NULL, discard,
		      &rig->opt, &rig->lsvd, &rig->cut, &rig->err);
	if (r) {
		rig->lsvd = NULL;
		test_note("open: %s", rig->err.text);
	}
	return r;
}

int rig_acquire(struct lsvd_rig *rig)
{
	const int r = lsvd_acquire(rig->lsvd, &rig->err);

	if (r)
		test_note("acquire: %s", rig->err.text);
	return r;
}

int rig_open(struct lsvd_rig *rig)
{
	int r = rig_look(rig, true, false);

	if (r)
		return r;
	r = rig_acquire(rig);
	if (r) {
		lsvd_close(rig->lsvd);
		rig->lsvd = NULL;
	}
	return r;
}

void rig_release(struct lsvd_rig *rig)
{
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_checkpoint(rig));
	CHECK_OK(lsvd_release(rig->lsvd, &rig->err));
	host_single_settle(&rig->hs);
	CHECK(lsvd_idle(rig->lsvd));
	lsvd_close(rig->lsvd);
	rig->lsvd = NULL;
}

void rig_close(struct lsvd_rig *rig)
{
	host_enter(&rig->hs.host);
	lsvd_stop(rig->lsvd);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	CHECK(lsvd_idle(rig->lsvd));
	lsvd_close(rig->lsvd);
	rig->lsvd = NULL;
	rig->hs.wake_ns = UINT64_MAX;
}

void rig_crash(struct lsvd_rig *rig)
{
	rig_crash_keep(rig, SIM_KEEP_ALL);
}

void rig_crash_keep(struct lsvd_rig *rig, struct sim_keep keep)
{
	sim_bucket_crash(rig->bucket, keep);
	list_init(&rig->hs.works);
	lsvd_close(rig->lsvd);
	rig->lsvd = NULL;
	rig->hs.wake_ns = UINT64_MAX;
	list_init(&rig->hs.host.ready);
	rig_close_media(rig);
	rig_open_media(rig);
}

/* ---- requests */

static void rig_fill(uint8_t *buf, uint32_t lba, uint32_t sectors, uint32_t mark)
{
	for (uint32_t i = 0; i < sectors; i++) {
		uint32_t *at = (void *)(buf + (size_t)i * DEV_SECTOR_BYTES);

		for (unsigned k = 0; k < DEV_SECTOR_BYTES / 8; k++) {
			at[2 * k] = mark;
			at[2 * k + 1] = mark ? lba + i : 0;
		}
	}
}

int rig_write(struct lsvd_rig *rig, uint32_t lba, uint32_t sectors)
{
	uint8_t *buf = malloc((size_t)sectors * DEV_SECTOR_BYTES);
	const uint32_t mark = ++rig->next_mark;
	int r;

	rig_fill(buf, lba, sectors, mark);
	r = host_single_io(&rig->hs, lsvd_log(rig->lsvd), DEV_WRITE, lba, sectors, buf, false);
	for (uint32_t i = 0; !r && i < sectors; i++)
		rig->oracle[lba + i] = mark;
	free(buf);
	return r;
}

int rig_zero(struct lsvd_rig *rig, enum dev_op op, uint32_t lba, uint32_t sectors)
{
	int r = host_single_io(&rig->hs, lsvd_log(rig->lsvd), op, lba, sectors, NULL, false);

	for (uint32_t i = 0; !r && i < sectors; i++)
		rig->oracle[lba + i] = 0;
	return r;
}

int rig_flush(struct lsvd_rig *rig)
{
	return host_single_io(&rig->hs, lsvd_log(rig->lsvd), DEV_FLUSH, 0, 0, NULL, false);
}

struct rig_wait {
	struct drain drain;
	bool done;
	int error;
};

static void rig_wait_done(struct drain *drain, int error)
{
	struct rig_wait *w = container_of(drain, struct rig_wait, drain);

	w->done = true;
	w->error = error;
}

static int rig_wait(struct lsvd_rig *rig, void (*fn)(struct lsvd *, struct drain *))
{
	struct rig_wait w = {.drain.done = rig_wait_done};

	host_enter(&rig->hs.host);
	fn(rig->lsvd, &w.drain);
	host_leave(&rig->hs.host);
	for (unsigned i = 0; !w.done && i < 100000; i++)
		host_single_advance(&rig->hs, 10000000);
	CHECK(w.done);
	return w.error;
}

int rig_drain(struct lsvd_rig *rig)
{
	return rig_wait(rig, lsvd_drain);
}

int rig_checkpoint(struct lsvd_rig *rig)
{
	return rig_wait(rig, lsvd_checkpoint);
}

struct rig_direct {
	struct dev_req req;
	bool done;
};

static void rig_direct_done(struct dev_req *req)
{
	container_of(req, struct rig_direct, req)->done = true;
}

int rig_gc(struct lsvd_rig *rig)
{
	return rig_wait(rig, lsvd_gc);
}

int rig_read(struct lsvd_rig *rig, uint32_t lba, uint32_t sectors, void *buf)
{
	struct rig_direct d = {.req = {.op = DEV_READ, .done = rig_direct_done}};

	if (lsvd_log(rig->lsvd))
		return host_single_io(&rig->hs, lsvd_log(rig->lsvd), DEV_READ, lba, sectors, buf,
				      false);
	d.req.off_bytes = (uint64_t)lba * DEV_SECTOR_BYTES;
	dev_req_buf(&d.req, buf, (size_t)sectors * DEV_SECTOR_BYTES);
	host_enter(&rig->hs.host);
	lsvd_read(rig->lsvd, &d.req);
	host_leave(&rig->hs.host);
	for (unsigned i = 0; !d.done && i < 100000; i++)
		host_single_advance(&rig->hs, 10000000);
	CHECK(d.done);
	return d.req.result;
}

void rig_verify(struct lsvd_rig *rig)
{
	uint8_t *buf = malloc(MAX_IO_SECTORS * DEV_SECTOR_BYTES);
	uint8_t want[DEV_SECTOR_BYTES];

	for (uint32_t lba = 0; lba < RIG_SECTORS; lba += MAX_IO_SECTORS) {
		CHECK_OK(rig_read(rig, lba, MAX_IO_SECTORS, buf));
		for (uint32_t i = 0; i < MAX_IO_SECTORS; i++) {
			rig_fill(want, lba + i, 1, rig->oracle[lba + i]);
			if (memcmp(buf + (size_t)i * DEV_SECTOR_BYTES, want, sizeof(want)) != 0) {
				const uint32_t *got = (void *)(buf + (size_t)i * DEV_SECTOR_BYTES);

				FAIL("sector %u: has mark %u of lba %u, should have %u", lba + i,
				     got[0], got[1], rig->oracle[lba + i]);
			}
		}
	}
	free(buf);
}

void rig_random_op(struct lsvd_rig *rig)
{
	struct rng *rng = &rig->hs.rng;
	const uint32_t sectors = (uint32_t)rng_between(rng, 1, rng_chance(rng, 1, 8) ? 300 : 24);
	const uint32_t lba = (uint32_t)rng_below(rng, RIG_SECTORS - sectors);
	const uint64_t what = rng_below(rng, 16);

	if (what == 0)
		CHECK_OK(rig_zero(rig, DEV_DISCARD, lba, sectors));
	else if (what == 1)
		CHECK_OK(rig_zero(rig, DEV_ZERO, lba, sectors));
	else if (what == 2)
		CHECK_OK(rig_flush(rig));
	else
		CHECK_OK(rig_write(rig, lba, sectors));
}

/* ---- media */

void rig_set_cache(struct lsvd_rig *rig, struct dev_mem_bytes *bytes)
{
	rig_close_media(rig);
	rig->cache_bytes = bytes;
	rig_open_media(rig);
}

struct dev_mem_bytes *rig_new_cache(struct lsvd_rig *rig)
{
	struct dev_mem_bytes *old = rig->cache_bytes, *bytes;

	CHECK_OK(dev_mem_bytes_new(RIG_CACHE_BYTES, &bytes));
	rig_set_cache(rig, bytes);
	rig_format(rig);
	return old;
}

struct dev_mem_bytes *rig_copy_cache(struct lsvd_rig *rig)
{
	struct dev_mem_bytes *bytes;

	CHECK_OK(dev_mem_bytes_new(RIG_CACHE_BYTES, &bytes));
	memcpy(dev_mem_bytes_data(bytes), dev_mem_bytes_data(rig->cache_bytes), RIG_CACHE_BYTES);
	return bytes;
}

static bool rig_is(const char *key, char kind)
{
	const size_t len = strlen(RIG_NAME);

	if (strncmp(key, RIG_NAME ".", len + 1) != 0)
		return false;
	if (kind == 'd')
		return key[len + 1] != 'c' && key[len + 1] != 'r';
	return key[len + 1] == kind;
}

const char *rig_object(struct lsvd_rig *rig, char kind, unsigned n)
{
	for (size_t i = 0; i < sim_bucket_count(rig->bucket); i++) {
		const char *key = sim_bucket_key(rig->bucket, i);

		if (rig_is(key, kind) && n-- == 0)
			return key;
	}
	return NULL;
}

unsigned rig_objects(struct lsvd_rig *rig, char kind)
{
	unsigned n = 0;

	while (rig_object(rig, kind, n))
		n++;
	return n;
}

uint64_t rig_bytes(struct lsvd_rig *rig, char kind)
{
	uint64_t sum = 0;
	const char *key;
	size_t len;

	for (unsigned i = 0; (key = rig_object(rig, kind, i)); i++) {
		sim_bucket_body(rig->bucket, key, &len);
		sum += len;
	}
	return sum;
}

void rig_rot(struct lsvd_rig *rig, const char *key, size_t off_bytes)
{
	char name[STORE_KEY_MAX + 1];
	const void *body;
	uint8_t *bent;
	size_t len;

	CHECK(key != NULL);
	memcpy(name, key, strlen(key) + 1);
	body = sim_bucket_body(rig->bucket, name, &len);
	CHECK(body != NULL && off_bytes < len);
	bent = malloc(len);
	memcpy(bent, body, len);
	bent[off_bytes] ^= 0x10;
	CHECK_OK(sim_bucket_lose(rig->bucket, name));
	CHECK_OK(store_put_new(rig->store, name, bent, len));
	free(bent);
}
