#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What runs out or goes away: the store's space, the cache's, the store itself for a while. Writers
# are held back or told, nothing hangs, nothing that was acknowledged is lost, and when there is
# room again, work goes on.
. "$(dirname "$0")/lib.sh"
need_root
setup
need jq chattr
tool stamp -lnbd -lpthread

# Whether status has this value: status_is VOLUME JQ-EXPRESSION VALUE.
status_is() {
	[ "$("$V" status "$1" --json 2>/dev/null | jq -r "$2")" = "$3" ]
}

verify() {
	case_ok "$1: everything is there" timeout 120 "$T/stamp" prefix "$(uri v)" "$SEED" "$2" "$2"
}

# verify after close and reopening, then delete.
verify_closed() {
	case_ok "$1: stop" "$V" serve --stop v
	case_ok "$1: check" "$V" check v
	case_ok "$1: serve" "$V" serve v --timeout 60
	verify "$1, reopened" "$2"
	case_ok "$1: stop" "$V" serve --stop v
	case_ok "$1: delete" "$V" delete v --yes
}

# ---- a store that is full ------------------------------------------------------------------------

store_full() {
	mkdir -p "$T/store-v"
	mount -t tmpfs -o size=24m none "$T/store-v" || return
	must "store full: create" make_volume v 64M 128M --set batch_size=1M \
		--set batch_age=100ms --set home_timeout=5s
	case_ok "store full: serve" "$V" serve v --timeout 60
	# Some 47 MB for a store of 24: the rest stays in the cache.
	case_ok "store full: write more than it holds" timeout 120 "$T/stamp" fill "$(uri v)" \
		"$SEED" 1 12000
	case_ok "store full: status says so" wait_for 30 status_is v .state degraded
	like "store full: and why" "$("$V" status v --json | jq -r ".reasons[]")" "[Ss]pace"
	verify "store full" 12000
	fails "store full: flush to it" 1 "." "$V" flush v --store --timeout 60
	fails "store full: stop tells that data stays in the cache" 1 "." "$V" serve --stop v
	case_ok "store full: serve again" "$V" serve v --timeout 60
	verify "store full, reopened" 12000
	kill_server v
	case_ok "store full: serve after a kill" "$V" serve v --timeout 60
	verify "store full, after a kill" 12000
	case_ok "store full: room again" mount -o remount,size=256m "$T/store-v"
	case_ok "store full: now it drains" "$V" flush v --store --timeout 120
	case_ok "store full: and is well" wait_for 30 status_is v .state ok
	verify_closed "store full" 12000
	umount "$T/store-v"
}

# ---- a cache that is full ------------------------------------------------------------------------

cache_full() {
	rm -f "$T/v.cache"
	must "cache full: create" make_volume v 64M 8M --set batch_size=1M --set segment_size=256K \
		--set full_timeout=60s
	case_ok "cache full: serve" "$V" serve v --timeout 60
	# Seven times what it holds: writers wait for the store, again and again.
	case_ok "cache full: write" timeout 120 "$T/stamp" fill "$(uri v)" "$SEED" 1 14000
	verify "cache full" 14000
	verify_closed "cache full" 14000

	# And with nothing going to the store: an error after full_timeout, no hang.
	rm -f "$T/v.cache"
	case_ok "cache held: create" make_volume v 64M 8M --set segment_size=256K \
		--set full_timeout=3s
	case_ok "cache held: serve" "$V" serve v --timeout 60 --set hold=yes
	fails "cache held: the writer is told" 1 "^write [0-9]+: .*([Ss]pace|I/O)" timeout 60 \
		"$T/stamp" fill "$(uri v)" "$SEED" 1 14000
	at=$(printf '%s\n' "$OUT" | sed -n 's/^write \([0-9]*\):.*/\1/p')
	case_ok "cache held: let go" "$V" message v hold 0
	case_ok "cache held: write the rest" timeout 120 "$T/stamp" fill "$(uri v)" "$SEED" \
		"$at" 14000
	verify "cache held" 14000
	verify_closed "cache held" 14000
}

# ---- a store that is away for a while ------------------------------------------------------------

# Nothing can be created or deleted in it, not even by root.
freeze() {
	chattr -R +i "$T/store-v/vol.d"
}

thaw() {
	chattr -R -i "$T/store-v/vol.d"
}

store_away() {
	local seconds=${AWAY_SECONDS:-30}
	rm -f "$T/v.cache"
	must "store away: create" make_volume v 64M 128M --set batch_size=1M \
		--set batch_age=100ms --set home_timeout=120s
	case_ok "store away: serve" "$V" serve v --timeout 60
	case_ok "store away: write" timeout 120 "$T/stamp" fill "$(uri v)" "$SEED" 1 4000
	case_ok "store away: to the store" "$V" flush v --store
	if ! freeze 2>/dev/null; then
		skip "store away" "the file system of $T has no immutable directories"
		return
	fi
	case_ok "store away: writing goes on" timeout 120 "$T/stamp" fill "$(uri v)" "$SEED" \
		4001 8000
	case_ok "store away: status says so" wait_for 30 status_is v .state degraded
	# The length of the outage is what is tested here.
	sleep "$seconds"
	case_ok "store away: still writing after $seconds s" timeout 120 "$T/stamp" fill "$(uri v)" \
		"$SEED" 8001 10000
	case_ok "store away: still served" timeout 60 nbdinfo "$(uri v)"
	case_ok "store away: it is back" thaw
	case_ok "store away: it drains" "$V" flush v --store --timeout 120
	case_ok "store away: and is well" wait_for 30 status_is v .state ok
	verify "store away" 10000
	verify_closed "store away" 10000
}

store_full
cache_full
store_away
finish
