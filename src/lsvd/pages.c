/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages: what the parts of the newest checkpoint cover, and which of them are still true.
 *
 * The map, in LBA order, and the object table, in order of numbers, are each cut into pages as a
 * B-tree's leaves are: a page covers what lies from its first key to the next page's, and was
 * written as one checkpoint part. Pages hold about equally many entries, so they are small in LBA
 * where the map is fragmented and large where it is not, and there are as many as the map's size
 * asks for, whatever the size of the volume. A change makes dirty the pages that it falls into; a
 * checkpoint writes dirty pages anew, in as many parts as that takes now, and goes on referring to
 * the parts of the others.
 *
 *   pages_mark       a change: the pages are dirty
 *   pages_take_run   a checkpoint takes a run of dirty pages: they are clean from here on, unless
 *                    they change again, before the run has been read, while it is, or later
 *   pages_inherit    the checkpoint is in place: the new pages are dirty where the ones that they
 *                    replace have become dirty since they were taken
 *   pages_untake     the checkpoint was given up: what was taken is dirty again
 *
 * Invariants:
 *   1. pages ascend; the first one begins at 0. So each key has one page;
 *   2. a page that is neither dirty nor taken has in its part exactly what map or table hold in
 *      its range now; without a part they hold nothing there;
 *   3. a page that has become dirty again after it was taken makes the new ones dirty that replace
 *      it, whatever of it had been read by then.
 *
 * Guarded by the host. A page is found by bisection, so a change costs little more than in the map.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

int pages_add(struct pages *pg, const struct ckpt_page *page)
{
	if (pg->n == pg->cap) {
		const size_t cap = pg->cap ? pg->cap * 2 : 16;
		struct ckpt_page *p = realloc(pg->p, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		pg->p = p;
		pg->cap = cap;
	}
	pg->p[pg->n] = *page;
	if (!pg->n)
		pg->p[0].first = 0;
	pg->n++;
	return 0;
}

/* One page, of which nothing is written. */
int pages_reset(struct pages *pg)
{
	const struct ckpt_page all = {.dirty = true};

	pg->n = 0;
	return pages_add(pg, &all);
}

void pages_free(struct pages *pg)
{
	free(pg->p);
	*pg = (struct pages){0};
}

/* The page that covers the key; there is at least one page. */
static size_t pages_find(const struct pages *pg, uint64_t key)
{
	size_t lo = 0, hi = pg->n;

	while (hi - lo > 1) {
		const size_t mid = lo + (hi - lo) / 2;

		if (pg->p[mid].first > key)
			hi = mid;
		else
			lo = mid;
	}
	return lo;
}

void pages_mark(struct pages *pg, uint64_t first, uint64_t last)
{
	for (size_t i = pages_find(pg, first); i < pg->n && pg->p[i].first <= last; i++)
		pg->p[i].dirty |= VARVE_STEP("lsvd.dirty_marked");
}

uint64_t pages_clean_entries(const struct pages *pg)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < pg->n; i++) {
		if (!pg->p[i].dirty)
			sum += pg->p[i].ref.entries;
	}
	return sum;
}

/* Whether a clean page is written again along with the dirty one before it: it has become small. */
static bool pages_join(const struct ckpt_page *prev, const struct ckpt_page *p, uint32_t capacity)
{
	return p->dirty || !p->ref.no ||
	       (p->ref.shard == prev->ref.shard && p->ref.entries < capacity / 4);
}

size_t pages_take_run(struct pages *pg, size_t from, uint32_t capacity)
{
	size_t i = from;

	do {
		pg->p[i].taken = true;
		pg->p[i].dirty = false;
		i++;
	} while (i < pg->n && pages_join(&pg->p[i - 1], &pg->p[i], capacity));
	return i;
}

void pages_untake(struct pages *pg)
{
	for (size_t i = 0; i < pg->n; i++) {
		pg->p[i].dirty |= pg->p[i].taken;
		pg->p[i].taken = false;
	}
}

void pages_inherit(struct pages *next, const struct pages *old)
{
	for (size_t i = 0; i < next->n; i++) {
		const uint64_t end = i + 1 < next->n ? next->p[i + 1].first : UINT64_MAX;

		for (size_t k = pages_find(old, next->p[i].first);
		     k < old->n && old->p[k].first < end; k++)
			next->p[i].dirty |= old->p[k].dirty && VARVE_STEP("lsvd.dirty_again");
	}
}

/* ---- which parts the kept checkpoints need */

static int part_cmp(const void *a, const void *b)
{
	const struct part_ref *x = a, *y = b;

	if (x->no != y->no)
		return x->no < y->no ? -1 : 1;
	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->part < y->part ? -1 : x->part > y->part;
}

int partset_add(struct partset *s, const struct part_ref *refs, size_t n)
{
	struct part_ref *p = realloc(s->p, (s->n + n + 1) * sizeof(*p));

	if (!p)
		return -ENOMEM;
	if (n)
		memcpy(p + s->n, refs, n * sizeof(*p));
	s->p = p;
	s->n += n;
	qsort(s->p, s->n, sizeof(*s->p), part_cmp);
	return 0;
}

/* Of a root that root_decode() has accepted. */
int partset_of_root(struct partset *s, const void *root, uint32_t parts)
{
	struct part_ref *refs = malloc((parts + 1) * sizeof(*refs));
	int r = refs ? 0 : -ENOMEM;

	for (uint32_t i = 0; !r && i < parts; i++)
		root_part(root, i, &refs[i]);
	if (!r)
		r = partset_add(s, refs, parts);
	free(refs);
	return r;
}

bool partset_has(const struct partset *s, const struct key *key)
{
	const struct part_ref want = {.no = key->seq, .epoch = key->epoch, .part = key->part};

	return s->n && bsearch(&want, s->p, s->n, sizeof(*s->p), part_cmp);
}

void partset_free(struct partset *s)
{
	free(s->p);
	*s = (struct partset){0};
}
