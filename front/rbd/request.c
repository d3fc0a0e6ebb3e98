/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asynchronous requests.
 *
 * A request lives in its completion: rbd_aio_*() fills completion->io and submits it, and
 * request_done() hands the completion to the image's delivery. What cannot even be submitted,
 * because it lies beyond the end, ends in the same way, with the error as its result; the functions
 * themselves fail only for handles that are none.
 *
 * What is durable when: a completed write is not yet. A completed flush has made durable every
 * write that was submitted before it (order.h, and VARVE_FLUSH for those that are acknowledged).
 *
 * Reads that reach beyond the end are cut there, as librbd does; writes are refused: to cut one and
 * report success would lose data. qemu resizes before it writes there.
 *
 * Invariants:
 *   1. An image stays entered from request_begin() until its delivery has run the callback.
 *   2. The user's buffers are not touched after the callback; its array of iovecs not after the
 *      call, since it may be on the caller's stack.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "completion.h"
#include "image.h"

static void request_done(struct varve_io *io)
{
	struct completion *c = io->user;
	struct image *image = c->image;

	if (io->result < 0)
		c->result = io->result;
	if (c->kind == KIND_MUTATION)
		image_submit_all(image, order_end(&image->flushes, c->slot));
	deliver_push(&image->deliver, c);
}

/* On 0 the image is entered and the completion is the request's. */
static int request_begin(rbd_image_t handle, rbd_completion_t completion, enum completion_kind kind,
			 struct completion **ret)
{
	struct image *image = image_from(handle);
	struct completion *c = completion_from(completion);
	int rc;

	if (!image || !c)
		return -EINVAL;
	rc = image_enter(image);
	if (rc)
		return rc;
	rc = completion_begin(c, image, kind);
	if (rc) {
		image_leave(image, 1);
		return rc;
	}
	c->io.done = request_done;
	c->io.user = c;
	*ret = c;
	return 0;
}

/* Ends a request that was not submitted. */
static int request_end(struct completion *c, int result)
{
	c->result = result;
	deliver_push(&c->image->deliver, c);
	return 0;
}

static int request_submit(struct completion *c)
{
	struct image *image = c->image;

	if (c->kind == KIND_MUTATION) {
		struct completion *go = NULL;

		c->slot = order_begin(&image->flushes, &go);
		image_submit_all(image, go);
	}
	/* The completion may be gone when this returns, and the image, too. */
	varve_submit(image->volume, &c->io);
	return 0;
}

/* Bytes in iov, or -EINVAL. */
static int64_t iov_bytes(const struct iovec *iov, int iovcnt)
{
	uint64_t sum = 0;
	int i;

	if (!iov || iovcnt < 0 || iovcnt > IOV_MAX)
		return -EINVAL;
	for (i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len > (uint64_t)SSIZE_MAX - sum)
			return -EINVAL;
		sum += iov[i].iov_len;
	}
	return (int64_t)sum;
}

static int keep_iov(struct completion *c, const struct iovec *iov, int iovcnt)
{
	if (iovcnt == 1) {
		c->one = iov[0];
		c->io.iov = &c->one;
	} else {
		c->many = malloc((size_t)iovcnt * sizeof(*iov));
		if (!c->many)
			return -ENOMEM;
		memcpy(c->many, iov, (size_t)iovcnt * sizeof(*iov));
		c->io.iov = c->many;
	}
	c->io.iovcnt = iovcnt;
	return 0;
}

static int image_read(rbd_image_t image, const struct iovec *iov, int iovcnt, uint64_t offset,
		      rbd_completion_t completion)
{
	const int64_t bytes = iov_bytes(iov, iovcnt);
	uint64_t length = (uint64_t)bytes;
	struct completion *c;
	int rc;

	if (bytes < 0)
		return (int)bytes;
	rc = request_begin(image, completion, KIND_READ, &c);
	if (rc)
		return rc;
	rc = image_clip(c->image, offset, &length);
	if (!rc && length)
		rc = keep_iov(c, iov, iovcnt);
	if (rc || !length)
		return request_end(c, rc);
	c->io.op = VARVE_READ;
	c->io.offset = offset;
	c->io.length = length;
	c->result = (ssize_t)length;
	return request_submit(c);
}

