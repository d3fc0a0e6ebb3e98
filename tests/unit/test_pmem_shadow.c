/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulated persistent memory: which images a crash may leave, and that it leaves no others.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

#define LEN 16384

static struct pmem *pm;

static _Atomic uint64_t *word(size_t i)
{
	return (_Atomic uint64_t *)(pm->base + 8 * i);
}

static void open_shadow(const struct pm_shadow_options *opt)
{
	struct pm_shadow_options with = *opt;

	with.len_bytes = with.len_bytes ? with.len_bytes : LEN;
	CHECK_OK(pm_shadow_open(&with, &pm));
}

/* The images as one text: the first words of each, in the order of their values. */
struct seen {
	uint64_t words[4096][4];
	uint64_t count;
};

static int remember(void *arg, const uint8_t *image, uint64_t n)
{
	struct seen *seen = arg;

	CHECK_EQ(n, seen->count);
	memcpy(seen->words[seen->count++], image, sizeof(seen->words[0]));
	return 0;
}

static int by_words(const void *a, const void *b)
{
	return memcmp(a, b, 32);
}

static struct seen *look(uint64_t max, bool *ret_all)
{
	static struct seen seen;
	const struct pm_shadow_plan plan = {.max = max, .seed = test_seed()};

	seen.count = 0;
	CHECK_OK(pm_shadow_images(pm, &plan, remember, &seen, NULL, ret_all));
	qsort(seen.words, seen.count, sizeof(seen.words[0]), by_words);
	return &seen;
}

static bool has(const struct seen *seen, uint64_t a, uint64_t b)
{
	for (uint64_t i = 0; i < seen->count; i++)
		if (seen->words[i][0] == a && seen->words[i][1] == b)
			return true;
	return false;
}

TEST(each_word_has_any_value_since_its_fence)
{
	struct seen *seen;
	bool all;

	open_shadow(&(struct pm_shadow_options){0});
	pm_store8(pm, word(0), 1);
	pm_store8(pm, word(0), 2);
	pm_store8(pm, word(1), 7);
	CHECK_EQ(pm_shadow_possible(pm), 6);
	CHECK_EQ(pm_shadow_undurable(pm), 2);
	seen = look(6, &all);
	CHECK(all);
	CHECK_EQ(seen->count, 6);
	for (uint64_t a = 0; a < 3; a++)
		CHECK(has(seen, a, 0) && has(seen, a, 7));
	pm_close(pm);
}

TEST(a_flush_alone_makes_nothing_durable)
{
	open_shadow(&(struct pm_shadow_options){0});
	pm_store8(pm, word(0), 1);
	pm_flush(pm, pm->base, 8);
	CHECK_EQ(pm_shadow_possible(pm), 2);
	pm_close(pm);
}

TEST(a_fence_without_flush_makes_nothing_durable)
{
	open_shadow(&(struct pm_shadow_options){0});
	pm_store8(pm, word(0), 1);
	CHECK_OK(pm_fence(pm));
	CHECK_EQ(pm_shadow_possible(pm), 2);
	pm_close(pm);
}

TEST(flush_and_fence_make_the_line_durable)
{
	open_shadow(&(struct pm_shadow_options){0});
	pm_store8(pm, word(0), 1);
	pm_store8(pm, word(7), 2);
	pm_store8(pm, word(8), 3);
	CHECK_OK(pm_persist(pm, word(3), 1));
	CHECK_EQ(pm_shadow_possible(pm), 2);
	CHECK_EQ(((const uint64_t *)pm_shadow_durable(pm))[0], 1);
	CHECK_EQ(((const uint64_t *)pm_shadow_durable(pm))[7], 2);
	CHECK_EQ(((const uint64_t *)pm_shadow_durable(pm))[8], 0);
	pm_close(pm);
}

TEST(a_store_behind_the_flush_is_not_covered)
{
	struct seen *seen;

	open_shadow(&(struct pm_shadow_options){0});
	pm_store8(pm, word(0), 1);
	pm_flush(pm, word(0), 8);
	pm_store8(pm, word(0), 2);
	pm_store8(pm, word(1), 3);
	CHECK_OK(pm_fence(pm));
	seen = look(16, NULL);
	CHECK_EQ(seen->count, 4);
	CHECK(has(seen, 1, 0) && has(seen, 2, 0) && has(seen, 1, 3) && has(seen, 2, 3));
	pm_close(pm);
}

