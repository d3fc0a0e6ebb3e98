/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing once more, at the head, what the home cannot take (L9).
 *
 * The range is worked through in runs that the map names in the refused segment without a gap, each
 * at most a segment's data long:
 *
 *   FIND ---- a run ----> READ ---> WRITE ---> PUBLISH ---> FIND
 *     |                    |          | the map names another place now: FIND
 *     |                    |          | somebody's write is on its way there, or no room: waits
 *     |                    +-- error --> OVER
 *     +-- none, and all that is newer is durable ---> OVER
 *
 * The data comes through the log's own read, so that it is verified if it comes from the device.
 *
 * Invariants:
 *   1. Nothing newer is ever overwritten, in the map or at replay. The record gets its LSN in one
 *      step with looking: the map still names the old place, so no newer write is published, and
 *      none that has its LSN already is waiting to be. What comes later has a higher LSN, is
 *      published later and replayed later. A map's value never comes back, so what was read is
 *      what is there still.
 *   2. done(0) comes when all of the range is superseded, by what is durable with the end of its
 *      write: only then may the old segment be given up. A crash before finds the old segment,
 *      and the new record with the same contents behind it or not.
 *   3. One run is in memory, and one record on its way, at a time.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "wlog/wlog_impl.h"

/* How soon one that has no room or memory is tried again, if nothing else happens. */
#define RELOG_RETRY_NS UINT64_C(10000000)

enum {
	RELOG_FIND,
	RELOG_READ,
	RELOG_WRITE,
	RELOG_PUBLISH,
	RELOG_OVER,
};

static void relog_defer(struct wlog_relog *r)
{
	r->log->relog_works++;
	host_defer(r->log->host, &r->work);
}

static void relog_finish(struct wlog_relog *r, int error)
{
	r->log->relog_waits = false;
	r->state = RELOG_OVER;
	r->result = error;
	list_del(&r->link);
	free(r->buf);
	r->buf = NULL;
	relog_defer(r);
}

/* A read or write of ours is back; not entered. */
static void relog_back(struct dev_req *req)
{
	struct wlog_relog *r = container_of(req, struct wlog_relog, req);
	struct wlog *log = r->log;
	struct host *host = log->host;

	host_enter(host);
	if (req->result)
		relog_finish(r, req->result);
	else
		r->state = r->state == RELOG_READ ? RELOG_WRITE : RELOG_FIND;
	log_advance(log);
	host_leave(host);
}

bool relog_owns(const struct dev_req *req)
{
	return req->done == relog_back;
}

static void relog_read(struct wlog_relog *r)
{
	struct wlog *log = r->log;
	struct host *host = log->host;

	host_enter(host);
	log->relog_works--;
	wlog_read_begin(log, &r->req);
	host_leave(host);
	wlog_read_copy(log, &r->req);
}

static void relog_publish(struct wlog_relog *r)
{
	struct wlog *log = r->log;
	struct host *host = log->host;

	wlog_fill(log, &r->req);
	host_enter(host);
	log->relog_works--;
	wlog_publish(log, &r->req);
	host_leave(host);
}

static void relog_work(struct work *work)
{
	struct wlog_relog *r = container_of(work, struct wlog_relog, work);
	struct wlog *log = r->log;
	struct host *host = log->host;

	if (r->state == RELOG_READ) {
		relog_read(r);
	} else if (r->state == RELOG_PUBLISH) {
		relog_publish(r);
	} else {
		r->done(r, r->result);
		/* It may be gone; the log waits for this. */
		host_enter(host);
		log->relog_works--;
		host_leave(host);
	}
}

/* The first run that the map names in the segment; false: none. */
static bool find_run(struct wlog_relog *r)
{
	const uint32_t most = r->log->opt.segment_bytes / DEV_SECTOR_BYTES;
	const uint64_t end = r->lba + r->sectors;
	struct extmap_iter it;
	struct extent ext;

	extmap_iter_init(&it, &r->log->map, r->lba);
	while (extmap_iter_next(&it, &ext) && ext.lba < end) {
		const uint64_t lba = ext.lba > r->lba ? ext.lba : r->lba;
		uint64_t to = ext.lba + ext.sectors < end ? ext.lba + ext.sectors : end;

		if (value_seg(ext.value) != r->number)
			continue;
		if (!(ext.value & EXTMAP_CONST) && to - lba > most)
			to = lba + most;
		r->run_lba = lba;
		r->run_sectors = (uint32_t)(to - lba);
		r->run_value = extmap_value_at(ext.value, lba - ext.lba);
		return true;
	}
	return false;
}

