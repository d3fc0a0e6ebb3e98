/* SPDX-License-Identifier: BSD-3-Clause */
/* The simulated disk: what a flush protects, what a crash may do to the rest, and the faults. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/sim_world.h"
#include "dev/sim.h"
#include "lib/tap.h"

#define DISK_BYTES (256u << 10)
#define BLOCK 4096u
#define SECTORS (BLOCK / DEV_SECTOR_BYTES)
#define REQS 64

/* A request with its memory, filled with one byte so that each sector tells whose it is. */
struct tagged {
	struct dev_req req;
	uint8_t buf[BLOCK];
	int done;
	int order;
};

static struct sim_world world;
static struct sim_disk *disk;
static struct dev *dev;
static int done_count;

static void on_done(struct dev_req *req)
{
	struct tagged *t = container_of(req, struct tagged, req);

	t->done++;
	t->order = done_count++;
}

static void open_disk(uint64_t seed, struct sim_disk_options opt)
{
	sim_world_init(&world, seed);
	opt.size_bytes = DISK_BYTES;
	CHECK_OK(sim_disk_new(&world, &opt, &disk));
	CHECK_OK(sim_dev_open(disk, &dev));
	done_count = 0;
}

static void close_disk(void)
{
	dev_close(dev);
	sim_disk_free(disk);
}

static void reopen(struct sim_keep keep)
{
	dev_close(dev);
	CHECK_OK(sim_disk_crash(disk, keep));
	sim_world_power_on(&world);
	CHECK_OK(sim_dev_open(disk, &dev));
}

static void send(struct tagged *t, enum dev_op op, uint64_t off_bytes, uint8_t fill, bool fua)
{
	memset(&t->req, 0, sizeof(t->req));
	memset(t->buf, fill, sizeof(t->buf));
	t->done = 0;
	t->req.op = op;
	t->req.fua = fua;
	t->req.off_bytes = off_bytes;
	t->req.done = on_done;
	if (op != DEV_FLUSH)
		dev_req_buf(&t->req, t->buf, sizeof(t->buf));
	dev_submit(dev, &t->req);
	CHECK_EQ(t->done, 0);
}

static int finish(struct tagged *t)
{
	while (!t->done)
		dev_poll(dev, true);
	CHECK_EQ(t->done, 1);
	return t->req.result;
}

static int write_at(uint64_t off_bytes, uint8_t fill, bool fua)
{
	struct tagged t;

	send(&t, DEV_WRITE, off_bytes, fill, fua);
	return finish(&t);
}

static int flush(void)
{
	struct tagged t;

	send(&t, DEV_FLUSH, 0, 0, false);
	return finish(&t);
}

static const uint8_t *read_at(uint64_t off_bytes)
{
	static struct tagged t;

	send(&t, DEV_READ, off_bytes, 0xee, false);
	CHECK_OK(finish(&t));
	return t.buf;
}

static bool all_are(const uint8_t *buf, uint8_t fill)
{
	for (size_t i = 0; i < BLOCK; i++)
		if (buf[i] != fill)
			return false;
	return true;
}

static void plan(struct sim_fault fault)
{
	CHECK_OK(sim_disk_fault(disk, &fault));
}

TEST(reads_see_writes_before_any_flush)
{
	open_disk(test_seed(), (struct sim_disk_options){0});
	CHECK_OK(write_at(8192, 7, false));
	CHECK(all_are(read_at(8192), 7));
	CHECK(all_are(read_at(4096), 0));
	CHECK(all_are((const uint8_t *)sim_disk_durable(disk) + 8192, 0));
	close_disk();
}

TEST(flush_protects_over_all_seeds)
{
	for (uint64_t seed = 0; seed < 2000; seed++) {
		open_disk(test_seed() + seed, (struct sim_disk_options){0});
		for (uint8_t i = 0; i < 8; i++)
			CHECK_OK(write_at(i * BLOCK, (uint8_t)(i + 1), false));
		CHECK_OK(flush());
		CHECK_EQ(sim_disk_undurable(disk), 0);
		for (uint8_t i = 8; i < 12; i++)
			CHECK_OK(write_at(i * BLOCK, (uint8_t)(i + 1), false));
		reopen(SIM_KEEP_RANDOM(seed));
		for (uint8_t i = 0; i < 8; i++)
			CHECK(all_are(read_at(i * BLOCK), (uint8_t)(i + 1)));
		close_disk();
	}
}

