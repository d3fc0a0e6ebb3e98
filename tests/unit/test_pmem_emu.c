/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emulated persistent memory on a device that keeps what it is given, and on one that does not.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/rng.h"
#include "dev/mem.h"
#include "dev/sim.h"
#include "lib/tap.h"
#include "pmem/emu.h"
#include "pmem/emu_layout.h"

#define OFF 8192
#define UNITS 10
#define LEN (4096 * (2 + 2 * UNITS))
#define PAYLOAD (4096 - 64)

static struct dev *dev;
static struct pmem *pm;
static struct sim_world world;
static struct sim_disk *disk;
static struct err err;

static void open_dev(uint32_t block_bytes)
{
	CHECK_OK(dev_mem_open(&(struct dev_mem_options){.size_bytes = 1 << 20,
							.block_bytes = block_bytes},
			      &dev, &err));
}

static void format(void)
{
	const struct uuid uuid = uuid_from_bits(1, 2);

	if (pm_emu_format(dev, OFF, LEN, &uuid, &err))
		FAIL("%s", err.text);
}

static void open_emu(void)
{
	err_clear(&err);
	if (pm_emu_open(dev, OFF, LEN, &pm, NULL, &err))
		FAIL("%s", err.text);
}

static int try_open(void)
{
	int r;

	err_clear(&err);
	r = pm_emu_open(dev, OFF, LEN, &pm, NULL, &err);
	if (!r)
		pm_close(pm);
	else
		CHECK(err.text[0]);
	return r;
}

static void reopen(void)
{
	pm_close(pm);
	open_emu();
}

TEST(a_new_memory_is_zeros)
{
	struct uuid uuid = uuid_from_bits(1, 2), found;

	open_dev(512);
	format();
	CHECK_OK(pm_emu_open(dev, OFF, LEN, &pm, &found, &err));
	CHECK(uuid_equal(&uuid, &found));
	CHECK_EQ(pm->len_bytes, (size_t)UNITS * PAYLOAD);
	CHECK_STREQ(pm_mode_text(pm), "emu");
	for (size_t i = 0; i < pm->len_bytes; i++)
		CHECK(!pm->base[i]);
	pm_close(pm);
	dev_close(dev);
}

TEST(bytes_of_any_alignment_come_back)
{
	static uint8_t want[UNITS * PAYLOAD];
	struct rng rng;

	rng_seed(&rng, test_seed());
	open_dev(512);
	format();
	open_emu();
	for (int i = 0; i < 300; i++) {
		size_t at = rng_below(&rng, pm->len_bytes), n = 1 + rng_below(&rng, 9000);

		n = n < pm->len_bytes - at ? n : pm->len_bytes - at;
		rng_fill(&rng, want + at, n);
		if (rng_chance(&rng, 1, 4)) {
			memset(want + at, 7, n);
			pm_set(pm, pm->base + at, 7, n);
		} else {
			pm_copy(pm, pm->base + at, want + at, n);
		}
		CHECK_OK(pm_fence(pm));
		if (i % 30 == 0)
			reopen();
		CHECK_MEMEQ(pm->base, want, sizeof(want));
	}
	reopen();
	CHECK_MEMEQ(pm->base, want, sizeof(want));
	pm_close(pm);
	dev_close(dev);
}

TEST(words_come_back_when_flushed)
{
	_Atomic uint64_t *word;
	uint64_t expected = 5;

	open_dev(4096);
	format();
	open_emu();
	word = (_Atomic uint64_t *)(pm->base + PAYLOAD);
	pm_publish8(pm, word, 5);
	CHECK_OK(pm_fence(pm));
	CHECK(pm_cas8(pm, word, &expected, 6));
	pm_store8(pm, word + 1, 1);
	reopen();
	word = (_Atomic uint64_t *)(pm->base + PAYLOAD);
	CHECK_EQ(pm_load8(word), 5);
	CHECK_EQ(pm_load8(word + 1), 0);
	pm_close(pm);
	dev_close(dev);
}

