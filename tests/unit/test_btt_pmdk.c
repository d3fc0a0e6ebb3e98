/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading pools of PMDK's libpmemblk: contents, its recovery, damage. */
#include <errno.h>
#include <string.h>

#include "btt/pmdk.h"
#include "lib/pmdk_make.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

static uint8_t pool_bytes[MADE_BYTES];
static struct pmem *pm;
static struct pmdk_pool *pool;
static struct err err;

static int open_pool(void)
{
	CHECK_OK(pm_shadow_open(&(struct pm_shadow_options){.image = pool_bytes,
							    .len_bytes = MADE_BYTES},
				&pm));
	err_clear(&err);
	return pmdk_open(pm, &pool, &err);
}

static void close_pool(void)
{
	pmdk_close(pool);
	pool = NULL;
	pm_close(pm);
}

/* What a block holds: its byte, 0 for zeros, -EIO for an error block, or the read's error. */
static int block(uint64_t n)
{
	uint8_t buf[MADE_BLOCK_BYTES];
	enum pmdk_state state;
	const int rc = pmdk_read(pool, n, buf, &state, &err);

	if (rc)
		return rc;
	if (state == PMDK_ERROR)
		return -EIO;
	if (state == PMDK_ZERO)
		return 0;
	CHECK(!memcmp(buf, buf + 1, sizeof(buf) - 1));
	return buf[0];
}

static struct pmdk_flog flog(uint32_t lba, uint32_t old, uint32_t new, uint32_t seq)
{
	return (struct pmdk_flog){le32_make(lba), le32_make(old), le32_make(new), le32_make(seq)};
}

TEST(every_block_is_found)
{
	pmdk_make(pool_bytes);
	CHECK_OK(open_pool());
	CHECK_EQ(pmdk_blocks(pool), MADE_BLOCKS);
	CHECK_EQ(pmdk_block_bytes(pool), MADE_BLOCK_BYTES);
	for (uint32_t n = 0; n < MADE_BLOCKS; n++)
		CHECK_EQ(block(n), 'a' + n);
	CHECK_EQ(block(MADE_BLOCKS), -EINVAL);
	close_pool();
}

TEST(zero_error_and_unwritten_entries_have_no_data)
{
	pmdk_make(pool_bytes);
	pmdk_set_map(pool_bytes, 1, 5 | PMDK_MAP_ZERO);
	pmdk_set_map(pool_bytes, 2, 6 | PMDK_MAP_ERROR);
	pmdk_set_map(pool_bytes, 3, 0);
	CHECK_OK(open_pool());
	CHECK_EQ(block(1), 0);
	CHECK_EQ(block(2), -EIO);
	CHECK_EQ(block(3), 0);
	close_pool();
}

TEST(a_flog_entry_ahead_of_the_map_counts)
{
	const uint32_t old = (3 + MADE_FREE) | PMDK_MAP_NORMAL, new = 0 | PMDK_MAP_NORMAL;

	pmdk_make(pool_bytes);
	memset(pool_bytes + PMDK_DATA_OFF + PMDK_BLOCK, 'Z', MADE_BLOCK_BYTES);
	pmdk_set_flog(pool_bytes, 0, 1, flog(3, old, new, 2));
	CHECK_OK(open_pool());
	CHECK_EQ(block(3), 'Z');
	CHECK_EQ(block(4), 'a' + 4);
	close_pool();
}

TEST(a_flog_entry_that_the_map_has_taken_changes_nothing)
{
	pmdk_make(pool_bytes);
	pmdk_set_map(pool_bytes, 3, 1 | PMDK_MAP_NORMAL);
	memset(pool_bytes + PMDK_DATA_OFF + PMDK_BLOCK + MADE_STRIDE, 'Y', MADE_BLOCK_BYTES);
	pmdk_set_flog(pool_bytes, 0, 1,
		      flog(3, 0 | PMDK_MAP_NORMAL, 1 | PMDK_MAP_NORMAL, 2));
	CHECK_OK(open_pool());
	CHECK_EQ(block(3), 'Y');
	close_pool();
}

