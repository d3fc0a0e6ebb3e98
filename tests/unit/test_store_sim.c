/* SPDX-License-Identifier: BSD-3-Clause */
/* The simulated store: atomic puts, fates of requests in flight, late ones, and the faults. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sim_world.h"
#include "lib/tap.h"
#include "store/sim.h"

#define BODY 1000

struct tagged {
	struct store_req req;
	uint8_t buf[BODY];
	int done;
};

static struct sim_world world;
static struct sim_bucket *bucket;
static struct store *store;

static void on_done(struct store_req *req)
{
	container_of(req, struct tagged, req)->done++;
}

static void open_bucket(uint64_t seed, struct sim_bucket_options opt)
{
	sim_world_init(&world, seed);
	CHECK_OK(sim_bucket_new(&world, &opt, &bucket));
	CHECK_OK(sim_store_open(bucket, 1, &store));
}

static void close_bucket(void)
{
	store_close(store);
	sim_bucket_free(bucket);
}

static void reopen(struct sim_keep keep)
{
	store_close(store);
	CHECK_OK(sim_bucket_crash(bucket, keep));
	sim_world_power_on(&world);
	CHECK_OK(sim_store_open(bucket, 1, &store));
}

static void send(struct tagged *t, enum store_op op, const char *key, uint8_t fill)
{
	uint64_t version = t->req.version;

	memset(&t->req, 0, sizeof(t->req));
	memset(t->buf, fill, sizeof(t->buf));
	t->done = 0;
	t->req.op = op;
	t->req.version = version;
	snprintf(t->req.key, sizeof(t->req.key), "%s", key);
	t->req.one = (struct iovec){t->buf, sizeof(t->buf)};
	t->req.iov = &t->req.one;
	t->req.iovcnt = 1;
	t->req.len_bytes = BODY;
	t->req.done = on_done;
	store_submit(store, &t->req);
	CHECK_EQ(t->done, 0);
}

static int put(const char *key, uint8_t fill)
{
	uint8_t buf[BODY];

	memset(buf, fill, sizeof(buf));
	return store_put_new(store, key, buf, sizeof(buf));
}

/* The byte that the object consists of; -1 when there is none, -2 when it is mixed. */
static int look(const char *key)
{
	size_t len;
	const uint8_t *body = sim_bucket_body(bucket, key, &len);

	if (!body)
		return -1;
	for (size_t i = 0; i < len; i++)
		if (body[i] != body[0])
			return -2;
	return len == BODY ? body[0] : -2;
}

static void plan(struct sim_fault fault)
{
	CHECK_OK(sim_bucket_fault(bucket, &fault));
}

struct lister {
	struct store_req req;
	char keys[4096];
	int count;
};

static void append(char *to, size_t size, const char *key)
{
	size_t len = strlen(to);

	snprintf(to + len, size - len, "%s ", key);
}

static int on_entry(struct store_req *req, const char *key, uint64_t size_bytes)
{
	struct lister *l = container_of(req, struct lister, req);

	CHECK(size_bytes <= BODY);
	append(l->keys, sizeof(l->keys), key);
	return ++l->count == 50 ? -E2BIG : 0;
}

static int list(struct lister *l, const char *prefix)
{
	memset(l, 0, sizeof(*l));
	l->req.op = STORE_LIST;
	l->req.entry = on_entry;
	snprintf(l->req.key, sizeof(l->req.key), "%s", prefix);
	return store_sync(store, &l->req);
}

