/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling what an object holds. lsvd_dump.h has the contract.
 *
 * Nothing here believes a length before the decoders of codec.h have: of an object that they
 * refuse only the fixed fields are told.
 */
#include "lsvd/lsvd_dump.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

static void dump_uuid(struct lsvd_dump *out, const char *key, const struct uuid *u)
{
	char text[UUID_TEXT_LEN];

	out->string(out, key, uuid_is_zero(u) ? "none" : uuid_to_text(u, text));
}

static const char *dump_type(uint32_t type)
{
	static const char *const names[] = {
		[LSVD_TYPE_SUPER] = "superblock",
		[LSVD_TYPE_DATA] = "data",
		[LSVD_TYPE_GC] = "gc",
		[LSVD_TYPE_PART] = "checkpoint part",
		[LSVD_TYPE_ROOT] = "checkpoint root",
	};

	return type < sizeof(names) / sizeof(names[0]) && names[type] ? names[type] : "unknown";
}

static void dump_common(struct lsvd_dump *out, const struct obj_hdr *h)
{
	dump_uuid(out, "uuid", &h->volume_uuid);
	out->number(out, "version", LSVD_VERSION);
	out->string(out, "type", dump_type(h->type));
	out->number(out, "seq", h->seq);
	out->number(out, "epoch", h->epoch);
	out->number(out, "n_hdr", h->header_bytes);
	out->number(out, "n_data", h->data_bytes);
	out->number(out, "wall_ns", h->wall_ns);
}

/* ---- types */

static void dump_ext(struct lsvd_dump *out, const void *buf, uint32_t index)
{
	static const char *const types[] = {
		[LSVD_EXT_DATA] = "data",
		[LSVD_EXT_ZERO] = "zero",
		[LSVD_EXT_ERROR] = "error",
	};
	struct obj_ext e;

	obj_ext(buf, index, &e);
	out->begin(out, NULL, false);
	out->number(out, "lba", e.lba);
	out->number(out, "sectors", e.sectors);
	out->string(out, "type", types[e.type]);
	if (e.type == LSVD_EXT_DATA)
		out->number(out, "data_sector", e.data_sector);
	out->end(out);
}

static void dump_sources(struct lsvd_dump *out, const void *buf, const struct obj_hdr *h)
{
	out->number(out, "generation", h->generation);
	out->begin(out, "sources", true);
	for (uint32_t i = 0; i < h->source_count; i++) {
		uint64_t place;
		uint32_t sectors;

		obj_source(buf, i, &place, &sectors);
		out->begin(out, NULL, false);
		out->number(out, "seq", place_seq(place));
		out->number(out, "data_sector", place_sector(place));
		out->number(out, "sectors", sectors);
		out->end(out);
	}
	out->end(out);
}

static void dump_data(struct lsvd_dump *out, const void *buf, const struct obj_hdr *h)
{
	out->number(out, "first_lsn", h->first_lsn);
	out->number(out, "last_lsn", h->last_lsn);
	out->number(out, "prev_seq", h->prev_seq);
	out->number(out, "total_sectors", h->data_bytes / LSVD_SECTOR_BYTES);
	out->begin(out, "ckpts", true);
	out->end(out);
	out->begin(out, "extents", true);
	for (uint32_t i = 0; i < h->ext_count; i++)
		dump_ext(out, buf, i);
	out->end(out);
	if (h->type == LSVD_TYPE_GC)
		dump_sources(out, buf, h);
}

static void dump_root_ref(struct lsvd_dump *out, const struct root_ref *r)
{
	out->begin(out, NULL, false);
	out->number(out, "no", r->no);
	out->number(out, "epoch", r->epoch);
	out->number(out, "bytes", r->bytes);
	out->number(out, "covered_seq", r->covered_seq);
	out->end(out);
}

static void dump_super_lists(struct lsvd_dump *out, const struct super *sb)
{
	out->begin(out, "ckpts", true);
	for (unsigned i = 0; i < LSVD_ROOTS; i++) {
		if (sb->roots[i].no)
			dump_root_ref(out, &sb->roots[i]);
	}
	out->end(out);
	out->begin(out, "clones", true);
	out->end(out);
	out->begin(out, "snaps", true);
	out->end(out);
	out->begin(out, "epochs", true);
	for (uint32_t i = 0; i < sb->end_count; i++) {
		out->begin(out, NULL, false);
		out->number(out, "epoch", sb->ends[i].epoch);
		out->number(out, "first_seq", sb->ends[i].first_seq);
		if (sb->ends[i].end_seq == LSVD_SEQ_OPEN)
			out->string(out, "end_seq", "open");
		else
			out->number(out, "end_seq", sb->ends[i].end_seq);
		out->end(out);
	}
	out->end(out);
}

