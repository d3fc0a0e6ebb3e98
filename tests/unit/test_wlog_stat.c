/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests counted by kind: what the log held of the range, where, and whether it was whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"
#include "lib/wlog_rig.h"
#include "wlog/wlog_impl.h"

#define R 0u
#define W WLOG_IO_WRITE
#define HIT WLOG_IO_HIT
#define MEM WLOG_IO_BUFFER
#define FULL WLOG_IO_FULL

/*
 * Where the sectors are: of each block (8 sectors) from lba 0 on
 *
 *	block    0       1       2       3       4       5
 *	         device  device  memory  memory  home    zeros, in the map alone
 */
static struct wlog_rig *begin(void)
{
	struct wlog_rig *rig = wlog_rig_new(4u << 20, test_seed());

	CHECK_OK(wlog_rig_start(rig));
	CHECK_OK(wlog_rig_write(rig, 0, 16, 1));
	CHECK_OK(wlog_rig_flush(rig));
	/* What is read back by an opening is on the device alone. */
	wlog_rig_crash(rig);
	CHECK_OK(wlog_rig_start(rig));
	CHECK_OK(wlog_rig_write(rig, 16, 16, 2));
	CHECK_OK(wlog_rig_op(rig, DEV_ZERO, 40, 8));
	host_enter(&rig->hs.host);
	wlog_clear_stat(rig->log);
	host_leave(&rig->hs.host);
	return rig;
}

/* Since the start exactly one request was counted, and it was of that kind. */
static void check_kind(struct wlog_rig *rig, unsigned int kind)
{
	struct wlog_status st;

	wlog_rig_status(rig, &st);
	for (unsigned int i = 0; i < WLOG_IO_KINDS; i++)
		CHECK_EQ(st.io[i], i == kind);
}

static void read_is(uint64_t lba, uint32_t sectors, unsigned int kind)
{
	struct wlog_rig *rig = begin();
	uint8_t buf[64 * DEV_SECTOR_BYTES];

	CHECK_OK(wlog_rig_read(rig, lba, sectors, buf));
	check_kind(rig, kind);
	wlog_rig_free(rig);
}

static void write_is(uint64_t lba, uint32_t sectors, unsigned int kind)
{
	struct wlog_rig *rig = begin();

	CHECK_OK(wlog_rig_write(rig, lba, sectors, 9));
	check_kind(rig, kind);
	wlog_rig_free(rig);
}

TEST(read_of_the_home)
{
	read_is(32, 8, R);
	read_is(33, 2, R);
}

TEST(read_from_the_device)
{
	read_is(0, 8, R | HIT | FULL);
	read_is(1, 2, R | HIT);
	read_is(0, 16, R | HIT | FULL);
}

TEST(read_from_memory)
{
	read_is(16, 8, R | HIT | MEM | FULL);
	read_is(17, 2, R | HIT | MEM);
	read_is(40, 8, R | HIT | MEM | FULL);
}

TEST(read_from_memory_and_device)
{
	read_is(8, 16, R | HIT | FULL);
	read_is(15, 2, R | HIT);
}

TEST(read_from_memory_and_home)
{
	read_is(24, 16, R | HIT | MEM);
	read_is(31, 2, R | HIT | MEM);
}

TEST(read_from_everywhere)
{
	read_is(0, 48, R | HIT);
	read_is(1, 46, R | HIT);
}

TEST(read_beyond_the_log_and_of_the_log)
{
	read_is(48, 16, R);
	read_is(44, 8, R | HIT | MEM);
}

TEST(write_over_the_home)
{
	write_is(32, 8, W | FULL);
	write_is(33, 2, W);
}

TEST(write_over_the_device)
{
	write_is(0, 8, W | HIT | FULL);
	write_is(1, 2, W | HIT);
}

TEST(write_over_memory)
{
	write_is(16, 8, W | HIT | MEM | FULL);
	write_is(17, 2, W | HIT | MEM);
}

TEST(write_over_memory_and_device)
{
	write_is(8, 16, W | HIT | FULL);
	write_is(15, 2, W | HIT);
}

TEST(write_over_memory_and_home)
{
	write_is(24, 16, W | HIT | MEM | FULL);
	write_is(31, 2, W | HIT | MEM);
}

TEST(write_over_everything)
{
	write_is(0, 48, W | HIT | FULL);
	write_is(1, 46, W | HIT);
}

/* A write of several portions is one request, whatever each of them met. */
TEST(a_long_write_counts_once)
{
	struct wlog_rig *rig = begin();

	CHECK_OK(wlog_rig_write(rig, 16, 512, 3));
	check_kind(rig, W | HIT | MEM | FULL);
	wlog_rig_free(rig);
	write_is(0, 512, W | HIT | FULL);
	write_is(64, 512, W | FULL);
}

TEST(what_is_refused_is_not_counted)
{
	struct wlog_rig *rig = begin();
	uint8_t buf[DEV_SECTOR_BYTES];

	CHECK_EQ(wlog_rig_read(rig, WLOG_RIG_SECTORS, 1, buf), -EINVAL);
	CHECK_EQ(wlog_rig_write(rig, WLOG_RIG_SECTORS, 1, 1), -EINVAL);
	check_kind(rig, WLOG_IO_KINDS);
	wlog_rig_free(rig);
}

TEST(zeros_and_discards_are_no_writes)
{
	struct wlog_rig *rig = begin();

	CHECK_OK(wlog_rig_op(rig, DEV_ZERO, 0, 8));
	CHECK_OK(wlog_rig_op(rig, DEV_DISCARD, 16, 8));
	CHECK_OK(wlog_rig_flush(rig));
	check_kind(rig, WLOG_IO_KINDS);
	wlog_rig_free(rig);
}

TEST(where_the_log_stands)
{
	struct wlog_rig *rig = begin();
	struct wlog_status st;
	uint64_t last;

	wlog_rig_status(rig, &st);
	CHECK_EQ(st.head_sectors, 16);
	CHECK_EQ(st.durable_seg + 1, st.head_seg);
	CHECK_EQ(st.destaged_seg, 0);
	CHECK_OK(wlog_rig_flush(rig));
	last = wlog_rig_last(rig);
	wlog_rig_status(rig, &st);
	CHECK_EQ(st.durable_seg, last);
	CHECK_EQ(st.head_seg, last + 1);
	CHECK_EQ(st.head_sectors, 0);
	wlog_rig_destage(rig, last);
	wlog_rig_status(rig, &st);
	CHECK_EQ(st.destaged_seg, last);
	wlog_rig_free(rig);
}
