/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection: when, of which objects, and what of them (gc.c has the whole).
 *
 * Policies. Greedy takes objects with the smallest part alive, u; cost-benefit those with the
 * greatest (1 - u) age / (1 + u), age being how many numbers have been given out since: cold
 * objects are worth emptying earlier, since what is hot dies by itself.
 *
 * The plan is a list of ranges of LBAs. A victim's header says which LBAs it was written with, and
 * the map which of these it still names there: that costs a look at the map for each extent of
 * the victims, and none for the others. Neighbours become one range; and so do two with a hole of
 * FILL_SECTORS or less between them if the map has data all through it: that moves as well, and one
 * extent of the map takes the place of several.
 *
 * Guarded by the host, but for the sorting, for which the round's memory is the caller's alone. All
 * of it goes in slices. What the plan says may be overtaken by what is written: it is only a plan.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

#define FILL_SECTORS 16u
#define FAILURES_MAX 3
#define PLAN_SLICE 256
#define MERGE_SLICE 1024

/* ---- policy */

struct gc_score {
	uint64_t seq, live;
	double score; /* the greatest goes first */
};

static double gc_score(const struct lsvd *l, const struct ckpt_obj *o)
{
	const double u = (double)o->live_sectors / o->data_sectors;

	if (l->opt.gc_policy == LSVD_GC_COST_BENEFIT)
		return (1 - u) * (double)(l->next_seq - o->seq) / (1 + u);
	return 1 - u;
}

static bool gc_candidate(const struct ckpt_obj *o, uint64_t covered)
{
	return o->seq <= covered && o->live_sectors && o->live_sectors < o->data_sectors &&
	       o->gc_failures < FAILURES_MAX;
}

/* Keeps the best GC_VICTIMS, best first. */
static uint32_t gc_rank(struct gc_score *best, uint32_t n, const struct gc_score *s)
{
	uint32_t at = n;

	if (n == GC_VICTIMS && best[n - 1].score >= s->score)
		return n;
	if (n == GC_VICTIMS)
		at = --n;
	for (; at && best[at - 1].score < s->score; at--)
		best[at] = best[at - 1];
	best[at] = *s;
	return n + 1;
}

/* Data in objects that have anything live: what moving can make less. */
static uint64_t gc_usable(const struct lsvd *l)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < l->objs.n; i++)
		sum += l->objs.o[i].live_sectors ? l->objs.o[i].data_sectors : 0;
	return sum;
}

/* Between gc_start and gc_stop, or asked for and below gc_stop. */
bool gc_wanted(struct lsvd *l)
{
	struct gc *g = &l->gc;
	uint64_t usable;

	/* First without counting, which is enough for most. */
	if (!g->running && !g->forced &&
	    l->live_sectors * 100 >= l->total_sectors * l->opt.gc_start_percent)
		return false;
	usable = gc_usable(l);
	if (l->live_sectors * 100 >= usable * l->opt.gc_stop_percent)
		g->running = false;
	else if (g->forced || l->live_sectors * 100 < usable * l->opt.gc_start_percent)
		g->running = true;
	return g->running;
}

bool gc_pick(struct lsvd *l)
{
	const struct root_ref *root = &l->sb.roots[l->good_root];
	const uint64_t covered = root->no ? root->covered_seq : 0;
	const uint64_t room = l->opt.batch_bytes / LSVD_SECTOR_BYTES;
	struct gc_score best[GC_VICTIMS];
	struct gc *g = &l->gc;
	uint32_t n = 0;
	uint64_t sum = 0;

	for (size_t i = 0; i < l->objs.n && l->objs.o[i].seq <= covered; i++) {
		const struct ckpt_obj *o = &l->objs.o[i];

		if (gc_candidate(o, covered)) {
			const struct gc_score s = {o->seq, o->live_sectors, gc_score(l, o)};

			n = gc_rank(best, n, &s);
		}
	}
	g->victims = 0;
	for (uint32_t i = 0; i < n && (!i || sum + best[i].live <= room); i++) {
		g->victim[g->victims++] = best[i].seq;
		sum += best[i].live;
	}
	return g->victims > 0;
}

/* ---- planning */

static int gc_add_range(struct gc *g, uint64_t lba, uint64_t sectors)
{
	struct gc_range *last = g->ranges ? &g->range[g->ranges - 1] : NULL;

	if (last && last->lba + last->sectors == lba) {
		last->sectors += sectors;
		return 0;
	}
	if (g->ranges == g->ranges_cap) {
		const size_t cap = g->ranges_cap ? g->ranges_cap * 2 : 256;
		struct gc_range *range = realloc(g->range, cap * sizeof(*range));

		if (!range)
			return -ENOMEM;
		g->range = range;
		g->ranges_cap = cap;
	}
	g->range[g->ranges++] = (struct gc_range){lba, sectors};
	return 0;
}

