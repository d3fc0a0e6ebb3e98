/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the home refuses is written once more at the head (L9): it is there after a crash, the old
 * segment can be given up, and nothing newer is lost to something older.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "lib/tap.h"
#include "lib/wlog_rig.h"
#include "wlog/wlog_impl.h"

#define CACHE_BYTES (4u << 20)

struct waiter {
	struct wlog_relog relog;
	int calls, error;
};

static void over(struct wlog_relog *relog, int error)
{
	struct waiter *w = container_of(relog, struct waiter, relog);

	w->calls++;
	w->error = error;
}

static struct wlog_rig *begin(void)
{
	struct wlog_rig *rig = wlog_rig_new(CACHE_BYTES, test_seed());

	CHECK_OK(wlog_rig_start(rig));
	return rig;
}

/* So much before it that a superblock is written when it is destaged. */
static uint64_t write_old(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, uint8_t fill)
{
	for (uint32_t i = 0; i < 8; i++)
		CHECK_OK(wlog_rig_write(rig, 8192 + i * 128, 128, 7));
	CHECK_OK(wlog_rig_write(rig, lba, sectors, fill));
	CHECK_OK(wlog_rig_flush(rig));
	return wlog_rig_last(rig);
}

static int start(struct wlog_rig *rig, struct waiter *w, uint64_t number, uint64_t lba,
		 uint64_t sectors)
{
	int r;

	*w = (struct waiter){ .relog = { .number = number, .lba = lba, .sectors = sectors,
					 .done = over } };
	host_enter(&rig->hs.host);
	r = wlog_relog(rig->log, &w->relog);
	host_leave(&rig->hs.host);
	return r;
}

static void relog(struct wlog_rig *rig, uint64_t number, uint64_t lba, uint64_t sectors)
{
	struct waiter w;

	CHECK_OK(start(rig, &w, number, lba, sectors));
	host_single_settle(&rig->hs);
	CHECK_EQ(w.calls, 1);
	CHECK_OK(w.error);
}

/* The home gives up all segments up to that one, whatever it has of them. */
static void give_up(struct wlog_rig *rig, uint64_t number)
{
	host_enter(&rig->hs.host);
	wlog_destaged(rig->log, number);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
}

TEST(what_is_relogged_survives_its_old_segment)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 8, 1);
	bool newer;

	relog(rig, number, 100, 8);
	CHECK_EQ(wlog_rig_superseded(rig, 100, 108, number, &newer), 108);
	CHECK(newer);
	give_up(rig, number);
	wlog_rig_verify(rig, 100, 8, 1);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 100, 8, 1);
	wlog_rig_free(rig);
}

TEST(a_crash_before_the_end_loses_nothing)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 8, 1);
	struct waiter w;

	CHECK_OK(start(rig, &w, number, 100, 8));
	wlog_close(rig->log);
	rig->log = NULL;
	list_init(&rig->hs.works);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 100, 8, 1);
	wlog_rig_free(rig);
	free(w.relog.buf);
}

TEST(what_is_only_on_the_device_is_read_and_verified)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 24, 1);

	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	relog(rig, number, 103, 9);
	give_up(rig, number);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 103, 9, 1);
	wlog_rig_verify(rig, 100, 3, 0);
	wlog_rig_free(rig);
}

TEST(rot_is_reported_and_not_carried_on)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 8, 1);
	uint8_t *bytes = dev_mem_bytes_data(rig->bytes);
	struct waiter w;

	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	for (size_t at = WLOG_RING_OFF; at < CACHE_BYTES; at += 4096) {
		if (bytes[at] == 1 && bytes[at + 4095] == 1)
			bytes[at + 5] = 2;
	}
	CHECK_OK(start(rig, &w, number, 100, 8));
	host_single_settle(&rig->hs);
	CHECK_EQ(w.calls, 1);
	CHECK_EQ(w.error, -EIO);
	wlog_rig_free(rig);
}

TEST(what_is_newer_is_left_alone)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 24, 1);
	struct wlog_status st;

	CHECK_OK(wlog_rig_write(rig, 104, 8, 2));
	relog(rig, number, 100, 24);
	wlog_rig_status(rig, &st);
	CHECK_EQ(st.relogged_bytes, 16 * DEV_SECTOR_BYTES);
	give_up(rig, number);
	/* Nothing was flushed by anybody else: what is newer is durable by then. */
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 100, 4, 1);
	wlog_rig_verify(rig, 104, 8, 2);
	wlog_rig_verify(rig, 112, 12, 1);
	wlog_rig_free(rig);
}

TEST(zeros_and_discards_are_relogged)
{
	struct wlog_rig *rig = begin();
	uint64_t number;

	memset(rig->image, 9, 1000 * DEV_SECTOR_BYTES);
	CHECK_OK(wlog_rig_op(rig, DEV_ZERO, 0, 16));
	CHECK_OK(wlog_rig_op(rig, DEV_DISCARD, 16, 16));
	number = write_old(rig, 200, 8, 1);
	relog(rig, number - 8, 0, 64);
	for (uint64_t n = number - 8; n < number; n++)
		relog(rig, n, 0, 64);
	give_up(rig, number - 1);
	wlog_rig_verify(rig, 0, 32, 0);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 0, 32, 0);
	wlog_rig_verify(rig, 32, 8, 9);
	wlog_rig_free(rig);
}

