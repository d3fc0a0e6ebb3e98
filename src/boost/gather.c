/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which segments make the next batch, and when it is due.
 *
 * The log offers durable segments in order. They are looked at once each, as they come, until there
 * is a full batch; nothing is pinned meanwhile, since the log keeps what the home has not taken.
 *
 *   full     nr_max_batched_migration segments' worth, BATCH_BYTES_MAX and a quarter of the ring
 *            at most: with a small cache writers would have to wait before a larger one is full
 *            (but BATCH_BYTES_MAX if the last one was refused as a whole: see refused.c)
 *   old      the oldest of it is as old as batch_age_ns (boost_tick)
 *   urgent   the log has no space for somebody who waits
 *   drained  somebody waits for it to be home
 *
 *   hold              only what is drained, and no segment more
 *   allow_migrate=0   only what is drained or urgent
 *
 * Invariants:
 *   1. write-ahead: only what wlog_next_durable() offers is ever taken (L7);
 *   2. a batch ends where a segment ends a write, so that the log forgets whole writes;
 *   3. a batch is bounded: when it is full it takes no more than the rest of a write.
 */
#include "boost/boost_impl.h"

#define BATCH_RECORDS 131072u
#define HEADER_BYTES 4096u /* what a segment without data counts for */

uint64_t gather_limit(const struct boost *b)
{
	const uint64_t each = (uint64_t)b->opt.log.segment_bytes + HEADER_BYTES;
	uint64_t limit = each * b->opt.nr_max_batched_migration;

	if (limit > b->ring_bytes / 4)
		limit = b->ring_bytes / 4;
	if (limit > BATCH_BYTES_MAX || b->batch.widen)
		limit = BATCH_BYTES_MAX;
	return limit;
}

uint64_t gather_weight(const struct wlog_seg_view *view)
{
	return (uint64_t)view->data_sectors * DEV_SECTOR_BYTES + HEADER_BYTES;
}

/* The batch begins behind what is home. */
void gather_reset(struct boost *b)
{
	b->gather = (struct gather){.number = b->home_number};
}

/* Looks at what has become durable. Reads the log, and changes nothing in it. */
void gather_run(struct boost *b)
{
	const uint64_t limit = gather_limit(b);
	struct gather *g = &b->gather;

	while (!g->full) {
		struct wlog_seg *seg = wlog_next_durable(b->log, g->number);
		struct wlog_seg_view view;
		uint64_t weight;

		if (!seg)
			break;
		wlog_seg_view(seg, &view);
		weight = gather_weight(&view);
		if (g->cut &&
		    (g->weight + weight > limit || g->records + view.records > BATCH_RECORDS)) {
			g->full = true;
			break;
		}
		if (!g->weight)
			g->first_lsn = view.first_lsn;
		g->weight += weight;
		g->records += view.records;
		g->number = view.number;
		if (view.ends_whole)
			g->cut = view.number;
		g->full = g->cut == view.number && g->weight >= limit;
	}
}

/* A failed log makes nothing durable any more: there is no use in waiting for it. */
static bool gather_more_comes(const struct boost *b, uint64_t lsn)
{
	struct wlog_status st;

	if (wlog_durable_lsn(b->log) >= lsn)
		return false;
	wlog_status(b->log, &st);
	return !st.failed;
}

/*
 * Somebody waits for room. In memory, perhaps, which the cache device gives back, and writeback
 * does not: for space only if a write of the largest size might find none.
 */
static bool gather_log_full(const struct boost *b)
{
	const uint64_t seg = b->opt.log.segment_bytes;
	const uint64_t most = (wlog_max_io_bytes(b->log) / seg + 6) * (seg + seg / 8 + 8192);
	struct wlog_status st;

	wlog_status(b->log, &st);
	return st.ring_bytes - st.used_bytes < most;
}

bool gather_due(struct boost *b)
{
	const uint64_t drain = boost_drain_target(b);
	const struct gather *g = &b->gather;

	if (!g->cut)
		return false;
	if (drain >= g->first_lsn && (g->full || !gather_more_comes(b, drain)))
		return true;
	if (b->hold)
		return false;
	if (b->urgent && gather_log_full(b))
		return true;
	if (!b->allow_migrate)
		return false;
	/* While more is on its way that is old as well, one batch is better than two. */
	return g->full || (b->push_lsn >= g->first_lsn && !gather_more_comes(b, b->push_lsn));
}

uint64_t gather_cut(struct boost *b)
{
	const uint64_t drain = boost_drain_target(b);
	uint64_t at = b->home_number, cut = 0;

	if (!b->hold)
		return b->gather.cut;
	/* Held back: no more than what somebody waits for. */
	while (at < b->gather.cut) {
		struct wlog_seg_view view;

		wlog_seg_view(wlog_next_durable(b->log, at), &view);
		/* A write that has begun goes on to its end. */
		if (view.first_lsn > drain && (cut == at || at == b->home_number))
			break;
		at = view.number;
		if (view.ends_whole)
			cut = at;
	}
	return cut;
}

/*
 * The log's call: entered, and from inside the log, so that nothing is done at once. A flush after
 * each small write must not cost a wake-up of another thread each time: only what is due does.
 */
void boost_home_destage(struct wlog_home *home, bool urgent)
{
	struct boost *b = container_of(home, struct boost, home);

	b->urgent |= urgent;
	if (!b->acquired || b->batch.phase != BATCH_NONE)
		return;
	gather_run(b);
	if (gather_due(b))
		wb_kick(b);
}
