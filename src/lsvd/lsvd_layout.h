/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The objects of a volume. docs/SPEC-objects.md describes every byte; this is the same in C.
 *
 * NAME                                        superblock, the only object that is ever replaced
 * NAME.<seq %016x>.<epoch %08x>               data object, GC object
 * NAME.c<no %016x>.<epoch %08x>.<part %04x>   part of a checkpoint
 * NAME.r<no %016x>.<epoch %08x>               root of a checkpoint
 *
 * Every object begins with struct lsvd_hdr. Of everything but data objects the header is the whole
 * object. All integers are little-endian. Reserved fields and padding are zero. A sector is 512
 * bytes everywhere.
 */
#ifndef LSVD_LSVD_LAYOUT_H
#define LSVD_LSVD_LAYOUT_H

#include <stddef.h>

#include "base/endian.h"

#define LSVD_MAGIC UINT64_C(0x4a424f4556524156) /* "VARVEOBJ" */
#define LSVD_VERSION 1u
#define LSVD_BLOCK 4096u      /* headers are padded to a multiple of it */
#define LSVD_CRC_SECTORS 8u   /* one checksum for each 4 KiB of an extent's data */
#define LSVD_SECTOR_BYTES 512u
#define LSVD_HEADER_MAX_BYTES (64u << 20)
#define LSVD_SUPER_BYTES 4096u
#define LSVD_ROOT_MAX_BYTES (256u << 20)

#define LSVD_SEQ_BITS 40
#define LSVD_SEQ_MAX ((UINT64_C(1) << LSVD_SEQ_BITS) - 1)
#define LSVD_OFF_BITS 23 /* an object's data is shorter than 2^23 sectors, 4 GiB */
#define LSVD_DATA_MAX_SECTORS ((UINT32_C(1) << LSVD_OFF_BITS) - 1)
#define LSVD_LBA_END (UINT64_C(1) << 48)

/* incompat_flags: a reader that does not know a set bit must not go on. */
#define LSVD_INCOMPAT_GC 1u /* superblock: the stream may hold GC objects; and these */
#define LSVD_INCOMPAT_KNOWN LSVD_INCOMPAT_GC

enum lsvd_type {
	LSVD_TYPE_SUPER = 1,
	LSVD_TYPE_DATA = 2,
	LSVD_TYPE_GC = 3, /* data that has been moved out of older objects */
	LSVD_TYPE_PART = 4,
	LSVD_TYPE_ROOT = 5,
};

struct lsvd_hdr {
	le64 magic;
	le32 version;
	le32 crc; /* CRC32C of header_bytes with this field zero */
	le32 compat_flags;
	le32 incompat_flags;
	uint8_t volume_uuid[16];
	le32 type;         /* enum lsvd_type */
	le32 attach_epoch; /* of the owner that wrote the object */
	le64 seq;          /* data: its number; part, root: the checkpoint's; super: its writes */
	le32 header_bytes;
	le32 generation; /* GC: how often its data has been moved at most */
	le64 data_bytes; /* what follows the header */
	le64 wall_ns;    /* when the newest write in it was sealed; else when it was built */
	le64 first_lsn;
	le64 last_lsn;
	le64 prev_seq; /* of the data object before this one: a gap is legal exactly here */
	le32 ext_count;
	le32 ext_off; /* in the object, in bytes; the same below */
	le32 crc_count;
	le32 crc_off;
	le32 ckpt_count; /* reserved: live checkpoints */
	le32 ckpt_off;
	le32 source_count; /* GC: where the data was before */
	le32 source_off;
	le32 snap_count; /* reserved: snapshots */
	le32 snap_off;
	le32 clone_count; /* reserved: the chain of volumes that this one is a clone of */
	le32 clone_off;
	uint8_t reserved[8];
};

static_assert(sizeof(struct lsvd_hdr) == 160, "lsvd_hdr");
static_assert(offsetof(struct lsvd_hdr, volume_uuid) == 24, "lsvd_hdr.volume_uuid");
static_assert(offsetof(struct lsvd_hdr, data_bytes) == 64, "lsvd_hdr.data_bytes");
static_assert(offsetof(struct lsvd_hdr, ext_count) == 104, "lsvd_hdr.ext_count");

enum lsvd_ext_type {
	LSVD_EXT_DATA = 1,
	LSVD_EXT_ZERO = 2,  /* reads as zeros: the map forgets the range */
	LSVD_EXT_ERROR = 3, /* the data was damaged before it got here: reads as an error */
};

/* At ext_off of a data object, ascending by lba, not overlapping. */
struct lsvd_ext {
	le48 lba;
	uint8_t type; /* enum lsvd_ext_type */
	uint8_t reserved;
	le32 sectors;
	le32 data_sector; /* in the object's data: where the DATA extent before it ended */
	le32 first_crc;   /* of its first 4 KiB: counts up in the same way */
};

static_assert(sizeof(struct lsvd_ext) == 20, "lsvd_ext");

/* At source_off of a GC object: where the next `sectors` sectors of its data lay before. */
struct lsvd_source {
	le64 place; /* as in struct lsvd_ckpt_ext */
	le32 sectors;
	uint8_t reserved[4];
};

