/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock while the volume is owned: proving that it still is, and replacing it.
 *
 * A new owner begins by replacing the superblock (attach.c), lists the objects afterwards, and
 * then fixes where the stream of the former owner ended. So an object counts if it was durable
 * before somebody else replaced the superblock, and it need not count otherwise. From this follows
 * what has to be known before the log may forget an object's data:
 *
 *   put of the object durable --> superblock still ours --> map, then the log forgets
 *
 * "Still ours" is a HEAD that was submitted after the put and shows our version, or a replacement
 * of our own that succeeded. An owner that was paused while another one took over thus finds out
 * before it gives anything up: what it has acknowledged stays in its log, and it stops.
 *
 * Invariants:
 *   1. one request for the superblock is in flight at a time (sb_busy): a version that a HEAD
 *      returns is never ambiguous;
 *   2. proven is an event number: everything durable at or before it counts for ever;
 *   3. a replacement that reported an error may have happened. The superblock is read back: our
 *      own bytes (they hold a random number) mean that it has, the old version that it has not
 *      (and a late arrival of the first attempt makes the second one fail, and be read back as
 *      our own bytes), anything else that we are fenced.
 *
 * Durable when: done() of own_super() and the return of super_replace_sync() mean that the new
 * superblock is durable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

static void own_submit_prove(struct lsvd *l);
static void own_submit_replace(struct lsvd *l);
static void own_submit_read(struct lsvd *l);

static void own_request(struct lsvd *l, enum store_op op, void *buf,
			void (*done)(struct store_req *req))
{
	struct store_req *req = &l->own_req;

	req->op = op;
	memcpy(req->key, l->name, sizeof(l->name));
	req->off_bytes = 0;
	req->len_bytes = buf ? LSVD_SUPER_BYTES : 0;
	req->one.iov_base = buf;
	req->one.iov_len = req->len_bytes;
	req->iov = &req->one;
	req->iovcnt = 1;
	req->done = done;
	l->busy++;
	store_submit(l->store, req);
}

/* The superblock is free again: go on with whatever waited for it. */
static void own_idle(struct lsvd *l)
{
	l->sb_busy = false;
	l->own_tries = 0;
	resize_kick(l);
	destage_advance(l);
	doom_kick(l);
	ckpt_kick(l);
	gc_kick(l);
	trash_kick(l);
}

static void own_retry(struct lsvd *l, int error, void (*fn)(struct timer *timer))
{
	home_failed(l, error);
	if (l->stopping || l->failed)
		return;
	l->own_timer.fn = fn;
	retry_set(l, &l->own_timer, ++l->own_tries);
}

static void own_fenced(struct lsvd *l)
{
	lsvd_fail(l, -ESTALE, "its superblock was replaced by another owner");
}

/* ---- proofs */

static void own_prove_timer(struct timer *timer)
{
	own_submit_prove(container_of(timer, struct lsvd, own_timer));
}

static void own_prove_done(struct store_req *req)
{
	struct lsvd *l = container_of(req, struct lsvd, own_req);

	host_enter(l->host);
	if (!req->result && req->version == l->sb_version) {
		home_works(l);
		l->proven = l->own_event;
		own_idle(l);
	} else if (!req->result || req->result == -ENOENT) {
		own_fenced(l);
	} else {
		own_retry(l, req->result, own_prove_timer);
	}
	lsvd_exit(l);
}

static void own_submit_prove(struct lsvd *l)
{
	l->own_event = l->events;
	own_request(l, STORE_HEAD, NULL, own_prove_done);
}

void own_prove(struct lsvd *l)
{
	if (l->sb_busy || l->stopping || l->failed)
		return;
	l->sb_busy = true;
	own_submit_prove(l);
}

/* ---- replacing */

static void own_replaced(struct lsvd *l, uint64_t version)
{
	home_works(l);
	l->sb = l->sb_next;
	l->sb_version = version;
	l->proven = l->own_event;
	l->sb_done(l);
	own_idle(l);
}

