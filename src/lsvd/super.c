/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock's form (docs/SPEC-objects.md). Who writes it, and when, is the affair of attach.c
 * and ckpt.c.
 *
 * The table of epoch windows says which objects count. A window {epoch, first_seq, end_seq} admits
 * the objects of its epoch with first_seq <= seq <= end_seq and no others: what a former owner put
 * behind its end, however late it arrives, is outside of every window for ever.
 *
 * Invariants:
 *   1. windows ascend by epoch and by seq, and do not overlap: a number names one object at most;
 *   2. only the last window may be open (end_seq LSVD_SEQ_OPEN);
 *   3. a window whose objects are all covered by the older kept checkpoint is no longer needed, as
 *      that checkpoint's object table has their epochs;
 *   4. the table is bounded; attach.c writes a checkpoint before it would overflow.
 */
#include <errno.h>
#include <string.h>

#include "lsvd/codec.h"

static void super_encode_roots(struct lsvd_super *s, const struct super *sb)
{
	for (unsigned i = 0; i < LSVD_ROOTS; i++) {
		s->roots[i].no = le64_make(sb->roots[i].no);
		s->roots[i].epoch = le32_make(sb->roots[i].epoch);
		s->roots[i].bytes = le32_make(sb->roots[i].bytes);
		s->roots[i].covered_seq = le64_make(sb->roots[i].covered_seq);
		s->roots[i].crc = le32_make(sb->roots[i].crc);
	}
	s->end_count = le32_make(sb->end_count);
	for (uint32_t i = 0; i < sb->end_count; i++) {
		s->ends[i].epoch = le32_make(sb->ends[i].epoch);
		s->ends[i].first_seq = le64_make(sb->ends[i].first_seq);
		s->ends[i].end_seq = le64_make(sb->ends[i].end_seq);
	}
}

void super_encode(void *buf, const struct super *sb)
{
	struct lsvd_super *s = buf;
	const struct obj_hdr hdr = {
		.type = LSVD_TYPE_SUPER,
		.volume_uuid = sb->uuid,
		.epoch = sb->attach_epoch,
		.seq = sb->writes,
		.header_bytes = sizeof(*s),
		.incompat = sb->incompat,
		.wall_ns = sb->wall_ns,
		.last_lsn = sb->last_lsn,
	};

	memset(s, 0, sizeof(*s));
	obj_common(&s->hdr, &hdr);
	s->size_bytes = le64_make(sb->size_bytes);
	s->block_bytes = le32_make(sb->block_bytes);
	s->state = le32_make((sb->clean ? LSVD_STATE_CLEAN : 0) |
			     (sb->replace ? LSVD_STATE_REPLACE : 0));
	s->committed_epoch = le32_make(sb->committed_epoch);
	s->bound_epoch = le32_make(sb->bound_epoch);
	memcpy(s->cache_uuid, sb->cache_uuid.b, sizeof(s->cache_uuid));
	memcpy(s->pending_uuid, sb->pending_uuid.b, sizeof(s->pending_uuid));
	s->last_seq = le64_make(sb->last_seq);
	s->last_lsn = le64_make(sb->last_lsn);
	s->lsn_floor = le64_make(sb->lsn_floor);
	s->bind_lsn = le64_make(sb->bind_lsn);
	s->created_wall_ns = le64_make(sb->created_wall_ns);
	s->nonce = le64_make(sb->nonce);
	super_encode_roots(s, sb);
	obj_seal(s);
}

static int super_decode_ends(const struct lsvd_super *s, struct super *sb, struct err *err)
{
	uint64_t seq = 0, epoch = 0;

	sb->end_count = le32_get(s->end_count);
	if (sb->end_count > LSVD_EPOCH_ENDS)
		return err_corrupt(err, "%u epoch windows are too many", sb->end_count);
	for (uint32_t i = 0; i < sb->end_count; i++) {
		struct epoch_end *e = &sb->ends[i];
		const bool last = i + 1 == sb->end_count;

		e->epoch = le32_get(s->ends[i].epoch);
		e->first_seq = le64_get(s->ends[i].first_seq);
		e->end_seq = le64_get(s->ends[i].end_seq);
		if (e->epoch <= epoch || e->epoch > sb->attach_epoch || e->first_seq <= seq ||
		    e->first_seq > LSVD_SEQ_MAX)
			return err_corrupt(err, "epoch window %u is out of order", i);
		if (e->end_seq == LSVD_SEQ_OPEN
			    ? !last
			    : e->end_seq < e->first_seq || e->end_seq > LSVD_SEQ_MAX)
			return err_corrupt(err, "epoch window %u has an invalid end", i);
		epoch = e->epoch;
		seq = e->end_seq;
	}
	return 0;
}

