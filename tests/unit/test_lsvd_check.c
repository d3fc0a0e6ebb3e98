/* SPDX-License-Identifier: BSD-3-Clause */
/* Verifying and telling what a store holds. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/codec.h"
#include "lsvd/lsvd_check.h"
#include "lsvd/lsvd_dump.h"

#define MAX_FOUND 64

struct found {
	struct lsvd_check check;
	unsigned n;
	struct lsvd_problem problem[MAX_FOUND];
	char text[MAX_FOUND][256];
	uint64_t done, total;
};

static void found_problem(struct lsvd_check *check, const struct lsvd_problem *problem)
{
	struct found *f = container_of(check, struct found, check);

	CHECK(f->n < MAX_FOUND);
	snprintf(f->text[f->n], sizeof(f->text[0]), "%s: %s", problem->object, problem->text);
	test_note("problem at %u+%u: %s", (unsigned)problem->lba, (unsigned)problem->sectors,
		  f->text[f->n]);
	f->problem[f->n++] = *problem;
}

static void found_progress(struct lsvd_check *check, uint64_t done, uint64_t total)
{
	struct found *f = container_of(check, struct found, check);

	CHECK(done >= f->done && done <= total);
	f->done = done;
	f->total = total;
}

static unsigned check(struct lsvd_rig *rig, struct found *f)
{
	struct err err = ERR_INIT;
	int r;

	*f = (struct found){.check = {.problem = found_problem, .progress = found_progress}};
	r = lsvd_check(rig->store, RIG_NAME, &f->check, &err);
	test_note("check: %s", err_text(&err, r));
	CHECK_OK(r);
	CHECK_EQ(f->check.problems, f->n);
	return f->n;
}

static struct lsvd_rig *rig_full(bool release)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.checkpoint_objects = 4;
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 300; i++)
		rig_random_op(rig);
	CHECK_OK(rig_write(rig, 1000, 64));
	CHECK_OK(rig_drain(rig));
	if (release)
		rig_release(rig);
	else
		rig_crash(rig);
	return rig;
}

TEST(sound_volume_has_no_problems)
{
	for (unsigned release = 0; release < 2; release++) {
		struct lsvd_rig *rig = rig_full(release);
		struct found f;

		CHECK_EQ(check(rig, &f), 0);
		CHECK(f.check.objects > 5);
		CHECK_EQ(f.done, f.total);
		CHECK_EQ(f.done, f.check.bytes);
		CHECK_EQ(f.check.stranded, 0);
		CHECK(f.check.live_sectors <= f.check.total_sectors);
		rig_free(rig);
	}
}

TEST(no_such_volume)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct lsvd_check c = {0};

	CHECK_EQ(lsvd_check(rig->store, "other", &c, NULL), -ENOENT);
	CHECK_EQ(lsvd_check(rig->store, "no/name", &c, NULL), -ENOENT);
	rig_free(rig);
}

/* The last object: it holds 1000..1063, all in use. */
static const char *last_object(struct lsvd_rig *rig, struct obj_hdr *ret)
{
	const char *key = rig_object(rig, 'd', rig_objects(rig, 'd') - 1);
	size_t len;
	const void *body = sim_bucket_body(rig->bucket, key, &len);

	CHECK_OK(obj_decode(body, len, ret, NULL));
	return key;
}

TEST(rotten_data_is_found_with_its_lba)
{
	struct lsvd_rig *rig = rig_full(true);
	struct found f;
	struct obj_hdr h;
	const char *key = last_object(rig, &h);
	size_t len;
	const void *body = sim_bucket_body(rig->bucket, key, &len);
	bool told = false;

	for (uint32_t i = 0; i < h.ext_count; i++) {
		struct obj_ext e;

		obj_ext(body, i, &e);
		if (e.type == LSVD_EXT_DATA && e.lba <= 1000 && e.lba + e.sectors > 1000) {
			rig_rot(rig, key,
				h.header_bytes + (e.data_sector + (1000 - e.lba)) * 512 + 5);
			break;
		}
	}
	CHECK(check(rig, &f) >= 1);
	for (unsigned i = 0; i < f.n; i++)
		told |= f.problem[i].lba <= 1000 && f.problem[i].lba + f.problem[i].sectors > 1000;
	CHECK(told);
	CHECK(strstr(f.text[0], "checksum") != NULL);
	rig_free(rig);
}

TEST(rotten_header_missing_object_and_bad_checkpoint_are_found)
{
	struct lsvd_rig *rig = rig_full(true);
	struct found f;

	rig_rot(rig, rig_object(rig, 'd', 2), 70);
	CHECK(check(rig, &f) >= 1);
	rig_rot(rig, rig_object(rig, 'd', 2), 70);
	CHECK_EQ(check(rig, &f), 0);
	CHECK_OK(sim_bucket_lose(rig->bucket, rig_object(rig, 'd', rig_objects(rig, 'd') - 1)));
	CHECK(check(rig, &f) >= 1);
	CHECK(strstr(f.text[0], "missing") != NULL);
	rig_free(rig);
	rig = rig_full(true);
	rig_rot(rig, rig_object(rig, 'c', 0), 50);
	CHECK_EQ(check(rig, &f), 1);
	rig_rot(rig, rig_object(rig, 'c', 0), 50);
	rig_rot(rig, rig_object(rig, 'r', 0), 50);
	CHECK_EQ(check(rig, &f), 1);
	rig_free(rig);
}

