/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the emulated memory, shared by emu.c (primitives, fences) and emu_open.c (format,
 * recovery).
 */
#ifndef PMEM_EMU_IMPL_H
#define PMEM_EMU_IMPL_H

#include "base/list.h"
#include "pmem/emu.h"
#include "pmem/emu_layout.h"
#include "pmem/gather.h"

#define EMU_WAVE 32u /* units that are written at once, at most */

struct emu_geometry {
	uint64_t off_bytes, len_bytes;
	uint32_t unit_bytes;
	uint64_t units;
	struct uuid uuid;
};

struct emu_wave;

struct emu_req {
	struct dev_req req;
	struct emu_wave *wave; /* that waits for it */
};

struct emu {
	struct pmem pm;
	struct dev *dev;
	struct emu_geometry geo;
	size_t map_bytes;
	struct gather gather;
	bool gather_ready;
	uint64_t *dirty; /* bitmap of units; under gather.lock */
	/* Of the round that runs, or of opening. */
	uint64_t *writing; /* bitmap; all zeros in between */
	uint64_t *side;    /* bitmap: which copy of the unit is the newest */
	uint64_t batch;    /* the last that was begun */
	uint8_t *bounce;   /* EMU_WAVE units */
	struct emu_req *reqs;
	/* Relaxed: for status. */
	_Atomic uint64_t batches, written;
	uint64_t torn;
};

static inline uint32_t emu_payload_bytes(const struct emu_geometry *geo)
{
	return geo->unit_bytes - 2 * (uint32_t)sizeof(struct emu_stamp);
}

/* Where a copy of a unit lies on the device; side 0 or 1. */
static inline uint64_t emu_place(const struct emu_geometry *geo, unsigned side, uint64_t unit)
{
	return geo->off_bytes + (EMU_SUPERS + side * geo->units + unit) * geo->unit_bytes;
}

static inline uint64_t emu_format_id(const struct emu_geometry *geo)
{
	le64 half[2];

	memcpy(half, geo->uuid.b, sizeof(half));
	return le64_get(half[0]) ^ le64_get(half[1]);
}

/* Puts the stamps around the payload, which is in its place in copy. */
void emu_stamp(const struct emu_geometry *geo, uint8_t *copy, uint64_t unit, uint64_t batch);

/*
 * Writes the copies of all units of emu->writing that are not the newest, as of this batch, and
 * makes them durable; they are the newest then. Clears the bitmap if all went well.
 */
int emu_write_batch(struct emu *emu, uint64_t batch);

extern const struct pmem_ops emu_ops;

void emu_free(struct emu *emu);

#endif
