/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading the data of a batch that is no longer in the log's memory, and of the next batch while
 * this one is written.
 *
 * Each load is a struct segload (wlog/segload.h), and there are BATCH_LOADS of them. Data goes into
 * an arena, one behind the other. There are two: the batch's, and one that is read ahead into; the
 * batch that comes next takes the latter over, with what is still in flight.
 *
 * Reading ahead begins when a batch begins to be written, if that had to be loaded, and so much
 * lies behind it that the next will be full: then it will have to be loaded too.
 *
 * Invariants:
 *   1. what is read ahead is what the next batch begins with, or it is dropped: when a batch fails,
 *      the next one begins with the same segments;
 *   2. a segment is pinned while it is loaded; what is dropped stays pinned until it is back;
 *   3. an arena has room for the largest batch: ARENA_BYTES are address space, and memory only as
 *      far as they have been used. Both are given back with all other memory of batches.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/hugemem.h"
#include "boost/boost_impl.h"

#define BLOCK 4096u
/* A batch, or a write of the largest size with the segments that it shares with others. */
#define ARENA_BYTES ((size_t)BATCH_BYTES_MAX + WLOG_MAX_IO_BYTES + (16u << 20))

static size_t load_bytes(const struct wlog_seg_view *view)
{
	const size_t len = (size_t)view->data_sectors * DEV_SECTOR_BYTES;

	return view->data ? 0 : (len + BLOCK - 1) / BLOCK * BLOCK;
}

static int arena_get(uint8_t **arena)
{
	if (!*arena)
		*arena = hugemem_alloc(ARENA_BYTES);
	return *arena ? 0 : -ENOMEM;
}

static void ahead_release(struct boost *b)
{
	struct ahead *a = &b->batch.ahead;

	for (size_t i = 0; i < a->n; i++)
		wlog_seg_unpin(b->log, a->segs[i].seg);
	a->n = a->next = a->used = 0;
	a->dropped = false;
}

/* ---- loads */

static void ahead_load(struct boost *b);

static void load_done(struct segload *load)
{
	struct bload *ld = container_of(load, struct bload, load);
	struct boost *b = ld->b;
	struct batch *bt = &b->batch;

	list_add_tail(&ld->link, &bt->loads_free);
	if (ld->ahead)
		bt->ahead.in_flight--;
	else
		bt->in_flight--;
	if (bt->ahead.dropped && !bt->ahead.in_flight) {
		ahead_release(b);
		wb_kick(b);
	}
	if (bt->phase == BATCH_LOADING)
		load_batch(b);
	else
		ahead_load(b);
}

/* False: there is none free. */
static bool load_start(struct boost *b, const struct bseg *bs, bool ahead)
{
	struct batch *bt = &b->batch;
	struct list_head *link = list_pop(&bt->loads_free);
	struct bload *ld;

	if (!link)
		return false;
	ld = list_entry(link, struct bload, link);
	ld->ahead = ahead;
	ld->load.user = &b->load_user;
	ld->load.seg = bs->seg;
	ld->load.buf = (void *)(uintptr_t)bs->data;
	ld->load.done = load_done;
	if (ahead)
		bt->ahead.in_flight++;
	else
		bt->in_flight++;
	segload_start(&ld->load);
	return true;
}

static void ahead_load(struct boost *b)
{
	struct ahead *a = &b->batch.ahead;

	if (b->stopping || b->failed || a->dropped)
		return;
	while (a->next < a->n && load_start(b, &a->segs[a->next], true))
		a->next++;
}

/* ---- the batch */

/* Takes over what was read ahead. The segments are pinned already. */
int load_begin(struct boost *b)
{
	struct batch *bt = &b->batch;
	bool needed = false;

	for (uint32_t i = 0; i < bt->nsegs && !needed; i++)
		needed = load_bytes(&bt->segs[i].view);
	if (bt->ahead.n) {
		uint8_t *arena = bt->arena;

		bt->arena = bt->ahead.arena;
		bt->ahead.arena = arena;
	}
	bt->arena_used = bt->ahead.used;
	bt->next_load = 0;
	bt->ahead_at = 0;
	bt->in_flight = 0;
	return needed ? arena_get(&bt->arena) : 0;
}

