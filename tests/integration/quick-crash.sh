#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# kill -9 of the server under writes, flushes, trims and zeros; after each restart every block must
# be one that may be there, and stay what it is. lsvd-kill.sh does many more rounds of it.
. "$(dirname "$0")/lib.sh"
setup
tool stamp -lnbd -lpthread
RANDOM=$((SEED % 32768))

must "create" make_volume v 64M 32M
for round in 1 2 3 4 5; do
	case_ok "round $round: serve" "$V" serve v --timeout 20
	[ "$round" -eq 1 ] || case_ok "round $round: check the image" timeout 60 "$T/stamp" check \
		"$(uri v)" "$T/state"
	case_ok "round $round: write until killed" timeout 60 "$T/stamp" run "$(uri v)" "$T/state" \
		$((SEED + round)) "$(server_pid v)" $((RANDOM % 400 + 50))
	echo "# $OUT"
	case_ok "round $round: what lies there is sound" "$V" check v
done
must "serve" "$V" serve v --timeout 20
like "a killed server left a warning or nothing" "$OUT" "nbd.unix"
case_ok "the image" timeout 60 "$T/stamp" check "$(uri v)" "$T/state"
case_ok "stop" "$V" serve --stop v
case_ok "serve after a clean close" "$V" serve v --timeout 20
case_ok "the same image" timeout 60 "$T/stamp" check "$(uri v)" "$T/state"
case_ok "stop" "$V" serve --stop v
case_ok "check" "$V" check v
finish
