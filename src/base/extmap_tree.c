/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the extent map's tree: one edit of one leaf, and what follows from it further up.
 *
 * An edit happens in place when the leaf has room.  Otherwise the leaf and its neighbours below
 * the same parent, a window of up to three, are dealt out anew: over as many leaves if these then
 * keep some room, over one more if not.  Three full leaves become four that are three quarters
 * full, so that random inserts leave leaves about 85 % full (a B*-tree, Knuth 6.2.4).  A leaf that
 * has become small is dealt out the same way over fewer.  Inner nodes are a fiftieth of the memory
 * and are split and merged in pairs.
 *
 * A leaf holds what lies less than 2^31 sectors behind its base.  Where a window is wider than
 * that, the leaf is dealt out alone, and cut where the distance is too large.
 *
 * Growth at the far end, as when a map is loaded in order, leaves full nodes behind.
 *
 * Invariants (all are verified by extmap_check):
 * 1. Leaves are all at the same depth; no node but a root that is a leaf is empty.
 * 2. An extent lies whole within the share of its leaf: a lookup needs one leaf.
 * 3. Unused keys and separators hold the largest value, so that searches need no count.
 * 4. An edit takes at most one leaf, and one inner node at each level and one for a new root.
 *    That is what callers reserve.
 */
#include <string.h>

#include "base/extmap_impl.h"

enum {
	WINDOW = 3,
	GATHER_MAX = WINDOW * LEAF_CAP + EDIT_MAX,
	FILL_GROW = LEAF_CAP - 4, /* fuller than this on average, and a leaf is added */
	FILL_SHRINK = LEAF_CAP * 3 / 4,
	LEAF_SMALL = LEAF_CAP / 4,
	INNER_SMALL = INNER_CAP / 4,
	INNER_MERGED = INNER_CAP * 3 / 4,
};

/* Children that take the place of others; the first keeps the lower bound of what it replaces. */
struct offspring {
	unsigned int count;
	void *node[WINDOW + 2];
	uint64_t lba[WINDOW + 2];
};

/* --- inner nodes ------------------------------------------------------------------------------ */

uint64_t extmap_path_end(const struct extmap_iter *at)
{
	for (unsigned int d = at->depth; d-- > 0;) {
		const struct extmap_inner *n = at->node[d];

		if (at->index[d] + 1 < n->count)
			return n->sep[at->index[d]];
	}
	return EXTMAP_LBA_END;
}

uint64_t extmap_path_start(const struct extmap_iter *at)
{
	for (unsigned int d = at->depth; d-- > 0;) {
		const struct extmap_inner *n = at->node[d];

		if (at->index[d] > 0)
			return n->sep[at->index[d] - 1];
	}
	return 0;
}

void extmap_path_raise_end(const struct extmap_iter *at, uint64_t end)
{
	for (unsigned int d = at->depth; d-- > 0;) {
		struct extmap_inner *n = at->node[d];

		if (at->index[d] + 1 < n->count) {
			if (n->sep[at->index[d]] < end)
				n->sep[at->index[d]] = end;
			return;
		}
	}
}

static struct extmap_inner *inner_new(struct extmap *m)
{
	struct extmap_inner *n = extmap_pool_get(&m->inners);

	n->count = 0;
	memset(n->sep, 0xff, sizeof(n->sep));
	return n;
}

static void inner_replace(struct extmap_inner *n, unsigned int at, unsigned int ndel,
			  const struct offspring *kids)
{
	unsigned int tail = (unsigned int)n->count - at - ndel;
	unsigned int count = (unsigned int)n->count - ndel + kids->count;

	assert(ndel > 0 && kids->count > 0 && count <= INNER_CAP);
	memmove(&n->child[at + kids->count], &n->child[at + ndel], tail * sizeof(n->child[0]));
	memmove(&n->sep[at + kids->count - 1], &n->sep[at + ndel - 1], tail * sizeof(n->sep[0]));
	n->child[at] = kids->node[0];
	for (unsigned int i = 1; i < kids->count; i++) {
		n->child[at + i] = kids->node[i];
		n->sep[at + i - 1] = kids->lba[i];
	}
	for (unsigned int i = count; i < n->count; i++)
		n->sep[i - 1] = UINT64_MAX;
	n->count = count;
}

/* Moves the children from @from on to a new node. */
static struct extmap_inner *inner_split(struct extmap *m, struct extmap_inner *n, unsigned int from)
{
	struct extmap_inner *right = inner_new(m);
	unsigned int moved = (unsigned int)n->count - from;

