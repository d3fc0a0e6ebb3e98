/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening: what rolls forward, what is stranded, what is damage, what falls back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/codec.h"

/* One write, one object; returns the mark. */
static uint32_t one_object(struct lsvd_rig *rig, uint32_t lba)
{
	CHECK_OK(rig_write(rig, lba, 8));
	CHECK_OK(rig_drain(rig));
	return rig->next_mark;
}

static struct lsvd_rig *rig_with_objects(unsigned n)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < n; i++)
		one_object(rig, i * 8);
	CHECK_EQ(rig_objects(rig, 'd'), n);
	return rig;
}

static void copy_key(char *to, const char *from)
{
	CHECK(from != NULL);
	snprintf(to, STORE_KEY_MAX + 1, "%s", from);
}

/* Looks at the store only, whatever the cache may hold. */
static int look_store(struct lsvd_rig *rig)
{
	return rig_look(rig, false, true);
}

TEST(rolls_forward_without_checkpoint)
{
	struct lsvd_rig *rig = rig_with_objects(5);

	rig_crash(rig);
	CHECK_OK(look_store(rig));
	CHECK_EQ(rig->cut.seq, 5);
	rig_verify(rig);
	rig_free(rig);
}

TEST(nothing_behind_a_hole_is_applied)
{
	struct lsvd_rig *rig = rig_with_objects(5);
	char key[STORE_KEY_MAX + 1];

	rig_crash(rig);
	copy_key(key, rig_object(rig, 'd', 3));
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	CHECK_OK(look_store(rig));
	CHECK_EQ(rig->cut.seq, 3);
	for (uint32_t i = 24; i < 40; i++)
		rig->oracle[i] = 0;
	rig_verify(rig);
	rig_free(rig);
}

TEST(stranded_numbers_are_not_used_again)
{
	struct lsvd_rig *rig = rig_with_objects(5);
	char lost[STORE_KEY_MAX + 1], stranded[STORE_KEY_MAX + 1];
	const char *last;

	rig_crash(rig);
	copy_key(lost, rig_object(rig, 'd', 3));
	copy_key(stranded, rig_object(rig, 'd', 4));
	CHECK_OK(sim_bucket_lose(rig->bucket, lost));
	for (uint32_t i = 24; i < 40; i++)
		rig->oracle[i] = 0;
	CHECK_OK(rig_look(rig, true, true));
	CHECK_EQ(rig->cut.seq, 3);
	CHECK_OK(rig_acquire(rig));
	one_object(rig, 200);
	rig_verify(rig);
	last = rig_object(rig, 'd', rig_objects(rig, 'd') - 1);
	CHECK(strcmp(last, stranded) > 0);
	rig_crash(rig);
	/* The hole is legal now: the next object says what came before it. */
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(late_put_of_an_old_epoch_never_counts)
{
	struct lsvd_rig *rig = rig_with_objects(3);
	char key[STORE_KEY_MAX + 1];
	size_t len;
	void *late;

	copy_key(key, rig_object(rig, 'd', 2));
	late = malloc(sim_bucket_body(rig->bucket, key, &len) ? len : 1);
	memcpy(late, sim_bucket_body(rig->bucket, key, &len), len);
	/* As if the third put were still on its way when its owner dies. */
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	rig_crash(rig);
	for (uint32_t i = 16; i < 24; i++)
		rig->oracle[i] = 0;
	CHECK_OK(rig_look(rig, true, true));
	CHECK_OK(rig_acquire(rig));
	CHECK_OK(rig_write(rig, 16, 4));
	CHECK_OK(rig_flush(rig));
	CHECK_OK(store_put_new(rig->store, key, late, len));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_drain(rig));
	rig_verify(rig);
	rig_release(rig);
	CHECK_OK(look_store(rig));
	rig_verify(rig);
	free(late);
	rig_free(rig);
}

TEST(a_put_that_lands_before_the_claim_is_noticed)
{
	struct lsvd_rig *rig = rig_with_objects(3);
	char key[STORE_KEY_MAX + 1];
	size_t len;
	void *late;

	copy_key(key, rig_object(rig, 'd', 2));
	late = malloc(sim_bucket_body(rig->bucket, key, &len) ? len : 1);
	memcpy(late, sim_bucket_body(rig->bucket, key, &len), len);
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	rig_crash(rig);
	CHECK_OK(rig_look(rig, true, true));
	CHECK_EQ(rig->cut.seq, 2);
	CHECK_OK(store_put_new(rig->store, key, late, len));
	CHECK_EQ(rig_acquire(rig), -EAGAIN);
	lsvd_close(rig->lsvd);
	CHECK_OK(rig_look(rig, true, true));
	CHECK_EQ(rig->cut.seq, 3);
	CHECK_OK(rig_acquire(rig));
	rig_verify(rig);
	free(late);
	rig_free(rig);
}

