#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-layers sees each kind of wrong #include.
. "$(dirname "$0")/../lib/tap.sh"
check=$src/tools/check-layers

plant() { # file, include
	rm -rf "$work/tree"
	mkdir -p "$work/tree/$(dirname "$1")"
	printf '/* SPDX */\n#include %s\n' "$2" >"$work/tree/$1"
}

right() {
	plant "$1" "$2"
	expect "$1 may include $2" "$check" "$work/tree"
}

wrong() {
	plant "$1" "$2"
	refuse "$1 must not include $2" "$check" "$work/tree"
}

right src/wlog/a.c '"dev/dev.h"'
right src/lsvd/a.c '"wlog/wlog.h"'
right src/volume/a.c '<varve/varve.h>'
right src/dev/a.c '"runtime/loop.h"'
right front/cli/a.c '<varve/varve.h>'
right src/base/a.c '<stdio.h>'
wrong src/base/a.c '"dev/dev.h"'
wrong src/dev/a.c '"store/store.h"'
wrong src/wlog/a.c '"runtime/loop.h"'
wrong src/lsvd/a.h '"volume/volume.h"'
wrong src/wlog/a.c '<varve/varve.h>'
wrong src/wlog/a.c '"a.h"'
wrong src/wlog/a.c '<base/endian.h>'
wrong src/other/a.c '<stdio.h>'
wrong front/cli/a.c '"base/endian.h"'
wrong front/cli/a.c '<base/endian.h>'
wrong include/varve/a.h '"base/endian.h"'
finish
