/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and closing volumes.
 *
 * Opening builds upwards: configuration, store and cache, the sluices in front of them, the host,
 * the engine. Closing takes the same down again, after it has made everything safe:
 *
 *	flush -> drain -> checkpoint -> release -> stop -> idle -> close
 *
 * If the store does not take the data, drain ends with home_timeout; flush has made the data safe
 * in the cache by then, nothing is released, and the next opening finds it there as after a crash.
 *
 * Memory stores and caches are made on the way: nothing can be lost in them, so a volume in a
 * memory store that does not exist is created (tests, benchmarks, a first look).
 *
 * Fork. A generation that a child's fork handler raises tells it that a volume is not its own;
 * see volume_forked(). Nothing of the parent's is touched by the child, not even to free it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "runtime/clock.h"
#include "volume/config.h"
#include "volume/media.h"
#include "volume/open.h"

#define MEM_VOLUME_BYTES (UINT64_C(1) << 30)

_Atomic unsigned int volume_fork_generation;

static void forked_child(void)
{
	atomic_fetch_add_explicit(&volume_fork_generation, 1, memory_order_relaxed);
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, forked_child);
}

/* ---- configuration ------------------------------------------------------------------------- */

static int configure_spec(const char *spec, const char *comma, struct volume_config *cfg,
			  struct err *err)
{
	char cache[SETTING_TEXT_LEN];
	const char *base = strrchr(comma + 1, '/');
	int rc;

	if ((size_t)(comma - spec) >= sizeof(cache))
		return err_set(err, -ENAMETOOLONG, "%s: too long", spec);
	memcpy(cache, spec, (size_t)(comma - spec));
	cache[comma - spec] = '\0';
	if (!cache[0])
		snprintf(cache, sizeof(cache), "none");
	rc = settings_set(cfg, settings_find("cache", 5), cache, err);
	if (!rc)
		rc = settings_set(cfg, settings_find("store", 5), comma + 1, err);
	if (!rc) {
		if (!base)
			base = strchr(comma + 1, ':');
		snprintf(cfg->name, sizeof(cfg->name), "%s", base ? base + 1 : comma + 1);
	}
	return rc;
}

int open_configure(const char *name_or_spec, const char *const *settings,
		   struct volume_config *cfg, struct err *err)
{
	const char *comma = strchr(name_or_spec, ',');
	int rc;

	settings_default(cfg);
	if (comma) {
		rc = configure_spec(name_or_spec, comma, cfg, err);
	} else {
		rc = config_read(name_or_spec, cfg, err);
		snprintf(cfg->name, sizeof(cfg->name), "%s", name_or_spec);
	}
	if (!rc)
		rc = settings_apply(cfg, settings, err);
	if (rc)
		return rc;
	if (!cfg->store[0])
		return err_set(err, -EINVAL, "volume %s: no store is set", cfg->name);
	if (strcmp(cfg->type, "lsvd") != 0)
		return err_set(err, -EINVAL, "volume %s: type %s: there is only lsvd", cfg->name,
			       cfg->type);
	return 0;
}

/* ---- media --------------------------------------------------------------------------------- */

static int open_store(struct varve_volume *vol, struct err *err)
{
	struct store *store;
	int rc = media_store_open(vol->cfg.store, &store, vol->object, err);

	if (rc)
		return rc;
	rc = sluice_store_new(store, &vol->h.store);
	if (rc) {
		store_close(store);
		return err_set(err, rc, "volume %s: no memory", vol->cfg.name);
	}
	return 0;
}

static int open_cache_dev(struct varve_volume *vol, struct dev **ret, struct err *err)
{
	const char *text = vol->cfg.cache;
	unsigned int flags = vol->read_only ? MEDIA_READ_ONLY : 0;
	struct err why = ERR_INIT;
	int rc;

	if (vol->discard_cache && vol->cfg.cache_bytes && !vol->read_only)
		flags |= MEDIA_CREATE;
	rc = media_cache_open(text, flags, vol->cfg.cache_bytes, ret, NULL, &why);
	if (rc == -EACCES || rc == -EROFS) {
		/* Looking is allowed to those who may not write. */
		vol->read_only = true;
		err_clear(&why);
		rc = media_cache_open(text, MEDIA_READ_ONLY, 0, ret, NULL, &why);
	}
	if (rc == -ENOENT)
		return err_set(err, -ENODEV,
			       "volume %s: the cache %s is missing; what it held can only be given "
			       "up by discarding the cache",
			       vol->cfg.name, text);
	return rc ? err_set(err, rc, "%s", err_text(&why, rc)) : 0;
}

