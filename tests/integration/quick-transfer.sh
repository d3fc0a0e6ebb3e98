#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# import and export of raw images: round trips through each type of volume, holes, resuming after
# kill -9 and after signals, what is refused, what --verify finds.
. "$(dirname "$0")/lib.sh"
setup
need jq cmp openssl
M=$((1 << 20))
export PMEM_IS_PMEM_FORCE=1 # a msync is slow, and no question of this test

# random FILE OFFSET-IN-KIB KIB: the same for a seed.
random() {
	openssl enc -aes-128-ctr -nosalt -K "$(printf %032x $((SEED + $2)))" -iv 0 </dev/zero \
		2>/dev/null | dd of="$1" bs=1k seek="$2" count="$3" iflag=fullblock conv=notrunc \
		status=none
}
allocated() {
	du -k "$1" | cut -f1
}
# same A B: for as long as the first is.
same() {
	cmp -n "$(stat -c %s "$1")" "$1" "$2"
}
state_offset() {
	jq -r .offset "$1" 2>/dev/null || echo none
}

# 11 MiB and an odd end; data at the beginning, in the middle, at the end; zeros that are written.
image=$T/disk.img
random "$image" 0 700
random "$image" 5000 1500
dd if=/dev/zero of="$image" bs=1k seek=6000 count=64 conv=notrunc status=none
printf 'the odd end' >>"$image"
truncate -s $((11 * M)) "$image"
printf 'end' >>"$image"
size=$(stat -c %s "$image")
sum=$(sha256sum <"$image")

volume() { # NAME TYPE SIZE
	case $2 in
	lsvd) make_volume "$1" "$3" 16M ;;
	boost) "$V" create "$1" --type boost --size "$3" --backing "$T/$1.back" \
		--cache "$T/$1.cache" --cache-size 16M ;;
	btt) "$V" create "$1" --type btt --size "$3" --backing "$T/$1.back" ;;
	esac
}

# ---- round trips
for type in lsvd boost btt; do
	must "$type: create" volume "$type" "$type" 16M
	case_ok "$type: import" "$V" import "$image" "$type" --verify --json
	like "... tells the bytes" "$OUT" "\"bytes\": $size"
	like "... of data" "$(jq .data_bytes <<<"$OUT")" '^2[0-9]{6}$'
	case_ok "$type: export" "$V" export "$type" "$T/$type.out" --verify
	case_ok "$type: the same" same "$image" "$T/$type.out"
	is "$type: as long as the volume" "$(stat -c %s "$T/$type.out")" $((16 * M))
	[ "$(allocated "$T/$type.out")" -le 2600 ] && pass "$type: holes stay holes" ||
		fail "$type: holes stay holes" "$(allocated "$T/$type.out") KiB"
	rm -f "$T/$type.out"
	fails "$type: what it holds is not overwritten" 1 "holds data already.*--force" "$V" \
		import "$image" "$type"
	# Another image over it: what was data and is a hole now becomes zeros.
	random "$T/other" 2000 100
	truncate -s $((12 * M)) "$T/other"
	case_ok "$type: another image over it" "$V" import "$T/other" "$type" --force --verify
	case_ok "$type: export to a stream" bash -c "'$V' export $type - >'$T/stream'"
	case_ok "$type: it holds the other" same "$T/other" "$T/stream"
	case_ok "$type: import of a stream" bash -c "'$V' import - $type --force <'$image'"
	case_ok "$type: compare" "$V" import "$image" "$type" --verify-only
	rm -f "$T/stream" "$T/other"
done
is "the source is as it was" "$(sha256sum <"$image")" "$sum"
is "no state is left" "$(find "$T" -name '*-state*')" ""

# ---- a target that exists
random "$T/old" 0 20000
fails "a file is not overwritten" 1 "exists.*--force" "$V" export lsvd "$T/old"
case_ok "... but with --force" "$V" export lsvd "$T/old" --force
case_ok "... it is the volume" same "$image" "$T/old"
[ "$(allocated "$T/old")" -le 2600 ] && pass "... and its holes" ||
	fail "... and its holes" "$(allocated "$T/old") KiB"
fails "a volume onto its own backing file" 1 "lies on" "$V" export boost "$T/boost.back" --force
fails "... or out of it" 1 "lies on" "$V" import "$T/boost.back" boost --force
fails "a directory is no image" 1 "irectory" "$V" export lsvd "$T/conf" --force
mkfifo "$T/fifo"
fails "nor is a FIFO" 1 "neither a file" "$V" import "$T/fifo" lsvd

# ---- what does not fit
truncate -s $((16 * M + 1)) "$T/large"
fails "a larger image is refused" 1 "resize lsvd $((16 * M + 4096)).*--size" "$V" import \
	"$T/large" lsvd --force
fails "... and a larger stream" 1 "larger than volume lsvd" bash -c \
	"'$V' import - lsvd --force <'$T/large'"
fails "no such volume" 1 "nosuch" "$V" import "$image" nosuch
fails "no such image" 1 "nosuch.*No such file" "$V" import "$T/nosuch" lsvd
fails "nothing to resume" 1 "nothing to resume" "$V" import "$image" lsvd --resume
fails "a stream is not resumed" 2 "cannot be resumed" "$V" import - lsvd --resume
fails "requests have a limit" 2 "from 1 to 256" "$V" import "$image" lsvd --requests 257
fails "so have their sizes" 2 "multiple of 4096" "$V" import "$image" lsvd --request-size 5000

