/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Readers that protect a block, and the spare blocks that let writers go on all the same.
 *
 * Purpose. A reader that was overtaken several times names the block that it reads in a slot, and
 * a writer that has this block as its spare takes another one. Nobody waits: the reserve has as
 * many blocks as there are slots, and of these at most one less than all can be protected, since
 * the writer holds one protected block itself.
 *
 * Data structure. An array of blocks, and one of slots, whose owners are threads. The counter
 * hazards says whether anybody looks at all, which is what writers pay for in ordinary times.
 *
 * Invariants.
 *  1. hazards is raised before a slot is taken and lowered after it is given back. A reader that
 *     dies leaves it raised for ever: writers then look at the slots each time.
 *  2. A block is in one place: a sector's, a lane's, the reserve, or, if a thread died at the wrong
 *     moment, nowhere (leaked). Never in two: an exchange takes out before it puts in.
 *
 * The race between a reader that protects and a writer that begins is decided by full fences: the
 * reader writes its slot, fences, and reads the entry; the writer has swapped the entry, fences,
 * and reads the slots. At least one of them sees the other.
 *
 * Locks. reserve_lock: the array. Slots are atomic.
 */
#include <sched.h>

#include "base/log.h"
#include "btt/btt_impl.h"

bool btt_hazard_on(struct btt *btt, uint64_t block)
{
	for (unsigned i = 0; i < btt->nslots; i++)
		if (atomic_load_explicit(&btt->slots[i].block, memory_order_acquire) == block)
			return true;
	return false;
}

static bool exchange_locked(struct btt *btt, struct btt_lane *lane)
{
	const uint64_t mine = atomic_load_explicit(&lane->spare, memory_order_relaxed);

	for (uint64_t i = 0; i < btt->reserve_count; i++) {
		const uint64_t other = btt->reserve[i];

		if (other == BTT_NONE || btt_hazard_on(btt, other))
			continue;
		btt->reserve[i] = BTT_NONE;
		atomic_store_explicit(&lane->spare, other, memory_order_release);
		btt->reserve[i] = mine;
		return true;
	}
	return false;
}

static struct btt_slot *slot_try(struct btt *btt, uint32_t self)
{
	for (unsigned i = 0; i < btt->nslots; i++) {
		struct btt_slot *slot = &btt->slots[i];
		uint32_t none = 0;

		if (atomic_load_explicit(&slot->owner, memory_order_relaxed) == 0 &&
		    atomic_compare_exchange_strong_explicit(
			    &slot->owner, &none, self, memory_order_acquire, memory_order_relaxed))
			return slot;
	}
	return NULL;
}

/* Frees what dead threads protect. */
static void slots_reclaim(struct btt *btt)
{
	for (unsigned i = 0; i < btt->nslots; i++) {
		struct btt_slot *slot = &btt->slots[i];
		uint32_t owner = atomic_load_explicit(&slot->owner, memory_order_relaxed);

		if (!owner || !btt_thread_is_dead(owner))
			continue;
		/* A block first: the slot is free for others only when it protects nothing. */
		if (!atomic_compare_exchange_strong_explicit(&slot->owner, &owner, UINT32_MAX,
							     memory_order_acquire,
							     memory_order_relaxed))
			continue;
		atomic_store_explicit(&slot->block, BTT_NONE, memory_order_release);
		atomic_store_explicit(&slot->owner, 0, memory_order_release);
	}
}

/*
 * The blocks of dead readers and of a damaged pool may use up the reserve; then a writer waits for
 * a live reader, which needs no writer to get on.
 */
void btt_reserve_exchange(struct btt *btt, struct btt_lane *lane)
{
	bool done;

	for (;;) {
		btt_lock(&btt->reserve_lock);
		done = exchange_locked(btt, lane);
		pthread_mutex_unlock(&btt->reserve_lock);
		if (done || !btt_hazard_on(btt, atomic_load(&lane->spare)))
			return;
		slots_reclaim(btt);
		btt_point(btt, "slots busy");
		sched_yield();
	}
}

uint64_t btt_reserve_take(struct btt *btt)
{
	uint64_t block = BTT_NONE;

	btt_lock(&btt->reserve_lock);
	/* Each slot keeps its block, so that a protected one can always be exchanged. */
	if (btt->reserve_count > btt->nslots) {
		block = btt->reserve[--btt->reserve_count];
		btt->reserve[btt->reserve_count] = BTT_NONE;
	}
	pthread_mutex_unlock(&btt->reserve_lock);
	return block;
}

void btt_reserve_put(struct btt *btt, uint64_t block)
{
	btt_lock(&btt->reserve_lock);
	if (btt->reserve_count < btt->reserve_room)
		btt->reserve[btt->reserve_count++] = block;
	else
		atomic_store(&btt->leaked, true);
	pthread_mutex_unlock(&btt->reserve_lock);
}

struct btt_slot *btt_slot_get(struct btt *btt)
{
	unsigned *hint;
	const uint32_t self = btt_thread_id(&hint);
	struct btt_slot *slot;

	atomic_fetch_add_explicit(&btt->hazards, 1, memory_order_seq_cst);
	while (!(slot = slot_try(btt, self))) {
		slots_reclaim(btt);
		btt_point(btt, "slots busy");
		sched_yield();
	}
	return slot;
}

void btt_slot_put(struct btt *btt, struct btt_slot *slot)
{
	/* Release: what was read from the block was read before. */
	atomic_store_explicit(&slot->block, BTT_NONE, memory_order_release);
	atomic_store_explicit(&slot->owner, 0, memory_order_release);
	atomic_fetch_sub_explicit(&btt->hazards, 1, memory_order_release);
}
