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
 * commit_run() is the one driver; log_advance() calls it after every event.
 * The model of this protocol is spin/commit.pml.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mutant.h"
#include "wlog/wlog_impl.h"

/* Data may stay unflushed up to this much: it bounds how far a torn end can reach (replay.c). */
#define UNDURABLE_MAX_BYTES (UINT64_C(64) << 20)

static uint64_t total_bytes(const struct wlog_seg *seg)
{
	return (uint64_t)seg->pad_bytes + seg->header_bytes + seg->data_bytes;
}

/* Whether no more may be submitted before a flush. */
static bool undurable_full(const struct wlog *log)
{
	return log->undurable_bytes >= UNDURABLE_MAX_BYTES ||
	       log->undurable_bytes >= log->ring_bytes / 4;
}

static void commit_durable(struct wlog *log, uint64_t upto)
{
	while (log->durable_seg < upto) {
		struct wlog_seg *seg = seg_get(log, ++log->durable_seg);

		assert(seg->state == SEG_WRITTEN);
		seg->state = SEG_DURABLE;
		log->durable_lsn = seg->last_lsn;
		if (seg_ends_whole(seg))
			log->whole_seg = seg->number;
		log->undurable_bytes -= total_bytes(seg);
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
	const bool fua = seg->io->fua;

	if (result)
		log_fail(log, result, "writing a segment");
	if (--seg->io->pending)
		return;
	log->writes_in_flight--;
	seg_io_free(seg);
	if (log->failed)
		return; /* its buffer stays: reads go on */
	seg->state = SEG_WRITTEN;
	seg->buf->unwritten--;
	while (log->written_seg < log->submitted_seg &&
	       seg_get(log, log->written_seg + 1)->state == SEG_WRITTEN)
		log->written_seg++;
	if (fua && log->durable_seg + 1 == seg->number) {
		commit_durable(log, seg->number);
		barriers_release(log);
	}
}

static void io_done(struct wlog_seg *seg, int result)
{
	struct wlog *log = seg->log;
	struct host *host = log->host;

	host_enter(host);
	seg_written(seg, result);
	log_advance(log);
	host_leave(host);
}

static void data_done(struct dev_req *req)
{
	io_done(container_of(req, struct seg_io, req)->seg, req->result);
}

static void pad_done(struct dev_req *req)
{
	io_done(container_of(req, struct seg_io, pad_req)->seg, req->result);
}

static void submit_pad(struct wlog *log, struct wlog_seg *seg)
{
	struct dev_req *req = &seg->io->pad_req;

	seg->io->pending++;
	req->op = DEV_WRITE;
	req->fua = false;
	req->off_bytes = log->ring_off + seg->pad_pos % log->ring_bytes;
	dev_req_buf(req, seg->io->pad_hdr, WLOG_BLOCK);
	req->done = pad_done;
	log->written_bytes += WLOG_BLOCK;
	dev_submit(log->dev, req);
}

static void submit_seg(struct wlog *log, struct wlog_seg *seg)
{
	struct seg_io *io = seg->io;
	struct dev_req *req = &io->req;

	seg->state = SEG_WRITING;
	log->writes_in_flight++;
	log->undurable_bytes += total_bytes(seg);
	io->pending++;
	/*
	 * The whole commit in one step: everything before it is durable already and it is the
	 * target, so a FUA write says all that a write and a flush would. Not with a pad, which
	 * is a write of its own that recovery needs.
	 */
	io->fua = !seg->pad_bytes && log->commit_target == seg->number &&
		  log->durable_seg + 1 == seg->number;
	io->iov[0].iov_base = io->hdr;
	io->iov[0].iov_len = seg->header_bytes;
	io->iov[1].iov_base = seg_data(seg);
	io->iov[1].iov_len = seg->data_bytes;
	req->op = DEV_WRITE;
	req->fua = io->fua && VARVE_STEP("wlog.fua_commit");
	req->off_bytes = log->ring_off + seg->pos % log->ring_bytes;
	req->len_bytes = (uint64_t)seg->header_bytes + seg->data_bytes;
	req->iov = io->iov;
	req->iovcnt = seg->data_bytes ? 2 : 1;
	req->done = data_done;
	log->written_bytes += req->len_bytes;
	if (seg->pad_bytes)
		submit_pad(log, seg);
	dev_submit(log->dev, req);
}

static void commit_submit(struct wlog *log)
{
	while (log->submitted_seg < log->sealed_seg && !undurable_full(log) &&
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
	log_advance(log);
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

/* Whether the barriers wait for company; see the head of this file. */
static bool hold_back(struct wlog *log)
{
	const uint64_t deadline_ns = log->opt.barrier_deadline_us * UINT64_C(1000);
	struct dev_req *oldest = list_first_entry(&log->barriers, struct dev_req, link);
	uint64_t now_ns, until_ns;

	if (!deadline_ns)
		return false;
	now_ns = host_now_ns(log->host);
	until_ns = wlog_write_of(oldest)->since_ns + deadline_ns;
	if (now_ns < until_ns && log->last_group >= 2 && log->barrier_count < log->last_group) {
		host_wake_at(log->host, until_ns);
		return true;
	}
	if (now_ns > until_ns)
		log->st.deadline_overruns++;
	return false;
}

static void commit_begin(struct wlog *log)
{
	uint64_t target = log->seal_target;

	if (!list_empty(&log->barriers) && !hold_back(log)) {
		struct dev_req *last = list_last_entry(&log->barriers, struct dev_req, link);
		const uint64_t wanted = wlog_write_of(last)->target;

		if (wanted > target)
			target = wanted;
	}
	if (undurable_full(log) && log->written_seg > target)
		target = log->written_seg;
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

void commit_run(struct wlog *log)
{
	if (log->failed) {
		barriers_release(log);
		write_fail_all(log, log->failed);
		return;
	}
	if (!log->commit_target)
		commit_begin(log);
	seg_seal_ready(log);
	commit_submit(log);
	if (!log->commit_target || log->flushing)
		return;
	/* When no more may be submitted, the rest of the commit waits for a flush of its own. */
	if (log->written_seg >= log->commit_target ||
	    (undurable_full(log) && log->written_seg == log->submitted_seg))
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
	log_advance(log);
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

void commit_wish(struct wlog *log)
{
	if (log->started && published_seg(log) > log->seal_target)
		log->seal_target = published_seg(log);
	/* The home cannot take a part of a write: its end is wished for, too (publish_one()). */
	log->seal_whole = log->published_part;
}

void wlog_seal(struct wlog *log)
{
	commit_wish(log);
	log_advance(log);
}
