/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segment headers on media (L3, L4). docs/SPEC-log.md has the bytes.
 *
 * A header is believed only as a whole: its CRC covers it from the magic to the padding. Its
 * lengths are bounded before anything is computed from them, and its records are checked against
 * the lengths (each record's data and checksums lie inside, one behind the other), so that no later
 * code has to doubt a decoded segment.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "wlog/wlog_impl.h"

uint32_t header_bytes_for(uint32_t records, uint32_t crcs)
{
	const uint32_t bytes = (uint32_t)sizeof(struct wlog_seg_hdr) +
			       records * (uint32_t)sizeof(struct wlog_rec_disk) +
			       crcs * (uint32_t)sizeof(le32);

	return (bytes + WLOG_BLOCK - 1) / WLOG_BLOCK * WLOG_BLOCK;
}

uint32_t header_crc(const struct wlog_seg_hdr *hdr)
{
	static const le32 zero;
	const uint8_t *bytes = (const uint8_t *)hdr;
	const size_t at = offsetof(struct wlog_seg_hdr, crc);
	uint32_t crc = crc32c(0, bytes, at);

	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, bytes + at + sizeof(zero),
		      le32_get(hdr->header_bytes) - at - sizeof(zero));
}

static bool record_ok(const struct wlog_rec_disk *rec, uint64_t lsns, uint32_t *data_sector,
		      uint32_t *crc)
{
	const uint32_t sectors = le32_get(rec->sectors);

	if (!sectors || le48_get(rec->lba) + sectors > EXTMAP_LBA_END ||
	    le32_get(rec->lsn_delta) > lsns || (rec->flags & ~WLOG_REC_KNOWN) ||
	    le32_get(rec->data_sector) != *data_sector || le32_get(rec->first_crc) != *crc)
		return false;
	if (rec->type == WLOG_ZERO || rec->type == WLOG_DISCARD)
		return true;
	if (rec->type != WLOG_DATA || sectors > WLOG_DATA_MAX_BYTES / DEV_SECTOR_BYTES)
		return false;
	*data_sector += sectors;
	*crc += (sectors + WLOG_CRC_SECTORS - 1) / WLOG_CRC_SECTORS;
	return true;
}

static bool records_ok(const struct wlog_seg_hdr *hdr, const struct seg_header *h)
{
	const struct wlog_rec_disk *recs = (const void *)(hdr + 1);
	const uint64_t lsns = h->last_lsn - h->first_lsn;
	uint32_t data_sector = 0, crc = 0;

	for (uint32_t i = 0; i < h->records; i++) {
		if (data_sector > WLOG_DATA_MAX_BYTES / DEV_SECTOR_BYTES)
			return false;
		if (!record_ok(&recs[i], lsns, &data_sector, &crc))
			return false;
		if (i && le32_get(recs[i].lsn_delta) < le32_get(recs[i - 1].lsn_delta))
			return false;
	}
	return crc == h->crcs && (uint64_t)data_sector * DEV_SECTOR_BYTES <= h->data_bytes;
}

static bool lengths_ok(const struct seg_header *h)
{
	if (h->header_bytes < WLOG_BLOCK || h->header_bytes > WLOG_HEADER_MAX_BYTES ||
	    h->header_bytes % WLOG_BLOCK || h->data_bytes % WLOG_BLOCK)
		return false;
	if (h->flags & WLOG_SEG_PAD)
		return h->records == 0 && h->crcs == 0 && h->header_bytes == WLOG_BLOCK;
	return h->data_bytes <= WLOG_DATA_MAX_BYTES && h->records > 0 &&
	       h->records <= WLOG_HEADER_MAX_BYTES / sizeof(struct wlog_rec_disk) &&
	       h->crcs <= WLOG_HEADER_MAX_BYTES / sizeof(le32) &&
	       header_bytes_for(h->records, h->crcs) == h->header_bytes &&
	       h->first_lsn >= 1 && h->first_lsn <= h->last_lsn;
}

int header_decode(const void *buf, size_t len_bytes, const struct uuid *log_uuid,
		  struct seg_header *ret)
{
	const struct wlog_seg_hdr *hdr = buf;
	struct seg_header h;

