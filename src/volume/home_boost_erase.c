/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Removing a boost volume: the backing device is given back as it is, and the cache's log is erased
 * so that it is never replayed again.
 *
 *	drain, if asked for: opened, written back, released
 *	locks of cache and backing device: nobody has it open
 *	what only the cache holds, or knows to be lost: nothing, or given up by force, and told
 *	the cache is formatted, for nobody: durable before the definition goes
 *
 * What is lost is told by the log alone, so that it is told of a backing device that is dead too. A
 * log that cannot be read tells nothing: then nobody knows, and that is what is said.
 *
 * Invariants
 *   1. Without force nothing is given up that may only be in the cache.
 *   2. The backing device is written to by the drain, and by nothing else.
 *   3. A cache of another volume is left alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "boost/boost.h"
#include "volume/erase.h"
#include "volume/home_boost.h"
#include "volume/json.h"
#include "volume/logview.h"
#include "volume/media.h"
#include "volume/open.h"

#define RANGES_MAX 65536 /* that are listed; more are only counted */

/* ---- what would be lost -------------------------------------------------------------------- */

struct loss {
	uint64_t bytes, ranges;
	json_t *list;
};

static void add_range(struct loss *loss, uint64_t lba, uint64_t sectors)
{
	json_t *range;

	loss->bytes += sectors * DEV_SECTOR_BYTES;
	if (loss->ranges++ >= RANGES_MAX)
		return;
	range = json_object();
	json_put(range, "offset", lba * DEV_SECTOR_BYTES);
	json_put(range, "length", sectors * DEV_SECTOR_BYTES);
	json_array_append_new(loss->list, range);
}

static void log_extents(struct wlog *log, void *arg)
{
	struct loss *loss = arg;
	uint64_t lba = 0, from = 0;
	bool inside = false;

	while (lba < LOGVIEW_SECTORS) {
		int type = 0;
		const uint64_t to = wlog_extent(log, lba, LOGVIEW_SECTORS, &type);

		if (type && !inside)
			from = lba;
		if (!type && inside)
			add_range(loss, from, lba - from);
		inside = type;
		lba = to;
	}
	if (inside)
		add_range(loss, from, lba - from);
}

static void tell_unknown(struct home_erase *erase, const char *why)
{
	json_object_set_new(erase->told, "unknown", json_true());
	json_object_set_new(erase->told, "reason", json_string(why));
}

static int refuse_unknown(struct home_erase *erase, int rc, const char *why, struct err *err)
{
	if (!erase->force)
		return err_set(err, rc,
			       "%s: nobody knows what it holds that the backing device lacks; "
			       "--force gives that up",
			       why);
	tell_unknown(erase, why);
	return 0;
}

/* The cache alone knows what it has lost: without it older data would pass for the newest. */
static int look_for_damage(struct home_erase *erase, const struct wlog_info *info, struct err *err)
{
	struct boost_binding binding;

	if (boost_binding(info, &binding, NULL) || !binding.bad_bytes)
		return 0;
	json_put(erase->told, "bad_bytes", binding.bad_bytes);
	if (erase->force)
		return 0;
	return err_set(err, -EBUSY,
		       "%llu bytes were lost to damage in cache %s: the backing device has older "
		       "data there, and nothing else tells so. Write them anew, or give them up by "
		       "--force",
		       (unsigned long long)binding.bad_bytes, erase->cfg->cache);
}

static int look(struct home_erase *erase, struct dev *cache, struct err *err)
{
	struct loss loss = {.list = json_array()};
	struct err why = ERR_INIT;
	int rc = loss.list ? logview_visit(cache, log_extents, &loss, &why) : -ENOMEM;

	if (rc) {
		json_decref(loss.list);
		return refuse_unknown(erase, rc, err_text(&why, rc), err);
	}
	json_put(erase->told, "lost_bytes", loss.bytes);
	json_put(erase->told, "ranges", loss.ranges);
	json_object_set_new(erase->told, "list", loss.list);
	if (!loss.bytes || erase->force || !VARVE_STEP("volume.erase_spares_dirty"))
		return 0;
	return err_set(err, -EBUSY,
		       "cache %s holds %llu bytes in %llu ranges that the backing device lacks: "
		       "--drain writes them back first, --force gives them up",
		       erase->cfg->cache, (unsigned long long)loss.bytes,
		       (unsigned long long)loss.ranges);
}

