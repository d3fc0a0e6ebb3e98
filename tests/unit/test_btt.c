/* SPDX-License-Identifier: BSD-3-Clause */
/* The block translation table as its users see it, on simulated memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "btt/btt_impl.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

#define POOL_BYTES (256u << 10)

static struct pmem *memory(size_t bytes)
{
	struct pmem *pm;

	CHECK_OK(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = bytes}, &pm));
	return pm;
}

static struct btt *make(struct pmem *pm, uint64_t block_bytes)
{
	struct btt_options opt = {
		.block_bytes = block_bytes, .spares = 20, .uuid = uuid_from_bits(1, 2)};
	struct err err = ERR_INIT;
	struct btt *btt = NULL;
	int r = btt_create(pm, &opt, &btt, &err);

	if (r)
		FAIL("create: %s", err_text(&err, r));
	return btt;
}

static struct btt *open_again(struct pmem *pm)
{
	struct err err = ERR_INIT;
	struct btt *btt = NULL;
	int r = btt_open(pm, NULL, &btt, &err);

	if (r)
		FAIL("open: %s", err_text(&err, r));
	return btt;
}

static void fill(uint8_t *buf, size_t len, uint64_t lba, uint64_t version)
{
	struct rng rng;

	rng_seed(&rng, lba << 32 | version);
	rng_fill(&rng, buf, len);
}

static void write_one(struct btt *btt, uint64_t lba, uint64_t version)
{
	uint8_t buf[4096];

	fill(buf, btt_block_bytes(btt), lba, version);
	CHECK_OK(btt_write(btt, lba, buf));
}

static void check_one(struct btt *btt, uint64_t lba, uint64_t version)
{
	uint8_t want[4096], got[4096];

	fill(want, btt_block_bytes(btt), lba, version);
	CHECK_OK(btt_read(btt, lba, got));
	CHECK_MEMEQ(got, want, btt_block_bytes(btt));
}

static void check_zero(struct btt *btt, uint64_t lba)
{
	static const uint8_t zeros[4096];
	uint8_t got[4096];

	memset(got, 1, sizeof(got));
	CHECK_OK(btt_read(btt, lba, got));
	CHECK_MEMEQ(got, zeros, btt_block_bytes(btt));
}

TEST(new_pool_is_zeros)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt;

	for (size_t i = 8192; i < POOL_BYTES - 4096; i += 4096)
		pm_set(pm, pm->base + i, 0x5a, 4096);
	CHECK_OK(pm_fence(pm));
	btt = make(pm, 512);
	CHECK(btt_nblock(btt) > 400);
	for (uint64_t lba = 0; lba < btt_nblock(btt); lba++)
		check_zero(btt, lba);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(what_was_written_is_read)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 520);
	uint64_t n = btt_nblock(btt);

	CHECK_EQ(btt_block_bytes(btt), 520);
	for (uint64_t version = 1; version < 4; version++) {
		for (uint64_t lba = 0; lba < n; lba++)
			write_one(btt, lba, version);
		for (uint64_t lba = 0; lba < n; lba++)
			check_one(btt, lba, version);
	}
	CHECK_OK(btt_close(btt));
	btt = open_again(pm);
	for (uint64_t lba = 0; lba < n; lba++)
		check_one(btt, lba, 3);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(any_block_size)
{
	static const uint64_t sizes[] = {1, 7, 511, 512, 513, 1000, 4000, 4095, 4096};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct pmem *pm = memory(POOL_BYTES);
		struct btt *btt = make(pm, sizes[i]);
		uint64_t last = btt_nblock(btt) - 1;

		CHECK_EQ(btt_block_bytes(btt), sizes[i]);
		write_one(btt, 0, 1);
		write_one(btt, last, 2);
		check_one(btt, 0, 1);
		check_one(btt, last, 2);
		check_zero(btt, 1);
		CHECK_OK(btt_close(btt));
		pm_close(pm);
	}
}

TEST(bad_arguments_are_refused)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt_options opt = {.block_bytes = 0};
	struct btt *btt = NULL;
	uint8_t buf[512];

	CHECK_EQ(btt_create(pm, &opt, &btt, NULL), -EINVAL);
	opt.block_bytes = UINT64_C(1) << 32;
	CHECK_EQ(btt_create(pm, &opt, &btt, NULL), -EINVAL);
	opt.block_bytes = POOL_BYTES;
	CHECK_EQ(btt_create(pm, &opt, &btt, NULL), -EINVAL);
	opt = (struct btt_options){.block_bytes = 512, .spares = 1};
	CHECK_EQ(btt_create(pm, &opt, &btt, NULL), -EINVAL);
	opt.spares = 0;
	CHECK_EQ(btt_open(pm, NULL, &btt, NULL), -EINVAL);
	CHECK(!btt_probe(pm));
	btt = make(pm, 512);
	CHECK(btt_probe(pm));
	CHECK_EQ(btt_read(btt, btt_nblock(btt), buf), -EINVAL);
	CHECK_EQ(btt_write(btt, UINT64_MAX, buf), -EINVAL);
	CHECK_EQ(btt_set_zero(btt, btt_nblock(btt)), -EINVAL);
	CHECK_EQ(btt_set_error(btt, btt_nblock(btt)), -EINVAL);
	CHECK_OK(btt_close(btt));
	opt.block_bytes = 4096;
	CHECK_EQ(btt_open(pm, &opt, &btt, NULL), -EINVAL);
	CHECK_EQ(btt_create(pm, &opt, &btt, NULL), -EEXIST);
	opt.overwrite = true;
	CHECK_OK(btt_create(pm, &opt, &btt, NULL));
	CHECK_EQ(btt_block_bytes(btt), 4096);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(zero_and_error_cost_no_data)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct pm_shadow_counters before, after;
	uint8_t buf[512];

	write_one(btt, 3, 1);
	write_one(btt, 4, 1);
	pm_shadow_counters(pm, &before);
	CHECK_OK(btt_set_zero(btt, 3));
	CHECK_OK(btt_set_error(btt, 4));
	pm_shadow_counters(pm, &after);
	CHECK_EQ(after.copies, before.copies);
	CHECK_EQ(after.stores, before.stores + 2);
	CHECK_EQ(after.fences, before.fences + 2);
	check_zero(btt, 3);
	CHECK_EQ(btt_read(btt, 4, buf), -EIO);
	CHECK_OK(btt_close(btt));
	btt = open_again(pm);
	check_zero(btt, 3);
	CHECK_EQ(btt_read(btt, 4, buf), -EIO);
	write_one(btt, 3, 2);
	write_one(btt, 4, 2);
	check_one(btt, 3, 2);
	check_one(btt, 4, 2);
	CHECK_OK(btt_set_error(btt, 5));
	CHECK_OK(btt_set_zero(btt, 5));
	check_zero(btt, 5);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(a_write_costs_two_fences)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 4096);
	struct pm_shadow_counters before, after;

	write_one(btt, 0, 1);
	pm_shadow_counters(pm, &before);
	write_one(btt, 1, 1);
	check_one(btt, 1, 1);
	pm_shadow_counters(pm, &after);
	CHECK_EQ(after.fences, before.fences + 2);
	CHECK_EQ(after.flushes, before.flushes + 1);
	CHECK_EQ(after.copies, before.copies + 1);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(opening_after_a_close_scans_nothing)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct btt_stat stat;

	write_one(btt, 1, 1);
	CHECK_OK(btt_close(btt));
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK(!stat.scanned);
	write_one(btt, 1, 2);
	btt_abandon(btt);
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK(stat.scanned);
	check_one(btt, 1, 2);
	CHECK_OK(btt_close(btt));
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK(!stat.scanned);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(reading_writes_nothing)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct pm_shadow_counters before, after;

	write_one(btt, 1, 1);
	CHECK_OK(btt_close(btt));
	pm_shadow_counters(pm, &before);
	btt = open_again(pm);
	check_one(btt, 1, 1);
	CHECK_OK(btt_close(btt));
	pm_shadow_counters(pm, &after);
	CHECK_EQ(after.copies + after.stores, before.copies + before.stores);
	pm_close(pm);
}

TEST(parts_of_a_sector_are_read_into_scattered_buffers)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 4096);
	uint8_t want[4096], a[100], b[900], c[1000];
	const struct iovec from[] = {{want, 1}, {want + 1, 4000}, {want + 4001, 95}};
	const struct iovec to[] = {{a, 100}, {NULL, 0}, {b, 900}, {c, 1000}};

	fill(want, sizeof(want), 9, 1);
	CHECK_OK(btt_write_window(btt, 9, (struct btt_window){from, 0}));
	check_one(btt, 9, 1);
	CHECK_OK(btt_read_part(btt, 9, 512, 1024, (struct btt_window){to, 50}));
	CHECK_MEMEQ(a + 50, want + 512, 50);
	CHECK_MEMEQ(b, want + 562, 900);
	CHECK_MEMEQ(c, want + 1462, 74);
	CHECK_EQ(btt_read_part(btt, 9, 4096, 1, (struct btt_window){to, 0}), -EINVAL);
	CHECK_EQ(btt_read_part(btt, 9, UINT64_MAX, 2, (struct btt_window){to, 0}), -EINVAL);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(one_superblock_is_enough)
{
	for (int end = 0; end < 2; end++) {
		struct pmem *pm = memory(POOL_BYTES);
		struct btt *btt = make(pm, 512);

		write_one(btt, 1, 1);
		CHECK_OK(btt_close(btt));
		pm_set(pm, pm->base + (end ? POOL_BYTES - 4096 : 0), 0x55, 4096);
		CHECK_OK(pm_fence(pm));
		btt = open_again(pm);
		check_one(btt, 1, 1);
		/* The first write puts the other one right. */
		write_one(btt, 1, 2);
		btt_abandon(btt);
		pm_set(pm, pm->base + (end ? 0 : POOL_BYTES - 4096), 0x55, 4096);
		CHECK_OK(pm_fence(pm));
		btt = open_again(pm);
		check_one(btt, 1, 2);
		CHECK_OK(btt_close(btt));
		pm_close(pm);
	}
}

