/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers of an engine.
 *
 * Few are set at a time (one for each retry in flight), so they stand in a plain list that each
 * tick walks.
 *
 * Invariants:
 *   1. while a timer is set the host has been asked for a tick at or before its time;
 *   2. a timer is off the list before its fn is called, so that fn may set it again or free it;
 *   3. fn runs entered, and never once the timers are stopped.
 */
#include "base/timers.h"

void timers_init(struct timers *timers, struct host *host)
{
	timers->host = host;
	list_init(&timers->set);
	timers->stopped = false;
}

void timers_set(struct timers *timers, struct timer *timer, uint64_t when_ns)
{
	if (timers->stopped)
		return;
	timer->when_ns = when_ns;
	list_add_tail(&timer->link, &timers->set);
	host_wake_at(timers->host, when_ns);
}

void timers_run(struct timers *timers, uint64_t now_ns)
{
	struct timer *t, *tmp;
	struct list_head due, *link;
	uint64_t next = UINT64_MAX;

	list_init(&due);
	list_for_each_entry_safe(t, tmp, &timers->set, struct timer, link)
	{
		if (t->when_ns > now_ns) {
			next = t->when_ns < next ? t->when_ns : next;
			continue;
		}
		list_del(&t->link);
		list_add_tail(&t->link, &due);
	}
	if (next != UINT64_MAX)
		host_wake_at(timers->host, next);
	while ((link = list_pop(&due))) {
		t = list_entry(link, struct timer, link);
		if (!timers->stopped)
			t->fn(t);
	}
}

uint64_t backoff_ns(unsigned int tries, uint64_t min_ns, uint64_t max_ns)
{
	uint64_t wait = min_ns;

	for (unsigned int i = 1; i < tries && wait < max_ns; i++)
		wait = wait > UINT64_MAX / 2 ? UINT64_MAX : wait * 2;
	return wait < max_ns ? wait : max_ns;
}

void timers_set_backoff(struct timers *timers, struct timer *timer, unsigned int tries,
			uint64_t min_ns, uint64_t max_ns)
{
	uint64_t wait = backoff_ns(tries, min_ns, max_ns);

	wait += host_random(timers->host) % (wait / 4 + 1);
	timers_set(timers, timer, host_now_ns(timers->host) + wait);
}
