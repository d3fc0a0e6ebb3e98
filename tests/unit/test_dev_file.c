/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file device: data, alignment, opening; each by ring and by threads. What goes wrong is in
 * test_dev_file_faults.c, locks in test_dev_file_lock.c.
 */
#include "lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/rng.h"
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

#define MIB (1024 * 1024)
#define TMPFS_MAGIC 0x01021994

static const char *temp_path(void)
{
	static char path[4096];

	snprintf(path, sizeof(path), "%s/disk", test_tmpdir());
	return path;
}

static struct dev *create(uint64_t size_bytes, uint32_t block_bytes, bool buffered)
{
	struct dev_file_options opt = {.create = true, .create_bytes = size_bytes,
				       .block_bytes = block_bytes, .buffered = buffered};
	struct err err = ERR_INIT;
	struct dev *dev;
	int r = dev_file_open(temp_path(), &opt, &dev, &err);

	if (r)
		test_note("%s", err.text);
	CHECK_OK(r);
	return dev;
}

struct waiter {
	struct dev_req req;
	atomic_bool done;
};

static void waiter_done(struct dev_req *req)
{
	struct waiter *w = container_of(req, struct waiter, req);

	atomic_store(&w->done, true);
}

/* By kick and poll, so that the loop runs it. */
static int run_async(struct dev *dev, struct waiter *w)
{
	atomic_store(&w->done, false);
	w->req.done = waiter_done;
	dev_submit(dev, &w->req);
	dev_kick(dev);
	while (!atomic_load(&w->done))
		dev_poll(dev, true);
	return w->req.result;
}

static int run_op(struct dev *dev, bool async, enum dev_op op, void *buf, size_t len, uint64_t off,
		  bool fua)
{
	struct waiter w = {.req = {.op = op, .off_bytes = off, .fua = fua}};

	dev_req_buf(&w.req, buf, len);
	return async ? run_async(dev, &w) : dev_sync(dev, &w.req);
}

static void fill(unsigned char *buf, size_t len, struct rng *rng)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (unsigned char)rng_next(rng);
}

/* Random operations at every alignment of memory, against an array. */
static void random_ops(struct dev *dev, unsigned rounds)
{
	enum { SIZE = 2 * MIB, MAX = MIB };
	unsigned char *want = calloc(1, SIZE), *buf = malloc(MAX + 64);
	struct rng rng;
	unsigned i;

	CHECK(want && buf);
	rng_seed(&rng, test_seed());
	CHECK_OK(dev_pwrite(dev, want, SIZE, 0, false));
	for (i = 0; i < rounds; i++) {
		bool read = rng_below(&rng, 2);
		uint64_t unit = read ? 512 : dev->block_bytes;
		uint64_t max = rng_below(&rng, 4) ? 65536 : MAX;
		uint64_t off = rng_below(&rng, SIZE / unit) * unit;
		uint64_t len = (1 + rng_below(&rng, max / unit)) * unit;
		unsigned char *at = buf + (rng_below(&rng, 2) ? 0 : rng_below(&rng, 64));
		bool async = rng_below(&rng, 2), fua = rng_below(&rng, 4) == 0;

		len = len > SIZE - off ? SIZE - off : len;
		if (read) {
			CHECK_OK(run_op(dev, async, DEV_READ, at, len, off, false));
			CHECK_MEMEQ(at, want + off, len);
		} else if (rng_below(&rng, 4) == 0) {
			enum dev_op op = rng_below(&rng, 2) && dev->can_discard ? DEV_DISCARD
										: DEV_ZERO;

			CHECK_OK(run_op(dev, async, op, NULL, len, off, fua));
			memset(want + off, 0, len);
		} else {
			fill(at, len, &rng);
			CHECK_OK(run_op(dev, async, DEV_WRITE, at, len, off, fua));
			memcpy(want + off, at, len);
		}
		if (rng_below(&rng, 16) == 0)
			CHECK_OK(run_op(dev, async, DEV_FLUSH, NULL, 0, 0, false));
	}
	free(buf);
	free(want);
}

BOTH(random_operations_direct)
{
	struct dev *dev = create(2 * MIB, 0, false);

	random_ops(dev, 400);
	dev_close(dev);
}

BOTH(random_operations_on_4k_blocks)
{
	struct dev *dev = create(2 * MIB, 4096, false);

	CHECK_EQ(dev->block_bytes, 4096);
	random_ops(dev, 400);
	dev_close(dev);
}

BOTH(random_operations_buffered)
{
	struct dev *dev = create(2 * MIB, 0, true);
	struct dev_file_info info;

	dev_file_info(dev, &info);
	CHECK(!info.direct);
	random_ops(dev, 400);
	dev_close(dev);
}

/* tmpfs has no zero-range: zeros are written. */
BOTH(random_operations_on_tmpfs)
{
	struct statfs st;
	struct dev *dev;

	if (statfs("/dev/shm", &st) < 0 || st.f_type != TMPFS_MAGIC)
		SKIP("/dev/shm is not a tmpfs");
	setenv("VARVE_TEST_DIR", "/dev/shm", 1);
	dev = create(2 * MIB, 0, false);
	random_ops(dev, 400);
	dev_close(dev);
}