static void poke(struct pmem *pm, uint64_t off, uint64_t value)
{
	pm_publish8(pm, (_Atomic uint64_t *)(void *)(pm->base + off), value);
	CHECK_OK(pm_fence(pm));
}

TEST(a_damaged_entry_is_an_error_until_it_is_written)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct btt_stat stat;
	uint8_t buf[512];

	for (uint64_t lba = 0; lba < 8; lba++)
		write_one(btt, lba, 1);
	btt_abandon(btt);
	poke(pm, 4096 + 8 * 3, 0);
	poke(pm, 4096 + 8 * 4, UINT64_MAX);
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK_EQ(stat.damaged, 2);
	CHECK_EQ(btt_read(btt, 3, buf), -EIO);
	CHECK_EQ(btt_read(btt, 4, buf), -EIO);
	check_one(btt, 2, 1);
	check_one(btt, 5, 1);
	write_one(btt, 3, 2);
	check_one(btt, 3, 2);
	write_one(btt, 3, 3);
	check_one(btt, 3, 3);
	CHECK_OK(btt_close(btt));
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK(stat.scanned);
	CHECK_EQ(stat.damaged, 1);
	check_one(btt, 3, 3);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(two_claims_to_a_block_are_refused)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct err err = ERR_INIT;

	write_one(btt, 1, 1);
	write_one(btt, 2, 1);
	poke(pm, 4096 + 8 * 2,
	     entry_disk(entry_make(2, btt->salt, entry_block(btt_load_entry(btt, 1)), 0)));
	btt_abandon(btt);
	CHECK_EQ(btt_open(pm, NULL, &btt, &err), -EBADMSG);
	CHECK(strstr(err.text, "another sector"));
	pm_close(pm);
}

