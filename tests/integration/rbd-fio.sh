#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fio's rbd engine, unmodified: threads and processes, everything verified.
. "$(dirname "$0")/rbd.sh"
rbd_setup
need fio
export RBD_TIMEOUT=180

for type in $TYPES; do
	have_type $type || {
		skip "$type" "this build has no such volumes"
		continue
	}
	must "$type: create" make_image $type $type 256M 64M
	for thread in 0 1; do
		run() {
			fio_rbd $type --thread=$thread --randseed=$SEED --size=64m "$@"
		}
		case_ok "$type thread=$thread: random writes" run --rw=randwrite --bs=4k --iodepth=32 \
			--verify=crc32c --verify_fatal=1
		case_ok "$type thread=$thread: odd sizes" run --rw=randrw --bs=512-64k --bs_unaligned=1 \
			--iodepth=16 --verify=crc32c --verify_fatal=1
		case_ok "$type thread=$thread: fsync" run --rw=randwrite --bs=4k --iodepth=8 --fsync=16 \
			--io_size=16m --verify=crc32c --verify_fatal=1
		case_ok "$type thread=$thread: trim" run --rw=randtrim --bs=64k --iodepth=8
		case_ok "$type thread=$thread: reads" run --rw=randread --bs=4k --iodepth=64
		case_ok "$type thread=$thread: one at a time" run --rw=randwrite --bs=4k --iodepth=1 \
			--io_size=8m --verify=crc32c --verify_fatal=1
		case_ok "$type thread=$thread: by LD_PRELOAD" preloaded fio --name=x --ioengine=rbd \
			--pool=rbd --rbdname=$type --clientname=admin --thread=$thread --size=16m \
			--rw=randwrite --bs=4k --iodepth=16 --verify=crc32c --verify_fatal=1 \
			--verify_state_save=0
	done
	case_ok "$type: check" "$V" check $type
done
finish