TEST(copies_need_no_flush)
{
	const char text[24] = "twenty-three characters";

	open_shadow(&(struct pm_shadow_options){0});
	pm_copy(pm, pm->base + 100, text, sizeof(text));
	pm_set(pm, pm->base + 200, 'x', 10);
	CHECK(pm_shadow_possible(pm) > 1);
	CHECK_OK(pm_fence(pm));
	CHECK_EQ(pm_shadow_possible(pm), 1);
	CHECK_MEMEQ(pm_shadow_durable(pm) + 100, text, sizeof(text));
	CHECK_MEMEQ(pm_shadow_durable(pm) + 200, "xxxxxxxxxx", 10);
	CHECK_EQ(pm_shadow_durable(pm)[199], 0);
	CHECK_EQ(pm_shadow_durable(pm)[210], 0);
	pm_close(pm);
}

TEST(compare_and_swap_stores_when_it_matches)
{
	uint64_t expected = 5;

	open_shadow(&(struct pm_shadow_options){0});
	CHECK(!pm_cas8(pm, word(0), &expected, 9));
	CHECK_EQ(expected, 0);
	CHECK_EQ(pm_shadow_undurable(pm), 0);
	CHECK(pm_cas8(pm, word(0), &expected, 9));
	CHECK_EQ(pm_load8(word(0)), 9);
	CHECK_EQ(pm_shadow_undurable(pm), 1);
	pm_close(pm);
}

TEST(going_back_is_one_value)
{
	open_shadow(&(struct pm_shadow_options){0});
	pm_store8(pm, word(0), 1);
	pm_store8(pm, word(0), 0);
	pm_store8(pm, word(0), 1);
	CHECK_EQ(pm_shadow_possible(pm), 2);
	pm_close(pm);
}

TEST(an_image_opens_as_durable)
{
	uint64_t image[LEN / 8] = {4, 5};

	open_shadow(&(struct pm_shadow_options){.image = image});
	CHECK_EQ(pm_load8(word(1)), 5);
	CHECK_EQ(pm_shadow_possible(pm), 1);
	CHECK_MEMEQ(pm_shadow_durable(pm), image, LEN);
	pm_close(pm);
}

static int legal(void *arg, const uint8_t *image, uint64_t n)
{
	uint64_t w[LEN / 8];
	uint64_t *seen = arg;

	(void)n;
	memcpy(w, image, LEN);
	/* 100 words with 3 values each; all others must stay zero. */
	for (size_t i = 0; i < LEN / 8; i++)
		CHECK(i < 100 ? w[i] == 0 || w[i] == i + 1 || w[i] == i + 1001 : w[i] == 0);
	seen[0] += w[0] == 0 && w[99] == 0;
	seen[1] += w[0] == 1001 && w[99] == 1100;
	seen[2] += w[0] == 0 && w[99] == 1100;
	seen[3] += w[0] == 1001 && w[99] == 0;
	seen[4] += w[0] == 1;
	return 0;
}

TEST(a_sample_holds_legal_images_of_all_kinds)
{
	struct pm_shadow_plan plan = {.max = 500, .seed = test_seed()};
	uint64_t seen[5] = {0}, images;
	bool all;

	open_shadow(&(struct pm_shadow_options){0});
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < 100; i++)
			pm_store8(pm, word(i), i + 1 + 1000 * (unsigned)round);
	CHECK_OK(pm_shadow_images(pm, &plan, legal, seen, &images, &all));
	CHECK(!all);
	CHECK_EQ(images, 500);
	for (int i = 0; i < 5; i++)
		CHECK(seen[i] > 5);
	pm_close(pm);
}

static int torn(void *arg, const uint8_t *image, uint64_t n)
{
	unsigned *seen = arg;
	uint64_t w[8];

	(void)n;
	memcpy(w, image, sizeof(w));
	for (int i = 0; i < 8; i++)
		*seen += w[i] != 0 && w[i] != UINT64_MAX;
	return 0;
}