TEST(a_fence_writes_what_changed_and_nothing_else)
{
	struct dev_counters before, after;
	struct pm_emu_info info;

	open_dev(512);
	format();
	open_emu();
	dev->ops->counters(dev, &before);
	pm_set(pm, pm->base + 10, 1, 20);
	pm_set(pm, pm->base + 100, 1, 20);
	CHECK_OK(pm_fence(pm));
	dev->ops->counters(dev, &after);
	CHECK_EQ(after.writes - before.writes, 1);
	CHECK_EQ(after.flushes, before.flushes);
	pm_set(pm, pm->base + PAYLOAD - 1, 1, 2);
	CHECK_OK(pm_fence(pm));
	CHECK_OK(pm_fence(pm));
	dev->ops->counters(dev, &after);
	CHECK_EQ(after.writes - before.writes, 3);
	CHECK_EQ(after.flushes - before.flushes, 1);
	pm_emu_info(pm, &info);
	CHECK_EQ(info.units, UNITS);
	CHECK_EQ(info.batches, 2);
	CHECK_EQ(info.written, 3);
	pm_close(pm);
	dev_close(dev);
}

TEST(what_is_no_memory_is_refused)
{
	const struct uuid uuid = uuid_from_bits(1, 2);

	open_dev(512);
	CHECK_EQ(try_open(), -ENODEV);
	CHECK_EQ(pm_emu_format(dev, 1, LEN, &uuid, NULL), -EINVAL);
	CHECK_EQ(pm_emu_format(dev, 0, 3 * 4096, &uuid, NULL), -EINVAL);
	CHECK_EQ(pm_emu_format(dev, 512, 1 << 20, &uuid, NULL), -EINVAL);
	format();
	CHECK_OK(try_open());
	CHECK_EQ(pm_emu_open(dev, OFF, LEN - 4096, &pm, NULL, NULL), -EXDEV);
	CHECK_EQ(pm_emu_open(dev, OFF + 4096, LEN, &pm, NULL, NULL), -EXDEV);
	dev_close(dev);
}

TEST(a_new_format_forgets_the_old_one)
{
	const struct uuid other = uuid_from_bits(3, 4);

	open_dev(512);
	format();
	open_emu();
	for (int i = 0; i < 5; i++) {
		pm_set(pm, pm->base, 7, pm->len_bytes);
		CHECK_OK(pm_fence(pm));
	}
	pm_close(pm);
	CHECK_OK(pm_emu_format(dev, OFF, LEN, &other, &err));
	open_emu();
	for (size_t i = 0; i < pm->len_bytes; i++)
		CHECK(!pm->base[i]);
	pm_close(pm);
	dev_close(dev);
}

/* A disk whose bytes a test may change; two fences have made three batches of unit 3. */
static void open_on_disk(void)
{
	sim_world_init(&world, test_seed());
	CHECK_OK(sim_disk_new(&world, &(struct sim_disk_options){.size_bytes = 1 << 20}, &disk));
	CHECK_OK(sim_dev_open(disk, &dev));
	format();
	open_emu();
	for (int i = 1; i <= 2; i++) {
		pm_set(pm, pm->base + 3 * PAYLOAD, i, PAYLOAD);
		CHECK_OK(pm_fence(pm));
	}
}

static uint64_t place(unsigned side, uint64_t unit)
{
	return OFF + 4096 * (2 + side * UNITS + unit);
}

static void smash(uint64_t at, size_t len)
{
	static uint8_t junk[4096];

	memset(junk, 0xa5, sizeof(junk));
	sim_disk_poke(disk, at, junk, len);
}

static void advance(void)
{
	pm_set(pm, pm->base, 9, 8);
	CHECK_OK(pm_fence(pm));
}

TEST(an_older_copy_may_be_damaged)
{
	open_on_disk();
	/* Batch 3 of unit 3 is in its first place; batch 2 in the second is about to go. */
	smash(place(1, 3) + 1000, 10);
	reopen();
	CHECK_EQ(pm->base[3 * PAYLOAD], 2);
	pm_close(pm);
	smash(place(1, 3), 4096);
	open_emu();
	CHECK_EQ(pm->base[3 * PAYLOAD], 2);
	pm_close(pm);
	dev_close(dev);
	sim_disk_free(disk);
}

