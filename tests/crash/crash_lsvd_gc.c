/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection and checkpoints against crashes: each rule of deleting (src/lsvd/doom.c) as a
 * story that ends badly without it, the faults of published object-stream disks among them; then
 * everything at once, with a crash at each step.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_lsvd.h"
#include "lib/crash_scene.h"
#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/codec.h"
#include "lsvd/lsvd_check.h"

#define SECOND UINT64_C(1000000000)

static struct lsvd_status status(struct lsvd_rig *rig)
{
	struct lsvd_status st;

	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	return st;
}

static void one_object(struct lsvd_rig *rig, uint32_t lba)
{
	CHECK_OK(rig_write(rig, lba, 8));
	CHECK_OK(rig_drain(rig));
}

static void copy_key(char *to, const char *from)
{
	CHECK(from != NULL);
	memcpy(to, from, strlen(from) + 1);
}

static bool exists(struct lsvd_rig *rig, const char *key)
{
	size_t len;

	return sim_bucket_body(rig->bucket, key, &len) != NULL;
}

static void sound(struct store *store, const char *name)
{
	struct lsvd_check check = {0};
	struct err err = ERR_INIT;

	CHECK_OK(lsvd_check(store, name, &check, &err));
	CHECK_EQ(check.problems, 0);
}

/* Collects by itself, deletes at once. */
static struct lsvd_rig *eager(void)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.gc_start_percent = 90;
	rig->opt.gc_stop_percent = 95;
	rig->opt.gc_min_age_ns = 0;
	rig->opt.shard_sectors_log2 = 25;
	CHECK_OK(rig_open(rig));
	return rig;
}

/* As after the loss of the machine: from the store alone, by whichever root can be read. */
static void store_alone(struct lsvd_rig *rig, bool older)
{
	char key[STORE_KEY_MAX + 1];

	rig_crash(rig);
	if (older) {
		copy_key(key, rig_object(rig, 'r', 1));
		rig_rot(rig, key, 170);
	}
	CHECK_OK(rig_look(rig, true, true));
	rig_verify(rig);
	rig_close(rig);
}

/* An object is not deleted because nothing in it is live: what follows it would be lost. */
TEST(dead_is_not_deletable)
{
	struct lsvd_rig *rig = eager();

	one_object(rig, 0);
	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 8);
	one_object(rig, 8);
	one_object(rig, 16);
	host_single_advance(&rig->hs, 10 * SECOND);
	CHECK_EQ(rig_objects(rig, 'd'), 4);
	store_alone(rig, false);
	rig_free(rig);
}

static void ended(struct drain *drain, int error)
{
	(void)drain;
	(void)error;
}

/* Nor because a checkpoint has begun: it is not there yet. */
TEST(a_checkpoint_that_never_ended_frees_nothing)
{
	struct lsvd_rig *rig = eager();
	struct sim_fault out = {.kind = SIM_STORE_ERROR,
				.ops = 1u << STORE_PUT_NEW,
				.error = -EIO,
				.nth = 1};
	struct drain d = {.done = ended};

	one_object(rig, 0);
	one_object(rig, 8);
	one_object(rig, 8);
	one_object(rig, 16);
	CHECK_OK(sim_bucket_fault(rig->bucket, &out));
	host_enter(&rig->hs.host);
	lsvd_gc(rig->lsvd, &d);
	host_leave(&rig->hs.host);
	host_single_advance(&rig->hs, SECOND);
	CHECK_EQ(rig_objects(rig, 'r'), 0);
	CHECK_EQ(rig_objects(rig, 'd'), 4);
	sim_bucket_heal(rig->bucket);
	store_alone(rig, false);
	rig_free(rig);
}

/* The older checkpoint is kept in case the newer one is damaged, and rolls forward over more. */
TEST(the_older_checkpoint_still_opens)
{
	struct lsvd_rig *rig = eager();

	one_object(rig, 0);
	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 8);
	one_object(rig, 8);
	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 16); /* goes on collecting */
	host_single_advance(&rig->hs, 10 * SECOND);
	CHECK_EQ(rig_objects(rig, 'r'), 2);
	sound(rig->store, RIG_NAME);
	store_alone(rig, true);
	rig_free(rig);
}

/* Data that has been moved: the older checkpoint's map still names the old place. */
TEST(the_older_checkpoint_finds_moved_data)
{
	struct lsvd_rig *rig = eager();

	CHECK_OK(rig_write(rig, 0, 64));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_checkpoint(rig));
	for (unsigned i = 0; i < 7; i++)
		one_object(rig, i * 8);
	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 100);
	for (unsigned i = 0; i < 20; i++)
		host_single_advance(&rig->hs, SECOND);
	CHECK(status(rig).gc_rounds > 0);
	sound(rig->store, RIG_NAME);
	rig_verify(rig);
	store_alone(rig, true);
	rig_free(rig);
}