/* ---- the parts ----------------------------------------------------------------------------- */

static int drain_first(const struct volume_config *cfg, struct err *err)
{
	struct varve_volume *vol;
	int rc = open_volume(cfg, 0, &vol, err), closed;

	if (rc)
		return rc;
	rc = volume_drain(vol, NULL);
	if (rc)
		err_sys(err, rc, "writing back what the cache holds; --force gives it up");
	closed = open_close(vol, rc ? NULL : err);
	return rc ? rc : closed;
}

static int erase_cache(struct home_erase *erase, struct dev *cache, struct err *err)
{
	const struct uuid *uuid = &erase->cfg->uuid;
	struct err why = ERR_INIT;
	struct wlog_info info;
	int rc = wlog_probe(cache, &info, &why);

	if (rc)
		return refuse_unknown(erase, rc,
				      rc == -ENOENT ? "the cache holds no log" : err_text(&why, rc),
				      err);
	if (!uuid_is_zero(uuid) && !uuid_is_zero(&info.id.volume_uuid) &&
	    !uuid_equal(uuid, &info.id.volume_uuid)) {
		if (erase->force)
			tell_unknown(erase, "the cache is another volume's now, and is left alone");
		return erase->force ? 0
				    : err_set(err, -EXDEV,
					      "cache %s is another volume's: set the right one, or "
					      "give up what that holds by --force",
					      erase->cfg->cache);
	}
	rc = look(erase, cache, err);
	if (!rc)
		rc = look_for_damage(erase, &info, err);
	if (rc || !erase->data)
		return rc;
	return erase_unbind(cache, &info.id.volume_uuid, err);
}

/* Locked by us, it is nobody's. A dead one is in nobody's way. */
static int take_backing(struct home_erase *erase, struct dev **ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc;

	*ret = NULL;
	rc = media_backing_open(erase->cfg->backing, 0, 0, ret, &why);
	if (rc) {
		*ret = NULL;
		return erase->force ? 0
				    : err_set(err, rc, "backing device %s: %s; --force goes on "
						       "without it",
					      erase->cfg->backing, err_text(&why, rc));
	}
	rc = (*ret)->ops->lock ? (*ret)->ops->lock(*ret, err) : 0;
	if (rc) {
		dev_close(*ret);
		*ret = NULL;
		err_prefix(err, "backing device %s", erase->cfg->backing);
	}
	return rc;
}

static int erase_locked(struct home_erase *erase, struct err *err)
{
	struct err why = ERR_INIT;
	struct dev *cache;
	int rc = erase_take_cache(erase->cfg, &cache, &why);

	if (rc == -EBUSY)
		return err_set(err, rc, "%s", err_text(&why, rc));
	if (rc || !cache) {
		if (!rc && media_is_none(erase->cfg->cache))
			return 0;
		return refuse_unknown(erase, rc ? rc : -ENODEV,
				      rc ? err_text(&why, rc) : "the cache is missing", err);
	}
	/* Without data the definition alone goes: cache and backing device stay a pair. */
	rc = erase->data ? erase_cache(erase, cache, err) : 0;
	erase_give_cache(cache);
	return rc;
}

int home_boost_erase(struct home_erase *erase, struct err *err)
{
	struct dev *backing;
	int rc = erase->drain ? drain_first(erase->cfg, err) : 0;

	if (!rc)
		rc = take_backing(erase, &backing, err);
	if (rc)
		return rc;
	rc = erase_locked(erase, err);
	erase_give_cache(backing);
	return rc;
}
