/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host of an engine in the simulator: one thread, and a scheduler that draws every next step
 * from a seed. A step is one of
 *
 *   a completion of the cache device, of the backing device or of the store, in any order that
 *   they allow
 *   one piece of deferred work
 *   the fill or the publish of one of several writes that have been reserved, the copy of a read
 *   the engine's tick, when it is due
 *   a jump of the clock: seldom at random, and to the next thing due when there is nothing else
 *
 * so that between reserve, fill and publish of a write anything else may happen, and the power
 * may go off. New user operations are the caller's own steps: sim_host_submit().
 *
 * Requests are struct sim_op, owned by the host from submit to done, which is called when the
 * engine is not entered, as volumes do it (base/host.h).
 */
#ifndef TESTS_LIB_SIM_HOST_H
#define TESTS_LIB_SIM_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/host.h"
#include "base/rng.h"
#include "base/sim_world.h"
#include "dev/dev.h"
#include "store/store.h"
#include "wlog/wlog.h"

enum sim_op_stage {
	SIM_OP_IDLE,
	SIM_OP_QUEUED, /* in the engine */
	SIM_OP_FILL,   /* reserved */
	SIM_OP_PUBLISH,
	SIM_OP_COPY,   /* a read that has begun */
};

struct sim_op {
	struct dev_req req;
	struct list_head link; /* sim_host.stepping, while stage is FILL, PUBLISH or COPY */
	enum sim_op_stage stage;
	void (*taken)(struct sim_op *op); /* a write got its place in the order; may be NULL */
	void (*done)(struct sim_op *op);
	void *owner;
	uint64_t id;
	uint32_t lba, sectors, mark;
};

struct sim_host {
	struct host host;
	struct sim_world *world;
	struct rng rng;
	struct dev *dev;     /* may be NULL */
	struct dev *backing; /* the home's, where that is a device; may be NULL */
	struct store *store; /* may be NULL */
	struct wlog *log;
	void (*tick)(struct sim_host *sh); /* entered; NULL: none */
	void *owner;
	struct list_head works;
	struct list_head stepping;
	uint64_t wake_ns;
	uint64_t steps;
	unsigned int in_flight; /* ops between submit and done */
	bool entered;
};

void sim_host_init(struct sim_host *sh, struct sim_world *world, uint64_t seed);

/* Submits a WRITE, ZERO, DISCARD, READ or FLUSH. Returns a negative errno when it was refused. */
int sim_host_submit(struct sim_host *sh, struct sim_op *op);

/* Does one step. False when there is nothing that could ever happen by itself, or no power. */
bool sim_host_step(struct sim_host *sh);

/*
 * After a crash: brings back what the engine has in flight, all with errors, and runs what it
 * defers, so that it becomes idle and can be closed. True while there was something to do.
 */
bool sim_host_bury(struct sim_host *sh);

#endif
