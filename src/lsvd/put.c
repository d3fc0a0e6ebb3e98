/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Putting one object.
 *
 * A put is repeated until it has happened: while the store fails nothing is lost, the log keeps
 * the data, fills, and slows its writers down (P8). Errors that look permanent (no permission, no
 * space) are treated alike, since an operator can mend them; the status shows them meanwhile.
 *
 *   oput_submit ---------> put_done ---- 0 ------------------------> done(0)
 *        ^                    |  \------ error: back-off, again
 *        |                 -EEXIST
 *        |                    v
 *        +--- -ENOENT --- check_done --- the same header ----------> done(0)
 *                             \--------- another one --------------> done(-EEXIST)
 *
 * Invariants:
 *   1. done(0) comes only when the object is durable under its key, whole, as we built it. A put
 *      that reported an error may have happened all the same, so that our own second attempt finds
 *      the key taken: the object there is ours if its fixed header equals ours, as that holds the
 *      volume, epoch and number, and the checksum of the whole header, in which are the checksums
 *      of all the data.
 *   2. the buffers stay untouched from oput_start() to done(): the same bytes are put each time.
 */
#include <errno.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

static void oput_done(struct store_req *req);

static void oput_submit(struct oput *put)
{
	struct store_req *req = &put->req;

	req->op = STORE_PUT_NEW;
	key_format(req->key, put->l->name, &put->key);
	req->iov = put->iov;
	req->iovcnt = put->iovcnt;
	req->len_bytes = put->len_bytes;
	req->done = oput_done;
	put->l->busy++;
	store_submit(put->l->store, req);
}

static void oput_timer(struct timer *timer)
{
	oput_submit(container_of(timer, struct oput, timer));
}

static void oput_again(struct oput *put, int error)
{
	struct lsvd *l = put->l;

	host_enter(l->host);
	l->st.put_retries++;
	home_failed(l, error);
	if (!l->stopping && !l->failed)
		retry_set(l, &put->timer, ++put->tries);
	lsvd_exit(l);
}

static void oput_finish(struct oput *put, int error)
{
	struct lsvd *l = put->l;

	/* done() may free put and let the engine become idle; busy keeps l alive until we leave. */
	if (!error) {
		host_enter(l->host);
		home_works(l);
		host_leave(l->host);
	}
	put->done(put, error);
	host_enter(l->host);
	lsvd_exit(l);
}

static void oput_check_done(struct store_req *req)
{
	struct oput *put = container_of(req, struct oput, req);

	if (req->result == -ENOENT || (req->result && store_transient(req->result)))
		oput_again(put, req->result == -ENOENT ? -EIO : req->result);
	else if (!req->result && req->size_bytes == put->len_bytes &&
		 memcmp(&put->theirs, put->iov[0].iov_base, sizeof(put->theirs)) == 0)
		oput_finish(put, 0);
	else
		oput_finish(put, -EEXIST);
}

static void oput_check(struct oput *put)
{
	struct store_req *req = &put->req;

	req->op = STORE_GET;
	req->off_bytes = 0;
	req->len_bytes = sizeof(put->theirs);
	req->one.iov_base = &put->theirs;
	req->one.iov_len = sizeof(put->theirs);
	req->iov = &req->one;
	req->iovcnt = 1;
	req->done = oput_check_done;
	store_submit(put->l->store, req);
	store_kick(put->l->store);
}

static void oput_done(struct store_req *req)
{
	struct oput *put = container_of(req, struct oput, req);

	if (!req->result)
		oput_finish(put, 0);
	else if (req->result == -EEXIST)
		oput_check(put);
	else
		oput_again(put, req->result);
}

void oput_start(struct oput *put)
{
	put->tries = 0;
	put->timer.fn = oput_timer;
	oput_submit(put);
}