	memcpy(right->child, &n->child[from], moved * sizeof(n->child[0]));
	memcpy(right->sep, &n->sep[from], (moved - 1) * sizeof(n->sep[0]));
	right->count = moved;
	memset(&n->sep[from - 1], 0xff, moved * sizeof(n->sep[0]));
	n->count = from;
	return right;
}

/*
 * Where to split a full node so that the children [at, at + ndel) stay together: in the middle, or,
 * if they are the last, right before them, as in growth at the far end.
 */
static unsigned int split_point(const struct extmap_inner *n, unsigned int at, unsigned int ndel)
{
	unsigned int mid = INNER_CAP / 2;

	if (at + ndel == n->count)
		return at;
	return at < mid && mid < at + ndel ? at + ndel : mid;
}

/* Replaces children of the node at level @d of the path, and splits nodes upwards as needed. */
static void path_replace(struct extmap *m, const struct extmap_iter *at, unsigned int d,
			 unsigned int first, unsigned int ndel, const struct offspring *kids)
{
	struct extmap_inner *n = at->node[d], *right, *root;
	struct offspring halves = {.count = 2};
	unsigned int from;

	while (n->count - ndel + kids->count > INNER_CAP) {
		uint64_t right_lba;

		from = split_point(n, first, ndel);
		right_lba = n->sep[from - 1];
		right = inner_split(m, n, from);
		if (first < from)
			inner_replace(n, first, ndel, kids);
		else
			inner_replace(right, first - from, ndel, kids);
		halves.node[0] = n;
		halves.node[1] = right;
		halves.lba[1] = right_lba;
		kids = &halves;
		ndel = 1;
		if (d == 0) {
			root = inner_new(m);
			root->count = 1;
			m->root = root;
			m->depth++;
			n = root;
			first = 0;
		} else {
			n = at->node[--d];
			first = at->index[d];
		}
	}
	inner_replace(n, first, ndel, kids);
}

static void inner_drop(struct extmap_inner *n, unsigned int i)
{
	unsigned int left = (unsigned int)n->count - 1;
	unsigned int s = i > 0 ? i - 1 : 0;

	memmove(&n->child[i], &n->child[i + 1], (left - i) * sizeof(n->child[0]));
	n->count = left;
	if (left > 0) {
		memmove(&n->sep[s], &n->sep[s + 1], (left - 1 - s) * sizeof(n->sep[0]));
		n->sep[left - 1] = UINT64_MAX;
	}
}

/* Moves the children of the node's right neighbour into child @i of @parent, if that is wise. */
static bool inner_merge(struct extmap *m, struct extmap_inner *parent, unsigned int i)
{
	struct extmap_inner *left = parent->child[i], *right;

	if (i + 1 >= parent->count)
		return false;
	right = parent->child[i + 1];
	if (left->count + right->count > INNER_MERGED)
		return false;
	left->sep[left->count - 1] = parent->sep[i];
	memcpy(&left->sep[left->count], right->sep, (right->count - 1) * sizeof(left->sep[0]));
	memcpy(&left->child[left->count], right->child, right->count * sizeof(left->child[0]));
	left->count += right->count;
	inner_drop(parent, i + 1);
	extmap_pool_put(&m->inners, right);
	return true;
}

/* Takes out inner nodes that have become empty, and merges small ones, from level @d upwards. */
static void path_shrink(struct extmap *m, const struct extmap_iter *at, unsigned int d)
{
	struct extmap_inner *n = at->node[d];

	for (; d > 0 && n->count < INNER_SMALL; d--) {
		struct extmap_inner *parent = at->node[d - 1];
		unsigned int i = at->index[d - 1];

		if (n->count == 0) {
			inner_drop(parent, i);
			extmap_pool_put(&m->inners, n);
		} else if (!inner_merge(m, parent, i) &&
			   (i == 0 || !inner_merge(m, parent, i - 1))) {
			break;
		}
		n = parent;
	}
	while (m->depth > 0) {
		n = m->root;
		if (n->count > 1)
			return;
		m->root = n->count ? n->child[0] : NULL;
		m->depth = n->count ? m->depth - 1 : 0;
		extmap_pool_put(&m->inners, n);
	}
}

/* --- leaves ----------------------------------------------------------------------------------- */

static void leaf_put(struct extmap_leaf *l, unsigned int i, const struct extent *x)
{
	l->key[i] = (int32_t)(x->lba - l->base);
	l->len[i] = (uint32_t)x->sectors;
	l->value[i] = x->value;
}

static void leaf_fill(struct extmap_leaf *l, const struct extent *x, unsigned int n)
{
	l->base = x[0].lba;
	l->count = n;
	for (unsigned int i = 0; i < n; i++)
		leaf_put(l, i, &x[i]);
	for (unsigned int i = n; i < LEAF_KEYS; i++)
		l->key[i] = KEY_UNUSED;
}

