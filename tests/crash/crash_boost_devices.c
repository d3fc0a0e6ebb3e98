/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which cache and which backing device: the holes of the published in-place cache that concern
 * whole devices, as stories (see crash_holes_boost.c). The step that check-mutants removes:
 *
 *	 8  hole_8_swapped_devices                 boost.not_swapped, boost.format_spares_others
 *	 8  hole_8_swapped_with_a_blank_one        boost.not_swapped
 *	 8  hole_8_discard_spares_strangers        boost.format_spares_others
 *	 8  hole_8_backing_of_another_name         boost.check_identity
 *	 8  hole_8_foreign_cache                   boost.check_volume
 *	 8  hole_8_foreign_backing                 boost.check_samples
 *	 9  hole_9_backing_used_without_cache      boost.check_samples
 *	 9  hole_9_clean_cache_knows_nothing       boost.samples_anew
 *	10  hole_10_looking_changes_nothing        -
 *	10  hole_10_looking_before_taking          wlog.replay_again
 *	10  hole_10_seen_before_it_was_acknowledged  wlog.start_flush
 *
 * 11 is in crash_boost_huge.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_boost.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"

static struct scene *begin(const char *test)
{
	return scene_new(test, &crash_on_boost, NULL);
}

static struct sim_disk *copy_of(struct scene *sc, const struct sim_disk *disk, uint64_t size_bytes)
{
	struct sim_disk *copy;

	CHECK_OK(sim_disk_new(&sc->u.world, &(struct sim_disk_options){.size_bytes = size_bytes},
			      &copy));
	CHECK_OK(sim_disk_image(disk, SIM_KEEP_ALL, copy));
	return copy;
}

static void put_back(struct sim_disk *disk, struct sim_disk *copy)
{
	CHECK_OK(sim_disk_image(copy, SIM_KEEP_ALL, disk));
	sim_disk_free(copy);
}

static uint64_t backing_bytes(const struct scene *sc)
{
	return sc->cfg.sectors * DEV_SECTOR_BYTES + sc->cfg.backing_more;
}

/* ---- 8: swapped and foreign ------------------------------------------------------------------ */

static void as_large_as_the_cache(struct crash_config *cfg)
{
	cfg->adopt = true;
	cfg->backing_more = cfg->disk_bytes - cfg->sectors * DEV_SECTOR_BYTES;
}

static void swap(struct scene *sc)
{
	struct sim_disk *disk = sc->u.disk;

	sc->u.disk = sc->u.backing;
	sc->u.backing = disk;
}

/*
 * 8. Whatever had no magic number was formatted, so that swapped arguments destroyed the backing
 * device. Here nothing is formatted that carries anything, not even when the cache is to be
 * discarded, and a cache is not taken as a backing device.
 */
