/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing checkpoints: the map and the object table as objects, so that opening need not read the
 * header of every object there is.
 *
 * ckpt_step() walks the map, shard by shard, then the object table, and fills one part at a time,
 * a bounded number of entries at each call. ckptrun.c puts the parts one after the other, then the
 * root that refers to them, then replaces the superblock, then deletes the checkpoint that is no
 * longer kept. ckpt_write_sync() does the same on the calling thread, while attaching.
 *
 * The checkpoint is fuzzy: installing goes on between two steps. It is right all the same. Let C be
 * the last object that was fully installed when the checkpoint began (covered_seq), and m the last
 * one of which anything had been installed when the walk ended (reach_seq).
 *   - For a sector that no object in (C, m] writes, the walk saw what objects up to C left there.
 *   - For a sector that some object in (C, m] writes, the walk saw one of several states. But
 *     opening applies the objects from C + 1 on, in order, to the loaded map, and the last of them
 *     that writes the sector decides.
 *   - All objects in (C, m] exist at every later opening: an object is installed only when it and
 *     all before it are durable and known to count (destage.c). Should one be missing nevertheless,
 *     the stream ends before reach_seq, and opening refuses (recover.c).
 * Extents of objects beyond C are not left out of the parts, though they could be: a later move of
 * data by garbage collection, which changes the map only where it still names the old place, needs
 * them.
 *
 * Invariants, and what is durable when:
 *   1. parts durable --> root durable --> superblock names it --> the oldest one is deleted. At
 *      every moment the superblock names only roots that are complete;
 *   2. two roots are kept. The older one, and the objects and epoch windows that rolling forward
 *      from it needs, stay until it is the third;
 *   3. a number is used for one attempt only, and the epoch is in the key: a part of an attempt
 *      that was given up is never mistaken for a part of another one. What such attempts leave
 *      behind is deleted by the next owner (attach.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

#define CKPT_SLICE 512
#define CKPT_SHARDS_MAX 16384u
#define CKPT_EXT_SECTORS UINT16_MAX

/* ---- making the objects */

/* Shards as large as asked, or larger: a root cannot refer to more than 2^16 parts. */
static uint32_t ckpt_shard_log2(const struct lsvd *l)
{
	uint32_t log2 = l->opt.shard_sectors_log2;

	while (l->home.sectors >> log2 > CKPT_SHARDS_MAX)
		log2++;
	return log2;
}

void ckpt_begin(struct lsvd *l, struct ckpt *ck)
{
	*ck = (struct ckpt){
		.l = l,
		.no = l->next_ckpt_no++,
		.epoch = l->sb.attach_epoch,
		.root =
			{
				.covered_seq = l->installed_seq,
				.covered_data_seq = l->installed_data_seq,
				.covered_lsn = l->installed_lsn,
				.covered_wall_ns = l->installed_wall_ns,
				.shard_sectors_log2 = ckpt_shard_log2(l),
			},
		.buf_bytes = l->opt.checkpoint_part_bytes,
	};
	ck->capacity = part_capacity(LSVD_PART_SHARD, ck->buf_bytes);
}

void ckpt_free(struct ckpt *ck)
{
	free(ck->buf);
	free(ck->parts);
	*ck = (struct ckpt){0};
}

/* Enters what fits of one extent; false when the part has to be finished first. */
static bool ckpt_add_extent(struct ckpt *ck, const struct extent *e)
{
	const unsigned log2 = ck->root.shard_sectors_log2;
	const uint64_t end = e->lba + e->sectors;

	if (ck->lba < e->lba)
		ck->lba = e->lba;
	while (ck->lba < end) {
		const uint64_t shard = ck->lba >> log2;
		const uint64_t shard_end = (shard + 1) << log2;
		uint64_t n = (end < shard_end ? end : shard_end) - ck->lba;

		if (ck->entries && (shard != ck->shard || ck->entries == ck->capacity))
			return false;
		if (n > CKPT_EXT_SECTORS)
			n = CKPT_EXT_SECTORS;
		ck->shard = shard;
		part_put_ext(ck->buf, ck->entries++, ck->lba, (uint32_t)n,
			     extmap_value_at(e->value, ck->lba - e->lba));
		ck->lba += n;
	}
	return true;
}

static int ckpt_step_shards(struct ckpt *ck)
{
	struct extmap_iter it;
	struct extent e;

	extmap_iter_init(&it, &ck->l->map, ck->lba);
	for (unsigned i = 0; i < CKPT_SLICE; i++) {
		if (!extmap_iter_next(&it, &e)) {
			if (ck->entries)
				return 1;
			ck->phase = CKPT_OBJECTS;
			ck->capacity = part_capacity(LSVD_PART_OBJECTS, ck->buf_bytes);
			/* Nothing installed from here on can be in a part. */
			ck->root.reach_seq = ck->l->reach_seq > ck->root.covered_seq
						     ? ck->l->reach_seq
						     : ck->root.covered_seq;
			return 0;
		}
		if (!ckpt_add_extent(ck, &e))
			return 1;
	}
	return 0;
}

static int ckpt_step_objects(struct ckpt *ck)
{
	const struct objtab *t = &ck->l->objs;

	for (unsigned i = 0; i < CKPT_SLICE; i++) {
		if (ck->obj_at == t->n || t->o[ck->obj_at].seq > ck->root.covered_seq) {
			if (ck->entries)
				return 1;
			ck->phase = CKPT_ROOT;
			return 0;
		}
		if (ck->entries == ck->capacity)
			return 1;
		part_put_obj(ck->buf, ck->entries++, &t->o[ck->obj_at++]);
	}
	return 0;
}

static int ckpt_step_root(struct ckpt *ck)
{
	const size_t bytes = root_bytes(ck->nparts);
	uint8_t *buf;

	if (bytes > LSVD_ROOT_MAX_BYTES)
		return -EFBIG;
	buf = realloc(ck->buf, bytes);
	if (!buf)
		return -ENOMEM;
	ck->buf = buf;
	return 1;
}

int ckpt_step(struct ckpt *ck)
{
	int r;

	if (ck->nparts > UINT16_MAX)
		return -EFBIG;
	/* The buffer of the part before may be on its way to the store. */
	if (!ck->buf)
		ck->buf = malloc(ck->buf_bytes);
	if (!ck->buf)
		return -ENOMEM;
	if (ck->phase == CKPT_SHARDS)
		r = ckpt_step_shards(ck);
	else if (ck->phase == CKPT_OBJECTS)
		r = ckpt_step_objects(ck);
	else
		r = ckpt_step_root(ck);
	return r;
}

void ckpt_seal(struct ckpt *ck)
{
	const struct obj_hdr hdr = {
		.volume_uuid = ck->l->sb.uuid,
		.epoch = ck->epoch,
		.seq = ck->no,
		.wall_ns = ck->root.covered_wall_ns,
		.last_lsn = ck->root.covered_lsn,
	};
	const struct part_hdr part = {
		.shard = ck->phase == CKPT_SHARDS ? ck->shard : 0,
		.kind = ck->phase == CKPT_SHARDS ? LSVD_PART_SHARD : LSVD_PART_OBJECTS,
		.part = ck->nparts,
		.entries = ck->entries,
	};

	ck->key = (struct key){.seq = ck->no, .epoch = ck->epoch, .part = ck->nparts};
	if (ck->phase == CKPT_ROOT) {
		ck->key.kind = KEY_ROOT;
		ck->root.parts = ck->nparts;
		ck->crc = root_encode(ck->buf, &hdr, &ck->root, ck->parts);
		ck->len_bytes = root_bytes(ck->nparts);
	} else {
		ck->key.kind = KEY_PART;
		ck->crc = part_seal(ck->buf, &hdr, &part);
		ck->len_bytes = part_bytes(part.kind, part.entries);
	}
}

int ckpt_taken(struct ckpt *ck)
{
	struct part_ref *ref;

	ck->bytes += ck->len_bytes;
	if (ck->phase == CKPT_ROOT) {
		ck->phase = CKPT_END;
		return 1;
	}
	if (ck->nparts == ck->parts_cap) {
		const uint32_t cap = ck->parts_cap ? ck->parts_cap * 2 : 16;
		struct part_ref *parts = realloc(ck->parts, cap * sizeof(*parts));

		if (!parts)
			return -ENOMEM;
		ck->parts = parts;
		ck->parts_cap = cap;
	}
	ref = &ck->parts[ck->nparts++];
	*ref = (struct part_ref){
		.shard = ck->phase == CKPT_SHARDS ? ck->shard : 0,
		.no = ck->no,
		.epoch = ck->epoch,
		.part = ck->key.part,
		.bytes = (uint32_t)ck->len_bytes,
		.entries = ck->entries,
		.crc = ck->crc,
		.kind = ck->phase == CKPT_SHARDS ? LSVD_PART_SHARD : LSVD_PART_OBJECTS,
	};
	ck->entries = 0;
	return 0;
}

/* The new root first, then the one that was loaded or written last. */
void ckpt_super(const struct ckpt *ck, struct super *sb)
{
	const struct lsvd *l = ck->l;

	sb->roots[1] = sb->roots[l->good_root];
	sb->roots[0] = (struct root_ref){
		.no = ck->no,
		.epoch = ck->epoch,
		.bytes = (uint32_t)ck->len_bytes,
		.crc = ck->crc,
		.covered_seq = ck->root.covered_seq,
	};
	super_prune_ends(sb, sb->roots[1].covered_seq);
	if (sb->last_seq < ck->root.covered_seq) {
		sb->last_seq = ck->root.covered_seq;
		sb->last_lsn = ck->root.covered_lsn;
	}
}

/* ---- on the calling thread */

int ckpt_write_sync(struct lsvd *l, struct super *sb, struct err *err)
{
	char key[STORE_KEY_MAX + 1];
	struct ckpt ck;
	int r = 0;

	ckpt_begin(l, &ck);
	while (r >= 0 && ck.phase != CKPT_END) {
		r = ckpt_step(&ck);
		if (r <= 0)
			continue;
		ckpt_seal(&ck);
		key_format(key, l->name, &ck.key);
		r = store_put_new(l->store, key, ck.buf, ck.len_bytes);
		if (!r)
			r = ckpt_taken(&ck);
	}
	if (r >= 0) {
		ckpt_super(&ck, sb);
		/*
		 * The table of windows is full, which is why we are here: only the new root has
		 * been verified to need none of them, so the older one is given up.
		 */
		sb->roots[1] = (struct root_ref){0};
		super_prune_ends(sb, sb->roots[0].covered_seq);
		r = 0;
	} else {
		err_sys(err, r, "%s: cannot write a checkpoint", l->name);
	}
	ckpt_free(&ck);
	return r;
}
