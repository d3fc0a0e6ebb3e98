/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash harness: seeded runs of an engine with power cuts at its persistence points.
 *
 * A run is a seed. From it follow the geometry, a program of operations and every choice of the
 * scheduler. The program runs once without a cut; at its persistence points the harness takes
 * crash images of everything that survives (cache, store, home), each with another choice of what
 * was not durable yet, and explores each image in a universe of its own:
 *
 *	recover, perhaps with further power cuts inside recovery
 *	read everything, check the promises (oracle.h)
 *	write more, cut or kill again, recover again, ... up to `generations` deep
 *
 * Each recovery that is followed by a check counts as one image.
 *
 * crash_report.h has the environment that says how many and which. With VARVE_CRASH_SHRINK, and
 * VARVE_SEED, operations are first dropped from the program for as long as it still fails; then it
 * fails with the rest and the trace of its steps.
 */
#ifndef TESTS_LIB_CRASH_H
#define TESTS_LIB_CRASH_H

#include "lib/crash_session.h"

struct crash_profile {
	const char *test;  /* the TEST's name, for the replay command */
	const struct crash_target *target;
	uint32_t share_ppm;   /* of VARVE_CRASH_IMAGES */
	uint32_t ops;         /* of the program, at most */
	uint32_t disk_kib;    /* of the cache's ring at most; 0: 512 */
	uint32_t disk_kib_min; /* and at least */
	bool dense;           /* every persistence point, every prefix */
	bool big_writes;      /* larger than a segment, often */
	uint32_t generations; /* at most; 0: 1 */
	uint32_t cut_recovery_percent; /* of recoveries that are cut themselves */
	uint32_t lose_cache_percent;
	uint32_t kill_percent; /* of later crashes that spare the devices */
};

/* As many seeds as the profile's share of images takes, up to the first failure. */
void crash_run(const struct crash_profile *p);

/* Random geometry, and a random operation for it. */
void crash_config_random(struct crash_config *cfg, const struct crash_profile *p,
			 struct rng *rng);
void crash_op_random(struct crash_op *op, const struct crash_config *cfg, struct rng *rng);

#endif
