#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A volume behind NBD: what is offered, that every kind of request does what it says, and that all
# of it is there again after a clean close.
. "$(dirname "$0")/lib.sh"
setup
need qemu-io nbdcopy jq

must "create" make_volume v 64M 32M
must "serve" "$V" serve v --timeout 20
is "serve prints the URI" "$OUT" "$(uri v)"
pid=$(server_pid v)

json=$(timeout 20 nbdinfo --json "$(uri v)")
get() {
	printf '%s' "$json" | jq -r ".exports[0].\"$1\""
}
is "the size" "$(get export-size)" $((64 << 20))
is "the name" "$(get export-name)" v
for flag in can_fua can_flush can_trim can_zero can_fast_zero can_multi_conn can_cache; do
	is "offers $flag" "$(get $flag)" true
done
is "smallest block" "$(get block_size_minimum)" 1
like "lists the export" "$(nbdinfo --list "$(uri v)" 2>&1)" 'export="v"'
fails "another export's name" 1 "for export: w" timeout 20 nbdinfo "$(uri v | sed 's,///v,///w,')"
like "... and the log tells" "$(cat "$T/run/v.log")" 'no export named "w"'

fails "a second server" 1 "is served already by process $pid" "$V" serve v
fails "... on TCP too" 1 "is served already" "$V" serve v --tcp 127.0.0.1:19765
fails "deleting a served volume" 1 "serve --stop" "$V" delete v --yes

case_ok "write with FUA" qio v "write -f -P 0x11 0 64k"
case_ok "write" qio v "write -P 0x22 64k 64k"
case_ok "unaligned write" qio v "write -P 0x33 1000 2000"
case_ok "flush" qio v "flush"
case_ok "read back" qio v "read -P 0x11 0 1000" "read -P 0x33 1000 2000" "read -P 0x11 3000 1k" \
	"read -P 0x22 64k 64k"
case_ok "zero" qio v "write -z 64k 8k" "read -P 0 64k 8k" "read -P 0x22 72k 8k"
case_ok "zero, unmapping" qio v "write -z -u 72k 8k" "read -P 0 72k 8k" "read -P 0x22 80k 8k"
case_ok "zero within a block" qio v "write -P 0x44 200k 8k" "write -z 201000 1000" \
	"read -P 0x44 204800 0" "read -P 0 201000 1000"
case_ok "trim" qio v "write -P 0x55 1M 64k" "discard 1M 32k" "read -P 0x55 1056k 32k"
case_ok "the last byte" qio v "write -P 0x66 $(((64 << 20) - 1)) 1" \
	"read -P 0x66 $(((64 << 20) - 1)) 1"

map=$(timeout 20 nbdinfo --map --json "$(uri v)")
like "what was written is data" "$(printf '%s' "$map" | jq -c '.[] | [.offset, .type]' | head -1)" \
	'^\[0,0\]$'
is "what was never written is a hole" \
	"$(printf '%s' "$map" | jq '[.[] | select(.offset <= 33554432 and
		.offset + .length > 33554432)][0].type')" 3
is "extents cover the whole" "$(printf '%s' "$map" | jq '[.[].length] | add')" $((64 << 20))

head -c 16M /dev/urandom >"$T/random"
case_ok "nbdcopy in" timeout 60 nbdcopy --flush "$T/random" "$(uri v)"
case_ok "nbdcopy out" timeout 60 nbdcopy "$(uri v)" "$T/out"
case_ok "the same" cmp -n $((16 << 20)) "$T/random" "$T/out"

status=$("$V" status v --json)
is "status is JSON with the name" "$(printf '%s' "$status" | jq -r .name)" v
is "status: writable" "$(printf '%s' "$status" | jq -r .access)" writable
like "status as a table" "$("$V" status v)" '^state: +ok$'
is "info of a served volume" "$("$V" info v --json | jq -r .size_bytes)" $((64 << 20))
is "list shows the server" "$("$V" list --json | jq -r '.[0].server.pid')" "$pid"
case_ok "flush" "$V" flush v
case_ok "flush to the store" "$V" flush v --store
case_ok "message" "$V" message v checkpoint
fails "an unknown message" 1 "expected flush" "$V" message v nonsense
fails "a setting that cannot change" 1 "cannot change" "$V" message v batch_size 1M

case_ok "stop" "$V" serve --stop v
is "the server has gone" "$(gone "$pid" && echo yes)" yes
fails "stop again" 1 "is not served" "$V" serve --stop v
is "no socket is left" "$(find "$T/run" -type s)" ""

case_ok "check" "$V" check v
case_ok "serve again, for reading" "$V" serve v --read-only --timeout 20
is "read-only is told" "$(timeout 20 nbdinfo --json "$(uri v)" | jq '.exports[0].is_read_only')" true
case_ok "copy out again" timeout 60 nbdcopy "$(uri v)" "$T/out2"
case_ok "the same after reopening" cmp "$T/out" "$T/out2"
fails "a write is refused" 1 "." qio v "write -P 1 0 4k"
case_ok "stop" "$V" serve --stop v

case_ok "serve on TCP" "$V" serve v --tcp 127.0.0.1:19765 --timeout 20
is "its URI" "$OUT" "nbd://127.0.0.1:19765/v"
case_ok "which answers" timeout 20 nbdinfo "nbd://127.0.0.1:19765/v"
case_ok "stop" "$V" serve --stop v

# Two volumes in one server, without the command.
case_ok "a second volume" make_volume w 16M 32M
plugin=$BUILD/front/nbdkit/nbdkit-varve-plugin.so
if [ -e "$plugin" ]; then
	like "dump-plugin" "$(nbdkit --dump-plugin "$plugin")" "^varve_version="
	case_ok "two exports" timeout 60 nbdkit -U - "$plugin" v volume=w \
		--run "nbdinfo --list \"nbd+unix:///?socket=\$unixsocket\""
	like "both are listed" "$OUT" 'export="w"'
	fails "the same volume twice" 1 "given twice" nbdkit -U - "$plugin" v volume=v --run true
	fails "no volume" 1 "which volume" nbdkit -U - "$plugin" --run true
	fails "a bad parameter" 1 "set=batch_size=1M" nbdkit -U - "$plugin" v batch_size=1M \
		--run true
else
	skip "the plugin alone" "not at $plugin"
fi
finish
