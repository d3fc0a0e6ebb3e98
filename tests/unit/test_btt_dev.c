/* SPDX-License-Identifier: BSD-3-Clause */
/* A block translation table as a block device: by itself, and as what a log lies on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "btt/btt_dev.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

#define POOL_BYTES (512u << 10)

struct bench {
	struct pmem *pm;
	struct btt *btt;
	struct dev *dev;
};

static struct bench begin(uint64_t block_bytes)
{
	const struct btt_options opt = {.block_bytes = block_bytes, .uuid = uuid_from_bits(1, 2)};
	struct bench b;

	CHECK_OK(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = POOL_BYTES}, &b.pm));
	CHECK_OK(btt_create(b.pm, &opt, &b.btt, NULL));
	CHECK_OK(btt_dev_open(b.btt, &b.dev, NULL));
	return b;
}

static void end(struct bench *b)
{
	dev_close(b->dev);
	CHECK_OK(btt_close(b->btt));
	pm_close(b->pm);
}

TEST(device_has_the_pools_size)
{
	struct bench b = begin(4096);

	CHECK_EQ(b.dev->block_bytes, 4096);
	CHECK_EQ(b.dev->size_bytes, btt_nblock(b.btt) * 4096);
	CHECK(b.dev->can_zero && b.dev->can_discard && !b.dev->read_only);
	end(&b);
}

TEST(blocks_that_are_no_devices_are_refused)
{
	static const uint64_t sizes[] = {1, 520, 256, 131072};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		const struct btt_options opt = {.block_bytes = sizes[i]};
		struct pmem *pm;
		struct btt *btt;
		struct dev *dev;

		CHECK_OK(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = POOL_BYTES}, &pm));
		CHECK_OK(btt_create(pm, &opt, &btt, NULL));
		CHECK_EQ(btt_dev_open(btt, &dev, NULL), -EINVAL);
		CHECK_OK(btt_close(btt));
		pm_close(pm);
	}
}

TEST(random_requests_do_what_an_array_does)
{
	struct bench b = begin(1024);
	const uint64_t size = 64 * 1024;
	uint8_t *want = calloc(1, size), *buf = calloc(1, size);
	struct rng rng;

	CHECK(want && buf);
	rng_seed(&rng, test_seed());
	for (int i = 0; i < 2000; i++) {
		uint64_t off = rng_below(&rng, size / 1024) * 1024;
		uint64_t len = rng_below(&rng, (size - off) / 1024 + 1) * 1024;
		struct dev_req req = {.op = DEV_ZERO, .off_bytes = off, .len_bytes = len};

		switch (rng_below(&rng, 4)) {
		case 0:
			rng_fill(&rng, want + off, len);
			CHECK_OK(dev_pwrite(b.dev, want + off, len, off, rng_chance(&rng, 1, 2)));
			break;
		case 1:
			req.op = rng_chance(&rng, 1, 2) ? DEV_ZERO : DEV_DISCARD;
			memset(want + off, 0, len);
			CHECK_OK(dev_sync(b.dev, &req));
			break;
		default:
			off = rng_below(&rng, size / 512) * 512;
			len = rng_below(&rng, (size - off) / 512 + 1) * 512;
			CHECK_OK(dev_pread(b.dev, buf, len, off));
			CHECK_MEMEQ(buf, want + off, len);
		}
	}
	CHECK_OK(dev_flush(b.dev));
	free(want);
	free(buf);
	end(&b);
}

static int done_count;

static void count_done(struct dev_req *req)
{
	CHECK_OK(req->result);
	done_count++;
}

TEST(submit_completes_nothing)
{
	struct bench b = begin(512);
	static uint8_t data[512];
	struct dev_req req = {.op = DEV_WRITE, .done = count_done};

	dev_req_buf(&req, data, sizeof(data));
	dev_submit(b.dev, &req);
	CHECK_EQ(done_count, 0);
	CHECK(dev_help(b.dev));
	CHECK_EQ(done_count, 1);
	CHECK(!dev_help(b.dev));
	dev_submit(b.dev, &req);
	dev_kick(b.dev);
	CHECK_EQ(done_count, 2);
	dev_submit(b.dev, &req);
	CHECK_EQ(dev_poll(b.dev, true), 1);
	CHECK_EQ(done_count, 3);
	end(&b);
}

TEST(wrong_requests_are_refused)
{
	struct bench b = begin(4096);
	uint8_t buf[4096] = {0};

	CHECK_EQ(dev_pwrite(b.dev, buf, 512, 0, false), -EINVAL);
	CHECK_EQ(dev_pwrite(b.dev, buf, 4096, 512, false), -EINVAL);
	CHECK_EQ(dev_pread(b.dev, buf, 512, b.dev->size_bytes), -EINVAL);
	CHECK_EQ(dev_pread(b.dev, buf, 512, UINT64_MAX - 511), -EINVAL);
	CHECK_OK(dev_pread(b.dev, buf, 512, b.dev->size_bytes - 512));
	end(&b);
}

TEST(one_device_has_the_right_to_write)
{
	struct bench b = begin(4096);
	struct dev *other;

	CHECK_OK(btt_dev_open(b.btt, &other, NULL));
	CHECK_OK(b.dev->ops->lock(b.dev, NULL));
	CHECK_OK(b.dev->ops->lock(b.dev, NULL));
	CHECK_EQ(other->ops->lock(other, NULL), -EBUSY);
	b.dev->ops->unlock(b.dev);
	CHECK_OK(other->ops->lock(other, NULL));
	dev_close(other);
	CHECK_OK(b.dev->ops->lock(b.dev, NULL));
	end(&b);
}

TEST(a_write_is_durable_without_a_flush)
{
	struct bench b = begin(4096);
	uint8_t data[4096], buf[4096];
	struct pm_shadow_options opt = {.len_bytes = POOL_BYTES};
	struct dev_counters counters;
	struct pmem *pm;
	struct btt *btt;

	memset(data, 7, sizeof(data));
	CHECK_OK(dev_pwrite(b.dev, data, sizeof(data), 8192, false));
	opt.image = pm_shadow_durable(b.pm);
	CHECK_OK(pm_shadow_open(&opt, &pm));
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	CHECK_OK(btt_read(btt, 2, buf));
	CHECK_MEMEQ(buf, data, sizeof(data));
	CHECK_OK(btt_close(btt));
	pm_close(pm);
	b.dev->ops->counters(b.dev, &counters);
	CHECK_EQ(counters.writes, 1);
	CHECK_EQ(counters.write_bytes, 4096);
	end(&b);
}

/* After a fence that failed: a flush must not claim what the memory does not hold. */
TEST(a_flush_tells_that_memory_failed)
{
	struct bench b = begin(4096);
	uint8_t data[4096] = {0};

	pm_shadow_fail_fence(b.pm, 0, -EIO);
	CHECK_EQ(dev_pwrite(b.dev, data, sizeof(data), 0, false), -EIO);
	CHECK_EQ(dev_flush(b.dev), -EIO);
	dev_close(b.dev);
	CHECK_EQ(btt_close(b.btt), -EIO);
	pm_close(b.pm);
}
