/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store: exclusion between processes, and between openings within one.
 *
 * Both locks are locks of open file descriptions, on two bytes of one file, /path/base.lock: they
 * exclude each other's openings even within one process, go away with their process however it
 * ends, and are not lost when some other descriptor of the file is closed.
 *
 * Invariants
 *  1. The lock file is never removed by us. If somebody else removes it, who locks next notices
 *     that the name leads elsewhere, and starts again.
 *  2. The owner's lock is held from lock() to unlock(); the change lock only across one compare
 *     and one rename or unlink, so that a wait for it is short. It is bounded all the same, since
 *     its holder may be stopped.
 *
 * Locks: owner_lock guards owner_fd. change_lock is taken before DIR_LOCK_CHANGE and held as long,
 * so that threads of one store queue up instead of trying.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "store/dir_impl.h"

#define WHO_MAX 128
#define CHANGE_TRIES 3000 /* each followed by a pause */
#define CHANGE_PAUSE_NS 10000000

static void lock_name(const struct dir_store *dir, char *ret, size_t len)
{
	snprintf(ret, len, "%s.lock", dir->base);
}

static int open_lock_file(struct dir_store *dir)
{
	char name[STORE_KEY_MAX + 8];
	int fd;

	lock_name(dir, name, sizeof(name));
	fd = openat(dir->top.fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	return fd >= 0 ? fd : -errno;
}

/* Invariant 1: whether the name still leads to what we have locked. */
static bool still_there(struct dir_store *dir, int fd)
{
	char name[STORE_KEY_MAX + 8];
	struct stat ours, named;

	lock_name(dir, name, sizeof(name));
	return fstat(fd, &ours) == 0 &&
	       fstatat(dir->top.fd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       ours.st_dev == named.st_dev && ours.st_ino == named.st_ino;
}

static struct flock range(short type, enum dir_lock_byte byte)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

static int try_lock(int fd, enum dir_lock_byte byte)
{
	struct flock fl = range(F_WRLCK, byte);

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

/* Unlocks at once, even if a child that was forked meanwhile has the descriptor too. */
static void close_locked(int fd, enum dir_lock_byte byte)
{
	struct flock fl = range(F_UNLCK, byte);

	fcntl(fd, F_OFD_SETLK, &fl);
	close(fd);
}

/* Opens and locks; returns the descriptor that holds the lock. */
static int open_locked(struct dir_store *dir, enum dir_lock_byte byte)
{
	for (;;) {
		int ret, fd = open_lock_file(dir);

		if (fd < 0)
			return fd;
		ret = try_lock(fd, byte);
		if (ret == 0 && still_there(dir, fd))
			return fd;
		close(fd);
		if (ret)
			return ret;
	}
}

int dir_change_begin(struct dir_store *dir, int *ret_fd)
{
	struct timespec pause = {.tv_nsec = CHANGE_PAUSE_NS};
	int fd = -EBUSY;

	pthread_mutex_lock(&dir->change_lock);
	for (int i = 0; i < CHANGE_TRIES && fd == -EBUSY; i++) {
		if (i)
			nanosleep(&pause, NULL);
		fd = open_locked(dir, DIR_LOCK_CHANGE);
	}
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	pthread_mutex_unlock(&dir->change_lock);
	return fd == -EBUSY ? -ETIMEDOUT : fd;
}

void dir_change_end(struct dir_store *dir, int fd)
{
	close_locked(fd, DIR_LOCK_CHANGE);
	pthread_mutex_unlock(&dir->change_lock);
}

/* What the lock file says about its owner; for a message, so anything will do. */
static void read_who(struct dir_store *dir, char *ret, size_t len)
{
	int fd = open_lock_file(dir);
	ssize_t n = -1;

	if (fd >= 0) {
		n = pread(fd, ret, len - 1, 0);
		close(fd);
	}
	ret[n > 0 ? n : 0] = 0;
	for (char *c = ret; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = 0;
	if (!ret[0])
		snprintf(ret, len, "unknown");
}

/* Best effort: the lock holds whatever the file says. */
static void write_who(int fd)
{
	char who[WHO_MAX], host[64];
	int n;

	if (gethostname(host, sizeof(host)) < 0)
		snprintf(host, sizeof(host), "?");
	host[sizeof(host) - 1] = 0;
	n = snprintf(who, sizeof(who), "%ld on %s\n", (long)getpid(), host);
	if (ftruncate(fd, 0) == 0 && pwrite(fd, who, (size_t)n, 0) != n)
		(void)!ftruncate(fd, 0);
}

int dir_lock(struct store *store, const char *name, struct err *err)
{
	struct dir_store *dir = dir_of(store);
	char who[WHO_MAX];
	int fd;

	if (strcmp(name, dir->base) != 0)
		return err_set(err, -EINVAL, "%s: cannot lock '%s', only '%s'", dir->path, name,
			       dir->base);
	pthread_mutex_lock(&dir->owner_lock);
	fd = open_locked(dir, DIR_LOCK_OWNER);
	if (fd >= 0) {
		write_who(fd);
		dir->owner_fd = fd;
	}
	pthread_mutex_unlock(&dir->owner_lock);
	if (fd == -EBUSY) {
		read_who(dir, who, sizeof(who));
		return err_set(err, -EBUSY, "%s is in use by process %s (see %s.lock)", dir->path,
			       who, dir->path);
	}
	if (fd < 0)
		return err_sys(err, fd, "locking %s.lock", dir->path);
	dir_clean(dir);
	return 0;
}

void dir_unlock(struct store *store, const char *name)
{
	struct dir_store *dir = dir_of(store);

	if (name && strcmp(name, dir->base) != 0)
		return;
	pthread_mutex_lock(&dir->owner_lock);
	if (dir->owner_fd >= 0) {
		(void)!ftruncate(dir->owner_fd, 0);
		close_locked(dir->owner_fd, DIR_LOCK_OWNER);
	}
	dir->owner_fd = -1;
	pthread_mutex_unlock(&dir->owner_lock);
}
