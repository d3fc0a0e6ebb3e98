/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home: what is written reaches its own place on the backing device, and how. */
#include <string.h>

#include "lib/boost_rig.h"
#include "lib/tap.h"

TEST(drained_data_is_in_its_place)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK_OK(brig_write(rig, 7000, 300));
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_verify(rig);
	brig_free(rig);
}

TEST(released_volume_opens_again)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 500; i++)
		brig_random_op(rig);
	brig_release(rig);
	brig_verify_home(rig);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	for (int i = 0; i < 500; i++)
		brig_random_op(rig);
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(flushed_data_survives_a_crash)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++)
			brig_random_op(rig);
		CHECK_OK(brig_flush(rig));
		brig_crash(rig, SIM_KEEP_RANDOM(test_seed() + (unsigned int)round));
		CHECK_OK(brig_open(rig));
		brig_verify(rig);
	}
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

/* ---- what is written */

TEST(newest_copy_alone_is_written)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 10; i++)
		CHECK_OK(brig_write(rig, 64, 8));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(rig->nrequests, 2);
	CHECK_EQ(rig->requests[0].op, DEV_WRITE);
	CHECK_EQ(rig->requests[0].len_bytes, 4096);
	CHECK_EQ(rig->requests[1].op, DEV_FLUSH);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(neighbours_are_one_write)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 32; i++)
		CHECK_OK(brig_write(rig, 1000 + (i * 13 % 32) * 8, 8));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(rig->nrequests, 2);
	CHECK_EQ(rig->requests[0].off_bytes, 1000 * 512);
	CHECK_EQ(rig->requests[0].len_bytes, 32 * 4096);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(writes_are_sorted_and_bounded)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	uint64_t last = 0;

	rig->opt.nr_max_batched_migration = 64;
	rig->opt.writes_in_flight = 1;
	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 4096, 3000));
	for (int i = 0; i < 60; i++)
		CHECK_OK(brig_write(rig, (uint32_t)rng_below(&rig->hs.rng, 4000), 8));
	CHECK_OK(brig_drain(rig));
	for (uint32_t i = 0; i + 1 < rig->nrequests; i++) {
		CHECK_EQ(rig->requests[i].op, DEV_WRITE);
		CHECK(rig->requests[i].len_bytes <= 1 << 20);
		CHECK(i == 0 || rig->requests[i].off_bytes > last);
		last = rig->requests[i].off_bytes;
	}
	CHECK_EQ(rig->requests[rig->nrequests - 1].op, DEV_FLUSH);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(old_copy_goes_home_while_the_newer_one_is_volatile)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	uint32_t mark;

	rig->opt.hold = true;
	rig->opt.nr_max_batched_migration = 1;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 128));
	mark = rig->next_mark;
	CHECK_OK(brig_flush(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	host_enter(&rig->hs.host);
	boost_set_hold(rig->boost, false);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	CHECK_EQ(brig_home_mark(rig, 0), mark);
	CHECK_EQ(brig_home_mark(rig, 127), mark);
	brig_verify(rig);
	brig_free(rig);
}

TEST(durable_newer_copy_spares_the_old_one)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	rig->opt.nr_max_batched_migration = 1;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 128));
	CHECK_OK(brig_flush(rig));
	CHECK_OK(brig_write(rig, 0, 128));
	CHECK_OK(brig_flush(rig));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).superseded_bytes, 65536);
	CHECK_EQ(brig_status(rig).migrated_bytes, 65536);
	CHECK_EQ(brig_status(rig).batches, 2);
	/* The batch that had nothing to write needs no flush. */
	CHECK_EQ(brig_status(rig).flushes, 1);
	brig_verify_home(rig);
	brig_free(rig);
}

/* ---- zeros */

TEST(zeros_and_discards_read_as_zeros_for_ever)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 512));
	CHECK_OK(brig_drain(rig));
	CHECK_OK(brig_zero(rig, DEV_DISCARD, 8, 100));
	CHECK_OK(brig_zero(rig, DEV_ZERO, 200, 100));
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

