/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and creating a file device.
 *
 * Purpose. Finds out what the kernel accepts: O_DIRECT or not, alignments, size, discards.
 *
 * Alignment. A block device says its logical block (BLKSSZGET). For a regular file statx() says it
 * since Linux 6.1; where it does not, reads of 512 and of 4096 bytes are tried. A file system that
 * refuses O_DIRECT, at open or at that read, is used through the page cache, and dev_file_info()
 * says so.
 *
 * Creation. The name is made with O_EXCL, the space allocated, the data and the directory synced
 * before anybody can rely on the file; if anything fails the name is removed. With write_zeros the
 * file is also written once: on most file systems an extent that is allocated but was never
 * written costs a metadata update at its first write, which a log would pay at each commit.
 *
 * Invariants.
 *  1. io_align <= block_bytes, and size_bytes is a multiple of block_bytes.
 *  2. What was there before is never changed by opening, not by creating it either (O_EXCL).
 *
 * Locks. None: nobody else has the device yet.
 */
#include "dev/file_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BLOCK_MAX 65536u
#define PROBE_MAX 4096u
#define FILL_BYTES 1048576u

static uint64_t round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

/* FIFOs and terminals would block or worse: look before opening. */
static int check_type(struct dev_file *file, struct err *err)
{
	struct stat st;

	if (stat(file->path, &st) < 0)
		return err_sys(err, -errno, "%s: cannot be opened", file->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -ENOTBLK,
			       "%s: neither a regular file nor a block device", file->path);
	file->is_block = S_ISBLK(st.st_mode);
	return 0;
}

static int set_direct(int fd, bool direct)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -errno;
	flags = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
	return fcntl(fd, F_SETFL, flags) < 0 ? -errno : 0;
}

static int open_fd(struct dev_file *file, const struct dev_file_options *opt, struct err *err)
{
	int flags = O_CLOEXEC | (opt->read_only ? O_RDONLY : O_RDWR);
	int r;

	if (opt->create)
		flags |= O_CREAT | O_EXCL;
	file->fd = open(file->path, flags, 0644);
	/* Not at open: a refusal would leave a created file behind. */
	file->direct = file->fd >= 0 && !opt->buffered && set_direct(file->fd, true) == 0;
	if (file->fd >= 0)
		return 0;
	r = -errno;
	return err_sys(err, r, "%s: cannot be %s", file->path, opt->create ? "created" : "opened");
}

/* True and the alignments, if the kernel knows them; offset 0: no direct I/O. */
static bool statx_align(int fd, uint32_t *ret_mem, uint32_t *ret_offset)
{
#ifdef STATX_DIOALIGN
	struct statx sx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) < 0 ||
	    !(sx.stx_mask & STATX_DIOALIGN))
		return false;
	*ret_mem = sx.stx_dio_mem_align;
	*ret_offset = sx.stx_dio_offset_align;
	return true;
#else
	return false;
#endif
}

/* The smallest read that the file accepts, 0 if none is. An empty file accepts or refuses too. */
static uint32_t probe_align(int fd)
{
	uint32_t found = 0, align;
	void *buf;

	if (posix_memalign(&buf, PROBE_MAX, PROBE_MAX))
		return 0;
	for (align = DEV_SECTOR_BYTES; !found && align <= PROBE_MAX; align *= 8)
		if (pread(fd, buf, align, 0) >= 0)
			found = align;
	free(buf);
	return found;
}

static void find_align(struct dev_file *file)
{
	int sector_bytes = 0;
	bool known;

	file->mem_align = 0;
	file->io_align = 0;
	known = statx_align(file->fd, &file->mem_align, &file->io_align);
	if (file->is_block && ioctl(file->fd, BLKSSZGET, &sector_bytes) == 0)
		file->io_align = (uint32_t)sector_bytes;
	else if (!known && file->direct)
		file->io_align = probe_align(file->fd);
	if (!file->mem_align)
		file->mem_align = file->io_align;
	if (file->direct && !file->io_align) {
		file->direct = false;
		(void)set_direct(file->fd, false);
	}
}

/* Sets block_bytes, and the alignments to what they have to be with it. */
static int set_block(struct dev_file *file, uint32_t want_bytes, struct err *err)
{
	uint32_t least_bytes = DEV_SECTOR_BYTES;

	find_align(file);
	if ((file->direct || file->is_block) && file->io_align > least_bytes)
		least_bytes = file->io_align;
	file->dev.block_bytes = want_bytes ? want_bytes : least_bytes;
	if (file->dev.block_bytes < least_bytes || file->dev.block_bytes > BLOCK_MAX ||
	    file->dev.block_bytes & (file->dev.block_bytes - 1))
		return err_set(err, -EINVAL, "%s: block size %u is not a power of two from %u to "
			       "%u", file->path, file->dev.block_bytes, least_bytes, BLOCK_MAX);
	/* A larger block than the file's own is kept to, so that such a disk can be tried out. */
	file->io_align = file->direct ? file->dev.block_bytes : 1;
	if (!file->direct)
		file->mem_align = 1;
	return 0;
}

static int set_size(struct dev_file *file, struct err *err)
{
	struct stat st;
	uint64_t size_bytes;
	int r = 0;

	if (file->is_block) {
		r = ioctl(file->fd, BLKGETSIZE64, &size_bytes);
	} else {
		r = fstat(file->fd, &st);
		size_bytes = (uint64_t)st.st_size;
	}
	if (r < 0)
		return err_sys(err, -errno, "%s: size unknown", file->path);
	file->dev.size_bytes = size_bytes & ~(uint64_t)(file->dev.block_bytes - 1);
	if (!file->dev.size_bytes)
		return err_set(err, -EINVAL, "%s: empty", file->path);
	return 0;
}