static void plan(struct lsvd_rig *rig, int kind, unsigned ops, int error, uint64_t times,
		 const char *part)
{
	struct sim_fault f = {.kind = kind, .ops = ops, .error = error, .nth = 1, .times = times};

	snprintf(f.key_part, sizeof(f.key_part), "%s", part);
	CHECK_OK(sim_bucket_fault(rig->bucket, &f));
}

TEST(stale_list_does_not_cut_the_stream)
{
	struct lsvd_rig *rig = rig_with_objects(6);

	rig_crash(rig);
	plan(rig, SIM_STORE_STALE, 1u << STORE_LIST, 0, 0, "");
	CHECK_OK(rig_look(rig, true, false));
	CHECK_EQ(rig->cut.seq, 6);
	CHECK_OK(rig_acquire(rig));
	one_object(rig, 300);
	rig_verify(rig);
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(damaged_object_in_the_middle_is_refused)
{
	struct lsvd_rig *rig = rig_with_objects(4);
	char key[STORE_KEY_MAX + 1];

	rig_crash(rig);
	copy_key(key, rig_object(rig, 'd', 1));
	rig_rot(rig, key, 200);
	CHECK_EQ(rig_look(rig, true, false), -EBADMSG);
	CHECK(strstr(rig->err.text, key) != NULL);
	CHECK_EQ(rig_look(rig, true, true), -EBADMSG);
	rig_free(rig);
}

TEST(damaged_last_object_is_cut_for_who_discards)
{
	struct lsvd_rig *rig = rig_with_objects(4);
	char key[STORE_KEY_MAX + 1];

	rig_crash(rig);
	copy_key(key, rig_object(rig, 'd', 3));
	CHECK_OK(sim_bucket_truncate(rig->bucket, key, 100));
	CHECK_EQ(rig_look(rig, true, false), -EBADMSG);
	CHECK_OK(rig_look(rig, true, true));
	CHECK_EQ(rig->cut.seq, 3);
	for (uint32_t i = 24; i < 32; i++)
		rig->oracle[i] = 0;
	CHECK_OK(rig_acquire(rig));
	one_object(rig, 400);
	rig_verify(rig);
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(missing_object_below_a_checkpoint_is_loud)
{
	struct lsvd_rig *rig = rig_with_objects(4);
	char key[STORE_KEY_MAX + 1];
	uint8_t buf[8 * DEV_SECTOR_BYTES];

	rig_release(rig);
	copy_key(key, rig_object(rig, 'd', 1));
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	CHECK_OK(rig_look(rig, true, false));
	CHECK_EQ(rig_read(rig, 8, 8, buf), -EIO);
	CHECK_OK(rig_read(rig, 0, 8, buf));
	rig_free(rig);
}

TEST(stream_shorter_than_it_was_is_refused)
{
	struct lsvd_rig *rig = rig_with_objects(4);
	char key[STORE_KEY_MAX + 1];

	/* Another attach notes how far the stream went. */
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_crash(rig);
	copy_key(key, rig_object(rig, 'd', 3));
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	CHECK_EQ(look_store(rig), -EBADMSG);
	rig_free(rig);
}

TEST(damaged_checkpoint_falls_back)
{
	struct lsvd_rig *rig = rig_with_objects(3);
	char key[STORE_KEY_MAX + 1];

	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 100);
	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 108);
	CHECK_EQ(rig_objects(rig, 'r'), 2);
	rig_crash(rig);
	copy_key(key, rig_object(rig, 'r', 1));
	rig_rot(rig, key, 170);
	CHECK_OK(look_store(rig));
	CHECK_EQ(rig->cut.seq, 5);
	rig_verify(rig);
	rig_close(rig);
	/* And with the cache: the next checkpoints put it right. */
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	one_object(rig, 116);
	CHECK_OK(rig_checkpoint(rig));
	rig_verify(rig);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(missing_part_falls_back)
{
	struct lsvd_rig *rig = rig_with_objects(3);
	char key[STORE_KEY_MAX + 1];

	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 100);
	CHECK_OK(rig_checkpoint(rig));
	rig_crash(rig);
	copy_key(key, rig_object(rig, 'c', rig_objects(rig, 'c') - 1));
	CHECK_OK(sim_bucket_lose(rig->bucket, key));
	CHECK_OK(look_store(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(no_checkpoint_left_is_refused)
{
	struct lsvd_rig *rig = rig_with_objects(3);

	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 100);
	CHECK_OK(rig_checkpoint(rig));
	rig_crash(rig);
	for (unsigned i = 0; i < 2; i++) {
		char key[STORE_KEY_MAX + 1];

		copy_key(key, rig_object(rig, 'r', i));
		rig_rot(rig, key, 170);
	}
	CHECK_EQ(look_store(rig), -EBADMSG);
	rig_free(rig);
}

TEST(third_checkpoint_is_deleted_with_its_parts)
{
	struct lsvd_rig *rig = rig_with_objects(1);
	unsigned parts = 0;

	for (unsigned i = 0; i < 6; i++) {
		one_object(rig, 2048 * i);
		CHECK_OK(rig_checkpoint(rig));
		host_single_advance(&rig->hs, 1000000);
		CHECK(rig_objects(rig, 'r') <= 2);
		/* Shards so far, and the object table, twice. */
		parts = rig_objects(rig, 'c');
		CHECK(parts <= 2 * (i + 2));
	}
	rig_verify(rig);
	rig_free(rig);
}

TEST(leftovers_of_a_dead_owner_are_deleted)
{
	struct lsvd_rig *rig = rig_with_objects(3);
	const struct key part = {KEY_PART, 900, 1, 3}, root = {KEY_ROOT, 900, 1, 0};
	char key[STORE_KEY_MAX + 1];

	CHECK_OK(rig_checkpoint(rig));
	rig_crash(rig);
	key_format(key, RIG_NAME, &part);
	CHECK_OK(store_put_new(rig->store, key, "junk", 4));
	key_format(key, RIG_NAME, &root);
	CHECK_OK(store_put_new(rig->store, key, "junk", 4));
	CHECK_EQ(rig_objects(rig, 'r'), 2);
	CHECK_OK(rig_open(rig));
	host_single_advance(&rig->hs, 1000000);
	CHECK_EQ(rig_objects(rig, 'r'), 1);
	CHECK_EQ(rig_objects(rig, 'c'), 2);
	CHECK_EQ(rig_objects(rig, 'd'), 3);
	rig_verify(rig);
	one_object(rig, 800);
	CHECK_OK(rig_checkpoint(rig));
	rig_verify(rig);
	rig_free(rig);
}

/* More owners that die than the table has rows, each with an object, none with a checkpoint. */
TEST(epoch_table_never_overflows)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.checkpoint_objects = 1000000;
	for (unsigned i = 0; i < LSVD_EPOCH_ENDS + 40; i++) {
		CHECK_OK(rig_open(rig));
		one_object(rig, i * 8);
		rig_crash(rig);
	}
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_release(rig);
	CHECK_OK(look_store(rig));
	rig_verify(rig);
	rig_free(rig);
}

/* The table is full while the newest root is damaged: the root that is made then is good. */
TEST(full_epoch_table_with_a_damaged_root)
{
	struct lsvd_rig *rig = rig_with_objects(1);
	struct lsvd_info old, now;

	CHECK_OK(rig_checkpoint(rig));
	one_object(rig, 100);
	CHECK_OK(rig_checkpoint(rig));
	rig->opt.checkpoint_objects = 1000000;
	rig_crash(rig);
	rig_rot(rig, rig_object(rig, 'r', 1), 170);
	CHECK_OK(lsvd_probe(rig->store, RIG_NAME, &old, NULL));
	for (unsigned i = 0;; i++) {
		CHECK(i < LSVD_EPOCH_ENDS + 2);
		CHECK_OK(rig_open(rig));
		CHECK_OK(lsvd_probe(rig->store, RIG_NAME, &now, NULL));
		if (now.checkpoint_seq[0] != old.checkpoint_seq[0])
			break;
		one_object(rig, 200 + i * 8);
		rig_crash(rig);
	}
	one_object(rig, 100);
	CHECK_OK(rig_checkpoint(rig));
	host_single_advance(&rig->hs, 1000000);
	CHECK_EQ(rig_objects(rig, 'r'), 2);
	CHECK_OK(lsvd_probe(rig->store, RIG_NAME, &old, NULL));
	CHECK_EQ(old.checkpoint_seq[1], now.checkpoint_seq[0]);
	rig_verify(rig);
	rig_free(rig);
}

/* Its root could not refer to a part for each shard of the size that was asked for. */
TEST(huge_volume_has_larger_shards)
{
	const struct lsvd_create_options opt = {.size_bytes = UINT64_C(1) << 57};
	struct lsvd_rig *rig = rig_new(test_seed());
	struct root_hdr root;
	struct obj_hdr hdr;
	const void *body;
	size_t len;

	CHECK_OK(lsvd_create(rig->store, "huge", &opt, NULL));
	CHECK_OK(lsvd_open(&rig->hs.host, rig->store, "huge", rig->cache, false, &rig->opt,
			   &rig->lsvd, NULL, NULL));
	CHECK_OK(rig_acquire(rig));
	one_object(rig, 0);
	CHECK_OK(rig_checkpoint(rig));
	body = sim_bucket_body(rig->bucket, "huge.r0000000000000001.00000001", &len);
	CHECK(body != NULL);
	CHECK_OK(root_decode(body, len, &hdr, &root, NULL));
	CHECK((UINT64_C(1) << 48) >> root.shard_sectors_log2 < UINT16_MAX);
	rig_verify(rig);
	rig_free(rig);
}

TEST(opening_writes_nothing)
{
	struct lsvd_rig *rig = rig_with_objects(3);
	uint64_t events;

	CHECK_OK(rig_write(rig, 500, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	events = rig->world.events;
	for (unsigned i = 0; i < 3; i++) {
		CHECK_OK(rig_look(rig, true, false));
		rig_verify(rig);
		rig_close(rig);
	}
	CHECK_EQ(rig->world.events, events);
	rig_free(rig);
}
