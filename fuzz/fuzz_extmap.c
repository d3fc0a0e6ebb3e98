/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map against an array, in operations that the input spells out.
 *
 * The first byte chooses the distance between cells and which allocations fail; then eight bytes
 * make an operation: kind, first cell (2), cells (2), old place, new place, and one spare.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/extmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	CELLS = 2048,
	OP_LEN = 8,
	OPS_MAX = 4000
};

struct state {
	struct extmap map;
	uint64_t scale;
	unsigned int fail_one_in; /* 0 is never */
	unsigned int allocs;
	uint64_t cell[CELLS]; /* value at the first sector */
	uint64_t gone;	      /* sectors that the operation has displaced */
};

#define NEED(cond)                                                                 \
	do {                                                                       \
		if (!(cond)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                   \
		}                                                                  \
	} while (0)

static void *fuzz_alloc(void *arg, size_t align, size_t len)
{
	struct state *s = arg;

	if (s->fail_one_in && ++s->allocs % s->fail_one_in == 0)
		return NULL;
	return aligned_alloc(align, len);
}

static void fuzz_free(void *arg, void *ptr, size_t len)
{
	(void)arg;
	(void)len;
	free(ptr);
}

static uint64_t place_value(const struct state *s, unsigned int place, uint64_t cell)
{
	return place & 1 ? EXTMAP_CONST | place : ((uint64_t)place << 52) + cell * s->scale;
}

/* The piece must be what the array has; returns its sectors. */
static uint64_t check_piece(const struct state *s, const struct extent *x)
{
	uint64_t end = x->lba + x->sectors;

	NEED(x->sectors > 0 && end <= CELLS * s->scale);
	for (uint64_t c = x->lba / s->scale; c * s->scale < end; c++) {
		uint64_t at = c * s->scale > x->lba ? c * s->scale : x->lba;

		NEED(extmap_value_at(x->value, at - x->lba) ==
		     extmap_value_at(s->cell[c], at - c * s->scale));
	}
	return x->sectors;
}

static void on_displaced(void *arg, const struct extent *old)
{
	struct state *s = arg;

	s->gone += check_piece(s, old);
}

static void one_op(struct state *s, const uint8_t *op)
{
	uint64_t first = (op[1] | (unsigned int)op[2] << 8) % CELLS;
	uint64_t n = 1 + (op[3] | (unsigned int)op[4] << 8) % (op[4] & 0x80 ? CELLS : 16);
	uint64_t lba = first * s->scale, hits = 0, old, new;
	unsigned int kind = op[0] % 4;
	int err;

	n = n < CELLS - first ? n : CELLS - first;
	old = place_value(s, op[5] % 6, first);
	new = place_value(s, op[6] % 6, first);
	s->gone = 0;
	if (kind == 0)
		err = extmap_replace(&s->map, lba, n * s->scale, new, on_displaced, s);
	else if (kind == 1)
		err = extmap_remove(&s->map, lba, n * s->scale, on_displaced, s);
	else if (kind == 2)
		err = extmap_remove_if(&s->map, lba, n * s->scale, old, on_displaced, s);
	else
		err = extmap_insert_if(&s->map, lba, n * s->scale, old, new, on_displaced, s);
	NEED(err == 0 || (err == -ENOMEM && s->fail_one_in && s->gone == 0));
	for (uint64_t c = first; !err && c < first + n; c++) {
		if (kind >= 2 && s->cell[c] != place_value(s, op[5] % 6, c))
			continue;
		hits += s->cell[c] != EXTMAP_HOLE;
		s->cell[c] = kind == 0 || kind == 3 ? place_value(s, op[6] % 6, c) : EXTMAP_HOLE;
	}
	NEED(err || s->gone == hits * s->scale);
}

static void check_all(struct state *s)
{
	uint64_t mapped = 0, lba = 0;
	struct extent piece[5];

	NEED(extmap_check(&s->map) == NULL);
	while (lba < CELLS * s->scale) {
		unsigned int n =
			extmap_lookup_range(&s->map, lba, CELLS * s->scale - lba, piece, 5);

		NEED(n > 0);
		for (unsigned int i = 0; i < n; i++) {
			NEED(piece[i].lba == lba && piece[i].sectors > 0);
			if (piece[i].value != EXTMAP_HOLE)
				mapped += check_piece(s, &piece[i]);
			lba += piece[i].sectors;
		}
	}
	for (unsigned int c = 0; c < CELLS; c++)
		mapped -= s->cell[c] == EXTMAP_HOLE ? 0 : s->scale;
	NEED(mapped == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t scales[] = {1, 8, UINT64_C(1) << 22, UINT64_C(1) << 25};
	static struct state s;
	struct extmap_alloc alloc = {fuzz_alloc, fuzz_free, &s};

	if (size < 1 || size > OPS_MAX * OP_LEN)
		return 0;
	s.scale = scales[data[0] % 4];
	s.fail_one_in = data[0] / 4 % 8;
	s.allocs = 0;
	memset(s.cell, 0xff, sizeof(s.cell));
	extmap_init(&s.map, &alloc, 0);
	for (size_t at = 1; at + OP_LEN <= size; at += OP_LEN) {
		one_op(&s, data + at);
		if (data[at + 7] % 32 == 0)
			check_all(&s);
	}
	check_all(&s);
	extmap_destroy(&s.map);
	return 0;
}
