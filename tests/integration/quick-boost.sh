#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# boost volumes through the command: what is adopted and what is refused, kill -9, writing back, the
# backing file alone, removal, sizes, suspension.
. "$(dirname "$0")/lib.sh"
setup
need jq nbdcopy cmp
M=$((1 << 20))

# random FILE MEGABYTES: the same for a seed.
random() {
	openssl enc -aes-128-ctr -nosalt -K "$(printf %032x $((SEED + $2 + ${#1})))" -iv 0 \
		</dev/zero 2>/dev/null | head -c $(($2 * M)) >"$1"
}
# same A B: for as long as both are.
same() {
	cmp -n "$(stat -c %s "$1")" "$1" "$2"
}
status() {
	"$V" status b --json | jq -r "$1"
}
# image: what a client sees.
image() {
	rm -f "$T/image"
	nbdcopy "$(uri b)" "$T/image"
}

random "$T/back" 16
cp "$T/back" "$T/old"
random "$T/new" 4
{ cat "$T/new"; tail -c +$((4 * M + 1)) "$T/old"; } >"$T/want"
boost=(--type boost --cache-size 16M)
# Where nobody knows of b.
elsewhere=(env "VARVE_CONFIG_DIR=$T/elsewhere")

# ---- what is refused
fails "a store is not boost's" 1 "store is a setting of lsvd volumes" "$V" create b "${boost[@]}" \
	--backing "$T/back" --cache "$T/c" --store "dir:$T/s"
fails "a backing device is not lsvd's" 1 "backing is a setting of boost volumes" "$V" create b \
	--size 1M --store "dir:$T/s" --cache "$T/c" --backing "$T/back"
fails "no such type" 1 "there are: lsvd, boost" "$V" create b --type boots --cache "$T/c"
fails "no backing device" 1 "with size= a file is created" "$V" create b "${boost[@]}" \
	--backing "$T/none" --cache "$T/c"
fails "a size beside the device's" 1 "leave size out" "$V" create b "${boost[@]}" \
	--backing "$T/back" --cache "$T/c" --size 1G
ln -s back "$T/link"
ln "$T/back" "$T/hard"
fails "one file as both" 1 "is the backing device" "$V" create b "${boost[@]}" --backing \
	"$T/back" --cache "$T/link" --set format_cache=yes
fails "... by another name" 1 "is the backing device" "$V" create b "${boost[@]}" --backing \
	"$T/back" --cache "$T/hard" --set format_cache=yes
truncate -s $((M + 1)) "$T/odd"
fails "a file of no whole blocks" 1 "1048577 bytes .* not a multiple" "$V" create b "${boost[@]}" \
	--backing "$T/odd" --cache "$T/c"
truncate -s 16M "$T/blank"
fails "a cache that is there" 1 "is not formatted as a cache" "$V" create b "${boost[@]}" \
	--backing "$T/back" --cache "$T/blank"
fails "swapped" 1 "swapped" "$V" create b "${boost[@]}" --backing "$T/blank" --cache "$T/back"
fails "swapped, and to be formatted" 1 "swapped" "$V" create b "${boost[@]}" --backing \
	"$T/blank" --cache "$T/back" --set format_cache=yes
must "a cache" "$V" cache create "$T/c0" --size 16M
fails "a cache as the backing device" 1 "swapped" "$V" create b "${boost[@]}" --backing "$T/c0" \
	--cache "$T/c"
is "nothing was written" "$(same "$T/back" "$T/old" && echo same)" same
is "and nothing is left" "$(ls "$T/conf")$(ls "$T/c" 2>/dev/null)" ""

# ---- adopting, serving, kill -9
case_ok "create over a file with data" "$V" create b "${boost[@]}" --backing "$T/back" \
	--cache "$T/c" --set batch_age=50ms
