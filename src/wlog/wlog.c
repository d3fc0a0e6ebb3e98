/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a log: format, open for looking, start for writing, stop, close; status.
 * wlog_impl.h says which file does what.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hugemem.h"
#include "base/log.h"
#include "base/mutant.h"
#include "wlog/wlog_impl.h"

#define SEGMENT_MIN_BYTES WLOG_BLOCK
#define SEGMENT_MAX_BYTES (8u << 20)
#define BUFFERS_MIN 4u
/* Segments are so short that the ring holds this many of the largest ones... */
#define RING_SEGMENTS 16u
/*
 * ...of which a write of several records must leave this many: nothing of it can be destaged before
 * its end is there. Four are what seg_open() keeps back, two its first and last segment, which may
 * be shared with others, one goes to a pad.
 */
#define RING_SPARE_SEGMENTS 7u
#define RECORDS_MIN 64u
/* How often a log that seems damaged is looked at again. */
#define LOOKS 8
/*
 * Recovery skips so many LSNs: torn segments may have used some that can no longer be read. What
 * is not durable is bounded (commit.c), and has fewer records of 24 bytes than that.
 */
#define LSN_SKIP (UINT64_C(1) << 24)

void wlog_options_default(struct wlog_options *opt)
{
	*opt = (struct wlog_options){
		.segment_bytes = 1u << 20,
		.buffers = 64,
		.barrier_deadline_us = 0,
		.writes_in_flight = 8,
		.full_timeout_ns = 0,
	};
}

void log_complete(struct wlog *log, struct dev_req *req, int result)
{
	req->result = result;
	list_add_tail(&req->link, &log->host->ready);
}

/* Ends writing for good: the device can no longer be relied on. Reads go on. */
void log_fail(struct wlog *log, int error, const char *what)
{
	if (log->failed)
		return;
	log->failed = error;
	log_error("log: %s failed: %s; the volume takes no more writes until it is opened again",
		  what, strerror(-error));
}

/* Frees, admits, commits: in this order, each may make the next possible. */
void log_advance(struct wlog *log)
{
	if (!log->started)
		return;
	space_advance(log);
	relog_step(log);
	write_admit(log);
	commit_run(log);
}

/* The longest piece of the request's memory at off_bytes, len_bytes at most. */
size_t iov_gather(const struct dev_req *req, uint64_t off_bytes, size_t len_bytes,
		  const void **ret)
{
	const struct iovec *iov = req->iov;

	while (off_bytes >= iov->iov_len) {
		off_bytes -= iov->iov_len;
		iov++;
	}
	*ret = (const char *)iov->iov_base + off_bytes;
	return len_bytes < iov->iov_len - off_bytes ? len_bytes : iov->iov_len - off_bytes;
}

/* P6: whatever has data where a log, a file system or a partition table begins is not ours. */
static int check_blank(struct dev *dev, struct err *err)
{
	uint8_t *head;
	int rc;

	if (posix_memalign((void **)&head, WLOG_BLOCK, WLOG_RING_OFF))
		return -ENOMEM;
	rc = dev_pread(dev, head, WLOG_RING_OFF, 0);
	if (rc)
		err_set(err, rc, "cannot read the device");
	/* All bytes equal the first, and that is zero. */
	else if (head[0] || memcmp(head, head + 1, WLOG_RING_OFF - 1) != 0)
		rc = err_set(err, -EEXIST,
			     "the device is not blank and holds no log; formatting it would lose "
			     "what it holds");
	free(head);
	return rc;
}

/* What is there already; its superblock if it is a log. */
static int may_format(struct dev *dev, bool force, struct wlog_sb *ret, uint32_t *ret_slot,
		      struct err *err)
{
	const int rc = sb_read(dev, ret, ret_slot, NULL);

	if (rc)
		memset(ret, 0, sizeof(*ret));
	if (rc && rc != -ENOENT && rc != -EBADMSG && rc != -ENOTSUP)
		return err_set(err, rc, "cannot read the device");
	if (force)
		return 0;
	if (rc == -ENOENT)
		return check_blank(dev, err);
	if (rc)
		return err_set(err, -EEXIST, "the device holds a damaged or newer log");
	return err_set(err, -EEXIST,
		       "the device holds a log already%s; formatting it would lose that",
		       le32_get(ret->state) & WLOG_STATE_CLEAN ? "" : ", which is in use");
}

int wlog_format(struct dev *dev, const struct wlog_format_options *opt, struct wlog_identity *ret,
		struct err *err)
{
	struct wlog log = { .dev = dev, .id = opt->id, .log_epoch = 1, .cut_seg = 1 };
	struct wlog_sb old;
	uint32_t slot = 0;
	int rc;

