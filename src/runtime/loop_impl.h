/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the loop share: loop.c (life, thread, timers), loop_io.c (one transfer),
 * loop_uring.c and loop_threads.c (the two ways to run transfers). Nobody else includes this.
 */
#ifndef RUNTIME_LOOP_IMPL_H
#define RUNTIME_LOOP_IMPL_H

#include <liburing.h>
#include <pthread.h>

#include "runtime/loop.h"
#include "runtime/workers.h"

#define LOOP_NEVER UINT64_MAX

/*
 * How transfers are run. pump and reap are called with loop->lock held and may let go of it in
 * between; wait and wake are not.
 */
struct loop_backend {
	/* Starts what is pending, as far as LOOP_DEPTH allows. */
	void (*pump_locked)(struct loop *loop);
	/* Moves what the kernel has finished to the list. */
	void (*reap_locked)(struct loop *loop, struct list_head *finished);
	/* Sleeps until there is something to reap, somebody wakes, or the time has come. */
	void (*wait)(struct loop *loop, uint64_t until_ns);
	void (*wake_locked)(struct loop *loop);
	void (*close)(struct loop *loop);
};

struct loop {
	pthread_mutex_t lock;
	pthread_cond_t fired;        /* firing became NULL */
	pthread_cond_t wakeup;       /* threads: sleep_until_ns became 0, or finished not empty */
	const struct loop_backend *backend;
	pthread_t thread;
	bool dead;                   /* inherited through fork(); set before there are threads */

	/* Under lock. */
	struct list_head pending;    /* loop_io: not started yet */
	struct list_head posted;     /* work */
	struct list_head timers;     /* loop_timer, by when_ns */
	struct loop_timer *firing;   /* may be freed already: for comparison only */
	uint64_t sleep_until_ns;     /* 0: the thread is awake and will look at everything */
	unsigned inflight;           /* started, not reaped; at most LOOP_DEPTH */
	bool pumping;                /* somebody is in pump_locked, and looks at pending again */
	bool stopping;
	bool put_by_callback;        /* nobody joins the thread: it frees the loop itself */

	/* loop_uring.c. The submission side belongs to whoever pumps. */
	struct io_uring ring;
	bool stuck;                  /* the kernel took less than it was given; try again soon */
	bool arm;                    /* the poll of wake_fd is to be set up (again) */
	int wake_fd;

	/* loop_threads.c */
	struct workers *pool;
	struct list_head finished;   /* under lock */
};

int loop_uring_open(struct loop *loop);
int loop_threads_open(struct loop *loop);

/* Sets the state of a transfer to its beginning. */
void loop_io_start(struct loop_io *io);

/*
 * What to ask of the kernel next: at most one vector's worth. A part of one element is built in
 * *one. Returns the number of elements.
 */
int loop_io_vec(const struct loop_io *io, struct iovec *one, const struct iovec **ret_iov);

/* Takes a result of the kernel. Returns true when the transfer is over and io->result valid. */
bool loop_io_step(struct loop_io *io, int kernel_result);

/* The fallocate mode of PUNCH and ZERO. */
int loop_io_falloc_mode(const struct loop_io *io);

#endif
