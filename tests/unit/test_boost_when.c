/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home: when data is written back, and who waits for it. */
#include <errno.h>

#include "lib/boost_rig.h"
#include "lib/tap.h"

#define SECOND UINT64_C(1000000000)

static void set_hold(struct brig *rig, bool hold)
{
	host_enter(&rig->hs.host);
	boost_set_hold(rig->boost, hold);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
}

/* A batch of four segments of 64 KiB. */
static void write_batch(struct brig *rig, uint32_t lba)
{
	for (uint32_t i = 0; i < 4; i++)
		CHECK_OK(brig_write(rig, lba + i * 128, 128));
	CHECK_OK(brig_flush(rig));
}

struct wait {
	struct drain drain;
	int calls, error;
};

static void wait_done(struct drain *drain, int error)
{
	struct wait *w = container_of(drain, struct wait, drain);

	w->calls++;
	w->error = error;
}

static void start_drain(struct brig *rig, struct wait *w)
{
	*w = (struct wait){.drain.done = wait_done};
	host_enter(&rig->hs.host);
	boost_drain(rig->boost, &w->drain);
	host_leave(&rig->hs.host);
}

TEST(full_batch_goes_at_once)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	write_batch(rig, 0);
	host_single_settle(&rig->hs);
	CHECK_EQ(brig_status(rig).batches, 1);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(less_than_a_batch_waits_for_its_age)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	CHECK_OK(brig_flush(rig));
	host_single_advance(&rig->hs, SECOND);
	CHECK_EQ(brig_status(rig).batches, 0);
	host_single_advance(&rig->hs, 4 * SECOND);
	CHECK_EQ(brig_status(rig).batches, 1);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(what_was_never_flushed_grows_old_as_well)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	host_single_advance(&rig->hs, 5 * SECOND);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(without_allow_migrate_nothing_goes)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.allow_migrate = false;
	CHECK_OK(brig_open(rig));
	write_batch(rig, 0);
	host_single_advance(&rig->hs, 60 * SECOND);
	CHECK_EQ(brig_status(rig).batches, 0);
	host_enter(&rig->hs.host);
	boost_set_allow_migrate(rig->boost, true);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	CHECK_EQ(brig_status(rig).batches, 1);
	brig_free(rig);
}

TEST(full_log_overrides_allow_migrate)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.allow_migrate = false;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 300; i++)
		CHECK_OK(brig_write(rig, i % 100 * 128, 128));
	CHECK(brig_status(rig).batches > 0);
	brig_verify(rig);
	brig_free(rig);
}

TEST(lack_of_memory_overrides_nothing)
{
	const struct brig_options opt = {.cache_bytes = 64u << 20};
	struct brig *rig = brig_new(test_seed(), &opt);
	const struct sim_fault slow = {
		.kind = SIM_DEV_DELAY, .ops = 1u << DEV_WRITE, .nth = 1, .delay_ns = SECOND};

	rig->opt.allow_migrate = false;
	rig->opt.log.buffers = 4;
	CHECK_OK(brig_open(rig));
	CHECK_OK(sim_disk_fault(rig->cache_disk, &slow));
	for (uint32_t i = 0; i < 12; i++)
		CHECK_OK(brig_write(rig, i * 128, 128));
	CHECK(rig->hs.now_ns > SECOND);
	CHECK_EQ(brig_status(rig).batches, 0);
	brig_free(rig);
}

TEST(drain_overrides_allow_migrate)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.allow_migrate = false;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(hold_keeps_back_what_a_full_log_asks_for)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	int r = 0;

	rig->opt.hold = true;
	rig->opt.log.full_timeout_ns = SECOND;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 300 && !r; i++)
		r = brig_write(rig, i % 100 * 128, 128);
	CHECK_EQ(r, -ENOSPC);
	CHECK_EQ(brig_status(rig).batches, 0);
	set_hold(rig, false);
	CHECK_OK(brig_write(rig, 0, 128));
	brig_free(rig);
}

