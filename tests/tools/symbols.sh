#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-symbols sees what is missing and what is too much.
. "$(dirname "$0")/../lib/tap.sh"
check=$src/tools/check-symbols
mkdir -p "$work/include/varve" "$work/build/src/volume" "$work/build/front/nbdkit"
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
finish
