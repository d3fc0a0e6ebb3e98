/* SPDX-License-Identifier: BSD-3-Clause */
/* From the log to the store and back: batches, errors of the store, damage, the order of things. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/codec.h"

static struct lsvd_status status(struct lsvd_rig *rig)
{
	struct lsvd_status st;

	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	return st;
}

static void plan(struct lsvd_rig *rig, int kind, enum store_op op, int error, uint64_t times,
		 const char *part)
{
	struct sim_fault f = {
		.kind = kind,
		.ops = 1u << op,
		.error = error,
		.nth = 1,
		.times = times,
	};

	snprintf(f.key_part, sizeof(f.key_part), "%s", part);
	CHECK_OK(sim_bucket_fault(rig->bucket, &f));
}

static struct lsvd_rig *rig_opened(void)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	return rig;
}

/* The header of the n-th data object. */
static const void *object(struct lsvd_rig *rig, unsigned n, struct obj_hdr *ret)
{
	size_t len;
	const void *body = sim_bucket_body(rig->bucket, rig_object(rig, 'd', n), &len);

	CHECK(body != NULL);
	CHECK_OK(obj_decode(body, len, ret, NULL));
	CHECK_EQ(len, ret->header_bytes + ret->data_bytes);
	return body;
}

static void check_object_sums(const uint8_t *body, const struct obj_hdr *h)
{
	for (uint32_t i = 0; i < h->ext_count; i++) {
		struct obj_ext e;

		obj_ext(body, i, &e);
		for (uint32_t at = 0; e.type == LSVD_EXT_DATA && at < e.sectors; at += 8) {
			const uint32_t n = e.sectors - at < 8 ? e.sectors - at : 8;

			CHECK_EQ(crc32c(0, body + h->header_bytes + (e.data_sector + at) * 512,
					n * 512),
				 obj_crc(body, e.first_crc + at / 8));
		}
	}
}

TEST(data_is_destaged_by_age)
{
	struct lsvd_rig *rig = rig_opened();

	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_EQ(rig_objects(rig, 'd'), 0);
	host_single_advance(&rig->hs, 2 * rig->opt.batch_age_ns);
	CHECK_EQ(rig_objects(rig, 'd'), 1);
	CHECK_EQ(status(rig).oldest_undestaged_ns, 0);
	rig_free(rig);
}

TEST(hold_holds_but_a_drain_does_not)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.hold_destage = true;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	host_single_advance(&rig->hs, 10 * rig->opt.batch_age_ns);
	CHECK_EQ(rig_objects(rig, 'd'), 0);
	CHECK_OK(rig_drain(rig));
	CHECK_EQ(rig_objects(rig, 'd'), 1);
	CHECK_OK(rig_write(rig, 8, 8));
	host_single_advance(&rig->hs, 10 * rig->opt.batch_age_ns);
	CHECK_EQ(rig_objects(rig, 'd'), 1);
	host_enter(&rig->hs.host);
	lsvd_set_hold(rig->lsvd, false);
	host_leave(&rig->hs.host);
	host_single_advance(&rig->hs, 10 * rig->opt.batch_age_ns);
	CHECK_EQ(rig_objects(rig, 'd'), 2);
	rig_verify(rig);
	rig_free(rig);
}

TEST(batch_is_coalesced_sorted_and_merged)
{
	struct lsvd_rig *rig = rig_opened();
	const uint8_t *body;
	struct obj_hdr h;
	struct obj_ext e;

	CHECK_OK(rig_write(rig, 64, 8));
	CHECK_OK(rig_write(rig, 40, 8));
	CHECK_OK(rig_write(rig, 48, 8));
	CHECK_OK(rig_write(rig, 64, 8));
	CHECK_OK(rig_write(rig, 67, 2));
	CHECK_OK(rig_zero(rig, DEV_ZERO, 42, 3));
	CHECK_OK(rig_drain(rig));
	CHECK_EQ(rig_objects(rig, 'd'), 1);
	body = object(rig, 0, &h);
	check_object_sums(body, &h);
	/* 40..41, zero 42..44, 45..55, 64..71 */
	CHECK_EQ(h.ext_count, 4);
	obj_ext(body, 1, &e);
	CHECK_EQ(e.type, LSVD_EXT_ZERO);
	obj_ext(body, 2, &e);
	CHECK_EQ(e.lba, 45);
	CHECK_EQ(e.sectors, 11);
	CHECK_EQ(h.data_bytes, (2 + 11 + 8) * 512);
	CHECK_EQ(status(rig).coalesced_bytes, (34 - 21) * 512);
	rig_verify(rig);
	rig_free(rig);
}