	if (dev->size_bytes < WLOG_RING_OFF + WLOG_RING_MIN)
		return err_set(err, -EINVAL, "a cache needs at least %u bytes, this has %llu",
			       WLOG_RING_OFF + WLOG_RING_MIN, (unsigned long long)dev->size_bytes);
	rc = may_format(dev, opt->force, &old, &slot, err);
	if (rc)
		return rc;
	if (uuid_is_zero(&log.id.log_uuid))
		log.id.log_uuid = uuid_new();
	log.sb_seq = le64_get(old.sb_seq);
	log.sb_slot = slot;
	log.device_bytes = dev->size_bytes;
	log.ring_off = WLOG_RING_OFF;
	log.ring_bytes = (dev->size_bytes - WLOG_RING_OFF) / WLOG_BLOCK * WLOG_BLOCK;
	/* A random start: what an earlier log left behind can never continue this one (L1). */
	log.next_lsn = opt->first_lsn ? opt->first_lsn : (opt->random & 0xffffffffffu) + 1;
	log.tail = (struct tail){ 1, 0, log.next_lsn - 1, (uint32_t)(opt->random >> 32) };
	log.durable_lsn = log.destaged_lsn = log.next_lsn - 1;
	if (posix_memalign((void **)&log.sb_mem, WLOG_BLOCK, WLOG_BLOCK))
		return -ENOMEM;
	rc = sb_write_sync(&log, true, true, err);
	free(log.sb_mem);
	if (!rc && ret)
		*ret = log.id;
	return rc;
}

int wlog_probe(struct dev *dev, struct wlog_info *ret, struct err *err)
{
	struct wlog_sb sb;
	uint32_t slot;
	const int rc = sb_read(dev, &sb, &slot, err);

	if (rc)
		return rc;
	memset(ret, 0, sizeof(*ret));
	memcpy(ret->id.log_uuid.b, sb.log_uuid, sizeof(sb.log_uuid));
	memcpy(ret->id.volume_uuid.b, sb.volume_uuid, sizeof(sb.volume_uuid));
	ret->id.attach_epoch = le64_get(sb.attach_epoch);
	ret->log_epoch = le64_get(sb.log_epoch);
	ret->sb_seq = le64_get(sb.sb_seq);
	ret->size_bytes = le64_get(sb.device_bytes);
	ret->ring_bytes = le64_get(sb.ring_bytes);
	ret->tail_lsn = le64_get(sb.tail_lsn);
	ret->watermark_lsn = le64_get(sb.watermark_lsn);
	ret->destaged_lsn = le64_get(sb.destaged_lsn);
	ret->bytes_written = le64_get(sb.life_bytes);
	ret->sealed_wall_ns = le64_get(sb.wall_ns);
	ret->home_bytes = le32_get(sb.home_bytes);
	memcpy(ret->home, sb.home, ret->home_bytes);
	ret->clean = le32_get(sb.state) & WLOG_STATE_CLEAN;
	return 0;
}

static uint64_t total_max(uint32_t segment_bytes, uint32_t *ret_records)
{
	uint32_t records = segment_bytes / DEV_SECTOR_BYTES;

	if (records < RECORDS_MIN)
		records = RECORDS_MIN;
	*ret_records = records;
	return (uint64_t)segment_bytes + header_bytes_for(records, records);
}

/* Segments as long as asked, but so that the ring holds RING_SEGMENTS of them. */
static void set_limits(struct wlog *log)
{
	uint32_t bytes = log->opt.segment_bytes / WLOG_BLOCK * WLOG_BLOCK;
	uint64_t max_io;

	if (bytes < SEGMENT_MIN_BYTES)
		bytes = SEGMENT_MIN_BYTES;
	if (bytes > SEGMENT_MAX_BYTES)
		bytes = SEGMENT_MAX_BYTES;
	while (bytes > SEGMENT_MIN_BYTES &&
	       total_max(bytes, &log->rec_max) * RING_SEGMENTS > log->ring_bytes)
		bytes = bytes / 2 / WLOG_BLOCK * WLOG_BLOCK;
	log->opt.segment_bytes = bytes;
	log->max_total_bytes = total_max(bytes, &log->rec_max);
	if (log->opt.buffers < BUFFERS_MIN)
		log->opt.buffers = BUFFERS_MIN;
	if (!log->opt.writes_in_flight)
		log->opt.writes_in_flight = 1;
	max_io = (log->ring_bytes / log->max_total_bytes - RING_SPARE_SEGMENTS) * bytes;
	if (max_io > WLOG_MAX_IO_BYTES)
		max_io = WLOG_MAX_IO_BYTES;
	log->max_io_sectors = (uint32_t)(max_io / WLOG_BLOCK * WLOG_BLOCK / DEV_SECTOR_BYTES);
}

