/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pieces of a batch on their way to the backing device: writes, a flush, samples.
 *
 * Pieces stand in LBA order. Those that continue each other become one write, up to BWRITE_BYTES
 * and BWRITE_IOV, and writes_in_flight of them are at the device at once. When all are done a flush
 * covers them, and after that the samples that they may have changed are read again.
 *
 * Durable when: what was written is durable when the flush that was submitted after the last write
 * has succeeded. wb_ended() comes after that and not before; any error leads to wb_failed(), and
 * then all is written again.
 *
 * Invariants:
 *   1. an error stops what has not been submitted (unless it is asked which places the device
 *      refuses, refused.c); what is in flight is waited for, so that nothing
 *      of one try lands after the flush of the next;
 *   2. LOST pieces are left out: their place keeps what it has, and becomes a bad range;
 *   3. requests are whole blocks of the device, as pieces and the limits are.
 */
#include "base/crc32c.h"
#include "boost/boost_impl.h"

/* One request; of a device that has to write the zeros, less. */
#define ZERO_SECTORS ((uint64_t)(256u << 20) / DEV_SECTOR_BYTES)
#define ZERO_SECTORS_DEAR ((uint64_t)(8u << 20) / DEV_SECTOR_BYTES)
/* One request, while it is being found out which places the device refuses. */
#define CAREFUL_BYTES 4096u
#define CAREFUL_ZERO_SECTORS ((uint64_t)(1u << 20) / DEV_SECTOR_BYTES)

static void batch_flush(struct boost *b);
static void batch_sample(struct boost *b);
static void sample_next(struct boost *b);

/* ---- writing */

static void write_done(struct dev_req *req);

static bool next_is_zero(const struct batch *bt)
{
	return bt->ready.p[bt->at].kind == PIECE_ZERO;
}

static void take_zero(struct boost *b, struct dev_req *req)
{
	const uint64_t most = b->backing->can_zero ? ZERO_SECTORS : ZERO_SECTORS_DEAR;
	struct batch *bt = &b->batch;
	const struct piece *p = &bt->ready.p[bt->at];
	uint64_t sectors = p->sectors - bt->at_off;

	if (sectors > most)
		sectors = most;
	if (bt->careful && sectors > CAREFUL_ZERO_SECTORS)
		sectors = CAREFUL_ZERO_SECTORS;
	req->op = DEV_ZERO;
	req->off_bytes = (p->lba + bt->at_off) * DEV_SECTOR_BYTES;
	req->len_bytes = sectors * DEV_SECTOR_BYTES;
	req->iov = NULL;
	req->iovcnt = 0;
	bt->at_off += (uint32_t)sectors;
	if (bt->at_off == p->sectors) {
		bt->at++;
		bt->at_off = 0;
	}
}

static uint64_t write_most(const struct boost *b)
{
	const uint32_t block = b->backing->block_bytes;

	if (!b->batch.careful)
		return BWRITE_BYTES;
	return block > CAREFUL_BYTES ? block : CAREFUL_BYTES;
}

/* As many pieces as continue each other, up to what one request may have. */
static void take_data(struct boost *b, struct bwrite *w)
{
	struct batch *bt = &b->batch;
	const uint64_t most = write_most(b);
	struct dev_req *req = &w->req;
	uint64_t lba = bt->ready.p[bt->at].lba + bt->at_off;

	req->op = DEV_WRITE;
	req->off_bytes = lba * DEV_SECTOR_BYTES;
	req->len_bytes = 0;
	req->iov = w->iov;
	req->iovcnt = 0;
	while (bt->at < bt->ready.n && req->len_bytes < most && req->iovcnt < BWRITE_IOV) {
		const struct piece *p = &bt->ready.p[bt->at];
		size_t bytes = (size_t)(p->sectors - bt->at_off) * DEV_SECTOR_BYTES;

		if (p->kind != PIECE_DATA || p->lba + bt->at_off != lba)
			break;
		if (bytes > most - req->len_bytes)
			bytes = most - req->len_bytes;
		w->iov[req->iovcnt].iov_base =
			(void *)(uintptr_t)(p->u.data + (size_t)bt->at_off * DEV_SECTOR_BYTES);
		w->iov[req->iovcnt++].iov_len = bytes;
		req->len_bytes += bytes;
		lba += bytes / DEV_SECTOR_BYTES;
		bt->at_off += (uint32_t)(bytes / DEV_SECTOR_BYTES);
		if (bt->at_off == p->sectors) {
			bt->at++;
			bt->at_off = 0;
		}
	}
}

static struct bwrite *write_slot(struct boost *b)
{
	struct list_head *link = list_pop(&b->batch.writes_free);
	struct bwrite *w;

	if (!link)
		return NULL;
	w = list_entry(link, struct bwrite, link);
	b->busy++;
	b->batch.in_flight++;
	return w;
}

