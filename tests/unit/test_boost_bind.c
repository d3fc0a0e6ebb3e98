/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home: which cache belongs to which backing device (P6), and giving one up. */
#include <errno.h>
#include <string.h>

#include "lib/boost_rig.h"
#include "lib/tap.h"

/* A volume with something in the log that is not home, after a crash. */
static struct brig *dirty_rig(const char *identity)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	memcpy(rig->identity, identity, strlen(identity) + 1);
	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 30; i++)
		CHECK_OK(brig_write(rig, 2000 + (uint32_t)i * 100, 8));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	return rig;
}

/* One that was released. */
static struct brig *clean_rig(const char *identity)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	memcpy(rig->identity, identity, strlen(identity) + 1);
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 2000, 8));
	brig_release(rig);
	return rig;
}

static void set_identity(struct brig *rig, const char *identity)
{
	memset(rig->identity, 0, sizeof(rig->identity));
	memcpy(rig->identity, identity, strlen(identity));
}

static void poke(struct brig *rig, uint64_t off_bytes)
{
	sim_disk_poke(rig->backing_disk, off_bytes, "somebody else", 13);
}

/* ---- the matrix of open.c */

TEST(cache_without_a_log_is_refused)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	static const uint8_t zeros[4096];

	sim_disk_poke(rig->cache_disk, 0, zeros, sizeof(zeros));
	sim_disk_poke(rig->cache_disk, 65536, zeros, sizeof(zeros));
	CHECK_EQ(brig_open(rig), -ENODEV);
	brig_free(rig);
}

TEST(new_cache_takes_the_volume_that_is_asked_for)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct boost_status st;
	struct wlog_info info;

	rig->opt.volume_uuid = uuid_from_bits(1, 2);
	CHECK_OK(brig_open(rig));
	st = brig_status(rig);
	CHECK(uuid_equal(&st.volume_uuid, &rig->opt.volume_uuid));
	brig_release(rig);
	CHECK_OK(wlog_probe(rig->cache, &info, NULL));
	CHECK(uuid_equal(&info.id.volume_uuid, &rig->opt.volume_uuid));
	CHECK(info.clean);
	brig_free(rig);
}

TEST(cache_of_another_volume_is_refused)
{
	struct brig *rig = clean_rig("");

	rig->opt.volume_uuid = uuid_from_bits(1, 2);
	CHECK_EQ(brig_open(rig), -EXDEV);
	brig_free(rig);
}

TEST(started_log_without_our_state_is_refused)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	static const struct wlog_home_ops ops;
	struct wlog_home home = {.ops = &ops, .sectors = 1000};
	struct wlog_identity id = {.volume_uuid = uuid_from_bits(3, 4), .attach_epoch = 1};
	struct wlog_options opt;
	struct wlog *log;

	wlog_options_default(&opt);
	opt.segment_bytes = 65536;
	CHECK_OK(wlog_open(&rig->hs.host, rig->cache, &home, &opt, 0, &log, NULL));
	id.log_uuid = wlog_identity(log)->log_uuid;
	CHECK_OK(wlog_start(log, &id, 0, NULL));
	wlog_close(log);
	CHECK_EQ(brig_open(rig), -EXDEV);
	/* Nor is it given up by mistake. */
	CHECK_OK(brig_look(rig, true, true));
	CHECK_EQ(brig_acquire(rig), -EXDEV);
	brig_free(rig);
}

