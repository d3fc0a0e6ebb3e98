/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loading the data of a durable segment that is no longer in memory, for a home: retries, and when
 * a place cannot be read, everything around it. The algorithm is in segload.c.
 *
 * Entered. The segment is pinned by the caller until done. What could not be read is filled with a
 * pattern that its checksum does not match (the caller verifies, as always). A device of which
 * nothing can be read is tried for ever, with failed() telling of it, since nobody knows what it
 * still holds; after timers are stopped done() never comes.
 */
#ifndef WLOG_SEGLOAD_H
#define WLOG_SEGLOAD_H

#include "base/timers.h"
#include "dev/dev.h"
#include "wlog/wlog.h"

/* What all loads of one home share; it outlives them for as long as busy() says so. */
struct segload_user {
	struct wlog *log;
	struct dev *dev; /* the log's */
	struct timers *timers;
	uint64_t retry_min_ns, retry_max_ns;
	/*
	 * Entered. +1 for each request submitted, -1 when it is back and what followed from it was
	 * kicked; by then the load may be gone.
	 */
	void (*busy)(struct segload_user *user, int delta);
	void (*failed)(struct segload_user *user, int error); /* entered */
};

struct segload {
	/* The caller's. */
	struct segload_user *user;
	struct wlog_seg *seg;
	void *buf; /* 4 KiB aligned, the segment's data_sectors rounded up to 4 KiB */
	void (*done)(struct segload *load); /* entered; may free load */
	/* Its own. */
	struct dev_req req;
	struct timer timer;
	uint64_t dev_off, dev_len, at;
	unsigned int tries, good, bad;
};

/* Whoever calls this kicks the device after leaving. */
void segload_start(struct segload *load);

#endif