TEST(long_zero_is_taken_in_parts_by_a_device_that_writes_it)
{
	const struct brig_options opt = {.backing_bytes = 24u << 20};
	struct brig *rig = brig_new(test_seed(), &opt);

	rig->can_zero = false;
	brig_reopen_media(rig);
	CHECK_OK(brig_open(rig));
	CHECK(!brig_status(rig).can_discard);
	CHECK_OK(brig_zero(rig, DEV_ZERO, 0, rig->sectors));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(rig->nrequests, 4);
	CHECK_EQ(rig->requests[1].op, DEV_ZERO);
	CHECK_EQ(rig->requests[1].off_bytes, 8u << 20);
	CHECK_EQ(rig->requests[1].len_bytes, 8u << 20);
	brig_free(rig);
}

/* ---- geometries */

TEST(blocks_of_4096_bytes)
{
	const struct brig_options opt = {.block_bytes = 4096};
	struct brig *rig = brig_new(test_seed(), &opt);

	CHECK_OK(brig_open(rig));
	CHECK_EQ(brig_status(rig).block_bytes, 4096);
	for (int i = 0; i < 300; i++)
		brig_random_op(rig);
	brig_release(rig);
	brig_verify_home(rig);
	for (uint32_t i = 0; i < rig->nrequests; i++) {
		CHECK_EQ(rig->requests[i].off_bytes % 4096, 0);
		CHECK_EQ(rig->requests[i].len_bytes % 4096, 0);
	}
	brig_free(rig);
}

TEST(device_of_one_sector)
{
	const struct brig_options opt = {.backing_bytes = 512};
	struct brig *rig = brig_new(test_seed(), &opt);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 1));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	CHECK_OK(brig_open(rig));
	brig_release(rig);
	brig_free(rig);
}

TEST(device_of_no_round_size)
{
	const struct brig_options opt = {.backing_bytes = 1234567 / 512 * 512};
	struct brig *rig = brig_new(test_seed(), &opt);

	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 300; i++)
		brig_random_op(rig);
	CHECK_OK(brig_write(rig, rig->sectors - 3, 3));
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	CHECK_OK(brig_write(rig, 5, 3));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

TEST(cache_of_the_smallest_size)
{
	const struct brig_options opt = {.cache_bytes = 512u << 10};
	struct brig *rig = brig_new(test_seed(), &opt);

	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 2000; i++) {
		const uint32_t lba = (uint32_t)rng_below(&rig->hs.rng, rig->sectors - 8);

		CHECK_OK(brig_write(rig, lba, 8));
	}
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

/* ---- memory */

TEST(data_that_left_memory_is_loaded)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	rig->opt.log.buffers = 4;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 40; i++)
		CHECK_OK(brig_write(rig, i * 200, 128));
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(small_segments_make_a_batch_of_their_worth)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 60; i++) {
		CHECK_OK(brig_write(rig, i * 100, 1));
		CHECK_OK(brig_flush(rig));
	}
	CHECK_OK(brig_drain(rig));
	CHECK(brig_status(rig).batches <= 2);
	brig_verify_home(rig);
	brig_free(rig);
}

/* ---- status */

TEST(status_counts)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct boost_status st;

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	st = brig_status(rig);
	CHECK(st.acquired && st.hold && st.allow_migrate && st.can_discard);
	CHECK_EQ(st.dirty_sectors, 0);
	CHECK_EQ(st.oldest_dirty_ns, 0);
	CHECK_EQ(st.sectors, BRIG_SECTORS);
	CHECK_EQ(st.binding.backing_bytes, BRIG_SECTORS * 512);
	CHECK(!uuid_is_zero(&st.volume_uuid));
	CHECK_OK(brig_write(rig, 0, 24));
	CHECK_EQ(brig_status(rig).dirty_sectors, 24);
	CHECK(brig_status(rig).oldest_dirty_ns > 0);
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_look(rig, true, false));
	CHECK_EQ(brig_status(rig).dirty_sectors, 24);
	CHECK_OK(brig_acquire(rig));
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK_EQ(brig_status(rig).dirty_sectors, 32);
	CHECK_OK(brig_drain(rig));
	st = brig_status(rig);
	CHECK_EQ(st.dirty_sectors, 0);
	CHECK_EQ(st.oldest_dirty_ns, 0);
	CHECK_EQ(st.migrated_bytes, 32 * 512);
	CHECK_EQ(st.migrate_writes, 2);
	CHECK_EQ(st.home_error, 0);
	CHECK_EQ(st.failed, 0);
	brig_free(rig);
}

