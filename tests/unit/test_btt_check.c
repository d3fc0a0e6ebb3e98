/* SPDX-License-Identifier: BSD-3-Clause */
/* Checking and repairing pools: each kind of damage is told once, and repaired if wanted. */
#include <errno.h>
#include <string.h>

#include "btt/btt_impl.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

#define POOL_BYTES (256u << 10)
#define SECTORS 20u

struct told {
	struct btt_problem problem[64];
	unsigned count;
	bool refuse;
};

static bool tell(void *arg, const struct btt_problem *problem)
{
	struct told *told = arg;

	CHECK(problem->text && *problem->text);
	if (told->count < 64)
		told->problem[told->count] = *problem;
	told->count++;
	return !told->refuse;
}

static struct btt_check_result check(struct pmem *pm, bool repair, struct told *told)
{
	const struct btt_check_options opt = {.repair = repair, .problem = tell, .arg = told};
	struct btt_check_result result;
	struct err err = ERR_INIT;
	int r;

	told->count = 0;
	r = btt_check(pm, &opt, &result, &err);
	if (r)
		FAIL("%s", err_text(&err, r));
	return result;
}

static void value(uint8_t *block, uint64_t lba)
{
	memset(block, (int)(0x20 + lba), 512);
}

/* Written, closed. */
static struct pmem *pool(void)
{
	const struct btt_options opt = {.block_bytes = 512, .uuid = uuid_from_bits(1, 2)};
	struct pmem *pm;
	struct btt *btt;
	uint8_t block[512];

	CHECK_OK(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = POOL_BYTES}, &pm));
	CHECK_OK(btt_create(pm, &opt, &btt, NULL));
	for (uint64_t lba = 0; lba < SECTORS; lba++) {
		value(block, lba);
		CHECK_OK(btt_write(btt, lba, block));
	}
	CHECK_OK(btt_close(btt));
	return pm;
}

static void poke(struct pmem *pm, uint64_t off, uint64_t word)
{
	pm_publish8(pm, (_Atomic uint64_t *)(void *)(pm->base + off), word);
	CHECK_OK(pm_fence(pm));
}

static uint64_t peek(struct pmem *pm, uint64_t off)
{
	return pm_load8((_Atomic uint64_t *)(void *)(pm->base + off));
}

/* All but those of the mask are what they were; those are errors, until written. */
static void check_pool(struct pmem *pm, uint64_t errors, bool scanned)
{
	struct btt *btt;
	uint8_t want[512], got[512];

	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	CHECK_EQ(btt->scanned, scanned);
	for (uint64_t lba = 0; lba < SECTORS; lba++) {
		value(want, lba);
		if (errors >> lba & 1) {
			CHECK_EQ(btt_read(btt, lba, got), -EIO);
			CHECK_OK(btt_write(btt, lba, want));
		}
		CHECK_OK(btt_read(btt, lba, got));
		CHECK_MEMEQ(got, want, sizeof(got));
	}
	CHECK_OK(btt_close(btt));
}

TEST(a_whole_pool_has_no_problems)
{
	struct pmem *pm = pool();
	struct told told = {0};
	struct btt_check_result result = check(pm, false, &told);
	struct btt *btt;

	CHECK_EQ(result.problems + result.error_sectors + told.count, 0);
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	CHECK_OK(btt_set_zero(btt, 0));
	btt_abandon(btt);
	result = check(pm, true, &told);
	CHECK_EQ(result.problems + told.count, 0);
	pm_close(pm);
}

TEST(error_sectors_are_told_and_are_no_problem)
{
	struct pmem *pm = pool();
	struct told told = {0};
	struct btt_check_result result;
	struct btt *btt;

	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	CHECK_OK(btt_set_error(btt, 7));
	CHECK_OK(btt_close(btt));
	result = check(pm, true, &told);
	CHECK_EQ(result.problems, 0);
	CHECK_EQ(result.repaired, 0);
	CHECK_EQ(result.error_sectors, 1);
	CHECK_EQ(told.problem[0].trouble, BTT_ERROR_SECTOR);
	CHECK_EQ(told.problem[0].at, 7);
	check_pool(pm, 1u << 7, false);
	pm_close(pm);
}

TEST(either_superblock_is_written_again)
{
	for (int end = 0; end < 2; end++) {
		struct pmem *pm = pool();
		struct told told = {0};
		struct btt_check_result result;
		uint64_t at = end ? POOL_BYTES - 4096 : 0;

		poke(pm, at + 32, 0x1234);
		result = check(pm, false, &told);
		CHECK_EQ(result.problems, 1);
		CHECK_EQ(result.repaired, 0);
		CHECK_EQ(told.problem[0].trouble, BTT_BAD_SUPERBLOCK);
		CHECK_EQ(told.problem[0].at, at);
		CHECK_EQ(check(pm, true, &told).repaired, 1);
		CHECK_EQ(check(pm, false, &told).problems, 0);
		/* The other one is not needed any more; and the list still counts. */
		poke(pm, POOL_BYTES - 4096 - at + 32, 0x1234);
		check_pool(pm, 0, false);
		pm_close(pm);
	}
}

