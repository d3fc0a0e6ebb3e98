/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store: where objects are, and directories as such.
 *
 * Objects other than the superblock are spread over 256 directories, so that none gets slow and
 * several puts seldom wait for one directory's lock. Descriptors of these are cached.
 *
 * Invariants
 *  1. Before the first object of ours is put into a shard, its name in base.d, and that of base.d
 *     in /path, have been made durable by us, even if we did not create them: who did may have
 *     died before it came to that.
 *  2. At most DIR_FDS_MAX shards are open while nobody uses them.
 *  3. The shard of a key never changes: it is part of the format.
 *
 * Locks: dir->shard_lock guards descriptors and flags; the system calls that open, create and
 * publish a shard are made under it, as they happen once for each shard.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "store/dir_impl.h"

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
#define OLD_SECONDS 3600

bool dir_key_ours(const struct dir_store *dir, const char *key)
{
	size_t len = strlen(dir->base);

	if (strncmp(key, dir->base, len) != 0 || strchr(key, '/'))
		return false;
	return key[len] == 0 || key[len] == '.';
}

unsigned dir_shard_of(const char *key)
{
	return crc32c(0, key, strlen(key)) % DIR_SHARDS;
}

int dir_fsync(int fd)
{
	if (!VARVE_STEP("dir.fsync_names"))
		return 0;
	if (fsync(fd) == 0)
		return 0;
	/* Some network file systems have no fsync for directories and need none. */
	return errno == EINVAL ? 0 : -errno;
}

/* Opens a directory inside of another one; with create makes it first if it is not there. */
static int open_dir(int parent, const char *name, bool create)
{
	int fd = openat(parent, name, OPEN_DIR);

	if (fd >= 0 || errno != ENOENT || !create)
		return fd >= 0 ? fd : -errno;
	if (mkdirat(parent, name, 0777) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(parent, name, OPEN_DIR);
	return fd >= 0 ? fd : -errno;
}

static int open_objects_locked(struct dir_store *dir, bool create)
{
	char name[STORE_KEY_MAX + 4];
	int ret;

	if (dir->objects_fd < 0) {
		snprintf(name, sizeof(name), "%s.d", dir->base);
		ret = open_dir(dir->top.fd, name, create);
		if (ret < 0)
			return ret;
		dir->objects_fd = ret;
	}
	if (create && !dir->objects_published) {
		ret = dir_fsync(dir->top.fd);
		if (ret)
			return ret;
		dir->objects_published = true;
	}
	return 0;
}

/* Invariant 2: closes the one unused for longest, if there are too many. */
static void evict_locked(struct dir_store *dir)
{
	struct dir_shard *oldest = NULL;

	if (dir->open_fds <= DIR_FDS_MAX)
		return;
	for (unsigned n = 0; n < DIR_SHARDS; n++) {
		struct dir_shard *s = &dir->shard[n];

		if (s->fd >= 0 && !s->users && (!oldest || s->used < oldest->used))
			oldest = s;
	}
	if (!oldest)
		return;
	close(oldest->fd);
	oldest->fd = -1;
	dir->open_fds--;
}

static int open_shard_locked(struct dir_store *dir, unsigned n, bool create)
{
	struct dir_shard *s = &dir->shard[n];
	char name[8];
	int ret = open_objects_locked(dir, create);

	if (ret)
		return ret;
	if (s->fd < 0) {
		snprintf(name, sizeof(name), "%02x", n % DIR_SHARDS);
		ret = open_dir(dir->objects_fd, name, create);
		if (ret < 0)
			return ret;
		s->fd = ret;
		dir->open_fds++;
	}
	if (create && !s->published) {
		ret = dir_fsync(dir->objects_fd);
		if (ret)
			return ret;
		s->published = true;
	}
	return 0;
}

static int get_nth(struct dir_store *dir, unsigned n, bool create, struct dir_shard **ret)
{
	struct dir_shard *s = &dir->shard[n];
	int error;

	pthread_mutex_lock(&dir->shard_lock);
	error = open_shard_locked(dir, n, create);
	if (error == 0) {
		s->users++;
		s->used = ++dir->ticks;
		*ret = s;
	}
	pthread_mutex_unlock(&dir->shard_lock);
	return error;
}

int dir_shard_get_nth(struct dir_store *dir, unsigned n, struct dir_shard **ret)
{
	return get_nth(dir, n, false, ret);
}

int dir_shard_get(struct dir_store *dir, const char *key, bool create, struct dir_shard **ret)
{
	if (strcmp(key, dir->base) == 0) {
		*ret = &dir->top;
		return 0;
	}
	return get_nth(dir, dir_shard_of(key), create, ret);
}

void dir_shard_put(struct dir_store *dir, struct dir_shard *shard)
{
	if (shard == &dir->top)
		return;
	pthread_mutex_lock(&dir->shard_lock);
	shard->users--;
	evict_locked(dir);
	pthread_mutex_unlock(&dir->shard_lock);
}

int dir_fsync_shards(struct dir_store *dir)
{
	int fd;

	/* Once open it stays open. */
	pthread_mutex_lock(&dir->shard_lock);
	fd = dir->objects_fd;
	pthread_mutex_unlock(&dir->shard_lock);
	return fd >= 0 ? dir_fsync(fd) : 0;
}

void dir_shards_close(struct dir_store *dir)
{
	for (unsigned n = 0; n < DIR_SHARDS; n++)
		if (dir->shard[n].fd >= 0)
			close(dir->shard[n].fd);
	if (dir->objects_fd >= 0)
		close(dir->objects_fd);
	if (dir->top.fd >= 0)
		close(dir->top.fd);
}

static int scan(DIR *d, int (*entry)(void *arg, int fd, const char *name), void *arg)
{
	struct dirent *e;
	int ret = 0;

	while (ret == 0) {
		errno = 0;
		e = readdir(d);
		if (!e)
			return -errno;
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			ret = entry(arg, dirfd(d), e->d_name);
	}
	return ret;
}

int dir_scan(int fd, int (*entry)(void *arg, int fd, const char *name), void *arg)
{
	/* A description of our own: a shared one has one position for all who read. */
	int own = openat(fd, ".", OPEN_DIR);
	DIR *d;
	int ret;

	if (own < 0)
		return -errno;
	d = fdopendir(own);
	if (!d) {
		ret = -errno;
		close(own);
		return ret;
	}
	ret = scan(d, entry, arg);
	closedir(d);
	return ret;
}

void dir_tmp_prefix(const struct dir_store *dir, char *ret, size_t len)
{
	/* No key begins with a dot. */
	snprintf(ret, len, ".tmp-%s-", dir->base);
}

struct cleaner {
	char prefix[DIR_TMP_MAX];
	time_t before;
};

static int remove_if_old(void *arg, int fd, const char *name)
{
	const struct cleaner *c = arg;
	struct stat st;

	if (strncmp(name, c->prefix, strlen(c->prefix)) != 0)
		return 0;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
	    st.st_mtime < c->before)
		unlinkat(fd, name, 0);
	return 0;
}

void dir_clean(struct dir_store *dir)
{
	struct cleaner c = {.before = time(NULL) - OLD_SECONDS};

	dir_tmp_prefix(dir, c.prefix, sizeof(c.prefix));
	dir_scan(dir->top.fd, remove_if_old, &c);
	for (unsigned n = 0; n < DIR_SHARDS; n++) {
		struct dir_shard *s;

		if (dir_shard_get_nth(dir, n, &s) == 0) {
			dir_scan(s->fd, remove_if_old, &c);
			dir_shard_put(dir, s);
		}
	}
}
