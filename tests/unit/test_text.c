/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors, the log, sizes and durations, histograms. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/hist.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/size.h"
#include "lib/tap.h"

TEST(err_first_wins)
{
	struct err e = ERR_INIT;

	CHECK_STREQ(err_text(&e, -ENOENT), strerror(ENOENT));
	CHECK_EQ(err_set(&e, -EIO, "sector %d", 7), -EIO);
	CHECK_EQ(err_set(&e, -EINVAL, "later"), -EINVAL);
	CHECK_EQ(e.code, -EIO);
	CHECK_STREQ(err_text(&e, -EINVAL), "sector 7");
	err_clear(&e);
	CHECK_EQ(err_corrupt(&e, "superblock %d", 1), -EBADMSG);
	CHECK_EQ(e.code, -EBADMSG);
}

TEST(err_prefixes)
{
	struct err e = ERR_INIT;

	CHECK_EQ(err_prefix(&e, "nothing"), 0);
	CHECK_EQ(err_sys(&e, -ENOSPC, "writing %s", "x"), -ENOSPC);
	CHECK_EQ(err_prefix(&e, "opening %s", "y"), -ENOSPC);
	CHECK_STREQ(e.text, "opening y: writing x: No space left on device");
}

TEST(err_is_cut_to_fit)
{
	char fill[2 * ERR_TEXT_LEN];
	struct err e = ERR_INIT;

	memset(fill, 'x', sizeof(fill) - 1);
	fill[sizeof(fill) - 1] = 0;
	err_sys(&e, -EIO, "%s", fill);
	CHECK_EQ(strlen(e.text), ERR_TEXT_LEN - 1);
	err_prefix(&e, "%s", fill);
	err_prefix(&e, "a");
	CHECK_EQ(strlen(e.text), ERR_TEXT_LEN - 1);
	CHECK(strncmp(e.text, "a: xx", 5) == 0);
}

TEST(err_takes_null)
{
	err_clear(NULL);
	CHECK_EQ(err_set(NULL, -EIO, "x"), -EIO);
	CHECK_EQ(err_sys(NULL, -EIO, "x"), -EIO);
	CHECK_EQ(err_corrupt(NULL, "x"), -EBADMSG);
	CHECK_EQ(err_prefix(NULL, "x"), 0);
	CHECK_STREQ(err_text(NULL, -EIO), strerror(EIO));
	CHECK(err_text(NULL, -100000));
}

struct heard {
	int count;
	enum log_level level;
	char text[LOG_TEXT_LEN];
};

static void hear(void *arg, enum log_level level, const char *text)
{
	struct heard *h = arg;

	h->count++;
	h->level = level;
	snprintf(h->text, sizeof(h->text), "%s", text);
}

static int formatted;

static int count_formats(void)
{
	return ++formatted;
}

TEST(log_drops_without_a_sink)
{
	struct heard h = {0};

	log_error("%d", count_formats());
	CHECK_EQ(formatted, 0);
	log_set_sink(hear, &h);
	log_warn("low on %s", "space");
	CHECK_EQ(h.level, LOG_LEVEL_WARN);
	CHECK_STREQ(h.text, "low on space");
	log_debug("%d", count_formats());
	CHECK_EQ(formatted, 0);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("x");
	log_set_sink(NULL, NULL);
	log_error("x");
	CHECK_EQ(h.count, 2);
}

TEST(log_limits_each_site)
{
	struct heard h = {0};

	log_set_sink(hear, &h);
	for (int i = 0; i < 1000; i++)
		log_warn("again %d", i);
	CHECK(h.count >= LOG_BURST && h.count < 100);
	h.count = 0;
	log_warn("elsewhere");
	CHECK_EQ(h.count, 1);
	log_set_level(LOG_LEVEL_DEBUG);
	for (int i = 0; i < 100; i++)
		log_debug("again %d", i);
	CHECK_EQ(h.count, 101);
	log_set_sink(NULL, NULL);
}

static const struct {
	const char *text;
	int ret;
	uint64_t value;
} sizes[] = {
	{"0", 0, 0},
	{"512", 0, 512},
	{"512B", 0, 512},
	{"4K", 0, 4096},
	{"4k", 0, 4096},
	{"4KiB", 0, 4096},
	{"4kib", 0, 4096},
	{"4KB", 0, 4000},
	{"8s", 0, 4096},
	{"10G", 0, UINT64_C(10) << 30},
	{"1.5T", 0, UINT64_C(3) << 39},
	{"0.1K", 0, 102},
	{"1.9999999999999999999999G", 0, (UINT64_C(2) << 30) - 1},
	{"15.999E", 0, UINT64_C(18445591152204944769)},
	{"18446744073709551615", 0, UINT64_MAX},
	{"18446744073709551616", -ERANGE, 0},
	{"16E", -ERANGE, 0},
	{"99999999999999999999999999K", -ERANGE, 0},
	{"", -EINVAL, 0},
	{"K", -EINVAL, 0},
	{"-1", -EINVAL, 0},
	{"+1", -EINVAL, 0},
	{" 1", -EINVAL, 0},
	{"1 K", -EINVAL, 0},
	{"1.", -EINVAL, 0},
	{".5K", -EINVAL, 0},
	{"1.5", -EINVAL, 0},
	{"1.5B", -EINVAL, 0},
	{"1.5.5K", -EINVAL, 0},
	{"0x10", -EINVAL, 0},
	{"1Q", -EINVAL, 0},
	{"1KK", -EINVAL, 0},
	{"1KiBx", -EINVAL, 0},
};

