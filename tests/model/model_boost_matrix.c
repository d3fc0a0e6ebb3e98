/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The composition matrix: each sector of a 4 KiB block is on the backing device, in the log on the
 * cache device, or in memory, and a read puts them together. All 3^8 blocks that there are, checked
 * against an array, before and after writeback; where each sector came from is counted, so that
 * the blocks are what they are meant to be.
 *
 * Then random operations over the same blocks, with flushes, drains, openings and crashes that lose
 * nothing, against the same array.
 */
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_boost.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"

#define BLOCK 8u
#define BLOCKS 81u
#define SECTORS (BLOCK * BLOCKS)
#define CODES 6561u /* 3^8 */

enum where {
	HOME,
	LOG,
	MEMORY,
};

struct matrix {
	struct scene *sc;
	struct rng rng;
	uint64_t want[SECTORS]; /* the write that each sector must hold */
	uint8_t where[SECTORS];
};

static void geometry(struct crash_config *cfg)
{
	cfg->sectors = SECTORS;
	cfg->disk_bytes = 8u << 20;
	cfg->segment_bytes = 16384;
	cfg->buffers = 64;
	cfg->max_write = 64;
	cfg->adopt = true;
}

static void begin(struct matrix *m, const char *test, uint64_t seed)
{
	memset(m, 0, sizeof(*m));
	m->sc = scene_new(test, &crash_on_boost, geometry);
	memcpy(m->want, m->sc->oracle->base, sizeof(m->want));
	rng_seed(&m->rng, seed);
	scene_open(m->sc);
	rng_seed(&m->sc->s->sh.rng, seed);
}

/* What the array says is the base of the oracle too, so that it never runs out of room. */
static void settle(struct matrix *m)
{
	scene_wait(m->sc);
	oracle_rebase(m->sc->oracle, m->want);
	m->sc->judged = 0;
	m->sc->u.home_unknown = true;
}

/* Whether something in flight touches it: then nobody could say which one comes last. */
static bool overlaps(const struct matrix *m, uint32_t lba, uint32_t sectors)
{
	const struct crash_session *s = m->sc->s;

	for (unsigned int i = 0; i < SESSION_OPS_MAX; i++) {
		const struct sim_op *op = &s->ops[i];

		if ((s->ops_used & 1u << i) && op->req.op != DEV_FLUSH && op->lba < lba + sectors &&
		    lba < op->lba + op->sectors)
			return true;
	}
	return false;
}

static void put(struct matrix *m, enum crash_op_kind kind, uint32_t lba, uint32_t sectors)
{
	struct crash_op op = {.kind = kind};
	uint64_t id;

	if (!oracle_has_room(m->sc->oracle))
		settle(m);
	while (!session_can(m->sc->s, &op) || overlaps(m, lba, sectors))
		scene_run(m->sc, 1);
	id = m->sc->oracle->next_id;
	scene_submit(m->sc, kind, lba, sectors, false);
	for (uint32_t i = 0; i < sectors; i++)
		m->want[lba + i] = kind == CRASH_WRITE ? id : 0;
}

/* Writes the runs of a block that are to be there; a run is cut in two now and then. */
static void put_where(struct matrix *m, enum where where)
{
	for (uint32_t lba = 0; lba < SECTORS;) {
		uint32_t n = 0;

		while (lba + n < SECTORS && m->where[lba + n] == (uint8_t)where &&
		       (n == 0 || !rng_chance(&m->rng, 1, 12)))
			n++;
		if (n)
			put(m, CRASH_WRITE, lba, n);
		lba += n ? n : 1;
	}
	scene_wait(m->sc);
}

static void check(struct matrix *m, uint32_t lba, uint32_t n)
{
	uint8_t buf[BLOCK * 4 * DEV_SECTOR_BYTES];

	CHECK_OK(session_read_range(m->sc->s, lba, n, buf));
	for (uint32_t i = 0; i < n; i++) {
		uint64_t got = oracle_decode(m->sc->oracle, lba + i,
					     buf + (size_t)i * DEV_SECTOR_BYTES);

		if (got != m->want[lba + i])
			crash_fail("lba %u (%u): write %llu instead of %llu", lba + i,
				   m->where[lba + i], (unsigned long long)got,
				   (unsigned long long)m->want[lba + i]);
	}
}

/* Every block, whole; then pieces of one to four. */
static void check_all(struct matrix *m)
{
	for (uint32_t b = 0; b < BLOCKS; b++)
		check(m, b * BLOCK, BLOCK);
	for (uint32_t i = 0; i < BLOCKS; i++) {
		uint32_t n = 1 + (uint32_t)rng_below(&m->rng, 4 * BLOCK);

		check(m, (uint32_t)rng_below(&m->rng, SECTORS - n + 1), n);
	}
}

