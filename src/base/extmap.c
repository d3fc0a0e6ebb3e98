/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map: what callers ask for, in terms of edits of a B+-tree.
 *
 * The tree.  A leaf is 1 KiB and holds up to 63 extents in three arrays: 32-bit keys relative to
 * the leaf's base, lengths, values.  An inner node is 2 KiB and has up to 128 children.  A lookup
 * in a map of ten million extents passes three inner nodes, which the caches may hold, and a leaf,
 * which they do not.  All lines that a search may read are asked for before it begins, so that a
 * node costs the latency of one line and not of one for each step of a binary search; of a leaf
 * that is the whole, as the value that will be wanted is not known yet.  extmap_tree.c changes the
 * tree, extmap_pool.c has its memory, extmap_check.c verifies it.
 *
 * A replacement first grows to swallow what it continues: when the sector before it, or the one
 * behind it, is mapped to what the new extent would continue or be continued by, the new extent
 * begins earlier, or ends later, and the old one is displaced whole.  So there is no merging
 * afterwards.  Nearly always all that is displaced lies in one leaf, and one edit does it.  Else
 * the range is cleared leaf by leaf, and the new extent goes into the hole.
 *
 * Failing without a trace.  A change counts the nodes it could need at most, and makes sure of
 * them, before it changes anything or calls back.  One edit takes at most one leaf and one inner
 * node for each level and a new root; and however many extents a change goes through, only its two
 * ends can add any: in between it removes, or exchanges one for one, and what an exchange takes it
 * has given back before.
 *
 * Invariants, beyond those of extmap_tree.c:
 * 5. Extents do not overlap, are 1 to EXTMAP_LEN_MAX long, and end by EXTMAP_LBA_END.
 * 6. No extent continues the one before it, unless together they were too long when the later of
 *    the two was inserted.  (extmap_check cannot see that; a test does, with short extents.)
 */
#include "base/extmap.h"

#include <errno.h>

#include "base/extmap_impl.h"

void extmap_init(struct extmap *m, const struct extmap_alloc *alloc, size_t limit_bytes)
{
	*m = (struct extmap){
		.limit_bytes = limit_bytes,
		.leaves.node_size = sizeof(struct extmap_leaf),
		.inners.node_size = sizeof(struct extmap_inner),
		.alloc = alloc ? *alloc : extmap_default_alloc,
	};
}

void extmap_clear(struct extmap *m)
{
	extmap_pool_clear(m, &m->leaves);
	extmap_pool_clear(m, &m->inners);
	m->root = NULL;
	m->depth = 0;
	m->count = 0;
}

void extmap_destroy(struct extmap *m)
{
	extmap_clear(m);
}

