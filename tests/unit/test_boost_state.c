/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home's state: its bytes, and what a reader does with bad ones. */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "boost/boost_impl.h"
#include "lib/tap.h"

#define SECTORS 1000000u

static void make(struct state *st)
{
	*st = (struct state){
		.backing_bytes = SECTORS * 512ull,
		.bound_wall_ns = 11,
		.destaged_wall_ns = 12,
		.block_bytes = 4096,
		.identity = "wwid:0x5000",
		.samples.seed = 77,
	};
	for (uint32_t i = 0; i < BOOST_SAMPLES; i += 3) {
		st->samples.valid[i] = true;
		st->samples.crc[i] = i * 1000003;
	}
}

static void reseal(struct boost_state *raw)
{
	raw->crc = le32_make(0);
	raw->crc = le32_make(crc32c(0, raw, sizeof(*raw)));
}

static int decode(const struct boost_state *raw)
{
	struct err err = ERR_INIT;
	struct extmap bads;
	struct state st;
	int r;

	extmap_init(&bads, NULL, 0);
	r = state_decode(raw, sizeof(*raw), &st, &bads, &err);
	CHECK(!r || err.text[0]);
	CHECK(!r || extmap_count(&bads) == 0);
	extmap_destroy(&bads);
	return r;
}

TEST(decode_is_the_inverse_of_encode)
{
	struct boost_state raw, again;
	struct extmap bads, got;
	struct state st, back;

	make(&st);
	extmap_init(&bads, NULL, 0);
	extmap_init(&got, NULL, 0);
	CHECK_OK(extmap_insert(&bads, 100, 8, BAD_TAG));
	CHECK_OK(extmap_insert(&bads, 5000, 200000, BAD_TAG));
	CHECK_EQ(bads_entries(&bads), 5);
	CHECK_EQ(bads_sectors(&bads), 200008);
	CHECK_OK(state_encode(&st, &bads, &raw));
	CHECK_OK(state_decode(&raw, sizeof(raw), &back, &got, NULL));
	CHECK_EQ(back.backing_bytes, st.backing_bytes);
	CHECK_EQ(back.bound_wall_ns, 11);
	CHECK_EQ(back.destaged_wall_ns, 12);
	CHECK_EQ(back.block_bytes, 4096);
	CHECK_EQ(back.samples.seed, 77);
	CHECK_STREQ(back.identity, "wwid:0x5000");
	CHECK_EQ(extmap_count(&got), 2);
	CHECK_OK(state_encode(&back, &got, &again));
	CHECK_MEMEQ(&raw, &again, sizeof(raw));
	extmap_destroy(&bads);
	extmap_destroy(&got);
}

TEST(more_bad_ranges_than_fit_are_refused)
{
	struct boost_state raw;
	struct extmap bads;
	struct state st;

	make(&st);
	extmap_init(&bads, NULL, 0);
	for (uint32_t i = 0; i < BOOST_BADS; i++)
		CHECK_OK(extmap_insert(&bads, i * 100, 8, BAD_TAG));
	CHECK_OK(state_encode(&st, &bads, &raw));
	CHECK_OK(decode(&raw));
	CHECK_OK(extmap_insert(&bads, BOOST_BADS * 100, 8, BAD_TAG));
	CHECK_EQ(state_encode(&st, &bads, &raw), -ENOSPC);
	extmap_destroy(&bads);
}

static void make_raw(struct boost_state *raw)
{
	struct extmap bads;
	struct state st;

	make(&st);
	extmap_init(&bads, NULL, 0);
	CHECK_OK(extmap_insert(&bads, 100, 8, BAD_TAG));
	CHECK_OK(extmap_insert(&bads, 200, 8, BAD_TAG));
	CHECK_OK(state_encode(&st, &bads, raw));
	extmap_destroy(&bads);
}

TEST(every_flipped_bit_is_found)
{
	struct boost_state raw;
	uint8_t *bytes = (void *)&raw;

	make_raw(&raw);
	for (size_t i = 0; i < sizeof(raw) * 8; i++) {
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
		CHECK_EQ(decode(&raw), -EBADMSG);
		bytes[i / 8] ^= (uint8_t)(1u << i % 8);
	}
	CHECK_OK(decode(&raw));
}

