/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home: devices that fail, once or for ever. */
#include <errno.h>
#include <string.h>

#include "lib/boost_rig.h"
#include "lib/tap.h"

#define SECOND UINT64_C(1000000000)

static uint32_t count(const struct brig *rig, enum dev_op op)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < rig->nrequests; i++)
		n += rig->requests[i].op == op;
	return n;
}

static void write_some(struct brig *rig)
{
	for (uint32_t i = 0; i < 20; i++)
		CHECK_OK(brig_write(rig, i * 64, 8));
	CHECK_OK(brig_flush(rig));
}

/* Which of the requests of its kind fails does not matter, nor that it fails again. */
TEST(any_request_may_fail)
{
	static const enum dev_op ops[] = {DEV_READ, DEV_WRITE, DEV_FLUSH, DEV_ZERO};

	for (unsigned int k = 0; k < 4 * 12; k++) {
		struct brig *rig = brig_new(test_seed() + k, NULL);

		CHECK_OK(brig_open(rig));
		brig_fault(rig->backing_disk, ops[k % 4], k / 4 + 1, 1 + k % 3);
		for (int i = 0; i < 60; i++) {
			if (i % 10 == 0)
				CHECK_OK(brig_zero(rig, DEV_ZERO, 5000 + 50 * (uint32_t)i, 20));
			CHECK_OK(brig_write(rig, (uint32_t)rng_below(&rig->hs.rng, 8000), 8));
		}
		CHECK_OK(brig_drain(rig));
		sim_disk_heal(rig->backing_disk);
		brig_verify_home(rig);
		brig_release(rig);
		CHECK_OK(brig_open(rig));
		brig_verify(rig);
		brig_free(rig);
	}
}

TEST(failed_flush_writes_all_again)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	write_some(rig);
	brig_fault(rig->backing_disk, DEV_FLUSH, 1, 1);
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(count(rig, DEV_WRITE), 40);
	CHECK_EQ(count(rig, DEV_FLUSH), 2);
	CHECK_EQ(brig_status(rig).retries, 1);
	CHECK_EQ(brig_status(rig).migrated_bytes, 20 * 4096);
	CHECK_EQ(brig_status(rig).home_error, 0);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(nothing_is_home_while_flushes_fail)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct boost_status st;

	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_FLUSH, 1, 0);
	write_some(rig);
	host_single_advance(&rig->hs, 60 * SECOND);
	st = brig_status(rig);
	CHECK_EQ(st.home_error, -EIO);
	CHECK_EQ(st.batches, 0);
	CHECK_EQ(st.log.destaged_seg, 0);
	CHECK(st.retries > 5 && st.retries < 60);
	brig_verify(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	sim_disk_heal(rig->backing_disk);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(drain_ends_when_the_device_does_not_come_back)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.home_timeout_ns = 30 * SECOND;
	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_WRITE, 1, 0);
	write_some(rig);
	CHECK_EQ(brig_drain(rig), -EIO);
	CHECK(rig->hs.now_ns >= 30 * SECOND && rig->hs.now_ns < 40 * SECOND);
	sim_disk_heal(rig->backing_disk);
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(writers_wait_for_a_failing_device_and_go_on_with_it)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	int r = 0;

	rig->opt.log.full_timeout_ns = 5 * SECOND;
	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_WRITE, 1, 0);
	/* Other places each time: what is superseded would need no writing. */
	for (uint32_t i = 0; i < 128 && !r; i++)
		r = brig_write(rig, i * 128, 128);
	CHECK_EQ(r, -ENOSPC);
	brig_verify(rig);
	sim_disk_heal(rig->backing_disk);
	for (uint32_t i = 0; i < 200; i++)
		CHECK_OK(brig_write(rig, i % 100 * 128, 128));
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(failing_reads_are_the_readers_affair)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	uint8_t buf[4096];

	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_READ, 1, 1);
	CHECK_EQ(brig_read(rig, 0, 8, buf), -EIO);
	CHECK_OK(brig_read(rig, 0, 8, buf));
	brig_free(rig);
}

/* ---- the cache */

/* Much of it no longer in memory, and hold. */
static struct brig *loaded_rig(void)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	rig->opt.log.buffers = 4;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 40; i++)
		CHECK_OK(brig_write(rig, i * 200, 128));
	CHECK_OK(brig_flush(rig));
	return rig;
}

TEST(failing_loads_are_tried_again)
{
	for (unsigned int nth = 1; nth < 8; nth++) {
		struct brig *rig = loaded_rig();

		brig_fault(rig->cache_disk, DEV_READ, nth, 3);
		CHECK_OK(brig_drain(rig));
		CHECK_EQ(brig_status(rig).lost_bytes, 0);
		brig_verify_home(rig);
		brig_free(rig);
	}
}

TEST(cache_that_cannot_be_read_keeps_its_data)
{
	struct brig *rig = loaded_rig();

	rig->opt.home_timeout_ns = 60 * SECOND;
	brig_fault(rig->cache_disk, DEV_READ, 1, 0);
	CHECK(brig_drain(rig) < 0);
	CHECK_EQ(brig_status(rig).lost_bytes, 0);
	sim_disk_heal(rig->cache_disk);
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_free(rig);
}

