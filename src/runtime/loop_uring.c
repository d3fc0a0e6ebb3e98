/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transfers through io_uring.
 *
 * Purpose. One ring for the process. Any thread may submit, the loop's thread alone reaps.
 *
 * Submission. Whoever finds nobody pumping pumps: under the lock it turns pending transfers into
 * submission entries, lets go, enters the kernel once for all of them, and looks again. Others
 * that submit meanwhile only append to the list and leave, so nobody waits for the kernel with the
 * lock held, and entries gather into batches when there is contention.
 *
 * Waking. The ring polls an eventfd, which also brings up what only the loop's thread can do. A
 * NOP through the ring would cost a thread less, but the kernel may refuse it when memory is
 * short; a write to an eventfd cannot fail.
 *
 * Invariants.
 *  1. The submission queue is touched only by the pumping thread, the completion queue only by the
 *     loop's thread. Both hand on what they know through the lock.
 *  2. An entry is filled in under the lock, and its transfer not looked at again: the moment the
 *     kernel has it, it may be done and freed.
 *  3. inflight <= LOOP_DEPTH = entries of the submission queue, half of the completion queue's:
 *     neither can overflow.
 *  4. When the kernel takes less than it was given, stuck is set and the loop's thread woken,
 *     which tries again every millisecond and after each completion.
 *
 * Locks. loop->lock, see loop_impl.h.
 */
#include "runtime/loop_impl.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/clock.h"

#define URING_FEATURES (IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG)

/* The user data of the wake-up poll; a transfer's is its address. */
#define URING_WAKE 1

static void prep_transfer(struct io_uring_sqe *sqe, struct loop_io *io)
{
	uint64_t off_bytes = io->off_bytes + io->moved_bytes;
	const struct iovec *iov;
	struct iovec one;
	int count = loop_io_vec(io, &one, &iov);

	if (count == 1 && io->op == LOOP_READ)
		io_uring_prep_read(sqe, io->fd, iov->iov_base, (unsigned)iov->iov_len, off_bytes);
	else if (count == 1)
		io_uring_prep_write(sqe, io->fd, iov->iov_base, (unsigned)iov->iov_len, off_bytes);
	else if (io->op == LOOP_READ)
		io_uring_prep_readv(sqe, io->fd, iov, (unsigned)count, off_bytes);
	else
		io_uring_prep_writev(sqe, io->fd, iov, (unsigned)count, off_bytes);
	if (io->op == LOOP_WRITE && io->sync)
		sqe->rw_flags = RWF_DSYNC;
}

static void prep(struct io_uring_sqe *sqe, struct loop_io *io)
{
	switch (io->op) {
	case LOOP_READ:
	case LOOP_WRITE:
		prep_transfer(sqe, io);
		break;
	case LOOP_FLUSH:
		io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
		break;
	case LOOP_PUNCH:
	case LOOP_ZERO:
		io_uring_prep_fallocate(sqe, io->fd, loop_io_falloc_mode(io),
					(off_t)io->off_bytes, (off_t)io->len_bytes);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

static void prep_all_locked(struct loop *loop)
{
	struct io_uring_sqe *sqe;

	if (loop->arm) {
		sqe = io_uring_get_sqe(&loop->ring);
		if (!sqe)
			return;
		io_uring_prep_poll_multishot(sqe, loop->wake_fd, POLLIN);
		io_uring_sqe_set_data64(sqe, URING_WAKE);
		loop->arm = false;
	}
	while (!list_empty(&loop->pending) && loop->inflight < LOOP_DEPTH) {
		sqe = io_uring_get_sqe(&loop->ring);
		if (!sqe)
			return;
		loop->inflight++;
		prep(sqe, list_entry(list_pop(&loop->pending), struct loop_io, link));
	}
}

static void uring_wake_locked(struct loop *loop)
{
	uint64_t one = 1;

	/* Fails only when the counter is at its end, and then the thread has its wake-up. */
	(void)!write(loop->wake_fd, &one, sizeof(one));
}

static void uring_pump_locked(struct loop *loop)
{
	for (;;) {
		unsigned ready;
		int r;

		prep_all_locked(loop);
		ready = io_uring_sq_ready(&loop->ring);
		loop->stuck = false;
		if (!ready)
			return;
		pthread_mutex_unlock(&loop->lock);
		r = io_uring_submit(&loop->ring);
		pthread_mutex_lock(&loop->lock);
		if (r <= 0 && r != -EINTR) {
			loop->stuck = true;
			if (!loop_is_current(loop))
				uring_wake_locked(loop);
			return;
		}
	}
}

static void uring_reap_locked(struct loop *loop, struct list_head *finished)
{
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;
	uint64_t wakes;

	io_uring_for_each_cqe(&loop->ring, head, cqe) {
		count++;
		if (io_uring_cqe_get_data64(cqe) == URING_WAKE) {
			(void)!read(loop->wake_fd, &wakes, sizeof(wakes));
			if (!(cqe->flags & IORING_CQE_F_MORE))
				loop->arm = true;
			continue;
		}
		struct loop_io *io = io_uring_cqe_get_data(cqe);

		io->kernel_result = cqe->res;
		loop->inflight--;
		list_add_tail(&io->link, finished);
	}
	io_uring_cq_advance(&loop->ring, count);
}

static void uring_wait(struct loop *loop, uint64_t until_ns)
{
	struct __kernel_timespec ts;
	struct io_uring_cqe *cqe;
	uint64_t now_ns, wait_ns;

	if (!io_uring_peek_cqe(&loop->ring, &cqe))
		return;
	if (until_ns == LOOP_NEVER) {
		(void)io_uring_wait_cqe(&loop->ring, &cqe);
		return;
	}
	now_ns = clock_now_ns();
	wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
	if (!wait_ns)
		return;
	ts.tv_sec = (long long)(wait_ns / CLOCK_NS_PER_SEC);
	ts.tv_nsec = (long long)(wait_ns % CLOCK_NS_PER_SEC);
	/* With EXT_ARG this does not touch the submission queue (invariant 1). */
	(void)io_uring_wait_cqe_timeout(&loop->ring, &cqe, &ts);
}

static void uring_close(struct loop *loop)
{
	io_uring_queue_exit(&loop->ring);
	close(loop->wake_fd);
}

static const struct loop_backend uring_backend = {
	.pump_locked = uring_pump_locked,
	.reap_locked = uring_reap_locked,
	.wait = uring_wait,
	.wake_locked = uring_wake_locked,
	.close = uring_close,
};

int loop_uring_open(struct loop *loop)
{
	struct io_uring_params params = {0};
	int r;

	r = io_uring_queue_init_params(LOOP_DEPTH, &loop->ring, &params);
	if (r < 0)
		return r;
	if ((params.features & URING_FEATURES) != URING_FEATURES) {
		io_uring_queue_exit(&loop->ring);
		return -EOPNOTSUPP;
	}
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		r = -errno;
		io_uring_queue_exit(&loop->ring);
		return r;
	}
	loop->arm = true;
	loop->backend = &uring_backend;
	return 0;
}
