/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simplest host of an engine: one thread, a clock that only tests move, no choice about the
 * order of anything. For unit tests, where tests/lib/sim_host.h would be too inventive.
 */
#ifndef TESTS_LIB_HOST_SINGLE_H
#define TESTS_LIB_HOST_SINGLE_H

#include "base/host.h"
#include "base/rng.h"
#include "base/sim_world.h"
#include "dev/dev.h"
#include "store/store.h"
#include "wlog/wlog.h"

struct host_single {
	struct host host;
	struct rng rng;
	struct dev *dev;		      /* polled, may be NULL */
	struct dev *backing;		      /* the same: the home's, where that is a device */
	struct store *store;		      /* polled, may be NULL */
	struct sim_world *world;	      /* may be NULL; else its clock is moved along */
	struct wlog *log;		      /* of host_single_io() */
	void (*tick)(struct host_single *hs); /* entered */
	void *owner;
	struct list_head works;
	uint64_t now_ns, wake_ns;
	bool entered;
};

void host_single_init(struct host_single *hs, uint64_t seed);

/* Everything that can happen without the clock: completions and deferred work. */
void host_single_settle(struct host_single *hs);

/* Moves the clock, stopping at every tick that was asked for on the way. */
void host_single_advance(struct host_single *hs, uint64_t ns);

/* One request on the log from submit to done, moving the clock as far as that takes. */
int host_single_io(struct host_single *hs, struct wlog *log, enum dev_op op, uint64_t lba,
		   uint32_t sectors, void *buf, bool fua);

#endif