/* Whether the map still names all of the run where it was found. */
static bool run_unchanged(const struct wlog_relog *r)
{
	uint64_t at = r->run_lba;
	struct extmap_iter it;
	struct extent ext;

	extmap_iter_init(&it, &r->log->map, at);
	while (at < r->run_lba + r->run_sectors) {
		if (!extmap_iter_next(&it, &ext) || ext.lba > at ||
		    extmap_value_at(ext.value, at - ext.lba) !=
			    extmap_value_at(r->run_value, at - r->run_lba))
			return false;
		at = ext.lba + ext.sectors;
	}
	return true;
}

/* Whether what is newer in the range is durable, each with the end of its write. */
static bool newer_durable(const struct wlog_relog *r)
{
	struct extmap_iter it;
	struct extent ext;

	extmap_iter_init(&it, &r->log->map, r->lba);
	while (extmap_iter_next(&it, &ext) && ext.lba < r->lba + r->sectors) {
		if (value_seg(ext.value) > r->log->whole_seg)
			return false;
	}
	return true;
}

static void set_req(struct wlog_relog *r, enum dev_op op)
{
	r->req.op = op;
	r->req.fua = false;
	r->req.off_bytes = r->run_lba * DEV_SECTOR_BYTES;
	r->req.done = relog_back;
	dev_req_buf(&r->req, r->buf, (size_t)r->run_sectors * DEV_SECTOR_BYTES);
}

/* Whether there is more to do at once; r may be gone if so. */
static bool relog_find(struct wlog_relog *r)
{
	if (!find_run(r)) {
		if (!newer_durable(r) && VARVE_STEP("wlog.relog_durable")) {
			commit_wish(r->log);
			return false;
		}
		relog_finish(r, 0);
		return true;
	}
	if (r->run_value & EXTMAP_CONST) {
		r->state = RELOG_WRITE;
		return true;
	}
	r->state = RELOG_READ;
	set_req(r, DEV_READ);
	relog_defer(r);
	return false;
}

static enum dev_op run_op(const struct wlog_relog *r)
{
	if (!(r->run_value & EXTMAP_CONST))
		return DEV_WRITE;
	return (r->run_value & ((1u << WLOG_TAG_BITS) - 1)) == WLOG_ZERO ? DEV_ZERO : DEV_DISCARD;
}

static bool relog_write(struct wlog_relog *r)
{
	struct wlog *log = r->log;

	log->relog_waits = false;
	if (!run_unchanged(r)) {
		r->state = RELOG_FIND;
		return true;
	}
	/* Its publication is an event that leads here again. */
	if (write_pending(log, r->run_lba, r->run_sectors) && VARVE_STEP("wlog.relog_pending"))
		return false;
	set_req(r, run_op(r));
	if (write_reserve_own(log, &r->req)) {
		r->state = RELOG_PUBLISH;
		relog_defer(r);
		return false;
	}
	log->relog_waits = true;
	host_wake_at(log->host, host_now_ns(log->host) + RELOG_RETRY_NS);
	return false;
}

/* Does for the first of those that wait, and for the next ones, what can be done at once. */
void relog_step(struct wlog *log)
{
	bool more = true;

	while (more && !list_empty(&log->relogs)) {
		struct wlog_relog *r = list_first_entry(&log->relogs, struct wlog_relog, link);

		if (r->state == RELOG_READ || r->state == RELOG_PUBLISH)
			return;
		if (log->failed || r->result)
			relog_finish(r, log->failed ? log->failed : r->result);
		else
			more = r->state == RELOG_FIND ? relog_find(r) : relog_write(r);
	}
}

int wlog_relog(struct wlog *log, struct wlog_relog *r)
{
	if (log->failed || !log->started)
		return log->failed ? log->failed : -EROFS;
	assert(r->number > log->destaged_seg && r->number <= log->durable_seg);
	if (posix_memalign(&r->buf, WLOG_BLOCK, log->opt.segment_bytes))
		return -ENOMEM;
	r->log = log;
	r->work.run = relog_work;
	r->state = RELOG_FIND;
	r->result = 0;
	list_add_tail(&r->link, &log->relogs);
	log_advance(log);
	return 0;
}

void wlog_relog_cancel(struct wlog *log, struct wlog_relog *r)
{
	if (r->state == RELOG_OVER)
		return;
	r->result = -ECANCELED;
	if (r->state == RELOG_FIND || r->state == RELOG_WRITE)
		relog_finish(r, -ECANCELED);
	log_advance(log);
}
