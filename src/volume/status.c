/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The state of a volume as JSON.
 *
 * One look, entered, copies the engine's numbers; the text is made outside. Counters of devices
 * and stores are read without a lock and may be a little ahead. Names end in their unit. The state,
 * with a list of reasons where it is not the first:
 *
 *	ok         all is well
 *	degraded   the home is failing, or the log waits for room: work goes on or will; or it is
 *	           suspended
 *	failed     the log or the engine has stopped; close and open, or look at the reasons
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/clock.h"
#include "volume/json.h"
#include "volume/volume.h"
#include "wlog/wlog_layout.h"

static const char *state_name(int state)
{
	static const char *const names[] = {"looking", "acquiring", "writable", "paused", "failed"};

	return names[state];
}

/* a / b with three digits; 0 for an empty b. */
static void put_ratio(json_t *to, const char *key, uint64_t a, uint64_t b)
{
	const double ratio = b ? (double)a / (double)b : 0;

	json_object_set_new(to, key, json_real((double)(uint64_t)(ratio * 1000 + 0.5) / 1000));
}

static json_t *log_status(const struct wlog_status *st)
{
	json_t *log = json_object(), *io = json_array();

	json_put_uuid(log, "uuid", &st->id.log_uuid);
	json_put(log, "epoch", st->log_epoch);
	json_put(log, "ring_bytes", st->ring_bytes);
	json_put(log, "used_bytes", st->used_bytes);
	json_put(log, "segments", st->segments);
	json_put(log, "head_segment", st->head_seg);
	json_put(log, "head_bytes", (uint64_t)st->head_sectors * DEV_SECTOR_BYTES);
	json_put(log, "durable_segment", st->durable_seg);
	json_put(log, "destaged_segment", st->destaged_seg);
	json_put(log, "buffers", st->buffers);
	json_put(log, "buffers_dirty", st->buffers_dirty);
	json_put(log, "next_lsn", st->next_lsn);
	json_put(log, "published_lsn", st->published_lsn);
	json_put(log, "durable_lsn", st->durable_lsn);
	json_put(log, "destaged_lsn", st->destaged_lsn);
	json_put(log, "map_extents", st->map_extents);
	json_put(log, "map_bytes", st->map_bytes);
	json_put(log, "user_bytes", st->user_bytes);
	json_put(log, "device_bytes", st->device_bytes);
	json_put(log, "device_bytes_life", st->device_bytes_life);
	put_ratio(log, "write_amplification", st->device_bytes, st->user_bytes);
	json_put(log, "seals", st->seals);
	json_put(log, "seals_partial", st->seals_partial);
	json_put(log, "flushes", st->flushes);
	json_put(log, "barriers", st->barriers);
	json_put(log, "deadline_overruns", st->deadline_overruns);
	json_put(log, "waiting", st->waiting);
	json_put(log, "read_hits_memory_bytes", st->read_hits_memory * DEV_SECTOR_BYTES);
	json_put(log, "read_hits_device_bytes", st->read_hits_device * DEV_SECTOR_BYTES);
	json_put(log, "read_misses_bytes", st->read_misses * DEV_SECTOR_BYTES);
	for (unsigned int i = 0; i < WLOG_IO_KINDS; i++)
		json_array_append_new(io, json_integer((json_int_t)st->io[i]));
	json_object_set_new(log, "io", io);
	return log;
}

json_t *status_dev_json(struct dev *dev, const char *path)
{
	json_t *top = json_object();
	struct dev_counters c = {0};

	dev->ops->counters(dev, &c);
	json_object_set_new(top, "path", json_string(path));
	json_put(top, "size_bytes", dev->size_bytes);
	json_put(top, "reads", c.reads);
	json_put(top, "read_bytes", c.read_bytes);
	json_put(top, "writes", c.writes);
	json_put(top, "write_bytes", c.write_bytes);
	json_put(top, "flushes", c.flushes);
	json_put(top, "discards", c.discards);
	json_put(top, "discard_bytes", c.discard_bytes);
	json_put(top, "errors", c.errors);
	return top;
}

static void add_reason(json_t *reasons, const char *text)
{
	json_array_append_new(reasons, json_string(text));
}

