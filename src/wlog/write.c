/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes: reserve, fill, publish; and the queue of those that wait for room.
 *
 * reserve gives a write its LSN and its room in the open segment, fill copies the data there and
 * takes the checksums over what was copied, publish enters it into the map. Fills of different
 * writes run at the same time, outside; publishing happens in the order of LSNs, so a filled
 * write may have to wait for an older one, and whoever publishes that one publishes both.
 *
 * 1. What is published is acknowledged or about to be; nothing in it is durable yet. FUA writes
 *    become barriers (commit.c) when they are published.
 * 2. A write that is longer than a segment is taken in portions, each a record; the records of one
 *    write are neighbours in the log, so nobody else reserves while one is in the middle.
 * 3. What has been reserved cannot fail but with the log itself: space for all of a long write,
 *    and memory for its place in the map, are there before it begins.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "wlog/wlog_impl.h"

/* Longer DISCARDs and ZEROs take several records, each for itself. */
#define NODATA_MAX_SECTORS EXTMAP_LEN_MAX
/* How soon a write that lacks memory, of which nobody tells when there is some, is tried again. */
#define STARVING_RETRY_NS UINT64_C(10000000)

static enum wlog_rec_type rec_type(const struct dev_req *req)
{
	switch (req->op) {
	case DEV_WRITE:
		return WLOG_DATA;
	case DEV_ZERO:
		return WLOG_ZERO;
	default:
		return WLOG_DISCARD;
	}
}

static uint64_t req_sectors(const struct dev_req *req)
{
	return req->len_bytes >> DEV_SECTOR_SHIFT;
}

static bool seg_fits(const struct wlog *log, const struct wlog_seg *seg, uint64_t data_sectors)
{
	return seg->records < log->rec_max && seg_room_sectors(log, seg) >= data_sectors;
}

/* Adds the record of the next portion; the segment has room for some of it. */
static void reserve_in(struct wlog *log, struct wlog_seg *seg, struct dev_req *req)
{
	struct wlog_write *w = wlog_write_of(req);
	struct wlog_rec_disk *rec = &seg->recs[seg->records];
	const uint64_t left = req_sectors(req) - w->done;
	const bool data = req->op == DEV_WRITE;
	const uint64_t most = data ? seg_room_sectors(log, seg) : NODATA_MAX_SECTORS;
	const uint32_t portion = (uint32_t)(left < most ? left : most);

	w->seg = seg;
	w->rec = seg->records++;
	w->portion = portion;
	w->filled = false;
	rec->lba = le48_make((req->off_bytes >> DEV_SECTOR_SHIFT) + w->done);
	rec->type = (uint8_t)rec_type(req);
	rec->flags = 0;
	if (data)
		rec->flags = (uint8_t)((portion < left ? WLOG_REC_CONTINUES : 0) |
				       (w->done ? WLOG_REC_CONTINUED : 0));
	rec->sectors = le32_make(portion);
	rec->lsn_delta = le32_make((uint32_t)(log->next_lsn - seg->first_lsn));
	rec->data_sector = le32_make(seg->data_sectors);
	rec->first_crc = le32_make(seg->crcs);
	if (data) {
		seg->data_sectors += portion;
		seg->crcs += (portion + WLOG_CRC_SECTORS - 1) / WLOG_CRC_SECTORS;
	}
	seg->last_lsn = log->next_lsn++;
	seg->unpublished++;
	log->unpublished++;
	list_add_tail(&w->pub, &log->publishing);
	log->partial = portion < left ? req : NULL;
	log->partial_waits = false;
	/*
	 * An append needs 2^32 LSNs in a segment to overflow lsn_delta: there are rec_max. A full
	 * segment closes now, so that it goes out as soon as it is published.
	 */
	if (!seg_fits(log, seg, 1))
		seg_close(log);
}

/*
 * A write that does not fit whole begins a segment of its own, so that a segment ends with the end
 * of a write unless it is in the middle of one that is longer than a segment: batches find a place
 * to be cut at (L3).
 */
static bool reserve_portion(struct wlog *log, struct dev_req *req)
{
	const uint64_t left = req_sectors(req) - wlog_write_of(req)->done;
	const uint64_t data_sectors = req->op == DEV_WRITE ? left : 0;
	const bool begun = wlog_write_of(req)->done > 0 || wlog_write_of(req)->relog;
	struct wlog_seg *seg = log->open;

	if (extmap_reserve(&log->map, log->unpublished + 1))
		return false;
	/* Data must not fill up what was opened with the last space. */
	if (seg && data_sectors && seg->last_resort && !seg_space(log, data_sectors, begun))
		return false;
	if (seg && !seg_fits(log, seg, data_sectors)) {
		seg_close(log);
		seg = NULL;
	}
	if (!seg)
		seg = seg_open(log, data_sectors, begun);
	if (!seg)
		return false;
	reserve_in(log, seg, req);
	return true;
}

