/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sealed segments to the device, and group commit (L8).
 *
 * What is durable when:
 *
 *   a segment   when it and everything before it is written, and a device flush that was submitted
 *               after that is done; or, if everything before it was durable already, when its own
 *               FUA write is done
 *   a FLUSH     when the last segment that held anything published at its arrival is durable
 *   a FUA write when its segment is
 *
 * One commit is under way at a time: it closes the open segment, waits until all up to its target
 * are written and flushes. Barriers that arrive meanwhile gather in the open segment, which keeps
 * taking writes, and go with the next commit. A barrier that comes alone is served at once. When
 * the last commit served several, the next is held back until as many have gathered again or
 * barrier_deadline_us have passed, whichever is first.
 *
 * commit_advance() is the one driver; every event that may let something proceed ends in it.
 * The model of this protocol is spin/commit.pml.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mutant.h"
#include "wlog/wlog_impl.h"

/* Data may stay unflushed up to this much: it bounds how far a torn end can reach (replay.c). */
#define UNDURABLE_MAX_BYTES (UINT64_C(64) << 20)

static void commit_durable(struct wlog *log, uint64_t upto)
{
	while (log->durable_seg < upto) {
		struct wlog_seg *seg = seg_get(log, ++log->durable_seg);

		assert(seg->state == SEG_WRITTEN);
		seg->state = SEG_DURABLE;
		log->durable_lsn = seg->last_lsn;
		log->undurable_bytes -= seg->data_bytes;
	}
	if (log->commit_target <= log->durable_seg)
		log->commit_target = 0;
	log->home->ops->destage(log->home, write_starving(log));
}

/* Barriers are in order of their targets: a later one never asks for less. */
static void barriers_release(struct wlog *log)
{
	uint32_t group = 0;

	while (!list_empty(&log->barriers)) {
		struct dev_req *req = list_first_entry(&log->barriers, struct dev_req, link);

		if (!log->failed && wlog_write_of(req)->target > log->durable_seg)
			break;
		list_del(&req->link);
		log->barrier_count--;
		group++;
		log_complete(log, req, log->failed);
	}
	if (group)
		log->last_group = group;
}

static void seg_written(struct wlog_seg *seg, int result)
{
	struct wlog *log = seg->log;

	if (result)
		log_fail(log, result, "writing a segment");
	if (--seg->ios)
		return;
	log->writes_in_flight--;
	free(seg->hdr);
	free(seg->pad_hdr);
	seg->hdr = NULL;
	seg->pad_hdr = NULL;
	if (log->failed)
		return; /* its buffer stays: reads go on */
	seg->state = SEG_WRITTEN;
	seg->buf->unwritten--;
	log->undurable_bytes += seg->data_bytes;
	while (log->written_seg < log->submitted_seg &&
	       seg_get(log, log->written_seg + 1)->state == SEG_WRITTEN)
		log->written_seg++;
	if (seg->fua && log->durable_seg + 1 == seg->number) {
		commit_durable(log, seg->number);
		barriers_release(log);
	}
}

static void data_done(struct dev_req *req)
{
	struct wlog_seg *seg = container_of(req, struct wlog_seg, req);
	struct wlog *log = seg->log;
	struct host *host = log->host;

	host_enter(host);
	seg_written(seg, req->result);
	write_admit(log);
	commit_advance(log);
	host_leave(host);
}

static void pad_done(struct dev_req *req)
{
	struct wlog_seg *seg = container_of(req, struct wlog_seg, pad_req);
	struct wlog *log = seg->log;
	struct host *host = log->host;

	host_enter(host);
	seg_written(seg, req->result);
	commit_advance(log);
	host_leave(host);
}

static void submit_pad(struct wlog *log, struct wlog_seg *seg)
{
	struct dev_req *req = &seg->pad_req;

	seg->ios++;
	req->op = DEV_WRITE;
	req->fua = false;
	req->off_bytes = log->ring_off + seg->pad_pos % log->ring_bytes;
	dev_req_buf(req, seg->pad_hdr, WLOG_BLOCK);
	req->done = pad_done;
	log->written_bytes += WLOG_BLOCK;
	dev_submit(log->dev, req);
}

static void submit_seg(struct wlog *log, struct wlog_seg *seg)
{
	struct dev_req *req = &seg->req;

	seg->state = SEG_WRITING;
	log->writes_in_flight++;
	seg->ios++;
	/*
	 * The whole commit in one step: everything before it is durable already and it is the
	 * target, so a FUA write says all that a write and a flush would. Not with a pad, which is a
	 * write of its own that recovery needs.
	 */
	seg->fua = !seg->pad_bytes && log->commit_target == seg->number &&
		   log->durable_seg + 1 == seg->number;
	seg->iov[0].iov_base = seg->hdr;
	seg->iov[0].iov_len = seg->header_bytes;
	seg->iov[1].iov_base = seg_data(seg);
	seg->iov[1].iov_len = seg->data_bytes;
	req->op = DEV_WRITE;
	req->fua = seg->fua && VARVE_STEP("wlog.fua_commit");
	req->off_bytes = log->ring_off + seg->pos % log->ring_bytes;
	req->len_bytes = (uint64_t)seg->header_bytes + seg->data_bytes;
	req->iov = seg->iov;
	req->iovcnt = seg->data_bytes ? 2 : 1;
	req->done = data_done;
	log->written_bytes += req->len_bytes;
	if (seg->pad_bytes)
		submit_pad(log, seg);
	dev_submit(log->dev, req);
}

