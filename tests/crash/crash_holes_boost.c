/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every hole of the published in-place cache that applies to ours, each as a story. A test says in
 * one sentence what the published cache did, and in one what must be true here. Holes of the log
 * alone are in crash_holes.c. The step that check-mutants removes to see the test fail:
 *
 *	 1  hole_1_gap_over_an_older_lap           wlog.replay_verify, wlog.epoch_bump
 *	 2  hole_2_cut_off_segments_stay_dead      wlog.epoch_bump
 *	 4  hole_4_overwrite_in_memory             wlog.superseded_durable
 *	 5  hole_5_failed_flush_keeps_all          boost.flush_error_keeps
 *	 5  hole_5_flush_that_fails_for_ever       boost.flush_error_keeps, boost.home_timeout
 *	 6  hole_6_flush_covers_the_backing        boost.flush_before_destaged
 *	 7  hole_7_reads_that_race_writeback       boost.newest_copy
 *	13  hole_13_failing_device_does_not_spin   boost.home_timeout
 *	14  hole_14_barriers_cost_what_they_hold   -
 *
 * Holes 3, 12, 15 and 18 are in crash_boost_damage.c, 8 to 10 in crash_boost_devices.c, 11 in
 * crash_boost_huge.c. Where there is no step, none could be removed: the hole is closed by a form
 * (a width, a length, a count that is computed and not kept), not by an action.
 *
 * In these scenes a write of 8 sectors fills a segment, which goes to the device by itself; the
 * n-th segment lies n - 1 times 8 KiB behind the start of the ring, of which 16 fit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_boost.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "wlog/wlog_layout.h"

#define SEG_BYTES 8192u

static struct scene *begin(const char *test)
{
	return scene_new(test, &crash_on_boost, NULL);
}

/* Writes back whatever there is, at once and by itself. */
static void eager(struct crash_config *cfg)
{
	cfg->lazy_home = false;
	cfg->batch_age_ns = 1;
	cfg->batch_segments = 4;
}

static uint64_t seg_off(unsigned int number)
{
	return WLOG_RING_OFF + (uint64_t)(number - 1) * SEG_BYTES;
}

static void status(struct scene *sc, struct boost_status *st)
{
	host_enter(&sc->s->sh.host);
	boost_status(sc->s->engine, st);
	host_leave(&sc->s->sh.host);
}

static void lose_cache(struct scene *sc)
{
	scene_crash(sc, SIM_KEEP_NONE);
	universe_lose_cache(&sc->u);
}

static void open_without_cache(struct scene *sc)
{
	CHECK_EQ(scene_try_open(sc, false), -ENODEV);
	CHECK_OK(scene_try_open(sc, true));
}

/* A fault of every request of these kinds to the backing device, from now on. */
static void backing_fails(struct scene *sc, unsigned int ops, uint64_t times)
{
	struct sim_fault f = {
		.kind = SIM_DEV_ERROR, .ops = ops, .error = -EIO, .nth = 1, .times = times};

	CHECK_OK(sim_disk_fault(sc->u.backing, &f));
}

/*
 * 1. Replay did not see that a segment was missing, took the one of the lap before from its place,
 * and put it over newer durable data. Here the log ends at the gap, and of the lap before nothing
 * is replayed.
 */
TEST(hole_1_gap_over_an_older_lap)
{
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct scene *sc = begin("hole_1_gap_over_an_older_lap");

		scene_open(sc);
		rng_seed(&sc->s->sh.rng, seed);
		for (uint32_t i = 0; i < 36 + seed % 8; i++) {
			scene_write(sc, i % 4 * 8, 8);
			if (i % 6 == 5)
				scene_drain(sc);
		}
		scene_flush(sc);
		for (uint32_t i = 0; i < 4; i++)
			scene_write(sc, i * 8, 8);
		scene_run(sc, 200);
		scene_crash(sc, SIM_KEEP_RANDOM(seed));
		scene_open(sc);
		scene_judge(sc);
		scene_drain(sc);
		scene_crash(sc, SIM_KEEP_RANDOM(seed + 1000));
		scene_open(sc);
		scene_judge(sc);
		scene_end(sc);
	}
}

/*
 * 2. What replay had cut off stayed on the cache with valid numbers, and the next recovery put it
 * over what was written since. Here it is of an older epoch for ever, and never reaches the backing
 * device either.
 */
