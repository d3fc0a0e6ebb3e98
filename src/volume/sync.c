/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls that wait.
 *
 * A waiting thread has nothing better to do than the work it waits for. While its request is not
 * done it runs what is queued for the cache device, one request at a time and by plain system
 * calls (host.c, "who runs what is queued"): a lone write and flush is one pwrite and one
 * fdatasync on the caller's own thread. When there is nothing to run, the work is in the hands of
 * another thread, which will call done(); then it sleeps on a futex of its own.
 *
 *	IDLE --sleep--> ASLEEP --done()--> DONE (and a wake-up)
 *	  \------------done()----------------^  (without one)
 *
 * Invariants
 *   1. A waiter leaves only in DONE, so its request and buffers outlive their use. done() may
 *      still wake an address that is no longer a waiter's; futex allows for wake-ups of no reason,
 *      and every sleeper looks again.
 *   2. Before it sleeps and before it returns, a thread kicks what it owes.
 *   3. A thread that runs a done() must not wait: -EDEADLK.
 */
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "volume/volume.h"

enum {
	WAIT_IDLE,
	WAIT_ASLEEP,
	WAIT_DONE,
};

struct waiter {
	_Atomic uint32_t state;
};

static void waiter_done(struct varve_io *io)
{
	struct waiter *w = io->user;
	/* Releases the result and the data to the waiter's acquire loads. */
	const uint32_t old = atomic_exchange_explicit(&w->state, WAIT_DONE, memory_order_acq_rel);

	if (old == WAIT_ASLEEP)
		syscall(SYS_futex, &w->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool waiter_is_done(struct waiter *w)
{
	return atomic_load_explicit(&w->state, memory_order_acquire) == WAIT_DONE;
}

static void waiter_sleep(struct waiter *w)
{
	uint32_t idle = WAIT_IDLE;

	/* Fails when it is done, or is asleep already after a wake-up of no reason. */
	atomic_compare_exchange_strong_explicit(&w->state, &idle, WAIT_ASLEEP,
						memory_order_acq_rel, memory_order_acquire);
	syscall(SYS_futex, &w->state, FUTEX_WAIT_PRIVATE, WAIT_ASLEEP, NULL, NULL, 0);
}

static void wait_done(struct varve_volume *vol, struct waiter *w)
{
	while (!waiter_is_done(w)) {
		if (vhost_help(&vol->h))
			continue;
		vhost_help_settle(&vol->h);
		if (!waiter_is_done(w))
			waiter_sleep(w);
	}
}

static const char *op_name(enum varve_op op)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "zero"};

	return (unsigned int)op < sizeof(names) / sizeof(names[0]) ? names[op] : "request";
}

/* The text of a failure: the reason why the right was refused, if that is it. */
static int explain(struct varve_volume *vol, struct varve_io *io)
{
	struct err *err = errmsg_begin();
	const int rc = io->result;

	if (rc == -EOWNERDEAD)
		return errmsg_check_owner(vol);
	if (vio_of(io)->refused) {
		volume_enter(vol);
		*err = vol->acquire_err;
		volume_leave(vol);
	}
	return errmsg_set(rc, "%s of %llu bytes at %llu of volume %s: %s", op_name(io->op),
			  (unsigned long long)io->length, (unsigned long long)io->offset,
			  vol->cfg.name, strerror(-rc));
}

static int run(struct varve_volume *vol, struct varve_io *io)
{
	struct waiter w;
	bool waits;

	if (vhost_delivering()) {
		errmsg_begin();
		return errmsg_set(-EDEADLK, "a call that waits was made from inside done()");
	}
	atomic_init(&w.state, WAIT_IDLE);
	io->user = &w;
	io->done = waiter_done;
	if (volume_forked(vol)) {
		io->result = -EOWNERDEAD;
		return explain(vol, io);
	}
	vhost_help_begin(&vol->h, io->op == VARVE_READ);
	vio_start(vol, io, true);
	waits = !waiter_is_done(&w);
	if (waits) {
		if (vio_of(io)->runs_acquire)
			acquire_run(vol);
		wait_done(vol, &w);
	}
	vhost_help_end(&vol->h, waits);
	return io->result ? explain(vol, io) : 0;
}

static int run_range(struct varve_volume *vol, enum varve_op op, void *buf, uint64_t offset,
		     uint64_t length, unsigned int flags)
{
	struct iovec iov = {.iov_base = buf, .iov_len = length};
	struct varve_io io;

	/* Not an initialiser: that would clear the library's part too, which needs none. */
	io.op = op;
	io.flags = flags;
	io.offset = offset;
	io.length = length;
	io.iov = &iov;
	io.iovcnt = buf ? 1 : 0;
	return run(vol, &io);
}

int varve_pread(struct varve_volume *volume, void *buf, size_t length, uint64_t offset)
{
	return run_range(volume, VARVE_READ, buf, offset, length, 0);
}

int varve_pwrite(struct varve_volume *volume, const void *buf, size_t length,
			   uint64_t offset, unsigned int flags)
{
	/* The engine only reads it: a struct iovec has no const. */
	return run_range(volume, VARVE_WRITE, (void *)(uintptr_t)buf, offset, length, flags);
}

int varve_flush(struct varve_volume *volume)
{
	return run_range(volume, VARVE_FLUSH, NULL, 0, 0, 0);
}

int varve_discard(struct varve_volume *volume, uint64_t offset, uint64_t length,
			    unsigned int flags)
{
	return run_range(volume, VARVE_DISCARD, NULL, offset, length, flags);
}

int varve_zero(struct varve_volume *volume, uint64_t offset, uint64_t length,
			 unsigned int flags)
{
	return run_range(volume, VARVE_ZERO, NULL, offset, length, flags);
}
