/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What devices with several threads (file, mem) have in common: the lock, who is in flight, who
 * waits for it, the counters, and the guard against recursion through done().
 *
 * A request, or a group of them, is in flight from gate_begin_locked() to gate_end_locked(), with
 * the call of done() in between and outside the lock. gate_end_locked() is the device's last use
 * of itself on behalf of the request: gate_close() waits for it.
 *
 * gate_wait() is poll(wait). It cannot know what its caller waits for, and that may have finished
 * between the caller's look and the call. Each thread therefore remembers how many deliveries it
 * had seen at its last call, and returns at once with 0 if there were any since: the caller
 * looks again, and sleeps at the next call only if nothing was delivered in between.
 */
#ifndef DEV_GATE_H
#define DEV_GATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "dev/dev.h"

struct dev_gate {
	pthread_mutex_t lock; /* the device's own, too */
	pthread_cond_t moved;
	uint64_t id;          /* never used twice in a process */

	/* Under lock. */
	unsigned inflight;
	unsigned waiters;
	uint64_t delivered;

	/* Relaxed: each is exact by itself, and none says anything about another. */
	_Atomic uint64_t reads, read_bytes;
	_Atomic uint64_t writes, write_bytes;
	_Atomic uint64_t flushes;
	_Atomic uint64_t discards, discard_bytes;
	_Atomic uint64_t errors;
};

void gate_init(struct dev_gate *gate);

/* Waits until nothing is in flight any more, then destroys. */
void gate_close(struct dev_gate *gate);

void gate_begin_locked(struct dev_gate *gate);
void gate_end_locked(struct dev_gate *gate);

int gate_wait(struct dev_gate *gate, bool wait);

/* Counts a finished request; before its done(), which may free it. */
void gate_count(struct dev_gate *gate, const struct dev_req *req);
void gate_counters(struct dev_gate *gate, struct dev_counters *ret);

/*
 * Brackets a section that calls done() and may be called from inside done(). enter returns false
 * if this thread is in the section of this gate already: the outer one must do the work.
 */
struct gate_frame {
	const struct dev_gate *gate;
	struct gate_frame *up;
};

bool gate_frame_enter(struct gate_frame *frame, const struct dev_gate *gate);
void gate_frame_leave(struct gate_frame *frame);

/* 0, or what is wrong with the request, by the rules of dev.h: -EINVAL, -EROFS. */
int gate_check(const struct dev *dev, const struct dev_req *req);

#endif
