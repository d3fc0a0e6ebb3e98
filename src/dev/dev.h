/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Block devices behind one vtable: file (regular file or block device), mem, sim; and every
 * volume and block translation table, so that they stack.
 *
 * Requests. The caller owns the request and its buffers, fills in the public fields, and must
 * leave both alone from dev_submit() until done() is called. done() is called exactly once for
 * each submitted request, never from inside dev_submit(), with req->result 0 or a negative errno.
 * Partial success does not exist: a short transfer is -EIO.
 *
 *   submit  queues; it may start the request, but need not
 *   kick    starts everything queued so far; may call done() of requests that are finished
 *   help    runs one queued request (or one step of the device) to its end on the calling
 *           thread and calls its done(): what a caller does that would have to sleep otherwise.
 *           Returns false when there is nothing that it could run
 *   poll    delivers completions; returns how many. With wait, sleeps until there is one or
 *           nothing is in flight
 *
 * Durability. A write whose done() reported 0 is durable only after a flush that was submitted
 * after that done(), or when it carried fua. A failed flush leaves the state of everything
 * unflushed unknown: the device then fails every later write and flush with the same error until
 * it is closed (see "sticky" in dev/file), since a second flush could claim what the first lost.
 *
 * Alignment. Offsets and lengths of writes, discards and zeroes are multiples of block_bytes.
 * Reads may have any 512-byte alignment; memory may have any alignment (devices bounce).
 *
 * Threads. submit, kick, help, poll may be called from any thread at once; done() is called on
 * the thread that kicked, helped or polled, or on the runtime's loop thread, with no lock held.
 */
#ifndef DEV_DEV_H
#define DEV_DEV_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"

#define DEV_SECTOR_BYTES 512u
#define DEV_SECTOR_SHIFT 9

#define DEV_IDENTITY_LEN 128

enum dev_op {
	DEV_READ,
	DEV_WRITE,
	DEV_FLUSH,
	DEV_DISCARD, /* contents undefined afterwards, but the same at every read */
	DEV_ZERO,    /* reads as zeros afterwards */
};

struct dev;

struct dev_req {
	struct list_head link; /* the device's, from submit to done */
	enum dev_op op;
	bool fua;
	int result;
	uint64_t off_bytes;
	uint64_t len_bytes;
	const struct iovec *iov; /* READ, WRITE: sums to len_bytes */
	int iovcnt;
	struct iovec one; /* for the common case: dev_req_buf() points iov here */
	void (*done)(struct dev_req *req);
	/* Scratch of the device that has the request; engines that act as devices use it too. */
	union {
		uint64_t u64[8];
		void *ptr[8];
	} priv;
};

/* Counters since open; read without a lock, each exact by itself. */
struct dev_counters {
	uint64_t reads, read_bytes;
	uint64_t writes, write_bytes;
	uint64_t flushes;
	uint64_t discards, discard_bytes;
	uint64_t errors;
};

struct dev_ops {
	const char *name;
	void (*submit)(struct dev *dev, struct dev_req *req);
	void (*kick)(struct dev *dev);
	bool (*help)(struct dev *dev);
	int (*poll)(struct dev *dev, bool wait);
	void (*counters)(struct dev *dev, struct dev_counters *ret);
	/*
	 * Takes the exclusive right to write the device, between processes and within one.
	 * 0, or -EBUSY when somebody else has it. May be NULL: nobody else can have it.
	 */
	int (*lock)(struct dev *dev, struct err *err);
	void (*unlock)(struct dev *dev);
	/*
	 * After a failed flush: the owner promises to write again everything since the last good
	 * one, so writes and flushes are tried again. Nothing but reads may be in flight. May be
	 * NULL: the device never refuses what came after a failure.
	 */
	void (*forgive)(struct dev *dev);
	/*
	 * What tells this device from all others of its size, stays the same over restarts, and is
	 * not stored in it: "partuuid:...", "wwid:...", "dm:..."; "" when there is nothing such
	 * (files, loop devices). At most DEV_IDENTITY_LEN with its end. May be NULL: "".
	 */
	void (*identity)(struct dev *dev, char *ret);
	/*
	 * Looks for a new size of the device and stores it in dev->size_bytes. Nothing may be in
	 * flight. 0 or a negative errno. May be NULL: the size never changes.
	 */
	int (*resize_look)(struct dev *dev);
	/*
	 * Makes the device that many bytes long, a multiple of its blocks; what is new reads as
	 * zeros. Durable when it returns 0, and dev->size_bytes says so. Nothing may be in flight.
	 * -EINVAL when it would shrink, -ENOTSUP (also: NULL) when only others can do it, as with
	 * block devices, else why there is no room. Then nothing has changed.
	 */
	int (*resize)(struct dev *dev, uint64_t size_bytes);
	/* All requests must be done. Frees dev. */
	void (*close)(struct dev *dev);
};

struct dev {
	const struct dev_ops *ops;
	uint64_t size_bytes;
	uint32_t block_bytes; /* logical block: a power of two, 512 to 4096 (64 KiB at most) */
	bool read_only;
	bool can_discard;
	bool can_zero; /* DEV_ZERO frees space instead of writing zeros: it costs next to nothing */
};

static inline void dev_submit(struct dev *dev, struct dev_req *req)
{
	dev->ops->submit(dev, req);
}

static inline void dev_kick(struct dev *dev)
{
	dev->ops->kick(dev);
}

static inline bool dev_help(struct dev *dev)
{
	return dev->ops->help(dev);
}

static inline int dev_poll(struct dev *dev, bool wait)
{
	return dev->ops->poll(dev, wait);
}

static inline void dev_close(struct dev *dev)
{
	if (dev)
		dev->ops->close(dev);
}

static inline void dev_forgive(struct dev *dev)
{
	if (dev->ops->forgive)
		dev->ops->forgive(dev);
}

/* ret has room for DEV_IDENTITY_LEN. */
static inline void dev_identity(struct dev *dev, char *ret)
{
	ret[0] = '\0';
	if (dev->ops->identity)
		dev->ops->identity(dev, ret);
}

static inline int dev_resize_look(struct dev *dev)
{
	return dev->ops->resize_look ? dev->ops->resize_look(dev) : 0;
}

static inline int dev_resize(struct dev *dev, uint64_t size_bytes)
{
	return dev->ops->resize ? dev->ops->resize(dev, size_bytes) : -ENOTSUP;
}

/* Points the request at one contiguous buffer. */
static inline void dev_req_buf(struct dev_req *req, void *buf, size_t len_bytes)
{
	req->one.iov_base = buf;
	req->one.iov_len = len_bytes;
	req->iov = &req->one;
	req->iovcnt = 1;
	req->len_bytes = len_bytes;
}

/*
 * Runs one request to its end on the calling thread. Not from inside done(), not entered.
 * For opening, recovery and tools; returns the result.
 */
int dev_sync(struct dev *dev, struct dev_req *req);
int dev_pread(struct dev *dev, void *buf, size_t len_bytes, uint64_t off_bytes);
int dev_pwrite(struct dev *dev, const void *buf, size_t len_bytes, uint64_t off_bytes, bool fua);
int dev_flush(struct dev *dev);

#endif
