/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waiting until the home has everything that was acknowledged: what both homes keep of those who
 * wait. Called entered, but for done().
 */
#ifndef WLOG_DRAIN_H
#define WLOG_DRAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/host.h"
#include "base/list.h"

/* The caller's, until done() was called: once, not entered. 0 or a negative errno. */
struct drain {
	struct list_head link;
	uint64_t lsn; /* the home must have everything through it */
	uint64_t deadline_ns;
	int result;
	void (*done)(struct drain *drain, int error);
};

/* Those who are waiting, and those who have yet to be told. */
struct drains {
	struct host *host;
	struct list_head waiting, over;
	struct work work;
	bool queued;
	/* Entered; the owner counts the deferred work by it: +1 when queued, -1 when it has run. */
	void (*busy)(struct drains *drains, int delta);
};

void drains_init(struct drains *drains, struct host *host,
		 void (*busy)(struct drains *drains, int delta));
void drains_add(struct drains *drains, struct drain *drain);
/* Ends one that is not waiting in a list, by deferred work. */
void drains_finish(struct drains *drains, struct drain *drain, int error);
/* Somebody no longer waits: 0, and done() never comes; -ENOENT it does not wait here any more. */
int drains_cancel(struct drains *drains, const struct drain *drain);
/* Ends all that wait for at most lsn. */
void drains_reached(struct drains *drains, uint64_t lsn);
/* Ends all that wait for more than lsn with error; UINT64_MAX ends nobody, 0 everybody. */
void drains_beyond(struct drains *drains, uint64_t lsn, int error);
/* Ends all whose deadline has passed with error. */
void drains_timeout(struct drains *drains, uint64_t now_ns, int error);

#endif
