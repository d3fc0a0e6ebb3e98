/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue of ended requests of an image, and the thread that runs their callbacks.
 *
 * Data structure: a stack to which anybody pushes with one compare-and-swap, and of which the
 * thread takes everything with one exchange, turns it round and ends one after the other. When the
 * stack is empty the thread leaves the mark ASLEEP in its place and waits for the word to change:
 * whoever replaces ASLEEP wakes it. So a push costs a system call only when the thread sleeps, and
 * many completions that come together cost one.
 *
 * A thread that sleeps is dear: whoever wakes it pays for a system call, and on a busy machine
 * loses the processor to it. So before it sleeps the thread lingers: it yields for as long as
 * another request is likely to take. Where that was in vain it lingers less often, down to once in
 * 2^LINGER_MISS_MAX times, so that rare requests cost next to no processor time.
 *
 * Events, for users of rbd_set_image_notification(): a completion whose callback has returned is
 * put into a queue for rbd_poll_io_events(), and then the descriptor is told, once for a batch with
 * the number of them in it.
 *
 * Invariants:
 *   1. A pusher's last use of the image is the compare-and-swap: a user that learns by callback
 *      that its last request is done may close the image while the pusher is still returning. The
 *      wake-up that may follow passes an address to the kernel and reads nothing there.
 *   2. image_leave() is called for a batch when its callbacks have returned and its events are
 *      published: an image that counts nothing in flight has nothing here.
 *   3. The queue of events holds the request's reference, so that what is polled is alive. A
 *      completion that the user has released by then is dropped instead.
 *
 * Locks: lock guards the queue of events. Callbacks and writes to the descriptor run without it.
 */
#include "deliver.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "image.h"

/* No completion has this address. */
#define ASLEEP ((struct completion *)1)
/* Events are published after this many, so that a poller need not wait for a long batch. */
#define EVENTS_MAX 32
#define LINGER_NS UINT64_C(20000)
#define LINGER_MISS_MAX 6

static uint32_t *futex_word(struct deliver *d)
{
	uint32_t *words = (uint32_t *)(uintptr_t)&d->head;

	/* The half of the pointer in which ASLEEP differs from every aligned address and NULL. */
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? words : words + sizeof(void *) / 4 - 1;
}

