/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes of the whole engine: log and object stream, cache and store together.
 */
#include "lib/crash.h"
#include "lib/crash_on_lsvd.h"
#include "lib/tap.h"

/* Few operations, and every image that there is. */
TEST(lsvd_dense)
{
	crash_run(&(struct crash_profile){.test = "lsvd_dense",
					  .target = &crash_on_lsvd,
					  .share_ppm = 140000,
					  .ops = 12,
					  .dense = true,
					  .lose_cache_percent = 25});
}

/* Many operations over the smallest log: it wraps and fills all the time. */
TEST(lsvd_wraps)
{
	crash_run(&(struct crash_profile){.test = "lsvd_wraps",
					  .target = &crash_on_lsvd,
					  .share_ppm = 140000,
					  .ops = 120,
					  .disk_kib = 80,
					  .generations = 2,
					  .lose_cache_percent = 25});
}

/* Writes larger than a segment, often larger than a batch: whole or not at all. */
TEST(lsvd_big_writes)
{
	crash_run(&(struct crash_profile){.test = "lsvd_big_writes",
					  .target = &crash_on_lsvd,
					  .share_ppm = 60000,
					  .ops = 60,
					  .big_writes = true,
					  .generations = 2,
					  .lose_cache_percent = 40});
}

/* The cache is always lost: what is left is a prefix (P3). */
TEST(lsvd_cache_lost)
{
	crash_run(&(struct crash_profile){.test = "lsvd_cache_lost",
					  .target = &crash_on_lsvd,
					  .share_ppm = 60000,
					  .ops = 60,
					  .generations = 3,
					  .lose_cache_percent = 100});
}
