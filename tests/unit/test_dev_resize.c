/* SPDX-License-Identifier: BSD-3-Clause */
/* What a device that becomes larger holds, who learns of it, and zeroing that frees space. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sim_world.h"
#include "dev/file.h"
#include "dev/mem.h"
#include "dev/sim.h"
#include "lib/tap.h"

#define MIB 1048576u

static char path[4096];

static struct dev *open_file(uint64_t create_bytes)
{
	struct dev_file_options opt = { .create = create_bytes != 0, .create_bytes = create_bytes };
	struct dev *dev;

	snprintf(path, sizeof(path), "%s/disk", test_tmpdir());
	CHECK_OK(dev_file_open(path, &opt, &dev, NULL));
	return dev;
}

static uint64_t blocks_of(void)
{
	struct stat st;

	CHECK_OK(stat(path, &st));
	return (uint64_t)st.st_blocks * 512;
}

/* What was there is there still, what is new reads as zeros and can be written. */
static void check_grown(struct dev *dev, uint64_t old_bytes, uint64_t new_bytes)
{
	uint8_t *buf = aligned_alloc(4096, 4096);

	CHECK(buf != NULL);
	memset(buf, 0x77, 4096);
	CHECK_EQ(dev->size_bytes, old_bytes);
	CHECK_OK(dev_pwrite(dev, buf, 4096, old_bytes - 4096, false));
	CHECK_EQ(dev_pwrite(dev, buf, 4096, old_bytes, false), -EINVAL);
	CHECK_OK(dev_resize(dev, new_bytes));
	CHECK_EQ(dev->size_bytes, new_bytes);
	CHECK_OK(dev_pread(dev, buf, 4096, old_bytes - 4096));
	CHECK_EQ(buf[4095], 0x77);
	CHECK_OK(dev_pread(dev, buf, 4096, new_bytes - 4096));
	CHECK_EQ(buf[0], 0);
	CHECK_OK(dev_pwrite(dev, buf, 4096, new_bytes - 4096, true));
	CHECK_OK(dev_resize(dev, new_bytes));
	CHECK_EQ(dev_resize(dev, old_bytes), -EINVAL);
	CHECK_EQ(dev_resize(dev, new_bytes + 100), -EINVAL);
	CHECK_EQ(dev->size_bytes, new_bytes);
	free(buf);
}

TEST(a_file_grows)
{
	struct dev *dev = open_file(MIB), *other = open_file(0);

	check_grown(dev, MIB, 3 * MIB);
	CHECK_EQ(other->size_bytes, MIB);
	CHECK_OK(dev_resize_look(other));
	CHECK_EQ(other->size_bytes, 3 * MIB);
	dev_close(other);
	dev_close(dev);
}

TEST(a_file_that_is_allocated_stays_so)
{
	struct dev *dev = open_file(MIB);

	if (blocks_of() < MIB)
		SKIP("the file system allocates nothing");
	CHECK_OK(dev_resize(dev, 2 * MIB));
	CHECK(blocks_of() >= 2 * MIB);
	dev_close(dev);
}

TEST(a_file_with_holes_gets_another)
{
	struct dev *dev = open_file(MIB);
	uint64_t before;

	dev_close(dev);
	CHECK_OK(truncate(path, 0));
	CHECK_OK(truncate(path, MIB));
	dev = open_file(0);
	before = blocks_of();
	CHECK_OK(dev_resize(dev, 64 * MIB));
	CHECK(blocks_of() - before < MIB);
	dev_close(dev);
}

TEST(a_file_that_cannot_grow_stays_as_it_is)
{
	struct dev *dev = open_file(MIB);
	struct stat st;

	CHECK(dev_resize(dev, UINT64_C(1) << 62) < 0);
	CHECK_EQ(dev->size_bytes, MIB);
	CHECK_OK(stat(path, &st));
	CHECK_EQ(st.st_size, MIB);
	dev_close(dev);
}

TEST(a_file_opened_to_look_is_not_resized)
{
	struct dev_file_options opt = { .read_only = true };
	struct dev *dev = open_file(MIB), *look;

	CHECK_OK(dev_file_open(path, &opt, &look, NULL));
	CHECK_EQ(dev_resize(look, 2 * MIB), -EROFS);
	CHECK(!look->can_zero);
	dev_close(look);
	dev_close(dev);
}

