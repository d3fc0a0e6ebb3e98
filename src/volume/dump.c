/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies on media, as JSON.
 *
 *	cache        the superblock of a log
 *	log          every segment that a recovery would replay, with its records
 *	superblock   a volume's superblock object
 *	objects      a volume's objects by key, with their sizes
 *	checkpoint   the newest root: what it covers, and its parts
 *	KEY          the header of one object
 *
 * Nothing is written and no right is taken. What is damaged ends the dump with the decoder's text.
 * The log is opened as recovery would open it, over a home that holds nothing.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lsvd/codec.h"
#include "volume/media.h"
#include "volume/open.h"

#define HEADER_MAX_BYTES (64u << 20)

static void put(json_t *to, const char *key, uint64_t value)
{
	json_object_set_new(to, key, json_integer((json_int_t)value));
}

static void put_uuid(json_t *to, const char *key, const struct uuid *uuid)
{
	char text[UUID_TEXT_LEN];

	json_object_set_new(to, key, json_string(uuid_to_text(uuid, text)));
}

/* ---- caches -------------------------------------------------------------------------------- */

static json_t *cache_json(const struct wlog_info *info)
{
	json_t *top = json_object();

	put_uuid(top, "uuid", &info->id.log_uuid);
	put_uuid(top, "volume_uuid", &info->id.volume_uuid);
	put(top, "attach_epoch", info->id.attach_epoch);
	put(top, "log_epoch", info->log_epoch);
	put(top, "superblock_seq", info->sb_seq);
	put(top, "size_bytes", info->size_bytes);
	put(top, "ring_bytes", info->ring_bytes);
	put(top, "tail_lsn", info->tail_lsn);
	put(top, "watermark_lsn", info->watermark_lsn);
	put(top, "destaged_lsn", info->destaged_lsn);
	put(top, "bytes_written", info->bytes_written);
	put(top, "sealed_wall_ns", info->sealed_wall_ns);
	json_object_set_new(top, "clean", json_boolean(info->clean));
	return top;
}

static void home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	/* Nobody reads through this log. */
	(void)home;
	(void)piece;
}

static void home_destage(struct wlog_home *home, bool urgent)
{
	(void)home;
	(void)urgent;
}

static void no_request(struct vhost *h, struct dev_req *req)
{
	(void)h;
	(void)req;
}

static void no_tick(struct vhost *h)
{
	(void)h;
}

