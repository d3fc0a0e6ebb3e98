/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The contents of a simulated bucket, and what becomes of requests whose sender has died.
 *
 * Objects are in a table (table.h); a change puts another object in the place of the old one. So
 * the image of a bucket is an array of references, and crash tests may take one at each
 * persistence point.
 *
 * Invariants
 *  1. A struct store_object in a bucket is never changed, only replaced.
 *  2. versions are given once in the life of a bucket and its images: an object that is put,
 *     deleted and put again has another version (no ABA).
 *  3. Of deleted objects an entry without body stays for a while (a tombstone), since stale lists
 *     show it. There are at most TOMBSTONES_MAX after a change.
 *  4. The choices of a crash depend on the flying list and struct sim_keep only.
 *
 * Locks: none, one thread.
 */
#include "store/sim_bucket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PPM 1000000u
#define ID_MIX UINT64_C(0x9e3779b97f4a7c15)
#define TOMBSTONES_MAX 128
#define LATE_PPM_DEFAULT 250000

void sim_effect_free(struct sim_effect *e)
{
	list_del(&e->link);
	store_object_put(e->object);
	free(e);
}

struct store_object *sim_bucket_find(const struct sim_bucket *bucket, const char *key)
{
	struct store_object *o = store_table_find(&bucket->table, key);

	return o && !o->del_seq ? o : NULL;
}

/* What an entry counts for in the totals; sign is 1 or -1. */
static void account(struct sim_bucket *bucket, const struct store_object *o, int sign)
{
	if (o->del_seq)
		bucket->tombstones += (size_t)sign;
	else
		bucket->used_bytes += (uint64_t)((int64_t)o->len_bytes * sign);
}

static int set_object(struct sim_bucket *bucket, struct store_object *o)
{
	struct store_object *old = store_table_find(&bucket->table, o->key);
	int ret;

	if (old)
		account(bucket, old, -1);
	ret = store_table_set(&bucket->table, o);
	if (ret == 0)
		account(bucket, o, 1);
	return ret;
}

/* Invariant 3. The older half goes. */
static void sweep_tombstones(struct sim_bucket *bucket)
{
	struct store_table *t = &bucket->table;
	size_t to_drop = TOMBSTONES_MAX / 2;

	if (bucket->tombstones <= TOMBSTONES_MAX)
		return;
	for (size_t i = t->count; i-- > 0 && to_drop;) {
		if (!t->at[i]->del_seq || t->at[i]->del_seq + TOMBSTONES_MAX / 2 >= bucket->seq)
			continue;
		account(bucket, t->at[i], -1);
		store_table_remove(t, i);
		to_drop--;
	}
}

static int delete_object(struct sim_bucket *bucket, const char *key)
{
	struct store_object *old = sim_bucket_find(bucket, key);
	struct store_object *stone;

	if (!old)
		return 0;
	stone = store_object_new(key, 0);
	if (!stone)
		return -ENOMEM;
	stone->len_bytes = old->len_bytes;
	stone->put_seq = old->put_seq;
	stone->del_seq = ++bucket->seq;
	set_object(bucket, stone);
	sweep_tombstones(bucket);
	return 0;
}

static int put_object(struct sim_bucket *bucket, struct store_object *o)
{
	struct store_object *old = sim_bucket_find(bucket, o->key);
	uint64_t freed = old ? old->len_bytes : 0;
	int ret;

	if (bucket->opt.quota_bytes &&
	    bucket->used_bytes - freed + o->len_bytes > bucket->opt.quota_bytes)
		return -ENOSPC;
	o->put_seq = ++bucket->seq;
	o->version = ++bucket->version;
	ret = set_object(bucket, store_object_get(o));
	if (ret)
		store_object_put(o);
	return ret;
}

static int carry_out(struct sim_bucket *bucket, struct sim_effect *e)
{
	struct store_object *old = sim_bucket_find(bucket, e->object->key);

	switch (e->op) {
	case STORE_PUT_NEW:
		return old ? -EEXIST : put_object(bucket, e->object);
	case STORE_REPLACE:
		if ((old ? old->version : 0) != e->version)
			return -ESTALE;
		return put_object(bucket, e->object);
	default:
		return delete_object(bucket, e->object->key);
	}
}

int sim_effect_land(struct sim_bucket *bucket, struct sim_effect *e, uint64_t *ret_version)
{
	int ret = carry_out(bucket, e);

	if (ret == 0 && ret_version)
		*ret_version = e->object->version;
	sim_effect_free(e);
	return ret;
}

static void make_late(struct sim_bucket *bucket, struct sim_effect *e)
{
	list_del(&e->link);
	e->store = NULL;
	list_add_tail(&e->link, &bucket->late);
}

