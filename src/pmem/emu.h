/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent memory emulated on a range of a block device: memory in RAM, whose changed pieces are
 * written at each fence, to alternating places, so that a write that is torn at any byte never
 * destroys what was durable. docs/SPEC-pmem.md has the bytes.
 *
 *	pm_emu_format(dev, off, len, &uuid, err)     once
 *	pm_emu_open(dev, off, len, &pm, &uuid, err)
 *	pm_write(pm, pm->base + at, data, n)         or the primitives of pmem.h one by one
 *	pm_read(pm, data, pm->base + at, n)
 *	pm_close(pm)
 *	pm_emu_free(dev, off, len, err)              when it is needed no more
 *
 * A fence writes at least a unit (4 KiB, or the device's block if that is larger) for whatever lies
 * in it, one with FUA, several with one flush behind them. It waits for the device on the calling
 * thread, so it must not be called entered (base/host.h) nor from inside a done(). Threads that
 * fence at once share the writing.
 *
 * The memory has less room than the range: half of it, less 64 bytes a unit and two units.
 * The device must stay open, is not closed here, and its lock (dev_ops.lock) is the caller's to
 * take; nobody else may write the range.
 */
#ifndef PMEM_EMU_H
#define PMEM_EMU_H

#include "base/uuid.h"
#include "dev/dev.h"
#include "pmem/pmem.h"

/*
 * Makes the range a memory of zeros; what was there is lost. off and len are multiples of the
 * device's blocks. uuid is new and random. Interrupted, it leaves what was there before, or
 * nothing that can be opened, or the new memory. -EINVAL a range that is too small or not aligned.
 */
int pm_emu_format(struct dev *dev, uint64_t off_bytes, uint64_t len_bytes, const struct uuid *uuid,
		  struct err *err);

/*
 * -ENODEV nothing was formatted here; -EXDEV it was, for another range; -EBADMSG damage, with its
 * place. ret_uuid may be NULL. On a read-only device the memory is read-only.
 */
int pm_emu_open(struct dev *dev, uint64_t off_bytes, uint64_t len_bytes, struct pmem **ret,
		struct uuid *ret_uuid, struct err *err);

/*
 * Gives the range back: it is no memory any more, durably, when this returns 0. Nobody may have it
 * open. As pm_emu_open(), it refuses what is no memory of just this range; damage is no hindrance.
 */
int pm_emu_free(struct dev *dev, uint64_t off_bytes, uint64_t len_bytes, struct err *err);

struct pm_emu_info {
	uint32_t unit_bytes;
	uint64_t units;
	uint64_t torn;    /* units whose last write a crash had interrupted, when it was opened */
	uint64_t batches; /* since then: fences that wrote */
	uint64_t written; /* units, in these batches */
};

void pm_emu_info(struct pmem *pm, struct pm_emu_info *ret);

#endif