TEST(a_damaged_list_costs_a_scan)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct btt_stat stat;
	uint64_t list_off = btt->g.list_off;

	write_one(btt, 1, 1);
	CHECK_OK(btt_close(btt));
	poke(pm, list_off + 8, 0);
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK(stat.scanned);
	check_one(btt, 1, 1);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(a_pool_that_was_cut_short_is_refused)
{
	struct pmem *pm = memory(POOL_BYTES), *shorter;
	struct btt *btt = make(pm, 512);
	struct err err = ERR_INIT;

	CHECK_OK(btt_close(btt));
	CHECK_OK(pm_shadow_open(
		&(struct pm_shadow_options){.len_bytes = POOL_BYTES / 2, .image = pm->base},
		&shorter));
	CHECK_EQ(btt_open(shorter, NULL, &btt, &err), -EBADMSG);
	CHECK(strstr(err.text, "cut short"));
	pm_close(shorter);
	pm_close(pm);
}

TEST(memory_that_faults_makes_an_error_sector)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 4096);
	uint8_t buf[4096];
	uint64_t at;

	write_one(btt, 5, 1);
	write_one(btt, 6, 1);
	at = (uint64_t)(btt_data(btt, entry_block(btt_load_entry(btt, 5))) - pm->base);
	CHECK_OK(pm_shadow_poison(pm, at, 4096));
	CHECK_EQ(btt_read(btt, 5, buf), -EIO);
	CHECK_EQ(entry_state(btt_load_entry(btt, 5)), BTT_ENTRY_ERROR);
	CHECK_OK(pm_shadow_heal(pm, at, 4096));
	CHECK_EQ(btt_read(btt, 5, buf), -EIO);
	write_one(btt, 5, 2);
	check_one(btt, 5, 2);
	check_one(btt, 6, 1);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(a_spare_that_faults_is_left_out)
{
	struct pmem *pm = memory(2 * POOL_BYTES);
	struct btt *btt = make(pm, 4096);
	struct btt_stat stat;
	uint64_t at, n = btt_nblock(btt);

	write_one(btt, 5, 1);
	at = (uint64_t)(btt_data(btt, btt->lanes[0].spare) - pm->base);
	CHECK_OK(pm_shadow_poison(pm, at, 4096));
	for (uint64_t lba = 0; lba < n; lba++)
		write_one(btt, lba, 2);
	for (uint64_t lba = 0; lba < n; lba++)
		check_one(btt, lba, 2);
	CHECK_OK(btt_close(btt));
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK(stat.scanned);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

static void poison_block(struct pmem *pm, struct btt *btt, uint64_t block)
{
	CHECK_OK(pm_shadow_poison(pm, (uint64_t)(btt_data(btt, block) - pm->base), 4096));
}

/* A thread comes back to its lane: one that is bad, and cannot be mended, must not be found. */
TEST(a_lane_without_a_good_spare_is_no_longer_used)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 4096);

	CHECK(btt->nlanes > 1);
	write_one(btt, 5, 1);
	for (unsigned i = 0; i + 1 < btt->nlanes; i++)
		poison_block(pm, btt, btt->lanes[i].spare);
	for (unsigned i = 0; i < btt->reserve_count; i++)
		poison_block(pm, btt, btt->reserve[i]);
	for (uint64_t version = 2; version < 6; version++) {
		write_one(btt, 5, version);
		check_one(btt, 5, version);
	}
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(a_table_that_faults_is_an_error_and_no_death)
{
	struct pmem *pm = memory(3 * POOL_BYTES);
	struct btt *btt = make(pm, 512);
	struct btt_stat stat;
	uint8_t buf[512] = {0};

	write_one(btt, 0, 1);
	write_one(btt, 1000, 1);
	btt_abandon(btt);
	CHECK_OK(pm_shadow_poison(pm, 4096, 4096));
	btt = open_again(pm);
	btt_stat(btt, &stat);
	CHECK_EQ(stat.damaged, 512);
	CHECK_EQ(btt_read(btt, 0, buf), -EIO);
	CHECK_EQ(btt_write(btt, 0, buf), -EIO);
	CHECK_EQ(btt_set_zero(btt, 0), -EIO);
	check_one(btt, 1000, 1);
	write_one(btt, 1000, 2);
	check_one(btt, 1000, 2);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(a_fence_that_fails_ends_writing)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	uint8_t buf[512] = {1};

	write_one(btt, 1, 1);
	write_one(btt, 2, 1);
	pm_shadow_fail_fence(pm, 1, -EIO);
	CHECK_EQ(btt_write(btt, 1, buf), -EIO);
	CHECK_EQ(btt_write(btt, 2, buf), -EIO);
	CHECK_EQ(btt_set_zero(btt, 2), -EIO);
	/* What may be undone is not returned; what was durable before is. */
	CHECK_EQ(btt_read(btt, 1, buf), -EIO);
	check_one(btt, 2, 1);
	CHECK_EQ(btt_close(btt), -EIO);
	pm_close(pm);
}