void extmap_set_limit(struct extmap *m, size_t limit_bytes)
{
	m->limit_bytes = limit_bytes;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Moves to the first extent of the next leaf. */
static bool next_leaf(struct extmap_iter *at)
{
	unsigned int d = at->depth;

	while (d > 0) {
		struct extmap_inner *n = at->node[--d];

		if (at->index[d] + 1 == n->count)
			continue;
		at->index[d]++;
		for (; d < at->depth; d++) {
			n = at->node[d];
			at->node[d + 1] = n->child[at->index[d]];
			at->index[d + 1] = 0;
		}
		return true;
	}
	return false;
}

/* Sets @at on the extent that covers @lba, or else the next one; false if there is none. */
static bool seek(const struct extmap *m, uint64_t lba, struct extmap_iter *at)
{
	const struct extmap_leaf *l;
	unsigned int i;

	if (!m->root)
		return false;
	l = extmap_descend(m, lba, at);
	i = leaf_find(l, lba);
	if (i > 0 && leaf_end(l, i - 1) > lba)
		i--;
	at->index[at->depth] = i;
	return i < l->count || next_leaf(at);
}

void extmap_iter_init(struct extmap_iter *it, const struct extmap *m, uint64_t lba)
{
	if (!seek(m, lba, it))
		it->node[it->depth = 0] = NULL;
}

bool extmap_iter_next(struct extmap_iter *it, struct extent *ret)
{
	const struct extmap_leaf *l = iter_leaf(it);

	if (!l)
		return false;
	*ret = leaf_get(l, it->index[it->depth]);
	if (++it->index[it->depth] == l->count && !next_leaf(it))
		it->node[it->depth] = NULL;
	return true;
}

bool extmap_lookup(const struct extmap *m, uint64_t lba, struct extent *ret)
{
	struct extmap_iter at;

	if (!seek(m, lba, &at))
		return false;
	*ret = leaf_get(iter_leaf(&at), at.index[at.depth]);
	return true;
}

void extmap_prefetch(const struct extmap *m, uint64_t lba)
{
	struct extmap_iter at;

	/* The keys are asked for on the way; the rest of the leaf here. */
	if (m->root)
		prefetch_lines(extmap_descend(m, lba, &at)->value,
			       sizeof(struct extmap_leaf) - offsetof(struct extmap_leaf, value));
}

/* The part of @x that lies in [lba, end). */
static struct extent cut(const struct extent *x, uint64_t lba, uint64_t end)
{
	uint64_t from = x->lba > lba ? x->lba : lba;
	uint64_t to = x->lba + x->sectors < end ? x->lba + x->sectors : end;

	return (struct extent){from, to - from, extmap_value_at(x->value, from - x->lba)};
}

unsigned int extmap_lookup_range(const struct extmap *m, uint64_t lba, uint64_t sectors,
				 struct extent *pieces, unsigned int max)
{
	uint64_t end = lba + sectors;
	struct extmap_iter it;
	unsigned int n = 0;
	struct extent x;

	extmap_iter_init(&it, m, lba);
	while (n < max && lba < end) {
		if (!extmap_iter_next(&it, &x) || x.lba >= end)
			x = (struct extent){end, 0, 0};
		if (x.lba > lba) {
			pieces[n++] = (struct extent){lba, x.lba - lba, EXTMAP_HOLE};
			lba = x.lba;
			if (n == max || lba == end)
				break;
		}
		pieces[n] = cut(&x, lba, end);
		lba += pieces[n++].sectors;
	}
	return n;
}

/* --- what all changes share ------------------------------------------------------------------- */

static int check_range(uint64_t lba, uint64_t sectors)
{
	return sectors == 0 || lba >= EXTMAP_LBA_END || sectors > EXTMAP_LBA_END - lba ? -EINVAL
										       : 0;
}

static int check_value(uint64_t sectors, uint64_t value)
{
	if (value & EXTMAP_CONST)
		return value == EXTMAP_HOLE ? -EINVAL : 0;
	return value + sectors > EXTMAP_CONST ? -EINVAL : 0;
}

static int reserve(struct extmap *m, size_t leaves, size_t inners)
{
	int err = extmap_pool_reserve(m, &m->leaves, leaves);

	return err ? err : extmap_pool_reserve(m, &m->inners, inners);
}

/* Nodes for so many edits that each may grow the tree, the first also its height. */
static int reserve_edits(struct extmap *m, unsigned int edits)
{
	return reserve(m, edits, edits * (m->depth + 1) + edits - 1);
}

int extmap_reserve(struct extmap *m, unsigned int changes)
{
	/* A replacement across leaves is two edits; the first in an empty map takes a leaf more. */
	return reserve_edits(m, 2 * changes + 1);
}

/* The same for edits of what is mapped already: a small map stays small as long as it can. */
static int reserve_cuts(struct extmap *m, unsigned int edits)
{
	const struct extmap_leaf *l = m->root;

	if (!l)
		return 0;
	if (m->depth == 0 && l->count + 2 * edits <= LEAF_CAP &&
	    leaf_end(l, (unsigned int)l->count - 1) - l->base < KEY_UNUSED)
		return 0;
	return reserve_edits(m, edits);
}

/*
 * For a replacement in @pieces pieces.  After an edit that took a leaf, the leaves around it have
 * room for a dozen extents or more, so 8 pieces to a leaf are on the safe side.
 */
static int reserve_pieces(struct extmap *m, uint64_t pieces)
{
	uint64_t leaves = 4 + pieces / 8;

	return reserve(m, leaves, 3 * (m->depth + 2) + leaves / 16);
}

/* What a change reports to, and the range that it may speak of. */
struct report {
	extmap_displaced_fn *fn;
	void *arg;
	uint64_t lba;
	uint64_t end;
};

static void report(const struct report *r, const struct extmap_leaf *l, unsigned int from,
		   unsigned int to)
{
	for (unsigned int i = from; r->fn && i < to; i++) {
		struct extent x = leaf_get(l, i);

		if (x.lba >= r->end || x.lba + x.sectors <= r->lba)
			continue;
		x = cut(&x, r->lba, r->end);
		r->fn(r->arg, &x);
	}
}

/* Clears [lba, end): one edit for each leaf that has some of it, of which only one can grow. */
static void clear_range(struct extmap *m, uint64_t lba, uint64_t end, const struct report *r)
{
	struct extmap_iter at;
	bool more = true;

	while (more && seek(m, lba, &at)) {
		const struct extmap_leaf *l = iter_leaf(&at);
		unsigned int i = at.index[at.depth], j = i, n = 0;
		struct extent rest[2], x;

		while (j < l->count && leaf_lba(l, j) < end)
			j++;
		if (i == j)
			break;
		more = j == l->count;
		report(r, l, i, j);
		x = leaf_get(l, i);
		if (x.lba < lba)
			rest[n++] = cut(&x, 0, lba);
		x = leaf_get(l, j - 1);
		if (x.lba + x.sectors > end)
			rest[n++] = cut(&x, end, UINT64_MAX);
		extmap_edit(m, &at, i, j - i, rest, n);
	}
}

/* --- replacing -------------------------------------------------------------------------------- */

/* Whether @b, which begins where @a ends, goes on as @a does, and one extent can hold both. */
static bool continues(const struct extent *a, const struct extent *b)
{
	/* An address that ends right below the tags is not continued by the first tag. */
	return extmap_value_at(a->value, a->sectors) == b->value &&
	       ((a->value ^ b->value) & EXTMAP_CONST) == 0 &&
	       a->sectors + b->sectors <= EXTMAP_LEN_MAX;
}

/* @before ends where @x begins, @behind begins where it ends; what @x swallows becomes empty. */
static void swallow(struct extent *x, struct extent *before, struct extent *behind)
{
	if (before->sectors && continues(before, x)) {
		*x = (struct extent){before->lba, before->sectors + x->sectors, before->value};
		before->sectors = 0;
	}
	if (behind->sectors && continues(x, behind)) {
		x->sectors += behind->sectors;
		behind->sectors = 0;
	}
}

/* An edit of one leaf: the extents [first, end) give way to @ins. */
struct edit {
	unsigned int first, end;
	unsigned int n;
	struct extent ins[EDIT_MAX];
};

/*
 * Plans a replacement by an edit of the leaf at @at, which x.lba belongs to.  False if other leaves
 * may be concerned: when @x goes beyond the leaf's share, or touches its edge.
 */
static bool plan_edit(const struct extmap_iter *at, struct extent x, struct edit *e)
{
	const struct extmap_leaf *l = iter_leaf(at);
	const uint64_t lba = x.lba, end = x.lba + x.sectors;
	struct extent before = {0}, behind = {0}, old;
	unsigned int i = leaf_find(l, lba), j;

	/* [i, j): those that overlap or touch the range. */
	while (i > 0 && leaf_end(l, i - 1) >= lba)
		i--;
	for (j = i; j < l->count && leaf_lba(l, j) <= end; j++)
		;
	if (i < j) {
		old = leaf_get(l, i);
		if (old.lba < lba)
			before = cut(&old, 0, lba);
		old = leaf_get(l, j - 1);
		if (old.lba + old.sectors > end)
			behind = cut(&old, end, UINT64_MAX);
	}
	if (i == 0 && !before.sectors && lba > 0 && lba == extmap_path_start(at))
		return false;
	if (j == l->count && !behind.sectors) {
		uint64_t share_end = extmap_path_end(at);

		if (end >= share_end && share_end < EXTMAP_LBA_END)
			return false;
	}
	swallow(&x, &before, &behind);
	*e = (struct edit){.first = i, .end = j};
	/* What was not swallowed stays; what was not even cut is not concerned. */
	if (before.sectors && leaf_end(l, i) > lba)
		e->ins[e->n++] = before;
	else if (before.sectors)
		e->first++;
	e->ins[e->n++] = x;
	if (behind.sectors && leaf_lba(l, j - 1) < end)
		e->ins[e->n++] = behind;
	else if (behind.sectors)
		e->end--;
	return true;
}

/* Across leaves: looks at both neighbours, clears the range, and fills the hole. */
static void replace_wide(struct extmap *m, struct extent x, const struct report *r)
{
	struct extent before = {0}, behind = {0}, old;
	struct extmap_iter at;

	if (x.lba > 0 && extmap_lookup(m, x.lba - 1, &old) && old.lba < x.lba)
		before = cut(&old, 0, x.lba);
	if (extmap_lookup(m, x.lba + x.sectors, &old) && old.lba <= x.lba + x.sectors)
		behind = cut(&old, x.lba + x.sectors, UINT64_MAX);
	swallow(&x, &before, &behind);
	clear_range(m, x.lba, x.lba + x.sectors, r);
	if (!m->root) {
		extmap_plant(m, &x);
		return;
	}
	extmap_descend(m, x.lba, &at);
	extmap_path_raise_end(&at, x.lba + x.sectors);
	extmap_edit(m, &at, leaf_find(iter_leaf(&at), x.lba), 0, &x, 1);
}

/* At most EXTMAP_LEN_MAX sectors.  Cannot fail if the nodes are @reserved. */
static int replace(struct extmap *m, const struct extent *x, const struct report *r, bool reserved)
{
	struct extmap_iter at;
	struct edit e;
	int err = 0;

	if (!m->root) {
		err = reserved ? 0 : reserve(m, 1, 0);
		if (!err)
			extmap_plant(m, x);
		return err;
	}
	extmap_descend(m, x->lba, &at);
	if (plan_edit(&at, *x, &e)) {
		if (!reserved && !extmap_edit_fits(&at, e.end - e.first, e.ins, e.n))
			err = reserve_edits(m, 1);
		if (err)
			return err;
		report(r, iter_leaf(&at), e.first, e.end);
		extmap_edit(m, &at, e.first, e.end - e.first, e.ins, e.n);
		return 0;
	}
	err = reserved ? 0 : reserve_edits(m, 2);
	if (!err)
		replace_wide(m, *x, r);
	return err;
}

int extmap_replace(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t value,
		   extmap_displaced_fn *fn, void *arg)
{
	bool several = sectors > EXTMAP_LEN_MAX;
	int err = check_range(lba, sectors);
	uint64_t end = lba + sectors;

	if (!err)
		err = check_value(sectors, value);
	if (!err && several)
		err = reserve_pieces(m, sectors / EXTMAP_LEN_MAX + 1);
	while (!err && lba < end) {
		uint64_t n = end - lba < EXTMAP_LEN_MAX ? end - lba : EXTMAP_LEN_MAX;
		struct report r = {fn, arg, lba, lba + n};

		err = replace(m, &(struct extent){lba, n, value}, &r, several);
		value = extmap_value_at(value, n);
		lba += n;
	}
	return err;
}

int extmap_append(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t value)
{
	void *node = m->root;

	for (unsigned int d = 0; d < m->depth; d++) {
		const struct extmap_inner *n = node;

		node = n->child[n->count - 1];
	}
	if (node) {
		const struct extmap_leaf *l = node;

		if (lba < leaf_end(l, (unsigned int)l->count - 1))
			return -EINVAL;
	}
	return extmap_replace(m, lba, sectors, value, NULL, NULL);
}

/* --- removing, and the conditional forms ------------------------------------------------------ */

int extmap_remove(struct extmap *m, uint64_t lba, uint64_t sectors, extmap_displaced_fn *fn,
		  void *arg)
{
	struct report r = {fn, arg, lba, lba + sectors};
	int err = check_range(lba, sectors);

	if (!err)
		err = reserve_cuts(m, 1);
	if (!err)
		clear_range(m, lba, lba + sectors, &r);
	return err;
}

/*
 * Gives the first piece of [lba, end) that is mapped to what @old gives, the value at @start.  Two
 * extents agree in all sectors that they share or in none, so pieces are whole extents but for the
 * range's edges.
 */
static bool next_match(const struct extmap *m, uint64_t lba, uint64_t end, uint64_t start,
		       uint64_t old, struct extent *ret)
{
	struct extmap_iter it;
	struct extent x;

	extmap_iter_init(&it, m, lba);
	while (lba < end && extmap_iter_next(&it, &x) && x.lba < end) {
		x = cut(&x, lba, end);
		if (x.value == extmap_value_at(old, x.lba - start)) {
			*ret = x;
			return true;
		}
	}
	return false;
}

int extmap_remove_if(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t old_value,
		     extmap_displaced_fn *fn, void *arg)
{
	uint64_t at = lba, end = lba + sectors;
	int err = check_range(lba, sectors);
	struct extent x;

	if (!err)
		err = reserve_cuts(m, 1);
	while (!err && next_match(m, at, end, lba, old_value, &x)) {
		struct report r = {fn, arg, x.lba, x.lba + x.sectors};

		at = x.lba + x.sectors;
		clear_range(m, x.lba, at, &r);
	}
	return err;
}

int extmap_insert_if(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t old_value,
		     uint64_t new_value, extmap_displaced_fn *fn, void *arg)
{
	uint64_t at = lba, end = lba + sectors;
	int err = check_range(lba, sectors);
	struct extent x;

	if (!err)
		err = check_value(sectors, new_value);
	if (!err)
		err = reserve_cuts(m, 2);
	while (!err && next_match(m, at, end, lba, old_value, &x)) {
		struct report r = {fn, arg, x.lba, x.lba + x.sectors};

		at = x.lba + x.sectors;
		x.value = extmap_value_at(new_value, x.lba - lba);
		err = replace(m, &x, &r, true);
	}
	return err;
}
