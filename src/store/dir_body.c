/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store: a new object's file, from its creation until it has its name.
 *
 * The file is one without a name (O_TMPFILE), which vanishes by itself with the process, or else
 * a temporary one. The body is written through a buffer of 1 MiB: callers' memory is in many
 * pieces of any alignment, and large bodies go by direct I/O, which leaves the page cache to
 * others and has little to wait for in the fsync that follows.
 *
 * Invariants
 *  1. A file has its final name only when all of it is durable: callers fsync before they link.
 *  2. What fails on the way leaves no name behind, but for a process that is killed while it
 *     has a temporary one; dir_clean() removes those.
 *
 * Locks: bounce_lock guards the list of free buffers.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/dir_impl.h"

#define DIRECT_ALIGN 4096u
#define DIRECT_MIN_BYTES (128u << 10)
#define FILE_MODE 0666 /* less the umask */

static int get_bounce(struct dir_store *dir, struct dir_bounce **ret)
{
	struct list_head *link;
	struct dir_bounce *b;

	pthread_mutex_lock(&dir->bounce_lock);
	link = list_pop(&dir->bounces);
	pthread_mutex_unlock(&dir->bounce_lock);
	if (link) {
		*ret = list_entry(link, struct dir_bounce, link);
		return 0;
	}
	b = malloc(sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->data = aligned_alloc(DIRECT_ALIGN, DIR_BOUNCE_BYTES);
	if (!b->data) {
		free(b);
		return -ENOMEM;
	}
	*ret = b;
	return 0;
}

/* As many are kept as threads have ever needed at once. */
static void put_bounce(struct dir_store *dir, struct dir_bounce *b)
{
	pthread_mutex_lock(&dir->bounce_lock);
	list_add(&b->link, &dir->bounces);
	pthread_mutex_unlock(&dir->bounce_lock);
}

static int create_named(struct dir_store *dir, int dirfd, struct dir_file *ret)
{
	char prefix[DIR_TMP_MAX];
	unsigned serial = atomic_fetch_add_explicit(&dir->tmp_serial, 1, memory_order_relaxed);

	dir_tmp_prefix(dir, prefix, sizeof(prefix));
	snprintf(ret->tmp, sizeof(ret->tmp), "%.*s%016llx-%u", STORE_KEY_MAX + 8, prefix,
		 (unsigned long long)dir->nonce, serial);
	ret->fd = openat(dirfd, ret->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
	if (ret->fd >= 0)
		return 0;
	ret->tmp[0] = 0;
	return -errno;
}

int dir_file_create(struct dir_store *dir, int dirfd, bool named, struct dir_file *ret)
{
	ret->tmp[0] = 0;
	ret->fd = -1;
	if (!named && dir->have_proc &&
	    !atomic_load_explicit(&dir->no_tmpfile, memory_order_relaxed)) {
		ret->fd = openat(dirfd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, FILE_MODE);
		if (ret->fd >= 0)
			return 0;
		if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
			return -errno;
		atomic_store_explicit(&dir->no_tmpfile, true, memory_order_relaxed);
	}
	return create_named(dir, dirfd, ret);
}

static bool set_direct(int fd, bool direct)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return false;
	flags = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
	return fcntl(fd, F_SETFL, flags) == 0;
}

/* Writes the whole buffer; turns direct I/O off where it proves not to work. */
static int write_all(struct dir_store *dir, int fd, const uint8_t *data, size_t len_bytes,
		     uint64_t off_bytes, bool *inout_direct)
{
	while (len_bytes) {
		ssize_t n = pwrite(fd, data, len_bytes, (off_t)off_bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EINVAL && *inout_direct && set_direct(fd, false)) {
			atomic_store_explicit(&dir->no_direct, true, memory_order_relaxed);
			*inout_direct = false;
			continue;
		}
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		data += n;
		off_bytes += (uint64_t)n;
		len_bytes -= (size_t)n;
	}
	return 0;
}

/* Where we are in the caller's memory. */
struct cursor {
	const struct iovec *iov;
	int iovcnt;
	size_t skip;
};

static size_t take(struct cursor *c, uint8_t *to, size_t max_bytes)
{
	size_t filled = 0;

	while (c->iovcnt && filled < max_bytes) {
		size_t n = c->iov->iov_len - c->skip;

		if (n > max_bytes - filled)
			n = max_bytes - filled;
		if (n)
			memcpy(to + filled, (const uint8_t *)c->iov->iov_base + c->skip, n);
		filled += n;
		c->skip += n;
		if (c->skip == c->iov->iov_len) {
			c->iov++;
			c->iovcnt--;
			c->skip = 0;
		}
	}
	return filled;
}

static int write_body(struct dir_store *dir, int fd, struct cursor *c, uint64_t len_bytes,
		      uint8_t *bounce)
{
	bool direct = len_bytes >= DIRECT_MIN_BYTES &&
		      !atomic_load_explicit(&dir->no_direct, memory_order_relaxed) &&
		      set_direct(fd, true);
	uint64_t off = 0;

	while (off < len_bytes) {
		size_t n = take(c, bounce, DIR_BOUNCE_BYTES), padded = n;
		int ret;

		/* The last piece is padded to what direct I/O can write, and cut off below. */
		if (direct && n % DIRECT_ALIGN) {
			padded = n + DIRECT_ALIGN - n % DIRECT_ALIGN;
			memset(bounce + n, 0, padded - n);
		}
		ret = write_all(dir, fd, bounce, padded, off, &direct);
		if (ret)
			return ret;
		off += n;
		if (padded != n && ftruncate(fd, (off_t)off) < 0)
			return -errno;
	}
	return 0;
}

int dir_file_write(struct dir_store *dir, struct dir_file *file, const struct iovec *iov,
		   int iovcnt, uint64_t len_bytes)
{
	struct cursor c = {iov, iovcnt, 0};
	struct dir_bounce *b;
	int ret = get_bounce(dir, &b);

	if (ret)
		return ret;
	ret = write_body(dir, file->fd, &c, len_bytes, b->data);
	put_bounce(dir, b);
	return ret;
}

static int link_named(struct dir_file *file, int dirfd, const char *name)
{
	if (renameat2(dirfd, file->tmp, dirfd, name, RENAME_NOREPLACE) == 0) {
		file->tmp[0] = 0;
		return 0;
	}
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* The other way not to replace; dir_file_drop() removes the temporary name. */
	return linkat(dirfd, file->tmp, dirfd, name, 0) == 0 ? 0 : -errno;
}

int dir_file_link(struct dir_store *dir, struct dir_file *file, int dirfd, const char *name)
{
	char proc[64];

	(void)dir;
	if (file->tmp[0])
		return link_named(file, dirfd, name);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", file->fd);
	if (linkat(AT_FDCWD, proc, dirfd, name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	return -errno;
}

void dir_file_drop(struct dir_file *file, int dirfd)
{
	if (file->tmp[0])
		unlinkat(dirfd, file->tmp, 0);
	close(file->fd);
}
