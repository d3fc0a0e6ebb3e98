/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The form of checkpoint parts and roots (docs/SPEC-objects.md). ckpt.c writes them, load.c reads
 * them.
 *
 * The LBA space is cut into shards of 2^shard_sectors_log2 sectors. A part holds extents of one
 * shard, ascending; a shard with many extents has several parts, one without any has none. More
 * parts hold the object table. The root refers to each part by its key and checksum, so that parts
 * of an older checkpoint can be referred to again once only dirty shards are rewritten.
 *
 * Invariants of what the decoders accept:
 *   1. entries lie within the part, ascend, do not overlap and are not empty;
 *   2. a shard part's extents lie within its shard (checked by load.c, which knows the shard size);
 *   3. a root's references ascend: shards by number and LBA order, then the object table.
 */
#include <errno.h>
#include <string.h>

#include "lsvd/codec.h"

static size_t part_entry_bytes(enum lsvd_part_kind kind)
{
	return kind == LSVD_PART_SHARD ? sizeof(struct lsvd_ckpt_ext)
				       : sizeof(struct lsvd_ckpt_obj);
}

size_t part_bytes(enum lsvd_part_kind kind, uint32_t entries)
{
	return sizeof(struct lsvd_part) + entries * part_entry_bytes(kind);
}

uint32_t part_capacity(enum lsvd_part_kind kind, size_t bytes)
{
	return (uint32_t)((bytes - sizeof(struct lsvd_part)) / part_entry_bytes(kind));
}

void part_put_ext(void *buf, uint32_t index, uint64_t lba, uint32_t sectors, uint64_t place)
{
	struct lsvd_ckpt_ext *e = (void *)((uint8_t *)buf + sizeof(struct lsvd_part));

	e += index;
	e->lba = le48_make(lba);
	e->sectors = le16_make((uint16_t)sectors);
	e->place = le64_make(place & EXTMAP_CONST ? LSVD_PLACE_ERROR : place);
}

void part_put_obj(void *buf, uint32_t index, const struct ckpt_obj *obj)
{
	struct lsvd_ckpt_obj *o = (void *)((uint8_t *)buf + sizeof(struct lsvd_part));

	o += index;
	memset(o, 0, sizeof(*o));
	o->seq = le64_make(obj->seq);
	o->epoch = le32_make(obj->epoch);
	o->type = le32_make(obj->type);
	o->header_bytes = le32_make(obj->header_bytes);
	o->data_sectors = le32_make(obj->data_sectors);
	o->live_sectors = le32_make(obj->live_sectors);
}

uint32_t part_seal(void *buf, const struct obj_hdr *hdr, const struct part_hdr *part)
{
	struct lsvd_part *p = buf;

	memset(p, 0, sizeof(*p));
	obj_common(&p->hdr, hdr);
	p->hdr.type = le32_make(LSVD_TYPE_PART);
	p->hdr.header_bytes = le32_make((uint32_t)part_bytes(part->kind, part->entries));
	p->shard = le64_make(part->shard);
	p->kind = le32_make(part->kind);
	p->part = le32_make(part->part);
	p->entry_count = le32_make(part->entries);
	p->entry_off = le32_make(sizeof(*p));
	return obj_seal(buf);
}

static int part_check_entries(const void *buf, const struct part_hdr *part, struct err *err)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < part->entries; i++) {
		uint64_t lba, place;
		uint32_t sectors;
		struct ckpt_obj obj;
		bool ok;

		if (part->kind == LSVD_PART_SHARD) {
			part_ext(buf, i, &lba, &sectors, &place);
			ok = sectors && lba >= at && lba + sectors <= LSVD_LBA_END;
			ok = ok &&
			     (place == PLACE_ERROR ||
			      (!(place & EXTMAP_CONST) && place_seq(place) &&
			       place_sector(place) + (uint64_t)sectors <= LSVD_DATA_MAX_SECTORS));
			at = lba + sectors;
		} else {
			part_obj(buf, i, &obj);
			ok = obj.seq > at && obj.seq <= LSVD_SEQ_MAX &&
			     (obj.type == LSVD_TYPE_DATA || obj.type == LSVD_TYPE_GC) &&
			     obj.data_sectors <= LSVD_DATA_MAX_SECTORS &&
			     obj.header_bytes >= LSVD_BLOCK &&
			     obj.header_bytes <= LSVD_HEADER_MAX_BYTES &&
			     obj.header_bytes % LSVD_BLOCK == 0;
			at = obj.seq;
		}
		if (!ok)
			return err_corrupt(err, "entry %u is invalid", i);
	}
	return 0;
}