static int image_write(rbd_image_t image, const struct iovec *iov, int iovcnt, uint64_t offset,
		       rbd_completion_t completion)
{
	const int64_t bytes = iov_bytes(iov, iovcnt);
	uint64_t length = (uint64_t)bytes;
	struct completion *c;
	int rc;

	if (bytes < 0)
		return (int)bytes;
	rc = request_begin(image, completion, KIND_MUTATION, &c);
	if (rc)
		return rc;
	rc = image_clip(c->image, offset, &length);
	if (!rc && length < (uint64_t)bytes)
		rc = -EINVAL;
	if (!rc && length)
		rc = keep_iov(c, iov, iovcnt);
	if (rc || !length)
		return request_end(c, rc);
	c->io.op = VARVE_WRITE;
	c->io.offset = offset;
	c->io.length = length;
	return request_submit(c);
}

/* A discard or a zero. */
static int image_clear(rbd_image_t image, enum varve_op op, uint64_t offset, uint64_t length,
		       rbd_completion_t completion)
{
	struct completion *c;
	int rc = request_begin(image, completion, KIND_MUTATION, &c);

	if (rc)
		return rc;
	rc = image_clip(c->image, offset, &length);
	if (rc || !length)
		return request_end(c, rc);
	c->io.op = op;
	c->io.offset = offset;
	c->io.length = length;
	return request_submit(c);
}

/* ---- what users call ------------------------------------------------------------------------- */

int rbd_aio_read(rbd_image_t image, uint64_t offset, size_t length, char *buf, rbd_completion_t c)
{
	const struct iovec iov = {.iov_base = buf, .iov_len = length};

	return image_read(image, &iov, 1, offset, c);
}

/* op_flags say how the data will be used: hints, of which none applies here. */
int rbd_aio_read2(rbd_image_t image, uint64_t offset, size_t length, char *buf, rbd_completion_t c,
		  int op_flags)
{
	(void)op_flags;
	return rbd_aio_read(image, offset, length, buf, c);
}

int rbd_aio_readv(rbd_image_t image, const struct iovec *iov, int iovcnt, uint64_t offset,
		  rbd_completion_t c)
{
	return image_read(image, iov, iovcnt, offset, c);
}

int rbd_aio_write(rbd_image_t image, uint64_t offset, size_t length, const char *buf,
		  rbd_completion_t c)
{
	const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = length};

	return image_write(image, &iov, 1, offset, c);
}

int rbd_aio_write2(rbd_image_t image, uint64_t offset, size_t length, const char *buf,
		   rbd_completion_t c, int op_flags)
{
	(void)op_flags;
	return rbd_aio_write(image, offset, length, buf, c);
}

int rbd_aio_writev(rbd_image_t image, const struct iovec *iov, int iovcnt, uint64_t offset,
		   rbd_completion_t c)
{
	return image_write(image, iov, iovcnt, offset, c);
}

int rbd_aio_discard(rbd_image_t image, uint64_t offset, uint64_t length, rbd_completion_t c)
{
	return image_clear(image, VARVE_DISCARD, offset, length, c);
}

/*
 * With or without THICK_PROVISION it is the same: space that is taken now would be given back by
 * the next cleaning, so nothing is reserved by writing zeros.
 */
int rbd_aio_write_zeroes(rbd_image_t image, uint64_t offset, size_t length, rbd_completion_t c,
			 int zero_flags, int op_flags)
{
	(void)op_flags;
	if (zero_flags & ~RBD_WRITE_ZEROES_FLAG_THICK_PROVISION)
		return -EINVAL;
	return image_clear(image, VARVE_ZERO, offset, length, c);
}

int rbd_aio_flush(rbd_image_t image, rbd_completion_t completion)
{
	struct completion *c;
	int rc = request_begin(image, completion, KIND_FLUSH, &c);

	if (rc)
		return rc;
	c->io.op = VARVE_FLUSH;
	return order_flush(&c->image->flushes, c) ? request_submit(c) : 0;
}
