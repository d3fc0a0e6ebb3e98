/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a log that is only looked at has shown stays so (P2, L5): a process dies with segments that
 * its disk has acknowledged and not made durable; somebody looks, reads them, and takes no right;
 * the power fails. Then they must still be there.
 */
#include "base/sim_world.h"
#include "dev/sim.h"
#include "lib/tap.h"
#include "lib/wlog_rig.h"

#define CACHE_BYTES (1u << 20)
#define SECTORS 512u /* several segments, so that the first are written without a flush */

static struct sim_world world;
static struct sim_disk *disk;

static void open_disk(struct wlog_rig *rig)
{
	CHECK_OK(sim_dev_open(disk, &rig->dev));
	rig->hs.dev = rig->dev;
	rig->hs.world = &world;
}

/* The process dies: what the disk has acknowledged is in its write cache. */
static void die(struct wlog_rig *rig)
{
	wlog_rig_crash(rig);
	sim_dev_kill(rig->dev);
	dev_close(rig->dev);
}

/* How many of the sectors from 0 on have the byte. */
static uint32_t found(struct wlog_rig *rig, uint8_t fill)
{
	uint8_t buf[DEV_SECTOR_BYTES];
	uint32_t n = 0;

	while (n < SECTORS && !wlog_rig_read(rig, n, 1, buf) && buf[0] == fill)
		n++;
	return n;
}

static void look_and_cut(uint64_t seed)
{
	struct wlog_rig *rig = wlog_rig_new(CACHE_BYTES, seed);
	struct wlog_format_options fo = {.random = seed};
	struct dev *memory = rig->dev;
	uint32_t before, after;

	sim_world_init(&world, seed);
	CHECK_OK(sim_disk_new(&world, &(struct sim_disk_options){.size_bytes = CACHE_BYTES},
			      &disk));
	open_disk(rig);
	CHECK_OK(wlog_format(rig->dev, &fo, &rig->id, &rig->err));
	CHECK_OK(wlog_rig_start(rig));
	CHECK_OK(wlog_rig_write(rig, 0, SECTORS, 7));
	die(rig);

	open_disk(rig);
	CHECK_OK(wlog_rig_look(rig));
	before = found(rig, 7);
	wlog_rig_crash(rig);
	dev_close(rig->dev);
	CHECK_OK(sim_disk_crash(disk, SIM_KEEP_NONE));

	open_disk(rig);
	CHECK_OK(wlog_rig_look(rig));
	after = found(rig, 7);
	test_note("seed %llu: %u sectors were seen, %u are there", (unsigned long long)seed,
		  before, after);
	CHECK_EQ(after, before);
	wlog_rig_crash(rig);
	dev_close(rig->dev);
	sim_disk_free(disk);
	rig->dev = rig->hs.dev = memory;
	CHECK_OK(wlog_rig_look(rig));
	wlog_rig_free(rig);
}

TEST(what_a_look_has_shown_stays)
{
	for (uint64_t seed = 1; seed <= 20; seed++)
		look_and_cut(seed);
}
