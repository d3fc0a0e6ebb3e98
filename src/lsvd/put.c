/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Putting one object, and the timers that every retry here is set by.
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

/* ---- timers */

void timer_set(struct lsvd *l, struct lsvd_timer *timer, uint64_t when_ns)
{
	timer->when_ns = when_ns;
	list_add_tail(&timer->link, &l->timers);
	host_wake_at(l->host, when_ns);
}

void timers_run(struct lsvd *l, uint64_t now_ns)
{
	struct lsvd_timer *t, *tmp;
	struct list_head due;
	struct list_head *link;
	uint64_t next = UINT64_MAX;

	list_init(&due);
	list_for_each_entry_safe(t, tmp, &l->timers, struct lsvd_timer, link)
	{
		if (t->when_ns > now_ns) {
			next = t->when_ns < next ? t->when_ns : next;
			continue;
		}
		list_del(&t->link);
		list_add_tail(&t->link, &due);
	}
	if (next != UINT64_MAX)
		host_wake_at(l->host, next);
	while ((link = list_pop(&due))) {
		t = list_entry(link, struct lsvd_timer, link);
		if (!l->stopping)
			t->fn(t);
	}
}

uint64_t retry_at(struct lsvd *l, unsigned tries)
{
	uint64_t wait = l->opt.retry_min_ns;

	for (unsigned i = 1; i < tries && wait < l->opt.retry_max_ns; i++)
		wait *= 2;
	if (wait > l->opt.retry_max_ns)
		wait = l->opt.retry_max_ns;
	/* Up to a quarter more, so that many clients of one server do not come back at once. */
	wait += host_random(l->host) % (wait / 4 + 1);
	return host_now_ns(l->host) + wait;
}

/* ---- puts */

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

static void oput_timer(struct lsvd_timer *timer)
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
		timer_set(l, &put->timer, retry_at(l, ++put->tries));
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
