/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A completion: what a user holds for an asynchronous request, and the request itself.
 *
 * It is made, given to one request, and released, by the user; from the request's start to the end
 * of its callback the request holds a reference, too, so releasing early, or inside the callback,
 * is fine. States go one way:
 *
 *	NEW -> PENDING (completion_begin) -> CALLBACK (result is valid) -> COMPLETE (waiters go on)
 *
 * Whoever runs a request owns all other fields from completion_begin() to completion_end().
 */
#ifndef RBD_COMPLETION_H
#define RBD_COMPLETION_H

#include <stdatomic.h>

#include <varve/varve.h>

#include "abi.h"

struct image;

enum completion_kind {
	KIND_READ,
	KIND_MUTATION, /* what a flush has to wait for */
	KIND_FLUSH,
	KIND_STOP, /* no request: ends the delivery (deliver.c) */
};

struct completion {
	uint32_t magic;
	_Atomic int refs;
	_Atomic uint32_t state; /* a futex */
	rbd_callback_t fn;
	void *arg;
	ssize_t result;

	struct image *image;
	struct completion *next;       /* in the one queue where it is: deliver.h, order.h */
	struct completion *next_event; /* in the queue of events of its image */
	enum completion_kind kind;
	bool told;	    /* its pusher tells the notifier (deliver.c) */
	unsigned int slot;  /* order.h */
	struct iovec one;   /* iov of a request with one buffer */
	struct iovec *many; /* iov of one with several; free it, or NULL */
	struct varve_io io;
};

/* The completion behind a user's handle, or NULL. */
struct completion *completion_from(rbd_completion_t handle);

/* Takes the request's reference. -EINVAL: it has served a request already. */
int completion_begin(struct completion *c, struct image *image, enum completion_kind kind);

/* result is set: runs the callback, lets waiters go. The request's reference stays the caller's. */
void completion_end(struct completion *c);

/*
 * Waits for COMPLETE, for that long or, with 0, for ever: then not where completions are
 * delivered.
 */
void completion_wait(struct completion *c, uint64_t at_most_ns);

bool completion_is_over(struct completion *c);

/*
 * Over, and what it did takes the writer's right for sure: not a request without bytes, nor a
 * discard, of which the volume may have no use.
 */
bool completion_wrote(const struct completion *c);

/* Drops a reference. */
void completion_put(struct completion *c);

/* False when the user has released it: then the reference that is left is the caller's. */
bool completion_has_user(struct completion *c);

#endif
