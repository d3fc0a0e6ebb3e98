/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A batch on its way to the backing device. There is one at a time.
 *
 *   LOADING    data that is not in memory is read from the cache       load.c
 *   BUILDING   sorted, newest only, verified                           build.c
 *   WRITING    neighbours together, in LBA order, several in flight    write.c
 *   FLUSHING   one flush covers them all
 *   SAMPLING   samples of what has changed are taken again
 *   (the end)  the home's state and wlog_destaged(), in one moment
 *   RELOGGING  what the device refuses goes to the head of the log     refused.c
 *   FAILED     an error anywhere: after a while it begins anew, with the same segments and those
 *              that have become durable since
 *
 * What is durable when, and why in this order:
 *
 *   written --> flush of the backing device --> the log may forget --> (the log's superblock, with
 *   the home's state) --> the log's space is used again
 *
 * After a crash anywhere before the superblock the log still has the whole batch, and it is written
 * once more: that gives the same sectors, or newer ones.
 *
 * Invariants:
 *   1. nothing counts as written before a flush that was submitted after it has succeeded. After an
 *      error of a write or of the flush nobody knows what the device kept. Whatever had not been
 *      flushed is of segments that are not home, and is written again before they are (dev.h,
 *      forgive);
 *   2. while a batch is on its way the log has its data, and answers reads of it: a half-written
 *      batch is never seen, and a read that began before the end finds what it looked up;
 *   3. the state that says which samples and bad ranges hold is given to the log before the log is
 *      told that the batch is home: one superblock has both;
 *   4. the memory that is written from is the log's, pinned, or the batch's own: it stays as it was
 *      verified until the write is done.
 *
 * Memory is bounded by the size of two batches and kept for the next one, since to get it anew
 * costs more than to fill it; after a while without a batch it is given back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boost/boost_impl.h"

/* ---- segments */

static int segs_reserve(struct batch *bt)
{
	const size_t cap = bt->segs_cap ? bt->segs_cap * 2 : 64;
	struct bseg *segs;

	if (bt->nsegs < bt->segs_cap)
		return 0;
	segs = realloc(bt->segs, cap * sizeof(*segs));
	if (!segs)
		return -ENOMEM;
	bt->segs = segs;
	bt->segs_cap = cap;
	return 0;
}

static void batch_unpin(struct boost *b)
{
	struct batch *bt = &b->batch;

	for (uint32_t i = 0; i < bt->nsegs; i++)
		wlog_seg_unpin(b->log, bt->segs[i].seg);
	bt->nsegs = 0;
}

/* ---- trying again */

static void batch_look(struct boost *b);

static void batch_timer(struct timer *timer)
{
	struct boost *b = container_of(timer, struct boost, batch.timer);

	if (!load_ahead_gone(b)) {
		timers_set(&b->timers, timer, host_now_ns(b->host) + b->opt.retry_min_ns);
		return;
	}
	b->batch.phase = BATCH_NONE;
	b->st.retries++;
	if (b->batch.widen)
		gather_reset(b);
	batch_look(b);
}

/* Gives the segments back: a device that does not answer must not take the memory of writers. */
void wb_failed(struct boost *b, int error)
{
	struct batch *bt = &b->batch;

	batch_unpin(b);
	load_ahead_drop(b);
	bt->phase = BATCH_FAILED;
	bt->forgive = true;
	boost_home_failed(b, error);
	log_warn("writeback to the backing device failed with error %d; the cache keeps the data, "
		 "and it is tried again",
		 -error);
	bt->timer.fn = batch_timer;
	bt->tries++;
	timers_set_backoff(&b->timers, &bt->timer, bt->tries + b->refused_rounds,
			   b->opt.retry_min_ns, b->opt.retry_max_ns);
}

/* ---- the beginning */

/* Pins the segments up to cut, which begin behind what is home. */
static int batch_take(struct boost *b, uint64_t cut)
{
	struct batch *bt = &b->batch;
	uint64_t at = b->home_number;

	bt->nsegs = 0;
	bt->data_sectors = 0;
	while (at < cut) {
		struct bseg *bs;
		const int r = segs_reserve(bt);

		if (r) {
			batch_unpin(b);
			return r;
		}
		bs = &bt->segs[bt->nsegs++];
		*bs = (struct bseg){.seg = wlog_next_durable(b->log, at)};
		wlog_seg_pin(b->log, bs->seg);
		/* The view of a pinned segment stays true. */
		wlog_seg_view(bs->seg, &bs->view);
		bt->data_sectors += bs->view.data_sectors;
		bt->last_lsn = bs->view.last_lsn;
		bt->wall_ns = bs->view.wall_ns;
		at = bs->view.number;
	}
	bt->last_number = at;
	return 0;
}

static int batch_begin(struct boost *b, uint64_t cut)
{
	struct batch *bt = &b->batch;
	int r = batch_take(b, cut);

	if (r)
		return r;
	r = load_begin(b);
	if (r) {
		batch_unpin(b);
		return r;
	}
	bt->used = true;
	bt->phase = BATCH_LOADING;
	b->urgent = false;
	load_batch(b);
	return 0;
}

static void batch_look(struct boost *b)
{
	struct batch *bt = &b->batch;
	uint64_t cut = 0;
	int r;

	if (b->stopping || b->failed || !b->acquired)
		return;
	if (bt->phase != BATCH_NONE || bt->ahead.dropped)
		return;
	gather_run(b);
	if (gather_due(b))
		cut = gather_cut(b);
	if (!cut)
		return;
	r = batch_begin(b, cut);
	if (r)
		boost_home_failed(b, r); /* memory: the next tick tries again */
}

static void batch_look_run(struct work *work)
{
	struct boost *b = container_of(work, struct boost, batch_work);

	host_enter(b->host);
	b->batch_queued = false;
	batch_look(b);
	boost_exit(b);
}

void wb_kick(struct boost *b)
{
	if (b->batch_queued || b->stopping || b->failed || !b->acquired)
		return;
	b->batch_queued = true;
	b->batch_work.run = batch_look_run;
	b->busy++;
	host_defer(b->host, &b->batch_work);
}

/* ---- building */

static void build_defer(struct boost *b, void (*run)(struct work *work))
{
	b->batch.work.run = run;
	b->busy++;
	host_defer(b->host, &b->batch.work);
}

static struct boost *build_of(struct work *work)
{
	return container_of(work, struct boost, batch.work);
}

/* Entered: what comes after a step of building. Lacking memory is an error like any other. */
static void build_next(struct boost *b, int r, void (*next)(struct work *work))
{
	if (b->stopping || b->failed)
		return; /* the batch stays where it is, and with it the log's data */
	if (r == -EBADMSG)
		boost_fail(b, r, "the cache holds what cannot be this volume's");
	else if (r == -ENOSPC)
		boost_fail(b, -EIO, "the cache is damaged in more places than can be remembered");
	else if (r)
		wb_failed(b, r);
	else if (next)
		build_defer(b, next);
	else
		wb_write(b);
}

static void build_verify_run(struct work *work)
{
	struct boost *b = build_of(work);
	const int r = build_verify(b);

	host_enter(b->host);
	build_next(b, r, NULL);
	boost_exit(b);
}

static void build_superseded_run(struct work *work)
{
	struct boost *b = build_of(work);
	int r;

	host_enter(b->host);
	r = build_superseded(b);
	build_next(b, r < 0 ? r : 0, r > 0 ? build_superseded_run : build_verify_run);
	boost_exit(b);
}

static void build_map_run(struct work *work)
{
	struct boost *b = build_of(work);
	const int r = build_map(b);

	host_enter(b->host);
	build_next(b, r, build_superseded_run);
	boost_exit(b);
}

void wb_build(struct boost *b)
{
	b->batch.phase = BATCH_BUILDING;
	build_defer(b, build_map_run);
}

/* ---- the end */

static void batch_report_lost(struct boost *b)
{
	const struct batch *bt = &b->batch;

	for (size_t i = 0; i < bt->ready.n; i++) {
		const struct piece *p = &bt->ready.p[i];

		if (p->kind == PIECE_LOST)
			log_error("the cache's copy of sectors %llu to %llu is damaged; reading "
				  "them gives an error until they are written again",
				  (unsigned long long)p->lba,
				  (unsigned long long)(p->lba + p->sectors - 1));
	}
}

static void batch_count(struct boost *b)
{
	const struct batch *bt = &b->batch;

	b->st.batches++;
	b->st.migrated_bytes += bt->written_bytes;
	b->st.migrate_writes += bt->writes_done;
	b->st.superseded_bytes += bt->superseded_sectors * DEV_SECTOR_BYTES;
	b->st.lost_bytes += bt->lost_sectors * DEV_SECTOR_BYTES;
	b->home_sectors += bt->data_sectors;
}

/* What the batch has changed in the home's state, and that the log is told of it. */
static int batch_state(struct boost *b)
{
	struct batch *bt = &b->batch;
	struct state next = b->state;
	int r;

	for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
		if (!bt->sample_touched[i])
			continue;
		next.samples.valid[i] = bt->sample_valid[i];
		next.samples.crc[i] = bt->sample_crc[i];
	}
	next.destaged_wall_ns = bt->wall_ns;
	r = state_encode(&next, bt->bads_changed ? &bt->bads : &b->bads, &b->state_mem);
	if (r)
		return r;
	b->state = next;
	if (bt->bads_changed) {
		const struct extmap old = b->bads;

		b->bads = bt->bads;
		bt->bads = old;
	}
	if (VARVE_STEP("boost.state_before_destaged"))
		wlog_set_home_state(b->log, &b->state_mem, sizeof(b->state_mem));
	return 0;
}

