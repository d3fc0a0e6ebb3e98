/* SPDX-License-Identifier: BSD-3-Clause */
/* The forms of objects: encode and decode are inverses, and nothing that is bent is accepted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "lib/tap.h"
#include "lsvd/codec.h"

TEST(keys_are_inverses)
{
	static const struct key keys[] = {
		{KEY_DATA, 1, 1, 0},
		{KEY_DATA, LSVD_SEQ_MAX, UINT32_MAX, 0},
		{KEY_PART, 7, 3, 0xffff},
		{KEY_ROOT, 0x1234567890abcdef, 9, 0},
	};
	char text[STORE_KEY_MAX + 1];
	struct key key;

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		key_format(text, "a.b-c_D", &keys[i]);
		CHECK(store_key_valid(text));
		CHECK(key_parse("a.b-c_D", text, &key));
		CHECK_EQ(key.kind, keys[i].kind);
		CHECK_EQ(key.seq, keys[i].seq);
		CHECK_EQ(key.epoch, keys[i].epoch);
		CHECK_EQ(key.part, keys[i].part);
		CHECK(!key_parse("a.b-c_", text, &key));
		CHECK(!key_parse("a", text, &key));
		text[strlen(text) - 1] = 0;
		CHECK(!key_parse("a.b-c_D", text, &key));
	}
}

TEST(keys_of_others_are_not_ours)
{
	static const char *const texts[] = {
		"v",
		"v.",
		"w.0000000000000001.00000001",
		"v.0000000000000000.00000001",
		"v.0000000000000001.0000000g",
		"v.0000000000000001.00000001.",
		"v.000000000000001.00000001",
		"v.0000000000000001.00000001.0000",
		"v.c0000000000000001.00000001",
		"v.r0000000000000001.00000001.0000",
		"v.A000000000000001.00000001",
		"v.0000010000000000.00000001",
		"v.b.0000000000000001.00000001",
	};
	struct key key;

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		CHECK(!key_parse("v", texts[i], &key));
}

TEST(names_do_not_look_like_keys)
{
	char longest[LSVD_NAME_MAX + 2];

	memset(longest, 'a', sizeof(longest));
	longest[LSVD_NAME_MAX + 1] = 0;
	CHECK(!key_name_ok(longest));
	longest[LSVD_NAME_MAX] = 0;
	CHECK(key_name_ok(longest));
	CHECK(key_name_ok("vm1.img"));
	CHECK(!key_name_ok(""));
	CHECK(!key_name_ok(".hidden"));
	CHECK(!key_name_ok("a/b"));
	CHECK(!key_name_ok("a b"));
	CHECK(!key_name_ok("v.0000000000000001.00000001"));
	CHECK(!key_name_ok("v.r0000000000000001.00000001"));
}

/* ---- data objects */

static void *make_object(size_t *ret_len)
{
	static const struct obj_ext exts[] = {
		{10, 8, LSVD_EXT_DATA, 0, 0},  {18, 5, LSVD_EXT_ZERO, 8, 1},
		{30, 20, LSVD_EXT_DATA, 8, 1}, {60, 1, LSVD_EXT_ERROR, 28, 4},
		{70, 3, LSVD_EXT_DATA, 28, 4},
	};
	const struct obj_hdr hdr = {
		.type = LSVD_TYPE_DATA,
		.volume_uuid = uuid_from_bits(1, 2),
		.epoch = 3,
		.seq = 17,
		.header_bytes = (uint32_t)obj_header_bytes(5, 5, 0),
		.data_bytes = 31 * LSVD_SECTOR_BYTES,
		.wall_ns = 99,
		.first_lsn = 1000,
		.last_lsn = 1004,
		.prev_seq = 16,
		.ext_count = 5,
		.crc_count = 5,
	};
	void *buf = calloc(1, hdr.header_bytes);

	obj_begin(buf, &hdr);
	for (uint32_t i = 0; i < 5; i++) {
		obj_put_ext(buf, i, &exts[i]);
		obj_put_crc(buf, i, 0xc0 + i);
	}
	obj_seal(buf);
	*ret_len = hdr.header_bytes;
	return buf;
}

