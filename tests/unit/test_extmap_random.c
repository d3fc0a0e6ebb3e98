/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map against a plain array, in seeded random operations.
 *
 * The array has one value for each cell, a cell being `scale` sectors of which `width` are used.
 * A scale of one sector packs the extents of a whole test into a few gigabytes of LBA space; large
 * scales drive keys apart until leaves cannot hold two, and lengths beyond one entry.
 */
#include "base/extmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "lib/tap.h"

struct shape {
	uint64_t base;
	uint64_t scale;
	uint64_t width;
	unsigned int cells;
	unsigned int longest; /* in cells, of most operations */
	unsigned int places;  /* how many places values are drawn from: few make many matches */
};

struct heap {
	size_t bytes;
	uint64_t countdown; /* the allocation that fails; UINT64_MAX is none */
	uint64_t failed;
};

struct world {
	struct shape s;
	struct extmap map;
	struct heap heap;
	struct rng rng;
	uint64_t *want; /* value at the first sector of each cell */
	uint64_t *old;	/* the same before the operation */
	/* What the operation displaced: the sectors and the value, for each cell. */
	uint64_t *gone;
	uint64_t reported_to; /* end of the piece reported last */
	uint64_t reports;
	uint64_t enomem;
};

static void *heap_alloc(void *arg, size_t align, size_t len)
{
	struct heap *heap = arg;

	if (heap->countdown != UINT64_MAX && heap->countdown-- == 0) {
		heap->countdown = UINT64_MAX;
		heap->failed++;
		return NULL;
	}
	CHECK_EQ(len % align, 0);
	heap->bytes += len;
	return aligned_alloc(align, len);
}

static void heap_free(void *arg, void *ptr, size_t len)
{
	struct heap *heap = arg;

	heap->bytes -= len;
	free(ptr);
}

static uint64_t cell_lba(const struct world *w, uint64_t cell)
{
	return w->s.base + cell * w->s.scale;
}

/* A value for @cell at the place: places advance like the LBA, so that ranges match as wholes. */
static uint64_t place_value(const struct world *w, uint64_t place, uint64_t cell)
{
	return place & 1 ? EXTMAP_CONST | place : (place << 50) + cell * w->s.scale;
}

static void world_init(struct world *w, const struct shape *s, uint64_t seed)
{
	struct extmap_alloc alloc = {heap_alloc, heap_free, &w->heap};

	*w = (struct world){.s = *s, .heap.countdown = UINT64_MAX};
	rng_seed(&w->rng, seed);
	extmap_init(&w->map, &alloc, 0);
	w->want = malloc(s->cells * sizeof(*w->want));
	w->old = malloc(s->cells * sizeof(*w->old));
	w->gone = calloc(s->cells, sizeof(*w->gone));
	memset(w->want, 0xff, s->cells * sizeof(*w->want));
}

static void world_exit(struct world *w)
{
	extmap_destroy(&w->map);
	CHECK_EQ(w->heap.bytes, 0);
	free(w->want);
	free(w->old);
	free(w->gone);
}

/* Goes through the cells that @x touches; @seen gains the sectors, which must have the values. */
static void take_piece(const struct world *w, const struct extent *x, const uint64_t *values,
		       uint64_t *seen)
{
	uint64_t end = x->lba + x->sectors;

	for (uint64_t lba = x->lba; lba < end;) {
		uint64_t cell = (lba - w->s.base) / w->s.scale;
		uint64_t stop = cell_lba(w, cell) + w->s.width;

		CHECK(lba >= w->s.base && cell < w->s.cells && lba < stop);
		CHECK_EQ(extmap_value_at(x->value, lba - x->lba),
			 extmap_value_at(values[cell], lba - cell_lba(w, cell)));
		stop = stop < end ? stop : end;
		seen[cell] += stop - lba;
		lba = stop;
	}
}

/* Where nothing comes near the longest entry, an extent never continues the one before it. */
static void check_merged(const struct world *w, const struct extent *a, const struct extent *b)
{
	bool meet = a->lba + a->sectors == b->lba && (a->value ^ b->value) < EXTMAP_CONST;

	if (w->s.cells * w->s.width <= EXTMAP_LEN_MAX && a->sectors)
		CHECK(!meet || extmap_value_at(a->value, a->sectors) != b->value);
}

