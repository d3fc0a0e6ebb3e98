/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The raw image: a file, a block device, or a stream ("-").
 *
 * A source is opened for reading alone, and nothing here writes to it. Its holes are found by
 * SEEK_DATA and SEEK_HOLE, where the file system knows them; what a hole reads as, zeros, is found
 * by looking at the data where it does not.
 *
 * A target is created, or, with --force, is a file or a block device that was there. A file is
 * truncated to what is kept of it before the copy begins (nothing, or what --resume counts on), so
 * that all the rest is a hole and reads as zeros. A block device is punched, which gives its room
 * back, or written with zeros where it cannot be.
 */
#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define POLL_MS 200
#define ZEROS_BYTES (64u << 10)

static const char *title(const struct image *image)
{
	if (!image->stream)
		return image->path;
	return image->fd == STDIN_FILENO ? "standard input" : "standard output";
}

static int fail(const struct image *image, const char *what)
{
	const int rc = errno ? -errno : -EIO;

	cli_error("cannot %s %s: %s", what, title(image), strerror(-rc));
	return rc;
}

static int fail_at(const struct image *image, const char *what, uint64_t offset)
{
	const int rc = errno ? -errno : -EIO;

	cli_error("cannot %s %s at offset %" PRIu64 ": %s", what, title(image), offset,
		  strerror(-rc));
	return rc;
}

/* Kind, size and identity of what is open. */
static int learn(struct image *image)
{
	struct stat st;
	off_t end;

	if (fstat(image->fd, &st) < 0)
		return fail(image, "look at");
	if (image->stream)
		return 0;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		cli_error("%s is neither a file nor a block device; \"-\" stands for a stream",
			  image->path);
		return -EINVAL;
	}
	image->device = S_ISBLK(st.st_mode);
	end = lseek(image->fd, 0, SEEK_END);
	if (end < 0)
		return fail(image, "take the size of");
	image->size_bytes = (uint64_t)end;
	image->dev = image->device ? st.st_rdev : st.st_dev;
	image->ino = image->device ? 0 : st.st_ino;
	image->mtime_ns = image->device ? 0
					: (uint64_t)st.st_mtim.tv_sec * 1000000000u +
						  (uint64_t)st.st_mtim.tv_nsec;
	return 0;
}

