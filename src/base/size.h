/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sizes and durations as people write them.
 *
 * Size: a decimal number, perhaps with a fraction, and a suffix in either case.
 *	none or B			bytes
 *	K M G T P E, or KiB MiB ...	powers of 1024
 *	KB MB GB TB PB EB		powers of 1000
 *	s				sectors of 512 bytes
 * A fraction needs a suffix other than B, and the product is rounded down to whole bytes.
 * Duration: a decimal number, perhaps with a fraction, and one of ns us ms s m (or min) h d, in
 * lower case; the suffix may be left out for 0 alone.  The product is rounded down to nanoseconds.
 *
 * No sign, no space inside or around, nothing behind.  Parsers return 0, -EINVAL for what is not
 * such a text, -ERANGE for what does not fit 64 bits; *ret is untouched on failure.
 */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include <stdint.h>

#define SIZE_TEXT_LEN 32

int size_parse(const char *text, uint64_t *ret_bytes);
int duration_parse(const char *text, uint64_t *ret_ns);

/* The shortest exact form, which size_parse reads back: "512", "4K", "1536M", "10G". */
char *size_format(uint64_t bytes, char text[SIZE_TEXT_LEN]);

/* For people: at most three digits and a rounded tenth, "1.4 GiB", "512 bytes". */
char *size_format_rough(uint64_t bytes, char text[SIZE_TEXT_LEN]);

/* The shortest exact form in one unit, which duration_parse reads back: "30s", "1500ms". */
char *duration_format(uint64_t ns, char text[SIZE_TEXT_LEN]);

#endif
