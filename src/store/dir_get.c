/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store: what looks at objects.
 *
 * A get opens the file once: what it returns, with version and size, is of one object, whatever
 * is renamed over it meanwhile. A list reads all directories, sorts, and then calls back.
 *
 * Invariants
 *  1. A list shows only objects whose names are durable: a process that recovers by it may throw
 *     away its own copy of what it finds there, and who put it may have been killed before its
 *     fsync of the directory.
 *  2. A file in another directory than its key's is not an object: a get would not find it.
 *
 * Locks: none of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/dir_impl.h"

/* iovecs that are handed to the kernel at a time. */
#define IOVS 64

/* Reads all that iov asks for; the end of the file before that is an error. */
static int read_all(int fd, const struct iovec *iov, int iovcnt, uint64_t off_bytes)
{
	struct iovec part[IOVS];
	size_t skip = 0;

	for (;;) {
		int n = 0;
		ssize_t got;

		while (iovcnt && skip == iov->iov_len) {
			iov++;
			iovcnt--;
			skip = 0;
		}
		if (!iovcnt)
			return 0;
		for (; n < iovcnt && n < IOVS; n++)
			part[n] = iov[n];
		part[0].iov_base = (uint8_t *)part[0].iov_base + skip;
		part[0].iov_len -= skip;
		got = preadv(fd, part, n, (off_t)off_bytes);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		off_bytes += (uint64_t)got;
		for (skip += (size_t)got; iovcnt && skip >= iov->iov_len; iovcnt--)
			skip -= iov++->iov_len;
	}
}

static int get_from(int fd, struct store_req *req)
{
	struct stat st;
	uint64_t size;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	size = (uint64_t)st.st_size;
	req->size_bytes = size;
	req->version = dir_version(&st);
	if (req->off_bytes > size || req->len_bytes > size - req->off_bytes)
		return -ERANGE;
	return read_all(fd, req->iov, req->iovcnt, req->off_bytes);
}

int dir_get(struct dir_store *dir, struct store_req *req)
{
	struct dir_shard *shard;
	int fd, ret = dir_shard_get(dir, req->key, false, &shard);

	if (ret)
		return ret;
	fd = openat(shard->fd, req->key, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		ret = -errno;
	dir_shard_put(dir, shard);
	if (ret)
		return ret;
	ret = get_from(fd, req);
	close(fd);
	return ret;
}

int dir_head(struct dir_store *dir, struct store_req *req)
{
	struct dir_shard *shard;
	struct stat st;
	int ret = dir_shard_get(dir, req->key, false, &shard);

	if (ret)
		return ret;
	if (fstatat(shard->fd, req->key, &st, AT_SYMLINK_NOFOLLOW) < 0)
		ret = -errno;
	else if (!S_ISREG(st.st_mode))
		ret = -EINVAL;
	dir_shard_put(dir, shard);
	if (ret)
		return ret;
	req->size_bytes = (uint64_t)st.st_size;
	req->version = dir_version(&st);
	return 0;
}

struct listed {
	uint64_t size_bytes;
	char key[];
};

struct lister {
	const struct dir_store *dir;
	const char *prefix;
	unsigned shard;
	struct listed **at;
	size_t count, room;
};

static int keep(struct lister *l, const char *key, uint64_t size_bytes)
{
	size_t len = strlen(key) + 1;
	struct listed *item;

	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 256;
		struct listed **at = realloc(l->at, room * sizeof(struct listed *));

		if (!at)
			return -ENOMEM;
		l->at = at;
		l->room = room;
	}
	item = malloc(sizeof(*item) + len);
	if (!item)
		return -ENOMEM;
	item->size_bytes = size_bytes;
	memcpy(item->key, key, len);
	l->at[l->count++] = item;
	return 0;
}

/* Keeps the file if it is an object whose key begins with the prefix. */
static int consider(struct lister *l, int fd, const char *name)
{
	struct stat st;

	if (strncmp(name, l->prefix, strlen(l->prefix)) != 0)
		return 0;
	/* It may have been deleted in between. */
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	return S_ISREG(st.st_mode) ? keep(l, name, (uint64_t)st.st_size) : 0;
}

static int consider_in_shard(void *arg, int fd, const char *name)
{
	struct lister *l = arg;

	/* Invariant 2; temporary files are no valid keys. */
	if (!store_key_valid(name) || !dir_key_ours(l->dir, name) ||
	    strcmp(name, l->dir->base) == 0 || dir_shard_of(name) != l->shard)
		return 0;
	return consider(l, fd, name);
}

/* A file system that is mounted read-only has nothing to make durable. */
static int no_erofs(int error)
{
	return error == -EROFS ? 0 : error;
}

/* Read, then fsync (invariant 1): what is read has to be durable, not what was there before. */
static int collect(struct dir_store *dir, struct lister *l)
{
	int ret = consider(l, dir->top.fd, dir->base);

	if (ret == 0)
		ret = no_erofs(dir_fsync(dir->top.fd));
	for (l->shard = 0; l->shard < DIR_SHARDS && ret == 0; l->shard++) {
		struct dir_shard *s;

		ret = dir_shard_get_nth(dir, l->shard, &s);
		if (ret == -ENOENT) {
			ret = 0;
			continue;
		}
		if (ret)
			break;
		ret = dir_scan(s->fd, consider_in_shard, l);
		if (ret == 0)
			ret = no_erofs(dir_fsync(s->fd));
		dir_shard_put(dir, s);
	}
	/* And the names of the shards themselves. */
	return ret ? ret : no_erofs(dir_fsync_shards(dir));
}

static int by_key(const void *a, const void *b)
{
	const struct listed *const *x = a, *const *y = b;

	return strcmp((*x)->key, (*y)->key);
}

int dir_list(struct dir_store *dir, struct store_req *req)
{
	struct lister l = {.dir = dir, .prefix = req->key};
	int ret = collect(dir, &l);

	if (ret == 0 && l.count)
		qsort(l.at, l.count, sizeof(struct listed *), by_key);
	for (size_t i = 0; i < l.count; i++) {
		if (ret == 0)
			ret = req->entry(req, l.at[i]->key, l.at[i]->size_bytes);
		free(l.at[i]);
	}
	free(l.at);
	return ret;
}
