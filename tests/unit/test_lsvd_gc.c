/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection: what is moved, what is deleted and when, and that nothing else changes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/lsvd_check.h"
#include "lsvd/lsvd_impl.h"

static struct lsvd_status status(struct lsvd_rig *rig)
{
	struct lsvd_status st;

	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	return st;
}

static void copy_key(char *to, const char *from)
{
	CHECK(from != NULL);
	memcpy(to, from, strlen(from) + 1);
}

static void sound(struct lsvd_rig *rig)
{
	struct lsvd_check check = {0};

	CHECK_OK(lsvd_check(rig->store, RIG_NAME, &check, &rig->err));
	CHECK_EQ(check.problems, 0);
}

static void verify(struct lsvd_rig *rig)
{
	rig_verify(rig);
	CHECK(map_counts_right(rig->lsvd));
}

/* Nothing begins by itself; nothing has to grow old. */
static struct lsvd_rig *rig_quiet(void)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.gc_start_percent = 1;
	rig->opt.gc_stop_percent = 90;
	rig->opt.gc_min_age_ns = 0;
	rig->opt.shard_sectors_log2 = 25;
	return rig;
}

/* Objects of 32 writes of 8 sectors each; of each object three quarters are dead afterwards. */
static struct lsvd_rig *rig_with_garbage(void)
{
	struct lsvd_rig *rig = rig_quiet();

	CHECK_OK(rig_open(rig));
	for (uint32_t i = 0; i < 256; i++)
		CHECK_OK(rig_write(rig, i * 32, 8));
	CHECK_OK(rig_drain(rig));
	for (uint32_t i = 0; i < 256; i++) {
		if (i % 4)
			CHECK_OK(rig_write(rig, i * 32, 8));
	}
	CHECK_OK(rig_drain(rig));
	return rig;
}

static void reopen(struct lsvd_rig *rig)
{
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	verify(rig);
}

TEST(moves_what_is_live_and_deletes_the_rest)
{
	struct lsvd_rig *rig = rig_with_garbage();
	const uint64_t before = rig_bytes(rig, 'd');
	struct lsvd_status st;

	CHECK_OK(rig_gc(rig));
	st = status(rig);
	CHECK(st.gc_rounds > 0);
	CHECK_EQ(st.gc_moved_bytes, 64u * 4096);
	CHECK(st.gc_deleted > 0);
	CHECK_EQ(st.gc_waiting, 0);
	CHECK_EQ(st.live_sectors, 256u * 8);
	CHECK(st.live_sectors * 100 >= st.total_sectors * 90);
	CHECK(rig_bytes(rig, 'd') < before * 2 / 3);
	verify(rig);
	sound(rig);
	reopen(rig);
	rig_release(rig);
	sound(rig);
	rig_free(rig);
}

TEST(nothing_to_collect_is_told_at_once)
{
	struct lsvd_rig *rig = rig_quiet();

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_gc(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_gc(rig));
	CHECK_EQ(status(rig).gc_rounds, 0);
	verify(rig);
	rig_free(rig);
}

TEST(only_an_owner_collects)
{
	struct lsvd_rig *rig = rig_with_garbage();

	rig_crash(rig);
	CHECK_OK(rig_look(rig, true, false));
	CHECK_EQ(rig_gc(rig), -EPERM);
	rig_free(rig);
}

/* Small holes between what is live are moved along if there is data in them. */
TEST(small_holes_are_filled)
{
	struct lsvd_rig *rig = rig_quiet();
	uint64_t extents;

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 250));
	CHECK_OK(rig_drain(rig));
	for (uint32_t lba = 0; lba < 240; lba += 2)
		CHECK_OK(rig_write(rig, lba, 1));
	for (uint32_t lba = 1000; lba < 1200; lba += 2)
		CHECK_OK(rig_write(rig, lba, 1));
	CHECK_OK(rig_drain(rig));
	rig->opt.gc_stop_percent = 90;
	CHECK_OK(rig_gc(rig));
	extents = status(rig).map_extents;
	/* Its data had been cut into 120 pieces; it, and what lay between, is one again. */
	if (status(rig).gc_rounds)
		CHECK(status(rig).gc_filled_bytes > 0);
	CHECK(extents < 240 + 100);
	verify(rig);
	reopen(rig);
	rig_free(rig);
}

