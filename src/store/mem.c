/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An object store in memory.
 *
 * A queue of requests, and a table of objects (table.h) which several stores may share. Whoever
 * kicks, helps or polls takes requests from the queue and runs them.
 *
 * Invariants
 *  1. submit only appends. The thread that takes a request off the queue runs it and calls done().
 *  2. Bodies are copied outside the lock: in before the object is in the table, out under a
 *     reference. So a get sees one state of an object, whole.
 *  3. A version is given once in the life of the objects (no ABA).
 *  4. A kick from inside done() goes no deeper: the thread's outermost run takes what is queued.
 *
 * Locks: store.lock guards the queue and running; objects.lock the table, the versions and the
 * names locked. Neither is held while the other is taken, nor during a copy or a callback.
 */
#include "store/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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
	pthread_mutex_t lock;
	pthread_cond_t moved; /* a request is done, or nothing runs any more */
	struct list_head queue;
	unsigned running;
	uint64_t finished;
	/* Relaxed: each is exact by itself, and none says anything about another. */
	_Atomic uint64_t puts, put_bytes, gets, get_bytes, lists, deletes, errors;
};

/* The store whose requests this thread is running, for invariant 4. */
static _Thread_local const struct store_mem *running_here;

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

static int run(struct store_mem *mem, struct store_req *req)
{
	int ret = store_req_check(req);

	if (ret)
		return ret;
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

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void count(struct store_mem *mem, const struct store_req *req)
{
	if (req->result)
		add(&mem->errors, 1);
	switch (req->op) {
	case STORE_PUT_NEW:
	case STORE_REPLACE:
		add(&mem->puts, 1);
		add(&mem->put_bytes, req->len_bytes);
		break;
	case STORE_GET:
		add(&mem->gets, 1);
		add(&mem->get_bytes, req->len_bytes);
		break;
	case STORE_LIST:
		add(&mem->lists, 1);
		break;
	case STORE_DELETE:
		add(&mem->deletes, 1);
		break;
	case STORE_HEAD:
		break;
	}
}

/* Runs the oldest request; false if there is none. */
static bool run_one(struct store_mem *mem)
{
	struct list_head *link;
	struct store_req *req;

	pthread_mutex_lock(&mem->lock);
	link = list_pop(&mem->queue);
	if (link)
		mem->running++;
	pthread_mutex_unlock(&mem->lock);
	if (!link)
		return false;
	req = list_entry(link, struct store_req, link);
	req->result = run(mem, req);
	count(mem, req);
	req->done(req);
	pthread_mutex_lock(&mem->lock);
	mem->running--;
	mem->finished++;
	pthread_cond_broadcast(&mem->moved);
	pthread_mutex_unlock(&mem->lock);
	return true;
}

static int run_all(struct store_mem *mem)
{
	const struct store_mem *outer = running_here;
	int n = 0;

	if (outer == mem)
		return 0;
	running_here = mem;
	while (run_one(mem))
		n++;
	running_here = outer;
	return n;
}

static void mem_submit(struct store *store, struct store_req *req)
{
	struct store_mem *mem = to_mem(store);

	pthread_mutex_lock(&mem->lock);
	list_add_tail(&req->link, &mem->queue);
	pthread_mutex_unlock(&mem->lock);
}

static void mem_kick(struct store *store)
{
	run_all(to_mem(store));
}

static bool mem_help(struct store *store)
{
	return run_one(to_mem(store));
}

static int mem_poll(struct store *store, bool wait)
{
	struct store_mem *mem = to_mem(store);
	int n = run_all(mem);
	uint64_t seen;

	if (n || !wait)
		return n;
	/* Others run what is left; one of theirs is worth coming back for. */
	pthread_mutex_lock(&mem->lock);
	seen = mem->finished;
	while (mem->running && mem->finished == seen && list_empty(&mem->queue))
		pthread_cond_wait(&mem->moved, &mem->lock);
	n = mem->finished != seen;
	pthread_mutex_unlock(&mem->lock);
	return n;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

static void mem_counters(struct store *store, struct store_counters *ret)
{
	const struct store_mem *mem = to_mem(store);

	*ret = (struct store_counters){
		.puts = get(&mem->puts),
		.put_bytes = get(&mem->put_bytes),
		.gets = get(&mem->gets),
		.get_bytes = get(&mem->get_bytes),
		.lists = get(&mem->lists),
		.deletes = get(&mem->deletes),
		.errors = get(&mem->errors),
	};
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

	/* A thread that has just called the last done() may still be on its way out. */
	pthread_mutex_lock(&mem->lock);
	while (mem->running)
		pthread_cond_wait(&mem->moved, &mem->lock);
	pthread_mutex_unlock(&mem->lock);
	mem_unlock(store, NULL);
	store_mem_objects_put(mem->objects);
	pthread_cond_destroy(&mem->moved);
	pthread_mutex_destroy(&mem->lock);
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
	pthread_mutex_init(&mem->lock, NULL);
	pthread_cond_init(&mem->moved, NULL);
	list_init(&mem->queue);
	mem->store.ops = &mem_ops;
	*ret = &mem->store;
	return 0;
}
