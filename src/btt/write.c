/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing: a spare block is filled and swapped into the table (docs/SPEC-btt.md, "Writing a
 * sector"; names in brackets are the steps of spin/btt.pml).
 *
 * Durable when: the data at the fence before the swap; the write at the fence of its entry, before
 * it returns. A crash in between leaves the old entry or the new one, each with its data.
 *
 * Invariants.
 *  1. A block is written to by the owner of the lane whose spare it is, after its reuse counter
 *     was raised, and while no reader protects it.
 *  2. An entry changes only while pending of its sector is raised, and pending falls only when what
 *     the entry was changed to, or something newer, is durable.
 *  3. A writer swaps until it succeeds. It never returns because somebody else was faster: the
 *     other's entry need not be durable.
 *
 * Errors. A fence that fails leaves the entry swapped and pending raised: readers then try to make
 * it durable, and fail. The pool takes no more writes. Any error leaves the lane to be settled.
 *
 * Locks. The lane.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "btt/btt_impl.h"

struct write_op {
	struct btt *btt;
	struct btt_lane *lane;
	uint64_t lba;
	struct btt_window from;
	uint64_t refill; /* for a lane that swaps out an entry that names no block */
};

int btt_fence(struct btt *btt)
{
	int r = pm_fence(btt->pm), none = 0;

	if (__builtin_expect(r != 0, 0) && atomic_compare_exchange_strong(&btt->failed, &none, r))
		log_error("btt: memory could not be made durable: %s; no more writes",
			  err_text(NULL, r));
	return r;
}

int btt_entry_persist(struct btt *btt, uint64_t lba)
{
	if (VARVE_STEP("btt.entry_flush"))
		pm_flush(btt->pm, &btt->map[lba], sizeof(btt->map[lba]));
	btt_point(btt, "flushed");
	return VARVE_STEP("btt.entry_fence") ? btt_fence(btt) : 0;
}

static inline void pending_begin(struct btt *btt, uint64_t lba)
{
	/* Before the swap: who sees the new entry sees this. */
	if (VARVE_STEP("btt.pending"))
		atomic_fetch_add_explicit(btt_pending(btt, lba), 1, memory_order_relaxed);
}

static inline void pending_end(struct btt *btt, uint64_t lba)
{
	/* Release: who sees it fall knows that the entry is durable. */
	if (VARVE_STEP("btt.pending"))
		atomic_fetch_sub_explicit(btt_pending(btt, lba), 1, memory_order_release);
}

/* [bump, hazard_check] The lane's spare, which nobody reads any more without noticing. */
static uint64_t claim_spare(struct btt *btt, struct btt_lane *lane)
{
	for (;;) {
		const uint64_t spare = atomic_load_explicit(&lane->spare, memory_order_relaxed);

		if (VARVE_STEP("btt.bump"))
			atomic_fetch_add_explicit(btt_reuse(btt, spare), 1, memory_order_relaxed);
		/* Before the stores of data, and before the look at the slots. */
		btt_full_fence();
		btt_point(btt, "bumped");
		if (__builtin_expect(!atomic_load_explicit(&btt->hazards, memory_order_relaxed), 1))
			return spare;
		if (!VARVE_STEP("btt.hazard_check") || !btt_hazard_on(btt, spare))
			return spare;
		btt_reserve_exchange(btt, lane);
	}
}

/* [fill] */
static void fill(struct btt *btt, uint64_t block, struct btt_window from)
{
	uint8_t *to = btt_data(btt, block);
	uint64_t left = btt->g.block_bytes;

	for (const struct iovec *iov = from.iov; left; iov++) {
		const uint8_t *src = iov->iov_base;
		uint64_t n = iov->iov_len;

		if (from.skip_bytes >= n) {
			from.skip_bytes -= n;
			continue;
		}
		src += from.skip_bytes;
		n -= from.skip_bytes;
		from.skip_bytes = 0;
		n = n < left ? n : left;
		if (__builtin_expect(btt->point != NULL, 0) && n > 1) {
			/* Tests look at a block that is half written. */
			pm_copy(btt->pm, to, src, n / 2);
			btt_point(btt, "half");
			pm_copy(btt->pm, to + n / 2, src + n / 2, n - n / 2);
		} else {
			pm_copy(btt->pm, to, src, n);
		}
		to += n;
		left -= n;
	}
}

/*
 * [load] What the entry names, noted in the lane before anything is swapped. A damaged entry names
 * nothing: the lane gets a block of the reserve instead, of which there are more by one for each
 * entry that the scan found damaged.
 */
static int note_old(struct write_op *op, uint64_t entry)
{
	struct btt *btt = op->btt;
	uint64_t old = entry_block(entry);

	if (__builtin_expect(!btt_valid(btt, entry, op->lba), 0)) {
		if (op->refill == BTT_NONE)
			op->refill = btt_reserve_take(btt);
		if (op->refill == BTT_NONE) {
			log_error("btt: the entry of sector %llu is damaged, and no block is "
				  "left to replace its own: check the pool",
				  (unsigned long long)op->lba);
			return -EIO;
		}
		old = op->refill;
	}
	atomic_store_explicit(&op->lane->lba, op->lba, memory_order_relaxed);
	atomic_store_explicit(&op->lane->old, old, memory_order_relaxed);
	/* Release: who takes the lane over and sees this sees what it vouches for. */
	atomic_store_explicit(&op->lane->swapping, true, memory_order_release);
	return 0;
}

/* [load, swap, again] */
static int swap_in(struct write_op *op, uint64_t spare)
{
	struct btt *btt = op->btt;
	_Atomic uint64_t *at = &btt->map[op->lba];
	uint64_t now = pm_load8(at);
	uint64_t mine = entry_disk(entry_make(op->lba, btt->salt, spare, BTT_ENTRY_DATA));
	int r;

	do {
		r = note_old(op, entry_disk(now));
		if (r) {
			atomic_store_explicit(&op->lane->swapping, false, memory_order_relaxed);
			return r;
		}
		btt_point(btt, "noted");
	} while (!pm_cas8(btt->pm, at, &now, mine));
	if (op->refill != BTT_NONE && btt_valid(btt, entry_disk(now), op->lba))
		btt_reserve_put(btt, op->refill);
	op->refill = BTT_NONE;
	return 0;
}

static int write_body(void *arg)
{
	struct write_op *op = arg;
	struct btt *btt = op->btt;
	struct btt_lane *lane = op->lane;
	uint64_t spare;
	int r;

	/* The entry is needed when the data is durable; its line comes meanwhile. */
	__builtin_prefetch(&btt->map[op->lba], 1);
	spare = claim_spare(btt, lane);
	fill(btt, spare, op->from);
	btt_point(btt, "filled");
	/* [data_fence] Else the entry could be durable before its data. */
	if (VARVE_STEP("btt.data_fence")) {
		r = btt_fence(btt);
		if (r)
			return r;
	}
	pending_begin(btt, op->lba);
	r = swap_in(op, spare);
	if (r) {
		pending_end(btt, op->lba);
		return r;
	}
	btt_point(btt, "swapped");
	/* [entry_persist] Durable when this returns 0; only then may anybody be told. */
	r = btt_entry_persist(btt, op->lba);
	if (r)
		return r;
	btt_point(btt, "persisted");
	pending_end(btt, op->lba);
	/* [done] The old block is no crash's any more. Release: settled, then not swapping. */
	atomic_store_explicit(&lane->spare, atomic_load_explicit(&lane->old, memory_order_relaxed),
			      memory_order_relaxed);
	atomic_store_explicit(&lane->swapping, false, memory_order_release);
	return 0;
}

/* 0 if the pool takes writes, and this is a sector of it. */
static inline int may_write(struct btt *btt, uint64_t lba)
{
	int r = atomic_load_explicit(&btt->failed, memory_order_relaxed);

	if (__builtin_expect(lba >= btt->g.nblock, 0))
		return -EINVAL;
	if (__builtin_expect(btt->read_only, 0))
		return -EROFS;
	if (__builtin_expect(btt_is_forked(btt), 0))
		return -ECHILD;
	if (__builtin_expect(r != 0, 0))
		return r;
	/* Acquire: pairs with the release in btt_super_withdraw(). */
	if (__builtin_expect(!atomic_load_explicit(&btt->withdrawn, memory_order_acquire), 0))
		return btt_super_withdraw(btt);
	return 0;
}

/*
 * Whether the fault was in the lane's spare, which has been replaced; or, if there is nothing to
 * replace it, the lane is retired: a thread comes back to its lane, and would fail for ever while
 * other lanes are well.
 */
static bool spare_was_bad(struct write_op *op, uint64_t spare, const void *fault)
{
	struct btt *btt = op->btt;
	const uint8_t *at = fault, *block = btt_data(btt, spare);

	if (at < block || at >= block + btt->g.stride_bytes)
		return false;
	log_error("btt: block %llu cannot be written: it is left out", (unsigned long long)spare);
	btt_lane_replace(btt, op->lane);
	return true;
}

int btt_write_window(struct btt *btt, uint64_t lba, struct btt_window from)
{
	struct write_op op = {.btt = btt, .lba = lba, .from = from, .refill = BTT_NONE};
	const void *fault;
	uint64_t spare;
	bool again;
	int r = may_write(btt, lba);

	if (__builtin_expect(r != 0, 0))
		return r;
	do {
		op.lane = btt_lane_get(btt);
		if (!op.lane)
			return -EIO;
		r = pm_guarded(write_body, &op, &fault);
		spare = atomic_load_explicit(&op.lane->spare, memory_order_relaxed);
		/* After a fence that failed, too: nobody may take a swapped block for a spare. */
		if (__builtin_expect(r != 0, 0))
			btt_lane_settle(btt, op.lane);
		/* Each round costs a block, so there is an end. */
		again = __builtin_expect(fault != NULL, 0) && spare_was_bad(&op, spare, fault);
		btt_lane_put(btt, op.lane);
	} while (again);
	return r;
}

int btt_write(struct btt *btt, uint64_t lba, const void *buf)
{
	/* An iovec has no const; nothing is stored through it. */
	const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf,
				  .iov_len = btt->g.block_bytes};

	return btt_write_window(btt, lba, (struct btt_window){&iov, 0});
}

