/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The run-time host of an engine.
 *
 * Who runs what is queued. A device or store only queues what an engine submits; somebody must
 * kick it, or run it by helping. The duty passes through these hands:
 *
 *   submit        raises the sluice's flag (volume/sluice.h)
 *   host_leave    takes the flag while still entered, so that the thread that made the engine
 *                 submit is, but for races that do no harm, the one that finds it
 *   then          the thread kicks at once; or it is in a helping section of this very host, and
 *                 writes the duty down in helper.owe
 *   vhost_help    runs requests until there are none; what its done()s submit is owed in turn
 *   settle, end   kick what is owed
 *
 * A thread that only writes, and waits for nothing, leaves the kick to the loop's thread (lazy).
 *
 * Invariants
 *   1. A queued request is kicked, or its flag is up and an entered thread is about to leave, or
 *      a helping thread owes it. A helper settles before each sleep and at its end. So no request
 *      is forgotten between "nothing to help" and sleeping, whatever others submit meanwhile:
 *      what they submit is theirs to run or kick, never the sleeper's.
 *   2. A waiter for the cache device never runs the home's requests: a put of 8 MiB would sit in
 *      front of its 4 KiB. They are kicked at once, unless the waiter is a read, which may well
 *      wait for the very GET it has just submitted; it then helps the home only while it owes.
 *      (An earlier request that the home holds back may be run instead; that is bounded by what
 *      the home lets queue.)
 *   3. The running of done() never nests on a thread: helper.delivering.
 *   4. Fills never nest: leave_slow() takes new fills in a loop, not by leaving again.
 *   5. After host_leave() has unlocked, it uses the vhost only while it is counted in starting;
 *      done() comes after that, and is the last thing.
 *
 * Deferred work goes through VHOST_PUMPS pumps, each one work of the shared pool: this bounds the
 * threads that one volume takes, tells vhost_close() when all is done, and gives a place to kick
 * what a work has submitted without entering.
 *
 * Locks: see host.h. loop_timer_set() and workers_defer() are called with ours held; they take
 * their own and call nothing of ours.
 */
#include "volume/host.h"

#include <errno.h>
#include <sys/random.h>

#include "runtime/clock.h"

enum {
	OWE_DEV = 1 << 0,
	OWE_HOME = 1 << 1,
};

/* What a thread is doing; one volume at a time. Small and initial-exec: no call on the hot path. */
static __thread struct {
	struct vhost *host; /* helping this one, or NULL */
	bool with_home;
	bool delivering;
	bool lazy;
	unsigned int owe;
	struct list_head pending; /* valid while delivering */
} helper __attribute__((tls_model("initial-exec")));

static struct vhost *to_vhost(struct host *host)
{
	return container_of(host, struct vhost, host);
}

/* ---- delivery ----------------------------------------------------------------------------- */

static bool take_home(struct vhost *h)
{
	return h->store ? sluice_store_take(h->store) : sluice_dev_take(h->backing);
}

static void kick_home(struct vhost *h)
{
	if (h->store)
		store_kick(&h->store->store);
	else
		dev_kick(&h->backing->dev);
}

static bool help_home(struct vhost *h)
{
	return h->store ? store_help(&h->store->store) : dev_help(&h->backing->dev);
}

static unsigned int take_duty(struct vhost *h)
{
	return (sluice_dev_take(h->dev) ? OWE_DEV : 0) | (take_home(h) ? OWE_HOME : 0);
}

static void start_now(struct vhost *h, unsigned int duty)
{
	if (duty & OWE_DEV)
		dev_kick(&h->dev->dev);
	if (duty & OWE_HOME)
		kick_home(h);
}

/* Takes from a duty what a helping thread does itself. */
static unsigned int keep_own(struct vhost *h, unsigned int duty)
{
	unsigned int mine = 0;

	if (helper.host == h)
		mine = duty & (helper.with_home ? OWE_DEV | OWE_HOME : OWE_DEV);
	helper.owe |= mine;
	return duty & ~mine;
}

/* Locked: has the loop kick. Returns whether kick_work is to be posted. */
static bool start_later_locked(struct vhost *h, unsigned int duty)
{
	const bool first = !h->later;

	h->later |= duty;
	if (first)
		h->starting++;
	return first;
}

/* A closer must not take the device away from under a late kick (invariant 5). */
static void started(struct vhost *h)
{
	pthread_mutex_lock(&h->lock);
	h->starting--;
	if (h->watchers)
		pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
}

static void kick_run(struct work *work)
{
	struct vhost *h = container_of(work, struct vhost, kick_work);
	unsigned int duty;

	pthread_mutex_lock(&h->lock);
	duty = h->later;
	h->later = 0;
	pthread_mutex_unlock(&h->lock);
	start_now(h, duty);
	started(h);
}

