/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The form of GC objects: encoding and decoding are inverse, and what is inconsistent is refused.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"
#include "lsvd/codec.h"

/* Two extents of 8 and 5 sectors, from three places that do not end where they do. */
static uint8_t *make(size_t *ret_len)
{
	static const struct obj_ext exts[] = {
		{10, 8, LSVD_EXT_DATA, 0, 0},
		{30, 5, LSVD_EXT_DATA, 8, 1},
	};
	const struct obj_hdr hdr = {
		.type = LSVD_TYPE_GC,
		.incompat = LSVD_INCOMPAT_GC,
		.volume_uuid = uuid_from_bits(1, 2),
		.epoch = 3,
		.seq = 17,
		.prev_seq = 15,
		.generation = 2,
		.header_bytes = (uint32_t)obj_header_bytes(2, 2, 3),
		.data_bytes = 13 * LSVD_SECTOR_BYTES,
		.ext_count = 2,
		.crc_count = 2,
		.source_count = 3,
	};
	uint8_t *buf = calloc(1, hdr.header_bytes);

	obj_begin(buf, &hdr);
	for (uint32_t i = 0; i < 2; i++) {
		obj_put_ext(buf, i, &exts[i]);
		obj_put_crc(buf, i, i);
	}
	obj_put_source(buf, 0, place_make(4, 100), 3);
	obj_put_source(buf, 1, place_make(9, 7), 7);
	obj_put_source(buf, 2, place_make(4, 103), 3);
	obj_seal(buf);
	*ret_len = hdr.header_bytes;
	return buf;
}

static int refused(uint8_t *buf, size_t len)
{
	struct obj_hdr hdr;

	obj_seal(buf);
	return obj_decode(buf, len, &hdr, NULL);
}

TEST(gc_object_is_inverse)
{
	struct obj_hdr hdr;
	size_t len;
	uint8_t *buf = make(&len);

	CHECK_OK(obj_decode(buf, len, &hdr, NULL));
	CHECK_EQ(hdr.type, LSVD_TYPE_GC);
	CHECK_EQ(hdr.generation, 2);
	CHECK_EQ(hdr.prev_seq, 15);
	CHECK_EQ(hdr.source_count, 3);
	free(buf);
}

TEST(moves_are_cut_at_extents_and_sources)
{
	static const struct obj_move want[] = {
		{10, (UINT64_C(4) << 23) + 100, (UINT64_C(17) << 23), 3},
		{13, (UINT64_C(9) << 23) + 7, (UINT64_C(17) << 23) + 3, 5},
		{30, (UINT64_C(9) << 23) + 12, (UINT64_C(17) << 23) + 8, 2},
		{32, (UINT64_C(4) << 23) + 103, (UINT64_C(17) << 23) + 10, 3},
	};
	struct obj_moves it = {0};
	struct obj_move mv;
	size_t len;
	uint8_t *buf = make(&len);

	for (unsigned i = 0; i < 4; i++) {
		CHECK(obj_next_move(buf, &it, &mv));
		CHECK_EQ(mv.lba, want[i].lba);
		CHECK_EQ(mv.from, want[i].from);
		CHECK_EQ(mv.to, want[i].to);
		CHECK_EQ(mv.sectors, want[i].sectors);
	}
	CHECK(!obj_next_move(buf, &it, &mv));
	free(buf);
}

TEST(sources_that_do_not_add_up_are_refused)
{
	size_t len;
	uint8_t *buf = make(&len);

	obj_put_source(buf, 2, place_make(4, 103), 4);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	obj_put_source(buf, 2, place_make(4, 103), 0);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	obj_put_source(buf, 2, place_make(4, LSVD_DATA_MAX_SECTORS - 1), 3);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	obj_put_source(buf, 2, place_make(4, 103), 3);
	CHECK_OK(refused(buf, len));
	free(buf);
}

TEST(sources_in_no_older_object_are_refused)
{
	size_t len;
	uint8_t *buf = make(&len);

	obj_put_source(buf, 0, place_make(17, 0), 3);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	obj_put_source(buf, 0, place_make(0, 5), 3);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	obj_put_source(buf, 0, PLACE_ERROR, 3);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	free(buf);
}

TEST(only_data_is_moved)
{
	const struct obj_ext zero = {30, 5, LSVD_EXT_ZERO, 8, 1};
	size_t len;
	uint8_t *buf = make(&len);

	obj_put_ext(buf, 1, &zero);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	free(buf);
}

TEST(a_data_object_has_no_sources)
{
	size_t len;
	uint8_t *buf = make(&len);
	struct lsvd_hdr *h = (void *)buf;

	h->type = le32_make(LSVD_TYPE_DATA);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	free(buf);
}

TEST(tables_beyond_the_header_are_refused)
{
	size_t len;
	uint8_t *buf = make(&len);
	struct lsvd_hdr *h = (void *)buf;

	h->source_count = le32_make(UINT32_MAX);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	h->source_count = le32_make(3);
	h->source_off = le32_make(le32_get(h->source_off) + 4);
	CHECK_EQ(refused(buf, len), -EBADMSG);
	free(buf);
}

TEST(superblock_keeps_its_flag)
{
	struct super sb = {
		.uuid = uuid_from_bits(1, 2),
		.size_bytes = 1 << 20,
		.block_bytes = 512,
		.incompat = LSVD_INCOMPAT_GC,
	};
	uint8_t buf[LSVD_SUPER_BYTES];
	struct super got;

	super_encode(buf, &sb);
	CHECK_OK(super_decode(buf, sizeof(buf), &got, NULL));
	CHECK_EQ(got.incompat, LSVD_INCOMPAT_GC);
}