TEST(a_copy_may_tear_within_a_word_and_a_store_may_not)
{
	struct pm_shadow_plan plan = {.max = 2000, .seed = test_seed()};
	unsigned seen = 0;

	open_shadow(&(struct pm_shadow_options){0});
	pm_set(pm, pm->base, 0xff, 128);
	CHECK_OK(pm_shadow_images(pm, &plan, torn, &seen, NULL, NULL));
	CHECK(seen > 0);
	pm_close(pm);
	open_shadow(&(struct pm_shadow_options){0});
	for (size_t i = 0; i < 16; i++)
		pm_store8(pm, word(i), UINT64_MAX);
	seen = 0;
	CHECK_OK(pm_shadow_images(pm, &plan, torn, &seen, NULL, NULL));
	CHECK_EQ(seen, 0);
	pm_close(pm);
}

TEST(words_outside_the_range_go_together)
{
	struct pm_shadow_plan plan = {.max = 100, .to_bytes = 8};
	static struct seen seen;
	bool all;

	open_shadow(&(struct pm_shadow_options){0});
	for (size_t i = 0; i < 3; i++)
		pm_store8(pm, word(i), 1);
	seen.count = 0;
	CHECK_OK(pm_shadow_images(pm, &plan, remember, &seen, NULL, &all));
	CHECK(all);
	CHECK_EQ(seen.count, 4);
	for (uint64_t i = 0; i < 4; i++)
		CHECK_EQ(seen.words[i][1], seen.words[i][2]);
	pm_close(pm);
}

static size_t escape_at;

static void on_escape(struct pmem *of, size_t off_bytes, void *arg)
{
	CHECK(of == pm && arg == &escape_at);
	escape_at = off_bytes;
}

TEST(a_store_past_the_primitives_is_found)
{
	open_shadow(&(struct pm_shadow_options){.on_escape = on_escape, .arg = &escape_at});
	pm_copy(pm, pm->base, "ok", 2);
	escape_at = SIZE_MAX;
	CHECK_OK(pm_fence(pm));
	CHECK_EQ(escape_at, SIZE_MAX);
	pm->base[5003] = 1;
	CHECK_OK(pm_fence(pm));
	CHECK_EQ(escape_at, 5000);
	/* It is told once, and from then on it is a store like others. */
	escape_at = SIZE_MAX;
	CHECK_OK(pm_fence(pm));
	CHECK_EQ(escape_at, SIZE_MAX);
	CHECK_EQ(pm_shadow_undurable(pm), 1);
	pm->base[9001] = 1;
	pm_close(pm);
	CHECK_EQ(escape_at, 9000);
}

struct points {
	unsigned count[4];
	size_t undurable;
};

static void on_point(struct pmem *of, enum pm_shadow_point point, void *arg)
{
	struct points *points = arg;

	points->count[point]++;
	points->undurable = pm_shadow_undurable(of);
}

TEST(a_point_comes_before_its_step)
{
	struct points points = {{0}, 99};

	open_shadow(&(struct pm_shadow_options){.on_point = on_point, .arg = &points});
	pm_publish8(pm, word(0), 1);
	CHECK_EQ(points.undurable, 99);
	CHECK_OK(pm_fence(pm));
	CHECK_EQ(points.undurable, 1);
	CHECK_EQ(points.count[PM_SHADOW_FENCE], 1);
	pm_close(pm);
	open_shadow(&(struct pm_shadow_options){
		.on_point = on_point, .arg = &points, .every_primitive = true});
	pm_publish8(pm, word(0), 1);
	pm_set(pm, pm->base + 64, 1, 8);
	CHECK_EQ(points.count[PM_SHADOW_FLUSH], 1);
	CHECK_EQ(points.count[PM_SHADOW_STORE], 1);
	CHECK_EQ(points.count[PM_SHADOW_COPY], 1);
	CHECK_EQ(points.undurable, 1);
	pm_close(pm);
}