struct slow_read {
	struct dev_req req;
	bool done;
};

static void slow_read_done(struct dev_req *req)
{
	container_of(req, struct slow_read, req)->done = true;
}

/* A read has looked an object up; before it is through, the object dies and could go. */
TEST(a_read_keeps_its_object)
{
	struct lsvd_rig *rig = eager();
	struct slow_read read = {.req = {.op = DEV_READ, .done = slow_read_done}};
	struct sim_fault out = {
		.kind = SIM_STORE_ERROR, .ops = 1u << STORE_GET, .error = -EIO, .nth = 1};
	char key[STORE_KEY_MAX + 1];
	uint8_t buf[4096];

	one_object(rig, 0);
	copy_key(key, rig_object(rig, 'd', 0));
	memcpy(out.key_part, key, strlen(key) + 1);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_read(rig, 0, 1, buf)); /* its header is known from here on */
	CHECK_OK(sim_bucket_fault(rig->bucket, &out));
	dev_req_buf(&read.req, buf, sizeof(buf));
	host_enter(&rig->hs.host);
	wlog_read_begin(lsvd_log(rig->lsvd), &read.req);
	host_leave(&rig->hs.host);
	wlog_read_copy(lsvd_log(rig->lsvd), &read.req);
	host_single_settle(&rig->hs);
	CHECK(!read.done);
	for (unsigned i = 0; i < 4; i++) {
		one_object(rig, 0);
		CHECK_OK(rig_checkpoint(rig));
	}
	one_object(rig, 8);
	host_single_advance(&rig->hs, SECOND);
	CHECK(!read.done);
	CHECK(exists(rig, key));
	sim_bucket_heal(rig->bucket);
	for (unsigned i = 0; i < 100 && !read.done; i++)
		host_single_advance(&rig->hs, SECOND);
	CHECK(read.done);
	CHECK_OK(read.req.result);
	host_single_advance(&rig->hs, 5 * SECOND);
	CHECK(!exists(rig, key));
	rig_verify(rig);
	rig_free(rig);
}

/* Who opened before, and only looks on, still finds what its checkpoint names. */
TEST(an_onlooker_is_given_time)
{
	struct lsvd_rig *rig = eager();
	struct lsvd_rig *other = rig_new(test_seed() + 1);
	struct store *own = other->store;
	uint8_t buf[4096];

	rig_crash(rig);
	rig->opt.gc_min_age_ns = 60 * SECOND;
	CHECK_OK(rig_open(rig));
	one_object(rig, 0);
	CHECK_OK(rig_checkpoint(rig));
	CHECK_OK(sim_store_open(rig->bucket, 2, &other->store));
	other->hs.store = other->store;
	CHECK_OK(rig_look(other, true, true));
	one_object(rig, 0);
	CHECK_OK(rig_gc(rig));
	CHECK_EQ(status(rig).gc_waiting, 1);
	host_single_advance(&rig->hs, 30 * SECOND);
	CHECK_OK(rig_read(other, 0, 8, buf));
	rig_close(other);
	store_close(other->store);
	other->store = other->hs.store = own;
	rig_free(other);
	rig_free(rig);
}

/* An owner that has been replaced finds out before it deletes anything. */
TEST(a_former_owner_deletes_nothing)
{
	struct lsvd_rig *rig = eager();
	struct lsvd_rig *second = rig_new(test_seed() + 1);
	struct store *own = second->store;

	rig_crash(rig);
	rig->opt.gc_min_age_ns = 60 * SECOND;
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 4; i++)
		one_object(rig, 0);
	CHECK_OK(rig_gc(rig));
	CHECK_EQ(status(rig).gc_waiting, 3);
	CHECK_OK(sim_store_open(rig->bucket, 2, &second->store));
	second->hs.store = second->store;
	CHECK_OK(rig_look(second, true, true));
	CHECK_OK(rig_acquire(second));
	for (unsigned i = 0; i < 70; i++)
		host_single_advance(&rig->hs, SECOND);
	CHECK_EQ(rig_objects(rig, 'd'), 4);
	CHECK_EQ(status(rig).failed, -ESTALE);
	rig_close(second);
	store_close(second->store);
	second->store = second->hs.store = own;
	rig_free(second);
	rig_free(rig);
}