static void deliver(struct list_head *done)
{
	struct list_head *link;

	if (list_empty(done))
		return;
	if (helper.delivering) {
		list_splice_tail(done, &helper.pending);
		return;
	}
	list_init(&helper.pending);
	helper.delivering = true;
	helper.lazy = false;
	while ((link = list_pop(done))) {
		struct dev_req *req = list_entry(link, struct dev_req, link);

		req->done(req);
		list_splice_tail(&helper.pending, done);
	}
	helper.delivering = false;
}

void vhost_deliver(struct dev_req *req)
{
	struct list_head done = LIST_INIT(done);

	if (!helper.delivering) {
		list_add(&req->link, &done);
		deliver(&done);
	} else {
		list_add_tail(&req->link, &helper.pending);
	}
}

bool vhost_delivering(void)
{
	return helper.delivering;
}

static void leave_slow(struct vhost *h)
{
	struct list_head done = LIST_INIT(done);
	unsigned int duty = 0;
	bool post = false;

	for (;;) {
		struct list_head *link;
		struct dev_req *req;

		list_splice_tail(&h->host.ready, &done);
		duty |= take_duty(h);
		link = list_pop(&h->host.fills);
		if (!link)
			break;
		req = list_entry(link, struct dev_req, link);
		pthread_mutex_unlock(&h->lock);
		h->fill(h, req);
		pthread_mutex_lock(&h->lock);
		h->publish(h, req);
	}
	duty = keep_own(h, duty);
	if (duty && helper.lazy && !loop_is_current(h->loop)) {
		post = start_later_locked(h, duty);
		duty = 0;
	}
	if (duty)
		h->starting++;
	if (h->watchers)
		pthread_cond_broadcast(&h->changed);
	pthread_mutex_unlock(&h->lock);
	/* The device first: what users do in done() may take its time. */
	if (duty) {
		start_now(h, duty);
		started(h);
	}
	if (post)
		loop_post(h->loop, &h->kick_work);
	deliver(&done);
}

static void vhost_enter(struct host *host)
{
	pthread_mutex_lock(&to_vhost(host)->lock);
}

static void vhost_leave(struct host *host)
{
	struct vhost *h = to_vhost(host);
	bool quiet = list_empty(&host->ready) && list_empty(&host->fills) && !h->watchers;

	if (quiet && h->dev && !atomic_load_explicit(&h->dev->queued, memory_order_relaxed) &&
	    !atomic_load_explicit(h->home_queued, memory_order_relaxed))
		pthread_mutex_unlock(&h->lock);
	else
		leave_slow(h);
}

void vhost_wait(struct vhost *h, uint64_t deadline_ns)
{
	struct timespec ts = clock_timespec(deadline_ns);

	h->watchers++;
	if (deadline_ns == UINT64_MAX)
		pthread_cond_wait(&h->changed, &h->lock);
	else
		pthread_cond_timedwait(&h->changed, &h->lock, &ts);
	h->watchers--;
}

/* ---- helping ------------------------------------------------------------------------------ */

void vhost_help_begin(struct vhost *h, bool with_home)
{
	helper.host = h;
	helper.with_home = with_home;
	helper.owe = 0;
}

bool vhost_help(struct vhost *h)
{
	if (h->dev && dev_help(&h->dev->dev))
		return true;
	/* The device has run dry: what was owed to it is done, or in another helper's hands. */
	helper.owe &= ~(unsigned int)OWE_DEV;
	if ((helper.owe & OWE_HOME) && help_home(h))
		return true;
	helper.owe &= ~(unsigned int)OWE_HOME;
	return false;
}

void vhost_help_settle(struct vhost *h)
{
	unsigned int duty = helper.owe;

	if (!duty)
		return;
	helper.owe = 0;
	start_now(h, duty);
}

void vhost_help_end(struct vhost *h, bool waited)
{
	bool post;

	helper.host = NULL;
	if (waited || !helper.owe) {
		vhost_help_settle(h);
		return;
	}
	pthread_mutex_lock(&h->lock);
	post = start_later_locked(h, helper.owe);
	pthread_mutex_unlock(&h->lock);
	if (post)
		loop_post(h->loop, &h->kick_work);
}

void vhost_lazy(bool lazy)
{
	helper.lazy = lazy;
}

/* ---- clock, timer, random numbers --------------------------------------------------------- */

static uint64_t vhost_now_ns(struct host *host)
{
	(void)host;
	return clock_now_ns();
}

static uint64_t vhost_wall_ns(struct host *host)
{
	(void)host;
	return clock_wall_ns();
}

static void vhost_wake_at(struct host *host, uint64_t when_ns)
{
	struct vhost *h = to_vhost(host);

	if (when_ns >= h->wake_ns)
		return;
	h->wake_ns = when_ns;
	loop_timer_set(h->loop, &h->timer, when_ns);
}

static void timer_fired(struct loop_timer *timer)
{
	struct vhost *h = container_of(timer, struct vhost, timer);

	host_enter(&h->host);
	h->wake_ns = UINT64_MAX;
	h->tick(h);
	host_leave(&h->host);
}