static void user_done(struct dev_req *req)
{
	req->priv.ptr[0] = req;
}

/*
 * A user's write has its LSN and is not in the map yet. Were the old data written behind it, replay
 * would end with that.
 */
TEST(a_write_on_its_way_is_waited_for)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 8, 1);
	struct dev_req req = { .op = DEV_WRITE, .off_bytes = 100 * DEV_SECTOR_BYTES,
			       .done = user_done };
	uint8_t buf[8 * DEV_SECTOR_BYTES];
	struct waiter w;

	memset(buf, 2, sizeof(buf));
	dev_req_buf(&req, buf, sizeof(buf));
	host_enter(&rig->hs.host);
	CHECK_EQ(wlog_reserve(rig->log, &req), 1);
	host_leave(&rig->hs.host);
	CHECK_OK(start(rig, &w, number, 100, 8));
	host_single_settle(&rig->hs);
	CHECK_EQ(w.calls, 0);
	wlog_fill(rig->log, &req);
	host_enter(&rig->hs.host);
	wlog_publish(rig->log, &req);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	CHECK(req.priv.ptr[0] == &req);
	CHECK_EQ(w.calls, 1);
	CHECK_OK(w.error);
	give_up(rig, number);
	wlog_rig_verify(rig, 100, 8, 2);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 100, 8, 2);
	wlog_rig_free(rig);
}

TEST(a_range_longer_than_a_segment_goes_in_several_records)
{
	struct wlog_rig *rig = begin();
	uint64_t first, last;

	CHECK_OK(wlog_rig_flush(rig));
	first = wlog_rig_last(rig) + 1;
	CHECK_OK(wlog_rig_write(rig, 1000, 512, 3)); /* four segments */
	CHECK_OK(wlog_rig_flush(rig));
	last = wlog_rig_last(rig);
	CHECK(last >= first + 3);
	for (uint64_t n = first; n <= last; n++)
		relog(rig, n, 900, 700);
	give_up(rig, last);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 1000, 512, 3);
	wlog_rig_free(rig);
}

/* The log is full of what the home refuses: there is room for writing it once more. */
TEST(a_full_log_gets_on)
{
	struct wlog_rig *rig;
	uint64_t lba = 0, last;
	struct wlog_status st;
	struct waiter w;

	rig = wlog_rig_new(2u << 20, test_seed());
	rig->opt.full_timeout_ns = 1000000;
	CHECK_OK(wlog_rig_start(rig));
	while (wlog_rig_write(rig, lba, 64, 4) == 0)
		lba += 64;
	CHECK(lba > 1024);
	CHECK_OK(wlog_rig_flush(rig));
	last = wlog_rig_last(rig);
	for (uint64_t n = 1; n <= last; n++) {
		CHECK_OK(start(rig, &w, n, 0, WLOG_RIG_SECTORS));
		host_single_advance(&rig->hs, 1000000000);
		CHECK_EQ(w.calls, 1);
		CHECK_OK(w.error);
		give_up(rig, n);
	}
	wlog_rig_verify(rig, 0, (uint32_t)lba, 4);
	wlog_rig_status(rig, &st);
	CHECK(st.relogged_bytes >= lba * DEV_SECTOR_BYTES);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_verify(rig, 0, (uint32_t)lba, 4);
	wlog_rig_free(rig);
}

TEST(one_that_waits_can_be_cancelled)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 8, 1);
	struct waiter first, second;

	CHECK_OK(start(rig, &first, number, 100, 8));
	CHECK_OK(start(rig, &second, number, 100, 4));
	host_enter(&rig->hs.host);
	wlog_relog_cancel(rig->log, &second.relog);
	wlog_relog_cancel(rig->log, &first.relog);
	host_leave(&rig->hs.host);
	CHECK(!wlog_idle(rig->log));
	host_single_settle(&rig->hs);
	CHECK_EQ(first.calls, 1);
	CHECK_EQ(second.calls, 1);
	CHECK_EQ(first.error, -ECANCELED);
	CHECK_EQ(second.error, -ECANCELED);
	CHECK(wlog_idle(rig->log));
	wlog_rig_verify(rig, 100, 8, 1);
	wlog_rig_free(rig);
}

TEST(a_failed_log_ends_it)
{
	struct wlog_rig *rig = begin();
	const uint64_t number = write_old(rig, 100, 8, 1);
	struct waiter w;

	CHECK_OK(start(rig, &w, number, 100, 8));
	host_enter(&rig->hs.host);
	wlog_fail(rig->log, -EIO);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	CHECK_EQ(w.calls, 1);
	CHECK_EQ(w.error, -EIO);
	CHECK_EQ(start(rig, &w, number, 100, 8), -EIO);
	wlog_rig_free(rig);
}

