#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# attach and detach: the device, refusals, and clearing up after whatever has died.
. "$(dirname "$0")/lib.sh"
need_root
setup
need nbdfuse losetup mkfs.ext4 jq
method=(--method fuse)

mounted_fuse() {
	grep -c " $T/run/v.fuse/disk " /proc/self/mounts
}

nothing_left() {
	is "$1: no loop device" "$(losetup -a | grep -c "$T")" 0
	is "$1: no fuse mount" "$(mounted_fuse)" 0
	is "$1: no record" "$(find "$T/run" -name 'v.device' -o -name 'v.server' -o -name v.dev)" ""
}

must "create" make_volume v 64M 64M
case_ok "attach" "$V" attach v "${method[@]}" --timeout 20
dev=$OUT
is "prints a link" "$dev" "$T/run/v.dev"
[ -b "$dev" ] && pass "to a block device" || fail "$dev is no block device"
is "of the right size" "$(blockdev --getsize64 "$dev")" $((64 << 20))
fails "attach again" 1 "attached already, as /dev/loop" "$V" attach v
fails "delete" 1 "is attached" "$V" delete v --yes
fails "serve --stop" 1 "detach" "$V" serve --stop v
like "list" "$("$V" list)" "^v +attached /dev/loop"

case_ok "mkfs" mkfs.ext4 -q "$dev"
case_ok "mount" mount "$dev" "$T/mnt"
cp -r "$SRC/include" "$T/mnt/"
fails "detach while mounted" 1 "mounted on $T/mnt" "$V" detach v
case_ok "umount" umount "$T/mnt"
case_ok "detach" "$V" detach v
nothing_left "after detach"
fails "detach again" 1 "is not attached" "$V" detach v
case_ok "check" "$V" check v

case_ok "attach, JSON" "$V" attach v "${method[@]}" --json
is "it says the device" "$(printf '%s' "$OUT" | jq -r .device)" "$(readlink "$dev")"
case_ok "mount" mount "$dev" "$T/mnt"
case_ok "what was copied is there" diff -r "$SRC/include" "$T/mnt/include"
kill_server v
like "list tells of it" "$("$V" list)" "server died"
fails "attach while the dead one is mounted" 1 "umount it first" "$V" attach v
case_ok "umount" umount "$T/mnt"
case_ok "detach after a kill" "$V" detach v
like "there is a warning" "$OUT" "without closing"
nothing_left "after a kill"

case_ok "attach after a kill" "$V" attach v "${method[@]}"
kill_server v
case_ok "attach clears up and attaches" "$V" attach v "${method[@]}"
case_ok "mount" mount "$dev" "$T/mnt"
case_ok "the files are there" diff -r "$SRC/include" "$T/mnt/include"
case_ok "umount" umount "$T/mnt"

# Pieces that go one by one.
losetup -d "$(readlink "$dev")"
case_ok "detach without the loop device" "$V" detach v
nothing_left "without the loop device"
case_ok "attach" "$V" attach v "${method[@]}"
pid=$(jq .fuse_process.pid "$T/run/v.device")
kill -9 "$pid"
wait_for 10 gone "$pid"
case_ok "detach without nbdfuse" "$V" detach v
nothing_left "without nbdfuse"
case_ok "attach" "$V" attach v "${method[@]}"
rm "$T/run/v.dev"
case_ok "detach without the link" "$V" detach v
nothing_left "without the link"

# On a server that was there before.
must "serve" "$V" serve v
pid=$(server_pid v)
case_ok "attach to it" "$V" attach v "${method[@]}"
case_ok "detach" "$V" detach v
is "the server goes on" "$(server_pid v)" "$pid"
nbdinfo "$(uri v)" >/dev/null && pass "and answers" || fail "it does not answer"
case_ok "stop" "$V" serve --stop v

case_ok "attach read-only" "$V" attach v --read-only "${method[@]}"
fails "writing fails" 1 "." dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct
case_ok "detach" "$V" detach v

if [ "$(id -u nobody 2>/dev/null)" ]; then
	fails "attach needs root" 1 "needs root" setpriv --reuid nobody --clear-groups \
		env VARVE_RUN_DIR=/tmp "$V" attach v
fi
case_ok "check" "$V" check v
finish