static int super_decode_roots(const struct lsvd_super *s, struct super *sb, struct err *err)
{
	for (unsigned i = 0; i < LSVD_ROOTS; i++) {
		struct root_ref *r = &sb->roots[i];

		r->no = le64_get(s->roots[i].no);
		r->epoch = le32_get(s->roots[i].epoch);
		r->bytes = le32_get(s->roots[i].bytes);
		r->covered_seq = le64_get(s->roots[i].covered_seq);
		r->crc = le32_get(s->roots[i].crc);
		if (!r->no)
			continue;
		if (r->bytes < sizeof(struct lsvd_root) || r->bytes > LSVD_ROOT_MAX_BYTES ||
		    r->epoch > sb->attach_epoch || r->covered_seq > LSVD_SEQ_MAX ||
		    (i && (!sb->roots[0].no || r->no >= sb->roots[0].no)))
			return err_corrupt(err, "checkpoint reference %u is invalid", i);
	}
	return 0;
}

static int super_check_fields(const struct super *sb, uint32_t state, struct err *err)
{
	if (sb->block_bytes < LSVD_SECTOR_BYTES || sb->block_bytes > LSVD_BLOCK ||
	    (sb->block_bytes & (sb->block_bytes - 1)))
		return err_corrupt(err, "block size %u is impossible", sb->block_bytes);
	if (!sb->size_bytes || sb->size_bytes % sb->block_bytes ||
	    sb->size_bytes / LSVD_SECTOR_BYTES > LSVD_LBA_END)
		return err_corrupt(err, "size %llu is impossible",
				   (unsigned long long)sb->size_bytes);
	if (state & ~(LSVD_STATE_CLEAN | LSVD_STATE_REPLACE))
		return err_corrupt(err, "unknown state %#x", state);
	if (sb->committed_epoch > sb->attach_epoch || sb->bound_epoch > sb->attach_epoch)
		return err_corrupt(err, "epochs %u and %u are beyond %u", sb->committed_epoch,
				   sb->bound_epoch, sb->attach_epoch);
	if (sb->last_seq > LSVD_SEQ_MAX)
		return err_corrupt(err, "last sequence number is impossible");
	return 0;
}

int super_decode(const void *buf, size_t len_bytes, struct super *ret, struct err *err)
{
	const struct lsvd_super *s = buf;
	struct obj_hdr hdr;
	struct super sb = {0};
	int r = obj_decode_hdr(buf, len_bytes, &hdr, err);

	if (r)
		return r;
	if (hdr.type != LSVD_TYPE_SUPER || hdr.header_bytes != sizeof(*s) ||
	    len_bytes != sizeof(*s))
		return err_corrupt(err, "is not a superblock");
	sb.uuid = hdr.volume_uuid;
	sb.attach_epoch = hdr.epoch;
	sb.writes = hdr.seq;
	sb.incompat = hdr.incompat;
	sb.wall_ns = hdr.wall_ns;
	sb.size_bytes = le64_get(s->size_bytes);
	sb.block_bytes = le32_get(s->block_bytes);
	sb.clean = le32_get(s->state) & LSVD_STATE_CLEAN;
	sb.replace = le32_get(s->state) & LSVD_STATE_REPLACE;
	sb.committed_epoch = le32_get(s->committed_epoch);
	sb.bound_epoch = le32_get(s->bound_epoch);
	memcpy(sb.cache_uuid.b, s->cache_uuid, sizeof(s->cache_uuid));
	memcpy(sb.pending_uuid.b, s->pending_uuid, sizeof(s->pending_uuid));
	sb.last_seq = le64_get(s->last_seq);
	sb.last_lsn = le64_get(s->last_lsn);
	sb.lsn_floor = le64_get(s->lsn_floor);
	sb.bind_lsn = le64_get(s->bind_lsn);
	sb.created_wall_ns = le64_get(s->created_wall_ns);
	sb.nonce = le64_get(s->nonce);
	r = super_check_fields(&sb, le32_get(s->state), err);
	if (!r)
		r = super_decode_roots(s, &sb, err);
	if (!r)
		r = super_decode_ends(s, &sb, err);
	if (!r)
		*ret = sb;
	return r;
}

const struct epoch_end *super_window(const struct super *sb, uint64_t seq)
{
	for (uint32_t i = 0; i < sb->end_count; i++) {
		if (seq <= sb->ends[i].end_seq)
			return &sb->ends[i];
	}
	return NULL;
}

void super_prune_ends(struct super *sb, uint64_t covered_seq)
{
	uint32_t drop = 0;

	while (drop < sb->end_count && sb->ends[drop].end_seq <= covered_seq)
		drop++;
	sb->end_count -= drop;
	memmove(sb->ends, sb->ends + drop, sb->end_count * sizeof(sb->ends[0]));
}