bool write_starving(const struct wlog *log)
{
	return log->partial_waits || log->relog_waits || !list_empty(&log->waiting) ||
	       !list_empty(&log->waiting_free);
}

bool write_pending(struct wlog *log, uint64_t lba, uint64_t sectors)
{
	struct wlog_write *w;

	list_for_each_entry(w, &log->publishing, struct wlog_write, pub)
	{
		const struct dev_req *req = container_of((void *)w, struct dev_req, priv);
		const uint64_t at = req->off_bytes >> DEV_SECTOR_SHIFT;

		if (at < lba + sectors && lba < at + req_sectors(req))
			return true;
	}
	return false;
}

bool write_reserve_own(struct wlog *log, struct dev_req *req)
{
	struct wlog_write *w = wlog_write_of(req);

	if (log->partial)
		return false;
	w->done = 0;
	w->hit = w->hit_device = false;
	w->relog = true;
	return reserve_portion(log, req);
}

/*
 * Somebody has no room. What could give it: a device write that ends (a buffer), or the home,
 * which takes only what is durable.
 */
static void starve(struct wlog *log)
{
	if (log->closed_seg > log->seal_target)
		log->seal_target = log->closed_seg;
	log->home->ops->destage(log->home, true);
	host_wake_at(log->host, host_now_ns(log->host) + STARVING_RETRY_NS);
}

static void enqueue(struct wlog *log, struct dev_req *req)
{
	struct wlog_write *w = wlog_write_of(req);

	w->since_ns = host_now_ns(log->host);
	list_add_tail(&req->link,
		      req->op == DEV_WRITE ? &log->waiting : &log->waiting_free);
	log->st.waiting++;
	starve(log);
	log_advance(log);
}

static int write_check(const struct wlog *log, const struct dev_req *req)
{
	const uint64_t lba = req->off_bytes >> DEV_SECTOR_SHIFT;

	if (log->failed)
		return log->failed;
	if (!log->started)
		return -EROFS;
	if (req->op != DEV_WRITE && req->op != DEV_ZERO && req->op != DEV_DISCARD)
		return -EINVAL;
	if ((req->off_bytes | req->len_bytes) % DEV_SECTOR_BYTES || !req->len_bytes ||
	    lba >= log->home->sectors || req_sectors(req) > log->home->sectors - lba)
		return -EINVAL;
	if (req->op == DEV_WRITE && req_sectors(req) > log->max_io_sectors)
		return -EINVAL;
	return 0;
}

int wlog_reserve(struct wlog *log, struct dev_req *req)
{
	struct wlog_write *w = wlog_write_of(req);
	const int rc = write_check(log, req);

	if (rc)
		return rc;
	w->done = 0;
	w->hit = w->hit_device = w->relog = false;
	if (log->partial || (req->op == DEV_WRITE && !list_empty(&log->waiting)) ||
	    !reserve_portion(log, req)) {
		enqueue(log, req);
		return 0;
	}
	/* What publishing will need of the map comes into the caches while the data is copied. */
	extmap_prefetch(&log->map, req->off_bytes >> DEV_SECTOR_SHIFT);
	return 1;
}

/* Sectors from..to of the request's memory that lie in one piece, or a gathered copy in dst. */
static uint32_t fill_chunk(const struct dev_req *req, uint64_t off_bytes, uint32_t len_bytes,
			   void *dst)
{
	const void *src;
	uint32_t done = 0;

	if (iov_gather(req, off_bytes, len_bytes, &src) == len_bytes)
		return crc32c_copy(dst, src, len_bytes);
	while (done < len_bytes) {
		const size_t got = iov_gather(req, off_bytes + done, len_bytes - done, &src);

		memcpy((char *)dst + done, src, got);
		done += (uint32_t)got;
	}
	/* Over the copy: the caller's memory may change under us. */
	return crc32c(0, dst, len_bytes);
}

void wlog_fill(struct wlog *log, struct dev_req *req)
{
	struct wlog_write *w = wlog_write_of(req);
	const struct wlog_rec_disk *rec = &w->seg->recs[w->rec];
	le32 *crc = &w->seg->crc[le32_get(rec->first_crc)];
	uint64_t src = w->done * DEV_SECTOR_BYTES;
	uint32_t left = w->portion * DEV_SECTOR_BYTES;
	char *dst;

	(void)log;
	if (rec->type != WLOG_DATA)
		return;
	dst = (char *)seg_data(w->seg) + le32_get(rec->data_sector) * DEV_SECTOR_BYTES;
	while (left) {
		const uint32_t len = left < WLOG_BLOCK ? left : WLOG_BLOCK;

		*crc++ = le32_make(fill_chunk(req, src, len, dst));
		src += len;
		dst += len;
		left -= len;
	}
}

struct displaced {
	const struct wlog *log;
	struct wlog_write *w;
};

static void note_displaced(void *arg, const struct extent *old)
{
	const struct displaced *d = arg;

	d->w->hit = true;
	if (!(old->value & EXTMAP_CONST) && !seg_of_value(d->log, old->value)->buf)
		d->w->hit_device = true;
}

