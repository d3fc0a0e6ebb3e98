/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Latency histograms: fixed memory, integers only, under 3.2 % error.
 *
 * Log-linear buckets: each power of two is cut into HIST_SUB equal parts; values below HIST_SUB
 * have a bucket each, values from 2^HIST_TOP_BITS on share the last one.  Not thread safe: one
 * histogram for each thread, merged to report.
 */
#ifndef BASE_HIST_H
#define BASE_HIST_H

#include <stdint.h>

#define HIST_SUB_BITS 5
#define HIST_SUB (1u << HIST_SUB_BITS)
#define HIST_TOP_BITS 42 /* 2^42 ns is 73 minutes */
#define HIST_BUCKETS ((HIST_TOP_BITS - HIST_SUB_BITS + 1) * HIST_SUB)

/* All zero is an empty histogram. */
struct hist {
	uint64_t count;
	uint64_t sum;
	uint64_t max;
	uint64_t bucket[HIST_BUCKETS];
};

static inline unsigned hist_index(uint64_t value)
{
	unsigned shift;

	if (value < HIST_SUB)
		return (unsigned)value;
	if (value >> HIST_TOP_BITS)
		return HIST_BUCKETS - 1;
	shift = 63 - HIST_SUB_BITS - (unsigned)__builtin_clzll(value);
	return shift * HIST_SUB + (unsigned)(value >> shift);
}

static inline void hist_record(struct hist *h, uint64_t value)
{
	h->count++;
	h->sum += value;
	if (value > h->max)
		h->max = value;
	h->bucket[hist_index(value)]++;
}

void hist_reset(struct hist *h);

/* Adds what is in @from to @h. */
void hist_merge(struct hist *h, const struct hist *from);

/*
 * The value that @per_100k of 100000 (99900 is the 99.9th percentile) of the records do not
 * exceed, rounded up to the end of its bucket but never above the maximum; 0 when empty.
 */
uint64_t hist_percentile(const struct hist *h, unsigned per_100k);

static inline uint64_t hist_mean(const struct hist *h)
{
	return h->count ? h->sum / h->count : 0;
}

#endif
