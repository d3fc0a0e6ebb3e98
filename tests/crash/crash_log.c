/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes of the write log alone, over a home in memory (lib/crash_on_log.h).
 */
#include "lib/crash.h"
#include "lib/crash_on_log.h"
#include "lib/tap.h"

/* Few operations, and every image that there is. */
TEST(log_dense)
{
	crash_run(&(struct crash_profile){.test = "log_dense",
					  .target = &crash_on_log,
					  .share_ppm = 100000,
					  .ops = 12,
					  .dense = true});
}

/* Many operations over the smallest ring: it wraps and fills all the time. */
TEST(log_wraps)
{
	crash_run(&(struct crash_profile){.test = "log_wraps",
					  .target = &crash_on_log,
					  .share_ppm = 100000,
					  .ops = 120,
					  .disk_kib = 80,
					  .generations = 2});
}

/* Writes larger than a segment, which must come back whole or not at all. */
TEST(log_big_writes)
{
	crash_run(&(struct crash_profile){.test = "log_big_writes",
					  .target = &crash_on_log,
					  .share_ppm = 60000,
					  .ops = 60,
					  .big_writes = true,
					  .generations = 2});
}

/* Crash after crash, also inside recovery; some spare the device. */
TEST(log_generations)
{
	crash_run(&(struct crash_profile){.test = "log_generations",
					  .target = &crash_on_log,
					  .share_ppm = 100000,
					  .ops = 60,
					  .generations = 4,
					  .cut_recovery_percent = 30,
					  .kill_percent = 30});
}
