/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies in an object, for people: as keys and values, which a front makes text or JSON of.
 *
 * Damaged objects are told as far as they can be: "magic" and "checksum" say OK or bad, and what
 * follows a bad header is what can be read without believing a length.
 */
#ifndef LSVD_LSVD_DUMP_H
#define LSVD_LSVD_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "store/store.h"

/* key is NULL for the elements of an array. */
struct lsvd_dump {
	void (*string)(struct lsvd_dump *dump, const char *key, const char *value);
	void (*number)(struct lsvd_dump *dump, const char *key, uint64_t value);
	void (*begin)(struct lsvd_dump *dump, const char *key, bool array);
	void (*end)(struct lsvd_dump *dump);
};

/*
 * The fields of one object of any type, without the braces around them. buf need not hold more
 * than the header. 0, or -EBADMSG when something was bad (and told).
 */
int lsvd_dump_buffer(const char *key, const void *buf, size_t len_bytes, struct lsvd_dump *out);

/*
 * Of the volume `name`: "superblock", "objects" (every data object), "checkpoint" (the newest root
 * with its parts), or an object's key. One object or array is told. Not entered; synchronous.
 */
int lsvd_dump(struct store *store, const char *name, const char *what, struct lsvd_dump *out,
	      struct err *err);

#endif