TEST(hole_2_cut_off_segments_stay_dead)
{
	static const uint8_t zeros[SEG_BYTES];

	for (uint64_t seed = 0; seed < 20; seed++) {
		struct scene *sc = begin("hole_2_cut_off_segments_stay_dead");

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		scene_write(sc, 0, 8);
		scene_write(sc, 8, 8);
		scene_run(sc, 1000);
		scene_crash(sc, SIM_KEEP_ALL);
		sim_disk_poke(sc->u.disk, seg_off(2), zeros, SEG_BYTES);
		scene_open(sc);
		CHECK_EQ(scene_judge(sc), 1);
		/* As long as the lost one: what was cut off lies right behind it. */
		scene_write(sc, 16, 8);
		if (seed % 2)
			scene_drain(sc);
		else
			scene_flush(sc);
		scene_crash(sc, SIM_KEEP_RANDOM(seed));
		scene_open(sc);
		CHECK_EQ(scene_judge(sc), 1);
		scene_drain(sc);
		lose_cache(sc);
		open_without_cache(sc);
		CHECK_EQ(scene_read(sc, 0), 1);
		CHECK_EQ(scene_read(sc, 8), 0);
		scene_end(sc);
	}
}

/*
 * 4. An overwrite in memory marked the durable older copy clean, so that writeback skipped it and a
 * crash lost both. Here an older copy is skipped only for a newer one that is durable as well.
 */
TEST(hole_4_overwrite_in_memory)
{
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct scene *sc =
			scene_new("hole_4_overwrite_in_memory", &crash_on_boost, eager);

		scene_open(sc);
		rng_seed(&sc->s->sh.rng, seed);
		scene_submit(sc, CRASH_WRITE, 0, 8, false);
		scene_submit(sc, CRASH_FLUSH, 0, 0, false);
		scene_run(sc, (unsigned int)(seed % 40));
		scene_submit(sc, CRASH_WRITE, 0, 8, false);
		scene_submit(sc, CRASH_WRITE, 2, 3, false);
		scene_run(sc, (unsigned int)rng_below(&sc->s->sh.rng, 60));
		scene_crash(sc, SIM_KEEP_NONE);
		scene_open(sc);
		scene_judge(sc);
		scene_end(sc);
	}
}

/*
 * 5. The error of a flush of the backing device was ignored, and the blocks were marked clean. Here
 * everything that the flush should have covered is written again before anything counts as home.
 */
TEST(hole_5_failed_flush_keeps_all)
{
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct scene *sc = begin("hole_5_failed_flush_keeps_all");

		scene_open(sc);
		rng_seed(&sc->u.world.rng, seed);
		for (uint32_t i = 0; i < 4; i++)
			scene_write(sc, 16 * i, 8);
		backing_fails(sc, 1u << DEV_FLUSH, 1 + seed % 3);
		scene_drain(sc);
		CHECK_EQ(sc->oracle->lo_home, 4);
		lose_cache(sc);
		open_without_cache(sc);
		scene_judge(sc);
		CHECK_EQ(scene_read(sc, 48), 4);
		scene_end(sc);
	}
}

/* 5. And while it keeps failing, nothing is given up: the log has it all. */
static void impatient(struct crash_config *cfg)
{
	cfg->home_timeout_ns = UINT64_C(3000000000);
	cfg->full_timeout_ns = UINT64_C(5000000000);
}

TEST(hole_5_flush_that_fails_for_ever)
{
	struct scene *sc =
		scene_new("hole_5_flush_that_fails_for_ever", &crash_on_boost, impatient);
	struct boost_status st;

	scene_open(sc);
	for (uint32_t i = 0; i < 4; i++)
		scene_write(sc, 16 * i, 8);
	scene_flush(sc);
	sc->u.tolerant = true;
	backing_fails(sc, 1u << DEV_FLUSH, 0);
	scene_drain(sc);
	status(sc, &st);
	CHECK_EQ(sc->oracle->lo_home, 0);
	CHECK(st.home_error != 0);
	CHECK(st.dirty_sectors >= 32);
	CHECK_EQ(scene_read(sc, 0), 1);
	scene_crash(sc, SIM_KEEP_NONE);
	sim_disk_heal(sc->u.backing);
	sc->u.tolerant = false;
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 4);
	scene_drain(sc);
	scene_close(sc);
	scene_end(sc);
}

