/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deleting volumes.
 *
 * Nothing is deleted while somebody has the volume open for writing: the home holds the local locks
 * of cache and home meanwhile. The definition goes last, so that a deletion that was interrupted
 * can be repeated.
 */
#include "volume/erase.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/uuid.h"
#include "volume/config.h"
#include "volume/media.h"
#include "volume/open.h"

/* ---- caches -------------------------------------------------------------------------------- */

int erase_unbind(struct dev *dev, const struct uuid *volume, struct err *err)
{
	const struct uuid random = uuid_new();
	struct wlog_format_options opt = {.force = true};
	struct wlog_identity id;
	struct wlog_info info;

	if (wlog_probe(dev, &info, NULL) || !uuid_equal(&info.id.volume_uuid, volume))
		return 0;
	memcpy(&opt.random, random.b, sizeof(opt.random));
	return wlog_format(dev, &opt, &id, err);
}

int erase_take_cache(const struct volume_config *cfg, struct dev **ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc;

	*ret = NULL;
	if (media_is_none(cfg->cache))
		return 0;
	rc = media_cache_open(cfg->cache, 0, 0, ret, NULL, &why);
	if (rc == -ENOENT)
		return 0;
	if (!rc && (*ret)->ops->lock)
		rc = (*ret)->ops->lock(*ret, &why);
	if (rc) {
		if (*ret)
			dev_close(*ret);
		*ret = NULL;
		err_set(err, rc, "cache %s: %s", cfg->cache, err_text(&why, rc));
	}
	return rc;
}

void erase_give_cache(struct dev *dev)
{
	if (!dev)
		return;
	if (dev->ops->unlock)
		dev->ops->unlock(dev);
	dev_close(dev);
}

/* ---- volumes ------------------------------------------------------------------------------- */

static int erase(const char *name, unsigned int flags, struct volume_config *cfg, json_t *told,
		 struct err *err)
{
	struct home_erase erase = {
		.cfg = cfg,
		.data = !(flags & VARVE_DELETE_KEEP_DATA),
		.drain = flags & VARVE_DELETE_DRAIN,
		.force = flags & VARVE_DELETE_FORCE,
		.told = told,
	};
	int rc = config_open(name, cfg, err);

	if (!rc)
		rc = home_of(cfg)->erase(&erase, err);
	return rc ? rc : config_remove(cfg->name, err);
}

int varve_delete_with(const char *name, unsigned int flags, char **ret_json)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	json_t *told = json_object();
	struct err why = ERR_INIT;
	int rc = cfg && told ? erase(name, flags, cfg, told, &why) : -ENOMEM;

	free(cfg);
	/* Memory that is missing for the text changes nothing of what has been done. */
	if (ret_json)
		*ret_json = json_dumps(told, JSON_COMPACT);
	json_decref(told);
	errmsg_begin();
	return rc ? errmsg_set(rc, "deleting volume %s: %s", name, err_text(&why, rc)) : 0;
}

int varve_delete(const char *name, bool data)
{
	return varve_delete_with(name, data ? 0 : VARVE_DELETE_KEEP_DATA, NULL);
}