static int publish_map(struct wlog *log, struct wlog_write *w, const struct wlog_rec_disk *rec)
{
	struct displaced d = { log, w };
	int rc;

	if (log->failed)
		return log->failed;
	rc = extmap_replace(&log->map, le48_get(rec->lba), le32_get(rec->sectors),
			    rec_value(w->seg->number, rec), note_displaced, &d);
	/* There were nodes for it since it was reserved. */
	assert(!rc);
	return rc;
}

static void publish_one(struct wlog *log, struct dev_req *req)
{
	struct wlog_write *w = wlog_write_of(req);
	struct wlog_seg *seg = w->seg;
	const int rc = publish_map(log, w, &seg->recs[w->rec]);

	seg->unpublished--;
	log->unpublished--;
	seg->published++;
	log->published_lsn = seg->first_lsn + le32_get(seg->recs[w->rec].lsn_delta);
	w->done += w->portion;
	log->published_part = !rc && w->done < req_sectors(req);
	if (log->seal_whole && !log->published_part) {
		log->seal_whole = false;
		wlog_seal(log);
	}
	if (rc) {
		if (log->partial == req)
			log->partial = NULL;
		log_complete(log, req, rc);
		return;
	}
	if (w->done < req_sectors(req)) {
		if (reserve_portion(log, req)) {
			list_add_tail(&req->link, &log->host->fills);
			return;
		}
		log->partial_waits = true;
		starve(log);
		return;
	}
	if (w->relog) {
		log->st.relogged_bytes += req->len_bytes;
	} else if (req->op == DEV_WRITE) {
		log->st.user_bytes += req->len_bytes;
		log_count_io(log, req,
			     (w->hit ? WLOG_IO_HIT : 0) |
				     (w->hit && !w->hit_device ? WLOG_IO_BUFFER : 0), true);
	}
	if (req->fua)
		commit_barrier(log, req, seg->number);
	else
		log_complete(log, req, 0);
}

void wlog_publish(struct wlog *log, struct dev_req *req)
{
	wlog_write_of(req)->filled = true;
	while (!list_empty(&log->publishing)) {
		struct wlog_write *w =
			list_first_entry(&log->publishing, struct wlog_write, pub);

		if (!w->filled)
			break;
		list_del(&w->pub);
		publish_one(log, container_of((void *)w, struct dev_req, priv));
	}
	if (log->sealed_seg < log->closed_seg || write_starving(log) ||
	    !list_empty(&log->barriers) || !list_empty(&log->relogs))
		log_advance(log);
}

static struct dev_req *next_waiting(const struct wlog *log)
{
	if (log->partial)
		return log->partial_waits ? log->partial : NULL;
	if (!list_empty(&log->waiting_free))
		return list_first_entry(&log->waiting_free, struct dev_req, link);
	if (!list_empty(&log->waiting))
		return list_first_entry(&log->waiting, struct dev_req, link);
	return NULL;
}

/* Gives room to those who wait, oldest first, as far as there is any. */
void write_admit(struct wlog *log)
{
	struct dev_req *req;

	while (!log->failed && (req = next_waiting(log))) {
		const bool queued = req != log->partial;

		if (!reserve_portion(log, req))
			break;
		if (queued) {
			list_del(&req->link);
			log->st.waiting--;
		}
		list_add_tail(&req->link, &log->host->fills);
	}
}

static void fail_list(struct wlog *log, struct list_head *list, int error, uint64_t before_ns)
{
	struct list_head *pos, *tmp;

	list_for_each_safe(pos, tmp, list) {
		struct dev_req *req = list_entry(pos, struct dev_req, link);

		if (wlog_write_of(req)->since_ns > before_ns)
			break;
		list_del(&req->link);
		log->st.waiting--;
		log_complete(log, req, error);
	}
}

/* The log has failed: nobody waits in vain. Reserved writes end when they are published. */
void write_fail_all(struct wlog *log, int error)
{
	if (log->partial_waits) {
		log_complete(log, log->partial, error);
		log->partial = NULL;
		log->partial_waits = false;
	}
	fail_list(log, &log->waiting, error, UINT64_MAX);
	fail_list(log, &log->waiting_free, error, UINT64_MAX);
}

/*
 * P8: after full_timeout_ns without room a write fails instead of waiting on. One that has begun
 * does not: it waits for buffers only, which the device gives back.
 */
void write_tick(struct wlog *log, uint64_t now_ns)
{
	const uint64_t timeout_ns = log->opt.full_timeout_ns;

	if (timeout_ns && now_ns >= timeout_ns) {
		fail_list(log, &log->waiting, -ENOSPC, now_ns - timeout_ns);
		fail_list(log, &log->waiting_free, -ENOSPC, now_ns - timeout_ns);
	}
	if (write_starving(log))
		host_wake_at(log->host, now_ns + STARVING_RETRY_NS);
}
