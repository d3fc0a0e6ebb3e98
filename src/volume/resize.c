/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the size of an open volume.
 *
 * The volume is paused meanwhile (pause.c): what was in flight has ended, what comes waits, and is
 * tested against the new size when it starts again (io.c, beyond_end()).
 *
 * A home whose engine can change its size does so (home_ops.resize): of a shrinking what lies
 * beyond is zeroed and drained before, so that it cannot come back. One whose size is its medium's
 * has its engine closed, the medium changed, and the engine opened again:
 *
 *	grow:    flush --> close (as a crash) --> medium --> open --> acquire
 *	shrink:  flush --> drain --> release: the log says that it is empty --> close --> ...
 *
 * What is durable when: the new size before varve_resize() returns, and before any request beyond
 * the smaller of the two sizes is accepted. A crash in between leaves either size.
 *
 * Locks: the host's; the engine is closed and opened in ACQUIRING, where nobody looks at it.
 */
#include <errno.h>
#include <string.h>

#include "base/mutant.h"
#include "volume/open.h"

/* ---- by the engine ------------------------------------------------------------------------- */

struct resize_wait {
	struct drain drain;
	struct varve_volume *vol;
	bool over;
	int result;
};

static void resize_over(struct drain *drain, int error)
{
	struct resize_wait *w = container_of(drain, struct resize_wait, drain);
	struct varve_volume *vol = w->vol;

	volume_enter(vol);
	w->result = error;
	w->over = true;
	volume_leave(vol);
}

static int resize_engine(struct varve_volume *vol, uint64_t bytes)
{
	struct resize_wait w = {.vol = vol, .drain.done = resize_over};

	volume_enter(vol);
	vol->home->ops->resize(vol->home, bytes, &w.drain);
	volume_leave(vol);
	volume_enter(vol);
	while (!w.over)
		vhost_wait(&vol->h, UINT64_MAX);
	volume_leave(vol);
	return w.result;
}

static int in_engine(struct varve_volume *vol, uint64_t old, uint64_t bytes, struct err *err)
{
	int rc = 0;

	if (bytes < old) {
		rc = volume_paused_io(vol, DEV_ZERO, bytes, old - bytes);
		if (!rc)
			rc = volume_drain(vol, NULL);
	}
	if (!rc)
		rc = resize_engine(vol, bytes);
	return rc ? err_sys(err, rc, "the %s", vol->home->ops->home) : 0;
}

/* ---- by the medium ------------------------------------------------------------------------- */

/* As acquiring does it: nobody is in the engine, and nobody may look. */
static void close_for(struct varve_volume *vol)
{
	volume_enter(vol);
	atomic_store(&vol->state, VOLUME_ACQUIRING);
	vol->acquire_started = true;
	volume_leave(vol);
}

static int in_medium(struct varve_volume *vol, uint64_t old, uint64_t bytes, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = 0, back;

	if (VARVE_STEP("volume.flush_before_reopen"))
		rc = volume_paused_io(vol, DEV_FLUSH, 0, 0);
	if (!rc && bytes < old)
		rc = volume_drain(vol, NULL);
	if (rc) {
		volume_unpause(vol);
		return err_sys(err, rc, "the %s", vol->home->ops->home);
	}
	close_for(vol);
	if (bytes < old)
		rc = vol->home->ops->release(vol->home, err);
	volume_engine_close(vol);
	if (!rc)
		rc = vol->home->ops->resize_media(vol->home, bytes, err);
	back = volume_engine_open(vol, &why);
	if (!back)
		back = vol->home->ops->acquire(vol->home, &why);
	acquire_end(vol, back, &why);
	if (back && !rc)
		err_set(err, back, "%s", err_text(&why, back));
	return rc ? rc : back;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static int check(struct varve_volume *vol, uint64_t *bytes, unsigned int flags, struct err *err)
{
	const uint64_t old = volume_size(vol);
	int rc;

	if (flags & ~(unsigned int)VARVE_RESIZE_SHRINK)
		return err_set(err, -EINVAL, "unknown flags");
	if (vhost_delivering())
		return err_set(err, -EDEADLK, "a call that waits was made from inside done()");
	if (vol->read_only)
		return err_set(err, -EROFS, "it is open for reading only");
	rc = vol->home->ops->resize_check(vol->home, bytes, err);
	if (rc)
		return rc;
	if (*bytes % vol->block_bytes)
		return err_set(err, -EINVAL, "%llu bytes are not a multiple of its block of %u",
			       (unsigned long long)*bytes, vol->block_bytes);
	if (*bytes < old && !(flags & VARVE_RESIZE_SHRINK))
		return err_set(err, -EINVAL,
			       "%llu bytes are less than the %llu that it has: what lies beyond "
			       "would be lost. --shrink (VARVE_RESIZE_SHRINK) allows it",
			       (unsigned long long)*bytes, (unsigned long long)old);
	return 0;
}

static int resize(struct varve_volume *vol, uint64_t bytes, unsigned int flags, struct err *err)
{
	uint64_t old;
	int rc = check(vol, &bytes, flags, err);

	if (!rc)
		rc = volume_own(vol, err);
	if (rc)
		return rc;
	rc = volume_pause(vol, NULL);
	if (rc)
		return rc == -EBUSY ? err_set(err, rc, "it is suspended, or being resized")
				    : err_sys(err, rc, "waiting for its requests");
	old = volume_size(vol);
	if (bytes == old) {
		volume_unpause(vol);
		return 0;
	}
	if (!vol->home->ops->resize)
		return in_medium(vol, old, bytes, err);
	rc = in_engine(vol, old, bytes, err);
	volume_enter(vol);
	volume_learn(vol);
	volume_leave(vol);
	volume_unpause(vol);
	return rc;
}

int varve_resize(struct varve_volume *volume, uint64_t new_bytes, unsigned int flags)
{
	struct err why = ERR_INIT;
	int rc = errmsg_check_owner(volume);

	if (rc)
		return rc;
	rc = resize(volume, new_bytes, flags, &why);
	errmsg_begin();
	return rc ? errmsg_set(rc, "resizing volume %s: %s", volume->cfg.name, err_text(&why, rc))
		  : 0;
}
