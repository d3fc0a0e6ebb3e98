/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading the data of a batch's segments that are no longer in memory.
 *
 * A segment is read as a whole. When that fails a few times it is read in pieces of 4 KiB, so that
 * one bad sector costs no more than itself: what cannot be read is filled with a pattern that its
 * checksum will not match, and batch.c makes an ERROR extent of it. A device of which nothing can
 * be read any more is another matter: there is no telling what it still holds, so the batch waits
 * and tries again, and nothing is given up.
 *
 *   load ---- 0 ---> loaded
 *    | error, LOAD_TRIES times with back-off
 *    v
 *   salvage piece by piece ---- something was read ---> loaded, the rest is rotten
 *    | nothing was
 *    v
 *   probe the device's first block ---- readable ---> loaded, all of it is rotten
 *    | error
 *    +---> back-off, load
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

#define LOAD_TRIES 16 /* about a minute */
#define LOAD_PIECE 4096u
#define LOAD_ROTTEN 0xa5

static void load_start(struct bseg *bs);
static void load_salvage(struct bseg *bs);

static void load_finish(struct bseg *bs)
{
	struct batch *b = bs->batch;

	bs->data = bs->own;
	if (--b->loads_left == 0)
		batch_loaded(b);
}

static void load_timer(struct lsvd_timer *timer)
{
	load_start(container_of(timer, struct bseg, timer));
}

static void load_probe_done(struct dev_req *req)
{
	struct bseg *bs = container_of(req, struct bseg, load);
	struct lsvd *l = bs->batch->l;

	host_enter(l->host);
	if (!req->result) {
		load_finish(bs);
	} else if (!l->stopping) {
		home_failed(l, req->result); /* so that drains do not wait for ever */
		bs->tries = 0;
		timer_set(l, &bs->timer, host_now_ns(l->host) + l->opt.retry_max_ns);
	}
	lsvd_exit(l);
}

/* The first block goes into the segment's own buffer, which is to be filled anew anyway. */
static void load_probe(struct bseg *bs)
{
	struct dev_req *req = &bs->load;

	req->op = DEV_READ;
	req->off_bytes = 0;
	dev_req_buf(req, bs->own, LOAD_PIECE);
	req->done = load_probe_done;
	bs->batch->l->busy++;
	dev_submit(bs->batch->l->cache, req);
}

static void load_piece_done(struct dev_req *req)
{
	struct bseg *bs = container_of(req, struct bseg, load);
	struct lsvd *l = bs->batch->l;

	host_enter(l->host);
	if (req->result) {
		memset((uint8_t *)bs->own + bs->at, LOAD_ROTTEN, req->len_bytes);
		bs->bad++;
	} else {
		bs->good++;
	}
	bs->at += req->len_bytes;
	if (bs->at < bs->dev_len)
		load_salvage(bs);
	else if (bs->good)
		load_finish(bs);
	else
		load_probe(bs);
	lsvd_exit(l);
}

static void load_salvage(struct bseg *bs)
{
	struct dev_req *req = &bs->load;
	const uint64_t left = bs->dev_len - bs->at;

	req->op = DEV_READ;
	req->off_bytes = bs->dev_off + bs->at;
	dev_req_buf(req, (uint8_t *)bs->own + bs->at, left < LOAD_PIECE ? left : LOAD_PIECE);
	req->done = load_piece_done;
	bs->batch->l->busy++;
	dev_submit(bs->batch->l->cache, req);
}

static void load_done(struct dev_req *req)
{
	struct bseg *bs = container_of(req, struct bseg, load);
	struct lsvd *l = bs->batch->l;

	host_enter(l->host);
	if (!req->result) {
		load_finish(bs);
	} else if (++bs->tries < LOAD_TRIES) {
		if (!l->stopping)
			timer_set(l, &bs->timer, retry_at(l, bs->tries));
	} else {
		bs->dev_off = req->off_bytes;
		bs->dev_len = req->len_bytes;
		bs->at = bs->good = bs->bad = 0;
		load_salvage(bs);
	}
	lsvd_exit(l);
}

static void load_start(struct bseg *bs)
{
	struct lsvd *l = bs->batch->l;

	bs->load.done = load_done;
	l->busy++;
	wlog_seg_load(l->log, bs->seg, &bs->load, bs->own);
}

static void load_alloc_timer(struct lsvd_timer *timer)
{
	batch_load(container_of(timer, struct batch, timer));
}

/*
 * Starts all loads of a batch. Memory for them is taken first, so that a lack of it leaves
 * nothing half begun.
 */
void batch_load(struct batch *b)
{
	struct lsvd *l = b->l;

	b->loads_left = 0;
	for (uint32_t i = 0; i < b->nsegs; i++) {
		struct bseg *bs = &b->segs[i];
		const size_t len = (size_t)bs->view.data_sectors * DEV_SECTOR_BYTES;

		bs->batch = b;
		bs->timer.fn = load_timer;
		bs->data = bs->view.data;
		if (bs->data || !len)
			continue;
		if (!bs->own)
			bs->own = aligned_alloc(LOAD_PIECE,
						(len + LOAD_PIECE - 1) / LOAD_PIECE * LOAD_PIECE);
		if (!bs->own) {
			home_failed(l, -ENOMEM);
			b->timer.fn = load_alloc_timer;
			timer_set(l, &b->timer, retry_at(l, ++b->tries));
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
			load_start(&b->segs[i]);
	}
}
