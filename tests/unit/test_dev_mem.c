/* SPDX-License-Identifier: BSD-3-Clause */
/* The memory device, and the rules of dev.h that do not depend on a medium. */
#include "lib/tap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dev/mem.h"

static struct dev *open_mem(uint64_t size_bytes, uint32_t block_bytes)
{
	struct dev_mem_options opt = {.size_bytes = size_bytes, .block_bytes = block_bytes};
	struct err err = ERR_INIT;
	struct dev *dev;

	CHECK_OK(dev_mem_open(&opt, &dev, &err));
	return dev;
}

TEST(what_was_written_is_read)
{
	struct dev *dev = open_mem(1 << 20, 0);
	char in[1536], out[1536];

	memset(in, 'a', sizeof(in));
	CHECK_OK(dev_pwrite(dev, in, sizeof(in), 512, true));
	CHECK_OK(dev_flush(dev));
	CHECK_OK(dev_pread(dev, out, sizeof(out), 512));
	CHECK_MEMEQ(in, out, sizeof(in));
	CHECK_OK(dev_pread(dev, out, 512, 2048));
	CHECK_EQ(out[0], 0);
	CHECK_OK(dev_pread(dev, out, 512, (1 << 20) - 512));
	dev_close(dev);
}

static void note_done(struct dev_req *req)
{
	req->priv.u64[7]++;
}

TEST(submit_completes_nothing)
{
	struct dev *dev = open_mem(1 << 20, 0);
	struct dev_req req = {.op = DEV_FLUSH, .done = note_done};

	dev_submit(dev, &req);
	CHECK_EQ(req.priv.u64[7], 0);
	dev_kick(dev);
	CHECK_EQ(req.priv.u64[7], 1);
	dev_submit(dev, &req);
	CHECK_EQ(dev_poll(dev, true), 1);
	CHECK_EQ(req.priv.u64[7], 2);
	dev_submit(dev, &req);
	CHECK(dev_help(dev));
	CHECK(!dev_help(dev));
	CHECK_EQ(req.priv.u64[7], 3);
	CHECK_EQ(dev_poll(dev, true), 0);
	dev_close(dev);
}

TEST(bad_requests_are_refused)
{
	struct dev_mem_options opt = {.size_bytes = 65536, .block_bytes = 4096};
	struct dev *dev = open_mem(65536, 4096), *view;
	char buf[8192] = "";

	CHECK_EQ(dev_pwrite(dev, buf, 512, 0, false), -EINVAL);
	CHECK_EQ(dev_pwrite(dev, buf, 4096, 512, false), -EINVAL);
	CHECK_EQ(dev_pwrite(dev, buf, 8192, 61440, false), -EINVAL);
	CHECK_EQ(dev_pread(dev, buf, 512, 65536), -EINVAL);
	CHECK_EQ(dev_pread(dev, buf, 100, 0), -EINVAL);
	CHECK_EQ(dev_pread(dev, buf, 512, UINT64_MAX - 511), -EINVAL);
	CHECK_OK(dev_pread(dev, buf, 512, 512 * 3));
	CHECK_OK(dev_pread(dev, buf, 0, 65536));
	opt.read_only = true;
	opt.bytes = dev_mem_bytes(dev);
	CHECK_OK(dev_mem_open(&opt, &view, NULL));
	CHECK_EQ(dev_pwrite(view, buf, 4096, 0, false), -EROFS);
	CHECK_EQ(view->ops->lock(view, NULL), -EROFS);
	CHECK_OK(dev_pread(view, buf, 4096, 0));
	dev_close(view);
	dev_close(dev);
	opt = (struct dev_mem_options){.size_bytes = 1000};
	CHECK_EQ(dev_mem_open(&opt, &dev, NULL), -EINVAL);
	opt = (struct dev_mem_options){.size_bytes = 6144, .block_bytes = 1536};
	CHECK_EQ(dev_mem_open(&opt, &dev, NULL), -EINVAL);
}

TEST(the_bytes_outlive_the_device)
{
	struct dev_mem_options opt = {0};
	struct dev_mem_bytes *bytes;
	struct dev *a, *b;
	char buf[512];

	CHECK_OK(dev_mem_bytes_new(65536, &bytes));
	opt.bytes = bytes;
	CHECK_OK(dev_mem_open(&opt, &a, NULL));
	CHECK_OK(dev_mem_open(&opt, &b, NULL));
	CHECK_OK(a->ops->lock(a, NULL));
	CHECK_EQ(b->ops->lock(b, NULL), -EBUSY);
	memset(buf, 'k', sizeof(buf));
	CHECK_OK(dev_pwrite(a, buf, 512, 1024, false));
	dev_close(a);
	CHECK_OK(b->ops->lock(b, NULL));
	b->ops->unlock(b);
	CHECK_OK(dev_pread(b, buf, 512, 1024));
	CHECK_EQ(buf[511], 'k');
	dev_close(b);
	CHECK_EQ(((char *)dev_mem_bytes_data(bytes))[1024], 'k');
	CHECK_EQ(dev_mem_bytes_size(bytes), 65536);
	dev_mem_bytes_put(bytes);
}