TEST(a_write_torn_at_any_byte_is_undone)
{
	struct pm_emu_info info;

	for (size_t cut = 33; cut < 4096 - 32; cut += 97) {
		open_on_disk();
		smash(place(0, 3) + cut, 4096 - 32 - cut);
		reopen();
		CHECK_EQ(pm->base[3 * PAYLOAD], 1);
		CHECK_EQ(pm->base[4 * PAYLOAD - 1], 1);
		pm_emu_info(pm, &info);
		CHECK_EQ(info.torn, 1);
		/* What was mended does not look damaged later. */
		advance();
		reopen();
		CHECK_EQ(pm->base[3 * PAYLOAD], 1);
		pm_emu_info(pm, &info);
		CHECK_EQ(info.torn, 0);
		pm_close(pm);
		dev_close(dev);
		sim_disk_free(disk);
	}
}

TEST(rot_of_what_was_durable_is_refused)
{
	open_on_disk();
	advance();
	pm_close(pm);
	smash(place(0, 3) + 2000, 1);
	CHECK_EQ(try_open(), -EBADMSG);
	CHECK(strstr(err.text, "unit 3"));
	/* The first stamp alone is enough to tell, and so is the second. */
	smash(place(0, 3) + 4096 - 32, 32);
	CHECK_EQ(try_open(), -EBADMSG);
	dev_close(dev);
	sim_disk_free(disk);
	open_on_disk();
	advance();
	pm_close(pm);
	smash(place(0, 3), 32);
	CHECK_EQ(try_open(), -EBADMSG);
	dev_close(dev);
	sim_disk_free(disk);
}

TEST(damage_of_both_copies_is_refused)
{
	open_on_disk();
	pm_close(pm);
	smash(place(0, 3) + 500, 100);
	smash(place(1, 3) + 500, 100);
	CHECK_EQ(try_open(), -EBADMSG);
	dev_close(dev);
	sim_disk_free(disk);
}

TEST(one_superblock_is_enough_and_is_doubled_again)
{
	for (unsigned i = 0; i < 2; i++) {
		open_on_disk();
		smash(OFF + 4096 * i, 4096);
		reopen();
		CHECK_EQ(pm->base[3 * PAYLOAD], 2);
		pm_close(pm);
		smash(OFF + 4096 * !i + 20, 1);
		open_emu();
		pm_close(pm);
		smash(OFF, 64);
		smash(OFF + 4096 + 30, 1);
		CHECK_EQ(try_open(), -EBADMSG);
		dev_close(dev);
		sim_disk_free(disk);
	}
}

TEST(a_failed_write_stays_failed)
{
	const struct sim_fault fault = {
		.kind = SIM_DEV_ERROR, .ops = 1u << DEV_WRITE, .error = -EIO, .nth = 1, .times = 1};

	open_on_disk();
	CHECK_OK(sim_disk_fault(disk, &fault));
	pm_set(pm, pm->base, 1, 8);
	CHECK_EQ(pm_fence(pm), -EIO);
	CHECK_EQ(pm_fence(pm), -EIO);
	pm_close(pm);
	open_emu();
	CHECK_EQ(pm->base[3 * PAYLOAD], 2);
	advance();
	pm_close(pm);
	dev_close(dev);
	sim_disk_free(disk);
}

static void *fence_often(void *arg)
{
	uint8_t *at = arg;

	for (int i = 1; i <= 200; i++) {
		pm_set(pm, at, i, 3000);
		CHECK_OK(pm_fence(pm));
	}
	return NULL;
}

TEST(threads_share_fences)
{
	pthread_t threads[4];

	open_dev(512);
	format();
	open_emu();
	for (size_t i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, fence_often, pm->base + i * 3000), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	reopen();
	for (size_t i = 0; i < 12000; i++)
		CHECK_EQ(pm->base[i], 200);
	pm_close(pm);
	dev_close(dev);
}

TEST(a_range_that_was_freed_is_no_memory_and_can_be_one_again)
{
	open_dev(512);
	err_clear(&err);
	CHECK_EQ(pm_emu_free(dev, OFF, LEN, &err), -ENODEV);
	format();
	err_clear(&err);
	CHECK_EQ(pm_emu_free(dev, OFF, LEN - 8192, &err), -EXDEV);
	open_emu();
	pm_close(pm);
	err_clear(&err);
	CHECK_OK(pm_emu_free(dev, OFF, LEN, &err));
	CHECK_EQ(try_open(), -ENODEV);
	format();
	CHECK_EQ(try_open(), 0);
	dev_close(dev);
}
