/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ranges of a volume that somebody is changing by read-modify-write.
 *
 * Exclusive ranges are those of unaligned writes, which read blocks, change bytes in them and
 * write them back. Shared ranges are those of aligned writes that met an exclusive one. Two ranges
 * conflict when they overlap and one of them is exclusive. An aligned write that meets nobody
 * takes no range: rangelock_meets() is all it pays.
 *
 * Fair: a range is granted when no conflicting one came before it. Bounded: RANGELOCK_MAX ranges
 * take part at a time, later exclusive ones wait in line outside of that (in memory that their
 * owners have anyway), so that no look-up takes long.
 *
 * Locks: none of its own; the volume's mutex guards all of it.
 */
#ifndef VOLUME_RANGELOCK_H
#define VOLUME_RANGELOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define RANGELOCK_MAX 64

struct range {
	struct list_head link;
	uint64_t start, end; /* bytes; not empty */
	bool exclusive;
	bool granted;
};

struct rangelock {
	struct list_head active; /* in order of arrival, granted and waiting */
	struct list_head line;   /* behind RANGELOCK_MAX active ones */
	unsigned int count;      /* of active */
};

void rangelock_init(struct rangelock *lock);

/* Whether an aligned write of [start, end) has to take a shared range. */
bool rangelock_meets_slow(const struct rangelock *lock, uint64_t start, uint64_t end);

static inline bool rangelock_meets(const struct rangelock *lock, uint64_t start, uint64_t end)
{
	return lock->count && rangelock_meets_slow(lock, start, end);
}

/* Adds a range; true when it is granted at once. */
bool rangelock_add(struct rangelock *lock, struct range *range);

/* Removes a granted range; calls granted() for those that are granted by this. */
void rangelock_del(struct rangelock *lock, struct range *range, void (*granted)(struct range *));

#endif
