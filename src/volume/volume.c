/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening volumes, and what an open one is.
 *
 * Opening builds upwards: configuration, home and cache, the sluices in front of them, the host,
 * the engine. Closing (settle.c) takes the same down again.
 *
 * Memory caches are made on the way: nothing can be lost in them.
 *
 * Fork. A generation that a child's fork handler raises tells it that a volume is not its own;
 * see volume_forked(). Nothing of the parent's is touched by the child, not even to free it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/clock.h"
#include "volume/config.h"
#include "volume/media.h"
#include "volume/open.h"

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
	int rc;

	if ((size_t)(comma - spec) >= sizeof(cache))
		return err_set(err, -ENAMETOOLONG, "%s: too long", spec);
	memcpy(cache, spec, (size_t)(comma - spec));
	cache[comma - spec] = '\0';
	if (!cache[0])
		snprintf(cache, sizeof(cache), "none");
	rc = settings_set(cfg, settings_find("cache", 5), cache, err);
	return rc ? rc : home_spec(comma + 1, cfg, err);
}

int open_configure(const char *name_or_spec, const char *const *settings,
		   struct volume_config *cfg, struct err *err)
{
	const char *comma = strchr(name_or_spec, ',');
	int rc;

	if (!comma) {
		rc = config_open(name_or_spec, cfg, err);
	} else {
		settings_default(cfg);
		rc = configure_spec(name_or_spec, comma, cfg, err);
	}
	if (!rc)
		rc = settings_apply(cfg, settings, err);
	if (!rc)
		rc = settings_check(cfg, err);
	return rc ? rc : home_of(cfg)->configured(cfg, err);
}

/* ---- media --------------------------------------------------------------------------------- */

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

	if (!vol->engine || vol->quiet || state == VOLUME_ACQUIRING || state == VOLUME_FAILED)
		return;
	vol->home->ops->tick(vol->home);
	volume_learn(vol);
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
	vol->cfg.hold |= !!(flags & VARVE_OPEN_HOLD_DESTAGE);
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

void open_close_media(struct varve_volume *vol)
{
	if (vol->h.dev)
		dev_close(&vol->h.dev->dev);
	if (vol->home)
		vol->home->ops->media_close(vol->home);
	free(vol);
}

void volume_learn(struct varve_volume *vol)
{
	struct home_facts facts;

	vol->home->ops->facts(vol->home, &facts);
	atomic_store_explicit(&vol->size_bytes, facts.size_bytes, memory_order_relaxed);
	if (vol->block_bytes)
		return;
	/* These stay the same for ever, and are read without a lock. */
	vol->block_bytes = facts.block_bytes;
	vol->discards = facts.discards;
	vol->uuid = facts.uuid;
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
	rc = home_of(cfg)->media_open(vol, err);
	if (!rc && !vol->home->ops->no_log)
		rc = open_cache(vol, err);
	if (!rc)
		rc = open_engine(vol, err);
	if (rc) {
		err_prefix(err, "opening volume %s", vol->cfg.name);
		open_close_media(vol);
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

/* ---- what it is ---------------------------------------------------------------------------- */

void varve_get_info(struct varve_volume *volume, struct varve_info *ret)
{
	memset(ret, 0, sizeof(*ret));
	snprintf(ret->name, sizeof(ret->name), "%.255s", volume->cfg.name);
	snprintf(ret->type, sizeof(ret->type), "%s", volume->cfg.type);
	uuid_to_text(&volume->uuid, ret->uuid);
	ret->size_bytes = volume_size(volume);
	ret->block_bytes = volume->block_bytes;
	ret->optimal_bytes = 4096;
	ret->max_atomic_bytes =
		volume->home->ops->no_log ? volume->block_bytes : volume_max_io(volume);
	ret->read_only = volume->read_only;
	ret->cut = volume->discard_cache;
	ret->cut_lsn = volume->cut.lsn;
	ret->cut_wall_ns = volume->cut.wall_ns;
	ret->cut_lost_bytes = volume->cut.lost_bytes;
	ret->cut_unknown = volume->cut.unknown;
}

int varve_extent(struct varve_volume *volume, uint64_t offset, uint64_t length,
			   uint64_t *ret_length, bool *ret_data)
{
	uint64_t end, stop;
	bool data;
	int rc = errmsg_check_owner(volume);

	if (rc)
		return rc;
	if (!length || offset >= volume_size(volume) || length > volume_size(volume) - offset)
		return errmsg_set(-EINVAL, "no %llu bytes at %llu in volume %s",
				  (unsigned long long)length, (unsigned long long)offset,
				  volume->cfg.name);
	end = (offset + length + DEV_SECTOR_BYTES - 1) / DEV_SECTOR_BYTES;
	rc = volume_enter_settled(volume);
	if (rc)
		return errmsg_set(rc, "volume %s has failed", volume->cfg.name);
	stop = volume->home->ops->extent(volume->home, offset / DEV_SECTOR_BYTES, end, &data);
	volume_leave(volume);
	stop = stop * DEV_SECTOR_BYTES - offset;
	*ret_length = stop < length ? stop : length;
	*ret_data = data;
	return 0;
}