static json_t *segment_json(const struct wlog_seg *seg)
{
	static const char *const types[] = {"?", "data", "zero", "discard"};
	struct wlog_seg_view view;
	json_t *top = json_object(), *records = json_array();

	wlog_seg_view(seg, &view);
	put(top, "number", view.number);
	put(top, "first_lsn", view.first_lsn);
	put(top, "last_lsn", view.last_lsn);
	put(top, "sealed_wall_ns", view.wall_ns);
	put(top, "data_bytes", (uint64_t)view.data_sectors * DEV_SECTOR_BYTES);
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

static int log_json(struct sluice_dev *dev, struct vhost *h, json_t **ret, struct err *err)
{
	static const struct wlog_home_ops ops = {.read = home_read, .destage = home_destage};
	struct wlog_home home = {.ops = &ops, .sectors = LSVD_LBA_END};
	struct wlog_options opt;
	struct wlog_seg *seg;
	struct wlog_seg_view view = {0};
	struct wlog *log;
	int rc;

	wlog_options_default(&opt);
	rc = wlog_open(&h->host, &dev->dev, &home, &opt, 0, &log, err);
	if (rc)
		return rc;
	*ret = json_array();
	host_enter(&h->host);
	while ((seg = wlog_next_durable(log, view.number))) {
		wlog_seg_view(seg, &view);
		json_array_append_new(*ret, segment_json(seg));
	}
	host_leave(&h->host);
	wlog_close(log);
	return 0;
}

static int dump_log(struct dev *dev, json_t **ret, struct err *err)
{
	struct vhost *h = calloc(1, sizeof(*h));
	int rc = -ENOMEM;

	if (!h)
		return rc;
	h->fill = no_request;
	h->publish = no_request;
	h->tick = no_tick;
	rc = sluice_dev_new(dev, &h->dev);
	if (!rc) {
		rc = vhost_open(h);
		if (!rc) {
			rc = log_json(h->dev, h, ret, err);
			vhost_close(h);
		}
		free(h->dev); /* the sluice alone: the device is the caller's */
	}
	free(h);
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

/* ---- objects ------------------------------------------------------------------------------- */

static json_t *header_json(const struct obj_hdr *hdr)
{
	static const char *const types[] = {"?", "superblock", "data", "gc", "part", "root"};
	json_t *top = json_object();

	json_object_set_new(top, "magic", json_string("VARVEOBJ"));
	put_uuid(top, "uuid", &hdr->volume_uuid);
	put(top, "version", LSVD_VERSION);
	json_object_set_new(top, "type", json_string(types[(unsigned int)hdr->type % 6]));
	put(top, "seq", hdr->seq);
	put(top, "epoch", hdr->epoch);
	put(top, "n_hdr", hdr->header_bytes / DEV_SECTOR_BYTES);
	put(top, "n_data", hdr->data_bytes / DEV_SECTOR_BYTES);
	put(top, "first_lsn", hdr->first_lsn);
	put(top, "last_lsn", hdr->last_lsn);
	put(top, "prev_seq", hdr->prev_seq);
	put(top, "wall_ns", hdr->wall_ns);
	return top;
}

static void put_extents(json_t *top, const void *buf, uint32_t count)
{
	static const char *const types[] = {"?", "data", "zero", "discard"};
	json_t *extents = json_array();

	for (uint32_t i = 0; i < count; i++) {
		struct obj_ext ext;

		obj_ext(buf, i, &ext);
		json_array_append_new(
			extents,
			json_pack("{s:I, s:I, s:s, s:I}", "lba", (json_int_t)ext.lba, "sectors",
				  (json_int_t)ext.sectors, "type",
				  types[(unsigned int)ext.type & 3], "data_sector",
				  (json_int_t)ext.data_sector));
	}
	json_object_set_new(top, "extents", extents);
}

/* Reads as much of an object as its header is long. malloc'd. */
static int read_header(struct store *store, const char *key, void **ret, size_t *ret_len,
		       struct err *err)
{
	unsigned char first[sizeof(struct lsvd_hdr)];
	struct obj_hdr hdr;
	void *buf;
	int rc = store_get(store, key, first, sizeof(first), 0);

	if (rc)
		return err_sys(err, rc, "object %s", key);
	rc = obj_peek(first, sizeof(first), &hdr, err);
	if (rc)
		return err_prefix(err, "object %s", key);
	if (hdr.header_bytes > HEADER_MAX_BYTES)
		return err_corrupt(err, "object %s: header too long", key);
	buf = malloc(hdr.header_bytes);
	if (!buf)
		return err_set(err, -ENOMEM, "object %s: no memory", key);
	rc = store_get(store, key, buf, hdr.header_bytes, 0);
	if (rc) {
		free(buf);
		return err_sys(err, rc, "object %s", key);
	}
	*ret = buf;
	*ret_len = hdr.header_bytes;
	return 0;
}

static int dump_object(struct store *store, const char *key, json_t **ret, struct err *err)
{
	struct obj_hdr hdr;
	size_t len = 0;
	void *buf = NULL;
	int rc = read_header(store, key, &buf, &len, err);

	if (rc)
		return rc;
	rc = obj_decode_hdr(buf, len, &hdr, err);
	if (!rc && hdr.type == LSVD_TYPE_DATA)
		rc = obj_decode(buf, len, &hdr, err);
	if (!rc) {
		*ret = header_json(&hdr);
		json_object_set_new(*ret, "name", json_string(key));
		if (hdr.type == LSVD_TYPE_DATA)
			put_extents(*ret, buf, hdr.ext_count);
	} else {
		err_prefix(err, "object %s", key);
	}
	free(buf);
	return rc;
}

static json_t *roots_json(const struct super *sb)
{
	json_t *roots = json_array();

	for (unsigned int i = 0; i < LSVD_ROOTS; i++) {
		if (!sb->roots[i].no)
			continue;
		json_array_append_new(
			roots, json_pack("{s:I, s:I, s:I}", "no", (json_int_t)sb->roots[i].no,
					 "epoch", (json_int_t)sb->roots[i].epoch, "covered_seq",
					 (json_int_t)sb->roots[i].covered_seq));
	}
	return roots;
}

static int dump_super(struct store *store, const char *object, json_t **ret, struct err *err)
{
	unsigned char buf[LSVD_SUPER_BYTES];
	struct super sb;
	int rc = dump_object(store, object, ret, err);

	if (rc)
		return rc;
	rc = store_get(store, object, buf, sizeof(buf), 0);
	if (!rc)
		rc = super_decode(buf, sizeof(buf), &sb, err);
	if (rc) {
		json_decref(*ret);
		return err_sys(err, rc, "superblock %s", object);
	}
	put(*ret, "vol_size", sb.size_bytes / DEV_SECTOR_BYTES);
	json_object_set_new(*ret, "ckpts", roots_json(&sb));
	json_object_set_new(*ret, "clones", json_array());
	json_object_set_new(*ret, "snaps", json_array());
	put_uuid(*ret, "cache_uuid", &sb.cache_uuid);
	put_uuid(*ret, "pending_uuid", &sb.pending_uuid);
	put(*ret, "size_bytes", sb.size_bytes);
	put(*ret, "block_bytes", sb.block_bytes);
	put(*ret, "attach_epoch", sb.attach_epoch);
	put(*ret, "committed_epoch", sb.committed_epoch);
	put(*ret, "last_seq", sb.last_seq);
	put(*ret, "last_lsn", sb.last_lsn);
	put(*ret, "created_wall_ns", sb.created_wall_ns);
	put(*ret, "changed_wall_ns", sb.wall_ns);
	json_object_set_new(*ret, "clean", json_boolean(sb.clean));
	return 0;
}

static int dump_checkpoint(struct store *store, const char *object, json_t **ret, struct err *err)
{
	struct lsvd_info info;
	unsigned char buf[LSVD_SUPER_BYTES];
	char text[STORE_KEY_MAX + 1];
	struct super sb;
	struct key key = {.kind = KEY_ROOT};
	int rc = lsvd_probe(store, object, &info, err);

	if (!rc)
		rc = store_get(store, object, buf, sizeof(buf), 0);
	if (!rc)
		rc = super_decode(buf, sizeof(buf), &sb, err);
	if (rc)
		return err_sys(err, rc, "superblock %s", object);
	if (!sb.roots[0].no)
		return err_set(err, -ENOENT, "volume %s has no checkpoint yet", object);
	key.seq = sb.roots[0].no;
	key.epoch = sb.roots[0].epoch;
	key_format(text, object, &key);
	rc = dump_object(store, text, ret, err);
	if (!rc)
		put(*ret, "covered_seq", sb.roots[0].covered_seq);
	return rc;
}

struct listing {
	struct store_req req;
	const char *object;
	json_t *keys;
};

static int list_key(struct store_req *req, const char *text, uint64_t size_bytes)
{
	static const char *const kinds[] = {
		[KEY_DATA] = "data", [KEY_PART] = "part", [KEY_ROOT] = "root"};
	struct listing *l = container_of(req, struct listing, req);
	struct key key;

	if (key_parse(l->object, text, &key))
		json_array_append_new(
			l->keys, json_pack("{s:s, s:s, s:I, s:I, s:I}", "key", text, "kind",
					   kinds[key.kind], "seq", (json_int_t)key.seq, "epoch",
					   (json_int_t)key.epoch, "size_bytes",
					   (json_int_t)size_bytes));
	return 0;
}

static int dump_objects(struct store *store, const char *object, json_t **ret, struct err *err)
{
	struct listing l = {.req = {.op = STORE_LIST, .entry = list_key}, .object = object};
	int rc;

	snprintf(l.req.key, sizeof(l.req.key), "%s", object);
	l.keys = json_array();
	rc = store_sync(store, &l.req);
	if (rc) {
		json_decref(l.keys);
		return err_sys(err, rc, "listing the objects of %s", object);
	}
	*ret = l.keys;
	return 0;
}

/* ---- volumes ------------------------------------------------------------------------------- */

static int dump_store(const struct volume_config *cfg, const char *what, json_t **ret,
		      struct err *err)
{
	char object[STORE_KEY_MAX + 1];
	struct store *store;
	int rc = media_store_open(cfg->store, &store, object, err);

	if (rc)
		return rc;
	if (!strcmp(what, "superblock"))
		rc = dump_super(store, object, ret, err);
	else if (!strcmp(what, "objects"))
		rc = dump_objects(store, object, ret, err);
	else if (!strcmp(what, "checkpoint"))
		rc = dump_checkpoint(store, object, ret, err);
	else
		rc = dump_object(store, what, ret, err);
	store_close(store);
	return rc;
}

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
	return dump_store(cfg, what, ret, err);
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
