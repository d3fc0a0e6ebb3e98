/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue of ended requests of an image, and who runs their callbacks.
 *
 * Data structure: a stack to which anybody pushes with one compare-and-swap, and of which a
 * consumer takes everything at once, turns it round and ends one after the other. When the stack is
 * empty the image's thread leaves the mark ASLEEP in its place and waits for the word to change:
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
 * A user that polls has a thread there that could run the callbacks itself, at the price of no
 * switch of threads at all. So after its first poll the descriptor is told by the push, and
 * rbd_poll_io_events() runs the callbacks of what it returns. As nothing obliges a user to go on
 * polling, the image's thread looks every few milliseconds, and delivers as ever if nobody has
 * polled since it looked last.
 *
 * Invariants:
 *   1. A pusher's last use of the image is the compare-and-swap: a user that learns by callback
 *      that its last request is done may close the image while the pusher is still returning. The
 *      wake-up that may follow passes an address to the kernel and reads nothing there; the
 *      notifier has a reference of the pusher's.
 *   2. image_leave() is called for a completion when its callback has returned and its event is
 *      published: an image that counts nothing in flight has nothing here.
 *   3. The queue of events holds the request's reference, so that what is polled is alive. A
 *      completion that the user has released by then is dropped instead.
 *   4. The descriptor is told once for each completion: by the pusher if told is set, when the
 *      completion can be polled for; else by whoever runs the callback.
 *
 * Locks: lock guards the batch and the queue of events. Callbacks and writes to the descriptor run
 * without it.
 */
#include "deliver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
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
/* How long a poller may take. */
#define NAP_NS 4000000
/* How long a poller waits for the thread to publish what it has taken. */
#define HELD_NS 20000000
/* How long the next request is waited for without sleeping, and how much less often in vain. */
#define LINGER_NS UINT64_C(20000)
#define LINGER_MISS_MAX 6

static uint32_t *futex_word(struct deliver *d)
{
	uint32_t *words = (uint32_t *)(uintptr_t)&d->head;

	/* The half of the pointer in which ASLEEP differs from every aligned address and NULL. */
	return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? words : words + sizeof(void *) / 4 - 1;
}

/* ---- notifiers ------------------------------------------------------------------------------- */

/*
 * A descriptor that cannot take more has enough in it to wake whoever waits, and one that nobody
 * reads any more has nobody: in both cases the events are there to be polled, and we do not wait.
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

static void notifier_tell(const struct notifier *n, unsigned int count)
{
	static const char marks[EVENTS_MAX] = {0};
	const uint64_t value = count;

	struct pollfd pfd = {.fd = n->fd, .events = POLLOUT};

	if (n->type == EVENT_TYPE_EVENTFD)
		write_all(n->fd, (const char *)&value, sizeof(value));
	else if (poll(&pfd, 1, 0) > 0)
		write_all(n->fd, marks, count);
}

static void notifier_put(struct notifier *n)
{
	/* Acquire and release: the last to leave sees what the others did. */
	if (atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
		return;
	close(n->fd);
	free(n);
}

/* Acquire: what it points to was written before it was published. */
static struct notifier *notifier_of(struct deliver *d)
{
	return atomic_load_explicit(&d->notifier, memory_order_acquire);
}

int rbd_set_image_notification(rbd_image_t handle, int fd, int type)
{
	struct image *image = image_from(handle);
	struct notifier *n;

	if (image && image_is_foreign(image))
		return -EOWNERDEAD;
	if (!image || fd < 0 || (type != EVENT_TYPE_PIPE && type != EVENT_TYPE_EVENTFD))
		return -EINVAL;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	atomic_init(&n->refs, 1);
	n->type = type;
	n->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (n->fd < 0) {
		free(n);
		return -errno;
	}
	n->former = notifier_of(&image->deliver);
	/* Release: pairs with notifier_of(). */
	while (!atomic_compare_exchange_weak_explicit(&image->deliver.notifier, &n->former, n,
						      memory_order_release, memory_order_acquire))
		;
	return 0;
}

/* ---- the queue ------------------------------------------------------------------------------- */