/* Memory without a log in it is new. */
static int format_mem_cache(struct dev *dev, struct varve_volume *vol, struct err *err)
{
	struct wlog_format_options opt = {.random = clock_wall_ns() ^ (uintptr_t)vol};
	struct wlog_identity id;
	struct wlog_info info;

	if (!media_is_mem(vol->cfg.cache) || vol->read_only ||
	    wlog_probe(dev, &info, NULL) != -ENOENT)
		return 0;
	return wlog_format(dev, &opt, &id, err);
}

static int open_cache(struct varve_volume *vol, struct err *err)
{
	struct dev *dev;
	int rc;

	if (media_is_none(vol->cfg.cache)) {
		vol->read_only = true;
		return 0;
	}
	rc = open_cache_dev(vol, &dev, err);
	if (rc)
		return rc;
	rc = format_mem_cache(dev, vol, err);
	if (!rc) {
		rc = sluice_dev_new(dev, &vol->h.dev);
		if (rc)
			err_set(err, rc, "volume %s: no memory", vol->cfg.name);
	}
	if (rc)
		dev_close(dev);
	return rc;
}

static int create_in_mem(struct varve_volume *vol, struct err *err)
{
	const struct lsvd_create_options opt = {
		.size_bytes = vol->cfg.size_bytes ? vol->cfg.size_bytes : MEM_VOLUME_BYTES,
		.block_bytes = (uint32_t)vol->cfg.block_bytes,
		.wall_ns = clock_wall_ns(),
	};
	struct lsvd_info info;
	int rc;

	if (!media_is_mem(vol->cfg.store))
		return 0;
	rc = lsvd_probe(&vol->h.store->store, vol->object, &info, NULL);
	if (rc != -ENOENT)
		return 0;
	rc = lsvd_create(&vol->h.store->store, vol->object, &opt, err);
	/* Another opener may have been faster. */
	return rc == -EEXIST ? 0 : rc;
}

/* ---- open ---------------------------------------------------------------------------------- */

static void engine_fill(struct vhost *h, struct dev_req *req)
{
	wlog_fill(volume_of_host(h)->log, req);
}

static void engine_publish(struct vhost *h, struct dev_req *req)
{
	wlog_publish(volume_of_host(h)->log, req);
}

static void engine_tick(struct vhost *h)
{
	struct varve_volume *vol = volume_of_host(h);
	const int state = atomic_load_explicit(&vol->state, memory_order_relaxed);

	if (vol->lsvd && (state == VOLUME_WRITABLE || state == VOLUME_LOOKING))
		lsvd_tick(vol->lsvd);
}

static void acquire_by_worker(struct work *work)
{
	acquire_run(container_of(work, struct varve_volume, acquire_work));
}

static struct varve_volume *volume_new(const struct volume_config *cfg, unsigned int flags)
{
	struct varve_volume *vol = calloc(1, sizeof(*vol));

	if (!vol)
		return NULL;
	vol->cfg = *cfg;
	vol->fork_generation =
		atomic_load_explicit(&volume_fork_generation, memory_order_relaxed);
	vol->read_only = cfg->read_only || (flags & VARVE_OPEN_READ_ONLY);
	vol->discard_cache = flags & VARVE_OPEN_DISCARD_CACHE;
	vol->cfg.opt.hold_destage |= !!(flags & VARVE_OPEN_HOLD_DESTAGE);
	vol->opened_ns = clock_now_ns();
	vol->h.fill = engine_fill;
	vol->h.publish = engine_publish;
	vol->h.tick = engine_tick;
	vol->acquire_work.run = acquire_by_worker;
	list_init(&vol->waiting);
	list_init(&vol->grace_now);
	list_init(&vol->grace_next);
	rangelock_init(&vol->ranges);
	return vol;
}

