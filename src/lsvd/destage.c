/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Batches on their way from the log to the store.
 *
 * The log offers durable segments in order. They are pinned and gathered; when enough has come
 * together, or it has grown old, or somebody waits, the gathered ones become a batch with the next
 * object number. From then on:
 *
 *   LOADING      data that is not in memory is read from the cache    wlog/segload.c
 *   BUILDING     checked, coalesced, described; not entered           batch.c
 *   PUTTING      at the store, for as long as that takes              put.c
 *   INSTALLING   the map is changed, slice by slice                   install_run()
 *
 * Up to puts_in_flight batches are between LOADING and PUTTING at once and complete in any order;
 * INSTALLING is one at a time, in the order of their numbers.
 *
 * Invariants:
 *   1. write-ahead: only what wlog_next_durable() offers is ever taken (L7);
 *   2. whole writes: a batch ends where a segment ends a write, so no write is in two objects (P3);
 *   3. the stream has no gaps: every number given out is put, for ever, and installed only when
 *      all before it are (the map follows the order of the log, and rolling forward finds them);
 *   4. while a batch is being installed the log still has its data, and answers reads of it: a
 *      half-installed map is never seen.
 *
 * What is durable when, and why in this order:
 *
 *   put durable --> superblock still ours (own.c) --> map installed --> the log may forget -->
 *   (the log's superblock) --> the log's space is used again
 *
 * After a crash anywhere the object is found by rolling forward or it is not; the log has the data
 * until the object is durable and known to count, and LSNs up to the object's are skipped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

#define GATHER_RECORDS 65536 /* bounds an object's header: 20 + 4 bytes a record, 3 MiB */
/* Durable segments shorter than this wait until there are so many of them. */
#define COMPANY_BYTES (128u << 10)
#define COMPANY_SEGMENTS 16
#define INSTALL_SLICE 256
#define INSTALL_SECTORS 8192u /* one extent may displace as many as it has sectors */

static void build_run(struct work *work);
static void install_run(struct work *work);
static void destage_put_done(struct oput *put, int error);

/* ---- loading */

#define LOAD_ALIGN 4096u

static void batch_loaded(struct batch *b)
{
	b->state = BATCH_BUILDING;
	b->l->busy++;
	host_defer(b->l->host, &b->work);
}

static void load_done(struct segload *load)
{
	struct bseg *bs = container_of(load, struct bseg, load);
	struct batch *b = bs->batch;

	bs->data = bs->own;
	if (--b->loads_left == 0)
		batch_loaded(b);
}

static void batch_load(struct batch *b);

static void load_alloc_timer(struct timer *timer)
{
	batch_load(container_of(timer, struct batch, timer));
}

static void load_begin(struct batch *b, struct bseg *bs)
{
	struct lsvd *l = b->l;

	l->loads.log = l->log;
	l->loads.dev = l->cache;
	bs->load.user = &l->loads;
	bs->load.seg = bs->seg;
	bs->load.buf = bs->own;
	bs->load.done = load_done;
	segload_start(&bs->load);
}

/*
 * Starts all loads of a batch. Memory for them is taken first, so that a lack of it leaves
 * nothing half begun.
 */
static void batch_load(struct batch *b)
{
	b->loads_left = 0;
	for (uint32_t i = 0; i < b->nsegs; i++) {
		struct bseg *bs = &b->segs[i];
		const size_t len = (size_t)bs->view.data_sectors * DEV_SECTOR_BYTES;

		bs->batch = b;
		bs->data = bs->view.data;
		if (bs->data || !len)
			continue;
		if (!bs->own)
			bs->own = aligned_alloc(LOAD_ALIGN,
						(len + LOAD_ALIGN - 1) / LOAD_ALIGN * LOAD_ALIGN);
		if (!bs->own) {
			home_failed(b->l, -ENOMEM);
			b->timer.fn = load_alloc_timer;
			retry_set(b->l, &b->timer, ++b->tries);
			return;
		}
		b->loads_left++;
	}
	if (!b->loads_left) {
		batch_loaded(b);
		return;
	}
	for (uint32_t i = 0; i < b->nsegs; i++) {
		if (b->segs[i].own)
			load_begin(b, &b->segs[i]);
	}
}

/* ---- gathering */

static int gather_add(struct lsvd *l, struct wlog_seg *seg, const struct wlog_seg_view *view)
{
	if (l->ngather == l->gather_cap) {
		const uint32_t cap = l->gather_cap ? l->gather_cap * 2 : 32;
		struct bseg *g = realloc(l->gather, cap * sizeof(*g));

		if (!g)
			return -ENOMEM;
		l->gather = g;
		l->gather_cap = cap;
	}
	wlog_seg_pin(l->log, seg);
	/* The view again: pinned, it stays true. */
	l->gather[l->ngather] = (struct bseg){.seg = seg};
	wlog_seg_view(seg, &l->gather[l->ngather].view);
	l->ngather++;
	l->gather_bytes += (uint64_t)view->data_sectors * DEV_SECTOR_BYTES;
	l->gather_records += view->records;
	l->taken_number = view->number;
	if (view->ends_whole || !VARVE_STEP("lsvd.whole_writes"))
		l->gather_whole = l->ngather;
	return 0;
}

static bool gather_full(const struct lsvd *l)
{
	return l->gather_bytes >= l->opt.batch_bytes || l->gather_records >= GATHER_RECORDS;
}

/* Turns the first `count` gathered segments into a batch, with the next number. */
static int gather_close(struct lsvd *l, uint32_t count)
{
	struct batch *b = calloc(1, sizeof(*b));
	const struct bseg *last = &l->gather[count - 1];

	if (!b)
		return -ENOMEM;
	b->segs = malloc(count * sizeof(*b->segs));
	if (!b->segs) {
		free(b);
		return -ENOMEM;
	}
	memcpy(b->segs, l->gather, count * sizeof(*b->segs));
	b->l = l;
	b->nsegs = count;
	b->seq = l->next_seq++;
	b->prev_seq = l->data_seq;
	b->epoch = l->sb.attach_epoch;
	b->volume_uuid = l->sb.uuid;
	b->first_lsn = l->gather[0].view.first_lsn;
	b->last_lsn = last->view.last_lsn;
	b->last_number = last->view.number;
	b->wall_ns = last->view.wall_ns;
	b->work.run = build_run;
	l->data_seq = b->seq;
	l->closed_lsn = b->last_lsn;
	for (uint32_t i = 0; i < count; i++) {
		l->gather_bytes -= (uint64_t)b->segs[i].view.data_sectors * DEV_SECTOR_BYTES;
		l->gather_records -= b->segs[i].view.records;
	}
	l->ngather -= count;
	l->gather_whole -= count;
	memmove(l->gather, l->gather + count, l->ngather * sizeof(*l->gather));
	list_add_tail(&b->link, &l->batches);
	l->nbatches++;
	batch_load(b);
	return 0;
}

/* Whether what has been gathered should go although it does not fill a batch. */
static bool gather_due(struct lsvd *l)
{
	if (!l->gather_whole)
		return false;
	if (l->urgent || l->push_now)
		return true;
	/* While more is on its way that was asked for as well, one batch is better than two. */
	return l->gather[0].view.first_lsn <= l->push_lsn &&
	       wlog_durable_lsn(l->log) >= l->push_lsn;
}

/* Takes what the log offers while there is room. Entered. */
static void gather_run(struct lsvd *l)
{
	int r = 0;

	while (!r && l->nbatches < l->opt.puts_in_flight) {
		struct wlog_seg_view view;
		struct wlog_seg *seg;

		if (gather_full(l) && l->gather_whole) {
			r = gather_close(l, l->gather_whole);
			continue;
		}
		seg = wlog_next_durable(l->log, l->taken_number);
		if (seg) {
			wlog_seg_view(seg, &view);
			if (!l->hold || view.first_lsn <= l->drain_lsn) {
				r = gather_add(l, seg, &view);
				continue;
			}
		}
		if (!gather_due(l))
			break;
		r = gather_close(l, l->gather_whole);
	}
	/* Wishes are granted for what there was when they were made. */
	if (l->nbatches < l->opt.puts_in_flight)
		l->urgent = l->push_now = false;
	if (r)
		home_failed(l, r); /* memory: the next tick tries again */
}

static void destage_run(struct work *work)
{
	struct lsvd *l = container_of(work, struct lsvd, destage_work);

	host_enter(l->host);
	l->destage_queued = false;
	if (!l->stopping && !l->failed) {
		gather_run(l);
		drains_check(l);
	}
	lsvd_exit(l);
}

void destage_kick(struct lsvd *l)
{
	if (l->destage_queued || !l->acquired || l->stopping || l->failed)
		return;
	l->destage_queued = true;
	l->destage_work.run = destage_run;
	l->busy++;
	host_defer(l->host, &l->destage_work);
}

/*
 * Whether what has become durable is worth a run now. A flush after each small write must not cost
 * a wake-up of another thread each time: small segments may wait for company, or for the tick.
 */
static bool destage_worth(struct lsvd *l)
{
	struct wlog_seg_view view;
	struct wlog_seg *seg;
	uint64_t bytes;

	if (l->urgent || l->push_now || l->push_lsn > l->closed_lsn ||
	    !list_empty(&l->drains.waiting))
		return true;
	seg = l->hold ? NULL : wlog_next_durable(l->log, l->taken_number);
	if (!seg)
		return false;
	wlog_seg_view(seg, &view);
	bytes = (uint64_t)view.data_sectors * DEV_SECTOR_BYTES;
	return bytes >= COMPANY_BYTES || l->gather_bytes + bytes >= l->opt.batch_bytes ||
	       wlog_next_durable(l->log, view.number + COMPANY_SEGMENTS);
}

/* The log's call: entered, and from inside the log, so that nothing is done at once. */
void home_destage(struct wlog_home *home, bool urgent)
{
	struct lsvd *l = container_of(home, struct lsvd, home);

	l->urgent |= urgent;
	if (l->acquired && destage_worth(l))
		destage_kick(l);
}

/* ---- building and putting */

static void build_timer(struct timer *timer)
{
	batch_loaded(container_of(timer, struct batch, timer));
}

void destage_submit(struct batch *b)
{
	struct lsvd *l = b->l;

	b->state = BATCH_PUTTING;
	b->put.l = l;
	b->put.key = (struct key){.kind = KEY_DATA, .seq = b->seq, .epoch = b->epoch};
	b->put.iov = b->iov;
	b->put.iovcnt = b->iovcnt;
	b->put.len_bytes = b->header_bytes + (uint64_t)b->data_sectors * DEV_SECTOR_BYTES;
	b->put.done = destage_put_done;
	b->submitted = true;
	b->proof_needed = ++l->events;
	l->st.puts_in_flight++;
	oput_start(&b->put);
}

static void build_run(struct work *work)
{
	struct batch *b = container_of(work, struct batch, work);
	struct lsvd *l = b->l;
	const int r = batch_build(b);

	host_enter(l->host);
	if (l->stopping || l->failed) {
		/* The batch stays where it is, and with it the log's data. */
	} else if (r) {
		home_failed(l, r);
		b->timer.fn = build_timer;
		retry_set(l, &b->timer, ++b->tries);
	} else {
		l->st.batched_bytes += b->taken_bytes;
		l->st.coalesced_bytes += b->coalesced_bytes;
		destage_submit(b);
		destage_advance(l);
	}
	lsvd_exit(l);
}

static void batch_finish_late(struct batch *b)
{
	if (b->installed && b->put_done) {
		batch_unpin(b);
		batch_free(b);
	}
}

static void destage_put_done(struct oput *put, int error)
{
	struct batch *b = container_of(put, struct batch, put);
	struct lsvd *l = b->l;

	host_enter(l->host);
	l->st.puts_in_flight--;
	if (error) {
		lsvd_fail(l, error, "another object lies under a key of ours");
	} else {
		l->st.put_bytes += put->len_bytes;
		b->put_done = true;
		b->proof_needed = ++l->events;
		batch_finish_late(b);
		destage_advance(l);
	}
	host_leave(l->host);
}

/* ---- installing */

static void install_defer(struct lsvd *l, struct batch *b)
{
	b->work.run = install_run;
	l->busy++;
	host_defer(l->host, &b->work);
}

static void install_timer(struct timer *timer)
{
	struct batch *b = container_of(timer, struct batch, timer);

	install_defer(b->l, b);
}

static void map_is_full(struct lsvd *l)
{
	if (!l->map_full)
		log_error("%s: the map needs more memory than it may have or there is (%llu bytes; "
			  "map_limit is %llu): nothing more goes to the store until it is "
			  "opened with more",
			  l->name, (unsigned long long)extmap_bytes(&l->map),
			  (unsigned long long)l->opt.map_limit_bytes);
	l->map_full = true;
}

/* Before it is full, once: there is time to do something about it. */
static void map_watch(struct lsvd *l)
{
	const bool high = extmap_bytes(&l->map) / 10 >= l->opt.map_limit_bytes / 11;

	if (high && !l->map_high)
		log_warn("%s: the map takes %llu of the %llu bytes of map_limit", l->name,
			 (unsigned long long)extmap_bytes(&l->map),
			 (unsigned long long)l->opt.map_limit_bytes);
	l->map_high = high;
	l->map_full = false;
}

/* What the log has to know, and what a GC object does not change. */
static void install_data(struct lsvd *l, const struct batch *b)
{
	l->installed_data_seq = b->seq;
	l->installed_lsn = b->last_lsn;
	l->installed_wall_ns = b->wall_ns;
	wlog_destaged(l->log, b->last_number);
	l->nbatches--;
	gc_resume(l);
}

static void install_finish(struct lsvd *l, struct batch *b)
{
	const bool gc = b->gc;
	uint8_t *hdr = b->hdr;

	map_watch(l);

	l->installed_seq = b->seq;
	if (!b->gc)
		install_data(l, b);
	list_del(&b->link);
	l->installing = NULL;
	l->since_ckpt++;
	l->since_bytes += object_weight(b->put.len_bytes);
	b->installed = true;
	if (b->put_done) {
		/* Kept for the first reads: its checksums need not be fetched again. */
		b->hdr = NULL;
		hcache_add(l, b->seq, hdr, b->header_bytes);
	}
	batch_finish_late(b);
	drains_check(l);
	ckpt_kick(l);
	if (gc)
		gc_installed(l);
	else
		gc_kick(l);
	destage_kick(l);
	destage_advance(l);
}

/* Goes on for a bounded while. -ENOMEM: may be called again. */
static int install_slice(struct lsvd *l, struct batch *b)
{
	uint32_t left = INSTALL_SECTORS;

	for (unsigned i = 0; i < INSTALL_SLICE && left && b->install_at < b->exts; i++) {
		struct obj_ext e;
		uint32_t all;
		int r;

		obj_ext(b->hdr, b->install_at, &e);
		all = e.sectors;
		e.lba += b->install_off;
		e.data_sector += b->install_off;
		e.sectors -= b->install_off;
		if (e.sectors > left)
			e.sectors = left;
		r = map_install_one(l, &e, b->seq, true);
		if (r)
			return r;
		left -= e.sectors;
		b->install_off += e.sectors;
		if (b->install_off == all) {
			b->install_at++;
			b->install_off = 0;
		}
	}
	return 0;
}

/* The moves of a GC object. 0: call again; 1: all is done. */
static int install_moves(struct lsvd *l, struct batch *b)
{
	struct obj_move mv;

	for (unsigned i = 0; i < INSTALL_SLICE; i++) {
		/* No room in the map: what is not moved stays where it is. */
		if (!obj_next_move(b->hdr, &b->moves, &mv) || map_move(l, &mv, true))
			return 1;
	}
	return 0;
}

static void install_gc(struct lsvd *l, struct batch *b)
{
	if (install_moves(l, b))
		install_finish(l, b);
	else
		install_defer(l, b);
}

static void install_run(struct work *work)
{
	struct batch *b = container_of(work, struct batch, work);
	struct lsvd *l = b->l;
	int r;

	host_enter(l->host);
	r = b->gc ? 0 : install_slice(l, b);
	if (b->gc) {
		install_gc(l, b);
	} else if (r) {
		/* The map is at its limit, or memory is short: hold, and say so (P8). */
		map_is_full(l);
		home_failed(l, r);
		b->timer.fn = install_timer;
		if (!l->stopping)
			retry_set(l, &b->timer, ++b->tries);
	} else if (b->install_at < b->exts) {
		install_defer(l, b);
	} else {
		install_finish(l, b);
	}
	lsvd_exit(l);
}

static int install_begin(struct lsvd *l, struct batch *b)
{
	const struct ckpt_obj obj = {
		.seq = b->seq,
		.epoch = b->epoch,
		.header_bytes = b->header_bytes,
		.data_sectors = b->data_sectors,
		.type = b->gc ? LSVD_TYPE_GC : LSVD_TYPE_DATA,
	};
	const int r = objtab_add(&l->objs, &obj);

	if (r)
		return r;
	pages_mark(pages_of(l, LSVD_PART_OBJECTS), b->seq, b->seq);
	l->total_sectors += b->data_sectors;
	l->reach_seq = b->seq;
	l->installing = b;
	b->state = BATCH_INSTALLING;
	install_defer(l, b);
	return 0;
}

/* Whether a batch may be installed as far as its object is concerned. */
static bool install_ready(struct lsvd *l, const struct batch *b)
{
	if (b->state != BATCH_PUTTING)
		return false;
	if (!b->put_done && VARVE_STEP("lsvd.put_before_install"))
		return false;
	if (b->proof_needed > l->proven && VARVE_STEP("lsvd.own_before_install")) {
		own_prove(l);
		return false;
	}
	return true;
}

void destage_advance(struct lsvd *l)
{
	struct batch *b;

	if (l->installing || l->stopping || l->failed)
		return;
	list_for_each_entry(b, &l->batches, struct batch, link)
	{
		/* The first in order, or none: completions may overtake each other. */
		if (install_ready(l, b)) {
			const int r = install_begin(l, b);

			if (r)
				home_failed(l, r); /* memory: the next tick tries again */
			return;
		}
		if (VARVE_STEP("lsvd.install_in_order"))
			return;
	}
}