TEST(size_parses)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t v = 42;

		test_note("%s", sizes[i].text);
		CHECK_EQ(size_parse(sizes[i].text, &v), sizes[i].ret);
		CHECK_EQ(v, sizes[i].ret ? 42 : sizes[i].value);
	}
}

TEST(duration_parses)
{
	uint64_t v = 42;

	CHECK_OK(duration_parse("500ms", &v));
	CHECK_EQ(v, 500000000);
	CHECK_OK(duration_parse("30s", &v));
	CHECK_EQ(v, UINT64_C(30000000000));
	CHECK_OK(duration_parse("1.5m", &v));
	CHECK_EQ(v, UINT64_C(90000000000));
	CHECK_OK(duration_parse("2min", &v));
	CHECK_EQ(v, UINT64_C(120000000000));
	CHECK_OK(duration_parse("2h", &v));
	CHECK_OK(duration_parse("1d", &v));
	CHECK_EQ(v, UINT64_C(86400000000000));
	CHECK_OK(duration_parse("3us", &v));
	CHECK_EQ(v, 3000);
	CHECK_OK(duration_parse("7ns", &v));
	CHECK_EQ(v, 7);
	CHECK_OK(duration_parse("0", &v));
	CHECK_EQ(v, 0);
	CHECK_EQ(duration_parse("30", &v), -EINVAL);
	CHECK_EQ(duration_parse("30S", &v), -EINVAL);
	CHECK_EQ(duration_parse("30 s", &v), -EINVAL);
	CHECK_EQ(duration_parse("1000000d", &v), -ERANGE);
	CHECK_EQ(v, 0);
}

TEST(size_and_duration_round_trip)
{
	char text[SIZE_TEXT_LEN];
	struct rng r;

	rng_seed(&r, test_seed());
	for (int i = 0; i < 10000; i++) {
		uint64_t v = rng_next(&r) >> rng_below(&r, 64), back = ~v;

		v &= ~UINT64_C(0) << rng_below(&r, 64);
		CHECK_OK(size_parse(size_format(v, text), &back));
		CHECK_EQ(back, v);
		CHECK_OK(duration_parse(duration_format(v, text), &back));
		CHECK_EQ(back, v);
	}
	CHECK_STREQ(size_format(0, text), "0");
	CHECK_STREQ(size_format(UINT64_C(10) << 30, text), "10G");
	CHECK_STREQ(size_format(1536 << 10, text), "1536K");
	CHECK_STREQ(duration_format(UINT64_C(30000000000), text), "30s");
	CHECK_STREQ(duration_format(UINT64_C(1500000000), text), "1500ms");
	CHECK_STREQ(duration_format(0, text), "0s");
}

TEST(size_for_people)
{
	char text[SIZE_TEXT_LEN];

	CHECK_STREQ(size_format_rough(0, text), "0 bytes");
	CHECK_STREQ(size_format_rough(1023, text), "1023 bytes");
	CHECK_STREQ(size_format_rough(1024, text), "1.0 KiB");
	CHECK_STREQ(size_format_rough(1500000000, text), "1.4 GiB");
	CHECK_STREQ(size_format_rough((UINT64_C(1) << 20) - 1, text), "1.0 MiB");
	CHECK_STREQ(size_format_rough(UINT64_MAX, text), "16.0 EiB");
}

TEST(hist_buckets_are_narrow)
{
	struct rng r;

	rng_seed(&r, test_seed());
	for (int i = 0; i < 100000; i++) {
		uint64_t v = rng_next(&r) >> rng_between(&r, 64 - HIST_TOP_BITS, 63), top;
		static struct hist h;

		hist_reset(&h);
		hist_record(&h, v);
		h.max = UINT64_MAX;
		top = hist_percentile(&h, 50000);
		CHECK(top == UINT64_MAX || (top >= v && top - v <= v / HIST_SUB));
		CHECK(top != UINT64_MAX || hist_index(v) == HIST_BUCKETS - 1);
		CHECK(v == 0 || hist_index(v) - hist_index(v - 1) <= 1);
	}
	CHECK_EQ(hist_index(UINT64_MAX), HIST_BUCKETS - 1);
}

TEST(hist_percentiles)
{
	static struct hist a, b;

	CHECK_EQ(hist_percentile(&a, 99000), 0);
	CHECK_EQ(hist_mean(&a), 0);
	for (uint64_t v = 1; v <= 1000; v++)
		hist_record(v % 2 ? &a : &b, v);
	hist_merge(&a, &b);
	CHECK_EQ(a.count, 1000);
	CHECK_EQ(hist_mean(&a), 500);
	CHECK_EQ(hist_percentile(&a, 0), 1);
	CHECK(hist_percentile(&a, 50000) >= 500 && hist_percentile(&a, 50000) < 516);
	CHECK(hist_percentile(&a, 99000) >= 990 && hist_percentile(&a, 99000) <= 1000);
	CHECK_EQ(hist_percentile(&a, 100000), 1000);
	hist_record(&a, UINT64_MAX / 2);
	CHECK_EQ(hist_percentile(&a, 100000), UINT64_MAX / 2);
}
