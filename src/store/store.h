/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Object stores behind one vtable: dir, mem, sim (s3 and rados later).
 *
 * Objects are named by a key ([A-Za-z0-9._-], 1 to 200 bytes, '/' only as the store's own prefix)
 * and immutable, but for the superblock, which is replaced by compare-and-swap of its version.
 *
 * Requests work as in dev/dev.h: the caller owns request, key and buffers from submit to done();
 * done() comes exactly once, never from inside submit, on any thread, with no lock held.
 *
 * A put is atomic and durable: when done() reports 0 every later get, of any process, after any
 * crash, sees the whole object. It may also take effect although done() reported an error
 * (-ETIMEDOUT, -EIO), or long after its writer has died. Errors:
 *
 *   PUT_NEW      -EEXIST      the key exists; nothing was changed
 *   REPLACE      -ESTALE      the version differs from req->version (0: the object must not exist)
 *   GET, HEAD    -ENOENT      no such object
 *   GET          -ERANGE      the range passes the end of the object
 *   all          -ENOSPC, -EIO, -ETIMEDOUT, -EACCES, -ENOMEM ...; transient() tells which of
 *                             these are worth another try
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"

#define STORE_KEY_MAX 200

enum store_op {
	STORE_PUT_NEW, /* create; fails if the key exists */
	STORE_REPLACE, /* replace if the version is still req->version; returns the new one */
	STORE_GET,     /* off_bytes, len_bytes into iov */
	STORE_HEAD,    /* size and version */
	STORE_LIST,    /* keys that begin with req->key, ascending, through entry() */
	STORE_DELETE,  /* 0 also when there is none */
};

struct store;

struct store_req {
	struct list_head link; /* the store's, from submit to done */
	enum store_op op;
	int result;
	char key[STORE_KEY_MAX + 1];
	uint64_t off_bytes; /* GET */
	uint64_t len_bytes; /* GET: exactly this much; PUT_NEW, REPLACE: sum of iov */
	const struct iovec *iov;
	int iovcnt;
	struct iovec one;
	uint64_t version;    /* REPLACE in and out; HEAD, GET out. Opaque, never 0 for an object */
	uint64_t size_bytes; /* HEAD, GET out: of the whole object */
	/* LIST: called for each key, not entered, before done(). Non-zero stops with that error. */
	int (*entry)(struct store_req *req, const char *key, uint64_t size_bytes);
	void (*done)(struct store_req *req);
	union {
		uint64_t u64[8];
		void *ptr[8];
	} priv;
};

struct store_counters {
	uint64_t puts, put_bytes;
	uint64_t gets, get_bytes;
	uint64_t lists, deletes, errors;
};

struct store_ops {
	const char *name;
	void (*submit)(struct store *store, struct store_req *req);
	void (*kick)(struct store *store);
	bool (*help)(struct store *store);
	int (*poll)(struct store *store, bool wait);
	void (*counters)(struct store *store, struct store_counters *ret);
	/*
	 * The local half of "two openers never both write": an exclusive lock on the name, held
	 * until unlock or the death of the process. -EBUSY when somebody else has it.
	 */
	int (*lock)(struct store *store, const char *name, struct err *err);
	void (*unlock)(struct store *store, const char *name);
	void (*close)(struct store *store);
};

struct store {
	const struct store_ops *ops;
};

static inline void store_submit(struct store *store, struct store_req *req)
{
	store->ops->submit(store, req);
}

static inline void store_kick(struct store *store)
{
	store->ops->kick(store);
}

static inline bool store_help(struct store *store)
{
	return store->ops->help(store);
}

static inline int store_poll(struct store *store, bool wait)
{
	return store->ops->poll(store, wait);
}

static inline void store_close(struct store *store)
{
	if (store)
		store->ops->close(store);
}

/* Whether an error may pass by itself, so that the request is worth repeating. */
static inline bool store_transient(int error)
{
	return error != -EEXIST && error != -ESTALE && error != -ENOENT && error != -ERANGE &&
	       error != -EINVAL;
}

/*
 * Whether a key is one that every store takes: 1 to STORE_KEY_MAX of [A-Za-z0-9._-], and '/'
 * between such parts; no part is empty or begins with a dot. Stores refuse others with -EINVAL.
 */
bool store_key_valid(const char *key);

/* For stores: 0, or -EINVAL when key, lengths or callbacks of a request cannot be right. */
int store_req_check(const struct store_req *req);

/* Runs one request to its end on the calling thread; for opening, recovery and tools. */
int store_sync(struct store *store, struct store_req *req);
int store_get(struct store *store, const char *key, void *buf, size_t len_bytes,
	      uint64_t off_bytes);
/* The whole object into a malloc'd buffer that the caller frees; refuses more than max_bytes. */
int store_get_all(struct store *store, const char *key, size_t max_bytes, void **ret_buf,
		  size_t *ret_len_bytes, uint64_t *ret_version);
int store_put_new(struct store *store, const char *key, const void *buf, size_t len_bytes);
int store_replace(struct store *store, const char *key, const void *buf, size_t len_bytes,
		  uint64_t *inout_version);
int store_delete(struct store *store, const char *key);

#endif
