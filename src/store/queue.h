/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue of requests in front of a store whose requests block: who waits, who runs, the
 * counters. The store says what running a request means, and brings the threads, if any.
 *
 * A request is on the list from store_queue_submit() until some thread takes it off in
 * store_queue_run_one(), runs it and calls its done(). The queue's last use of itself on behalf of
 * a request comes after that done(): store_queue_close() waits for it.
 *
 * Any function from any thread, except that init and close come first and last.
 */
#ifndef STORE_QUEUE_H
#define STORE_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/store.h"

struct store_queue {
	pthread_mutex_t lock;
	pthread_cond_t moved; /* a request has finished, or nothing runs any more */
	uint64_t id;          /* never used twice in a process */
	struct store *store;
	int (*run)(struct store *store, struct store_req *req); /* returns the result */

	/* Under lock. */
	struct list_head list;
	unsigned queued;
	unsigned running;
	uint64_t finished;

	/* Relaxed: each is exact by itself, and none says anything about another. */
	_Atomic uint64_t puts, put_bytes, gets, get_bytes, lists, deletes, errors;
};

void store_queue_init(struct store_queue *q, struct store *store,
		      int (*run)(struct store *store, struct store_req *req));

/* Waits until nothing runs any more, then destroys. Nothing may be queued. */
void store_queue_close(struct store_queue *q);

/* Returns how many wait now. */
unsigned store_queue_submit(struct store_queue *q, struct store_req *req);

/* Runs the oldest request; false if there is none. */
bool store_queue_run_one(struct store_queue *q);

/* Until there is none. From inside done() it returns 0: the run further up the stack goes on. */
int store_queue_run_all(struct store_queue *q);

/*
 * Sleeps until a request has finished since this thread's last call, or nothing runs. A caller
 * that looks, calls this, and looks again misses nothing; 0 may come early. Returns how many.
 */
int store_queue_wait(struct store_queue *q);

void store_queue_counters(struct store_queue *q, struct store_counters *ret);

#endif