static void compare_all(struct world *w)
{
	uint64_t *seen = calloc(w->s.cells, sizeof(*seen)), count = 0;
	struct extent x, last = {0};
	struct extmap_iter it;
	const char *bad = extmap_check(&w->map);

	if (bad)
		FAIL("extmap_check: %s", bad);
	extmap_iter_init(&it, &w->map, 0);
	while (extmap_iter_next(&it, &x)) {
		take_piece(w, &x, w->want, seen);
		check_merged(w, &last, &x);
		last = x;
		count++;
	}
	for (unsigned int c = 0; c < w->s.cells; c++)
		CHECK_EQ(seen[c], w->want[c] == EXTMAP_HOLE ? 0 : w->s.width);
	CHECK_EQ(count, extmap_count(&w->map));
	CHECK_EQ(w->heap.bytes, extmap_bytes(&w->map));
	free(seen);
}

static void on_displaced(void *arg, const struct extent *old)
{
	struct world *w = arg;

	CHECK(old->sectors > 0 && old->lba >= w->reported_to);
	w->reported_to = old->lba + old->sectors;
	w->reports++;
	take_piece(w, old, w->old, w->gone);
}

struct op {
	enum {
		REPLACE,
		REMOVE,
		REMOVE_IF,
		INSERT_IF,
		OPS
	} kind;
	uint64_t first, n;
	uint64_t old_place, new_place;
};

static void choose(struct world *w, struct op *op)
{
	uint64_t longest = rng_chance(&w->rng, 1, 50) ? w->s.cells : w->s.longest;

	op->kind = rng_chance(&w->rng, 1, 2) ? REPLACE : (int)rng_below(&w->rng, OPS);
	op->first = rng_below(&w->rng, w->s.cells);
	op->n = 1 + rng_below(&w->rng, longest);
	if (op->n > w->s.cells - op->first)
		op->n = w->s.cells - op->first;
	/* With unused sectors between the cells, only one cell can be inserted at a time. */
	if (w->s.width < w->s.scale && op->kind == REPLACE)
		op->n = 1;
	op->old_place = rng_below(&w->rng, w->s.places);
	op->new_place = rng_below(&w->rng, w->s.places);
}

static int apply(struct world *w, const struct op *op)
{
	uint64_t lba = cell_lba(w, op->first);
	uint64_t sectors = (op->n - 1) * w->s.scale + w->s.width;
	uint64_t old = place_value(w, op->old_place, op->first);
	uint64_t new = place_value(w, op->new_place, op->first);

	if (op->kind == REPLACE)
		return extmap_replace(&w->map, lba, sectors, new, on_displaced, w);
	if (op->kind == REMOVE)
		return extmap_remove(&w->map, lba, sectors, on_displaced, w);
	if (op->kind == REMOVE_IF)
		return extmap_remove_if(&w->map, lba, sectors, old, on_displaced, w);
	return extmap_insert_if(&w->map, lba, sectors, old, new, on_displaced, w);
}

/* Makes the array follow, and checks that just what changed hands was reported. */
static void follow(struct world *w, const struct op *op)
{
	for (uint64_t c = op->first; c < op->first + op->n; c++) {
		bool match = w->want[c] == place_value(w, op->old_place, c);
		bool hit = match || op->kind == REPLACE || op->kind == REMOVE;
		uint64_t gone = hit && w->want[c] != EXTMAP_HOLE ? w->s.width : 0;

		CHECK_EQ(w->gone[c], gone);
		w->gone[c] = 0;
		if (hit && (op->kind == REPLACE || op->kind == INSERT_IF))
			w->want[c] = place_value(w, op->new_place, c);
		else if (hit)
			w->want[c] = EXTMAP_HOLE;
	}
}

static void step(struct world *w)
{
	struct op op;
	int err;

	choose(w, &op);
	memcpy(&w->old[op.first], &w->want[op.first], op.n * sizeof(*w->old));
	w->reported_to = cell_lba(w, op.first);
	w->reports = 0;
	err = apply(w, &op);
	if (err) {
		CHECK_EQ(err, -ENOMEM);
		CHECK_EQ(w->reports, 0);
		w->enomem++;
		compare_all(w);
		return;
	}
	CHECK(w->reported_to <= cell_lba(w, op.first + op.n));
	follow(w, &op);
}

