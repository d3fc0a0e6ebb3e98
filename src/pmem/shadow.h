/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent memory that is simulated, for crash tests: a member of the vtable that records stores,
 * flushes and fences, and materialises what a crash may leave. One thread; deterministic.
 *
 *	static int look(void *arg, const uint8_t *image, uint64_t n)    one crash
 *	{
 *		pm_shadow_open(&(struct pm_shadow_options){.image = image, .len_bytes = LEN,
 *							    .on_point = on_point, ...}, &pm);
 *		... recover on pm, check the promises, go on, crash again from its own on_point ...
 *	}
 *
 *	static void on_point(struct pmem *pm, enum pm_shadow_point point, void *arg)
 *	{
 *		pm_shadow_images(pm, &(struct pm_shadow_plan){.max = 64, .seed = s}, look, arg);
 *	}
 *
 * The model is that of pmem.h: since its last fenced value, each aligned 8 bytes (a word) has had a
 * list of values; a crash leaves any one of them, each word for itself. That includes what any
 * order of evictions and flushes leaves. Copies may besides be torn within a word, at any byte:
 * sampled images show that, exhaustive ones do not.
 *
 * A store to base that does not go through the primitives is a bug that real memory would show once
 * in a year. At each point and at close the memory is compared with what was recorded; on_escape is
 * told the offset of the first difference, and without one an assertion fails.
 */
#ifndef PMEM_SHADOW_H
#define PMEM_SHADOW_H

#include "pmem/pmem.h"

/* What is about to happen when on_point is called; it has not happened yet. */
enum pm_shadow_point {
	PM_SHADOW_FENCE,
	PM_SHADOW_FLUSH, /* only with every_primitive, like the following */
	PM_SHADOW_STORE, /* store8, and cas8 that will store */
	PM_SHADOW_COPY,  /* copy and set */
};

struct pm_shadow_options {
	size_t len_bytes;     /* > 0, a multiple of 8 */
	const void *image;    /* len_bytes that are durable at first; NULL: zeros */
	bool every_primitive; /* on_point for each of them, not for fences alone */
	void (*on_point)(struct pmem *pm, enum pm_shadow_point point, void *arg); /* or NULL */
	void (*on_escape)(struct pmem *pm, size_t off_bytes, void *arg);          /* or NULL */
	void *arg;
};

int pm_shadow_open(const struct pm_shadow_options *opt, struct pmem **ret);

struct pm_shadow_plan {
	/*
	 * So many images at most, > 0. If there are no more than that in all, each legal one comes
	 * once. Else: nothing of what is not fenced, all of it, each line of it alone, all but one
	 * line, and then images drawn from the seed: prefixes in the order of the stores, random
	 * lines, random words of random age.
	 */
	uint64_t max;
	uint64_t seed;
	/* Only words in [from_bytes, to_bytes) vary by themselves; the others are as in the images
	 * "nothing" and "all", drawn from the seed. to_bytes 0: the whole memory varies. */
	size_t from_bytes, to_bytes;
};

/*
 * Calls fn for each image; it must not touch pm. n counts from 0. Stops at the first that does not
 * return 0 and returns that; -ENOMEM; 0. ret_images and ret_exhaustive may be NULL.
 */
int pm_shadow_images(struct pmem *pm, const struct pm_shadow_plan *plan,
		     int (*fn)(void *arg, const uint8_t *image, uint64_t n), void *arg,
		     uint64_t *ret_images, bool *ret_exhaustive);

/* How many different images a crash could leave now; UINT64_MAX: that many or more. */
uint64_t pm_shadow_possible(const struct pmem *pm);

/* The durable bytes: the image with nothing of what is not fenced. Valid while pm is open. */
const uint8_t *pm_shadow_durable(const struct pmem *pm);

/* Words that have been stored and not fenced since. */
size_t pm_shadow_undurable(const struct pmem *pm);

struct pm_shadow_counters {
	uint64_t copies, stores, flushes, fences;
	uint64_t idle_flushes; /* of lines that had nothing to write back: wasted, not wrong */
	uint64_t idle_fences;
};

void pm_shadow_counters(const struct pmem *pm, struct pm_shadow_counters *ret);

/* The next n fences from now succeed, those after fail with error and make nothing durable. */
void pm_shadow_fail_fence(struct pmem *pm, uint64_t n, int error);

/*
 * Poisons the pages (4 KiB) of the range: each touch raises SIGBUS, as a bad medium does. Heal
 * makes them zeros, durable at once.
 */
int pm_shadow_poison(struct pmem *pm, size_t off_bytes, size_t len_bytes);
int pm_shadow_heal(struct pmem *pm, size_t off_bytes, size_t len_bytes);

#endif