static void close_media(struct varve_volume *vol)
{
	if (vol->h.dev)
		dev_close(&vol->h.dev->dev);
	if (vol->h.store)
		store_close(&vol->h.store->store);
	free(vol);
}

static void learn(struct varve_volume *vol)
{
	struct lsvd_status st;

	/* The superblock was read by lsvd_open(): status repeats it. */
	volume_enter(vol);
	lsvd_status(vol->lsvd, &st);
	volume_leave(vol);
	vol->size_bytes = st.info.size_bytes;
	vol->block_bytes = st.info.block_bytes;
	vol->uuid = st.info.uuid;
}

static int open_engine(struct varve_volume *vol, struct err *err)
{
	int rc = vhost_open(&vol->h);

	if (rc)
		return err_sys(err, rc, "volume %s: threads", vol->cfg.name);
	rc = volume_engine_open(vol, err);
	if (rc) {
		vhost_close(&vol->h);
		return rc;
	}
	learn(vol);
	return 0;
}

int open_volume(const struct volume_config *cfg, unsigned int flags, struct varve_volume **ret,
		struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct varve_volume *vol;
	int rc;

	pthread_once(&once, watch_forks);
	vol = volume_new(cfg, flags);
	if (!vol)
		return err_set(err, -ENOMEM, "volume %s: no memory", cfg->name);
	rc = open_store(vol, err);
	if (!rc)
		rc = open_cache(vol, err);
	if (!rc)
		rc = create_in_mem(vol, err);
	if (!rc)
		rc = open_engine(vol, err);
	if (rc) {
		err_prefix(err, "opening volume %s", vol->cfg.name);
		close_media(vol);
		return rc;
	}
	*ret = vol;
	return 0;
}

int open_take_right(struct varve_volume *vol, struct err *err)
{
	volume_enter(vol);
	atomic_store(&vol->state, VOLUME_ACQUIRING);
	vol->acquire_started = true;
	volume_leave(vol);
	acquire_run(vol);
	if (atomic_load(&vol->state) == VOLUME_WRITABLE)
		return 0;
	return err_set(err, vol->acquire_err.code, "%s",
		       err_text(&vol->acquire_err, vol->acquire_err.code));
}

int varve_open_with(const char *name_or_spec, unsigned int flags,
			      const char *const *settings, struct varve_volume **ret)
{
	struct err *err = errmsg_begin();
	struct volume_config *cfg = malloc(sizeof(*cfg));
	int rc;

	if (!cfg)
		return err_set(err, -ENOMEM, "opening volume %s: no memory", name_or_spec);
	rc = open_configure(name_or_spec, settings, cfg, err);
	if (!rc)
		rc = open_volume(cfg, flags, ret, err);
	free(cfg);
	return rc;
}

int varve_open(const char *name_or_spec, unsigned int flags, struct varve_volume **ret)
{
	return varve_open_with(name_or_spec, flags, NULL, ret);
}

/* ---- close --------------------------------------------------------------------------------- */

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

static int drain_and_wait(struct varve_volume *vol,
			  void (*begin)(struct lsvd *lsvd, struct drain *drain))
{
	struct drain_wait w = {.vol = vol, .drain.done = drain_over};
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	if (!vol->lsvd || !lsvd_acquired(vol->lsvd)) {
		volume_leave(vol);
		return -ENOLCK;
	}
	begin(vol->lsvd, &w.drain);
	/* Leaving kicks what was begun; nobody is helping it. */
	volume_leave(vol);
	volume_enter(vol);
	while (!w.over)
		vhost_wait(&vol->h, UINT64_MAX);
	volume_leave(vol);
	return w.result;
}

/*
 * What an earlier process has left in the log is to reach the store too, and only an owner may
 * take it there. A volume that nobody has written to, with nothing in the log, is left alone.
 */