TEST(newer_versions_are_refused)
{
	struct boost_state raw;

	make_raw(&raw);
	raw.version = le32_make(BOOST_STATE_VERSION + 1);
	reseal(&raw);
	CHECK_EQ(decode(&raw), -ENOTSUP);
	make_raw(&raw);
	raw.incompat_flags = le32_make(1);
	reseal(&raw);
	CHECK_EQ(decode(&raw), -ENOTSUP);
	make_raw(&raw);
	raw.compat_flags = le32_make(1);
	reseal(&raw);
	CHECK_OK(decode(&raw));
}

TEST(impossible_values_are_refused)
{
	struct boost_state raw;

#define WITH(what)                             \
	do {                                   \
		make_raw(&raw);                \
		what;                          \
		reseal(&raw);                  \
		CHECK_EQ(decode(&raw), -EBADMSG); \
	} while (0)
	WITH(raw.backing_bytes = le64_make(0));
	WITH(raw.backing_bytes = le64_make(1000));
	WITH(raw.backing_bytes = le64_make(UINT64_MAX / 512 * 512));
	WITH(raw.backing_bytes = le64_make(512 * 150));
	WITH(raw.block_bytes = le32_make(0));
	WITH(raw.block_bytes = le32_make(256));
	WITH(raw.block_bytes = le32_make(1536));
	WITH(raw.block_bytes = le32_make(1u << 17));
	WITH(memset(raw.identity, 'x', sizeof(raw.identity)));
	WITH(raw.bads = le32_make(BOOST_BADS + 1));
	WITH(raw.bads = le32_make(3));
	WITH(raw.bads = le32_make(UINT32_MAX));
	WITH(raw.bad[1].lba = le48_make(104));
	WITH(raw.bad[1].lba = le48_make(SECTORS - 4));
	WITH(raw.bad[1].lba = le48_make(LE48_MAX));
	WITH(raw.bad[0].sectors = le16_make(0));
#undef WITH
}

TEST(other_lengths_are_refused)
{
	struct boost_state raw;
	struct extmap bads;
	struct state st;

	make_raw(&raw);
	extmap_init(&bads, NULL, 0);
	CHECK_EQ(state_decode(&raw, sizeof(raw) - 1, &st, &bads, NULL), -EBADMSG);
	CHECK_EQ(state_decode(&raw, 0, &st, &bads, NULL), -EBADMSG);
	extmap_destroy(&bads);
}

TEST(binding_is_told)
{
	struct wlog_info info = {0};
	struct boost_binding binding;
	struct boost_state raw;

	CHECK_EQ(boost_binding(&info, &binding, NULL), -ENOENT);
	make_raw(&raw);
	info.home_bytes = sizeof(raw);
	memcpy(info.home, &raw, sizeof(raw));
	CHECK_OK(boost_binding(&info, &binding, NULL));
	CHECK_EQ(binding.backing_bytes, SECTORS * 512ull);
	CHECK_EQ(binding.bound_wall_ns, 11);
	CHECK_STREQ(binding.identity, "wwid:0x5000");
	info.home[700]++;
	CHECK_EQ(boost_binding(&info, &binding, NULL), -EBADMSG);
}

TEST(samples_lie_in_the_device)
{
	static const uint64_t sizes[] = {512, 4096, 4608, 65536, 70000 / 512 * 512, 1 << 20,
					 UINT64_C(5) << 40, (UINT64_C(5) << 40) + 512};
	struct state st;

	make(&st);
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		st.backing_bytes = sizes[k];
		for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
			CHECK(sample_off(&st, i) < sizes[k]);
			CHECK(sample_len(&st, i) > 0);
			CHECK(sample_len(&st, i) % 512 == 0);
			CHECK(sample_off(&st, i) + sample_len(&st, i) <= sizes[k]);
		}
		CHECK_EQ(sample_off(&st, 0), 0);
		CHECK_EQ(sample_off(&st, 31) + sample_len(&st, 31), sizes[k]);
	}
	CHECK(sample_off(&st, 40) != sample_off(&st, 41));
}