/* Asks for a range in pieces, and compares holes too. */
static void ask(struct world *w)
{
	uint64_t first = rng_below(&w->rng, w->s.cells), n = 1 + rng_below(&w->rng, 40);
	unsigned int max = 1 + (unsigned int)rng_below(&w->rng, 8), got;
	uint64_t lba = cell_lba(w, first), end;
	struct extent piece[8], x;

	n = n < w->s.cells - first ? n : w->s.cells - first;
	end = cell_lba(w, first + n);
	CHECK(!extmap_lookup(&w->map, lba, &x) || x.lba + x.sectors > lba);
	while (lba < end) {
		got = extmap_lookup_range(&w->map, lba, end - lba, piece, max);
		CHECK(got > 0 && got <= max);
		for (unsigned int i = 0; i < got; i++) {
			CHECK_EQ(piece[i].lba, lba);
			CHECK(piece[i].sectors > 0 && piece[i].sectors <= end - lba);
			lba += piece[i].sectors;
			if (piece[i].value != EXTMAP_HOLE) {
				take_piece(w, &piece[i], w->want, w->gone);
				continue;
			}
			for (uint64_t c = first; c < first + n; c++)
				CHECK(cell_lba(w, c) < piece[i].lba || cell_lba(w, c) >= lba ||
				      w->want[c] == EXTMAP_HOLE);
		}
		CHECK(got == max || lba == end);
	}
	for (uint64_t c = first; c < first + n; c++) {
		CHECK_EQ(w->gone[c], w->want[c] == EXTMAP_HOLE ? 0 : w->s.width);
		w->gone[c] = 0;
	}
}

static void run(const struct shape *s, uint64_t seed, unsigned int steps, unsigned int check_every)
{
	struct world w;

	world_init(&w, s, seed);
	for (unsigned int i = 1; i <= steps; i++) {
		step(&w);
		if (i % 4 == 0)
			ask(&w);
		if (i % check_every == 0)
			compare_all(&w);
	}
	compare_all(&w);
	world_exit(&w);
}

static const struct shape tiny = {0, 1, 1, 200, 30, 6};
static const struct shape dense = {0, 1, 1, 60000, 8, 6};
static const struct shape high = {EXTMAP_LBA_END - 60000, 1, 1, 60000, 12, 8};
static const struct shape lone = {1000, 8, 8, 30000, 1, 2000};
static const struct shape sparse = {0, UINT64_C(1) << 33, 7, 3000, 20, 6};
static const struct shape wide_apart = {5, UINT64_C(1) << 26, 100, 20000, 10, 6};
static const struct shape bulky = {0, UINT64_C(5) << 20, UINT64_C(5) << 20, 5000, 20, 4};
static const struct shape huge = {0, UINT64_C(1) << 29, UINT64_C(1) << 29, 300, 4, 4};

TEST(tiny_maps)
{
	for (uint64_t i = 0; i < 40; i++)
		run(&tiny, test_seed() + i, 5000, 1);
}

TEST(dense_maps)
{
	run(&dense, test_seed(), 300000, 10000);
}

TEST(at_the_end_of_lba_space)
{
	run(&high, test_seed(), 200000, 10000);
}

TEST(single_blocks)
{
	run(&lone, test_seed(), 300000, 10000);
}

TEST(keys_too_far_apart_for_a_leaf)
{
	run(&sparse, test_seed(), 60000, 500);
}

TEST(keys_far_apart)
{
	run(&wide_apart, test_seed(), 200000, 5000);
}

TEST(extents_longer_than_an_entry)
{
	run(&bulky, test_seed(), 100000, 2000);
}

TEST(extents_of_many_entries)
{
	run(&huge, test_seed(), 2000, 20);
}

/* Half of the allocations fail: a pool then grows by what it must have, or not at all. */
static uint64_t run_failing(const struct shape *s, uint64_t seed)
{
	uint64_t enomem = 0;
	struct world w;

	for (uint64_t k = 0; k < 20; k++) {
		world_init(&w, s, seed + k);
		for (unsigned int i = 0; i < 6000; i++) {
			if (w.heap.countdown == UINT64_MAX)
				w.heap.countdown = rng_below(&w.rng, 2);
			step(&w);
		}
		compare_all(&w);
		enomem += w.enomem;
		world_exit(&w);
	}
	return enomem;
}

TEST(allocations_fail)
{
	static const struct shape *shapes[] = {&tiny,	&dense,	     &high, &lone,
					       &sparse, &wide_apart, &bulky};

	for (unsigned int i = 0; i < 7; i++)
		CHECK(run_failing(shapes[i], test_seed()) > 10);
}

/* A map that may not grow refuses, and never passes its limit. */
TEST(limit_is_kept)
{
	const size_t limit = 20000;
	struct world w;

	world_init(&w, &lone, test_seed());
	extmap_set_limit(&w.map, limit);
	for (unsigned int i = 0; i < 30000; i++) {
		step(&w);
		CHECK(extmap_bytes(&w.map) <= limit);
	}
	CHECK(w.enomem > 0 && extmap_bytes(&w.map) > limit / 2);
	extmap_set_limit(&w.map, 0);
	w.enomem = 0;
	for (unsigned int i = 0; i < 30000; i++)
		step(&w);
	CHECK_EQ(w.enomem, 0);
	compare_all(&w);
	world_exit(&w);
}
