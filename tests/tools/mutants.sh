#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-mutants tells a step that a test guards from one that no test guards.
. "$(dirname "$0")/../lib/tap.sh"
mkdir -p "$work/src/base"
cat >"$work/src/base/steps.c" <<'END'
#include "base/mutant.h"
#include <stdio.h>

/* VARVE_STEP("in.a_comment") is none. */
int main(void)
{
	int flushed = 0;

	if (VARVE_STEP("test.guarded"))
		flushed = 1;
	if (VARVE_STEP("test.unguarded"))
		fputs("", stdout);
	printf("1..1\n%s 1 - flushed\n", flushed ? "ok" : "not ok");
	return !flushed;
}
END
cc -std=c11 -D_GNU_SOURCE -DVARVE_MUTANTS=1 -I"$src/src" -o "$work/crash_steps" \
	"$work/src/base/steps.c" "$src/src/base/mutant.c" -pthread || exit 1
cc -std=c11 -D_GNU_SOURCE -I"$src/src" -o "$work/crash_plain" "$work/src/base/steps.c" || exit 1
export VARVE_MUTANT_TESTS="$work/crash_steps" VARVE_SRC="$work"

mutants() { # expected last line, then names
	want=$1
	shift
	"$src/tools/check-mutants" "$work" "$@" >"$work/out" 2>&1
	code=$?
	cat "$work/out"
	[ "$(tail -n 1 "$work/out")" = "$want" ] && [ $code = "${want_code:-0}" ]
}

expect "a guarded step" mutants "1 passed, 0 failed, 0 skipped" test.guarded
want_code=1
expect "an unguarded one" mutants "1 passed, 1 failed, 0 skipped"
expect "it is named" grep -q "^not ok - test.unguarded" "$work/out"
expect "an ordinary build removes nothing" env VARVE_MUTANT=test.guarded "$work/crash_plain"
VARVE_MUTANT_TESTS=/bin/false
expect "tests that fail anyway prove nothing" mutants "0 passed, 1 failed, 2 skipped"
finish