static void dump_super(struct lsvd_dump *out, const struct super *sb)
{
	out->number(out, "vol_size", sb->size_bytes);
	out->number(out, "block_size", sb->block_bytes);
	out->string(out, "clean", sb->clean ? "yes" : "no");
	out->number(out, "attach_epoch", sb->attach_epoch);
	out->number(out, "committed_epoch", sb->committed_epoch);
	out->number(out, "bound_epoch", sb->bound_epoch);
	dump_uuid(out, "cache_uuid", &sb->cache_uuid);
	dump_uuid(out, "pending_uuid", &sb->pending_uuid);
	out->number(out, "last_seq", sb->last_seq);
	out->number(out, "last_lsn", sb->last_lsn);
	out->number(out, "lsn_floor", sb->lsn_floor);
	out->number(out, "bind_lsn", sb->bind_lsn);
	out->number(out, "created_wall_ns", sb->created_wall_ns);
	dump_super_lists(out, sb);
}

static void dump_part_entry(struct lsvd_dump *out, const void *buf, const struct part_hdr *part,
			    uint32_t index)
{
	uint64_t lba, place;
	struct ckpt_obj obj;
	uint32_t sectors;

	out->begin(out, NULL, false);
	if (part->kind == LSVD_PART_SHARD) {
		part_ext(buf, index, &lba, &sectors, &place);
		out->number(out, "lba", lba);
		out->number(out, "sectors", sectors);
		if (place == PLACE_ERROR) {
			out->string(out, "type", "error");
		} else {
			out->number(out, "seq", place_seq(place));
			out->number(out, "data_sector", place_sector(place));
		}
	} else {
		part_obj(buf, index, &obj);
		out->number(out, "seq", obj.seq);
		out->number(out, "epoch", obj.epoch);
		out->string(out, "type", dump_type(obj.type));
		out->number(out, "n_hdr", obj.header_bytes);
		out->number(out, "total_sectors", obj.data_sectors);
		out->number(out, "live_sectors", obj.live_sectors);
	}
	out->end(out);
}

static int dump_part(struct lsvd_dump *out, const void *buf, size_t len, struct err *err)
{
	struct part_hdr part;
	struct obj_hdr hdr;
	const int r = part_decode(buf, len, &hdr, &part, err);

	if (r)
		return r;
	out->string(out, "kind", part.kind == LSVD_PART_SHARD ? "shard" : "objects");
	out->number(out, "shard", part.shard);
	out->number(out, "part", part.part);
	out->begin(out, part.kind == LSVD_PART_SHARD ? "extents" : "objects", true);
	for (uint32_t i = 0; i < part.entries; i++)
		dump_part_entry(out, buf, &part, i);
	out->end(out);
	return 0;
}

static int dump_root(struct lsvd_dump *out, const void *buf, size_t len, struct err *err)
{
	struct root_hdr root;
	struct obj_hdr hdr;
	const int r = root_decode(buf, len, &hdr, &root, err);

	if (r)
		return r;
	out->number(out, "covered_seq", root.covered_seq);
	out->number(out, "covered_lsn", root.covered_lsn);
	out->number(out, "reach_seq", root.reach_seq);
	out->number(out, "shard_sectors", UINT64_C(1) << root.shard_sectors_log2);
	out->begin(out, "parts", true);
	for (uint32_t i = 0; i < root.parts; i++) {
		struct part_ref p;

		root_part(buf, i, &p);
		out->begin(out, NULL, false);
		out->string(out, "kind", p.kind == LSVD_PART_SHARD ? "shard" : "objects");
		out->number(out, "shard", p.shard);
		out->number(out, "no", p.no);
		out->number(out, "epoch", p.epoch);
		out->number(out, "part", p.part);
		out->number(out, "bytes", p.bytes);
		out->number(out, "entries", p.entries);
		out->end(out);
	}
	out->end(out);
	return 0;
}

/* ---- one object */

int lsvd_dump_buffer(const char *key, const void *buf, size_t len_bytes, struct lsvd_dump *out)
{
	struct err err = ERR_INIT;
	struct obj_hdr hdr, ignored;
	struct super sb;
	int r;

	out->string(out, "name", key);
	r = obj_peek(buf, len_bytes, &hdr, &err);
	out->string(out, "magic", r ? "bad" : "OK");
	if (r) {
		out->string(out, "problem", err_text(&err, r));
		return r;
	}
	r = obj_decode_hdr(buf, len_bytes, &hdr, &err);
	out->string(out, "checksum", r ? "bad" : "OK");
	dump_common(out, &hdr);
	if (!r && (hdr.type == LSVD_TYPE_DATA || hdr.type == LSVD_TYPE_GC)) {
		r = obj_decode(buf, len_bytes, &ignored, &err);
		if (!r)
			dump_data(out, buf, &hdr);
	} else if (!r && hdr.type == LSVD_TYPE_SUPER) {
		r = super_decode(buf, len_bytes, &sb, &err);
		if (!r)
			dump_super(out, &sb);
	} else if (!r && hdr.type == LSVD_TYPE_PART) {
		r = dump_part(out, buf, len_bytes, &err);
	} else if (!r && hdr.type == LSVD_TYPE_ROOT) {
		r = dump_root(out, buf, len_bytes, &err);
	}
	if (r)
		out->string(out, "problem", err_text(&err, r));
	return r;
}

