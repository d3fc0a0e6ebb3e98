/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map at ten million random 4 KiB extents: lookups and memory.
 *
 * A lookup is compared with what memory itself costs: three dependent random loads over as much
 * memory, with huge pages as well, in the same run, turn about; medians of five.  Each lookup, and
 * each three loads, waits for the one before it, by an index that depends on its result: else the
 * processor overlaps them, and what is measured is no latency.  Time is that of the thread: what
 * other programs take is not counted.
 *
 * stdout: bench, workload, ours, unit, peer, theirs, ratio, goal; a ratio over 1 means ours is
 * better.  stderr: rates that have no peer.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/extmap.h"
#include "base/rng.h"

enum {
	EXTENTS = 10 * 1000 * 1000,
	SMALL = 1000 * 1000,
	OPS = 2 * 1000 * 1000,
	ROUNDS = 5,
	BLOCK = 8,  /* sectors */
	SPREAD = 4, /* the volume has so many blocks for each that is mapped */
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *need(void *p)
{
	if (!p) {
		perror("bench_extmap");
		exit(1);
	}
	return p;
}

static void need_ok(int err)
{
	if (err) {
		fprintf(stderr, "bench_extmap: %s\n", strerror(-err));
		exit(1);
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_value);
	return v[ROUNDS / 2];
}

/* Fills the map with random blocks, at random places; keys[] gets all that were mapped. */
static void fill(struct extmap *m, struct rng *r, uint64_t *keys, uint64_t n)
{
	uint64_t t0 = now_ns(), tries = 0;
	struct extent x;

	for (uint64_t i = 0; i < n; tries++) {
		uint64_t lba = rng_below(r, n * SPREAD) * BLOCK;

		if (extmap_lookup(m, lba, &x) && x.lba == lba)
			continue;
		need_ok(extmap_insert(m, lba, BLOCK, rng_next(r) >> 20));
		keys[i++] = lba;
	}
	fprintf(stderr, "insert: %" PRIu64 " random extents, %.0f ns each with a lookup\n", n,
		(double)(now_ns() - t0) / (double)tries);
}

static double time_lookups(const struct extmap *m, const uint64_t *keys, struct rng *r,
			   uint64_t *nothing)
{
	uint64_t first = rng_below(r, EXTENTS - OPS), t0 = now_ns(), at = first;
	struct extent x = {0};

	for (uint64_t i = 0; i < OPS; i++) {
		extmap_lookup(m, keys[at], &x);
		at = first + i + (x.value & *nothing);
	}
	*nothing &= x.value;
	return (double)(now_ns() - t0) / OPS;
}

static double time_loads(const uint64_t *mem, uint64_t words, struct rng *r, uint64_t *nothing)
{
	uint64_t start = rng_next(r), t0 = now_ns(), x = 0;

	for (uint64_t i = 0; i < OPS; i++) {
		/* Steps of the golden ratio visit the words evenly, without a stride. */
		uint64_t at = (start + i) * UINT64_C(0x9e3779b97f4a7c15) + (x & *nothing);

		x = mem[(uint64_t)((__extension__(unsigned __int128) at * words) >> 64)];
		x = mem[x];
		x = mem[x];
	}
	*nothing &= x;
	return (double)(now_ns() - t0) / OPS;
}

static uint64_t *random_memory(struct rng *r, uint64_t words)
{
	const size_t huge = 2 << 20;
	size_t len = (words * 8 + 2 * huge) & ~(huge - 1);
	char *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t *mem;

	need(p == MAP_FAILED ? NULL : p);
	p += -(uintptr_t)p % huge;
	mem = (uint64_t *)(void *)p;
	madvise(mem, len - huge, MADV_HUGEPAGE);
	for (uint64_t i = 0; i < words; i++)
		mem[i] = rng_below(r, words);
	return mem;
}

/* @nothing is 0, which the compiler must not know. */
static void bench_large(struct rng *r, uint64_t nothing)
{
	uint64_t *keys = need(malloc(EXTENTS * sizeof(*keys)));
	double ours[ROUNDS], theirs[ROUNDS], bytes, lookup, loads;
	uint64_t words, *mem;
	struct extmap m;

	extmap_init(&m, NULL, 0);
	fill(&m, r, keys, EXTENTS);
	words = extmap_bytes(&m) / 8;
	mem = random_memory(r, words);
	for (uint64_t i = EXTENTS - 1; i > 0; i--) {
		uint64_t j = rng_below(r, i + 1), key = keys[i];

		keys[i] = keys[j];
		keys[j] = key;
	}
	for (int i = 0; i < ROUNDS; i++) {
		ours[i] = time_lookups(&m, keys, r, &nothing);
		theirs[i] = time_loads(mem, words, r, &nothing);
	}
	lookup = median(ours);
	loads = median(theirs);
	bytes = (double)extmap_bytes(&m) / (double)extmap_count(&m);
	printf("extmap\tlookup, 10 M random 4 KiB extents\t%.1f\tns\t3 dependent random "
	       "loads\t%.1f\t"
	       "%.2f\t0.8\n",
	       lookup, loads, loads / lookup);
	printf("extmap\tmemory, 10 M random 4 KiB extents\t%.2f\tbytes an extent\tthe "
	       "goal\t24\t%.2f\t1.0\n",
	       bytes, 24 / bytes);
	extmap_destroy(&m);
	free(keys);
}

/* Overwrites the blocks in the order of @keys, which is random, with values that do not merge. */
static double time_overwrites(struct extmap *m, const uint64_t *keys)
{
	uint64_t t0 = now_ns();

	for (uint64_t i = 0; i < OPS; i++)
		need_ok(extmap_insert(m, keys[i % SMALL], BLOCK, i * 1000));
	return (double)(now_ns() - t0) / OPS;
}

static void bench_small(struct rng *r)
{
	uint64_t *keys = need(malloc(SMALL * sizeof(*keys))), t0;
	struct extmap m;

	extmap_init(&m, NULL, 0);
	fill(&m, r, keys, SMALL);
	fprintf(stderr, "overwrite: in 1 M random extents, %.0f ns each\n",
		time_overwrites(&m, keys));
	extmap_clear(&m);
	t0 = now_ns();
	for (uint64_t i = 0; i < SMALL; i++)
		need_ok(extmap_append(&m, i * BLOCK, BLOCK, i * 1000));
	fprintf(stderr, "append: 1 M extents, %.0f ns each, %.2f bytes each\n",
		(double)(now_ns() - t0) / SMALL, (double)extmap_bytes(&m) / SMALL);
	for (uint64_t i = 0; i < SMALL; i++)
		keys[i] = rng_below(r, SMALL) * BLOCK;
	fprintf(stderr, "overwrite: in 1 M adjoining extents, %.0f ns each\n",
		time_overwrites(&m, keys));
	extmap_destroy(&m);
	free(keys);
}

int main(int argc, char **argv)
{
	struct rng r;

	(void)argv;
	rng_seed(&r, 1);
	bench_small(&r);
	bench_large(&r, argc < 0);
	return 0;
}
