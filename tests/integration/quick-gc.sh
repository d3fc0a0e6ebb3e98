#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A small volume is overwritten many times through a real server over a real directory: what the
# directory holds is bounded, and the image is what was written last.
. "$(dirname "$0")/lib.sh"
setup
need qemu-io jq nbdcopy
RANDOM=$((SEED % 32768))

must "create" make_volume v 8M 32M --set batch_size=256k --set batch_age=20ms \
	--set checkpoint_objects=6 --set gc_start=80 --set gc_stop=85 --set gc_min_age=0
must "serve" "$V" serve v --timeout 20

stored() {
	du -s --apparent-size -B1 "$T/store-v" | cut -f1
}

# 600 writes of 32 KiB over 8 MiB, each with a byte of its own.
truncate -s 8M "$T/want"
: >"$T/script"
for ((i = 0; i < 600; i++)); do
	at=$((RANDOM % 252 * 32))
	byte=$((i % 251 + 1))
	echo "write -q -P $byte ${at}k 32k" >>"$T/script"
	head -c 32768 /dev/zero | tr '\0' "\\$(printf %o $byte)" |
		dd of="$T/want" bs=1k seek="$at" conv=notrunc status=none
	[ $((i % 40)) -ne 39 ] || echo flush >>"$T/script"
done
overwrite() {
	timeout 60 qemu-io -f raw "$(uri v)" <"$T/script" >"$T/qemu-io.out"
}
same() {
	timeout 60 nbdcopy "$(uri v)" "$T/have" && cmp "$T/have" "$T/want"
}

for round in 1 2 3; do
	case_ok "round $round: overwrite" overwrite
	bytes=$(stored)
	echo "# $bytes bytes in the store"
	# The volume, what may be dead in it, and three intervals of checkpoints.
	case_ok "round $round: the store holds a bounded amount" test "$bytes" -lt $((32 << 20))
	case_ok "round $round: the image" same
done
echo "# $("$V" status v --json | jq -c '.home | {gc_rounds, gc_moved_bytes, gc_deleted, gc_waiting, checkpoints, checkpoint_bytes}')"
case_ok "objects have been deleted" test "$("$V" status v --json | jq '.home.gc_deleted')" -gt 0
case_ok "asking for it" timeout 60 "$V" message v gc
case_ok "close" "$V" serve --stop v
case_ok "check" "$V" check v
must "serve again" "$V" serve v --timeout 20
case_ok "the same image" same
case_ok "close again" "$V" serve --stop v
finish