TEST(every_object_is_sound)
{
	struct lsvd_rig *rig = rig_opened();
	struct obj_hdr h;

	for (unsigned i = 0; i < 400; i++)
		rig_random_op(rig);
	CHECK_OK(rig_drain(rig));
	for (unsigned i = 0; i < rig_objects(rig, 'd'); i++)
		check_object_sums(object(rig, i, &h), &h);
	rig_free(rig);
}

/* Writes far larger than a batch: none is in two objects. */
TEST(write_is_never_cut_between_objects)
{
	struct lsvd_rig *rig = rig_opened();
	struct obj_hdr h;

	rig->opt.batch_bytes = 4096;
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 12; i++) {
		CHECK_OK(rig_write(rig, i * 600, 600));
		CHECK_OK(rig_write(rig, 9000 + i, 1));
	}
	CHECK_OK(rig_drain(rig));
	for (unsigned i = 0; i < rig_objects(rig, 'd'); i++) {
		const uint8_t *body = object(rig, i, &h);

		for (uint32_t x = 0; x < h.ext_count; x++) {
			struct obj_ext e;

			obj_ext(body, x, &e);
			if (e.lba < 7200) {
				CHECK_EQ(e.lba % 600, 0);
				CHECK_EQ(e.sectors % 600, 0);
			}
		}
	}
	rig_verify(rig);
	rig_free(rig);
}

TEST(own_put_that_seemed_to_fail_is_recognised)
{
	struct lsvd_rig *rig = rig_opened();

	plan(rig, SIM_STORE_EFFECT, STORE_PUT_NEW, -ETIMEDOUT, 1, RIG_NAME ".0");
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_EQ(rig_objects(rig, 'd'), 1);
	CHECK(status(rig).put_retries >= 1);
	CHECK_EQ(status(rig).home_error, 0);
	rig_verify(rig);
	rig_free(rig);
}

TEST(own_checkpoint_that_seemed_to_fail_is_recognised)
{
	struct lsvd_rig *rig = rig_opened();

	plan(rig, SIM_STORE_EFFECT, STORE_PUT_NEW, -ETIMEDOUT, 1, RIG_NAME ".c");
	plan(rig, SIM_STORE_EFFECT, STORE_PUT_NEW, -ETIMEDOUT, 1, RIG_NAME ".r");
	plan(rig, SIM_STORE_EFFECT, STORE_REPLACE, -ETIMEDOUT, 1, "");
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_checkpoint(rig));
	CHECK_EQ(status(rig).checkpoints, 1);
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_drain(rig));
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(late_superblock_of_our_own_is_no_fence)
{
	struct lsvd_rig *rig = rig_opened();

	plan(rig, SIM_STORE_LATE, STORE_REPLACE, -ETIMEDOUT, 1, "");
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_checkpoint(rig));
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_EQ(status(rig).failed, 0);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(foreign_object_under_our_key_stops_us)
{
	struct lsvd_rig *rig = rig_opened();
	const struct key key = {KEY_DATA, 1, 1, 0};
	char text[STORE_KEY_MAX + 1];

	key_format(text, RIG_NAME, &key);
	CHECK_OK(store_put_new(rig->store, text, "not an object", 13));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_EQ(rig_drain(rig), -EEXIST);
	CHECK_EQ(status(rig).failed, -EEXIST);
	rig_free(rig);
}

