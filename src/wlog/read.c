/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads (L10): what is in a buffer comes from memory, what is in a segment on the device is read
 * and verified, what the log does not hold is the home's.
 *
 * A read is looked up once, as a whole, so that it sees one state of the map; its parts then
 * proceed independently. Each part pins its segment: the place on the device is not reused, and
 * the memory not recycled, until the part is done.
 *
 * Checksums are for 4 KiB chunks counted from a record's start, so a device read is widened to
 * whole chunks, into memory of its own if the caller's has no room for that. Memory is not
 * verified again: the checksum was taken from it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/mutant.h"
#include "wlog/wlog_impl.h"

/* Of one request: a part's length in bytes has 32 bits, with whole chunks around it. */
#define READ_MAX_BYTES (UINT64_C(1) << 30)

enum part_kind {
	PART_ZERO,
	PART_MEMORY,
	PART_DEVICE,
	PART_HOME,
};

struct part {
	enum part_kind kind;
	struct wlog_read *read;
	struct wlog_seg *seg;
	uint64_t off_bytes; /* in the request */
	uint32_t sectors;
	uint32_t data_sector;    /* in the segment: of the part */
	uint32_t from, to;       /* in the segment: widened to whole chunks */
	void *bounce;            /* NULL: straight into the caller's memory */
	struct dev_req req;      /* DEVICE */
	struct wlog_piece piece; /* HOME */
};

struct wlog_read {
	struct wlog *log;
	struct dev_req *req;
	int result;
	uint32_t outstanding; /* parts at a device or the home, and 1 until the copy is done */
	uint32_t nparts;
	struct part parts[];
};

/* Copies a part's bytes to where the request wants them. */
static void scatter(const struct dev_req *req, uint64_t off_bytes, const void *from, size_t bytes)
{
	const char *src = from;

	while (bytes) {
		const void *dst;
		const size_t got = iov_gather(req, off_bytes, bytes, &dst);

		if (src)
			memcpy((void *)(uintptr_t)dst, src, got);
		else
			memset((void *)(uintptr_t)dst, 0, got);
		src = src ? src + got : NULL;
		off_bytes += got;
		bytes -= got;
	}
}

/* Entered. */
static void part_done(struct wlog_read *read, int result)
{
	struct wlog *log = read->log;

	if (result && !read->result)
		read->result = result;
	if (--read->outstanding)
		return;
	log->reads--;
	log_complete(log, read->req, read->result);
	free(read);
}

/* Entered. */
static void part_unpin(struct wlog *log, struct wlog_seg *seg)
{
	seg->pins--;
	if (write_starving(log))
		log_advance(log);
}

static bool part_verify(const struct part *part, const void *data)
{
	const struct wlog_seg *seg = part->seg;
	uint32_t at = part->from;

	for (uint32_t r = seg_rec_at(seg, at); r < seg->records && at < part->to; r++) {
		const uint32_t start = le32_get(seg->recs[r].data_sector);
		uint32_t end = start + le32_get(seg->recs[r].sectors);

		if (seg->recs[r].type != WLOG_DATA)
			continue;
		if (end > part->to)
			end = part->to;
		if (!rec_verify(seg, r, at - start, end - start, data))
			return false;
		data = (const char *)data + (end - at) * DEV_SECTOR_BYTES;
		at = end;
	}
	return true;
}

static void device_done(struct dev_req *req)
{
	struct part *part = container_of(req, struct part, req);
	struct wlog_read *read = part->read;
	struct wlog *log = read->log;
	struct host *host = log->host;
	int rc = req->result;

	if (!rc && !part_verify(part, req->one.iov_base) && VARVE_STEP("wlog.read_verify")) {
		log_error("log: checksum mismatch in segment %llu, data sector %u, device offset "
			  "%llu: reading LBA %llu gives EIO",
			  (unsigned long long)part->seg->number, part->from,
			  (unsigned long long)req->off_bytes,
			  (unsigned long long)((read->req->off_bytes + part->off_bytes) >>
					       DEV_SECTOR_SHIFT));
		rc = -EIO;
	}
	if (!rc && part->bounce)
		scatter(read->req, part->off_bytes,
			(char *)part->bounce + (part->data_sector - part->from) * DEV_SECTOR_BYTES,
			part->sectors * DEV_SECTOR_BYTES);
	free(part->bounce);
	host_enter(host);
	part_unpin(log, part->seg);
	part_done(read, rc);
	host_leave(host);
}

