/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers of an engine: things to do later, run from its tick.
 *
 * Everything here is called entered (base/host.h). A timer that is set runs once, entered, from
 * timers_run(), unless the timers are stopped: then it never does, and whoever waits for it must
 * not. The struct belongs to whoever sets it, and may be set again from inside its fn.
 */
#ifndef BASE_TIMERS_H
#define BASE_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/host.h"
#include "base/list.h"

struct timer {
	struct list_head link; /* the list's, while it is set */
	uint64_t when_ns;
	void (*fn)(struct timer *timer); /* entered */
};

struct timers {
	struct host *host;
	struct list_head set;
	bool stopped;
};

void timers_init(struct timers *timers, struct host *host);
/* Not while it is set already. Asks the host for a tick. Does nothing once they are stopped. */
void timers_set(struct timers *timers, struct timer *timer, uint64_t when_ns);
/* The engine's tick: runs what is due, and asks for the next tick. */
void timers_run(struct timers *timers, uint64_t now_ns);

/* Exponential back-off: how long to wait after the `tries`th failure in a row (1 is the first). */
uint64_t backoff_ns(unsigned int tries, uint64_t min_ns, uint64_t max_ns);
/*
 * Sets a timer for the next try: backoff_ns() from now and up to a quarter more, so that many
 * clients of one server do not come back at once.
 */
void timers_set_backoff(struct timers *timers, struct timer *timer, unsigned int tries,
			uint64_t min_ns, uint64_t max_ns);

#endif
