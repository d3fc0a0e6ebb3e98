#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Programs that speak librbd: a little of everything, and what the libraries export.
. "$(dirname "$0")/rbd.sh"
rbd_setup
need jq

# ---- names: a loader that binds all of them at once finds them all ----

names() {
	nm -D --defined-only "$@" | sed -nE 's/.* [TW] ((rbd|rados)_[a-z0-9_]+)(@.*)?$/\1/p' | sort -u
}
wanted() {
	nm -D --undefined-only "$@" | sed -nE 's/.* U ((rbd|rados)_[a-z0-9_]+)(@.*)?$/\1/p' | sort -u
}
names "$RBD/librbd.so.1" "$RBD/librados.so.2" >"$T/ours"
for user in /usr/lib/*/qemu/block-rbd.so /usr/bin/fio; do
	[ -e "$user" ] || continue
	is "$user finds all its names" "$(wanted "$user" | comm -23 - "$T/ours")" ""
done
is "the library for LD_PRELOAD has them, too" \
	"$(names "$RBD/libvarve-rbd-preload.so" | diff - "$T/ours")" ""
for lib in librbd.so.1 librados.so.2; do
	ceph=$(find /usr/lib -name $lib 2>/dev/null | head -1)
	if [ -n "$ceph" ]; then
		names "$ceph" | grep "^$(echo ${lib%%.*} | sed s/^lib//)_" >"$T/theirs"
		is "all of Ceph's $lib" "$(names "$RBD/$lib" | comm -13 - "$T/theirs")" ""
	else
		skip "all of Ceph's $lib" "it is not installed"
	fi
done

# ---- each type ----

for type in $TYPES; do
	have_type $type || {
		skip "$type" "this build has no such volumes"
		continue
	}
	v=$type
	must "create" make_image $type $v 64M 64M
	case_ok "$type: info" rbd qemu-img info "rbd:any/$v"
	like "$type: ... tells the size" "$OUT" "64 MiB"
	head -c 3M /dev/urandom >"$T/random"
	truncate -s 64M "$T/random"
	case_ok "$type: convert in" rbd qemu-img convert -n -f raw -O raw "$T/random" "rbd:any/$v"
	case_ok "$type: compare" rbd qemu-img compare -f raw -F raw "$T/random" "rbd:any/$v"
	case_ok "$type: requests of all kinds" rbd_io "rbd:any/$v" "write -P 0x11 1M 64k" \
		"write -f -P 0x22 1200000 5000" "write -z 1M 4k" "write -z -u 1052672 4k" \
		"discard 8M 1M" "flush" "read -P 0 1M 8k" "read -P 0x11 1056768 8k" \
		"read -P 0x22 1200000 5000" "read -P 0x11 1100000 10000"
	case_ok "$type: they are there for the next" rbd_io "rbd:any/$v" "read -P 0 1M 8k" \
		"read -P 0x11 1056768 8k" "read -P 0x22 1200000 5000"
	case_ok "$type: by LD_PRELOAD" preloaded qemu-io -f raw -c "read -P 0x22 1200000 5000" \
		"rbd:any/$v"
	if command -v fio >/dev/null; then
		case_ok "$type: fio, threads" fio_rbd $v --rw=randwrite --bs=4k --iodepth=16 --size=4m \
			--verify=crc32c --fsync=32 --thread=1
		case_ok "$type: fio, processes" fio_rbd $v --rw=randwrite --bs=4k --iodepth=16 \
			--size=4m --verify=crc32c --fsync=32 --thread=0
	else
		skip "$type: fio" "it is not installed"
	fi
	case_ok "$type: check" "$V" check $v
done

# ---- the ad-hoc form, as it was published ----

if [ -e "$T/lsvd.cache" ]; then
	case_ok "CACHE,OBJECTS" preloaded qemu-img dd \
		"if=rbd:/$T/lsvd.cache,$T/store-lsvd/vol" bs=64k count=1k "of=file://$T/out"
	case_ok "... is the volume" rbd qemu-img compare -f raw -F raw "$T/out" rbd:any/lsvd
	case_ok "... with one slash" rbd qemu-img info "rbd:$T/lsvd.cache,$T/store-lsvd/vol"
	cd "$T" || exit 1
	case_ok "... with relative paths" rbd qemu-img info "rbd:./lsvd.cache,store-lsvd/vol"
fi

# ---- create and remove: the pool is the template ----

template fast
case_ok "create by a template" rbd qemu-img create -f rbd rbd:fast/new 32M
case_ok "... which can be used" rbd_io rbd:fast/new "write -P 5 0 1M" flush "read -P 5 0 1M"
is "... and is a volume" "$("$V" info new --json | jq -r .size_bytes)" $((32 << 20))
fails "create it again" 1 "exist" rbd qemu-img create -f rbd rbd:fast/new 32M
case_ok "convert into one that is made" rbd qemu-img convert -f raw -O rbd "$T/random" rbd:fast/conv
case_ok "compare" rbd qemu-img compare -f raw -F raw "$T/random" rbd:fast/conv
fails "no such template" 1 "template" rbd qemu-img create -f rbd rbd:slow/x 32M

# ---- errors ----

fails "what is not there" 1 "there is no volume nothing" rbd qemu-img info rbd:any/nothing
like "... has an errno, too" "$OUT" "No such file or directory"
fails "quietly" 1 "No such file or directory" env VARVE_RBD_QUIET=1 LD_LIBRARY_PATH="$RBD" \
	timeout 20 qemu-img info rbd:any/nothing
is "... without our line" "$(printf '%s' "$OUT" | grep -c "there is no volume")" 0
fails "a snapshot" 1 "no snapshots" rbd qemu-img info rbd:any/lsvd@snap
fails "a namespace" 1 "namespace|No such file" rbd qemu-img info rbd:any/space/lsvd
finish
