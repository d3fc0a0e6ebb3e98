/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory store: the contract of store.h, and many threads at once. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"
#include "store/mem.h"

#define THREADS 4
#define ROUNDS 2000

static struct store *store;

struct lister {
	struct store_req req;
	char keys[256];
};

static void append(char *to, size_t size, const char *key)
{
	size_t len = strlen(to);

	snprintf(to + len, size - len, "%s ", key);
}

static int on_entry(struct store_req *req, const char *key, uint64_t size_bytes)
{
	struct lister *l = container_of(req, struct lister, req);

	CHECK(size_bytes <= 100);
	append(l->keys, sizeof(l->keys), key);
	return strcmp(key, "v.stop") == 0 ? -ECANCELED : 0;
}

TEST(contract)
{
	struct lister l = {.req = {.op = STORE_LIST, .key = "v", .entry = on_entry}};
	struct store_counters c;
	uint64_t version = 0, old;
	char buf[8];
	void *all;
	size_t len;

	CHECK_OK(store_mem_open(NULL, &store));
	CHECK_OK(store_put_new(store, "v.2", "hello", 5));
	CHECK_EQ(store_put_new(store, "v.2", "other", 5), -EEXIST);
	CHECK_EQ(store_put_new(store, "../v", "other", 5), -EINVAL);
	CHECK_OK(store_put_new(store, "v.1", "", 0));
	CHECK_OK(store_put_new(store, "w", "", 0));
	CHECK_OK(store_get(store, "v.2", buf, 2, 3));
	CHECK_MEMEQ(buf, "lo", 2);
	CHECK_EQ(store_get(store, "v.2", buf, 2, 4), -ERANGE);
	CHECK_EQ(store_get(store, "v.3", buf, 2, 4), -ENOENT);
	CHECK_OK(store_get_all(store, "v.1", 8, &all, &len, NULL));
	CHECK_EQ(len, 0);
	free(all);
	CHECK_OK(store_replace(store, "v", "sb", 2, &version));
	old = version;
	CHECK_OK(store_replace(store, "v", "sc", 2, &version));
	CHECK_EQ(store_replace(store, "v", "sd", 2, &old), -ESTALE);
	CHECK_OK(store_sync(store, &l.req));
	CHECK_STREQ(l.keys, "v v.1 v.2 ");
	CHECK_OK(store_put_new(store, "v.stop", "", 0));
	CHECK_EQ(store_sync(store, &l.req), -ECANCELED);
	CHECK_OK(store_delete(store, "v.2"));
	CHECK_OK(store_delete(store, "v.2"));
	store->ops->counters(store, &c);
	CHECK_EQ(c.deletes, 2);
	CHECK_EQ(c.put_bytes, 5 + 5 + 6);
	store_close(store);
}

TEST(objects_outlive_stores_and_locks_do_not)
{
	struct store_mem_objects *objects;
	struct err err = ERR_INIT;
	struct store *other;
	char buf[2];

	CHECK_OK(store_mem_objects_new(&objects));
	CHECK_OK(store_mem_open(objects, &store));
	CHECK_OK(store_mem_open(objects, &other));
	CHECK_OK(store_put_new(store, "v", "ab", 2));
	CHECK_OK(store_get(other, "v", buf, 2, 0));
	CHECK_OK(store->ops->lock(store, "v", &err));
	CHECK_EQ(other->ops->lock(other, "v", &err), -EBUSY);
	CHECK_OK(other->ops->lock(other, "w", &err));
	store_close(store);
	err_clear(&err);
	CHECK_OK(other->ops->lock(other, "v", &err));
	store_close(other);
	CHECK_OK(store_mem_open(objects, &store));
	store_mem_objects_put(objects);
	CHECK_OK(store_get(store, "v", buf, 2, 0));
	store_close(store);
}

static _Atomic int wins, replaced;

static void *contend(void *arg)
{
	uint64_t version = 0;
	char key[32], body[64], *all;
	size_t len;

	memset(body, *(const char *)arg, sizeof(body));
	for (int i = 0; i < ROUNDS; i++) {
		snprintf(key, sizeof(key), "v.%d", i);
		if (store_put_new(store, key, body, sizeof(body)) == 0)
			wins++;
		if (store_replace(store, "v", body, sizeof(body), &version) == 0)
			replaced++;
		CHECK_OK(store_get_all(store, "v", 64, (void **)&all, &len, &version));
		/* Whole, and one writer's. */
		CHECK_EQ(len, sizeof(body));
		CHECK(memcmp(all, all + 1, len - 1) == 0);
		free(all);
	}
	return NULL;
}

TEST(one_winner_for_each_key)
{
	pthread_t threads[THREADS];
	static char tags[THREADS] = {'a', 'b', 'c', 'd'};

	CHECK_OK(store_mem_open(NULL, &store));
	for (int i = 0; i < THREADS; i++)
		CHECK_OK(pthread_create(&threads[i], NULL, contend, &tags[i]));
	for (int i = 0; i < THREADS; i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	CHECK_EQ(wins, ROUNDS);
	CHECK(replaced > 0);
	store_close(store);
}

/* A done() that submits and kicks again must not nest. */
struct chain {
	struct store_req req;
	int left;
	bool inside;
};

static void next_link(struct store_req *req)
{
	struct chain *c = container_of(req, struct chain, req);

	CHECK(!c->inside);
	if (c->left-- == 0)
		return;
	c->inside = true;
	store_submit(store, &c->req);
	store_kick(store);
	c->inside = false;
}

TEST(done_does_not_recurse)
{
	struct chain c = {.req = {.op = STORE_HEAD, .key = "v", .done = next_link}, .left = 1000};

	CHECK_OK(store_mem_open(NULL, &store));
	store_submit(store, &c.req);
	store_kick(store);
	CHECK_EQ(c.left, -1);
	CHECK_EQ(store_poll(store, true), 0);
	store_close(store);
}
