/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads of what the log does not hold: they go to the backing device as they are.
 *
 * A fixed number is at the device at once; others wait in a queue that lies in the requests
 * themselves, so that memory is bounded.
 *
 * Invariants:
 *   1. a read that touches a bad range is -EIO and goes nowhere: the device holds data there that
 *      was overwritten once;
 *   2. that is looked up in the moment in which the log has been asked, or later: a range becomes
 *      bad in the very moment in which the log begins to forget it.
 *
 * The backing device has no room for checksums of data (docs/DESIGN.md, P5): what it returns is
 * passed on.
 */
#include <errno.h>
#include <stdlib.h>

#include "boost/boost_impl.h"

struct bread {
	struct list_head link; /* b->reads_free */
	struct boost *b;
	struct wlog_piece *piece; /* who asked: either */
	struct dev_req *asked;
	int result;
	struct dev_req req;
	struct work work;
};

static void read_next(struct boost *b);

/* ---- the end */

static void read_finish(struct bread *rd)
{
	struct boost *b = rd->b;
	struct dev_req *asked = rd->asked;

	if (rd->piece)
		wlog_piece_done(rd->piece, rd->result);
	host_enter(b->host);
	if (asked) {
		asked->result = rd->result;
		list_add_tail(&asked->link, &b->host->ready);
	}
	list_add_tail(&rd->link, &b->reads_free);
	read_next(b);
	boost_exit(b);
}

static void read_done(struct dev_req *req)
{
	struct bread *rd = container_of(req, struct bread, req);

	rd->result = req->result;
	if (rd->result)
		log_warn("backing device: reading %llu bytes at byte %llu failed with error %d",
			 (unsigned long long)req->len_bytes, (unsigned long long)req->off_bytes,
			 -rd->result);
	read_finish(rd);
}

static void read_refused(struct work *work)
{
	read_finish(container_of(work, struct bread, work));
}

/* ---- the beginning */

static bool read_is_bad(struct boost *b, uint64_t off_bytes, uint64_t len_bytes)
{
	const uint64_t lba = off_bytes / DEV_SECTOR_BYTES;
	struct extent e;

	if (!extmap_count(&b->bads) || !extmap_lookup(&b->bads, lba, &e) ||
	    e.lba >= lba + len_bytes / DEV_SECTOR_BYTES || !VARVE_STEP("boost.bad_read"))
		return false;
	log_error("sector %llu and %llu more: their newest data was lost to damage in the cache; "
		  "reading gives an error until they are written again",
		  (unsigned long long)e.lba, (unsigned long long)(e.sectors - 1));
	return true;
}

static void read_begin(struct bread *rd)
{
	struct boost *b = rd->b;
	struct dev_req *req = &rd->req;

	req->op = DEV_READ;
	req->fua = false;
	req->done = read_done;
	if (rd->piece) {
		req->off_bytes = rd->piece->lba * DEV_SECTOR_BYTES;
		dev_req_buf(req, rd->piece->buf, (size_t)rd->piece->sectors * DEV_SECTOR_BYTES);
	} else {
		req->off_bytes = rd->asked->off_bytes;
		req->len_bytes = rd->asked->len_bytes;
		req->iov = rd->asked->iov;
		req->iovcnt = rd->asked->iovcnt;
	}
	b->busy++;
	if (read_is_bad(b, req->off_bytes, req->len_bytes)) {
		rd->result = -EIO;
		rd->work.run = read_refused;
		host_defer(b->host, &rd->work);
		return;
	}
	dev_submit(b->backing, req);
}

/* The queue of those that found no free read, linked through their own scratch. */
static void **read_link(struct boost *b, void *item)
{
	return b->log ? &((struct wlog_piece *)item)->priv[0]
		      : &((struct dev_req *)item)->priv.ptr[0];
}

static void read_next(struct boost *b)
{
	struct list_head *link;
	struct bread *rd;
	void *item = b->read_queue_head;

	if (!item)
		return;
	link = list_pop(&b->reads_free);
	if (!link)
		return;
	rd = list_entry(link, struct bread, link);
	b->read_queue_head = *read_link(b, item);
	if (!b->read_queue_head)
		b->read_queue_tail = NULL;
	rd->piece = b->log ? item : NULL;
	rd->asked = b->log ? NULL : item;
	read_begin(rd);
}

/*
 * A volume with a log gets pieces only, one without requests only: the queue holds one kind. This
 * changes when the right is taken, with nothing in flight.
 */
static void read_enqueue(struct boost *b, void *item)
{
	*read_link(b, item) = NULL;
	if (b->read_queue_tail)
		*read_link(b, b->read_queue_tail) = item;
	else
		b->read_queue_head = item;
	b->read_queue_tail = item;
	read_next(b);
}

/* The log's call: entered, and must not complete anything at once. */
void boost_home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	read_enqueue(container_of(home, struct boost, home), piece);
}

void boost_read(struct boost *b, struct dev_req *req)
{
	const uint64_t bytes = b->home.sectors * DEV_SECTOR_BYTES;

	if (b->log || req->op != DEV_READ || !req->len_bytes || req->off_bytes > bytes ||
	    req->len_bytes > bytes - req->off_bytes) {
		req->result = -EINVAL;
		list_add_tail(&req->link, &b->host->ready);
		return;
	}
	read_enqueue(b, req);
}

int bread_init(struct boost *b)
{
	list_init(&b->reads_free);
	b->reads = calloc(READ_POOL, sizeof(*b->reads));
	if (!b->reads)
		return -ENOMEM;
	for (unsigned int i = 0; i < READ_POOL; i++) {
		b->reads[i].b = b;
		list_add_tail(&b->reads[i].link, &b->reads_free);
	}
	return 0;
}

void bread_free(struct boost *b)
{
	free(b->reads);
}