TEST(dirty_extents_are_told_in_order)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	uint64_t lba, sectors;

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	host_enter(&rig->hs.host);
	CHECK(!boost_dirty(rig->boost, 0, &lba, &sectors));
	host_leave(&rig->hs.host);
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK_OK(brig_zero(rig, DEV_ZERO, 108, 8));
	CHECK_OK(brig_write(rig, 500, 1));
	host_enter(&rig->hs.host);
	CHECK(boost_dirty(rig->boost, 0, &lba, &sectors));
	CHECK(lba == 100 && sectors == 16);
	CHECK(boost_dirty(rig->boost, 116, &lba, &sectors));
	CHECK(lba == 500 && sectors == 1);
	CHECK(boost_dirty(rig->boost, 110, &lba, &sectors));
	CHECK(lba == 110 && sectors == 6);
	CHECK(!boost_dirty(rig->boost, 501, &lba, &sectors));
	host_leave(&rig->hs.host);
	brig_free(rig);
}

TEST(extents_are_data_unless_the_log_knows_zeros)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	bool data;

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK_OK(brig_zero(rig, DEV_ZERO, 108, 8));
	host_enter(&rig->hs.host);
	CHECK_EQ(boost_extent(rig->boost, 0, 1000, &data), 108);
	CHECK(data);
	CHECK_EQ(boost_extent(rig->boost, 108, 1000, &data), 116);
	CHECK(!data);
	CHECK_EQ(boost_extent(rig->boost, 116, 1000, &data), 1000);
	CHECK(data);
	host_leave(&rig->hs.host);
	brig_free(rig);
}

/* While a batch is written the next one is read: memory has forgotten it long ago. */
static struct brig *ahead_rig(unsigned int more)
{
	struct brig *rig = brig_new(test_seed() + more, NULL);

	rig->opt.hold = true;
	rig->opt.log.buffers = 4;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 80; i++)
		CHECK_OK(brig_write(rig, (uint32_t)rng_below(&rig->hs.rng, 16000), 100));
	CHECK_OK(brig_flush(rig));
	return rig;
}

static void release_hold(struct brig *rig)
{
	host_enter(&rig->hs.host);
	boost_set_hold(rig->boost, false);
	host_leave(&rig->hs.host);
}

TEST(data_is_read_ahead)
{
	struct brig *rig = ahead_rig(0);

	release_hold(rig);
	host_single_settle(&rig->hs);
	CHECK(brig_status(rig).batches > 10);
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_verify(rig);
	brig_release(rig);
	brig_free(rig);
}

TEST(reading_ahead_and_faults)
{
	for (unsigned int k = 0; k < 60; k++) {
		struct brig *rig = ahead_rig(k);

		brig_fault(rig->backing_disk, k % 2 ? DEV_WRITE : DEV_FLUSH, 1 + k / 4, 1 + k % 3);
		brig_fault(rig->cache_disk, DEV_READ, 1 + k, k % 5);
		release_hold(rig);
		host_single_settle(&rig->hs);
		if (k % 3 == 0) {
			/* Less is taken than was read. */
			host_enter(&rig->hs.host);
			boost_set_batch(rig->boost, 1);
			host_leave(&rig->hs.host);
		}
		sim_disk_heal(rig->cache_disk);
		CHECK_OK(brig_drain(rig));
		brig_verify_home(rig);
		if (k % 7 == 0)
			host_single_advance(&rig->hs, UINT64_C(60000000000));
		for (uint32_t i = 0; i < 20; i++)
			CHECK_OK(brig_write(rig, i * 300, 100));
		brig_release(rig);
		brig_verify_home(rig);
		brig_free(rig);
	}
}

TEST(stop_while_data_is_read_ahead)
{
	for (unsigned int k = 0; k < 60; k++) {
		struct brig *rig = ahead_rig(k);
		struct list_head *link;

		release_hold(rig);
		/* So many steps, and then no more. */
		for (unsigned int i = 0; i < k; i++) {
			link = list_pop(&rig->hs.works);
			if (link)
				list_entry(link, struct work, link)
					->run(list_entry(link, struct work, link));
			dev_poll(k % 2 ? rig->cache : rig->backing, false);
			dev_poll(rig->cache, false);
		}
		brig_close(rig);
		CHECK_OK(brig_open(rig));
		brig_verify(rig);
		brig_free(rig);
	}
}