BOTH(vectors_of_odd_pieces)
{
	struct dev *dev = create(2 * MIB, 4096, false);
	enum { PIECES = 700, LEN = 700 * 1024 };
	unsigned char *a = malloc(2 * LEN), *b = calloc(1, LEN);
	struct waiter w = {.req = {.op = DEV_WRITE, .len_bytes = LEN, .fua = true}};
	struct iovec iov[PIECES + 1];
	struct rng rng;
	unsigned i;

	CHECK(a && b);
	rng_seed(&rng, test_seed());
	fill(a, LEN, &rng);
	/* Pieces of 1023 and 1025 bytes, and an empty one. */
	for (i = 0; i < PIECES; i++) {
		iov[i].iov_base = a + i * 1024 - i % 2;
		iov[i].iov_len = i % 2 ? 1025 : 1023;
	}
	iov[PIECES] = (struct iovec){a, 0};
	w.req.iov = iov;
	w.req.iovcnt = PIECES + 1;
	CHECK_OK(run_async(dev, &w));
	CHECK_OK(dev_pread(dev, b, LEN, 0));
	CHECK_MEMEQ(a, b, LEN);
	memcpy(a + LEN, a, LEN);
	memset(a, 0, LEN);
	w.req.op = DEV_READ;
	CHECK_OK(run_async(dev, &w));
	CHECK_MEMEQ(a, a + LEN, LEN);
	free(b);
	free(a);
	dev_close(dev);
}

BOTH(bad_requests_are_refused_and_not_sticky)
{
	struct dev *dev = create(MIB, 4096, false), *view;
	struct dev_file_options opt = {.read_only = true};
	struct dev_counters c;
	char buf[8192] = "";
	bool async;
	int i;

	for (i = 0; i < 2; i++) {
		async = i;
		CHECK_EQ(run_op(dev, async, DEV_WRITE, buf, 512, 0, true), -EINVAL);
		CHECK_EQ(run_op(dev, async, DEV_WRITE, buf, 4096, 512, true), -EINVAL);
		CHECK_EQ(run_op(dev, async, DEV_WRITE, buf, 8192, MIB - 4096, true), -EINVAL);
		CHECK_EQ(run_op(dev, async, DEV_READ, buf, 512, MIB, false), -EINVAL);
		CHECK_EQ(run_op(dev, async, DEV_READ, buf, 100, 0, false), -EINVAL);
		CHECK_EQ(run_op(dev, async, DEV_READ, buf, 512, UINT64_MAX - 511, false), -EINVAL);
		CHECK_EQ(run_op(dev, async, DEV_ZERO, NULL, 512, 0, true), -EINVAL);
		CHECK_OK(run_op(dev, async, DEV_WRITE, buf, 0, MIB, false));
		CHECK_OK(run_op(dev, async, DEV_WRITE, buf, 4096, 0, true));
	}
	dev->ops->counters(dev, &c);
	CHECK_EQ(c.errors, 14);
	CHECK_EQ(c.writes, 12);
	CHECK_OK(dev_file_open(temp_path(), &opt, &view, NULL));
	CHECK_EQ(run_op(view, true, DEV_WRITE, buf, 4096, 0, false), -EROFS);
	CHECK_EQ(run_op(view, false, DEV_DISCARD, NULL, 4096, 0, false), -EROFS);
	CHECK(!view->can_discard);
	CHECK_OK(run_op(view, true, DEV_READ, buf, 4096, 0, false));
	CHECK_OK(run_op(view, false, DEV_FLUSH, NULL, 0, 0, false));
	dev_close(view);
	dev_close(dev);
}

static void count_done(struct dev_req *req)
{
	atomic_fetch_add((atomic_uint *)req->priv.ptr[7], 1);
}

/* One kick for more than fits: the rest follows by itself. Half of them need bounce buffers. */
BOTH(more_than_the_slots_at_once)
{
	enum { COUNT = 1500 };
	struct dev *dev = create(8 * MIB, 0, false);
	struct dev_req *reqs = calloc(COUNT, sizeof(*reqs));
	unsigned char *buf = aligned_alloc(4096, COUNT * 8192), back[4096];
	atomic_uint done = 0;
	unsigned i;

	CHECK(reqs && buf);
	for (i = 0; i < COUNT; i++) {
		unsigned char *at = buf + (size_t)i * 8192 + i % 2;

		reqs[i] = (struct dev_req){.op = i % 50 == 49 ? DEV_FLUSH : DEV_WRITE,
					   .off_bytes = (uint64_t)i * 4096, .done = count_done};
		reqs[i].priv.ptr[7] = &done;
		memset(at, (int)i, 4096);
		dev_req_buf(&reqs[i], at, 4096);
		dev_submit(dev, &reqs[i]);
	}
	CHECK_EQ(atomic_load(&done), 0);
	dev_kick(dev);
	while (atomic_load(&done) < COUNT)
		dev_poll(dev, true);
	for (i = 0; i < COUNT; i++)
		CHECK_OK(reqs[i].result);
	for (i = 0; i < COUNT; i += 7) {
		CHECK_OK(dev_pread(dev, back, 4096, (uint64_t)i * 4096));
		if (i % 50 != 49)
			CHECK_MEMEQ(back, buf + (size_t)i * 8192 + i % 2, 4096);
	}
	dev_close(dev);
	free(buf);
	free(reqs);
}