static void put_state(json_t *top, const char *state, json_t *reasons)
{
	json_object_set_new(top, "state", json_string(state));
	json_object_set_new(top, "reasons", reasons);
}

static void judge(json_t *top, bool suspended, const struct home_look *look)
{
	json_t *reasons = json_array();
	const char *state = "ok";

	if (look->failed)
		add_reason(reasons, look->failed == -ESTALE
					    ? "another process has taken the volume"
					    : strerror(-look->failed));
	if (look->log.failed && look->log.failed != look->failed)
		add_reason(reasons, strerror(-look->log.failed));
	if (json_array_size(reasons))
		state = "failed";
	else if (look->home_error)
		add_reason(reasons, strerror(-look->home_error));
	if (look->log.waiting)
		add_reason(reasons, "writers wait for room in the log");
	if (suspended)
		add_reason(reasons, "suspended");
	for (unsigned int i = 0; i < HOME_REASONS && look->reasons[i]; i++)
		add_reason(reasons, look->reasons[i]);
	if (json_array_size(reasons) && !strcmp(state, "ok"))
		state = "degraded";
	put_state(top, state, reasons);
}

static json_t *settings_status(const struct varve_volume *vol)
{
	char *text = malloc(SETTING_TEXT_LEN);
	json_t *settings = json_object();

	for (unsigned int i = 0; text && i < settings_count; i++) {
		if ((settings_table[i].flags & (SETTING_CREATE | SETTING_ONCE)) ||
		    !settings_has(&vol->cfg, &settings_table[i]))
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
uint64_t status_segment_bytes(uint64_t set_bytes, uint64_t ring_bytes)
{
	uint64_t bytes = set_bytes / WLOG_BLOCK * WLOG_BLOCK;

	while (bytes > WLOG_BLOCK && bytes * 17 > ring_bytes)
		bytes = bytes / 2 / WLOG_BLOCK * WLOG_BLOCK;
	return bytes;
}

static void put_engine(json_t *top, const struct home_look *look, uint64_t set_segment_bytes)
{
	const uint64_t buffers_bytes =
		look->has_log ? look->log.buffers * status_segment_bytes(set_segment_bytes,
									 look->log.ring_bytes)
			      : 0;

	json_object_set_new(top, "acquired", json_boolean(look->acquired));
	json_object_set_new(top, "hold", json_boolean(look->hold));
	json_put(top, "log_used_bytes", look->has_log ? look->log.used_bytes : 0);
	json_put(top, "memory_bytes", look->memory_bytes + look->log.map_bytes + buffers_bytes);
	json_object_set_new(top, "log", look->has_log ? log_status(&look->log) : json_null());
}

static json_t *status_json(struct varve_volume *vol)
{
	const int state = atomic_load(&vol->state);
	json_t *top = json_object();
	struct home_look look = {0};
	bool suspended = false;
	int rc;

	json_object_set_new(top, "name", json_string(vol->cfg.name));
	json_object_set_new(top, "type", json_string(vol->cfg.type));
	json_put_uuid(top, "uuid", &vol->uuid);
	json_put(top, "size_bytes", volume_size(vol));
	json_put(top, "block_bytes", vol->block_bytes);
	json_object_set_new(top, "read_only", json_boolean(vol->read_only));
	json_object_set_new(top, "access", json_string(state_name(state)));
	json_put(top, "open_ns", clock_now_ns() - vol->opened_ns);
	rc = volume_enter_settled(vol);
	if (rc) {
		json_t *why = json_array();

		add_reason(why, err_text(&vol->acquire_err, rc));
		put_state(top, "failed", why);
	} else {
		vol->home->ops->look(vol->home, &look);
		suspended = vol->suspended;
		volume_leave(vol);
		judge(top, suspended, &look);
		put_engine(top, &look, vol->cfg.log.segment_bytes);
	}
	json_object_set_new(top, "without_cache", json_string(vol->home->ops->promise));
	json_object_set_new(top, "suspended", json_boolean(suspended));
	json_object_set_new(top, "cache",
			    vol->h.dev ? status_dev_json(&vol->h.dev->dev, vol->cfg.cache)
				       : json_null());
	vol->home->ops->tell(vol->home, rc ? NULL : &look, top);
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