/*
 * 6. A flush went to the cache and not to the backing device, whose volatile cache held what had
 * been written around or back. Here what has left the log is behind a flush of the backing device:
 * it is there when both lose everything volatile.
 */
TEST(hole_6_flush_covers_the_backing)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct scene *sc =
			scene_new("hole_6_flush_covers_the_backing", &crash_on_boost, eager);

		scene_open(sc);
		rng_seed(&sc->s->sh.rng, seed);
		/* More than a lap: the first ones leave the log. */
		for (uint32_t i = 0; i < 20; i++) {
			scene_write(sc, i % 8 * 8, 8);
			scene_flush(sc);
			scene_run(sc, (unsigned int)(seed % 10));
		}
		scene_crash(sc, SIM_KEEP_NONE);
		scene_open(sc);
		CHECK_EQ(scene_judge(sc), 20);
		scene_end(sc);
	}
}

static void slow_backing(struct crash_config *cfg)
{
	eager(cfg);
	cfg->latency_ns = 50000;
	cfg->jitter_ns = 400000;
	cfg->ops_in_flight = 10;
}

/*
 * 7. A read that started during a write left what it had found in the cache, stale for ever. Here a
 * read that races a write and its writeback gives the old or the new, and every later one the new.
 */
TEST(hole_7_reads_that_race_writeback)
{
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct scene *sc = scene_new("hole_7_reads_that_race_writeback",
					     &crash_on_boost, slow_backing);
		struct rng *rng;

		scene_open(sc);
		rng = &sc->s->sh.rng;
		rng_seed(rng, seed);
		for (uint32_t i = 0; i < 60; i++) {
			struct crash_op op = {.kind = CRASH_READ, .sectors = 12};

			op.lba = (uint32_t)rng_below(rng, 20);
			if (rng_chance(rng, 1, 2))
				op.kind = CRASH_WRITE;
			else if (rng_chance(rng, 1, 4))
				op.kind = rng_chance(rng, 1, 3) ? CRASH_DRAIN : CRASH_FLUSH;
			op.sectors = op.kind == CRASH_WRITE ? 1 + (uint32_t)rng_below(rng, 12) : 12;
			if (session_can(sc->s, &op))
				session_submit(sc->s, &op);
			scene_run(sc, (unsigned int)rng_below(rng, 12));
		}
		scene_wait(sc);
		scene_expect(sc, sc->oracle->n);
		scene_drain(sc);
		scene_expect(sc, sc->oracle->n);
		scene_end(sc);
	}
}

/*
 * 13. An error of a device was retried for ever without a pause. Here it is retried now and then;
 * who waits for the home, or for room, is told in time; what the log holds can be read.
 */
TEST(hole_13_failing_device_does_not_spin)
{
	struct scene *sc =
		scene_new("hole_13_failing_device_does_not_spin", &crash_on_boost, impatient);
	struct crash_op op = {.kind = CRASH_WRITE, .sectors = 8};
	uint64_t steps;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	sc->u.tolerant = true;
	backing_fails(sc, 1u << DEV_WRITE | 1u << DEV_ZERO, 0);
	for (uint32_t i = 0; i < 100 && !sc->s->errors; i++) {
		while (session_can(sc->s, &op))
			scene_submit(sc, CRASH_WRITE, i % 8 * 8, 8, false);
		scene_run(sc, 2000);
	}
	CHECK(sc->s->errors > 0);
	scene_wait(sc);
	scene_drain(sc);
	steps = sc->s->sh.steps;
	CHECK(steps < 200000);
	CHECK(scene_read(sc, 0) > 0);
	/* Idle but for a try now and then: an hour takes few steps. */
	for (uint64_t until = sc->u.world.clock_ns + UINT64_C(3600000000000);
	     sc->u.world.clock_ns < until;)
		scene_run(sc, 1);
	CHECK(sc->s->sh.steps - steps < 100000);
	sim_disk_heal(sc->u.backing);
	scene_drain(sc);
	sc->s->errors = 0;
	scene_write(sc, 0, 8);
	scene_flush(sc);
	CHECK_EQ(sc->s->errors, 0);
	scene_end(sc);
}

