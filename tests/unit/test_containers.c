/* SPDX-License-Identifier: BSD-3-Clause */
/* Little-endian fields, lists, bitmaps, random numbers, UUIDs. */
#include <errno.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/endian.h"
#include "base/list.h"
#include "base/rng.h"
#include "base/uuid.h"
#include "lib/tap.h"

TEST(endian_bytes)
{
	static const uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
	le16 f16 = le16_make(0x0201);
	le32 f32 = le32_make(0x04030201);
	le48 f48 = le48_make(UINT64_C(0x060504030201));
	le64 f64 = le64_make(UINT64_C(0x0807060504030201));

	CHECK_MEMEQ(&f16, bytes, 2);
	CHECK_MEMEQ(&f32, bytes, 4);
	CHECK_MEMEQ(&f48, bytes, 6);
	CHECK_MEMEQ(&f64, bytes, 8);
	CHECK_EQ(le16_get(f16), 0x0201);
	CHECK_EQ(le32_get(f32), 0x04030201);
	CHECK_EQ(le48_get(f48), UINT64_C(0x060504030201));
	CHECK_EQ(le64_get(f64), UINT64_C(0x0807060504030201));
	CHECK_EQ(le48_get(le48_make(LE48_MAX)), LE48_MAX);
}

TEST(endian_has_no_padding)
{
	struct {
		uint8_t a;
		le64 b;
		le16 c;
		le48 d;
		le32 e;
	} s;

	CHECK_EQ(sizeof(s), 21);
}

struct item {
	int n;
	struct list_head link;
};

static void check_list(const struct list_head *l, const char *want)
{
	struct item *it;
	size_t n = 0;

	list_for_each_entry(it, l, struct item, link)
	{
		CHECK(n < strlen(want));
		CHECK_EQ(it->n, want[n++]);
		CHECK(it->link.next->prev == &it->link && it->link.prev->next == &it->link);
	}
	CHECK_EQ(n, strlen(want));
	CHECK_EQ(list_count(l), n);
	CHECK_EQ(list_empty(l), n == 0);
}

TEST(list_order)
{
	struct list_head l = LIST_INIT(l);
	struct item a = {.n = 'a'}, b = {.n = 'b'}, c = {.n = 'c'};

	CHECK(!list_pop(&l) && !list_first(&l) && !list_last(&l));
	list_add_tail(&b.link, &l);
	list_add_tail(&c.link, &l);
	list_add(&a.link, &l);
	check_list(&l, "abc");
	CHECK(list_first(&l) == &a.link && list_last(&l) == &c.link);
	list_del(&b.link);
	list_del(&b.link);
	check_list(&l, "ac");
	list_add_tail(&b.link, &c.link);
	check_list(&l, "abc");
	CHECK(list_pop(&l) == &a.link);
	check_list(&l, "bc");
}

TEST(list_splice_moves_all)
{
	struct list_head l = LIST_INIT(l), m = LIST_INIT(m);
	struct item v[] = {{.n = 'a'}, {.n = 'b'}, {.n = 'c'}, {.n = 'd'}};

	list_splice_tail(&m, &l);
	list_splice(&m, &l);
	check_list(&l, "");
	list_add_tail(&v[0].link, &m);
	list_add_tail(&v[1].link, &m);
	list_splice(&m, &l);
	check_list(&l, "ab");
	check_list(&m, "");
	list_add_tail(&v[2].link, &m);
	list_add_tail(&v[3].link, &m);
	list_splice(&m, &l);
	check_list(&l, "cdab");
	list_splice_tail(&l, &m);
	check_list(&m, "cdab");
}

TEST(list_safe_walk)
{
	struct list_head l = LIST_INIT(l), *pos, *tmp;
	struct item v[] = {{.n = 'a'}, {.n = 'b'}, {.n = 'c'}}, *it, *next;

	for (int i = 0; i < 3; i++)
		list_add_tail(&v[i].link, &l);
	list_for_each_entry_safe(it, next, &l, struct item, link)
	{
		if (it->n == 'b')
			list_del(&it->link);
	}
	check_list(&l, "ac");
	list_for_each_safe(pos, tmp, &l) list_del(pos);
	check_list(&l, "");
}

