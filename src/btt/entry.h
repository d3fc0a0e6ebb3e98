/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Entries of the table: what their 64 bits say, and whether they can be believed.
 */
#ifndef BTT_ENTRY_H
#define BTT_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "btt/btt_layout.h"

/* CRC-24 of one byte at each place of the five, as entry_tables_init() made them. */
extern uint32_t entry_crc_table[5][256];

/* Any thread, any number of times. */
void entry_tables_init(void);

static inline uint32_t entry_crc24(uint64_t payload)
{
	return entry_crc_table[0][payload & 0xff] ^ entry_crc_table[1][payload >> 8 & 0xff] ^
	       entry_crc_table[2][payload >> 16 & 0xff] ^ entry_crc_table[3][payload >> 24 & 0xff] ^
	       entry_crc_table[4][payload >> 32 & 0xff];
}

/* salt is of the pool: the first eight bytes of its UUID. */
static inline uint64_t entry_make(uint64_t lba, uint64_t salt, uint64_t block, unsigned state)
{
	uint64_t payload = block | (uint64_t)state << BTT_ENTRY_STATE_SHIFT;
	uint32_t mix = (uint32_t)((lba * BTT_ENTRY_MIX + salt) >> BTT_ENTRY_CHECK_SHIFT);

	return payload | (uint64_t)(entry_crc24(payload) ^ mix) << BTT_ENTRY_CHECK_SHIFT;
}

static inline uint64_t entry_block(uint64_t entry)
{
	return entry & (BTT_BLOCKS_MAX - 1);
}

static inline unsigned entry_state(uint64_t entry)
{
	return (unsigned)(entry >> BTT_ENTRY_STATE_SHIFT) & 3;
}

/* Whether this is an entry of that sector, in a pool of so many blocks. */
static inline bool entry_valid(uint64_t entry, uint64_t lba, uint64_t salt, uint64_t blocks)
{
	uint64_t block = entry_block(entry);
	unsigned state = entry_state(entry);

	return block < blocks && state <= BTT_ENTRY_ERROR &&
	       entry == entry_make(lba, salt, block, state);
}

/* As the medium has it; the table is little-endian, as most processors are. */
static inline uint64_t entry_disk(uint64_t entry)
{
	return endian_swap64(entry);
}

#endif
