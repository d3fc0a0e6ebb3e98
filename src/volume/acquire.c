/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine's life, and the writer's right.
 *
 * Opening a volume takes no right. The first mutation turns LOOKING into ACQUIRING; from then on
 * every request, reads too, waits in vol->waiting, and when those that the engine has are done the
 * right is taken: by the mutation's own thread if it waits anyway, else by a worker. Then all that
 * waited starts again, in order; if the right was refused, the mutations among them fail.
 *
 * What may go wrong: somebody else has the right (-EBUSY): we go on looking, and the next mutation
 * tries again. Somebody had it since we opened (-EAGAIN): what we know is old, so the engine is
 * closed and opened again, ACQUIRE_TRIES times at most. The engine cannot be opened again: FAILED.
 *
 * Invariants
 *   1. acquire_run() runs once for each time that LOOKING became ACQUIRING, with no request in the
 *      engine: acquire_started is set once, by whoever finds all counters zero.
 *   2. vol->engine and vol->log change only in ACQUIRING. Whoever uses them without a request
 *      (status, tick, drain) enters by volume_enter_settled(), or looks at the state.
 *
 * Locks: the host's. What the home does to open, acquire and the like runs not entered.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "runtime/clock.h"
#include "volume/volume.h"

#define ACQUIRE_TRIES 5
/* A log that is still to be formatted will take this much for sure. */
#define MAX_IO_WITHOUT_LOG (64u << 10)

/* ---- the engine ---------------------------------------------------------------------------- */

static void learn_log(struct varve_volume *vol)
{
	vol->log = vol->home->ops->log(vol->home);
	/* Relaxed: whoever cuts a request by an old value cuts it too fine, or the engine says. */
	atomic_store_explicit(&vol->max_io_bytes,
			      vol->log ? wlog_max_io_bytes(vol->log) : MAX_IO_WITHOUT_LOG,
			      memory_order_relaxed);
}

int volume_engine_open(struct varve_volume *vol, struct err *err)
{
	const int rc = vol->home->ops->open(vol->home, vol->discard_cache, &vol->cut, err);

	if (rc)
		return rc;
	/* Entered: the engine has set the timer already, and a tick may look. */
	volume_enter(vol);
	vol->engine = true;
	learn_log(vol);
	volume_learn(vol);
	host_wake_at(&vol->h.host, clock_now_ns());
	volume_leave(vol);
	return 0;
}

void volume_engine_close(struct varve_volume *vol)
{
	struct home *home = vol->home;

	if (!vol->engine)
		return;
	volume_enter(vol);
	home->ops->stop(home);
	volume_leave(vol);
	/* What stop has left to do comes back by itself; each return is a leave. */
	volume_enter(vol);
	while (!home->ops->idle(home))
		vhost_wait(&vol->h, UINT64_MAX);
	/* Entered: a tick that comes later finds nothing to tick. */
	vol->engine = false;
	vol->log = NULL;
	volume_leave(vol);
	home->ops->close(home);
}

static int engine_reopen(struct varve_volume *vol, struct err *err)
{
	volume_engine_close(vol);
	return volume_engine_open(vol, err);
}

int volume_enter_settled(struct varve_volume *vol)
{
	int rc = 0;

	volume_enter(vol);
	while (atomic_load_explicit(&vol->state, memory_order_relaxed) == VOLUME_ACQUIRING)
		vhost_wait(&vol->h, UINT64_MAX);
	if (atomic_load_explicit(&vol->state, memory_order_relaxed) == VOLUME_FAILED) {
		rc = vol->failed;
		volume_leave(vol);
	}
	return rc;
}

/* ---- taking the right ---------------------------------------------------------------------- */

