/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes inside recovery, crash after crash, of machine and of process, with and without the
 * cache.
 */
#include "lib/crash.h"
#include "lib/crash_on_lsvd.h"
#include "lib/tap.h"

TEST(recovery_is_cut)
{
	crash_run(&(struct crash_profile){.test = "recovery_is_cut",
					  .target = &crash_on_lsvd,
					  .share_ppm = 120000,
					  .ops = 40,
					  .generations = 4,
					  .cut_recovery_percent = 60,
					  .lose_cache_percent = 10});
}

TEST(recovery_after_kill)
{
	crash_run(&(struct crash_profile){.test = "recovery_after_kill",
					  .target = &crash_on_lsvd,
					  .share_ppm = 80000,
					  .ops = 40,
					  .generations = 4,
					  .cut_recovery_percent = 20,
					  .lose_cache_percent = 5,
					  .kill_percent = 60});
}

TEST(recovery_without_cache)
{
	crash_run(&(struct crash_profile){.test = "recovery_without_cache",
					  .target = &crash_on_lsvd,
					  .share_ppm = 40000,
					  .ops = 40,
					  .generations = 4,
					  .cut_recovery_percent = 50,
					  .lose_cache_percent = 60,
					  .kill_percent = 20});
}
