/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Gathering of fences.
 *
 * Purpose. A fence must cover what its own thread has flushed. Another thread's round may have
 * taken that along before this thread came to fence: then it is enough, and necessary, to wait for
 * that round. And of many threads that fence at once one does the work for all.
 *
 * Data structure. Rounds are numbered. Notes go to the current one; whoever needs it and finds
 * nobody running takes it, which opens the next.
 *
 * Invariants.
 *  1. done < current; rounds between the two are the one that is running, or failed.
 *  2. After a failed round none is run: what it could not write may no longer count as dirty, and
 *     the next round could report it durable.
 *
 * Locks. lock, which is not held while a round runs.
 */
#include "pmem/gather.h"

int gather_init(struct gather *g)
{
	int r = pthread_mutex_init(&g->lock, NULL);

	if (r)
		return -r;
	r = pthread_cond_init(&g->finished, NULL);
	if (r) {
		pthread_mutex_destroy(&g->lock);
		return -r;
	}
	g->current = 1;
	g->done = 0;
	g->noted = false;
	g->running = false;
	g->error = 0;
	return 0;
}

void gather_destroy(struct gather *g)
{
	pthread_cond_destroy(&g->finished);
	pthread_mutex_destroy(&g->lock);
}

void gather_begin(struct gather *g)
{
	pthread_mutex_lock(&g->lock);
}

void gather_end(struct gather *g)
{
	g->noted = true;
	pthread_mutex_unlock(&g->lock);
}

static void run_round_locked(struct gather *g, const struct gather_ops *ops, void *owner)
{
	uint64_t round = g->current++;
	int r;

	g->running = true;
	g->noted = false;
	ops->take(owner);
	pthread_mutex_unlock(&g->lock);
	r = ops->run(owner);
	pthread_mutex_lock(&g->lock);
	g->running = false;
	if (r)
		g->error = r;
	else
		g->done = round;
	pthread_cond_broadcast(&g->finished);
}

int gather_fence(struct gather *g, const struct gather_ops *ops, void *owner)
{
	uint64_t want;
	int r;

	pthread_mutex_lock(&g->lock);
	want = g->noted ? g->current : g->current - 1;
	while (!g->error && g->done < want) {
		if (g->running)
			pthread_cond_wait(&g->finished, &g->lock);
		else
			run_round_locked(g, ops, owner);
	}
	r = g->error;
	pthread_mutex_unlock(&g->lock);
	return r;
}