# ---- a difference is found
must "import" "$V" import "$image" lsvd --force
cp --sparse=always "$image" "$T/planted"
printf 'X' | dd of="$T/planted" bs=1 seek=5500001 conv=notrunc status=none
fails "a planted difference" 1 "differ at offset 5500001" "$V" import "$T/planted" lsvd \
	--verify-only
printf 'X' | dd of="$T/planted" bs=1 seek=3000000 conv=notrunc status=none
fails "... in a hole" 1 "differ at offset 3000000" "$V" import "$T/planted" lsvd --verify-only
must "export" "$V" export lsvd "$T/planted2"
printf 'X' | dd of="$T/planted2" bs=1 seek=12000000 conv=notrunc status=none
fails "... in an exported image" 1 "differ at offset 12000000" "$V" export lsvd "$T/planted2" \
	--verify-only

# ---- cut short
# 6 MiB of data; a rate holds it back until it is killed. What is settled at once is less than a
# segment of the log, so that without the flush the last of it would be in memory alone.
big=$T/big.img
random "$big" 0 6144
small=(--flush-every 640K --request-size 128K --requests 2)

passed() { # STATE OFFSET
	local at
	at=$(state_offset "$1")
	[ "$at" != none ] && [ "$at" -ge "$2" ]
}
# cut SIGNAL STATE OFFSET COMMAND...: ended when its state has come so far.
cut_at() {
	local signal=$1 state=$2 offset=$3 pid
	shift 3
	"$@" >"$T/cut.out" 2>&1 &
	pid=$!
	wait_for 20 passed "$state" "$offset" || {
		echo "the state did not come to $offset: $(cat "$T/cut.out")"
		kill -9 $pid
		return 1
	}
	kill "-$signal" $pid
	wait $pid 2>/dev/null
	CODE=$?
}
resume_import() { # TYPE
	local state=$T/r$1.import-state i
	must "$1: create" volume "r$1" "$1" 8M
	for i in 1 2 3; do
		cut_at KILL "$state" $((i * M)) "$V" import "$big" "r$1" "${small[@]}" --rate 4M \
			${2:-} || { fail "$1: import killed, $i"; return; }
		set -- "$1" --resume
	done
	pass "$1: import killed 3 times"
	like "... and told so" "$(state_offset "$state")" '^[1-5][0-9]{6}$'
	case_ok "$1: what the state speaks of is there" resumed "$1" "$(state_offset "$state")"
	fails "$1: not begun anew silently" 1 "cut short: --resume" "$V" import "$big" "r$1"
	case_ok "$1: resumed" "$V" import "$big" "r$1" --resume --json --verify
	[ "$(jq .resumed_bytes <<<"$OUT")" -ge $((3 * M)) ] && pass "... not from the beginning" ||
		fail "... not from the beginning" "$OUT"
	"$V" export "r$1" "$T/r.out" --force >/dev/null && case_ok "$1: the same" same "$big" "$T/r.out"
	is "$1: no state is left" "$(ls "$T"/*-state* 2>/dev/null)" ""
	rm -f "$T/r.out"
}
# The first bytes, as many as the state says.
resumed() {
	"$V" export "r$1" - | cmp -n "$2" - "$big"
}
resume_import lsvd
resume_import boost

out=$T/e.out
flags=
for i in 1 2 3; do
	# shellcheck disable=SC2086 # flags may be none
	cut_at KILL "$out.export-state" $((i * M)) "$V" export rlsvd "$out" "${small[@]}" \
		--rate 4M $flags || fail "export killed, $i"
	flags=--resume
done
fails "an export that was cut is not begun anew silently" 1 "cut short: --resume" "$V" export \
	rlsvd "$out"
case_ok "the export resumed" "$V" export rlsvd "$out" --resume --json
[ "$(jq .resumed_bytes <<<"$OUT")" -ge $((3 * M)) ] && pass "... not from the beginning" ||
	fail "... not from the beginning" "$OUT"
case_ok "... is the same" same "$big" "$out"

# ---- a signal
cut_at INT "$T/rlsvd.import-state" $M setsid "$V" import "$big" rlsvd --force "${small[@]}" \
	--rate 4M || fail "SIGINT"
is "SIGINT: the exit code" "$CODE" 1
like "... and how to go on" "$(cat "$T/cut.out")" "with --resume it goes on at offset [1-9]"
cp "$T/rlsvd.import-state" "$T/state"
fails "a state of another volume" 1 "another volume" "$V" import "$big" rboost --resume --state \
	"$T/state"
head -c $((5 * M)) "$big" >"$T/other"
fails "a state of another image" 1 "the size is another" "$V" import "$T/other" rlsvd --resume \
	--state "$T/state"
echo '{' >"$T/state"
fails "a state that is none" 1 "cannot resume" "$V" import "$big" rlsvd --resume --state "$T/state"
mtime=$(stat -c %y "$big")
touch "$big"
fails "an image that was changed" 1 "changed since" "$V" import "$big" rlsvd --resume
printf 'X' | dd of="$big" bs=1 seek=77777 conv=notrunc status=none
touch -d "$mtime" "$big"
fails "--verify looks at what was copied before, too" 1 "differ at offset 77777" "$V" import "$big" \
	rlsvd --resume --verify
finish