static void decide_random(struct sim_bucket *bucket, struct sim_effect *e, struct rng *rng)
{
	uint32_t late_ppm = bucket->opt.late_ppm ? bucket->opt.late_ppm : LATE_PPM_DEFAULT;

	if (rng_below(rng, PPM) < late_ppm)
		make_late(bucket, e);
	else if (rng_next(rng) & 1)
		sim_effect_land(bucket, e, NULL);
	else
		sim_effect_free(e);
}

static size_t gather(const struct list_head *flying, const struct store *store,
		     struct sim_effect **all)
{
	struct sim_effect *e;
	size_t count = 0;

	list_for_each_entry(e, flying, struct sim_effect, link) {
		if (store && e->store != store)
			continue;
		if (all)
			all[count] = e;
		count++;
	}
	return count;
}

static void shuffle(struct sim_effect **all, size_t count, struct rng *rng)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = rng_below(rng, i);
		struct sim_effect *e = all[j];

		all[j] = all[i - 1];
		all[i - 1] = e;
	}
}

int sim_bucket_decide(struct sim_bucket *bucket, const struct store *store, struct sim_keep keep)
{
	size_t count = gather(&bucket->flying, store, NULL);
	struct sim_effect **all;
	struct rng rng;

	if (count == 0)
		return 0;
	all = malloc(count * sizeof(struct sim_effect *));
	if (!all)
		return -ENOMEM;
	gather(&bucket->flying, store, all);
	if (keep.what == SIM_KEEP_WHAT_RANDOM) {
		rng_seed(&rng, keep.n ^ (bucket->id * ID_MIX));
		if (rng_next(&rng) & 1)
			shuffle(all, count, &rng);
	}
	for (size_t i = 0; i < count; i++) {
		if (keep.what == SIM_KEEP_WHAT_RANDOM)
			decide_random(bucket, all[i], &rng);
		else if (keep.what == SIM_KEEP_WHAT_ALL ||
			 (keep.what == SIM_KEEP_WHAT_PREFIX && i < keep.n))
			sim_effect_land(bucket, all[i], NULL);
		else
			sim_effect_free(all[i]);
	}
	free(all);
	return 0;
}

void sim_bucket_unlock(struct sim_bucket *bucket, const struct store *owner, const char *name)
{
	struct sim_lock *l, *tmp;

	list_for_each_entry_safe(l, tmp, &bucket->locks, struct sim_lock, link) {
		if (owner && (l->owner != owner || (name && strcmp(l->name, name) != 0)))
			continue;
		list_del(&l->link);
		free(l);
	}
}

static void drop_effects(struct list_head *list)
{
	struct sim_effect *e, *tmp;

	list_for_each_entry_safe(e, tmp, list, struct sim_effect, link)
		sim_effect_free(e);
}

/* The stores of the bucket are dead, and all their requests. */
static void abandon(struct sim_bucket *bucket)
{
	drop_effects(&bucket->flying);
	drop_effects(&bucket->late);
	sim_bucket_unlock(bucket, NULL, NULL);
	bucket->boot++;
}

int sim_bucket_crash(struct sim_bucket *bucket, struct sim_keep keep)
{
	int ret = sim_bucket_decide(bucket, NULL, keep);

	if (ret)
		return ret;
	sim_bucket_unlock(bucket, NULL, NULL);
	bucket->boot++;
	return 0;
}

static int copy_effects(const struct list_head *from, struct list_head *to)
{
	struct sim_effect *e;

	list_for_each_entry(e, from, struct sim_effect, link) {
		struct sim_effect *copy = malloc(sizeof(*copy));

		if (!copy)
			return -ENOMEM;
		*copy = *e;
		/* Landing writes version and seq into the object: the copy needs its own. */
		copy->object = store_object_new(e->object->key, e->object->len_bytes);
		if (!copy->object) {
			free(copy);
			return -ENOMEM;
		}
		memcpy(copy->object->body, e->object->body, e->object->len_bytes);
		list_add_tail(&copy->link, to);
	}
	return 0;
}

int sim_bucket_image(const struct sim_bucket *src, struct sim_keep keep, struct sim_bucket *dst)
{
	uint32_t id = dst->id;
	int ret;

	if (dst == src)
		return -EINVAL;
	abandon(dst);
	ret = store_table_copy(&src->table, &dst->table);
	if (ret)
		return ret;
	dst->tombstones = src->tombstones;
	dst->used_bytes = src->used_bytes;
	dst->seq = src->seq;
	dst->version = src->version;
	dst->opt = src->opt;
	ret = copy_effects(&src->late, &dst->late);
	if (ret == 0)
		ret = copy_effects(&src->flying, &dst->flying);
	if (ret)
		return ret;
	/* The choice of a crash of src with the same seed. */
	dst->id = src->id;
	ret = sim_bucket_decide(dst, NULL, keep);
	dst->id = id;
	return ret;
}

