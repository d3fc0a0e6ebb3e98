/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block translation table on its medium. docs/SPEC-btt.md describes every byte; this is the same
 * in C.
 *
 *   0              superblock
 *   map_off        the table: one entry for each sector
 *   list_off       the saved list of spare blocks, of the form of entries
 *   data_off       blocks, stride_bytes each: nblock of them and the spares
 *   pool_bytes - 4 KiB   superblock again
 */
#ifndef BTT_BTT_LAYOUT_H
#define BTT_BTT_LAYOUT_H

#include <stddef.h>

#include "base/endian.h"

#define BTT_PAGE 4096u /* what everything but a block is aligned to */

#define BTT_SB_MAGIC UINT64_C(0x5454424556524156) /* "VARVEBTT" */
#define BTT_VERSION 1u

/* A block takes at least so much, and a multiple of that. */
#define BTT_STRIDE_MIN 512u
#define BTT_STRIDE_UNIT 256u

#define BTT_BLOCK_BYTES_MAX UINT64_C(0xffffffff)

/* btt_sb.state */
#define BTT_STATE_LISTED (1u << 0) /* the saved list counts */

struct btt_sb {
	le64 magic;
	le32 version;
	le32 crc; /* CRC32C of the 4 KiB with this field zero */
	le32 compat_flags;
	le32 incompat_flags;
	uint8_t uuid[16];
	le64 seq; /* the valid copy with the higher number counts */
	le64 pool_bytes;
	le64 block_bytes;
	le64 stride_bytes;
	le64 nblock;
	le64 spares;
	le64 map_off;
	le64 list_off;
	le64 data_off;
	le32 state;
	le32 list_crc; /* CRC32C of the saved list, while state says that it counts */
	uint8_t reserved[3976];
};

static_assert(sizeof(struct btt_sb) == BTT_PAGE, "a superblock is one page");
static_assert(offsetof(struct btt_sb, seq) == 40, "btt_sb.seq");
static_assert(offsetof(struct btt_sb, state) == 112, "btt_sb.state");

/*
 * An entry: a little-endian 64-bit word, aligned.
 *
 *   bits 0 to 37    block
 *   bits 38, 39     state
 *   bits 40 to 63   check: CRC-24 of bits 0 to 39, mixed with the sector's number and the pool
 */
#define BTT_BLOCK_BITS 38
#define BTT_BLOCKS_MAX (UINT64_C(1) << BTT_BLOCK_BITS)
#define BTT_ENTRY_STATE_SHIFT 38
#define BTT_ENTRY_CHECK_SHIFT 40

#define BTT_ENTRY_DATA 0u  /* the block holds the sector */
#define BTT_ENTRY_ZERO 1u  /* the sector is zeros; the block is its own all the same */
#define BTT_ENTRY_ERROR 2u /* reading it is an error */

#define BTT_CRC24_POLY 0x5d6dcbu
#define BTT_ENTRY_MIX UINT64_C(0x9e3779b97f4a7c15)

#endif