void wlog_piece_done(struct wlog_piece *piece, int result)
{
	struct part *part = container_of(piece, struct part, piece);
	struct wlog_read *read = part->read;
	struct host *host = read->log->host;

	if (!result && part->bounce)
		scatter(read->req, part->off_bytes, part->bounce,
			part->sectors * DEV_SECTOR_BYTES);
	free(part->bounce);
	host_enter(host);
	part_done(read, result);
	host_leave(host);
}

/* The caller's memory for the part if it is in one piece, else memory of our own. */
static void *part_target(struct part *part, uint32_t bytes, bool widened)
{
	const void *direct;

	if (!widened && iov_gather(part->read->req, part->off_bytes, bytes, &direct) == bytes)
		return (void *)(uintptr_t)direct;
	if (posix_memalign(&part->bounce, WLOG_BLOCK, bytes))
		part->bounce = NULL;
	return part->bounce;
}

static int start_device(struct wlog *log, struct part *part)
{
	const struct wlog_seg *seg = part->seg;
	const uint32_t end = part->data_sector + part->sectors;
	const uint32_t first = seg_rec_at(seg, part->data_sector);
	const uint32_t last = seg_rec_at(seg, end - 1);
	const uint32_t first_at = le32_get(seg->recs[first].data_sector);
	const uint32_t last_at = le32_get(seg->recs[last].data_sector);
	const uint32_t last_end = last_at + le32_get(seg->recs[last].sectors);
	void *buf;

	part->from = part->data_sector - (part->data_sector - first_at) % WLOG_CRC_SECTORS;
	part->to = last_at + (end - last_at + WLOG_CRC_SECTORS - 1) / WLOG_CRC_SECTORS *
				     WLOG_CRC_SECTORS;
	if (part->to > last_end)
		part->to = last_end;
	buf = part_target(part, (part->to - part->from) * DEV_SECTOR_BYTES,
			  part->from != part->data_sector || part->to != end);
	if (!buf)
		return -ENOMEM;
	part->seg->pins++;
	part->req.op = DEV_READ;
	part->req.fua = false;
	part->req.off_bytes = seg_dev_off(log, seg) + (uint64_t)part->from * DEV_SECTOR_BYTES;
	dev_req_buf(&part->req, buf, (part->to - part->from) * DEV_SECTOR_BYTES);
	part->req.done = device_done;
	part->read->outstanding++;
	log->st.read_hits_device += part->sectors;
	dev_submit(log->dev, &part->req);
	return 0;
}

static int start_home(struct wlog *log, struct part *part, uint64_t lba)
{
	part->piece.lba = lba;
	part->piece.sectors = part->sectors;
	part->piece.read = part->read;
	part->piece.result = 0;
	part->piece.buf = part_target(part, part->sectors * DEV_SECTOR_BYTES, false);
	if (!part->piece.buf)
		return -ENOMEM;
	part->read->outstanding++;
	log->st.read_misses += part->sectors;
	log->home->ops->read(log->home, &part->piece);
	return 0;
}

static int start_part(struct wlog *log, struct part *part, const struct extent *ext)
{
	if (ext->value == EXTMAP_HOLE) {
		part->kind = PART_HOME;
		return start_home(log, part, ext->lba);
	}
	if (ext->value & EXTMAP_CONST) {
		part->kind = PART_ZERO;
		log->st.read_hits_memory += part->sectors;
		return 0;
	}
	part->seg = seg_of_value(log, ext->value);
	part->data_sector = (uint32_t)(ext->value & ((1u << WLOG_OFF_BITS) - 1));
	if (!part->seg->buf) {
		part->kind = PART_DEVICE;
		return start_device(log, part);
	}
	part->kind = PART_MEMORY;
	part->seg->pins++;
	seg_mem_pin(log, part->seg, false);
	log->st.read_hits_memory += part->sectors;
	return 0;
}