static void own_replace_timer(struct timer *timer)
{
	own_submit_replace(container_of(timer, struct lsvd, own_timer));
}

static void own_read_timer(struct timer *timer)
{
	own_submit_read(container_of(timer, struct lsvd, own_timer));
}

static void own_read_done(struct store_req *req)
{
	struct lsvd *l = container_of(req, struct lsvd, own_req);

	host_enter(l->host);
	if (!req->result && memcmp(l->sb_seen, l->sb_buf, sizeof(l->sb_buf)) == 0)
		own_replaced(l, req->version);
	else if (!req->result && req->version == l->sb_version)
		own_retry(l, l->home_error ? l->home_error : -EIO, own_replace_timer);
	else if (!req->result || !store_transient(req->result))
		own_fenced(l);
	else
		own_retry(l, req->result, own_read_timer);
	lsvd_exit(l);
}

static void own_submit_read(struct lsvd *l)
{
	own_request(l, STORE_GET, l->sb_seen, own_read_done);
}

static void own_replace_done(struct store_req *req)
{
	struct lsvd *l = container_of(req, struct lsvd, own_req);

	host_enter(l->host);
	if (!req->result) {
		own_replaced(l, req->version);
	} else {
		if (req->result != -ESTALE)
			home_failed(l, req->result);
		own_submit_read(l);
	}
	lsvd_exit(l);
}

static void own_submit_replace(struct lsvd *l)
{
	l->own_event = l->events;
	l->own_req.version = l->sb_version;
	own_request(l, STORE_REPLACE, l->sb_buf, own_replace_done);
}

void own_super(struct lsvd *l, void (*done)(struct lsvd *l))
{
	l->sb_busy = true;
	l->sb_done = done;
	l->sb_next.writes = l->sb.writes + 1;
	l->sb_next.wall_ns = host_wall_ns(l->host);
	l->sb_next.nonce = host_random(l->host);
	super_encode(l->sb_buf, &l->sb_next);
	own_submit_replace(l);
}

/* ---- on the calling thread */

int super_read_sync(struct store *store, const char *name, struct super *ret, uint64_t *ret_version,
		    struct err *err)
{
	void *buf;
	size_t len;
	int r = store_get_all(store, name, LSVD_SUPER_BYTES, &buf, &len, ret_version);

	if (r == -ENOENT)
		return err_set(err, r, "there is no volume %s", name);
	if (r)
		return err_sys(err, r, "cannot read the superblock of %s", name);
	r = super_decode(buf, len, ret, err);
	if (r)
		err_prefix(err, "%s: superblock", name);
	free(buf);
	return r;
}

#define OWN_SYNC_TRIES 5

int super_replace_sync(struct lsvd *l, const struct super *next, struct err *err)
{
	struct super sb = *next;
	uint64_t version;
	int r = 0;

	sb.writes = l->sb.writes + 1;
	sb.wall_ns = host_wall_ns(l->host);
	sb.nonce = host_random(l->host);
	super_encode(l->sb_buf, &sb);
	for (int tries = 0; tries < OWN_SYNC_TRIES; tries++) {
		struct store_req req = {.op = STORE_GET, .len_bytes = LSVD_SUPER_BYTES};

		version = l->sb_version;
		r = store_replace(l->store, l->name, l->sb_buf, LSVD_SUPER_BYTES, &version);
		if (!r)
			goto done;
		memcpy(req.key, l->name, sizeof(l->name));
		req.one = (struct iovec){l->sb_seen, LSVD_SUPER_BYTES};
		req.iov = &req.one;
		req.iovcnt = 1;
		if (!store_sync(l->store, &req) &&
		    memcmp(l->sb_seen, l->sb_buf, LSVD_SUPER_BYTES) == 0) {
			version = req.version;
			goto done;
		} else if (r == -ESTALE) {
			return err_set(err, r, "%s: somebody else has replaced the superblock",
				       l->name);
		}
	}
	return err_sys(err, r, "%s: cannot write the superblock", l->name);
done:
	l->sb = sb;
	l->sb_version = version;
	return 0;
}
