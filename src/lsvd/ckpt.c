/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing checkpoints: the map and the object table as objects, so that opening need not read the
 * header of every object there is.
 *
 * ckpt_step() walks the pages (pages.c) of the map, then those of the object table. Clean ones are
 * taken over as they are: the root refers to the parts that an older checkpoint wrote. Dirty ones
 * are read and fill one part at a time, a bounded number of entries at each call. ckptrun.c puts
 * the parts, several at a time, then the root that refers to them and to the old ones, then
 * replaces the superblock, then deletes what is no longer needed. ckpt_write_sync() does the same
 * on the calling thread, while attaching.
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

#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

#define CKPT_SLICE 512
#define CKPT_OBJ_BYTES (64u << 10) /* of a part of the object table: its last one is always dirty */
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

static uint32_t ckpt_capacity(const struct ckpt *ck, enum lsvd_part_kind kind)
{
	const size_t bytes = kind == LSVD_PART_OBJECTS && ck->buf_bytes > CKPT_OBJ_BYTES
				     ? CKPT_OBJ_BYTES
				     : ck->buf_bytes;

	return part_capacity(kind, bytes);
}

static void ckpt_phase(struct ckpt *ck, enum ckpt_phase phase)
{
	ck->phase = phase;
	ck->kind = phase == CKPT_SHARDS ? LSVD_PART_SHARD : LSVD_PART_OBJECTS;
	ck->capacity = ckpt_capacity(ck, ck->kind);
	ck->page = 0;
	ck->at = ck->run_end = 0;
}

int ckpt_begin(struct lsvd *l, struct ckpt *ck)
{
	const uint32_t log2 = ckpt_shard_log2(l);

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
				.shard_sectors_log2 = log2,
			},
		.buf_bytes = l->opt.checkpoint_part_bytes,
	};
	ckpt_phase(ck, CKPT_SHARDS);
	if (log2 != l->pages_log2) {
		/* Parts are of one shard: those of another size cannot be referred to. */
		const int r = pages_reset(pages_of(l, LSVD_PART_SHARD));

		if (r)
			return r;
		l->pages_log2 = log2;
	}
	return 0;
}

void ckpt_free(struct ckpt *ck)
{
	free(ck->buf);
	free(ck->parts);
	partset_free(&ck->set);
	for (unsigned i = 0; i < 2; i++)
		pages_free(&ck->next[i]);
	*ck = (struct ckpt){0};
}

/* Entered. For want of memory, before the superblock could name it. */
void ckpt_give_up(struct ckpt *ck)
{
	struct lsvd *l = ck->l;

	pages_untake(pages_of(l, LSVD_PART_SHARD));
	pages_untake(pages_of(l, LSVD_PART_OBJECTS));
	ckpt_free(ck);
}

/* ---- pages */

/*
 * Takes the clean pages over and comes to the next run of dirty ones; 1: there are no more. Pages
 * of which there is no part are left out: the one before then covers their range, where there is
 * nothing.
 */
static int ckpt_next_run(struct ckpt *ck)
{
	struct pages *pg = pages_of(ck->l, ck->kind);

	for (; ck->page < pg->n && !pg->p[ck->page].dirty; ck->page++) {
		struct ckpt_page p = pg->p[ck->page];
		const int r = p.ref.no ? pages_add(ckpt_pages(ck), &p) : 0;

		if (r)
			return r;
	}
	if (ck->page == pg->n)
		return 1;
	ck->at = ck->first = pg->p[ck->page].first;
	ck->page = pages_take_run(pg, ck->page, ck->capacity);
	ck->run_end = ck->page < pg->n ? pg->p[ck->page].first : UINT64_MAX;
	return 0;
}

/* Enters what fits of one extent; false when the part has to be finished first. */
static bool ckpt_add_extent(struct ckpt *ck, const struct extent *e)
{
	const unsigned log2 = ck->root.shard_sectors_log2;
	const uint64_t e_end = e->lba + e->sectors;
	const uint64_t end = e_end < ck->run_end ? e_end : ck->run_end;

	if (ck->at < e->lba)
		ck->at = e->lba;
	while (ck->at < end) {
		const uint64_t shard = ck->at >> log2;
		const uint64_t shard_end = (shard + 1) << log2;
		uint64_t n = (end < shard_end ? end : shard_end) - ck->at;

		if (ck->entries && (shard != ck->shard || ck->entries == ck->capacity))
			return false;
		if (n > CKPT_EXT_SECTORS)
			n = CKPT_EXT_SECTORS;
		ck->shard = shard;
		part_put_ext(ck->buf, ck->entries++, ck->at, (uint32_t)n,
			     extmap_value_at(e->value, ck->at - e->lba));
		ck->at += n;
	}
	return true;
}

/* The run is at its end: its last part, if there is anything in it. */
static int ckpt_end_run(struct ckpt *ck)
{
	ck->run_end = 0;
	return ck->entries > 0;
}

