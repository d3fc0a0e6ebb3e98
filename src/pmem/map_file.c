/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What persistent memory is mapped from: a regular file, a block device, a device-dax.
 *
 * Purpose. A mapping is only as good as what lies under it: nobody else may write it, every page of
 * it must have its place on the medium, and a new file must not lose its name or its length in a
 * crash that its contents survive.
 *
 * Locks of the medium. Two on the opened file: the open file description lock that dev/file takes,
 * and flock(), which is what libpmem's pools and tools take. Several nodes may lead to one block
 * device, so that is claimed in the kernel as well, by O_EXCL. All end with the process; but a
 * child that was forked meanwhile has the same opened file, and would keep the locks beyond a
 * close, so the owner gives the two back by name. (The claim of a device stays until the child has
 * gone.)
 *
 * Allocation. A hole of a file is given its blocks at the first store, and if the file system is
 * full by then, that store is a SIGBUS. So holes are filled when a file is opened for writing.
 *
 * Durability. A new file is durable, as to its length, its blocks and its name, before it is
 * mapped: a fence covers the contents of a mapping alone, and a MAP_SYNC mapping never calls the
 * file system at all. Order: allocate, fsync of the file, fsync of its directory.
 *
 * Invariants.
 *  1. Whoever has a struct map_file holds its locks.
 *  2. A file that this made and could not finish is removed again, while its lock is held.
 *
 * Locks. None.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mutant.h"
#include "pmem/map_impl.h"

#define MAP_HUGE_BYTES ((size_t)2 << 20)

/* Of /sys/dev/char/M:m/<name>, a number. */
static int dax_number(dev_t rdev, const char *name, uint64_t *ret)
{
	char path[128], text[32], *end;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/%s", major(rdev), minor(rdev), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -EIO;
	text[n] = '\0';
	errno = 0;
	*ret = strtoull(text, &end, 0);
	return errno || end == text ? -EIO : 0;
}

/* The kernel says which character devices are device-dax, by the subsystem that made them. */
static bool is_device_dax(dev_t rdev)
{
	char path[128], target[PATH_MAX];
	const char *name;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/subsystem", major(rdev), minor(rdev));
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return false;
	target[n] = '\0';
	name = strrchr(target, '/');
	return name && !strcmp(name, "/dax");
}

static int look_at_dax(const char *path, dev_t rdev, struct map_file *file, struct err *err)
{
	uint64_t align;
	int r = dax_number(rdev, "size", &file->size_bytes);

	if (r)
		return err_sys(err, r, "%s: the size of the device-dax cannot be read", path);
	if (dax_number(rdev, "align", &align) && dax_number(rdev, "device/align", &align))
		align = MAP_HUGE_BYTES;
	if (align & (align - 1) || align > (uint64_t)1 << 40)
		return err_set(err, -EINVAL, "%s: the device-dax wants an alignment of %" PRIu64
			       " bytes, which is no power of two", path, align);
	file->kind = KIND_DEVICE_DAX;
	file->align_bytes = align > MAP_HUGE_BYTES ? align : MAP_HUGE_BYTES;
	return 0;
}

static int look_at(const char *path, struct map_file *file, struct stat *st, struct err *err)
{
	if (fstat(file->fd, st))
		return err_sys(err, -errno, "%s", path);
	file->align_bytes = MAP_HUGE_BYTES;
	if (S_ISREG(st->st_mode)) {
		file->kind = KIND_FILE;
		file->size_bytes = (uint64_t)st->st_size;
		return 0;
	}
	if (S_ISBLK(st->st_mode)) {
		file->kind = KIND_BLOCK;
		if (ioctl(file->fd, BLKGETSIZE64, &file->size_bytes))
			return err_sys(err, -errno, "%s: its size cannot be read", path);
		return 0;
	}
	if (S_ISCHR(st->st_mode) && is_device_dax(st->st_rdev))
		return look_at_dax(path, st->st_rdev, file, err);
	return err_set(err, -EINVAL, "%s: neither a regular file, a block device nor a device-dax; "
		       "persistent memory cannot be mapped from it", path);
}

/* Opens the block device once more, with the kernel's claim. */
static int claim(const char *path, const struct stat *ours, struct map_file *file)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) || !S_ISBLK(st.st_mode) || st.st_rdev != ours->st_rdev) {
		close(fd);
		return -ESTALE;
	}
	file->claim_fd = fd;
	return 0;
}

static int take_locks(const char *path, bool read_only, const struct stat *st,
		      struct map_file *file)
{
	struct flock range = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	int r;

