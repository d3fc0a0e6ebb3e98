/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening what settings name: stores and caches.
 *
 *	store	dir:/path/base, or a path	a directory store; the volume's object is "base"
 *		mem:NAME			memory of this process, kept until it ends
 *	cache	a path				a file or block device
 *		mem:SIZE			memory, gone when closed
 *		mem:SIZE:NAME			memory of this process, kept until it ends
 *		none				no cache
 */
#ifndef VOLUME_MEDIA_H
#define VOLUME_MEDIA_H

#include <stdbool.h>

#include "base/err.h"
#include "dev/dev.h"
#include "store/store.h"

bool media_is_mem(const char *text);
bool media_is_none(const char *text);
/* The path in the name of a device: "btt:PATH" is a pool of atomic blocks (volume/pool.h). */
const char *media_path(const char *text);

/* ret_object: the name that the volume has in this store. */
int media_store_open(const char *text, struct store **ret, char ret_object[STORE_KEY_MAX + 1],
		     struct err *err);

enum {
	MEDIA_READ_ONLY = 1 << 0,
	MEDIA_CREATE = 1 << 1, /* a file that does not exist, of bytes, written once */
};

/* *ret_created tells whether MEDIA_CREATE made a file; it may be NULL. */
int media_cache_open(const char *text, unsigned int flags, uint64_t bytes, struct dev **ret,
		     bool *ret_created, struct err *err);

/* A boost volume's backing device; what MEDIA_CREATE makes is allocated, not written. */
int media_backing_open(const char *text, unsigned int flags, uint64_t bytes, struct dev **ret,
		       struct err *err);

bool media_is_block(const char *text);
/* Whether two names lead to one device, file, or named memory. */
bool media_same(const char *a, const char *b);
/* The first 128 KiB, where a log, a partition table or a file system has its mark, are zeros. */
bool media_is_blank(struct dev *dev);

#endif
