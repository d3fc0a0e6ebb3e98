/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a flush covers. librbd's covers every write that was submitted before it; a volume's, every
 * write that was acknowledged before it. So a flush is held back here until the writes that were
 * under way when it came are done.
 */
#ifndef RBD_ORDER_H
#define RBD_ORDER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "completion.h"

struct order {
	_Atomic uint64_t writes[2]; /* under way, by slot */
	_Atomic unsigned int slot;  /* in which writes are counted that begin now */
	_Atomic bool held;	    /* flushes wait for writes[1 - slot] */
	pthread_mutex_t lock;
	/* Guarded by lock. */
	struct completion *now, **now_end;   /* flushes that wait for writes[1 - slot] */
	struct completion *next, **next_end; /* that came later, and wait for writes[slot], too */
};

void order_init(struct order *o);
void order_destroy(struct order *o);

/*
 * A write begins. Returns the slot for order_end(). ret_go: set to flushes that may go on, by next,
 * if there are any.
 */
unsigned int order_begin(struct order *o, struct completion **ret_go);

/* It is done. Returns flushes that may go on now, by next; or NULL. */
struct completion *order_end(struct order *o, unsigned int slot);

/* A flush comes: true when it may go on at once, else it is kept. */
bool order_flush(struct order *o, struct completion *c);

/* No write is under way and no flush waits. */
bool order_is_idle(struct order *o);

#endif
