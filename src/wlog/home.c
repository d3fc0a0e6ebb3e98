/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the home takes from the log, and what it may leave (L7).
 *
 * 1. Only what is durable is offered: what the home holds is never newer than what a crash leaves
 *    of the log.
 * 2. A pinned segment keeps its place on the device; its data stays in memory only while the home
 *    has no more than half of the buffers.
 * 3. A copy is superseded by a newer one when that is durable with the whole write it belongs to.
 *
 * Locks: everything is entered, but for reading a pinned segment's records and checksums.
 */
#include <string.h>

#include "base/mutant.h"
#include "wlog/wlog_impl.h"

struct wlog_seg *wlog_next_durable(struct wlog *log, uint64_t after)
{
	const uint64_t upto = VARVE_STEP("wlog.write_ahead") ? log->durable_seg : log->sealed_seg;

	if (after < log->destaged_seg)
		after = log->destaged_seg;
	return after < upto ? seg_get(log, after + 1) : NULL;
}

/*
 * The home may keep half of the buffers; beyond that it gets the place on the device only, so that
 * a home that does not answer cannot take the memory that writers need. What several of its pins
 * have seen in memory stays there until the last of them is gone.
 */
void wlog_seg_pin(struct wlog *log, struct wlog_seg *seg)
{
	seg->pins++;
	seg->home_pins++;
	if (seg->buf && !seg->home_mem_pins &&
	    (seg->buf->home_pins || log->bufs_home < log->opt.buffers / 2))
		seg_mem_pin(log, seg, true);
}

void wlog_seg_unpin(struct wlog *log, struct wlog_seg *seg)
{
	assert(seg->pins && seg->home_pins && seg->home_mem_pins <= 1);
	if (!--seg->home_pins && seg->home_mem_pins)
		seg_mem_unpin(log, seg, true);
	seg->pins--;
	if (write_starving(log))
		log_advance(log);
}

void wlog_seg_view(const struct wlog_seg *seg, struct wlog_seg_view *ret)
{
	ret->number = seg->number;
	ret->first_lsn = seg->first_lsn;
	ret->last_lsn = seg->last_lsn;
	ret->wall_ns = seg->wall_ns;
	ret->records = seg->records;
	ret->data_sectors = seg->data_sectors;
	ret->ends_whole = seg_ends_whole(seg);
	ret->data = seg->home_mem_pins ? seg_data(seg) : NULL;
}

void wlog_seg_rec(const struct wlog_seg *seg, uint32_t index, struct wlog_rec *ret)
{
	const struct wlog_rec_disk *rec = &seg->recs[index];

	assert(index < seg->records);
	ret->lsn = seg->first_lsn + le32_get(rec->lsn_delta);
	ret->lba = le48_get(rec->lba);
	ret->sectors = le32_get(rec->sectors);
	ret->type = rec->type;
	ret->continues = rec->flags & WLOG_REC_CONTINUES;
	ret->skip = rec->flags & WLOG_REC_VOID;
	ret->data_sector = le32_get(rec->data_sector);
	ret->first_crc = le32_get(rec->first_crc);
}

uint32_t wlog_seg_crc(const struct wlog_seg *seg, uint32_t index)
{
	assert(index < seg->crcs);
	return le32_get(seg->crc[index]);
}

void wlog_seg_load(struct wlog *log, struct wlog_seg *seg, struct dev_req *req, void *buf)
{
	assert(seg->pins && seg->data_bytes);
	req->op = DEV_READ;
	req->fua = false;
	req->off_bytes = seg_dev_off(log, seg);
	dev_req_buf(req, buf, seg->data_bytes);
	dev_submit(log->dev, req);
}

/* ---- what the home keeps in the superblock */

const void *wlog_home_state(const struct wlog *log, uint32_t *ret_bytes)
{
	*ret_bytes = log->home_bytes;
	return log->home_state;
}

void wlog_set_home_state(struct wlog *log, const void *state, uint32_t bytes)
{
	assert(bytes <= WLOG_HOME_BYTES);
	memmove(log->home_state, state, bytes);
	memset(log->home_state + bytes, 0, WLOG_HOME_BYTES - bytes);
	log->home_bytes = bytes;
}

/* ---- looking up */

uint64_t wlog_extent(struct wlog *log, uint64_t lba, uint64_t end, int *ret_type)
{
	struct extmap_iter it;
	struct extent ext;

	*ret_type = 0;
	extmap_iter_init(&it, &log->map, lba);
	for (uint64_t at = lba; at < end;) {
		int type;

		if (!extmap_iter_next(&it, &ext) || ext.lba >= end)
			return *ret_type ? at : end;
		if (ext.lba > at)
			return *ret_type ? at : ext.lba;
		type = ext.value & EXTMAP_CONST ? WLOG_ZERO : WLOG_DATA;
		if (*ret_type && type != *ret_type)
			return at;
		*ret_type = type;
		at = ext.lba + ext.sectors < end ? ext.lba + ext.sectors : end;
		if (at == end)
			return end;
	}
	return end;
}

/*
 * A newer copy that only memory holds may vanish in a crash, and with the old one skipped and its
 * segment destaged nothing would be left of the sector but what the home had before: the newer one
 * counts only when it is durable (L7).
 */
static bool superseded(const struct wlog *log, uint64_t value, uint64_t number)
{
	const uint64_t seg = value_seg(value);

	if (seg <= number)
		return false;
	if (seg > log->durable_seg)
		return !VARVE_STEP("wlog.superseded_durable");
	/* The beginning of a write whose end is not durable is dropped by replay. */
	return seg <= log->whole_seg || !VARVE_STEP("wlog.superseded_whole");
}

uint64_t wlog_superseded(struct wlog *log, uint64_t lba, uint64_t end, uint64_t number,
			 bool *ret)
{
	struct extmap_iter it;
	struct extent ext;
	uint64_t at = lba;

	*ret = false;
	extmap_iter_init(&it, &log->map, lba);
	while (at < end) {
		/* What the map does not name at all is nowhere newer. */
		const bool more = extmap_iter_next(&it, &ext) && ext.lba < end;
		const bool newer = more && ext.lba <= at && superseded(log, ext.value, number);

		if (at == lba)
			*ret = newer;
		else if (newer != *ret)
			return at;
		if (more && ext.lba > at) {
			/* A hole before the extent, which is looked at next. */
			at = ext.lba;
			if (superseded(log, ext.value, number) != *ret)
				return at;
		}
		at = more && ext.lba + ext.sectors < end ? ext.lba + ext.sectors : end;
	}
	return end;
}