/* splitmix64 over a shared counter: any thread, no lock. */
static uint64_t vhost_random(struct host *host)
{
	struct vhost *h = to_vhost(host);
	uint64_t z = atomic_fetch_add_explicit(&h->random_state, UINT64_C(0x9e3779b97f4a7c15),
					       memory_order_relaxed);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* ---- deferred work ------------------------------------------------------------------------ */

static void pump_run(struct work *work)
{
	struct vhost_pump *pump = container_of(work, struct vhost_pump, work);
	struct vhost *h = pump->h;
	struct list_head *link;

	pthread_mutex_lock(&h->work_lock);
	while ((link = list_pop(&h->works))) {
		struct work *next = list_entry(link, struct work, link);

		pthread_mutex_unlock(&h->work_lock);
		next->run(next); /* may free itself */
		start_now(h, take_duty(h));
		pthread_mutex_lock(&h->work_lock);
		h->works_alive--;
	}
	pump->busy = false;
	pthread_cond_broadcast(&h->works_done);
	pthread_mutex_unlock(&h->work_lock);
}

static void vhost_defer(struct host *host, struct work *work)
{
	struct vhost *h = to_vhost(host);

	pthread_mutex_lock(&h->work_lock);
	list_add_tail(&work->link, &h->works);
	h->works_alive++;
	for (unsigned int i = 0; i < VHOST_PUMPS; i++) {
		if (h->pumps[i].busy)
			continue;
		h->pumps[i].busy = true;
		workers_defer(h->workers, &h->pumps[i].work);
		break;
	}
	pthread_mutex_unlock(&h->work_lock);
}

static bool pumps_busy(const struct vhost *h)
{
	for (unsigned int i = 0; i < VHOST_PUMPS; i++)
		if (h->pumps[i].busy)
			return true;
	return h->works_alive > 0;
}

/* ---- life --------------------------------------------------------------------------------- */

static const struct host_ops vhost_ops = {
	.enter = vhost_enter,
	.leave = vhost_leave,
	.now_ns = vhost_now_ns,
	.wall_ns = vhost_wall_ns,
	.defer = vhost_defer,
	.wake_at = vhost_wake_at,
	.random = vhost_random,
};

static void locks_init(struct vhost *h)
{
	pthread_mutexattr_t mutex;
	pthread_condattr_t cond;

	/*
	 * Critical sections are a few hundred nanoseconds: spinning beats sleeping. None of these
	 * calls can fail on Linux with these arguments.
	 */
	pthread_mutexattr_init(&mutex);
	pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&h->lock, &mutex);
	pthread_mutexattr_destroy(&mutex);
	pthread_mutex_init(&h->work_lock, NULL);
	pthread_condattr_init(&cond);
	pthread_condattr_setclock(&cond, CLOCK_MONOTONIC);
	pthread_cond_init(&h->changed, &cond);
	pthread_cond_init(&h->works_done, &cond);
	pthread_condattr_destroy(&cond);
}

int vhost_open(struct vhost *h)
{
	static _Atomic bool none; /* a log by itself has no home */
	uint64_t seed;
	int rc;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		seed = clock_wall_ns() ^ (uint64_t)(uintptr_t)h;
	rc = workers_get(&h->workers);
	if (rc)
		return rc;
	rc = loop_get(&h->loop);
	if (rc) {
		workers_put(h->workers);
		return rc;
	}
	h->host.ops = &vhost_ops;
	list_init(&h->host.ready);
	list_init(&h->host.fills);
	list_init(&h->works);
	h->kick_work.run = kick_run;
	for (unsigned int i = 0; i < VHOST_PUMPS; i++) {
		h->pumps[i].work.run = pump_run;
		h->pumps[i].h = h;
	}
	atomic_init(&h->random_state, seed);
	h->wake_ns = UINT64_MAX;
	h->home_queued = h->store ? &h->store->queued : h->backing ? &h->backing->queued : &none;
	loop_timer_init(&h->timer, timer_fired);
	locks_init(h);
	return 0;
}

void vhost_close(struct vhost *h)
{
	loop_timer_cancel(h->loop, &h->timer);
	pthread_mutex_lock(&h->work_lock);
	while (pumps_busy(h))
		pthread_cond_wait(&h->works_done, &h->work_lock);
	pthread_mutex_unlock(&h->work_lock);
	/* A work may have set it again. */
	loop_timer_cancel(h->loop, &h->timer);
	pthread_mutex_lock(&h->lock);
	while (h->starting)
		vhost_wait(h, UINT64_MAX);
	pthread_mutex_unlock(&h->lock);
	loop_put(h->loop);
	workers_put(h->workers);
	pthread_cond_destroy(&h->changed);
	pthread_cond_destroy(&h->works_done);
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&h->work_lock);
}