TEST(objects_come_back)
{
	uint8_t buf[10];
	size_t len;
	void *all;
	uint64_t version;

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	CHECK_OK(put("v.1", 1));
	CHECK_EQ(put("v.1", 2), -EEXIST);
	CHECK_OK(store_get(store, "v.1", buf, 10, 990));
	CHECK_EQ(buf[9], 1);
	CHECK_EQ(store_get(store, "v.1", buf, 10, 991), -ERANGE);
	CHECK_EQ(store_get(store, "v.1", buf, 10, UINT64_MAX), -ERANGE);
	CHECK_EQ(store_get(store, "v.2", buf, 10, 0), -ENOENT);
	CHECK_OK(store_get_all(store, "v.1", BODY, &all, &len, &version));
	CHECK_EQ(len, BODY);
	CHECK(version != 0);
	free(all);
	CHECK_EQ(store_get_all(store, "v.1", BODY - 1, &all, &len, NULL), -EFBIG);
	CHECK_OK(store_delete(store, "v.1"));
	CHECK_OK(store_delete(store, "v.1"));
	CHECK_EQ(look("v.1"), -1);
	close_bucket();
}

TEST(keys_are_checked)
{
	static const char *const bad[] = {"", ".", "..", "a//b", "/a", "a/", "a/.b", ".a", "a b",
					  "a\n", "\xc3\xa4", "a*"};
	char longest[STORE_KEY_MAX + 2];

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_EQ(put(bad[i], 1), -EINVAL);
	memset(longest, 'k', sizeof(longest));
	longest[STORE_KEY_MAX + 1] = 0;
	CHECK_EQ(put(longest, 1), -EINVAL);
	longest[STORE_KEY_MAX] = 0;
	CHECK_OK(put(longest, 1));
	CHECK_OK(put("pre/fix.a-b_C.0", 1));
	close_bucket();
}

TEST(replace_compares)
{
	uint64_t version = 0, old;

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	CHECK_OK(store_replace(store, "sb", "one", 3, &version));
	old = version;
	CHECK_OK(store_replace(store, "sb", "two", 3, &version));
	CHECK(old != version);
	CHECK_EQ(store_replace(store, "sb", "bad", 3, &old), -ESTALE);
	old = 0;
	CHECK_EQ(store_replace(store, "sb", "bad", 3, &old), -ESTALE);
	/* No ABA: the same bytes after a deletion are another version. */
	CHECK_OK(store_delete(store, "sb"));
	old = 0;
	CHECK_OK(store_replace(store, "sb", "two", 3, &old));
	CHECK_EQ(store_replace(store, "sb", "bad", 3, &version), -ESTALE);
	close_bucket();
}

TEST(lists_are_sorted_and_stop)
{
	struct lister l;
	char key[32];

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	CHECK_OK(put("b.2", 1));
	CHECK_OK(put("b.10", 1));
	CHECK_OK(put("b", 1));
	CHECK_OK(put("c", 1));
	CHECK_OK(list(&l, "b"));
	CHECK_STREQ(l.keys, "b b.10 b.2 ");
	for (int i = 0; i < 60; i++) {
		snprintf(key, sizeof(key), "d.%d", i);
		CHECK_OK(put(key, 1));
	}
	CHECK_EQ(list(&l, "d"), -E2BIG);
	CHECK_EQ(l.count, 50);
	close_bucket();
}

TEST(put_in_flight_has_every_fate)
{
	int landed = 0, lost = 0, late = 0;

	for (uint64_t seed = 0; seed < 600; seed++) {
		struct tagged t = {0};

		open_bucket(test_seed(), (struct sim_bucket_options){.hold_late = true});
		send(&t, STORE_PUT_NEW, "v.1", 4);
		CHECK_EQ(sim_bucket_undurable(bucket), 1);
		reopen(SIM_KEEP_RANDOM(seed));
		CHECK_EQ(t.done, 0);
		landed += look("v.1") == 4;
		lost += look("v.1") == -1 && !sim_bucket_late(bucket);
		late += sim_bucket_late(bucket) == 1;
		if (sim_bucket_late(bucket)) {
			CHECK_EQ(look("v.1"), -1);
			CHECK_EQ(sim_bucket_land_late(bucket, 1), 1);
			CHECK_EQ(look("v.1"), 4);
		}
		close_bucket();
	}
	CHECK_EQ(landed + lost + late, 600);
	CHECK(landed > 60 && lost > 60 && late > 60);
}