/* What of an extent of a victim the map still names there. */
static int gc_plan_ext(struct lsvd *l, uint64_t seq, const struct obj_ext *e)
{
	const uint64_t end = e->lba + e->sectors;
	uint64_t at = e->lba;
	struct extent x;

	while (at < end && extmap_lookup(&l->map, at, &x) && x.lba < end) {
		const uint64_t from = max64(at, x.lba), to = min64(end, x.lba + x.sectors);
		const uint64_t was = place_make(seq, e->data_sector) + (from - e->lba);
		int r;

		if (!(x.value & EXTMAP_CONST) &&
		    extmap_value_at(x.value, from - x.lba) == was) {
			r = gc_add_range(&l->gc, from, to - from);
			if (r)
				return r;
		}
		at = to;
	}
	return 0;
}

static void gc_hdr_ready(struct hdr_wait *wait)
{
	gc_defer(container_of(wait, struct lsvd, gc_wait));
}

/* The header of the victim; 1: it comes later. */
static int gc_plan_header(struct lsvd *l, uint64_t seq)
{
	struct gc *g = &l->gc;
	const struct lsvd_hdr *h;
	int r = 0;

	if (l->gc_wait.error)
		return l->gc_wait.error;
	if (!l->gc_wait.ent) {
		l->gc_wait.ready = gc_hdr_ready;
		r = hcache_get(l, seq, &l->gc_wait);
	}
	if (r)
		return r;
	g->hdr = l->gc_wait.ent;
	h = hcache_buf(g->hdr);
	g->generation = (uint32_t)max64(g->generation, le32_get(h->generation));
	return 0;
}

void gc_drop_header(struct lsvd *l)
{
	if (l->gc.hdr)
		hcache_put(l, l->gc.hdr);
	l->gc.hdr = NULL;
	l->gc_wait = (struct hdr_wait){0};
}

/* 0: call again; 1: wait. Entered. */
int gc_plan(struct lsvd *l)
{
	struct gc *g = &l->gc;
	const uint64_t seq = g->victim[g->at_victim];
	const struct lsvd_hdr *h;
	int r = 0;

	if (!g->hdr && objtab_find(&l->objs, seq)) {
		r = gc_plan_header(l, seq);
		if (r)
			return r;
	}
	h = g->hdr ? hcache_buf(g->hdr) : NULL;
	for (unsigned i = 0; h && i < PLAN_SLICE && g->at_ext < le32_get(h->ext_count); i++) {
		struct obj_ext e;

		obj_ext(h, g->at_ext++, &e);
		if (e.type == LSVD_EXT_DATA)
			r = gc_plan_ext(l, seq, &e);
		if (r)
			return r;
	}
	if (h && g->at_ext < le32_get(h->ext_count))
		return 0;
	gc_drop_header(l);
	g->at_ext = 0;
	if (++g->at_victim == g->victims)
		g->phase = GC_MERGE;
	return 0;
}

/* ---- merging */

static int range_cmp(const void *a, const void *b)
{
	const struct gc_range *x = a, *y = b;

	return x->lba < y->lba ? -1 : x->lba > y->lba;
}

/* Whether there is data all through the hole between two ranges. */
static bool gc_fills(const struct lsvd *l, uint64_t lba, uint64_t end)
{
	struct extent x;

	while (lba < end) {
		if (!extmap_lookup(&l->map, lba, &x) || x.lba > lba || x.value & EXTMAP_CONST)
			return false;
		lba = x.lba + x.sectors;
	}
	return true;
}

/* Entered; 0: call again. The ranges up to merged are done. */
int gc_merge(struct lsvd *l)
{
	struct gc *g = &l->gc;
	const uint64_t fill_max = l->opt.batch_bytes / LSVD_SECTOR_BYTES / 4;

	for (unsigned i = 0; i < MERGE_SLICE && g->at_range < g->ranges; i++) {
		const struct gc_range r = g->range[g->at_range++];
		struct gc_range *last = g->merged ? &g->range[g->merged - 1] : NULL;
		const uint64_t hole = last ? r.lba - (last->lba + last->sectors) : UINT64_MAX;

		if (hole <= FILL_SECTORS && g->filled + hole <= fill_max &&
		    gc_fills(l, r.lba - hole, r.lba)) {
			last->sectors += hole + r.sectors;
			g->filled += hole;
			g->sectors += hole + r.sectors;
		} else {
			g->range[g->merged++] = r;
			g->sectors += r.sectors;
		}
	}
	if (g->at_range < g->ranges)
		return 0;
	if (!g->merged)
		return -ESRCH; /* all of it has been overwritten meanwhile */
	g->at_range = 0;
	g->buf = malloc(g->sectors * LSVD_SECTOR_BYTES);
	g->phase = GC_READ;
	return g->buf ? 0 : -ENOMEM;
}

void gc_sort(struct gc *g)
{
	qsort(g->range, g->ranges, sizeof(*g->range), range_cmp);
}
