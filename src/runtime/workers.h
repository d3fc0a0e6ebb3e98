/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Worker threads for what takes long or blocks: building objects, system calls of the directory
 * store, file I/O where io_uring is refused.
 *
 * A pool runs struct work (base/host.h) in the order in which it was deferred, as many at once as
 * it may have threads. The caller owns the work; from inside run() it may free it or defer it
 * again. Nothing is allocated to defer, so deferring cannot fail.
 *
 * Threads start when there is work for them, up to the pool's limit, and live as long as the pool.
 * They block all signals.
 *
 * After fork() the child has none of the threads: a pool made before must not be used there, and
 * closing it does nothing. The shared pool is made anew for the child's first workers_get().
 *
 * Threads: every function may be called from any thread, but drain, close and put of the last
 * reference not from inside run().
 */
#ifndef RUNTIME_WORKERS_H
#define RUNTIME_WORKERS_H

#include "base/host.h"

#define WORKERS_MAX_THREADS 64

struct workers;

/*
 * A pool of its own with at most max_threads threads (1 to WORKERS_MAX_THREADS), called name in
 * lists of threads (15 characters count). 0, -EINVAL, -ENOMEM, or -EAGAIN when not even one
 * thread could be started.
 */
int workers_open(const char *name, unsigned max_threads, struct workers **ret);

/* Drains, then ends the threads. NULL is fine. */
void workers_close(struct workers *workers);

/* The pool that all volumes of the process share; each get needs its put. */
int workers_get(struct workers **ret);
void workers_put(struct workers *workers);

/* Runs work->run(work) on one of the pool's threads, never inside this call. */
void workers_defer(struct workers *workers, struct work *work);

/* Sleeps until nothing is queued or running, what work has deferred meanwhile included. */
void workers_drain(struct workers *workers);

#endif
