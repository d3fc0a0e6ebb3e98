#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fifty rounds of kill -9 after 5 to 500 ms under writes, flushes, FUA, trims and zeros on four
# connections. After each: every block holds what it may hold (everything that was acknowledged
# before a completed flush, nothing older, nothing mixed) and keeps holding that.
. "$(dirname "$0")/lib.sh"
setup
tool stamp -lnbd -lpthread
RANDOM=$((SEED % 32768))
rounds=${ROUNDS:-50}

# A small log and objects, so that it wraps, waits, destages, writes checkpoints and collects garbage
# all the time.
must "create" make_volume v 64M 32M --set batch_size=1M --set batch_age=100ms \
	--set checkpoint_objects=8 --set gc_start=85 --set gc_stop=90 --set gc_min_age=0

one_round() {
	local ms=$((RANDOM % 496 + 5))
	echo "round $1: $ms ms"
	"$V" serve v --timeout 60 || return 1
	[ "$1" -eq 1 ] || timeout 60 "$T/stamp" check "$(uri v)" "$T/state" || return 1
	timeout 60 "$T/stamp" run "$(uri v)" "$T/state" $((SEED * 1000 + $1)) "$(server_pid v)" "$ms"
}

for ((round = 1; round <= rounds; round++)); do
	case_ok "round $round" one_round $round || break
	echo "# $(printf '%s' "$OUT" | tail -1)"
	if [ $((round % 10)) -eq 0 ]; then
		case_ok "round $round: check at rest" "$V" check v
	fi
done
must "serve" "$V" serve v --timeout 60
case_ok "the image" timeout 60 "$T/stamp" check "$(uri v)" "$T/state"
case_ok "stop" "$V" serve --stop v
case_ok "check" "$V" check v
case_ok "serve after a clean close" "$V" serve v --timeout 60
case_ok "the same image" timeout 60 "$T/stamp" check "$(uri v)" "$T/state"
case_ok "stop" "$V" serve --stop v
finish
