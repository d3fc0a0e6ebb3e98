/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emulated persistent memory: primitives and fences.
 *
 * Purpose. What is written for persistent memory runs on machines that have none, at the price of
 * one write and one flush for each fence, and keeps every promise.
 *
 * Data structure. The memory is cut into units, and each unit has two places on the device. The
 * newest copy is in one; the next write of the unit goes to the other. Units that were changed are
 * noted at the flush; a fence writes them all as one batch, followed by one flush (a single unit
 * has FUA instead). Batches are numbered, and one begins when all before it are durable; so the
 * number in a copy also says what had been durable when it was written, which tells recovery a torn
 * copy from a rotten one (emu_open.c).
 *
 * Durable when: everything flushed or copied before the fence, at the return of the flush of its
 * batch, or of its one FUA write. The newest copy of a unit is overwritten by nothing until another
 * one is durable: a write torn at any byte costs what was not acknowledged.
 *
 * What is copied out of memory may be changed at the same time: 8 bytes are taken at once, so each
 * word is one that was there, and the rest is as with lines that are evicted at any time.
 *
 * Invariants.
 *  1. side names a durable copy, at rest and while a batch is written.
 *  2. A batch is begun only when all former ones are durable; after a failure none is begun.
 *
 * Locks. gather's, for dirty. One round runs at a time, and has writing, side, batch, the bounce
 * buffer and the requests to itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/crc32c.h"
#include "base/mutant.h"
#include "pmem/emu_impl.h"

struct emu_wave {
	atomic_uint left;
	atomic_int error;
};

static struct emu *to_emu(struct pmem *pm)
{
	return container_of(pm, struct emu, pm);
}

void emu_stamp(const struct emu_geometry *geo, uint8_t *copy, uint64_t unit, uint64_t batch)
{
	uint32_t payload = emu_payload_bytes(geo);
	struct emu_stamp stamp = {
		.payload_crc = le32_make(crc32c(0, copy + sizeof(stamp), payload)),
		.format = le64_make(emu_format_id(geo)),
		.unit = le64_make(unit),
		.batch = le64_make(batch),
	};

	stamp.crc = le32_make(crc32c(0, (uint8_t *)&stamp + 4, sizeof(stamp) - 4));
	memcpy(copy, &stamp, sizeof(stamp));
	memcpy(copy + sizeof(stamp) + payload, &stamp, sizeof(stamp));
}

/* Bytes that others may be reading at this moment, of which each aligned 8 go at once. */
static void store_bytes(uint8_t *dst, const uint8_t *src, size_t len)
{
	while (len) {
		uint64_t v;

		if ((uintptr_t)dst % 8 == 0 && len >= 8) {
			memcpy(&v, src, 8);
			atomic_store_explicit((_Atomic uint64_t *)dst, v, memory_order_relaxed);
			dst += 8;
			src += 8;
			len -= 8;
			continue;
		}
		atomic_store_explicit((_Atomic uint8_t *)dst++, *src++, memory_order_relaxed);
		len--;
	}
}

static void load_words(uint8_t *dst, const uint8_t *src, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = atomic_load_explicit((const _Atomic uint64_t *)(src + i),
						  memory_order_relaxed);

		memcpy(dst + i, &v, 8);
	}
}

static void emu_flush(struct pmem *pm, const void *addr, size_t len)
{
	struct emu *emu = to_emu(pm);
	size_t off = (size_t)((uintptr_t)addr - (uintptr_t)pm->base);
	uint32_t payload = emu_payload_bytes(&emu->geo);

	if (!len)
		return;
	gather_begin(&emu->gather);
	bitmap_set_range(emu->dirty, off / payload, (off + len - 1) / payload + 1);
	gather_end(&emu->gather);
}

static void emu_copy(struct pmem *pm, void *dst, const void *src, size_t len)
{
	store_bytes(dst, src, len);
	emu_flush(pm, dst, len);
}

static void emu_set(struct pmem *pm, void *dst, int c, size_t len)
{
	uint8_t piece[256], *at = dst;

	memset(piece, c, sizeof(piece));
	for (size_t done = 0; done < len; done += sizeof(piece)) {
		size_t n = len - done < sizeof(piece) ? len - done : sizeof(piece);

		store_bytes(at + done, piece, n);
	}
	emu_flush(pm, dst, len);
}

static void emu_store8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t value)
{
	(void)pm;
	atomic_store_explicit(dst, value, memory_order_release);
}

static bool emu_cas8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t *expected, uint64_t value)
{
	(void)pm;
	return atomic_compare_exchange_strong_explicit(dst, expected, value, memory_order_acq_rel,
						       memory_order_acquire);
}

static void wave_done(struct dev_req *req)
{
	struct emu_wave *wave = container_of(req, struct emu_req, req)->wave;

	if (req->result)
		atomic_store_explicit(&wave->error, req->result, memory_order_relaxed);
	/* Release: pairs with the acquire in wave_wait(). The last touch of the wave. */
	atomic_fetch_sub_explicit(&wave->left, 1, memory_order_release);
}

