/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Places that the backing device refuses to write, while it writes others (L9).
 *
 * A bad sector would keep the segment that names it from ever being home, and with it the tail of
 * the log: in the end nobody could write, for one sector. After a few tries a batch is therefore
 * written in small pieces, each for itself, and what is refused is written once more at the head of
 * the log (wlog_relog). The batch is then built anew: what was refused is superseded now, the rest
 * goes home. Some time later the refused data is in a batch again. It may be accepted then (drives
 * give sectors another place), or overwritten, or go to the head once more.
 *
 * This is bounded: a batch with more than BATCH_REFUSED such places is one of a device that fails,
 * and is tried again. So is one of which nothing at all could be written; but that may also be a
 * small batch that holds nothing else, so the next try takes as much as a batch may have, to tell
 * the one from the other. Between two rounds lies at least one back-off, which grows with their
 * number, but not so far that one bad place would keep back what is written with it. A full log
 * may have no room for what is refused: then the batch is tried as it is once more, since the
 * device may have come back.
 *
 * Invariants:
 *   1. nothing is given up: refused data is in the log, durable, until it is home or overwritten;
 *   2. a drain that waits for it goes on waiting: it now waits for what lies at the head, and ends
 *      with home_error after home_timeout_ns. So does a release, which refuses.
 */
#include <errno.h>

#include "boost/boost_impl.h"

#define ROUNDS_MAX 3u	 /* then a round is as slow as it gets */
#define CAREFUL_TRIES 3u /* failures before places are looked for; 1 when there were some */

static void refused_next(struct boost *b);

bool refused_careful(const struct boost *b)
{
	return b->batch.tries >= (b->refused_lsn > b->home_lsn ? 1 : CAREFUL_TRIES);
}

bool refused_add(struct batch *bt, const struct dev_req *req)
{
	const uint64_t lba = req->off_bytes / DEV_SECTOR_BYTES;
	const uint64_t sectors = req->len_bytes / DEV_SECTOR_BYTES;
	struct refused *last = bt->nrefused ? &bt->refused[bt->nrefused - 1] : NULL;

	bt->refused_error = req->result;
	if (last && last->lba + last->sectors == lba) {
		last->sectors += sectors;
		return true;
	}
	if (bt->nrefused == BATCH_REFUSED)
		return false;
	bt->refused[bt->nrefused++] = (struct refused){lba, sectors};
	return true;
}

/* Who waits for what was refused waits for its new place. */
static void refused_moved(struct boost *b)
{
	const uint64_t lsn = boost_published_lsn(b);
	struct drain *d;

	list_for_each_entry(d, &b->drains.waiting, struct drain, link)
	{
		if (d->lsn < lsn)
			d->lsn = lsn;
	}
	b->refused_lsn = lsn;
	if (b->refused_rounds < ROUNDS_MAX)
		b->refused_rounds++;
	log_warn("the backing device refuses to write in %u places, the first at sector %llu; what "
		 "belongs there stays in the cache, and is tried again",
		 b->batch.nrefused, (unsigned long long)b->batch.refused[0].lba);
}

static void relog_done(struct wlog_relog *relog, int error)
{
	struct boost *b = container_of(relog, struct boost, batch.relog);
	struct batch *bt = &b->batch;

	host_enter(b->host);
	bt->relog_active = false;
	list_del(&bt->timer.link);
	if (b->stopping || b->failed) {
		/* The batch stays where it is. */
	} else if (error) {
		wb_failed(b, error);
	} else {
		bt->refused_lba += relog->sectors;
		refused_next(b);
	}
	boost_exit(b);
}

static void relog_late(struct timer *timer)
{
	refused_stop(container_of(timer, struct boost, batch.timer));
}

/* The next part of the refused places that is of one segment. */
static bool refused_find(struct batch *bt)
{
	for (; bt->refused_at < bt->nrefused; bt->refused_at++) {
		const struct refused *r = &bt->refused[bt->refused_at];
		const uint64_t end = r->lba + r->sectors;
		struct extent e;

		if (bt->refused_lba < r->lba || bt->refused_lba >= end)
			bt->refused_lba = r->lba;
		if (extmap_lookup(&bt->map, bt->refused_lba, &e) && e.lba < end) {
			const uint64_t at = e.lba > bt->refused_lba ? e.lba : bt->refused_lba;
			const uint64_t to = e.lba + e.sectors < end ? e.lba + e.sectors : end;

			bt->refused_lba = at;
			bt->relog = (struct wlog_relog){
				.number =
					build_segment_of(bt, extmap_value_at(e.value, at - e.lba)),
				.lba = at,
				.sectors = to - at,
				.done = relog_done,
			};
			return true;
		}
	}
	return false;
}

static void refused_next(struct boost *b)
{
	struct batch *bt = &b->batch;
	int r;

	if (bt->refused_at < bt->nrefused &&
	    bt->refused_lba >=
		    bt->refused[bt->refused_at].lba + bt->refused[bt->refused_at].sectors)
		bt->refused_at++;
	if (!refused_find(bt)) {
		refused_moved(b);
		wb_build(b);
		return;
	}
	bt->relog_active = true;
	bt->timer.fn = relog_late;
	timers_set(&b->timers, &bt->timer, host_now_ns(b->host) + b->opt.retry_max_ns);
	b->busy++;
	r = wlog_relog(b->log, &bt->relog);
	if (r) {
		bt->relog_active = false;
		list_del(&bt->timer.link);
		b->busy--;
		wb_failed(b, r);
	}
}

/* Nothing was written: this is a device that fails, or a batch that holds nothing else. */
void refused_all(struct boost *b)
{
	b->batch.widen = true;
	wb_failed(b, b->batch.refused_error);
}

void refused_relog(struct boost *b)
{
	struct batch *bt = &b->batch;

	bt->phase = BATCH_RELOGGING;
	bt->refused_at = 0;
	bt->refused_lba = bt->refused[0].lba;
	boost_home_failed(b, bt->refused_error);
	refused_next(b);
}

/* It may wait for room that will never come. */
void refused_stop(struct boost *b)
{
	if (b->batch.relog_active)
		wlog_relog_cancel(b->log, &b->batch.relog);
}
