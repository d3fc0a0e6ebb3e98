#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A virtual machine on a volume: an unmodified qemu-storage-daemon has the volume open by its rbd
# driver and our librbd, and exports it by vhost-user-blk to a Linux guest. What the guest has
# fsynced is there after a kill -9 of the daemon, raw and in a file system.
#
# The trap of this road: the guest sends flushes only if it sees a write cache. The daemon's
# configuration space of QEMU 7.2 begins with "write through", and QEMU passes that on unless the
# device has config-wce=off (the guest then sees no more than that flushes exist: "write back"). By
# default no flush ever leaves the guest, and its fsyncs mean nothing, without a word from anyone.
# So the number of barriers that reached the volume is part of the test.
. "$(dirname "$0")/rbd.sh"
. "$HERE/guest/guest.sh"
rbd_setup
need qemu-img qemu-storage-daemon jq debugfs e2fsck mkfs.ext4
guest_need

SIZE=96M
FS_MB=64
# Beyond the file system: blocks that the guest writes by themselves, 4 KiB each; some of them at
# the very end, so that what was written afterwards cannot have carried them along.
RAW_FIRST=$((FS_MB * 256))
RAW_COUNT=40
RAW_AT_LAST=2
QSD=

export_volume() {
	local node="driver=rbd,pool=rbd,image=$1,node-name=disk"
	local to="addr.type=unix,addr.path=$T/vhost.sock"
	rm -f "$T/vhost.sock"
	LD_LIBRARY_PATH=$RBD qemu-storage-daemon --blockdev "$node" \
		--export "vhost-user-blk,id=e,node-name=disk,$to,writable=on" >"$T/qsd.log" 2>&1 &
	QSD=$!
	wait_for 20 listening && return 0
	OUT=$(cat "$T/qsd.log")
	return 1
}

listening() {
	[ -S "$T/vhost.sock" ] || gone "$QSD"
}

boot() {
	guest_start -chardev "socket,id=blk,path=$T/vhost.sock" \
		-device vhost-user-blk-pci,chardev=blk,num-queues=1,config-wce=off
}

# here NAME COMMAND...: as case_ok, in this very shell: what the command sets stays set.
here() {
	local name=$1
	shift
	if "$@"; then pass "$name"; else fail "$name" "$* : $OUT"; fi
}

counter() {
	"$V" status "$1" --json | jq "$2"
}

# raw_blocks FROM TO. The same bytes on both sides: a block that says which it is, and in which run.
raw_blocks() {
	echo "i=$1; while [ \$i -lt $2 ]; do yes \"seed $SEED block \$i\" | head -c 4096 >/tmp/b;"
	echo "dd if=/tmp/b of=/dev/vda bs=4096 seek=\$(($RAW_FIRST + i)) conv=fsync 2>/dev/null || break;"
	echo "i=\$((i + 1)); done; [ \$i -eq $2 ]"
}

raw_same() {
	local i
	for ((i = 0; i < RAW_COUNT; i++)); do
		cmp -n 4096 <(yes "seed $SEED block $i" | head -c 4096) \
			<(dd if="$1" bs=4096 skip=$((RAW_FIRST + i)) count=1 status=none) || return 1
	done
}

# Files that come, grow, move and go; all synced in the end, and their sums told.
fs_work() {
	echo "cd /mnt && mkdir -p a/b && i=0; while [ \$i -lt 60 ]; do"
	echo "head -c \$((i * 1373 + 1)) /dev/urandom >a/f\$i; head -c 5000 /dev/zero >>a/f\$i;"
	echo "[ \$((i % 3)) -ne 0 ] || mv a/f\$i a/b/g\$i; [ \$((i % 5)) -ne 1 ] || rm -f a/f\$i;"
	echo "[ \$((i % 7)) -ne 0 ] || sync; i=\$((i + 1)); done;"
	echo "ln -s a/b link; cd / && sync; cd /mnt && find a -type f | sort | xargs sha256sum; cd /"
}

# Nobody syncs these.
go_on_writing() {
	echo "(while :; do dd if=/dev/urandom of=/mnt/unsynced bs=4k count=500 oflag=direct;"
	echo "head -c 300000 /dev/urandom >/mnt/more; rm -f /mnt/unsynced; done) >/dev/null 2>&1 &"
}

wrote_more_than() {
	[ "$(counter "$1" .log.user_bytes)" -gt "$2" ]
}