/* ---- at random: writes, flushes, refusals, crashes, against what each block may hold */

#define BLOCKS 48u /* of 8 sectors */
#define ROUNDS 60
#define STEPS 60

struct model {
	struct wlog_rig *rig;
	struct rng rng;
	uint8_t next;
	uint8_t durable[BLOCKS];
	bool may[BLOCKS][256]; /* written since, and the durable one */
};

static void model_settle(struct model *m)
{
	for (uint32_t b = 0; b < BLOCKS; b++) {
		memset(m->may[b], 0, sizeof(m->may[b]));
		m->may[b][m->durable[b]] = true;
	}
}

static void model_write(struct model *m, uint8_t *last)
{
	const uint32_t b = (uint32_t)rng_below(&m->rng, BLOCKS);
	const uint32_t n = 1 + (uint32_t)rng_below(&m->rng, BLOCKS - b < 6 ? BLOCKS - b : 6);

	m->next = m->next == 255 ? 1 : (uint8_t)(m->next + 1);
	CHECK_OK(wlog_rig_write(m->rig, b * 8, n * 8, m->next));
	for (uint32_t i = b; i < b + n; i++) {
		last[i] = m->next;
		m->may[i][m->next] = true;
	}
}

/* The home refuses the oldest segment; while it is written once more a user writes there. */
static void model_refuse(struct model *m, uint8_t *last)
{
	struct dev_req req = { .op = DEV_WRITE, .done = user_done };
	const uint32_t b = (uint32_t)rng_below(&m->rng, BLOCKS);
	uint8_t buf[8 * DEV_SECTOR_BYTES];
	struct wlog_rig *rig = m->rig;
	struct wlog_status st;
	int racing = -1;
	struct waiter w;

	wlog_rig_status(rig, &st);
	if (st.destaged_seg == st.durable_seg)
		return;
	m->next = m->next == 255 ? 1 : (uint8_t)(m->next + 1);
	memset(buf, m->next, sizeof(buf));
	req.off_bytes = b * sizeof(buf);
	dev_req_buf(&req, buf, sizeof(buf));
	host_enter(&rig->hs.host);
	if (rng_chance(&m->rng, 1, 2))
		racing = wlog_reserve(rig->log, &req); /* 0: it waits for room, and gets it */
	host_leave(&rig->hs.host);
	CHECK_OK(start(rig, &w, st.destaged_seg + 1, 0, BLOCKS * 8));
	if (racing >= 0) {
		last[b] = m->next;
		m->may[b][m->next] = true;
	}
	if (racing == 1) {
		if (rng_chance(&m->rng, 1, 2))
			host_single_settle(&rig->hs);
		wlog_fill(rig->log, &req);
		host_enter(&rig->hs.host);
		wlog_publish(rig->log, &req);
		host_leave(&rig->hs.host);
	}
	host_single_advance(&rig->hs, 1000000000);
	CHECK_EQ(w.calls, 1);
	CHECK_OK(w.error);
	give_up(rig, st.destaged_seg + 1);
	host_single_advance(&rig->hs, 1000000000);
	CHECK(racing < 0 || req.priv.ptr[0] == &req);
}

static void model_check(struct model *m)
{
	uint8_t buf[8 * DEV_SECTOR_BYTES];

	for (uint32_t b = 0; b < BLOCKS; b++) {
		CHECK_OK(wlog_rig_read(m->rig, b * 8, 8, buf));
		for (size_t i = 1; i < sizeof(buf); i++)
			CHECK_EQ(buf[i], buf[0]);
		CHECK(m->may[b][buf[0]]);
		m->durable[b] = buf[0];
	}
	model_settle(m);
}

TEST(at_random_nothing_is_lost_and_nothing_old_comes_back)
{
	static struct model m;
	uint8_t last[BLOCKS] = { 0 };
	struct wlog_status st;

	/* The image stays zeros: the home never takes anything but by refusing it. */
	m.rig = wlog_rig_new(1u << 20, test_seed());
	rng_seed(&m.rng, test_seed());
	model_settle(&m);
	for (int round = 0; round < ROUNDS; round++) {
		CHECK_OK(wlog_rig_start(m.rig));
		model_check(&m);
		memcpy(last, m.durable, sizeof(last));
		for (int i = 0; i < STEPS; i++) {
			wlog_rig_status(m.rig, &st);
			if (rng_chance(&m.rng, 1, 4)) {
				CHECK_OK(wlog_rig_flush(m.rig));
				memcpy(m.durable, last, sizeof(last));
				model_settle(&m);
			} else if (st.used_bytes > st.ring_bytes / 2) {
				/* Nobody else would make room for a write. */
				model_refuse(&m, last);
			} else if (rng_chance(&m.rng, 1, 2)) {
				model_refuse(&m, last);
			} else {
				model_write(&m, last);
			}
			for (uint32_t b = 0; b < BLOCKS; b += 7)
				wlog_rig_verify(m.rig, b * 8, 8, last[b]);
		}
		wlog_rig_crash(m.rig);
	}
	wlog_rig_free(m.rig);
}
