/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making everything safe: drains, checkpoints, closing.
 *
 *	flush -> drain -> checkpoint -> release -> stop -> idle -> close
 *
 * If the home does not take the data, drain ends with home_timeout; flush has made the data safe
 * in the cache by then, nothing is released, and the next opening finds it there as after a crash.
 *
 * Who has only looked has nothing to make safe, with one exception: whoever stops the volume's
 * server takes the home for complete. So a server takes the right, if nobody else has it, where an
 * earlier process has left something in the cache.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "volume/open.h"

typedef void drain_fn(struct home *home, struct drain *drain);

struct drain_wait {
	struct drain drain;
	struct varve_volume *vol;
	bool over;
	int result;
};

static void drain_over(struct drain *drain, int error)
{
	struct drain_wait *w = container_of(drain, struct drain_wait, drain);
	struct varve_volume *vol = w->vol;

	volume_enter(vol);
	w->result = error;
	w->over = true;
	volume_leave(vol);
}

/* Entered. */
static bool is_acquired(struct varve_volume *vol)
{
	return vol->engine && vol->home->ops->acquired(vol->home);
}

/* Entered: whether nobody waits any more, and the home has been told. */
static bool is_cancelled(struct varve_volume *vol, struct drain *drain,
			 const struct cancel *cancel)
{
	return cancel && cancel->asked && !vol->home->ops->drain_cancel(vol->home, drain);
}

static int drain_and_wait(struct varve_volume *vol, drain_fn *begin, const struct cancel *cancel)
{
	struct drain_wait w = {.vol = vol, .drain.done = drain_over};
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	if (!is_acquired(vol)) {
		volume_leave(vol);
		return -ENOLCK;
	}
	begin(vol->home, &w.drain);
	/* Leaving kicks what was begun; nobody is helping it. */
	volume_leave(vol);
	volume_enter(vol);
	while (!w.over) {
		if (is_cancelled(vol, &w.drain, cancel)) {
			w.result = -ECANCELED;
			break;
		}
		vhost_wait(&vol->h, UINT64_MAX);
	}
	volume_leave(vol);
	return w.result;
}

/*
 * What an earlier process has left in the log is to reach the store too, and only an owner may
 * take it there. A volume that nobody has written to, with nothing in the log, is left alone.
 */
static int own_and_wait(struct varve_volume *vol, drain_fn *begin, const struct cancel *cancel)
{
	struct wlog_status st = {0};
	bool acquired;
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	acquired = is_acquired(vol);
	if (vol->log)
		wlog_status(vol->log, &st);
	volume_leave(vol);
	if (!acquired && !st.map_extents)
		return 0;
	if (!acquired)
		rc = vol->read_only ? -EROFS : volume_own(vol, errmsg_begin());
	return rc ? rc : drain_and_wait(vol, begin, cancel);
}

int volume_drain(struct varve_volume *vol, const struct cancel *cancel)
{
	return own_and_wait(vol, vol->home->ops->drain, cancel);
}

int volume_checkpoint(struct varve_volume *vol)
{
	if (!vol->home->ops->checkpoint)
		return -EOPNOTSUPP;
	return own_and_wait(vol, vol->home->ops->checkpoint, NULL);
}

/* What an earlier process has left as garbage is ours to collect, too. */
int volume_gc(struct varve_volume *vol, const struct cancel *cancel)
{
	int rc;

	if (!vol->home->ops->gc)
		return -EOPNOTSUPP;
	rc = vol->read_only ? -EROFS : volume_own(vol, errmsg_begin());
	return rc ? rc : drain_and_wait(vol, vol->home->ops->gc, cancel);
}

static int release(struct varve_volume *vol, struct err *err)
{
	/* Not entered, and alone: as while the right is taken, no tick may come in between. */
	volume_enter(vol);
	atomic_store(&vol->state, VOLUME_ACQUIRING);
	vol->acquire_started = true;
	volume_leave(vol);
	return vol->home->ops->release(vol->home, err);
}

/* Entered: what was held back goes too. */
static void unhold(struct varve_volume *vol)
{
	vol->cfg.hold = false;
	vol->home->ops->hold(vol->home, false);
}

static int own_what_was_left(struct varve_volume *vol, struct err *err)
{
	struct wlog_status st = {0};
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	if (vol->log && vol->served && !vol->read_only && !is_acquired(vol))
		wlog_status(vol->log, &st);
	volume_leave(vol);
	if (!st.map_extents)
		return 0;
	rc = volume_own(vol, err);
	if (rc != -EBUSY)
		return rc;
	/* Somebody else is at work, and will do it. */
	err_clear(err);
	return 0;
}

static int settle_all(struct varve_volume *vol, struct err *err)
{
	int rc;

	/* What was suspended is resumed: -EALREADY and the like are no matter. */
	volume_resume(vol);
	rc = own_what_was_left(vol, err);
	if (!rc)
		rc = volume_enter_settled(vol);
	if (rc)
		return err_sys(err, rc, "closing volume %s", vol->cfg.name);
	if (!is_acquired(vol)) {
		volume_leave(vol);
		return 0;
	}
	unhold(vol);
	volume_leave(vol);
	rc = varve_flush(vol);
	if (rc)
		return err_sys(err, rc, "closing volume %s: flushing the cache", vol->cfg.name);
	rc = volume_drain(vol, NULL);
	if (!rc && vol->home->ops->checkpoint)
		rc = volume_checkpoint(vol);
	if (rc)
		return err_sys(err, rc,
			       "closing volume %s: the %s; the data is safe in the cache",
			       vol->cfg.name, vol->home->ops->home);
	return release(vol, err);
}

int open_close(struct varve_volume *vol, struct err *err)
{
	const int rc = settle_all(vol, err);

	if (rc)
		log_error("%s", err_text(err, rc));
	volume_engine_close(vol);
	vhost_close(&vol->h);
	open_close_media(vol);
	return rc;
}

int varve_close(struct varve_volume *volume)
{
	struct err err = ERR_INIT;
	int rc;

	if (!volume)
		return 0;
	rc = errmsg_check_owner(volume);
	if (rc)
		return rc;
	control_stop(volume->control);
	rc = open_close(volume, &err);
	errmsg_begin();
	return rc ? errmsg_set(rc, "%s", err_text(&err, rc)) : 0;
}