/* A cache that takes nothing any more: what it has goes home, the rest ends with its error. */
TEST(dying_cache)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	uint8_t buf[4096];
	uint32_t mark;

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	mark = rig->next_mark;
	CHECK_OK(brig_flush(rig));
	brig_fault(rig->cache_disk, DEV_WRITE, 1, 0);
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK(brig_flush(rig) < 0);
	CHECK(brig_write(rig, 200, 8) < 0);
	/* Memory still has it, and the backing device what was never written. */
	brig_verify(rig);
	CHECK(brig_drain(rig) < 0);
	host_enter(&rig->hs.host);
	boost_set_hold(rig->boost, false);
	host_leave(&rig->hs.host);
	host_single_advance(&rig->hs, 10 * SECOND);
	CHECK_EQ(brig_home_mark(rig, 0), mark);
	CHECK_EQ(brig_home_mark(rig, 100), 0);
	CHECK(brig_drain(rig) < 0);
	CHECK_OK(brig_read(rig, 1000, 8, buf));
	brig_close(rig);
	brig_free(rig);
}

TEST(cache_that_dies_during_a_drain_ends_it)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	brig_fault(rig->cache_disk, DEV_WRITE, 1, 0);
	CHECK(brig_drain(rig) < 0);
	CHECK(rig->hs.now_ns < 5 * SECOND);
	brig_free(rig);
}

TEST(only_what_the_dead_cache_held_is_lost_to_readers)
{
	struct brig *rig = loaded_rig();
	uint8_t buf[4096];

	brig_fault(rig->cache_disk, DEV_READ, 1, 0);
	CHECK_EQ(brig_read(rig, 0, 8, buf), -EIO);
	CHECK_OK(brig_read(rig, 39 * 200, 8, buf));
	CHECK_OK(brig_read(rig, 128, 8, buf));
	brig_free(rig);
}

/* ---- a place that is refused */

static void refuse_place(struct brig *rig, uint32_t lba, uint32_t sectors)
{
	const struct sim_fault fault = {
		.kind = SIM_DEV_ERROR,
		.ops = 1u << DEV_WRITE | 1u << DEV_ZERO,
		.nth = 1,
		.off_bytes = lba * 512ull,
		.len_bytes = sectors * 512ull,
	};

	CHECK_OK(sim_disk_fault(rig->backing_disk, &fault));
}

TEST(refused_place_does_not_hold_up_the_rest)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	refuse_place(rig, 800, 1);
	CHECK_OK(brig_write(rig, 0, 1600));
	/* Several times what the log has room for. */
	for (uint32_t i = 0; i < 500; i++) {
		CHECK_OK(brig_write(rig, 2000 + i % 100 * 128, 128));
		host_single_advance(&rig->hs, SECOND / 10);
	}
	CHECK(brig_status(rig).log.relogged_bytes > 0);
	CHECK(brig_status(rig).log.relogged_bytes < 1 << 20);
	CHECK_EQ(brig_status(rig).home_error, -EIO);
	brig_verify(rig);
	CHECK(brig_home_mark(rig, 0) != 0 && brig_home_mark(rig, 1599) != 0);
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	sim_disk_heal(rig->backing_disk);
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).home_error, 0);
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(drain_of_what_is_refused_ends_with_its_error)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	refuse_place(rig, 800, 8);
	CHECK_OK(brig_write(rig, 800, 8));
	CHECK_OK(brig_write(rig, 900, 8));
	CHECK_EQ(brig_drain(rig), -EIO);
	CHECK(rig->hs.now_ns >= 60 * SECOND && rig->hs.now_ns < 80 * SECOND);
	CHECK_EQ(boost_release(rig->boost, &rig->err), -EBUSY);
	CHECK(brig_home_mark(rig, 900) != 0);
	/* Written over, and the device has found another place for it. */
	sim_disk_heal(rig->backing_disk);
	CHECK_OK(brig_write(rig, 800, 8));
	err_clear(&rig->err);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(zeros_may_be_refused_as_well)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 3000));
	CHECK_OK(brig_drain(rig));
	refuse_place(rig, 800, 8);
	CHECK_OK(brig_zero(rig, DEV_ZERO, 700, 200));
	CHECK_OK(brig_write(rig, 750, 8));
	CHECK_OK(brig_write(rig, 5000, 8));
	CHECK_OK(brig_flush(rig));
	host_single_advance(&rig->hs, 20 * SECOND);
	CHECK(brig_status(rig).log.relogged_bytes > 0);
	CHECK(brig_home_mark(rig, 5000) != 0);
	brig_verify(rig);
	sim_disk_heal(rig->backing_disk);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(many_refused_places_are_found)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 10; i++)
		refuse_place(rig, 1000 + i * 100, 2);
	for (uint32_t i = 0; i < 40; i++)
		CHECK_OK(brig_write(rig, 900 + i * 33, 33));
	CHECK_OK(brig_flush(rig));
	host_single_advance(&rig->hs, 10 * SECOND);
	brig_verify(rig);
	for (uint32_t lba = 900; lba < 900 + 40 * 33; lba += 50) {
		if (lba % 100 > 10 && lba % 100 < 90)
			CHECK(brig_home_mark(rig, lba) != 0);
	}
	sim_disk_heal(rig->backing_disk);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(stop_while_places_are_refused)
{
	for (unsigned int k = 0; k < 40; k++) {
		struct brig *rig = brig_new(test_seed() + k, NULL);

		CHECK_OK(brig_open(rig));
		refuse_place(rig, 800, 8);
		CHECK_OK(brig_write(rig, 800, 8));
		CHECK_OK(brig_write(rig, 900, 8));
		CHECK_OK(brig_flush(rig));
		host_single_advance(&rig->hs, k * SECOND / 8);
		brig_close(rig);
		CHECK_OK(brig_open(rig));
		brig_verify(rig);
		brig_free(rig);
	}
}
