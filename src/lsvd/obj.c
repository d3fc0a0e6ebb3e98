/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The common header, and the headers of data and GC objects (docs/SPEC-objects.md).
 *
 * A data object's header is struct lsvd_hdr, then the extents, then the checksums, of
 * GC objects the sources, padded to 4 KiB;
 * the data follows. Extents ascend by LBA; so do their places in the data and their checksums, each
 * extent beginning where the one before it ended (ZERO and ERROR extents have a place, but no
 * length in the data). So header and data describe each other without a
 * gap, and a reader finds the extent of a sector of the data by bisection.
 *
 * Invariants of what obj_decode() accepts:
 *   1. every offset and count lies within header_bytes; header_bytes is a multiple of 4 KiB;
 *   2. extents do not overlap and lie below 2^48;
 *   3. the DATA extents tile data_bytes exactly, and their checksums tile crc_count exactly;
 *   4. first_lsn <= last_lsn, prev_seq < seq;
 *   5. the extents of a GC object are DATA, and its sources tile data_bytes exactly.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/minmax.h"
#include "lsvd/codec.h"

uint64_t obj_header_bytes(uint64_t extents, uint64_t crcs, uint64_t sources)
{
	const uint64_t bytes = sizeof(struct lsvd_hdr) + extents * sizeof(struct lsvd_ext) +
			       crcs * sizeof(le32) + sources * sizeof(struct lsvd_source);

	return (bytes + LSVD_BLOCK - 1) / LSVD_BLOCK * LSVD_BLOCK;
}

void obj_common(struct lsvd_hdr *h, const struct obj_hdr *hdr)
{
	h->magic = le64_make(LSVD_MAGIC);
	h->version = le32_make(LSVD_VERSION);
	memcpy(h->volume_uuid, hdr->volume_uuid.b, sizeof(h->volume_uuid));
	h->incompat_flags = le32_make(hdr->incompat);
	h->type = le32_make(hdr->type);
	h->attach_epoch = le32_make(hdr->epoch);
	h->seq = le64_make(hdr->seq);
	h->header_bytes = le32_make(hdr->header_bytes);
	h->generation = le32_make(hdr->generation);
	h->data_bytes = le64_make(hdr->data_bytes);
	h->wall_ns = le64_make(hdr->wall_ns);
	h->first_lsn = le64_make(hdr->first_lsn);
	h->last_lsn = le64_make(hdr->last_lsn);
	h->prev_seq = le64_make(hdr->prev_seq);
}

void obj_begin(void *buf, const struct obj_hdr *hdr)
{
	struct lsvd_hdr *h = buf;
	const uint32_t ext_bytes = hdr->ext_count * (uint32_t)sizeof(struct lsvd_ext);

	obj_common(h, hdr);
	h->ext_count = le32_make(hdr->ext_count);
	h->ext_off = le32_make(sizeof(*h));
	h->crc_count = le32_make(hdr->crc_count);
	h->crc_off = le32_make((uint32_t)sizeof(*h) + ext_bytes);
	if (hdr->type != LSVD_TYPE_GC)
		return;
	h->source_count = le32_make(hdr->source_count);
	h->source_off = le32_make((uint32_t)sizeof(*h) + ext_bytes +
				  hdr->crc_count * (uint32_t)sizeof(le32));
}

void obj_put_ext(void *buf, uint32_t index, const struct obj_ext *ext)
{
	const struct lsvd_hdr *h = buf;
	struct lsvd_ext *e = (void *)((uint8_t *)buf + le32_get(h->ext_off));

	e += index;
	e->lba = le48_make(ext->lba);
	e->type = (uint8_t)ext->type;
	e->sectors = le32_make(ext->sectors);
	e->data_sector = le32_make(ext->data_sector);
	e->first_crc = le32_make(ext->first_crc);
}

void obj_put_crc(void *buf, uint32_t index, uint32_t crc)
{
	const struct lsvd_hdr *h = buf;
	le32 *c = (void *)((uint8_t *)buf + le32_get(h->crc_off));

	c[index] = le32_make(crc);
}

