/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home: data that is damaged in the log, and must not be lost in silence. */
#include <errno.h>
#include <string.h>

#include "lib/boost_rig.h"
#include "lib/tap.h"

/* Damages the log's copy of what the write with that mark put at lba. */
static void rot(struct brig *rig, uint32_t lba, uint32_t mark)
{
	const uint8_t *bytes = sim_disk_durable(rig->cache_disk);
	const uint32_t want[2] = {mark, lba};
	unsigned int hits = 0;

	for (size_t off = 128u << 10; off < BRIG_CACHE_BYTES; off += 512) {
		if (memcmp(bytes + off, want, sizeof(want)) == 0) {
			sim_disk_poke(rig->cache_disk, off + 200, "rotten", 6);
			hits++;
		}
	}
	CHECK_EQ(hits, 1);
}

/* What was flushed before is below a watermark now: no torn end, if it is damaged. */
static void flush_below_watermark(struct brig *rig)
{
	CHECK_OK(brig_flush(rig));
	CHECK_OK(brig_write(rig, rig->sectors - 16, 16));
	CHECK_OK(brig_flush(rig));
}

/* Writes 24 sectors at 100 over older ones that are home, and rots the middle 8. */
static struct brig *rotten_rig(void)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 100, 24));
	CHECK_OK(brig_drain(rig));
	host_enter(&rig->hs.host);
	boost_set_hold(rig->boost, true);
	host_leave(&rig->hs.host);
	CHECK_OK(brig_write(rig, 100, 24));
	flush_below_watermark(rig);
	/* Opened again, nothing is in memory. */
	brig_crash(rig, SIM_KEEP_NONE);
	rot(rig, 112, rig->next_mark - 1);
	CHECK_OK(brig_open(rig));
	return rig;
}

static void check_bad(struct brig *rig)
{
	uint8_t buf[24 * 512];

	CHECK_OK(brig_read(rig, 100, 8, buf));
	CHECK_EQ(brig_read(rig, 108, 8, buf), -EIO);
	CHECK_EQ(brig_read(rig, 115, 1, buf), -EIO);
	CHECK_EQ(brig_read(rig, 100, 24, buf), -EIO);
	CHECK_OK(brig_read(rig, 116, 8, buf));
}

TEST(damage_goes_nowhere_and_is_remembered)
{
	struct brig *rig = rotten_rig();

	check_bad(rig);
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).lost_bytes, 4096);
	CHECK_EQ(brig_status(rig).bad_sectors, 8);
	/* The older data stays, what was good of the newer is there. */
	CHECK_EQ(brig_home_mark(rig, 108), rig->next_mark - 2);
	CHECK_EQ(brig_home_mark(rig, 100), rig->next_mark - 1);
	CHECK_EQ(brig_home_mark(rig, 116), rig->next_mark - 1);
	check_bad(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	check_bad(rig);
	brig_release(rig);
	CHECK_OK(brig_open(rig));
	check_bad(rig);
	brig_free(rig);
}

TEST(bad_range_ends_when_it_is_written_again)
{
	struct brig *rig = rotten_rig();
	uint8_t buf[512];

	CHECK_OK(brig_drain(rig));
	CHECK_OK(brig_write(rig, 110, 2));
	CHECK_OK(brig_read(rig, 110, 1, buf));
	CHECK_EQ(brig_read(rig, 109, 1, buf), -EIO);
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).bad_sectors, 6);
	CHECK_OK(brig_read(rig, 110, 1, buf));
	CHECK_EQ(brig_read(rig, 109, 1, buf), -EIO);
	CHECK_OK(brig_zero(rig, DEV_ZERO, 100, 24));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).bad_sectors, 0);
	CHECK_EQ(brig_status(rig).lost_bytes, 4096);
	brig_verify(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_free(rig);
}

