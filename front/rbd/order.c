/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes before flushes.
 *
 * Writes are counted in one of two slots. A flush that finds writes under way turns the slot, so
 * that no later write is counted with those it waits for, and goes on when that count is zero.
 * Flushes that come meanwhile make a second group: when the first goes on, the slot is turned again
 * for the second. A flush may so wait for some writes that came after it, but for no more than were
 * submitted while the group before it waited: it is never starved.
 *
 * Invariants:
 *   1. While now is empty, held is false and no flush waits for anything.
 *   2. order_begin() returns with the write counted in the slot that was the present one after it
 *      had been counted. So a write whose submission has returned is in a slot that a later flush
 *      waits for, and in the other slot there is nothing but what a flush waits for already.
 *   3. held is set before the count is looked at, and a count is lowered before held is looked at,
 *      all sequentially consistent: one of the two sees the other, so no flush is forgotten.
 *
 * Locks: lock guards the lists and turns of the slot. Nothing is called with it held.
 */
#include "order.h"

void order_init(struct order *o)
{
	atomic_init(&o->writes[0], 0);
	atomic_init(&o->writes[1], 0);
	atomic_init(&o->slot, 0);
	atomic_init(&o->held, false);
	o->now_end = &o->now;
	o->next_end = &o->next;
	pthread_mutex_init(&o->lock, NULL);
}

void order_destroy(struct order *o)
{
	pthread_mutex_destroy(&o->lock);
}

static void append(struct completion ***end, struct completion *c)
{
	c->next = NULL;
	**end = c;
	*end = &c->next;
}

static void turn(struct order *o)
{
	const unsigned int slot = atomic_load_explicit(&o->slot, memory_order_relaxed);

	atomic_store(&o->slot, 1 - slot);
	atomic_store(&o->held, true);
}

static bool is_drained(struct order *o)
{
	return atomic_load(&o->writes[1 - atomic_load(&o->slot)]) == 0;
}

/* Locked, now is not empty: takes from it, and from those that follow, what may go on. */
static struct completion *release(struct order *o)
{
	struct completion *go = NULL, **go_end = &go;

	while (o->now && is_drained(o)) {
		*go_end = o->now;
		go_end = o->now_end;
		o->now = o->next;
		o->now_end = o->now ? o->next_end : &o->now;
		o->next = NULL;
		o->next_end = &o->next;
		if (o->now)
			turn(o);
		else
			atomic_store(&o->held, false);
	}
	return go;
}

struct completion *order_end(struct order *o, unsigned int slot)
{
	struct completion *go = NULL;

	if (atomic_fetch_sub(&o->writes[slot], 1) != 1 || !atomic_load(&o->held))
		return NULL;
	pthread_mutex_lock(&o->lock);
	if (o->now)
		go = release(o);
	pthread_mutex_unlock(&o->lock);
	return go;
}

unsigned int order_begin(struct order *o, struct completion **ret_go)
{
	unsigned int slot = atomic_load(&o->slot);

	atomic_fetch_add(&o->writes[slot], 1);
	/* Invariant 2: the slot was turned between the two, so this one is waited for already. */
	while (atomic_load(&o->slot) != slot) {
		struct completion *go = order_end(o, slot);
		struct completion **end = &go;

		while (*end)
			end = &(*end)->next;
		*end = *ret_go;
		*ret_go = go;
		slot = atomic_load(&o->slot);
		atomic_fetch_add(&o->writes[slot], 1);
	}
	return slot;
}

bool order_flush(struct order *o, struct completion *c)
{
	struct completion *go = c;

	pthread_mutex_lock(&o->lock);
	if (o->now) {
		append(&o->next_end, c);
		go = NULL;
	} else if (atomic_load(&o->writes[atomic_load(&o->slot)])) {
		append(&o->now_end, c);
		turn(o);
		/* The last of them may have ended before it could see that it is waited for. */
		go = release(o);
	}
	pthread_mutex_unlock(&o->lock);
	return go != NULL;
}

bool order_is_idle(struct order *o)
{
	return !atomic_load(&o->held) && atomic_load(&o->writes[0]) == 0 &&
	       atomic_load(&o->writes[1]) == 0;
}