static_assert(sizeof(struct lsvd_source) == 16, "lsvd_source");

struct lsvd_root_ref {
	le64 no; /* 0: none */
	le32 epoch;
	le32 bytes;
	le64 covered_seq;
	le32 crc; /* the root's lsvd_hdr.crc */
	uint8_t reserved[4];
};

static_assert(sizeof(struct lsvd_root_ref) == 32, "lsvd_root_ref");

/* Objects of an epoch count only if first_seq <= seq <= end_seq. */
struct lsvd_epoch_end {
	le32 epoch;
	uint8_t reserved[4];
	le64 first_seq;
	le64 end_seq; /* all bits set: the epoch has not been ended */
};

static_assert(sizeof(struct lsvd_epoch_end) == 24, "lsvd_epoch_end");

#define LSVD_ROOTS 2
#define LSVD_EPOCH_ENDS 128
#define LSVD_SEQ_OPEN UINT64_MAX

/* lsvd_super.state */
#define LSVD_STATE_CLEAN (1u << 0)   /* no cache holds anything that the objects do not */
#define LSVD_STATE_REPLACE (1u << 1) /* the pending cache takes the place of the bound one */

struct lsvd_super {
	struct lsvd_hdr hdr; /* seq: counts the writes of the superblock */
	le64 size_bytes;
	le32 block_bytes;
	le32 state;
	le32 committed_epoch; /* the bound cache has seen this epoch */
	le32 bound_epoch;     /* in which cache_uuid was bound */
	uint8_t cache_uuid[16];
	uint8_t pending_uuid[16];
	le64 last_seq; /* the objects up to here exist */
	le64 last_lsn;
	le64 lsn_floor; /* no LSN up to here may be given out by a cache that is bound later */
	le64 bind_lsn;  /* where the LSNs of the bound cache began */
	le64 created_wall_ns;
	le64 nonce; /* a random number: tells one's own write from another's */
	struct lsvd_root_ref roots[LSVD_ROOTS]; /* newest first */
	le32 end_count;
	uint8_t reserved0[4];
	struct lsvd_epoch_end ends[LSVD_EPOCH_ENDS];
	uint8_t reserved[688];
};

static_assert(sizeof(struct lsvd_super) == LSVD_SUPER_BYTES, "lsvd_super");
static_assert(offsetof(struct lsvd_super, last_seq) == 216, "lsvd_super.last_seq");
static_assert(offsetof(struct lsvd_super, roots) == 264, "lsvd_super.roots");
static_assert(offsetof(struct lsvd_super, ends) == 336, "lsvd_super.ends");

enum lsvd_part_kind {
	LSVD_PART_SHARD = 1,   /* entries are struct lsvd_ckpt_ext */
	LSVD_PART_OBJECTS = 2, /* entries are struct lsvd_ckpt_obj */
};

/* A checkpoint part: this, then its entries. */
struct lsvd_part {
	struct lsvd_hdr hdr;
	le64 shard; /* SHARD: its number, lba >> shard_sectors_log2; OBJECTS: 0 */
	le32 kind;
	le32 part; /* as in its key */
	le32 entry_count;
	le32 entry_off;
	uint8_t reserved[8];
};

static_assert(sizeof(struct lsvd_part) == 192, "lsvd_part");

#define LSVD_PLACE_ERROR (UINT64_C(1) << 63) /* all of place: an ERROR extent */

struct lsvd_ckpt_ext {
	le48 lba;
	le16 sectors; /* 1 to 65535 */
	le64 place;   /* seq << 23 | sector in the object's data; or LSVD_PLACE_ERROR */
};

static_assert(sizeof(struct lsvd_ckpt_ext) == 16, "lsvd_ckpt_ext");

struct lsvd_ckpt_obj {
	le64 seq;
	le32 epoch;
	le32 type; /* enum lsvd_type */
	le32 header_bytes;
	le32 data_sectors;
	le32 live_sectors; /* as of the moment of writing; a hint, counted anew at each open */
	uint8_t reserved[4];
};

static_assert(sizeof(struct lsvd_ckpt_obj) == 32, "lsvd_ckpt_obj");

/* A checkpoint root: this, then the references to its parts, ascending by kind, shard. */
struct lsvd_root {
	struct lsvd_hdr hdr;
	le64 covered_seq;      /* every object up to this one is contained */
	le64 covered_data_seq; /* the last data object among them */
	le64 covered_lsn;      /* the last LSN that they hold */
	le64 reach_seq;        /* no object beyond this one is named */
	le64 covered_wall_ns;
	le32 shard_sectors_log2;
	le32 part_count;
	le32 part_off;
	uint8_t reserved[4];
};

static_assert(sizeof(struct lsvd_root) == 216, "lsvd_root");

struct lsvd_part_ref {
	le64 shard;
	le64 no; /* the checkpoint that wrote it, for its key; the same for the two that follow */
	le32 epoch;
	le32 part;
	le32 kind;
	le32 bytes;
	le32 entries;
	le32 crc; /* the part's lsvd_hdr.crc */
};

static_assert(sizeof(struct lsvd_part_ref) == 40, "lsvd_part_ref");

#endif