uint32_t wlog_max_io_bytes(const struct wlog *log)
{
	return log->max_io_sectors * DEV_SECTOR_BYTES;
}

static struct wlog *log_new(struct host *host, struct dev *dev, struct wlog_home *home,
			    const struct wlog_options *opt)
{
	struct wlog *log = calloc(1, sizeof(*log));

	if (!log)
		return NULL;
	log->host = host;
	log->dev = dev;
	log->home = home;
	log->opt = *opt;
	extmap_init(&log->map, NULL, 0);
	list_init(&log->publishing);
	list_init(&log->waiting);
	list_init(&log->waiting_free);
	list_init(&log->barriers);
	list_init(&log->relogs);
	list_init(&log->bufs_free);
	list_init(&log->bufs_used);
	log->forget_work.run = space_forget_run;
	return log;
}

/* Buffers are filled in turn, far more than the TLB reaches: huge pages, unless there are few. */
static void *buf_mem_new(struct wlog *log)
{
	size_t bytes = (size_t)log->opt.buffers * log->opt.segment_bytes;

	if (bytes < HUGEMEM_PAGE)
		return aligned_alloc(WLOG_BLOCK, bytes);
	log->buf_mem_bytes = (bytes + HUGEMEM_PAGE - 1) / HUGEMEM_PAGE * HUGEMEM_PAGE;
	return hugemem_alloc(log->buf_mem_bytes);
}

static void buf_mem_free(struct wlog *log)
{
	if (log->buf_mem_bytes)
		hugemem_free(log->buf_mem, log->buf_mem_bytes);
	else
		free(log->buf_mem);
}

static int bufs_new(struct wlog *log)
{
	log->bufs = calloc(log->opt.buffers, sizeof(*log->bufs));
	log->buf_mem = buf_mem_new(log);
	if (!log->bufs || !log->buf_mem ||
	    posix_memalign((void **)&log->sb_mem, WLOG_BLOCK, WLOG_BLOCK))
		return -ENOMEM;
	for (uint32_t i = 0; i < log->opt.buffers; i++) {
		log->bufs[i].mem = (char *)log->buf_mem + (size_t)i * log->opt.segment_bytes;
		list_init(&log->bufs[i].segs);
		list_add_tail(&log->bufs[i].link, &log->bufs_free);
	}
	return 0;
}

static int open_once(struct host *host, struct dev *dev, struct wlog_home *home,
		     const struct wlog_options *opt, uint64_t destaged_lsn, struct wlog **ret,
		     struct err *err)
{
	struct wlog *log;
	struct wlog_sb sb;
	uint32_t slot;
	int rc = sb_read(dev, &sb, &slot, err);

	if (rc)
		return rc;
	log = log_new(host, dev, home, opt);
	if (!log)
		return -ENOMEM;
	sb_load(log, &sb, slot);
	set_limits(log);
	if (destaged_lsn > log->destaged_lsn)
		log->destaged_lsn = destaged_lsn;
	rc = bufs_new(log);
	if (!rc)
		rc = replay(log, &sb, err);
	/* L5: what was read may still be volatile; it must not vanish after it was served. */
	if (!rc && VARVE_STEP("wlog.open_flush"))
		rc = dev_flush(dev);
	if (rc) {
		err_set(err, rc, "cannot read or flush the cache device");
		wlog_close(log);
		return rc;
	}
	*ret = log;
	return 0;
}

int wlog_open(struct host *host, struct dev *dev, struct wlog_home *home,
	      const struct wlog_options *opt, uint64_t destaged_lsn, struct wlog **ret,
	      struct err *err)
{
	struct err now = ERR_INIT, before;
	int rc = open_once(host, dev, home, opt, destaged_lsn, ret, &now);

	/*
	 * A log in which another process is writing may seem damaged to one that looks: what it
	 * reads is not of one moment. Damage stays the same.
	 */
	for (int i = 0; i < LOOKS && rc == -EBADMSG; i++) {
		before = now;
		err_clear(&now);
		rc = open_once(host, dev, home, opt, destaged_lsn, ret, &now);
		if (rc == -EBADMSG && strcmp(before.text, now.text) == 0)
			break;
	}
	return rc ? err_set(err, rc, "%s", err_text(&now, rc)) : 0;
}

int wlog_start(struct wlog *log, const struct wlog_identity *id, uint64_t lsn_floor,
	       struct err *err)
{
	int rc = 0;