	do
		r = flock(file->fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB);
	while (r && errno == EINTR);
	if (r)
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	do
		r = fcntl(file->fd, F_OFD_SETLK, &range);
	while (r && errno == EINTR);
	if (r)
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	return file->kind == KIND_BLOCK && !read_only ? claim(path, st, file) : 0;
}

static int lock(const char *path, bool read_only, const struct stat *st, struct map_file *file,
		struct err *err)
{
	int r = take_locks(path, read_only, st, file);

	if (r == -EBUSY)
		return err_set(err, r, "%s: in use by another opening, of this process or another",
			       path);
	return r ? err_sys(err, r, "%s: cannot be locked", path) : 0;
}

static int allocate(const char *path, struct map_file *file, uint64_t len, struct err *err)
{
	int r;

	if (len > INT64_MAX)
		return err_set(err, -EFBIG, "%s: %" PRIu64 " bytes are more than a file can have",
			       path, len);
	do
		r = posix_fallocate(file->fd, 0, (off_t)len);
	while (r == EINTR);
	if (r)
		return err_sys(err, -r, "%s: %" PRIu64 " bytes cannot be allocated", path, len);
	file->size_bytes = len;
	return 0;
}

static int sync_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd, r = 0;

	if (!dir)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd < 0)
		return -errno;
	if (VARVE_STEP("pmem.create_directory_sync") && fsync(fd))
		r = -errno;
	close(fd);
	/* Some file systems have no fsync of directories, since they need none. */
	return r == -EINVAL ? 0 : r;
}

/* A new file gets its blocks, and both it and its name become durable. */
static int finish_new(const char *path, const struct pm_options *opt, struct map_file *file,
		      struct err *err)
{
	int r;

	if (opt->sparse) {
		if (opt->create_bytes > INT64_MAX || ftruncate(file->fd, (off_t)opt->create_bytes))
			return err_sys(err, opt->create_bytes > INT64_MAX ? -EFBIG : -errno,
				       "%s: cannot be made %" PRIu64 " bytes long", path,
				       opt->create_bytes);
		file->size_bytes = opt->create_bytes;
	} else {
		r = allocate(path, file, opt->create_bytes, err);
		if (r)
			return r;
	}
	if (VARVE_STEP("pmem.create_sync") && fsync(file->fd))
		return err_sys(err, -errno, "%s: cannot be made durable", path);
	r = sync_directory(path);
	return r ? err_sys(err, r, "%s: its name cannot be made durable", path) : 0;
}

static int prepare(const char *path, const struct pm_options *opt, struct map_file *file,
		   struct err *err)
{
	struct stat st;
	int r = look_at(path, file, &st, err);

	if (!r)
		r = lock(path, opt->read_only, &st, file, err);
	if (r)
		return r;
	if (opt->create)
		return finish_new(path, opt, file, err);
	/* The lock was not held yet when the size was taken: somebody may have been at work. */
	r = look_at(path, file, &st, err);
	if (r)
		return r;
	if (!file->size_bytes)
		return err_set(err, -EINVAL, "%s: is empty: there is no memory in it", path);
	if (file->size_bytes > PTRDIFF_MAX - file->align_bytes)
		return err_set(err, -EFBIG, "%s: too large to be mapped", path);
	if (file->kind == KIND_FILE && !opt->read_only && !opt->sparse &&
	    (uint64_t)st.st_blocks * 512 < file->size_bytes)
		return allocate(path, file, file->size_bytes, err);
	return 0;
}

static void drop_locks(const struct map_file *file)
{
	struct flock range = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	(void)fcntl(file->fd, F_OFD_SETLK, &range);
	(void)flock(file->fd, LOCK_UN);
}

void map_file_close(struct map_file *file)
{
	/* In a child they are the parent's. */
	if (file->owner == getpid())
		drop_locks(file);
	if (file->claim_fd >= 0)
		close(file->claim_fd);
	close(file->fd);
}

int map_file_open(const char *path, const struct pm_options *opt, struct map_file *ret,
		  struct err *err)
{
	/* Nonblocking: a FIFO is opened at once and then refused. */
	int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (opt->read_only ? O_RDONLY : O_RDWR);
	struct map_file file = {.claim_fd = -1, .owner = getpid()};
	int r;

	if (opt->create && (opt->read_only || !opt->create_bytes))
		return err_set(err, -EINVAL, "%s: a new file needs a size, and to be written",
			       path);
	if (opt->create)
		flags |= O_CREAT | O_EXCL;
	file.fd = open(path, flags, opt->mode ? opt->mode : 0600);
	if (file.fd < 0)
		return err_sys(err, -errno, "%s", path);
	r = prepare(path, opt, &file, err);
	if (r) {
		if (opt->create)
			unlink(path);
		map_file_close(&file);
		return r;
	}
	*ret = file;
	return 0;
}
