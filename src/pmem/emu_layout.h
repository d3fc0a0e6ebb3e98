/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emulated persistent memory as it lies on a block device. docs/SPEC-pmem.md describes every byte;
 * this is the same in C. All integers are little-endian. Reserved fields are zero.
 */
#ifndef PMEM_EMU_LAYOUT_H
#define PMEM_EMU_LAYOUT_H

#include "base/endian.h"

#define EMU_MAGIC UINT64_C(0x554d454556524156) /* "VARVEEMU" */
#define EMU_VERSION 1u
#define EMU_SUPERS 2u /* units at the start of the range, each with a copy of the superblock */
#define EMU_UNIT_MIN 4096u
#define EMU_UNIT_MAX 65536u

struct emu_super {
	le64 magic;
	le32 version;
	le32 crc; /* CRC32C of the struct with this field zero */
	le32 incompat_flags;
	le32 unit_bytes;
	uint8_t uuid[16];
	le64 off_bytes;
	le64 len_bytes;
	le64 units;
};

static_assert(sizeof(struct emu_super) == 64, "emu_super");

/* At both ends of each copy of a unit. */
struct emu_stamp {
	le32 crc;         /* CRC32C of the stamp behind this field */
	le32 payload_crc; /* of what lies between the two stamps */
	le64 format;      /* the two halves of the uuid, exclusive or */
	le64 unit;
	le64 batch; /* everything of the batches before was durable when this was written */
};

static_assert(sizeof(struct emu_stamp) == 32, "emu_stamp");

#endif