void obj_put_source(void *buf, uint32_t index, uint64_t place, uint32_t sectors)
{
	const struct lsvd_hdr *h = buf;
	struct lsvd_source *s = (void *)((uint8_t *)buf + le32_get(h->source_off));

	s += index;
	s->place = le64_make(place);
	s->sectors = le32_make(sectors);
}

static uint32_t obj_compute_crc(const void *buf, uint32_t header_bytes)
{
	static const le32 zero;
	const size_t at = offsetof(struct lsvd_hdr, crc);
	const uint8_t *bytes = buf;
	uint32_t crc = crc32c(0, bytes, at);

	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, bytes + at + sizeof(zero), header_bytes - at - sizeof(zero));
}

uint32_t obj_seal(void *buf)
{
	struct lsvd_hdr *h = buf;
	const uint32_t crc = obj_compute_crc(buf, le32_get(h->header_bytes));

	h->crc = le32_make(crc);
	return crc;
}

/* ---- decoding */

static bool obj_zeros(const void *buf, size_t len_bytes)
{
	const uint8_t *b = buf;

	for (size_t i = 0; i < len_bytes; i++) {
		if (b[i])
			return false;
	}
	return true;
}

static void obj_fields(const struct lsvd_hdr *h, struct obj_hdr *ret)
{
	ret->type = (enum lsvd_type)le32_get(h->type);
	memcpy(ret->volume_uuid.b, h->volume_uuid, sizeof(ret->volume_uuid.b));
	ret->epoch = le32_get(h->attach_epoch);
	ret->crc = le32_get(h->crc);
	ret->header_bytes = le32_get(h->header_bytes);
	ret->generation = le32_get(h->generation);
	ret->seq = le64_get(h->seq);
	ret->data_bytes = le64_get(h->data_bytes);
	ret->wall_ns = le64_get(h->wall_ns);
	ret->first_lsn = le64_get(h->first_lsn);
	ret->last_lsn = le64_get(h->last_lsn);
	ret->prev_seq = le64_get(h->prev_seq);
	ret->ext_count = le32_get(h->ext_count);
	ret->ext_off = le32_get(h->ext_off);
	ret->crc_count = le32_get(h->crc_count);
	ret->crc_off = le32_get(h->crc_off);
	ret->source_count = le32_get(h->source_count);
	ret->source_off = le32_get(h->source_off);
	ret->incompat = le32_get(h->incompat_flags);
}

int obj_peek(const void *buf, size_t len_bytes, struct obj_hdr *ret, struct err *err)
{
	const struct lsvd_hdr *h = buf;
	struct obj_hdr o;

	if (len_bytes < sizeof(*h))
		return err_corrupt(err, "%zu bytes are too short for a header", len_bytes);
	if (le64_get(h->magic) != LSVD_MAGIC)
		return err_corrupt(err, "bad magic: not an object of a volume");
	if (le32_get(h->version) != LSVD_VERSION)
		return err_set(err, -ENOTSUP, "format version %u is not supported (only %u is)",
			       le32_get(h->version), LSVD_VERSION);
	obj_fields(h, &o);
	if (o.header_bytes < sizeof(*h) || o.header_bytes > LSVD_ROOT_MAX_BYTES)
		return err_corrupt(err, "header length %u is impossible", o.header_bytes);
	if (o.data_bytes % LSVD_SECTOR_BYTES ||
	    o.data_bytes / LSVD_SECTOR_BYTES > LSVD_DATA_MAX_SECTORS)
		return err_corrupt(err, "data length %llu is impossible",
				   (unsigned long long)o.data_bytes);
	*ret = o;
	return 0;
}