# Once its own journal is replayed, the file system has no fault. The totals in the superblock are
# not in the journal: e2fsck counts them anew after every crash.
fs_clean() {
	e2fsck -fy "$1" | sed '/^Free .* count wrong/,/^Fix? yes/d' >"$T/fsck.log"
	if grep '? yes' "$T/fsck.log"; then
		cat "$T/fsck.log"
		return 1
	fi
	e2fsck -fn "$1"
}

fs_same() {
	rm -rf "$T/out"
	mkdir "$T/out"
	debugfs -R "rdump a $T/out" "$1" 2>&1 && (cd "$T/out" && sha256sum --quiet -c "$T/sums")
}

one_line() {
	"$@" | tr '\n' ' '
}

kill_all() {
	kill -9 "$QSD"
	wait "$QSD" 2>/dev/null
	guest_kill
}

first_life() {
	local type=$1 before after early=$((RAW_COUNT - RAW_AT_LAST))
	mkfs.ext4 -q -b 4096 "$T/fs.img" ${FS_MB}M >/dev/null
	case_ok "$type: a file system comes in by qemu-img" \
		rbd qemu-img convert -n -f raw -O raw "$T/fs.img" "rbd:rbd/$type"
	here "$type: qemu-storage-daemon exports it" export_volume "$type" || return 1
	here "$type: a guest starts on it" boot || return 1
	guest 10 'cat /sys/block/vda/queue/write_cache'
	is "$type: the guest sees a write cache" "$OUT" "write back"

	before=$(counter "$type" .log.barriers)
	here "$type: writes with fsync" guest 60 "$(one_line raw_blocks 0 $early)"
	after=$(counter "$type" .log.barriers)
	if [ "$((after - before))" -ge $early ]; then
		pass "$type: each fsync of the guest reaches the volume"
	else
		fail "$type: each fsync of the guest reaches the volume" "barriers: $before, $after"
	fi
	here "$type: ext4 mounts" guest 10 'mount -t ext4 /dev/vda /mnt' || return 1
	here "$type: files come and go" guest 60 "$(one_line fs_work)"
	printf '%s\n' "$OUT" >"$T/sums"
	like "$type: some of them stay" "$(wc -l <"$T/sums")" '^[3-9][0-9]$'
	here "$type: others go on without syncing" guest 10 "$(one_line go_on_writing)"
	here "$type: and more is written" wait_for 60 wrote_more_than "$type" \
		$(($(counter "$type" .log.user_bytes) + (4 << 20)))
	here "$type: the last that is fsynced" guest 60 "$(one_line raw_blocks $early $RAW_COUNT)"
	kill_all
}

after_the_kill() {
	local type=$1 img=$T/after.img
	case_ok "$type: the volume, read out by qemu-img" \
		rbd qemu-img convert -f raw -O raw "rbd:rbd/$type" "$img"
	case_ok "$type: every block that was fsynced" raw_same "$img"
	case_ok "$type: fsck is content after the journal" fs_clean "$img"
	case_ok "$type: every file that was synced" fs_same "$img"
	case_ok "$type: check" "$V" check "$type"
}

second_life() {
	local type=$1
	here "$type: exported again" export_volume "$type" || return 1
	here "$type: a guest starts again" boot || return 1
	here "$type: ext4 replays its journal" guest 20 'mount -t ext4 /dev/vda /mnt'
	here "$type: files as they were" guest 30 \
		"cd /mnt && find a -type f | sort | xargs sha256sum; cd /"
	is "$type: all of them" "$OUT" "$(cat "$T/sums")"
	here "$type: the guest trims" guest 30 'rm -rf /mnt/more /mnt/unsynced && sync && fstrim /mnt'
	here "$type: umount" guest 30 'umount /mnt'
	guest_kill
	kill "$QSD"
	here "$type: the daemon ends when asked" wait_for 30 gone "$QSD"
	rm -f "$T/after.img"
	case_ok "$type: read out again" \
		rbd qemu-img convert -f raw -O raw "rbd:rbd/$type" "$T/after.img"
	case_ok "$type: fsck, without a journal to replay" e2fsck -fn "$T/after.img"
	case_ok "$type: files after trimming" fs_same "$T/after.img"
	case_ok "$type: check" "$V" check "$type"
}

trap 'guest_kill; cleanup' EXIT
for type in $TYPES; do
	have_type "$type" || {
		skip "$type" "this build has no such volumes"
		continue
	}
	case_ok "$type: create" make_image "$type" "$type" $SIZE 48M || continue
	first_life "$type" && after_the_kill "$type" && second_life "$type"
	guest_kill
done
finish