	assert(!log->started);
	if (VARVE_STEP("wlog.replay_again"))
		rc = replay_again(log, err);
	/*
	 * L5 once more: another owner may have been at work at wlog_open(). What was read then may
	 * have been on its way, and acknowledged to him only after that flush.
	 */
	if (!rc && VARVE_STEP("wlog.start_flush"))
		rc = dev_flush(log->dev);
	if (rc)
		return err_sys(err, rc, "cannot read or flush the cache device");
	if (lsn_floor >= log->next_lsn)
		log->next_lsn = lsn_floor + 1;
	log->next_lsn += LSN_SKIP;
	log->id = *id;
	if (VARVE_STEP("wlog.epoch_bump"))
		log->log_epoch++;
	log->cut_seg = log->next_seg;
	/* From here on nothing that lies behind the cut can come back (L4). */
	if (VARVE_STEP("wlog.start_superblock"))
		rc = sb_write_sync(log, false, false, err);
	if (rc)
		return rc;
	host_enter(log->host);
	log->started = true;
	log_advance(log);
	if (log->durable_seg > log->destaged_seg)
		log->home->ops->destage(log->home, false);
	host_leave(log->host);
	return 0;
}

bool wlog_idle(const struct wlog *log)
{
	return !log->writes_in_flight && !log->flushing && !log->sb_writing && !log->forgetting &&
	       !log->reads && !log->relog_works && list_empty(&log->publishing);
}

/* Seals and waits until all is durable and nothing is in flight. */
static int settle(struct wlog *log)
{
	host_enter(log->host);
	wlog_seal(log);
	host_leave(log->host);
	for (;;) {
		bool busy;

		host_enter(log->host);
		busy = log->sb_writing || log->flushing || log->writes_in_flight ||
		       (!log->failed && log->durable_seg < log->closed_seg);
		host_leave(log->host);
		if (!busy)
			return log->failed;
		if (!dev_help(log->dev))
			dev_poll(log->dev, true);
	}
}

int wlog_stop(struct wlog *log, struct err *err)
{
	int rc;

	if (!log->started)
		return 0;
	rc = settle(log);
	if (rc)
		return err_set(err, rc, "the log failed while it was open");
	host_enter(log->host);
	log->started = false;
	/* When all is destaged, nothing refers to the ring any more. */
	if (log->destaged_seg == log->durable_seg && log->forgotten_seg == log->destaged_seg) {
		space_tail_at(log, log->next_seg, &log->tail);
		space_drop_tail(log, log->next_seg);
	}
	host_leave(log->host);
	/* Both slots: a clean log survives the rot of either. */
	return sb_write_sync(log, true, true, err);
}

void wlog_close(struct wlog *log)
{
	if (!log)
		return;
	for (uint64_t n = log->tail_seg; n < log->next_seg; n++)
		seg_free(seg_get(log, n));
	buf_mem_free(log);
	extmap_destroy(&log->map);
	free(log->bufs);
	free(log->segs);
	free(log->sb_mem);
	free(log);
}

const struct wlog_identity *wlog_identity(const struct wlog *log)
{
	return &log->id;
}

uint64_t wlog_last_lsn(const struct wlog *log)
{
	return log->next_lsn - 1;
}

uint64_t wlog_durable_lsn(const struct wlog *log)
{
	return log->durable_lsn;
}

void wlog_tick(struct wlog *log)
{
	const uint64_t now_ns = host_now_ns(log->host);

	if (!log->started)
		return;
	write_tick(log, now_ns);
	space_forget(log);
	log_advance(log);
}

void wlog_fail(struct wlog *log, int error)
{
	log_fail(log, error, "the home");
	log_advance(log);
}

/* ---- looking */

void wlog_status(const struct wlog *log, struct wlog_status *ret)
{
	const struct wlog_buf *buf;

	*ret = log->st;
	ret->id = log->id;
	ret->log_epoch = log->log_epoch;
	ret->ring_bytes = log->ring_bytes;
	ret->used_bytes = log->head_pos - log->tail.pos;
	ret->segments = log->next_seg - log->tail_seg;
	ret->buffers = log->opt.buffers;
	ret->buffers_dirty = 0;
	list_for_each_entry(buf, &log->bufs_used, struct wlog_buf, link)
		ret->buffers_dirty += buf->unwritten ? 1 : 0;
	ret->next_lsn = log->next_lsn;
	ret->published_lsn = log->published_lsn;
	ret->durable_lsn = log->durable_lsn;
	ret->destaged_lsn = log->destaged_lsn;
	ret->map_extents = extmap_count(&log->map);
	ret->map_bytes = extmap_bytes(&log->map);
	ret->device_bytes = log->written_bytes;
	ret->device_bytes_life = log->life_bytes + log->written_bytes;
	ret->head_seg = log->open ? log->open->number : log->next_seg;
	ret->head_sectors = log->open ? log->open->data_sectors : 0;
	ret->durable_seg = log->durable_seg;
	ret->destaged_seg = log->destaged_seg;
	ret->failed = log->failed;
}

void wlog_clear_stat(struct wlog *log)
{
	memset(log->st.io, 0, sizeof(log->st.io));
}
