/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The harness tested: what the oracle must notice, and that a device which lies about flushes is
 * caught. (That each durability step of the engines is needed is tools/check-mutants' affair.)
 */
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_log.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"

#define SECTORS 16

static struct oracle *oracle_with(uint32_t writes)
{
	struct oracle *o = malloc(sizeof(*o));

	CHECK(o != NULL);
	oracle_init(o, 5, SECTORS);
	for (uint32_t i = 0; i < writes; i++) {
		uint64_t id = oracle_write(o, ORACLE_DATA, i, 3);

		oracle_sequence(o, id, 100 + i);
		oracle_acknowledge(o, id);
	}
	return o;
}

/* Writes 1 to n, each of 3 sectors from lba n - 1 on. */
static void image_after(uint32_t n, uint64_t *ids)
{
	memset(ids, 0, SECTORS * sizeof(*ids));
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < 3; k++)
			ids[i + k] = i + 1;
}

TEST(oracle_accepts_prefixes)
{
	struct oracle *o = oracle_with(5);
	uint64_t ids[SECTORS];
	uint32_t end;

	for (uint32_t n = 0; n <= 5; n++) {
		image_after(n, ids);
		CHECK(oracle_check_prefix(o, ids, 0, &end));
		CHECK_EQ(end, n);
		CHECK_EQ(oracle_check_prefix(o, ids, 3, NULL), n >= 3);
		CHECK_EQ(oracle_check_sectors(o, ids, 3), n >= 3);
	}
	free(o);
}

TEST(oracle_refuses_mixtures)
{
	struct oracle *o = oracle_with(5);
	uint64_t ids[SECTORS];

	/* The fourth without the third. */
	image_after(4, ids);
	ids[2] = 2;
	CHECK(!oracle_check_prefix(o, ids, 0, NULL));
	/* Half of the last one. */
	image_after(5, ids);
	ids[6] = 0;
	CHECK(!oracle_check_prefix(o, ids, 0, NULL));
	/* A write that never was. */
	image_after(5, ids);
	ids[0] = 77;
	CHECK(!oracle_check_prefix(o, ids, 0, NULL));
	CHECK(!oracle_check_sectors(o, ids, 0));
	free(o);
}

TEST(oracle_recognises_foreign_data)
{
	struct oracle *o = oracle_with(2);
	uint8_t sector[512], copy[512];

	oracle_stamp(o, 2, 1, sector, 1);
	CHECK_EQ(oracle_decode(o, 1, sector), 2);
	CHECK_EQ(oracle_decode(o, 2, sector), ORACLE_GARBAGE);
	memcpy(copy, sector, sizeof(copy));
	copy[300] ^= 4;
	CHECK_EQ(oracle_decode(o, 1, copy), ORACLE_GARBAGE);
	o->volume++;
	CHECK_EQ(oracle_decode(o, 1, sector), ORACLE_GARBAGE);
	memset(sector, 0, sizeof(sector));
	CHECK_EQ(oracle_decode(o, 1, sector), 0);
	sector[511] = 1;
	CHECK_EQ(oracle_decode(o, 1, sector), ORACLE_GARBAGE);
	free(o);
}

TEST(oracle_reads_do_not_go_back)
{
	struct oracle *o = oracle_with(0);
	uint64_t first = oracle_write(o, ORACLE_DATA, 0, 1);
	uint64_t second = oracle_write(o, ORACLE_DATA, 0, 1);
	uint8_t old[512], new[512];
	uint32_t floor[1];

	oracle_stamp(o, first, 0, old, 1);
	oracle_stamp(o, second, 0, new, 1);
	oracle_sequence(o, first, 0);
	oracle_acknowledge(o, first);
	oracle_sequence(o, second, 0);
	oracle_read_floor(o, 0, 1, floor);
	/* The second is on its way: both are right. */
	CHECK(oracle_check_read(o, 0, 1, floor, old));
	CHECK(oracle_check_read(o, 0, 1, floor, new));
	oracle_acknowledge(o, second);
	oracle_read_floor(o, 0, 1, floor);
	CHECK(!oracle_check_read(o, 0, 1, floor, old));
	CHECK(oracle_check_read(o, 0, 1, floor, new));
	free(o);
}

/* After a recovery what was cut off may not come back. */
TEST(oracle_remembers_what_was_answered)
{
	struct oracle *o = oracle_with(5);
	uint64_t ids[SECTORS], id;

	image_after(3, ids);
	oracle_recovered(o, 3, false);
	CHECK(oracle_check_prefix(o, ids, o->lo, NULL));
	id = oracle_write(o, ORACLE_DATA, 10, 1);
	oracle_sequence(o, id, 0);
	ids[10] = id;
	CHECK(oracle_check_prefix(o, ids, o->lo, NULL));
	image_after(4, ids);
	CHECK(!oracle_check_prefix(o, ids, 0, NULL));
	image_after(2, ids);
	CHECK(!oracle_check_prefix(o, ids, o->lo, NULL));
	CHECK(oracle_check_prefix(o, ids, o->lo_home, NULL));
	free(o);
}

/* A device whose flush does nothing: some image must show it. */
TEST(lying_device_is_caught)
{
	struct sim_fault lie = {.kind = SIM_DEV_FLUSH_LIE, .ops = 1u << DEV_FLUSH, .nth = 1};
	unsigned int caught = 0;

	for (uint64_t seed = 0; seed < 50; seed++) {
		struct scene *sc = scene_new("lying_device_is_caught", &crash_on_log, NULL);
		int error;

		scene_open(sc);
		CHECK_OK(sim_disk_fault(sc->u.disk, &lie));
		/* Several segments under one flush: a single one would go out with FUA. */
		for (uint32_t i = 0; i < 6; i++)
			scene_submit(sc, CRASH_WRITE, 8 * i, 8, false);
		scene_run(sc, 60);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_RANDOM(seed));
		CHECK_EQ(sc->oracle->lo, 6);
		if (scene_try_open(sc, false) != 0 ||
		    !session_read_all(sc->s, sc->ids, &error) ||
		    !oracle_check_prefix(sc->oracle, sc->ids, sc->oracle->lo, NULL))
			caught++;
		scene_end(sc);
	}
	CHECK(caught > 0);
}

/* One seed, one history. */
TEST(runs_are_reproducible)
{
	uint64_t events[2];

	for (int i = 0; i < 2; i++) {
		struct scene *sc = scene_new("runs_are_reproducible", &crash_on_log, NULL);

		scene_open(sc);
		for (uint32_t k = 0; k < 100; k++) {
			scene_submit(sc, CRASH_WRITE, k % 40, 1 + k % 9, k % 5 == 0);
			scene_run(sc, 7);
			if (k % 6 == 5)
				scene_wait(sc);
		}
		scene_wait(sc);
		events[i] = sc->u.world.events * 1000003 + sc->s->sh.steps;
		scene_end(sc);
	}
	CHECK_EQ(events[0], events[1]);
}
