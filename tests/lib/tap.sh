# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=sh
# tap.sh: what a test script sources, as  . "$(dirname "$0")/../lib/tap.sh"
#
#	expect "what is so" COMMAND...   one case: COMMAND succeeds; its output is shown if not
#	refuse "what is not" COMMAND...  one case: COMMAND fails with an ordinary exit code
#	skip "name" "reason"             one case, not run
#	skip_all "reason"                ends the script, which had no case yet
#	finish                           the last line of the script
#
# $work is an empty directory, removed at the end; $src the source tree; $build the build.

set -u
src=$(cd "$(dirname "$0")/../.." && pwd) || exit 1
build=${VARVE_BUILD:-$src/build}
work=$(mktemp -d "${VARVE_TEST_DIR:-${TMPDIR:-/tmp}}/varve-test-XXXXXX") || exit 1
# A script that starts daemons sets this to a command that ends them.
cleanup=:
trap '$cleanup; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
tap_number=0
tap_failed=0

tap_result() { # "ok"|"not ok", name, file with output
	tap_number=$((tap_number + 1))
	printf '%s %d - %s\n' "$1" "$tap_number" "$2"
	if [ "$1" != ok ]; then
		tap_failed=1
		sed 's/^/#   /' "$3"
	fi
}

expect() {
	tap_name=$1
	shift
	if "$@" >"$work/.output" 2>&1; then
		tap_result ok "$tap_name"
	else
		echo "exit code $?: $*" >>"$work/.output"
		tap_result "not ok" "$tap_name" "$work/.output"
	fi
}

# Not by a signal either: 128 and above is a crash, and no refusal.
refuse() {
	tap_name=$1
	shift
	"$@" >"$work/.output" 2>&1
	tap_code=$?
	if [ $tap_code -gt 0 ] && [ $tap_code -lt 126 ]; then
		tap_result ok "$tap_name"
	else
		echo "exit code $tap_code, a failure was expected: $*" >>"$work/.output"
		tap_result "not ok" "$tap_name" "$work/.output"
	fi
}

skip() {
	tap_number=$((tap_number + 1))
	printf 'ok %d - %s # SKIP %s\n' $tap_number "$1" "$2"
}

skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

finish() {
	echo "1..$tap_number"
	exit $tap_failed
}