TEST(another_identity_is_refused)
{
	struct brig *rig = dirty_rig("wwid:1");

	set_identity(rig, "wwid:2");
	CHECK_EQ(brig_open(rig), -EXDEV);
	CHECK(strstr(rig->err.text, "wwid:1") && strstr(rig->err.text, "wwid:2"));
	set_identity(rig, "");
	CHECK_EQ(brig_open(rig), -EXDEV);
	set_identity(rig, "wwid:1");
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

TEST(another_identity_is_refused_after_a_release)
{
	struct brig *rig = clean_rig("wwid:1");

	set_identity(rig, "wwid:2");
	CHECK_EQ(brig_open(rig), -EXDEV);
	brig_free(rig);
}

TEST(unknown_identity_is_learnt)
{
	struct brig *rig = dirty_rig("");

	set_identity(rig, "wwid:2");
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	set_identity(rig, "wwid:3");
	CHECK_EQ(brig_open(rig), -EXDEV);
	brig_free(rig);
}

TEST(shrunk_device_is_refused)
{
	struct brig *rig = dirty_rig("");

	rig->cut_bytes = 4096;
	brig_reopen_media(rig);
	CHECK_EQ(brig_open(rig), -EXDEV);
	brig_free(rig);
}

TEST(shrunk_device_is_taken_after_a_release)
{
	struct brig *rig = clean_rig("");

	rig->cut_bytes = 4096;
	brig_reopen_media(rig);
	CHECK_OK(brig_open(rig));
	CHECK_EQ(brig_status(rig).binding.backing_bytes, rig->backing_bytes - 4096);
	CHECK_OK(brig_write(rig, 0, 8));
	brig_release(rig);
	brig_free(rig);
}

TEST(grown_device_is_taken)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	rig->cut_bytes = 1 << 20;
	brig_reopen_media(rig);
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 2000, 8));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	rig->cut_bytes = 0;
	brig_reopen_media(rig);
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, rig->sectors - 8, 8));
	brig_verify(rig);
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	/* The new size counts from now on. */
	rig->cut_bytes = 1 << 20;
	brig_reopen_media(rig);
	CHECK_EQ(brig_open(rig), -EXDEV);
	rig->cut_bytes = 0;
	brig_reopen_media(rig);
	poke(rig, rig->backing_bytes - 20000);
	CHECK_EQ(brig_open(rig), -ESTALE);
	brig_free(rig);
}

TEST(device_that_was_resized_after_a_look_is_to_be_opened_again)
{
	const uint64_t sizes[] = {4096, 0, 8192};
	struct brig *rig = clean_rig("");

	for (int i = 0; i < 3; i++) {
		CHECK_OK(brig_look(rig, true, i == 2));
		rig->cut_bytes = sizes[i];
		CHECK_EQ(brig_acquire(rig), -EAGAIN);
		brig_close(rig);
	}
	CHECK_OK(brig_open(rig));
	CHECK_EQ(brig_status(rig).binding.backing_bytes, rig->backing_bytes - 8192);
	brig_free(rig);
}

TEST(larger_blocks_are_refused)
{
	struct brig *rig = dirty_rig("");

	rig->backing->block_bytes = 4096;
	CHECK_EQ(brig_open(rig), -EXDEV);
	rig->backing->block_bytes = 512;
	CHECK_OK(brig_open(rig));
	brig_release(rig);
	rig->backing->block_bytes = 4096;
	CHECK_OK(brig_open(rig));
	brig_free(rig);
}

TEST(device_that_was_written_to_is_refused)
{
	struct brig *rig = dirty_rig("");

	poke(rig, 8192);
	CHECK_EQ(brig_open(rig), -ESTALE);
	brig_free(rig);
}

TEST(device_that_was_written_to_at_its_end_is_refused)
{
	struct brig *rig = dirty_rig("");

	poke(rig, rig->backing_bytes - 4096);
	CHECK_EQ(brig_open(rig), -ESTALE);
	brig_free(rig);
}

TEST(device_that_was_written_to_after_a_look_is_refused)
{
	struct brig *rig = dirty_rig("");

	CHECK_OK(brig_look(rig, true, false));
	poke(rig, 8192);
	CHECK_EQ(brig_acquire(rig), -EAGAIN);
	boost_close(rig->boost);
	rig->boost = NULL;
	CHECK_EQ(brig_open(rig), -ESTALE);
	brig_free(rig);
}

TEST(device_may_change_after_a_release)
{
	struct brig *rig = clean_rig("");

	poke(rig, 8192);
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 2000, 8));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	/* What it was then has been taken anew. */
	CHECK_OK(brig_open(rig));
	brig_free(rig);
}

