/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads of what the log does not hold.
 *
 * A read is worked off in slices of at most RD_SLICE_SECTORS and RD_PIECES pieces of the map:
 *
 *   rd_slice      entered: looks the pieces up, asks for the headers of their objects
 *   (headers)     hcache.c
 *   rd_run        not entered: zeros the holes, gets the rest, in whole chunks, neighbours together
 *   rget_done     not entered: verifies each chunk, copies out
 *   rd_slice_end  the next slice, or the end
 *
 * A fixed number of reads is worked on at once; others wait in a queue that lies in the requests
 * themselves. So memory is bounded: RD_POOL slices and their bounce buffers.
 *
 * Invariants:
 *   1. nothing is returned that has not been compared with its checksum, in the memory that it is
 *      copied from (P5); a chunk that does not match is read once more, and then is -EIO, with the
 *      object, the offset and the LBA in the log;
 *   2. an object that the map names and the store does not have is -EIO, loudly, never zeros;
 *   3. each slice is looked up at one moment. Later slices may see writes that came later: no more
 *      than two reads could;
 *   4. a volume that has lost its ownership answers no reads: what it knows may be old;
 *   5. an object that a slice has looked up is not deleted before the slice has ended (doom.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "lsvd/lsvd_impl.h"

#define RD_PIECES 16
#define RD_SLICE_SECTORS 4096

/* Who asked: a piece of a read of the log, a request of lsvd_read(), or garbage collection. */
struct rd_source {
	struct wlog_piece *piece;
	struct dev_req *req;
	struct gc_read *gc;
};

struct rd_piece {
	struct extent e;
	uint8_t *buf;
	struct hdr_wait wait;
	struct rd *rd;
};

/* A range of an object's data, on chunk boundaries, and the pieces that it is read for. */
struct rget {
	struct rd *rd;
	struct store_req req;
	struct timer timer;
	const void *hdr;
	uint64_t seq;
	uint32_t from, to;     /* sectors of the data */
	uint32_t first, count; /* pieces */
	uint8_t *buf, *bounce; /* bounce NULL: straight into the only piece */
	unsigned tries;
	bool garbled;
};

struct rd {
	struct list_head link; /* l->rd_free */
	struct lsvd *l;
	struct rd_source src;
	uint64_t lba, end;
	uint8_t *buf, *bounce; /* bounce: a request in several pieces of memory */
	uint32_t slice, pieces, missing, gets, gets_left;
	uint64_t since_ns;
	uint64_t clock; /* of the slice at work; 0: none */
	int result;
	struct rd_piece piece[RD_PIECES];
	struct rget get[RD_PIECES];
	struct work work;
};

static void rd_run(struct work *work);
static bool rd_slice(struct rd *rd);
static void rd_finish(struct rd *rd);
static void rget_submit(struct rget *g);

/* ---- verifying and copying out */

static int rget_verify(const struct rget *g)
{
	struct obj_ext e = {0};
	uint32_t at = g->from, bytes;

	while (at < g->to) {
		uint32_t chunk;

		if (at >= e.data_sector + e.sectors)
			obj_find(g->hdr, at, &e);
		chunk = (at - e.data_sector) / LSVD_CRC_SECTORS;
		bytes = e.sectors - chunk * LSVD_CRC_SECTORS;
		bytes = (bytes < LSVD_CRC_SECTORS ? bytes : LSVD_CRC_SECTORS) * DEV_SECTOR_BYTES;
		if (crc32c(0, g->buf + (size_t)(at - g->from) * DEV_SECTOR_BYTES, bytes) !=
			    obj_crc(g->hdr, e.first_crc + chunk) &&
		    VARVE_STEP("lsvd.verify_data")) {
			log_error("object %s: data at sector %u does not match its checksum: "
				  "sector %llu of the volume is lost",
				  g->req.key, at,
				  (unsigned long long)(e.lba + chunk * LSVD_CRC_SECTORS));
			return -EBADMSG;
		}
		at += bytes / DEV_SECTOR_BYTES;
	}
	return 0;
}

static void rget_copy(const struct rget *g)
{
	if (!g->bounce)
		return;
	for (uint32_t i = g->first; i < g->first + g->count; i++) {
		const struct rd_piece *p = &g->rd->piece[i];

		if (p->e.value == EXTMAP_HOLE)
			continue;
		memcpy(p->buf,
		       g->bounce + (size_t)(place_sector(p->e.value) - g->from) * DEV_SECTOR_BYTES,
		       p->e.sectors * DEV_SECTOR_BYTES);
	}
}

/* ---- gets */

static void rget_timer(struct timer *timer)
{
	rget_submit(container_of(timer, struct rget, timer));
}

/* Whether another try makes sense; entered. */
static bool rget_again(struct rget *g, int error)
{
	struct rd *rd = g->rd;
	struct lsvd *l = rd->l;

	if (!error || l->failed || l->stopping)
		return false;
	if (error == -EBADMSG) {
		if (g->garbled)
			return false;
		g->garbled = true;
		return true;
	}
	return store_transient(error) &&
	       host_now_ns(l->host) - rd->since_ns < l->opt.home_timeout_ns;
}

/* Entered; true when the read has come to its end and rd_finish() is to be called outside. */
static bool rd_slice_end(struct rd *rd)
{
	struct lsvd *l = rd->l;

	for (uint32_t i = 0; i < rd->pieces; i++) {
		if (rd->piece[i].wait.ent)
			hcache_put(l, rd->piece[i].wait.ent);
	}
	for (uint32_t i = 0; i < rd->gets; i++) {
		free(rd->get[i].bounce);
		rd->get[i].bounce = NULL;
	}
	rd->clock = 0;
	rd->lba += rd->slice;
	rd->buf += (size_t)rd->slice * DEV_SECTOR_BYTES;
	if (rd->result || rd->lba == rd->end)
		return true;
	return rd_slice(rd);
}

static void rget_done(struct store_req *req)
{
	struct rget *g = container_of(req, struct rget, req);
	struct rd *rd = g->rd;
	struct lsvd *l = rd->l;
	int error = req->result;
	bool ended = false;

	if (!error)
		error = rget_verify(g);
	if (!error)
		rget_copy(g);
	else if (!store_transient(error))
		log_error("object %s: cannot read sectors %u to %u: %s", req->key, g->from, g->to,
			  err_text(NULL, error));
	host_enter(l->host);
	if (rget_again(g, error)) {
		g->timer.fn = rget_timer;
		retry_set(l, &g->timer, ++g->tries);
	} else {
		if (error)
			rd->result = -EIO;
		if (--rd->gets_left == 0)
			ended = rd_slice_end(rd);
	}
	if (ended) {
		host_leave(l->host);
		rd_finish(rd);
		host_enter(l->host);
	}
	lsvd_exit(l);
}

/* Entered or not: what it touches belongs to the get, but for busy, which the caller counts. */
static void rget_start(struct rget *g)
{
	struct store_req *req = &g->req;

	req->op = STORE_GET;
	req->len_bytes = (uint64_t)(g->to - g->from) * DEV_SECTOR_BYTES;
	req->one.iov_base = g->buf;
	req->one.iov_len = req->len_bytes;
	req->iov = &req->one;
	req->iovcnt = 1;
	req->done = rget_done;
	store_submit(g->rd->l->store, req);
}

static void rget_submit(struct rget *g)
{
	g->rd->l->busy++;
	rget_start(g);
}

/* ---- from pieces to gets */

static bool rd_ext_matches(const struct obj_ext *e, uint32_t sector, uint64_t lba)
{
	return e->type == LSVD_EXT_DATA && e->lba + (sector - e->data_sector) == lba;
}

/*
 * The chunks that cover a piece. The header has to agree with the map about whose data it is: a
 * map that is wrong must not turn into another sector's data.
 */
static int rd_cover(const struct rd_piece *p, uint32_t *from, uint32_t *to)
{
	const void *hdr = hcache_buf(p->wait.ent);
	const uint32_t first = place_sector(p->e.value);
	const uint32_t last = first + (uint32_t)p->e.sectors - 1;
	struct obj_ext e;
	uint32_t in;

	obj_find(hdr, first, &e);
	if (!rd_ext_matches(&e, first, p->e.lba))
		return -EIO;
	*from = first - (first - e.data_sector) % LSVD_CRC_SECTORS;
	obj_find(hdr, last, &e);
	if (!rd_ext_matches(&e, last, p->e.lba + p->e.sectors - 1))
		return -EIO;
	in = last - e.data_sector;
	in = in - in % LSVD_CRC_SECTORS + LSVD_CRC_SECTORS;
	*to = e.data_sector + (in < e.sectors ? in : e.sectors);
	return 0;
}

static int rd_plan_piece(struct rd *rd, uint32_t index)
{
	struct rd_piece *p = &rd->piece[index];
	struct rget *g = rd->gets ? &rd->get[rd->gets - 1] : NULL;
	uint32_t from, to;
	const int r = rd_cover(p, &from, &to);

	if (r) {
		log_error("%s: sector %llu is mapped to object %llu, which holds another one there",
			  rd->l->name, (unsigned long long)p->e.lba,
			  (unsigned long long)place_seq(p->e.value));
		return r;
	}
	if (g && g->seq == place_seq(p->e.value) && from >= g->from && from <= g->to &&
	    to >= g->to) {
		g->to = to;
		g->count = index - g->first + 1;
		return 0;
	}
	g = &rd->get[rd->gets++];
	g->rd = rd;
	g->hdr = hcache_buf(p->wait.ent);
	g->seq = place_seq(p->e.value);
	g->from = from;
	g->to = to;
	g->first = index;
	g->count = 1;
	g->bounce = NULL;
	g->tries = 0;
	g->garbled = false;
	return 0;
}

static int rd_plan_buffers(struct rd *rd)
{
	for (uint32_t i = 0; i < rd->gets; i++) {
		struct rget *g = &rd->get[i];
		const struct rd_piece *p = &rd->piece[g->first];

		g->buf = p->buf;
		if (g->count == 1 && p->e.sectors == g->to - g->from)
			continue;
		g->bounce = malloc((size_t)(g->to - g->from) * DEV_SECTOR_BYTES);
		if (!g->bounce)
			return -ENOMEM;
		g->buf = g->bounce;
	}
	return 0;
}

/* Zeros and errors at once; data becomes gets. Not entered. */
static int rd_plan(struct rd *rd)
{
	const struct lsvd_hdr *h;
	int r = 0;

	for (uint32_t i = 0; i < rd->pieces; i++) {
		struct rd_piece *p = &rd->piece[i];

		if (p->e.value == EXTMAP_HOLE)
			memset(p->buf, 0, p->e.sectors * DEV_SECTOR_BYTES);
		else if (p->e.value & EXTMAP_CONST)
			r = -EIO; /* it was damaged before it got here */
		else
			r = p->wait.error ? p->wait.error : rd_plan_piece(rd, i);
		if (r)
			return r;
	}
	if (!r)
		r = rd_plan_buffers(rd);
	for (uint32_t i = 0; !r && i < rd->gets; i++) {
		struct rget *g = &rd->get[i];
		struct key key = {.kind = KEY_DATA, .seq = g->seq};

		h = g->hdr;
		key.epoch = le32_get(h->attach_epoch);
		key_format(g->req.key, rd->l->name, &key);
		g->req.off_bytes = le32_get(h->header_bytes) + (uint64_t)g->from * DEV_SECTOR_BYTES;
	}
	return r;
}

static void rd_run(struct work *work)
{
	struct rd *rd = container_of(work, struct rd, work);
	struct lsvd *l = rd->l;
	const int r = rd_plan(rd);
	bool ended = false;
	uint32_t gets;

	host_enter(l->host);
	if (r && !rd->result)
		rd->result = r;
	gets = rd->result ? 0 : rd->gets;
	rd->gets_left = gets;
	for (uint32_t i = 0; i < gets; i++)
		rget_submit(&rd->get[i]);
	if (!gets)
		ended = rd_slice_end(rd);
	if (ended) {
		host_leave(l->host);
		rd_finish(rd);
		host_enter(l->host);
	}
	lsvd_exit(l);
}

/* ---- slices */

static void rd_defer(struct rd *rd)
{
	rd->work.run = rd_run;
	rd->l->busy++;
	host_defer(rd->l->host, &rd->work);
}

static void rd_header_ready(struct hdr_wait *wait)
{
	struct rd_piece *p = container_of(wait, struct rd_piece, wait);

	if (--p->rd->missing == 0)
		rd_defer(p->rd);
}

/*
 * Looks up the next slice. Entered. Never ends the read by itself: false, so that callers can
 * return what it returns.
 */
static bool rd_slice(struct rd *rd)
{
	struct lsvd *l = rd->l;
	const uint64_t left = rd->end - rd->lba;
	struct extent e[RD_PIECES];
	uint8_t *buf = rd->buf;

	rd->pieces = extmap_lookup_range(
		&l->map, rd->lba, left < RD_SLICE_SECTORS ? left : RD_SLICE_SECTORS, e, RD_PIECES);
	rd->slice = rd->gets = 0;
	rd->clock = ++l->rd_clock; /* what it has looked up is not deleted from here on */
	rd->since_ns = host_now_ns(l->host); /* what came before has worked */
	/* Kept above zero until all are asked for: a header that comes meanwhile starts nothing. */
	rd->missing = 1;
	for (uint32_t i = 0; i < rd->pieces; i++) {
		struct rd_piece *p = &rd->piece[i];
		int r = 0;

		*p = (struct rd_piece){.e = e[i], .buf = buf, .rd = rd};
		p->wait.ready = rd_header_ready;
		if (rd->src.gc)
			gc_read_piece(rd->src.gc, &e[i]);
		if (!(e[i].value & EXTMAP_CONST))
			r = hcache_get(l, place_seq(e[i].value), &p->wait);
		if (r > 0)
			rd->missing++;
		else if (r < 0)
			p->wait.error = r;
		rd->slice += (uint32_t)e[i].sectors;
		buf += e[i].sectors * DEV_SECTOR_BYTES;
	}
	if (l->failed)
		rd->result = -EIO;
	if (--rd->missing == 0)
		rd_defer(rd);
	return false;
}

/* ---- beginning and end */

static void rd_begin(struct rd *rd, const struct rd_source *src)
{
	rd->src = *src;
	rd->result = 0;
	rd->bounce = NULL;
	rd->l->busy++;
	if (src->piece) {
		rd->lba = src->piece->lba;
		rd->end = rd->lba + src->piece->sectors;
		rd->buf = src->piece->buf;
	} else if (src->gc) {
		rd->lba = src->gc->lba;
		rd->end = rd->lba + src->gc->sectors;
	} else {
		const struct dev_req *req = src->req;

		rd->lba = req->off_bytes / DEV_SECTOR_BYTES;
		rd->end = rd->lba + req->len_bytes / DEV_SECTOR_BYTES;
		rd->buf = req->iovcnt == 1 ? req->iov[0].iov_base : NULL;
		if (!rd->buf)
			rd->buf = rd->bounce = malloc(req->len_bytes);
	}
	rd->pieces = rd->gets = rd->slice = 0;
	if (rd->buf) {
		rd_slice(rd);
	} else {
		rd->result = -ENOMEM;
		rd_defer(rd);
	}
}

/* The queue of those that found no free rd, linked through their own scratch. */
static void **rd_next_of(void *item, bool piece)
{
	return piece ? &((struct wlog_piece *)item)->priv[0]
		     : &((struct dev_req *)item)->priv.ptr[0];
}

static void rd_start_queued(struct lsvd *l)
{
	struct rd_source src = {0};
	struct list_head *link;
	void *item = l->rd_queue_head;

	if (!item)
		return;
	link = list_pop(&l->rd_free);
	if (!link)
		return;
	if (l->log)
		src.piece = item;
	else
		src.req = item;
	l->rd_queue_head = *rd_next_of(item, src.piece);
	if (!l->rd_queue_head)
		l->rd_queue_tail = NULL;
	rd_begin(list_entry(link, struct rd, link), &src);
}

/* A volume with a log gets pieces only, one without requests only: the queue holds one kind. */
static void rd_enqueue(struct lsvd *l, void *item, bool piece)
{
	*rd_next_of(item, piece) = NULL;
	if (l->rd_queue_tail)
		*rd_next_of(l->rd_queue_tail, piece) = item;
	else
		l->rd_queue_head = item;
	l->rd_queue_tail = item;
	rd_start_queued(l);
}

static void rd_scatter(const struct rd *rd)
{
	const struct dev_req *req = rd->src.req;
	const uint8_t *from = rd->bounce;

	for (int i = 0; i < req->iovcnt; i++) {
		memcpy(req->iov[i].iov_base, from, req->iov[i].iov_len);
		from += req->iov[i].iov_len;
	}
}

static void rd_finish(struct rd *rd)
{
	struct lsvd *l = rd->l;
	struct dev_req *req = rd->src.req;

	if (rd->bounce && !rd->result)
		rd_scatter(rd);
	free(rd->bounce);
	rd->bounce = NULL;
	if (rd->src.piece)
		wlog_piece_done(rd->src.piece, rd->result);
	host_enter(l->host);
	if (rd->src.gc)
		gc_read_done(rd->src.gc, rd->result);
	if (req) {
		req->result = rd->result;
		list_add_tail(&req->link, &l->host->ready);
	}
	list_add_tail(&rd->link, &l->rd_free);
	rd_start_queued(l);
	if (l->dooms.n && !l->dooms.proof)
		doom_kick(l);
	if (l->gc.phase == GC_READ)
		gc_kick(l); /* it may have waited for one of ours */
	lsvd_exit(l);
}

/* ---- the outside */

/* The log's call: entered, and must not complete anything at once. */
void home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	rd_enqueue(container_of(home, struct lsvd, home), piece, true);
}

