/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segments in memory, and the buffers that hold their data.
 *
 * Live segments stand in an array indexed by number, so that a map value leads to its segment in
 * one step. The data of the youngest ones is in buffers, which are carved into 4 KiB pieces one
 * behind the other: a hundred lone flushes share one buffer, a stream fills one for each segment.
 *
 * 1. At most one segment is open. Its place in the ring is chosen when it closes, because only
 *    then its length is known; everything before it has its place by then.
 * 2. Segments are sealed in order of their numbers, since each header holds the CRC of the one
 *    before; a segment is ready when all its reserved records are published.
 * 3. Once sealed, a segment's records and checksums never change: whoever pins it may read them
 *    without having entered.
 * 4. Free space never falls below what DISCARD, ZERO and the home's own needs may use (L9).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wlog/wlog_impl.h"

/* How soon a seal that found no memory for its header is tried again. */
#define SEAL_RETRY_NS UINT64_C(10000000)

struct wlog_seg *seg_get(const struct wlog *log, uint64_t number)
{
	assert(number >= log->tail_seg && number < log->next_seg);
	return log->segs[number & (log->segs_cap - 1)];
}

uint64_t rec_value(uint64_t number, const struct wlog_rec_disk *rec)
{
	if (rec->type == WLOG_DATA)
		return number << WLOG_OFF_BITS | le32_get(rec->data_sector);
	return EXTMAP_CONST | number << WLOG_TAG_BITS | rec->type;
}

struct wlog_seg *seg_of_value(const struct wlog *log, uint64_t value)
{
	return seg_get(log, value_seg(value));
}

uint64_t seg_dev_off(const struct wlog *log, const struct wlog_seg *seg)
{
	return log->ring_off + seg->pos % log->ring_bytes + seg->header_bytes;
}

void *seg_data(const struct wlog_seg *seg)
{
	return seg->buf ? (char *)seg->buf->mem + seg->buf_off_bytes : NULL;
}

/* The DATA record that holds the given sector of the segment's data. */
uint32_t seg_rec_at(const struct wlog_seg *seg, uint32_t data_sector)
{
	uint32_t low = 0, high = seg->records;

	/* The last record whose running sum is not beyond: only DATA records advance the sum. */
	while (high - low > 1) {
		const uint32_t mid = low + (high - low) / 2;

		if (le32_get(seg->recs[mid].data_sector) <= data_sector)
			low = mid;
		else
			high = mid;
	}
	assert(seg->recs[low].type == WLOG_DATA);
	return low;
}

static bool seg_io_new(struct wlog_seg *seg)
{
	struct seg_io *io = calloc(1, sizeof(*io));

	seg->io = io;
	if (!io)
		return false;
	io->seg = seg;
	if (posix_memalign(&io->hdr, WLOG_BLOCK, seg->header_bytes))
		io->hdr = NULL;
	if (seg->pad_bytes && posix_memalign(&io->pad_hdr, WLOG_BLOCK, WLOG_BLOCK))
		io->pad_hdr = NULL;
	if (io->hdr && (io->pad_hdr || !seg->pad_bytes))
		return true;
	seg_io_free(seg);
	return false;
}

void seg_io_free(struct wlog_seg *seg)
{
	if (!seg->io)
		return;
	free(seg->io->hdr);
	free(seg->io->pad_hdr);
	free(seg->io);
	seg->io = NULL;
}

struct wlog_seg *seg_new(struct wlog *log, uint32_t records, uint32_t crcs)
{
	struct wlog_seg *seg = calloc(1, sizeof(*seg));

	if (!seg)
		return NULL;
	seg->recs = malloc(records * sizeof(*seg->recs) + crcs * sizeof(*seg->crc));
	if (!seg->recs) {
		free(seg);
		return NULL;
	}
	seg->crc = (le32 *)(void *)(seg->recs + records);
	seg->log = log;
	list_init(&seg->buf_link);
	return seg;
}

void seg_free(struct wlog_seg *seg)
{
	if (!seg)
		return;
	list_del(&seg->buf_link);
	seg_io_free(seg);
	free(seg->recs);
	free(seg);
}