struct mark_op {
	struct btt *btt;
	uint64_t lba;
	unsigned state;
	uint64_t only; /* if the entry names this block; BTT_NONE: whatever it names */
};

/* [pending_begin to done, of an operation that keeps the block] */
static int mark_body(void *arg)
{
	const struct mark_op *op = arg;
	struct btt *btt = op->btt;
	_Atomic uint64_t *at = &btt->map[op->lba];
	uint64_t now = pm_load8(at), entry, mine;
	int r = 0;

	pending_begin(btt, op->lba);
	do {
		entry = entry_disk(now);
		if (!btt_valid(btt, entry, op->lba))
			r = -EIO;
		else if (op->only != BTT_NONE &&
			 (entry_block(entry) != op->only || entry_state(entry) != BTT_ENTRY_DATA))
			r = -ESTALE;
		if (r)
			break;
		mine = entry_disk(entry_make(op->lba, btt->salt, entry_block(entry), op->state));
		btt_point(btt, "noted");
	} while (!pm_cas8(btt->pm, at, &now, mine));
	if (!r) {
		btt_point(btt, "swapped");
		r = btt_entry_persist(btt, op->lba);
		if (r)
			return r;
	}
	pending_end(btt, op->lba);
	return r;
}

static int mark(struct btt *btt, uint64_t lba, unsigned state, uint64_t only)
{
	struct mark_op op = {btt, lba, state, only};
	int r = may_write(btt, lba);

	return r ? r : pm_guarded(mark_body, &op, NULL);
}

int btt_set_zero(struct btt *btt, uint64_t lba)
{
	return mark(btt, lba, BTT_ENTRY_ZERO, BTT_NONE);
}

int btt_set_error(struct btt *btt, uint64_t lba)
{
	return mark(btt, lba, BTT_ENTRY_ERROR, BTT_NONE);
}

void btt_mark_faulty(struct btt *btt, uint64_t lba, uint64_t block)
{
	log_error("btt: sector %llu, block %llu: the memory faults; reading it is an error until "
		  "it is written again",
		  (unsigned long long)lba, (unsigned long long)block);
	if (!btt->read_only)
		mark(btt, lba, BTT_ENTRY_ERROR, block);
}
