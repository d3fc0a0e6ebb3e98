/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every hole of the published object-stream disks that applies to ours, each as a story. In these
 * scenes a write of 8 sectors fills a segment of the log and a batch, and so becomes an object.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_lsvd.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "lsvd/codec.h"

static struct scene *begin(const char *test)
{
	return scene_new(test, &crash_on_lsvd, NULL);
}

/* The machine burns down: what was in the cache is gone. */
static void lose_cache(struct scene *sc)
{
	scene_crash(sc, SIM_KEEP_NONE);
	universe_lose_cache(&sc->u);
}

static void open_without_cache(struct scene *sc)
{
	CHECK_EQ(scene_try_open(sc, false), -ENODEV);
	CHECK_OK(scene_try_open(sc, true));
}

static void write_objects(struct scene *sc, uint32_t first, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		scene_write(sc, (first + i) % 8 * 8, 8);
		scene_drain(sc);
	}
}

/* The i-th data object; NULL when there are fewer. */
static const char *data_key(struct scene *sc, size_t i, struct key *ret)
{
	const char *text;

	for (size_t k = 0; (text = sim_bucket_key(sc->u.bucket, k)); k++)
		if (key_parse(CRASH_VOLUME, text, ret) && ret->kind == KEY_DATA && i-- == 0)
			return text;
	return NULL;
}

static size_t count_objects(struct scene *sc)
{
	struct key key;
	size_t n = 0;

	while (data_key(sc, n, &key))
		n++;
	return n;
}

/* FLUSH means durable, here and now, without the store. */
TEST(flush_is_durable)
{
	struct scene *sc = begin("flush_is_durable");

	scene_open(sc);
	scene_write(sc, 0, 3);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* Objects 2 to 4 are there, the first is not yet. */
static struct scene *first_put_is_slow(const char *test)
{
	struct scene *sc = begin(test);
	struct sim_fault slow = {.kind = SIM_STORE_DELAY,
				 .ops = 1u << STORE_PUT_NEW,
				 .nth = 1,
				 .times = 1,
				 .delay_ns = UINT64_C(3000000000)};

	scene_open(sc);
	CHECK_OK(sim_bucket_fault(sc->u.bucket, &slow));
	for (uint32_t i = 0; i < 4; i++) {
		scene_write(sc, 8 * i, 8);
		scene_flush(sc);
	}
	for (int i = 0; i < 10000 && count_objects(sc) < 3; i++)
		scene_run(sc, 1);
	CHECK_EQ(count_objects(sc), 3);
	sim_bucket_heal(sc->u.bucket);
	return sc;
}

/* A hole in the stream: what lies behind it does not count, and is not in the way later. */
TEST(gap_in_the_stream)
{
	struct scene *sc = first_put_is_slow("gap_in_the_stream");

	lose_cache(sc);
	open_without_cache(sc);
	CHECK_EQ(scene_judge(sc), 0);
	write_objects(sc, 5, 2);
	lose_cache(sc);
	open_without_cache(sc);
	CHECK_EQ(scene_judge(sc), 2);
	scene_end(sc);
}

/* With the cache nothing is lost, and the stranded objects are put again under new keys. */
TEST(stranded_objects)
{
	struct scene *sc = first_put_is_slow("stranded_objects");

	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 4);
	write_objects(sc, 4, 3);
	lose_cache(sc);
	open_without_cache(sc);
	CHECK_EQ(scene_judge(sc), 3);
	scene_end(sc);
}

/* Clearing away what is stranded must not touch what came after it. */
TEST(clean_up_spares_successors)
{
	struct scene *sc = first_put_is_slow("clean_up_spares_successors");

	lose_cache(sc);
	open_without_cache(sc);
	scene_judge(sc);
	for (uint32_t round = 0; round < 3; round++) {
		write_objects(sc, round, 4);
		scene_checkpoint(sc);
		scene_run(sc, 20000);
		scene_close(sc);
		scene_open(sc);
		CHECK_EQ(scene_judge(sc), 4);
	}
	lose_cache(sc);
	open_without_cache(sc);
	scene_judge(sc);
	scene_end(sc);
}