TEST(fua_protects_its_own_write_only)
{
	bool lost = false;

	for (uint64_t seed = 0; seed < 500; seed++) {
		open_disk(test_seed() + seed, (struct sim_disk_options){0});
		CHECK_OK(write_at(0, 1, false));
		CHECK_OK(write_at(BLOCK, 2, true));
		/* The older write of the same place must not come back over it. */
		CHECK_OK(write_at(2 * BLOCK, 3, false));
		CHECK_OK(write_at(2 * BLOCK, 4, true));
		reopen(SIM_KEEP_RANDOM(seed));
		CHECK(all_are(read_at(BLOCK), 2));
		CHECK(all_are(read_at(2 * BLOCK), 4));
		lost |= !all_are(read_at(0), 1);
		close_disk();
	}
	CHECK(lost);
}

TEST(flush_covers_only_what_was_done_before_it)
{
	int survived = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		struct tagged early, late, fl;

		open_disk(test_seed() + seed, (struct sim_disk_options){0});
		CHECK_OK(write_at(0, 1, false));
		send(&early, DEV_WRITE, BLOCK, 2, false);
		send(&fl, DEV_FLUSH, 0, 0, false);
		send(&late, DEV_WRITE, 2 * BLOCK, 3, false);
		CHECK_OK(finish(&early));
		CHECK_OK(finish(&late));
		CHECK_OK(finish(&fl));
		CHECK_EQ(sim_disk_undurable(disk), 2);
		reopen(SIM_KEEP_RANDOM(seed));
		CHECK(all_are(read_at(0), 1));
		survived += all_are(read_at(BLOCK), 2);
		close_disk();
	}
	CHECK(survived > 0 && survived < 200);
}

TEST(unflushed_data_is_lost_torn_and_reordered)
{
	int lost = 0, kept = 0, torn = 0, second_only = 0, older_on_top = 0;

	for (uint64_t seed = 0; seed < 2000; seed++) {
		const uint8_t *buf;
		int sectors = 0;

		open_disk(test_seed(), (struct sim_disk_options){0});
		CHECK_OK(write_at(0, 1, false));
		CHECK_OK(write_at(BLOCK, 2, false));
		CHECK_OK(write_at(2 * BLOCK, 3, false));
		CHECK_OK(write_at(2 * BLOCK, 4, false));
		reopen(SIM_KEEP_RANDOM(seed));
		buf = read_at(0);
		for (unsigned i = 0; i < SECTORS; i++)
			sectors += buf[i * DEV_SECTOR_BYTES] == 1;
		lost += sectors == 0;
		kept += sectors == SECTORS;
		torn += sectors > 0 && sectors < (int)SECTORS;
		second_only += sectors == 0 && all_are(read_at(BLOCK), 2);
		older_on_top += all_are(read_at(2 * BLOCK), 3);
		close_disk();
	}
	test_note("lost %d kept %d torn %d second only %d older on top %d", lost, kept, torn,
		  second_only, older_on_top);
	CHECK(lost > 100 && kept > 100 && torn > 50 && second_only > 50 && older_on_top > 50);
}

TEST(writes_in_flight_may_land)
{
	int landed = 0;

	for (uint64_t seed = 0; seed < 400; seed++) {
		struct tagged t;

		open_disk(test_seed(), (struct sim_disk_options){0});
		send(&t, DEV_WRITE, 0, 5, true);
		reopen(SIM_KEEP_RANDOM(seed));
		CHECK_EQ(t.done, 0);
		landed += all_are(read_at(0), 5);
		close_disk();
	}
	CHECK(landed > 20 && landed < 380);
}

TEST(simple_choices_are_exact)
{
	for (uint64_t n = 0; n <= 4; n++) {
		open_disk(test_seed(), (struct sim_disk_options){0});
		for (uint8_t i = 0; i < 4; i++)
			CHECK_OK(write_at(i * BLOCK, 9, false));
		CHECK_EQ(sim_disk_undurable(disk), 4);
		reopen(SIM_KEEP_PREFIX(n));
		for (uint8_t i = 0; i < 4; i++)
			CHECK(all_are(read_at(i * BLOCK), i < n ? 9 : 0));
		CHECK_OK(write_at(5 * BLOCK, 9, false));
		reopen(SIM_KEEP_NONE);
		CHECK(all_are(read_at(5 * BLOCK), 0));
		CHECK_OK(write_at(5 * BLOCK, 9, false));
		reopen(SIM_KEEP_ALL);
		CHECK(all_are(read_at(5 * BLOCK), 9));
		close_disk();
	}
}

