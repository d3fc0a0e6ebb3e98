/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A regular file or a block device as a struct dev, by O_DIRECT and the runtime's loop.
 *
 * submit only queues. kick hands what is queued to the loop, whose thread calls done(); help takes
 * the oldest queued request and runs it by plain system calls on the calling thread. A caller that
 * has to wait for one write or flush therefore submits and helps: no other thread is woken. Past a
 * bound (256 started at once, 8 MiB of bounce buffers) requests wait in the device's queue; those
 * that a kick has found there are started as others finish. poll(wait) sleeps until the loop or
 * another helper has delivered something; it may return early with 0, so callers loop on what they
 * wait for. None of help, poll(wait) and dev_sync may be called from inside done(), nor close.
 *
 * Sticky errors. After a failed flush, or a failed write with fua, the kernel may have dropped
 * what it could not write, and the next fdatasync may well report success. From then on every
 * write, discard, zero and flush fails with that first error until the device is closed, or
 * forgiven by an owner who writes all of it again. Reads go on. A failed write without fua concerns
 * only itself.
 *
 * Discard deallocates and reads as zeros afterwards; where the file cannot do that it does
 * nothing. Zero deallocates as well where that can be done (can_zero), and else writes zeros. Both
 * honour fua by a flush.
 *
 * The size is taken at open and by resize_look, rounded down to whole blocks. A request beyond it,
 * or not aligned, is -EINVAL; a write to a read-only device is -EROFS; a file that somebody has cut
 * short is -EIO.
 *
 * Fork: a device that was opened by the parent must not be used by the child, but to close it.
 */
#ifndef DEV_FILE_H
#define DEV_FILE_H

#include "dev/dev.h"

struct dev_file_options {
	bool read_only;
	bool buffered;         /* do not try O_DIRECT */
	uint32_t block_bytes;  /* 0: what the file asks for; else a power of two, at least that */
	bool create;           /* make a regular file; -EEXIST if the name is taken */
	bool write_zeros;      /* create: write the file once, so that no later write allocates */
	uint64_t create_bytes; /* create: its size, allocated; rounded up to whole blocks */
};

struct dev_file_info {
	bool direct;          /* false: through the page cache, which the file system insists on */
	bool is_block_device;
	bool uring;
	uint32_t io_align;    /* of offsets and lengths as the kernel gets them */
	uint32_t mem_align;   /* memory that is aligned less is copied */
	int sticky;           /* 0, or the error that writes and flushes fail with */
};

/* opt NULL: the defaults. 0 or a negative errno, with its text in err. */
int dev_file_open(const char *path, const struct dev_file_options *opt, struct dev **ret,
		  struct err *err);

/* dev must be one of dev_file_open(). From any thread. */
void dev_file_info(struct dev *dev, struct dev_file_info *ret);

#endif
