#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Everything of qemu-img and qemu-io that works on an image, unmodified, with volumes of each type.
. "$(dirname "$0")/rbd.sh"
rbd_setup
need jq

holes() {
	rbd qemu-img map --output=json -f raw "$1" | jq -c '[.[] | select(.data | not) | [.start, .length]]'
}

for type in $TYPES; do
	have_type $type || {
		skip "$type" "this build has no such volumes"
		continue
	}
	v=$type
	url=rbd:pool/$v
	must "$type: create" make_image $type $v 256M 64M
	is "$type: info" "$(rbd qemu-img info --output=json -f raw $url | jq -r '."virtual-size"')" \
		$((256 << 20))

	# An image with holes, there and back.
	dd if=/dev/urandom of="$T/in" bs=1M count=20 status=none
	dd if=/dev/urandom of="$T/in" bs=1M seek=100 count=1 conv=notrunc status=none
	dd if=/dev/urandom of="$T/in" bs=1M seek=255 count=1 conv=notrunc status=none
	rbd qemu-img convert -f raw -O qcow2 "$T/in" "$T/in.qcow2"
	case_ok "$type: convert from raw" rbd qemu-img convert -n -f raw -O raw "$T/in" $url
	case_ok "$type: compare" rbd qemu-img compare -f raw -F raw "$T/in" $url
	if [ $type = lsvd ]; then
		is "$type: map shows the holes" "$(holes $url)" \
			"$(jq -nc '[[20,80],[101,154]] | map(map(. * 1048576))')"
	fi
	case_ok "$type: convert from qcow2, out of order" rbd qemu-img convert -n -W -m 8 -f qcow2 \
		-O raw "$T/in.qcow2" $url
	case_ok "$type: compare" rbd qemu-img compare -f qcow2 -F raw "$T/in.qcow2" $url
	case_ok "$type: convert to raw" rbd qemu-img convert -f raw -O raw $url "$T/out"
	case_ok "$type: the same" cmp "$T/in" "$T/out"
	case_ok "$type: convert to qcow2" rbd qemu-img convert -f raw -O qcow2 $url "$T/out.qcow2"
	case_ok "$type: the same" rbd qemu-img compare -f raw -F qcow2 "$T/in" "$T/out.qcow2"
	[ "$(stat -c %b "$T/out")" -lt $((30 << 11)) ] && pass "$type: holes stay holes" ||
		fail "$type: holes became data: $(stat -c %b "$T/out") blocks"

	for args in "" "-w" "-w --flush-interval=64" "-w -S 1000" "-t none"; do
		# shellcheck disable=SC2086
		case_ok "$type: bench $args" rbd qemu-img bench -f raw -c 5000 -d 64 -s 4k $args $url
	done

	case_ok "$type: patterns" rbd_io $url "write -P 1 0 1M" "write -P 2 333 4444" \
		"write -z 8k 8k" "write -z -u 20k 3k" "discard 64k 64k" "discard 200001 999" \
		"write -f -P 3 300k 8k" "writev -P 4 400k 4k 512 3584" "flush" \
		"read -P 1 0 333" "read -P 2 333 4444" "read -P 0 8k 8k" "read -P 0 20k 3k" \
		"read -P 1 23k 1k" "read -P 3 300k 8k" "read -P 4 400k 8k" "read -P 1 408k 1k"
	case_ok "$type: aio" rbd_io $url "aio_write -P 5 1M 64k" "aio_write -P 6 2M 64k" \
		"aio_write -z 3M 64k" "aio_flush" "aio_read -P 5 1M 64k" "aio_read -P 6 2M 64k"
	case_ok "$type: they are there for the next" rbd_io $url "read -P 2 333 4444" \
		"read -P 0 8k 8k" "read -P 3 300k 8k" "read -P 4 400k 8k" "read -P 5 1M 64k"
	case_ok "$type: unsafe, and read-only" rbd qemu-io -r -t unsafe -f raw -c "read -P 5 1M 64k" $url

	case_ok "$type: grow" rbd qemu-img resize -f raw $url 300M
	is "$type: its size" "$("$V" info $v --json | jq -r .size_bytes)" $((300 << 20))
	case_ok "$type: what is new is zero" rbd_io $url "read -P 0 256M 44M" "write -P 7 299M 1M" \
		"read -P 7 299M 1M"
	fails "$type: shrink, not asked for" 1 "shrink" rbd qemu-img resize -f raw $url 256M
	case_ok "$type: shrink" rbd qemu-img resize --shrink -f raw $url 256M
	case_ok "$type: grow again" rbd qemu-img resize -f raw $url 300M
	case_ok "$type: what was cut off stays away" rbd_io $url "read -P 0 299M 1M" "read -P 5 1M 64k"
	case_ok "$type: check" "$V" check $v
done

# Two at once: who looks does not disturb who writes, and a second writer is refused.
rbd qemu-nbd -f raw -t -e 4 -k "$T/nbd" --pid-file="$T/nbd.pid" rbd:pool/lsvd &
wait_for 20 test -s "$T/nbd.pid"
nbd="nbd+unix:///?socket=$T/nbd"
case_ok "a server writes" timeout 20 qemu-io -f raw -c "write -P 8 0 1M" -c flush "$nbd"
case_ok "info beside it" rbd qemu-img info rbd:pool/lsvd
case_ok "status of it" "$V" status lsvd
fails "a second writer" 1 "." rbd qemu-io -f raw -c "write -P 9 0 4k" rbd:pool/lsvd
case_ok "the server goes on" timeout 20 qemu-io -f raw -c "write -P 8 1M 1M" -c flush \
	-c "read -P 8 0 2M" "$nbd"
kill "$(cat "$T/nbd.pid")"
wait_for 20 gone "$(cat "$T/nbd.pid")"
wait
case_ok "what it wrote is there" rbd_io rbd:pool/lsvd "read -P 8 0 2M"

# The form of which the first publication of such volumes told.
cd "$T" || exit 1
case_ok "CACHE,OBJECTS out" preloaded qemu-img dd "if=rbd:/$T/lsvd.cache,$T/store-lsvd/vol" \
	bs=64k count=10k "of=file://$T/z1"
case_ok "CACHE,OBJECTS in" rbd qemu-img convert -n -f raw -O raw "$T/z1" \
	"rbd:$T/lsvd.cache,$T/store-lsvd/vol"
case_ok "compare" rbd qemu-img compare -f raw -F raw "$T/z1" rbd:pool/lsvd
finish
