/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A simulated object store, for tests: deterministic, on one thread.
 *
 * struct sim_bucket holds the objects and survives everything; stores are opened on it, several
 * at once if need be (an old owner and a new one). A store completes its requests one at a time,
 * in an order drawn from the world's seed, each time poll() or help() is called.
 *
 * The bucket itself has no power switch: it is far away. What a crash decides is the fate of the
 * requests in flight: each lands, or not, or lands late, when somebody else is already at work.
 * A request that lands late meets what is there then: a PUT_NEW of a key that exists by now and a
 * REPLACE of a version that is gone have no effect. Late requests land one at a time, at random
 * polls of any store on the bucket, or when sim_bucket_land_late() says so.
 */
#ifndef STORE_SIM_H
#define STORE_SIM_H

#include "base/sim_world.h"
#include "store/store.h"

struct sim_bucket;

struct sim_bucket_options {
	uint64_t latency_ns; /* as in dev/sim.h */
	uint64_t jitter_ns;
	uint64_t quota_bytes;    /* -ENOSPC above; 0: none */
	uint32_t late_ppm;       /* with SIM_KEEP_RANDOM: share that lands late; 0: a quarter */
	uint32_t land_late_ppm;  /* chance of each poll to land a late one; 0: one in 16 */
	bool hold_late;          /* only sim_bucket_land_late() lands late ones */
};

/* The kinds of struct sim_fault for stores. */
enum sim_store_fault {
	SIM_STORE_ERROR,     /* fault->error without effect: -EIO, -ETIMEDOUT, -ENOSPC, ... */
	SIM_STORE_EFFECT,    /* fault->error, but it had its effect */
	SIM_STORE_LATE,      /* fault->error, and it will have its effect late */
	SIM_STORE_LOST,      /* a put succeeds, and the object is gone; a get finds it gone */
	SIM_STORE_SHORT,     /* the object, put or read now, is cut short for good */
	SIM_STORE_CORRUPT,   /* a bit of the object, put or read now, is wrong for good */
	SIM_STORE_GARBLE,    /* this get returns a wrong bit; the object is sound */
	SIM_STORE_STALE,     /* a list omits recent keys, and shows some that were deleted */
	SIM_STORE_DELAY,     /* it takes fault->delay_ns longer */
};

int sim_bucket_new(struct sim_world *world, const struct sim_bucket_options *opt,
		   struct sim_bucket **ret);

/* All stores on it must be closed. */
void sim_bucket_free(struct sim_bucket *bucket);

/*
 * machine tells hosts apart: store_ops.lock excludes within one machine only. A lock dies with
 * its store.
 */
int sim_store_open(struct sim_bucket *bucket, unsigned machine, struct store **ret);

/*
 * All open stores die (the power cut). keep decides about what was in flight, in the order of
 * submission; RANDOM may also make it late. Fails with -ENOMEM only, and then has changed nothing.
 */
int sim_bucket_crash(struct sim_bucket *bucket, struct sim_keep keep);

/* One store dies (its process, its network); the others go on. */
int sim_store_kill(struct store *store, struct sim_keep keep);

/*
 * Makes dst, usually of another world, what src would be after a crash now. Bodies are shared, so
 * this is cheap. Options and late requests are copied, faults are not: dst has its own. Stores that
 * were open on dst are dead.
 */
int sim_bucket_image(const struct sim_bucket *src, struct sim_keep keep, struct sim_bucket *dst);

/* Requests with an effect that are in flight: the bound of PREFIX. */
uint64_t sim_bucket_undurable(const struct sim_bucket *bucket);

/* Lands up to max late requests, drawn from the seed; returns how many there were to land. */
unsigned sim_bucket_land_late(struct sim_bucket *bucket, unsigned max);

unsigned sim_bucket_late(const struct sim_bucket *bucket);

/* Persistence points passed by this bucket alone. */
uint64_t sim_bucket_events(const struct sim_bucket *bucket);

/* Puts whose memory changed between submit and done: always a bug of the caller. */
uint64_t sim_bucket_scribbles(const struct sim_bucket *bucket);

int sim_bucket_fault(struct sim_bucket *bucket, const struct sim_fault *fault);
void sim_bucket_heal(struct sim_bucket *bucket);

/* Behind everybody's back. All return -ENOENT when there is no such object. */
int sim_bucket_lose(struct sim_bucket *bucket, const char *key);
int sim_bucket_truncate(struct sim_bucket *bucket, const char *key, size_t len_bytes);
/* That many bits, each anywhere from off_bytes on. */
int sim_bucket_rot(struct sim_bucket *bucket, const char *key, size_t off_bytes, unsigned bits);

/* The number of objects, and the i-th of them in the order of keys; NULL beyond the end. */
size_t sim_bucket_count(const struct sim_bucket *bucket);
const char *sim_bucket_key(const struct sim_bucket *bucket, size_t i);
/* The body, or NULL. Valid until the bucket next changes. */
const void *sim_bucket_body(const struct sim_bucket *bucket, const char *key, size_t *ret_len);

/* When the next request is due; UINT64_MAX when none is in flight. */
uint64_t sim_store_next_due_ns(struct store *store);

#endif