TEST(discard_and_zero_clear_exactly_their_range)
{
	enum { SIZE = 65536 };
	struct dev *dev = open_mem(SIZE, 0);
	static char buf[SIZE];
	struct rng rng;
	int round;

	rng_seed(&rng, test_seed());
	for (round = 0; round < 200; round++) {
		uint64_t off = rng_below(&rng, SIZE / 512) * 512;
		uint64_t len = (rng_below(&rng, (SIZE - off) / 512) + 1) * 512, i;
		struct dev_req req = {.op = round % 2 ? DEV_ZERO : DEV_DISCARD,
				      .off_bytes = off, .len_bytes = len};

		memset(buf, 'x', SIZE);
		CHECK_OK(dev_pwrite(dev, buf, SIZE, 0, false));
		CHECK_OK(dev_sync(dev, &req));
		CHECK_OK(dev_pread(dev, buf, SIZE, 0));
		for (i = 0; i < SIZE; i++)
			CHECK_EQ(buf[i], i >= off && i < off + len ? 0 : 'x');
	}
	dev_close(dev);
}

struct chain {
	struct dev_req req;
	struct dev *dev;
	unsigned left;
	char buf[512];
};

static void chain_done(struct dev_req *req)
{
	struct chain *chain = container_of(req, struct chain, req);

	if (!chain->left--)
		return;
	dev_submit(chain->dev, req);
	dev_kick(chain->dev);
}

TEST(done_may_submit_and_kick_for_ever)
{
	struct chain chain = {.dev = open_mem(65536, 0), .left = 1000000};

	chain.req.done = chain_done;
	dev_req_buf(&chain.req, chain.buf, 512);
	dev_submit(chain.dev, &chain.req);
	dev_kick(chain.dev);
	CHECK_EQ(chain.left, UINT32_MAX);
	dev_close(chain.dev);
}

TEST(counters_count)
{
	struct dev *dev = open_mem(65536, 0);
	struct dev_req discard = {.op = DEV_DISCARD, .len_bytes = 4096};
	struct dev_counters c;
	char buf[1024] = "";

	CHECK_OK(dev_pwrite(dev, buf, 1024, 0, false));
	CHECK_OK(dev_pread(dev, buf, 512, 0));
	CHECK_OK(dev_flush(dev));
	CHECK_OK(dev_sync(dev, &discard));
	CHECK_EQ(dev_pread(dev, buf, 1, 0), -EINVAL);
	dev->ops->counters(dev, &c);
	CHECK_EQ(c.writes, 1);
	CHECK_EQ(c.write_bytes, 1024);
	CHECK_EQ(c.reads, 2);
	CHECK_EQ(c.flushes, 1);
	CHECK_EQ(c.discards, 1);
	CHECK_EQ(c.discard_bytes, 4096);
	CHECK_EQ(c.errors, 1);
	dev_close(dev);
}

struct user {
	struct dev *dev;
	unsigned id;
};

static void *use(void *arg)
{
	struct user *user = arg;
	unsigned char in[512], out[512];
	int i;

	for (i = 0; i < 2000; i++) {
		uint64_t off = (user->id * 16 + (unsigned)i % 16) * 512;

		memset(in, i + (int)user->id, sizeof(in));
		CHECK_OK(dev_pwrite(user->dev, in, 512, off, false));
		if (i % 3 == 0)
			dev_kick(user->dev);
		CHECK_OK(dev_pread(user->dev, out, 512, off));
		CHECK_MEMEQ(in, out, 512);
	}
	return NULL;
}

TEST(many_threads)
{
	struct dev *dev = open_mem(1 << 20, 0);
	struct user user[8];
	pthread_t thread[8];
	unsigned i;

	for (i = 0; i < 8; i++) {
		user[i] = (struct user){.dev = dev, .id = i};
		CHECK_EQ(pthread_create(&thread[i], NULL, use, &user[i]), 0);
	}
	for (i = 0; i < 8; i++)
		CHECK_EQ(pthread_join(thread[i], NULL), 0);
	dev_close(dev);
}
