/* SPDX-License-Identifier: BSD-3-Clause */
/* What tells one block device from another, by a sysfs that the test makes up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dev/file.h"
#include "dev/file_impl.h"
#include "lib/tap.h"

static char root[4000];

static void make_dirs(const char *name)
{
	char path[8192];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		(void)mkdir(path, 0755);
		*p = '/';
	}
	(void)mkdir(path, 0755);
}

static void put(const char *name, const char *text)
{
	char path[8192];
	FILE *f;

	snprintf(path, sizeof(path), "%s", name);
	*strrchr(path, '/') = '\0';
	make_dirs(path);
	snprintf(path, sizeof(path), "%s/%s", root, name);
	f = fopen(path, "w");
	CHECK(f != NULL);
	CHECK(fputs(text, f) >= 0);
	CHECK_OK(fclose(f));
}

/* A device of the number 8:`minor` whose directory is devices/`name`. */
static void device(const char *name, unsigned int number)
{
	char to[8192], from[8192];

	snprintf(root, sizeof(root), "%s", test_tmpdir());
	make_dirs("dev/block");
	snprintf(to, sizeof(to), "devices/%s", name);
	make_dirs(to);
	snprintf(to, sizeof(to), "../../devices/%s", name);
	snprintf(from, sizeof(from), "%s/dev/block/8:%u", root, number);
	CHECK_OK(symlink(to, from));
}

static const char *identity(unsigned int number)
{
	static char ret[DEV_IDENTITY_LEN];

	memset(ret, 'x', sizeof(ret));
	file_identity_at(root, makedev(8, number), ret);
	CHECK(memchr(ret, '\0', sizeof(ret)) != NULL);
	return ret;
}

TEST(a_disk_has_its_world_wide_name)
{
	device("sda", 0);
	put("devices/sda/device/wwid", "  naa.5000c500a1b2c3d4 \n");
	CHECK_STREQ(identity(0), "wwid:naa.5000c500a1b2c3d4");
	put("devices/sda/wwid", "eui.0025\n");
	CHECK_STREQ(identity(0), "wwid:eui.0025");
}

TEST(a_disk_without_a_name_has_its_serial)
{
	device("vda", 0);
	put("devices/vda/serial", "disk\x01one");
	CHECK_STREQ(identity(0), "serial:disk_one");
}

TEST(a_mapped_device_has_its_creators_uuid)
{
	device("dm-0", 1);
	put("devices/dm-0/dm/uuid", "LVM-abc\n");
	CHECK_STREQ(identity(1), "dm:LVM-abc");
}

TEST(a_partition_is_a_place_on_its_disk)
{
	device("sdb", 16);
	device("sdb/sdb1", 17);
	device("sdb/sdb2", 18);
	put("devices/sdb/device/wwid", "naa.5");
	put("devices/sdb/sdb1/partition", "1\n");
	put("devices/sdb/sdb1/start", "2048\n");
	put("devices/sdb/sdb2/partition", "2\n");
	put("devices/sdb/sdb2/start", "4096\n");
	CHECK_STREQ(identity(17), "part@2048:wwid:naa.5");
	CHECK_STREQ(identity(18), "part@4096:wwid:naa.5");
}

TEST(what_has_no_identity_gets_none)
{
	device("loop0", 3);
	CHECK_STREQ(identity(3), "");
	CHECK_STREQ(identity(4), "");
	put("devices/loop0/serial", "\n");
	CHECK_STREQ(identity(3), "");
	device("loop0/loop0p1", 5);
	put("devices/loop0/loop0p1/partition", "1\n");
	put("devices/loop0/loop0p1/start", "8\n");
	put("devices/loop0/dev", "nonsense");
	CHECK_STREQ(identity(5), "");
}

TEST(a_long_name_is_cut_and_still_tells_devices_apart)
{
	char name[400], first[DEV_IDENTITY_LEN];

	device("sdc", 32);
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	put("devices/sdc/wwid", name);
	snprintf(first, sizeof(first), "%s", identity(32));
	CHECK(strlen(first) > 100);
	name[sizeof(name) - 2] = 'b';
	put("devices/sdc/wwid", name);
	CHECK(strcmp(first, identity(32)) != 0);
}

TEST(a_file_has_none)
{
	struct dev_file_options opt = { .create = true, .create_bytes = 65536 };
	char path[4096], ret[DEV_IDENTITY_LEN] = "x";
	struct dev *dev;

	snprintf(path, sizeof(path), "%s/disk", test_tmpdir());
	CHECK_OK(dev_file_open(path, &opt, &dev, NULL));
	dev_identity(dev, ret);
	CHECK_STREQ(ret, "");
	dev_close(dev);
}
