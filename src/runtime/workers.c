/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Worker threads.
 *
 * Purpose. A bounded number of threads for work that blocks, with a queue in front.
 *
 * Why not GLib's GThreadPool: it allocates for each push, and GLib aborts where malloc fails; its
 * idle threads are shared through a global list that a fork()ed child inherits without the
 * threads, so that work of the child would wait for ever.
 *
 * Data structure. A list of struct work, and the threads in an array, started one by one when
 * there is more work than idle threads. The first is started with the pool, so that work always
 * finds someone: a later pthread_create() may fail, and then the pool has fewer threads.
 *
 * Invariants.
 *  1. A work is on the queue or being run by one thread, never both; run() owns it from its first
 *     instruction on, so it is not touched after the call.
 *  2. busy counts threads inside run(). The pool is drained when the queue is empty and busy is 0.
 *  3. Threads end only when stopping is set and the queue is empty.
 *  4. With work queued and a thread idle, a wake-up is under way (signalled under the lock).
 *
 * Locks. workers->lock guards all of the struct; run() is called without it. shared_lock guards
 * the shared pool's pointer and reference count, and is taken first.
 *
 * Fork. A pool knows the generation in which it was made; the child's handler counts generations
 * up and forgets the shared pool. It leaks the memory, as the locks in it may be held by threads
 * that no longer exist.
 */
#include "runtime/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define WORKERS_SHARED_THREADS 4
#define WORKERS_NAME_LEN 16

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t more;    /* something was queued, or stopping */
	pthread_cond_t drained; /* see invariant 2 */
	struct list_head queue;
	unsigned queued;
	unsigned idle;
	unsigned busy;
	unsigned started;
	unsigned max_threads;
	bool stopping;
	unsigned generation;
	char name[WORKERS_NAME_LEN];
	pthread_t threads[WORKERS_MAX_THREADS];
};

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct workers *shared; /* with shared_refs, under shared_lock */
static unsigned shared_refs;
static struct workers *orphan; /* the parent's; kept so that it counts as reachable */
static atomic_uint generation; /* of processes, counted by fork() */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void)
{
	pthread_mutex_lock(&shared_lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&shared_lock);
}

static void after_fork_child(void)
{
	pthread_mutex_init(&shared_lock, NULL);
	/* Relaxed: the child has one thread. */
	atomic_fetch_add_explicit(&generation, 1, memory_order_relaxed);
	if (shared)
		orphan = shared;
	shared = NULL;
	shared_refs = 0;
}

static void watch_fork(void)
{
	/* Fails only without memory; then a fork()ed child cannot use the shared pool. */
	(void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static void *worker_main(void *arg)
{
	struct workers *workers = arg;

	pthread_mutex_lock(&workers->lock);
	for (;;) {
		struct list_head *link = list_pop(&workers->queue);

		if (link) {
			struct work *work = list_entry(link, struct work, link);

			workers->queued--;
			workers->busy++;
			pthread_mutex_unlock(&workers->lock);
			work->run(work);
			pthread_mutex_lock(&workers->lock);
			workers->busy--;
			if (!workers->busy && list_empty(&workers->queue))
				pthread_cond_broadcast(&workers->drained);
			continue;
		}
		if (workers->stopping)
			break;
		workers->idle++;
		pthread_cond_wait(&workers->more, &workers->lock);
		workers->idle--;
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

static int start_thread_locked(struct workers *workers)
{
	pthread_t *thread = &workers->threads[workers->started];
	sigset_t all, old;
	int r;

	/* Signals are for the program's own threads; but a fault of mapped memory, if blocked,
	 * kills the process instead of coming to its handler (pmem/guard.c). */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(thread, NULL, worker_main, workers);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return -r;
	pthread_setname_np(*thread, workers->name);
	workers->started++;
	return 0;
}

static bool is_inherited(const struct workers *workers)
{
	return workers->generation != atomic_load_explicit(&generation, memory_order_relaxed);
}

int workers_open(const char *name, unsigned max_threads, struct workers **ret)
{
	struct workers *workers;
	int r;

	if (!max_threads || max_threads > WORKERS_MAX_THREADS)
		return -EINVAL;
	pthread_once(&fork_once, watch_fork);
	workers = calloc(1, sizeof(*workers));
	if (!workers)
		return -ENOMEM;
	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->more, NULL);
	pthread_cond_init(&workers->drained, NULL);
	list_init(&workers->queue);
	workers->max_threads = max_threads;
	workers->generation = atomic_load_explicit(&generation, memory_order_relaxed);
	snprintf(workers->name, sizeof(workers->name), "%s", name);
	pthread_mutex_lock(&workers->lock);
	r = start_thread_locked(workers);
	pthread_mutex_unlock(&workers->lock);
	if (r) {
		workers_close(workers);
		return r;
	}
	*ret = workers;
	return 0;
}

void workers_close(struct workers *workers)
{
	unsigned i, started;

	if (!workers || is_inherited(workers))
		return;
	pthread_mutex_lock(&workers->lock);
	workers->stopping = true;
	pthread_cond_broadcast(&workers->more);
	/* Work that still runs may defer more, and start one more thread: count at the end. */
	while (workers->busy || !list_empty(&workers->queue))
		pthread_cond_wait(&workers->drained, &workers->lock);
	started = workers->started;
	pthread_mutex_unlock(&workers->lock);
	for (i = 0; i < started; i++)
		pthread_join(workers->threads[i], NULL);
	pthread_cond_destroy(&workers->drained);
	pthread_cond_destroy(&workers->more);
	pthread_mutex_destroy(&workers->lock);
	free(workers);
}

int workers_get(struct workers **ret)
{
	int r = 0;

	pthread_once(&fork_once, watch_fork);
	pthread_mutex_lock(&shared_lock);
	if (!shared)
		r = workers_open("varve-worker", WORKERS_SHARED_THREADS, &shared);
	if (!r) {
		shared_refs++;
		*ret = shared;
	}
	pthread_mutex_unlock(&shared_lock);
	return r;
}

void workers_put(struct workers *workers)
{
	bool last;

	if (!workers || is_inherited(workers))
		return;
	pthread_mutex_lock(&shared_lock);
	assert(workers == shared && shared_refs);
	last = --shared_refs == 0;
	if (last)
		shared = NULL;
	pthread_mutex_unlock(&shared_lock);
	if (last)
		workers_close(workers);
}

void workers_defer(struct workers *workers, struct work *work)
{
	assert(!is_inherited(workers));
	pthread_mutex_lock(&workers->lock);
	list_add_tail(&work->link, &workers->queue);
	workers->queued++;
	if (workers->idle)
		pthread_cond_signal(&workers->more);
	if (workers->queued > workers->idle && workers->started < workers->max_threads)
		(void)start_thread_locked(workers);
	pthread_mutex_unlock(&workers->lock);
}

void workers_drain(struct workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	while (workers->busy || !list_empty(&workers->queue))
		pthread_cond_wait(&workers->drained, &workers->lock);
	pthread_mutex_unlock(&workers->lock);
}
