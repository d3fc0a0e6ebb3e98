/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of PMDK's libpmemblk, to read them: a pool header, libpmemblk's own header, and from 8 KiB
 * on a block translation table of version 1.1 (UEFI specification, "Block Translation Table").
 * docs/SPEC-pmdk.md describes every byte.
 *
 *   0      struct pmdk_hdr
 *   4096   struct pmdk_blk
 *   8192   arenas, one behind the other, of at most 512 GiB; each:
 *          0         struct pmdk_info
 *          dataoff   internal_nlba blocks of internal_lbasize bytes
 *          mapoff    external_nlba entries, le32
 *          flogoff   nfree pairs of struct pmdk_flog, a pair every 64 bytes
 *          infooff   the info block again
 *
 * All integers are little-endian.
 */
#ifndef BTT_PMDK_LAYOUT_H
#define BTT_PMDK_LAYOUT_H

#include <assert.h>
#include <stddef.h>

#include "base/endian.h"

#define PMDK_BLOCK 4096u
#define PMDK_HDR_SIGNATURE "PMEMBLK"
#define PMDK_INFO_SIGNATURE "BTT_ARENA_INFO\0"
#define PMDK_ARENA_MAX (UINT64_C(1) << 39)
#define PMDK_DATA_OFF 8192u
#define PMDK_CHECKSUM_OFF 4088u /* in both kinds of header: Fletcher64, itself counted as zeros */

/* pmdk_hdr.incompat */
#define PMDK_INCOMPAT_CKSUM_2K 2u /* the checksum counts all from byte 2048 on as zeros */
#define PMDK_INCOMPAT_KNOWN 7u    /* the others: of no concern to a reader */

struct pmdk_hdr {
	uint8_t signature[8];
	le32 major;
	le32 compat, incompat, ro_compat;
	uint8_t poolset_uuid[16];
	uint8_t uuid[16];
	/* All equal to uuid in a pool of one file. */
	uint8_t prev_part_uuid[16], next_part_uuid[16];
	uint8_t prev_repl_uuid[16], next_repl_uuid[16];
	uint8_t reserved[PMDK_CHECKSUM_OFF - 120];
	le64 checksum;
};

static_assert(sizeof(struct pmdk_hdr) == PMDK_BLOCK, "pmdk_hdr");
static_assert(offsetof(struct pmdk_hdr, uuid) == 40, "pmdk_hdr.uuid");

struct pmdk_blk {
	le32 bsize; /* as the user gave it */
};

struct pmdk_info {
	uint8_t signature[16];
	uint8_t uuid[16];
	uint8_t parent_uuid[16];
	le32 flags; /* bit 0: the arena has failed, and can only be read */
	le16 major, minor;
	le32 external_lbasize, external_nlba;
	le32 internal_lbasize, internal_nlba;
	le32 nfree;
	le32 infosize;
	le64 nextoff; /* of the next arena from the start of this one; 0: the last */
	le64 dataoff, mapoff, flogoff, infooff;
	uint8_t reserved[PMDK_CHECKSUM_OFF - 120];
	le64 checksum;
};

static_assert(sizeof(struct pmdk_info) == PMDK_BLOCK, "pmdk_info");
static_assert(offsetof(struct pmdk_info, nextoff) == 80, "pmdk_info.nextoff");

/* A map entry. Both bits: an ordinary block; none: never written, the block of its own number. */
#define PMDK_MAP_ZERO 0x80000000u
#define PMDK_MAP_ERROR 0x40000000u
#define PMDK_MAP_NORMAL (PMDK_MAP_ZERO | PMDK_MAP_ERROR)
#define PMDK_MAP_LBA 0x3fffffffu

#define PMDK_FLOG_PAIR 64u

struct pmdk_flog {
	le32 lba, old_map, new_map;
	le32 seq; /* 1, 2, 3, 1, ...; 0: not valid */
};

static_assert(sizeof(struct pmdk_flog) == 16, "pmdk_flog");

#endif
