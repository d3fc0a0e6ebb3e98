/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crashes of what happens to a pool as a whole: making it over another one, closing it, losing a
 * superblock, repairing it. Every fence, and as many images at each as there are, or a share.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "btt/btt_impl.h"
#include "lib/crash_report.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

#define POOL_BYTES (9u * BTT_PAGE)
#define BLOCK_BYTES 64u
#define SECTORS 4u

struct scene {
	const char *test;
	struct rng rng;
	void (*judge)(struct scene *scene, struct pmem *pm);
	bool on;
	unsigned max;
	/* What each sector holds: the byte that it is full of; may_be, if that is not 0, too. */
	uint8_t holds[SECTORS], may_be[SECTORS];
	unsigned lost; /* a bit for each sector that may be an error */
	bool may_be_none;
};

static int look(void *arg, const uint8_t *image, uint64_t n)
{
	const struct pm_shadow_options opt = {.len_bytes = POOL_BYTES, .image = image};
	struct scene *scene = arg;
	struct pmem *pm;

	(void)n;
	CHECK_OK(pm_shadow_open(&opt, &pm));
	scene->judge(scene, pm);
	pm_close(pm);
	return 0;
}

static void at_fence(struct pmem *pm, enum pm_shadow_point point, void *arg)
{
	struct scene *scene = arg;
	const struct pm_shadow_plan plan = {.max = scene->max, .seed = rng_next(&scene->rng)};

	(void)point;
	if (scene->on)
		CHECK_OK(pm_shadow_images(pm, &plan, look, scene, NULL, NULL));
}

static struct pmem *begin(struct scene *scene, const char *test, unsigned max)
{
	const struct pm_shadow_options opt = {
		.len_bytes = POOL_BYTES, .on_point = at_fence, .arg = scene};
	struct pmem *pm;

	crash_begin(test, test_seed());
	rng_seed(&scene->rng, test_seed());
	scene->max = max;
	CHECK_OK(pm_shadow_open(&opt, &pm));
	return pm;
}

static struct btt *make(struct pmem *pm, uint64_t uuid, struct err *err)
{
	const struct btt_options opt = {.block_bytes = BLOCK_BYTES,
					.spares = 6,
					.overwrite = true,
					.uuid = uuid_from_bits(uuid, 1)};
	struct btt *btt = NULL;
	int r = btt_create(pm, &opt, &btt, err);

	if (r)
		crash_fail("create: %s", err_text(err, r));
	return btt;
}

static void write_all(struct btt *btt, struct scene *scene, uint8_t with)
{
	uint8_t block[BLOCK_BYTES];

	for (unsigned s = 0; s < SECTORS; s++) {
		scene->holds[s] = (uint8_t)(with + s);
		memset(block, scene->holds[s], sizeof(block));
		CHECK_OK(btt_write(btt, s, block));
	}
}

static void judge_sector(const struct scene *scene, struct btt *btt, unsigned s)
{
	uint8_t block[BLOCK_BYTES], want[BLOCK_BYTES];
	int r = btt_read(btt, s, block);

	if (r == -EIO && scene->lost >> s & 1)
		return;
	if (r)
		crash_fail("sector %u: %s", s, strerror(-r));
	if (scene->may_be[s] && block[0] == scene->may_be[s] - 1)
		memset(want, block[0], sizeof(want));
	else
		memset(want, scene->holds[s], sizeof(want));
	if (memcmp(block, want, sizeof(block)))
		crash_fail("sector %u: 0x%02x, not 0x%02x", s, block[0], want[0]);
}

static void judge_pool(struct scene *scene, struct pmem *pm)
{
	struct err err = ERR_INIT;
	struct btt *btt;
	int r = btt_open(pm, NULL, &btt, &err);

	if (r && scene->may_be_none && (r == -EINVAL || r == -EBADMSG))
		return;
	if (r)
		crash_fail("open: %s", err_text(&err, r));
	for (unsigned s = 0; s < SECTORS; s++)
		judge_sector(scene, btt, s);
	btt_abandon(btt);
}

/* While a pool is made over another one, there is the old one, none, or the new one. */
static void judge_remade(struct scene *scene, struct pmem *pm)
{
	struct btt_found found;

	const struct uuid remade = uuid_from_bits(2, 1);
	struct scene fresh = {.judge = judge_pool};

	if (!btt_super_find(pm, &found, NULL) && uuid_equal(&found.uuid, &remade))
		judge_pool(&fresh, pm);
	else
		judge_pool(scene, pm);
}

