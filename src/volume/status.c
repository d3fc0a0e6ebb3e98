/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state of a volume as JSON.
 *
 * One look, entered, copies the engine's numbers; the text is made outside. Counters of devices
 * and stores are read without a lock and may be a little ahead. Names end in their unit. Health:
 *
 *	ok         all is well
 *	degraded   the store is failing, or the log waits for room: work goes on or will
 *	failed     the log or the engine has stopped; close and open, or look at the reason
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/clock.h"
#include "volume/volume.h"
#include "wlog/wlog_layout.h"

static const char *state_name(int state)
{
	static const char *const names[] = {"looking", "acquiring", "writable", "failed"};

	return names[state];
}

static void put(json_t *to, const char *key, uint64_t value)
{
	json_object_set_new(to, key, json_integer((json_int_t)value));
}

static void put_uuid(json_t *to, const char *key, const struct uuid *uuid)
{
	char text[UUID_TEXT_LEN];

	json_object_set_new(to, key, json_string(uuid_to_text(uuid, text)));
}

/* a / b with three digits; 0 for an empty b. */
static void put_ratio(json_t *to, const char *key, uint64_t a, uint64_t b)
{
	const double ratio = b ? (double)a / (double)b : 0;

	json_object_set_new(to, key, json_real((double)(uint64_t)(ratio * 1000 + 0.5) / 1000));
}

static json_t *log_status(const struct wlog_status *st)
{
	json_t *log = json_object();

	put_uuid(log, "uuid", &st->id.log_uuid);
	put(log, "epoch", st->log_epoch);
	put(log, "ring_bytes", st->ring_bytes);
	put(log, "used_bytes", st->used_bytes);
	put(log, "segments", st->segments);
	put(log, "buffers", st->buffers);
	put(log, "buffers_dirty", st->buffers_dirty);
	put(log, "next_lsn", st->next_lsn);
	put(log, "published_lsn", st->published_lsn);
	put(log, "durable_lsn", st->durable_lsn);
	put(log, "destaged_lsn", st->destaged_lsn);
	put(log, "map_extents", st->map_extents);
	put(log, "map_bytes", st->map_bytes);
	put(log, "user_bytes", st->user_bytes);
	put(log, "device_bytes", st->device_bytes);
	put(log, "device_bytes_life", st->device_bytes_life);
	put_ratio(log, "write_amplification", st->device_bytes, st->user_bytes);
	put(log, "seals", st->seals);
	put(log, "seals_partial", st->seals_partial);
	put(log, "flushes", st->flushes);
	put(log, "barriers", st->barriers);
	put(log, "deadline_overruns", st->deadline_overruns);
	put(log, "waiting", st->waiting);
	put(log, "read_hits_memory_bytes", st->read_hits_memory * DEV_SECTOR_BYTES);
	put(log, "read_hits_device_bytes", st->read_hits_device * DEV_SECTOR_BYTES);
	put(log, "read_misses_bytes", st->read_misses * DEV_SECTOR_BYTES);
	return log;
}

static json_t *home_status(const struct lsvd_status *st)
{
	json_t *home = json_object();

	put(home, "objects", st->objects);
	put(home, "total_bytes", st->total_sectors * DEV_SECTOR_BYTES);
	put(home, "live_bytes", st->live_sectors * DEV_SECTOR_BYTES);
	put(home, "map_extents", st->map_extents);
	put(home, "map_bytes", st->map_bytes);
	put(home, "header_cache_bytes", st->header_cache_bytes);
	put(home, "next_seq", st->next_seq);
	put(home, "durable_seq", st->durable_seq);
	put(home, "durable_lsn", st->durable_lsn);
	put(home, "puts_in_flight", st->puts_in_flight);
	put(home, "put_retries", st->put_retries);
	put(home, "put_bytes", st->put_bytes);
	put(home, "checkpoints", st->checkpoints);
	put(home, "checkpoint_bytes", st->checkpoint_bytes);
	put(home, "batched_bytes", st->batched_bytes);
	put(home, "coalesced_bytes", st->coalesced_bytes);
	put(home, "oldest_undestaged_ns", st->oldest_undestaged_ns);
	put(home, "attach_epoch", st->info.attach_epoch);
	put(home, "committed_epoch", st->info.committed_epoch);
	put(home, "created_wall_ns", st->info.created_wall_ns);
	put(home, "changed_wall_ns", st->info.changed_wall_ns);
	json_object_set_new(home, "clean", json_boolean(st->info.clean));
	json_object_set_new(home, "error", st->home_error
						   ? json_string(strerror(-st->home_error))
						   : json_null());
	return home;
}

static json_t *cache_status(struct varve_volume *vol)
{
	struct dev_counters c = {0};
	json_t *cache;

	if (!vol->h.dev)
		return json_null();
	cache = json_object();
	vol->h.dev->dev.ops->counters(&vol->h.dev->dev, &c);
	json_object_set_new(cache, "path", json_string(vol->cfg.cache));
	put(cache, "size_bytes", vol->h.dev->dev.size_bytes);
	put(cache, "reads", c.reads);
	put(cache, "read_bytes", c.read_bytes);
	put(cache, "writes", c.writes);
	put(cache, "write_bytes", c.write_bytes);
	put(cache, "flushes", c.flushes);
	put(cache, "discards", c.discards);
	put(cache, "discard_bytes", c.discard_bytes);
	put(cache, "errors", c.errors);
	return cache;
}