TEST(store_that_fails_is_waited_for)
{
	static const int errors[] = {-EIO, -EACCES, -ENOSPC, -ETIMEDOUT};

	for (unsigned i = 0; i < 4; i++) {
		struct lsvd_rig *rig = rig_opened();

		plan(rig, SIM_STORE_ERROR, STORE_PUT_NEW, errors[i], 0, "");
		CHECK_OK(rig_write(rig, 0, 8));
		CHECK_OK(rig_write(rig, 8, 8));
		host_single_advance(&rig->hs, UINT64_C(300000000000));
		CHECK_EQ(rig_objects(rig, 'd'), 0);
		CHECK_EQ(status(rig).home_error, errors[i]);
		CHECK(status(rig).put_retries > 5);
		CHECK(status(rig).put_retries < 200);
		rig_verify(rig);
		sim_bucket_heal(rig->bucket);
		CHECK_OK(rig_drain(rig));
		CHECK_EQ(status(rig).home_error, 0);
		rig_verify(rig);
		rig_free(rig);
	}
}

TEST(drain_gives_up_after_the_timeout)
{
	struct lsvd_rig *rig = rig_opened();

	plan(rig, SIM_STORE_ERROR, STORE_PUT_NEW, -EIO, 0, "");
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_EQ(rig_drain(rig), -EIO);
	sim_bucket_heal(rig->bucket);
	CHECK_OK(rig_drain(rig));
	plan(rig, SIM_STORE_ERROR, STORE_PUT_NEW, -ENOSPC, 0, RIG_NAME ".c");
	CHECK_EQ(rig_checkpoint(rig), -ENOSPC);
	sim_bucket_heal(rig->bucket);
	CHECK_OK(rig_checkpoint(rig));
	rig_free(rig);
}

/* A store error now and then, everywhere, for a long time. */
TEST(nothing_is_lost_to_errors)
{
	struct lsvd_rig *rig = rig_opened();
	static const int kinds[] = {SIM_STORE_ERROR, SIM_STORE_EFFECT};

	for (unsigned i = 0; i < 2; i++) {
		struct sim_fault f = {.kind = kinds[i], .error = -EIO, .chance_ppm = 150000};

		f.ops = 1u << STORE_PUT_NEW | 1u << STORE_REPLACE | 1u << STORE_HEAD |
			1u << STORE_GET | 1u << STORE_DELETE;
		CHECK_OK(sim_bucket_fault(rig->bucket, &f));
	}
	for (unsigned i = 0; i < 300; i++) {
		rig_random_op(rig);
		if (i % 50 == 49) {
			CHECK_OK(rig_drain(rig));
			CHECK_OK(rig_checkpoint(rig));
			rig_verify(rig);
		}
	}
	CHECK_EQ(status(rig).failed, 0);
	sim_bucket_heal(rig->bucket);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

/* ---- damage */

/* Finds the bytes of a write in the cache and bends one. */
static void rot_cache(struct lsvd_rig *rig, uint32_t mark, uint32_t lba)
{
	uint8_t *at = dev_mem_bytes_data(rig->cache_bytes);
	const uint32_t want[2] = {mark, lba};

	for (size_t off = 0; off + 8 <= RIG_CACHE_BYTES; off += 512) {
		if (memcmp(at + off, want, sizeof(want)) == 0) {
			at[off + 100] ^= 4;
			return;
		}
	}
	FAIL("mark %u is not in the cache", mark);
}

TEST(rot_in_the_cache_becomes_an_error_extent)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	uint8_t buf[64 * DEV_SECTOR_BYTES];
	struct obj_hdr h;
	const uint8_t *body;
	bool found = false;

	rig->opt.hold_destage = true;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 20));
	CHECK_OK(rig_write(rig, 40, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_look(rig, true, false));
	rot_cache(rig, 1, 10);
	CHECK_OK(rig_acquire(rig));
	CHECK_OK(rig_drain(rig));
	body = object(rig, 0, &h);
	check_object_sums(body, &h);
	for (uint32_t i = 0; i < h.ext_count; i++) {
		struct obj_ext e;

		obj_ext(body, i, &e);
		if (e.type == LSVD_EXT_ERROR) {
			CHECK_EQ(e.lba, 8);
			CHECK_EQ(e.sectors, 8);
			found = true;
		}
	}
	CHECK(found);
	/* Loud there, and nowhere else; also after opening, from a checkpoint too. */
	for (unsigned i = 0; i < 2; i++) {
		CHECK_EQ(rig_read(rig, 8, 8, buf), -EIO);
		CHECK_EQ(rig_read(rig, 15, 1, buf), -EIO);
		CHECK_OK(rig_read(rig, 0, 8, buf));
		CHECK_OK(rig_read(rig, 16, 40, buf));
		rig_release(rig);
		CHECK_OK(rig_open(rig));
	}
	/* Until it is written again. */
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_drain(rig));
	rig_verify(rig);
	rig_free(rig);
}

