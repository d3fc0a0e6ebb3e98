/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deleting volumes.
 *
 * Nothing is deleted while somebody has the volume open for writing: the local locks of store and
 * cache are held meanwhile. The superblock goes last, and the definition after it, so that a
 * deletion that was interrupted can be repeated.
 *
 * Invariant: only keys that lsvd's own parser recognises as this volume's are deleted; a listing
 * by prefix finds those of "vm10" beside those of "vm1".
 */
#include "volume/erase.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/codec.h"
#include "volume/config.h"
#include "volume/media.h"
#include "volume/open.h"

struct keys {
	struct store_req req;
	const char *object;
	char **key;
	size_t count, room;
};

static int add_key(struct store_req *req, const char *text, uint64_t size_bytes)
{
	struct keys *keys = container_of(req, struct keys, req);
	struct key key;

	(void)size_bytes;
	if (!key_parse(keys->object, text, &key))
		return 0;
	if (keys->count == keys->room) {
		const size_t room = keys->room ? keys->room * 2 : 64;
		char **more = realloc(keys->key, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		keys->key = more;
		keys->room = room;
	}
	keys->key[keys->count] = strdup(text);
	return keys->key[keys->count] ? (int)(keys->count++, 0) : -ENOMEM;
}

int erase_objects(struct store *store, const char *object, struct err *err)
{
	struct keys keys = {.req = {.op = STORE_LIST, .entry = add_key}, .object = object};
	int rc;

	snprintf(keys.req.key, sizeof(keys.req.key), "%s", object);
	rc = store_sync(store, &keys.req);
	for (size_t i = 0; i < keys.count; i++) {
		if (!rc)
			rc = store_delete(store, keys.key[i]);
		free(keys.key[i]);
	}
	free(keys.key);
	if (!rc)
		rc = store_delete(store, object);
	return rc ? err_sys(err, rc, "deleting the objects of %s", object) : 0;
}

/* ---- caches -------------------------------------------------------------------------------- */

/* Formats the cache anew, for nobody, if it is that volume's. */
static int unbind(struct dev *dev, const struct uuid *volume, struct err *err)
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

/* Opens and locks the cache; *ret is NULL when it is gone. */
static int take_cache(const struct volume_config *cfg, struct dev **ret, struct err *err)
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

static void give_cache(struct dev *dev)
{
	if (!dev)
		return;
	if (dev->ops->unlock)
		dev->ops->unlock(dev);
	dev_close(dev);
}

/* ---- volumes ------------------------------------------------------------------------------- */

static int erase_locked(const struct volume_config *cfg, struct store *store, const char *object,
			bool data, struct err *err)
{
	struct lsvd_info info;
	struct dev *cache;
	int rc = take_cache(cfg, &cache, err);

	if (rc)
		return rc;
	if (data) {
		if (cache && !lsvd_probe(store, object, &info, NULL))
			rc = unbind(cache, &info.uuid, err);
		if (!rc)
			rc = erase_objects(store, object, err);
	}
	give_cache(cache);
	return rc ? rc : config_remove(cfg->name, err);
}

static int erase(const char *name, bool data, struct volume_config *cfg, struct err *err)
{
	char object[STORE_KEY_MAX + 1];
	struct store *store;
	int rc;

	settings_default(cfg);
	rc = config_read(name, cfg, err);
	if (rc)
		return rc;
	snprintf(cfg->name, sizeof(cfg->name), "%s", name);
	rc = media_store_open(cfg->store, &store, object, err);
	if (rc)
		return rc;
	rc = store->ops->lock ? store->ops->lock(store, object, err) : 0;
	if (!rc) {
		rc = erase_locked(cfg, store, object, data, err);
		if (store->ops->unlock)
			store->ops->unlock(store, object);
	}
	store_close(store);
	return rc;
}

int varve_delete(const char *name, bool data)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	struct err why = ERR_INIT;
	int rc = cfg ? erase(name, data, cfg, &why) : -ENOMEM;

	free(cfg);
	errmsg_begin();
	return rc ? errmsg_set(rc, "deleting volume %s: %s", name, err_text(&why, rc)) : 0;
}
