# SPDX-License-Identifier: BSD-3-Clause
# What the tests of librbd's interface share: lib.sh, and programs that were built for Ceph, run with
# our libraries in its place. A test sources this instead of lib.sh.
# shellcheck shell=bash
# shellcheck source=tests/integration/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

RBD=$BUILD/front/rbd
# The types of volumes that everything here is done with.
TYPES="lsvd boost"

rbd_setup() {
	setup
	[ -e "$RBD/librbd.so.1" ] || skip_all "$RBD/librbd.so.1 is not built"
	need qemu-img qemu-io
	qemu-img --help | grep -Eq '^Supported formats:.* rbd( |$)' ||
		skip_all "qemu-img has no rbd driver (package qemu-block-extra)"
}

# rbd COMMAND...: with our libraries instead of Ceph's. The time limit is for what hangs.
rbd() {
	LD_LIBRARY_PATH=$RBD timeout -k 5 "${RBD_TIMEOUT:-60}" "$@"
}

# The same by LD_PRELOAD.
preloaded() {
	LD_PRELOAD=$RBD/libvarve-rbd-preload.so timeout -k 5 "${RBD_TIMEOUT:-60}" "$@"
}

# rbd_io URL COMMAND...
rbd_io() {
	local url=$1 args=() c
	shift
	for c in "$@"; do args+=(-c "$c"); done
	rbd qemu-io -f raw "${args[@]}" "$url"
}

# Whether this build has volumes of a type.
have_type() {
	[ "$1" = lsvd ] || "$V" create --help | grep -q "$1"
}

# make_image TYPE NAME SIZE CACHE-SIZE
make_image() {
	case $1 in
	lsvd) make_volume "$2" "$3" "$4" ;;
	boost)
		truncate -s "$3" "$T/$2.backing"
		"$V" create "$2" --type boost --backing "$T/$2.backing" \
			--cache "$T/$2.cache" --cache-size "$4"
		;;
	esac
}

# template NAME: of volumes below $T.
template() {
	cat >"$T/conf/$1.template" <<-EOF
		[volume]
		store = dir:$T/$1-%n
		cache = $T/$1-%n.cache
		cache_size = 32M
	EOF
}

# fio_rbd NAME OPTION...
fio_rbd() {
	local name=$1
	shift
	rbd fio --name=x --ioengine=rbd --pool=rbd --rbdname="$name" --clientname=admin \
		--verify_state_save=0 --output="$T/fio.log" "$@" || {
		cat "$T/fio.log"
		return 1
	}
}
