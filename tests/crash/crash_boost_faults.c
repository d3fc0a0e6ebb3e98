/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-place cache under faults of both devices.
 *
 * boost_errors: requests to either device fail, once or from then on, or are late; flushes of the
 * backing device fail. Operations may fail, with an error, and nothing hangs. Then a crash, the
 * faults are gone, and recovery must work: each sector holds its last durable write or a later one
 * (P2), the whole a prefix if no write has failed. Whatever was reported to be home is there.
 *
 * boost_backing_flush_fails: of flushes of the backing device alone, with a log that is full all
 * the time; no operation may fail for it, and none may be lost.
 *
 * boost_refused_places: there are places that the backing device does not take; nothing else waits
 * for these.
 *
 * boost_corruption: writes to the cache are lost or go astray, bits rot. What is read at all is
 * what was once written there, and so is everything on the backing device: never garbage, another
 * sector's or another volume's (P5).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_fault.h"
#include "lib/crash_on_boost.h"
#include "lib/tap.h"

static const struct crash_profile profile = {.target = &crash_on_boost, .ops = 60};
static const struct crash_profile tight = {
	.target = &crash_on_boost, .ops = 60, .disk_kib = 64};

/* What is refused must not be all that there is in the log: so devices look that fail. */
static const struct crash_profile roomy = {
	.target = &crash_on_boost, .ops = 60, .disk_kib_min = 512};

static void run_errors(uint64_t seed)
{
	struct fault_run r;

	fault_begin(&r, seed % 2 ? &profile : &tight, "boost_errors", seed);
	for (uint32_t generation = 0; generation < 3; generation++) {
		fault_work(&r, (uint32_t)rng_below(&r.rng, 200));
		for (uint64_t i = rng_between(&r.rng, 1, 3); i > 0; i--)
			fault_plan_disk(&r, rng_chance(&r.rng, 1, 3) ? r.u.disk : r.u.backing);
		fault_work(&r, (uint32_t)rng_below(&r.rng, 600));
		if (rng_chance(&r.rng, 1, 2)) {
			/* Every operation comes to its end while the faults last, or when they
			 * are gone. */
			if (!r.cfg.full_timeout_ns || rng_chance(&r.rng, 1, 2))
				fault_heal(&r);
			session_settle(r.s);
		}
		fault_crash(&r);
		universe_check_home(&r.u, false);
		fault_recover(&r);
		fault_check_promises(&r);
	}
	fault_end(&r);
}