TEST(a_failed_fence_stays_failed)
{
	open_shadow(&(struct pm_shadow_options){0});
	pm_shadow_fail_fence(pm, 1, -EIO);
	pm_publish8(pm, word(0), 1);
	CHECK_OK(pm_fence(pm));
	pm_publish8(pm, word(0), 2);
	CHECK_EQ(pm_fence(pm), -EIO);
	CHECK_EQ(pm_fence(pm), -EIO);
	CHECK_EQ(pm_shadow_possible(pm), 2);
	pm_close(pm);
}

TEST(poison_faults_and_heals_as_zeros)
{
	uint8_t buf[64];

	open_shadow(&(struct pm_shadow_options){0});
	pm_set(pm, pm->base, 7, 3 * 4096);
	CHECK_OK(pm_fence(pm));
	pm_store8(pm, word(0), 1);
	pm_store8(pm, word(512), 1);
	CHECK_OK(pm_shadow_poison(pm, 5000, 1));
	CHECK_EQ(pm_shadow_undurable(pm), 1);
	CHECK_OK(pm_read(pm, buf, pm->base + 4032, 64));
	CHECK_EQ(pm_read(pm, buf, pm->base + 4033, 64), -EIO);
	CHECK_EQ(pm_write(pm, pm->base + 4032, buf, 128), -EIO);
	CHECK_OK(pm_fence(pm));
	CHECK_OK(pm_shadow_heal(pm, 4096, 4096));
	CHECK_OK(pm_read(pm, buf, pm->base + 4096, 64));
	CHECK_EQ(buf[0], 0);
	CHECK_OK(pm_write(pm, pm->base + 4096, "back", 4));
	pm_close(pm);
}

TEST(counters_tell_idle_flushes)
{
	struct pm_shadow_counters c;

	open_shadow(&(struct pm_shadow_options){0});
	pm_publish8(pm, word(0), 1);
	pm_flush(pm, word(0), 8);
	CHECK_OK(pm_fence(pm));
	CHECK_OK(pm_fence(pm));
	pm_shadow_counters(pm, &c);
	CHECK_EQ(c.stores, 1);
	CHECK_EQ(c.flushes, 2);
	CHECK_EQ(c.idle_flushes, 1);
	CHECK_EQ(c.fences, 2);
	CHECK_EQ(c.idle_fences, 1);
	pm_close(pm);
}

/* A model of one word at a time, against random operations. */
struct model {
	uint64_t floor, flushed, value;
	bool has_flushed;
};

TEST(random_operations_agree_with_a_model)
{
	enum { WORDS = 32 };
	struct model m[WORDS] = {{0}};
	const uint64_t *durable;
	struct rng rng;

	rng_seed(&rng, test_seed());
	open_shadow(&(struct pm_shadow_options){.len_bytes = 8 * WORDS});
	for (int step = 0; step < 20000; step++) {
		size_t i = rng_below(&rng, WORDS), line = i / 8 * 8;

		switch (rng_below(&rng, 5)) {
		case 0:
		case 1:
			m[i].value = rng_below(&rng, 4);
			pm_store8(pm, word(i), m[i].value);
			break;
		case 2:
			m[i].value = m[i].flushed = rng_next(&rng);
			m[i].has_flushed = true;
			pm_copy(pm, pm->base + 8 * i, &m[i].value, 8);
			break;
		case 3:
			for (size_t k = line; k < line + 8; k++) {
				m[k].flushed = m[k].value;
				m[k].has_flushed = true;
			}
			pm_flush(pm, word(i), 8);
			break;
		default:
			for (size_t k = 0; k < WORDS; k++) {
				m[k].floor = m[k].has_flushed ? m[k].flushed : m[k].floor;
				m[k].has_flushed = false;
			}
			CHECK_OK(pm_fence(pm));
			break;
		}
		durable = (const uint64_t *)pm_shadow_durable(pm);
		for (size_t k = 0; k < WORDS; k++) {
			CHECK_EQ(durable[k], m[k].floor);
			CHECK_EQ(pm_load8(word(k)), m[k].value);
		}
	}
	pm_close(pm);
}

TEST(bad_sizes_are_refused)
{
	CHECK_EQ(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = 0}, &pm), -EINVAL);
	CHECK_EQ(pm_shadow_open(&(struct pm_shadow_options){.len_bytes = 12}, &pm), -EINVAL);
}
