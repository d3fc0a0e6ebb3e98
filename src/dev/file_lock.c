/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The exclusive right to write a file device.
 *
 * Purpose. Two openings, of one process or of two, never both hold it, and it ends with its
 * holder's death.
 *
 * Regular files take an open file description lock on the whole file. Unlike the older record
 * locks it belongs to the opening, not to the process: a second opening by the same process
 * conflicts, and closing some other descriptor of the file does not drop it.
 *
 * Block devices may have several nodes, each an inode of its own with locks of its own. What is
 * shared is the kernel's claim of the device, which O_EXCL takes: it also conflicts with mounts,
 * with device mapper and with a claim of the whole disk or a partition of it. The record lock is
 * taken in addition, for programs that look for one.
 *
 * Invariants.
 *  1. The lock is held exactly if lock() returned 0 and unlock() was not called since.
 *
 * Locks. None: lock and unlock are the owner's calls, not made by several threads at once.
 */
#include "dev/file_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static int set_lock(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
	int r;

	do
		r = fcntl(fd, F_OFD_SETLK, &lock);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	return 0;
}

/* Opens the device once more, with the claim. */
static int claim(struct dev_file *file)
{
	struct stat ours, st;
	int fd = open(file->path, O_RDWR | O_EXCL | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || fstat(file->fd, &ours) < 0 || !S_ISBLK(st.st_mode) ||
	    st.st_rdev != ours.st_rdev) {
		close(fd);
		return -ESTALE;
	}
	file->claim_fd = fd;
	return 0;
}

int file_lock(struct dev *dev, struct err *err)
{
	struct dev_file *file = container_of(dev, struct dev_file, dev);
	int r;

	if (dev->read_only)
		return err_set(err, -EROFS, "%s: opened read-only, cannot be locked for writing",
			       file->path);
	r = set_lock(file->fd, F_WRLCK);
	if (!r && file->is_block && file->claim_fd < 0) {
		r = claim(file);
		if (r)
			set_lock(file->fd, F_UNLCK);
	}
	if (r == -EBUSY)
		return err_set(err, r, "%s: in use by another opening, of this process or another",
			       file->path);
	return r ? err_sys(err, r, "%s: cannot be locked", file->path) : 0;
}

void file_unlock(struct dev *dev)
{
	struct dev_file *file = container_of(dev, struct dev_file, dev);

	if (file->claim_fd >= 0)
		close(file->claim_fd);
	file->claim_fd = -1;
	if (!dev->read_only)
		(void)set_lock(file->fd, F_UNLCK);
}