TEST(what_the_log_covers_may_differ)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 256));
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	poke(rig, 0);
	poke(rig, 65536);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

/* Each crash lies somewhere in a writeback that changes samples: none must look like a stranger. */
TEST(our_own_writeback_is_no_stranger)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (unsigned int round = 0; round < 40; round++) {
		for (int i = 0; i < 20; i++)
			brig_random_op(rig);
		CHECK_OK(brig_write(rig, (uint32_t)rng_below(&rig->hs.rng, 120), 8));
		CHECK_OK(brig_flush(rig));
		if (round % 3 == 0)
			CHECK_OK(brig_drain(rig));
		brig_crash(rig, SIM_KEEP_RANDOM(round));
		CHECK_OK(brig_open(rig));
		brig_verify(rig);
	}
	poke(rig, 4096);
	brig_free(rig);
}

TEST(sample_that_cannot_be_read_is_no_reason_to_refuse)
{
	struct brig *rig = dirty_rig("");
	const struct sim_fault fault = {
		.kind = SIM_DEV_ERROR, .ops = 1u << DEV_READ, .nth = 1, .len_bytes = 4096};

	CHECK_OK(sim_disk_fault(rig->backing_disk, &fault));
	CHECK_OK(brig_open(rig));
	brig_free(rig);
}

TEST(device_that_cannot_be_read_is_refused)
{
	struct brig *rig = dirty_rig("");

	brig_fault(rig->backing_disk, DEV_READ, 1, 0);
	CHECK_EQ(brig_open(rig), -EIO);
	brig_free(rig);
}

TEST(swapped_devices_are_refused)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct boost *b;

	/* A new cache in the place of the backing device, and a log of a volume before it. */
	CHECK_OK(brig_open(rig));
	brig_release(rig);
	CHECK_EQ(boost_open(&rig->hs.host, rig->cache, rig->backing, false, &rig->opt, &b, NULL,
			    &rig->err),
		 -ENODEV);
	err_clear(&rig->err);
	CHECK_OK(wlog_format(rig->backing, &(struct wlog_format_options){.random = 5}, NULL,
			     &rig->err));
	CHECK_OK(boost_open(&rig->hs.host, rig->cache, rig->backing, false, &rig->opt, &b, NULL,
			    &rig->err));
	CHECK_EQ(boost_acquire(b, &rig->err), -EEXIST);
	boost_close(b);
	brig_free(rig);
}

/* ---- the writer's right */

TEST(second_owner_is_refused)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct dev *cache, *backing;
	struct boost *b;

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	CHECK_OK(brig_flush(rig));
	CHECK_OK(sim_dev_open(rig->cache_disk, &cache));
	CHECK_OK(sim_dev_open(rig->backing_disk, &backing));
	CHECK_OK(boost_open(&rig->hs.host, backing, cache, false, &rig->opt, &b, NULL, &rig->err));
	CHECK_EQ(boost_acquire(b, &rig->err), -EBUSY);
	boost_close(b);
	dev_close(cache);
	dev_close(backing);
	brig_free(rig);
}

TEST(log_that_moved_on_is_to_be_opened_again)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct dev *cache, *backing;
	struct boost *b;

	CHECK_OK(sim_dev_open(rig->cache_disk, &cache));
	CHECK_OK(sim_dev_open(rig->backing_disk, &backing));
	CHECK_OK(boost_open(&rig->hs.host, backing, cache, false, &rig->opt, &b, NULL, &rig->err));
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 0, 8));
	brig_release(rig);
	CHECK_EQ(boost_acquire(b, &rig->err), -EAGAIN);
	boost_close(b);
	dev_close(cache);
	dev_close(backing);
	brig_free(rig);
}

TEST(read_only_devices_are_refused)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->backing->read_only = true;
	CHECK_EQ(brig_open(rig), -EROFS);
	rig->backing->read_only = false;
	rig->cache->read_only = true;
	CHECK_EQ(brig_open(rig), -EROFS);
	brig_free(rig);
}

/* ---- without a cache */

