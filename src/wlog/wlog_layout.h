/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write log on its device. docs/SPEC-log.md describes every byte; this is the same in C.
 *
 *   0          superblock, slot 0
 *   64 KiB     superblock, slot 1
 *   128 KiB    the ring: segments, one behind the other, each a multiple of 4 KiB
 *
 * All integers are little-endian. Reserved fields are zero. Positions in the ring count bytes since
 * the log was formatted and never go back; the place on the device is
 * ring_off + position % ring_bytes. A segment never runs over the end of the ring: what is left
 * there is covered by a pad.
 */
#ifndef WLOG_WLOG_LAYOUT_H
#define WLOG_WLOG_LAYOUT_H

#include <stddef.h>

#include "base/endian.h"

#define WLOG_BLOCK 4096u /* everything in the log is a multiple of this */
#define WLOG_SB_SLOTS 2
#define WLOG_SB_STRIDE (64u << 10)
#define WLOG_RING_OFF (128u << 10)
#define WLOG_RING_MIN (64u << 10)
#define WLOG_CRC_SECTORS 8u /* one checksum for each 4 KiB of a record's data */

/* Of one segment; for a reader's bounds. */
#define WLOG_HEADER_MAX_BYTES (1u << 20)
#define WLOG_DATA_MAX_BYTES (16u << 20)

#define WLOG_SB_MAGIC UINT64_C(0x474f4c4556524156)  /* "VARVELOG" */
#define WLOG_SEG_MAGIC UINT64_C(0x4745534556524156) /* "VARVESEG" */
#define WLOG_VERSION 1u

/* incompat_flags: a reader that does not know a set bit must not open the log. */
#define WLOG_INCOMPAT_NV (1u << 0) /* a non-volatile buffer belongs to the log (not yet written) */
#define WLOG_INCOMPAT_KNOWN 0u

/* wlog_sb.state */
#define WLOG_STATE_CLEAN (1u << 0)    /* closed in order: all LSNs up to watermark_lsn are there */
#define WLOG_STATE_NV_DIRTY (1u << 1) /* the NV buffer may hold what the ring does not */

struct wlog_sb {
	le64 magic;
	le32 version;
	le32 crc; /* CRC32C of the 4 KiB with this field zero */
	le32 compat_flags;
	le32 incompat_flags;
	uint8_t log_uuid[16];
	uint8_t volume_uuid[16];
	uint8_t nv_uuid[16]; /* of the NV buffer; zero: none */
	le64 sb_seq;         /* the valid slot with the higher number counts */
	le64 attach_epoch;
	le64 log_epoch;
	le64 device_bytes; /* of the device when it was formatted */
	le64 ring_off;
	le64 ring_bytes;
	le64 tail_pos; /* of the oldest segment that is still needed */
	le64 tail_seg; /* its number */
	le64 cut_seg;  /* segments from this number on carry log_epoch, those before it do not */
	le64 tail_lsn; /* no LSN up to here is at or behind the tail */
	le64 watermark_lsn;
	le64 destaged_lsn; /* the home holds everything through it */
	le64 next_lsn;     /* no LSN from here on has ever been used before this was written */
	le64 life_bytes;   /* written to the device since it was formatted */
	le64 wall_ns;      /* when this superblock was written */
	le32 tail_prev_crc; /* header CRC of the segment before the tail */
	le32 state;
	le32 home_bytes; /* of home that are used */
	uint8_t home[2048]; /* what the home keeps here, in a form of its own; then zeros */
	uint8_t reserved[1844];
};

static_assert(sizeof(struct wlog_sb) == WLOG_BLOCK, "a superblock is one block");
static_assert(offsetof(struct wlog_sb, sb_seq) == 72, "wlog_sb.sb_seq");
static_assert(offsetof(struct wlog_sb, tail_prev_crc) == 192, "wlog_sb.tail_prev_crc");
static_assert(offsetof(struct wlog_sb, home) == 204, "wlog_sb.home");

/* wlog_seg_hdr.flags */
#define WLOG_SEG_PAD (1u << 0) /* no records; covers the rest of the ring */

/*
 * A segment's header: this, then the records, then the checksums, padded with zeros to
 * header_bytes. The data follows.
 */
struct wlog_seg_hdr {
	le64 magic;
	le32 version;
	le32 crc; /* CRC32C of header_bytes with this field zero */
	uint8_t log_uuid[16];
	le64 log_epoch;
	le64 number;
	le64 first_lsn;
	le64 last_lsn;
	le64 watermark_lsn; /* everything through it was durable when this was sealed */
	le64 wall_ns;       /* when it was sealed */
	le32 prev_crc;      /* header CRC of the segment or pad before this one */
	le32 flags;
	le32 header_bytes; /* multiple of 4 KiB */
	le32 data_bytes;   /* multiple of 4 KiB; of a pad: to the end of the ring */
	le32 records;
	le32 crcs;
	uint8_t reserved[24];
};

static_assert(sizeof(struct wlog_seg_hdr) == 128, "wlog_seg_hdr");
static_assert(offsetof(struct wlog_seg_hdr, prev_crc) == 80, "wlog_seg_hdr.prev_crc");

/* wlog_rec_disk.flags. A write of several records is whole only when both marks agree. */
#define WLOG_REC_CONTINUES (1u << 0) /* the next record belongs to the same write */
#define WLOG_REC_CONTINUED (1u << 1) /* and this one to the same write as the one before */
#define WLOG_REC_KNOWN (WLOG_REC_CONTINUES | WLOG_REC_CONTINUED)

struct wlog_rec_disk {
	le48 lba; /* sectors of 512 bytes */
	uint8_t type; /* enum wlog_rec_type */
	uint8_t flags;
	le32 sectors;
	le32 lsn_delta; /* LSN is first_lsn of the segment plus this */
	/* Running sums, in records without data too: */
	le32 data_sector; /* where its data begins, in sectors from the start of the data */
	le32 first_crc;   /* index of the checksum of its first 4 KiB */
};

static_assert(sizeof(struct wlog_rec_disk) == 24, "wlog_rec_disk");

#endif