int file_resize_look(struct dev *dev)
{
	struct dev_file *file = container_of(dev, struct dev_file, dev);
	const uint64_t before = dev->size_bytes;
	const int r = set_size(file, NULL);

	if (r)
		dev->size_bytes = before;
	return r;
}

/*
 * A file of which every byte has its space keeps that property, one with holes gets another. What
 * is new is durable with its size before anybody may rely on it.
 */
int file_resize(struct dev *dev, uint64_t size_bytes)
{
	struct dev_file *file = container_of(dev, struct dev_file, dev);
	struct stat st;
	int r = 0;

	if (file->is_block)
		return -ENOTSUP;
	if (dev->read_only)
		return -EROFS;
	if (size_bytes % dev->block_bytes || size_bytes > INT64_MAX)
		return -EINVAL;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	if (size_bytes < (uint64_t)st.st_size)
		return -EINVAL;
	if ((uint64_t)st.st_blocks * DEV_SECTOR_BYTES >= (uint64_t)st.st_size &&
	    size_bytes > (uint64_t)st.st_size &&
	    fallocate(file->fd, 0, st.st_size, (off_t)size_bytes - st.st_size) < 0)
		r = errno == EOPNOTSUPP || errno == ENOSYS ? 0 : -errno;
	if (!r && ftruncate(file->fd, (off_t)size_bytes) < 0)
		r = -errno;
	if (!r && fsync(file->fd) < 0)
		r = -errno;
	/* What could be allocated of it is given back. */
	if (r && ftruncate(file->fd, st.st_size) < 0)
		return r;
	return r ? r : file_resize_look(dev);
}

/* A block device can zero without writing if its queue has a limit for that. */
static bool queue_can_zero(dev_t rdev)
{
	/* Of a whole disk, of a partition. */
	static const char *const dirs[] = {"", "../"};
	unsigned long long max_bytes = 0;
	char path[100];
	unsigned i;

	for (i = 0; i < 2; i++) {
		FILE *f;

		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/write_zeroes_max_bytes",
			 major(rdev), minor(rdev), dirs[i]);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%llu", &max_bytes) != 1)
			max_bytes = 0;
		fclose(f);
		break;
	}
	return max_bytes > 0;
}

/*
 * Whether what is deallocated reads as zeros: then a discard is one, and zeroes need no writing. Of
 * a file whether holes can be punched, which is tried where nothing is.
 */
static bool can_discard(const struct dev_file *file)
{
	struct stat st;

	if (file->dev.read_only || fstat(file->fd, &st) < 0)
		return false;
	if (file->is_block)
		return queue_can_zero(st.st_rdev);
	/* Beyond the end there is nothing to lose. */
	return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)round_up((uint64_t)st.st_size, BLOCK_MAX), BLOCK_MAX) == 0;
}

static int write_all_zeros(int fd, uint64_t size_bytes)
{
	uint64_t off_bytes = 0;
	void *buf;
	int r = 0;

	if (posix_memalign(&buf, PROBE_MAX, FILL_BYTES))
		return -ENOMEM;
	memset(buf, 0, FILL_BYTES);
	while (!r && off_bytes < size_bytes) {
		uint64_t left_bytes = size_bytes - off_bytes;
		ssize_t n = pwrite(fd, buf, left_bytes < FILL_BYTES ? left_bytes : FILL_BYTES,
				   (off_t)off_bytes);

		if (n > 0)
			off_bytes += (uint64_t)n;
		else if (n == 0)
			r = -EIO;
		else if (errno != EINTR)
			r = -errno;
	}
	free(buf);
	return r;
}

static int sync_dir(const char *path)
{
	char *copy = strdup(path);
	int fd, r = 0;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int fill(struct dev_file *file, const struct dev_file_options *opt)
{
	uint64_t size_bytes = round_up(opt->create_bytes, file->dev.block_bytes);
	int r = 0;

	if (size_bytes < opt->create_bytes || size_bytes > INT64_MAX)
		return -EFBIG;
	if (!size_bytes)
		return -EINVAL;
	if (fallocate(file->fd, 0, 0, (off_t)size_bytes) < 0)
		r = -errno;
	/* Without fallocate() the space comes with the writes. */
	if (r == -EOPNOTSUPP || r == -ENOSYS)
		r = ftruncate(file->fd, (off_t)size_bytes) < 0 ? -errno : 0;
	if (!r && opt->write_zeros)
		r = write_all_zeros(file->fd, size_bytes);
	if (!r && fsync(file->fd) < 0)
		r = -errno;
	return r ? r : sync_dir(file->path);
}

int file_setup(struct dev_file *file, const struct dev_file_options *opt, struct err *err)
{
	int r = 0;

	if (opt->create && opt->read_only)
		return err_set(err, -EINVAL, "%s: created and read-only at once", file->path);
	if (!opt->create)
		r = check_type(file, err);
	if (!r)
		r = open_fd(file, opt, err);
	if (r)
		return r;
	file->dev.read_only = opt->read_only;
	r = set_block(file, opt->block_bytes, err);
	if (!r && opt->create) {
		r = fill(file, opt);
		if (r)
			err_sys(err, r, "%s: cannot be created with %llu bytes", file->path,
				(unsigned long long)opt->create_bytes);
	}
	if (!r)
		r = set_size(file, err);
	if (r && opt->create)
		unlink(file->path);
	if (!r)
		file->dev.can_discard = file->dev.can_zero = can_discard(file);
	return r;
}
