/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking the writer's right, and giving it back. Synchronous.
 *
 *   lock        backing device and cache, against every other process of this host
 *   unchanged?  the backing device is as large, and the log as it was when it was opened; and if
 *               that holds anything, the backing device still is what it was bound to
 *   (format)    a cache that is discarded, with LSNs well above what is known of the old one
 *   state       made for a new log; taken anew for an empty one, whose device may have changed;
 *               otherwise as it is, but for a size or identity that is known now
 *   start       the log's superblock: log_epoch raised, volume, state. From here on they are bound
 *
 * All of it becomes durable with the one superblock that wlog_start() writes: a crash before leaves
 * everything as it was, but that a discarded log is formatted and new.
 *
 * Giving back: everything home --> log clean (wlog_stop), which says so. The samples that its last
 * state holds mean nothing from then on.
 */
#include <errno.h>

#include "boost/boost_impl.h"

#define LSN_JUMP (UINT64_C(1) << 40)

static int attach_lock(struct boost *b, struct err *err)
{
	int r = 0;

	if (b->backing->ops->lock && VARVE_STEP("boost.lock_backing"))
		r = b->backing->ops->lock(b->backing, err);
	if (r)
		return err_prefix(err, "backing device");
	b->locked_backing = b->backing->ops->lock != NULL;
	if (b->cache->ops->lock && VARVE_STEP("boost.lock_cache"))
		r = b->cache->ops->lock(b->cache, err);
	if (r)
		return err_prefix(err, "cache device");
	b->locked_cache = b->cache->ops->lock != NULL;
	return 0;
}

/*
 * Somebody who had the volume since it was opened may have resized it. Nobody is to write by a size
 * that is not true any more: beyond an end that has come nearer, or to a part only.
 */
static int attach_size(struct boost *b, struct err *err)
{
	const uint64_t before = b->backing->size_bytes;
	const int r = dev_resize_look(b->backing);

	if (r)
		return err_sys(err, r, "cannot tell the backing device's size");
	if (b->backing->size_bytes == before)
		return 0;
	return err_set(err, -EAGAIN,
		       "the backing device has another size since the volume was opened: open it "
		       "again");
}

static int attach_unchanged(struct boost *b, struct err *err)
{
	struct wlog_info info;
	int r = wlog_probe(b->cache, &info, err);

	if (r)
		return r;
	if (info.sb_seq != b->cache_sb_seq ||
	    !uuid_equal(&info.id.log_uuid, &wlog_identity(b->log)->log_uuid))
		return err_set(err, -EAGAIN,
			       "somebody else has had the volume since it was opened: open it "
			       "again");
	r = b->bound && !b->empty ? samples_check(b, &b->state, err) : 0;
	if (r != -ESTALE)
		return r;
	/*
	 * By its owner, who wrote back what the log had got since, or by somebody who did not ask
	 * for the lock: whoever opens it again will know.
	 */
	return err_set(err, -EAGAIN,
		       "the backing device has changed since the volume was opened: open it again");
}

static int attach_format(struct boost *b, struct err *err)
{
	struct wlog_info info;
	const struct wlog_format_options opt = {
		.id.volume_uuid = b->volume_uuid,
		.first_lsn = b->discard_lsn ? b->discard_lsn + LSN_JUMP + 1 : 0,
		.random = host_random(b->host),
		/* P6: what a discard gives up is a log, whole or damaged, and nothing else. */
		.force = wlog_probe(b->cache, &info, NULL) != -ENOENT ||
			 !VARVE_STEP("boost.format_spares_others"),
	};
	int r = open_may_discard(b, err);

	if (r)
		return r;
	wlog_close(b->given_up);
	b->given_up = NULL;
	extmap_clear(&b->bads);
	r = wlog_format(b->cache, &opt, NULL, err);
	if (!r)
		r = wlog_probe(b->cache, &info, err);
	if (!r)
		r = wlog_open(b->host, b->cache, &b->home, &b->opt.log, 0, &b->log, err);
	if (r)
		return r;
	b->ring_bytes = info.ring_bytes;
	b->load_user.log = b->log;
	open_count(b);
	return 0;
}

/* Whether the log may be that of a volume whose backing device is what is the cache here. */
static bool attach_swapped_log(const struct boost *b, const struct wlog_info *info)
{
	const uint64_t block = b->cache->block_bytes;
	struct boost_binding binding;

	if (!uuid_is_zero(&b->volume_uuid) && uuid_equal(&b->volume_uuid, &info->id.volume_uuid))
		return true;
	return boost_binding(info, &binding, NULL) == 0 &&
	       binding.backing_bytes == b->cache->size_bytes / block * block;
}

/*
 * P6: a log in the place of the backing device most likely means that the two were swapped. If a
 * cache is discarded it may also be what the volume holds, of a volume inside it: unless the log
 * says otherwise that is no reason to lock the user out. A cache that was bound settles it.
 */
