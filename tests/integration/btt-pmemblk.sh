#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Programs that were made for PMDK's libpmemblk, unmodified, on ours; many random sequences of calls
# on both; pools of PMDK's of all shapes, killed writers among them, taken over.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/pmemblk-lib.sh"
pmemblk_setup
[ -n "$THEIRS" ] || skip_all "PMDK's libpmemblk1 is not installed"
with_ours() {
	LD_LIBRARY_PATH=${OURS%/*} "$@"
}

for ((i = 0; i < 8; i++)); do
	case_ok "random calls, part $i" pair $((SEED + i)) 15000
done
for bsize in 1 100 512 513 4096 16384; do
	case_ok "taking over a pool with blocks of $bsize bytes" convert $bsize 40000000 "$SEED"
done
for ((i = 0; i < 8; i++)); do
	rm -f "$T/old" "$T/new"
	"$T/pmemblk_fill" "$THEIRS" "$T/old" make 4096 20000000 1 >/dev/null
	die_writing "$THEIRS" "$T/old" 4 "0.1$i"
	case_ok "taking over a pool whose writer was killed, $i" "$V" import "$T/old" "$T/new"
	case_ok "... every block is whole" "$T/pmemblk_fill" "$OURS" "$T/new" whole
	for ((j = 0; j < 3; j++)); do
		die_writing "$OURS" "$T/new" 4 "0.0$j"
	done
	case_ok "... and after more kills" "$T/pmemblk_fill" "$OURS" "$T/new" whole
done
rm -f "$T/old" "$T/new"

if fio --enghelp | grep -qw pmemblk; then
	for bs in 512 4096; do
		case_ok "fio writes $bs byte blocks and verifies them" with_ours timeout 120 fio \
			--name=v --ioengine=pmemblk --thread=1 --filename="$T/fio.$bs,$bs,64" \
			--bs=$bs --rw=randwrite --verify=crc32c --verify_state_save=0 --do_verify=1 --size=20m
		case_ok "fio: four jobs, mixed" with_ours timeout 120 fio --name=m \
			--ioengine=pmemblk --thread=1 --numjobs=4 --filename="$T/fio.$bs,$bs,64" \
			--bs=$bs --rw=randrw --time_based --runtime=3
		case_ok "the pool is sound" "$V" check "none,btt:$T/fio.$bs"
		rm -f "$T/fio.$bs"
	done
else
	skip "fio" "it has no engine for libpmemblk"
fi

# PMDK's own examples, as their package ships them, compiled with its header. The package lacks a
# header of theirs, of which one constant is used.
examples=/usr/share/doc/libpmemblk-dev/examples
if [ -e $examples/assetdb/asset_load.c ] && [ -e /usr/include/libpmemblk.h ]; then
	echo '#define CREATE_MODE_RW 0600' >"$T/ex_common.h"
	sed "s#/pmem-fs/myfile#$T/myfile#" $examples/manpage.c >"$T/manpage.c"
	cc -o "$T/manpage" "$T/manpage.c" -lpmemblk
	for p in load list checkout checkin; do
		cc -I"$T" -I$examples/assetdb -o "$T/asset_$p" $examples/assetdb/asset_$p.c \
			-lpmemblk
	done
	case_ok "the manual's example" with_ours "$T/manpage"
	like "... found room" "$OUT" "file holds"
	printf 'hammer\nsaw\n' >"$T/assets"
	truncate -s 20m "$T/asset.db"
	case_ok "assetdb: load" with_ours "$T/asset_load" "$T/asset.db" "$T/assets"
	case_ok "assetdb: check out" with_ours "$T/asset_checkout" "$T/asset.db" 1 anna
	case_ok "assetdb: list" with_ours "$T/asset_list" "$T/asset.db"
	like "... knows who has it" "$OUT" "anna"
	case_ok "assetdb: check in" with_ours "$T/asset_checkin" "$T/asset.db" 1
else
	skip "assetdb" "libpmemblk-dev is not installed"
fi
finish
