/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading the data of segments that are no longer in memory.
 *
 * A segment is read as a whole. When that fails a few times it is read in pieces of 4 KiB, so that
 * one bad sector costs no more than itself: what cannot be read is filled with a pattern that its
 * checksum will not match, and the home finds that out as it finds any rot. A device of which
 * nothing can be read any more is another matter: there is no telling what it still holds, so the
 * load waits and tries again, and nothing is given up.
 *
 *   load ---- 0 ---> done
 *    | error, LOAD_TRIES times with back-off
 *    v
 *   salvage piece by piece ---- something was read ---> done, the rest is rotten
 *    | nothing was
 *    v
 *   probe the device's first block ---- readable ---> done, all of it is rotten
 *    | error
 *    +---> back-off, load
 *
 * Invariants:
 *   1. one request is in flight at most, and none while the timer is set;
 *   2. done() comes once, entered, from a completion; nothing touches the load after it, and the
 *      user's count is given back after everything else.
 */
#include <string.h>

#include "wlog/segload.h"

#define LOAD_TRIES 16 /* about a minute */
#define LOAD_PIECE 4096u
#define LOAD_ROTTEN 0xa5

static void load_start(struct segload *load);
static void load_salvage(struct segload *load);

/*
 * Ends a completion. What it has submitted may be back, and the load gone, before it is kicked:
 * only the user is sure to be there, for as long as it is counted.
 */
static void load_exit(struct segload_user *user)
{
	struct host *host = user->timers->host;

	host_leave(host);
	dev_kick(user->dev);
	host_enter(host);
	user->busy(user, -1);
	host_leave(host);
}

static void load_submit(struct segload *load, uint64_t off_bytes, void *buf, size_t len_bytes,
			void (*done)(struct dev_req *req))
{
	load->req.op = DEV_READ;
	load->req.off_bytes = off_bytes;
	dev_req_buf(&load->req, buf, len_bytes);
	load->req.done = done;
	load->user->busy(load->user, 1);
	dev_submit(load->user->dev, &load->req);
}

static void load_timer(struct timer *timer)
{
	load_start(container_of(timer, struct segload, timer));
}

static void load_probe_done(struct dev_req *req)
{
	struct segload *load = container_of(req, struct segload, req);
	struct segload_user *user = load->user;
	struct timers *timers = user->timers;

	host_enter(timers->host);
	if (!req->result) {
		load->done(load);
	} else if (!timers->stopped) {
		user->failed(user, req->result); /* so that drains do not wait for ever */
		load->tries = 0;
		timers_set(timers, &load->timer, host_now_ns(timers->host) + user->retry_max_ns);
	}
	load_exit(user);
}

/* The first block goes into the segment's own buffer, which is to be filled anew anyway. */
static void load_probe(struct segload *load)
{
	load_submit(load, 0, load->buf, LOAD_PIECE, load_probe_done);
}

static void load_piece_done(struct dev_req *req)
{
	struct segload *load = container_of(req, struct segload, req);
	struct segload_user *user = load->user;

	host_enter(user->timers->host);
	if (req->result) {
		memset((uint8_t *)load->buf + load->at, LOAD_ROTTEN, req->len_bytes);
		load->bad++;
	} else {
		load->good++;
	}
	load->at += req->len_bytes;
	if (load->at < load->dev_len)
		load_salvage(load);
	else if (load->good)
		load->done(load);
	else
		load_probe(load);
	load_exit(user);
}

static void load_salvage(struct segload *load)
{
	const uint64_t left = load->dev_len - load->at;

	load_submit(load, load->dev_off + load->at, (uint8_t *)load->buf + load->at,
		    left < LOAD_PIECE ? (size_t)left : LOAD_PIECE, load_piece_done);
}

static void load_done(struct dev_req *req)
{
	struct segload *load = container_of(req, struct segload, req);
	struct segload_user *user = load->user;

	host_enter(user->timers->host);
	if (!req->result) {
		load->done(load);
	} else if (++load->tries < LOAD_TRIES) {
		timers_set_backoff(user->timers, &load->timer, load->tries, user->retry_min_ns,
				   user->retry_max_ns);
	} else {
		load->dev_off = req->off_bytes;
		load->dev_len = req->len_bytes;
		load->at = load->good = load->bad = 0;
		load_salvage(load);
	}
	load_exit(user);
}

static void load_start(struct segload *load)
{
	load->req.done = load_done;
	load->user->busy(load->user, 1);
	wlog_seg_load(load->user->log, load->seg, &load->req, load->buf);
}

void segload_start(struct segload *load)
{
	load->timer.fn = load_timer;
	load->tries = 0;
	load_start(load);
}