TEST(the_older_slot_of_a_pair_does_not_count)
{
	const uint32_t old = (3 + MADE_FREE) | PMDK_MAP_NORMAL;

	pmdk_make(pool_bytes);
	/* 1 follows 3. */
	pmdk_set_flog(pool_bytes, 0, 0, flog(3, old, 0 | PMDK_MAP_NORMAL, 3));
	pmdk_set_flog(pool_bytes, 0, 1, flog(9, 1 | PMDK_MAP_ZERO, 1 | PMDK_MAP_ZERO, 1));
	CHECK_OK(open_pool());
	CHECK_EQ(block(3), 'a' + 3);
	close_pool();
}

TEST(an_unwritten_entry_counts_as_its_own_number)
{
	pmdk_make(pool_bytes);
	pmdk_set_map(pool_bytes, 3, 0);
	pmdk_set_flog(pool_bytes, 2, 1,
		      flog(3, 3 | PMDK_MAP_NORMAL, 8 | PMDK_MAP_NORMAL, 2));
	CHECK_OK(open_pool());
	CHECK_EQ(block(3), 'a' + 8 - MADE_FREE);
	close_pool();
}

TEST(the_second_info_block_stands_in_for_the_first)
{
	pmdk_make(pool_bytes);
	pool_bytes[PMDK_DATA_OFF + 64] ^= 1;
	CHECK_OK(open_pool());
	CHECK_EQ(block(5), 'a' + 5);
	close_pool();
}

TEST(without_an_info_block_it_is_damaged)
{
	pmdk_make(pool_bytes);
	pool_bytes[PMDK_DATA_OFF + 64] ^= 1;
	pool_bytes[MADE_INFO2_OFF + 64] ^= 1;
	CHECK_EQ(open_pool(), -EBADMSG);
	CHECK(strstr(err.text, "8192"));
	pm_close(pm);
}

TEST(a_pool_that_was_never_written_to_has_no_blocks_yet)
{
	pmdk_make(pool_bytes);
	memset(pool_bytes + PMDK_DATA_OFF, 0, MADE_BYTES - PMDK_DATA_OFF);
	CHECK_OK(open_pool());
	CHECK_EQ(pmdk_blocks(pool), 0);
	close_pool();
}

TEST(a_map_entry_beyond_the_arena_is_damage)
{
	pmdk_make(pool_bytes);
	pmdk_set_map(pool_bytes, 2, (MADE_BLOCKS + MADE_FREE) | PMDK_MAP_NORMAL);
	CHECK_OK(open_pool());
	CHECK_EQ(block(2), -EBADMSG);
	CHECK_EQ(block(1), 'a' + 1);
	close_pool();
}

TEST(regions_beyond_the_arena_are_refused)
{
	static const size_t fields[] = {
		offsetof(struct pmdk_info, dataoff),
		offsetof(struct pmdk_info, mapoff),
		offsetof(struct pmdk_info, flogoff),
	};

	for (unsigned int i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		pmdk_make(pool_bytes);
		memset(pool_bytes + PMDK_DATA_OFF + fields[i], 0xff, 8);
		pmdk_seal(pool_bytes + PMDK_DATA_OFF);
		CHECK_EQ(open_pool(), -EBADMSG);
		pm_close(pm);
	}
}

TEST(a_damaged_flog_pair_is_refused)
{
	pmdk_make(pool_bytes);
	pmdk_set_flog(pool_bytes, 1, 0, flog(0, 1, 2, 0));
	CHECK_EQ(open_pool(), -EBADMSG);
	CHECK(strstr(err.text, "flog entry 1"));
	pm_close(pm);
}

TEST(other_files_are_no_pool)
{
	pmdk_make(pool_bytes);
	pool_bytes[0] = 'X';
	CHECK_EQ(open_pool(), -ENOENT);
	pm_close(pm);
}

TEST(parts_of_a_pool_set_are_refused)
{
	pmdk_make(pool_bytes);
	pool_bytes[offsetof(struct pmdk_hdr, next_part_uuid)] ^= 1;
	pmdk_seal(pool_bytes);
	CHECK_EQ(open_pool(), -ENOTSUP);
	pm_close(pm);
}

TEST(a_damaged_header_is_noticed)
{
	pmdk_make(pool_bytes);
	pool_bytes[50] ^= 1;
	CHECK_EQ(open_pool(), -EBADMSG);
	pm_close(pm);
}
