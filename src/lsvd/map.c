/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The map (LBA -> object and sector in its data) and the object table.
 *
 * The map is an extent map whose values are places: object number above, sector in the object's
 * data below, so that a value advances with the LBA. An ERROR extent is the tag PLACE_ERROR. What
 * is not mapped reads as zeros. The table has a row for each object, ascending by number.
 *
 * Invariants, while live counts are kept:
 *   1. the live count of an object is the number of sectors that the map says are in it: whatever
 *      a change displaces is told piece by piece and subtracted from its old owner;
 *   2. an object is in the table before the map names it;
 *   3. every place lies within the data of its object;
 *   4. a change of the map or of the table's rows makes their pages dirty (pages.c). A live count
 *      is no such change: what a checkpoint has of it is as old as its part.
 *
 * Recovery: the map is loaded from a checkpoint that was taken while it changed (ckpt.c), so rows
 * may be missing and counts wrong until all later objects have been applied. Counts are therefore
 * not kept while rolling forward; map_count_live() takes them from the finished map, and verifies
 * invariants 2 and 3 on the way.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

size_t objtab_from(const struct objtab *t, uint64_t seq)
{
	size_t lo = 0, hi = t->n;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (t->o[mid].seq < seq)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct ckpt_obj *objtab_find(const struct objtab *t, uint64_t seq)
{
	const size_t at = objtab_from(t, seq);

	return at < t->n && t->o[at].seq == seq ? &t->o[at] : NULL;
}

/* Rows come in order but for a mutant that installs out of order. */
int objtab_add(struct objtab *t, const struct ckpt_obj *obj)
{
	size_t at = t->n;

	if (t->n == t->cap) {
		const size_t cap = t->cap ? t->cap * 2 : 64;
		struct ckpt_obj *o = realloc(t->o, cap * sizeof(*o));

		if (!o)
			return -ENOMEM;
		t->o = o;
		t->cap = cap;
	}
	while (at && t->o[at - 1].seq > obj->seq)
		at--;
	memmove(t->o + at + 1, t->o + at, (t->n - at) * sizeof(*t->o));
	t->o[at] = *obj;
	t->n++;
	return 0;
}

void objtab_free(struct objtab *t)
{
	free(t->o);
	*t = (struct objtab){0};
}

static void map_displaced(void *arg, const struct extent *old)
{
	struct lsvd *l = arg;
	struct ckpt_obj *obj;

	if (old->value & EXTMAP_CONST)
		return;
	obj = objtab_find(&l->objs, place_seq(old->value));
	if (!obj)
		return;
	obj->live_sectors -= (uint32_t)old->sectors;
	l->live_sectors -= old->sectors;
}

int map_install_one(struct lsvd *l, const struct obj_ext *e, uint64_t seq, bool live)
{
	extmap_displaced_fn *fn = live ? map_displaced : NULL;
	struct ckpt_obj *obj;
	int r;

	/* Before the map: a change that fails leaves a page dirty, which only costs. */
	pages_mark(pages_of(l, LSVD_PART_SHARD), e->lba, e->lba + e->sectors - 1);
	if (e->type == LSVD_EXT_ZERO)
		return extmap_remove(&l->map, e->lba, e->sectors, fn, l);
	if (e->type == LSVD_EXT_ERROR)
		return extmap_replace(&l->map, e->lba, e->sectors, PLACE_ERROR, fn, l);
	r = extmap_replace(&l->map, e->lba, e->sectors, place_make(seq, e->data_sector), fn, l);
	obj = !r && live ? objtab_find(&l->objs, seq) : NULL;
	if (obj) {
		obj->live_sectors += e->sectors;
		l->live_sectors += e->sectors;
	}
	return r;
}

struct map_moving {
	struct lsvd *l;
	uint64_t to;
};

/* A piece that is still where it was read from. */
static void map_moved(void *arg, const struct extent *old)
{
	const struct map_moving *m = arg;
	struct ckpt_obj *obj = objtab_find(&m->l->objs, place_seq(m->to));

	map_displaced(m->l, old);
	if (!obj)
		return;
	obj->live_sectors += (uint32_t)old->sectors;
	m->l->live_sectors += old->sectors;
}

/* Where the map names the old place it names the new one from here on. */
int map_move(struct lsvd *l, const struct obj_move *mv, bool live)
{
	struct map_moving m = {l, mv->to};

	pages_mark(pages_of(l, LSVD_PART_SHARD), mv->lba, mv->lba + mv->sectors - 1);
	if (!VARVE_STEP("lsvd.move_where_it_was"))
		return extmap_replace(&l->map, mv->lba, mv->sectors, mv->to, NULL, NULL);
	return extmap_insert_if(&l->map, mv->lba, mv->sectors, mv->from, mv->to,
				live ? map_moved : NULL, &m);
}

int map_install(struct lsvd *l, const void *hdr, uint64_t seq, uint32_t from, uint32_t to,
		bool live)
{
	for (uint32_t i = from; i < to; i++) {
		struct obj_ext e;
		int r;

		obj_ext(hdr, i, &e);
		r = map_install_one(l, &e, seq, live);
		if (r)
			return r;
	}
	return 0;
}

int map_count_live(struct lsvd *l, struct err *err)
{
	struct ckpt_obj *obj = NULL;
	struct extmap_iter it;
	struct extent e;

	l->live_sectors = l->total_sectors = 0;
	for (size_t i = 0; i < l->objs.n; i++) {
		l->objs.o[i].live_sectors = 0;
		l->total_sectors += l->objs.o[i].data_sectors;
	}
	extmap_iter_init(&it, &l->map, 0);
	while (extmap_iter_next(&it, &e)) {
		if (e.value & EXTMAP_CONST)
			continue;
		if (!obj || obj->seq != place_seq(e.value))
			obj = objtab_find(&l->objs, place_seq(e.value));
		if (!obj)
			return err_corrupt(err,
					   "%s: sector %llu is mapped to object %llu, which "
					   "does not exist",
					   l->name, (unsigned long long)e.lba,
					   (unsigned long long)place_seq(e.value));
		if (place_sector(e.value) + e.sectors > obj->data_sectors)
			return err_corrupt(err,
					   "%s: sector %llu is mapped beyond the end of "
					   "object %llu",
					   l->name, (unsigned long long)e.lba,
					   (unsigned long long)obj->seq);
		obj->live_sectors += (uint32_t)e.sectors;
		l->live_sectors += e.sectors;
	}
	return 0;
}

bool map_counts_right(struct lsvd *l)
{
	uint64_t live = 0, total = 0;
	struct extmap_iter it;
	struct extent e;
	bool right;
	uint32_t *count = calloc(l->objs.n + 1, sizeof(*count));

	extmap_iter_init(&it, &l->map, 0);
	while (count && extmap_iter_next(&it, &e)) {
		const size_t at = objtab_from(&l->objs, place_seq(e.value));

		if (e.value & EXTMAP_CONST)
			continue;
		live += e.sectors;
		if (at < l->objs.n)
			count[at] += (uint32_t)e.sectors;
	}
	right = count && live == l->live_sectors;
	for (size_t i = 0; right && i < l->objs.n; i++) {
		right = count[i] == l->objs.o[i].live_sectors;
		total += l->objs.o[i].data_sectors;
	}
	free(count);
	return right && total == l->total_sectors;
}