static int attach_not_swapped(struct boost *b, struct err *err)
{
	struct wlog_info info;

	if (b->bound || wlog_probe(b->backing, &info, NULL) || !VARVE_STEP("boost.not_swapped"))
		return 0;
	if (b->discard && (b->state.backing_bytes || !attach_swapped_log(b, &info)))
		return 0;
	return err_set(err, -EEXIST,
		       "the backing device holds a log: are backing device and cache swapped? If "
		       "not, and what it holds is not wanted, clear its first 128 KiB");
}

static int attach_state(struct boost *b, struct err *err)
{
	const uint64_t bytes = b->home.sectors * DEV_SECTOR_BYTES;
	struct state *st = &b->state;
	char identity[DEV_IDENTITY_LEN];
	const bool anew = !b->bound || (b->empty && VARVE_STEP("boost.samples_anew"));
	int r = 0;

	if (!b->bound)
		*st = (struct state){
			.bound_wall_ns = host_wall_ns(b->host),
			.samples.seed = host_random(b->host),
		};
	backing_identity(b->backing, identity);
	if (!st->identity[0])
		memcpy(st->identity, identity, sizeof(identity));
	/* Places follow from the size: with it they are others. */
	if (anew || st->backing_bytes != bytes) {
		st->backing_bytes = bytes;
		/* What was bad beyond an end that has come nearer is gone: no valid state. */
		r = extmap_remove(&b->bads, b->home.sectors, EXTMAP_LBA_END - b->home.sectors, NULL,
				  NULL);
		if (!r)
			r = samples_take(b, st, err);
	}
	/* Never larger than what the log's records were aligned to, while it has any. */
	if (anew || b->backing->block_bytes < st->block_bytes)
		st->block_bytes = b->backing->block_bytes;
	if (!r && state_encode(st, &b->bads, &b->state_mem))
		r = err_set(err, -ENOSPC, "there are too many damaged ranges");
	if (r)
		return r;
	host_enter(b->host);
	wlog_set_home_state(b->log, &b->state_mem, sizeof(b->state_mem));
	host_leave(b->host);
	return 0;
}

static int attach_start(struct boost *b, struct err *err)
{
	struct wlog_identity id = {
		.log_uuid = wlog_identity(b->log)->log_uuid,
		.attach_epoch = b->attach_epoch + 1,
	};

	if (uuid_is_zero(&b->volume_uuid)) {
		const uint64_t hi = host_random(b->host);

		b->volume_uuid = uuid_from_bits(hi, host_random(b->host));
	}
	id.volume_uuid = b->volume_uuid;
	return wlog_start(b->log, &id, b->discard_lsn, err);
}

static int attach_run(struct boost *b, struct err *err)
{
	int r = attach_not_swapped(b, err);

	if (!r)
		r = attach_size(b, err);
	if (!r)
		r = b->discard ? attach_format(b, err) : attach_unchanged(b, err);
	if (!r)
		r = attach_state(b, err);
	return r;
}

int boost_acquire(struct boost *b, struct err *err)
{
	int r;

	if (b->acquired || b->tried)
		return err_set(err, -EALREADY, "the volume is attached already");
	if (!b->cache)
		return err_set(err, -ENODEV, "the volume cannot be written without a cache");
	if (b->cache->read_only || b->backing->read_only)
		return err_set(err, -EROFS, "the %s device is read-only",
			       b->cache->read_only ? "cache" : "backing");
	b->tried = true;
	r = attach_lock(b, err);
	if (!r)
		r = attach_run(b, err);
	if (r)
		boost_unlock(b); /* who goes on looking stands in nobody's way */
	else
		r = attach_start(b, err);
	if (r)
		return r;
	host_enter(b->host);
	b->acquired = true;
	b->bound = true;
	boost_tick_later(b);
	wb_kick(b);
	b->busy++;
	boost_exit(b);
	return 0;
}

/* ---- giving back */

int boost_release(struct boost *b, struct err *err)
{
	struct wlog_status st;
	bool ready;
	int r;

	if (!b->acquired)
		return err_set(err, -EINVAL, "the volume is not attached");
	if (b->failed)
		return err_set(err, b->failed, "writeback has stopped for good");
	host_enter(b->host);
	wlog_status(b->log, &st);
	ready = b->batch.phase == BATCH_NONE && b->home_lsn >= boost_published_lsn(b);
	if (ready)
		boost_stop(b);
	host_leave(b->host);
	if (!ready && st.failed)
		return err_set(err, st.failed,
			       "the cache has failed, and holds what the backing device lacks");
	if (!ready)
		return err_set(err, -EBUSY,
			       "not everything is on the backing device yet: drain it "
			       "first");
	r = wlog_stop(b->log, err);
	if (r)
		return r;
	if (extmap_count(&b->bads))
		log_warn("%llu sectors were lost to damage in the cache: the backing device holds "
			 "older data there, and without the cache nothing tells so",
			 (unsigned long long)bads_sectors(&b->bads));
	b->acquired = false;
	boost_unlock(b);
	return 0;
}
