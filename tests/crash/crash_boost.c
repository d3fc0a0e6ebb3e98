/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes of the in-place cache: log and backing device together, each of which keeps any part of
 * what it had not flushed, whatever the other one kept.
 */
#include "lib/crash.h"
#include "lib/crash_on_boost.h"
#include "lib/tap.h"

/* Few operations, and every image that there is. */
TEST(boost_dense)
{
	crash_run(&(struct crash_profile){.test = "boost_dense",
					  .target = &crash_on_boost,
					  .share_ppm = 100000,
					  .ops = 12,
					  .dense = true,
					  .lose_cache_percent = 15});
}

/* Many operations over the smallest log: it wraps, and writeback is urgent all the time. */
TEST(boost_wraps)
{
	crash_run(&(struct crash_profile){.test = "boost_wraps",
					  .target = &crash_on_boost,
					  .share_ppm = 100000,
					  .ops = 200,
					  .disk_kib = 64,
					  .generations = 2});
}

/* A log that is never full: what goes home goes by age, by batch, or for a drain. */
TEST(boost_without_pressure)
{
	crash_run(&(struct crash_profile){.test = "boost_without_pressure",
					  .target = &crash_on_boost,
					  .share_ppm = 50000,
					  .ops = 60,
					  .generations = 2});
}

/* Writes larger than a segment, often larger than a batch: whole or not at all. */
TEST(boost_big_writes)
{
	crash_run(&(struct crash_profile){.test = "boost_big_writes",
					  .target = &crash_on_boost,
					  .share_ppm = 50000,
					  .ops = 60,
					  .big_writes = true,
					  .generations = 2,
					  .lose_cache_percent = 10});
}

/* Crash after crash, also inside recovery and inside writeback; some spare the devices. */
TEST(boost_generations)
{
	crash_run(&(struct crash_profile){.test = "boost_generations",
					  .target = &crash_on_boost,
					  .share_ppm = 100000,
					  .ops = 60,
					  .disk_kib = 80,
					  .generations = 4,
					  .cut_recovery_percent = 30,
					  .kill_percent = 30});
}

/* The cache is always lost: the backing device has each sector as it was reported, or newer. */
TEST(boost_cache_lost)
{
	crash_run(&(struct crash_profile){.test = "boost_cache_lost",
					  .target = &crash_on_boost,
					  .share_ppm = 50000,
					  .ops = 60,
					  .generations = 3,
					  .cut_recovery_percent = 20,
					  .lose_cache_percent = 100});
}
