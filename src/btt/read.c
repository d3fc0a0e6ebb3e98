/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading without a lock (docs/SPEC-btt.md, "Reading a sector"; names in brackets are the steps of
 * spin/btt.pml).
 *
 * Durable when: what is returned is durable before it is copied. An entry that is not, because its
 * writer has swapped and not yet fenced, is made so by the reader.
 *
 * Invariants.
 *  1. What is returned lay in a block that the entry named at one moment within the call, and that
 *     nobody began to write to between that moment and the end of the copy.
 *  2. BTT_TRIES at most are optimistic. A reader that protects its block fails only if the entry
 *     changes between two of its instructions, for which some writer has finished a write.
 *  3. A reader writes nothing that others read, unless it was overtaken or met a pending entry.
 *
 * Errors. Memory that faults makes its sector an error sector, unless somebody has written it
 * meanwhile.
 *
 * Locks. None.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "btt/btt_impl.h"

struct read_op {
	struct btt *btt;
	uint64_t lba;
	uint64_t off_bytes, len_bytes;
	struct btt_window to;
	uint64_t block; /* where the data is sought */
};

/* src NULL: zeros. */
static void copy_out(const struct read_op *op, const uint8_t *src)
{
	struct btt_window to = op->to;
	uint64_t left = op->len_bytes;

	for (const struct iovec *iov = to.iov; left; iov++) {
		uint8_t *dst = iov->iov_base;
		uint64_t n = iov->iov_len;

		if (to.skip_bytes >= n) {
			to.skip_bytes -= n;
			continue;
		}
		dst += to.skip_bytes;
		n -= to.skip_bytes;
		to.skip_bytes = 0;
		n = n < left ? n : left;
		if (!src) {
			memset(dst, 0, n);
		} else if (__builtin_expect(op->btt->point != NULL, 0) && n > 1) {
			memcpy(dst, src, n / 2);
			btt_point(op->btt, "read half");
			memcpy(dst + n / 2, src + n / 2, n - n / 2);
			src += n;
		} else {
			memcpy(dst, src, n);
			src += n;
		}
		left -= n;
	}
}

int btt_settle_entry(struct btt *btt, uint64_t lba)
{
	/* Acquire: pairs with the release when it falls. */
	if (__builtin_expect(!atomic_load_explicit(btt_pending(btt, lba), memory_order_acquire), 1))
		return 0;
	/* [read_persist] What a read returns must not be undone by a crash. */
	return VARVE_STEP("btt.read_persist") ? btt_entry_persist(btt, lba) : 0;
}

/* 1: there is data to be copied; 0: done, zeros; -EIO. */
static int look_at(struct read_op *op, uint64_t entry)
{
	int r;

	if (__builtin_expect(!btt_valid(op->btt, entry, op->lba), 0)) {
		atomic_fetch_add_explicit(&op->btt->damaged, 1, memory_order_relaxed);
		atomic_store(&op->btt->leaked, true);
		log_error("btt: the entry of sector %llu is damaged: check the pool",
			  (unsigned long long)op->lba);
		return -EIO;
	}
	if (__builtin_expect(entry_state(entry) == BTT_ENTRY_DATA, 1))
		return 1;
	r = btt_settle_entry(op->btt, op->lba);
	if (r)
		return r;
	if (entry_state(entry) == BTT_ENTRY_ERROR)
		return -EIO;
	copy_out(op, NULL);
	return 0;
}

/* -EAGAIN: overtaken. */
static int read_try(struct read_op *op)
{
	struct btt *btt = op->btt;
	const uint64_t entry = btt_load_entry(btt, op->lba);
	const _Atomic uint64_t *reuse;
	uint64_t before;
	int r = look_at(op, entry);

	if (r <= 0)
		return r;
	op->block = entry_block(entry);
	btt_point(btt, "read entry");
	/* [read_reuse, read_again] Acquires: in this order. */
	reuse = btt_reuse(btt, op->block);
	before = atomic_load_explicit(reuse, memory_order_acquire);
	if (VARVE_STEP("btt.read_again") && btt_load_entry(btt, op->lba) != entry)
		return -EAGAIN;
	r = btt_settle_entry(btt, op->lba);
	if (r)
		return r;
	copy_out(op, btt_data(btt, op->block) + op->off_bytes);
	/* [read_check] Whoever stored a byte that was copied had raised the counter before. */
	btt_load_fence();
	if (VARVE_STEP("btt.read_check") &&
	    atomic_load_explicit(reuse, memory_order_acquire) != before)
		return -EAGAIN;
	return 0;
}

/* [hazard_put, hazard_again] */
static int read_protected(struct read_op *op, struct btt_slot *slot)
{
	struct btt *btt = op->btt;
	uint64_t entry;
	int r;

	for (;;) {
		entry = btt_load_entry(btt, op->lba);
		r = look_at(op, entry);
		if (r <= 0)
			return r;
		op->block = entry_block(entry);
		btt_point(btt, "read entry");
		atomic_store_explicit(&slot->block, op->block, memory_order_relaxed);
		/* The slot is seen by whoever swaps the entry after the next load. */
		btt_full_fence();
		if (!VARVE_STEP("btt.hazard_again") || btt_load_entry(btt, op->lba) == entry)
			break;
	}
	r = btt_settle_entry(btt, op->lba);
	if (!r)
		copy_out(op, btt_data(btt, op->block) + op->off_bytes);
	return r;
}

static int read_body(void *arg)
{
	struct read_op *op = arg;
	int r = -EAGAIN;

	for (unsigned i = 0; i < op->btt->tries && r == -EAGAIN; i++) {
		if (i)
			atomic_fetch_add_explicit(&op->btt->retries, 1, memory_order_relaxed);
		r = read_try(op);
	}
	return r;
}

struct protected_op {
	struct read_op *op;
	struct btt_slot *slot;
};

static int protected_body(void *arg)
{
	const struct protected_op *p = arg;

	return read_protected(p->op, p->slot);
}

static int read_overtaken(struct read_op *op, const void **ret_fault)
{
	struct protected_op p = {op, btt_slot_get(op->btt)};
	int r;

	atomic_fetch_add_explicit(&op->btt->hazard_reads, 1, memory_order_relaxed);
	r = pm_guarded(protected_body, &p, ret_fault);
	btt_slot_put(op->btt, p.slot);
	return r;
}

int btt_read_part(struct btt *btt, uint64_t lba, uint64_t off_bytes, uint64_t len_bytes,
		  struct btt_window to)
{
	struct read_op op = {btt, lba, off_bytes, len_bytes, to, BTT_NONE};
	const void *fault;
	int r;

	if (__builtin_expect(lba >= btt->g.nblock || off_bytes > btt->g.block_bytes ||
				     len_bytes > btt->g.block_bytes - off_bytes,
			     0))
		return -EINVAL;
	if (__builtin_expect(btt_is_forked(btt), 0))
		return -ECHILD;
	r = pm_guarded(read_body, &op, &fault);
	if (__builtin_expect(r == -EAGAIN, 0))
		r = read_overtaken(&op, &fault);
	if (__builtin_expect(fault != NULL, 0) && op.block != BTT_NONE) {
		const uint8_t *at = fault, *block = btt_data(btt, op.block);

		if (at >= block && at < block + btt->g.stride_bytes)
			btt_mark_faulty(btt, lba, op.block);
	}
	return r;
}

int btt_read(struct btt *btt, uint64_t lba, void *buf)
{
	const struct iovec iov = {.iov_base = buf, .iov_len = btt->g.block_bytes};

	return btt_read_part(btt, lba, 0, btt->g.block_bytes, (struct btt_window){&iov, 0});
}
