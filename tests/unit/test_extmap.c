/* SPDX-License-Identifier: BSD-3-Clause */
/* The extent map, one behaviour at a time; test_extmap_random.c compares it with an array. */
#include "base/extmap.h"

#include <errno.h>
#include <stdlib.h>

#include "base/rng.h"
#include "lib/tap.h"

#define TAG(n) (EXTMAP_CONST | (n))

/* Up to eight pieces, which are either what the map holds or what a change displaced. */
struct pieces {
	unsigned int n;
	struct extent x[8];
};

static void collect(void *arg, const struct extent *x)
{
	struct pieces *p = arg;

	CHECK(p->n < 8);
	p->x[p->n++] = *x;
}

static void check_pieces(struct pieces *p, unsigned int n, const struct extent *want)
{
	CHECK_EQ(p->n, n);
	for (unsigned int i = 0; i < n; i++) {
		CHECK_EQ(p->x[i].lba, want[i].lba);
		CHECK_EQ(p->x[i].sectors, want[i].sectors);
		CHECK_EQ(p->x[i].value, want[i].value);
	}
	p->n = 0;
}

static void check_map(const struct extmap *m, unsigned int n, const struct extent *want)
{
	struct pieces p = {0};
	struct extmap_iter it;
	struct extent x;
	const char *bad = extmap_check(m);

	if (bad)
		FAIL("extmap_check: %s", bad);
	extmap_iter_init(&it, m, 0);
	while (extmap_iter_next(&it, &x))
		collect(&p, &x);
	CHECK_EQ(extmap_count(m), n);
	check_pieces(&p, n, want);
}

#define CHECK_MAP(m, ...)                                                            \
	check_map(m, sizeof((struct extent[]){__VA_ARGS__}) / sizeof(struct extent), \
		  (struct extent[]){__VA_ARGS__})
#define CHECK_PIECES(p, ...)                                                            \
	check_pieces(p, sizeof((struct extent[]){__VA_ARGS__}) / sizeof(struct extent), \
		     (struct extent[]){__VA_ARGS__})

TEST(empty)
{
	struct extmap_iter it;
	struct extmap m;
	struct extent x[2];

	extmap_init(&m, NULL, 0);
	CHECK_EQ(extmap_count(&m), 0);
	CHECK_EQ(extmap_bytes(&m), 0);
	CHECK(sizeof(m) < 1024);
	CHECK(!extmap_lookup(&m, 0, x));
	extmap_iter_init(&it, &m, 0);
	CHECK(!extmap_iter_next(&it, x) && !extmap_iter_next(&it, x));
	CHECK_EQ(extmap_lookup_range(&m, 5, 10, x, 2), 1);
	CHECK(x[0].lba == 5 && x[0].sectors == 10 && x[0].value == EXTMAP_HOLE);
	CHECK_OK(extmap_remove(&m, 0, EXTMAP_LBA_END, NULL, NULL));
	CHECK_OK(extmap_remove_if(&m, 0, 8, 0, NULL, NULL));
	CHECK_OK(extmap_insert_if(&m, 0, 8, 0, 9, NULL, NULL));
	CHECK(extmap_check(&m) == NULL);
	CHECK_EQ(extmap_bytes(&m), 0);
	extmap_destroy(&m);
}

TEST(small_maps_are_small)
{
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 8, 1));
	CHECK(extmap_bytes(&m) < 1200);
	for (uint64_t i = 0; i < 55; i++)
		CHECK_OK(extmap_insert(&m, i * 20, 8, i * 1000));
	CHECK_OK(extmap_insert_if(&m, 0, 400, 0, 5, NULL, NULL));
	CHECK_OK(extmap_remove(&m, 40, 1, NULL, NULL));
	CHECK(extmap_bytes(&m) < 1200);
	extmap_clear(&m);
	CHECK_EQ(extmap_bytes(&m), 0);
	CHECK_EQ(extmap_count(&m), 0);
	CHECK_OK(extmap_insert(&m, 1, 1, 1));
	CHECK_MAP(&m, {1, 1, 1});
	extmap_destroy(&m);
}

