/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Range locks: two lists and a linear look. See rangelock.h for the contract.
 *
 * Invariants
 *   1. A range in active is granted exactly when no conflicting range stands before it.
 *   2. count <= RANGELOCK_MAX, and line is empty when count is less.
 *   3. No range in line is granted. A write may therefore pass those in line: they have not read
 *      anything yet.
 *
 * With at most 64 ranges, adding and looking are one scan, and removing one is a scan for each
 * range behind it: some thousand comparisons at the very worst, for requests that read and write a
 * device. No tree is worth its code here.
 */
#include "volume/rangelock.h"

#include <assert.h>

void rangelock_init(struct rangelock *lock)
{
	list_init(&lock->active);
	list_init(&lock->line);
	lock->count = 0;
}

static bool conflict(const struct range *a, const struct range *b)
{
	return a->start < b->end && b->start < a->end && (a->exclusive || b->exclusive);
}

/* Whether range, a member of active, has nothing in its way (invariant 1). */
static bool is_free(const struct rangelock *lock, const struct range *range)
{
	struct range *pos;

	list_for_each_entry(pos, &lock->active, struct range, link) {
		if (pos == range)
			return true;
		if (conflict(pos, range))
			return false;
	}
	return true;
}

bool rangelock_meets_slow(const struct rangelock *lock, uint64_t start, uint64_t end)
{
	struct range *pos;

	list_for_each_entry(pos, &lock->active, struct range, link)
		if (pos->exclusive && pos->start < end && start < pos->end)
			return true;
	return false;
}

static bool enlist(struct rangelock *lock, struct range *range)
{
	list_add_tail(&range->link, &lock->active);
	lock->count++;
	range->granted = is_free(lock, range);
	return range->granted;
}

bool rangelock_add(struct rangelock *lock, struct range *range)
{
	assert(range->start < range->end);
	if (lock->count < RANGELOCK_MAX)
		return enlist(lock, range);
	range->granted = false;
	list_add_tail(&range->link, &lock->line);
	return false;
}

void rangelock_del(struct rangelock *lock, struct range *range, void (*granted)(struct range *))
{
	struct range *pos;
	struct list_head *link;

	assert(range->granted);
	list_del(&range->link);
	range->granted = false;
	lock->count--;
	list_for_each_entry(pos, &lock->active, struct range, link) {
		if (pos->granted || !is_free(lock, pos))
			continue;
		pos->granted = true;
		granted(pos);
	}
	link = lock->count < RANGELOCK_MAX ? list_pop(&lock->line) : NULL;
	if (link && enlist(lock, list_entry(link, struct range, link)))
		granted(list_entry(link, struct range, link));
}
