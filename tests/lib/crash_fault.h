/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random work under faults of the devices, crashes of it, and recoveries: what the fault tests of
 * all targets share. Operations may fail, but nothing hangs.
 *
 *	fault_begin(&r, &profile, "test", seed);
 *	fault_work(&r, 200);
 *	fault_plan_disk(&r, r.u.disk);
 *	fault_work(&r, 600);
 *	fault_crash(&r);
 *	fault_recover(&r);
 *	fault_check_promises(&r);
 *	fault_end(&r);
 */
#ifndef TESTS_LIB_CRASH_FAULT_H
#define TESTS_LIB_CRASH_FAULT_H

#include "lib/crash.h"

#define FAULT_DEV_WRITES (1u << DEV_WRITE | 1u << DEV_ZERO | 1u << DEV_DISCARD)

struct fault_run {
	const struct crash_target *target;
	struct crash_universe u;
	struct crash_config cfg;
	struct oracle *oracle;
	struct rng rng;
	struct crash_session *s; /* NULL: crashed */
	bool flush_may_fail;     /* of the cache */
};

/* A volume, opened; p says what kind. */
void fault_begin(struct fault_run *r, const struct crash_profile *p, const char *test,
		 uint64_t seed);
void fault_end(struct fault_run *r);

/* Random operations and steps of the session. */
void fault_work(struct fault_run *r, uint32_t steps);
/* The same without reads, for when the oracle does not know what they may give. */
void fault_work_blind(struct fault_run *r, uint32_t steps);

/* Draws from which request on, and how often. */
void fault_when(struct sim_fault *f, struct rng *rng);
/* Plans errors or delays of a disk; if it is the cache, reads fail twice at most. */
void fault_plan_disk(struct fault_run *r, struct sim_disk *disk);
/* Plans lost writes, writes that go astray, rot. */
void fault_plan_rot(struct fault_run *r, struct sim_disk *disk);
void fault_heal(struct fault_run *r);

/* A power cut, or the death of the process. */
void fault_crash(struct fault_run *r);
int fault_reopen(struct fault_run *r, bool discard, struct err *err);
/* Opens while the faults last; if that fails, without them, which must work. */
void fault_recover(struct fault_run *r);

/* Everything is read; then it is the base of what follows. */
void fault_check_promises(struct fault_run *r);
/* Each sector by itself: an error, or something that was once written there (P5). */
void fault_check_no_garbage(struct fault_run *r);

#endif