static int ckpt_step_shards(struct ckpt *ck)
{
	struct extmap_iter it;
	struct extent e;
	int r;

	if (!ck->run_end) {
		r = ckpt_next_run(ck);
		if (r <= 0)
			return r;
		/* Nothing installed from here on can be in a part. */
		ck->root.reach_seq = max64(ck->l->reach_seq, ck->root.covered_seq);
		ckpt_phase(ck, CKPT_OBJECTS);
		return 0;
	}
	extmap_iter_init(&it, &ck->l->map, ck->at);
	for (unsigned i = 0; i < CKPT_SLICE; i++) {
		if (!extmap_iter_next(&it, &e) || e.lba >= ck->run_end)
			return ckpt_end_run(ck);
		if (!ckpt_add_extent(ck, &e))
			return 1;
		if (ck->at == ck->run_end)
			return ckpt_end_run(ck);
	}
	return 0;
}

static int ckpt_objects_run(struct ckpt *ck)
{
	const struct objtab *t = &ck->l->objs;
	const uint64_t covered = ck->root.covered_seq;
	const int r = ckpt_next_run(ck);

	if (r > 0)
		ckpt_phase(ck, CKPT_ROOT);
	/* Rows that this checkpoint does not have yet: the next one will. */
	else if (!r && t->n && t->o[t->n - 1].seq > covered)
		pages_mark(pages_of(ck->l, LSVD_PART_OBJECTS), covered + 1, UINT64_MAX);
	return r < 0 ? r : 0;
}

static int ckpt_step_objects(struct ckpt *ck)
{
	const struct objtab *t = &ck->l->objs;
	size_t at;

	if (!ck->run_end)
		return ckpt_objects_run(ck);
	at = objtab_from(t, ck->at);
	for (unsigned i = 0; i < CKPT_SLICE; i++, at++) {
		if (at == t->n || t->o[at].seq > ck->root.covered_seq ||
		    t->o[at].seq >= ck->run_end)
			return ckpt_end_run(ck);
		if (ck->entries == ck->capacity)
			return 1;
		part_put_obj(ck->buf, ck->entries++, &t->o[at]);
		ck->at = t->o[at].seq + 1;
	}
	return 0;
}

/* The references of the root, old and new; and all memory that ckpt_commit() will need. */
static int ckpt_refs(struct ckpt *ck)
{
	int r = 0;

	ck->parts = malloc((ck->next[0].n + ck->next[1].n + 1) * sizeof(*ck->parts));
	if (!ck->parts)
		return -ENOMEM;
	for (unsigned k = 0; !r && k < 2; k++) {
		for (size_t i = 0; i < ck->next[k].n; i++)
			ck->parts[ck->nparts++] = ck->next[k].p[i].ref;
		if (!ck->next[k].n)
			r = pages_reset(&ck->next[k]);
	}
	return r ? r : partset_add(&ck->set, ck->parts, ck->nparts);
}

static int ckpt_step_root(struct ckpt *ck)
{
	int r = ckpt_refs(ck);
	size_t bytes;
	uint8_t *buf;

	if (r)
		return r;
	bytes = root_bytes(ck->nparts);
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

	if (ck->written > UINT16_MAX)
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
		.kind = ck->kind,
		.part = ck->written,
		.entries = ck->entries,
	};

	ck->key = (struct key){.seq = ck->no, .epoch = ck->epoch, .part = ck->written};
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
	const struct ckpt_page page = {
		.first = ck->first,
		.ref =
			{
				.shard = ck->kind == LSVD_PART_SHARD ? ck->shard : 0,
				.no = ck->no,
				.epoch = ck->epoch,
				.part = ck->written,
				.bytes = (uint32_t)ck->len_bytes,
				.entries = ck->entries,
				.crc = ck->crc,
				.kind = ck->kind,
			},
	};
	int r;

	ck->bytes += ck->len_bytes;
	if (ck->phase == CKPT_ROOT) {
		ck->phase = CKPT_END;
		return 1;
	}
	r = pages_add(ckpt_pages(ck), &page);
	if (r)
		return r;
	ck->written++;
	ck->entries = 0;
	ck->first = ck->at; /* of the next part of the run, if there is one */
	return 0;
}

/*
 * The superblock names it. Its pages take the place of those that it began with, and become dirty
 * where these have since it read them.
 */
void ckpt_commit(struct ckpt *ck)
{
	struct lsvd *l = ck->l;

	for (unsigned i = 0; i < 2; i++) {
		pages_inherit(&ck->next[i], &l->pages[i]);
		pages_free(&l->pages[i]);
		l->pages[i] = ck->next[i];
		ck->next[i] = (struct pages){0};
	}
	partset_free(&l->kept[1]);
	l->kept[1] = l->kept[0];
	l->kept[0] = ck->set;
	ck->set = (struct partset){0};
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
	sb->incompat |= LSVD_INCOMPAT_GC; /* from here on there may be GC objects */
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
	int r;

	r = ckpt_begin(l, &ck);
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
		ckpt_commit(&ck);
		ckpt_super(&ck, sb);
		/*
		 * The table of windows is full, which is why we are here: only the new root has
		 * been verified to need none of them, so the older one is given up.
		 */
		sb->roots[1] = (struct root_ref){0};
		super_prune_ends(sb, sb->roots[0].covered_seq);
		partset_free(&l->kept[1]);
		r = 0;
	} else {
		err_sys(err, r, "%s: cannot write a checkpoint", l->name);
	}
	ckpt_free(&ck);
	return r;
}