void deliver_push(struct deliver *d, struct completion *c)
{
	uint32_t *word = futex_word(d);
	struct completion *old = atomic_load_explicit(&d->head, memory_order_relaxed);

	do {
		c->next = old == ASLEEP ? NULL : old;
	} while (!atomic_compare_exchange_weak_explicit(&d->head, &old, c, memory_order_release,
							memory_order_relaxed));
	/* Invariant 1: neither c nor d from here on. */
	if (old == ASLEEP)
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- events ---------------------------------------------------------------------------------- */

/*
 * A descriptor that cannot take more has enough in it to wake whoever waits, and one that the user
 * has closed has nobody: in both cases the events are there to be polled, and we do not wait.
 */
static void write_all(int fd, const char *at, size_t len)
{
	while (len > 0) {
		const ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		at += n;
		len -= (size_t)n;
	}
}

static void tell(struct deliver *d, unsigned int count)
{
	static const char marks[EVENTS_MAX] = {0};
	const int fd = atomic_load_explicit(&d->fd, memory_order_relaxed);
	const uint64_t value = count;

	if (atomic_load_explicit(&d->type, memory_order_relaxed) == EVENT_TYPE_EVENTFD)
		write_all(fd, (const char *)&value, sizeof(value));
	else
		write_all(fd, marks, count);
}

static void publish_events(struct deliver *d)
{
	const unsigned int count = d->n_events;

	if (!count)
		return;
	pthread_mutex_lock(&d->lock);
	*d->polled_end = d->events;
	d->polled_end = d->events_end;
	pthread_mutex_unlock(&d->lock);
	d->events = NULL;
	d->events_end = &d->events;
	d->n_events = 0;
	tell(d, count);
}

int rbd_set_image_notification(rbd_image_t handle, int fd, int type)
{
	struct image *image = image_from(handle);
	struct deliver *d;

	if (!image || fd < 0 || (type != EVENT_TYPE_PIPE && type != EVENT_TYPE_EVENTFD))
		return -EINVAL;
	d = &image->deliver;
	pthread_mutex_lock(&d->lock);
	atomic_store_explicit(&d->type, type, memory_order_relaxed);
	atomic_store_explicit(&d->fd, fd, memory_order_relaxed);
	pthread_mutex_unlock(&d->lock);
	return 0;
}

int rbd_poll_io_events(rbd_image_t handle, rbd_completion_t *ret, int max)
{
	struct image *image = image_from(handle);
	struct deliver *d;
	int n = 0;

	if (!image || !ret || max <= 0)
		return -EINVAL;
	d = &image->deliver;
	pthread_mutex_lock(&d->lock);
	while (n < max && d->polled) {
		struct completion *c = d->polled;

		d->polled = c->next_event;
		if (!d->polled)
			d->polled_end = &d->polled;
		/* Invariant 3. */
		if (completion_has_user(c))
			ret[n++] = c;
		completion_put(c);
	}
	pthread_mutex_unlock(&d->lock);
	return n;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static __thread const struct deliver *here;

bool deliver_is_here(const struct deliver *d)
{
	return here == d;
}

static struct completion *reversed(struct completion *c)
{
	struct completion *list = NULL;

	while (c) {
		struct completion *next = c->next;

		c->next = list;
		list = c;
		c = next;
	}
	return list;
}

/* The batch is over: what it left to do for all at once. */
static void batch_end(struct deliver *d)
{
	struct image *image = image_of_deliver(d);
	const uint64_t ended = d->ended;

	publish_events(d);
	d->ended = 0;
	if (ended)
		image_leave(image, ended);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Lingers, if that is worth while, and says whether something came. */
static bool more_came(struct deliver *d)
{
	uint64_t until;
	bool came;

	if (d->linger_skip > 0) {
		d->linger_skip--;
		return false;
	}
	until = now_ns() + LINGER_NS;
	do {
		sched_yield();
		/* Relaxed: only take_batch() follows the pointer, after an acquire of its own. */
		came = atomic_load_explicit(&d->head, memory_order_relaxed) != NULL;
	} while (!came && now_ns() < until);
	if (came)
		d->linger_miss = 0;
	else if (d->linger_miss < LINGER_MISS_MAX)
		d->linger_miss++;
	d->linger_skip = (1u << d->linger_miss) - 1;
	return came;
}

static void take_batch(struct deliver *d)
{
	for (;;) {
		/* Acquire: pairs with the release of deliver_push(). */
		struct completion *none = NULL;
		struct completion *all =
			atomic_exchange_explicit(&d->head, NULL, memory_order_acquire);

		if (all && all != ASLEEP) {
			d->batch = reversed(all);
			return;
		}
		if (more_came(d))
			continue;
		if (atomic_compare_exchange_strong_explicit(
			    &d->head, &none, ASLEEP, memory_order_relaxed, memory_order_relaxed))
			syscall(SYS_futex, futex_word(d), FUTEX_WAIT_PRIVATE,
				(uint32_t)(uintptr_t)ASLEEP, NULL, NULL, 0);
	}
}

static void end_one(struct deliver *d, struct completion *c)
{
	if (c->kind == KIND_MUTATION && c->result >= 0)
		image_wrote(image_of_deliver(d));
	completion_end(c);
	d->ended++;
	if (atomic_load_explicit(&d->fd, memory_order_relaxed) < 0) {
		completion_put(c);
		return;
	}
	c->next_event = NULL;
	*d->events_end = c;
	d->events_end = &c->next_event;
	if (++d->n_events == EVENTS_MAX)
		publish_events(d);
}

void deliver_next(struct deliver *d)
{
	struct completion *c;

	if (!d->batch) {
		batch_end(d);
		take_batch(d);
	}
	c = d->batch;
	d->batch = c->next;
	if (c->kind == KIND_STOP)
		d->stop = true;
	else
		end_one(d, c);
}

static void *deliver_thread(void *arg)
{
	struct deliver *d = arg;

	here = d;
	while (!d->stop)
		deliver_next(d);
	batch_end(d);
	return NULL;
}

int deliver_start(struct deliver *d)
{
	sigset_t all, before;
	int rc;

	atomic_init(&d->head, NULL);
	atomic_init(&d->fd, -1);
	atomic_init(&d->type, 0);
	d->events_end = &d->events;
	d->polled_end = &d->polled;
	pthread_mutex_init(&d->lock, NULL);
	/* Signals are the program's: none of its handlers runs on our thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&d->thread, NULL, deliver_thread, d);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		pthread_mutex_destroy(&d->lock);
		return -rc;
	}
	pthread_setname_np(d->thread, "varve-rbd");
	return 0;
}

void deliver_stop(struct deliver *d)
{
	struct completion last = {.kind = KIND_STOP};

	deliver_push(d, &last);
	pthread_join(d->thread, NULL);
	while (d->polled) {
		struct completion *c = d->polled;

		d->polled = c->next_event;
		completion_put(c);
	}
	pthread_mutex_destroy(&d->lock);
}
