/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop: file I/O by io_uring, timers, and work for one thread. There is one for each
 * process, made by the first loop_get() and ended by the last loop_put().
 *
 * I/O. The owner fills in the public part of a struct loop_io and must leave it, the vector and
 * the buffers alone until done() is called. loop_submit() never sleeps: the calling thread enters
 * the kernel once for all that it hands over, and what exceeds the bound of LOOP_DEPTH in flight
 * waits in a queue. done() is called exactly once for each, never inside loop_submit() (with one
 * exception, see "Fork"), with io->result 0 or a negative errno. Short transfers are continued and
 * those that the kernel asks to repeat (EAGAIN, EINTR, ECANCELED) are repeated, LOOP_RETRIES times
 * without progress at most; a transfer that makes no progress is -EIO.
 *
 * Where io_uring is refused (an old kernel, seccomp, sysctl), or with VARVE_NO_URING=1 in the
 * environment, worker threads make the same system calls one by one. Nothing else changes.
 *
 * Callbacks (done of I/O, timers, posted work) all run on the loop's one thread with no lock held.
 * They must not sleep: above all they must not wait for anything that the loop delivers
 * (dev_sync() of a file, loop_put() of another thread's callback). They may submit, set and cancel
 * timers, post, and drop the last reference. What they submit is handed to the kernel together,
 * soon after they return.
 *
 * Fork. The child of a process that had a loop does not have its thread. There, loop_get() makes a
 * new one. A loop that was made by the parent is dead in the child: loop_submit() calls done() at
 * once, inline, with -EOWNERDEAD; timers and posted work never run; loop_put() does nothing.
 */
#ifndef RUNTIME_LOOP_H
#define RUNTIME_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/host.h"
#include "base/list.h"

#define LOOP_DEPTH 1024  /* in flight at once */
#define LOOP_RETRIES 100 /* of one transfer, without progress */

struct loop;

enum loop_op {
	LOOP_READ,
	LOOP_WRITE, /* with sync: RWF_DSYNC */
	LOOP_FLUSH, /* fdatasync */
	LOOP_PUNCH, /* fallocate: deallocate; the file's size stays */
	LOOP_ZERO,  /* fallocate: reads as zeros afterwards; the file's size stays */
};

struct loop_io {
	struct list_head link; /* the owner's in loop_submit(), the loop's from there to done */
	enum loop_op op;
	bool sync;
	int fd;
	int iovcnt;
	const struct iovec *iov; /* READ, WRITE: sums to len_bytes */
	uint64_t off_bytes;
	uint64_t len_bytes; /* READ, WRITE: not 0 */
	int result;
	void (*done)(struct loop_io *io);

	/* The loop's: how far the transfer has come. */
	int kernel_result;
	unsigned retries;
	int iov_idx;
	uint64_t iov_skip_bytes; /* of iov[iov_idx] */
	uint64_t moved_bytes;
	struct loop *loop;
	struct work work;
};

/* 0, -ENOMEM, -EAGAIN (no thread). Each get needs its put. */
int loop_get(struct loop **ret);
void loop_put(struct loop *loop);

/* Whether the I/O goes through io_uring. */
bool loop_has_uring(const struct loop *loop);

/* Whether the caller is a callback of this loop. */
bool loop_is_current(const struct loop *loop);

/* Starts all of the list, which is empty afterwards. From any thread. */
void loop_submit(struct loop *loop, struct list_head *ios);

/*
 * Does the same for one, on the calling thread, by plain system calls: returns and sets
 * io->result. Needs no loop; done() is not called.
 */
int loop_io_run(struct loop_io *io);

/*
 * Timers. The owner keeps the struct until it has fired or was cancelled. One shot: fn() may set
 * it again, or free it.
 */
struct loop_timer {
	struct list_head link;
	uint64_t when_ns; /* by clock_now_ns() */
	bool armed;
	void (*fn)(struct loop_timer *timer);
};

void loop_timer_init(struct loop_timer *timer, void (*fn)(struct loop_timer *timer));

/* Calls fn() at or soon after when_ns. A timer that is set already is moved. From any thread. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t when_ns);

/*
 * Afterwards fn() is not running and will not run (unless somebody sets the timer again). From any
 * thread; from inside fn() itself it only takes back a set. Not with a lock held that fn() takes.
 */
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

/* Runs work->run(work) on the loop's thread, soon, in order. From any thread. */
void loop_post(struct loop *loop, struct work *work);

#endif
