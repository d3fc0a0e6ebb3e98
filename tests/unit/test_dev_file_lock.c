/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks of the file device, between processes and within one; and block devices, as root. */
#include "lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dev/file.h"

#define SIZE (4 * 1048576)

static char path[4096];

static struct dev *create(void)
{
	struct dev_file_options opt = {.create = true, .create_bytes = SIZE};
	struct dev *dev;

	snprintf(path, sizeof(path), "%s/disk", test_tmpdir());
	CHECK_OK(dev_file_open(path, &opt, &dev, NULL));
	return dev;
}

static struct dev *open_again(const char *name, bool read_only)
{
	struct dev_file_options opt = {.read_only = read_only};
	struct dev *dev;

	CHECK_OK(dev_file_open(name, &opt, &dev, NULL));
	return dev;
}

static int lock(struct dev *dev)
{
	struct err err = ERR_INIT;
	int r = dev->ops->lock(dev, &err);

	if (r)
		CHECK(strstr(err.text, dev->ops->name) || err.text[0] == '/');
	return r;
}

TEST(two_openings_in_one_process_exclude_each_other)
{
	struct dev *a = create(), *b = open_again(path, false), *c = open_again(path, true);

	CHECK_OK(lock(a));
	CHECK_OK(lock(a));
	CHECK_EQ(lock(b), -EBUSY);
	CHECK_EQ(lock(c), -EROFS);
	/* Closing another opening of the file does not drop it. */
	dev_close(c);
	CHECK_EQ(lock(b), -EBUSY);
	a->ops->unlock(a);
	CHECK_OK(lock(b));
	CHECK_EQ(lock(a), -EBUSY);
	dev_close(b);
	CHECK_OK(lock(a));
	dev_close(a);
}

/* Runs in another process; returns what lock() said there. */
static int lock_in_child(const char *name, int hold_fd)
{
	int status;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (!pid) {
		struct dev *dev = open_again(name, false);
		int r = lock(dev);
		char c = 0;

		if (hold_fd >= 0) {
			CHECK_OK(r);
			CHECK_EQ(write(hold_fd, &c, 1), 1);
			for (;;)
				pause();
		}
		dev_close(dev);
		_exit(-r);
	}
	if (hold_fd >= 0)
		return pid;
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

TEST(two_processes_exclude_each_other)
{
	int fds[2], status, pid;
	struct dev *dev;
	char c;

	/* Children first: they are forked from a process without threads. */
	dev_close(create());
	CHECK_OK(pipe(fds));
	CHECK_OK(lock_in_child(path, -1));
	pid = lock_in_child(path, fds[1]);
	CHECK_EQ(read(fds[0], &c, 1), 1);
	CHECK_EQ(lock_in_child(path, -1), -EBUSY);
	dev = open_again(path, false);
	CHECK_EQ(lock(dev), -EBUSY);
	/* Death frees it. */
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_OK(lock(dev));
	dev_close(dev);
}

/* A loop device over a file, detached when its last user closes it. */
static int make_loop(uint32_t block_bytes, char *name, size_t name_len)
{
	struct loop_config config = {.block_size = block_bytes};
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), tries, fd, number;

	if (control < 0)
		SKIP("no loop devices here (needs root)");
	config.fd = (unsigned)open(path, O_RDWR | O_CLOEXEC);
	config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
	/* Somebody else may be faster. */
	for (tries = 0; tries < 20; tries++) {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0)
			SKIP("no free loop device");
		snprintf(name, name_len, "/dev/loop%d", number);
		fd = open(name, O_RDWR | O_CLOEXEC);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			break;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	if (fd < 0)
		SKIP("loop device cannot be set up");
	close((int)config.fd);
	close(control);
	return fd;
}

TEST(block_device)
{
	static char mem[16384 + 8], back[16384];
	struct dev_req req = {.op = DEV_ZERO, .off_bytes = 4096, .len_bytes = 4096, .fua = true};
	struct dev_file_info info;
	struct dev *a, *b;
	char name[64];
	int fd, i;

	dev_close(create());
	fd = make_loop(4096, name, sizeof(name));
	a = open_again(name, false);
	b = open_again(name, false);
	dev_file_info(a, &info);
	CHECK(info.is_block_device);
	CHECK_EQ(a->size_bytes, SIZE);
	CHECK_EQ(a->block_bytes, 4096);
	CHECK_OK(lock(a));
	CHECK_EQ(lock(b), -EBUSY);
	dev_close(a);
	CHECK_OK(lock(b));
	memset(mem, 'x', sizeof(mem));
	CHECK_OK(dev_pwrite(b, mem + 3, 16384, 0, true));
	CHECK_OK(dev_sync(b, &req));
	req.op = DEV_DISCARD;
	req.off_bytes = 8192;
	CHECK_OK(dev_sync(b, &req));
	CHECK_OK(dev_flush(b));
	CHECK_OK(dev_pread(b, back, 512, 3584));
	CHECK_EQ(back[511], 'x');
	CHECK_OK(dev_pread(b, back, 16384, 0));
	for (i = 0; i < 4096; i++) {
		CHECK_EQ(back[i], 'x');
		CHECK_EQ(back[4096 + i], 0);
		CHECK(!b->can_discard || back[8192 + i] == 0);
		CHECK_EQ(back[12288 + i], 'x');
	}
	CHECK_EQ(dev_pwrite(b, mem, 512, 0, false), -EINVAL);
	dev_close(b);
	close(fd);
}