static void commit_submit(struct wlog *log)
{
	while (log->submitted_seg < log->sealed_seg &&
	       log->writes_in_flight < log->opt.writes_in_flight)
		submit_seg(log, seg_get(log, ++log->submitted_seg));
}

static void flush_done(struct dev_req *req)
{
	struct wlog *log = container_of(req, struct wlog, flush_req);
	struct host *host = log->host;

	host_enter(host);
	log->flushing = false;
	if (req->result)
		log_fail(log, req->result, "flushing the cache device");
	else if (log->flush_covers > log->durable_seg)
		commit_durable(log, log->flush_covers);
	barriers_release(log);
	commit_advance(log);
	host_leave(host);
}

/* Covers exactly what is written now; a later write is not made durable by an earlier flush. */
static void submit_flush(struct wlog *log)
{
	struct dev_req *req = &log->flush_req;

	log->flushing = true;
	log->flush_covers = log->written_seg;
	log->st.flushes++;
	req->op = DEV_FLUSH;
	req->len_bytes = 0;
	req->off_bytes = 0;
	req->done = flush_done;
	if (VARVE_STEP("wlog.flush_before_ack")) {
		dev_submit(log->dev, req);
		return;
	}
	log->flushing = false;
	commit_durable(log, log->flush_covers);
	barriers_release(log);
}

/* Whether to wait for company; see the head of this file. */
static bool hold_back(struct wlog *log)
{
	struct dev_req *oldest;
	uint64_t now_ns;

	if (!log->opt.barrier_deadline_us || log->barrier_count >= log->last_group ||
	    log->last_group < 2)
		return false;
	now_ns = host_now_ns(log->host);
	if (!log->hold_until_ns) {
		oldest = list_first_entry(&log->barriers, struct dev_req, link);
		log->hold_until_ns = wlog_write_of(oldest)->since_ns +
				     log->opt.barrier_deadline_us * UINT64_C(1000);
	}
	if (now_ns >= log->hold_until_ns) {
		log->st.deadline_overruns++;
		return false;
	}
	host_wake_at(log->host, log->hold_until_ns);
	return true;
}

static void commit_begin(struct wlog *log)
{
	uint64_t target = log->seal_target;

	if (!list_empty(&log->barriers) && !hold_back(log)) {
		struct dev_req *last = list_last_entry(&log->barriers, struct dev_req, link);
		const uint64_t wanted = wlog_write_of(last)->target;

		log->hold_until_ns = 0;
		if (wanted > target)
			target = wanted;
	}
	if (log->undurable_bytes >= UNDURABLE_MAX_BYTES ||
	    log->undurable_bytes >= log->ring_bytes / 4) {
		if (log->written_seg > target)
			target = log->written_seg;
	}
	/*
	 * What is waited for may be the end of a write whose beginning is durable already: the home
	 * takes it only as a whole.
	 */
	if (write_starving(log) && log->closed_seg > target)
		target = log->closed_seg;
	if (target <= log->durable_seg)
		return;
	log->commit_target = target;
	if (log->open && log->open->number <= target)
		seg_close(log);
}

void commit_advance(struct wlog *log)
{
	if (!log->started)
		return;
	if (log->failed) {
		barriers_release(log);
		write_fail_all(log, log->failed);
		return;
	}
	if (!log->commit_target)
		commit_begin(log);
	seg_seal_ready(log);
	commit_submit(log);
	if (log->commit_target && !log->flushing && log->written_seg >= log->commit_target)
		submit_flush(log);
}

/* Acknowledges req when segment `target` is durable. */
void commit_barrier(struct wlog *log, struct dev_req *req, uint64_t target)
{
	log->st.barriers++;
	if (log->failed || target <= log->durable_seg) {
		log_complete(log, req, log->failed);
		return;
	}
	wlog_write_of(req)->target = target;
	if (log->opt.barrier_deadline_us)
		wlog_write_of(req)->since_ns = host_now_ns(log->host);
	list_add_tail(&req->link, &log->barriers);
	log->barrier_count++;
	commit_advance(log);
}

/*
 * The last segment that holds anything published: what a FLUSH has to wait for. No more than that,
 * or a FUA write that is published later, into an earlier segment, would stand behind it in the
 * list of barriers.
 */
static uint64_t published_seg(const struct wlog *log)
{
	uint64_t number = log->open ? log->open->number : log->closed_seg;

	while (number > log->durable_seg && !seg_get(log, number)->published)
		number--;
	return number;
}

void wlog_flush(struct wlog *log, struct dev_req *req)
{
	if (!log->started)
		log_complete(log, req, log->failed);
	else
		commit_barrier(log, req, published_seg(log));
}

void wlog_seal(struct wlog *log)
{
	if (log->started && published_seg(log) > log->seal_target)
		log->seal_target = published_seg(log);
	/* The home cannot take a part of a write: its end is wished for, too (publish_one()). */
	log->seal_whole = log->published_part;
	commit_advance(log);
}

void commit_tick(struct wlog *log, uint64_t now_ns)
{
	(void)now_ns;
	commit_advance(log);
}
