#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# The test library and the runner report each way in which a case can end.
. "$(dirname "$0")/../lib/tap.sh"
prog=$work/planted
cat >"$prog.c" <<'END'
#include "lib/tap.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *fail_in_thread(void *arg)
{
	CHECK_EQ(1, (intptr_t)arg);
	return NULL;
}

TEST(good) { CHECK(true); }
TEST(good_too) { puts("not ok 1 - a case cannot pretend"); }
TEST(bad_check) { CHECK(1 == 2); }
TEST(bad_eq) { CHECK_EQ(3, 4); }
TEST(bad_streq) { CHECK_STREQ("left", "right"); }
TEST(bad_memeq) { CHECK_MEMEQ("ab", "ac", 2); }
TEST(bad_ok) { CHECK_OK(-5); }
TEST(bad_note) { test_note("noted"); FAIL("number %d", 7); }
TEST(bad_abort) { abort(); }
TEST(bad_exit) { exit(3); }
TEST(bad_hang) { for (;;) pause(); }
TEST(bad_seed) { printf("seed %d\n", (int)test_seed()); fflush(stdout); CHECK(false); }
TEST(bad_thread)
{
	pthread_t t;

	pthread_create(&t, NULL, fail_in_thread, NULL);
	pthread_join(t, NULL);
	sleep(100);
}
TEST(bad_dir)
{
	char path[600];

	snprintf(path, sizeof(path), "%s/file", test_tmpdir());
	fclose(fopen(path, "w"));
	puts(path);
	abort();
}
TEST(skipped) { SKIP("no such device"); }
END
cc -std=c11 -D_GNU_SOURCE -I"$src/tests" -o "$prog" "$prog.c" "$src/tests/lib/tap.c" -pthread ||
	exit 1
export VARVE_TEST_TIMEOUT=1 VARVE_SEED=77 VARVE_TEST_DIR="$work"

"$prog" >"$work/out" 2>&1
code=$?
says() { # text
	grep -qF -e "$1" "$work/out" || { cat "$work/out"; return 1; }
}
cases=$("$prog" --list | wc -l)
expect "--list names all cases" test "$cases" = 15
expect "the exit code is 1" test $code = 1
expect "the plan counts all" says "1..$cases"
expect "two cases pass" test "$(grep -c '^ok .* - good' "$work/out")" = 2
expect "twelve fail, all named bad" test "$(grep -c '^not ok .* - bad_' "$work/out")" = 12
expect "no other fails" test "$(grep -c '^not ok' "$work/out")" = 12
expect "a skip has its reason" says "# SKIP no such device"
expect "a condition is shown" says "planted.c:15: CHECK(1 == 2) failed"
expect "numbers are shown" says "3 (0x3) != 4 (0x4)"
expect "strings are shown" says '"left" != "right"'
expect "the differing byte is shown" says "byte 1 of 2: 0x62 != 0x63"
expect "an errno is shown by its name" says "Input/output error (-5)"
expect "notes and messages are shown" says "number 7"
expect "a signal is shown" says "bad_abort: Aborted"
expect "an exit code is shown" says "bad_exit: exit code 3"
expect "a hang is ended" says "bad_hang: no end after 1 seconds"
expect "a failure in a thread ends the case" says "bad_thread: exit code 1"
expect "the seed is shown" says "VARVE_SEED=0x4d"
expect "directories are removed" test -z "$(find "$work" -mindepth 1 -name 'varve-test-*')"
expect "the directory was there" says "/file"

"$prog" 'good*' >"$work/out" 2>&1
expect "a glob selects" says "1..2"
expect "one case alone" "$prog" good
refuse "a name that is none" "$prog" nothing
expect "--no-fork passes" "$prog" --no-fork good
"$prog" --no-fork bad_check >/dev/null 2>&1
expect "--no-fork aborts" test $? = 134
finish
