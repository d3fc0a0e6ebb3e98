/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Those who wait for the home.
 *
 * A drain stands in `waiting` until what it waits for has happened or cannot happen any more, then
 * in `over` until one piece of deferred work has taken all that are there and called them.
 *
 * Invariants:
 *   1. a drain is done exactly once, from deferred work, never entered: it may free itself, or ask
 *      for the next one;
 *   2. while the work is queued or running the owner counts it (busy), so that it outlives it.
 */
#include "wlog/drain.h"

#include <errno.h>

static void drains_work(struct work *work)
{
	struct drains *drains = container_of(work, struct drains, work);
	struct list_head done, *link;

	list_init(&done);
	host_enter(drains->host);
	drains->queued = false;
	list_splice_tail(&drains->over, &done);
	host_leave(drains->host);
	while ((link = list_pop(&done))) {
		struct drain *d = list_entry(link, struct drain, link);

		d->done(d, d->result);
	}
	host_enter(drains->host);
	drains->busy(drains, -1);
	host_leave(drains->host);
}

void drains_init(struct drains *drains, struct host *host,
		 void (*busy)(struct drains *drains, int delta))
{
	*drains = (struct drains){ .host = host, .busy = busy, .work.run = drains_work };
	list_init(&drains->waiting);
	list_init(&drains->over);
}

void drains_add(struct drains *drains, struct drain *drain)
{
	list_add_tail(&drain->link, &drains->waiting);
}

void drains_finish(struct drains *drains, struct drain *drain, int error)
{
	drain->result = error;
	list_add_tail(&drain->link, &drains->over);
	if (drains->queued)
		return;
	drains->queued = true;
	drains->busy(drains, 1);
	host_defer(drains->host, &drains->work);
}

static void drains_end(struct drains *drains, struct drain *drain, int error)
{
	list_del(&drain->link);
	drains_finish(drains, drain, error);
}

int drains_cancel(struct drains *drains, const struct drain *drain)
{
	struct drain *d;

	list_for_each_entry(d, &drains->waiting, struct drain, link)
	{
		if (d == drain) {
			list_del(&d->link);
			return 0;
		}
	}
	return -ENOENT;
}

void drains_reached(struct drains *drains, uint64_t lsn)
{
	struct drain *d, *tmp;

	list_for_each_entry_safe(d, tmp, &drains->waiting, struct drain, link)
	{
		if (d->lsn <= lsn)
			drains_end(drains, d, 0);
	}
}

void drains_beyond(struct drains *drains, uint64_t lsn, int error)
{
	struct drain *d, *tmp;

	list_for_each_entry_safe(d, tmp, &drains->waiting, struct drain, link)
	{
		if (!lsn || d->lsn > lsn)
			drains_end(drains, d, error);
	}
}

void drains_timeout(struct drains *drains, uint64_t now_ns, int error)
{
	struct drain *d, *tmp;

	list_for_each_entry_safe(d, tmp, &drains->waiting, struct drain, link)
	{
		if (now_ns >= d->deadline_ns)
			drains_end(drains, d, error);
	}
}