/* Nothing is deleted because it seems dead: a recovery from an older checkpoint needs it. */
TEST(overwritten_objects_stay)
{
	struct scene *sc = begin("overwritten_objects_stay");

	scene_open(sc);
	for (int i = 0; i < 5; i++) {
		scene_write(sc, 0, 8);
		scene_drain(sc);
	}
	CHECK_EQ(count_objects(sc), 5);
	lose_cache(sc);
	open_without_cache(sc);
	CHECK_EQ(scene_judge(sc), 5);
	scene_end(sc);
}

/* A discard is in the log and in the stream like any write. */
TEST(trim_is_not_lost)
{
	struct scene *sc = begin("trim_is_not_lost");

	scene_open(sc);
	write_objects(sc, 0, 2);
	scene_submit(sc, CRASH_DISCARD, 0, 12, false);
	scene_wait(sc);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 3);
	CHECK_EQ(scene_read(sc, 3), 0);
	scene_drain(sc);
	lose_cache(sc);
	open_without_cache(sc);
	CHECK_EQ(scene_judge(sc), 0);
	CHECK_EQ(scene_read(sc, 3), 0);
	CHECK_EQ(scene_read(sc, 12), 2);
	scene_end(sc);
}

/* Another volume's cache is refused, whatever is in it. */
TEST(foreign_cache)
{
	struct scene *sc = begin("foreign_cache");
	struct scene *other = begin("foreign_cache");
	struct uuid uuid = uuid_from_bits(9, 9);
	struct wlog_format_options opt = {.id.volume_uuid = uuid, .random = 5, .force = true};
	struct dev *dev;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK_OK(sim_dev_open(other->u.disk, &dev));
	CHECK_OK(wlog_format(dev, &opt, NULL, NULL));
	dev_close(dev);
	CHECK_OK(sim_disk_image(other->u.disk, SIM_KEEP_ALL, sc->u.disk));
	CHECK_EQ(scene_try_open(sc, false), -EXDEV);
	scene_end(other);
	scene_end(sc);
}

static struct sim_disk *copy_disk(struct scene *sc)
{
	struct sim_disk *copy;

	CHECK_OK(sim_disk_new(&sc->u.world,
			      &(struct sim_disk_options){.size_bytes = sc->cfg.disk_bytes}, &copy));
	CHECK_OK(sim_disk_image(sc->u.disk, SIM_KEEP_ALL, copy));
	return copy;
}

static void use_copy(struct scene *sc, struct sim_disk *copy)
{
	CHECK_OK(sim_disk_image(copy, SIM_KEEP_ALL, sc->u.disk));
	sim_disk_free(copy);
}

/* A copy of the cache from before the last attach. */
TEST(old_cache_of_an_earlier_epoch)
{
	struct scene *sc = begin("old_cache_of_an_earlier_epoch");
	struct sim_disk *copy;

	scene_open(sc);
	scene_write(sc, 0, 4);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	copy = copy_disk(sc);
	scene_open(sc);
	scene_write(sc, 4, 2);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	use_copy(sc, copy);
	CHECK_EQ(scene_try_open(sc, false), -ESTALE);
	scene_end(sc);
}

/* A copy from the same epoch, but the store has gone on since. */
TEST(old_cache_behind_the_store)
{
	struct scene *sc = begin("old_cache_behind_the_store");
	struct sim_disk *copy;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	copy = copy_disk(sc);
	write_objects(sc, 1, 3);
	scene_write(sc, 0, 2);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	use_copy(sc, copy);
	CHECK_EQ(scene_try_open(sc, false), -ESTALE);
	scene_end(sc);
}

/* The store is a copy from earlier, the cache has given up data for what came later. */
TEST(store_set_back)
{
	struct scene *sc = begin("store_set_back");
	struct sim_bucket *copy;

	CHECK_OK(sim_bucket_new(&sc->u.world, &(struct sim_bucket_options){0}, &copy));
	scene_open(sc);
	write_objects(sc, 0, 2);
	CHECK_OK(sim_bucket_image(sc->u.bucket, SIM_KEEP_ALL, copy));
	for (uint32_t i = 0; i < 8; i++)
		write_objects(sc, i, 5);
	scene_run(sc, 20000);
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK_OK(sim_bucket_image(copy, SIM_KEEP_ALL, sc->u.bucket));
	sim_bucket_free(copy);
	CHECK_EQ(scene_try_open(sc, false), -ESTALE);
	scene_end(sc);
}