TEST(lookup_finds_the_covering_or_the_next)
{
	struct extmap m;
	struct extent x;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 10, 5));
	CHECK_OK(extmap_insert(&m, 200, 10, 50));
	CHECK(extmap_lookup(&m, 0, &x) && x.lba == 100);
	CHECK(extmap_lookup(&m, 100, &x) && x.lba == 100);
	CHECK(extmap_lookup(&m, 109, &x) && x.lba == 100 && x.sectors == 10 && x.value == 5);
	CHECK(extmap_lookup(&m, 110, &x) && x.lba == 200);
	CHECK(extmap_lookup(&m, 209, &x) && x.lba == 200);
	CHECK(!extmap_lookup(&m, 210, &x));
	extmap_destroy(&m);
}

TEST(range_is_described_without_gaps)
{
	struct extmap m;
	struct extent x[8];
	struct pieces p = {0};

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 10, 5));
	CHECK_OK(extmap_insert(&m, 110, 10, TAG(1)));
	CHECK_OK(extmap_insert(&m, 130, 10, 50));
	p.n = extmap_lookup_range(&m, 90, 45, p.x, 8);
	CHECK_PIECES(&p, {90, 10, EXTMAP_HOLE}, {100, 10, 5}, {110, 10, TAG(1)},
		     {120, 10, EXTMAP_HOLE}, {130, 5, 50});
	p.n = extmap_lookup_range(&m, 103, 2, p.x, 8);
	CHECK_PIECES(&p, {103, 2, 8});
	p.n = extmap_lookup_range(&m, 135, 10, p.x, 8);
	CHECK_PIECES(&p, {135, 5, 55}, {140, 5, EXTMAP_HOLE});
	p.n = extmap_lookup_range(&m, 90, 45, p.x, 2);
	CHECK_PIECES(&p, {90, 10, EXTMAP_HOLE}, {100, 10, 5});
	CHECK_EQ(extmap_lookup_range(&m, 90, 45, x, 1), 1);
	CHECK_EQ(extmap_lookup_range(&m, 90, 45, x, 0), 0);
	extmap_destroy(&m);
}

TEST(overwrite_splits)
{
	struct pieces p = {0};
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 30, 1000));
	CHECK_OK(extmap_replace(&m, 110, 10, 5000, collect, &p));
	CHECK_PIECES(&p, {110, 10, 1010});
	CHECK_MAP(&m, {100, 10, 1000}, {110, 10, 5000}, {120, 10, 1020});
	CHECK_OK(extmap_replace(&m, 90, 35, TAG(7), collect, &p));
	CHECK_PIECES(&p, {100, 10, 1000}, {110, 10, 5000}, {120, 5, 1020});
	CHECK_MAP(&m, {90, 35, TAG(7)}, {125, 5, 1025});
	CHECK_OK(extmap_replace(&m, 100, 5, TAG(8), collect, &p));
	CHECK_PIECES(&p, {100, 5, TAG(7)});
	CHECK_MAP(&m, {90, 10, TAG(7)}, {100, 5, TAG(8)}, {105, 20, TAG(7)}, {125, 5, 1025});
	extmap_destroy(&m);
}

TEST(neighbours_merge)
{
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 10, 1000));
	CHECK_OK(extmap_insert(&m, 120, 10, 1020));
	CHECK_OK(extmap_insert(&m, 110, 10, 1010));
	CHECK_MAP(&m, {100, 30, 1000});
	/* Not what follows on, not at the same place, not of the same kind. */
	CHECK_OK(extmap_insert(&m, 130, 10, 1031));
	CHECK_OK(extmap_insert(&m, 90, 9, 990));
	CHECK_MAP(&m, {90, 9, 990}, {100, 30, 1000}, {130, 10, 1031});
	CHECK_OK(extmap_insert(&m, 99, 1, 999));
	CHECK_MAP(&m, {90, 40, 990}, {130, 10, 1031});
	extmap_clear(&m);
	CHECK_OK(extmap_insert(&m, 10, 10, TAG(3)));
	CHECK_OK(extmap_insert(&m, 20, 10, TAG(3)));
	CHECK_OK(extmap_insert(&m, 30, 10, TAG(4)));
	CHECK_MAP(&m, {10, 20, TAG(3)}, {30, 10, TAG(4)});
	/* The last address below the tags is not followed by the first tag. */
	CHECK_OK(extmap_insert(&m, 0, 5, EXTMAP_CONST - 5));
	CHECK_OK(extmap_insert(&m, 5, 5, TAG(0)));
	CHECK_MAP(&m, {0, 5, EXTMAP_CONST - 5}, {5, 5, TAG(0)}, {10, 20, TAG(3)}, {30, 10, TAG(4)});
	extmap_destroy(&m);
}