	if (len_bytes < WLOG_BLOCK || le64_get(hdr->magic) != WLOG_SEG_MAGIC ||
	    le32_get(hdr->version) != WLOG_VERSION ||
	    memcmp(hdr->log_uuid, log_uuid->b, sizeof(hdr->log_uuid)) != 0)
		return -EBADMSG;
	h.log_epoch = le64_get(hdr->log_epoch);
	h.number = le64_get(hdr->number);
	h.first_lsn = le64_get(hdr->first_lsn);
	h.last_lsn = le64_get(hdr->last_lsn);
	h.watermark_lsn = le64_get(hdr->watermark_lsn);
	h.wall_ns = le64_get(hdr->wall_ns);
	h.prev_crc = le32_get(hdr->prev_crc);
	h.crc = le32_get(hdr->crc);
	h.flags = le32_get(hdr->flags);
	h.header_bytes = le32_get(hdr->header_bytes);
	h.data_bytes = le32_get(hdr->data_bytes);
	h.records = le32_get(hdr->records);
	h.crcs = le32_get(hdr->crcs);
	if (!lengths_ok(&h))
		return -EBADMSG;
	if (h.header_bytes > len_bytes) {
		ret->header_bytes = h.header_bytes;
		return -EAGAIN;
	}
	if (header_crc(hdr) != h.crc || !records_ok(hdr, &h))
		return -EBADMSG;
	*ret = h;
	return 0;
}

static void header_common(const struct wlog *log, const struct wlog_seg *seg, uint32_t prev_crc,
			  struct wlog_seg_hdr *hdr)
{
	hdr->magic = le64_make(WLOG_SEG_MAGIC);
	hdr->version = le32_make(WLOG_VERSION);
	memcpy(hdr->log_uuid, log->id.log_uuid.b, sizeof(hdr->log_uuid));
	hdr->log_epoch = le64_make(log->log_epoch);
	hdr->number = le64_make(seg->number);
	hdr->first_lsn = le64_make(seg->first_lsn);
	hdr->last_lsn = le64_make(seg->last_lsn);
	hdr->watermark_lsn = le64_make(log->durable_lsn);
	hdr->wall_ns = le64_make(seg->wall_ns);
	hdr->prev_crc = le32_make(prev_crc);
}

void header_encode(const struct wlog *log, const struct wlog_seg *seg, uint32_t prev_crc,
		   struct wlog_seg_hdr *hdr)
{
	uint8_t *at = (uint8_t *)(hdr + 1);
	const size_t rec_bytes = seg->records * sizeof(*seg->recs);

	memset(hdr, 0, seg->header_bytes);
	header_common(log, seg, prev_crc, hdr);
	hdr->header_bytes = le32_make(seg->header_bytes);
	hdr->data_bytes = le32_make(seg->data_bytes);
	hdr->records = le32_make(seg->records);
	hdr->crcs = le32_make(seg->crcs);
	memcpy(at, seg->recs, rec_bytes);
	memcpy(at + rec_bytes, seg->crc, seg->crcs * sizeof(*seg->crc));
	hdr->crc = le32_make(header_crc(hdr));
}

void pad_encode(const struct wlog *log, const struct wlog_seg *seg, uint32_t prev_crc,
		struct wlog_seg_hdr *hdr)
{
	memset(hdr, 0, WLOG_BLOCK);
	header_common(log, seg, prev_crc, hdr);
	hdr->flags = le32_make(WLOG_SEG_PAD);
	hdr->header_bytes = le32_make(WLOG_BLOCK);
	hdr->data_bytes = le32_make(seg->pad_bytes - WLOG_BLOCK);
	hdr->crc = le32_make(header_crc(hdr));
}

bool rec_verify(const struct wlog_seg *seg, uint32_t rec, uint32_t from, uint32_t to,
		const void *data)
{
	const uint8_t *at = data;
	uint32_t index = le32_get(seg->recs[rec].first_crc) + from / WLOG_CRC_SECTORS;

	while (from < to) {
		const uint32_t sectors = to - from < WLOG_CRC_SECTORS ? to - from :
									WLOG_CRC_SECTORS;
		const uint32_t bytes = sectors * DEV_SECTOR_BYTES;

		if (crc32c(0, at, bytes) != le32_get(seg->crc[index++]))
			return false;
		at += bytes;
		from += sectors;
	}
	return true;
}
