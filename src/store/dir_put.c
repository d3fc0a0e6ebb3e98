/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store: what changes objects.
 *
 *	put      file, write, stamp, fsync | link           | fsync directory | done
 *	replace  file, write | compare, stamp, fsync, rename | fsync directory | done
 *	delete               | unlink                        | fsync directory | done
 *	                       (these under the change lock)
 *
 * Invariants
 *  1. Body before name: the file is durable before any name leads to it, else a power cut could
 *     leave the name of an empty object.
 *  2. Name before done(): the directory is durable before success is reported, also where the
 *     answer is that the object is there (-EEXIST) or gone already, since the caller counts on it.
 *  3. The stamp of an object that replaces another is greater than the other's (dir.h), or it
 *     is not put. Compare and rename are one step to all who hold the change lock.
 *  4. An object that failed to become durable has no name afterwards: it is unlinked again. A
 *     replacement cannot be undone, and is reported as an error that may have had its effect.
 *
 * Locks: the change lock (dir_lock.c), over replace and delete. A put needs none: linking does
 * not replace, in any process.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/mutant.h"
#include "store/dir_impl.h"

#define NS_PER_S UINT64_C(1000000000)

uint64_t dir_version(const struct stat *st)
{
	uint64_t ns = (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec;

	/* 0 means that there is no object. */
	return ns ? ns : 1;
}

static int set_mtime(int fd, uint64_t ns, uint64_t *ret_version)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
				    {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)}};
	struct stat st;

	if (futimens(fd, times) < 0 || fstat(fd, &st) < 0)
		return -errno;
	*ret_version = dir_version(&st);
	return 0;
}

/*
 * Gives the file a modification time after that of what it replaces (0: nothing). It is read
 * back, as file systems round; the coarsest round to two seconds.
 */
static int stamp(int fd, uint64_t after, uint64_t *ret_version)
{
	static const uint64_t steps_ns[] = {1, 1000, 1000000, NS_PER_S, 4 * NS_PER_S};
	struct timespec now;
	uint64_t now_ns, version;
	int ret;

	clock_gettime(CLOCK_REALTIME, &now);
	now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
	ret = set_mtime(fd, now_ns, &version);
	for (size_t i = 0; ret == 0 && version <= after; i++) {
		if (i == sizeof(steps_ns) / sizeof(steps_ns[0]))
			return -EOPNOTSUPP;
		ret = set_mtime(fd, after + steps_ns[i], &version);
	}
	if (ret == 0)
		*ret_version = version;
	return ret;
}

/* Invariant 1. */
static int settle(const struct dir_file *file, uint64_t after, uint64_t *ret_version)
{
	int ret = stamp(file->fd, after, ret_version);

	if (ret == 0 && VARVE_STEP("dir.fsync_object") && fsync(file->fd) < 0)
		ret = -errno;
	return ret;
}

/* A directory that was removed under us is not an object that does not exist. */
static int no_enoent(int error)
{
	return error == -ENOENT ? -EIO : error;
}

static int put_file(struct dir_store *dir, struct store_req *req, int dirfd)
{
	struct dir_file file;
	uint64_t version;
	int ret = dir_file_create(dir, dirfd, false, &file);

	if (ret)
		return ret;
	ret = dir_file_write(dir, &file, req->iov, req->iovcnt, req->len_bytes);
	if (ret == 0)
		ret = settle(&file, 0, &version);
	if (ret == 0)
		ret = dir_file_link(dir, &file, dirfd, req->key);
	dir_file_drop(&file, dirfd);
	if (ret == 0)
		req->version = version;
	return ret;
}

int dir_put_new(struct dir_store *dir, struct store_req *req)
{
	struct dir_shard *shard;
	int synced, ret = dir_shard_get(dir, req->key, true, &shard);

	if (ret)
		return no_enoent(ret);
	/* Not to write 8 MiB for nothing, as a writer does that tries again after a timeout. */
	if (faccessat(shard->fd, req->key, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		ret = -EEXIST;
	else
		ret = no_enoent(put_file(dir, req, shard->fd));
	if (ret == 0 || ret == -EEXIST) {
		synced = dir_fsync(shard->fd);
		/* Invariant 4; but what somebody else has put is not ours to remove. */
		if (synced && ret == 0)
			unlinkat(shard->fd, req->key, 0);
		if (synced)
			ret = synced;
	}
	dir_shard_put(dir, shard);
	return ret;
}

static int compare(int dirfd, const struct store_req *req)
{
	struct stat st;

	if (fstatat(dirfd, req->key, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return dir_version(&st) == req->version ? 0 : -ESTALE;
	if (errno != ENOENT)
		return -errno;
	return req->version == 0 ? 0 : -ESTALE;
}

/* Under the change lock. */
static int swap(struct dir_store *dir, struct store_req *req, struct dir_file *file, int dirfd)
{
	uint64_t version;
	int ret = compare(dirfd, req);

	if (ret == 0)
		ret = settle(file, req->version, &version);
	if (ret)
		return ret;
	if (req->version == 0) {
		/* A put takes no lock: it may have come in between. */
		ret = dir_file_link(dir, file, dirfd, req->key);
		if (ret == -EEXIST)
			ret = -ESTALE;
	} else if (renameat(dirfd, file->tmp, dirfd, req->key) == 0) {
		file->tmp[0] = 0;
	} else {
		ret = -errno;
	}
	if (ret == 0)
		req->version = version;
	return ret;
}

static int replace_file(struct dir_store *dir, struct store_req *req, int dirfd)
{
	struct dir_file file;
	int change_fd, ret = dir_file_create(dir, dirfd, true, &file);

	if (ret)
		return ret;
	ret = dir_file_write(dir, &file, req->iov, req->iovcnt, req->len_bytes);
	if (ret == 0)
		ret = dir_change_begin(dir, &change_fd);
	if (ret == 0) {
		ret = swap(dir, req, &file, dirfd);
		dir_change_end(dir, change_fd);
	}
	dir_file_drop(&file, dirfd);
	return ret;
}

int dir_replace(struct dir_store *dir, struct store_req *req)
{
	struct dir_shard *shard;
	int ret = dir_shard_get(dir, req->key, true, &shard);

	if (ret)
		return no_enoent(ret);
	ret = no_enoent(replace_file(dir, req, shard->fd));
	if (ret == 0)
		ret = dir_fsync(shard->fd);
	dir_shard_put(dir, shard);
	return ret;
}

int dir_delete(struct dir_store *dir, struct store_req *req)
{
	struct dir_shard *shard;
	int change_fd, ret = dir_shard_get(dir, req->key, false, &shard);

	if (ret)
		return ret == -ENOENT ? 0 : ret;
	ret = dir_change_begin(dir, &change_fd);
	if (ret == 0) {
		if (unlinkat(shard->fd, req->key, 0) < 0 && errno != ENOENT)
			ret = -errno;
		dir_change_end(dir, change_fd);
	}
	if (ret == 0)
		ret = dir_fsync(shard->fd);
	dir_shard_put(dir, shard);
	return ret;
}
