/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the directory store: dir.c (requests, threads), dir_path.c (which
 * directory an object is in), dir_body.c (files on their way to a name), dir_put.c (what changes
 * objects), dir_get.c (what looks at them), dir_lock.c (between processes).
 */
#ifndef STORE_DIR_IMPL_H
#define STORE_DIR_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "base/host.h"
#include "runtime/workers.h"
#include "store/dir.h"
#include "store/queue.h"

#define DIR_SHARDS 256
#define DIR_FDS_MAX 64u /* descriptors of shards kept open while nobody uses them */
#define DIR_THREADS_MAX 64u
#define DIR_BOUNCE_BYTES (1u << 20)
#define DIR_TMP_MAX 256 /* the name of a temporary file */

/* Bytes of the lock file that are locked. */
enum dir_lock_byte {
	DIR_LOCK_OWNER,  /* by the writer, as long as it lives */
	DIR_LOCK_CHANGE, /* around a compare and the rename or unlink that follows */
};

/* A directory that holds objects: a shard, or the one with the superblock. */
struct dir_shard {
	int fd; /* -1: not open */
	unsigned users;
	uint64_t used;  /* when, in dir->ticks */
	bool published; /* its name was made durable since we opened the store */
};

struct dir_bounce {
	struct list_head link;
	uint8_t *data; /* DIR_BOUNCE_BYTES, aligned for direct I/O */
};

struct dir_store;

struct dir_worker {
	struct work work;
	struct dir_store *dir;
	bool busy; /* under queue.lock */
};

struct dir_store {
	struct store store;
	struct store_queue queue;
	struct workers *workers;
	struct dir_worker worker[DIR_THREADS_MAX];
	unsigned threads;
	char base[STORE_KEY_MAX + 1];
	char *path; /* for messages */
	struct dir_shard top; /* /path; always open */
	bool have_proc;         /* /proc/self/fd: how a file without a name gets one */
	atomic_bool no_tmpfile; /* O_TMPFILE does not work here */
	atomic_bool no_direct;  /* O_DIRECT does not work here */
	atomic_uint tmp_serial;
	uint64_t nonce; /* makes names of temporary files unlike those of other machines */

	pthread_mutex_t shard_lock; /* guards what follows, and the fields of each shard */
	int objects_fd;             /* /path/base.d, or -1 */
	bool objects_published;
	struct dir_shard shard[DIR_SHARDS];
	unsigned open_fds;
	uint64_t ticks;

	pthread_mutex_t bounce_lock;
	struct list_head bounces; /* struct dir_bounce, free ones */

	pthread_mutex_t change_lock; /* before the lock of DIR_LOCK_CHANGE; held across both */

	pthread_mutex_t owner_lock; /* guards owner_fd */
	int owner_fd;               /* has DIR_LOCK_OWNER, or -1 */
};

static inline struct dir_store *dir_of(struct store *store)
{
	return container_of(store, struct dir_store, store);
}

/* --- dir_path.c --- */

/* Whether the store at base has a place for the key. */
bool dir_key_ours(const struct dir_store *dir, const char *key);

/* The number of the shard that holds the key, which is not the base. */
unsigned dir_shard_of(const char *key);

/*
 * The directory that holds the key, for use until dir_shard_put(). With create it is made if need
 * be, and its name is durable. -ENOENT without.
 */
int dir_shard_get(struct dir_store *dir, const char *key, bool create, struct dir_shard **ret);
int dir_shard_get_nth(struct dir_store *dir, unsigned n, struct dir_shard **ret);
void dir_shard_put(struct dir_store *dir, struct dir_shard *shard);
void dir_shards_close(struct dir_store *dir);

/* Makes the names in a directory durable. */
int dir_fsync(int fd);
/* The same for the names of the shards. */
int dir_fsync_shards(struct dir_store *dir);

/* Calls entry() for each name; a result that is not 0 ends it. */
int dir_scan(int fd, int (*entry)(void *arg, int fd, const char *name), void *arg);

/* How the names of temporary files begin. */
void dir_tmp_prefix(const struct dir_store *dir, char *ret, size_t len);

/* Removes temporary files that are older than an hour. Errors are ignored: next time. */
void dir_clean(struct dir_store *dir);

/* --- dir_body.c --- */

/* A file that has no name yet, or a temporary one. */
struct dir_file {
	int fd;
	char tmp[DIR_TMP_MAX]; /* "" if it has no name */
};

/* named: it has a temporary name from the start, to be renamed. */
int dir_file_create(struct dir_store *dir, int dirfd, bool named, struct dir_file *ret);
int dir_file_write(struct dir_store *dir, struct dir_file *file, const struct iovec *iov,
		   int iovcnt, uint64_t len_bytes);
/* Gives it the name, without replacing; -EEXIST. */
int dir_file_link(struct dir_store *dir, struct dir_file *file, int dirfd, const char *name);
/* Closes it; what has only a temporary name is gone. */
void dir_file_drop(struct dir_file *file, int dirfd);

/* --- dir_put.c, dir_get.c, dir_lock.c --- */

int dir_put_new(struct dir_store *dir, struct store_req *req);
int dir_replace(struct dir_store *dir, struct store_req *req);
int dir_delete(struct dir_store *dir, struct store_req *req);
uint64_t dir_version(const struct stat *st);

int dir_get(struct dir_store *dir, struct store_req *req);
int dir_head(struct dir_store *dir, struct store_req *req);
int dir_list(struct dir_store *dir, struct store_req *req);

int dir_lock(struct store *store, const char *name, struct err *err);
void dir_unlock(struct store *store, const char *name);
/* Around a compare and the change that follows it; between processes and threads. */
int dir_change_begin(struct dir_store *dir, int *ret_fd);
void dir_change_end(struct dir_store *dir, int fd);

#endif
