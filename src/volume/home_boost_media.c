/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The media of boost volumes while nobody has them open: what is taken as backing device and cache,
 * and what is told of them.
 *
 * The backing device is adopted in use: its data is the volume's, and nothing is written to it when
 * a volume is created. A file that does not exist is created if a size is given.
 *
 * P6, before anything is written: cache and backing device are two devices (compared by what the
 * names lead to, not by the names), the backing device holds no log, and where the cache looks like
 * the data and the backing device like the cache, the two were swapped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boost/boost.h"
#include "volume/home_boost.h"
#include "volume/json.h"
#include "volume/media.h"
#include "volume/volume.h"

/* ---- configurations ------------------------------------------------------------------------ */

static int refuse_same(const struct volume_config *cfg, struct err *err)
{
	if (media_is_none(cfg->cache) || !media_same(cfg->cache, cfg->backing))
		return 0;
	return err_set(err, -EINVAL,
		       "cache %s is the backing device %s itself: the cache must be another, "
		       "faster device",
		       cfg->cache, cfg->backing);
}

int home_boost_configured(const struct volume_config *cfg, struct err *err)
{
	if (!cfg->backing[0])
		return err_set(err, -EINVAL, "volume %s: no backing device is set (backing=PATH)",
			       cfg->name);
	return refuse_same(cfg, err);
}

int home_boost_spec(const char *text, struct volume_config *cfg, struct err *err)
{
	static const char prefix[] = "boost:";
	const char *base;

	if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
		return 1;
	text += sizeof(prefix) - 1;
	base = strrchr(text, '/');
	if (!base)
		base = strrchr(text, ':');
	snprintf(cfg->name, sizeof(cfg->name), "%s", base ? base + 1 : text);
	return settings_set(cfg, settings_find("backing", 7), text, err);
}

/* ---- creating ------------------------------------------------------------------------------ */

/* The cache has something that is no log, and the backing device has nothing, or a log. */
static int refuse_swapped(const struct volume_config *cfg, struct dev *backing, struct err *err)
{
	struct wlog_info info;
	struct dev *cache = NULL;
	bool swapped = false;

	if (!wlog_probe(backing, &info, NULL))
		return err_set(err, -EEXIST,
			       "backing device %s holds the log of a cache: are backing and cache "
			       "swapped? If not, and what it holds is not wanted, clear its first "
			       "128 KiB",
			       cfg->backing);
	if (!media_cache_open(cfg->cache, MEDIA_READ_ONLY, 0, &cache, NULL, NULL))
		swapped = wlog_probe(cache, &info, NULL) == -ENOENT && !media_is_blank(cache) &&
			  media_is_blank(backing);
	dev_close(cache);
	if (!swapped)
		return 0;
	return err_set(err, -EEXIST,
		       "cache %s holds data that is no log, and backing device %s is blank: are "
		       "they swapped? If not, clear the cache's first 128 KiB",
		       cfg->cache, cfg->backing);
}

/* A device of a file has its whole blocks alone; what is behind them would not be the volume's. */
static uint64_t bytes_of(const char *text, const struct dev *dev)
{
	struct stat st;

	if (media_is_mem(text) || media_path(text) != text || stat(text, &st) ||
	    !S_ISREG(st.st_mode))
		return dev->size_bytes;
	return (uint64_t)st.st_size;
}

static int adopt(struct volume_config *cfg, struct dev *backing, struct err *err)
{
	const uint64_t bytes = bytes_of(cfg->backing, backing);
	int rc;

	if (cfg->size_bytes && !media_is_mem(cfg->backing))
		return err_set(err, -EEXIST,
			       "backing device %s exists, and its size is the volume's: leave size "
			       "out",
			       cfg->backing);
	if (backing->block_bytes > cfg->block_bytes)
		cfg->block_bytes = backing->block_bytes;
	if (bytes % cfg->block_bytes)
		return err_set(err, -EINVAL,
			       "the %llu bytes of %s are not a multiple of block_size (%llu)",
			       (unsigned long long)bytes, cfg->backing,
			       (unsigned long long)cfg->block_bytes);
	rc = refuse_swapped(cfg, backing, err);
	if (!rc && backing->ops->lock) {
		rc = backing->ops->lock(backing, err);
		if (rc)
			return err_prefix(err,
					  "backing device %s: unmount it, and end what uses it",
					  cfg->backing);
		backing->ops->unlock(backing);
	}
	return rc;
}

