# SPDX-License-Identifier: BSD-3-Clause
# What the tests of libpmemblk.so.1 share; sourced after lib.sh, instead of setup pmemblk_setup. $T is
# on a tmpfs, whose files count as persistent memory by PMEM_IS_PMEM_FORCE: what is killed there
# loses nothing, and what is torn is found.
# shellcheck shell=bash
# shellcheck disable=SC2034

export PMEM_IS_PMEM_FORCE=1

pmemblk_setup() {
	local lib
	[ -w /dev/shm ] && export TMPDIR=/dev/shm
	setup
	OURS=$BUILD/front/pmemblk/libpmemblk.so.1
	[ -e "$OURS" ] || skip_all "$OURS is not built"
	THEIRS=
	for lib in /usr/lib/*/libpmemblk.so.1 /usr/lib64/libpmemblk.so.1; do
		[ -e "$lib" ] && THEIRS=$lib
	done
	tool pmemblk_pair -ldl
	tool pmemblk_fill -ldl -lpthread
	tool pmemblk_calls -ldl -lpthread
}

# pair SEED CALLS: the same random calls on both libraries.
pair() {
	rm -rf "$T/pair"
	mkdir "$T/pair"
	timeout 300 "$T/pmemblk_pair" "$OURS" "$THEIRS" "$T/pair" "$1" "$2"
}

# calls WHAT: one of pmemblk_calls' tests of our library.
calls() {
	rm -f "$T/calls"
	timeout 60 "$T/pmemblk_calls" "$OURS" "$T/calls" "$1"
}

# convert BSIZE BYTES SEED: a pool of theirs, taken over into one of ours.
convert() {
	local blocks
	rm -f "$T/old" "$T/new"
	blocks=$("$T/pmemblk_fill" "$THEIRS" "$T/old" make "$1" "$2" "$3") &&
		"$V" import "$T/old" "$T/new" &&
		"$T/pmemblk_fill" "$OURS" "$T/new" check "$3" "$blocks" &&
		"$T/pmemblk_fill" "$THEIRS" "$T/old" check "$3" "$blocks"
}

# die_writing LIB POOL THREADS SECONDS: kills a process in the middle of its writes.
die_writing() {
	local pid
	"$T/pmemblk_fill" "$1" "$2" run "$3" >"$T/running" &
	pid=$!
	wait_for 20 grep -q running "$T/running" && sleep "$4"
	kill -9 "$pid"
	wait "$pid" 2>/dev/null
	true
}