TEST(object_is_inverse)
{
	struct err err = ERR_INIT;
	struct obj_hdr hdr;
	struct obj_ext e;
	size_t len;
	void *buf = make_object(&len);

	CHECK_OK(obj_decode(buf, len, &hdr, &err));
	CHECK_EQ(hdr.seq, 17);
	CHECK_EQ(hdr.epoch, 3);
	CHECK_EQ(hdr.prev_seq, 16);
	CHECK_EQ(hdr.last_lsn, 1004);
	CHECK_EQ(hdr.ext_count, 5);
	obj_ext(buf, 2, &e);
	CHECK_EQ(e.lba, 30);
	CHECK_EQ(e.sectors, 20);
	CHECK_EQ(e.data_sector, 8);
	CHECK_EQ(obj_crc(buf, 4), 0xc4);
	free(buf);
}

TEST(object_finds_every_sector)
{
	size_t len;
	void *buf = make_object(&len);

	for (uint32_t s = 0; s < 31; s++) {
		struct obj_ext e;

		obj_find(buf, s, &e);
		CHECK_EQ(e.type, LSVD_EXT_DATA);
		CHECK(s >= e.data_sector && s < e.data_sector + e.sectors);
	}
	free(buf);
}

/* Decodes a copy that is exactly so long, so that a sanitizer sees every byte too far. */
static int decode_copy(const void *buf, size_t len)
{
	uint8_t *copy = malloc(len + !len);
	struct err err = ERR_INIT;
	struct obj_hdr hdr;
	int r;

	memcpy(copy, buf, len);
	r = obj_decode(copy, len, &hdr, &err);
	free(copy);
	return r;
}

TEST(object_truncated_is_refused)
{
	size_t len;
	void *buf = make_object(&len);

	for (size_t n = 0; n < len; n++)
		CHECK_EQ(decode_copy(buf, n), -EBADMSG);
	CHECK_OK(decode_copy(buf, len));
	free(buf);
}

