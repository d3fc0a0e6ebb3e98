/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What all stores have in common: which keys are valid, and synchronous requests.
 *
 * A synchronous request is a copy of the caller's with a flag behind it, on the stack. The calling
 * thread does what the store gives it to do, until its own request is done.
 *
 * Invariants
 *  1. The flag is the last thing that done() touches: the moment it is set, the copy may be gone.
 *  2. The store is kicked only when there was nothing to help with: usually the request runs on
 *     this thread and nobody else is woken.
 *
 * Locks: none.
 */
#include "store/store.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* How often an object may change between its head and its get before that is given up. */
#define GET_ALL_TRIES 16

struct sync_req {
	struct store_req req;
	struct store_req *origin;
	atomic_bool done;
};

bool store_key_valid(const char *key)
{
	bool part_begins = true;
	size_t len;

	for (len = 0; key[len]; len++) {
		char c = key[len];
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			     (c >= '0' && c <= '9') || c == '_' || c == '-';

		if (len == STORE_KEY_MAX)
			return false;
		if (!plain && (part_begins || (c != '.' && c != '/')))
			return false;
		part_begins = c == '/';
	}
	return len > 0 && !part_begins;
}

int store_req_check(const struct store_req *req)
{
	uint64_t sum = 0;

	if (!memchr(req->key, 0, sizeof(req->key)))
		return -EINVAL;
	/* A list's key is a prefix: any beginning of a key, the empty one too. */
	if (req->op == STORE_LIST)
		return req->entry ? 0 : -EINVAL;
	if (!store_key_valid(req->key))
		return -EINVAL;
	if (req->op == STORE_HEAD || req->op == STORE_DELETE)
		return 0;
	for (int i = 0; i < req->iovcnt; i++)
		sum += req->iov[i].iov_len;
	return sum == req->len_bytes ? 0 : -EINVAL;
}

static void sync_done(struct store_req *req)
{
	struct sync_req *sync = container_of(req, struct sync_req, req);

	/* Release: pairs with the acquire in store_sync(); the result comes before. */
	atomic_store_explicit(&sync->done, true, memory_order_release);
}

/* The callback may look for what surrounds the request that it was given: the caller's. */
static int sync_entry(struct store_req *req, const char *key, uint64_t size_bytes)
{
	struct sync_req *sync = container_of(req, struct sync_req, req);

	return sync->origin->entry(sync->origin, key, size_bytes);
}

int store_sync(struct store *store, struct store_req *req)
{
	struct sync_req sync = {.req = *req, .origin = req};
	bool kicked = false;

	if (req->iov == &req->one)
		sync.req.iov = &sync.req.one;
	sync.req.done = sync_done;
	sync.req.entry = req->entry ? sync_entry : NULL;
	atomic_init(&sync.done, false);
	store_submit(store, &sync.req);
	while (!atomic_load_explicit(&sync.done, memory_order_acquire)) {
		if (store_help(store))
			continue;
		if (!kicked)
			store_kick(store);
		else
			store_poll(store, true);
		kicked = true;
	}
	req->result = sync.req.result;
	req->version = sync.req.version;
	req->size_bytes = sync.req.size_bytes;
	return req->result;
}

static int set_key(struct store_req *req, const char *key)
{
	if (!store_key_valid(key))
		return -EINVAL;
	memcpy(req->key, key, strlen(key) + 1);
	return 0;
}

static void set_buf(struct store_req *req, void *buf, size_t len_bytes)
{
	req->one.iov_base = buf;
	req->one.iov_len = len_bytes;
	req->iov = &req->one;
	req->iovcnt = 1;
	req->len_bytes = len_bytes;
}

/* An iovec has no const; a put does not change what it points at. */
static void set_const_buf(struct store_req *req, const void *buf, size_t len_bytes)
{
	union {
		const void *in;
		void *out;
	} u = {.in = buf};

	set_buf(req, u.out, len_bytes);
}

int store_get(struct store *store, const char *key, void *buf, size_t len_bytes,
	      uint64_t off_bytes)
{
	struct store_req req = {.op = STORE_GET, .off_bytes = off_bytes};
	int ret = set_key(&req, key);

	if (ret)
		return ret;
	set_buf(&req, buf, len_bytes);
	return store_sync(store, &req);
}

/*
 * One try: head for the size, then get. Returns -ESTALE if the object was replaced in between,
 * and *ret_buf is set only on success.
 */
static int get_all_once(struct store *store, const char *key, size_t max_bytes, void **ret_buf,
			struct store_req *ret_req)
{
	struct store_req head = {.op = STORE_HEAD}, get = {.op = STORE_GET};
	void *buf;
	int ret = set_key(&head, key);

	if (ret)
		return ret;
	set_key(&get, key);
	ret = store_sync(store, &head);
	if (ret)
		return ret;
	if (head.size_bytes > max_bytes)
		return -EFBIG;
	buf = malloc(head.size_bytes ? head.size_bytes : 1);
	if (!buf)
		return -ENOMEM;
	set_buf(&get, buf, head.size_bytes);
	ret = store_sync(store, &get);
	if (ret == -ERANGE || (ret == 0 && get.version != head.version))
		ret = -ESTALE;
	if (ret) {
		free(buf);
		return ret;
	}
	*ret_buf = buf;
	*ret_req = get;
	return 0;
}

int store_get_all(struct store *store, const char *key, size_t max_bytes, void **ret_buf,
		  size_t *ret_len_bytes, uint64_t *ret_version)
{
	struct store_req got = {.op = STORE_GET};
	int ret = -ESTALE;

	for (int i = 0; i < GET_ALL_TRIES && ret == -ESTALE; i++)
		ret = get_all_once(store, key, max_bytes, ret_buf, &got);
	if (ret == -ESTALE)
		ret = -EAGAIN;
	if (ret)
		return ret;
	*ret_len_bytes = got.len_bytes;
	if (ret_version)
		*ret_version = got.version;
	return 0;
}

int store_put_new(struct store *store, const char *key, const void *buf, size_t len_bytes)
{
	struct store_req req = {.op = STORE_PUT_NEW};
	int ret = set_key(&req, key);

	if (ret)
		return ret;
	set_const_buf(&req, buf, len_bytes);
	return store_sync(store, &req);
}

int store_replace(struct store *store, const char *key, const void *buf, size_t len_bytes,
		  uint64_t *inout_version)
{
	struct store_req req = {.op = STORE_REPLACE, .version = *inout_version};
	int ret = set_key(&req, key);

	if (ret)
		return ret;
	set_const_buf(&req, buf, len_bytes);
	ret = store_sync(store, &req);
	if (ret == 0)
		*inout_version = req.version;
	return ret;
}

int store_delete(struct store *store, const char *key)
{
	struct store_req req = {.op = STORE_DELETE};
	int ret = set_key(&req, key);

	return ret ? ret : store_sync(store, &req);
}