static json_t *store_status(struct varve_volume *vol)
{
	struct store_counters c = {0};
	json_t *store = json_object();

	vol->h.store->store.ops->counters(&vol->h.store->store, &c);
	json_object_set_new(store, "place", json_string(vol->cfg.store));
	put(store, "puts", c.puts);
	put(store, "put_bytes", c.put_bytes);
	put(store, "gets", c.gets);
	put(store, "get_bytes", c.get_bytes);
	put(store, "lists", c.lists);
	put(store, "deletes", c.deletes);
	put(store, "errors", c.errors);
	return store;
}

/* Why a volume is not well, or NULL; *ret_health says how bad it is. */
static const char *reason(const struct lsvd_status *st, const char **ret_health)
{
	*ret_health = "failed";
	if (st->failed)
		return st->failed == -ESTALE ? "another process has taken the volume"
					     : strerror(-st->failed);
	if (st->log.failed)
		return strerror(-st->log.failed);
	*ret_health = "degraded";
	if (st->home_error)
		return strerror(-st->home_error);
	if (st->log.waiting)
		return "writers wait for room in the log";
	*ret_health = "ok";
	return NULL;
}

static json_t *settings_status(const struct varve_volume *vol)
{
	char *text = malloc(SETTING_TEXT_LEN);
	json_t *settings = json_object();

	for (unsigned int i = 0; text && i < settings_count; i++) {
		if (settings_table[i].flags & SETTING_CREATE)
			continue;
		settings_get(&vol->cfg, &settings_table[i], text);
		json_object_set_new(settings, settings_table[i].key, json_string(text));
	}
	free(text);
	return settings;
}

/*
 * What a segment buffer takes: as it was set, but a log makes its segments shorter until sixteen of
 * them, with their headers, fit into its ring.
 */
static uint64_t segment_bytes(uint64_t set_bytes, uint64_t ring_bytes)
{
	uint64_t bytes = set_bytes / WLOG_BLOCK * WLOG_BLOCK;

	while (bytes > WLOG_BLOCK && bytes * 17 > ring_bytes)
		bytes = bytes / 2 / WLOG_BLOCK * WLOG_BLOCK;
	return bytes;
}

static void put_engine(json_t *top, const struct lsvd_status *st, uint64_t set_segment_bytes,
		       bool has_log)
{
	const uint64_t buffers_bytes =
		has_log ? st->log.buffers * segment_bytes(set_segment_bytes, st->log.ring_bytes)
			: 0;
	const char *health, *why = reason(st, &health);

	json_object_set_new(top, "health", json_string(health));
	json_object_set_new(top, "reason", why ? json_string(why) : json_null());
	json_object_set_new(top, "acquired", json_boolean(st->acquired));
	json_object_set_new(top, "hold", json_boolean(st->hold));
	put(top, "log_used_bytes", has_log ? st->log.used_bytes : 0);
	put(top, "memory_bytes",
	    st->map_bytes + st->header_cache_bytes + st->log.map_bytes + buffers_bytes);
	json_object_set_new(top, "log", has_log ? log_status(&st->log) : json_null());
	json_object_set_new(top, "home", home_status(st));
}

static json_t *status_json(struct varve_volume *vol)
{
	const int state = atomic_load(&vol->state);
	json_t *top = json_object();
	struct lsvd_status st;
	bool has_log;
	int rc;

	json_object_set_new(top, "name", json_string(vol->cfg.name));
	json_object_set_new(top, "type", json_string(vol->cfg.type));
	put_uuid(top, "uuid", &vol->uuid);
	put(top, "size_bytes", vol->size_bytes);
	put(top, "block_bytes", vol->block_bytes);
	json_object_set_new(top, "read_only", json_boolean(vol->read_only));
	json_object_set_new(top, "state", json_string(state_name(state)));
	put(top, "open_ns", clock_now_ns() - vol->opened_ns);
	rc = volume_enter_settled(vol);
	if (rc) {
		json_object_set_new(top, "health", json_string("failed"));
		json_object_set_new(top, "reason", json_string(err_text(&vol->acquire_err, rc)));
	} else {
		lsvd_status(vol->lsvd, &st);
		has_log = vol->log;
		volume_leave(vol);
		put_engine(top, &st, vol->cfg.opt.log.segment_bytes, has_log);
	}
	json_object_set_new(top, "cache", cache_status(vol));
	json_object_set_new(top, "store", store_status(vol));
	json_object_set_new(top, "settings", settings_status(vol));
	return top;
}

int varve_status(struct varve_volume *volume, char **ret_json)
{
	int rc = errmsg_check_owner(volume);
	json_t *top;
	char *text;

	if (rc)
		return rc;
	top = status_json(volume);
	text = json_dumps(top, JSON_COMPACT);
	json_decref(top);
	if (!text)
		return errmsg_set(-ENOMEM, "status of volume %s: no memory", volume->cfg.name);
	*ret_json = text;
	return 0;
}