TEST(stranded_objects_are_counted)
{
	struct lsvd_rig *rig = rig_full(true);
	const struct key key = {KEY_DATA, 100000, 1, 0}, part = {KEY_PART, 9999, 1, 0};
	char text[STORE_KEY_MAX + 1];
	struct found f;

	key_format(text, RIG_NAME, &key);
	CHECK_OK(store_put_new(rig->store, text, "x", 1));
	key_format(text, RIG_NAME, &part);
	CHECK_OK(store_put_new(rig->store, text, "x", 1));
	CHECK_EQ(check(rig, &f), 0);
	CHECK_EQ(f.check.stranded, 1);
	CHECK_EQ(f.check.leftovers, 1);
	rig_free(rig);
}

TEST(error_extents_are_problems)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	uint8_t *media;
	const uint32_t want[2] = {1, 9};
	struct found f;
	size_t off = 0;

	rig->opt.hold_destage = true;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 20));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_look(rig, true, false));
	media = dev_mem_bytes_data(rig->cache_bytes);
	while (memcmp(media + off, want, sizeof(want)) != 0)
		off += DEV_SECTOR_BYTES;
	media[off + 99] ^= 1;
	CHECK_OK(rig_acquire(rig));
	CHECK_OK(rig_drain(rig));
	rig_release(rig);
	CHECK_EQ(check(rig, &f), 1);
	CHECK_EQ(f.problem[0].lba, 8);
	CHECK_EQ(f.problem[0].sectors, 8);
	CHECK_EQ(f.check.error_sectors, 8);
	rig_free(rig);
}

/* ---- dump */

struct told {
	struct lsvd_dump dump;
	char text[1 << 16];
	size_t len;
	int depth;
};

static void told_add(struct told *t, const char *key, const char *value)
{
	t->len += (size_t)snprintf(t->text + t->len, sizeof(t->text) - t->len, "%s=%s\n",
				   key ? key : "", value);
	CHECK(t->len < sizeof(t->text));
}

static void told_string(struct lsvd_dump *dump, const char *key, const char *value)
{
	told_add(container_of(dump, struct told, dump), key, value);
}

static void told_number(struct lsvd_dump *dump, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	told_add(container_of(dump, struct told, dump), key, text);
}

static void told_begin(struct lsvd_dump *dump, const char *key, bool array)
{
	struct told *t = container_of(dump, struct told, dump);

	told_add(t, key, array ? "[" : "{");
	t->depth++;
}

static void told_end(struct lsvd_dump *dump)
{
	CHECK(container_of(dump, struct told, dump)->depth-- > 0);
}

static const char *dump(struct lsvd_rig *rig, struct told *t, const char *what)
{
	*t = (struct told){.dump = {told_string, told_number, told_begin, told_end}};
	CHECK_OK(lsvd_dump(rig->store, RIG_NAME, what, &t->dump, NULL));
	CHECK_EQ(t->depth, 0);
	return t->text;
}

TEST(dump_tells)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct told *t = malloc(sizeof(*t));
	char key[STORE_KEY_MAX + 1];
	const char *text;

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 77, 8));
	CHECK_OK(rig_drain(rig));
	rig_release(rig);
	text = dump(rig, t, "superblock");
	CHECK(strstr(text, "name=" RIG_NAME "\n") && strstr(text, "magic=OK\n") &&
	      strstr(text, "type=superblock\n") && strstr(text, "vol_size=8388608\n") &&
	      strstr(text, "live_sectors=8\n") && strstr(text, "clean=yes\n"));
	text = dump(rig, t, "objects");
	CHECK(strstr(text, "lba=77\n") && strstr(text, "type=data\n"));
	text = dump(rig, t, "checkpoint");
	CHECK(strstr(text, "type=checkpoint root\n") && strstr(text, "kind=objects\n"));
	text = dump(rig, t, rig_object(rig, 'c', 0));
	CHECK(strstr(text, "type=checkpoint part\n") && strstr(text, "sectors=8\n"));
	snprintf(key, sizeof(key), "%s", rig_object(rig, 'd', 0));
	rig_rot(rig, key, 60);
	text = dump(rig, t, key);
	CHECK(strstr(text, "magic=OK\n") && strstr(text, "checksum=bad\n"));
	rig_rot(rig, key, 1);
	text = dump(rig, t, key);
	CHECK(strstr(text, "magic=bad\n"));
	CHECK_EQ(lsvd_dump(rig->store, RIG_NAME, "nothing", &t->dump, NULL), -ENOENT);
	free(t);
	rig_free(rig);
}
