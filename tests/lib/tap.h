/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The test library. A test program is a file of cases and nothing else; main() comes from here.
 *
 *	#include "lib/tap.h"
 *
 *	TEST(flush_makes_durable)
 *	{
 *		CHECK_OK(dev_flush(dev));
 *		CHECK_EQ(dev_size(dev), 4096);
 *	}
 *
 * Each case runs in a process of its own, so that a crash, a hang or a leak is reported for that
 * case and the others still run. A failed check ends the process at once, which is valid from any
 * thread. What a case prints is shown only if it fails (or with -v). Results are TAP on stdout.
 *
 *	test_x                  all cases
 *	test_x --list           their names
 *	test_x 'flush_*'        those whose names match
 *	test_x --no-fork NAME   in this process, for a debugger: a failed check aborts
 *
 *	VARVE_SEED              what test_seed() returns
 *	VARVE_TEST_TIMEOUT      seconds for each case, 60 by default, 0 for no limit
 *	VARVE_TEST_KEEP         if set, directories of test_tmpdir() are kept
 *	VARVE_TEST_DIR          where these directories are made: else TMPDIR, else /tmp
 */
#ifndef TESTS_LIB_TAP_H
#define TESTS_LIB_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_case {
	const char *name;
	void (*run)(void);
	struct test_case *next;
};

#define TEST(fn)                                                                    \
	static void test_case_##fn(void);                                           \
	static struct test_case test_case_entry_##fn = {#fn, test_case_##fn, NULL}; \
	__attribute__((constructor)) static void test_case_register_##fn(void)      \
	{                                                                           \
		test_register(&test_case_entry_##fn);                               \
	}                                                                           \
	static void test_case_##fn(void)

#define CHECK(cond) test_check((cond), __FILE__, __LINE__, #cond)

/* Integers, and pointers too. Both values are printed. */
#define CHECK_EQ(a, b) test_check_eq((intmax_t)(a), (intmax_t)(b), __FILE__, __LINE__, #a, #b)

#define CHECK_STREQ(a, b) test_check_streq((a), (b), __FILE__, __LINE__, #a, #b)

#define CHECK_MEMEQ(a, b, len) test_check_memeq((a), (b), (len), __FILE__, __LINE__, #a, #b)

/* For what returns 0 or a negative errno; prints strerror. */
#define CHECK_OK(expr) test_check_ok((expr), __FILE__, __LINE__, #expr)

/* Ends the case. The reason is printed and counted. */
#define SKIP(reason) test_skip(reason)

/* The seed of this run, from VARVE_SEED or fixed. A case that called this prints it on failure. */
uint64_t test_seed(void);

/*
 * A directory for this case alone, the same for every call, removed with all in it when the case
 * has ended, however it ended.
 */
const char *test_tmpdir(void);

/* A line that is shown if the case fails. */
void test_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Fails the case, with a message. */
_Noreturn void test_fail(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)

/* What the macros above expand to. */
void test_register(struct test_case *tc);
void test_check(bool ok, const char *file, int line, const char *text);
void test_check_eq(intmax_t a, intmax_t b, const char *file, int line, const char *ta,
		   const char *tb);
void test_check_streq(const char *a, const char *b, const char *file, int line, const char *ta,
		      const char *tb);
void test_check_memeq(const void *a, const void *b, size_t len, const char *file, int line,
		      const char *ta, const char *tb);
void test_check_ok(intmax_t ret, const char *file, int line, const char *text);
_Noreturn void test_skip(const char *reason);

#endif
