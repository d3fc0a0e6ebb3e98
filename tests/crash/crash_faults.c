/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Programs under faults of the cache device and the store.
 *
 * fault_errors: requests fail, are late, take effect although they failed, the store is out for a
 * while. Operations may fail, with an error, and nothing hangs. Then a crash, the faults are gone,
 * and recovery must work: each sector holds its last durable write or a later one (P2), the whole
 * a prefix if no write has failed.
 *
 * fault_corruption: writes are lost or go astray, bits rot, objects are short, wrong or lost. What
 * is read at all is what was once written there, never garbage, another sector's or another
 * volume's; anything else is an error or a refusal (P5).
 */
#include <errno.h>
#include <string.h>

#include "lib/crash_fault.h"
#include "lib/crash_on_lsvd.h"
#include "lib/tap.h"

#define STORE_PUTS (1u << STORE_PUT_NEW | 1u << STORE_REPLACE)

static const struct crash_profile profile = {.target = &crash_on_lsvd, .ops = 60};

static const int store_errors[] = {-EIO, -ETIMEDOUT, -ENOSPC, -EACCES};

static void plan_store_error(struct fault_run *r)
{
	static const int kinds[] = {SIM_STORE_ERROR, SIM_STORE_EFFECT, SIM_STORE_LATE,
				    SIM_STORE_DELAY, SIM_STORE_STALE};
	struct sim_fault f = {.kind = kinds[rng_below(&r->rng, 5)],
			      .error = store_errors[rng_below(&r->rng, 4)],
			      .delay_ns = rng_below(&r->rng, 5000000000)};

	if (rng_chance(&r->rng, 1, 2))
		f.ops = STORE_PUTS;
	fault_when(&f, &r->rng);
	if (rng_chance(&r->rng, 1, 4)) {
		/* An outage: everything, for up to a minute. */
		f = (struct sim_fault){.kind = SIM_STORE_ERROR, .error = -ETIMEDOUT, .nth = 1};
		f.from_ns = r->u.world.clock_ns;
		f.until_ns = f.from_ns + rng_below(&r->rng, UINT64_C(60000000000));
	}
	CHECK_OK(sim_bucket_fault(r->u.bucket, &f));
}

static void plan_store_corruption(struct fault_run *r)
{
	static const int kinds[] = {SIM_STORE_LOST, SIM_STORE_SHORT, SIM_STORE_CORRUPT,
				    SIM_STORE_GARBLE};
	struct sim_fault f = {.kind = kinds[rng_below(&r->rng, 4)], .times = 1};

	f.ops = f.kind == SIM_STORE_GARBLE || rng_chance(&r->rng, 1, 4) ? 1u << STORE_GET :
									 STORE_PUTS;
	f.nth = rng_between(&r->rng, 1, 20);
	CHECK_OK(sim_bucket_fault(r->u.bucket, &f));
}

static void run_errors(uint64_t seed)
{
	struct fault_run r;

	fault_begin(&r, &profile, "fault_errors", seed);
	for (uint32_t generation = 0; generation < 3; generation++) {
		fault_work(&r, (uint32_t)rng_below(&r.rng, 200));
		for (uint64_t i = rng_between(&r.rng, 1, 2); i > 0; i--) {
			if (rng_chance(&r.rng, 1, 2))
				fault_plan_disk(&r, r.u.disk);
			else
				plan_store_error(&r);
		}
		fault_work(&r, (uint32_t)rng_below(&r.rng, 600));
		if (rng_chance(&r.rng, 1, 2)) {
			/* Every operation comes to its end while the faults last, or when they
			 * are gone. */
			if (!r.cfg.full_timeout_ns || rng_chance(&r.rng, 1, 2))
				fault_heal(&r);
			session_settle(r.s);
		}
		fault_crash(&r);
		/* Recovery under faults: it works, or it says why not and changes nothing. */
		fault_recover(&r);
		fault_check_promises(&r);
	}
	fault_end(&r);
}

TEST(fault_errors)
{
	uint64_t runs = crash_images(20000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_errors(crash_seed(i, &only));
}

static void rot_at_rest(struct fault_run *r)
{
	const char *key;

	if (rng_chance(&r->rng, 1, 2)) {
		sim_disk_rot(r->u.disk, 0, 0, 1 + (unsigned int)rng_below(&r->rng, 3));
		return;
	}
	key = sim_bucket_key(r->u.bucket, rng_below(&r->rng, sim_bucket_count(r->u.bucket)));
	if (key)
		sim_bucket_rot(r->u.bucket, key, 0, 1 + (unsigned int)rng_below(&r->rng, 3));
}

static void run_corruption(uint64_t seed)
{
	struct fault_run r;
	struct err err = ERR_INIT;

	fault_begin(&r, &profile, "fault_corruption", seed);
	fault_work(&r, (uint32_t)rng_below(&r.rng, 200));
	switch (rng_below(&r.rng, 3)) {
	case 0:
		fault_plan_rot(&r, r.u.disk);
		break;
	case 1:
		plan_store_corruption(&r);
		break;
	default:
		break;
	}
	fault_work(&r, (uint32_t)rng_below(&r.rng, 600));
	fault_crash(&r);
	rot_at_rest(&r);
	if (rng_chance(&r.rng, 1, 4))
		universe_lose_cache(&r.u);
	if (fault_reopen(&r, false, &err) && fault_reopen(&r, true, &err)) {
		if (!err.text[0])
			crash_fail("refused without a word");
	} else {
		fault_check_no_garbage(&r);
		/* The oracle does not know which of the older writes are left. */
		fault_work_blind(&r, 200);
		session_settle(r.s);
		fault_check_no_garbage(&r);
	}
	fault_end(&r);
}

TEST(fault_corruption)
{
	uint64_t runs = crash_images(20000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_corruption(crash_seed(i, &only));
}
