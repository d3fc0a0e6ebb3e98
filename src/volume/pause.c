/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pausing: the gate is closed, requests queue before it, and those that have passed it end.
 *
 * A resize pauses for a moment; a suspension until somebody resumes. Both leave from LOOKING or
 * WRITABLE, and go back to where they came from; what has queued starts again then, in order.
 *
 *	pause:    gate closed --> nothing in the engine
 *	suspend:  pause --> log flushed --> home held --> no ticks --> nothing in flight anywhere
 *
 * What is durable when: a suspension's answer means that everything acknowledged is durable on the
 * cache device, and that neither device is written to until the volume is resumed. Copies of both
 * that are made meanwhile, in any order, are what a crash at that moment would have left.
 *
 * Invariants
 *   1. In PAUSED no request is in the engine, once volume_pause() has returned 0.
 *   2. quiet is true only while suspended: the engine gets no ticks, so that no retry, no age and
 *      no deadline begins anything.
 *   3. Waiting here ends with home_timeout: a full log whose home has failed keeps its writers.
 *
 * Locks: the host's, for everything here.
 */
#include <errno.h>
#include <string.h>

#include "base/mutant.h"
#include "runtime/clock.h"
#include "volume/volume.h"

/* ---- cancelling ---------------------------------------------------------------------------- */

void volume_cancel(struct varve_volume *vol, struct cancel *cancel)
{
	volume_enter(vol);
	cancel->asked = true;
	/* Leaving wakes whoever waits in this volume. */
	volume_leave(vol);
}

/* ---- the gate ------------------------------------------------------------------------------ */

static bool in_flight(struct varve_volume *vol)
{
	for (int i = 0; i < INFLIGHT_KINDS; i++)
		if (atomic_load(&vol->inflight[i]))
			return true;
	return false;
}

/* Entered. */
static void gate_open(struct varve_volume *vol)
{
	atomic_store(&vol->state, vol->paused_from);
	slow_grace_check(vol);
	acquire_restart_waiting(vol, 0);
	/* A tick that came in between may not have been given to the engine. */
	host_wake_at(&vol->h.host, clock_now_ns());
}

static int give_up(const struct cancel *cancel, uint64_t deadline_ns)
{
	if (cancel && cancel->asked)
		return -ECANCELED;
	return clock_now_ns() >= deadline_ns ? -ETIMEDOUT : 0;
}

int volume_pause(struct varve_volume *vol, const struct cancel *cancel)
{
	const uint64_t deadline_ns = clock_now_ns() + vol->cfg.home_timeout_ns;
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	if (atomic_load(&vol->state) == VOLUME_PAUSED) {
		volume_leave(vol);
		return -EBUSY;
	}
	vol->paused_from = atomic_load(&vol->state);
	atomic_store(&vol->state, VOLUME_PAUSED);
	/* Before the counters are read: pairs with vio_uncount() (io.c, invariant 4). */
	atomic_store(&vol->watch, true);
	while (!rc && in_flight(vol)) {
		rc = give_up(cancel, deadline_ns);
		if (!rc)
			vhost_wait(&vol->h, deadline_ns);
	}
	if (rc)
		gate_open(vol);
	volume_leave(vol);
	return rc;
}

void volume_unpause(struct varve_volume *vol)
{
	volume_enter(vol);
	gate_open(vol);
	volume_leave(vol);
}

/* ---- requests of our own ------------------------------------------------------------------- */

struct own_io {
	struct dev_req req;
	struct varve_volume *vol;
	bool over;
};

static void own_io_done(struct dev_req *req)
{
	struct own_io *io = container_of(req, struct own_io, req);
	struct varve_volume *vol = io->vol;

	volume_enter(vol);
	io->over = true;
	volume_leave(vol);
}

int volume_paused_io(struct varve_volume *vol, enum dev_op op, uint64_t off_bytes,
		     uint64_t len_bytes)
{
	struct own_io io = {
		.req = {.op = op, .off_bytes = off_bytes, .len_bytes = len_bytes},
		.vol = vol,
	};
	int rc = 0;

	if (vol->home->ops->no_log)
		return op == DEV_FLUSH ? 0 : vol->home->ops->run(vol->home, &io.req);
	io.req.done = own_io_done;
	volume_enter(vol);
	if (op == DEV_FLUSH)
		wlog_flush(vol->log, &io.req);
	else
		rc = wlog_reserve(vol->log, &io.req);
	volume_leave(vol);
	if (rc > 0) {
		wlog_fill(vol->log, &io.req);
		volume_enter(vol);
		wlog_publish(vol->log, &io.req);
		volume_leave(vol);
	}
	if (rc < 0)
		return rc;
	volume_enter(vol);
	while (!io.over)
		vhost_wait(&vol->h, UINT64_MAX);
	volume_leave(vol);
	return io.req.result;
}

/* ---- suspending ---------------------------------------------------------------------------- */

/* Entered. */
static void go_on(struct varve_volume *vol)
{
	vol->quiet = false;
	vol->suspended = false;
	vol->home->ops->hold(vol->home, vol->cfg.hold);
	gate_open(vol);
}

static int become_quiet(struct varve_volume *vol, const struct cancel *cancel)
{
	const uint64_t deadline_ns = clock_now_ns() + vol->cfg.home_timeout_ns;
	int rc = 0;

	volume_enter(vol);
	vol->home->ops->hold(vol->home, true);
	vol->quiet = true;
	/* Leaving starts what has been submitted. */
	volume_leave(vol);
	volume_enter(vol);
	while (!rc && !vol->home->ops->idle(vol->home) && VARVE_STEP("volume.idle_in_suspend")) {
		rc = give_up(cancel, deadline_ns);
		if (!rc)
			vhost_wait(&vol->h, deadline_ns);
	}
	if (!rc && cancel && cancel->asked)
		rc = -ECANCELED;
	if (rc)
		go_on(vol);
	else
		vol->suspended = true;
	volume_leave(vol);
	return rc;
}

int volume_suspend(struct varve_volume *vol, const struct cancel *cancel)
{
	int rc = volume_pause(vol, cancel);

	if (rc)
		return rc;
	if (vol->paused_from == VOLUME_WRITABLE && VARVE_STEP("volume.flush_in_suspend"))
		rc = volume_paused_io(vol, DEV_FLUSH, 0, 0);
	if (rc) {
		volume_unpause(vol);
		return rc;
	}
	return become_quiet(vol, cancel);
}

int volume_resume(struct varve_volume *vol)
{
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	if (vol->suspended)
		go_on(vol);
	else
		rc = -EALREADY;
	volume_leave(vol);
	return rc;
}

bool volume_is_suspended(struct varve_volume *vol)
{
	bool suspended;

	volume_enter(vol);
	suspended = vol->suspended;
	volume_leave(vol);
	return suspended;
}
