/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Damage to what is at rest: rot in objects, in the log, in checkpoints; lost, forged and hidden
 * objects. Found out, named, or survived, and never served as data (P5).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_on_lsvd.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "lsvd/codec.h"
#include "lsvd/lsvd_impl.h"

static struct scene *begin(const char *test)
{
	return scene_new(test, &crash_on_lsvd, NULL);
}

static void write_objects(struct scene *sc, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		scene_write(sc, i % 8 * 8, 8);
		scene_drain(sc);
	}
}

/* The last key of a kind, or with nth from 1 the nth. */
static const char *find_key(struct scene *sc, enum key_kind kind, size_t nth, struct key *ret)
{
	const char *text, *found = NULL;
	struct key key;
	size_t n = 0;

	for (size_t i = 0; (text = sim_bucket_key(sc->u.bucket, i)); i++) {
		if (!key_parse(CRASH_VOLUME, text, &key) || key.kind != kind)
			continue;
		n++;
		if (nth == 0 || n == nth) {
			found = text;
			*ret = key;
		}
	}
	return found;
}

static void lose_cache(struct scene *sc)
{
	scene_crash(sc, SIM_KEEP_NONE);
	universe_lose_cache(&sc->u);
}

/* A rotten object: an error for its sectors, and only for these. */
TEST(rot_in_an_object)
{
	struct scene *sc = begin("rot_in_an_object");
	struct key key;
	size_t len;

	scene_open(sc);
	write_objects(sc, 3);
	lose_cache(sc);
	CHECK(sim_bucket_body(sc->u.bucket, find_key(sc, KEY_DATA, 2, &key), &len) != NULL);
	CHECK_OK(sim_bucket_rot(sc->u.bucket, find_key(sc, KEY_DATA, 2, &key), len - 1000, 1));
	sc->u.tolerant = true;
	CHECK_OK(scene_try_open(sc, true));
	CHECK(scene_read(sc, 8) < 0);
	CHECK_EQ(scene_read(sc, 0), 1);
	CHECK_EQ(scene_read(sc, 16), 3);
	scene_end(sc);
}

/* A rotten header in the middle of the stream: refused, nothing behind it is given up. */
TEST(rot_in_a_header)
{
	struct scene *sc = begin("rot_in_a_header");
	struct key key;

	scene_open(sc);
	write_objects(sc, 3);
	lose_cache(sc);
	/* Enough of it that the header is hit as well. */
	CHECK_OK(sim_bucket_rot(sc->u.bucket, find_key(sc, KEY_DATA, 2, &key), 40, 64));
	CHECK_EQ(scene_try_open(sc, true), -EBADMSG);
	scene_end(sc);
}

/* A short object is damage, not the end of the stream. */
TEST(short_object)
{
	struct scene *sc = begin("short_object");
	struct key key;

	scene_open(sc);
	write_objects(sc, 3);
	lose_cache(sc);
	CHECK_OK(sim_bucket_truncate(sc->u.bucket, find_key(sc, KEY_DATA, 2, &key), 100));
	CHECK_EQ(scene_try_open(sc, true), -EBADMSG);
	scene_end(sc);
}

/*
 * Data rots in the log before it is destaged: the store gets the rest, and says for the rotten
 * sectors that they are lost; it never gets the rotten data with a good checksum.
 */
static void one_batch(struct crash_config *cfg)
{
	cfg->batch_bytes = 65536;
}

TEST(rot_in_the_log_before_destage)
{
	struct scene *sc = scene_new("rot_in_the_log_before_destage", &crash_on_lsvd, one_batch);
	struct sim_fault out = {.kind = SIM_STORE_ERROR, .error = -EIO, .nth = 1};

	scene_open(sc);
	CHECK_OK(sim_bucket_fault(sc->u.bucket, &out));
	for (uint32_t i = 0; i < 3; i++) {
		scene_write(sc, 8 * i, 8);
		scene_flush(sc);
	}
	/* Of the second only a part will go out, so that the log's checksum cannot be passed on. */
	scene_write(sc, 10, 1);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	sim_bucket_heal(sc->u.bucket);
	/* The second segment: 8 KiB each, behind the superblocks. */
	CHECK(sim_disk_rot(sc->u.disk, (128 << 10) + 8192 + 4096, 1024, 1) >= 0);
	scene_open(sc);
	sc->u.tolerant = true;
	scene_drain(sc);
	CHECK(scene_read(sc, 8) < 0);
	CHECK_EQ(scene_read(sc, 0), 1);
	lose_cache(sc);
	CHECK_OK(scene_try_open(sc, true));
	CHECK(scene_read(sc, 8) < 0);
	CHECK_EQ(scene_read(sc, 0), 1);
	CHECK_EQ(scene_read(sc, 16), 3);
	scene_end(sc);
}

