/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading checkpoints, on the calling thread, with several parts in flight (ahead.c).
 *
 * The newest root that is whole, with all its parts, is loaded; ckpt.c says why the older one is
 * as good, only longer to roll forward from. What counts as not whole: a root or part that is
 * missing, damaged, another volume's or not the one that was referred to (checksum). An error of
 * the store is none of these: it is returned, since the next try may find the newer one sound.
 *
 * Invariants:
 *   1. the map is appended to in LBA order only: parts that overlap or go backwards are damage;
 *   2. a failed load leaves map and table empty.
 */
#include <errno.h>
#include <stdlib.h>

#include "lsvd/lsvd_impl.h"

/* Reads an object that must be so long, and no longer. */
static int load_object(struct store *store, const char *key, size_t bytes, void **ret_buf,
		       struct err *err)
{
	uint64_t version;
	size_t len;
	void *buf;
	int r = store_get_all(store, key, bytes, &buf, &len, &version);

	if (r == -ENOENT)
		return err_corrupt(err, "object %s is missing", key);
	if (r == -EFBIG || r == -ERANGE || (!r && len != bytes)) {
		if (!r)
			free(buf);
		return err_corrupt(err, "object %s has the wrong length", key);
	}
	if (r)
		return err_sys(err, r, "cannot read object %s", key);
	*ret_buf = buf;
	return 0;
}

int load_root(struct store *store, const char *name, const struct uuid *uuid,
	      const struct root_ref *ref, void **ret_buf, struct root_hdr *ret, struct err *err)
{
	const struct key key = {.kind = KEY_ROOT, .seq = ref->no, .epoch = ref->epoch};
	char text[STORE_KEY_MAX + 1];
	struct obj_hdr hdr;
	void *buf;
	int r;

	key_format(text, name, &key);
	r = load_object(store, text, ref->bytes, &buf, err);
	if (r)
		return r;
	r = root_decode(buf, ref->bytes, &hdr, ret, err);
	if (!r && (hdr.crc != ref->crc || hdr.seq != ref->no || hdr.epoch != ref->epoch ||
		   ret->covered_seq != ref->covered_seq || !uuid_equal(&hdr.volume_uuid, uuid)))
		r = err_corrupt(err, "is not the root that the superblock names");
	if (r) {
		err_prefix(err, "object %s", text);
		free(buf);
		return r;
	}
	*ret_buf = buf;
	return 0;
}

static int load_check_shard(const void *buf, const struct part_hdr *part, uint32_t shard_log2,
			    struct err *err)
{
	for (uint32_t i = 0; i < part->entries; i++) {
		uint64_t lba, place;
		uint32_t sectors;

		part_ext(buf, i, &lba, &sectors, &place);
		if (lba >> shard_log2 != part->shard ||
		    (lba + sectors - 1) >> shard_log2 != part->shard)
			return err_corrupt(err, "extent %u is not of shard %llu", i,
					   (unsigned long long)part->shard);
	}
	return 0;
}

int load_part(struct store *store, const char *name, const struct uuid *uuid,
	      const struct part_ref *ref, uint32_t shard_log2, void *ahead, void **ret_buf,
	      struct err *err)
{
	const struct key key = {KEY_PART, ref->no, ref->epoch, ref->part};
	char text[STORE_KEY_MAX + 1];
	struct part_hdr part;
	struct obj_hdr hdr;
	void *buf = ahead;
	int r = 0;

	key_format(text, name, &key);
	if (!buf)
		r = load_object(store, text, ref->bytes, &buf, err);
	if (r)
		return r;
	r = part_decode(buf, ref->bytes, &hdr, &part, err);
	if (!r && (hdr.crc != ref->crc || hdr.seq != ref->no || hdr.epoch != ref->epoch ||
		   part.kind != ref->kind || part.shard != ref->shard || part.part != ref->part ||
		   part.entries != ref->entries || !uuid_equal(&hdr.volume_uuid, uuid)))
		r = err_corrupt(err, "is not the part that the root names");
	if (!r && part.kind == LSVD_PART_SHARD)
		r = load_check_shard(buf, &part, shard_log2, err);
	if (r) {
		err_prefix(err, "object %s", text);
		free(buf);
		return r;
	}
	*ret_buf = buf;
	return 0;
}

static int load_entries(struct lsvd *l, const void *buf, const struct part_ref *ref,
			struct err *err)
{
	for (uint32_t i = 0; i < ref->entries; i++) {
		struct ckpt_obj obj;
		uint64_t lba, place;
		uint32_t sectors;
		int r;

		if (ref->kind == LSVD_PART_SHARD) {
			part_ext(buf, i, &lba, &sectors, &place);
			r = extmap_append(&l->map, lba, sectors, place);
		} else {
			part_obj(buf, i, &obj);
			r = -EINVAL;
			if (!l->objs.n || l->objs.o[l->objs.n - 1].seq < obj.seq)
				r = objtab_add(&l->objs, &obj);
		}
		if (r == -EINVAL)
			return err_corrupt(err, "entry %u is out of order", i);
		if (r)
			return err_set(err, r, "no memory for the map of %s (limit %llu bytes)",
				       l->name, (unsigned long long)l->opt.map_limit_bytes);
	}
	return 0;
}

