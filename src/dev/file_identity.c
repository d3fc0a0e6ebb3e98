/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tells a block device from all others, by what its kernel says of it.
 *
 *   partition      what its disk is, and where on it; else its UUID in the partition table
 *   device mapper  the UUID its creator gave it (LVM, crypt, multipath: from their own metadata)
 *   md             the array's UUID
 *   disk           its world-wide name, or its serial number
 *
 * All of it stays as it is when the device is opened by another name or comes up under another
 * number. Nothing is made up: loop devices, RAM disks, and virtual disks that were given no serial
 * have no identity, and get "". sysfs comes first because anybody may read it: who asks must make
 * no difference to the answer.
 *
 * Invariants.
 *  1. ret is always terminated, printable, and shorter than DEV_IDENTITY_LEN. What would be too
 *     long is cut and ends in a checksum of the whole.
 *
 * Locks. None.
 */
#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "dev/file_impl.h"

#define TEXT_MAX 1024

/* The first line of a small file, with what cannot be printed replaced; "" when there is none. */
static void read_text(int dir, const char *name, char *ret, size_t len)
{
	const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;
	size_t skip;

	ret[0] = '\0';
	if (fd < 0)
		return;
	n = read(fd, ret, len - 1);
	close(fd);
	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	skip = strspn(ret, " \t");
	memmove(ret, ret + skip, strlen(ret + skip) + 1);
	for (n = (ssize_t)strlen(ret); n > 0 && ret[n - 1] == ' '; n--)
		ret[n - 1] = '\0';
	for (char *p = ret; *p; p++) {
		if (*p < ' ' || *p > '~')
			*p = '_';
	}
}

static void put(const char *text, char *ret)
{
	const size_t len = strlen(text), keep = DEV_IDENTITY_LEN - 10;

	if (len < DEV_IDENTITY_LEN)
		memcpy(ret, text, len + 1);
	else
		snprintf(ret, DEV_IDENTITY_LEN, "%.*s#%08x", (int)keep, text,
			 crc32c(0, text, len));
}

/* Of a whole device, whose directory in sysfs is given. */
static void whole(int dir, char *ret, size_t len)
{
	static const struct {
		const char *prefix, *file;
	} sources[] = {
		{ "dm", "dm/uuid" },
		{ "md", "md/uuid" },
		{ "wwid", "wwid" },
		{ "wwid", "device/wwid" },
		{ "serial", "serial" },
		{ "serial", "device/serial" },
		{ "cid", "device/cid" },
	};
	char text[TEXT_MAX];

	ret[0] = '\0';
	for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]) && !ret[0]; i++) {
		read_text(dir, sources[i].file, text, sizeof(text));
		if (text[0])
			snprintf(ret, len, "%s:%s", sources[i].prefix, text);
	}
}

/* The UUID of the partition in its disk's table: for whoever may read the disk. */
static void entry_uuid(int disk, dev_t rdev, char *ret)
{
	unsigned int maj, min;
	blkid_partition part = NULL;
	blkid_partlist list = NULL;
	blkid_probe probe = NULL;
	char text[TEXT_MAX];
	const char *uuid;
	char *path;

	read_text(disk, "dev", text, sizeof(text));
	if (sscanf(text, "%u:%u", &maj, &min) != 2)
		return;
	path = blkid_devno_to_devname(makedev(maj, min));
	if (path)
		probe = blkid_new_probe_from_filename(path);
	if (probe)
		list = blkid_probe_get_partitions(probe);
	if (list)
		part = blkid_partlist_devno_to_partition(list, rdev);
	uuid = part ? blkid_partition_get_uuid(part) : NULL;
	if (uuid && *uuid)
		snprintf(ret, DEV_IDENTITY_LEN, "partuuid:%.100s", uuid);
	blkid_free_probe(probe);
	free(path);
}

static void partition(int dir, const char *start, dev_t rdev, char *ret)
{
	/* The directory of a partition lies in its disk's. */
	const int disk = openat(dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[TEXT_MAX + 16], text[2 * TEXT_MAX + 32];

	if (disk < 0)
		return;
	whole(disk, name, sizeof(name));
	if (name[0]) {
		snprintf(text, sizeof(text), "part@%.20s:%s", start, name);
		put(text, ret);
	} else {
		entry_uuid(disk, rdev, ret);
	}
	close(disk);
}

void file_identity_at(const char *sysfs, dev_t rdev, char *ret)
{
	char path[4096], text[TEXT_MAX + 16];
	int dir;

	ret[0] = '\0';
	snprintf(path, sizeof(path), "%s/dev/block/%u:%u", sysfs, major(rdev), minor(rdev));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return;
	if (faccessat(dir, "partition", F_OK, 0) == 0) {
		read_text(dir, "start", text, sizeof(text));
		partition(dir, text, rdev, ret);
	} else {
		whole(dir, text, sizeof(text));
		put(text, ret);
	}
	close(dir);
}

void file_identity(struct dev *dev, char *ret)
{
	struct dev_file *file = container_of(dev, struct dev_file, dev);
	struct stat st;

	ret[0] = '\0';
	if (file->is_block && fstat(file->fd, &st) == 0)
		file_identity_at("/sys", st.st_rdev, ret);
}
