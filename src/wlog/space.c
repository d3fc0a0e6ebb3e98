/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How space comes free, in this order and no other:
 *
 *   1. the home holds a segment's data durably, and its map names it    (the home, wlog_destaged)
 *   2. the log's map forgets it, so that reads go to the home            (space_forget_run)
 *   3. nobody reads it any more                                          (pins)
 *   4. a superblock with the new tail is durable                         (space_advance, sb_done)
 *   5. it is overwritten                                                 (seg_open)
 *
 * Without 4 before 5 a crash would find the old tail pointing at overwritten segments and lose
 * everything behind them. The tail moves in chunks, since each move costs a superblock write;
 * sooner when somebody waits for space. The model is spin/tail.pml.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "wlog/wlog_impl.h"

/* Records forgotten in one go, so that requests are not held up for long. */
#define FORGET_SLICE 256u
#define FORGET_RETRY_NS UINT64_C(10000000)
/* The tail moves when this part of the ring can be had. */
#define TAIL_CHUNK 16u

uint64_t space_free_bytes(const struct wlog *log)
{
	return log->ring_bytes - (log->head_pos - log->tail.pos);
}

/* Frees the segments before tail_seg, which nothing refers to any more. */
void space_drop_tail(struct wlog *log, uint64_t tail_seg)
{
	while (log->tail_seg < tail_seg) {
		struct wlog_seg *seg = seg_get(log, log->tail_seg);

		assert(!seg->pins && seg->state == SEG_DURABLE);
		log->segs[seg->number & (log->segs_cap - 1)] = NULL;
		log->tail_seg++;
		seg_free(seg);
	}
}

/* The tail as it would be if every segment before `number` were dropped. */
void space_tail_at(const struct wlog *log, uint64_t number, struct tail *ret)
{
	const struct wlog_seg *seg = number < log->next_seg ? seg_get(log, number) : NULL;

	ret->seg = number;
	ret->pos = log->head_pos;
	ret->prev_crc = log->last_crc;
	ret->lsn = (seg ? seg->first_lsn : log->next_lsn) - 1;
	if (seg && seg->state >= SEG_CLOSED)
		ret->pos = seg->pad_bytes ? seg->pad_pos : seg->pos;
	if (seg && seg->state >= SEG_SEALED)
		ret->prev_crc = seg->prev_crc;
}

static void sb_done(struct dev_req *req)
{
	struct wlog *log = container_of(req, struct wlog, sb_req);
	struct host *host = log->host;

	host_enter(host);
	log->sb_writing = false;
	if (req->result) {
		log_fail(log, req->result, "writing the log's superblock");
	} else {
		space_drop_tail(log, log->sb_tail.seg);
		log->tail = log->sb_tail;
	}
	log_advance(log);
	host_leave(host);
}

static void sb_submit(struct wlog *log, const struct tail *tail)
{
	struct dev_req *req = &log->sb_req;

	log->sb_tail = *tail;
	log->sb_writing = true;
	log->sb_seq++;
	log->sb_slot = (log->sb_slot + 1) % WLOG_SB_SLOTS;
	sb_encode(log, tail, false, log->sb_mem);
	req->op = DEV_WRITE;
	req->fua = VARVE_STEP("wlog.sb_fua");
	req->off_bytes = (uint64_t)log->sb_slot * WLOG_SB_STRIDE;
	dev_req_buf(req, log->sb_mem, WLOG_BLOCK);
	req->done = sb_done;
	log->written_bytes += WLOG_BLOCK;
	dev_submit(log->dev, req);
	if (!VARVE_STEP("wlog.sb_before_reuse"))
		log->tail.pos = log->sb_tail.pos;
}

/* Moves the tail if that is worth a superblock write now. */
void space_advance(struct wlog *log)
{
	uint64_t number = log->tail_seg;
	struct tail tail;

	if (!log->started || log->failed || log->sb_writing)
		return;
	while (number <= log->forgotten_seg && !seg_get(log, number)->pins)
		number++;
	if (number == log->tail_seg)
		return;
	space_tail_at(log, number, &tail);
	if (tail.pos - log->tail.pos >= log->ring_bytes / TAIL_CHUNK || write_starving(log))
		sb_submit(log, &tail);
}

/* Removes what the map still names of one segment; takes what it looks at off the budget. */
static int forget_some(struct wlog *log, struct wlog_seg *seg, uint32_t *budget)
{
	for (; log->forget_rec < seg->records && *budget; log->forget_rec++, (*budget)--) {
		const struct wlog_rec_disk *rec = &seg->recs[log->forget_rec];
		int rc;

		if (rec->flags & WLOG_REC_VOID)
			continue;
		/* Not with the nodes that are kept for writes on their way (write.c). */
		rc = extmap_reserve(&log->map, log->unpublished + 1);
		if (rc)
			return rc;
		rc = extmap_remove_if(&log->map, le48_get(rec->lba), le32_get(rec->sectors),
				      rec_value(seg->number, rec), NULL, NULL);
		if (rc)
			return rc;
	}
	if (log->forget_rec == seg->records) {
		log->forget_rec = 0;
		log->forgotten_seg++;
	}
	return 0;
}

void space_forget_run(struct work *work)
{
	struct wlog *log = container_of(work, struct wlog, forget_work);
	struct host *host = log->host;
	uint32_t budget = FORGET_SLICE;
	int rc = 0;

	host_enter(host);
	while (!rc && budget && log->forgotten_seg < log->destaged_seg)
		rc = forget_some(log, seg_get(log, log->forgotten_seg + 1), &budget);
	log_advance(log);
	log->forgetting = !rc && log->forgotten_seg < log->destaged_seg;
	if (log->forgetting)
		host_defer(host, work);
	else if (rc)
		host_wake_at(host, host_now_ns(host) + FORGET_RETRY_NS);
	host_leave(host);
}

/* Begins to forget what the home has; also again after it ran out of memory. */
void space_forget(struct wlog *log)
{
	if (log->forgetting || log->forgotten_seg == log->destaged_seg)
		return;
	log->forgetting = true;
	host_defer(log->host, &log->forget_work);
}

void wlog_destaged(struct wlog *log, uint64_t number)
{
	assert(number <= log->durable_seg);
	if (number <= log->destaged_seg)
		return;
	log->destaged_seg = number;
	log->destaged_lsn = seg_get(log, number)->last_lsn;
	space_forget(log);
}