TEST(a_damaged_entry_becomes_an_error_sector)
{
	struct pmem *pm = pool();
	struct told told = {0};
	struct btt_check_result result;

	poke(pm, 4096 + 8 * 3, peek(pm, 4096 + 8 * 3) ^ 4);
	poke(pm, 4096 + 8 * 5, peek(pm, 4096 + 8 * 6));
	result = check(pm, false, &told);
	CHECK_EQ(result.problems, 2);
	CHECK_EQ(told.problem[0].trouble, BTT_BAD_ENTRY);
	CHECK_EQ(told.problem[0].at, 3);
	CHECK_EQ(told.problem[1].at, 5);
	told.refuse = true;
	CHECK_EQ(check(pm, true, &told).repaired, 0);
	told.refuse = false;
	CHECK_EQ(check(pm, true, &told).repaired, 2);
	result = check(pm, false, &told);
	CHECK_EQ(result.problems, 0);
	CHECK_EQ(result.error_sectors, 2);
	check_pool(pm, 1u << 3 | 1u << 5, true);
	CHECK_EQ(check(pm, false, &told).error_sectors, 0);
	pm_close(pm);
}

TEST(sectors_that_share_a_block_become_errors_all)
{
	struct pmem *pm = pool();
	struct told told = {0};
	struct btt_check_result result;
	struct btt *btt;
	uint64_t block;

	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	block = entry_block(btt_load_entry(btt, 9));
	for (uint64_t lba = 11; lba < 13; lba++)
		poke(pm, 4096 + 8 * lba,
		     entry_disk(entry_make(lba, btt->salt, block, BTT_ENTRY_DATA)));
	btt_abandon(btt);
	result = check(pm, false, &told);
	CHECK_EQ(result.problems, 2);
	CHECK_EQ(told.problem[0].trouble, BTT_SHARED_BLOCK);
	CHECK_EQ(told.problem[0].at, 11);
	CHECK_EQ(told.problem[0].other, 9);
	CHECK_EQ(told.problem[1].at, 12);
	check(pm, true, &told);
	CHECK_EQ(check(pm, false, &told).problems, 0);
	check_pool(pm, 1u << 9 | 1u << 11 | 1u << 12, true);
	pm_close(pm);
}

/* A list that is whole, and that the table denies. */
TEST(a_list_that_the_table_denies_is_dropped)
{
	struct pmem *pm = pool();
	struct told told = {0};
	struct btt_check_result result;
	struct btt *btt;
	uint8_t block[512];

	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	/* As if taking the list back had been forgotten. */
	atomic_store(&btt->withdrawn, true);
	value(block, 4);
	CHECK_OK(btt_write(btt, 4, block));
	btt_abandon(btt);
	result = check(pm, false, &told);
	CHECK_EQ(result.problems, 1);
	CHECK_EQ(told.problem[0].trouble, BTT_BAD_LIST);
	CHECK_EQ(check(pm, true, &told).repaired, 1);
	CHECK_EQ(check(pm, false, &told).problems, 0);
	check_pool(pm, 0, true);
	pm_close(pm);
}

TEST(a_table_page_that_faults_is_told_and_not_died_of)
{
	struct pmem *pm = pool();
	struct told told = {.refuse = true};
	struct btt_check_result result;

	CHECK_OK(pm_shadow_poison(pm, 4096, 4096));
	result = check(pm, false, &told);
	CHECK(result.problems > 400);
	/* Healed, its entries are zeros, and can be put right. */
	CHECK_OK(pm_shadow_heal(pm, 4096, 4096));
	told.refuse = false;
	result = check(pm, true, &told);
	CHECK_EQ(result.repaired, result.problems);
	CHECK_EQ(check(pm, false, &told).problems, 0);
	check_pool(pm, (1u << SECTORS) - 1, true);
	pm_close(pm);
}

TEST(nothing_that_looks_like_a_pool_is_refused)
{
	struct told told = {0};
	const struct btt_check_options opt = {.problem = tell, .arg = &told};
	struct btt_check_result result;
	struct pmem *pm;

	CHECK_OK(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = POOL_BYTES}, &pm));
	CHECK_EQ(btt_check(pm, &opt, &result, NULL), -EINVAL);
	CHECK_EQ(told.count, 0);
	pm_close(pm);
	pm = pool();
	poke(pm, 32, 1);
	poke(pm, POOL_BYTES - 4096 + 32, 1);
	CHECK_EQ(btt_check(pm, &opt, &result, NULL), -EBADMSG);
	pm_close(pm);
}
