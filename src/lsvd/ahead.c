/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading headers ahead while opening: rolling forward needs one header after the other, and a far
 * store takes its time for each.
 *
 * A few gets are kept in flight for the objects that the list names next. Only their beginnings are
 * read; most headers are no longer. What has been read ahead is a guess about what will be asked
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
	const struct listed *of; /* NULL: free */
	uint8_t *buf;
	atomic_bool done;
};

struct ahead {
	struct store *store;
	const char *name;
	const struct listing *list;
	struct ahead_slot slot[AHEAD_SLOTS];
};

struct ahead *ahead_new(struct store *store, const char *name, const struct listing *list)
{
	struct ahead *a = calloc(1, sizeof(*a));

	if (a) {
		a->store = store;
		a->name = name;
		a->list = list;
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
	if (!slot->of)
		return;
	ahead_wait(a, slot);
	free(slot->buf);
	slot->buf = NULL;
	slot->of = NULL;
}

void ahead_free(struct ahead *a)
{
	for (unsigned i = 0; a && i < AHEAD_SLOTS; i++)
		ahead_drop(a, &a->slot[i]);
	free(a);
}

static void ahead_start(struct ahead *a, struct ahead_slot *slot, const struct listed *e)
{
	struct store_req *req = &slot->req;
	const size_t len = header_first_bytes(e->size_bytes);

	slot->buf = len ? malloc(len) : NULL;
	if (!slot->buf)
		return;
	slot->of = e;
	atomic_init(&slot->done, false);
	*req = (struct store_req){.op = STORE_GET, .len_bytes = len, .done = ahead_done};
	key_format(req->key, a->name, &e->key);
	req->one = (struct iovec){slot->buf, len};
	req->iov = &req->one;
	req->iovcnt = 1;
	store_submit(a->store, req);
}

/* Slots of what has been passed become free; free ones get the next that nobody has. */
static void ahead_fill(struct ahead *a, const struct listed *from)
{
	const struct listed *end = a->list->e + a->list->n, *next = from;

	for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
		if (a->slot[i].of && a->slot[i].of < from)
			ahead_drop(a, &a->slot[i]);
		if (a->slot[i].of && a->slot[i].of >= next)
			next = a->slot[i].of + 1;
	}
	for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
		if (next == end || next->key.kind != KEY_DATA || next >= from + AHEAD_SLOTS)
			break;
		if (!a->slot[i].of)
			ahead_start(a, &a->slot[i], next++);
	}
	store_kick(a->store);
}

void *ahead_take(struct ahead *a, const struct listed *e)
{
	void *buf = NULL;

	if (!a)
		return NULL;
	ahead_fill(a, e);
	for (unsigned i = 0; i < AHEAD_SLOTS; i++) {
		struct ahead_slot *slot = &a->slot[i];

		if (slot->of != e)
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