static void two_objects(struct lsvd_rig *rig)
{
	CHECK_OK(rig_write(rig, 0, 32));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_write(rig, 100, 32));
	CHECK_OK(rig_drain(rig));
}

TEST(rot_in_an_object_is_an_error)
{
	struct lsvd_rig *rig = rig_opened();
	uint8_t buf[8 * DEV_SECTOR_BYTES];
	struct obj_hdr h;

	two_objects(rig);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	object(rig, 0, &h);
	rig_rot(rig, rig_object(rig, 'd', 0), h.header_bytes + 9 * 512);
	CHECK_OK(rig_read(rig, 0, 8, buf));
	CHECK_EQ(rig_read(rig, 8, 1, buf), -EIO);
	CHECK_OK(rig_read(rig, 16, 8, buf));
	CHECK_OK(rig_read(rig, 100, 8, buf));
	rig_free(rig);
}

TEST(rotten_header_is_an_error)
{
	struct lsvd_rig *rig = rig_opened();
	uint8_t buf[8 * DEV_SECTOR_BYTES];

	two_objects(rig);
	rig_release(rig);
	rig_rot(rig, rig_object(rig, 'd', 0), 180);
	CHECK_OK(rig_open(rig));
	CHECK_EQ(rig_read(rig, 0, 8, buf), -EIO);
	CHECK_OK(rig_read(rig, 100, 8, buf));
	rig_free(rig);
}

TEST(garbled_reads_are_read_again)
{
	struct lsvd_rig *rig = rig_opened();

	two_objects(rig);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	plan(rig, SIM_STORE_GARBLE, STORE_GET, 0, 1, RIG_NAME ".0");
	rig_verify(rig);
	plan(rig, SIM_STORE_GARBLE, STORE_GET, 0, 1, RIG_NAME ".0");
	rig_verify(rig);
	rig_free(rig);
}

TEST(reads_wait_for_the_store_but_not_for_ever)
{
	struct lsvd_rig *rig = rig_opened();
	uint8_t buf[8 * DEV_SECTOR_BYTES];
	uint64_t before;

	two_objects(rig);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	plan(rig, SIM_STORE_ERROR, STORE_GET, -ETIMEDOUT, 3, RIG_NAME ".0");
	rig_verify(rig);
	plan(rig, SIM_STORE_ERROR, STORE_GET, -ETIMEDOUT, 0, RIG_NAME ".0");
	before = rig->hs.now_ns;
	CHECK_EQ(rig_read(rig, 0, 8, buf), -EIO);
	CHECK(rig->hs.now_ns - before >= rig->opt.home_timeout_ns);
	CHECK(rig->hs.now_ns - before < 2 * rig->opt.home_timeout_ns);
	sim_bucket_heal(rig->bucket);
	rig_verify(rig);
	rig_free(rig);
}

