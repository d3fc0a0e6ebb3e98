/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * UUIDs as they lie on media: 16 bytes in the order of their text form.
 *
 * The names stay clear of libuuid's, which uuid.c uses.
 */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct uuid {
	uint8_t b[16];
};

#define UUID_TEXT_LEN 37 /* 36 characters and the terminating zero */

/* A fresh random UUID.  Not for engines, which get their randomness from outside. */
struct uuid uuid_new(void);

/* A version 4 UUID made of 128 bits of the caller's: deterministic, for simulations. */
struct uuid uuid_from_bits(uint64_t hi, uint64_t lo);

/* Parses the 36-character form in either case.  0, or -EINVAL with *ret untouched. */
int uuid_from_text(const char *text, struct uuid *ret);

/* Writes the lower-case 36-character form; returns @text. */
char *uuid_to_text(const struct uuid *u, char text[UUID_TEXT_LEN]);

static inline bool uuid_equal(const struct uuid *a, const struct uuid *b)
{
	return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}

static inline bool uuid_is_zero(const struct uuid *u)
{
	static const struct uuid zero;

	return uuid_equal(u, &zero);
}

#endif