TEST(hole_8_swapped_devices)
{
	struct scene *sc =
		scene_new("hole_8_swapped_devices", &crash_on_boost, as_large_as_the_cache);
	struct sim_disk *cache, *backing;
	uint64_t bytes = sc->cfg.disk_bytes;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	cache = copy_of(sc, sc->u.disk, bytes);
	backing = copy_of(sc, sc->u.backing, bytes);
	swap(sc);
	CHECK_EQ(scene_try_open(sc, false), -ENODEV);
	CHECK(sc->err.text[0] != '\0');
	CHECK(scene_try_open(sc, true) < 0);
	CHECK(sc->err.text[0] != '\0');
	swap(sc);
	CHECK_MEMEQ(sim_disk_durable(sc->u.disk), sim_disk_durable(cache), bytes);
	CHECK_MEMEQ(sim_disk_durable(sc->u.backing), sim_disk_durable(backing), bytes);
	sim_disk_free(cache);
	sim_disk_free(backing);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* The same with a backing device of zeros, which looks as blank as a new cache does. */
static void as_large_and_blank(struct crash_config *cfg)
{
	as_large_as_the_cache(cfg);
	cfg->adopt = false;
}

TEST(hole_8_swapped_with_a_blank_one)
{
	struct scene *sc =
		scene_new("hole_8_swapped_with_a_blank_one", &crash_on_boost, as_large_and_blank);
	struct sim_disk *cache;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	cache = copy_of(sc, sc->u.disk, sc->cfg.disk_bytes);
	swap(sc);
	CHECK(scene_try_open(sc, true) < 0);
	swap(sc);
	CHECK_MEMEQ(sim_disk_durable(sc->u.disk), sim_disk_durable(cache), sc->cfg.disk_bytes);
	sim_disk_free(cache);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* 8. The cache of another volume, with data in it: refused, and left alone. */
TEST(hole_8_foreign_cache)
{
	struct scene *sc = begin("hole_8_foreign_cache");
	struct scene *other = begin("hole_8_foreign_cache");
	struct sim_disk *copy, *foreign;

	other->oracle->volume = 8;
	scene_open(other);
	scene_write(other, 0, 8);
	scene_flush(other);
	scene_crash(other, SIM_KEEP_NONE);
	scene_open(sc);
	scene_write(sc, 8, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	copy = copy_of(sc, sc->u.disk, sc->cfg.disk_bytes);
	foreign = copy_of(sc, other->u.disk, sc->cfg.disk_bytes);
	CHECK_OK(sim_disk_image(foreign, SIM_KEEP_ALL, sc->u.disk));
	CHECK_EQ(scene_try_open(sc, false), -EXDEV);
	CHECK_MEMEQ(sim_disk_durable(sc->u.disk), sim_disk_durable(foreign), sc->cfg.disk_bytes);
	sim_disk_free(foreign);
	put_back(sc->u.disk, copy);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(other);
	scene_end(sc);
}

/* 8. Another backing device of the same size behind a cache that holds data: refused. */
TEST(hole_8_foreign_backing)
{
	struct scene *sc = begin("hole_8_foreign_backing");
	struct sim_disk *copy;
	uint8_t theirs[4096];
	int rc;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	copy = copy_of(sc, sc->u.backing, backing_bytes(sc));
	memset(theirs, 0x5a, sizeof(theirs));
	for (uint32_t lba = 8; lba < 64; lba += 8)
		sim_disk_poke(sc->u.backing, lba * DEV_SECTOR_BYTES, theirs, sizeof(theirs));
	rc = scene_try_open(sc, false);
	CHECK(rc == -ESTALE || rc == -EXDEV);
	put_back(sc->u.backing, copy);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* 8. Whatever it is that lies in the cache's place: a discard gives up a log, and nothing else. */
TEST(hole_8_discard_spares_strangers)
{
	struct scene *sc = begin("hole_8_discard_spares_strangers");
	struct sim_disk *copy;
	uint8_t theirs[512];

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_drain(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	universe_lose_cache(&sc->u);
	memset(theirs, 0xeb, sizeof(theirs));
	sim_disk_poke(sc->u.disk, 1024, theirs, sizeof(theirs));
	copy = copy_of(sc, sc->u.disk, sc->cfg.disk_bytes);
	CHECK_EQ(scene_try_open(sc, false), -ENODEV);
	CHECK_EQ(scene_try_open(sc, true), -EEXIST);
	CHECK_MEMEQ(sim_disk_durable(sc->u.disk), sim_disk_durable(copy), sc->cfg.disk_bytes);
	sim_disk_free(copy);
	scene_end(sc);
}

/* The same contents on a device that the kernel knows by this name. */
static void move_backing(struct scene *sc, const char *identity)
{
	struct sim_disk_options opt = {.size_bytes = backing_bytes(sc)};
	struct sim_disk *disk;

	strncpy(opt.identity, identity, sizeof(opt.identity) - 1);
	CHECK_OK(sim_disk_new(&sc->u.world, &opt, &disk));
	CHECK_OK(sim_disk_image(sc->u.backing, SIM_KEEP_ALL, disk));
	sim_disk_free(sc->u.backing);
	sc->u.backing = disk;
}

/* 8. A copy of the backing device is another device: only what the kernel says of it tells. */
TEST(hole_8_backing_of_another_name)
{
	struct scene *sc = begin("hole_8_backing_of_another_name");

	move_backing(sc, "wwid:one");
	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	move_backing(sc, "wwid:two");
	CHECK_EQ(scene_try_open(sc, false), -EXDEV);
	CHECK(strstr(sc->err.text, "wwid:one") != NULL);
	move_backing(sc, "");
	CHECK_EQ(scene_try_open(sc, false), -EXDEV);
	move_backing(sc, "wwid:one");
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* P7. A cache that is in use is so behind whatever backing device. */
TEST(cache_in_use_with_another_backing)
{
	struct scene *sc = begin("cache_in_use_with_another_backing");
	struct crash_session *second;
	struct sim_disk *copy;
	struct dev *dev;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	copy = copy_of(sc, sc->u.backing, backing_bytes(sc));
	CHECK_OK(sim_dev_open(copy, &dev));
	second = session_new(&crash_on_boost, &sc->u, 5);
	second->backing = dev;
	CHECK_OK(second->target->open(second, false, &sc->err));
	CHECK_EQ(second->target->acquire(second, &sc->err), -EBUSY);
	session_abandon(second);
	dev_close(dev);
	sim_disk_free(copy);
	scene_write(sc, 8, 8);
	scene_expect(sc, 2);
	scene_end(sc);
}

/*
 * L1. A cache that is given up although it holds data: what only it held is lost, the rest is
 * there, and no LSN of it is used again.
 */
TEST(lsn_after_a_discarded_cache)
{
	struct scene *sc = begin("lsn_after_a_discarded_cache");
	uint64_t highest = 0;

	scene_open(sc);
	for (uint32_t i = 0; i < 3; i++) {
		scene_write(sc, 0, 8);
		scene_drain(sc);
		scene_write(sc, 0, 4);
		scene_flush(sc);
		highest = wlog_last_lsn(sc->s->sh.log);
		scene_crash(sc, SIM_KEEP_NONE);
		CHECK_OK(scene_try_open(sc, true));
		CHECK(wlog_last_lsn(sc->s->sh.log) >= highest);
		sc->u.cache_lost = true;
		scene_judge(sc);
		CHECK_EQ(scene_read(sc, 0), 1 + 2 * i);
	}
	scene_end(sc);
}

/* ---- 9: used without its cache --------------------------------------------------------------- */

/*
 * 9. Nothing bound a cache to a backing device: one that had been used alone meanwhile got stale
 * logs replayed over it. Here a cache that holds data is refused then, whichever place was written.
 */
TEST(hole_9_backing_used_without_cache)
{
	for (uint32_t lba = 8; lba < 64; lba += 8) {
		struct scene *sc = begin("hole_9_backing_used_without_cache");
		uint8_t new[4096];

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		memset(new, 1, sizeof(new));
		sim_disk_poke(sc->u.backing, lba * DEV_SECTOR_BYTES, new, sizeof(new));
		CHECK_EQ(scene_try_open(sc, false), -ESTALE);
		scene_end(sc);
	}
}

/* 9. After a clean close it may be used alone; nothing of the old log comes back over that. */
TEST(hole_9_clean_cache_knows_nothing)
{
	struct scene *sc = begin("hole_9_clean_cache_knows_nothing");
	uint8_t new[DEV_SECTOR_BYTES * 8];
	uint64_t ids[ORACLE_SECTORS_MAX] = {0};

	scene_open(sc);
	for (uint32_t i = 0; i < 20; i++)
		scene_write(sc, i % 8 * 8, 8);
	scene_close(sc);
	oracle_rebase(sc->oracle, ids);
	ids[8] = oracle_write(sc->oracle, ORACLE_DATA, 8, 8);
	oracle_stamp(sc->oracle, ids[8], 8, new, 8);
	sim_disk_poke(sc->u.backing, 4096, new, sizeof(new));
	scene_open(sc);
	CHECK_EQ(scene_read(sc, 8), (int64_t)ids[8]);
	CHECK_EQ(scene_read(sc, 15), (int64_t)ids[8]);
	scene_write(sc, 0, 4);
	scene_flush(sc);
	sc->u.home_unknown = true;
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_read(sc, 8), (int64_t)ids[8]);
	CHECK_EQ(scene_read(sc, 0), (int64_t)ids[8] + 1);
	scene_end(sc);
}

/* 9. An old copy of the cache behind which writeback has gone on: refused. */
TEST(hole_9_old_copy_of_the_cache)
{
	struct scene *sc = begin("hole_9_old_copy_of_the_cache");
	struct sim_disk *copy;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	copy = copy_of(sc, sc->u.disk, sc->cfg.disk_bytes);
	scene_write(sc, 32, 8);
	scene_drain(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	put_back(sc->u.disk, copy);
	CHECK_EQ(scene_try_open(sc, false), -ESTALE);
	scene_end(sc);
}

/* ---- 10: looking ----------------------------------------------------------------------------- */

/*
 * 10. Replay ran when a volume was merely described, while the old one was still in use, and wrote.
 * Here looking writes nothing to either device, whatever is to be recovered.
 */
TEST(hole_10_looking_changes_nothing)
{
	struct scene *sc = begin("hole_10_looking_changes_nothing");
	struct crash_session *s;
	uint64_t events;
	uint8_t sector[DEV_SECTOR_BYTES];

	scene_open(sc);
	for (uint32_t i = 0; i < 6; i++)
		scene_write(sc, 8 * i, 8);
	scene_flush(sc);
	scene_write(sc, 0, 3);
	scene_crash(sc, SIM_KEEP_RANDOM(3));
	events = sim_disk_events(sc->u.disk) + sim_disk_events(sc->u.backing);
	s = session_new(&crash_on_boost, &sc->u, 1);
	CHECK_OK(crash_on_boost.open(s, false, &sc->err));
	CHECK_OK(session_read(s, 8, sector));
	while (session_step(s))
		;
	/* The flush that makes what was found stay is not a write, but an event (L5). */
	CHECK(sim_disk_events(sc->u.disk) + sim_disk_events(sc->u.backing) <= events + 1);
	CHECK_EQ(sim_disk_undurable(sc->u.disk) + sim_disk_undurable(sc->u.backing), 0);
	session_abandon(s);
	scene_open(sc);
	scene_judge(sc);
	scene_end(sc);
}

/*
 * 10. One looks while another still writes and writes back; the other dies, the first takes over.
 * What became durable in between is not cut off, and what went home not taken for missing.
 */
TEST(hole_10_looking_before_taking)
{
	for (int drain = 0; drain < 2; drain++) {
		struct scene *sc = begin("hole_10_looking_before_taking");
		struct crash_session *second;
		int rc;

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		second = session_new(&crash_on_boost, &sc->u, 2);
		CHECK_OK(crash_on_boost.open(second, false, &sc->err));
		scene_write(sc, 8, 8);
		if (drain)
			scene_drain(sc);
		scene_flush(sc);
		scene_kill(sc);
		rc = crash_on_boost.acquire(second, &sc->err);
		if (rc) {
			CHECK_EQ(rc, -EAGAIN);
			session_abandon(second);
			scene_open(sc);
		} else {
			second->acquired = true;
			sc->s = second;
		}
		CHECK_EQ(scene_judge(sc), 2);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		scene_open(sc);
		scene_judge(sc);
		scene_end(sc);
	}
}

/* A second opener that has seen what the first has under way to the cache, not acknowledged yet. */
static struct crash_session *look_at_what_is_in_flight(struct scene *sc)
{
	const uint64_t lsn = wlog_last_lsn(sc->s->sh.log);

	for (uint64_t i = 0; i < 1000; i++) {
		struct crash_session *s = session_new(&crash_on_boost, &sc->u, i);

		if (s->target->open(s, false, &sc->err) == 0 && wlog_durable_lsn(s->sh.log) >= lsn)
			return s;
		session_abandon(s);
		err_clear(&sc->err);
	}
	crash_fail("nobody ever sees a write in flight");
}

/*
 * 10. What one sees who looks may be on its way still: it is acknowledged to the other, in the
 * device's volatile cache, after the flush of whoever looked. It must not vanish under what he
 * writes behind it when he has taken over.
 */
TEST(hole_10_seen_before_it_was_acknowledged)
{
	struct scene *sc = begin("hole_10_seen_before_it_was_acknowledged");
	struct crash_session *second;

	scene_open(sc);
	scene_submit(sc, CRASH_WRITE, 0, 8, false);
	while (!sim_disk_undurable(sc->u.disk))
		scene_run(sc, 1);
	second = look_at_what_is_in_flight(sc);
	scene_run(sc, 200);
	scene_kill(sc);
	CHECK_OK(second->target->acquire(second, &sc->err));
	second->acquired = true;
	sc->s = second;
	/* Alone behind what is durable, as it believes: one FUA write is all of the flush. */
	scene_write(sc, 16, 4);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 2);
	scene_end(sc);
}