/* A run of random requests; returns a copy of what the crash left. */
static uint8_t *random_run(uint64_t seed, uint64_t *ret_events)
{
	struct tagged *t = calloc(REQS, sizeof(*t));
	uint8_t *image = malloc(DISK_BYTES);

	open_disk(seed, (struct sim_disk_options){.garbage = true, .jitter_ns = 1000});
	for (int i = 0; i < REQS; i++) {
		static const enum dev_op ops[] = {DEV_WRITE, DEV_WRITE, DEV_FLUSH, DEV_ZERO,
						  DEV_DISCARD, DEV_READ};

		send(&t[i], ops[sim_world_below(&world, 6)], sim_world_below(&world, 64) * BLOCK,
		     (uint8_t)i, sim_world_below(&world, 4) == 0);
		if (sim_world_below(&world, 2))
			dev_poll(dev, true);
	}
	CHECK_OK(sim_disk_crash(disk, SIM_KEEP_RANDOM(seed)));
	memcpy(image, sim_disk_durable(disk), DISK_BYTES);
	*ret_events = sim_disk_events(disk);
	close_disk();
	free(t);
	return image;
}

TEST(same_seed_same_image)
{
	int differ = 0;

	for (uint64_t seed = 0; seed < 50; seed++) {
		uint64_t ea, eb, ec;
		uint8_t *a = random_run(seed, &ea), *b = random_run(seed, &eb);
		uint8_t *c = random_run(seed + 1, &ec);

		CHECK_MEMEQ(a, b, DISK_BYTES);
		CHECK_EQ(ea, eb);
		differ += memcmp(a, c, DISK_BYTES) != 0;
		free(a);
		free(b);
		free(c);
	}
	CHECK_EQ(differ, 50);
}

TEST(completions_come_in_any_order)
{
	bool swapped = false, straight = false;

	for (uint64_t seed = 0; seed < 50; seed++) {
		struct tagged a, b;

		open_disk(test_seed() + seed, (struct sim_disk_options){0});
		send(&a, DEV_WRITE, 0, 1, false);
		send(&b, DEV_WRITE, BLOCK, 2, false);
		CHECK(dev_help(dev));
		CHECK(dev_help(dev));
		CHECK(!dev_help(dev));
		CHECK_EQ(dev_poll(dev, true), 0);
		swapped |= a.order > b.order;
		straight |= a.order < b.order;
		close_disk();
	}
	CHECK(swapped && straight);
}

TEST(cut_visits_every_event)
{
	uint64_t n, durable_at = 0;

	for (n = 1;; n++) {
		struct tagged w, fl;

		open_disk(test_seed(), (struct sim_disk_options){0});
		world.cut_at = n;
		send(&w, DEV_WRITE, 0, 1, false);
		dev_poll(dev, false);
		send(&fl, DEV_FLUSH, 0, 0, false);
		dev_poll(dev, false);
		CHECK_EQ(world.power_off, w.done + fl.done < 2);
		CHECK_EQ(w.done, n > 2);
		reopen(SIM_KEEP_NONE);
		if (!durable_at && all_are(read_at(0), 1))
			durable_at = n;
		close_disk();
		if (w.done && fl.done)
			break;
	}
	/* Submission, acknowledgement, flush: after them the run is over. */
	CHECK_EQ(n, 4);
	CHECK_EQ(durable_at, 4);
}

TEST(dead_device_gives_blocked_callers_their_requests_back)
{
	struct tagged old, blocked;

	open_disk(test_seed(), (struct sim_disk_options){0});
	send(&old, DEV_WRITE, 0, 1, false);
	world.cut_at = world.events + 1;
	CHECK_EQ(dev_poll(dev, false), 0);
	CHECK(world.power_off);
	CHECK(!dev_help(dev));
	send(&blocked, DEV_READ, 0, 1, false);
	CHECK_EQ(finish(&blocked), -ENODEV);
	CHECK_EQ(old.done, 0);
	/* Even after the disk has come back, for somebody else. */
	CHECK_OK(sim_disk_crash(disk, SIM_KEEP_NONE));
	sim_world_power_on(&world);
	CHECK_EQ(dev_poll(dev, false), 0);
	CHECK_EQ(old.done, 0);
	close_disk();
}