int obj_decode_hdr(const void *buf, size_t len_bytes, struct obj_hdr *ret, struct err *err)
{
	const struct lsvd_hdr *h = buf;
	struct obj_hdr o;
	int r = obj_peek(buf, len_bytes, &o, err);

	if (r)
		return r;
	if (o.header_bytes > len_bytes)
		return err_corrupt(err, "header of %u bytes is cut short at %zu", o.header_bytes,
				   len_bytes);
	if (obj_compute_crc(buf, o.header_bytes) != o.crc)
		return err_corrupt(err, "header checksum does not match");
	if (le32_get(h->incompat_flags) & ~LSVD_INCOMPAT_KNOWN)
		return err_set(err, -ENOTSUP, "needs features %#x that this version does not know",
			       le32_get(h->incompat_flags));
	if (!obj_zeros(&h->ckpt_count, offsetof(struct lsvd_hdr, source_count) -
					       offsetof(struct lsvd_hdr, ckpt_count)) ||
	    !obj_zeros(&h->snap_count, sizeof(*h) - offsetof(struct lsvd_hdr, snap_count)) ||
	    (o.type != LSVD_TYPE_GC && (o.source_count || o.source_off)))
		return err_corrupt(err, "reserved fields are not zero");
	*ret = o;
	return 0;
}

/* One extent, given where the data and checksums of those before it ended. */
static bool obj_ext_ok(const struct lsvd_ext *e, uint64_t *lba, uint64_t *sector, uint64_t *crc)
{
	const uint32_t sectors = le32_get(e->sectors);

	if (!sectors || le48_get(e->lba) < *lba || le48_get(e->lba) + sectors > LSVD_LBA_END ||
	    e->reserved || le32_get(e->data_sector) != *sector || le32_get(e->first_crc) != *crc)
		return false;
	*lba = le48_get(e->lba) + sectors;
	if (e->type == LSVD_EXT_ZERO || e->type == LSVD_EXT_ERROR)
		return true;
	if (e->type != LSVD_EXT_DATA || sectors > LSVD_DATA_MAX_SECTORS)
		return false;
	*sector += sectors;
	*crc += obj_crcs(sectors);
	return true;
}

static int obj_check_exts(const void *buf, const struct obj_hdr *o, struct err *err)
{
	const struct lsvd_ext *e = (const void *)((const uint8_t *)buf + o->ext_off);
	uint64_t lba = 0, sector = 0, crc = 0;

	for (uint32_t i = 0; i < o->ext_count; i++) {
		if (!obj_ext_ok(&e[i], &lba, &sector, &crc))
			return err_corrupt(err, "extent %u is invalid", i);
	}
	if (sector * LSVD_SECTOR_BYTES != o->data_bytes || crc != o->crc_count)
		return err_corrupt(err, "extents do not add up to the data");
	return 0;
}

/* The sources tile the data, lie in older objects, and all extents are data. */
static int obj_check_sources(const void *buf, const struct obj_hdr *o, struct err *err)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < o->ext_count; i++) {
		struct obj_ext e;

		obj_ext(buf, i, &e);
		if (e.type != LSVD_EXT_DATA)
			return err_corrupt(err, "extent %u is not of data that was moved", i);
	}
	for (uint32_t i = 0; i < o->source_count; i++) {
		uint64_t place;
		uint32_t sectors;

		obj_source(buf, i, &place, &sectors);
		if (!sectors || place & EXTMAP_CONST || !place_seq(place) ||
		    place_seq(place) >= o->seq ||
		    place_sector(place) + (uint64_t)sectors > LSVD_DATA_MAX_SECTORS)
			return err_corrupt(err, "source %u is invalid", i);
		sum += sectors;
	}
	if (sum * LSVD_SECTOR_BYTES != o->data_bytes)
		return err_corrupt(err, "sources do not add up to the data");
	return 0;
}