like "it says what the backing file alone is worth" "$OUT" "nothing is promised"
like "list" "$("$V" list)" "^b +boost +-$"
is "its size is the file's" "$("$V" info b --json | jq -r .size_bytes)" $((16 * M))
is "the binding" "$("$V" info b --json | jq -r .binding.backing_bytes)" $((16 * M))
is "... in the cache too" "$("$V" dump "$T/c" --json | jq -r .binding.backing_bytes)" $((16 * M))
uuid=$("$V" info b --json | jq -r .uuid)
is "the UUID stands in the definition" "$(sed -n 's/^uuid = //p' "$T/conf/b.conf")" "$uuid"
is "... and in the cache" "$("$V" dump b cache --json | jq -r .volume_uuid)" "$uuid"
sed -i.old "s/^uuid = .*/uuid = $("$V" dump b cache --json | jq -r .uuid)/" "$T/conf/b.conf"
fails "another volume's cache" 1 "belongs to volume $uuid" "$V" info b
mv "$T/conf/b.conf.old" "$T/conf/b.conf"
fails "no superblock to dump" 1 "holds data alone" "$V" dump b superblock
case_ok "serve, held" "$V" serve b --set hold=yes
case_ok "what was there is there" image
is "... all of it" "$(same "$T/image" "$T/old" && echo same)" same
case_ok "write" nbdcopy --flush "$T/new" "$(uri b)"
is "held: it is in the cache alone" "$(same "$T/back" "$T/old" && echo same)" same
is "status: dirty" "$(status .home.dirty_bytes)" $((4 * M))
fails "a second cache user" 1 "." "$V" create b2 "${boost[@]}" --backing "$T/back" --cache "$T/c9"
case_ok "kill -9" kill_server b
fails "its backing device with another cache" 1 "backing device of volume b" "$V" create b2 \
	"${boost[@]}" --backing "$T/link" --cache "$T/c9"
fails "its backing device as a cache" 1 "backing device of volume b" "$V" create b2 --cache \
	"$T/back" --store "dir:$T/s" --size 1M --set format_cache=yes
