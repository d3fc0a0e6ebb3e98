#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qemu-storage-daemon and qemu-nbd on top of librbd: exports by NBD and by FUSE, and kill -9 of them
# under writes.
. "$(dirname "$0")/rbd.sh"
rbd_setup
need qemu-storage-daemon qemu-nbd nbdcopy nbdinfo jq
tool stamp -lnbd -lpthread
RANDOM=$((SEED % 32768))
rounds=${ROUNDS:-30}
socket=$T/nbd
uri="nbd+unix:///?socket=$socket"
pidfile=$T/server.pid

# Servers run without a time limit of their own, and may be started in a subshell: what ends them,
# whichever way this script leaves, is their pidfile.
trap 'kill_old; cleanup' EXIT

kill_old() {
	[ -s "$pidfile" ] && kill -9 "$(cat "$pidfile")" 2>/dev/null
	rm -f "$pidfile" "$socket"
}

start_daemon() { # volume, export options...
	local v=$1
	shift
	kill_old
	LD_LIBRARY_PATH=$RBD qemu-storage-daemon --pidfile "$pidfile" \
		--blockdev "driver=rbd,node-name=n,pool=pool,image=$v,discard=unmap" \
		--nbd-server "addr.type=unix,addr.path=$socket,max-connections=0" "$@" \
		>"$T/server.log" 2>&1 &
	wait_for 20 test -s "$pidfile"
}

# Takes the volume alone; the export's options are the daemon's.
start_nbd() {
	kill_old
	LD_LIBRARY_PATH=$RBD qemu-nbd -f raw -t -e 8 --discard=unmap -k "$socket" \
		--pid-file="$pidfile" "rbd:pool/$1" >"$T/server.log" 2>&1 &
	wait_for 20 test -s "$pidfile"
}

stop_server() {
	local pid
	pid=$(cat "$pidfile") || return 1
	kill "$pid" 2>/dev/null
	wait_for 60 gone "$pid"
	rm -f "$pidfile"
}

one_round() { # volume, server, round
	local ms=$((RANDOM % 496 + 5))
	echo "$2, $ms ms"
	"$2" "$1" --export "nbd,id=e,node-name=n,name=,writable=on" || return 1
	[ "$3" -eq 1 ] || timeout 60 "$T/stamp" check "$uri" "$T/state-$1" || return 1
	timeout 60 "$T/stamp" run "$uri" "$T/state-$1" $((SEED * 1000 + $3)) "$(cat "$pidfile")" "$ms"
}

head -c 64M /dev/urandom >"$T/in"
for type in $TYPES; do
	have_type $type || {
		skip "$type" "this build has no such volumes"
		continue
	}
	must "$type: create" make_image $type $type 64M 32M

	must "$type: export by NBD" start_daemon $type \
		--export nbd,id=e,node-name=n,name=v,writable=on
	url="nbd+unix:///v?socket=$socket"
	json=$(timeout 20 nbdinfo --json "$url")
	is "$type: the size" "$(printf '%s' "$json" | jq '.exports[0]."export-size"')" $((64 << 20))
	for flag in can_flush can_trim can_zero; do
		is "$type: $flag" "$(printf '%s' "$json" | jq ".exports[0].$flag")" true
	done
	case_ok "$type: nbdcopy in" timeout 60 nbdcopy --flush "$T/in" "$url"
	case_ok "$type: nbdcopy out" timeout 60 nbdcopy "$url" "$T/out"
	case_ok "$type: the same" cmp "$T/in" "$T/out"
	case_ok "$type: stop" stop_server
	is "$type: without a word" "$(cat "$T/server.log")" ""

	if [ -e /dev/fuse ] && [ "$(id -u)" = 0 ]; then
		: >"$T/disk"
		must "$type: export by FUSE" start_daemon $type \
			--export "fuse,id=f,node-name=n,mountpoint=$T/disk,writable=on"
		wait_for 20 test -s "$T/disk"
		case_ok "$type: read through it" cmp "$T/in" "$T/disk"
		case_ok "$type: dd" dd if=/dev/zero of="$T/disk" bs=64k seek=3 count=5 \
			conv=notrunc,fsync status=none
		case_ok "$type: punch a hole" fallocate -p -o 8M -l 1M "$T/disk"
		case_ok "$type: stop" stop_server
		dd if=/dev/zero of="$T/in" bs=64k seek=3 count=5 conv=notrunc status=none
		fallocate -p -o 8M -l 1M "$T/in"
		case_ok "$type: compare" rbd qemu-img compare -f raw -F raw "$T/in" rbd:pool/$type
	else
		skip "$type: FUSE" "needs root and /dev/fuse"
	fi

	# A volume of its own: the blocks that are checked begin as zeros.
	must "$type: create" make_image $type $type-killed 64M 32M
	for ((round = 1; round <= rounds; round++)); do
		server=start_nbd
		[ $((round % 2)) -eq 0 ] && server=start_daemon
		case_ok "$type: kill -9, round $round" one_round $type-killed $server $round || break
		echo "# $(printf '%s' "$OUT" | tail -1)"
	done
	must "$type: serve" start_nbd $type-killed
	case_ok "$type: the image" timeout 60 "$T/stamp" check "$uri" "$T/state-$type-killed"
	case_ok "$type: stop" stop_server
	case_ok "$type: check" "$V" check $type-killed
done
finish