void acquire_check(struct varve_volume *vol, struct vio *v)
{
	if (atomic_load_explicit(&vol->state, memory_order_relaxed) != VOLUME_ACQUIRING ||
	    vol->acquire_started)
		return;
	/* Before the counters are read: pairs with vio_uncount() (io.c, invariant 4). */
	atomic_store(&vol->watch, true);
	for (int i = 0; i < INFLIGHT_KINDS; i++)
		if (atomic_load(&vol->inflight[i]))
			return;
	vol->acquire_started = true;
	if (v && v->sync)
		v->runs_acquire = true;
	else
		host_defer(&vol->h.host, &vol->acquire_work);
}

static int take_right(struct varve_volume *vol, struct err *err)
{
	int rc = vol->reopen_first ? engine_reopen(vol, err) : 0;

	for (int i = 0; !rc && i < ACQUIRE_TRIES; i++) {
		rc = vol->home->ops->acquire(vol->home, err);
		if (rc != -EAGAIN)
			break;
		err_clear(err);
		rc = engine_reopen(vol, err);
		if (!rc && i == ACQUIRE_TRIES - 1)
			rc = err_set(err, -EBUSY, "other processes keep taking volume %s",
				     vol->cfg.name);
	}
	return rc;
}

static bool is_mutation(struct vio *v)
{
	const enum varve_op op = vio_io(v)->op;

	return op == VARVE_WRITE || op == VARVE_DISCARD || op == VARVE_ZERO;
}

void acquire_restart_waiting(struct varve_volume *vol, int rc)
{
	struct list_head waiting = LIST_INIT(waiting);
	struct list_head *link;

	list_splice_tail(&vol->waiting, &waiting);
	while ((link = list_pop(&waiting))) {
		struct vio *v = vio_of_req(list_entry(link, struct dev_req, link));

		if (rc && is_mutation(v))
			vio_refuse_later(v, rc);
		else
			vio_resume_later(v);
	}
}

void acquire_end(struct varve_volume *vol, int rc, const struct err *err)
{
	if (rc)
		log_warn("volume %s: not for writing: %s", vol->cfg.name, err_text(err, rc));
	volume_enter(vol);
	vol->acquire_err = *err;
	vol->reopen_first = rc != 0;
	if (!vol->engine) {
		vol->failed = rc;
		atomic_store(&vol->state, VOLUME_FAILED);
	} else {
		learn_log(vol);
		volume_learn(vol);
		atomic_store(&vol->state, rc ? VOLUME_LOOKING : VOLUME_WRITABLE);
		/* The tick that came in between was not given to the engine. */
		host_wake_at(&vol->h.host, clock_now_ns());
	}
	acquire_restart_waiting(vol, rc);
	volume_leave(vol);
}

void acquire_run(struct varve_volume *vol)
{
	struct err err = ERR_INIT;
	const int rc = take_right(vol, &err);

	acquire_end(vol, rc, &err);
}

/* Entered. */
static bool owns(const struct varve_volume *vol)
{
	const int state = atomic_load_explicit(&vol->state, memory_order_relaxed);

	return state == VOLUME_WRITABLE ||
	       (state == VOLUME_PAUSED && vol->paused_from == VOLUME_WRITABLE);
}

int volume_own(struct varve_volume *vol, struct err *err)
{
	int rc = volume_enter_settled(vol);

	if (rc)
		return err_sys(err, rc, "it has failed");
	if (atomic_load_explicit(&vol->state, memory_order_relaxed) == VOLUME_LOOKING) {
		atomic_store(&vol->state, VOLUME_ACQUIRING);
		vol->acquire_started = false;
		acquire_check(vol, NULL);
		/* Leaving starts it, or the last request that is in flight does. */
		volume_leave(vol);
		rc = volume_enter_settled(vol);
		if (rc)
			return err_sys(err, rc, "it has failed");
	}
	if (!owns(vol)) {
		rc = vol->acquire_err.code ? vol->acquire_err.code : -EBUSY;
		err_set(err, rc, "%s", err_text(&vol->acquire_err, rc));
	}
	volume_leave(vol);
	return rc;
}
