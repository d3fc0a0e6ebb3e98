/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Synchronous requests: on the caller's thread, which does its device I/O itself. No completion is
 * delivered, so they may be used inside callbacks, too.
 *
 * What is durable when: a write that has returned is not yet. rbd_flush() that has returned 0 has
 * made durable every write that was submitted before it, by this or any other function.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "abi.h"
#include "image.h"

ssize_t rbd_read(rbd_image_t handle, uint64_t offset, size_t length, char *buf)
{
	struct image *image = image_from(handle);
	uint64_t bytes = length;
	int rc;

	if (!image || !buf || length > SSIZE_MAX)
		return -EINVAL;
	rc = image_enter(image);
	if (rc)
		return rc;
	rc = image_clip(image, offset, &bytes);
	if (!rc && bytes)
		rc = varve_pread(image->volume, buf, bytes, offset);
	image_leave(image, 1);
	return rc < 0 ? rc : (ssize_t)bytes;
}

ssize_t rbd_read2(rbd_image_t image, uint64_t offset, size_t length, char *buf, int op_flags)
{
	(void)op_flags;
	return rbd_read(image, offset, length, buf);
}

/* A mutation. Only a write must fit. */
static ssize_t mutate(rbd_image_t handle, enum varve_op op, const char *buf, uint64_t offset,
		      uint64_t length)
{
	struct image *image = image_from(handle);
	struct completion *go = NULL;
	uint64_t bytes = length;
	unsigned int slot;
	int rc;

	if (!image || length > SSIZE_MAX || (op == VARVE_WRITE && !buf))
		return -EINVAL;
	rc = image_enter(image);
	if (rc)
		return rc;
	rc = image_clip(image, offset, &bytes);
	if (!rc && op == VARVE_WRITE && bytes < length)
		rc = -EINVAL;
	if (rc || !bytes) {
		image_leave(image, 1);
		return rc;
	}
	slot = order_begin(&image->flushes, &go);
	image_submit_all(image, go);
	if (op == VARVE_WRITE)
		rc = varve_pwrite(image->volume, buf, bytes, offset, 0);
	else if (op == VARVE_ZERO)
		rc = varve_zero(image->volume, offset, bytes, 0);
	else
		rc = varve_discard(image->volume, offset, bytes, 0);
	if (!rc && op != VARVE_DISCARD)
		image_wrote(image);
	image_submit_all(image, order_end(&image->flushes, slot));
	image_leave(image, 1);
	return rc < 0 ? rc : (ssize_t)bytes;
}

ssize_t rbd_write(rbd_image_t image, uint64_t offset, size_t length, const char *buf)
{
	return mutate(image, VARVE_WRITE, buf, offset, length);
}

ssize_t rbd_write2(rbd_image_t image, uint64_t offset, size_t length, const char *buf, int op_flags)
{
	(void)op_flags;
	return rbd_write(image, offset, length, buf);
}

/* Its result is an int, and the length that was discarded. */
int rbd_discard(rbd_image_t image, uint64_t offset, uint64_t length)
{
	return length > INT_MAX ? -EINVAL : (int)mutate(image, VARVE_DISCARD, NULL, offset, length);
}

ssize_t rbd_write_zeroes(rbd_image_t image, uint64_t offset, size_t length, int zero_flags,
			 int op_flags)
{
	(void)op_flags;
	if (zero_flags & ~RBD_WRITE_ZEROES_FLAG_THICK_PROVISION)
		return -EINVAL;
	return mutate(image, VARVE_ZERO, NULL, offset, length);
}

/* ---- flush ----------------------------------------------------------------------------------- */

/* Not by delivery, which the caller may be: the waiter is told where the request ends. */
static void waited_done(struct varve_io *io)
{
	struct completion *c = io->user;

	c->result = io->result;
	completion_end(c);
	completion_put(c);
}

static int flush_after_writes(struct image *image)
{
	rbd_completion_t handle;
	struct completion *c;
	int rc = rbd_aio_create_completion(NULL, NULL, &handle);

	if (rc)
		return rc;
	c = completion_from(handle);
	completion_begin(c, image, KIND_FLUSH);
	c->io.op = VARVE_FLUSH;
	c->io.done = waited_done;
	c->io.user = c;
	if (order_flush(&image->flushes, c))
		varve_submit(image->volume, &c->io);
	completion_wait(c, 0);
	rc = (int)c->result;
	completion_put(c);
	return rc;
}

int rbd_flush(rbd_image_t handle)
{
	struct image *image = image_from(handle);
	int rc;

	if (!image)
		return -EINVAL;
	rc = image_enter(image);
	if (rc)
		return rc;
	if (order_is_idle(&image->flushes))
		rc = varve_flush(image->volume);
	else
		rc = flush_after_writes(image);
	image_leave(image, 1);
	return rc;
}
