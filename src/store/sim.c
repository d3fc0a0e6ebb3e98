/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulated object store: how requests travel. The bucket's contents, and what becomes of
 * requests whose sender has died, are in sim_bucket.c.
 *
 * A request with an effect is copied at its submission (struct sim_effect, on bucket->flying). It
 * waits on store->pending until poll() or help() draws it, takes effect all at once, and is
 * completed. What arrives late sits on bucket->late and lands at somebody's poll.
 *
 * Invariants
 *  1. The fault of a request is drawn at its submission, so "the nth put" counts submissions.
 *  2. Every step that changes what a crash could leave has passed sim_world_event() first.
 *  3. A dead store touches neither the bucket nor any request except those that a blocked caller
 *     waits for, newest first: the owners of the older ones may be gone.
 *
 * Locks: none, one thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store/sim_bucket.h"

#define PPM 1000000u
#define LAND_LATE_PPM_DEFAULT (PPM / 16)

/* A stale list is behind by up to this many changes of the bucket. */
#define STALE_CHANGES 64

/* Where the store keeps its notes in req->priv. */
enum {
	PRIV_EFFECT, /* ptr: struct sim_effect */
	PRIV_DUE,    /* u64: not before */
	PRIV_FAULT,  /* u64: enum sim_store_fault + 1, or 0 */
	PRIV_ERROR,  /* u64: the errno to report, positive */
};

struct sim_store {
	struct store store;
	struct sim_bucket *bucket;
	uint64_t boot;
	unsigned machine;
	bool killed;
	struct list_head pending;
	struct store_counters counters;
};

static struct sim_store *to_sim(struct store *store)
{
	return container_of(store, struct sim_store, store);
}

static bool is_dead(const struct sim_store *ss)
{
	return ss->killed || ss->boot != ss->bucket->boot || ss->bucket->world->power_off;
}

static bool pass_event(struct sim_store *ss)
{
	if (!sim_world_event(ss->bucket->world))
		return false;
	ss->bucket->events++;
	return true;
}

static bool is_put(const struct store_req *req)
{
	return req->op == STORE_PUT_NEW || req->op == STORE_REPLACE;
}

static bool has_effect(const struct store_req *req)
{
	return is_put(req) || req->op == STORE_DELETE;
}

static bool has_fault(const struct store_req *req, enum sim_store_fault kind)
{
	return req->priv.u64[PRIV_FAULT] == (uint64_t)kind + 1;
}

static bool same(const struct store_req *req, const uint8_t *buf)
{
	for (int i = 0; i < req->iovcnt; i++) {
		if (req->iov[i].iov_len && memcmp(buf, req->iov[i].iov_base, req->iov[i].iov_len))
			return false;
		buf += req->iov[i].iov_len;
	}
	return true;
}

static int take_off(struct sim_store *ss, struct store_req *req)
{
	struct sim_effect *e = malloc(sizeof(*e));

	if (!e)
		return -ENOMEM;
	e->object = store_object_new(req->key, is_put(req) ? req->len_bytes : 0);
	if (!e->object) {
		free(e);
		return -ENOMEM;
	}
	e->store = &ss->store;
	e->op = req->op;
	e->version = req->version;
	if (is_put(req))
		store_object_fill(e->object, req->iov, req->iovcnt);
	list_add_tail(&e->link, &ss->bucket->flying);
	req->priv.ptr[PRIV_EFFECT] = e;
	return 0;
}

static void draw_fault(struct sim_store *ss, struct store_req *req)
{
	struct sim_target target = {req->op, req->off_bytes, req->len_bytes, req->key};
	struct sim_fault *f = sim_faults_strike(&ss->bucket->faults, ss->bucket->world, &target);

	if (!f)
		return;
	if (f->kind == SIM_STORE_DELAY)
		req->priv.u64[PRIV_DUE] += f->delay_ns;
	req->priv.u64[PRIV_FAULT] = (uint64_t)f->kind + 1;
	req->priv.u64[PRIV_ERROR] = (uint64_t)(f->error ? -f->error : EIO);
}