TEST(images_leave_the_original_alone)
{
	struct sim_world other;
	struct sim_disk *image;
	struct dev *was = NULL;

	open_disk(test_seed(), (struct sim_disk_options){0});
	sim_world_init(&other, 1);
	CHECK_OK(sim_disk_new(&other, &(struct sim_disk_options){.size_bytes = DISK_BYTES},
			      &image));
	CHECK_OK(write_at(0, 1, false));
	CHECK_OK(sim_disk_image(disk, SIM_KEEP_NONE, image));
	CHECK(all_are(sim_disk_durable(image), 0));
	CHECK_OK(sim_disk_image(disk, SIM_KEEP_ALL, image));
	CHECK(all_are(sim_disk_durable(image), 1));
	CHECK_EQ(sim_disk_undurable(disk), 1);
	was = dev;
	CHECK_OK(sim_dev_open(image, &dev));
	CHECK(all_are(read_at(0), 1));
	CHECK_OK(write_at(0, 2, false));
	dev_close(dev);
	dev = was;
	CHECK(all_are(read_at(0), 1));
	/* The crash and the image agree for the same seed. */
	for (uint64_t seed = 0; seed < 20; seed++) {
		CHECK_OK(write_at(seed * BLOCK, 3, false));
		CHECK_OK(sim_disk_image(disk, SIM_KEEP_RANDOM(seed), image));
		reopen(SIM_KEEP_RANDOM(seed));
		CHECK_MEMEQ(sim_disk_durable(disk), sim_disk_durable(image), DISK_BYTES);
	}
	sim_disk_free(image);
	close_disk();
}

TEST(killed_process_leaves_the_cache)
{
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct tagged t;

		open_disk(test_seed() + seed, (struct sim_disk_options){0});
		CHECK_OK(write_at(0, 1, false));
		send(&t, DEV_WRITE, BLOCK, 2, false);
		sim_dev_kill(dev);
		CHECK_EQ(dev_poll(dev, false), 0);
		dev_close(dev);
		CHECK_OK(sim_dev_open(disk, &dev));
		CHECK(all_are(read_at(0), 1));
		CHECK_OK(flush());
		CHECK_EQ(sim_disk_undurable(disk), 0);
		CHECK_MEMEQ(read_at(BLOCK), (const uint8_t *)sim_disk_durable(disk) + BLOCK, BLOCK);
		close_disk();
	}
}

TEST(nth_request_fails_once_or_from_then_on)
{
	open_disk(test_seed(), (struct sim_disk_options){0});
	plan((struct sim_fault){.kind = SIM_DEV_ERROR, .ops = 1u << DEV_WRITE, .nth = 2,
				.times = 1, .error = -EIO});
	plan((struct sim_fault){.kind = SIM_DEV_ERROR, .ops = 1u << DEV_ZERO, .nth = 1,
				.error = -ENOSPC});
	CHECK_OK(write_at(0, 1, false));
	CHECK_EQ(write_at(0, 2, false), -EIO);
	CHECK_OK(write_at(0, 3, false));
	for (int i = 0; i < 3; i++) {
		struct tagged t;

		send(&t, DEV_ZERO, 0, 0, false);
		CHECK_EQ(finish(&t), -ENOSPC);
	}
	sim_disk_heal(disk);
	CHECK_OK(write_at(0, 4, false));
	close_disk();
}

TEST(failed_flush_loses_data_and_sticks)
{
	int lost = 0, phantom = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		open_disk(test_seed() + seed, (struct sim_disk_options){0});
		CHECK_OK(write_at(0, 1, false));
		plan((struct sim_fault){.kind = SIM_DEV_ERROR, .ops = 1u << DEV_FLUSH, .nth = 1,
					.times = 1, .error = -EIO});
		CHECK_EQ(flush(), -EIO);
		CHECK_EQ(flush(), -EIO);
		CHECK_EQ(write_at(BLOCK, 1, false), -EIO);
		phantom += all_are(read_at(0), 1) && !all_are(sim_disk_durable(disk), 1);
		reopen(SIM_KEEP_ALL);
		lost += !all_are(read_at(0), 1);
		CHECK_OK(write_at(BLOCK, 2, false));
		CHECK_OK(flush());
		close_disk();
	}
	CHECK(lost > 20 && phantom > 10);
}

