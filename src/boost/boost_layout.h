/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-place home's state, as it lies in the superblock of its log (wlog_set_home_state). The
 * backing device itself carries data alone. docs/SPEC-boost.md describes every byte; this is the
 * same in C. All integers are little-endian. Reserved fields are zero.
 */
#ifndef BOOST_BOOST_LAYOUT_H
#define BOOST_BOOST_LAYOUT_H

#include <stddef.h>

#include "base/endian.h"

#define BOOST_STATE_MAGIC UINT64_C(0x5453424556524156) /* "VARVEBST" */
#define BOOST_STATE_VERSION 1u
#define BOOST_STATE_BYTES 2048u

/* incompat_flags: a reader that does not know a set bit must not open the volume. */
#define BOOST_INCOMPAT_KNOWN 0u

#define BOOST_IDENTITY_BYTES 128u
#define BOOST_SAMPLES 96u
#define BOOST_SAMPLES_EDGE 16u /* so many at the beginning of the device, and at its end */
#define BOOST_SAMPLE_BYTES 4096u
#define BOOST_BADS 168u

/* A range whose newest data is lost. */
struct boost_bad {
	le48 lba;
	le16 sectors;
};

static_assert(sizeof(struct boost_bad) == 8, "boost_bad");

struct boost_state {
	le64 magic;
	le32 version;
	le32 crc; /* CRC32C of the whole with this field zero */
	le32 compat_flags;
	le32 incompat_flags;
	le64 backing_bytes;
	le64 bound_wall_ns;
	le64 destaged_wall_ns; /* when the last segment that is home was sealed; 0: none is */
	le64 sample_seed;
	le32 block_bytes; /* the backing device's logical block */
	le32 bads;
	uint8_t identity[BOOST_IDENTITY_BYTES]; /* text, zero-terminated; "": nothing is known */
	uint8_t sample_valid[BOOST_SAMPLES / 8]; /* bit n % 8 of byte n / 8 */
	uint8_t reserved[52];
	le32 sample_crc[BOOST_SAMPLES];
	struct boost_bad bad[BOOST_BADS]; /* by lba, apart */
	uint8_t reserved2[64];
};

static_assert(sizeof(struct boost_state) == BOOST_STATE_BYTES, "boost_state");
static_assert(offsetof(struct boost_state, sample_crc) == 256, "boost_state.sample_crc");
static_assert(offsetof(struct boost_state, bad) == 640, "boost_state.bad");

#endif
