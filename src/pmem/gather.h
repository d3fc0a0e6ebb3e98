/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fences that cost a system call, shared by the threads that wait for one: while a round of
 * writing is under way, what other threads flush is gathered for the next one.
 *
 * The owner keeps what was noted, under the lock; take() moves it to where run() finds it.
 */
#ifndef PMEM_GATHER_H
#define PMEM_GATHER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct gather {
	pthread_mutex_t lock;
	pthread_cond_t finished;
	/* Under lock. */
	uint64_t current; /* the round that is being gathered; the first is 1 */
	uint64_t done;    /* this round and all before it are durable */
	bool noted;       /* current has something to write */
	bool running;
	int error; /* sticky: 0, or why a round failed */
};

struct gather_ops {
	void (*take)(void *owner); /* under the lock; no round is running */
	int (*run)(void *owner);   /* without it; only one at a time */
};

int gather_init(struct gather *g);
void gather_destroy(struct gather *g);

/* Between the two the owner notes something for the current round. */
void gather_begin(struct gather *g);
void gather_end(struct gather *g);

/*
 * When it returns 0 everything noted before is durable, whoever noted it. Else the first error
 * of a round, for ever.
 */
int gather_fence(struct gather *g, const struct gather_ops *ops, void *owner);

#endif