/* What ahead.c reads: the parts as the root names them. */
struct load_wants {
	const struct lsvd *l;
	const void *root;
	uint32_t parts;
};

static size_t load_want(const void *arg, size_t index, char text[STORE_KEY_MAX + 1])
{
	const struct load_wants *w = arg;
	struct key key = {.kind = KEY_PART};
	struct part_ref p;

	if (index >= w->parts)
		return 0;
	root_part(w->root, (uint32_t)index, &p);
	key.seq = p.no;
	key.epoch = p.epoch;
	key.part = p.part;
	key_format(text, w->l->name, &key);
	return p.bytes;
}

/* The page that a part which has been loaded covers. */
static int load_page(struct lsvd *l, const struct part_ref *ref, const void *buf)
{
	struct ckpt_page page = {.ref = *ref};
	uint64_t place;
	uint32_t sectors;
	struct ckpt_obj obj;

	if (ref->kind == LSVD_PART_SHARD) {
		part_ext(buf, 0, &page.first, &sectors, &place);
	} else {
		part_obj(buf, 0, &obj);
		page.first = obj.seq;
	}
	return pages_add(pages_of(l, ref->kind), &page);
}

static int load_no_memory(const struct lsvd *l, struct err *err)
{
	return err_set(err, -ENOMEM, "no memory for the checkpoint of %s", l->name);
}

static int load_parts(struct lsvd *l, const void *buf, const struct root_hdr *root,
		      struct err *err)
{
	const struct load_wants wants = {l, buf, root->parts};
	struct ahead *ahead = ahead_new(l->store, load_want, &wants);
	int r = 0;

	for (uint32_t i = 0; !r && i < root->parts; i++) {
		struct part_ref p;
		void *part = NULL;

		root_part(buf, i, &p);
		r = load_part(l->store, l->name, &l->sb.uuid, &p, root->shard_sectors_log2,
			      ahead_take(ahead, i), &part, err);
		/* What was garbled on its way is sound the next time; what is rotten is not. */
		if (r == -EBADMSG) {
			err_clear(err);
			r = load_part(l->store, l->name, &l->sb.uuid, &p,
				      root->shard_sectors_log2, NULL, &part, err);
		}
		if (r)
			break;
		r = load_entries(l, part, &p, err);
		if (!r && load_page(l, &p, part))
			r = load_no_memory(l, err);
		free(part);
	}
	ahead_free(ahead);
	if (!r && partset_of_root(&l->kept[0], buf, root->parts))
		r = load_no_memory(l, err);
	return r;
}

/* As if nothing had been loaded: the first checkpoint will write everything. */
static int load_nothing(struct lsvd *l, struct err *err)
{
	extmap_clear(&l->map);
	objtab_free(&l->objs);
	partset_free(&l->kept[0]);
	for (unsigned i = 0; i < 2; i++) {
		if (pages_reset(&l->pages[i]))
			return load_no_memory(l, err);
	}
	return 0;
}

static int load_one(struct lsvd *l, const struct root_ref *ref, struct root_hdr *ret,
		    struct err *err)
{
	struct root_hdr root;
	void *buf = NULL;
	int r = load_root(l->store, l->name, &l->sb.uuid, ref, &buf, &root, err);

	l->pages[0].n = l->pages[1].n = 0;
	if (!r)
		r = load_parts(l, buf, &root, err);
	free(buf);
	for (unsigned i = 0; !r && i < 2; i++) {
		if (!l->pages[i].n && pages_reset(&l->pages[i]))
			r = load_no_memory(l, err);
	}
	if (r)
		return r;
	l->pages_log2 = root.shard_sectors_log2;
	*ret = root;
	return 0;
}

/*
 * *ret is all zero for a volume that never had a checkpoint: everything is in the objects then. A
 * volume that had some and can load none is damaged: older objects need not exist any more, nor do
 * the windows that would say which of them count.
 */
int load_checkpoint(struct lsvd *l, struct root_hdr *ret, struct err *err)
{
	struct err first = ERR_INIT;
	int r;

	*ret = (struct root_hdr){0};
	l->good_root = 0;
	r = load_nothing(l, err);
	if (r)
		return r;
	for (uint32_t i = 0; i < LSVD_ROOTS; i++) {
		struct err e = ERR_INIT;

		if (!l->sb.roots[i].no)
			continue;
		r = load_one(l, &l->sb.roots[i], ret, &e);
		if (!r) {
			l->good_root = i;
			return 0;
		}
		if (r != -EBADMSG)
			return err_set(err, r, "%s", err_text(&e, r));
		log_warn("%s: a checkpoint is damaged: %s", l->name, err_text(&e, r));
		err_set(&first, r, "%s", err_text(&e, r));
		r = load_nothing(l, err);
		if (r)
			return r;
	}
	if (first.code)
		return err_corrupt(err, "%s: no checkpoint can be loaded: %s", l->name, first.text);
	return 0;
}