/* What a change swallows at its edges was not displaced. */
TEST(merging_reports_the_range_alone)
{
	struct pieces p = {0};
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 30, 1000));
	CHECK_OK(extmap_replace(&m, 110, 10, 1010, collect, &p));
	CHECK_PIECES(&p, {110, 10, 1010});
	CHECK_MAP(&m, {100, 30, 1000});
	extmap_destroy(&m);
}

TEST(remove_cuts)
{
	struct pieces p = {0};
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 30, 1000));
	CHECK_OK(extmap_remove(&m, 110, 10, collect, &p));
	CHECK_PIECES(&p, {110, 10, 1010});
	CHECK_MAP(&m, {100, 10, 1000}, {120, 10, 1020});
	CHECK_OK(extmap_remove(&m, 105, 20, collect, &p));
	CHECK_PIECES(&p, {105, 5, 1005}, {120, 5, 1020});
	CHECK_MAP(&m, {100, 5, 1000}, {125, 5, 1025});
	CHECK_OK(extmap_remove(&m, 0, EXTMAP_LBA_END, collect, &p));
	CHECK_PIECES(&p, {100, 5, 1000}, {125, 5, 1025});
	CHECK_EQ(extmap_count(&m), 0);
	CHECK(extmap_check(&m) == NULL);
	extmap_destroy(&m);
}

TEST(remove_if_the_old_place_is_named)
{
	struct pieces p = {0};
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 100, 1000));
	CHECK_OK(extmap_insert(&m, 120, 10, 9000));
	CHECK_OK(extmap_insert(&m, 150, 10, TAG(1)));
	CHECK_OK(extmap_remove_if(&m, 110, 60, 1010, collect, &p));
	CHECK_PIECES(&p, {110, 10, 1010}, {130, 20, 1030}, {160, 10, 1060});
	CHECK_MAP(&m, {100, 10, 1000}, {120, 10, 9000}, {150, 10, TAG(1)}, {170, 30, 1070});
	/* The same values, one sector off. */
	CHECK_OK(extmap_remove_if(&m, 100, 10, 1001, collect, &p));
	CHECK_OK(extmap_remove_if(&m, 140, 30, TAG(1), collect, &p));
	CHECK_PIECES(&p, {150, 10, TAG(1)});
	CHECK_MAP(&m, {100, 10, 1000}, {120, 10, 9000}, {170, 30, 1070});
	extmap_destroy(&m);
}

TEST(insert_if_the_old_place_is_named)
{
	struct pieces p = {0};
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 100, 100, 1000));
	CHECK_OK(extmap_insert(&m, 120, 10, 9000));
	CHECK_OK(extmap_insert_if(&m, 110, 60, 1010, 5010, collect, &p));
	CHECK_PIECES(&p, {110, 10, 1010}, {130, 40, 1030});
	CHECK_MAP(&m, {100, 10, 1000}, {110, 10, 5010}, {120, 10, 9000}, {130, 40, 5030},
		  {170, 30, 1070});
	/* Given from elsewhere, the values are the same; the second finds the place taken over. */
	CHECK_OK(extmap_insert_if(&m, 0, 1000, 9000 - 120, 5020 - 120, collect, &p));
	CHECK_OK(extmap_insert_if(&m, 120, 10, 9000, 7000, collect, &p));
	CHECK_PIECES(&p, {120, 10, 9000});
	CHECK_MAP(&m, {100, 10, 1000}, {110, 60, 5010}, {170, 30, 1070});
	extmap_destroy(&m);
}

