# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# "${RBD[@]}" COMMAND... is an unmodified program with our librbd in the place of Ceph's, and in the
# background it is the process that $! says. Sourced after lib.sh.

rbd_need() {
	local dir libs=
	for dir in "$BUILD/front/rbd" "$BUILD/front/rbd/lib"; do
		[ -e "$dir/librbd.so.1" ] && libs=$dir
	done
	[ -n "$libs" ] || skip_all "librbd.so.1 is not built"
	compgen -G "/usr/lib/*/qemu/block-rbd.so" >/dev/null ||
		skip_all "qemu has no rbd driver: qemu-block-extra is not installed"
	RBD=(env "LD_LIBRARY_PATH=$libs${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
}