void wb_ended(struct boost *b)
{
	struct batch *bt = &b->batch;
	struct wlog_status st;
	const int r = batch_state(b);

	if (r) {
		boost_fail(b, r, "the home's state cannot be written");
		return;
	}
	if (bt->lost_sectors)
		batch_report_lost(b);
	batch_count(b);
	b->home_number = bt->last_number;
	b->home_lsn = bt->last_lsn;
	/* A place that is refused still fails: it has only moved to the head of the log. */
	if (b->home_lsn >= b->refused_lsn) {
		b->home_error = 0;
		b->refused_rounds = 0;
	}
	bt->tries = 0;
	bt->phase = BATCH_NONE;
	bt->widen = false;
	batch_unpin(b);
	wlog_destaged(b->log, b->home_number);
	gather_reset(b);
	drains_reached(&b->drains, b->home_lsn);
	wlog_status(b->log, &st);
	b->urgent |= st.waiting != 0;
	wb_kick(b);
}

/* ---- memory */

int wb_init(struct boost *b)
{
	struct batch *bt = &b->batch;

	list_init(&bt->loads_free);
	list_init(&bt->writes_free);
	list_init(&bt->timer.link);
	extmap_init(&bt->map, NULL, 0);
	extmap_init(&bt->bads, NULL, 0);
	bt->loads = calloc(BATCH_LOADS, sizeof(*bt->loads));
	bt->writes = calloc(b->opt.writes_in_flight, sizeof(*bt->writes));
	bt->sample_buf =
		aligned_alloc(BOOST_SAMPLE_BYTES, (size_t)BOOST_SAMPLES * BOOST_SAMPLE_BYTES);
	if (!bt->loads || !bt->writes || !bt->sample_buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < BATCH_LOADS; i++) {
		bt->loads[i].b = b;
		list_add_tail(&bt->loads[i].link, &bt->loads_free);
	}
	for (uint32_t i = 0; i < b->opt.writes_in_flight; i++) {
		bt->writes[i].b = b;
		list_add_tail(&bt->writes[i].link, &bt->writes_free);
	}
	return 0;
}

static void memory_free(struct batch *bt)
{
	load_free(bt);
	free(bt->segs);
	free(bt->source);
	free(bt->chunk);
	free(bt->found.p);
	free(bt->ready.p);
	extmap_clear(&bt->map);
	bt->chunk = NULL;
	bt->segs = NULL;
	bt->source = NULL;
	bt->found = bt->ready = (struct pieces){0};
	bt->segs_cap = bt->source_cap = bt->chunk_cap = 0;
}

void wb_give_back(struct boost *b)
{
	if (b->batch.phase != BATCH_NONE)
		return;
	if (!b->batch.used) {
		load_ahead_drop(b);
		if (load_ahead_gone(b))
			memory_free(&b->batch);
	}
	b->batch.used = false;
}

void wb_free(struct boost *b)
{
	struct batch *bt = &b->batch;

	memory_free(bt);
	extmap_destroy(&bt->map);
	extmap_destroy(&bt->bads);
	free(bt->loads);
	free(bt->writes);
	free(bt->sample_buf);
}