TEST(late_put_meets_what_is_there)
{
	struct tagged t[2] = {0};
	uint64_t version = 0;

	open_bucket(test_seed(),
		    (struct sim_bucket_options){.late_ppm = 1000000, .hold_late = true});
	CHECK_OK(store_replace(store, "sb", "one", 3, &version));
	send(&t[0], STORE_PUT_NEW, "v.1", 1);
	t[1].req.version = version;
	send(&t[1], STORE_REPLACE, "sb", 1);
	reopen(SIM_KEEP_RANDOM(1));
	CHECK_EQ(sim_bucket_late(bucket), 2);
	CHECK_OK(put("v.1", 2));
	CHECK_OK(store_replace(store, "sb", "new", 3, &version));
	CHECK_EQ(sim_bucket_land_late(bucket, 9), 2);
	CHECK_EQ(look("v.1"), 2);
	CHECK_MEMEQ(sim_bucket_body(bucket, "sb", &(size_t){0}), "new", 3);
	close_bucket();
}

TEST(late_puts_land_at_polls)
{
	struct tagged t = {0};
	int polls = 0;

	open_bucket(test_seed(), (struct sim_bucket_options){.late_ppm = 1000000});
	send(&t, STORE_PUT_NEW, "v.1", 1);
	reopen(SIM_KEEP_RANDOM(1));
	while (look("v.1") < 0 && polls < 10000) {
		store_poll(store, false);
		polls++;
	}
	CHECK_EQ(look("v.1"), 1);
	close_bucket();
}

TEST(simple_choices_are_exact)
{
	for (uint64_t n = 0; n <= 3; n++) {
		struct tagged t[3] = {0};
		static const char *const keys[] = {"a", "b", "c"};

		open_bucket(test_seed(), (struct sim_bucket_options){0});
		for (int i = 0; i < 3; i++)
			send(&t[i], STORE_PUT_NEW, keys[i], 1);
		reopen(SIM_KEEP_PREFIX(n));
		CHECK_EQ(sim_bucket_count(bucket), n);
		for (uint64_t i = 0; i < n; i++)
			CHECK_STREQ(sim_bucket_key(bucket, i), keys[i]);
		CHECK(sim_bucket_key(bucket, n) == NULL);
		close_bucket();
	}
}

TEST(timeouts_with_and_without_effect)
{
	open_bucket(test_seed(), (struct sim_bucket_options){.hold_late = true});
	plan((struct sim_fault){.kind = SIM_STORE_ERROR, .nth = 1, .times = 1,
				.error = -ETIMEDOUT, .key_part = "none"});
	plan((struct sim_fault){.kind = SIM_STORE_EFFECT, .nth = 1, .times = 1,
				.error = -ETIMEDOUT, .key_part = "effect"});
	plan((struct sim_fault){.kind = SIM_STORE_LATE, .nth = 1, .times = 1,
				.error = -ETIMEDOUT, .key_part = "late"});
	CHECK_EQ(put("v.none", 1), -ETIMEDOUT);
	CHECK_EQ(put("v.effect", 1), -ETIMEDOUT);
	CHECK_EQ(put("v.late", 1), -ETIMEDOUT);
	CHECK_EQ(look("v.none"), -1);
	CHECK_EQ(look("v.effect"), 1);
	CHECK_EQ(look("v.late"), -1);
	CHECK_EQ(put("v.effect", 1), -EEXIST);
	CHECK_EQ(sim_bucket_land_late(bucket, 1), 1);
	CHECK_EQ(look("v.late"), 1);
	close_bucket();
}

TEST(outage_passes)
{
	open_bucket(test_seed(), (struct sim_bucket_options){.latency_ns = 100});
	plan((struct sim_fault){.kind = SIM_STORE_ERROR, .nth = 1, .error = -EIO, .from_ns = 50,
				.until_ns = 350});
	CHECK_OK(put("a", 1));
	CHECK_EQ(put("b", 1), -EIO);
	CHECK_EQ(store_delete(store, "a"), -EIO);
	CHECK_EQ(put("b", 1), -EIO);
	CHECK_OK(put("b", 1));
	CHECK_EQ(world.clock_ns, 500);
	close_bucket();
}