int home_boost_create_check(struct volume_config *cfg, struct err *err)
{
	struct err why = ERR_INIT;
	struct dev *backing;
	int rc;

	if (!cfg->backing[0] || media_is_none(cfg->cache))
		return err_set(err, -EINVAL, "volume %s needs backing and cache", cfg->name);
	if (uuid_is_zero(&cfg->uuid))
		cfg->uuid = uuid_new();
	settings_mark(cfg, "uuid");
	rc = refuse_same(cfg, err);
	if (rc)
		return rc;
	rc = media_backing_open(cfg->backing, 0, 0, &backing, &why);
	if (rc == -ENOENT && cfg->size_bytes)
		return cfg->size_bytes % cfg->block_bytes
			       ? err_set(err, -EINVAL,
					 "size is not a multiple of block_size (%llu)",
					 (unsigned long long)cfg->block_bytes)
			       : 0;
	if (rc == -ENOENT)
		return err_set(err, rc,
			       "backing device %s does not exist; with size= a file is created",
			       cfg->backing);
	if (rc)
		return err_set(err, rc, "backing device %s: %s", cfg->backing, err_text(&why, rc));
	rc = adopt(cfg, backing, err);
	dev_close(backing);
	return rc;
}

int home_boost_create_make(struct volume_config *cfg, bool *ret_made, struct err *err)
{
	struct dev *backing;
	int rc = media_backing_open(cfg->backing, cfg->size_bytes ? MEDIA_CREATE : 0,
				    cfg->size_bytes, &backing, err);

	if (rc)
		return err_prefix(err, "backing device %s", cfg->backing);
	/* create_check() refuses a size where something exists. */
	*ret_made = cfg->size_bytes && !media_is_mem(cfg->backing);
	if (backing->block_bytes > cfg->block_bytes)
		cfg->block_bytes = backing->block_bytes;
	dev_close(backing);
	return 0;
}

void home_boost_create_unmake(const struct volume_config *cfg)
{
	unlink(cfg->backing);
}

/* ---- looking ------------------------------------------------------------------------------- */

int home_boost_check(const struct volume_config *cfg, struct varve_check *check, struct err *err)
{
	struct boost_binding binding;
	struct err why = ERR_INIT;
	struct wlog_info info;
	struct dev *cache;
	int rc;

	(void)err;
	if (media_is_none(cfg->cache) ||
	    media_cache_open(cfg->cache, MEDIA_READ_ONLY, 0, &cache, NULL, NULL))
		return 0; /* opening the volume tells */
	rc = wlog_probe(cache, &info, &why);
	if (!rc)
		rc = boost_binding(&info, &binding, &why);
	dev_close(cache);
	if (rc == -EBADMSG)
		check->problem(check, err_text(&why, rc));
	else if (!rc && !uuid_is_zero(&cfg->uuid) &&
		 !uuid_equal(&cfg->uuid, &info.id.volume_uuid))
		check->problem(check, "the definition's uuid is not the cache's");
	check->progress(check, 1, 1);
	return 0;
}

int home_boost_dump(const struct volume_config *cfg, const char *what, json_t **ret,
		    struct err *err)
{
	(void)ret;
	return err_set(err, -ENOENT,
		       "there is no %s of a boost volume: its backing device %s holds data alone. "
		       "There are: cache (with the binding), log",
		       what, cfg->backing);
}