TEST(btt_made_over_another)
{
	struct scene scene = {.judge = judge_remade, .may_be_none = true};
	struct pmem *pm = begin(&scene, "btt_made_over_another", (unsigned)crash_images(10000));
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);

	write_all(btt, &scene, 0x10);
	CHECK_OK(btt_close(btt));
	scene.on = true;
	btt = make(pm, 2, &err);
	scene.on = false;
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

/* The first superblock is lost as well: the second must not promise what the table has left. */
static void judge_without_first(struct scene *scene, struct pmem *pm)
{
	uint8_t damage[BTT_PAGE];

	judge_pool(scene, pm);
	memset(damage, 0x55, sizeof(damage));
	CHECK_OK(pm_write(pm, pm->base, damage, sizeof(damage)));
	judge_pool(scene, pm);
}

TEST(btt_first_superblock_is_lost)
{
	struct scene scene = {.judge = judge_without_first};
	struct pmem *pm =
		begin(&scene, "btt_first_superblock_is_lost", (unsigned)crash_images(1000));
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);
	uint8_t block[BLOCK_BYTES];

	write_all(btt, &scene, 0x10);
	CHECK_OK(btt_close(btt));
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	/* The first write takes the list back; while the pair is written one may be torn. */
	memset(block, 0x20, sizeof(block));
	CHECK_OK(btt_write(btt, 0, block));
	scene.holds[0] = 0x20;
	scene.on = true;
	for (unsigned i = 0; i < 8; i++) {
		scene.may_be[1] = (uint8_t)(0x30 + i + 1);
		memset(block, 0x30 + (int)i, sizeof(block));
		CHECK_OK(btt_write(btt, 1, block));
		scene.holds[1] = block[0];
	}
	scene.on = false;
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

/* The power fails again, at the first write and the close that follow the first crash. */
static void judge_twice(struct scene *scene, struct pmem *pm)
{
	struct scene again = {.judge = judge_pool, .on = true, .max = scene->max};
	const struct pm_shadow_options opt = {
		.len_bytes = POOL_BYTES, .image = pm->base, .on_point = at_fence, .arg = &again};
	uint8_t block[BLOCK_BYTES];
	struct pmem *second;
	struct btt *btt;

	judge_pool(scene, pm);
	memcpy(again.holds, scene->holds, sizeof(again.holds));
	rng_seed(&again.rng, rng_next(&scene->rng));
	CHECK_OK(pm_shadow_open(&opt, &second));
	CHECK_OK(btt_open(second, NULL, &btt, NULL));
	memset(block, scene->holds[0], sizeof(block));
	CHECK_OK(btt_write(btt, 0, block));
	CHECK_OK(btt_close(btt));
	again.on = false;
	pm_close(second);
}

TEST(btt_superblocks_are_torn_twice)
{
	struct scene scene = {.judge = judge_twice};
	struct pmem *pm = begin(&scene, "btt_superblocks_are_torn_twice", 24);
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);
	uint8_t block[BLOCK_BYTES];

	write_all(btt, &scene, 0x10);
	memset(block, 0x10, sizeof(block));
	CHECK_OK(btt_close(btt));
	scene.on = true;
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	CHECK_OK(btt_write(btt, 0, block));
	CHECK_OK(btt_close(btt));
	scene.on = false;
	pm_close(pm);
}

/* Nothing of a close, of a creation or of a first write is left to chance. */
TEST(btt_nothing_is_left_undurable)
{
	struct scene scene = {.judge = judge_pool};
	struct pmem *pm = begin(&scene, "btt_nothing_is_left_undurable", 1);
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);

	CHECK_EQ(pm_shadow_undurable(pm), 0);
	write_all(btt, &scene, 0x10);
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	CHECK_OK(btt_set_zero(btt, 0));
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	CHECK_OK(btt_close(btt));
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	pm_close(pm);
}

/* What pthread_exit() leaves in the middle of a call. */
static void die_when_swapped(void *arg, const char *name)
{
	(void)arg;
	if (!strcmp(name, "swapped"))
		pthread_exit(NULL);
}

static void *zero_and_die(void *arg)
{
	btt_set_zero(arg, 0);
	return NULL;
}

