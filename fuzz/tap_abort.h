/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the test library's helpers check may not fail in a fuzzer either; the test library itself
 * has a main() of its own. To be included once in a fuzzer.
 */
#ifndef FUZZ_TAP_ABORT_H
#define FUZZ_TAP_ABORT_H

#include <stdlib.h>

#include "lib/tap.h"

void test_check(bool ok, const char *file, int line, const char *text)
{
	(void)file;
	(void)line;
	(void)text;
	if (!ok)
		abort();
}

void test_check_eq(intmax_t a, intmax_t b, const char *file, int line, const char *ta,
		   const char *tb)
{
	(void)tb;
	test_check(a == b, file, line, ta);
}

void test_check_ok(intmax_t ret, const char *file, int line, const char *text)
{
	test_check(ret >= 0, file, line, text);
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
	(void)file;
	(void)line;
	(void)fmt;
	abort();
}

void test_note(const char *fmt, ...)
{
	(void)fmt;
}

#endif
