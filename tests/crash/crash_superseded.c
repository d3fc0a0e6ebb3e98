/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a home need not write, because a newer copy will come: never on account of a copy that a
 * crash would take away (L7).
 */
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"
#include "lib/wlog_rig.h"

#define CACHE_BYTES (4u << 20)

static struct wlog_rig *begin(void)
{
	struct wlog_rig *rig = wlog_rig_new(CACHE_BYTES, test_seed());

	CHECK_OK(wlog_rig_start(rig));
	return rig;
}

/* A home as lazy as it may be: writes what is not superseded, and says that it has the segment. */
static void destage_lazily(struct wlog_rig *rig, uint64_t number, uint64_t lba, uint32_t sectors,
			   uint8_t fill)
{
	bool newer;

	for (uint64_t at = lba, to; at < lba + sectors; at = to) {
		to = wlog_rig_superseded(rig, at, lba + sectors, number, &newer);
		if (!newer)
			memset(rig->image + at * DEV_SECTOR_BYTES, fill,
			       (to - at) * DEV_SECTOR_BYTES);
	}
	host_enter(&rig->hs.host);
	wlog_destaged(rig->log, number);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
}

/*
 * So much that a superblock is written when it is destaged: without one replay would find the
 * old copy once more, whatever the home has made of it.
 */
static void write_much(struct wlog_rig *rig)
{
	for (uint32_t i = 0; i < 8; i++)
		CHECK_OK(wlog_rig_write(rig, 8192 + i * 128, 128, 7));
}

TEST(a_copy_in_memory_supersedes_nothing)
{
	struct wlog_rig *rig = begin();
	uint64_t number;

	write_much(rig);
	CHECK_OK(wlog_rig_write(rig, 100, 8, 1));
	CHECK_OK(wlog_rig_flush(rig));
	number = wlog_rig_last(rig);
	/* Not flushed; the segment in which it is will be, in the end, or not. */
	CHECK_OK(wlog_rig_write(rig, 100, 8, 2));
	destage_lazily(rig, number, 100, 8, 1);
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_destage(rig, UINT64_MAX);
	wlog_rig_verify(rig, 100, 8, 1);
	wlog_rig_free(rig);
}

static void long_done(struct dev_req *req)
{
	req->priv.ptr[0] = req;
}

/* A write of several segments, up to where its first portion is published. */
static void begin_long(struct wlog_rig *rig, struct dev_req *req, uint64_t lba, void *buf,
		       size_t bytes)
{
	*req = (struct dev_req){ .op = DEV_WRITE, .done = long_done };
	req->off_bytes = lba * DEV_SECTOR_BYTES;
	dev_req_buf(req, buf, bytes);
	host_enter(&rig->hs.host);
	CHECK_EQ(wlog_reserve(rig->log, req), 1);
	host_leave(&rig->hs.host);
	wlog_fill(rig->log, req);
	host_enter(&rig->hs.host);
	wlog_publish(rig->log, req);
	/* The host would fill and publish the next portion at once. */
	CHECK(list_pop(&rig->hs.host.fills) == &req->link);
	host_leave(&rig->hs.host);
}

static void end_long(struct wlog_rig *rig, struct dev_req *req)
{
	wlog_fill(rig->log, req);
	host_enter(&rig->hs.host);
	wlog_publish(rig->log, req);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
}

TEST(a_write_without_its_end_supersedes_nothing)
{
	const size_t bytes = 192u << 10;
	struct wlog_rig *rig = begin();
	struct dev_req req;
	void *buf = malloc(bytes);
	uint64_t number;

	CHECK(buf != NULL);
	memset(buf, 2, bytes);
	write_much(rig);
	CHECK_OK(wlog_rig_write(rig, 0, 8, 1));
	CHECK_OK(wlog_rig_flush(rig));
	number = wlog_rig_last(rig);
	begin_long(rig, &req, 0, buf, bytes);
	CHECK_OK(wlog_rig_flush(rig));
	CHECK(wlog_rig_last(rig) > number); /* its beginning is durable */
	destage_lazily(rig, number, 0, 8, 1);
	wlog_close(rig->log);
	rig->log = NULL;
	CHECK_OK(wlog_rig_start(rig));
	wlog_rig_destage(rig, UINT64_MAX);
	wlog_rig_verify(rig, 0, 8, 1);
	free(buf);
	wlog_rig_free(rig);
}

TEST(a_whole_durable_write_supersedes)
{
	const size_t bytes = 192u << 10;
	struct wlog_rig *rig = begin();
	struct dev_req req;
	void *buf = calloc(1, bytes);
	uint64_t number;
	bool newer;

	CHECK(buf != NULL);
	CHECK_OK(wlog_rig_write(rig, 0, 8, 1));
	CHECK_OK(wlog_rig_flush(rig));
	number = wlog_rig_last(rig);
	begin_long(rig, &req, 4, buf, bytes);
	end_long(rig, &req);
	CHECK(req.priv.ptr[0] == &req);
	CHECK_EQ(wlog_rig_superseded(rig, 0, 8, number, &newer), 8);
	CHECK(!newer);
	CHECK_OK(wlog_rig_flush(rig));
	CHECK_EQ(wlog_rig_superseded(rig, 0, 8, number, &newer), 4);
	CHECK(!newer);
	CHECK_EQ(wlog_rig_superseded(rig, 4, 8, number, &newer), 8);
	CHECK(newer);
	free(buf);
	wlog_rig_free(rig);
}

/* What the home keeps in the superblock is of the moment of what it says to be destaged. */
TEST(state_of_the_home_is_never_older_than_what_is_destaged)
{
	struct wlog_rig *rig = begin();
	struct wlog_info info;
	uint64_t lsn;
	bool some = false;

	for (int i = 0; i < 60; i++) {
		CHECK_OK(wlog_rig_write(rig, 64 * (i % 8), 64, (uint8_t)i));
		CHECK_OK(wlog_rig_flush(rig));
		host_enter(&rig->hs.host);
		lsn = wlog_durable_lsn(rig->log);
		wlog_set_home_state(rig->log, &lsn, sizeof(lsn));
		host_leave(&rig->hs.host);
		wlog_rig_destage(rig, UINT64_MAX);
		CHECK_OK(wlog_probe(rig->dev, &info, &rig->err));
		if (!info.home_bytes)
			continue;
		CHECK_EQ(info.home_bytes, sizeof(lsn));
		memcpy(&lsn, info.home, sizeof(lsn));
		CHECK(lsn >= info.destaged_lsn);
		some = true;
	}
	CHECK(some);
	wlog_rig_free(rig);
}
