/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sizes and durations as people write them (size.h).
 *
 * A text is a decimal number and a unit out of a table.  The number is kept as an integer and a
 * fraction over a power of ten, and multiplied in 128 bits, so that no text loses precision to
 * floating point and every overflow is seen.
 */
#include "base/size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

__extension__ typedef unsigned __int128 u128;

struct unit {
	const char *name;
	uint64_t factor;
};

#define POW2(n) (UINT64_C(1) << (n))

static const struct unit size_units[] = {
	{"E", POW2(60)},
	{"P", POW2(50)},
	{"T", POW2(40)},
	{"G", POW2(30)},
	{"M", POW2(20)},
	{"K", POW2(10)},
	{"", 1},
	{"B", 1},
	{"s", 512},
	{"KiB", POW2(10)},
	{"MiB", POW2(20)},
	{"GiB", POW2(30)},
	{"TiB", POW2(40)},
	{"PiB", POW2(50)},
	{"EiB", POW2(60)},
	{"KB", UINT64_C(1000)},
	{"MB", UINT64_C(1000000)},
	{"GB", UINT64_C(1000000000)},
	{"TB", UINT64_C(1000000000000)},
	{"PB", UINT64_C(1000000000000000)},
	{"EB", UINT64_C(1000000000000000000)},
	{NULL, 0},
};

#define SEC UINT64_C(1000000000)

static const struct unit duration_units[] = {
	{"d", SEC * 86400}, {"h", SEC * 3600}, {"m", SEC * 60},	  {"s", SEC}, {"ms", 1000000},
	{"us", 1000},	    {"ns", 1},	       {"min", SEC * 60}, {NULL, 0},
};

struct number {
	uint64_t whole;
	uint64_t part; /* over tenths */
	uint64_t tenths;
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Reads the number and moves *text behind it. */
static int parse_number(const char **text, struct number *ret)
{
	const char *p = *text;

	*ret = (struct number){.tenths = 1};
	if (!is_digit(*p))
		return -EINVAL;
	for (; is_digit(*p); p++) {
		if (__builtin_mul_overflow(ret->whole, 10, &ret->whole) ||
		    __builtin_add_overflow(ret->whole, (uint64_t)(*p - '0'), &ret->whole))
			return -ERANGE;
	}
	if (*p == '.') {
		p++;
		if (!is_digit(*p))
			return -EINVAL;
		for (; is_digit(*p); p++) {
			/* Digits beyond 10^-18 hardly matter; they are dropped. */
			if (ret->tenths == UINT64_C(1000000000000000000))
				continue;
			ret->part = ret->part * 10 + (uint64_t)(*p - '0');
			ret->tenths *= 10;
		}
	}
	*text = p;
	return 0;
}

static int scale(const struct number *n, uint64_t factor, uint64_t *ret)
{
	u128 v = (u128)n->whole * factor + (u128)n->part * factor / n->tenths;

	if (v > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	const struct unit *u;
	struct number n;
	int err = parse_number(&text, &n);

	if (err)
		return err;
	for (u = size_units; u->name; u++) {
		if (strcasecmp(text, u->name) == 0)
			break;
	}
	if (!u->name || (n.tenths > 1 && u->factor == 1))
		return -EINVAL;
	return scale(&n, u->factor, ret_bytes);
}

int duration_parse(const char *text, uint64_t *ret_ns)
{
	const struct unit *u;
	struct number n;
	int err = parse_number(&text, &n);

	if (err)
		return err;
	if (!*text) {
		/* A bare number could mean anything, unless it is nothing. */
		if (n.whole || n.part)
			return -EINVAL;
		*ret_ns = 0;
		return 0;
	}
	for (u = duration_units; u->name; u++) {
		if (strcmp(text, u->name) == 0)
			return scale(&n, u->factor, ret_ns);
	}
	return -EINVAL;
}

/* The tables begin with the units to print in, largest first; the last of those fits always. */
static char *format_exact(const struct unit *u, uint64_t v, char text[SIZE_TEXT_LEN])
{
	while (u->factor > 1 && (v == 0 || v % u->factor != 0))
		u++;
	snprintf(text, SIZE_TEXT_LEN, "%" PRIu64 "%s", v / u->factor, u->name);
	return text;
}

char *size_format(uint64_t bytes, char text[SIZE_TEXT_LEN])
{
	return format_exact(size_units, bytes, text);
}

char *duration_format(uint64_t ns, char text[SIZE_TEXT_LEN])
{
	if (ns == 0) {
		snprintf(text, SIZE_TEXT_LEN, "0s");
		return text;
	}
	return format_exact(duration_units, ns, text);
}

char *size_format_rough(uint64_t bytes, char text[SIZE_TEXT_LEN])
{
	static const char letters[] = "KMGTPE";
	uint64_t factor = POW2(10), tenths = 0;
	unsigned int i;

	if (bytes < POW2(10)) {
		snprintf(text, SIZE_TEXT_LEN, "%" PRIu64 " bytes", bytes);
		return text;
	}
	/* Up a unit when rounding would show 1000 or more of the smaller one. */
	for (i = 0;; i++, factor <<= 10) {
		tenths = (uint64_t)(((u128)bytes * 10 + factor / 2) / factor);
		if (tenths < 10000 || letters[i + 1] == 0)
			break;
	}
	snprintf(text, SIZE_TEXT_LEN, "%" PRIu64 ".%" PRIu64 " %ciB", tenths / 10, tenths % 10,
		 letters[i]);
	return text;
}
