/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Incremental checkpoints: what is written again, what is not, and that all of it loads.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/codec.h"

static struct lsvd_status status(struct lsvd_rig *rig)
{
	struct lsvd_status st;

	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	return st;
}

/* A fragmented map of many pages, all of it in the store and in a checkpoint. */
static struct lsvd_rig *rig_fragmented(void)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.shard_sectors_log2 = 25;
	CHECK_OK(rig_open(rig));
	for (uint32_t lba = 0; lba + 2 <= RIG_SECTORS; lba += 4)
		CHECK_OK(rig_write(rig, lba, 2));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_checkpoint(rig));
	return rig;
}

static uint64_t checkpoint_cost(struct lsvd_rig *rig)
{
	const uint64_t before = status(rig).checkpoint_bytes;

	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_checkpoint(rig));
	return status(rig).checkpoint_bytes - before;
}

static void reopen(struct lsvd_rig *rig)
{
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
}

TEST(one_change_rewrites_one_page)
{
	struct lsvd_rig *rig = rig_fragmented();
	const uint64_t all = status(rig).checkpoint_bytes;
	uint64_t cost;

	CHECK(status(rig).checkpoint_pages > 10);
	CHECK_OK(rig_write(rig, 8000, 1));
	cost = checkpoint_cost(rig);
	/* The page, or the two that it has become; the table's last; the root. */
	CHECK(cost <= 3 * 4096 + root_bytes((uint32_t)status(rig).checkpoint_pages + 2));
	CHECK(cost * 3 < all);
	reopen(rig);
	rig_free(rig);
}

TEST(nothing_changed_costs_a_root)
{
	struct lsvd_rig *rig = rig_fragmented();

	reopen(rig);
	CHECK_EQ(status(rig).checkpoint_next_bytes, 0);
	CHECK_OK(rig_write(rig, 0, 2));
	CHECK(checkpoint_cost(rig) <=
	      3 * 4096 + root_bytes((uint32_t)status(rig).checkpoint_pages));
	rig_verify(rig);
	rig_free(rig);
}

/* Many objects: only the last page of their table is written again. */
TEST(object_table_does_not_grow_the_cost)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	uint64_t cost;

	rig->opt.shard_sectors_log2 = 25;
	CHECK_OK(rig_open(rig));
	for (uint32_t i = 0; i < 600; i++) {
		CHECK_OK(rig_write(rig, i * 8, 8));
		CHECK_OK(rig_drain(rig));
	}
	CHECK_OK(rig_checkpoint(rig));
	CHECK_OK(rig_write(rig, 600 * 8, 8));
	cost = checkpoint_cost(rig);
	/* The map's last page, the table's, the root; the table alone has 19 KB. */
	CHECK(cost <= 3 * 4096 + root_bytes((uint32_t)status(rig).checkpoint_pages));
	reopen(rig);
	rig_free(rig);
}

/* Pages that have become small are put together again. */
TEST(pages_go_when_the_map_shrinks)
{
	struct lsvd_rig *rig = rig_fragmented();
	const uint64_t before = status(rig).checkpoint_pages;

	CHECK_OK(rig_zero(rig, DEV_DISCARD, 0, RIG_SECTORS));
	CHECK_OK(rig_write(rig, 77, 3));
	checkpoint_cost(rig);
	CHECK(before > 10);
	CHECK(status(rig).checkpoint_pages <= 3);
	reopen(rig);
	rig_free(rig);
}

TEST(parts_that_no_root_names_are_deleted)
{
	struct lsvd_rig *rig = rig_fragmented();

	for (uint32_t i = 0; i < 30; i++) {
		CHECK_OK(rig_write(rig, (i * 531) % RIG_SECTORS & ~3u, 3));
		checkpoint_cost(rig);
		host_single_advance(&rig->hs, 1000000);
		/* Two roots that differ by a few pages. */
		CHECK(rig_objects(rig, 'c') <= status(rig).checkpoint_pages + 6);
		CHECK(rig_objects(rig, 'r') <= 2);
	}
	reopen(rig);
	rig_free(rig);
}

TEST(no_part_is_larger_than_asked)
{
	struct lsvd_rig *rig = rig_fragmented();
	size_t len;

	for (unsigned i = 0; i < rig_objects(rig, 'c'); i++) {
		sim_bucket_body(rig->bucket, rig_object(rig, 'c', i), &len);
		CHECK(len <= 4096);
	}
	rig_free(rig);
}

/* The interval grows with what a checkpoint would cost. */
TEST(interval_is_in_proportion_to_the_cost)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	uint64_t put;

	rig->opt.shard_sectors_log2 = 25;
	rig->opt.checkpoint_bytes = 4096;
	CHECK_OK(rig_open(rig));
	for (uint32_t i = 0; i < 4000; i++) {
		CHECK_OK(rig_write(rig, (i * 1237) % (RIG_SECTORS / 2) * 2, 1));
		if (i % 64 == 0)
			CHECK_OK(rig_drain(rig));
	}
	CHECK_OK(rig_drain(rig));
	/* By weight: an object counts as a MiB here. */
	put = status(rig).durable_seq << 20;
	CHECK(status(rig).checkpoints > 1);
	CHECK(status(rig).checkpoint_bytes <= put / 8);
	rig_free(rig);
}

/* Shards of another size: nothing can be taken over, and nothing is lost. */
TEST(other_shard_size_rewrites_everything)
{
	struct lsvd_rig *rig = rig_fragmented();

	rig_release(rig);
	rig->opt.shard_sectors_log2 = 11;
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	CHECK_OK(rig_write(rig, 5, 1));
	checkpoint_cost(rig);
	CHECK_OK(rig_write(rig, 2047, 3));
	checkpoint_cost(rig);
	reopen(rig);
	rig_free(rig);
}

/* Random changes and checkpoints that overlap with them, opened again from each. */
TEST(random_changes)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.checkpoint_objects = 3;
	rig->opt.shard_sectors_log2 = 12;
	CHECK_OK(rig_open(rig));
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 40; i++)
			rig_random_op(rig);
		CHECK_OK(rig_drain(rig));
		if (round % 3 == 0)
			CHECK_OK(rig_checkpoint(rig));
		if (round % 4 == 3)
			reopen(rig);
	}
	rig_release(rig);
	CHECK_OK(rig_look(rig, false, false));
	rig_verify(rig);
	rig_free(rig);
}
