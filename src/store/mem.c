/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An object store in memory.
 *
 * A queue of requests (queue.h), and a table of objects (table.h) which several stores may share.
 * Whoever kicks, helps or polls takes requests from the queue and runs them.
 *
 * Invariants
 *  1. Bodies are copied outside the lock: in before the object is in the table, out under a
 *     reference. So a get sees one state of an object, whole.
 *  2. A version is given once in the life of the objects (no ABA).
 *
 * Locks: objects->lock guards the table, the versions and the names locked. It is never held
 * together with the queue's, nor during a copy or a callback.
 */
#include "store/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "store/queue.h"
#include "store/table.h"

struct name_lock {
	struct list_head link;
	const struct store *owner;
	char name[STORE_KEY_MAX + 1];
};

struct store_mem_objects {
	atomic_uint refs;
	pthread_mutex_t lock;
	struct store_table table;
	uint64_t version;
	struct list_head names; /* struct name_lock */
};

struct store_mem {
	struct store store;
	struct store_mem_objects *objects;
	struct store_queue queue;
};

static struct store_mem *to_mem(struct store *store)
{
	return container_of(store, struct store_mem, store);
}

int store_mem_objects_new(struct store_mem_objects **ret)
{
	struct store_mem_objects *objects = calloc(1, sizeof(*objects));

	if (!objects)
		return -ENOMEM;
	atomic_init(&objects->refs, 1);
	pthread_mutex_init(&objects->lock, NULL);
	list_init(&objects->names);
	*ret = objects;
	return 0;
}

struct store_mem_objects *store_mem_objects_get(struct store_mem_objects *objects)
{
	atomic_fetch_add_explicit(&objects->refs, 1, memory_order_relaxed);
	return objects;
}

void store_mem_objects_put(struct store_mem_objects *objects)
{
	/* Acquire and release among all puts: the last one frees after all others' uses. */
	if (!objects || atomic_fetch_sub_explicit(&objects->refs, 1, memory_order_acq_rel) != 1)
		return;
	store_table_clear(&objects->table);
	pthread_mutex_destroy(&objects->lock);
	free(objects);
}

/* A reference to the object, or NULL. */
static struct store_object *find(struct store_mem_objects *objects, const char *key)
{
	struct store_object *o;

	pthread_mutex_lock(&objects->lock);
	o = store_table_find(&objects->table, key);
	if (o)
		store_object_get(o);
	pthread_mutex_unlock(&objects->lock);
	return o;
}

static int insert_locked(struct store_mem_objects *objects, const struct store_req *req,
			 struct store_object *o)
{
	struct store_object *old = store_table_find(&objects->table, req->key);

	if (req->op == STORE_PUT_NEW && old)
		return -EEXIST;
	if (req->op == STORE_REPLACE && (old ? old->version : 0) != req->version)
		return -ESTALE;
	o->version = ++objects->version;
	return store_table_set(&objects->table, o);
}

static int put(struct store_mem_objects *objects, struct store_req *req)
{
	struct store_object *o = store_object_new(req->key, req->len_bytes);
	uint64_t version;
	int ret;

	if (!o)
		return -ENOMEM;
	store_object_fill(o, req->iov, req->iovcnt);
	pthread_mutex_lock(&objects->lock);
	ret = insert_locked(objects, req, o);
	version = o->version;
	pthread_mutex_unlock(&objects->lock);
	/* The table has taken the reference, unless it refused. */
	if (ret)
		store_object_put(o);
	else
		req->version = version;
	return ret;
}

static int look(struct store_mem_objects *objects, struct store_req *req)
{
	struct store_object *o = find(objects, req->key);
	int ret = 0;

	if (!o)
		return -ENOENT;
	if (req->op == STORE_GET) {
		if (req->off_bytes > o->len_bytes ||
		    req->len_bytes > o->len_bytes - req->off_bytes)
			ret = -ERANGE;
		else
			store_object_read(o, req->off_bytes, req->iov, req->iovcnt);
	}
	req->version = o->version;
	req->size_bytes = o->len_bytes;
	store_object_put(o);
	return ret;
}

static int delete(struct store_mem_objects *objects, const char *key)
{
	bool found;
	size_t i;

	pthread_mutex_lock(&objects->lock);
	i = store_table_place(&objects->table, key, &found);
	if (found)
		store_table_remove(&objects->table, i);
	pthread_mutex_unlock(&objects->lock);
	return 0;
}