/* Submits what there is room for. When all is written, or something has failed, goes on. */
static void batch_issue(struct boost *b)
{
	struct batch *bt = &b->batch;

	while (!bt->error && !b->stopping && !b->failed) {
		struct bwrite *w;

		while (bt->at < bt->ready.n && bt->ready.p[bt->at].kind == PIECE_LOST)
			bt->at++;
		if (bt->at == bt->ready.n)
			break;
		w = write_slot(b);
		if (!w)
			return;
		if (next_is_zero(bt))
			take_zero(b, &w->req);
		else
			take_data(b, w);
		w->req.fua = false;
		w->req.done = write_done;
		dev_submit(b->backing, &w->req);
	}
	if (bt->in_flight || b->stopping || b->failed)
		return;
	if (bt->error)
		wb_failed(b, bt->error);
	else if (bt->nrefused && bt->writes_done)
		refused_relog(b);
	else if (bt->nrefused)
		refused_all(b);
	else
		batch_flush(b);
}

static void write_done(struct dev_req *req)
{
	struct bwrite *w = container_of(req, struct bwrite, req);
	struct boost *b = w->b;
	struct batch *bt = &b->batch;

	host_enter(b->host);
	list_add_tail(&w->link, &bt->writes_free);
	bt->in_flight--;
	if (req->result) {
		if (!bt->careful || !refused_add(bt, req))
			bt->error = req->result;
	} else {
		bt->written_bytes += req->op == DEV_WRITE ? req->len_bytes : 0;
		bt->writes_done++;
	}
	batch_issue(b);
	boost_exit(b);
}

void wb_write(struct boost *b)
{
	struct batch *bt = &b->batch;

	if (bt->forgive)
		dev_forgive(b->backing);
	bt->forgive = false;
	bt->phase = BATCH_WRITING;
	bt->at = 0;
	bt->at_off = 0;
	bt->error = 0;
	bt->in_flight = 0;
	bt->written_bytes = bt->writes_done = 0;
	bt->nrefused = 0;
	bt->careful = refused_careful(b);
	batch_issue(b);
	if (bt->phase == BATCH_WRITING)
		load_ahead(b);
}

/* ---- flushing */

static void flush_done(struct dev_req *req)
{
	struct boost *b = container_of(req, struct boost, batch.flush_req);

	host_enter(b->host);
	if (b->stopping || b->failed) {
		/* The batch stays where it is. */
	} else if (req->result && VARVE_STEP("boost.flush_error_keeps")) {
		wb_failed(b, req->result);
	} else {
		b->st.flushes++;
		batch_sample(b);
	}
	boost_exit(b);
}

static void batch_flush(struct boost *b)
{
	struct batch *bt = &b->batch;
	struct dev_req *req = &bt->flush_req;

	bt->phase = BATCH_FLUSHING;
	/* A batch that had nothing to write has nothing to make durable. */
	if (!bt->writes_done || !VARVE_STEP("boost.flush_before_destaged")) {
		batch_sample(b);
		return;
	}
	req->op = DEV_FLUSH;
	req->fua = false;
	req->off_bytes = req->len_bytes = 0;
	req->iov = NULL;
	req->iovcnt = 0;
	req->done = flush_done;
	b->busy++;
	dev_submit(b->backing, req);
}

/* ---- samples */

static void sample_done(struct dev_req *req)
{
	struct bwrite *w = container_of(req, struct bwrite, req);
	struct boost *b = w->b;
	struct batch *bt = &b->batch;
	const uint32_t i = w->sample;
	const int error = req->result;
	const uint32_t crc =
		error ? 0
		      : crc32c(0, bt->sample_buf + (size_t)i * BOOST_SAMPLE_BYTES, req->len_bytes);

	host_enter(b->host);
	/* What cannot be read cannot be compared later: it is not known. */
	bt->sample_valid[i] = !error;
	bt->sample_crc[i] = crc;
	list_add_tail(&w->link, &bt->writes_free);
	bt->in_flight--;
	sample_next(b);
	boost_exit(b);
}

static void sample_next(struct boost *b)
{
	struct batch *bt = &b->batch;

	if (b->stopping || b->failed)
		return;
	for (; bt->at < BOOST_SAMPLES; bt->at++) {
		const uint32_t i = (uint32_t)bt->at;
		struct bwrite *w;

		if (!bt->sample_touched[i])
			continue;
		w = write_slot(b);
		if (!w)
			return;
		w->sample = i;
		w->req.op = DEV_READ;
		w->req.fua = false;
		w->req.off_bytes = sample_off(&b->state, i);
		dev_req_buf(&w->req, bt->sample_buf + (size_t)i * BOOST_SAMPLE_BYTES,
			    sample_len(&b->state, i));
		w->req.done = sample_done;
		dev_submit(b->backing, &w->req);
	}
	if (!bt->in_flight)
		wb_ended(b);
}

static void batch_sample(struct boost *b)
{
	b->batch.phase = BATCH_SAMPLING;
	b->batch.at = 0;
	sample_next(b);
}