/* Whether the extents fit one leaf's range of keys. */
static bool is_near(const struct extent *x, unsigned int n)
{
	return x[n - 1].lba - x[0].lba < KEY_UNUSED;
}

/* Makes the leaf's keys able to hold @x, if that can be done without moving others. */
static bool leaf_reach(struct extmap_leaf *l, const struct extent *x)
{
	uint64_t down;

	if (x->lba >= l->base)
		return x->lba - l->base < KEY_UNUSED;
	down = l->base - x->lba;
	if (down >= KEY_UNUSED || (uint64_t)l->key[l->count - 1] + down >= KEY_UNUSED)
		return false;
	for (unsigned int i = 0; i < l->count; i++)
		l->key[i] += (int32_t)down;
	l->base = x->lba;
	return true;
}

static void leaf_splice(struct extmap_leaf *l, unsigned int first, unsigned int ndel,
			const struct extent *ins, unsigned int nins)
{
	unsigned int tail = (unsigned int)l->count - first - ndel;
	unsigned int count = (unsigned int)l->count - ndel + nins;

	if (ndel != nins) {
		memmove(&l->key[first + nins], &l->key[first + ndel], tail * sizeof(l->key[0]));
		memmove(&l->len[first + nins], &l->len[first + ndel], tail * sizeof(l->len[0]));
		memmove(&l->value[first + nins], &l->value[first + ndel],
			tail * sizeof(l->value[0]));
	}
	for (unsigned int i = 0; i < nins; i++)
		leaf_put(l, first + i, &ins[i]);
	for (unsigned int i = count; i < l->count; i++)
		l->key[i] = KEY_UNUSED;
	l->count = count;
}

/* --- dealing out ------------------------------------------------------------------------------ */

struct deal {
	unsigned int at; /* the window's first child, and how many */
	unsigned int leaves;
	unsigned int n;
	struct extent x[GATHER_MAX];
};

static void gather_leaf(struct deal *deal, const struct extmap_leaf *l, unsigned int from,
			unsigned int to)
{
	for (unsigned int i = from; i < to; i++)
		deal->x[deal->n++] = leaf_get(l, i);
}

/* Collects the leaves [at, at + leaves) of the parent with the edit made in leaf @self. */
static void gather(struct deal *deal, void *const *child, unsigned int self, unsigned int first,
		   unsigned int ndel, const struct extent *ins, unsigned int nins)
{
	deal->n = 0;
	for (unsigned int c = deal->at; c < deal->at + deal->leaves; c++) {
		const struct extmap_leaf *l = child[c];

		if (c != self) {
			gather_leaf(deal, l, 0, (unsigned int)l->count);
			continue;
		}
		gather_leaf(deal, l, 0, first);
		for (unsigned int i = 0; i < nins; i++)
			deal->x[deal->n++] = ins[i];
		gather_leaf(deal, l, first + ndel, (unsigned int)l->count);
	}
}

/*
 * Spreads the extents over @want leaves: those of the window, then new ones.  With @want 0 each
 * leaf takes as many as it can.
 */
static void scatter(struct extmap *m, struct deal *deal, void *const *child, unsigned int want,
		    struct offspring *kids)
{
	unsigned int done = 0, n;

	for (kids->count = 0; done < deal->n; kids->count++) {
		struct extmap_leaf *l = kids->count < deal->leaves ? child[deal->at + kids->count]
								   : extmap_pool_get(&m->leaves);
		unsigned int left = deal->n - done;

		n = left < LEAF_CAP ? left : LEAF_CAP;
		if (want > kids->count)
			n = (left + want - kids->count - 1) / (want - kids->count);
		while (!is_near(&deal->x[done], n))
			n--;
		kids->lba[kids->count] = deal->x[done].lba;
		kids->node[kids->count] = l;
		leaf_fill(l, &deal->x[done], n);
		done += n;
	}
}

static bool is_far_end(const struct extmap_iter *at)
{
	for (unsigned int d = 0; d < at->depth; d++) {
		const struct extmap_inner *n = at->node[d];

		if (at->index[d] + 1 < n->count)
			return false;
	}
	return true;
}

static void choose_window(struct deal *deal, const struct extmap_inner *parent, unsigned int self)
{
	unsigned int from = self > 0 ? self - 1 : 0;
	unsigned int leaves = (unsigned int)parent->count - from;

	deal->at = from;
	deal->leaves = leaves < WINDOW ? leaves : WINDOW;
}