struct user {
	struct dev *dev;
	unsigned id;
	uint64_t seed;
};

/* Writes, reads back and flushes in a region of its own, by help and by kick. */
static void *use(void *arg)
{
	struct user *user = arg;
	unsigned char in[8192 + 64], out[8192 + 64];
	struct rng rng;
	int i;

	rng_seed(&rng, user->seed + user->id);
	for (i = 0; i < 300; i++) {
		size_t len = (1 + rng_below(&rng, 16)) * 512;
		uint64_t off = user->id * 65536 + rng_below(&rng, 64) * 512;
		unsigned char *at = in + rng_below(&rng, 64);

		memset(at, (int)rng_next(&rng), len);
		CHECK_OK(run_op(user->dev, rng_below(&rng, 2), DEV_WRITE, at, len, off,
				rng_below(&rng, 8) == 0));
		if (rng_below(&rng, 4) == 0)
			CHECK_OK(run_op(user->dev, rng_below(&rng, 2), DEV_FLUSH, NULL, 0, 0,
					false));
		CHECK_OK(run_op(user->dev, rng_below(&rng, 2), DEV_READ, out, len, off, false));
		CHECK_MEMEQ(at, out, len);
	}
	return NULL;
}

static void use_by_many(struct dev *dev)
{
	struct user user[8];
	pthread_t thread[8];
	unsigned i;

	for (i = 0; i < 8; i++) {
		user[i] = (struct user){.dev = dev, .id = i, .seed = test_seed()};
		CHECK_EQ(pthread_create(&thread[i], NULL, use, &user[i]), 0);
	}
	for (i = 0; i < 8; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	dev_close(dev);
}

BOTH(many_threads_help_and_kick)
{
	use_by_many(create(MIB, 0, false));
}

BOTH(many_threads_buffered)
{
	use_by_many(create(MIB, 0, true));
}

BOTH(creation)
{
	struct dev_file_options opt = {.create = true, .create_bytes = 100000, .write_zeros = true,
				       .block_bytes = 4096};
	struct err err = ERR_INIT;
	struct dev *dev;
	struct stat st;
	char path[4096];

	CHECK_OK(dev_file_open(temp_path(), &opt, &dev, NULL));
	CHECK_EQ(dev->size_bytes, 102400);
	dev_close(dev);
	CHECK_OK(stat(temp_path(), &st));
	CHECK_EQ(st.st_size, 102400);
	CHECK(st.st_blocks * 512 >= 102400);
	CHECK_EQ(dev_file_open(temp_path(), &opt, &dev, &err), -EEXIST);
	CHECK(strstr(err.text, temp_path()));
	CHECK_OK(stat(temp_path(), &st));
	/* A failed creation leaves nothing. */
	snprintf(path, sizeof(path), "%s/huge", test_tmpdir());
	opt.create_bytes = UINT64_MAX / 2 - 65536;
	CHECK(dev_file_open(path, &opt, &dev, NULL) < 0);
	CHECK_EQ(access(path, F_OK), -1);
	opt.create_bytes = 0;
	CHECK_EQ(dev_file_open(path, &opt, &dev, NULL), -EINVAL);
	CHECK_EQ(access(path, F_OK), -1);
}

TEST(what_is_no_disk_is_refused)
{
	struct dev_file_options opt = {.block_bytes = 3000};
	struct err err = ERR_INIT;
	struct dev *dev;
	char path[4096];

	CHECK_EQ(dev_file_open("/nonexistent/x", NULL, &dev, &err), -ENOENT);
	CHECK(strstr(err.text, "/nonexistent/x"));
	CHECK_EQ(dev_file_open("/dev/null", NULL, &dev, NULL), -ENOTBLK);
	CHECK_EQ(dev_file_open(test_tmpdir(), NULL, &dev, NULL), -EISDIR);
	snprintf(path, sizeof(path), "%s/fifo", test_tmpdir());
	CHECK_OK(mkfifo(path, 0600));
	CHECK_EQ(dev_file_open(path, NULL, &dev, NULL), -ENOTBLK);
	snprintf(path, sizeof(path), "%s/empty", test_tmpdir());
	close(open(path, O_CREAT | O_RDWR, 0600));
	CHECK_EQ(dev_file_open(path, NULL, &dev, NULL), -EINVAL);
	CHECK_EQ(truncate(path, 10000), 0);
	CHECK_EQ(dev_file_open(path, &opt, &dev, NULL), -EINVAL);
	opt.block_bytes = 4096;
	CHECK_OK(dev_file_open(path, &opt, &dev, NULL));
	CHECK_EQ(dev->size_bytes, 8192);
	dev_close(dev);
}