/* The next process opens by the list, and would show what a power cut then undoes. */
TEST(btt_dead_threads_entry_is_durable_at_a_close)
{
	struct scene scene = {.judge = judge_pool};
	struct pmem *pm = begin(&scene, "btt_dead_threads_entry_is_durable_at_a_close", 64);
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);
	pthread_t thread;

	write_all(btt, &scene, 0x10);
	btt->point = die_when_swapped;
	CHECK_EQ(pthread_create(&thread, NULL, zero_and_die, btt), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	btt->point = NULL;
	CHECK(pm_shadow_undurable(pm) > 0);
	CHECK_OK(btt_close(btt));
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	scene.holds[0] = 0;
	judge_pool(&scene, pm);
	pm_close(pm);
}

static bool yes(void *arg, const struct btt_problem *problem)
{
	unsigned *problems = arg;

	crash_trace("%s", problem->text);
	*problems += problem->can_repair;
	return true;
}

static struct btt_check_result check(struct pmem *pm, bool repair)
{
	struct btt_check_result result;
	unsigned problems = 0;
	const struct btt_check_options opt = {.repair = repair, .problem = yes, .arg = &problems};
	struct err err = ERR_INIT;
	int r = btt_check(pm, &opt, &result, &err);

	if (r)
		crash_fail("check: %s", err_text(&err, r));
	CHECK_EQ(result.problems, problems);
	return result;
}

/* However far the repair came: it can be done again, and then the pool is whole. */
static void judge_repair(struct scene *scene, struct pmem *pm)
{
	struct btt_check_result result;

	check(pm, true);
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	result = check(pm, false);
	CHECK_EQ(result.problems, 0);
	judge_pool(scene, pm);
}

static void poke(struct pmem *pm, struct btt *btt, uint64_t lba, uint64_t entry)
{
	pm_publish8(pm, &btt->map[lba], entry_disk(entry));
	CHECK_OK(pm_fence(pm));
}

/* A kill, a repair of what the table shows, and then a power cut: the table is what it showed. */
TEST(btt_repair_after_a_kill)
{
	struct scene scene = {.judge = judge_repair};
	struct pmem *pm = begin(&scene, "btt_repair_after_a_kill", (unsigned)crash_images(1000));
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);
	struct btt_check_result result;
	uint64_t spare;

	write_all(btt, &scene, 0x10);
	/* In another line: what is repaired there does not flush it. */
	poke(pm, btt, 2 * PM_LINE_BYTES / 8, 0);
	/* A writer has swapped, and was killed before its flush. */
	spare = btt->lanes[0].spare;
	pm_copy(pm, btt_data(btt, spare), btt_data(btt, entry_block(btt_load_entry(btt, 0))),
		BLOCK_BYTES);
	CHECK_OK(pm_fence(pm));
	pm_store8(pm, &btt->map[0], entry_disk(entry_make(0, btt->salt, spare, BTT_ENTRY_DATA)));
	btt_abandon(btt);
	scene.on = true;
	result = check(pm, true);
	scene.on = false;
	CHECK_EQ(result.repaired, 1);
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	judge_repair(&scene, pm);
	pm_close(pm);
}

TEST(btt_repair_is_cut_short)
{
	struct scene scene = {.judge = judge_repair, .lost = 0x7};
	struct pmem *pm = begin(&scene, "btt_repair_is_cut_short", (unsigned)crash_images(2000));
	struct err err = ERR_INIT;
	struct btt *btt = make(pm, 1, &err);
	struct btt_check_result result;
	uint64_t entry;

	write_all(btt, &scene, 0x10);
	CHECK_OK(btt_close(btt));
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	/* The list still counts. One entry is damaged, two sectors claim one block. */
	poke(pm, btt, 0, 0);
	entry = btt_load_entry(btt, 1);
	poke(pm, btt, 2, entry_make(2, btt->salt, entry_block(entry), BTT_ENTRY_DATA));
	btt_abandon(btt);
	scene.on = true;
	result = check(pm, true);
	scene.on = false;
	CHECK_EQ(result.problems, 2);
	CHECK_EQ(result.repaired, 3);
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	judge_repair(&scene, pm);
	CHECK_EQ(check(pm, false).error_sectors, 3);
	/* What was repaired can be written, and no block is used twice. */
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	for (unsigned i = 0; i < 8; i++)
		write_all(btt, &scene, (uint8_t)(0x40 + i));
	scene.lost = 0;
	btt_abandon(btt);
	judge_pool(&scene, pm);
	pm_close(pm);
}