/* A list that is behind the times is not the end of the stream. */
TEST(stale_list)
{
	for (uint64_t seed = 0; seed < 20; seed++) {
		struct scene *sc = begin("stale_list");
		struct sim_fault stale = {
			.kind = SIM_STORE_STALE, .ops = 1u << STORE_LIST, .nth = 1};

		rng_seed(&sc->u.world.rng, seed);
		scene_open(sc);
		write_objects(sc, 4);
		lose_cache(sc);
		CHECK_OK(sim_bucket_fault(sc->u.bucket, &stale));
		CHECK_OK(scene_try_open(sc, true));
		CHECK_EQ(scene_judge(sc), 4);
		scene_end(sc);
	}
}

/* An object of the right name, volume and checksum that does not follow the one before it. */
TEST(object_out_of_line)
{
	struct scene *sc = begin("object_out_of_line");
	char text[STORE_KEY_MAX + 1];
	struct store *store;
	struct key key;
	uint8_t *copy;
	size_t len;

	scene_open(sc);
	write_objects(sc, 3);
	lose_cache(sc);
	CHECK(find_key(sc, KEY_DATA, 3, &key) != NULL);
	key_format(text, CRASH_VOLUME, &key);
	copy = malloc(1 << 20);
	memcpy(copy, sim_bucket_body(sc->u.bucket, text, &len), 4096);
	memcpy(copy, sim_bucket_body(sc->u.bucket, text, &len), len);
	((struct lsvd_hdr *)(void *)copy)->prev_seq = le64_make(key.seq - 2);
	obj_seal(copy);
	CHECK_OK(sim_bucket_lose(sc->u.bucket, text));
	CHECK_OK(sim_store_open(sc->u.bucket, 3, &store));
	CHECK_OK(store_put_new(store, text, copy, len));
	store_close(store);
	free(copy);
	CHECK_EQ(scene_try_open(sc, true), -EBADMSG);
	scene_end(sc);
}

static void checkpoint_often(struct crash_config *cfg)
{
	cfg->checkpoint_objects = 1;
}

static void root_of(struct scene *sc, unsigned int which, char *text)
{
	struct super sb;
	size_t len;
	const void *body = sim_bucket_body(sc->u.bucket, CRASH_VOLUME, &len);

	CHECK_OK(super_decode(body, len, &sb, NULL));
	text[0] = '\0';
	if (sb.roots[which].no)
		key_format(text, CRASH_VOLUME,
			   &(struct key){.kind = KEY_ROOT,
					 .seq = sb.roots[which].no,
					 .epoch = sb.roots[which].epoch});
}

/*
 * Two checkpoints are kept, so that one may rot: whenever the power goes off, the older one is
 * still whole.
 */
TEST(rotten_checkpoint)
{
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct scene *sc =
			scene_new("rotten_checkpoint", &crash_on_lsvd, checkpoint_often);
		char newest[STORE_KEY_MAX + 1], older[STORE_KEY_MAX + 1];

		scene_open(sc);
		write_objects(sc, 4);
		sc->u.world.cut_at = sc->u.world.events + 1 + seed % 60;
		rng_seed(&sc->s->sh.rng, seed);
		for (uint32_t i = 0; i < 4 && !sc->u.world.power_off; i++) {
			scene_write(sc, 8 * i, 8);
			if (!sc->u.world.power_off)
				scene_drain(sc);
		}
		scene_crash(sc, seed % 2 ? SIM_KEEP_ALL : SIM_KEEP_RANDOM(seed));
		root_of(sc, 0, newest);
		root_of(sc, 1, older);
		if (older[0]) {
			size_t len;

			CHECK(sim_bucket_body(sc->u.bucket, older, &len) != NULL);
			CHECK_OK(sim_bucket_rot(sc->u.bucket, newest, 64, 3));
			scene_open(sc);
			scene_judge(sc);
		}
		scene_end(sc);
	}
}