/* A leaf that is also the root has been dealt out: it gets a parent. */
static void plant_inner(struct extmap *m, const struct offspring *kids)
{
	struct extmap_inner *root;

	if (kids->count == 1)
		return;
	root = inner_new(m);
	root->count = 1;
	inner_replace(root, 0, 1, kids);
	m->root = root;
	m->depth = 1;
}

/* The edit does not fit the leaf. */
static void edit_grow(struct extmap *m, const struct extmap_iter *at, unsigned int first,
		      unsigned int ndel, const struct extent *ins, unsigned int nins)
{
	struct extmap_inner *parent = at->depth ? at->node[at->depth - 1] : NULL;
	unsigned int self = parent ? at->index[at->depth - 1] : 0;
	void *alone[1] = {at->node[at->depth]};
	void *const *child = parent ? parent->child : alone;
	bool appends = first == iter_leaf(at)->count && is_far_end(at);
	struct deal deal = {.at = self, .leaves = 1};
	struct offspring kids;
	unsigned int want;

	if (parent && !appends)
		choose_window(&deal, parent, self);
	gather(&deal, child, self, first, ndel, ins, nins);
	if (deal.leaves > 1 && !is_near(deal.x, deal.n)) {
		deal.at = self;
		deal.leaves = 1;
		gather(&deal, child, self, first, ndel, ins, nins);
	}
	want = (deal.n + FILL_GROW - 1) / FILL_GROW;
	if (want < deal.leaves)
		want = deal.leaves;
	if (appends || !is_near(deal.x, deal.n))
		want = 0;
	scatter(m, &deal, child, want, &kids);
	assert(kids.count <= deal.leaves + 1);
	if (parent)
		path_replace(m, at, at->depth - 1, deal.at, deal.leaves, &kids);
	else
		plant_inner(m, &kids);
}

/* Deals a leaf that has become small out to fewer, together with its neighbours. */
static void merge_small(struct extmap *m, const struct extmap_iter *at)
{
	struct extmap_inner *parent = at->node[at->depth - 1];
	struct offspring kids;
	unsigned int want, n = 0;
	struct deal deal;

	choose_window(&deal, parent, at->index[at->depth - 1]);
	for (unsigned int i = 0; i < deal.leaves; i++) {
		const struct extmap_leaf *l = parent->child[deal.at + i];

		n += (unsigned int)l->count;
	}
	want = (n + FILL_SHRINK - 1) / FILL_SHRINK;
	if (want >= deal.leaves)
		return;
	gather(&deal, parent->child, deal.at, 0, 0, NULL, 0);
	if (!is_near(deal.x, deal.n))
		return;
	for (unsigned int i = want; i < deal.leaves; i++)
		extmap_pool_put(&m->leaves, parent->child[deal.at + i]);
	scatter(m, &deal, parent->child, want, &kids);
	inner_replace(parent, deal.at, deal.leaves, &kids);
	path_shrink(m, at, at->depth - 1);
}

static void drop_leaf(struct extmap *m, const struct extmap_iter *at)
{
	extmap_pool_put(&m->leaves, at->node[at->depth]);
	if (at->depth == 0) {
		m->root = NULL;
		return;
	}
	inner_drop(at->node[at->depth - 1], at->index[at->depth - 1]);
	path_shrink(m, at, at->depth - 1);
}

bool extmap_edit_fits(const struct extmap_iter *at, unsigned int ndel, const struct extent *ins,
		      unsigned int nins)
{
	struct extmap_leaf *l = iter_leaf(at);

	if (l->count - ndel + nins > LEAF_CAP)
		return false;
	return nins == 0 || (leaf_reach(l, &ins[0]) && leaf_reach(l, &ins[nins - 1]));
}

void extmap_edit(struct extmap *m, const struct extmap_iter *at, unsigned int first,
		 unsigned int ndel, const struct extent *ins, unsigned int nins)
{
	struct extmap_leaf *l = iter_leaf(at);

	assert(first + ndel <= l->count && nins <= EDIT_MAX);
	m->count = m->count - ndel + nins;
	if (l->count - ndel + nins == 0) {
		drop_leaf(m, at);
	} else if (!extmap_edit_fits(at, ndel, ins, nins)) {
		edit_grow(m, at, first, ndel, ins, nins);
	} else {
		leaf_splice(l, first, ndel, ins, nins);
		if (l->count < LEAF_SMALL && nins < ndel && at->depth > 0)
			merge_small(m, at);
	}
}

void extmap_plant(struct extmap *m, const struct extent *x)
{
	struct extmap_leaf *l = extmap_pool_get(&m->leaves);

	leaf_fill(l, x, 1);
	m->root = l;
	m->depth = 0;
	m->count = 1;
}