static void submit(struct store *store, struct store_req *req)
{
	struct sim_store *ss = to_sim(store);
	struct sim_bucket *bucket = ss->bucket;
	int error = store_req_check(req);

	list_add_tail(&req->link, &ss->pending);
	memset(&req->priv, 0, sizeof(req->priv));
	req->result = 0;
	if (is_dead(ss))
		return;
	if (!error && has_effect(req) && !pass_event(ss))
		return;
	req->priv.u64[PRIV_DUE] = bucket->world->clock_ns + bucket->opt.latency_ns;
	if (bucket->opt.jitter_ns)
		req->priv.u64[PRIV_DUE] +=
			sim_world_below(bucket->world, bucket->opt.jitter_ns + 1);
	if (!error) {
		draw_fault(ss, req);
		error = has_effect(req) ? take_off(ss, req) : 0;
	}
	req->result = error;
}

/* Damage of what is about to be put, before it is in the bucket. */
static void spoil(struct sim_store *ss, struct store_req *req, struct store_object *o)
{
	if (!o->len_bytes)
		return;
	if (has_fault(req, SIM_STORE_SHORT))
		o->len_bytes = sim_world_below(ss->bucket->world, o->len_bytes);
	if (has_fault(req, SIM_STORE_CORRUPT))
		o->body[sim_world_below(ss->bucket->world, o->len_bytes)] ^= 1;
}

static void do_effect(struct sim_store *ss, struct store_req *req)
{
	struct sim_bucket *bucket = ss->bucket;
	struct sim_effect *e = req->priv.ptr[PRIV_EFFECT];
	int error = -(int)req->priv.u64[PRIV_ERROR];

	if (is_put(req) && !same(req, e->object->body))
		bucket->scribbles++;
	if (has_fault(req, SIM_STORE_ERROR)) {
		sim_effect_free(e);
		req->result = error;
		return;
	}
	if (has_fault(req, SIM_STORE_LATE)) {
		list_del(&e->link);
		list_add_tail(&e->link, &bucket->late);
		e->store = NULL;
		req->result = error;
		return;
	}
	if (is_put(req))
		spoil(ss, req, e->object);
	req->result = sim_effect_land(bucket, e, is_put(req) ? &req->version : NULL);
	if (has_fault(req, SIM_STORE_EFFECT))
		req->result = error;
	if (has_fault(req, SIM_STORE_LOST) && req->result == 0)
		sim_bucket_lose(bucket, req->key);
}

static void do_get(struct sim_store *ss, struct store_req *req, const struct store_object *o)
{
	if (req->off_bytes > o->len_bytes || req->len_bytes > o->len_bytes - req->off_bytes) {
		req->result = -ERANGE;
		return;
	}
	store_object_read(o, req->off_bytes, req->iov, req->iovcnt);
	if (has_fault(req, SIM_STORE_GARBLE)) {
		for (int i = 0; i < req->iovcnt; i++) {
			if (!req->iov[i].iov_len)
				continue;
			((uint8_t *)req->iov[i].iov_base)[sim_world_below(
				ss->bucket->world, req->iov[i].iov_len)] ^= 1;
			break;
		}
	}
}

/* Damage that a get or head comes upon, and that stays. */
static void damage(struct sim_store *ss, const struct store_req *req)
{
	struct store_object *o = sim_bucket_find(ss->bucket, req->key);

	if (!o)
		return;
	if (has_fault(req, SIM_STORE_LOST))
		sim_bucket_lose(ss->bucket, req->key);
	else if (has_fault(req, SIM_STORE_SHORT))
		sim_bucket_truncate(ss->bucket, req->key,
				    sim_world_below(ss->bucket->world, o->len_bytes));
	else if (has_fault(req, SIM_STORE_CORRUPT))
		sim_bucket_rot(ss->bucket, req->key, req->off_bytes, 1);
}

static void do_look(struct sim_store *ss, struct store_req *req)
{
	struct store_object *o;

	damage(ss, req);
	o = sim_bucket_find(ss->bucket, req->key);
	if (!o) {
		req->result = -ENOENT;
		return;
	}
	req->version = o->version;
	req->size_bytes = o->len_bytes;
	if (req->op == STORE_GET)
		do_get(ss, req, o);
}

