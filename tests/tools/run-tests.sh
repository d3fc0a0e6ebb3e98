#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# run-tests adds up, and takes nothing for a success that is none.
. "$(dirname "$0")/../lib/tap.sh"

program() { # name, script
	printf '#!/bin/sh\n%s\n' "$2" >"$work/$1"
	chmod +x "$work/$1"
}

# What is expected of the last line when these programs run, and so of the exit code.
sums() {
	want=$1
	shift
	(cd "$work" && "$src/tools/run-tests" --timeout 2 "$@") >"$work/out" 2>&1
	code=$?
	failed=$(tail -n 1 "$work/out" | sed -n 's/.* \([0-9]*\) failed.*/\1/p')
	cat "$work/out"
	[ "$(tail -n 1 "$work/out")" = "$want" ] &&
		[ "$(grep -c 'passed, .* failed, .* skipped$' "$work/out")" = 1 ] &&
		[ $code = $((failed > 0)) ]
}

program two 'echo "ok 1 - a"; echo "ok 2 - b"; echo "1..2"'
program one_bad 'echo "1..2"; echo "ok 1 - a"; echo "not ok 2 - b"; exit 1'
program skips 'echo "1..2"; echo "ok 1 - a # SKIP no disk"; echo "ok 2"'
program skips_all 'echo "1..0 # SKIP no server"'
program skips_77 'echo "no root"; exit 77'
program no_plan 'echo "ok 1 - a"'
program short 'echo "1..3"; echo "ok 1 - a"; exit 0'
program code 'echo "1..1"; echo "ok 1 - a"; exit 9'
program crash 'echo "1..1"; echo "ok 1 - a"; kill -SEGV $$'
program hang 'echo "1..1"; exec sleep 60'
program daemon 'sleep 60 & echo "1..1"; echo "ok 1 - a"'

expect "nothing to run" sums "0 passed, 0 failed, 0 skipped"
expect "passes" sums "2 passed, 0 failed, 0 skipped" ./two
expect "several programs" sums "3 passed, 0 failed, 2 skipped" ./two ./skips ./skips_all
expect "a skip shows its reason" grep -q "skipped: a: no disk" "$work/out"
expect "a failed case" sums "1 passed, 1 failed, 0 skipped" ./one_bad
expect "exit code 77" sums "0 passed, 0 failed, 1 skipped" ./skips_77
expect "no plan" sums "1 passed, 1 failed, 0 skipped" ./no_plan
expect "cases are missing" sums "1 passed, 1 failed, 0 skipped" ./short
expect "a bad exit code" sums "1 passed, 1 failed, 0 skipped" ./code
expect "a crash" sums "1 passed, 1 failed, 0 skipped" ./crash
expect "a hang" sums "0 passed, 1 failed, 0 skipped" ./hang
expect "a program that is not there" sums "0 passed, 1 failed, 0 skipped" ./absent
expect "a daemon left behind is not waited for" sums "1 passed, 0 failed, 0 skipped" ./daemon
finish