/* All pieces of the range, in memory that the caller frees if it is not `local`. */
static int look_up(const struct wlog *log, uint64_t lba, uint64_t sectors, struct extent *local,
		   unsigned int max, struct extent **ret, unsigned int *ret_count)
{
	unsigned int count = extmap_lookup_range(&log->map, lba, sectors, local, max);
	struct extent *ext = local;

	while (ext[count - 1].lba + ext[count - 1].sectors < lba + sectors) {
		const uint64_t next = ext[count - 1].lba + ext[count - 1].sectors;
		struct extent *more = malloc(2 * max * sizeof(*more));

		if (more)
			memcpy(more, ext, count * sizeof(*more));
		if (ext != local)
			free(ext);
		if (!more)
			return -ENOMEM;
		ext = more;
		max *= 2;
		count += extmap_lookup_range(&log->map, next, lba + sectors - next, ext + count,
					     max - count);
	}
	*ret = ext;
	*ret_count = count;
	return 0;
}

static void read_count(struct wlog *log, const struct wlog_read *read)
{
	bool home = false, device = false, hit = false;

	for (uint32_t i = 0; i < read->nparts; i++) {
		home |= read->parts[i].kind == PART_HOME;
		hit |= read->parts[i].kind != PART_HOME;
		device |= read->parts[i].kind == PART_DEVICE;
	}
	log_count_io(log, read->req,
		     (hit ? WLOG_IO_HIT : 0) | (hit && !device ? WLOG_IO_BUFFER : 0), !home);
}

static struct wlog_read *read_new(struct wlog *log, struct dev_req *req, unsigned int count)
{
	struct wlog_read *read = malloc(sizeof(*read) + count * sizeof(read->parts[0]));

	if (!read)
		return NULL;
	read->log = log;
	read->req = req;
	read->result = 0;
	read->outstanding = 1;
	read->nparts = count;
	req->priv.ptr[0] = read;
	log->reads++;
	return read;
}

void wlog_read_begin(struct wlog *log, struct dev_req *req)
{
	const uint64_t lba = req->off_bytes >> DEV_SECTOR_SHIFT;
	const uint64_t sectors = req->len_bytes >> DEV_SECTOR_SHIFT;
	struct extent local[8], *ext = local;
	struct wlog_read *read = NULL;
	unsigned int count = 0;
	int rc = 0;

	req->priv.ptr[0] = NULL;
	if ((req->off_bytes | req->len_bytes) % DEV_SECTOR_BYTES || !sectors ||
	    req->len_bytes > READ_MAX_BYTES ||
	    lba >= log->home->sectors || sectors > log->home->sectors - lba)
		rc = -EINVAL;
	if (!rc)
		rc = look_up(log, lba, sectors, local, 8, &ext, &count);
	if (!rc)
		read = read_new(log, req, count);
	/* An error is kept for wlog_read_copy(): the request must not be done before that. */
	req->result = rc ? rc : read ? 0 : -ENOMEM;
	for (unsigned int i = 0; read && i < count; i++) {
		struct part *part = &read->parts[i];

		part->read = read;
		part->seg = NULL;
		part->bounce = NULL;
		part->off_bytes = (ext[i].lba - lba) * DEV_SECTOR_BYTES;
		part->sectors = (uint32_t)ext[i].sectors;
		rc = start_part(log, part, &ext[i]);
		if (rc) {
			read->result = rc;
			read->nparts = i;
			break;
		}
	}
	if (read && !relog_owns(req))
		read_count(log, read);
	if (ext != local)
		free(ext);
}

void wlog_read_copy(struct wlog *log, struct dev_req *req)
{
	struct wlog_read *read = req->priv.ptr[0];

	for (uint32_t i = 0; read && i < read->nparts; i++) {
		struct part *part = &read->parts[i];
		const uint32_t bytes = part->sectors * DEV_SECTOR_BYTES;

		if (part->kind == PART_ZERO)
			scatter(req, part->off_bytes, NULL, bytes);
		else if (part->kind == PART_MEMORY)
			scatter(req, part->off_bytes,
				(char *)seg_data(part->seg) +
					part->data_sector * DEV_SECTOR_BYTES,
				bytes);
	}
	host_enter(log->host);
	for (uint32_t i = 0; read && i < read->nparts; i++) {
		if (read->parts[i].kind != PART_MEMORY)
			continue;
		seg_mem_unpin(log, read->parts[i].seg, false);
		part_unpin(log, read->parts[i].seg);
	}
	if (read)
		part_done(read, 0);
	else
		log_complete(log, req, req->result);
	host_leave(log->host);
}