/* Neighbours in the same directory whose names begin alike are not ours. */
TEST(neighbours_names)
{
	static const char *const names[] = {"vol2", "vol.a", "vo", "volvol"};
	struct scene *sc = begin("neighbours_names");
	struct store *store;
	struct key key;
	size_t len;

	scene_open(sc);
	write_objects(sc, 0, 3);
	CHECK_OK(sim_store_open(sc->u.bucket, 3, &store));
	for (size_t i = 0; i < 4; i++) {
		const void *body = sim_bucket_body(sc->u.bucket, data_key(sc, 0, &key), &len);
		char text[STORE_KEY_MAX + 1];
		void *copy = malloc(len);

		memcpy(copy, body, len);
		key.seq = 4 + i;
		key_format(text, names[i], &key);
		CHECK_OK(store_put_new(store, text, copy, len));
		free(copy);
	}
	store_close(store);
	lose_cache(sc);
	open_without_cache(sc);
	CHECK_EQ(scene_judge(sc), 3);
	scene_end(sc);
}

/* A full log and a store that is out: writers wait, and go on when it is back. */
TEST(full_log_during_an_outage)
{
	struct scene *sc = begin("full_log_during_an_outage");
	struct sim_fault out = {.kind = SIM_STORE_ERROR, .error = -EIO, .nth = 1};
	struct crash_op op = {.kind = CRASH_WRITE, .sectors = 8};

	scene_open(sc);
	CHECK_OK(sim_bucket_fault(sc->u.bucket, &out));
	for (uint32_t i = 0; i < 2000 && session_can(sc->s, &op); i++) {
		scene_submit(sc, CRASH_WRITE, i % 8 * 8, 8, false);
		scene_run(sc, 40);
	}
	CHECK(!session_can(sc->s, &op));
	sim_bucket_heal(sc->u.bucket);
	scene_wait(sc);
	scene_expect(sc, sc->oracle->n);
	scene_end(sc);
}

/* The same with a limit to their patience: -ENOSPC, and later it works again. */
static void short_patience(struct crash_config *cfg)
{
	cfg->full_timeout_ns = UINT64_C(2000000000);
}

TEST(full_log_with_a_timeout)
{
	struct scene *sc = scene_new("full_log_with_a_timeout", &crash_on_lsvd, short_patience);
	struct sim_fault out = {.kind = SIM_STORE_ERROR, .error = -EIO, .nth = 1};
	struct crash_op op = {.kind = CRASH_WRITE, .sectors = 8};

	scene_open(sc);
	sc->u.tolerant = true;
	CHECK_OK(sim_bucket_fault(sc->u.bucket, &out));
	for (uint32_t i = 0; i < 200 && !sc->s->errors; i++) {
		while (session_can(sc->s, &op))
			scene_submit(sc, CRASH_WRITE, i % 8 * 8, 8, false);
		scene_run(sc, 400);
	}
	CHECK(sc->s->errors > 0);
	scene_wait(sc);
	sim_bucket_heal(sc->u.bucket);
	sc->s->errors = 0;
	scene_run(sc, 20000);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	CHECK_EQ(sc->s->errors, 0);
	scene_end(sc);
}

/* No LSN twice, also when the log that knew them is gone (L1). */
TEST(lsn_after_a_lost_cache)
{
	struct scene *sc = begin("lsn_after_a_lost_cache");
	uint64_t highest = 0;

	scene_open(sc);
	for (uint32_t i = 0; i < 4; i++) {
		write_objects(sc, i, 1);
		scene_write(sc, 0, 8);
		highest = wlog_last_lsn(sc->s->sh.log);
		lose_cache(sc);
		open_without_cache(sc);
		CHECK(wlog_last_lsn(sc->s->sh.log) >= highest);
		scene_judge(sc);
	}
	scene_end(sc);
}

/* Block addresses and sizes are 64 bits wide. */
static void far_away(struct crash_config *cfg)
{
	cfg->lba_base = (UINT64_C(5) << 40) / DEV_SECTOR_BYTES - 32;
}

TEST(beyond_two_tib)
{
	struct scene *sc = scene_new("beyond_two_tib", &crash_on_lsvd, far_away);

	scene_open(sc);
	write_objects(sc, 0, 4);
	scene_checkpoint(sc);
	scene_write(sc, 10, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 5);
	scene_drain(sc);
	lose_cache(sc);
	open_without_cache(sc);
	scene_judge(sc);
	CHECK_EQ(scene_read(sc, 12), 5);
	scene_end(sc);
}
