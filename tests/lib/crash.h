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
 *	VARVE_CRASH_IMAGES   images in all programs together, 100000 by default; each case takes
 *	                     its share
 *	VARVE_SEED           one run, of this seed alone: what a failure prints
 *	VARVE_CRASH_SHRINK   with VARVE_SEED: first drops operations from the program for as long
 *	                     as it still fails, then fails with the rest and the trace of its steps
 */
#ifndef TESTS_LIB_CRASH_H
#define TESTS_LIB_CRASH_H

#include "lib/crash_session.h"

struct crash_profile {
	const char *test;  /* the TEST's name, for the replay command */
	const struct crash_target *target;
	uint32_t share_ppm;   /* of VARVE_CRASH_IMAGES */
	uint32_t ops;         /* of the program, at most */
	uint32_t disk_kib;    /* of the cache at most; 0: 512 */
	bool dense;           /* every persistence point, every prefix */
	bool big_writes;      /* larger than a segment, often */
	uint32_t generations; /* at most; 0: 1 */
	uint32_t cut_recovery_percent; /* of recoveries that are cut themselves */
	uint32_t lose_cache_percent;
	uint32_t kill_percent; /* of later crashes that spare the devices */
};

/* Runs as many seeds as the profile's share of images takes. Fails the test at the first failure. */
void crash_run(const struct crash_profile *p);

/* For tests that drive sessions by themselves: what a failure prints. */
void crash_begin(const char *test, uint64_t seed);
uint64_t crash_images(uint32_t share_ppm);
/* The seed that the user asked for, or the default. */
uint64_t crash_seed(uint64_t nth, bool *ret_only);

/* Random geometry, and a random operation for it. */
void crash_config_random(struct crash_config *cfg, const struct crash_profile *p,
			 struct rng *rng);
void crash_op_random(struct crash_op *op, const struct crash_config *cfg, struct rng *rng);

#endif