fails "deleting what is dirty" 1 "$((4 * M)) bytes .* --drain .* --force" "$V" delete b --yes
case_ok "check of a killed one" "$V" check b
case_ok "serve again" "$V" serve b --set hold=yes
case_ok "read" image
is "everything flushed is there" "$(same "$T/image" "$T/want" && echo same)" same
line=$("$V" status b --line)
json=$("$V" status b --json | jq -r '[.home.dirty_bytes / 4096 | ceil] + [.line | split(" ")[1]]
	+ [.log.destaged_segment, .log.durable_segment, .log.head_segment]
	+ [.log.head_bytes / 4096 | ceil] + .log.io + [3, "barrier_deadline_ms", 0,
	"allow_migrate", if .home.allow_migrate then 1 else 0 end, "nr_max_batched_migration",
	.home.nr_max_batched_migration] | map(tostring) | join(" ")')
is "the line and the JSON agree" "$line" "$json"
is "the line's words" "$(wc -w <<<"$line")" 29
case_ok "allow_migrate 0" "$V" message b allow_migrate 0
is "... in status" "$(status .home.allow_migrate)" false
case_ok "nr_max_batched_migration 7" "$V" message b nr_max_batched_migration 7
is "... in status" "$(status .home.nr_max_batched_migration)" 7
fails "a message that is lsvd's" 1 "no checkpoints" "$V" message b checkpoint
fails "a setting that is lsvd's" 1 "no setting of boost" "$V" message b batch_size 1M
case_ok "clear_stat" "$V" message b clear_stat
is "... in status" "$(status '.log.io | add')" 0
case_ok "drop_caches" "$V" message b drop_caches
is "the backing file has everything, served as it is" "$(same "$T/back" "$T/want" && echo same)" same
is "not dirty" "$(status .home.dirty_bytes)" 0
is "the state" "$(status .state)" ok

# ---- suspending: copies of both devices
case_ok "hold yes" "$V" message b hold yes
case_ok "write" nbdcopy "$T/new" "$(uri b)"
case_ok "suspend" "$V" message b suspend
is "status: suspended" "$(status '.state + " " + .reasons[0]')" "degraded suspended"
cp "$T/back" "$T/back2"
cp "$T/c" "$T/c2"
case_ok "resume" "$V" message b resume
case_ok "the copies are a volume" "$V" check "$T/c2,boost:$T/back2"
case_ok "suspend" "$V" message b suspend
case_ok "stopping a suspended one" "$V" serve --stop b --timeout 20

# ---- sizes
fails "suspending a closed one" 1 "nothing to suspend" "$V" message b suspend
case_ok "grow" "$V" resize b 24M
is "the file has grown" "$(stat -c %s "$T/back")" $((24 * M))
fails "shrinking without the word" 1 "shrink" "$V" resize b 16M
case_ok "serve" "$V" serve b
case_ok "grow a served one" "$V" resize b 32M
is "a new client sees it" "$(nbdinfo --size "$(uri b)")" $((32 * M))
case_ok "shrink a served one" "$V" resize b 16M --shrink
is "a new client sees that" "$(nbdinfo --size "$(uri b)")" $((16 * M))
case_ok "read" image
is "what was within is as it was" "$(same "$T/image" "$T/want" && echo same)" same
case_ok "stop" "$V" serve --stop b --timeout 20

# ---- the wrong device
mv "$T/back" "$T/away"
fails "the backing file is away" 1 "$T/back" "$V" info b
truncate -s 8M "$T/back"
case_ok "serve another, of a clean cache" "$V" serve b --set hold=yes
case_ok "write" nbdcopy --flush "$T/new" "$(uri b)"
case_ok "kill -9" kill_server b
mv "$T/away" "$T/back"
fails "written to without its cache" 1 "." "$V" info b

# ---- removal
fails "--drain of the wrong one" 1 "." "$V" delete b --yes --drain
rm "$T/back"
fails "a dead backing device" 1 "force" "$V" delete b --yes
case_ok "--force" "$V" delete b --yes --force --json
is "what is lost" "$(jq -c '[.lost_bytes, .ranges, .list[0].offset]' <<<"$OUT")" "[$((4 * M)),1,0]"
is "the definition is gone" "$(ls "$T/conf")" ""
is "the cache is nobody's" "$("$V" dump "$T/c" --json | jq -r .volume_uuid | tr -d 0-)" ""

cp "$T/old" "$T/back"
case_ok "again, with the cache that is there" "$V" create b "${boost[@]}" --backing "$T/back" \
	--cache "$T/c"
case_ok "serve" "$V" serve b --set hold=yes
case_ok "write" nbdcopy --flush "$T/new" "$(uri b)"
case_ok "kill -9" kill_server b
case_ok "looking alone" "$V" info b
case_ok "... leaves it where it is" same "$T/back" "$T/old"
case_ok "serve again, for reading" "$V" serve b --read-only
case_ok "stop" "$V" serve --stop b --timeout 20
case_ok "... leaves it where it is" same "$T/back" "$T/old"
case_ok "serve again, and write nothing" "$V" serve b --set hold=yes
case_ok "stop" "$V" serve --stop b --timeout 20
case_ok "the backing file has what the killed one left" same "$T/back" "$T/want"
head -c 4096 /dev/urandom >"$T/bit"
{ cat "$T/bit"; tail -c +4097 "$T/want"; } >"$T/want2"
mv "$T/want2" "$T/want"
case_ok "serve" "$V" serve b --set hold=yes
case_ok "write" nbdcopy --flush "$T/bit" "$(uri b)"
case_ok "kill -9" kill_server b
case_ok "--drain" "$V" delete b --yes --drain
is "the backing file has everything, alone" "$(same "$T/back" "$T/want" && echo same)" same
case_ok "a cache that rots" "$V" create b "${boost[@]}" --backing "$T/back" --cache "$T/c"
case_ok "serve" "$V" serve b --set hold=yes
case_ok "write" nbdcopy --flush "$T/new" "$(uri b)"
# So that what was written before is below a watermark: no torn end.
case_ok "write" nbdcopy --flush "$T/bit" "$(uri b)"
case_ok "kill -9" kill_server b
# And what earlier rounds of the log have left.
python3 - "$T/new" "$T/c" <<'EOF'
import sys
with open(sys.argv[1], "rb") as f:
    f.seek(2 << 20)
    mark = f.read(16)
with open(sys.argv[2], "r+b") as f:
    log = f.read()
    at = log.find(mark)
    while at >= 0:
        f.seek(at + 100)
        f.write(b"rotten")
        at = log.find(mark, at + 1)
EOF
case_ok "serve" "$V" serve b
case_ok "drop_caches" "$V" message b drop_caches
is "status: lost" "$(status .home.bad_bytes)" 4096
case_ok "stop" "$V" serve --stop b --timeout 20
fails "deleting what tells of it" 1 "4096 bytes were lost to damage" "$V" delete b --yes
case_ok "... by force" "$V" delete b --yes --force
like "... and that is said" "$OUT" "damage in the cache: 4.0 KiB"
case_ok "once more" "$V" create b "${boost[@]}" --backing "$T/back" --cache "$T/c"
case_ok "serve" "$V" serve b --set hold=yes
case_ok "write" nbdcopy --flush "$T/new" "$(uri b)"
case_ok "kill -9" kill_server b
rm "$T/c"
fails "the cache is missing" 1 "cache .* is missing" "$V" info b
case_ok "it can be given up" "$V" serve b --discard-cache
like "... and that is said" "$OUT" "nobody knows what is lost"
case_ok "kill -9" kill_server b
fails "deleting it without its cache" 1 "nobody knows" "$V" delete b --yes
case_ok "... by force" "$V" delete b --yes --force
like "... and that is said" "$OUT" "nobody knows what is lost"

# ---- names
truncate -s 1M "$T/rel"
case_ok "create by relative names" env -C "$T" "$V" create r "${boost[@]}" --backing rel --cache rc
case_ok "they are found from elsewhere" env -C / "$V" info r
is "... where they were" "$(sed -n 's/^backing = //p' "$T/conf/r.conf")" "$T/rel"
case_ok "delete" "$V" delete r --yes

# ---- block devices
if [ "$(id -u)" = 0 ] && truncate -s 16M "$T/disk" &&
	loop=$(losetup -b 4096 -f --show "$T/disk" 2>/dev/null); then
	loops=$loop
	trap 'for l in $loops; do losetup -d "$l" 2>/dev/null; done; cleanup' EXIT
	rm -f "$T/c"
	case_ok "a block device" "$V" create b "${boost[@]}" --backing "$loop" --cache "$T/c"
	is "its blocks" "$("$V" info b --json | jq -r .block_bytes)" 4096
	mknod "$T/node" b $((0x$(stat -c %t "$loop"))) $((0x$(stat -c %T "$loop")))
	fails "the same as its cache, by another node" 1 "is the backing device" "$V" create b2 \
		--type boost --backing "$loop" --cache "$T/node" --set format_cache=yes
	case_ok "serve" "$V" serve b
	case_ok "write" nbdcopy --flush "$T/new" "$(uri b)"
	fails "in use" 1 "end what uses it" "${elsewhere[@]}" "$V" create b2 "${boost[@]}" \
		--backing "$loop" --cache "$T/c9"
	is "... leaves no cache behind" "$(ls "$T/c9" 2>/dev/null)" ""
	fails "a size that the device has not" 1 "its own tools" "$V" resize b 24M
	truncate -s 24M "$T/disk"
	losetup -c "$loop"
	case_ok "the device has grown" "$V" resize b
	is "a new client sees it" "$(nbdinfo --size "$(uri b)")" $((24 * M))
	truncate -s 32M "$T/disk"
	losetup -c "$loop"
	case_ok "stop" "$V" serve --stop b --timeout 20
	is "grown while it was closed" "$("$V" info b --json | jq -r .size_bytes)" $((32 * M))
	mkfs.ext2 -q "$loop" && mkdir -p "$T/mnt" && mount "$loop" "$T/mnt"
	fails "a mounted one cannot be deleted" 1 "use" "$V" delete b --yes
	fails "... nor taken" 1 "unmount it" "${elsewhere[@]}" "$V" create b2 "${boost[@]}" \
		--backing "$loop" --cache "$T/c9"
	umount "$T/mnt"
	case_ok "delete" "$V" delete b --yes
	losetup -d "$loop"
else
	skip "block devices" "needs root and loop devices"
fi

# ---- templates
fails "a template that is not there" 1 "$T/conf/gold.template does not exist" "$V" create t \
	--template gold
cat >"$T/conf/gold.template" <<-END
	[volume]
	type = boost
	backing = $T/%n.img
	size = 8M
	cache = $T/%n.cache
	cache_size = 16M
	nr_max_batched_migration = 3
END
case_ok "a template" "$V" create t --template gold --set hold=yes
is "its settings" "$("$V" status t --json | jq -c '[.size_bytes, .hold,
	.settings.nr_max_batched_migration, .backing.path]')" "[$((8 * M)),true,\"3\",\"$T/t.img\"]"
is "it is no volume" "$("$V" list | wc -l)" 1
finish
