/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block device in anonymous memory: for tests, for caches that need not outlive the process.
 *
 * Requests wait in a queue until kick, help or poll runs them, on the calling thread; submit never
 * completes anything. A done() that submits and kicks again does not recurse. Everything is as
 * durable as the process. The contents are a refcounted object of their own, so that a test can
 * close the device and open it again, or look at the bytes; the lock belongs to them.
 */
#ifndef DEV_MEM_H
#define DEV_MEM_H

#include "dev/dev.h"

struct dev_mem_bytes;

/* Zeros; pages that were never written take no memory. Starts with one reference. */
int dev_mem_bytes_new(uint64_t size_bytes, struct dev_mem_bytes **ret);
struct dev_mem_bytes *dev_mem_bytes_get(struct dev_mem_bytes *bytes);
void dev_mem_bytes_put(struct dev_mem_bytes *bytes);

/*
 * Zeros are added at the end; no request may be in flight on any device of these bytes, and each
 * learns of it by resize_look. -EINVAL: they would shrink.
 */
int dev_mem_bytes_grow(struct dev_mem_bytes *bytes, uint64_t size_bytes);

/* The bytes themselves, valid as long as the reference, and until they grow. */
void *dev_mem_bytes_data(struct dev_mem_bytes *bytes);
uint64_t dev_mem_bytes_size(const struct dev_mem_bytes *bytes);

struct dev_mem_options {
	uint64_t size_bytes;         /* a multiple of the block; ignored with bytes */
	uint32_t block_bytes;        /* 0: 512 */
	bool read_only;
	struct dev_mem_bytes *bytes; /* NULL: new ones. The device takes a reference of its own */
};

int dev_mem_open(const struct dev_mem_options *opt, struct dev **ret, struct err *err);

/* The contents of dev, which must be one of dev_mem_open(); no reference is taken. */
struct dev_mem_bytes *dev_mem_bytes(struct dev *dev);

#endif