static const uint8_t *ahead_find(struct batch *bt, uint64_t number)
{
	const struct ahead *a = &bt->ahead;

	while (bt->ahead_at < a->n && a->segs[bt->ahead_at].view.number < number)
		bt->ahead_at++;
	if (bt->ahead_at == a->n || a->segs[bt->ahead_at].view.number != number)
		return NULL;
	return a->segs[bt->ahead_at].data;
}

/* Starts what is to be loaded, so many at once; goes on when all is there. */
void load_batch(struct boost *b)
{
	struct batch *bt = &b->batch;

	if (b->stopping || b->failed)
		return;
	ahead_load(b);
	for (; bt->next_load < bt->nsegs; bt->next_load++) {
		struct bseg *bs = &bt->segs[bt->next_load];
		const size_t bytes = load_bytes(&bs->view);

		bs->data = bytes ? ahead_find(bt, bs->view.number) : bs->view.data;
		if (!bytes || bs->data)
			continue;
		assert(bt->arena_used + bytes <= ARENA_BYTES);
		bs->data = bt->arena + bt->arena_used;
		if (!load_start(b, bs, false))
			return;
		bt->arena_used += bytes;
	}
	if (bt->in_flight || bt->ahead.in_flight || bt->ahead.next < bt->ahead.n)
		return;
	ahead_release(b);
	wb_build(b);
}

/* ---- the next batch */

static int ahead_add(struct boost *b, struct wlog_seg *seg, const struct wlog_seg_view *view)
{
	struct ahead *a = &b->batch.ahead;

	if (a->n == a->cap) {
		const size_t cap = a->cap ? a->cap * 2 : 64;
		struct bseg *segs = realloc(a->segs, cap * sizeof(*segs));

		if (!segs)
			return -ENOMEM;
		a->segs = segs;
		a->cap = cap;
	}
	a->segs[a->n++] = (struct bseg){.seg = seg, .view = *view, .data = a->arena + a->used};
	a->used += load_bytes(view);
	return 0;
}

/* Pins what will be loaded. False: the next batch will not be full, or there is no memory. */
static bool ahead_take(struct boost *b)
{
	const uint64_t limit = gather_limit(b);
	uint64_t at = b->batch.last_number, weight = 0;

	while (weight < limit) {
		struct wlog_seg *seg = wlog_next_durable(b->log, at);
		struct wlog_seg_view view;

		if (!seg)
			return false;
		wlog_seg_pin(b->log, seg);
		wlog_seg_view(seg, &view);
		at = view.number;
		weight += gather_weight(&view);
		if (load_bytes(&view)) {
			if (ahead_add(b, seg, &view)) {
				wlog_seg_unpin(b->log, seg);
				return false;
			}
			continue;
		}
		wlog_seg_unpin(b->log, seg);
		/* From here on all is in memory, and may be still when it is wanted. */
		if (view.data)
			break;
	}
	return true;
}

void load_ahead(struct boost *b)
{
	struct batch *bt = &b->batch;
	struct ahead *a = &bt->ahead;

	if (a->n || b->hold || !b->allow_migrate || b->stopping || b->failed)
		return;
	/* The newest of this batch is in memory: then the next batch is too. */
	if (!load_bytes(&bt->segs[bt->nsegs - 1].view) || arena_get(&a->arena))
		return;
	if (ahead_take(b))
		ahead_load(b);
	else
		ahead_release(b);
}

void load_ahead_drop(struct boost *b)
{
	struct ahead *a = &b->batch.ahead;

	if (a->in_flight)
		a->dropped = true;
	else
		ahead_release(b);
}

bool load_ahead_gone(const struct boost *b)
{
	return !b->batch.ahead.n;
}

void load_free(struct batch *bt)
{
	if (bt->arena)
		hugemem_free(bt->arena, ARENA_BYTES);
	if (bt->ahead.arena)
		hugemem_free(bt->ahead.arena, ARENA_BYTES);
	free(bt->ahead.segs);
	bt->arena = NULL;
	bt->ahead = (struct ahead){0};
}