/* Whether a list shows this entry. */
static bool shows(struct sim_store *ss, const struct store_req *req, const struct store_object *o)
{
	uint64_t seq = ss->bucket->seq;
	uint64_t behind = seq > STALE_CHANGES ? seq - STALE_CHANGES : 0;
	uint64_t changed = o->del_seq ? o->del_seq : o->put_seq;

	if (strncmp(o->key, req->key, strlen(req->key)) != 0)
		return false;
	if (has_fault(req, SIM_STORE_STALE) && changed > behind)
		return sim_world_below(ss->bucket->world, 2);
	return !o->del_seq;
}

static void do_list(struct sim_store *ss, struct store_req *req)
{
	struct sim_bucket *bucket = ss->bucket;

	for (size_t i = 0; i < bucket->table.count && !req->result; i++) {
		struct store_object *o = bucket->table.at[i];

		if (shows(ss, req, o))
			req->result = req->entry(req, o->key, o->len_bytes);
	}
}

static void carry_out(struct sim_store *ss, struct store_req *req)
{
	if (has_effect(req))
		do_effect(ss, req);
	else if (has_fault(req, SIM_STORE_ERROR) || has_fault(req, SIM_STORE_EFFECT) ||
		 has_fault(req, SIM_STORE_LATE))
		req->result = -(int)req->priv.u64[PRIV_ERROR];
	else if (req->op == STORE_LIST)
		do_list(ss, req);
	else
		do_look(ss, req);
}

static void count(struct sim_store *ss, const struct store_req *req)
{
	struct store_counters *c = &ss->counters;

	if (req->result)
		c->errors++;
	switch (req->op) {
	case STORE_PUT_NEW:
	case STORE_REPLACE:
		c->puts++;
		c->put_bytes += req->len_bytes;
		break;
	case STORE_GET:
		c->gets++;
		c->get_bytes += req->len_bytes;
		break;
	case STORE_LIST:
		c->lists++;
		break;
	case STORE_DELETE:
		c->deletes++;
		break;
	case STORE_HEAD:
		break;
	}
}

/* Returns false when the power went off before the request took effect. */
static bool complete(struct sim_store *ss, struct store_req *req)
{
	bool refused = req->result != 0;

	if (!refused && has_effect(req) && !pass_event(ss))
		return false;
	/* on_event() may have killed this store. */
	if (is_dead(ss))
		return false;
	list_del(&req->link);
	if (!refused)
		carry_out(ss, req);
	count(ss, req);
	req->done(req);
	return true;
}

/* One of the requests that are due, each equally likely; NULL when none is. */
static struct store_req *draw_due(struct sim_store *ss, uint64_t *ret_next_due_ns)
{
	uint64_t now_ns = ss->bucket->world->clock_ns;
	struct store_req *req;
	uint64_t due = 0, pick;

	*ret_next_due_ns = UINT64_MAX;
	list_for_each_entry(req, &ss->pending, struct store_req, link) {
		uint64_t at = req->priv.u64[PRIV_DUE];

		due += at <= now_ns;
		if (at < *ret_next_due_ns)
			*ret_next_due_ns = at;
	}
	if (!due)
		return NULL;
	pick = sim_world_below(ss->bucket->world, due);
	list_for_each_entry(req, &ss->pending, struct store_req, link)
		if (req->priv.u64[PRIV_DUE] <= now_ns && pick-- == 0)
			break;
	return req;
}

/* Invariant 3. A blocked caller waits for what it submitted last. */
static int fail_newest(struct sim_store *ss)
{
	struct list_head *last = list_last(&ss->pending);
	struct store_req *req;

	if (!last)
		return 0;
	list_del(last);
	req = list_entry(last, struct store_req, link);
	req->result = -ENODEV;
	req->done(req);
	return 1;
}

