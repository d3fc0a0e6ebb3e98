/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop.
 *
 * Purpose. One thread for each process that delivers completions, timers and posted work.
 *
 * Data structure. Three lists: pending transfers, posted work, timers in the order of their time
 * (a process has a few for each volume, so a sorted list will do). The backend (loop_uring.c or
 * loop_threads.c) starts transfers and brings them back.
 *
 *	loop_submit -> pending -> [pump] -> in flight -> [reap] -> finished -> [deliver] -> done()
 *	                  ^                                            |
 *	                  +------------- short or to be repeated ------+
 *
 * One turn of the thread: deliver what has finished, fire timers, run posted work, pump, sleep.
 * What a callback submits is pumped when it returns: to gather it over several callbacks saves
 * system calls, but leaves the device idle meanwhile, and costs more than it saves.
 *
 * Invariants.
 *  1. All callbacks run on the thread, without the lock. After a callback the loop does not touch
 *     what the callback was given.
 *  2. sleep_until_ns is set, under the lock and after the last look at all lists, before the
 *     thread sleeps; whoever adds something it would have to get up for resets it and wakes.
 *  3. The thread ends when stopping is set and nothing is pending, in flight or posted. Timers
 *     that are still set then never fire.
 *  4. A timer is on a list exactly if armed.
 *
 * Locks. process_lock (the process's loop, its reference count), then loop->lock, then those of
 * worker pools. Callbacks are called with none of them.
 */
#include "runtime/loop_impl.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/clock.h"

#define STUCK_NS CLOCK_NS_PER_MS

static pthread_mutex_t process_lock = PTHREAD_MUTEX_INITIALIZER;
static struct loop *process_loop; /* with process_refs, under process_lock */
static unsigned process_refs;
static struct loop *orphan; /* the parent's; kept so that it counts as reachable */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static _Thread_local struct loop *current_loop;

/* fork: both locks are held across it, so that the child finds consistent lists. */

static void before_fork(void)
{
	pthread_mutex_lock(&process_lock);
	if (process_loop)
		pthread_mutex_lock(&process_loop->lock);
}

static void after_fork_parent(void)
{
	if (process_loop)
		pthread_mutex_unlock(&process_loop->lock);
	pthread_mutex_unlock(&process_lock);
}

static void after_fork_child(void)
{
	pthread_mutex_init(&process_lock, NULL);
	if (process_loop) {
		pthread_mutex_init(&process_loop->lock, NULL);
		process_loop->dead = true;
		process_loop->sleep_until_ns = 0; /* no wake-up is ever written to a closed fd */
		/* The ring and the eventfd are shared with the parent: let go of our end. */
		if (loop_has_uring(process_loop))
			process_loop->backend->close(process_loop);
		orphan = process_loop;
	}
	process_loop = NULL;
	process_refs = 0;
	current_loop = NULL;
}

static void watch_fork(void)
{
	(void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static void wake_locked(struct loop *loop)
{
	if (!loop->sleep_until_ns)
		return;
	loop->sleep_until_ns = 0;
	loop->backend->wake_locked(loop);
}

static void pump_locked(struct loop *loop)
{
	/* Whoever pumps looks at pending again before it leaves. */
	if (loop->pumping)
		return;
	loop->pumping = true;
	loop->backend->pump_locked(loop);
	loop->pumping = false;
	/* The thread does not end while somebody is in here. */
	if (loop->stopping)
		wake_locked(loop);
}

static void pump(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	if (!list_empty(&loop->pending))
		pump_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}

static void continue_io(struct loop *loop, struct loop_io *io)
{
	pthread_mutex_lock(&loop->lock);
	list_add_tail(&io->link, &loop->pending);
	pthread_mutex_unlock(&loop->lock);
}

static void deliver(struct loop *loop)
{
	struct list_head finished = LIST_INIT(finished);
	struct list_head *link;

	pthread_mutex_lock(&loop->lock);
	loop->sleep_until_ns = 0;
	loop->backend->reap_locked(loop, &finished);
	pthread_mutex_unlock(&loop->lock);
	while ((link = list_pop(&finished))) {
		struct loop_io *io = list_entry(link, struct loop_io, link);

		if (!loop_has_uring(loop) || loop_io_step(io, io->kernel_result))
			io->done(io);
		else
			continue_io(loop, io);
		pump(loop);
	}
}

/* Fires what is due now, but not what the callbacks set meanwhile: that waits for the next turn. */
static void fire_timers(struct loop *loop)
{
	struct list_head due = LIST_INIT(due);
	struct list_head *link, *tmp;
	uint64_t now_ns = 0;

	pthread_mutex_lock(&loop->lock);
	if (!list_empty(&loop->timers))
		now_ns = clock_now_ns();
	list_for_each_safe(link, tmp, &loop->timers) {
		if (list_entry(link, struct loop_timer, link)->when_ns > now_ns)
			break;
		list_del(link);
		list_add_tail(link, &due);
	}
	while ((link = list_pop(&due))) {
		struct loop_timer *timer = list_entry(link, struct loop_timer, link);

		timer->armed = false;
		loop->firing = timer;
		pthread_mutex_unlock(&loop->lock);
		timer->fn(timer);
		pthread_mutex_lock(&loop->lock);
		loop->firing = NULL;
		pthread_cond_broadcast(&loop->fired);
	}
	pthread_mutex_unlock(&loop->lock);
}

static void run_posted(struct loop *loop)
{
	struct list_head posted = LIST_INIT(posted);
	struct list_head *link;

	pthread_mutex_lock(&loop->lock);
	list_splice_tail(&loop->posted, &posted);
	pthread_mutex_unlock(&loop->lock);
	while ((link = list_pop(&posted))) {
		struct work *work = list_entry(link, struct work, link);

		work->run(work);
	}
}

/* Until when the thread may sleep; 0 if it must not. */
static uint64_t sleep_until_locked(const struct loop *loop)
{
	uint64_t until_ns = LOOP_NEVER;

	if (!list_empty(&loop->posted))
		return 0;
	if (!list_empty(&loop->timers))
		until_ns = list_first_entry(&loop->timers, struct loop_timer, link)->when_ns;
	if (loop->stuck) {
		uint64_t retry_ns = clock_now_ns() + STUCK_NS;

		until_ns = retry_ns < until_ns ? retry_ns : until_ns;
	}
	return until_ns;
}

/* One turn. Returns false when the loop is to end. */
static bool turn(struct loop *loop)
{
	uint64_t until_ns;
	bool idle;

	deliver(loop);
	fire_timers(loop);
	run_posted(loop);
	pthread_mutex_lock(&loop->lock);
	pump_locked(loop);
	idle = list_empty(&loop->pending) && list_empty(&loop->posted) && !loop->inflight;
	if (loop->stopping && idle && !loop->pumping) {
		pthread_mutex_unlock(&loop->lock);
		return false;
	}
	until_ns = sleep_until_locked(loop);
	loop->sleep_until_ns = until_ns;
	pthread_mutex_unlock(&loop->lock);
	if (until_ns)
		loop->backend->wait(loop, until_ns);
	return true;
}

static void loop_free(struct loop *loop)
{
	if (loop->backend)
		loop->backend->close(loop);
	pthread_cond_destroy(&loop->wakeup);
	pthread_cond_destroy(&loop->fired);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static void *loop_main(void *arg)
{
	struct loop *loop = arg;

	current_loop = loop;
	while (turn(loop))
		;
	/* Set by this thread, if at all. */
	if (loop->put_by_callback) {
		pthread_detach(pthread_self());
		loop_free(loop);
	}
	return NULL;
}

static bool uring_wanted(void)
{
	const char *no = getenv("VARVE_NO_URING");

	return !no || !*no || !strcmp(no, "0");
}

static int start_thread(struct loop *loop)
{
	sigset_t all, old;
	int r;

	/* Signals are for the program's own threads; but a fault of mapped memory, if blocked,
	 * kills the process instead of coming to its handler (pmem/guard.c). */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&loop->thread, NULL, loop_main, loop);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return -r;
	pthread_setname_np(loop->thread, "varve-loop");
	return 0;
}

static int loop_new(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	pthread_condattr_t attr;
	int r;

	if (!loop)
		return -ENOMEM;
	pthread_mutex_init(&loop->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&loop->fired, NULL);
	pthread_cond_init(&loop->wakeup, &attr);
	pthread_condattr_destroy(&attr);
	list_init(&loop->pending);
	list_init(&loop->posted);
	list_init(&loop->timers);
	list_init(&loop->finished);
	if (!uring_wanted() || loop_uring_open(loop) < 0) {
		r = loop_threads_open(loop);
		if (r)
			goto out;
	}
	r = start_thread(loop);
	if (r)
		goto out;
	*ret = loop;
	return 0;
out:
	loop_free(loop);
	return r;
}

int loop_get(struct loop **ret)
{
	int r = 0;

	pthread_once(&fork_once, watch_fork);
	pthread_mutex_lock(&process_lock);
	if (!process_loop)
		r = loop_new(&process_loop);
	if (!r) {
		process_refs++;
		*ret = process_loop;
	}
	pthread_mutex_unlock(&process_lock);
	return r;
}

void loop_put(struct loop *loop)
{
	bool last;

	if (!loop || loop->dead)
		return;
	pthread_mutex_lock(&process_lock);
	assert(loop == process_loop && process_refs);
	last = --process_refs == 0;
	if (last)
		process_loop = NULL;
	pthread_mutex_unlock(&process_lock);
	if (!last)
		return;
	pthread_mutex_lock(&loop->lock);
	loop->stopping = true;
	loop->put_by_callback = loop_is_current(loop);
	wake_locked(loop);
	pthread_mutex_unlock(&loop->lock);
	if (loop_is_current(loop))
		return;
	pthread_join(loop->thread, NULL);
	loop_free(loop);
}

bool loop_has_uring(const struct loop *loop)
{
	return !loop->pool;
}

bool loop_is_current(const struct loop *loop)
{
	return loop == current_loop;
}

static void refuse_all(struct list_head *ios)
{
	struct list_head *link;

	while ((link = list_pop(ios))) {
		struct loop_io *io = list_entry(link, struct loop_io, link);

		io->result = -EOWNERDEAD;
		io->done(io);
	}
}

void loop_submit(struct loop *loop, struct list_head *ios)
{
	struct loop_io *io;

	if (loop->dead) {
		refuse_all(ios);
		return;
	}
	list_for_each_entry(io, ios, struct loop_io, link)
		loop_io_start(io);
	pthread_mutex_lock(&loop->lock);
	list_splice_tail(ios, &loop->pending);
	/* The thread itself pumps after its callbacks. */
	if (!loop_is_current(loop))
		pump_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}

void loop_timer_init(struct loop_timer *timer, void (*fn)(struct loop_timer *timer))
{
	list_init(&timer->link);
	timer->when_ns = 0;
	timer->armed = false;
	timer->fn = fn;
}

static void timer_remove_locked(struct loop_timer *timer)
{
	if (timer->armed)
		list_del(&timer->link);
	timer->armed = false;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t when_ns)
{
	struct list_head *pos;

	pthread_mutex_lock(&loop->lock);
	timer_remove_locked(timer);
	timer->when_ns = when_ns;
	timer->armed = true;
	/* From the back: new timers are mostly later than those there are. */
	for (pos = loop->timers.prev; pos != &loop->timers; pos = pos->prev)
		if (list_entry(pos, struct loop_timer, link)->when_ns <= when_ns)
			break;
	list_add(&timer->link, pos);
	if (when_ns < loop->sleep_until_ns)
		wake_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
	pthread_mutex_lock(&loop->lock);
	timer_remove_locked(timer);
	while (loop->firing == timer && !loop->dead && !loop_is_current(loop)) {
		pthread_cond_wait(&loop->fired, &loop->lock);
		/* Its function may have set it again just now. */
		timer_remove_locked(timer);
	}
	pthread_mutex_unlock(&loop->lock);
}

void loop_post(struct loop *loop, struct work *work)
{
	pthread_mutex_lock(&loop->lock);
	list_add_tail(&work->link, &loop->posted);
	wake_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}
