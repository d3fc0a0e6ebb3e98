#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Caches that are missing, foreign or old: refused until the user gives up what they held, and then
# the image is a prefix of what was written.
. "$(dirname "$0")/lib.sh"
setup
need jq
tool stamp -lnbd -lpthread

must "create v" make_volume v 64M 64M
must "create w" make_volume w 64M 64M
must "serve" "$V" serve v --timeout 20
case_ok "write 1500 blocks" timeout 60 "$T/stamp" fill "$(uri v)" "$SEED" 1 1500
case_ok "to the store" "$V" flush v --store
case_ok "hold" "$V" message v hold 1
case_ok "write 1500 more, into the cache alone" timeout 60 "$T/stamp" fill "$(uri v)" "$SEED" \
	1501 3000
kill_server v

fails "w's cache for v" 1 "." "$V" serve v --set "cache=$T/w.cache" --timeout 20
like "... names the volume it belongs to, or the one it wants" "$OUT" "cache|belongs|volume"
mv "$T/v.cache" "$T/v.kept"
fails "without its cache" 1 "v.cache" "$V" serve v --timeout 20
like "... and says what to do" "$OUT" "discard"
case_ok "formatting another in its place" "$V" cache create "$T/v.cache" --size 64M
fails "an empty cache" 1 "." "$V" serve v --timeout 20
rm "$T/v.cache"

mv "$T/v.kept" "$T/v.cache"
case_ok "with its own cache again" "$V" serve v --timeout 20
case_ok "everything is there" timeout 60 "$T/stamp" prefix "$(uri v)" "$SEED" 3000 3000
case_ok "hold" "$V" message v hold 1
case_ok "more, into the cache alone" timeout 60 "$T/stamp" fill "$(uri v)" "$SEED" 3001 4000
cp "$T/v.cache" "$T/v.old"
kill_server v

rm "$T/v.cache"
case_ok "discarding the cache" "$V" serve v --discard-cache --timeout 20
like "the cut is told" "$OUT" "LSN"
case_ok "a prefix is left" timeout 60 "$T/stamp" prefix "$(uri v)" "$SEED" 4000 1500
echo "# $OUT"
kept=$(printf '%s\n' "$OUT" | sed -n 's/^prefix \([0-9]*\) .*/\1/p')
case_ok "the volume can be written" timeout 60 "$T/stamp" fill "$(uri v)" "$SEED" \
	$((kept + 1)) 5000
case_ok "stop" "$V" serve --stop v
case_ok "check" "$V" check v
case_ok "serve" "$V" serve v --timeout 20
case_ok "all is there" timeout 60 "$T/stamp" prefix "$(uri v)" "$SEED" 5000 5000
case_ok "stop" "$V" serve --stop v

# What a crash left in the log reaches the store by a drain alone, without a write before it.
must "serve" "$V" serve v --timeout 20
case_ok "hold" "$V" message v hold 1
case_ok "write into the cache alone" timeout 60 "$T/stamp" fill "$(uri v)" "$SEED" 5001 6000
kill_server v
case_ok "serve after a kill" "$V" serve v --timeout 20
case_ok "drain what it left" "$V" flush v --store
kill_server v
mv "$T/v.cache" "$T/v.drained"
case_ok "serve without the cache" "$V" serve v --discard-cache --timeout 20
case_ok "all of it is in the store" timeout 60 "$T/stamp" prefix "$(uri v)" "$SEED" 6000 6000
case_ok "one write more" timeout 60 "$T/stamp" fill "$(uri v)" "$SEED" 6001 6001
case_ok "stop" "$V" serve --stop v
case_ok "check" "$V" check v
mv "$T/v.old" "$T/v.older"
mv "$T/v.drained" "$T/v.old"

mv "$T/v.cache" "$T/v.new"
mv "$T/v.old" "$T/v.cache"
fails "the cache of before" 1 "." "$V" serve v --timeout 20
mv "$T/v.older" "$T/v.cache"
fails "the cache of long before" 1 "." "$V" serve v --timeout 20
mv "$T/v.new" "$T/v.cache"
case_ok "the right one" "$V" serve v --timeout 20
case_ok "untouched" timeout 60 "$T/stamp" prefix "$(uri v)" "$SEED" 6001 6001
case_ok "stop" "$V" serve --stop v

# A cache that was made for a volume which has none yet: memory without a name is not bound.
mkdir "$T/store-u"
must "create u" "$V" create u --size 64M --store "dir:$T/store-u/vol" --cache mem:64M
uuid=$("$V" info "none,dir:$T/store-u/vol" --json | jq -r .uuid)
other=$("$V" info w --json | jq -r .uuid)
fails "a UUID that is none" 1 "uuid=nonsense" "$V" cache create "$T/u.cache" --size 64M \
	--uuid nonsense
is "leaves no file" "$(find "$T" -name u.cache)" ""
case_ok "a cache for u" "$V" cache create "$T/u.cache" --size 64M --uuid "$uuid"
is "cache info tells whose" "$("$V" cache info "$T/u.cache" --json | jq -r .volume_uuid)" "$uuid"
case_ok "a cache for w" "$V" cache create "$T/w2.cache" --size 64M --uuid "$other"
fails "w's for u, though blank" 1 "belongs to another volume" \
	"$V" serve u --set "cache=$T/w2.cache" --timeout 20
fails "u's for w" 1 "belongs to another volume" \
	"$V" serve w --set "cache=$T/u.cache" --timeout 20
fails "u's for a volume that is created" 1 "belongs to another volume" \
	"$V" create x --size 64M --store "dir:$T/store-u/x" --cache "$T/u.cache"
sed -i "s,^cache = .*,cache = $T/u.cache," "$T/conf/u.conf"
case_ok "u's for u" "$V" serve u --timeout 20
case_ok "hold" "$V" message u hold 1
case_ok "write" timeout 60 "$T/stamp" fill "$(uri u)" "$SEED" 1 1000
kill_server u
case_ok "another for u" "$V" cache create "$T/u2.cache" --size 64M --uuid "$uuid"
fails "... is refused: u was not closed" 1 "discard" \
	"$V" serve u --set "cache=$T/u2.cache" --timeout 20
case_ok "after a kill" "$V" serve u --timeout 20
case_ok "all is there" timeout 60 "$T/stamp" prefix "$(uri u)" "$SEED" 1000 1000
case_ok "drain" "$V" flush u --store
case_ok "stop" "$V" serve --stop u
case_ok "closed, it takes the other" "$V" serve u --set "cache=$T/u2.cache" --timeout 20
case_ok "all is there" timeout 60 "$T/stamp" prefix "$(uri u)" "$SEED" 1000 1000
case_ok "and one write more" timeout 60 "$T/stamp" fill "$(uri u)" "$SEED" 1001 1001
case_ok "stop" "$V" serve --stop u
fails "the one of before is out" 1 "taken its place" "$V" serve u --timeout 20
finish