static void maybe_land_late(struct sim_store *ss)
{
	struct sim_bucket *bucket = ss->bucket;
	uint32_t ppm = bucket->opt.land_late_ppm ? bucket->opt.land_late_ppm
						 : LAND_LATE_PPM_DEFAULT;

	if (bucket->opt.hold_late || list_empty(&bucket->late))
		return;
	if (sim_world_below(bucket->world, PPM) < ppm && pass_event(ss))
		sim_bucket_land_late(bucket, 1);
}

static int poll_one(struct store *store, bool wait)
{
	struct sim_store *ss = to_sim(store);
	struct store_req *req;
	uint64_t next_due_ns;

	if (!is_dead(ss))
		maybe_land_late(ss);
	if (is_dead(ss))
		return wait ? fail_newest(ss) : 0;
	req = draw_due(ss, &next_due_ns);
	if (!req && wait && next_due_ns != UINT64_MAX) {
		sim_world_advance_to(ss->bucket->world, next_due_ns);
		req = draw_due(ss, &next_due_ns);
	}
	if (!req)
		return 0;
	if (complete(ss, req))
		return 1;
	return wait ? fail_newest(ss) : 0;
}

static bool help(struct store *store)
{
	return poll_one(store, false) > 0;
}

static void kick(struct store *store)
{
	(void)store;
}

static void counters(struct store *store, struct store_counters *ret)
{
	*ret = to_sim(store)->counters;
}

static int lock(struct store *store, const char *name, struct err *err)
{
	struct sim_store *ss = to_sim(store);
	struct sim_lock *l;

	if (is_dead(ss))
		return err_set(err, -ENODEV, "simulated store: no power");
	if (!store_key_valid(name))
		return err_set(err, -EINVAL, "'%s' is no name for an object", name);
	list_for_each_entry(l, &ss->bucket->locks, struct sim_lock, link)
		if (l->machine == ss->machine && strcmp(l->name, name) == 0)
			return err_set(err, -EBUSY, "%s is in use by another opener", name);
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_set(err, -ENOMEM, "locking %s: out of memory", name);
	l->owner = store;
	l->machine = ss->machine;
	memcpy(l->name, name, strlen(name) + 1);
	list_add_tail(&l->link, &ss->bucket->locks);
	return 0;
}

static void unlock(struct store *store, const char *name)
{
	struct sim_store *ss = to_sim(store);

	/* After a crash an owner may be a new store that was given the same address. */
	if (ss->boot == ss->bucket->boot && !ss->killed)
		sim_bucket_unlock(ss->bucket, store, name);
}

static void close_store(struct store *store)
{
	unlock(store, NULL);
	free(to_sim(store));
}

static const struct store_ops sim_store_ops = {
	.name = "sim",
	.submit = submit,
	.kick = kick,
	.help = help,
	.poll = poll_one,
	.counters = counters,
	.lock = lock,
	.unlock = unlock,
	.close = close_store,
};

int sim_store_open(struct sim_bucket *bucket, unsigned machine, struct store **ret)
{
	struct sim_store *ss = calloc(1, sizeof(*ss));

	if (!ss)
		return -ENOMEM;
	ss->store.ops = &sim_store_ops;
	ss->bucket = bucket;
	ss->boot = bucket->boot;
	ss->machine = machine;
	list_init(&ss->pending);
	*ret = &ss->store;
	return 0;
}

int sim_store_kill(struct store *store, struct sim_keep keep)
{
	struct sim_store *ss = to_sim(store);
	int ret = 0;

	if (!is_dead(ss)) {
		ret = sim_bucket_decide(ss->bucket, store, keep);
		unlock(store, NULL);
	}
	ss->killed = true;
	return ret;
}

uint64_t sim_store_next_due_ns(struct store *store)
{
	struct sim_store *ss = to_sim(store);
	uint64_t next_due_ns = UINT64_MAX;
	struct store_req *req;

	if (is_dead(ss))
		return UINT64_MAX;
	list_for_each_entry(req, &ss->pending, struct store_req, link)
		if (req->priv.u64[PRIV_DUE] < next_due_ns)
			next_due_ns = req->priv.u64[PRIV_DUE];
	return next_due_ns;
}