int image_open_source(struct image *image, const char *path)
{
	*image = (struct image){.path = path, .stream = strcmp(path, "-") == 0};
	/* Not to hang on a FIFO without a writer, which is refused anyhow. */
	image->fd = image->stream ? STDIN_FILENO
				  : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (image->fd < 0)
		return fail(image, "open");
	if (!image->stream)
		posix_fadvise(image->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	return learn(image);
}

/* One that is there: with force, or to go on with it. */
static int open_present(struct image *image, bool force, bool resume)
{
	struct stat st;
	int flags = O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

	if (stat(image->path, &st) < 0)
		return fail(image, "look at");
	if (!resume && !force) {
		cli_error("%s exists; --force overwrites it", image->path);
		return -EEXIST;
	}
	/* Of a block device that is mounted, or otherwise in use, the kernel says EBUSY then. */
	if (S_ISBLK(st.st_mode))
		flags |= O_EXCL;
	image->fd = open(image->path, flags);
	return image->fd < 0 ? fail(image, "open") : 0;
}

int image_open_target(struct image *image, const char *path, bool force, bool resume)
{
	int rc = 0;

	*image = (struct image){.path = path, .stream = strcmp(path, "-") == 0, .fd = -1};
	if (image->stream) {
		image->fd = STDOUT_FILENO;
		return 0;
	}
	if (!resume)
		image->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (image->fd < 0 && !resume && errno != EEXIST)
		return fail(image, "create");
	if (image->fd < 0)
		rc = open_present(image, force, resume);
	if (!rc && flock(image->fd, LOCK_EX | LOCK_NB) < 0)
		rc = fail(image, "lock (is another export at work on it?)");
	return rc ? rc : learn(image);
}

int image_prepare(struct image *image, uint64_t keep_bytes, uint64_t size_bytes)
{
	if (image->stream)
		return 0;
	if (image->device) {
		if (image->size_bytes >= size_bytes)
			return 0;
		cli_error("%s has %" PRIu64 " bytes, and the volume %" PRIu64
			  ": it needs a larger device",
			  image->path, image->size_bytes, size_bytes);
		return -ENOSPC;
	}
	if (ftruncate(image->fd, (off_t)keep_bytes) < 0 ||
	    ftruncate(image->fd, (off_t)size_bytes) < 0)
		return fail(image, "set the size of");
	image->size_bytes = size_bytes;
	image->fresh = true;
	return 0;
}

int image_segment(struct image *image, uint64_t offset, uint64_t *ret_end, bool *ret_data)
{
	off_t next;

	if (offset >= image->segment_end) {
		next = lseek(image->fd, (off_t)offset, SEEK_DATA);
		image->segment_data = next >= 0 && (uint64_t)next == offset;
		if (image->segment_data)
			next = lseek(image->fd, (off_t)offset, SEEK_HOLE);
		else if (next < 0 && errno == ENXIO)
			next = (off_t)image->size_bytes; /* a hole up to the end */
		if (next < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
			image->segment_data = true; /* nothing is known */
			next = (off_t)image->size_bytes;
		}
		if (next < 0)
			return fail_at(image, "find the holes of", offset);
		image->segment_end =
			(uint64_t)next > image->size_bytes ? image->size_bytes : (uint64_t)next;
		if (image->segment_end <= offset) /* it shrinks: reading will tell */
			image->segment_end = image->size_bytes;
	}
	*ret_end = image->segment_end;
	*ret_data = image->segment_data;
	return 0;
}

/* Waits for the stream, so that a signal is seen between two reads too. */
static int ready(const struct image *image, short events)
{
	struct pollfd p = {.fd = image->fd, .events = events};

	while (!transfer_stopped()) {
		const int n = poll(&p, 1, POLL_MS);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -EINTR;
}

int image_read(struct image *image, void *buf, uint64_t offset, size_t bytes, size_t *ret_bytes)
{
	size_t got = 0;

	while (got < bytes) {
		ssize_t n;

		if (image->stream && ready(image, POLLIN) < 0)
			return -EINTR;
		n = image->stream ? read(image->fd, (uint8_t *)buf + got, bytes - got)
				  : pread(image->fd, (uint8_t *)buf + got, bytes - got,
					  (off_t)(offset + got));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n < 0)
			return fail_at(image, "read", offset + got);
		if (n == 0)
			break;
		got += (size_t)n;
	}
	if (got < bytes && !image->stream) {
		cli_error("%s ends at offset %" PRIu64 ", and had %" PRIu64
			  " bytes: it is being changed",
			  image->path, offset + got, image->size_bytes);
		return -ESTALE;
	}
	*ret_bytes = got;
	return 0;
}

int image_write(struct image *image, const void *buf, uint64_t offset, size_t bytes)
{
	size_t put = 0;

	while (put < bytes) {
		ssize_t n;

		if (image->stream && ready(image, POLLOUT) < 0)
			return -EINTR;
		n = image->stream ? write(image->fd, (const uint8_t *)buf + put, bytes - put)
				  : pwrite(image->fd, (const uint8_t *)buf + put, bytes - put,
					   (off_t)(offset + put));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return fail_at(image, "write", offset + put);
		put += (size_t)n;
	}
	return 0;
}

int image_zero(struct image *image, uint64_t offset, uint64_t bytes)
{
	static const uint8_t zeros[ZEROS_BYTES];
	int rc = 0;

	if (image->fresh)
		return 0;
	if (!image->stream && fallocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					(off_t)offset, (off_t)bytes) == 0)
		return 0;
	/* What cannot be punched, as an odd end of a device, is written. */
	while (!rc && bytes) {
		const size_t n = bytes < sizeof(zeros) ? (size_t)bytes : sizeof(zeros);

		rc = image_write(image, zeros, offset, n);
		offset += n;
		bytes -= n;
		if (!rc && transfer_stopped())
			rc = -EINTR;
	}
	return rc;
}

int image_sync(struct image *image)
{
	const char *slash = strrchr(image->path, '/');
	char *dir;
	int fd, rc;

	if (image->stream)
		return 0;
	if (fsync(image->fd) < 0)
		return fail(image, "make durable");
	if (image->device)
		return 0;
	dir = slash ? cli_format("%.*s", (int)(slash - image->path) + 1, image->path)
		    : cli_format(".");
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 || fsync(fd) < 0 ? fail(image, "make durable the name of") : 0;
	if (fd >= 0)
		close(fd);
	free(dir);
	return rc;
}

int image_unchanged(const struct image *image)
{
	struct image now = *image;

	if (image->stream)
		return 0;
	if (learn(&now) < 0)
		return -ESTALE;
	if (now.size_bytes == image->size_bytes && now.mtime_ns == image->mtime_ns)
		return 0;
	cli_error("%s was changed while it was copied: what the volume holds now is a mixture; "
		  "import it again",
		  image->path);
	return -ESTALE;
}

void image_close(struct image *image)
{
	if (image->fd > STDERR_FILENO)
		close(image->fd);
	image->fd = -1;
}