TEST(drain_takes_what_is_held_back_and_no_more)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct wait w;

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	start_drain(rig, &w);
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK_OK(brig_flush(rig));
	host_single_advance(&rig->hs, 10 * SECOND);
	CHECK_EQ(w.calls, 1);
	CHECK_EQ(w.error, 0);
	CHECK(brig_home_mark(rig, 0) != 0);
	CHECK_EQ(brig_home_mark(rig, 100), 0);
	brig_free(rig);
}

TEST(drain_of_nothing_ends)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).batches, 0);
	brig_free(rig);
}

TEST(drain_needs_the_right_only_if_there_is_something)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_look(rig, true, false));
	CHECK_OK(brig_drain(rig));
	CHECK_OK(brig_acquire(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_look(rig, true, false));
	CHECK_EQ(brig_drain(rig), -EPERM);
	brig_free(rig);
}

TEST(cancelled_drain_is_never_done)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct wait w, other;

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_WRITE, 1, 0);
	CHECK_OK(brig_write(rig, 0, 8));
	start_drain(rig, &w);
	start_drain(rig, &other);
	host_enter(&rig->hs.host);
	CHECK_OK(boost_drain_cancel(rig->boost, &w.drain));
	CHECK_EQ(boost_drain_cancel(rig->boost, &w.drain), -ENOENT);
	host_leave(&rig->hs.host);
	sim_disk_heal(rig->backing_disk);
	host_single_advance(&rig->hs, 20 * SECOND);
	CHECK_EQ(w.calls, 0);
	CHECK_EQ(other.calls, 1);
	CHECK_EQ(other.error, 0);
	brig_free(rig);
}

TEST(hold_stops_a_batch_that_is_tried_again)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	uint32_t n;

	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_WRITE, 1, 0);
	write_batch(rig, 0);
	host_single_advance(&rig->hs, SECOND);
	set_hold(rig, true);
	host_single_advance(&rig->hs, 10 * SECOND);
	n = rig->nrequests;
	sim_disk_heal(rig->backing_disk);
	host_single_advance(&rig->hs, 100 * SECOND);
	CHECK_EQ(rig->nrequests, n);
	set_hold(rig, false);
	host_single_advance(&rig->hs, 10 * SECOND);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(stop_ends_drains)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct wait w;

	CHECK_OK(brig_open(rig));
	brig_fault(rig->backing_disk, DEV_WRITE, 1, 0);
	CHECK_OK(brig_write(rig, 0, 8));
	start_drain(rig, &w);
	host_single_advance(&rig->hs, SECOND);
	brig_close(rig);
	CHECK_EQ(w.calls, 1);
	CHECK_EQ(w.error, -ECANCELED);
	sim_disk_heal(rig->backing_disk);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

TEST(release_refuses_until_all_is_home)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	CHECK_EQ(boost_release(rig->boost, &rig->err), -EBUSY);
	err_clear(&rig->err);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(larger_batches_take_effect_at_once)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	host_enter(&rig->hs.host);
	boost_set_batch(rig->boost, 8);
	host_leave(&rig->hs.host);
	write_batch(rig, 0);
	host_single_settle(&rig->hs);
	CHECK_EQ(brig_status(rig).batches, 0);
	write_batch(rig, 4096);
	host_single_settle(&rig->hs);
	CHECK_EQ(brig_status(rig).batches, 1);
	CHECK_EQ(brig_status(rig).nr_max_batched_migration, 8);
	brig_free(rig);
}

TEST(batch_of_one_takes_one_segment)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.nr_max_batched_migration = 1;
	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	write_batch(rig, 0);
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).batches, 4);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(write_of_several_segments_goes_home_in_one_batch)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.nr_max_batched_migration = 1;
	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 700));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).batches, 1);
	brig_verify_home(rig);
	brig_free(rig);
}