TEST(backing_device_alone_can_be_read)
{
	struct brig *rig = clean_rig("");

	CHECK_OK(brig_look(rig, false, false));
	CHECK(boost_log(rig->boost) == NULL);
	brig_verify(rig);
	CHECK_EQ(brig_acquire(rig), -ENODEV);
	brig_free(rig);
}

TEST(discard_tells_what_is_lost)
{
	struct brig *rig = dirty_rig("wwid:1");
	uint64_t lba, sectors;
	struct wlog_info before, after;

	CHECK_OK(wlog_probe(rig->cache, &before, NULL));
	CHECK_OK(brig_look(rig, true, true));
	CHECK(!rig->boost_cut.unknown);
	CHECK_EQ(rig->boost_cut.lost_bytes, 30 * 4096);
	CHECK_EQ(rig->boost_cut.lsn, before.destaged_lsn);
	CHECK(boost_log(rig->boost) == NULL);
	host_enter(&rig->hs.host);
	CHECK(boost_dirty(rig->boost, 0, &lba, &sectors));
	host_leave(&rig->hs.host);
	CHECK(lba == 2000 && sectors == 8);
	memset(rig->oracle, 0, rig->sectors * sizeof(*rig->oracle));
	brig_verify(rig);
	CHECK_OK(brig_acquire(rig));
	brig_verify(rig);
	CHECK_OK(brig_write(rig, 0, 8));
	CHECK_OK(brig_flush(rig));
	CHECK_OK(wlog_probe(rig->cache, &after, NULL));
	CHECK(!uuid_equal(&before.id.log_uuid, &after.id.log_uuid));
	CHECK(uuid_equal(&before.id.volume_uuid, &after.id.volume_uuid));
	CHECK(after.tail_lsn > before.watermark_lsn + (UINT64_C(1) << 39));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

TEST(discard_goes_on_with_a_device_that_was_written_to)
{
	struct brig *rig = dirty_rig("");

	poke(rig, 8192);
	CHECK_EQ(brig_open(rig), -ESTALE);
	CHECK_OK(brig_look(rig, true, true));
	CHECK_OK(brig_acquire(rig));
	brig_free(rig);
}

TEST(discard_of_what_cannot_be_read_says_so)
{
	struct brig *rig = dirty_rig("");
	uint8_t garbage[4000];

	memset(garbage, 0x5a, sizeof(garbage));
	sim_disk_poke(rig->cache_disk, 96, garbage, sizeof(garbage));
	sim_disk_poke(rig->cache_disk, 65536 + 96, garbage, sizeof(garbage));
	CHECK_EQ(brig_open(rig), -EBADMSG);
	CHECK_OK(brig_look(rig, true, true));
	CHECK(rig->boost_cut.unknown);
	CHECK_OK(brig_acquire(rig));
	brig_free(rig);
}

TEST(discard_does_not_give_up_the_cache_of_another_device)
{
	struct brig *rig = dirty_rig("wwid:1");

	set_identity(rig, "wwid:2");
	CHECK_OK(brig_look(rig, true, true));
	CHECK(rig->boost_cut.unknown);
	CHECK_EQ(brig_acquire(rig), -EXDEV);
	brig_free(rig);
}

TEST(discard_does_not_give_up_the_empty_cache_of_another_volume)
{
	struct brig *rig = clean_rig("");

	rig->opt.volume_uuid = uuid_from_bits(1, 2);
	CHECK_OK(brig_look(rig, true, true));
	CHECK_EQ(brig_acquire(rig), -EXDEV);
	brig_close(rig);
	rig->opt.volume_uuid = (struct uuid){0};
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

TEST(interrupted_discard_opens_without_one)
{
	struct brig *rig = dirty_rig("");

	CHECK_OK(brig_look(rig, true, true));
	/* The format is whole, the start is not. */
	rig->world.cut_at = rig->world.events + 5;
	CHECK(brig_acquire(rig) < 0);
	brig_crash(rig, SIM_KEEP_NONE);
	sim_world_power_on(&rig->world);
	brig_reopen_media(rig);
	memset(rig->oracle, 0, rig->sectors * sizeof(*rig->oracle));
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}