/* The list is of one moment: entry() may take its time, and may use the store. */
static int list(struct store_mem_objects *objects, struct store_req *req)
{
	struct store_table copy = {0};
	size_t len = strlen(req->key);
	bool found;
	int ret;

	pthread_mutex_lock(&objects->lock);
	ret = store_table_copy(&objects->table, &copy);
	pthread_mutex_unlock(&objects->lock);
	for (size_t i = store_table_place(&copy, req->key, &found); i < copy.count && !ret; i++) {
		if (strncmp(copy.at[i]->key, req->key, len) != 0)
			break;
		ret = req->entry(req, copy.at[i]->key, copy.at[i]->len_bytes);
	}
	store_table_clear(&copy);
	return ret;
}

static int run(struct store *store, struct store_req *req)
{
	struct store_mem *mem = to_mem(store);

	switch (req->op) {
	case STORE_PUT_NEW:
	case STORE_REPLACE:
		return put(mem->objects, req);
	case STORE_GET:
	case STORE_HEAD:
		return look(mem->objects, req);
	case STORE_LIST:
		return list(mem->objects, req);
	case STORE_DELETE:
		return delete(mem->objects, req->key);
	}
	return -EINVAL;
}

static void mem_submit(struct store *store, struct store_req *req)
{
	store_queue_submit(&to_mem(store)->queue, req);
}

static void mem_kick(struct store *store)
{
	store_queue_run_all(&to_mem(store)->queue);
}

static bool mem_help(struct store *store)
{
	return store_queue_run_one(&to_mem(store)->queue);
}

static int mem_poll(struct store *store, bool wait)
{
	struct store_queue *q = &to_mem(store)->queue;
	int n = store_queue_run_all(q);

	return n || !wait ? n : store_queue_wait(q);
}

static void mem_counters(struct store *store, struct store_counters *ret)
{
	store_queue_counters(&to_mem(store)->queue, ret);
}

static struct name_lock *find_name_locked(struct store_mem_objects *objects, const char *name)
{
	struct name_lock *l;

	list_for_each_entry(l, &objects->names, struct name_lock, link)
		if (strcmp(l->name, name) == 0)
			return l;
	return NULL;
}

static int mem_lock(struct store *store, const char *name, struct err *err)
{
	struct store_mem_objects *objects = to_mem(store)->objects;
	struct name_lock *l;
	bool busy;

	if (!store_key_valid(name))
		return err_set(err, -EINVAL, "'%s' is no name for an object", name);
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_sys(err, -ENOMEM, "locking %s", name);
	l->owner = store;
	memcpy(l->name, name, strlen(name) + 1);
	pthread_mutex_lock(&objects->lock);
	busy = find_name_locked(objects, name) != NULL;
	if (!busy)
		list_add_tail(&l->link, &objects->names);
	pthread_mutex_unlock(&objects->lock);
	if (!busy)
		return 0;
	free(l);
	return err_set(err, -EBUSY, "memory store: %s is in use by another opening", name);
}

/* name NULL: all that the store holds. */
static void mem_unlock(struct store *store, const char *name)
{
	struct store_mem_objects *objects = to_mem(store)->objects;
	struct name_lock *l, *tmp;

	pthread_mutex_lock(&objects->lock);
	list_for_each_entry_safe(l, tmp, &objects->names, struct name_lock, link) {
		if (l->owner != store || (name && strcmp(l->name, name) != 0))
			continue;
		list_del(&l->link);
		free(l);
	}
	pthread_mutex_unlock(&objects->lock);
}

static void mem_close(struct store *store)
{
	struct store_mem *mem = to_mem(store);

	store_queue_close(&mem->queue);
	mem_unlock(store, NULL);
	store_mem_objects_put(mem->objects);
	free(mem);
}

static const struct store_ops mem_ops = {
	.name = "mem",
	.submit = mem_submit,
	.kick = mem_kick,
	.help = mem_help,
	.poll = mem_poll,
	.counters = mem_counters,
	.lock = mem_lock,
	.unlock = mem_unlock,
	.close = mem_close,
};

int store_mem_open(struct store_mem_objects *objects, struct store **ret)
{
	struct store_mem *mem = calloc(1, sizeof(*mem));
	int error = 0;

	if (!mem)
		return -ENOMEM;
	if (objects)
		mem->objects = store_mem_objects_get(objects);
	else
		error = store_mem_objects_new(&mem->objects);
	if (error) {
		free(mem);
		return error;
	}
	store_queue_init(&mem->queue, &mem->store, run);
	mem->store.ops = &mem_ops;
	*ret = &mem->store;
	return 0;
}