TEST(object_with_any_bit_flipped_is_refused)
{
	size_t len;
	uint8_t *buf = make_object(&len);

	for (size_t bit = 0; bit < len * 8; bit++) {
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(decode_copy(buf, len) < 0);
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	free(buf);
}

/* With a valid checksum over nonsense: the bounds must hold by themselves. */
TEST(object_mutated_and_sealed_is_never_wrong)
{
	struct rng rng;
	size_t len;
	uint8_t *good = make_object(&len);

	rng_seed(&rng, test_seed());
	for (unsigned i = 0; i < 20000; i++) {
		uint8_t *buf = malloc(len);
		struct obj_hdr hdr;
		const size_t span = sizeof(struct lsvd_hdr) + 5 * sizeof(struct lsvd_ext) + 24;

		memcpy(buf, good, len);
		for (unsigned k = 0; k < 1 + rng_below(&rng, 3); k++)
			buf[rng_below(&rng, span)] = (uint8_t)rng_next(&rng);
		/* Only where sealing itself stays inside. */
		if (le32_get(((struct lsvd_hdr *)buf)->header_bytes) == len) {
			obj_seal(buf);
			if (!obj_decode(buf, len, &hdr, NULL)) {
				struct obj_ext e;

				for (uint32_t x = 0; x < hdr.ext_count; x++) {
					obj_ext(buf, x, &e);
					CHECK(e.lba + e.sectors <= LSVD_LBA_END);
				}
				for (uint32_t s = 0; s < hdr.data_bytes / 512; s += 7)
					obj_find(buf, s, &e);
				for (uint32_t x = 0; x < hdr.crc_count; x++)
					(void)obj_crc(buf, x);
			}
		}
		free(buf);
	}
	free(good);
}

static int reseal(void *buf, size_t len)
{
	obj_seal(buf);
	return decode_copy(buf, len);
}

TEST(object_reserved_fields_must_be_zero)
{
	size_t len;
	uint8_t *buf = make_object(&len);
	struct lsvd_hdr *h = (void *)buf;

	CHECK_OK(reseal(buf, len));
	h->snap_count = le32_make(1);
	CHECK_EQ(reseal(buf, len), -EBADMSG);
	h->snap_count = le32_make(0);
	h->incompat_flags = le32_make(2);
	CHECK_EQ(reseal(buf, len), -ENOTSUP);
	h->incompat_flags = le32_make(0);
	h->compat_flags = le32_make(1);
	CHECK_OK(reseal(buf, len));
	h->version = le32_make(2);
	CHECK_EQ(reseal(buf, len), -ENOTSUP);
	h->version = le32_make(1);
	buf[len - 1] = 1;
	CHECK_EQ(reseal(buf, len), -EBADMSG);
	free(buf);
}

/* ---- superblocks */

static struct super make_super(void)
{
	return (struct super){
		.uuid = uuid_from_bits(5, 6),
		.cache_uuid = uuid_from_bits(7, 8),
		.pending_uuid = uuid_from_bits(9, 10),
		.attach_epoch = 12,
		.committed_epoch = 11,
		.bound_epoch = 4,
		.writes = 77,
		.size_bytes = 1 << 30,
		.block_bytes = 512,
		.clean = true,
		.last_seq = 400,
		.last_lsn = 123456,
		.lsn_floor = 5,
		.bind_lsn = 6,
		.nonce = 7,
		.roots = {{9, 12, 4096, 1, 300}, {8, 3, 4096, 2, 200}},
		.end_count = 2,
		.ends = {{3, 100, 250}, {12, 260, LSVD_SEQ_OPEN}},
	};
}

TEST(super_is_inverse)
{
	uint8_t buf[LSVD_SUPER_BYTES], again[LSVD_SUPER_BYTES];
	struct super sb = make_super(), got;

	super_encode(buf, &sb);
	CHECK_OK(super_decode(buf, sizeof(buf), &got, NULL));
	super_encode(again, &got);
	CHECK_MEMEQ(buf, again, sizeof(buf));
	CHECK_EQ(got.ends[1].end_seq, LSVD_SEQ_OPEN);
	CHECK_EQ(got.roots[1].covered_seq, 200);
	for (size_t n = 0; n < sizeof(buf); n++)
		CHECK_EQ(super_decode(buf, n, &got, NULL), -EBADMSG);
	for (size_t bit = 0; bit < sizeof(buf) * 8; bit += 5) {
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(super_decode(buf, sizeof(buf), &got, NULL) < 0);
		buf[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static int super_try(const struct super *sb)
{
	uint8_t buf[LSVD_SUPER_BYTES];
	struct super got;

	super_encode(buf, sb);
	return super_decode(buf, sizeof(buf), &got, NULL);
}

TEST(super_windows_must_ascend)
{
	struct super sb = make_super();

	sb.ends[1].first_seq = 250;
	CHECK_EQ(super_try(&sb), -EBADMSG);
	sb = make_super();
	sb.ends[0].end_seq = LSVD_SEQ_OPEN;
	CHECK_EQ(super_try(&sb), -EBADMSG);
	sb = make_super();
	sb.ends[0].epoch = 12;
	CHECK_EQ(super_try(&sb), -EBADMSG);
	sb = make_super();
	sb.ends[1].epoch = 13;
	CHECK_EQ(super_try(&sb), -EBADMSG);
	sb = make_super();
	sb.ends[0].end_seq = 99;
	CHECK_EQ(super_try(&sb), -EBADMSG);
}

TEST(super_window_admits_its_range)
{
	struct super sb = make_super();

	CHECK_EQ(super_window(&sb, 1)->epoch, 3);
	CHECK_EQ(super_window(&sb, 250)->epoch, 3);
	CHECK_EQ(super_window(&sb, 251)->epoch, 12);
	CHECK_EQ(super_window(&sb, 1000000)->epoch, 12);
	super_prune_ends(&sb, 249);
	CHECK_EQ(sb.end_count, 2);
	super_prune_ends(&sb, 250);
	CHECK_EQ(sb.end_count, 1);
	CHECK_EQ(sb.ends[0].epoch, 12);
	super_prune_ends(&sb, LSVD_SEQ_MAX);
	CHECK_EQ(sb.end_count, 1);
	sb.end_count = 0;
	CHECK(super_window(&sb, 1) == NULL);
}

/* ---- checkpoints */

TEST(part_of_extents_is_inverse)
{
	const struct obj_hdr hdr = {.volume_uuid = uuid_from_bits(1, 1), .epoch = 2, .seq = 3};
	const struct part_hdr part = {.shard = 4, .kind = LSVD_PART_SHARD, .part = 5, .entries = 3};
	const size_t len = part_bytes(part.kind, part.entries);
	uint8_t *buf = malloc(len);
	struct obj_hdr got_hdr;
	struct part_hdr got;
	uint64_t lba, place;
	uint32_t sectors;

	CHECK_EQ(part_capacity(LSVD_PART_SHARD, len), 3);
	part_put_ext(buf, 0, 100, 50, place_make(9, 8));
	part_put_ext(buf, 1, 150, 65535, PLACE_ERROR);
	part_put_ext(buf, 2, LSVD_LBA_END - 1, 1, place_make(LSVD_SEQ_MAX, 0));
	part_seal(buf, &hdr, &part);
	CHECK_OK(part_decode(buf, len, &got_hdr, &got, NULL));
	CHECK_EQ(got.shard, 4);
	CHECK_EQ(got.part, 5);
	CHECK_EQ(got_hdr.seq, 3);
	part_ext(buf, 1, &lba, &sectors, &place);
	CHECK_EQ(lba, 150);
	CHECK_EQ(sectors, 65535);
	CHECK_EQ(place, PLACE_ERROR);
	part_ext(buf, 2, &lba, &sectors, &place);
	CHECK_EQ(place_seq(place), LSVD_SEQ_MAX);
	for (size_t n = 0; n < len; n++)
		CHECK_EQ(part_decode(buf, n, &got_hdr, &got, NULL), -EBADMSG);
	part_put_ext(buf, 2, 149, 1, place_make(1, 0));
	part_seal(buf, &hdr, &part);
	CHECK_EQ(part_decode(buf, len, &got_hdr, &got, NULL), -EBADMSG);
	free(buf);
}

TEST(part_of_objects_is_inverse)
{
	const struct obj_hdr hdr = {.epoch = 2, .seq = 3};
	const struct part_hdr part = {.kind = LSVD_PART_OBJECTS, .entries = 2};
	const struct ckpt_obj a = {5, 1, 4096, 100, 7, LSVD_TYPE_DATA, 0};
	struct ckpt_obj b = {6, 2, 8192, 0, 0, LSVD_TYPE_DATA, 0}, got_obj;
	const size_t len = part_bytes(part.kind, part.entries);
	uint8_t *buf = malloc(len);
	struct obj_hdr got_hdr;
	struct part_hdr got;

	part_put_obj(buf, 0, &a);
	part_put_obj(buf, 1, &b);
	part_seal(buf, &hdr, &part);
	CHECK_OK(part_decode(buf, len, &got_hdr, &got, NULL));
	part_obj(buf, 0, &got_obj);
	CHECK_MEMEQ(&got_obj, &a, sizeof(a));
	b.seq = 5;
	part_put_obj(buf, 1, &b);
	part_seal(buf, &hdr, &part);
	CHECK_EQ(part_decode(buf, len, &got_hdr, &got, NULL), -EBADMSG);
	free(buf);
}

TEST(root_is_inverse)
{
	const struct obj_hdr hdr = {.epoch = 2, .seq = 3};
	struct root_hdr root = {
		.covered_seq = 10,
		.covered_data_seq = 9,
		.covered_lsn = 8,
		.reach_seq = 12,
		.shard_sectors_log2 = 25,
		.parts = 2,
	};
	struct part_ref parts[2] = {
		{1, 3, 2, 0, (uint32_t)part_bytes(LSVD_PART_SHARD, 4), 4, 0xaa, LSVD_PART_SHARD},
		{0, 3, 2, 1, (uint32_t)part_bytes(LSVD_PART_OBJECTS, 5), 5, 0xbb,
		 LSVD_PART_OBJECTS},
	};
	const size_t len = root_bytes(2);
	uint8_t *buf = malloc(len);
	struct root_hdr got;
	struct obj_hdr got_hdr;
	struct part_ref ref;

	root_encode(buf, &hdr, &root, parts);
	CHECK_OK(root_decode(buf, len, &got_hdr, &got, NULL));
	CHECK_EQ(got.reach_seq, 12);
	root_part(buf, 1, &ref);
	CHECK_EQ(ref.crc, 0xbb);
	CHECK_EQ(ref.kind, LSVD_PART_OBJECTS);
	for (size_t n = 0; n < len; n++)
		CHECK_EQ(root_decode(buf, n, &got_hdr, &got, NULL), -EBADMSG);
	parts[1].bytes++;
	root_encode(buf, &hdr, &root, parts);
	CHECK_EQ(root_decode(buf, len, &got_hdr, &got, NULL), -EBADMSG);
	parts[1].bytes--;
	root.reach_seq = 9;
	root_encode(buf, &hdr, &root, parts);
	CHECK_EQ(root_decode(buf, len, &got_hdr, &got, NULL), -EBADMSG);
	free(buf);
}
