/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nodes of the extent map, for extmap*.c alone.  The essay is in extmap.c.
 */
#ifndef BASE_EXTMAP_IMPL_H
#define BASE_EXTMAP_IMPL_H

#include <assert.h>

#include "base/extmap.h"

enum {
	LEAF_CAP = 63,
	LEAF_KEYS = LEAF_CAP + 1,
	INNER_CAP = 128,
	EDIT_MAX =
		3, /* extents that one edit puts in: what is left of both edges, and the new one */
};

#define KEY_UNUSED INT32_MAX /* keys are below it */

/* Extent i begins at base + key[i].  Three arrays, so that a search reads nothing but keys. */
struct extmap_leaf {
	int32_t key[LEAF_KEYS]; /* ascending; KEY_UNUSED from count on, and so always at the end */
	uint64_t base : 48;
	uint64_t count : 16;
	uint64_t value[LEAF_CAP];
	uint32_t len[LEAF_CAP];
};

/* Child i has what lies in [sep[i - 1], sep[i]); the outer bounds are those of the node itself. */
struct extmap_inner {
	uint64_t count;
	uint64_t sep[INNER_CAP - 1]; /* ascending; UINT64_MAX from count - 1 on */
	void *child[INNER_CAP];
};

static_assert(sizeof(struct extmap_leaf) == 1024, "a leaf is 16 cache lines");
static_assert(sizeof(struct extmap_inner) == 2048, "an inner node is 32 cache lines");

static inline uint64_t leaf_lba(const struct extmap_leaf *l, unsigned int i)
{
	return l->base + (uint64_t)(uint32_t)l->key[i];
}

static inline uint64_t leaf_end(const struct extmap_leaf *l, unsigned int i)
{
	return leaf_lba(l, i) + l->len[i];
}

static inline struct extent leaf_get(const struct extmap_leaf *l, unsigned int i)
{
	return (struct extent){leaf_lba(l, i), l->len[i], l->value[i]};
}

/* How many extents of the leaf begin at or before @lba.  No branch: compilers make SIMD of it. */
static inline unsigned int leaf_find(const struct extmap_leaf *l, uint64_t lba)
{
	uint64_t delta = lba - l->base;
	int32_t key = delta < KEY_UNUSED ? (int32_t)delta : KEY_UNUSED - 1;
	int32_t n = 0;

	if (lba < l->base)
		return 0;
	for (unsigned int i = 0; i < LEAF_KEYS; i++)
		n += l->key[i] <= key;
	return (unsigned int)n;
}

/* The child that @lba belongs to: how many separators are at or below it.  No branch either. */
static inline unsigned int inner_find(const struct extmap_inner *n, uint64_t lba)
{
	unsigned int i = 0;

	for (unsigned int step = INNER_CAP / 2; step > 0; step /= 2)
		i += step * (n->sep[i + step - 1] <= lba);
	return i;
}

static inline void prefetch_lines(const void *p, size_t len)
{
	for (size_t i = 0; i < len; i += 64)
		__builtin_prefetch((const char *)p + i);
}

/*
 * Goes to the leaf that @lba belongs to, root not NULL, and leaves the way there in @at, but for
 * the index in the leaf.
 */
static inline struct extmap_leaf *extmap_descend(const struct extmap *m, uint64_t lba,
						 struct extmap_iter *at)
{
	void *node = m->root;
	unsigned int d;

	at->depth = m->depth;
	for (d = 0; d < m->depth; d++) {
		struct extmap_inner *n = node;

		prefetch_lines(n, offsetof(struct extmap_inner, child));
		at->node[d] = n;
		at->index[d] = inner_find(n, lba);
		node = n->child[at->index[d]];
	}
	prefetch_lines(node, sizeof(struct extmap_leaf));
	at->node[d] = node;
	return node;
}

static inline struct extmap_leaf *iter_leaf(const struct extmap_iter *at)
{
	return at->node[at->depth];
}

/* The leaf's share of the LBA space. */
uint64_t extmap_path_start(const struct extmap_iter *at);
uint64_t extmap_path_end(const struct extmap_iter *at);

/* Moves the end up to @end, when nothing is mapped between the two. */
void extmap_path_raise_end(const struct extmap_iter *at, uint64_t end);

/*
 * Takes @ndel extents from index @first on out of the leaf at @at and puts @nins (at most
 * EDIT_MAX) in their place.  They must keep the order and lie within the leaf's share.  @at is
 * spent.  Takes at most one leaf, and depth + 1 inner nodes, from the pools.
 */
void extmap_edit(struct extmap *m, const struct extmap_iter *at, unsigned int first,
		 unsigned int ndel, const struct extent *ins, unsigned int nins);

/* Whether that edit needs no node. */
bool extmap_edit_fits(const struct extmap_iter *at, unsigned int ndel, const struct extent *ins,
		      unsigned int nins);

/* Puts the first extent into an empty map.  Takes one leaf. */
void extmap_plant(struct extmap *m, const struct extent *x);

/* Makes sure that @n nodes can be taken; 0 or -ENOMEM. */
int extmap_pool_reserve(struct extmap *m, struct extmap_pool *pool, size_t n);

/* Cannot fail: what was not reserved is a bug. */
void *extmap_pool_get(struct extmap_pool *pool);
void extmap_pool_put(struct extmap_pool *pool, void *node);
void extmap_pool_clear(struct extmap *m, struct extmap_pool *pool);

extern const struct extmap_alloc extmap_default_alloc;

#endif
