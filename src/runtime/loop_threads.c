/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transfers by worker threads, where io_uring is refused.
 *
 * Purpose. The same as loop_uring.c by plain system calls. Each transfer is a struct work for a
 * pool of its own, so that blocked I/O cannot keep other work from running.
 *
 * Invariants.
 *  1. A transfer is on loop->pending, or with the pool, or on loop->finished.
 *  2. A worker runs a transfer to its end, so loop.c never has to continue one.
 *  3. inflight <= LOOP_DEPTH; it counts what is with the pool or finished and not reaped.
 *
 * Locks. loop->lock, then the pool's own.
 */
#include "runtime/loop_impl.h"

#include <errno.h>
#include <time.h>

#include "runtime/clock.h"

#define THREADS_MAX 16

static void run_io(struct work *work)
{
	struct loop_io *io = container_of(work, struct loop_io, work);
	struct loop *loop = io->loop;

	io->kernel_result = loop_io_run(io);
	pthread_mutex_lock(&loop->lock);
	list_add_tail(&io->link, &loop->finished);
	pthread_cond_signal(&loop->wakeup);
	pthread_mutex_unlock(&loop->lock);
}

static void threads_pump_locked(struct loop *loop)
{
	while (!list_empty(&loop->pending) && loop->inflight < LOOP_DEPTH) {
		struct loop_io *io = list_entry(list_pop(&loop->pending), struct loop_io, link);

		loop->inflight++;
		io->loop = loop;
		io->work.run = run_io;
		workers_defer(loop->pool, &io->work);
	}
}

static void threads_reap_locked(struct loop *loop, struct list_head *finished)
{
	loop->inflight -= (unsigned)list_count(&loop->finished);
	list_splice_tail(&loop->finished, finished);
}

static void threads_wait(struct loop *loop, uint64_t until_ns)
{
	struct timespec until = clock_timespec(until_ns);
	int r = 0;

	pthread_mutex_lock(&loop->lock);
	while (!r && loop->sleep_until_ns && list_empty(&loop->finished)) {
		if (until_ns == LOOP_NEVER)
			pthread_cond_wait(&loop->wakeup, &loop->lock);
		else
			r = pthread_cond_timedwait(&loop->wakeup, &loop->lock, &until);
	}
	pthread_mutex_unlock(&loop->lock);
}

static void threads_wake_locked(struct loop *loop)
{
	pthread_cond_signal(&loop->wakeup);
}

static void threads_close(struct loop *loop)
{
	workers_close(loop->pool);
}

static const struct loop_backend threads_backend = {
	.pump_locked = threads_pump_locked,
	.reap_locked = threads_reap_locked,
	.wait = threads_wait,
	.wake_locked = threads_wake_locked,
	.close = threads_close,
};

int loop_threads_open(struct loop *loop)
{
	int r = workers_open("varve-io", THREADS_MAX, &loop->pool);

	if (r)
		return r;
	loop->backend = &threads_backend;
	return 0;
}
