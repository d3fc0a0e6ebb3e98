/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Synchronous requests on any device.
 *
 * Purpose. For opening, recovery and tools: a request is submitted, and the calling thread then
 * does whatever the device gives it to do until its own request is done.
 *
 * Data structure. A copy of the request with a flag behind it, on the caller's stack.
 *
 * Invariants.
 *  1. The flag is the last thing that done() touches: the moment it is set, the request and the
 *     flag may be gone.
 *  2. kick is called only when there was nothing to help with: usually the request runs on this
 *     thread and nobody else is woken.
 *
 * Locks. None.
 */
#include "dev/dev.h"

#include <stdatomic.h>

struct sync_req {
	struct dev_req req;
	atomic_bool done;
};

static void sync_done(struct dev_req *req)
{
	struct sync_req *sync = container_of(req, struct sync_req, req);

	/* Release: pairs with the acquire in sync_wait(); the result comes before. */
	atomic_store_explicit(&sync->done, true, memory_order_release);
}

static int sync_wait(struct dev *dev, struct sync_req *sync)
{
	bool kicked = false;

	sync->req.done = sync_done;
	atomic_init(&sync->done, false);
	dev_submit(dev, &sync->req);
	while (!atomic_load_explicit(&sync->done, memory_order_acquire)) {
		if (dev_help(dev))
			continue;
		if (!kicked)
			dev_kick(dev);
		else
			dev_poll(dev, true);
		kicked = true;
	}
	return sync->req.result;
}

int dev_sync(struct dev *dev, struct dev_req *req)
{
	struct sync_req sync = {.req = *req};

	if (req->iov == &req->one)
		sync.req.iov = &sync.req.one;
	req->result = sync_wait(dev, &sync);
	return req->result;
}

int dev_pread(struct dev *dev, void *buf, size_t len_bytes, uint64_t off_bytes)
{
	struct sync_req sync = {.req = {.op = DEV_READ, .off_bytes = off_bytes}};

	dev_req_buf(&sync.req, buf, len_bytes);
	return sync_wait(dev, &sync);
}

int dev_pwrite(struct dev *dev, const void *buf, size_t len_bytes, uint64_t off_bytes, bool fua)
{
	struct sync_req sync = {.req = {.op = DEV_WRITE, .fua = fua, .off_bytes = off_bytes}};
	union {
		const void *in;
		void *out;
	} u = {.in = buf};

	/* An iovec has no const; a write does not change what it points at. */
	dev_req_buf(&sync.req, u.out, len_bytes);
	return sync_wait(dev, &sync);
}

int dev_flush(struct dev *dev)
{
	struct sync_req sync = {.req = {.op = DEV_FLUSH}};

	return sync_wait(dev, &sync);
}
