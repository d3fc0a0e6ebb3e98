/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the simulated memory, shared by shadow.c (recording) and shadow_image.c (crashes).
 */
#ifndef PMEM_SHADOW_IMPL_H
#define PMEM_SHADOW_IMPL_H

#include "base/list.h"
#include "pmem/guard.h"
#include "pmem/shadow.h"

#define SHADOW_WORD_BYTES 8u
#define SHADOW_LINE_WORDS (PM_LINE_BYTES / SHADOW_WORD_BYTES)
#define SHADOW_PAGE_BYTES PM_ALIGN_BYTES

/* A value that a word has had since its last fenced one. */
struct shadow_store {
	uint64_t value;
	uint32_t word;
	uint32_t older; /* index + 1 of the store to the same word before this one; 0: none */
	bool flushed;   /* the next fence makes it durable */
	bool copied;    /* by pm_copy or pm_set: may be torn within the word */
};

struct shadow {
	struct pmem pm;
	struct pm_shadow_options opt;
	struct guard_region *region;
	size_t map_bytes;
	size_t words;
	uint64_t *recorded; /* what base must hold */
	uint64_t *durable;
	uint32_t *newest;   /* for each word: index + 1 in stores; 0: its durable value is all */
	uint32_t *floor;    /* scratch of a fence, zeros otherwise */
	uint64_t *poisoned; /* bitmap of pages */
	struct shadow_store *stores; /* in the order in which they were made */
	size_t count, room;
	size_t undurable; /* words with a store */
	bool in_point;    /* on_point is running: the primitives are not for it */
	int error;        /* sticky: fences fail with it */
	uint64_t fences_left; /* until fences fail with fail_error */
	int fail_error;
	struct pm_shadow_counters counters;
};

static inline struct shadow *to_shadow(const struct pmem *pm)
{
	/* Through uintptr_t: a counter is read through a const memory, as status does. */
	return (struct shadow *)((uintptr_t)pm - offsetof(struct shadow, pm));
}

#endif