/* Objects that are dead wait for two checkpoints without them. */
TEST(dead_objects_wait_for_both_checkpoints)
{
	struct lsvd_rig *rig = rig_quiet();
	char key[STORE_KEY_MAX + 1];
	size_t len;

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	copy_key(key, rig_object(rig, 'd', 0));
	CHECK_OK(rig_checkpoint(rig));
	for (unsigned i = 0; i < 2; i++) {
		CHECK_OK(rig_write(rig, 0, 8));
		CHECK_OK(rig_drain(rig));
		host_single_advance(&rig->hs, UINT64_C(5000000000));
		CHECK(sim_bucket_body(rig->bucket, key, &len) != NULL);
		CHECK_OK(rig_checkpoint(rig));
	}
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_drain(rig));
	host_single_advance(&rig->hs, UINT64_C(5000000000));
	CHECK(sim_bucket_body(rig->bucket, key, &len) == NULL);
	verify(rig);
	sound(rig);
	rig_free(rig);
}

TEST(dead_objects_are_kept_for_their_age)
{
	struct lsvd_rig *rig = rig_quiet();
	unsigned objects;

	rig->opt.gc_min_age_ns = UINT64_C(60000000000);
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 4; i++) {
		CHECK_OK(rig_write(rig, 0, 8));
		CHECK_OK(rig_drain(rig));
	}
	CHECK_OK(rig_gc(rig));
	objects = rig_objects(rig, 'd');
	CHECK_EQ(objects, 4);
	CHECK_EQ(status(rig).gc_waiting, 3);
	for (unsigned i = 0; i < 70; i++)
		host_single_advance(&rig->hs, UINT64_C(1000000000));
	CHECK_EQ(rig_objects(rig, 'd'), 1);
	CHECK_EQ(status(rig).gc_waiting, 0);
	verify(rig);
	rig_free(rig);
}

/* What a former owner did not come to delete. */
TEST(next_owner_deletes_what_is_left)
{
	struct lsvd_rig *rig = rig_quiet();

	rig->opt.gc_min_age_ns = UINT64_C(3600000000000);
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 4; i++) {
		CHECK_OK(rig_write(rig, 0, 8));
		CHECK_OK(rig_drain(rig));
	}
	CHECK_OK(rig_gc(rig));
	CHECK_EQ(rig_objects(rig, 'd'), 4);
	rig->opt.gc_min_age_ns = 0;
	reopen(rig);
	CHECK_OK(rig_write(rig, 100, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_gc(rig));
	CHECK_EQ(rig_objects(rig, 'd'), 2);
	verify(rig);
	sound(rig);
	rig_free(rig);
}

TEST(damaged_data_stays_where_it_is)
{
	struct lsvd_rig *rig = rig_with_garbage();
	char key[STORE_KEY_MAX + 1];
	uint8_t buf[8 * DEV_SECTOR_BYTES];
	size_t len;

	copy_key(key, rig_object(rig, 'd', 0));
	sim_bucket_body(rig->bucket, key, &len);
	/* The first chunk of the first object: sectors 0 to 7, which are live. */
	rig_rot(rig, key, 4096 + 5);
	CHECK_OK(rig_gc(rig));
	CHECK(sim_bucket_body(rig->bucket, key, &len) != NULL);
	CHECK_EQ(rig_read(rig, 0, 8, buf), -EIO);
	CHECK_OK(rig_read(rig, 128, 8, buf));
	CHECK_OK(rig_write(rig, 0, 8));
	verify(rig);
	rig_free(rig);
}

/* Whatever is written, however often: what the store holds is bounded. */
static void bounded(enum lsvd_gc_policy policy)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	const uint64_t size = UINT64_C(2048) * DEV_SECTOR_BYTES;
	struct rng *rng = &rig->hs.rng;

	rig->opt.gc_policy = policy;
	rig->opt.gc_min_age_ns = 0;
	rig->opt.shard_sectors_log2 = 25;
	rig->opt.checkpoint_objects = 8;
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 6000; i++) {
		const uint32_t hot = rng_chance(rng, 3, 4) ? 256 : 2040;

		CHECK_OK(rig_write(rig, (uint32_t)rng_below(rng, hot),
				   (uint32_t)rng_between(rng, 1, 8)));
		if (i % 500 == 499) {
			CHECK_OK(rig_drain(rig));
			CHECK(rig_bytes(rig, 'd') < 5 * size);
			CHECK(rig_bytes(rig, 'c') < size / 4);
		}
		if (i % 1500 == 1499)
			reopen(rig);
	}
	CHECK_OK(rig_gc(rig));
	CHECK(rig_bytes(rig, 'd') < 2 * size);
	CHECK(status(rig).live_sectors * 100 >= status(rig).total_sectors * 70);
	verify(rig);
	rig_release(rig);
	sound(rig);
	rig_free(rig);
}