void deliver_push(struct deliver *d, struct completion *c)
{
	uint32_t *word = futex_word(d);
	struct completion *old = atomic_load_explicit(&d->head, memory_order_relaxed);
	struct notifier *n = NULL;

	if (atomic_load_explicit(&d->polling, memory_order_relaxed) && c->kind != KIND_STOP) {
		n = notifier_of(d);
		atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
		c->told = true;
	}
	do {
		c->next = old == ASLEEP ? NULL : old;
	} while (!atomic_compare_exchange_weak_explicit(&d->head, &old, c, memory_order_release,
							memory_order_relaxed));
	/* Invariant 1: neither c nor d from here on. */
	if (old == ASLEEP)
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	if (n) {
		notifier_tell(n, 1);
		notifier_put(n);
	}
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

/* Locked. Takes the oldest, or NULL: there is none. */
static struct completion *pop_locked(struct deliver *d)
{
	struct completion *c = d->batch;

	if (!c) {
		struct completion *all = atomic_load_explicit(&d->head, memory_order_relaxed);

		/* ASLEEP stays. Acquire: pairs with the release of deliver_push(). */
		while (all && all != ASLEEP &&
		       !atomic_compare_exchange_weak_explicit(
			       &d->head, &all, NULL, memory_order_acquire, memory_order_relaxed))
			;
		if (!all || all == ASLEEP)
			return NULL;
		c = reversed(all);
	}
	d->batch = c->next;
	return c;
}

/* For the thread. */
static struct completion *pop(struct deliver *d)
{
	struct completion *c;

	pthread_mutex_lock(&d->lock);
	c = pop_locked(d);
	if (c && c->told)
		d->held++;
	pthread_mutex_unlock(&d->lock);
	return c;
}

/* ---- the user's polling ---------------------------------------------------------------------- */

static __thread const struct deliver *here;
static __thread const struct deliver *polling_here;

bool deliver_is_here(const struct deliver *d)
{
	return here == d;
}

bool deliver_in_callback(const struct deliver *d)
{
	return here == d || polling_here == d;
}

/* Locked: one that has ended and that the user still has (invariant 3), or NULL. */
static struct completion *polled_locked(struct deliver *d)
{
	while (d->polled) {
		struct completion *c = d->polled;
		const bool has_user = completion_has_user(c);

		d->polled = c->next_event;
		if (!d->polled)
			d->polled_end = &d->polled;
		completion_put(c);
		if (has_user)
			return c;
	}
	return NULL;
}

/* Runs the callback of one that has not ended. True: the user still has it. */
static bool end_polled(struct image *image, struct completion *c)
{
	const struct deliver *outer = polling_here;
	bool has_user;

	polling_here = &image->deliver;
	if (completion_wrote(c))
		image_wrote(image);
	completion_end(c);
	polling_here = outer;
	/*
	 * Pushed before the first poll: the caller is to find as many as it was told (invariant
	 * 4).
	 */
	if (!c->told && notifier_of(&image->deliver))
		notifier_tell(notifier_of(&image->deliver), 1);
	has_user = completion_has_user(c);
	completion_put(c);
	return has_user;
}

/*
 * Locked. The thread has taken what the caller was told of, since nobody seemed to poll, and will
 * publish it in a moment. If that takes longer, the callback may wait for us; then the thread tells
 * once more. True: look again.
 */
static bool wait_for_thread(struct deliver *d)
{
	struct timespec until;
	int rc = 0;

	if (!d->held || here == d)
		return false;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += HELD_NS;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	while (d->held && !d->polled && !rc)
		rc = pthread_cond_clockwait(&d->published, &d->lock, CLOCK_MONOTONIC, &until);
	if (!d->polled && d->held)
		d->missed = true;
	return !rc;
}

int rbd_poll_io_events(rbd_image_t handle, rbd_completion_t *ret, int max)
{
	struct image *image = image_from(handle);
	uint64_t ended = 0;
	struct deliver *d;
	int n = 0;

	if (!image || !ret || max <= 0)
		return -EINVAL;
	if (image_is_foreign(image))
		return -EOWNERDEAD;
	d = &image->deliver;
	if (notifier_of(d) && !atomic_load_explicit(&d->hurry, memory_order_relaxed))
		atomic_store_explicit(&d->polling, true, memory_order_relaxed);
	atomic_fetch_add_explicit(&d->polls, 1, memory_order_relaxed);
	while (n < max) {
		struct completion *c, *fresh = NULL;

		pthread_mutex_lock(&d->lock);
		do {
			c = polled_locked(d);
			if (!c)
				fresh = pop_locked(d);
		} while (n == 0 && !c && !fresh && wait_for_thread(d));
		pthread_mutex_unlock(&d->lock);
		if (!c && !fresh)
			break;
		if (fresh) {
			ended++;
			c = end_polled(image, fresh) ? fresh : NULL;
		}
		if (c)
			ret[n++] = c;
	}
	if (ended)
		image_leave(image, ended);
	return n;
}

/* ---- the thread ------------------------------------------------------------------------------ */

static void publish_events(struct deliver *d)
{
	unsigned int untold = d->n_untold;

	if (!d->events)
		return;
	pthread_mutex_lock(&d->lock);
	*d->polled_end = d->events;
	d->polled_end = d->events_end;
	d->held -= d->n_events - untold;
	if (d->missed)
		untold = d->n_events;
	d->missed = false;
	pthread_cond_broadcast(&d->published);
	pthread_mutex_unlock(&d->lock);
	d->events = NULL;
	d->events_end = &d->events;
	d->n_events = 0;
	d->n_untold = 0;
	if (untold)
		notifier_tell(notifier_of(d), untold);
}

/* The batch is over: what it left to do for all at once. */
static void batch_end(struct deliver *d)
{
	const uint64_t ended = d->ended;

	publish_events(d);
	d->ended = 0;
	if (ended)
		image_leave(image_of_deliver(d), ended);
}

static void end_one(struct deliver *d, struct completion *c)
{
	if (c->kind == KIND_STOP) {
		d->stop = true;
		return;
	}
	if (completion_wrote(c))
		image_wrote(image_of_deliver(d));
	completion_end(c);
	d->ended++;
	if (!notifier_of(d)) {
		completion_put(c);
		return;
	}
	c->next_event = NULL;
	*d->events_end = c;
	d->events_end = &c->next_event;
	d->n_untold += !c->told;
	if (++d->n_events == EVENTS_MAX)
		publish_events(d);
}

/*
 * Until something is pushed; returns at once when something is there. The batch is looked at under
 * the lock under which a poller moves the queue there: what it leaves behind is not slept over.
 */
static void sleep_until_pushed(struct deliver *d)
{
	struct completion *head = NULL;
	bool empty;

	pthread_mutex_lock(&d->lock);
	/* Relaxed: what is pushed is taken with acquire afterwards. */
	empty = !d->batch &&
		(atomic_compare_exchange_strong_explicit(
			 &d->head, &head, ASLEEP, memory_order_relaxed, memory_order_relaxed) ||
		 head == ASLEEP);
	pthread_mutex_unlock(&d->lock);
	if (empty)
		syscall(SYS_futex, futex_word(d), FUTEX_WAIT_PRIVATE, (uint32_t)(uintptr_t)ASLEEP,
			NULL, NULL, 0);
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
		/* Relaxed: only pop() follows the pointer, after an acquire of its own. */
		came = atomic_load_explicit(&d->head, memory_order_relaxed) != NULL;
	} while (!came && now_ns() < until);
	if (came)
		d->linger_miss = 0;
	else if (d->linger_miss < LINGER_MISS_MAX)
		d->linger_miss++;
	d->linger_skip = (1u << d->linger_miss) - 1;
	return came;
}