int part_decode(const void *buf, size_t len_bytes, struct obj_hdr *ret_hdr,
		struct part_hdr *ret_part, struct err *err)
{
	const struct lsvd_part *p = buf;
	struct part_hdr part;
	struct obj_hdr hdr;
	int r = obj_decode_hdr(buf, len_bytes, &hdr, err);

	if (r)
		return r;
	if (hdr.type != LSVD_TYPE_PART || hdr.header_bytes != len_bytes || len_bytes < sizeof(*p))
		return err_corrupt(err, "is not a checkpoint part");
	part.kind = (enum lsvd_part_kind)le32_get(p->kind);
	part.shard = le64_get(p->shard);
	part.part = le32_get(p->part);
	part.entries = le32_get(p->entry_count);
	if (part.kind != LSVD_PART_SHARD && part.kind != LSVD_PART_OBJECTS)
		return err_corrupt(err, "unknown kind %u of checkpoint part", part.kind);
	if (le32_get(p->entry_off) != sizeof(*p) ||
	    sizeof(*p) + (uint64_t)part.entries * part_entry_bytes(part.kind) != len_bytes)
		return err_corrupt(err, "entries do not fit the part");
	r = part_check_entries(buf, &part, err);
	if (r)
		return r;
	*ret_hdr = hdr;
	*ret_part = part;
	return 0;
}

void part_ext(const void *buf, uint32_t index, uint64_t *lba, uint32_t *sectors, uint64_t *place)
{
	const struct lsvd_ckpt_ext *e =
		(const void *)((const uint8_t *)buf + sizeof(struct lsvd_part));
	const uint64_t p = le64_get(e[index].place);

	*lba = le48_get(e[index].lba);
	*sectors = le16_get(e[index].sectors);
	*place = p == LSVD_PLACE_ERROR ? PLACE_ERROR : p;
}

void part_obj(const void *buf, uint32_t index, struct ckpt_obj *ret)
{
	const struct lsvd_ckpt_obj *o =
		(const void *)((const uint8_t *)buf + sizeof(struct lsvd_part));

	o += index;
	ret->seq = le64_get(o->seq);
	ret->epoch = le32_get(o->epoch);
	ret->type = (enum lsvd_type)le32_get(o->type);
	ret->header_bytes = le32_get(o->header_bytes);
	ret->data_sectors = le32_get(o->data_sectors);
	ret->live_sectors = le32_get(o->live_sectors);
	ret->gc_failures = 0;
}

/* ---- roots */

size_t root_bytes(uint32_t parts)
{
	return sizeof(struct lsvd_root) + parts * sizeof(struct lsvd_part_ref);
}