/* ---- out of a store */

/* An object's header, or as much of it as can be had. */
static int dump_key(struct store *store, const char *key, struct lsvd_dump *out, struct err *err)
{
	struct store_req head = {.op = STORE_HEAD};
	struct obj_hdr hdr;
	size_t len;
	void *buf;
	int r;

	if (!store_key_valid(key))
		return err_set(err, -EINVAL, "\"%s\" cannot be an object's key", key);
	memcpy(head.key, key, strlen(key) + 1);
	r = store_sync(store, &head);
	if (r)
		return err_sys(err, r, "object %s", key);
	len = head.size_bytes < LSVD_BLOCK ? head.size_bytes : LSVD_BLOCK;
	buf = calloc(1, len + sizeof(hdr));
	r = buf ? store_get(store, key, buf, len, 0) : -ENOMEM;
	if (!r && !obj_peek(buf, len, &hdr, NULL) && hdr.header_bytes > len &&
	    hdr.header_bytes <= head.size_bytes) {
		free(buf);
		len = hdr.header_bytes;
		buf = malloc(len);
		r = buf ? store_get(store, key, buf, len, 0) : -ENOMEM;
	}
	if (r)
		err_sys(err, r, "cannot read object %s", key);
	else
		lsvd_dump_buffer(key, buf, len, out);
	free(buf);
	return r;
}

static int dump_superblock(struct store *store, const char *name, struct lsvd_dump *out,
			   struct err *err)
{
	struct lsvd_options opt;
	struct lsvd *l;
	int r;

	out->begin(out, NULL, false);
	r = dump_key(store, name, out, err);
	lsvd_options_default(&opt);
	l = r ? NULL : lsvd_alloc(NULL, store, name, &opt);
	/* Of a damaged volume there are no sums, but all the rest. */
	if (l && !recover_store(l, NULL)) {
		out->number(out, "total_sectors", l->total_sectors);
		out->number(out, "live_sectors", l->live_sectors);
		out->number(out, "objects", l->objs.n);
		out->number(out, "map_extents", extmap_count(&l->map));
	}
	lsvd_close(l);
	out->end(out);
	return r;
}

static int dump_objects(struct store *store, const char *name, struct lsvd_dump *out,
			struct err *err)
{
	struct listing list;
	char key[STORE_KEY_MAX + 1];
	int r = listing_read(store, name, &list, err);

	if (r)
		return r;
	out->begin(out, NULL, true);
	for (size_t i = 0; !r && i < list.n; i++) {
		if (list.e[i].key.kind != KEY_DATA)
			continue;
		key_format(key, name, &list.e[i].key);
		out->begin(out, NULL, false);
		r = dump_key(store, key, out, err);
		out->end(out);
	}
	out->end(out);
	listing_free(&list);
	return r;
}

static int dump_checkpoint(struct store *store, const char *name, struct lsvd_dump *out,
			   struct err *err)
{
	char text[STORE_KEY_MAX + 1];
	struct super sb;
	struct key key = {.kind = KEY_ROOT};
	uint64_t version;
	int r = super_read_sync(store, name, &sb, &version, err);

	if (r)
		return r;
	if (!sb.roots[0].no)
		return err_set(err, -ENOENT, "%s has no checkpoint yet", name);
	key.seq = sb.roots[0].no;
	key.epoch = sb.roots[0].epoch;
	key_format(text, name, &key);
	out->begin(out, NULL, false);
	r = dump_key(store, text, out, err);
	out->end(out);
	return r;
}

int lsvd_dump(struct store *store, const char *name, const char *what, struct lsvd_dump *out,
	      struct err *err)
{
	int r;

	if (!key_name_ok(name))
		return err_set(err, -ENOENT, "there is no volume \"%s\"", name);
	if (strcmp(what, "superblock") == 0)
		return dump_superblock(store, name, out, err);
	if (strcmp(what, "objects") == 0)
		return dump_objects(store, name, out, err);
	if (strcmp(what, "checkpoint") == 0)
		return dump_checkpoint(store, name, out, err);
	out->begin(out, NULL, false);
	r = dump_key(store, what, out, err);
	out->end(out);
	return r;
}