void lsvd_read(struct lsvd *l, struct dev_req *req)
{
	rd_enqueue(l, req, false);
}

/* Takes one that nobody waits for. */
int gc_read_start(struct gc_read *r, uint8_t *buf)
{
	struct lsvd *l = r->l;
	const struct rd_source src = {.gc = r};
	struct list_head *link = l->rd_queue_head ? NULL : list_pop(&l->rd_free);
	struct rd *rd;

	if (!link)
		return -EAGAIN;
	rd = list_entry(link, struct rd, link);
	rd->buf = buf;
	rd_begin(rd, &src);
	return 0;
}

uint64_t reads_oldest(const struct lsvd *l)
{
	uint64_t oldest = l->gc.clock ? l->gc.clock : UINT64_MAX;

	for (unsigned i = 0; i < RD_POOL; i++) {
		if (l->rds[i].clock && l->rds[i].clock < oldest)
			oldest = l->rds[i].clock;
	}
	return oldest;
}

int read_init(struct lsvd *l)
{
	list_init(&l->rd_free);
	l->rds = calloc(RD_POOL, sizeof(*l->rds));
	if (!l->rds)
		return -ENOMEM;
	for (unsigned i = 0; i < RD_POOL; i++) {
		l->rds[i].l = l;
		list_add_tail(&l->rds[i].link, &l->rd_free);
	}
	return 0;
}

/* Also what reads hold that will never be done, after a crash of the simulated kind. */
void read_free(struct lsvd *l)
{
	for (unsigned i = 0; l->rds && i < RD_POOL; i++) {
		free(l->rds[i].bounce);
		for (unsigned k = 0; k < RD_PIECES; k++)
			free(l->rds[i].get[k].bounce);
	}
	free(l->rds);
}
