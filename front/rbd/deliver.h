/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Delivery: completions go from whoever ends a request to who runs the callbacks: one thread for
 * each image, or the user's own, when it polls for events. So a callback never runs inside the call
 * that submitted its request, nor under a lock of the library.
 */
#ifndef RBD_DELIVER_H
#define RBD_DELIVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "completion.h"

/* Pushers' and consumers' fields lie on cache lines of their own. */
#define CACHE_LINE 64

/* A user's descriptor, duplicated: it stays what it is when the user closes its own. */
struct notifier {
	_Atomic int refs;
	int fd;
	int type;
	struct notifier *former; /* that the user has replaced; all end with the image */
};

struct deliver {
	/* The newest first; or ASLEEP (deliver.c), or NULL. A futex, too. */
	_Alignas(CACHE_LINE) _Atomic(struct completion *) head;
	_Atomic(struct notifier *) notifier; /* NULL: no events are wanted */
	_Atomic bool polling;		     /* the user polls, and runs its callbacks */

	_Alignas(CACHE_LINE) pthread_mutex_t lock;
	/* Guarded by lock. */
	struct completion *batch;		 /* taken from head, the oldest first */
	struct completion *polled, **polled_end; /* ended, to be polled for */

	unsigned int held; /* that the thread has taken, told is set, not yet in polled */
	bool missed;	   /* a poller came for one of these in vain */
	pthread_cond_t published;

	_Alignas(CACHE_LINE) _Atomic uint64_t polls; /* calls of rbd_poll_io_events() */
	_Atomic uint32_t hurry;			     /* a futex: pollers are not waited for */

	/* The thread's own. */
	uint64_t ended;				 /* not yet counted with image_leave() */
	struct completion *events, **events_end; /* not yet published to pollers */
	unsigned int n_untold; /* of these, of which the descriptor does not know */
	unsigned int n_events;
	unsigned int linger_skip, linger_miss; /* do not linger so many times; in vain so often */
	bool stop;
	pthread_t thread;
};

int deliver_start(struct deliver *d);

/* Everything that was pushed is ended; then the thread is. */
void deliver_stop(struct deliver *d);

/* The request of c is over, its result set. The last use of c, and of d unless something else of
 * the caller's keeps the image open. Never blocks. */
void deliver_push(struct deliver *d, struct completion *c);

/* From now on the thread waits for no poller. */
void deliver_hurry(struct deliver *d);

/* Whether this is the thread that delivers. */
bool deliver_is_here(const struct deliver *d);

/* Whether this thread runs a callback of this image. */
bool deliver_in_callback(const struct deliver *d);

/* In that thread: delivers until this one is over. */
void deliver_until(struct deliver *d, struct completion *wanted);

#endif
