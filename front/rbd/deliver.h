/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Delivery: completions go from whoever ends a request to one thread for each image, which runs the
 * callbacks. So a callback never runs inside the call that submitted its request, nor under a lock
 * of the library, and callbacks of one image never run at the same time.
 */
#ifndef RBD_DELIVER_H
#define RBD_DELIVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "completion.h"

/* Pushers' and thread's fields lie on cache lines of their own. */
#define CACHE_LINE 64

struct deliver {
	/* The newest first; or ASLEEP (deliver.c), or NULL. A futex, too. */
	_Alignas(CACHE_LINE) _Atomic(struct completion *) head;

	/* The thread's own: what it has taken and not yet ended, the oldest first. */
	_Alignas(CACHE_LINE) struct completion *batch;
	uint64_t ended; /* of this batch, not yet counted with image_leave() */
	struct completion *events, **events_end; /* not yet published to pollers */
	unsigned int n_events;
	unsigned int linger_skip, linger_miss; /* do not linger so many times; in vain so often */
	bool stop;
	pthread_t thread;

	/* Events: guarded by lock. */
	_Alignas(CACHE_LINE) pthread_mutex_t lock;
	struct completion *polled, **polled_end;
	/* Written under lock; read by the thread without it: a request that ends while the user
	 * switches may be told either way. */
	_Atomic int fd;
	_Atomic int type;
};

int deliver_start(struct deliver *d);

/* Everything that was pushed is ended; then the thread is. */
void deliver_stop(struct deliver *d);

/* The request of c is over, its result set. The last use of c, and of d unless something else of
 * the caller's keeps the image open. Never blocks. */
void deliver_push(struct deliver *d, struct completion *c);

/* Whether this is the thread that delivers. */
bool deliver_is_here(const struct deliver *d);

/* In that thread: waits for a completion if none is there, and ends one. */
void deliver_next(struct deliver *d);

#endif