/* What the newest checkpoint says of itself; false when there is none. */
static bool newest_root(struct scene *sc, struct root_hdr *ret)
{
	struct store *store;
	struct super sb;
	const void *body;
	void *buf;
	size_t len;
	int rc;

	body = sim_bucket_body(sc->u.bucket, CRASH_VOLUME, &len);
	CHECK_OK(super_decode(body, len, &sb, NULL));
	if (!sb.roots[0].no)
		return false;
	CHECK_OK(sim_store_open(sc->u.bucket, 3, &store));
	rc = load_root(store, CRASH_VOLUME, &sb.uuid, &sb.roots[0], &buf, ret, NULL);
	store_close(store);
	CHECK_OK(rc);
	free(buf);
	return true;
}

/*
 * The end of the stream is lost, but a checkpoint that was written while it was being installed has
 * seen it: refused, since the map names what is not there, and the number would be used again.
 */
TEST(lost_end_of_the_stream)
{
	const struct crash_op drain = {.kind = CRASH_DRAIN};
	unsigned int hits = 0;

	for (uint64_t seed = 0; seed < 2000 && hits < 5; seed++) {
		struct scene *sc =
			scene_new("lost_end_of_the_stream", &crash_on_lsvd, checkpoint_often);
		struct root_hdr root = {0};
		const char *text;
		struct key key = {0};

		scene_open(sc);
		rng_seed(&sc->s->sh.rng, seed);
		scene_write(sc, 0, 8);
		for (uint32_t i = 0; i < 6; i++) {
			/* Nothing that the map could miss. */
			scene_submit(sc, CRASH_DISCARD, 8 * i, 8, false);
			while (sc->s->sh.in_flight)
				scene_run(sc, 1);
			if (session_can(sc->s, &drain))
				session_submit(sc->s, &drain);
			scene_run(sc, (unsigned int)rng_below(&sc->s->sh.rng, 60));
		}
		lose_cache(sc);
		text = find_key(sc, KEY_DATA, 0, &key);
		if (text && newest_root(sc, &root) && key.seq > root.covered_seq &&
		    key.seq <= root.reach_seq) {
			CHECK_OK(sim_bucket_lose(sc->u.bucket, text));
			CHECK_EQ(scene_try_open(sc, true), -EBADMSG);
			hits++;
		}
		scene_end(sc);
	}
	test_note("%u checkpoints had seen more than they cover", hits);
	CHECK(hits > 0);
}

/* Rot in both superblocks of the log, in the superblock of the volume: refused. */
TEST(rotten_superblocks)
{
	struct scene *sc = begin("rotten_superblocks");
	int rc;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	sim_disk_rot(sc->u.disk, 0, 4096, 1);
	sim_disk_rot(sc->u.disk, 64 << 10, 4096, 1);
	rc = scene_try_open(sc, false);
	CHECK(rc == -EBADMSG || rc == -ENODEV);
	CHECK_OK(sim_bucket_rot(sc->u.bucket, CRASH_VOLUME, 100, 1));
	CHECK_EQ(scene_try_open(sc, true), -EBADMSG);
	scene_end(sc);
}

/* Rot in the newest of the log's superblocks alone: nothing flushed is lost in silence. */
TEST(one_rotten_log_superblock)
{
	for (uint64_t slot = 0; slot < 2; slot++) {
		struct scene *sc = begin("one_rotten_log_superblock");

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		sim_disk_rot(sc->u.disk, slot * (64 << 10), 4096, 1);
		if (scene_try_open(sc, false) == 0)
			CHECK_EQ(scene_judge(sc), 1);
		else
			CHECK(sc->err.code == -EBADMSG || sc->err.code == -ESTALE);
		scene_end(sc);
	}
}