TEST(bitmap_against_bytes)
{
	enum {
		BITS = 300
	};
	uint64_t map[BITMAP_WORDS(BITS)] = {0};
	uint8_t want[BITS] = {0};
	struct rng r;

	rng_seed(&r, test_seed());
	/* What lies beyond the size must not matter. */
	memset(map, 0xff, sizeof(map));
	bitmap_clear_range(map, 0, BITS);
	for (int i = 0; i < 20000; i++) {
		uint64_t a = rng_below(&r, BITS), b = rng_between(&r, a, BITS), next, weight = 0;
		bool set = rng_chance(&r, 1, 2);

		if (rng_chance(&r, 1, 2)) {
			b = a + 1;
			(set ? bitmap_set : bitmap_clear)(map, a);
		} else {
			(set ? bitmap_set_range : bitmap_clear_range)(map, a, b);
		}
		memset(want + a, set, b - a);
		a = rng_below(&r, BITS + 1);
		b = rng_between(&r, a, BITS);
		for (next = a; next < b && !want[next]; next++)
			;
		CHECK_EQ(bitmap_next_set(map, a, b), next);
		for (next = a; next < b && want[next]; next++)
			;
		CHECK_EQ(bitmap_next_clear(map, a, b), next);
		for (next = a; next < b; next++)
			weight += want[next];
		CHECK_EQ(bitmap_weight(map, a, b), weight);
	}
	for (uint64_t bit = 0; bit < BITS; bit++)
		CHECK_EQ(bitmap_test(map, bit), want[bit]);
}

/* Recorded: a seed must reproduce a failure years later. */
TEST(rng_is_the_same_for_ever)
{
	struct rng r;

	rng_seed(&r, 1);
	CHECK_EQ(rng_next(&r), UINT64_C(0xb3f2af6d0fc710c5));
	CHECK_EQ(rng_next(&r), UINT64_C(0x853b559647364cea));
}

TEST(rng_is_even)
{
	uint64_t hits[7] = {0}, n = 70000, yes = 0;
	struct rng r;

	rng_seed(&r, test_seed());
	for (uint64_t i = 0; i < n; i++) {
		hits[rng_below(&r, 7)]++;
		yes += rng_chance(&r, 1, 10);
		CHECK_EQ(rng_below(&r, 1), 0);
		CHECK(rng_between(&r, 5, 9) - 5 <= 4);
	}
	/* Six sigma. */
	for (int i = 0; i < 7; i++)
		CHECK(hits[i] > 9440 && hits[i] < 10560);
	CHECK(yes > 6520 && yes < 7480);
	CHECK(rng_below(&r, UINT64_MAX) < UINT64_MAX);
	rng_between(&r, 0, UINT64_MAX);
}

TEST(uuid_text)
{
	static const char *lower = "12345678-9abc-4def-8123-456789abcdef";
	struct uuid u = {{0}}, v;
	char text[UUID_TEXT_LEN];

	CHECK(uuid_is_zero(&u));
	CHECK_OK(uuid_from_text(lower, &u));
	CHECK_EQ(u.b[0], 0x12);
	CHECK_EQ(u.b[15], 0xef);
	CHECK_STREQ(uuid_to_text(&u, text), lower);
	CHECK_OK(uuid_from_text("12345678-9ABC-4DEF-8123-456789ABCDEF", &v));
	CHECK(uuid_equal(&u, &v) && !uuid_is_zero(&u));
	CHECK_EQ(uuid_from_text("", &v), -EINVAL);
	CHECK_EQ(uuid_from_text("12345678-9abc-4def-8123-456789abcdeg", &v), -EINVAL);
	CHECK_EQ(uuid_from_text("12345678-9abc-4def-8123-456789abcdef0", &v), -EINVAL);
	CHECK_EQ(uuid_from_text("123456789abc4def8123456789abcdef", &v), -EINVAL);
	CHECK(uuid_equal(&u, &v));
}

TEST(uuid_versions)
{
	struct uuid a = uuid_new(), b = uuid_new(), c = uuid_from_bits(1, 2),
		    d = uuid_from_bits(1, 2);

	CHECK(!uuid_equal(&a, &b) && !uuid_is_zero(&a));
	CHECK(uuid_equal(&c, &d));
	CHECK_EQ(a.b[6] >> 4, 4);
	CHECK_EQ(c.b[6] >> 4, 4);
	CHECK_EQ(c.b[8] >> 6, 2);
}
