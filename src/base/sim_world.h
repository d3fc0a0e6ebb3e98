/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The world that simulated devices and stores share: one seed, one clock, one power supply, and
 * one counter that puts the persistence points of all of them in order.
 *
 * A persistence point, or event, lies just before a step that changes what a crash could leave:
 * the submission of a write, zero, discard, put, replace or delete, its completion, and the
 * completion of a flush. At each one on_event() is called, which may take crash images of
 * everything (the step has not happened yet). If it is event number cut_at, the power goes off
 * and the step never happens. So cut_at = 1, 2, ... visits every state there is, and the run is
 * over when the count stays below cut_at.
 *
 * Once the power is off, nothing is submitted to a medium and nothing completes. A caller that
 * blocks, by poll(wait), gets its requests back with -ENODEV, since it would sleep for ever:
 * this is how synchronous recovery code comes to its end after a cut.
 *
 * Everything is on one thread and follows from the seed.
 */
#ifndef BASE_SIM_WORLD_H
#define BASE_SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rng.h"

struct sim_world {
	struct rng rng;
	uint64_t clock_ns;
	uint64_t events;   /* persistence points passed */
	uint64_t cut_at;   /* the power goes off at this event; 0: never */
	bool power_off;
	uint32_t next_id;  /* each disk and bucket has its own number */
	void (*on_event)(struct sim_world *world, void *arg);
	void *on_event_arg;
};

/*
 * What a crash leaves of that which was not durable yet: the writes that were acknowledged but
 * not flushed, in the order of their acknowledgement, and then those in flight, in the order of
 * their submission.
 *
 *   NONE    nothing of it
 *   ALL     all of it, in order
 *   PREFIX  the first n of it, in order, whole
 *   RANDOM  from the seed n: one of these, or a prefix with a torn end, or any subset, torn at
 *           sectors, in any order
 */
enum sim_keep_what {
	SIM_KEEP_WHAT_NONE,
	SIM_KEEP_WHAT_ALL,
	SIM_KEEP_WHAT_PREFIX,
	SIM_KEEP_WHAT_RANDOM,
};

struct sim_keep {
	enum sim_keep_what what;
	uint64_t n;
};

#define SIM_KEEP_NONE ((struct sim_keep){SIM_KEEP_WHAT_NONE, 0})
#define SIM_KEEP_ALL ((struct sim_keep){SIM_KEEP_WHAT_ALL, 0})
#define SIM_KEEP_PREFIX(count) ((struct sim_keep){SIM_KEEP_WHAT_PREFIX, (count)})
#define SIM_KEEP_RANDOM(seed) ((struct sim_keep){SIM_KEEP_WHAT_RANDOM, (seed)})

/*
 * A fault is planned for requests that match it, and strikes some of them. What kinds there are
 * is the device's or the store's affair.
 */
struct sim_fault {
	int kind;
	unsigned ops;         /* bits 1u << op; 0: every op */
	int error;            /* a negative errno, for the kinds that report one */
	uint64_t nth;         /* strikes first at the nth match: 1 is the next. 0: see chance_ppm */
	uint64_t times;       /* how often; 0: from then on for ever */
	uint32_t chance_ppm;  /* with nth 0: strikes each match with this probability */
	uint64_t from_ns;     /* only while from_ns <= clock < until_ns; until_ns 0: no end */
	uint64_t until_ns;
	uint64_t off_bytes;   /* only what overlaps this range; len_bytes 0: anywhere */
	uint64_t len_bytes;
	uint64_t delay_ns;    /* for the kinds that delay */
	char key_part[32];    /* stores: only keys that contain this; "": all */
	uint64_t matches;     /* counted by sim_fault_strikes() */
	uint64_t strikes;
};

#define SIM_FAULTS_MAX 16

struct sim_faults {
	struct sim_fault fault[SIM_FAULTS_MAX];
	int count;
};

/* What a request shows to the faults. */
struct sim_target {
	unsigned op;
	uint64_t off_bytes;
	uint64_t len_bytes;
	const char *key; /* NULL for devices */
};

void sim_world_init(struct sim_world *world, uint64_t seed);

/* Turns the power on again and stops counting towards a cut. Disks must have been crashed. */
void sim_world_power_on(struct sim_world *world);

/* Passes a persistence point. Returns false when the power is off: the step must not happen. */
bool sim_world_event(struct sim_world *world);

/* A number below bound from the world's seed; 0 for bound 0 and 1. */
uint64_t sim_world_below(struct sim_world *world, uint64_t bound);

/* Moves the clock forward to when_ns, never back. */
void sim_world_advance_to(struct sim_world *world, uint64_t when_ns);

/* Plans a copy of the fault. 0, or -ENOSPC when SIM_FAULTS_MAX are planned. */
int sim_faults_add(struct sim_faults *faults, const struct sim_fault *fault);

/* The first fault that strikes this request now, or NULL. Counts for all that match. */
struct sim_fault *sim_faults_strike(struct sim_faults *faults, struct sim_world *world,
				    const struct sim_target *target);

#endif
