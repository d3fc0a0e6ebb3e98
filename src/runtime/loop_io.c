/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One transfer, whoever runs it.
 *
 * Purpose. The kernel may move less than it was asked to, or ask to be asked again. The state that
 * continues a transfer lives in struct loop_io and is the same for io_uring and for plain system
 * calls: loop_io_vec() says what to ask for next, loop_io_step() takes the answer.
 *
 * Data structure. A position in the caller's vector (iov_idx, iov_skip_bytes) and moved_bytes. The
 * caller's vector is never changed or copied: after a cut in the middle of an element, the rest of
 * that element is one request of its own, and the elements after it are the next.
 *
 * Invariants.
 *  1. moved_bytes is the sum of the elements before iov_idx plus iov_skip_bytes.
 *  2. iov[iov_idx] has bytes left as long as moved_bytes < len_bytes (empty elements are skipped).
 *  3. retries counts answers without progress since the last progress: a transfer ends after at
 *     most LOOP_RETRIES of them.
 *
 * ECANCELED is repeated because io_uring cancels what a thread has submitted and the kernel has
 * not started when that thread exits; the request had no effect then.
 *
 * Locks. None: a transfer belongs to one thread at a time.
 */
#include "runtime/loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

/* Of one request to the kernel; it would cut at 2 GiB by itself, but not on an aligned byte. */
#define IO_MAX_BYTES ((uint64_t)1 << 30)

static bool is_transfer(const struct loop_io *io)
{
	return io->op == LOOP_READ || io->op == LOOP_WRITE;
}

/* Invariant 2. */
static void skip_empty(struct loop_io *io)
{
	while (io->moved_bytes < io->len_bytes &&
	       io->iov[io->iov_idx].iov_len == io->iov_skip_bytes) {
		io->iov_idx++;
		io->iov_skip_bytes = 0;
		assert(io->iov_idx < io->iovcnt);
	}
}

static void advance(struct loop_io *io, uint64_t moved_bytes)
{
	assert(moved_bytes <= io->len_bytes - io->moved_bytes);
	io->moved_bytes += moved_bytes;
	while (moved_bytes) {
		uint64_t left_bytes = io->iov[io->iov_idx].iov_len - io->iov_skip_bytes;

		if (moved_bytes < left_bytes) {
			io->iov_skip_bytes += moved_bytes;
			return;
		}
		moved_bytes -= left_bytes;
		io->iov_idx++;
		io->iov_skip_bytes = 0;
	}
}

void loop_io_start(struct loop_io *io)
{
	io->result = 0;
	io->retries = 0;
	io->iov_idx = 0;
	io->iov_skip_bytes = 0;
	io->moved_bytes = 0;
	if (is_transfer(io)) {
		assert(io->len_bytes);
		skip_empty(io);
	}
}

int loop_io_vec(const struct loop_io *io, struct iovec *one, const struct iovec **ret_iov)
{
	const struct iovec *iov = &io->iov[io->iov_idx];
	int count = io->iovcnt - io->iov_idx;

	if (count > 1 && !io->iov_skip_bytes && iov->iov_len <= IO_MAX_BYTES) {
		*ret_iov = iov;
		return count < IOV_MAX ? count : IOV_MAX;
	}
	one->iov_base = (char *)iov->iov_base + io->iov_skip_bytes;
	one->iov_len = iov->iov_len - io->iov_skip_bytes;
	if (one->iov_len > IO_MAX_BYTES)
		one->iov_len = IO_MAX_BYTES;
	*ret_iov = one;
	return 1;
}

bool loop_io_step(struct loop_io *io, int kernel_result)
{
	switch (kernel_result) {
	case -EAGAIN:
	case -EINTR:
	case -ECANCELED:
		if (io->retries++ < LOOP_RETRIES)
			return false;
		break;
	}
	if (kernel_result < 0) {
		io->result = kernel_result;
		return true;
	}
	io->result = 0;
	if (!is_transfer(io))
		return true;
	if (!kernel_result) {
		/* The file ends here, which its owner did not expect. */
		io->result = -EIO;
		return true;
	}
	io->retries = 0;
	advance(io, (uint64_t)kernel_result);
	skip_empty(io);
	return io->moved_bytes == io->len_bytes;
}

int loop_io_falloc_mode(const struct loop_io *io)
{
	int mode = io->op == LOOP_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	return mode | FALLOC_FL_KEEP_SIZE;
}

static int run_transfer(struct loop_io *io)
{
	off_t off_bytes = (off_t)(io->off_bytes + io->moved_bytes);
	const struct iovec *iov;
	struct iovec one;
	int count = loop_io_vec(io, &one, &iov);
	ssize_t n;

	if (io->op == LOOP_READ)
		n = preadv2(io->fd, iov, count, off_bytes, 0);
	else
		n = pwritev2(io->fd, iov, count, off_bytes, io->sync ? RWF_DSYNC : 0);
	return n < 0 ? -errno : (int)n;
}

static int run_once(struct loop_io *io)
{
	int r;

	switch (io->op) {
	case LOOP_READ:
	case LOOP_WRITE:
		return run_transfer(io);
	case LOOP_FLUSH:
		r = fdatasync(io->fd);
		break;
	default:
		r = fallocate(io->fd, loop_io_falloc_mode(io), (off_t)io->off_bytes,
			      (off_t)io->len_bytes);
		break;
	}
	return r < 0 ? -errno : 0;
}

int loop_io_run(struct loop_io *io)
{
	loop_io_start(io);
	while (!loop_io_step(io, run_once(io)))
		;
	return io->result;
}