TEST(lost_misdirected_and_lying)
{
	open_disk(test_seed(), (struct sim_disk_options){0});
	plan((struct sim_fault){.kind = SIM_DEV_LOST, .ops = 1u << DEV_WRITE, .nth = 1,
				.times = 1});
	CHECK_OK(write_at(0, 1, true));
	CHECK(all_are(read_at(0), 0));
	sim_disk_heal(disk);
	plan((struct sim_fault){.kind = SIM_DEV_MISDIRECT, .ops = 1u << DEV_WRITE, .nth = 1,
				.times = 1});
	CHECK_OK(write_at(0, 6, true));
	CHECK(memchr(sim_disk_durable(disk), 6, DISK_BYTES) != NULL);
	sim_disk_heal(disk);
	plan((struct sim_fault){.kind = SIM_DEV_FLUSH_LIE, .ops = 1u << DEV_FLUSH, .nth = 1});
	CHECK_OK(write_at(2 * BLOCK, 1, false));
	CHECK_OK(flush());
	reopen(SIM_KEEP_NONE);
	CHECK(!all_are(read_at(2 * BLOCK), 1));
	close_disk();
}

TEST(rot_hits_what_was_written)
{
	int64_t at;

	open_disk(test_seed(), (struct sim_disk_options){0});
	CHECK_EQ(sim_disk_rot(disk, 0, 0, 1), -ENOENT);
	CHECK_OK(write_at(3 * BLOCK, 1, true));
	at = sim_disk_rot(disk, 0, 0, 1);
	CHECK(at >= 3 * BLOCK && at < 4 * BLOCK);
	CHECK(!all_are(read_at(3 * BLOCK), 1));
	reopen(SIM_KEEP_ALL);
	CHECK(!all_are(read_at(3 * BLOCK), 1));
	close_disk();
}

TEST(latency_moves_the_clock)
{
	struct tagged t;

	open_disk(test_seed(), (struct sim_disk_options){.latency_ns = 500});
	send(&t, DEV_WRITE, 0, 1, false);
	CHECK_EQ(sim_dev_next_due_ns(dev), 500);
	CHECK_EQ(dev_poll(dev, false), 0);
	CHECK(!dev_help(dev));
	CHECK_EQ(dev_poll(dev, true), 1);
	CHECK_EQ(world.clock_ns, 500);
	CHECK_EQ(sim_dev_next_due_ns(dev), UINT64_MAX);
	close_disk();
}

TEST(bad_requests_are_refused)
{
	struct tagged t;

	open_disk(test_seed(), (struct sim_disk_options){.block_bytes = 4096, .no_discard = true});
	CHECK_EQ(write_at(512, 1, false), -EINVAL);
	CHECK_EQ(write_at(DISK_BYTES, 1, false), -EINVAL);
	CHECK_EQ(write_at(UINT64_MAX - 4095, 1, false), -EINVAL);
	send(&t, DEV_DISCARD, 0, 0, false);
	CHECK_EQ(finish(&t), -EOPNOTSUPP);
	send(&t, DEV_READ, 512, 0, false);
	CHECK_OK(finish(&t));
	close_disk();
}

TEST(scribbled_memory_is_counted)
{
	struct tagged t;

	open_disk(test_seed(), (struct sim_disk_options){0});
	send(&t, DEV_WRITE, 0, 1, false);
	t.buf[77] = 2;
	CHECK_OK(finish(&t));
	CHECK_EQ(sim_disk_scribbles(disk), 1);
	close_disk();
}

TEST(lock_excludes_until_death)
{
	struct dev *other;
	struct err err = ERR_INIT;

	open_disk(test_seed(), (struct sim_disk_options){0});
	CHECK_OK(sim_dev_open(disk, &other));
	CHECK_OK(dev->ops->lock(dev, &err));
	CHECK_EQ(other->ops->lock(other, &err), -EBUSY);
	sim_dev_kill(dev);
	CHECK_OK(other->ops->lock(other, &err));
	dev_close(other);
	close_disk();
}

/* Not a timed test: how fast it is goes into the notes, which -v shows. */
TEST(many_crashes)
{
	struct timespec a, b;
	struct rng rng;

	open_disk(test_seed(), (struct sim_disk_options){0});
	rng_seed(&rng, test_seed());
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < 20000; i++) {
		for (int j = 0; j < 6; j++)
			CHECK_OK(write_at(rng_below(&rng, 64) * BLOCK, (uint8_t)i, j == 3));
		dev_close(dev);
		CHECK_OK(sim_dev_crash(disk, &rng));
		CHECK_OK(sim_dev_open(disk, &dev));
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	test_note("20000 crashes in %.3f s",
		  (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
	CHECK_EQ(sim_disk_events(disk), 20000 * 12);
	close_disk();
}