uint32_t root_encode(void *buf, const struct obj_hdr *hdr, const struct root_hdr *root,
		     const struct part_ref *parts)
{
	struct lsvd_root *r = buf;
	struct lsvd_part_ref *ref = (void *)(r + 1);

	memset(r, 0, root_bytes(root->parts));
	obj_common(&r->hdr, hdr);
	r->hdr.type = le32_make(LSVD_TYPE_ROOT);
	r->hdr.header_bytes = le32_make((uint32_t)root_bytes(root->parts));
	r->covered_seq = le64_make(root->covered_seq);
	r->covered_data_seq = le64_make(root->covered_data_seq);
	r->covered_lsn = le64_make(root->covered_lsn);
	r->reach_seq = le64_make(root->reach_seq);
	r->covered_wall_ns = le64_make(root->covered_wall_ns);
	r->shard_sectors_log2 = le32_make(root->shard_sectors_log2);
	r->part_count = le32_make(root->parts);
	r->part_off = le32_make(sizeof(*r));
	for (uint32_t i = 0; i < root->parts; i++) {
		ref[i].shard = le64_make(parts[i].shard);
		ref[i].no = le64_make(parts[i].no);
		ref[i].epoch = le32_make(parts[i].epoch);
		ref[i].part = le32_make(parts[i].part);
		ref[i].kind = le32_make(parts[i].kind);
		ref[i].bytes = le32_make(parts[i].bytes);
		ref[i].entries = le32_make(parts[i].entries);
		ref[i].crc = le32_make(parts[i].crc);
	}
	return obj_seal(buf);
}

void root_part(const void *buf, uint32_t index, struct part_ref *ret)
{
	const struct lsvd_root *r = buf;
	const struct lsvd_part_ref *ref = (const void *)(r + 1);

	ref += index;
	ret->shard = le64_get(ref->shard);
	ret->no = le64_get(ref->no);
	ret->epoch = le32_get(ref->epoch);
	ret->part = le32_get(ref->part);
	ret->kind = (enum lsvd_part_kind)le32_get(ref->kind);
	ret->bytes = le32_get(ref->bytes);
	ret->entries = le32_get(ref->entries);
	ret->crc = le32_get(ref->crc);
}

static int root_check_parts(const void *buf, uint32_t parts, struct err *err)
{
	struct part_ref prev = {.kind = LSVD_PART_SHARD};

	for (uint32_t i = 0; i < parts; i++) {
		struct part_ref p;

		root_part(buf, i, &p);
		if ((p.kind != LSVD_PART_SHARD && p.kind != LSVD_PART_OBJECTS) ||
		    p.kind < prev.kind || (p.kind == prev.kind && p.shard < prev.shard) || !p.no ||
		    p.part > UINT16_MAX || !p.entries ||
		    p.bytes != sizeof(struct lsvd_part) +
				       (uint64_t)p.entries * part_entry_bytes(p.kind))
			return err_corrupt(err, "part reference %u is invalid", i);
		prev = p;
	}
	return 0;
}

int root_decode(const void *buf, size_t len_bytes, struct obj_hdr *ret_hdr,
		struct root_hdr *ret_root, struct err *err)
{
	const struct lsvd_root *r = buf;
	struct root_hdr root;
	struct obj_hdr hdr;
	int ret = obj_decode_hdr(buf, len_bytes, &hdr, err);

	if (ret)
		return ret;
	if (hdr.type != LSVD_TYPE_ROOT || hdr.header_bytes != len_bytes || len_bytes < sizeof(*r))
		return err_corrupt(err, "is not a checkpoint root");
	root.covered_seq = le64_get(r->covered_seq);
	root.covered_data_seq = le64_get(r->covered_data_seq);
	root.covered_lsn = le64_get(r->covered_lsn);
	root.reach_seq = le64_get(r->reach_seq);
	root.covered_wall_ns = le64_get(r->covered_wall_ns);
	root.shard_sectors_log2 = le32_get(r->shard_sectors_log2);
	root.parts = le32_get(r->part_count);
	if (le32_get(r->part_off) != sizeof(*r) ||
	    sizeof(*r) + (uint64_t)root.parts * sizeof(struct lsvd_part_ref) != len_bytes)
		return err_corrupt(err, "part references do not fit the root");
	if (root.covered_data_seq > root.covered_seq || root.reach_seq < root.covered_seq ||
	    root.reach_seq > LSVD_SEQ_MAX || root.shard_sectors_log2 > 48)
		return err_corrupt(err, "covered range is invalid");
	ret = root_check_parts(buf, root.parts, err);
	if (ret)
		return ret;
	*ret_hdr = hdr;
	*ret_root = root;
	return 0;
}
