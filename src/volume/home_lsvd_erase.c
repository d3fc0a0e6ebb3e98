/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deleting the objects of an lsvd volume. The superblock goes last, so that a deletion that was
 * interrupted can be repeated.
 *
 * Invariant: only keys that lsvd's own parser recognises as this volume's are deleted; a listing
 * by prefix finds those of "vm10" beside those of "vm1".
 *
 * Locks: those of store and cache, which who has the volume open for writing holds too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/codec.h"
#include "lsvd/lsvd.h"
#include "volume/erase.h"
#include "volume/home_lsvd.h"
#include "volume/media.h"

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

int home_lsvd_erase_objects(struct store *store, const char *object, struct err *err)
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

/* ---- the volume ---------------------------------------------------------------------------- */

static int erase_locked(struct home_erase *erase, struct store *store, const char *object,
			struct err *err)
{
	struct lsvd_info info;
	struct dev *cache;
	int rc = erase_take_cache(erase->cfg, &cache, err);

	if (rc)
		return rc;
	if (cache && !lsvd_probe(store, object, &info, NULL))
		rc = erase_unbind(cache, &info.uuid, err);
	if (!rc)
		rc = home_lsvd_erase_objects(store, object, err);
	erase_give_cache(cache);
	return rc;
}

/* Who has the volume open for writing holds one of the two locks. */
int home_lsvd_erase(struct home_erase *erase, struct err *err)
{
	char object[STORE_KEY_MAX + 1];
	struct store *store;
	struct dev *cache;
	int rc;

	if (erase->drain || erase->force)
		return err_set(err, -EINVAL,
			       "drain and force are for boost volumes: of an lsvd volume all data "
			       "goes, or with keep-data all stays");
	rc = media_store_open(erase->cfg->store, &store, object, err);
	if (rc)
		return rc;
	rc = store->ops->lock ? store->ops->lock(store, object, err) : 0;
	if (!rc) {
		if (erase->data) {
			rc = erase_locked(erase, store, object, err);
		} else {
			rc = erase_take_cache(erase->cfg, &cache, err);
			if (!rc)
				erase_give_cache(cache);
		}
		if (store->ops->unlock)
			store->ops->unlock(store, object);
	}
	store_close(store);
	return rc;
}