TEST(space_is_bounded_greedy)
{
	bounded(LSVD_GC_GREEDY);
}

TEST(space_is_bounded_cost_benefit)
{
	bounded(LSVD_GC_COST_BENEFIT);
}

TEST(rate_is_a_limit)
{
	struct lsvd_rig *rig = rig_with_garbage();
	uint64_t moved;

	rig_crash(rig);
	rig->opt.gc_rate = 64u << 10;
	rig->opt.gc_start_percent = 90;
	rig->opt.batch_bytes = 32u << 10;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_checkpoint(rig));
	CHECK_OK(rig_write(rig, 16000, 8));
	CHECK_OK(rig_drain(rig));
	moved = status(rig).gc_moved_bytes;
	for (unsigned i = 0; i < 10; i++)
		host_single_advance(&rig->hs, UINT64_C(100000000));
	/* A second at 64 KiB a second, and the rounds that it began and ended with. */
	CHECK(status(rig).gc_moved_bytes - moved <= (64u << 10) + 2 * (40u << 10));
	for (unsigned i = 0; i < 100; i++)
		host_single_advance(&rig->hs, UINT64_C(100000000));
	CHECK(status(rig).gc_moved_bytes - moved > (64u << 10) + 2 * (40u << 10));
	verify(rig);
	rig_free(rig);
}

/* A close in the midst of it. */
TEST(release_finds_a_moment)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.gc_start_percent = 95;
	rig->opt.gc_min_age_ns = 0;
	rig->opt.checkpoint_objects = 1;
	rig->opt.batch_bytes = 16u << 10;
	for (unsigned i = 0; i < 20; i++) {
		CHECK_OK(rig_open(rig));
		verify(rig);
		for (unsigned k = 0; k < 20; k++)
			rig_random_op(rig);
		rig_release(rig);
		sound(rig);
	}
	rig_free(rig);
}

/* A GC object that is missing is skipped, also when its sources are what the map names. */
TEST(missing_gc_object_is_skipped)
{
	struct lsvd_rig *rig = rig_with_garbage();
	char key[STORE_KEY_MAX + 1];
	const void *body;
	size_t len;

	rig->opt.gc_min_age_ns = UINT64_C(3600000000000);
	reopen(rig);
	CHECK_OK(rig_checkpoint(rig));
	rig_crash(rig);
	rig->opt.gc_start_percent = 90;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 16000, 8));
	CHECK_OK(rig_drain(rig));
	for (unsigned i = 0; i < 100 && !status(rig).gc_rounds; i++)
		host_single_advance(&rig->hs, UINT64_C(1000000000));
	CHECK(status(rig).gc_rounds > 0);
	CHECK_OK(rig_write(rig, 16008, 8));
	CHECK_OK(rig_drain(rig));
	rig_crash(rig);
	/* The one that is of that type. */
	for (unsigned i = 0;; i++) {
		const char *k = rig_object(rig, 'd', i);

		CHECK(k != NULL);
		copy_key(key, k);
		body = sim_bucket_body(rig->bucket, key, &len);
		if (le32_get(((const struct lsvd_hdr *)body)->type) == LSVD_TYPE_GC)
			break;
	}
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	CHECK_OK(rig_open(rig));
	verify(rig);
	rig_free(rig);
}

static void note_done(struct drain *drain, int error)
{
	CHECK_OK(error);
	drain->lsn = 0;
}

/* Somebody collects, somebody else asks for a checkpoint and closes: all of it comes to an end. */
TEST(collecting_and_closing_at_once)
{
	struct lsvd_rig *rig = rig_with_garbage();
	struct drain gc = {.done = note_done};

	host_enter(&rig->hs.host);
	lsvd_gc(rig->lsvd, &gc);
	host_leave(&rig->hs.host);
	rig_release(rig);
	CHECK_EQ(gc.lsn, 0);
	CHECK_OK(rig_open(rig));
	verify(rig);
	sound(rig);
	rig_free(rig);
}
