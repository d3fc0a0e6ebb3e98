/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Latency histograms (hist.h): what is not on the path of recording.
 *
 * Bucket i < 2 * HIST_SUB holds the value i alone.  From there on, each row of HIST_SUB buckets
 * covers one power of two: bucket i holds the values whose top HIST_SUB_BITS + 1 bits are
 * HIST_SUB + i % HIST_SUB, shifted left by i / HIST_SUB - 1.
 */
#include "base/hist.h"

#include <assert.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

/* The largest value that lies in the bucket. */
static uint64_t bucket_top(unsigned int index)
{
	unsigned int shift;

	if (index < 2 * HIST_SUB)
		return index;
	shift = index / HIST_SUB - 1;
	return (((uint64_t)(HIST_SUB + index % HIST_SUB) + 1) << shift) - 1;
}

void hist_reset(struct hist *h)
{
	memset(h, 0, sizeof(*h));
}

void hist_merge(struct hist *h, const struct hist *from)
{
	h->count += from->count;
	h->sum += from->sum;
	if (from->max > h->max)
		h->max = from->max;
	for (unsigned int i = 0; i < HIST_BUCKETS; i++)
		h->bucket[i] += from->bucket[i];
}

uint64_t hist_percentile(const struct hist *h, unsigned int per_100k)
{
	uint64_t rank, seen = 0;

	assert(per_100k <= 100000);
	if (h->count == 0)
		return 0;
	rank = (uint64_t)(((u128)h->count * per_100k + 99999) / 100000);
	for (unsigned int i = 0; i < HIST_BUCKETS - 1; i++) {
		seen += h->bucket[i];
		if (seen >= rank && seen > 0)
			return bucket_top(i) < h->max ? bucket_top(i) : h->max;
	}
	return h->max;
}