static void check_places(struct matrix *m)
{
	struct wlog_status before, after;
	uint64_t count[3] = {0};

	for (uint32_t i = 0; i < SECTORS; i++)
		count[m->where[i]]++;
	wlog_status(m->sc->s->sh.log, &before);
	for (uint32_t b = 0; b < BLOCKS; b++)
		check(m, b * BLOCK, BLOCK);
	wlog_status(m->sc->s->sh.log, &after);
	CHECK_EQ(after.read_misses - before.read_misses, count[HOME]);
	CHECK_EQ(after.read_hits_device - before.read_hits_device, count[LOG]);
	CHECK_EQ(after.read_hits_memory - before.read_hits_memory, count[MEMORY]);
}

static void reopen_after_crash(struct matrix *m)
{
	/* A flush covers what was acknowledged before it. */
	settle(m);
	scene_flush(m->sc);
	scene_crash(m->sc, SIM_KEEP_RANDOM(rng_next(&m->rng)));
	scene_open(m->sc);
}

static void round_of(struct matrix *m, uint32_t first_code)
{
	for (uint32_t b = 0; b < BLOCKS; b++) {
		uint32_t code = (first_code + b) % CODES;

		for (uint32_t i = 0; i < BLOCK; i++, code /= 3)
			m->where[b * BLOCK + i] = code % 3;
	}
	put(m, CRASH_WRITE, 0, SECTORS / 2);
	put(m, CRASH_WRITE, SECTORS / 2, SECTORS / 2);
	/* In order, so that the log knows for good that it needs none of this any more. */
	settle(m);
	scene_close(m->sc);
	scene_open(m->sc);
	put_where(m, LOG);
	reopen_after_crash(m);
	put_where(m, MEMORY);
	check_places(m);
	check_all(m);
	settle(m);
	scene_drain(m->sc);
	check_all(m);
}

TEST(boost_matrix)
{
	struct matrix *m = malloc(sizeof(*m));

	begin(m, "boost_matrix", test_seed());
	for (uint32_t code = 0; code < CODES; code += BLOCKS)
		round_of(m, code);
	settle(m);
	scene_close(m->sc);
	scene_end(m->sc);
	free(m);
}

static void random_step(struct matrix *m)
{
	struct rng *rng = &m->rng;
	uint32_t n = rng_chance(rng, 1, 2) ? 1 + (uint32_t)rng_below(rng, BLOCK) :
					     1 + (uint32_t)rng_below(rng, 40);
	uint32_t lba = (uint32_t)rng_below(rng, SECTORS - n + 1);

	switch (rng_below(rng, 40)) {
	case 0:
		scene_drain(m->sc);
		break;
	case 1:
		reopen_after_crash(m);
		break;
	case 2:
		settle(m);
		scene_close(m->sc);
		scene_open(m->sc);
		break;
	case 3:
	case 4:
		put(m, CRASH_ZERO, lba, n);
		break;
	case 5:
	case 6:
		put(m, CRASH_DISCARD, lba, n);
		break;
	case 7:
		scene_flush(m->sc);
		break;
	case 8:
		scene_wait(m->sc);
		check_all(m);
		break;
	case 9:
		scene_checkpoint(m->sc);
		break;
	default:
		put(m, CRASH_WRITE, lba, n);
		scene_run(m->sc, (unsigned int)rng_below(rng, 20));
	}
}

TEST(boost_matrix_random)
{
	struct matrix *m = malloc(sizeof(*m));

	for (uint64_t seed = 0; seed < 20; seed++) {
		begin(m, "boost_matrix_random", test_seed() + seed);
		m->sc->cfg.lazy_home = seed % 2;
		m->sc->cfg.moody = true;
		for (int i = 0; i < 600; i++)
			random_step(m);
		settle(m);
		check_all(m);
		scene_close(m->sc);
		scene_end(m->sc);
	}
	free(m);
}

static void large(struct crash_config *cfg)
{
	cfg->sectors = 4096;
	cfg->disk_bytes = 24u << 20;
	cfg->segment_bytes = 256u << 10;
	cfg->buffers = 32;
	cfg->batch_segments = 64;
}

/* Batches of more than one request can carry: neighbours are cut apart, and all is written. */
TEST(boost_large_batches)
{
	struct rng rng;

	rng_seed(&rng, test_seed());
	for (int round = 0; round < 12; round++) {
		struct scene *sc = scene_new("boost_large_batches", &crash_on_boost, large);
		uint32_t lba = (uint32_t)rng_below(&rng, 20);

		scene_open(sc);
		while (lba < 4096) {
			uint32_t n = (uint32_t)rng_between(&rng, 1, 700);

			if (n > 4096 - lba)
				n = 4096 - lba;
			scene_write(sc, lba, n);
			lba += n;
		}
		/* Some of it from the cache device. */
		if (round % 2) {
			scene_flush(sc);
			scene_crash(sc, SIM_KEEP_NONE);
			scene_open(sc);
			scene_judge(sc);
			scene_write(sc, 1000, 100);
		}
		scene_drain(sc);
		scene_expect(sc, sc->oracle->n - sc->judged);
		/* What is home is compared when the power goes off. */
		scene_crash(sc, SIM_KEEP_NONE);
		scene_open(sc);
		scene_judge(sc);
		scene_end(sc);
	}
}
