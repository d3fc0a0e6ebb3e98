/* SPDX-License-Identifier: BSD-3-Clause */
/* Entries of the block translation table: form, and what their check notices. */
#include <stdlib.h>

#include "base/rng.h"
#include "btt/entry.h"
#include "lib/tap.h"

#define SALT UINT64_C(0x0123456789abcdef)

/* Bit by bit, as the specification has it. */
static uint32_t crc_by_definition(uint64_t payload)
{
	uint32_t crc = 0;

	for (int byte = 0; byte < 5; byte++)
		for (int bit = 7; bit >= 0; bit--) {
			uint32_t in = payload >> (8 * byte + bit) & 1, top = crc >> 23;

			crc = (crc << 1 ^ (in ^ top ? 0x5d6dcbu : 0)) & 0xffffff;
		}
	return crc;
}

TEST(check_is_as_specified)
{
	struct rng rng;

	rng_seed(&rng, test_seed());
	entry_tables_init();
	for (int i = 0; i < 10000; i++) {
		uint64_t block = rng_below(&rng, BTT_BLOCKS_MAX), lba = rng_next(&rng) >> 26;
		uint64_t payload = block | (uint64_t)(i % 3) << 38;
		uint64_t mix = (lba * UINT64_C(0x9e3779b97f4a7c15) + SALT) >> 40;

		CHECK_EQ(entry_make(lba, SALT, block, (unsigned)i % 3),
			 payload | (crc_by_definition(payload) ^ mix) << 40);
	}
}

TEST(entry_gives_back_what_it_was_made_of)
{
	uint64_t entry;

	entry_tables_init();
	entry = entry_make(7, SALT, 12345678901, BTT_ENTRY_ERROR);
	CHECK_EQ(entry_block(entry), 12345678901);
	CHECK_EQ(entry_state(entry), BTT_ENTRY_ERROR);
	CHECK(entry_valid(entry, 7, SALT, BTT_BLOCKS_MAX));
	CHECK(!entry_valid(entry, 7, SALT, 12345678901));
}

TEST(entry_of_another_sector_or_pool_is_noticed)
{
	uint64_t entry;

	entry_tables_init();
	entry = entry_make(7, SALT, 5, BTT_ENTRY_DATA);
	for (uint64_t lba = 0; lba < 1000; lba++)
		CHECK_EQ(entry_valid(entry, lba, SALT, 100), lba == 7);
	CHECK(!entry_valid(entry, 7, ~SALT, 100));
	CHECK(!entry_valid(0, 7, SALT, 100));
	CHECK(!entry_valid(UINT64_MAX, 7, SALT, BTT_BLOCKS_MAX));
}

/* The state that no entry has is refused though its check is right. */
TEST(state_that_is_never_written_is_not_valid)
{
	entry_tables_init();
	CHECK(!entry_valid(entry_make(7, SALT, 5, 3), 7, SALT, 100));
}

/* Syndromes of single bits: no three of them and no other three or fewer add up to the same. */
static int cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

TEST(up_to_six_changed_bits_are_noticed)
{
	static uint32_t sums[64 + 64 * 63 / 2 + 64 * 63 * 62 / 6 + 1];
	uint32_t bit[64];
	size_t n = 0;

	entry_tables_init();
	for (unsigned i = 0; i < 64; i++)
		bit[i] = i < 40 ? entry_crc24(UINT64_C(1) << i) : 1u << (i - 40);
	sums[n++] = 0;
	for (unsigned a = 0; a < 64; a++) {
		sums[n++] = bit[a];
		for (unsigned b = a + 1; b < 64; b++) {
			sums[n++] = bit[a] ^ bit[b];
			for (unsigned c = b + 1; c < 64; c++)
				sums[n++] = bit[a] ^ bit[b] ^ bit[c];
		}
	}
	qsort(sums, n, sizeof(*sums), cmp);
	for (size_t i = 1; i < n; i++)
		CHECK(sums[i] != sums[i - 1]);
}