static int wave_wait(struct emu *emu, struct emu_wave *wave)
{
	bool kicked = false;

	while (atomic_load_explicit(&wave->left, memory_order_acquire)) {
		if (dev_help(emu->dev))
			continue;
		if (!kicked)
			dev_kick(emu->dev);
		else
			dev_poll(emu->dev, true);
		kicked = true;
	}
	return atomic_load_explicit(&wave->error, memory_order_relaxed);
}

/* Encodes one unit into the nth part of the bounce buffer and submits it. */
static void submit_unit(struct emu *emu, struct emu_wave *wave, unsigned n, uint64_t unit, bool fua)
{
	uint8_t *copy = emu->bounce + (size_t)n * emu->geo.unit_bytes;
	uint32_t payload = emu_payload_bytes(&emu->geo);
	unsigned side = !bitmap_test(emu->side, unit);
	struct dev_req *req = &emu->reqs[n].req;

	load_words(copy + sizeof(struct emu_stamp), emu->pm.base + unit * payload, payload);
	emu_stamp(&emu->geo, copy, unit, emu->batch);
	*req = (struct dev_req){.op = DEV_WRITE,
				.fua = fua,
				.off_bytes = emu_place(&emu->geo, side, unit),
				.done = wave_done};
	emu->reqs[n].wave = wave;
	dev_req_buf(req, copy, emu->geo.unit_bytes);
	dev_submit(emu->dev, req);
}

static int write_units(struct emu *emu, bool fua)
{
	uint64_t unit = bitmap_next_set(emu->writing, 0, emu->geo.units);
	int r = 0;

	while (!r && unit < emu->geo.units) {
		uint64_t units[EMU_WAVE];
		struct emu_wave wave;
		unsigned n = 0;

		for (; n < EMU_WAVE && unit < emu->geo.units; n++) {
			units[n] = unit;
			unit = bitmap_next_set(emu->writing, unit + 1, emu->geo.units);
		}
		atomic_init(&wave.error, 0);
		atomic_init(&wave.left, n);
		for (unsigned i = 0; i < n; i++)
			submit_unit(emu, &wave, i, units[i], fua);
		r = wave_wait(emu, &wave);
	}
	return r;
}

int emu_write_batch(struct emu *emu, uint64_t batch)
{
	uint64_t units = bitmap_weight(emu->writing, 0, emu->geo.units);
	bool lone = units == 1;
	int r;

	emu->batch = batch;
	r = write_units(emu, lone && VARVE_STEP("pmem.emu_fua"));
	if (!r && !lone && VARVE_STEP("pmem.emu_flush"))
		r = dev_flush(emu->dev);
	if (r)
		return r;
	/* Durable: only now are the new copies what the next batch must not touch. */
	for (uint64_t w = 0; w < BITMAP_WORDS(emu->geo.units); w++) {
		emu->side[w] ^= emu->writing[w];
		emu->writing[w] = 0;
	}
	atomic_fetch_add_explicit(&emu->batches, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&emu->written, units, memory_order_relaxed);
	return 0;
}

static void emu_take(void *owner)
{
	struct emu *emu = owner;
	uint64_t *taken = emu->dirty;

	emu->dirty = emu->writing;
	emu->writing = taken;
}

static int emu_run(void *owner)
{
	struct emu *emu = owner;

	return emu_write_batch(emu, emu->batch + 1);
}

static int emu_fence(struct pmem *pm)
{
	static const struct gather_ops ops = {.take = emu_take, .run = emu_run};

	/* As the instruction would: other threads see what came before it before what follows. */
	atomic_thread_fence(memory_order_seq_cst);
	return gather_fence(&to_emu(pm)->gather, &ops, to_emu(pm));
}

void emu_free(struct emu *emu)
{
	if (emu->pm.base)
		munmap(emu->pm.base, emu->map_bytes);
	if (emu->gather_ready)
		gather_destroy(&emu->gather);
	free(emu->dirty);
	free(emu->writing);
	free(emu->side);
	free(emu->bounce);
	free(emu->reqs);
	free(emu);
}

static void emu_close(struct pmem *pm)
{
	emu_free(to_emu(pm));
}

void pm_emu_info(struct pmem *pm, struct pm_emu_info *ret)
{
	struct emu *emu = to_emu(pm);

	*ret = (struct pm_emu_info){
		.unit_bytes = emu->geo.unit_bytes,
		.units = emu->geo.units,
		.torn = emu->torn,
		.batches = atomic_load_explicit(&emu->batches, memory_order_relaxed),
		.written = atomic_load_explicit(&emu->written, memory_order_relaxed),
	};
}

const struct pmem_ops emu_ops = {
	.name = "emu",
	.copy = emu_copy,
	.set = emu_set,
	.store8 = emu_store8,
	.cas8 = emu_cas8,
	.flush = emu_flush,
	.fence = emu_fence,
	.close = emu_close,
};
