/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scenes; see crash_scene.h.
 */
#include "lib/crash_scene.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"

#define EAGAIN_TRIES 8

struct scene *scene_new(const char *test, const struct crash_target *t,
			void (*tweak)(struct crash_config *cfg))
{
	struct scene *sc = calloc(1, sizeof(*sc));
	int rc;

	assert(sc);
	crash_begin(test, test_seed());
	sc->target = t;
	sc->cfg = (struct crash_config){
		.sectors = 64,
		.disk_bytes = (128 + 128) << 10,
		.segment_bytes = 4096,
		.buffers = 8,
		.writes_in_flight = 4,
		.batch_bytes = 4096,
		.puts_in_flight = 4,
		.checkpoint_objects = 1000,
		.part_bytes = 1 << 20,
		.shard_log2 = 25,
		.header_cache_bytes = 1 << 20,
		.batch_age_ns = UINT64_C(1000000000000),
		.ops_in_flight = 8,
		.max_write = 16,
		.lazy_home = true,
	};
	if (tweak)
		tweak(&sc->cfg);
	sc->oracle = malloc(sizeof(*sc->oracle));
	assert(sc->oracle);
	oracle_init(sc->oracle, 7, sc->cfg.sectors);
	universe_init(&sc->u, t, &sc->cfg, test_seed(), sc->oracle);
	rc = t->create(&sc->u, &sc->err);
	if (rc)
		crash_fail("creating: %s", err_text(&sc->err, rc));
	return sc;
}

void scene_end(struct scene *sc)
{
	if (sc->s)
		session_abandon(sc->s);
	universe_free(&sc->u);
	free(sc->oracle);
	free(sc);
}

int scene_try_open(struct scene *sc, bool discard_cache)
{
	int rc;

	err_clear(&sc->err);
	sc->s = session_new(sc->target, &sc->u, rng_next(&sc->u.world.rng));
	rc = session_open(sc->s, discard_cache, &sc->err);
	if (rc) {
		session_abandon(sc->s);
		sc->s = NULL;
	}
	return rc;
}

void scene_open(struct scene *sc)
{
	int rc = scene_try_open(sc, false);

	/* A late request of the owner who died says that somebody else is at work. */
	for (int i = 0; rc == -EAGAIN && i < EAGAIN_TRIES; i++)
		rc = scene_try_open(sc, false);
	if (rc)
		crash_fail("does not open: %s", err_text(&sc->err, rc));
}

void scene_close(struct scene *sc)
{
	CHECK(session_close(sc->s));
	sc->s = NULL;
}

void scene_crash(struct scene *sc, struct sim_keep keep)
{
	sc->u.world.power_off = true;
	session_abandon(sc->s);
	sc->s = NULL;
	universe_crash(&sc->u, keep);
	universe_check_home(&sc->u, false);
}

void scene_kill(struct scene *sc)
{
	session_kill(sc->s, SIM_KEEP_ALL);
	sc->s = NULL;
}

void scene_submit(struct scene *sc, enum crash_op_kind kind, uint32_t lba, uint32_t sectors,
		  bool fua)
{
	struct crash_op op = {.kind = kind, .fua = fua, .lba = lba, .sectors = sectors};

	session_submit(sc->s, &op);
}

void scene_wait(struct scene *sc)
{
	session_settle(sc->s);
}

void scene_run(struct scene *sc, unsigned int max_steps)
{
	while (max_steps-- && session_step(sc->s))
		;
}

static void do_one(struct scene *sc, enum crash_op_kind kind, uint32_t lba, uint32_t sectors)
{
	scene_submit(sc, kind, lba, sectors, false);
	scene_wait(sc);
}

void scene_write(struct scene *sc, uint32_t lba, uint32_t sectors)
{
	do_one(sc, CRASH_WRITE, lba, sectors);
}

void scene_flush(struct scene *sc)
{
	do_one(sc, CRASH_FLUSH, 0, 0);
}

void scene_drain(struct scene *sc)
{
	do_one(sc, CRASH_DRAIN, 0, 0);
}

void scene_checkpoint(struct scene *sc)
{
	do_one(sc, CRASH_CHECKPOINT, 0, 0);
}

static void read_all(struct scene *sc)
{
	int error;

	if (!session_read_all(sc->s, sc->ids, &error))
		crash_fail("reading everything: %s", strerror(-error));
}

uint32_t scene_judge(struct scene *sc)
{
	struct oracle *o = sc->oracle;
	uint32_t end;

	read_all(sc);
	if (sc->u.cache_lost && sc->u.backing) {
		/* No prefix without the cache: each sector by itself. */
		if (!oracle_check_home(o, sc->ids, o->lo_home))
			crash_fail("the cache was lost; %s", o->text);
		oracle_rebase(o, sc->ids);
		sc->u.cache_lost = false;
		sc->judged = 0;
		return 0;
	}
	if (!oracle_check_prefix(o, sc->ids, sc->u.cache_lost ? o->lo_home : o->lo, &end))
		crash_fail("%s", o->text);
	oracle_recovered(o, end, sc->u.cache_lost);
	sc->u.cache_lost = false;
	end -= sc->judged;
	sc->judged += end;
	return end;
}

void scene_expect(struct scene *sc, uint32_t end)
{
	struct oracle *o = sc->oracle;
	uint32_t n = o->n;
	bool ok;

	end += sc->judged;
	read_all(sc);
	/* With nothing behind it the only prefix that ends at or after `end` is that one. */
	o->n = end;
	ok = oracle_check_prefix(o, sc->ids, end, NULL);
	o->n = n;
	if (!ok)
		crash_fail("%s", o->text);
}

int64_t scene_read(struct scene *sc, uint32_t lba)
{
	uint8_t sector[DEV_SECTOR_BYTES];
	int rc = session_read(sc->s, lba, sector);

	sc->oracle->text[0] = '\0';
	return rc ? rc : (int64_t)oracle_decode(sc->oracle, lba, sector);
}
