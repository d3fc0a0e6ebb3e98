/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Objects in memory, sorted by key.
 *
 * A table is an array of references, searched by halves. Inserting moves what lies behind: with
 * the thousands of objects of tests and of volumes in memory that is cheaper than a tree, and a
 * copy of the whole table, which crash tests take all the time, is a copy of the array.
 *
 * Invariants
 *  1. Keys are unique and ascend (strcmp).
 *  2. Each place holds one reference.
 *
 * Locks: none here, see table.h.
 */
#include "store/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_FIRST 64

struct store_object *store_object_new(const char *key, size_t len_bytes)
{
	struct store_object *o = malloc(sizeof(*o) + len_bytes);

	if (!o)
		return NULL;
	memset(o, 0, sizeof(*o));
	atomic_init(&o->refs, 1);
	o->len_bytes = len_bytes;
	memcpy(o->key, key, strlen(key) + 1);
	return o;
}

struct store_object *store_object_get(struct store_object *o)
{
	atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
	return o;
}

void store_object_put(struct store_object *o)
{
	/* Acquire and release among all puts: the last one frees after all others' uses. */
	if (o && atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) == 1)
		free(o);
}

void store_object_fill(struct store_object *o, const struct iovec *iov, int iovcnt)
{
	uint8_t *to = o->body;

	for (int i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len)
			memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

void store_object_read(const struct store_object *o, uint64_t off_bytes, const struct iovec *iov,
		       int iovcnt)
{
	const uint8_t *from = o->body + off_bytes;

	for (int i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len)
			memcpy(iov[i].iov_base, from, iov[i].iov_len);
		from += iov[i].iov_len;
	}
}

size_t store_table_place(const struct store_table *t, const char *key, bool *ret_found)
{
	size_t lo = 0, hi = t->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (strcmp(t->at[mid]->key, key) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	*ret_found = lo < t->count && strcmp(t->at[lo]->key, key) == 0;
	return lo;
}

struct store_object *store_table_find(const struct store_table *t, const char *key)
{
	bool found;
	size_t i = store_table_place(t, key, &found);

	return found ? t->at[i] : NULL;
}

static int reserve(struct store_table *t, size_t count)
{
	size_t room = t->room ? t->room : ROOM_FIRST;
	struct store_object **at;

	if (count <= t->room)
		return 0;
	while (room < count)
		room *= 2;
	at = realloc(t->at, room * sizeof(struct store_object *));
	if (!at)
		return -ENOMEM;
	t->at = at;
	t->room = room;
	return 0;
}

int store_table_set(struct store_table *t, struct store_object *o)
{
	bool found;
	size_t i = store_table_place(t, o->key, &found);
	int ret;

	if (found) {
		store_object_put(t->at[i]);
		t->at[i] = o;
		return 0;
	}
	ret = reserve(t, t->count + 1);
	if (ret)
		return ret;
	memmove(&t->at[i + 1], &t->at[i], (t->count - i) * sizeof(struct store_object *));
	t->at[i] = o;
	t->count++;
	return 0;
}

void store_table_remove(struct store_table *t, size_t place)
{
	store_object_put(t->at[place]);
	t->count--;
	memmove(&t->at[place], &t->at[place + 1],
		(t->count - place) * sizeof(struct store_object *));
}

int store_table_copy(const struct store_table *src, struct store_table *dst)
{
	int ret = reserve(dst, src->count);

	if (ret)
		return ret;
	for (size_t i = 0; i < dst->count; i++)
		store_object_put(dst->at[i]);
	for (size_t i = 0; i < src->count; i++)
		dst->at[i] = store_object_get(src->at[i]);
	dst->count = src->count;
	return 0;
}

void store_table_clear(struct store_table *t)
{
	for (size_t i = 0; i < t->count; i++)
		store_object_put(t->at[i]);
	free(t->at);
	*t = (struct store_table){0};
}
