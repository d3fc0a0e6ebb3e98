#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-symbols sees what is missing and what is too much.
. "$(dirname "$0")/../lib/tap.sh"
check=$src/tools/check-symbols
mkdir -p "$work/include/varve" "$work/build/src/volume" "$work/build/front/nbdkit" \
	"$work/build/front/rbd" "$work/front/rbd"
export VARVE_BUILD="$work/build"
echo 'int varve_a(void); int varve_b(int (*varve_fn)(int x));' >"$work/include/varve/varve.h"

library() { # path, functions
	lib_path=$1
	shift
	for fn; do
		echo "int $fn(void) { return 0; }"
	done | cc -shared -fPIC -w -o "$work/build/$lib_path" -x c - || exit 1
}

library src/volume/libvarve.so varve_a varve_b
library front/nbdkit/nbdkit-varve-plugin.so plugin_init
expect "exactly what is declared" "$check" "$work"
library src/volume/libvarve.so varve_a
refuse "a declared function is not exported" "$check" "$work"
library src/volume/libvarve.so varve_a varve_b varve_c
refuse "an exported function is not declared" "$check" "$work"
library src/volume/libvarve.so varve_a varve_b
library front/nbdkit/nbdkit-varve-plugin.so plugin_init varve_a
refuse "the plugin exports more" "$check" "$work"
library front/nbdkit/nbdkit-varve-plugin.so plugin_init
echo 'ABI int rbd_a(int (*rbd_fn)(int x)); ABI rados_t rados_a(void);' >"$work/front/rbd/abi.h"
printf '# a comment\nint rbd_b\n' >"$work/front/rbd/librbd.symbols"
printf 'void rados_b\n' >"$work/front/rbd/librados.symbols"
library front/rbd/librbd.so.1 rbd_a rbd_b
library front/rbd/librados.so.2 rados_a rados_b
library front/rbd/libvarve-rbd-preload.so rbd_a rbd_b rados_a rados_b
expect "librbd: declared functions and tables" "$check" "$work"
library front/rbd/librbd.so.1 rbd_a
refuse "librbd: a name of the table is not exported" "$check" "$work"
library front/rbd/librbd.so.1 rbd_a rbd_b varve_a
refuse "librbd: it shows what it carries" "$check" "$work"
finish
