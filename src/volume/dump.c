/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies on media, as JSON.
 *
 *	cache        the superblock of a log
 *	log          every segment that a recovery would replay, with its records
 *	others       what the home knows: home_ops.dump
 *
 * Nothing is written and no right is taken.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "volume/json.h"
#include "volume/logview.h"
#include "volume/media.h"
#include "volume/open.h"

/* ---- caches -------------------------------------------------------------------------------- */

static json_t *cache_json(const struct wlog_info *info)
{
	json_t *top = json_object();

	json_put_uuid(top, "uuid", &info->id.log_uuid);
	json_put_uuid(top, "volume_uuid", &info->id.volume_uuid);
	json_put(top, "attach_epoch", info->id.attach_epoch);
	json_put(top, "log_epoch", info->log_epoch);
	json_put(top, "superblock_seq", info->sb_seq);
	json_put(top, "size_bytes", info->size_bytes);
	json_put(top, "ring_bytes", info->ring_bytes);
	json_put(top, "tail_lsn", info->tail_lsn);
	json_put(top, "watermark_lsn", info->watermark_lsn);
	json_put(top, "destaged_lsn", info->destaged_lsn);
	json_put(top, "bytes_written", info->bytes_written);
	json_put(top, "sealed_wall_ns", info->sealed_wall_ns);
	json_object_set_new(top, "clean", json_boolean(info->clean));
	home_tell_cache(info, top);
	return top;
}

static json_t *segment_json(const struct wlog_seg *seg)
{
	static const char *const types[] = {"?", "data", "zero", "discard"};
	struct wlog_seg_view view;
	json_t *top = json_object(), *records = json_array();

	wlog_seg_view(seg, &view);
	json_put(top, "number", view.number);
	json_put(top, "first_lsn", view.first_lsn);
	json_put(top, "last_lsn", view.last_lsn);
	json_put(top, "sealed_wall_ns", view.wall_ns);
	json_put(top, "data_bytes", (uint64_t)view.data_sectors * DEV_SECTOR_BYTES);
	for (uint32_t i = 0; i < view.records; i++) {
		struct wlog_rec rec;

		wlog_seg_rec(seg, i, &rec);
		json_array_append_new(
			records,
			json_pack("{s:I, s:I, s:I, s:s, s:b}", "lsn", (json_int_t)rec.lsn, "lba",
				  (json_int_t)rec.lba, "sectors", (json_int_t)rec.sectors, "type",
				  types[(unsigned int)rec.type & 3], "continues", rec.continues));
	}
	json_object_set_new(top, "records", records);
	return top;
}

static void list_segments(struct wlog *log, void *arg)
{
	struct wlog_seg_view view = {0};
	struct wlog_seg *seg;

	while ((seg = wlog_next_durable(log, view.number))) {
		wlog_seg_view(seg, &view);
		json_array_append_new(arg, segment_json(seg));
	}
}

static int dump_log(struct dev *dev, json_t **ret, struct err *err)
{
	int rc;

	*ret = json_array();
	rc = logview_visit(dev, list_segments, *ret, err);
	if (rc)
		json_decref(*ret);
	return rc;
}

static int dump_cache(const char *path, const char *what, json_t **ret, struct err *err)
{
	struct wlog_info info;
	struct dev *dev;
	int rc = media_cache_open(path, MEDIA_READ_ONLY, 0, &dev, NULL, err);

	if (rc)
		return rc;
	if (!strcmp(what, "log")) {
		rc = dump_log(dev, ret, err);
	} else {
		rc = wlog_probe(dev, &info, err);
		if (!rc)
			*ret = cache_json(&info);
	}
	dev_close(dev);
	return rc;
}

/* ---- volumes ------------------------------------------------------------------------------- */

/* A path of something that exists, or memory; a volume's name or spec is neither. */
static bool is_cache(const char *text)
{
	struct stat st;

	return !strchr(text, ',') &&
	       (media_is_mem(text) || (strchr(text, '/') && !stat(text, &st)));
}

static int dump(const char *name_or_path, const char *what, struct volume_config *cfg,
		json_t **ret, struct err *err)
{
	const bool of_cache = !strcmp(what, "cache") || !strcmp(what, "log");
	int rc;

	if (of_cache && is_cache(name_or_path))
		return dump_cache(name_or_path, what, ret, err);
	rc = open_configure(name_or_path, NULL, cfg, err);
	if (rc)
		return rc;
	if (of_cache)
		return dump_cache(cfg->cache, what, ret, err);
	return home_of(cfg)->dump(cfg, what, ret, err);
}

int varve_dump(const char *name_or_path, const char *what, char **ret_json)
{
	struct err *err = errmsg_begin();
	struct volume_config *cfg = malloc(sizeof(*cfg));
	json_t *top = NULL;
	char *text = NULL;
	int rc = cfg ? dump(name_or_path, what, cfg, &top, err) : -ENOMEM;

	free(cfg);
	if (!rc) {
		text = json_dumps(top, JSON_COMPACT);
		json_decref(top);
		rc = text ? 0 : -ENOMEM;
	}
	if (rc)
		return err_set(err, rc, "dump of %s: %s", name_or_path, strerror(-rc));
	*ret_json = text;
	return 0;
}
