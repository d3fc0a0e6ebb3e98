/* SPDX-License-Identifier: BSD-3-Clause */
/* Crashes of the block translation table: P2 and P9, every schedule and every image from a seed. */
#include "lib/btt_rig.h"
#include "lib/tap.h"

/* One thread, an image at each point: what a single writer leaves. */
TEST(btt_alone)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_alone",
					      .share_ppm = 50000,
					      .sectors = 2,
					      .threads = 1,
					      .lanes = 2,
					      .ops = 12,
					      .read_percent = 20,
					      .mark_percent = 30,
					      .images = 24,
					      .image_percent = 100,
					      .generations = 1});
}

/* Writers and readers of one sector: losers of the race, readers of what is not durable yet. */
TEST(btt_race)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_race",
					      .share_ppm = 100000,
					      .sectors = 1,
					      .threads = 4,
					      .ops = 60,
					      .read_percent = 50,
					      .mark_percent = 10,
					      .images = 6,
					      .image_percent = 30,
					      .generations = 1});
}

/* Two sectors and few lanes: a block wanders from one sector to the other under a reader. */
TEST(btt_reuse)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_reuse",
					      .share_ppm = 50000,
					      .sectors = 2,
					      .threads = 4,
					      .lanes = 2,
					      .ops = 100,
					      .read_percent = 70,
					      .images = 4,
					      .image_percent = 10,
					      .generations = 1});
}

/* Readers that protect their block from the first, and writers that want it. */
TEST(btt_protect)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_protect",
					      .share_ppm = 10000,
					      .sectors = 1,
					      .threads = 3,
					      .lanes = 1,
					      .ops = 100,
					      .read_percent = 60,
					      .images = 2,
					      .image_percent = 5,
					      .generations = 1,
					      .protect = true});
}

/* One lane that its thread leaves in the middle of its first write or of a later one. */
TEST(btt_one_lane_is_left)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_one_lane_is_left",
					      .share_ppm = 100000,
					      .sectors = 1,
					      .threads = 2,
					      .lanes = 1,
					      .ops = 10,
					      .die_percent = 20,
					      .images = 16,
					      .image_percent = 50,
					      .generations = 1});
}

/* Threads die where they stand, and others take their lanes over. */
TEST(btt_hand_over)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_hand_over",
					      .share_ppm = 50000,
					      .sectors = 2,
					      .threads = 3,
					      .lanes = 2,
					      .ops = 30,
					      .read_percent = 30,
					      .mark_percent = 10,
					      .die_percent = 10,
					      .images = 4,
					      .image_percent = 25,
					      .generations = 1});
}

/* The process dies and the machine goes on, then the power fails, too. */
TEST(btt_kill)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_kill",
					      .share_ppm = 50000,
					      .sectors = 3,
					      .threads = 3,
					      .ops = 40,
					      .read_percent = 30,
					      .mark_percent = 20,
					      .kill_percent = 5,
					      .images = 6,
					      .image_percent = 10,
					      .generations = 2});
}

/* Closing, opening, the first write after it, and crashes within them, one after the other. */
TEST(btt_close)
{
	btt_rig_run(&(struct btt_rig_profile){.test = "btt_close",
					      .share_ppm = 100000,
					      .sectors = 2,
					      .threads = 1,
					      .ops = 12,
					      .read_percent = 10,
					      .mark_percent = 10,
					      .images = 8,
					      .image_percent = 20,
					      .generations = 3,
					      .close = true});
}
