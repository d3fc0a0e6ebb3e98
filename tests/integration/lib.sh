# SPDX-License-Identifier: BSD-3-Clause
# What the integration tests share. A test sources this file, calls setup, then case_ok, is, like,
# fails and so on, and ends with finish. TAP goes to stdout. Nothing sleeps for luck: wait_for waits
# for an event, with a limit. What a test has started it ends by its pid, whichever way it leaves.
# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for the tests that source this

set -u
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SRC=$(cd "$HERE/../.." && pwd)
BUILD=${VARVE_BUILD:-$SRC/build}
V=$BUILD/varve
CASES=0
FAILED=0
T=
SEED=${VARVE_TEST_SEED:-$$}

skip_all() {
	echo "1..0 # SKIP $*"
	exit 0
}

need() {
	local p
	for p in "$@"; do
		command -v "$p" >/dev/null || skip_all "$p is not installed"
	done
}

need_root() {
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	[ -e /dev/fuse ] || skip_all "needs /dev/fuse"
	[ -e /dev/loop-control ] || skip_all "needs loop devices"
}

setup() {
	[ -x "$V" ] || skip_all "$V is not built"
	"$V" version >/dev/null || {
		echo "Bail out! $V does not run"
		exit 1
	}
	need nbdkit nbdinfo
	T=$(mktemp -d "${TMPDIR:-/tmp}/varve-test.XXXXXX") || exit 1
	export VARVE_CONFIG_DIR=$T/conf VARVE_RUN_DIR=$T/run
	mkdir "$T/conf" "$T/run" "$T/mnt"
	trap cleanup EXIT
	trap 'exit 1' INT TERM HUP
	echo "# seed $SEED, in $T"
}

# A small volume of its own: make_volume NAME SIZE CACHE-SIZE [OPTION]...
make_volume() {
	local name=$1 size=$2 cache=$3
	shift 3
	mkdir -p "$T/store-$name"
	"$V" create "$name" --size "$size" --store "dir:$T/store-$name/vol" \
		--cache "$T/$name.cache" --cache-size "$cache" "$@"
}

server_pid() {
	cat "$T/run/$1.pid" 2>/dev/null
}

# Ends a server as a crash would.
kill_server() {
	local pid
	pid=$(server_pid "$1") || return 1
	kill -9 "$pid"
	wait_for 10 gone "$pid"
}

# No such process, or nothing of it but its exit code: while one thread of it is left, so are its
# files and their locks, though the first is a zombie already.
gone() {
	local task state
	for task in "/proc/$1/task"/*/stat; do
		state=$(sed 's/.*) //' "$task" 2>/dev/null) || continue
		case $state in '' | Z* | X*) ;; *) return 1 ;; esac
	done
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

cleanup() {
	local f pid
	# The innermost mounts first.
	awk -v t="$T/" 'index($2, t) == 1 && $2 !~ /\.fuse\/disk$/ {print $2}' /proc/self/mounts |
		sort -r | while read -r f; do
		umount "$f" 2>/dev/null || umount -l "$f"
	done
	for f in "$T"/run/*.device; do
		[ -e "$f" ] && "$V" detach "$(basename "$f" .device)" --timeout 20 --force \
			>/dev/null 2>&1
	done
	for f in "$T"/run/*.server; do
		[ -e "$f" ] && "$V" serve --stop "$(basename "$f" .server)" --timeout 10 --force \
			>/dev/null 2>&1
	done
	for pid in $(jobs -p); do
		kill "$pid" 2>/dev/null
	done
	if [ "$FAILED" -gt 0 ] && [ -n "${VARVE_TEST_KEEP:-}" ]; then
		echo "# kept: $T"
	else
		chattr -R -i "$T" 2>/dev/null
		rm -rf "$T"
	fi
}

finish() {
	echo "1..$CASES"
	[ "$FAILED" -eq 0 ] || exit 1
	exit 0
}

pass() {
	CASES=$((CASES + 1))
	echo "ok $CASES - $1"
}

# fail NAME [OUTPUT]: with the output as comment.
fail() {
	CASES=$((CASES + 1))
	FAILED=$((FAILED + 1))
	echo "not ok $CASES - $1 (seed $SEED)"
	[ -z "${2:-}" ] || printf '%s\n' "$2" | sed 's/^/# /' | head -40
	return 1
}

skip() {
	CASES=$((CASES + 1))
	echo "ok $CASES - $1 # SKIP $2"
}

# case_ok NAME COMMAND...: it succeeds. Its output is in $OUT.
case_ok() {
	local name=$1 rc
	shift
	OUT=$("$@" 2>&1)
	rc=$?
	if [ $rc -eq 0 ]; then pass "$name"; else fail "$name" "exit $rc: $* : $OUT"; fi
}

# As case_ok, for what all the rest stands on: after a failure the test ends.
must() {
	case_ok "$@" || finish
}

# fails NAME CODE PATTERN COMMAND...: with this exit code, and output that matches the pattern.
fails() {
	local name=$1 code=$2 pattern=$3 rc
	shift 3
	OUT=$("$@" 2>&1)
	rc=$?
	if [ $rc -ne "$code" ]; then
		fail "$name" "exit $rc, expected $code: $* : $OUT"
	elif ! printf '%s\n' "$OUT" | grep -Eq -- "$pattern"; then
		fail "$name" "no match for $pattern: $OUT"
	else
		pass "$name"
	fi
}

is() {
	if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "got '$2', expected '$3'"; fi
}

like() {
	if printf '%s\n' "$2" | grep -Eq -- "$3"; then
		pass "$1"
	else
		fail "$1" "no match for $3: $2"
	fi
}

# A helper program of this directory, compiled into $T: tool NAME [LINKER OPTION]...
tool() {
	local name=$1
	shift
	${CC:-cc} -std=c11 -D_GNU_SOURCE -O2 -Wall -o "$T/$name" "$HERE/$name.c" "$@" ||
		skip_all "cannot compile $name.c"
}

uri() {
	echo "nbd+unix:///$1?socket=$T/run/$1.nbd"
}

qio() {
	local name=$1
	shift
	local args=() c
	for c in "$@"; do args+=(-c "$c"); done
	timeout 60 qemu-io -f raw "${args[@]}" "$(uri "$name")"
}