/* Gives the segment the next number. */
int seg_append(struct wlog *log, struct wlog_seg *seg)
{
	const uint64_t live = log->next_seg - log->tail_seg;

	if (live == log->segs_cap) {
		const uint64_t cap = log->segs_cap ? log->segs_cap * 2 : 64;
		struct wlog_seg **segs = calloc(cap, sizeof(*segs));

		if (!segs)
			return -ENOMEM;
		for (uint64_t n = log->tail_seg; n < log->next_seg; n++)
			segs[n & (cap - 1)] = seg_get(log, n);
		free(log->segs);
		log->segs = segs;
		log->segs_cap = cap;
	}
	seg->number = log->next_seg++;
	log->segs[seg->number & (log->segs_cap - 1)] = seg;
	return 0;
}

static void buf_recycle(struct wlog_buf *buf)
{
	struct list_head *link;

	while ((link = list_pop(&buf->segs)))
		list_entry(link, struct wlog_seg, buf_link)->buf = NULL;
	buf->used_bytes = 0;
}

/* A buffer with room: never used, free, or the oldest that nobody needs in memory any more. */
static struct wlog_buf *buf_take(struct wlog *log)
{
	struct wlog_buf *buf = NULL, *old;

	if (!list_empty(&log->bufs_free)) {
		buf = list_first_entry(&log->bufs_free, struct wlog_buf, link);
	} else {
		list_for_each_entry(old, &log->bufs_used, struct wlog_buf, link) {
			if (!old->unwritten && !old->pins) {
				buf = old;
				break;
			}
		}
	}
	if (!buf)
		return NULL;
	buf_recycle(buf);
	list_del(&buf->link);
	list_add_tail(&buf->link, &log->bufs_used);
	return buf;
}

void seg_mem_pin(struct wlog *log, struct wlog_seg *seg, bool home)
{
	seg->mem_pins++;
	seg->buf->pins++;
	if (home) {
		seg->home_mem_pins++;
		if (!seg->buf->home_pins++)
			log->bufs_home++;
	}
}

void seg_mem_unpin(struct wlog *log, struct wlog_seg *seg, bool home)
{
	assert(seg->mem_pins && seg->buf);
	seg->mem_pins--;
	seg->buf->pins--;
	if (home) {
		seg->home_mem_pins--;
		if (!--seg->buf->home_pins)
			log->bufs_home--;
	}
}

uint32_t seg_room_sectors(const struct wlog *log, const struct wlog_seg *seg)
{
	return (log->opt.segment_bytes - seg->buf_off_bytes) / DEV_SECTOR_BYTES -
	       seg->data_sectors;
}

/* The buffer for the next segment: with room for data_sectors, or with all the room there is. */
static bool buf_open(struct wlog *log, uint64_t data_sectors)
{
	uint64_t bytes = data_sectors * DEV_SECTOR_BYTES;

	if (bytes > log->opt.segment_bytes)
		bytes = log->opt.segment_bytes;
	if (log->open_buf && log->opt.segment_bytes - log->open_buf->used_bytes < bytes)
		log->open_buf = NULL;
	if (!log->open_buf)
		log->open_buf = buf_take(log);
	return log->open_buf;
}

/*
 * Whether there is space to open a segment for a write of so many sectors. All of a long write must
 * fit at once: once begun it is never short of space, so that it need not be given up half way. On
 * top of that comes a pad, and the two segments that are left to what has no data: that only
 * frees space, and may go deeper (L9). The pad may lie behind a write that has begun.
 */
bool seg_space(const struct wlog *log, uint64_t data_sectors, bool begun)
{
	const uint64_t per_seg = log->opt.segment_bytes / DEV_SECTOR_BYTES;
	const uint64_t segs = (data_sectors + per_seg - 1) / per_seg;

	if (begun)
		return space_free_bytes(log) >= log->max_total_bytes * (segs + 1);
	return space_free_bytes(log) >= log->max_total_bytes * (segs ? segs + 3 : 2);
}

/*
 * Opens the next segment, or returns NULL when there is no space, no buffer or no memory for it.
 */
struct wlog_seg *seg_open(struct wlog *log, uint64_t data_sectors, bool begun)
{
	struct wlog_seg *seg;