TEST(bad_arguments)
{
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_EQ(extmap_insert(&m, 0, 0, 1), -EINVAL);
	CHECK_EQ(extmap_insert(&m, EXTMAP_LBA_END, 1, 1), -EINVAL);
	CHECK_EQ(extmap_insert(&m, EXTMAP_LBA_END - 1, 2, 1), -EINVAL);
	CHECK_EQ(extmap_insert(&m, 1, UINT64_MAX, 1), -EINVAL);
	CHECK_EQ(extmap_insert(&m, 1, 1, EXTMAP_HOLE), -EINVAL);
	CHECK_EQ(extmap_insert(&m, 1, 2, EXTMAP_CONST - 1), -EINVAL);
	CHECK_EQ(extmap_insert_if(&m, 1, 2, 1, EXTMAP_HOLE, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_remove(&m, 0, 0, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_remove_if(&m, EXTMAP_LBA_END, 1, 0, NULL, NULL), -EINVAL);
	CHECK_EQ(extmap_bytes(&m), 0);
	extmap_destroy(&m);
}

TEST(the_last_sectors)
{
	struct extmap m;
	struct extent x;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, EXTMAP_LBA_END - 1, 1, EXTMAP_CONST - 1));
	CHECK_OK(extmap_insert(&m, 0, 1, 0));
	CHECK_MAP(&m, {0, 1, 0}, {EXTMAP_LBA_END - 1, 1, EXTMAP_CONST - 1});
	CHECK(extmap_lookup(&m, EXTMAP_LBA_END - 1, &x) && x.sectors == 1);
	CHECK(extmap_lookup(&m, 1, &x) && x.lba == EXTMAP_LBA_END - 1);
	CHECK_EQ(extmap_lookup_range(&m, 1, EXTMAP_LBA_END - 1, &x, 1), 1);
	CHECK_EQ(x.sectors, EXTMAP_LBA_END - 2);
	CHECK_OK(extmap_insert(&m, EXTMAP_LBA_END - 2, 1, EXTMAP_CONST - 2));
	CHECK_MAP(&m, {0, 1, 0}, {EXTMAP_LBA_END - 2, 2, EXTMAP_CONST - 2});
	extmap_destroy(&m);
}

TEST(long_extents_take_several_entries)
{
	const uint64_t most = EXTMAP_LEN_MAX;
	struct pieces p = {0};
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 10, 2 * most + 5, 100));
	CHECK_MAP(&m, {10, most, 100}, {10 + most, most, 100 + most},
		  {10 + 2 * most, 5, 100 + 2 * most});
	CHECK_OK(extmap_replace(&m, 0, 10 + 2 * most, TAG(1), collect, &p));
	CHECK_PIECES(&p, {10, most - 10, 100}, {most, 10, 90 + most},
		     {10 + most, most - 10, 100 + most}, {2 * most, 10, 90 + 2 * most});
	CHECK_MAP(&m, {0, most, TAG(1)}, {most, most, TAG(1)}, {2 * most, 10, TAG(1)},
		  {10 + 2 * most, 5, 100 + 2 * most});
	extmap_destroy(&m);
}

/* Two that are too long together stay two; a third fills up what has room. */
TEST(merging_stops_at_the_longest)
{
	const uint64_t most = EXTMAP_LEN_MAX;
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_insert(&m, 0, most, 0));
	CHECK_OK(extmap_insert(&m, most, 1, most));
	CHECK_MAP(&m, {0, most, 0}, {most, 1, most});
	CHECK_OK(extmap_insert(&m, most + 1, most - 1, most + 1));
	CHECK_MAP(&m, {0, most, 0}, {most, most, most});
	extmap_destroy(&m);
}

TEST(append_wants_order)
{
	struct extmap m;

	extmap_init(&m, NULL, 0);
	CHECK_OK(extmap_append(&m, 10, 5, 10));
	CHECK_EQ(extmap_append(&m, 14, 5, 10), -EINVAL);
	CHECK_EQ(extmap_append(&m, 0, 5, 10), -EINVAL);
	CHECK_OK(extmap_append(&m, 15, 5, 15));
	CHECK_OK(extmap_append(&m, 30, 5, 15));
	CHECK_MAP(&m, {10, 10, 10}, {30, 5, 15});
	extmap_destroy(&m);
}

