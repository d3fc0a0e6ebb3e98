/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lanes: places for writers.
 *
 * Purpose. A writer needs a spare block of its own from the first byte to the last fence. Lanes
 * are those blocks, each with a word that says which thread has it.
 *
 * Data structure. An array, a lane on lines of its own. A thread begins its search where it last
 * found one, so in peace each has its own, and taking it is one operation on a line that nobody
 * else touches. With more threads than lanes they sleep until somebody gives one back.
 *
 * Death. A lane whose owner died, or left by longjmp, is found when there is no other: a thread ID
 * that no thread has, or the searcher's own. What it left is put right by btt_lane_settle(), the
 * step hand_over of spin/btt.pml.
 *
 * Invariants.
 *  1. Before an entry may be swapped, the lane holds lba and old, and then swapping. So whatever
 *     moment a thread dies in, lane and entry tell who has which block, or that nobody can tell.
 *  2. A spare that was in the table is written to only when the entry that replaced it is durable.
 *
 * Locks. A lane is its owner's, from the acquire that sets owner to the release that clears it.
 * turn_lock: for sleeping alone; a wake-up that was missed costs SLEEP_NS.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "btt/btt_impl.h"

#define YIELDS 4
#define SLEEP_NS 2000000

static bool lane_claim(struct btt_lane *lane, uint32_t from, uint32_t self)
{
	/* Acquire: pairs with the release in btt_lane_put() of the owner before. */
	return atomic_compare_exchange_strong_explicit(&lane->owner, &from, self,
						       memory_order_acquire, memory_order_relaxed);
}

static bool is_retired(const struct btt_lane *lane)
{
	return atomic_load_explicit(&lane->spare, memory_order_relaxed) == BTT_NONE;
}

static struct btt_lane *find_free(struct btt *btt, uint32_t self, unsigned *hint)
{
	unsigned at = *hint % btt->nlanes;

	for (unsigned i = 0; i < btt->nlanes; i++) {
		struct btt_lane *lane = &btt->lanes[at];

		if (!atomic_load_explicit(&lane->owner, memory_order_relaxed) &&
		    lane_claim(lane, 0, self)) {
			if (__builtin_expect(!is_retired(lane), 1)) {
				*hint = at;
				return lane;
			}
			atomic_store_explicit(&lane->owner, 0, memory_order_release);
		}
		at = at + 1 < btt->nlanes ? at + 1 : 0;
	}
	return NULL;
}

/* A lane that was left; *ret_any: whether there is any lane that will come free. */
static struct btt_lane *find_left(struct btt *btt, uint32_t self, bool *ret_any)
{
	*ret_any = false;
	for (unsigned i = 0; i < btt->nlanes; i++) {
		struct btt_lane *lane = &btt->lanes[i];
		uint32_t owner = atomic_load_explicit(&lane->owner, memory_order_relaxed);

		if (!is_retired(lane))
			*ret_any = true;
		if (!owner || (owner != self && !btt_thread_is_dead(owner)) ||
		    !lane_claim(lane, owner, self))
			continue;
		atomic_fetch_add_explicit(&btt->takeovers, 1, memory_order_relaxed);
		log_warn("btt: a thread left in the middle of a write; its lane is taken over");
		btt_lane_settle(btt, lane);
		if (!is_retired(lane))
			return lane;
		atomic_store_explicit(&lane->owner, 0, memory_order_release);
	}
	return NULL;
}

static void sleep_for_turn(struct btt *btt)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += SLEEP_NS;
	if (until.tv_nsec >= 1000000000) {
		until.tv_nsec -= 1000000000;
		until.tv_sec++;
	}
	btt_lock(&btt->turn_lock);
	if (pthread_cond_clockwait(&btt->turn, &btt->turn_lock, CLOCK_MONOTONIC, &until) ==
	    EOWNERDEAD)
		pthread_mutex_consistent(&btt->turn_lock);
	pthread_mutex_unlock(&btt->turn_lock);
}

static struct btt_lane *lane_wait(struct btt *btt, uint32_t self, unsigned *hint)
{
	struct btt_lane *lane = NULL;
	bool any = true;

	atomic_fetch_add_explicit(&btt->waits, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&btt->waiters, 1, memory_order_seq_cst);
	for (unsigned round = 0; !lane && any; round++) {
		lane = find_free(btt, self, hint);
		if (lane)
			break;
		btt_point(btt, "lanes busy");
		if (round < YIELDS) {
			sched_yield();
			continue;
		}
		lane = find_left(btt, self, &any);
		/* Where tests say who runs, nobody else would while this thread slept. */
		if (!lane && any && !btt->point)
			sleep_for_turn(btt);
	}
	atomic_fetch_sub_explicit(&btt->waiters, 1, memory_order_relaxed);
	return lane;
}

struct btt_lane *btt_lane_get(struct btt *btt)
{
	unsigned *hint;
	const uint32_t self = btt_thread_id(&hint);
	struct btt_lane *lane = find_free(btt, self, hint);

	return lane ? lane : lane_wait(btt, self, hint);
}

void btt_lane_put(struct btt *btt, struct btt_lane *lane)
{
	atomic_store_explicit(&lane->owner, 0, memory_order_release);
	if (__builtin_expect(atomic_load_explicit(&btt->waiters, memory_order_relaxed) != 0, 0)) {
		btt_lock(&btt->turn_lock);
		pthread_cond_signal(&btt->turn);
		pthread_mutex_unlock(&btt->turn_lock);
	}
}

struct settle {
	struct btt *btt;
	struct btt_lane *lane;
	uint64_t spare; /* what it is */
};

static int settle(void *arg)
{
	struct settle *s = arg;
	struct btt *btt = s->btt;
	const uint64_t lba = atomic_load_explicit(&s->lane->lba, memory_order_relaxed);
	const uint64_t old = atomic_load_explicit(&s->lane->old, memory_order_relaxed);
	const uint64_t spare = s->spare;
	uint64_t entry;

	/* It had the old block already, or it is its own as long as nothing was swapped. */
	if (spare == old)
		return 0;
	entry = btt_load_entry(btt, lba);
	s->spare = BTT_NONE;
	if (!btt_valid(btt, entry, lba))
		return 0;
	if (entry_block(entry) == spare) {
		s->spare = old;
		/* Else a crash would bring back an entry whose block is overwritten. */
		if (VARVE_STEP("btt.hand_over_persist"))
			return btt_entry_persist(btt, lba);
	} else if (entry_block(entry) == old) {
		s->spare = spare;
	}
	return 0;
}

void btt_lane_settle(struct btt *btt, struct btt_lane *lane)
{
	struct settle s = {btt, lane, atomic_load_explicit(&lane->spare, memory_order_relaxed)};

	if (!atomic_load_explicit(&lane->swapping, memory_order_acquire))
		return;
	if (pm_guarded(settle, &s, NULL))
		s.spare = BTT_NONE;
	if (s.spare == BTT_NONE) {
		atomic_store(&btt->leaked, true);
		s.spare = btt_reserve_take(btt);
		log_warn("btt: a block is in no list until the pool is opened again%s",
			 s.spare == BTT_NONE ? ", and there is a lane less" : "");
	}
	atomic_store_explicit(&lane->spare, s.spare, memory_order_release);
	atomic_store_explicit(&lane->swapping, false, memory_order_release);
}

void btt_lane_replace(struct btt *btt, struct btt_lane *lane)
{
	atomic_store(&btt->leaked, true);
	atomic_store_explicit(&lane->spare, btt_reserve_take(btt), memory_order_release);
}
