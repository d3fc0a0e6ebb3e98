/* SPDX-License-Identifier: BSD-3-Clause */
/* A block translation table as a block device: by itself, and as what a log lies on. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "btt/btt_dev.h"
#include "lib/host_single.h"
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

static void no_home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	(void)home;
	memset(piece->buf, 0, piece->sectors * DEV_SECTOR_BYTES);
	wlog_piece_done(piece, 0);
}

static void no_home_destage(struct wlog_home *home, bool urgent)
{
	(void)home;
	(void)urgent;
}

static struct wlog *open_log(struct host_single *hs, struct dev *dev, struct wlog_home *home)
{
	struct wlog_identity id;
	struct wlog_options opt;
	struct wlog_info info;
	struct err err = ERR_INIT;
	struct wlog *log;
	int r;

	host_single_init(hs, test_seed());
	hs->dev = dev;
	wlog_options_default(&opt);
	CHECK_OK(wlog_probe(dev, &info, &err));
	id = info.id;
	r = wlog_open(&hs->host, dev, home, &opt, 0, &log, &err);
	r = r ? r : wlog_start(log, &id, 0, &err);
	if (r)
		FAIL("%s", err_text(&err, r));
	return log;
}

/* What a log acknowledged with a flush is there when the memory's power failed. */
TEST(a_log_lies_on_a_table)
{
	static const struct wlog_home_ops ops = {.read = no_home_read, .destage = no_home_destage};
	const struct btt_options make = {.block_bytes = 4096, .uuid = uuid_from_bits(1, 2)};
	const struct wlog_format_options format = {.random = 1};
	struct pm_shadow_options opt = {.len_bytes = 8u << 20};
	struct wlog_home home = {.ops = &ops, .sectors = 2048};
	struct host_single hs;
	struct bench a, b;
	uint8_t data[4096], got[4096];
	struct wlog *log;

	CHECK_OK(pm_shadow_open(&opt, &a.pm));
	CHECK_OK(btt_create(a.pm, &make, &a.btt, NULL));
	CHECK_OK(btt_dev_open(a.btt, &a.dev, NULL));
	CHECK_OK(wlog_format(a.dev, &format, NULL, NULL));
	log = open_log(&hs, a.dev, &home);
	for (uint64_t i = 0; i < 10; i++) {
		memset(data, (int)(i + 1), sizeof(data));
		CHECK_OK(host_single_io(&hs, log, DEV_WRITE, 8 * (i % 4), 8, data, i % 2));
	}
	CHECK_OK(host_single_io(&hs, log, DEV_FLUSH, 0, 0, NULL, false));
	opt.image = pm_shadow_durable(a.pm);
	CHECK_OK(pm_shadow_open(&opt, &b.pm));
	wlog_close(log);
	end(&a);
	CHECK_OK(btt_open(b.pm, NULL, &b.btt, NULL));
	CHECK_OK(btt_dev_open(b.btt, &b.dev, NULL));
	log = open_log(&hs, b.dev, &home);
	for (uint64_t i = 6; i < 10; i++) {
		memset(data, (int)(i + 1), sizeof(data));
		CHECK_OK(host_single_io(&hs, log, DEV_READ, 8 * (i % 4), 8, got, false));
		CHECK_MEMEQ(got, data, sizeof(data));
	}
	wlog_close(log);
	end(&b);
}
