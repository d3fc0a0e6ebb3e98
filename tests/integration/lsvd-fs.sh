#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Real file systems on an attached volume: fio with verification and fsync, fstrim, and our own
# exerciser, buffered, mapped and direct; then all of it once more after closing and opening.
. "$(dirname "$0")/lib.sh"
need_root
setup
need nbdfuse losetup mkfs.ext4 mkfs.xfs fio fstrim xfs_repair e2fsck
tool fsx

fsck_of() {
	case $1 in
	ext4) e2fsck -fn "$2" ;;
	xfs) xfs_repair -n "$2" ;;
	esac
}

verify_with_fio() {
	timeout 300 fio --name=v --directory="$T/mnt" --size=128m --bs=4k-64k --rw=randwrite \
		--ioengine=libaio --direct="$1" --iodepth=16 --verify=crc32c --fsync=64 \
		--verify_fatal=1 --randseed="$SEED" --aux-path="$T" \
		--output="$T/fio.log" || {
		cat "$T/fio.log"
		return 1
	}
}

one_fs() {
	local fs=$1 dev
	case_ok "$fs: create" make_volume "$fs" 1G 256M
	case_ok "$fs: attach" "$V" attach "$fs"
	dev=$OUT
	case_ok "$fs: mkfs" "mkfs.$fs" -q "$dev"
	case_ok "$fs: mount" mount "$dev" "$T/mnt"
	case_ok "$fs: fio, direct" verify_with_fio 1
	case_ok "$fs: fio, buffered" verify_with_fio 0
	case_ok "$fs: fsx, buffered and mapped" timeout 300 "$T/fsx" -s "$SEED" -n 20000 "$T/mnt/a"
	case_ok "$fs: fsx, direct too" timeout 300 "$T/fsx" -d -s $((SEED + 1)) -n 5000 "$T/mnt/b"
	sync -f "$T/mnt"
	find "$T/mnt" -type f -exec sha256sum {} + >"$T/sums"
	cp "$T/mnt/v.0.0" "$T/mnt/gone"
	sync -f "$T/mnt"
	rm "$T/mnt/gone"
	case_ok "$fs: fstrim" fstrim -v "$T/mnt"
	like "$fs: which trims something" "$OUT" "\([1-9][0-9]+ bytes\) trimmed"
	case_ok "$fs: to the store" "$V" flush "$fs" --store
	case_ok "$fs: umount" umount "$T/mnt"
	case_ok "$fs: fsck" fsck_of "$fs" "$dev"
	case_ok "$fs: detach" "$V" detach "$fs"
	case_ok "$fs: check" "$V" check "$fs"

	case_ok "$fs: attach again" "$V" attach "$fs"
	case_ok "$fs: mount" mount "$dev" "$T/mnt"
	case_ok "$fs: the same files" sha256sum --quiet -c "$T/sums"
	# A crash: whatever was synced has to be there.
	cp "$T/mnt/a" "$T/mnt/synced"
	sync -f "$T/mnt"
	find "$T/mnt" -type f -exec sha256sum {} + >"$T/sums"
	dd if=/dev/zero of="$T/mnt/unsynced" bs=1M count=8 status=none
	kill_server "$fs"
	umount "$T/mnt" || umount -l "$T/mnt"
	case_ok "$fs: detach after a kill" "$V" detach "$fs"
	case_ok "$fs: attach after a kill" "$V" attach "$fs"
	case_ok "$fs: mount, replaying its journal" mount "$dev" "$T/mnt"
	case_ok "$fs: everything that was synced" sha256sum --quiet -c "$T/sums"
	case_ok "$fs: umount" umount "$T/mnt"
	case_ok "$fs: fsck" fsck_of "$fs" "$dev"
	case_ok "$fs: detach" "$V" detach "$fs"
	case_ok "$fs: check" "$V" check "$fs"
	case_ok "$fs: delete" "$V" delete "$fs" --yes
}

one_fs ext4
one_fs xfs
finish
