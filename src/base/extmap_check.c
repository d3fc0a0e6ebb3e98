/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verifies the extent map's invariants, for tests.
 *
 * Walks the tree by recursion, as deep as it is high, with the bounds that the nodes above give.
 * What is compared across leaves, order and counts, is carried along.
 */
#include "base/extmap_impl.h"

struct walk {
	struct extent last; /* the extent before, of whatever leaf; no sectors at first */
	uint64_t count;
	uint64_t leaves;
	uint64_t inners;
	unsigned int depth;
};

static const char *check_leaf(struct walk *w, const struct extmap_leaf *l, uint64_t lo, uint64_t hi)
{
	w->leaves++;
	if (l->count == 0 || l->count > LEAF_CAP)
		return "a leaf is empty or overfull";
	for (unsigned int i = (unsigned int)l->count; i < LEAF_KEYS; i++) {
		if (l->key[i] != KEY_UNUSED)
			return "an unused key is not the largest";
	}
	for (unsigned int i = 0; i < l->count; i++) {
		struct extent x = leaf_get(l, i);

		if (l->key[i] < 0 || l->key[i] == KEY_UNUSED)
			return "a key is out of range";
		if (x.sectors == 0 || x.sectors > EXTMAP_LEN_MAX)
			return "an extent is empty or too long";
		if (x.lba < lo || x.lba + x.sectors > hi)
			return "an extent leaves its leaf's share";
		if (x.lba < w->last.lba + w->last.sectors)
			return "extents overlap or are out of order";
		if (x.value == EXTMAP_HOLE ||
		    (!(x.value & EXTMAP_CONST) && x.value + x.sectors > EXTMAP_CONST))
			return "a value is out of range";
		w->last = x;
		w->count++;
	}
	return NULL;
}

static const char *check_node(struct walk *w, const void *node, unsigned int level, uint64_t lo,
			      uint64_t hi)
{
	const struct extmap_inner *n = node;
	const char *bad = NULL;

	if (level == w->depth)
		return check_leaf(w, node, lo, hi);
	w->inners++;
	if (n->count == 0 || n->count > INNER_CAP || (level == 0 && n->count == 1))
		return "an inner node has too few or too many children";
	for (unsigned int i = (unsigned int)n->count; i < INNER_CAP; i++) {
		if (n->sep[i - 1] != UINT64_MAX)
			return "an unused separator is not the largest";
	}
	for (unsigned int i = 0; i < n->count && !bad; i++) {
		uint64_t from = i > 0 ? n->sep[i - 1] : lo;
		uint64_t to = i + 1 < n->count ? n->sep[i] : hi;

		if (from >= to)
			return "separators are out of order";
		bad = check_node(w, n->child[i], level + 1, from, to);
	}
	return bad;
}

const char *extmap_check(const struct extmap *m)
{
	struct walk w = {.depth = m->depth};
	const char *bad = NULL;

	if (m->depth >= EXTMAP_DEPTH_MAX || (!m->root && m->depth > 0))
		return "the depth is out of range";
	if (m->root)
		bad = check_node(&w, m->root, 0, 0, EXTMAP_LBA_END);
	if (bad)
		return bad;
	if (w.count != m->count)
		return "extents are miscounted";
	if (w.leaves != m->leaves.total - m->leaves.nfree ||
	    w.inners != m->inners.total - m->inners.nfree)
		return "nodes are lost";
	return NULL;
}