int sim_bucket_new(struct sim_world *world, const struct sim_bucket_options *opt,
		   struct sim_bucket **ret)
{
	struct sim_bucket *bucket = calloc(1, sizeof(*bucket));

	if (!bucket)
		return -ENOMEM;
	bucket->world = world;
	bucket->opt = *opt;
	bucket->id = ++world->next_id;
	list_init(&bucket->flying);
	list_init(&bucket->late);
	list_init(&bucket->locks);
	*ret = bucket;
	return 0;
}

void sim_bucket_free(struct sim_bucket *bucket)
{
	if (!bucket)
		return;
	abandon(bucket);
	store_table_clear(&bucket->table);
	free(bucket);
}

uint64_t sim_bucket_undurable(const struct sim_bucket *bucket)
{
	return gather(&bucket->flying, NULL, NULL);
}

unsigned sim_bucket_late(const struct sim_bucket *bucket)
{
	return (unsigned)list_count(&bucket->late);
}

unsigned sim_bucket_land_late(struct sim_bucket *bucket, unsigned max)
{
	unsigned landed = 0;

	while (landed < max && !list_empty(&bucket->late)) {
		uint64_t pick = sim_world_below(bucket->world, list_count(&bucket->late));
		struct list_head *pos = list_first(&bucket->late);

		while (pick--)
			pos = pos->next;
		sim_effect_land(bucket, list_entry(pos, struct sim_effect, link), NULL);
		landed++;
	}
	return landed;
}

uint64_t sim_bucket_events(const struct sim_bucket *bucket)
{
	return bucket->events;
}

uint64_t sim_bucket_scribbles(const struct sim_bucket *bucket)
{
	return bucket->scribbles;
}

int sim_bucket_fault(struct sim_bucket *bucket, const struct sim_fault *fault)
{
	return sim_faults_add(&bucket->faults, fault);
}

void sim_bucket_heal(struct sim_bucket *bucket)
{
	bucket->faults.count = 0;
}

int sim_bucket_lose(struct sim_bucket *bucket, const char *key)
{
	bool found;
	size_t i = store_table_place(&bucket->table, key, &found);

	if (!found || bucket->table.at[i]->del_seq)
		return -ENOENT;
	account(bucket, bucket->table.at[i], -1);
	store_table_remove(&bucket->table, i);
	return 0;
}

/* A copy of the object with another length that has the same version: damage, not a change. */
static int damaged_copy(struct sim_bucket *bucket, const char *key, size_t len_bytes,
			struct store_object **ret)
{
	struct store_object *old = sim_bucket_find(bucket, key), *o;

	if (!old)
		return -ENOENT;
	if (len_bytes > old->len_bytes)
		len_bytes = old->len_bytes;
	o = store_object_new(key, len_bytes);
	if (!o)
		return -ENOMEM;
	o->version = old->version;
	o->put_seq = old->put_seq;
	memcpy(o->body, old->body, len_bytes);
	*ret = o;
	return 0;
}

int sim_bucket_truncate(struct sim_bucket *bucket, const char *key, size_t len_bytes)
{
	struct store_object *o;
	int ret = damaged_copy(bucket, key, len_bytes, &o);

	return ret ? ret : set_object(bucket, o);
}

int sim_bucket_rot(struct sim_bucket *bucket, const char *key, size_t off_bytes, unsigned bits)
{
	struct store_object *o;
	int ret = damaged_copy(bucket, key, SIZE_MAX, &o);

	if (ret)
		return ret;
	for (unsigned i = 0; i < bits && off_bytes < o->len_bytes; i++)
		o->body[off_bytes + sim_world_below(bucket->world, o->len_bytes - off_bytes)] ^=
			(uint8_t)(1u << sim_world_below(bucket->world, 8));
	return set_object(bucket, o);
}

/* The i-th live object, or NULL. */
static struct store_object *nth(const struct sim_bucket *bucket, size_t n)
{
	for (size_t i = 0; i < bucket->table.count; i++)
		if (!bucket->table.at[i]->del_seq && n-- == 0)
			return bucket->table.at[i];
	return NULL;
}

size_t sim_bucket_count(const struct sim_bucket *bucket)
{
	return bucket->table.count - bucket->tombstones;
}

const char *sim_bucket_key(const struct sim_bucket *bucket, size_t i)
{
	struct store_object *o = nth(bucket, i);

	return o ? o->key : NULL;
}

const void *sim_bucket_body(const struct sim_bucket *bucket, const char *key, size_t *ret_len)
{
	struct store_object *o = sim_bucket_find(bucket, key);

	if (!o)
		return NULL;
	*ret_len = o->len_bytes;
	return o->body;
}
