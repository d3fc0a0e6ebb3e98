#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The command itself: usage, exit codes, messages that name things, JSON that is JSON.
. "$(dirname "$0")/lib.sh"
setup
need jq

like "version" "$("$V" version)" "^varve [0-9]+\.[0-9]+"
fails "no command" 2 "Usage" "$V"
fails "an unknown command" 2 'no command "frobnicate"' "$V" frobnicate
fails "an unknown command of a group" 2 'no command "cache frobnicate"' "$V" cache frobnicate
fails "a group alone" 2 "cache what" "$V" cache
fails "an operand is missing" 2 "expected NAME" "$V" create
fails "one operand too many" 2 "one too many: b" "$V" info a b
fails "an unknown option" 2 "unknown option --frob" "$V" create x --frob
fails "a value is missing" 2 "a value is missing after --size" "$V" create x --size
fails "a setting without =" 2 "KEY=VALUE" "$V" create x --set nonsense
fails "a bad number of seconds" 2 "number of seconds" "$V" serve x --timeout soon
fails "create without anything" 2 "needs at least" "$V" create x
fails "--socket and --tcp" 2 "exclude" "$V" serve x --socket s --tcp 1
for c in create list info delete serve attach detach status message flush check dump; do
	like "help $c" "$("$V" help $c)" "^Usage: varve $c"
	is "$c --help is the same" "$("$V" $c --help)" "$("$V" help $c)"
done
is "cache create --help" "$("$V" cache create --help)" "$("$V" help cache create)"

mkdir "$T/s"
base=(--size 16M --store "dir:$T/s/vol" --cache "$T/c" --cache-size 16M)
fails "a bad size" 1 "size = nonsense" "$V" create x "${base[@]}" --size nonsense
fails "a bad setting" 1 "frob" "$V" create x "${base[@]}" --set frob=1
fails "a bad name" 1 "a/b" "$V" create a/b "${base[@]}"
fails "a store that does not exist" 1 "$T/none" "$V" create x "${base[@]}" \
	--store "dir:$T/none/vol"
is "nothing is left of these" "$(find "$T/s" "$T/c" "$T/conf" -type f ! -name '*.lock' 2>/dev/null)" ""
must "create" "$V" create x "${base[@]}"
fails "the name exists" 1 "exists" "$V" create x "${base[@]}"
fails "the objects exist" 1 "." "$V" create y "${base[@]}" --cache "$T/c2"
fails "the cache is another volume's" 1 "." "$V" create y "${base[@]}" --store "dir:$T/s/other"

is "list" "$("$V" list)" "$(printf '%-20s lsvd   -' x)"
is "list --json" "$("$V" list --json | jq -c '[.[].name]')" '["x"]'
is "info --json" "$("$V" info x --json | jq -r .size_bytes)" $((16 << 20))
is "its type" "$("$V" info x --json | jq -r .type)" lsvd
like "status of a closed volume" "$("$V" status x)" "^name: +x$"
is "status --json" "$("$V" status x --json | jq -r .size_bytes)" $((16 << 20))
fails "info of nothing" 1 "nothing" "$V" info nothing
fails "status of nothing" 1 "nothing" "$V" status nothing
fails "serve of nothing" 1 "nothing" "$V" serve nothing
fails "message to nothing" 1 "nothing" "$V" message nothing drain
fails "stop of what is not served" 1 "is not served" "$V" serve --stop x
case_ok "message to a closed volume" "$V" message x checkpoint
case_ok "flush of a closed volume" "$V" flush x --store

super=$("$V" dump x)
for f in name magic UUID version type seq n_hdr n_data vol_size total_sectors live_sectors ckpts \
	clones snaps; do
	like "dump shows $f" "$super" "^$f: +[^ ]"
done
like "the magic is right" "$super" "^magic: +OK"
is "dump --json" "$("$V" dump x superblock --json | jq -r type)" object
uuid=$("$V" info x --json | jq -r .uuid)
is "the UUID is the same everywhere" "$("$V" dump x --json | jq -r '.uuid // .UUID')" "$uuid"
case_ok "dump objects" "$V" dump x objects
case_ok "dump log" "$V" dump x log
case_ok "dump of a path" "$V" dump "$T/c"
case_ok "cache info" "$V" cache info "$T/c" --json
like "whose it is" "$OUT" "$uuid"
fails "dump of nothing" 1 "nothing" "$V" dump nothing
fails "cache info of nothing" 1 "$T/nothing" "$V" cache info "$T/nothing"

case_ok "check" "$V" check x
is "check --json" "$("$V" check x --json | jq -c '[.count, .problems]')" '[0,[]]'
like "check --progress" "$("$V" check x --progress 2>&1)" "x: clean"
fails "check of nothing" 2 "nothing" "$V" check nothing
fails "check with a bad option" 2 "unknown option" "$V" check x --frob

case_ok "cache create" "$V" cache create "$T/c3" --size 16M
fails "cache create over a log" 1 "$T/c" "$V" cache create "$T/c"
is "and the log is still there" "$("$V" check x --json | jq .count)" 0
case_ok "with --force, over an empty one" "$V" cache create "$T/c3" --force

fails "delete without --yes" 1 "give --yes" "$V" delete x
case_ok "delete --keep-data" "$V" delete x --yes --keep-data
[ -n "$(find "$T/s" -type f ! -name '*.lock')" ] && pass "the objects stay" ||
	fail "the objects are gone"
case_ok "a spec opens it" "$V" info "$T/c,dir:$T/s/vol" --json
is "... with the same UUID" "$(printf '%s' "$OUT" | jq -r .uuid)" "$uuid"
fails "no run directory" 1 "run directory" env VARVE_RUN_DIR=/proc/none "$V" serve x

case_ok "another volume" make_volume z 16M 16M
case_ok "delete it" "$V" delete z --yes
is "nothing is left of it" "$(find "$T/store-z" -type f ! -name '*.lock')" ""
fails "it is gone" 1 "z" "$V" info z
fails "deleting it again" 1 "^varve: deleting volume z: there is no volume z" "$V" delete z --yes
is "list is empty" "$("$V" list)" ""
finish