TEST(zeroing_a_file_frees_its_space)
{
	struct dev *dev = open_file(4 * MIB);
	struct dev_req zero = { .op = DEV_ZERO, .off_bytes = MIB, .len_bytes = 2 * MIB };
	uint8_t buf[4096];
	uint64_t before;

	if (!dev->can_zero)
		SKIP("the file system punches no holes");
	memset(buf, 9, sizeof(buf));
	for (uint64_t at = 0; at < 4 * MIB; at += sizeof(buf))
		CHECK_OK(dev_pwrite(dev, buf, sizeof(buf), at, false));
	before = blocks_of();
	CHECK_OK(dev_sync(dev, &zero));
	CHECK(blocks_of() + MIB <= before);
	CHECK_OK(dev_pread(dev, buf, sizeof(buf), 2 * MIB));
	CHECK_EQ(buf[0], 0);
	CHECK_OK(dev_pread(dev, buf, sizeof(buf), MIB - 4096));
	CHECK_EQ(buf[4095], 9);
	CHECK_OK(dev_pread(dev, buf, sizeof(buf), 3 * MIB));
	CHECK_EQ(buf[0], 9);
	dev_close(dev);
}

TEST(memory_grows)
{
	struct dev_mem_options opt = { .size_bytes = MIB };
	struct dev *dev, *other;

	CHECK_OK(dev_mem_open(&opt, &dev, NULL));
	CHECK(dev->can_zero);
	opt.bytes = dev_mem_bytes(dev);
	CHECK_OK(dev_mem_open(&opt, &other, NULL));
	check_grown(dev, MIB, 5 * MIB);
	CHECK_EQ(dev_mem_bytes_size(dev_mem_bytes(dev)), 5 * MIB);
	CHECK_OK(dev_resize_look(other));
	CHECK_EQ(other->size_bytes, 5 * MIB);
	dev_close(other);
	dev_close(dev);
}

TEST(a_simulated_disk_grows_and_a_crash_keeps_it)
{
	struct sim_disk_options opt = { .size_bytes = MIB, .can_zero = true,
					.identity = "wwid:7" };
	char identity[DEV_IDENTITY_LEN];
	struct sim_world world;
	struct sim_disk *disk;
	struct dev *dev;

	sim_world_init(&world, 1);
	CHECK_OK(sim_disk_new(&world, &opt, &disk));
	CHECK_OK(sim_dev_open(disk, &dev));
	CHECK(dev->can_zero);
	dev_identity(dev, identity);
	CHECK_STREQ(identity, "wwid:7");
	check_grown(dev, MIB, 2 * MIB);
	dev_close(dev);
	CHECK_OK(sim_disk_crash(disk, SIM_KEEP_NONE));
	CHECK_OK(sim_dev_open(disk, &dev));
	CHECK_EQ(dev->size_bytes, 2 * MIB);
	CHECK_OK(sim_disk_grow(disk, 3 * MIB));
	CHECK_EQ(sim_disk_size(disk), 3 * MIB);
	CHECK_OK(dev_resize_look(dev));
	CHECK_EQ(dev->size_bytes, 3 * MIB);
	dev_close(dev);
	sim_disk_free(disk);
}

/* After a failed flush the owner writes all again; what was acknowledged then is durable. */
TEST(a_simulated_disk_forgives)
{
	struct sim_disk_options opt = { .size_bytes = MIB };
	struct sim_fault fault = { .kind = SIM_DEV_ERROR, .ops = 1u << DEV_FLUSH, .error = -EIO,
				   .nth = 1, .times = 1 };
	uint8_t buf[4096] = { 5 };
	struct sim_world world;
	struct sim_disk *disk;
	struct dev *dev;

	sim_world_init(&world, 1);
	CHECK_OK(sim_disk_new(&world, &opt, &disk));
	CHECK_OK(sim_dev_open(disk, &dev));
	CHECK_OK(sim_disk_fault(disk, &fault));
	CHECK_OK(dev_pwrite(dev, buf, sizeof(buf), 0, false));
	CHECK_EQ(dev_flush(dev), -EIO);
	CHECK_EQ(dev_pwrite(dev, buf, sizeof(buf), 0, false), -EIO);
	dev_forgive(dev);
	CHECK_OK(dev_pwrite(dev, buf, sizeof(buf), 0, false));
	CHECK_OK(dev_flush(dev));
	CHECK_MEMEQ(sim_disk_durable(disk), buf, sizeof(buf));
	dev_close(dev);
	sim_disk_free(disk);
}