TEST(boost_errors)
{
	uint64_t runs = crash_images(10000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_errors(crash_seed(i, &only));
}

static void run_flush_fails(uint64_t seed)
{
	struct sim_fault f = {.kind = SIM_DEV_ERROR, .ops = 1u << DEV_FLUSH, .error = -EIO};
	struct fault_run r;

	fault_begin(&r, &tight, "boost_backing_flush_fails", seed);
	r.cfg.full_timeout_ns = 0;
	r.cfg.home_timeout_ns = UINT64_C(3600000000000);
	/* Opened again, for the timeouts. */
	session_kill(r.s, SIM_KEEP_ALL);
	fault_recover(&r);
	fault_check_promises(&r);
	r.u.home_unknown = false;
	r.u.tolerant = false;
	f.nth = rng_between(&r.rng, 1, 4);
	f.times = rng_between(&r.rng, 1, 3);
	CHECK_OK(sim_disk_fault(r.u.backing, &f));
	fault_work(&r, (uint32_t)rng_between(&r.rng, 200, 1500));
	if (rng_chance(&r.rng, 1, 2))
		session_settle(r.s);
	CHECK_EQ(r.s->errors, 0);
	if (rng_chance(&r.rng, 1, 3)) {
		fault_heal(&r);
		CHECK(session_close(r.s));
		r.s = NULL;
	} else {
		fault_crash(&r);
		universe_check_home(&r.u, false);
	}
	fault_heal(&r);
	fault_recover(&r);
	fault_check_promises(&r);
	fault_end(&r);
}

TEST(boost_backing_flush_fails)
{
	uint64_t runs = crash_images(10000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_flush_fails(crash_seed(i, &only));
}

/* ---- places that are refused ----------------------------------------------------------------- */

/* A sector or two that the backing device does not take, for good or for some time. */
static void plan_place(struct fault_run *r)
{
	uint32_t lba = (uint32_t)rng_below(&r->rng, r->cfg.sectors);
	struct sim_fault f = {.kind = SIM_DEV_ERROR, .ops = FAULT_DEV_WRITES, .error = -EIO};

	f.nth = rng_between(&r->rng, 1, 3);
	f.times = rng_chance(&r->rng, 1, 2) ? rng_between(&r->rng, 1, 40) : 0;
	f.off_bytes = (r->cfg.lba_base + lba) * DEV_SECTOR_BYTES;
	f.len_bytes = rng_between(&r->rng, 1, 2) * DEV_SECTOR_BYTES;
	CHECK_OK(sim_disk_fault(r->u.backing, &f));
}

/* What is refused stays in the log, is not lost, and is not put over what is newer. */
static void run_refused(uint64_t seed)
{
	struct err err = ERR_INIT;
	struct fault_run r;

	fault_begin(&r, &roomy, "boost_refused_places", seed);
	if (r.cfg.sectors < 64) {
		/* Of so few, what is refused may be all. */
		fault_end(&r);
		return;
	}
	r.cfg.full_timeout_ns = 0;
	/* Room for some of them in the space that the log keeps back: that is about a segment. */
	r.cfg.segment_bytes = 32768;
	/* Opened again, for these. */
	session_kill(r.s, SIM_KEEP_ALL);
	fault_recover(&r);
	fault_check_promises(&r);
	plan_place(&r);
	for (uint32_t generation = 0; generation < 3; generation++) {
		/* What is refused is not home, whatever is said of its segment. */
		r.u.home_unknown = true;
		fault_work(&r, (uint32_t)rng_between(&r.rng, 200, 1200));
		if (rng_chance(&r.rng, 1, 2))
			session_settle(r.s);
		CHECK_EQ(r.s->errors, 0);
		fault_crash(&r);
		if (fault_reopen(&r, false, &err))
			crash_fail("does not recover: %s", err_text(&err, -1));
		fault_check_promises(&r);
	}
	fault_heal(&r);
	r.u.tolerant = false;
	CHECK(session_close(r.s));
	r.s = NULL;
	fault_end(&r);
}

TEST(boost_refused_places)
{
	uint64_t runs = crash_images(10000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_refused(crash_seed(i, &only));
}

/* ---- corruption ------------------------------------------------------------------------------ */

/* What has come home may be old, but never garbage. */
static void check_backing(struct fault_run *r)
{
	const uint8_t *all = sim_disk_durable(r->u.backing);
	uint64_t ids[ORACLE_SECTORS_MAX];
	struct oracle *o = r->oracle;

	if (!oracle_decode_all(o, all + r->cfg.lba_base * DEV_SECTOR_BYTES, ids) ||
	    !oracle_check_sectors(o, ids, 0))
		crash_fail("the backing device: %s", o->text);
}

static void run_corruption(uint64_t seed)
{
	struct fault_run r;
	struct err err = ERR_INIT;

	fault_begin(&r, seed % 2 ? &profile : &tight, "boost_corruption", seed);
	fault_work(&r, (uint32_t)rng_below(&r.rng, 200));
	if (rng_chance(&r.rng, 2, 3))
		fault_plan_rot(&r, r.u.disk);
	fault_work(&r, (uint32_t)rng_below(&r.rng, 600));
	fault_crash(&r);
	sim_disk_rot(r.u.disk, 0, 0, 1 + (unsigned int)rng_below(&r.rng, 3));
	check_backing(&r);
	if (fault_reopen(&r, false, &err) && fault_reopen(&r, true, &err)) {
		if (!err.text[0])
			crash_fail("refused without a word");
	} else {
		fault_check_no_garbage(&r);
		/* The oracle does not know which of the older writes are left. */
		fault_work_blind(&r, 200);
		session_settle(r.s);
		fault_check_no_garbage(&r);
		check_backing(&r);
	}
	fault_end(&r);
}

TEST(boost_corruption)
{
	uint64_t runs = crash_images(10000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_corruption(crash_seed(i, &only));
}