/* What was written while its old version was being moved stays what it is. */
TEST(a_move_yields_to_an_overwrite)
{
	struct lsvd_rig *rig = eager();
	struct sim_fault slow = {.kind = SIM_STORE_ERROR,
				 .ops = 1u << STORE_GET,
				 .error = -EIO,
				 .nth = 1,
				 .times = 3};

	CHECK_OK(rig_write(rig, 0, 64));
	CHECK_OK(rig_drain(rig));
	for (unsigned i = 0; i < 6; i++)
		one_object(rig, i * 8);
	CHECK_OK(rig_checkpoint(rig));
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	/* Its reads take a while, and meanwhile what it reads is overwritten. */
	CHECK_OK(sim_bucket_fault(rig->bucket, &slow));
	one_object(rig, 200);
	one_object(rig, 48);
	for (unsigned i = 0; i < 20; i++)
		host_single_advance(&rig->hs, SECOND);
	one_object(rig, 208);
	sim_bucket_heal(rig->bucket);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	store_alone(rig, false);
	rig_free(rig);
}

/* An old checkpoint goes when the superblock no longer names it, not when it will not soon. */
TEST(an_old_checkpoint_stays_while_it_is_named)
{
	struct lsvd_rig *rig = eager();
	struct sim_fault out = {.kind = SIM_STORE_ERROR,
				.ops = 1u << STORE_REPLACE,
				.error = -EIO,
				.nth = 1};
	struct drain d = {.done = ended};

	for (unsigned i = 0; i < 2; i++) {
		one_object(rig, i * 8);
		CHECK_OK(rig_checkpoint(rig));
	}
	one_object(rig, 16);
	CHECK_OK(sim_bucket_fault(rig->bucket, &out));
	host_enter(&rig->hs.host);
	lsvd_checkpoint(rig->lsvd, &d);
	host_leave(&rig->hs.host);
	host_single_advance(&rig->hs, 3 * SECOND);
	CHECK_EQ(rig_objects(rig, 'r'), 3);
	sound(rig->store, RIG_NAME);
	store_alone(rig, false);
	rig_free(rig);
}

/* ---- everything, with a crash at each step */

static void busy_config(struct crash_config *cfg)
{
	cfg->checkpoint_objects = 3;
	cfg->part_bytes = 4096;
	cfg->batch_bytes = 8192;
	cfg->lazy_home = false;
}

/* Overwrites in small objects: some die, some are emptied; two checkpoints at least go by. */
static void busy(struct scene *sc, unsigned int steps)
{
	static const uint8_t at[] = {0, 16, 32, 4, 0, 20, 40, 0, 8, 16, 4, 32, 24, 0, 12, 44};

	for (unsigned i = 0; i < sizeof(at) && steps; i++) {
		scene_submit(sc, CRASH_WRITE, at[i], i % 3 ? 8 : 16, i % 4 == 3);
		for (unsigned k = 0; k < 60 && steps; k++, steps--)
			scene_run(sc, 1);
	}
}

static void crash_at(unsigned int steps, bool burn)
{
	struct scene *sc = scene_new("gc_crash_at_each_step", &crash_on_lsvd, busy_config);
	struct store *store;

	scene_open(sc);
	busy(sc, steps);
	scene_crash(sc, burn ? SIM_KEEP_NONE : SIM_KEEP_ALL);
	if (burn)
		universe_lose_cache(&sc->u);
	CHECK_OK(sim_store_open(sc->u.bucket, 9, &store));
	sound(store, CRASH_VOLUME);
	store_close(store);
	CHECK_OK(scene_try_open(sc, burn));
	scene_judge(sc);
	for (uint32_t i = 0; i < 6; i++) {
		scene_write(sc, i % 3 * 16, 8);
		scene_drain(sc);
	}
	scene_run(sc, 200);
	scene_crash(sc, SIM_KEEP_NONE);
	universe_lose_cache(&sc->u);
	CHECK_OK(scene_try_open(sc, true));
	scene_judge(sc);
	scene_end(sc);
}

TEST(gc_crash_at_each_step)
{
	for (unsigned int steps = 0; steps < 900; steps += 9)
		crash_at(steps, steps % 2);
}

/* Long runs of the random kind: collecting all the time, over a log that wraps. */
TEST(gc_random)
{
	crash_run(&(struct crash_profile){.test = "gc_random",
					  .target = &crash_on_lsvd,
					  .share_ppm = 60000,
					  .ops = 160,
					  .generations = 3,
					  .lose_cache_percent = 50});
}
