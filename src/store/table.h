/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A table of objects in memory, in the order of their keys: the contents of a mem store and of a
 * simulated bucket.
 *
 * An object is immutable once it is in a table, and reference counted; tables share objects, and
 * a reader may use the body of one that has left its table. The counts are atomic, the tables
 * have no lock: whoever owns one has.
 */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include <stdatomic.h>

#include "store/store.h"

struct store_object {
	atomic_uint refs;
	char key[STORE_KEY_MAX + 1];
	uint64_t version;
	uint64_t put_seq; /* these two for the simulated bucket */
	uint64_t del_seq;
	size_t len_bytes;
	uint8_t body[];
};

struct store_table {
	struct store_object **at;
	size_t count, room;
};

/* One reference, zeros but for key and length, the body unset. NULL when there is no memory. */
struct store_object *store_object_new(const char *key, size_t len_bytes);
struct store_object *store_object_get(struct store_object *o);
void store_object_put(struct store_object *o);

/* The copy of the request's iovecs in an object, and back; the caller has checked the lengths. */
void store_object_fill(struct store_object *o, const struct iovec *iov, int iovcnt);
void store_object_read(const struct store_object *o, uint64_t off_bytes, const struct iovec *iov,
		       int iovcnt);

/* Where the key is, or else where it would go: the first place whose key is not smaller. */
size_t store_table_place(const struct store_table *t, const char *key, bool *ret_found);
struct store_object *store_table_find(const struct store_table *t, const char *key);

/* Puts o in the place of what has its key. Takes over the reference, but not on -ENOMEM. */
int store_table_set(struct store_table *t, struct store_object *o);
void store_table_remove(struct store_table *t, size_t place);

/* Makes dst hold what src holds. */
int store_table_copy(const struct store_table *src, struct store_table *dst);
void store_table_clear(struct store_table *t);

#endif
