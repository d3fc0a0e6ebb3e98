/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the simulated bucket, shared by sim.c (requests) and sim_bucket.c (contents).
 */
#ifndef STORE_SIM_BUCKET_H
#define STORE_SIM_BUCKET_H

#include "base/list.h"
#include "store/sim.h"
#include "store/table.h"

/* A put, replace or delete between its submission and its effect. */
struct sim_effect {
	struct list_head link;     /* bucket->flying or bucket->late */
	const struct store *store; /* who submitted it; compared only */
	enum store_op op;
	uint64_t version;          /* REPLACE: the expected one */
	struct store_object *object; /* what is put; of a delete the key alone */
};

struct sim_bucket {
	struct sim_world *world;
	struct sim_bucket_options opt;
	uint32_t id;
	uint64_t boot; /* stores opened under an older number are dead */
	struct store_table table; /* tombstones included: del_seq is not 0 */
	size_t tombstones;
	uint64_t used_bytes;
	uint64_t seq;     /* of the last change */
	uint64_t version; /* the last one given */
	struct list_head flying, late;
	struct list_head locks; /* struct sim_lock */
	struct sim_faults faults;
	uint64_t events;
	uint64_t scribbles;
};

struct sim_lock {
	struct list_head link;
	const struct store *owner;
	unsigned machine;
	char name[STORE_KEY_MAX + 1];
};

/* The live object, or NULL. */
struct store_object *sim_bucket_find(const struct sim_bucket *bucket, const char *key);

/* Takes the effect off its list, carries it out and frees it. Returns what the store answers. */
int sim_effect_land(struct sim_bucket *bucket, struct sim_effect *e, uint64_t *ret_version);
void sim_effect_free(struct sim_effect *e);

/* Decides about the flying effects of one store, or of all when store is NULL. */
int sim_bucket_decide(struct sim_bucket *bucket, const struct store *store, struct sim_keep keep);

void sim_bucket_unlock(struct sim_bucket *bucket, const struct store *owner, const char *name);

#endif