/* Of a bad range that the new end cuts through what is left stays bad. */
TEST(bad_range_beyond_a_new_end_is_gone)
{
	struct brig *rig = rotten_rig();
	uint8_t buf[8 * 512];

	CHECK_OK(brig_drain(rig));
	brig_release(rig);
	rig->cut_bytes = rig->backing_bytes - 112 * 512;
	brig_reopen_media(rig);
	for (int i = 0; i < 3; i++) {
		CHECK_OK(brig_open(rig));
		CHECK_EQ(brig_status(rig).bad_sectors, 4);
		CHECK_EQ(brig_read(rig, 108, 4, buf), -EIO);
		CHECK_OK(brig_read(rig, 100, 8, buf));
		brig_release(rig);
	}
	brig_free(rig);
}

TEST(damage_that_is_superseded_is_none)
{
	struct brig *rig = rotten_rig();

	CHECK_OK(brig_write(rig, 108, 8));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).lost_bytes, 0);
	brig_verify(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(place_of_the_cache_that_cannot_be_read)
{
	struct brig *rig = brig_new(test_seed(), NULL);
	struct sim_fault fault = {.kind = SIM_DEV_ERROR, .ops = 1u << DEV_READ, .nth = 1};
	const uint8_t *bytes;
	uint32_t want[2] = {1, 612};
	uint8_t buf[4096];

	rig->opt.hold = true;
	rig->opt.log.buffers = 4;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 604, 24));
	for (uint32_t i = 0; i < 20; i++)
		CHECK_OK(brig_write(rig, 1000 + i * 128, 128));
	CHECK_OK(brig_flush(rig));
	bytes = sim_disk_durable(rig->cache_disk);
	for (size_t off = 0; off < BRIG_CACHE_BYTES && !fault.len_bytes; off += 512) {
		if (memcmp(bytes + off, want, sizeof(want)) == 0) {
			fault.off_bytes = off;
			fault.len_bytes = 512;
		}
	}
	CHECK_OK(sim_disk_fault(rig->cache_disk, &fault));
	rig->opt.home_timeout_ns = UINT64_C(1000000000000);
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).lost_bytes, 4096);
	CHECK_EQ(brig_read(rig, 612, 8, buf), -EIO);
	CHECK_OK(brig_read(rig, 604, 8, buf));
	CHECK_OK(brig_read(rig, 620, 8, buf));
	brig_free(rig);
}

TEST(damage_in_more_places_than_can_be_remembered_stops_writeback)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	rig->opt.hold = true;
	rig->opt.nr_max_batched_migration = 64;
	CHECK_OK(brig_open(rig));
	for (uint32_t i = 0; i < 200; i++)
		CHECK_OK(brig_write(rig, i * 16, 8));
	flush_below_watermark(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	for (uint32_t i = 0; i < 200; i++)
		rot(rig, i * 16, i + 1);
	CHECK_OK(brig_open(rig));
	CHECK_EQ(brig_drain(rig), -EIO);
	CHECK_EQ(brig_status(rig).failed, -EIO);
	CHECK_EQ(brig_status(rig).lost_bytes, 0);
	CHECK(brig_write(rig, 0, 8) < 0);
	CHECK(brig_flush(rig) < 0);
	CHECK(boost_release(rig->boost, &rig->err) < 0);
	brig_close(rig);
	brig_free(rig);
}

TEST(block_of_the_device_is_lost_as_a_whole)
{
	const struct brig_options opt = {.block_bytes = 8192};
	struct brig *rig = brig_new(test_seed(), &opt);
	uint8_t buf[8192];

	rig->opt.hold = true;
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 160, 48));
	flush_below_watermark(rig);
	brig_crash(rig, SIM_KEEP_NONE);
	rot(rig, 176, 1);
	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_drain(rig));
	CHECK_EQ(brig_status(rig).lost_bytes, 8192);
	CHECK_OK(brig_read(rig, 160, 16, buf));
	CHECK_EQ(brig_read(rig, 176, 16, buf), -EIO);
	CHECK_OK(brig_read(rig, 192, 16, buf));
	brig_free(rig);
}
