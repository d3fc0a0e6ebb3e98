/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file device when the medium fails. The fault is put in from outside, so that the kernel
 * itself reports the errors: the test finds the device's descriptor and has it name a pipe for a
 * while, which cannot be synced, or limits the size of files, so that writes fail.
 */
#include "lib/tap.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dev/file.h"

#define BOTH(fn)                                                                   \
	static void fn(void);                                                      \
	TEST(fn##_uring)                                                           \
	{                                                                          \
		unsetenv("VARVE_NO_URING");                                        \
		fn();                                                              \
	}                                                                          \
	TEST(fn##_threads)                                                         \
	{                                                                          \
		setenv("VARVE_NO_URING", "1", 1);                                  \
		fn();                                                              \
	}                                                                          \
	static void fn(void)

#define SIZE 1048576

static char path[4096];
static int dev_fd, saved_fd;

static struct dev *create(bool buffered)
{
	struct dev_file_options opt = {.create = true, .create_bytes = SIZE, .buffered = buffered,
				       .write_zeros = true};
	struct dev *dev;

	snprintf(path, sizeof(path), "%s/disk", test_tmpdir());
	CHECK_OK(dev_file_open(path, &opt, &dev, NULL));
	return dev;
}

/* The descriptor of the device, found by what it names. */
static int find_fd(void)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	char real[4096];
	int found = -1;

	CHECK(dir);
	CHECK(realpath(path, real));
	while ((entry = readdir(dir))) {
		char link[4096];
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = 0;
		if (!strcmp(link, real))
			found = (int)strtol(entry->d_name, NULL, 10);
	}
	closedir(dir);
	CHECK(found >= 0);
	return found;
}

static void break_dev(int bad_fd)
{
	CHECK(bad_fd >= 0);
	dev_fd = find_fd();
	saved_fd = dup(dev_fd);
	CHECK(saved_fd >= 0);
	CHECK_EQ(dup2(bad_fd, dev_fd), dev_fd);
	close(bad_fd);
}

static void mend_dev(void)
{
	CHECK_EQ(dup2(saved_fd, dev_fd), dev_fd);
	close(saved_fd);
}

static int open_pipe(void)
{
	int fds[2];

	CHECK_OK(pipe(fds));
	close(fds[0]);
	return fds[1];
}

struct waiter {
	struct dev_req req;
	atomic_bool done;
};

static void waiter_done(struct dev_req *req)
{
	atomic_store(&container_of(req, struct waiter, req)->done, true);
}

static int run_async(struct dev *dev, enum dev_op op, void *buf, size_t len, uint64_t off, bool fua)
{
	struct waiter w = {.req = {.op = op, .off_bytes = off, .fua = fua, .done = waiter_done}};

	dev_req_buf(&w.req, buf, len);
	dev_submit(dev, &w.req);
	dev_kick(dev);
	while (!atomic_load(&w.done))
		dev_poll(dev, true);
	return w.req.result;
}

static void check_sticky(struct dev *dev, int error)
{
	struct dev_req zero = {.op = DEV_ZERO, .len_bytes = 4096};
	struct dev_file_info info;
	char buf[4096] = "new", old[4096];
	int i;

	dev_file_info(dev, &info);
	CHECK_EQ(info.sticky, error);
	for (i = 0; i < 2; i++) {
		CHECK_EQ(dev_flush(dev), error);
		CHECK_EQ(run_async(dev, DEV_FLUSH, NULL, 0, 0, false), error);
		CHECK_EQ(dev_pwrite(dev, buf, 4096, 0, false), error);
		CHECK_EQ(run_async(dev, DEV_WRITE, buf, 4096, 0, true), error);
		CHECK_EQ(run_async(dev, DEV_DISCARD, NULL, 4096, 0, false), error);
		CHECK_EQ(dev_sync(dev, &zero), error);
		CHECK_OK(dev_pread(dev, old, 4096, 0));
		CHECK_EQ(old[0], 'o');
		CHECK_OK(run_async(dev, DEV_READ, old, 4096, 0, false));
		CHECK_EQ(old[0], 'o');
	}
}

static void flush_fails(bool async, bool buffered)
{
	struct dev *dev = create(buffered);
	char buf[4096] = "old";

	CHECK_OK(dev_pwrite(dev, buf, 4096, 0, true));
	break_dev(open_pipe());
	CHECK_EQ(async ? run_async(dev, DEV_FLUSH, NULL, 0, 0, false) : dev_flush(dev), -EINVAL);
	mend_dev();
	check_sticky(dev, -EINVAL);
	/* An owner who writes all again may go on. */
	dev_forgive(dev);
	CHECK_OK(dev_pwrite(dev, buf, 4096, 0, false));
	CHECK_OK(async ? run_async(dev, DEV_FLUSH, NULL, 0, 0, false) : dev_flush(dev));
	break_dev(open_pipe());
	CHECK_EQ(dev_flush(dev), -EINVAL);
	mend_dev();
	CHECK_EQ(dev_flush(dev), -EINVAL);
	dev_close(dev);
	/* Closing forgets it. */
	CHECK_OK(dev_file_open(path, NULL, &dev, NULL));
	CHECK_OK(dev_pwrite(dev, buf, 4096, 0, true));
	dev_close(dev);
}

BOTH(a_failed_flush_is_for_ever)
{
	flush_fails(true, false);
	CHECK_OK(unlink(path));
	flush_fails(true, true);
}

BOTH(a_failed_flush_by_help_is_for_ever)
{
	flush_fails(false, false);
	CHECK_OK(unlink(path));
	flush_fails(false, true);
}

/* Writes beyond the limit fail, also where the file has room already. */
static void limit_size(rlim_t size_bytes)
{
	struct rlimit limit;

	CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	CHECK_OK(getrlimit(RLIMIT_FSIZE, &limit));
	limit.rlim_cur = size_bytes;
	CHECK_OK(setrlimit(RLIMIT_FSIZE, &limit));
}

static void fua_fails(bool async, unsigned misalign)
{
	static char mem[8192] __attribute__((aligned(4096)));
	struct dev *dev = create(false);
	char *buf = mem + misalign;

	memcpy(buf, "old", 4);
	CHECK_OK(dev_pwrite(dev, buf, 4096, 0, true));
	limit_size(4096);
	/* Without fua it concerns only itself. */
	CHECK_EQ(dev_pwrite(dev, buf, 4096, 8192, false), -EFBIG);
	CHECK_EQ(run_async(dev, DEV_WRITE, buf, 4096, 8192, false), -EFBIG);
	limit_size(RLIM_INFINITY);
	CHECK_OK(dev_pwrite(dev, buf, 4096, 8192, false));
	CHECK_OK(dev_flush(dev));
	limit_size(4096);
	if (async)
		CHECK_EQ(run_async(dev, DEV_WRITE, buf, 4096, 8192, true), -EFBIG);
	else
		CHECK_EQ(dev_pwrite(dev, buf, 4096, 8192, true), -EFBIG);
	limit_size(RLIM_INFINITY);
	check_sticky(dev, -EFBIG);
	dev_close(dev);
}

BOTH(a_failed_fua_write_is_for_ever)
{
	unsigned i;

	for (i = 0; i < 4; i++) {
		fua_fails(i & 1, i & 2 ? 3 : 0);
		CHECK_OK(unlink(path));
	}
}

BOTH(a_file_cut_short_is_an_error_of_reads)
{
	struct dev *dev = create(false);
	char buf[8192];

	CHECK_OK(truncate(path, 4096));
	CHECK_EQ(dev_pread(dev, buf, 8192, 0), -EIO);
	CHECK_EQ(run_async(dev, DEV_READ, buf, 8192, 0, false), -EIO);
	CHECK_EQ(dev_pread(dev, buf, 512, 65536), -EIO);
	CHECK_OK(dev_pread(dev, buf, 4096, 0));
	CHECK_OK(dev_flush(dev));
	dev_close(dev);
}

/* Many flushes at once, of which the kernel sees a failing one: none may succeed. */
BOTH(no_flush_succeeds_beside_a_failed_one)
{
	enum { COUNT = 64 };
	struct dev *dev = create(false);
	struct waiter w[COUNT] = {0};
	char buf[512] = "";
	unsigned i;

	break_dev(open_pipe());
	for (i = 0; i < COUNT; i++) {
		w[i].req = (struct dev_req){.op = DEV_FLUSH, .done = waiter_done};
		dev_submit(dev, &w[i].req);
		if (i % 3 == 0)
			dev_kick(dev);
		if (i % 7 == 0)
			dev_help(dev);
	}
	dev_kick(dev);
	for (i = 0; i < COUNT; i++) {
		while (!atomic_load(&w[i].done))
			dev_poll(dev, true);
		CHECK_EQ(w[i].req.result, -EINVAL);
	}
	mend_dev();
	CHECK_EQ(dev_pwrite(dev, buf, 512, 0, false), -EINVAL);
	dev_close(dev);
}

struct chain {
	struct dev_req req;
	struct dev *dev;
	unsigned left;
	atomic_bool done;
};

static void chain_done(struct dev_req *req)
{
	struct chain *chain = container_of(req, struct chain, req);

	CHECK_EQ(req->result, -EINVAL);
	if (chain->left--) {
		dev_submit(chain->dev, req);
		dev_kick(chain->dev);
	} else {
		atomic_store(&chain->done, true);
	}
}

/* Whoever tries again at once, from inside done(), does not run out of stack. */
BOTH(trying_again_for_ever_does_not_recurse)
{
	struct chain chain = {.left = 1000000};

	chain.dev = create(false);
	break_dev(open_pipe());
	CHECK_EQ(dev_flush(chain.dev), -EINVAL);
	mend_dev();
	chain.req.op = DEV_FLUSH;
	chain.req.done = chain_done;
	dev_submit(chain.dev, &chain.req);
	dev_kick(chain.dev);
	while (!atomic_load(&chain.done))
		dev_poll(chain.dev, true);
	chain.left = 1000000;
	atomic_store(&chain.done, false);
	dev_submit(chain.dev, &chain.req);
	CHECK(dev_help(chain.dev));
	CHECK(atomic_load(&chain.done));
	dev_close(chain.dev);
}
