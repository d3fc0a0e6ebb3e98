/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading ahead while opening: parts of a checkpoint, and then headers, are wanted one after the
 * other, and a far store takes its time for each.
 *
 * What will be wanted is numbered; the caller's want() says what the i-th is. A few gets are kept
 * in flight for those that come next. What has been read ahead is a guess about what will be asked
 * for, and a failed guess is forgotten: the object is then read the ordinary way, which reports.
 *
 * Completions may come on other threads. done is the last thing that they touch, with release; the
 * opening thread reads it with acquire.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

#define AHEAD_SLOTS 8

struct ahead_slot {
	struct store_req req;
	uint8_t *buf; /* NULL: free */
	size_t of;
	atomic_bool done;
};

struct ahead {
	struct store *store;
	ahead_want_fn *want;
	const void *arg;
	struct ahead_slot slot[AHEAD_SLOTS];
};

struct ahead *ahead_new(struct store *store, ahead_want_fn *want, const void *arg)
{
	struct ahead *a = calloc(1, sizeof(*a));

	if (a) {
		a->store = store;
		a->want = want;
		a->arg = arg;
	}
	return a;
}

static void ahead_done(struct store_req *req)
{
	struct ahead_slot *slot = container_of(req, struct ahead_slot, req);

	/* Release: pairs with the acquire in ahead_wait(); result and data come before. */
	atomic_store_explicit(&slot->done, true, memory_order_release);
}

static void ahead_wait(struct ahead *a, struct ahead_slot *slot)
{
	bool kicked = false;

	while (!atomic_load_explicit(&slot->done, memory_order_acquire)) {
		if (store_help(a->store))
			continue;
		if (!kicked)
			store_kick(a->store);
		else
			store_poll(a->store, true);
		kicked = true;
	}
}

static void ahead_drop(struct ahead *a, struct ahead_slot *slot)
{
	if (!slot->buf)
		return;
	ahead_wait(a, slot);
	free(slot->buf);
	slot->buf = NULL;
}

void ahead_free(struct ahead *a)
{
	for (unsigned i = 0; a && i < AHEAD_SLOTS; i++)
		ahead_drop(a, &a->slot[i]);
	free(a);
}

static void ahead_start(struct ahead *a, struct ahead_slot *slot, size_t of, size_t len)
{
	struct store_req *req = &slot->req;

	slot->buf = len ? malloc(len) : NULL;
	if (!slot->buf)
		return;
	slot->of = of;
	atomic_init(&slot->done, false);
	req->op = STORE_GET;
	req->off_bytes = 0;
	req->len_bytes = len;
	req->done = ahead_done;
	req->one = (struct iovec){slot->buf, len};
	req->iov = &req->one;
	req->iovcnt = 1;
	store_submit(a->store, req);
}

/* Slots of what has been passed become free; free ones get the next that nobody has. */
static void ahead_fill(struct ahead *a, size_t from)
{
	size_t next = from, len;

	for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
		if (a->slot[i].buf && a->slot[i].of < from)
			ahead_drop(a, &a->slot[i]);
		if (a->slot[i].buf && a->slot[i].of >= next)
			next = a->slot[i].of + 1;
	}
	for (unsigned i = 0; i < AHEAD_SLOTS && next < from + AHEAD_SLOTS; i++) {
		struct ahead_slot *slot = &a->slot[i];

		if (slot->buf)
			continue;
		len = a->want(a->arg, next, slot->req.key);
		if (!len)
			break;
		ahead_start(a, slot, next++, len);
	}
	store_kick(a->store);
}

void *ahead_take(struct ahead *a, size_t index)
{
	void *buf = NULL;

	if (!a)
		return NULL;
	ahead_fill(a, index);
	for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
		struct ahead_slot *slot = &a->slot[i];

		if (!slot->buf || slot->of != index)
			continue;
		ahead_wait(a, slot);
		if (!slot->req.result) {
			buf = slot->buf;
			slot->buf = NULL;
		}
		ahead_drop(a, slot);
		break;
	}
	return buf;
}