/* 13. The cache dies: bounded, with errors, and what only the backing device has can be read. */
TEST(hole_13_dying_cache)
{
	struct scene *sc = begin("hole_13_dying_cache");
	struct sim_fault f = {.kind = SIM_DEV_ERROR, .error = -EIO, .nth = 1};

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_drain(sc);
	scene_write(sc, 8, 8);
	scene_flush(sc);
	sc->u.tolerant = true;
	CHECK_OK(sim_disk_fault(sc->u.disk, &f));
	for (uint32_t i = 0; i < 8; i++)
		scene_submit(sc, i % 3 ? CRASH_WRITE : CRASH_FLUSH, 8 * i, 8, i == 4);
	scene_wait(sc);
	CHECK(sc->s->errors >= 3);
	scene_drain(sc);
	CHECK_EQ(scene_read(sc, 0), 1);
	CHECK_EQ(scene_read(sc, 63), 0);
	CHECK(sc->s->sh.steps < 100000);
	scene_end(sc);
}

/*
 * 14. An empty barrier burnt a slot of 512 KiB, and an idle cache went on doing so. Here a flush of
 * nothing writes nothing, to either device, and a lone small one costs 8 KiB of log.
 */
TEST(hole_14_barriers_cost_what_they_hold)
{
	struct scene *sc = begin("hole_14_barriers_cost_what_they_hold");
	struct boost_status before, after;
	uint64_t events;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_drain(sc);
	scene_run(sc, 1000);
	status(sc, &before);
	events = sim_disk_events(sc->u.disk) + sim_disk_events(sc->u.backing);
	for (int i = 0; i < 100; i++)
		scene_flush(sc);
	for (int i = 0; i < 10; i++) {
		sc->u.world.clock_ns += UINT64_C(3600000000000);
		scene_run(sc, 100);
	}
	CHECK_EQ(sim_disk_events(sc->u.disk) + sim_disk_events(sc->u.backing), events);
	status(sc, &after);
	CHECK_EQ(after.log.device_bytes, before.log.device_bytes);
	scene_write(sc, 0, 1);
	scene_flush(sc);
	status(sc, &after);
	CHECK_EQ(after.log.device_bytes - before.log.device_bytes, 8192);
	scene_end(sc);
}

/*
 * Users' complaint of the published cache: a wish that everything be written back never ended while
 * others went on writing. Here it waits for what was acknowledged before it, and for nothing else.
 */
TEST(drain_ends_under_load)
{
	struct scene *sc = begin("drain_ends_under_load");
	struct crash_op op = {.kind = CRASH_WRITE, .sectors = 8};
	uint32_t lo;

	scene_open(sc);
	for (uint32_t i = 0; i < 10; i++)
		scene_write(sc, i % 8 * 8, 8);
	lo = oracle_mark(sc->oracle);
	scene_submit(sc, CRASH_DRAIN, 0, 0, false);
	for (uint32_t i = 0; sc->s->busy_wishes; i++) {
		op.lba = i % 8 * 8;
		CHECK(oracle_has_room(sc->oracle));
		if (session_can(sc->s, &op))
			session_submit(sc->s, &op);
		scene_run(sc, 2);
	}
	CHECK(sc->s->sh.in_flight > 0);
	CHECK(sc->oracle->lo_home >= lo);
	scene_wait(sc);
	scene_end(sc);
}

/*
 * A drain while a long write is under way, of which a part is published and durable already: the
 * rest is made durable as well, since nothing goes home but whole writes.
 */
TEST(drain_of_half_a_write)
{
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct scene *sc = begin("drain_of_half_a_write");

		scene_open(sc);
		rng_seed(&sc->s->sh.rng, seed);
		scene_submit(sc, CRASH_WRITE, 0, 24, false);
		for (int i = 0; i < 3; i++) {
			scene_run(sc, (unsigned int)rng_below(&sc->s->sh.rng, 6));
			scene_submit(sc, CRASH_FLUSH, 0, 0, false);
		}
		scene_run(sc, (unsigned int)rng_below(&sc->s->sh.rng, 6));
		scene_submit(sc, CRASH_DRAIN, 0, 0, false);
		scene_wait(sc);
		scene_end(sc);
	}
}