TEST(a_child_may_close_and_nothing_else)
{
	struct pmem *pm = memory(POOL_BYTES);
	struct btt *btt = make(pm, 512);
	uint8_t buf[512] = {0};
	int status;
	pid_t pid;

	write_one(btt, 1, 1);
	pid = fork();
	if (!pid) {
		bool good = btt_read(btt, 1, buf) == -ECHILD && btt_write(btt, 1, buf) == -ECHILD &&
			    btt_set_zero(btt, 1) == -ECHILD;
		struct pm_shadow_counters before, after;
		struct pmem *mine;

		pm_shadow_counters(pm, &before);
		good = good && btt_close(btt) == 0;
		pm_shadow_counters(pm, &after);
		good = good && after.copies == before.copies && after.fences == before.fences;
		/* A pool of its own works. */
		mine = memory(POOL_BYTES);
		btt = make(mine, 512);
		write_one(btt, 1, 1);
		check_one(btt, 1, 1);
		good = good && btt_close(btt) == 0;
		pm_close(mine);
		pm_close(pm);
		_exit(!good);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	check_one(btt, 1, 1);
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

TEST(geometry_fits_and_decodes)
{
	struct btt_geometry g, back;
	struct rng rng;
	struct uuid uuid = uuid_from_bits(1, 2);

	rng_seed(&rng, test_seed());
	for (int i = 0; i < 20000; i++) {
		uint64_t pool = rng_next(&rng) >> (1 + rng_below(&rng, 50));
		uint64_t block = rng_next(&rng) >> (32 + rng_below(&rng, 32));
		struct btt_sb sb;

		if (!btt_geometry_fit(pool, block, &g))
			continue;
		CHECK(g.pool_bytes <= pool);
		CHECK(g.blocks > g.spares && g.spares >= 2);
		btt_sb_encode(&sb, &g, &uuid, 5, 0, 0);
		CHECK_OK(btt_sb_decode(&sb, pool, &back, NULL));
		CHECK_MEMEQ(&g, &back, sizeof(g));
		/* One more would not fit, but for the spares that it needs. */
		CHECK(g.blocks == BTT_BLOCKS_MAX ||
		      (g.pool_bytes - 4096 - g.data_off) / g.stride_bytes < g.blocks + 12);
	}
}

TEST(at_most_a_twentieth_is_kept_spare)
{
	struct btt_geometry g;

	for (uint64_t pool = 16u << 20; pool < UINT64_C(1) << 45; pool *= 2)
		for (uint64_t block = 512; block <= 65536 && block * 256 < pool; block *= 2) {
			CHECK(btt_geometry_fit(pool, block, &g));
			CHECK(g.spares * 20 <= g.blocks);
			CHECK(g.spares <= 160);
		}
}