int obj_decode(const void *buf, size_t len_bytes, struct obj_hdr *ret, struct err *err)
{
	struct obj_hdr o;
	uint64_t ext_end, crc_end, end;
	int r = obj_decode_hdr(buf, len_bytes, &o, err);

	if (r)
		return r;
	if (o.type != LSVD_TYPE_DATA && o.type != LSVD_TYPE_GC)
		return err_corrupt(err, "type %u is not a data object", o.type);
	ext_end = o.ext_off + (uint64_t)o.ext_count * sizeof(struct lsvd_ext);
	crc_end = o.crc_off + (uint64_t)o.crc_count * sizeof(le32);
	end = crc_end + (uint64_t)o.source_count * sizeof(struct lsvd_source);
	if (o.header_bytes % LSVD_BLOCK || o.header_bytes > LSVD_HEADER_MAX_BYTES ||
	    o.ext_off != sizeof(struct lsvd_hdr) || o.crc_off != ext_end ||
	    (o.type == LSVD_TYPE_GC && o.source_off != crc_end) || end > o.header_bytes)
		return err_corrupt(err, "tables do not fit into the header");
	if (!o.seq || o.seq > LSVD_SEQ_MAX || o.prev_seq >= o.seq || o.first_lsn > o.last_lsn)
		return err_corrupt(err, "sequence or LSN is out of order");
	if (!obj_zeros((const uint8_t *)buf + end, o.header_bytes - end))
		return err_corrupt(err, "padding of the header is not zero");
	r = obj_check_exts(buf, &o, err);
	if (!r && o.type == LSVD_TYPE_GC)
		r = obj_check_sources(buf, &o, err);
	if (r)
		return r;
	*ret = o;
	return 0;
}

void obj_ext(const void *buf, uint32_t index, struct obj_ext *ret)
{
	const struct lsvd_hdr *h = buf;
	const struct lsvd_ext *e = (const void *)((const uint8_t *)buf + le32_get(h->ext_off));

	e += index;
	ret->lba = le48_get(e->lba);
	ret->sectors = le32_get(e->sectors);
	ret->type = (enum lsvd_ext_type)e->type;
	ret->data_sector = le32_get(e->data_sector);
	ret->first_crc = le32_get(e->first_crc);
}

uint32_t obj_crc(const void *buf, uint32_t index)
{
	const struct lsvd_hdr *h = buf;
	const le32 *c = (const void *)((const uint8_t *)buf + le32_get(h->crc_off));

	return le32_get(c[index]);
}

void obj_source(const void *buf, uint32_t index, uint64_t *place, uint32_t *sectors)
{
	const struct lsvd_hdr *h = buf;
	const struct lsvd_source *s =
		(const void *)((const uint8_t *)buf + le32_get(h->source_off));

	s += index;
	*place = le64_get(s->place);
	*sectors = le32_get(s->sectors);
}

bool obj_next_move(const void *buf, struct obj_moves *it, struct obj_move *ret)
{
	const struct lsvd_hdr *h = buf;
	struct obj_ext e;
	uint64_t place;
	uint32_t sectors;

	if (it->source == le32_get(h->source_count))
		return false;
	obj_source(buf, it->source, &place, &sectors);
	obj_ext(buf, it->ext, &e);
	ret->lba = e.lba + it->ext_off;
	ret->from = place + it->source_off;
	ret->to = place_make(le64_get(h->seq), e.data_sector + it->ext_off);
	ret->sectors = min32(sectors - it->source_off, e.sectors - it->ext_off);
	it->source_off += ret->sectors;
	it->ext_off += ret->sectors;
	if (it->source_off == sectors) {
		it->source++;
		it->source_off = 0;
	}
	if (it->ext_off == e.sectors) {
		it->ext++;
		it->ext_off = 0;
	}
	return true;
}

/*
 * The last extent whose place is at or before the sector: what lies behind the one that holds it
 * has a place beyond it, and a ZERO or ERROR extent before it has a place that is not beyond.
 */
void obj_find(const void *buf, uint32_t data_sector, struct obj_ext *ret)
{
	const struct lsvd_hdr *h = buf;
	uint32_t lo = 0, hi = le32_get(h->ext_count);

	while (hi - lo > 1) {
		const uint32_t mid = lo + (hi - lo) / 2;

		obj_ext(buf, mid, ret);
		if (ret->data_sector > data_sector)
			hi = mid;
		else
			lo = mid;
	}
	obj_ext(buf, lo, ret);
}