	assert(!log->open);
	if (!seg_space(log, data_sectors, begun) || !buf_open(log, data_sectors))
		return NULL;
	seg = seg_new(log, log->rec_max, log->rec_max);
	if (!seg)
		return NULL;
	if (seg_append(log, seg)) {
		seg_free(seg);
		return NULL;
	}
	seg->state = SEG_OPEN;
	seg->last_resort = !seg_space(log, 1, false);
	seg->first_lsn = log->next_lsn;
	seg->buf = log->open_buf;
	seg->buf_off_bytes = seg->buf->used_bytes;
	seg->buf->unwritten++;
	list_add_tail(&seg->buf_link, &seg->buf->segs);
	log->open = seg;
	return seg;
}

/* Ends the open segment: no more records; gives it its place in the ring. */
void seg_close(struct wlog *log)
{
	struct wlog_seg *seg = log->open;
	const uint64_t to_end = log->ring_bytes - log->head_pos % log->ring_bytes;
	uint64_t total;

	assert(seg && seg->records);
	seg->header_bytes = header_bytes_for(seg->records, seg->crcs);
	seg->data_bytes = (seg->data_sectors * DEV_SECTOR_BYTES + WLOG_BLOCK - 1) / WLOG_BLOCK *
			  WLOG_BLOCK;
	memset((char *)seg_data(seg) + seg->data_sectors * DEV_SECTOR_BYTES, 0,
	       seg->data_bytes - seg->data_sectors * DEV_SECTOR_BYTES);
	total = (uint64_t)seg->header_bytes + seg->data_bytes;
	seg->pad_pos = log->head_pos;
	if (total > to_end) {
		seg->pad_bytes = (uint32_t)to_end;
		log->head_pos += to_end;
	}
	seg->pos = log->head_pos;
	log->head_pos += total;
	seg->buf->used_bytes += seg->data_bytes;
	if (log->opt.segment_bytes - seg->buf->used_bytes < WLOG_BLOCK)
		log->open_buf = NULL;
	seg->state = SEG_CLOSED;
	log->closed_seg = seg->number;
	log->open = NULL;
}

/* Puts the checksums right behind the records and gives the rest of the memory back. */
static void seg_shrink(struct wlog_seg *seg)
{
	const size_t rec_bytes = seg->records * sizeof(*seg->recs);
	void *mem;

	memmove(seg->recs + seg->records, seg->crc, seg->crcs * sizeof(*seg->crc));
	mem = realloc(seg->recs, rec_bytes + seg->crcs * sizeof(*seg->crc));
	if (mem)
		seg->recs = mem;
	seg->crc = (le32 *)(void *)(seg->recs + seg->records);
}

static bool seg_seal(struct wlog *log, struct wlog_seg *seg)
{
	if (!seg_io_new(seg))
		return false;
	seg_shrink(seg);
	seg->wall_ns = host_wall_ns(log->host);
	seg->prev_crc = log->last_crc;
	if (seg->pad_bytes) {
		pad_encode(log, seg, log->last_crc, seg->io->pad_hdr);
		log->last_crc = le32_get(((struct wlog_seg_hdr *)seg->io->pad_hdr)->crc);
	}
	header_encode(log, seg, log->last_crc, seg->io->hdr);
	log->last_crc = le32_get(((struct wlog_seg_hdr *)seg->io->hdr)->crc);
	seg->hdr_crc = log->last_crc;
	seg->state = SEG_SEALED;
	log->sealed_seg = seg->number;
	log->st.seals++;
	if (seg->data_bytes < log->opt.segment_bytes)
		log->st.seals_partial++;
	return true;
}

/* Seals, in order, what is closed and published. */
void seg_seal_ready(struct wlog *log)
{
	while (log->sealed_seg < log->closed_seg) {
		struct wlog_seg *seg = seg_get(log, log->sealed_seg + 1);

		if (seg->unpublished)
			break;
		if (!seg_seal(log, seg)) {
			host_wake_at(log->host, host_now_ns(log->host) + SEAL_RETRY_NS);
			break;
		}
	}
}
