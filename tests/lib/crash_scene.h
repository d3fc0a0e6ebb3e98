/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scenes: hand-written stories of writes, crashes and damage, on the same universe, sessions and
 * oracle as the random runs.
 *
 *	struct scene *sc = scene_new("name", &crash_on_log, NULL);
 *	scene_open(sc);
 *	scene_write(sc, 0, 8);
 *	scene_flush(sc);
 *	scene_crash(sc, SIM_KEEP_NONE);
 *	scene_open(sc);
 *	scene_judge(sc);
 *	scene_end(sc);
 */
#ifndef TESTS_LIB_CRASH_SCENE_H
#define TESTS_LIB_CRASH_SCENE_H

#include "lib/crash.h"

struct scene {
	const struct crash_target *target;
	struct crash_config cfg;
	struct crash_universe u;
	struct oracle *oracle;
	struct crash_session *s; /* NULL while closed */
	struct err err;          /* of the last scene_try_open() */
	uint32_t judged;        /* writes up to the last judgement */
	uint64_t ids[ORACLE_SECTORS_MAX]; /* what scene_judge() has read */
};

/* One segment of 4 KiB per 8-sector write, a lazy home, no latency. NULL: just that. */
struct scene *scene_new(const char *test, const struct crash_target *t,
			void (*tweak)(struct crash_config *cfg));
void scene_end(struct scene *sc);

int scene_try_open(struct scene *sc, bool discard_cache);
void scene_open(struct scene *sc);
void scene_close(struct scene *sc);
void scene_crash(struct scene *sc, struct sim_keep keep);
void scene_kill(struct scene *sc);

/* Submits; the wait is scene_wait(). */
void scene_submit(struct scene *sc, enum crash_op_kind kind, uint32_t lba, uint32_t sectors,
		  bool fua);
/* Until everything submitted is done. */
void scene_wait(struct scene *sc);
/* Until nothing moves any more, or max_steps. */
void scene_run(struct scene *sc, unsigned int max_steps);

/* The same and wait. */
void scene_write(struct scene *sc, uint32_t lba, uint32_t sectors);
void scene_flush(struct scene *sc);
void scene_drain(struct scene *sc);
void scene_checkpoint(struct scene *sc);

/*
 * Reads everything and checks the promises. Returns how many of the writes since the last judgement
 * are there; the others never were. Of a backing device whose cache was lost: 0, and what it holds
 * is the base of what follows.
 */
uint32_t scene_judge(struct scene *sc);
/* Reads everything and demands the state after the first `end` writes since the last judgement. */
void scene_expect(struct scene *sc, uint32_t end);
/* Reads one sector; returns its write id, or a negative errno. */
int64_t scene_read(struct scene *sc, uint32_t lba);

#endif