TEST(append_fills_nodes)
{
	const uint64_t n = 300000;
	struct extmap m;
	struct extent x;

	extmap_init(&m, NULL, 0);
	for (uint64_t i = 0; i < n; i++)
		CHECK_OK(extmap_append(&m, i * 8, 8, i * 100));
	CHECK(extmap_check(&m) == NULL);
	CHECK_EQ(extmap_count(&m), n);
	/* What a pool has in hand for growth is not what is measured. */
	CHECK((m.leaves.total - m.leaves.nfree) * 63 < n + 200);
	for (uint64_t i = 0; i < n; i += 7)
		CHECK(extmap_lookup(&m, i * 8 + 3, &x) && x.value == i * 100);
	extmap_destroy(&m);
}

/* Random inserts leave leaves so full that an extent takes under 21 bytes, nodes and all. */
TEST(random_inserts_fill_nodes)
{
	const uint64_t n = 400000;
	struct extmap m;
	struct rng r;

	extmap_init(&m, NULL, 0);
	rng_seed(&r, test_seed());
	while (extmap_count(&m) < n)
		CHECK_OK(extmap_insert(&m, rng_below(&r, n * 4) * 8, 8, rng_next(&r) >> 20));
	CHECK(extmap_check(&m) == NULL);
	CHECK((m.leaves.total - m.leaves.nfree) * 1024 + (m.inners.total - m.inners.nfree) * 2048 <
	      21 * n);
	extmap_destroy(&m);
}

/* What was taken out is used again, and a shrunken tree is a small one. */
TEST(memory_is_reused)
{
	struct extmap m;
	size_t bytes = 0;

	extmap_init(&m, NULL, 0);
	for (int round = 0; round < 10; round++) {
		for (uint64_t i = 0; i < 20000; i++)
			CHECK_OK(extmap_insert(&m, (i * 7919 + (uint64_t)round) % 20000 * 16, 8,
					       i * 1000));
		if (round == 1)
			bytes = extmap_bytes(&m);
		for (uint64_t i = 10; i < 20000; i++)
			CHECK_OK(extmap_remove(&m, i * 16, 8, NULL, NULL));
		CHECK(extmap_check(&m) == NULL);
		CHECK_EQ(extmap_count(&m), 10);
		CHECK(m.leaves.total - m.leaves.nfree <= 2);
	}
	CHECK(extmap_bytes(&m) < bytes + bytes / 10);
	extmap_destroy(&m);
}

TEST(wide_removal_is_whole)
{
	struct extmap m;

	extmap_init(&m, NULL, 0);
	for (uint64_t i = 0; i < 200000; i++)
		CHECK_OK(extmap_append(&m, i * 16, 8, i * 1000));
	CHECK_OK(extmap_remove(&m, 4, UINT64_C(199999) * 16, NULL, NULL));
	CHECK_MAP(&m, {0, 4, 0}, {UINT64_C(199999) * 16 + 4, 4, UINT64_C(199999) * 1000 + 4});
	extmap_destroy(&m);
}

TEST(iteration_starts_anywhere)
{
	struct extmap_iter it;
	struct extmap m;
	struct extent x;

	extmap_init(&m, NULL, 0);
	for (uint64_t i = 0; i < 10000; i++)
		CHECK_OK(extmap_insert(&m, i * 10, 5, TAG(i)));
	for (uint64_t from = 0; from < 10000; from += 37) {
		uint64_t want = from;

		extmap_iter_init(&it, &m, from * 10 + 4);
		for (int i = 0; i < 200 && want < 10000; i++, want++)
			CHECK(extmap_iter_next(&it, &x) && x.lba == want * 10);
		extmap_iter_init(&it, &m, from * 10 + 5);
		CHECK(extmap_iter_next(&it, &x) == (from < 9999) &&
		      (from == 9999 || x.lba == from * 10 + 10));
	}
	extmap_destroy(&m);
}