/* Six slices that take longer than the timeout together, and an error in the last one. */
TEST(slow_read_is_no_failing_read)
{
	struct lsvd_rig *rig = rig_opened();
	struct sim_fault slow = {
		.kind = SIM_STORE_DELAY,
		.ops = 1u << STORE_GET,
		.nth = 1,
		.times = 5,
	};
	const struct sim_fault out = {
		.kind = SIM_STORE_ERROR,
		.ops = 1u << STORE_GET,
		.error = -EIO,
		.nth = 6,
		.times = 1,
	};
	uint8_t buf[96 * 8 * DEV_SECTOR_BYTES];

	slow.delay_ns = rig->opt.home_timeout_ns / 4;
	for (unsigned i = 0; i < 48; i++)
		CHECK_OK(rig_write(rig, 16 * i, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(sim_bucket_fault(rig->bucket, &slow));
	CHECK_OK(sim_bucket_fault(rig->bucket, &out));
	CHECK_OK(rig_read(rig, 0, 96 * 8, buf));
	CHECK(rig->hs.now_ns > rig->opt.home_timeout_ns);
	rig_verify(rig);
	rig_free(rig);
}

/* Longer than one slice of installing takes, over many extents. */
TEST(large_zero_is_installed_in_slices)
{
	struct lsvd_rig *rig = rig_opened();

	for (unsigned i = 0; i < 200; i++)
		CHECK_OK(rig_write(rig, 80 * i, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_zero(rig, DEV_ZERO, 100, RIG_SECTORS - 200));
	CHECK_OK(rig_drain(rig));
	rig_verify(rig);
	CHECK_EQ(status(rig).live_sectors, status(rig).map_extents * 8);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

/* ---- bounds */

TEST(headers_are_cached_within_a_bound)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.header_cache_bytes = 64u << 10;
	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 60; i++) {
		CHECK_OK(rig_write(rig, i * 16, 8));
		CHECK_OK(rig_drain(rig));
	}
	rig_verify(rig);
	CHECK(status(rig).header_cache_bytes <= 64u << 10);
	rig_free(rig);
}

TEST(map_at_its_limit_holds)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.map_limit_bytes = 1;
	rig->opt.batch_bytes = 64u << 10;
	CHECK_OK(rig_open(rig));
	CHECK(status(rig).map_bytes <= 1u << 20);
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(extents_tell_log_and_home)
{
	struct lsvd_rig *rig = rig_opened();
	bool data;

	CHECK_OK(rig_write(rig, 10, 10));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_write(rig, 20, 10));
	CHECK_OK(rig_zero(rig, DEV_DISCARD, 12, 2));
	host_enter(&rig->hs.host);
	CHECK_EQ(lsvd_extent(rig->lsvd, 0, RIG_SECTORS, &data), 10);
	CHECK(!data);
	CHECK_EQ(lsvd_extent(rig->lsvd, 10, RIG_SECTORS, &data), 12);
	CHECK(data);
	CHECK_EQ(lsvd_extent(rig->lsvd, 12, RIG_SECTORS, &data), 14);
	CHECK(!data);
	CHECK_EQ(lsvd_extent(rig->lsvd, 14, RIG_SECTORS, &data), 30);
	CHECK(data);
	CHECK_EQ(lsvd_extent(rig->lsvd, 30, RIG_SECTORS, &data), RIG_SECTORS);
	CHECK(!data);
	host_leave(&rig->hs.host);
	rig_free(rig);
}

TEST(release_refuses_what_is_not_through)
{
	struct lsvd_rig *rig = rig_opened();

	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_EQ(lsvd_release(rig->lsvd, NULL), -EBUSY);
	rig_close(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(puts_overtake_each_other_but_installs_do_not)
{
	struct lsvd_rig *rig = rig_opened();

	/* The first put fails for a while; the others go through. */
	plan(rig, SIM_STORE_ERROR, STORE_PUT_NEW, -EIO, 3, "0001.00000001");
	for (unsigned i = 0; i < 12; i++)
		CHECK_OK(rig_write(rig, i * 100, 100));
	CHECK_OK(rig_flush(rig));
	host_single_settle(&rig->hs);
	if (rig_objects(rig, 'd') > 0)
		CHECK_EQ(status(rig).durable_seq, 0);
	rig_verify(rig);
	CHECK_OK(rig_drain(rig));
	rig_verify(rig);
	rig_free(rig);
}
