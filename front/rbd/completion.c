/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Completions; see completion.h for their life.
 *
 * The state is a futex, so that a completion that nobody waits for costs no system call: who waits
 * sets WAITED first, and only then does the end wake anybody. A wake may come when the completion
 * has been freed: the kernel takes the address as a key and reads nothing there.
 *
 * Invariants:
 *   1. result is written before the state becomes CALLBACK (release), and read after that
 *      (acquire): a callback, or a thread that saw rbd_aio_is_complete(), reads the final value.
 *   2. COMPLETE comes after the callback has returned, so who waited finds its effects.
 */
#include "completion.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "deliver.h"
#include "image.h"

#define COMPLETION_MAGIC 0x7672766bu

enum {
	STATE_NEW,
	STATE_PENDING,
	STATE_CALLBACK,
	STATE_COMPLETE,
	STATE_MASK = 3,
	STATE_WAITED = 4,
};

struct completion *completion_from(rbd_completion_t handle)
{
	struct completion *c = handle;

	return c && c->magic == COMPLETION_MAGIC ? c : NULL;
}

int completion_begin(struct completion *c, struct image *image, enum completion_kind kind)
{
	uint32_t s = atomic_load_explicit(&c->state, memory_order_relaxed);

	do {
		if ((s & STATE_MASK) != STATE_NEW)
			return -EINVAL;
	} while (!atomic_compare_exchange_weak_explicit(
		&c->state, &s, s | STATE_PENDING, memory_order_relaxed, memory_order_relaxed));
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	c->image = image;
	c->kind = kind;
	return 0;
}

static uint32_t state(struct completion *c)
{
	return atomic_load_explicit(&c->state, memory_order_acquire);
}

void completion_end(struct completion *c)
{
	uint32_t before;

	/* PENDING to CALLBACK, WAITED as it is. Release: result, invariant 1. */
	atomic_fetch_add_explicit(&c->state, STATE_CALLBACK - STATE_PENDING, memory_order_release);
	if (c->fn)
		c->fn(c, c->arg);
	/* Release: what the callback did, invariant 2. */
	before = atomic_exchange_explicit(&c->state, STATE_COMPLETE, memory_order_acq_rel);
	if (before & STATE_WAITED)
		syscall(SYS_futex, &c->state, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

bool completion_is_over(struct completion *c)
{
	return (state(c) & STATE_MASK) == STATE_COMPLETE;
}

void completion_wait(struct completion *c, uint64_t at_most_ns)
{
	const struct timespec limit = {.tv_nsec = (long)at_most_ns};
	uint32_t s;

	while (((s = state(c)) & STATE_MASK) != STATE_COMPLETE) {
		if (!(s & STATE_WAITED) && !atomic_compare_exchange_strong_explicit(
						   &c->state, &s, s | STATE_WAITED,
						   memory_order_relaxed, memory_order_relaxed))
			continue;
		syscall(SYS_futex, &c->state, FUTEX_WAIT_PRIVATE, s | STATE_WAITED,
			at_most_ns ? &limit : NULL, NULL, 0);
		if (at_most_ns)
			return;
	}
}

void completion_put(struct completion *c)
{
	/* Acquire and release: the last to leave sees what the others did. */
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	c->magic = 0;
	free(c->many);
	free(c);
}

bool completion_wrote(const struct completion *c)
{
	return c->kind == KIND_MUTATION && c->result >= 0 && c->io.length &&
	       c->io.op != VARVE_DISCARD;
}

bool completion_has_user(struct completion *c)
{
	return atomic_load_explicit(&c->refs, memory_order_acquire) > 1;
}

/* ---- what users call ------------------------------------------------------------------------- */

int rbd_aio_create_completion(void *arg, rbd_callback_t fn, rbd_completion_t *ret)
{
	struct completion *c;

	if (!ret)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->magic = COMPLETION_MAGIC;
	c->fn = fn;
	c->arg = arg;
	atomic_init(&c->refs, 1);
	atomic_init(&c->state, STATE_NEW);
	*ret = c;
	return 0;
}

int rbd_aio_is_complete(rbd_completion_t handle)
{
	struct completion *c = completion_from(handle);

	return c ? (state(c) & STATE_MASK) >= STATE_CALLBACK : -EINVAL;
}

int rbd_aio_wait_for_complete(rbd_completion_t handle)
{
	struct completion *c = completion_from(handle);

	if (!c)
		return -EINVAL;
	/* A callback that waits for another request of its image is what would deliver it. */
	if (!completion_is_over(c) && c->image && deliver_is_here(&c->image->deliver))
		deliver_until(&c->image->deliver, c);
	completion_wait(c, 0);
	return 0;
}

ssize_t rbd_aio_get_return_value(rbd_completion_t handle)
{
	struct completion *c = completion_from(handle);

	if (!c)
		return -EINVAL;
	return (state(c) & STATE_MASK) >= STATE_CALLBACK ? c->result : 0;
}

void *rbd_aio_get_arg(rbd_completion_t handle)
{
	struct completion *c = completion_from(handle);

	return c ? c->arg : NULL;
}

void rbd_aio_release(rbd_completion_t handle)
{
	struct completion *c = completion_from(handle);

	if (c)
		completion_put(c);
}