TEST(lost_short_and_corrupt_objects)
{
	uint8_t buf[BODY];

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	plan((struct sim_fault){.kind = SIM_STORE_LOST, .nth = 1, .times = 1, .key_part = "lost"});
	plan((struct sim_fault){.kind = SIM_STORE_SHORT, .nth = 1, .times = 1,
				.key_part = "short"});
	plan((struct sim_fault){.kind = SIM_STORE_CORRUPT, .nth = 1, .times = 1,
				.key_part = "rot"});
	plan((struct sim_fault){.kind = SIM_STORE_GARBLE, .ops = 1u << STORE_GET, .nth = 1,
				.times = 1, .key_part = "garble"});
	CHECK_OK(put("v.lost", 1));
	CHECK_EQ(store_get(store, "v.lost", buf, 1, 0), -ENOENT);
	CHECK_OK(put("v.short", 1));
	CHECK_EQ(store_get(store, "v.short", buf, BODY, 0), -ERANGE);
	CHECK_OK(put("v.rot", 1));
	CHECK_EQ(look("v.rot"), -2);
	CHECK_OK(put("v.garble", 1));
	CHECK_OK(store_get(store, "v.garble", buf, BODY, 0));
	CHECK(buf[0] != 1 || memcmp(buf, buf + 1, BODY - 1) != 0);
	CHECK_EQ(look("v.garble"), 1);
	CHECK_OK(sim_bucket_lose(bucket, "v.rot"));
	CHECK_EQ(sim_bucket_lose(bucket, "v.rot"), -ENOENT);
	CHECK_OK(sim_bucket_rot(bucket, "v.garble", 10, 1));
	CHECK_EQ(look("v.garble"), -2);
	CHECK_OK(sim_bucket_truncate(bucket, "v.garble", 3));
	CHECK_EQ(store_get(store, "v.garble", buf, 4, 0), -ERANGE);
	close_bucket();
}

TEST(stale_lists_omit_and_show)
{
	bool omitted = false, showed = false;
	struct lister l;

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	CHECK_OK(put("v.new", 1));
	CHECK_OK(put("v.old", 1));
	CHECK_OK(store_delete(store, "v.old"));
	CHECK_OK(list(&l, "v"));
	CHECK_STREQ(l.keys, "v.new ");
	plan((struct sim_fault){.kind = SIM_STORE_STALE, .ops = 1u << STORE_LIST, .nth = 1});
	for (int i = 0; i < 50; i++) {
		CHECK_OK(list(&l, "v"));
		omitted |= !strstr(l.keys, "v.new");
		showed |= strstr(l.keys, "v.old") != NULL;
	}
	CHECK(omitted && showed);
	close_bucket();
}

TEST(tombstones_are_bounded)
{
	char key[32];

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	for (int i = 0; i < 2000; i++) {
		snprintf(key, sizeof(key), "v.%d", i);
		CHECK_OK(put(key, 1));
		CHECK_OK(store_delete(store, key));
		CHECK_EQ(sim_bucket_count(bucket), 0);
	}
	close_bucket();
}

TEST(quota_is_enforced)
{
	open_bucket(test_seed(), (struct sim_bucket_options){.quota_bytes = 2 * BODY});
	CHECK_OK(put("a", 1));
	CHECK_OK(put("b", 1));
	CHECK_EQ(put("c", 1), -ENOSPC);
	CHECK_OK(store_delete(store, "a"));
	CHECK_OK(put("c", 1));
	close_bucket();
}