static void deliver_next(struct deliver *d)
{
	struct completion *c;

	while (!(c = pop(d))) {
		batch_end(d);
		if (!more_came(d))
			sleep_until_pushed(d);
	}
	end_one(d, c);
}

void deliver_until(struct deliver *d, struct completion *wanted)
{
	while (!completion_is_over(wanted)) {
		struct completion *c = pop(d);

		if (c) {
			end_one(d, c);
			continue;
		}
		batch_end(d);
		/* A poller may have it, and pushes nothing when it is over. */
		if (atomic_load_explicit(&d->polling, memory_order_relaxed))
			completion_wait(wanted, NAP_NS);
		else
			sleep_until_pushed(d);
	}
}

/* Leaves what was pushed to a poller for a while, and delivers it if there was none. */
static void deliver_after_pollers(struct deliver *d)
{
	const uint64_t polls = atomic_load_explicit(&d->polls, memory_order_relaxed);
	const struct timespec nap = {.tv_nsec = NAP_NS};
	struct completion *c;

	syscall(SYS_futex, &d->hurry, FUTEX_WAIT_PRIVATE, 0, &nap, NULL, 0);
	if (atomic_load_explicit(&d->polls, memory_order_relaxed) == polls)
		while (!d->stop && (c = pop(d)))
			end_one(d, c);
	batch_end(d);
	/* Nothing is pushed after the end. */
	if (!d->stop)
		sleep_until_pushed(d);
}

static void *deliver_thread(void *arg)
{
	struct deliver *d = arg;

	here = d;
	while (!d->stop) {
		if (atomic_load_explicit(&d->polling, memory_order_relaxed))
			deliver_after_pollers(d);
		else
			deliver_next(d);
	}
	batch_end(d);
	return NULL;
}

int deliver_start(struct deliver *d)
{
	sigset_t all, before;
	int rc;

	atomic_init(&d->head, NULL);
	atomic_init(&d->notifier, NULL);
	atomic_init(&d->polling, false);
	atomic_init(&d->polls, 0);
	atomic_init(&d->hurry, 0);
	d->events_end = &d->events;
	d->polled_end = &d->polled;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->published, NULL);
	/* Signals are the program's: none of its handlers runs on our thread; but the fault of a
	 * mapped page, which a callback's request may touch, kills if it is blocked. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&d->thread, NULL, deliver_thread, d);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		pthread_cond_destroy(&d->published);
		pthread_mutex_destroy(&d->lock);
		return -rc;
	}
	pthread_setname_np(d->thread, "varve-rbd");
	return 0;
}

void deliver_hurry(struct deliver *d)
{
	atomic_store_explicit(&d->polling, false, memory_order_relaxed);
	atomic_store_explicit(&d->hurry, 1, memory_order_relaxed);
	syscall(SYS_futex, &d->hurry, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void deliver_stop(struct deliver *d)
{
	struct completion last = {.kind = KIND_STOP};
	struct notifier *n, *former;

	deliver_push(d, &last);
	pthread_join(d->thread, NULL);
	while (d->polled) {
		struct completion *c = d->polled;

		d->polled = c->next_event;
		completion_put(c);
	}
	for (n = notifier_of(d); n; n = former) {
		former = n->former;
		notifier_put(n);
	}
	pthread_cond_destroy(&d->published);
	pthread_mutex_destroy(&d->lock);
}