static int own_and_wait(struct varve_volume *vol,
			void (*begin)(struct lsvd *lsvd, struct drain *drain))
{
	struct wlog_status st = {0};
	bool acquired;
	int rc = volume_enter_settled(vol);

	if (rc)
		return rc;
	acquired = vol->lsvd && lsvd_acquired(vol->lsvd);
	if (vol->log)
		wlog_status(vol->log, &st);
	volume_leave(vol);
	if (!acquired && !st.map_extents)
		return 0;
	if (!acquired)
		rc = vol->read_only ? -EROFS : volume_own(vol);
	return rc ? rc : drain_and_wait(vol, begin);
}

int volume_drain(struct varve_volume *vol)
{
	return own_and_wait(vol, lsvd_drain);
}

int volume_checkpoint(struct varve_volume *vol)
{
	return own_and_wait(vol, lsvd_checkpoint);
}

static int release(struct varve_volume *vol, struct err *err)
{
	/* Not entered, and alone: as while the right is taken, no tick may come in between. */
	volume_enter(vol);
	atomic_store(&vol->state, VOLUME_ACQUIRING);
	vol->acquire_started = true;
	volume_leave(vol);
	return lsvd_release(vol->lsvd, err);
}

static int settle_all(struct varve_volume *vol, struct err *err)
{
	int rc = volume_enter_settled(vol);

	if (rc)
		return err_sys(err, rc, "closing volume %s", vol->cfg.name);
	if (!vol->lsvd || !lsvd_acquired(vol->lsvd)) {
		volume_leave(vol);
		return 0;
	}
	lsvd_set_hold(vol->lsvd, false);
	volume_leave(vol);
	rc = varve_flush(vol);
	if (rc)
		return err_sys(err, rc, "closing volume %s: flushing the cache", vol->cfg.name);
	rc = volume_drain(vol);
	if (!rc)
		rc = volume_checkpoint(vol);
	if (rc)
		return err_sys(err, rc,
			       "closing volume %s: the store; the data is safe in the cache",
			       vol->cfg.name);
	return release(vol, err);
}

int open_close(struct varve_volume *vol, struct err *err)
{
	const int rc = settle_all(vol, err);

	if (rc)
		log_error("%s", err_text(err, rc));
	volume_engine_close(vol);
	vhost_close(&vol->h);
	close_media(vol);
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

/* ---- what it is ---------------------------------------------------------------------------- */

void varve_get_info(struct varve_volume *volume, struct varve_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->name, sizeof(ret->name), "%.255s", volume->cfg.name);
	snprintf(ret->type, sizeof(ret->type), "%s", volume->cfg.type);
	uuid_to_text(&volume->uuid, ret->uuid);
	ret->size_bytes = volume->size_bytes;
	ret->block_bytes = volume->block_bytes;
	ret->optimal_bytes = 4096;
	ret->max_atomic_bytes = volume_max_io(volume);
	ret->read_only = volume->read_only;
	ret->cut = volume->discard_cache;
	ret->cut_lsn = volume->cut.lsn;
	ret->cut_wall_ns = volume->cut.wall_ns;
	ret->cut_lost_bytes = volume->cut.lost_bytes;
}

int varve_extent(struct varve_volume *volume, uint64_t offset, uint64_t length,
			   uint64_t *ret_length, bool *ret_data)
{
	uint64_t end, stop;
	bool data;
	int rc = errmsg_check_owner(volume);

	if (rc)
		return rc;
	if (!length || offset >= volume->size_bytes || length > volume->size_bytes - offset)
		return errmsg_set(-EINVAL, "no %llu bytes at %llu in volume %s",
				  (unsigned long long)length, (unsigned long long)offset,
				  volume->cfg.name);
	end = (offset + length + DEV_SECTOR_BYTES - 1) / DEV_SECTOR_BYTES;
	rc = volume_enter_settled(volume);
	if (rc)
		return errmsg_set(rc, "volume %s has failed", volume->cfg.name);
	stop = lsvd_extent(volume->lsvd, offset / DEV_SECTOR_BYTES, end, &data);
	volume_leave(volume);
	stop = stop * DEV_SECTOR_BYTES - offset;
	*ret_length = stop < length ? stop : length;
	*ret_data = data;
	return 0;
}