TEST(two_owners_on_one_bucket)
{
	struct tagged t = {0};
	struct store *other, *old;
	struct err err = ERR_INIT;

	open_bucket(test_seed(),
		    (struct sim_bucket_options){.late_ppm = 1000000, .hold_late = true});
	CHECK_OK(sim_store_open(bucket, 2, &other));
	CHECK_OK(store->ops->lock(store, "v", &err));
	CHECK_EQ(store->ops->lock(store, "v", &err), -EBUSY);
	CHECK_OK(other->ops->lock(other, "v", &err));
	send(&t, STORE_PUT_NEW, "v.1", 1);
	CHECK_OK(sim_store_kill(store, SIM_KEEP_RANDOM(1)));
	old = store;
	store = other;
	CHECK_OK(put("v.2", 2));
	CHECK_EQ(look("v.1"), -1);
	CHECK_EQ(store_poll(old, false), 0);
	sim_bucket_land_late(bucket, 1);
	CHECK_EQ(look("v.1"), 1);
	CHECK_EQ(t.done, 0);
	store_close(old);
	CHECK_OK(sim_store_open(bucket, 1, &old));
	CHECK_OK(old->ops->lock(old, "v", &err));
	store_close(old);
	close_bucket();
}

TEST(cut_visits_every_event)
{
	uint64_t n;

	for (n = 1;; n++) {
		struct tagged t = {0};

		open_bucket(test_seed(), (struct sim_bucket_options){0});
		world.cut_at = n;
		send(&t, STORE_PUT_NEW, "v.1", 1);
		store_poll(store, false);
		CHECK_EQ(world.power_off, !t.done);
		reopen(SIM_KEEP_NONE);
		CHECK_EQ(look("v.1"), t.done ? 1 : -1);
		close_bucket();
		if (t.done)
			break;
	}
	CHECK_EQ(n, 3);
}

TEST(dead_store_gives_blocked_callers_their_requests_back)
{
	struct tagged t = {0};

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	send(&t, STORE_PUT_NEW, "v.1", 1);
	world.cut_at = world.events + 1;
	CHECK_EQ(put("v.2", 1), -ENODEV);
	CHECK(world.power_off);
	CHECK_EQ(t.done, 0);
	close_bucket();
}

TEST(images_share_and_agree)
{
	struct sim_world other;
	struct sim_bucket *image;

	sim_world_init(&other, 7);
	CHECK_OK(sim_bucket_new(&other, &(struct sim_bucket_options){0}, &image));
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct tagged t[4] = {0};
		char key[16];

		open_bucket(test_seed(), (struct sim_bucket_options){.hold_late = true});
		CHECK_OK(put("base", 1));
		for (int i = 0; i < 4; i++) {
			snprintf(key, sizeof(key), "v.%d", i);
			send(&t[i], STORE_PUT_NEW, key, 1);
		}
		CHECK_OK(sim_bucket_image(bucket, SIM_KEEP_RANDOM(seed), image));
		CHECK_EQ(sim_bucket_undurable(bucket), 4);
		CHECK_EQ(sim_bucket_count(bucket), 1);
		reopen(SIM_KEEP_RANDOM(seed));
		CHECK_EQ(sim_bucket_count(bucket), sim_bucket_count(image));
		CHECK_EQ(sim_bucket_late(bucket), sim_bucket_late(image));
		for (size_t i = 0; i < sim_bucket_count(bucket); i++)
			CHECK_STREQ(sim_bucket_key(bucket, i), sim_bucket_key(image, i));
		CHECK_EQ(sim_bucket_land_late(image, 9), sim_bucket_late(bucket));
		CHECK_OK(store_delete(store, "base"));
		CHECK_EQ(look("base"), -1);
		CHECK(sim_bucket_body(image, "base", &(size_t){0}) != NULL);
		close_bucket();
	}
	sim_bucket_free(image);
}

TEST(scribbled_memory_is_counted)
{
	struct tagged t = {0};

	open_bucket(test_seed(), (struct sim_bucket_options){0});
	send(&t, STORE_PUT_NEW, "v.1", 1);
	t.buf[5] = 9;
	while (!t.done)
		store_poll(store, true);
	CHECK_EQ(sim_bucket_scribbles(bucket), 1);
	close_bucket();
}
