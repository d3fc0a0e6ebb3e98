#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-length sees a wide line, a long function, a long file, and lets their limits pass.
. "$(dirname "$0")/../lib/tap.sh"
check=$src/tools/check-length
mkdir -p "$work/src/base"
file=$work/src/base/a.c

repeat() { # line, times
	yes "$1" | head -n "$2"
}

body() { # statements: a function of two lines more
	echo 'int f(void)'
	echo '{'
	repeat '	g();' "$1"
	echo '}'
}

repeat x 600 >"$file"
expect "600 lines" "$check" "$work"
repeat x 601 >"$file"
refuse "601 lines" "$check" "$work"
body 68 >"$file"
expect "a function of 70 lines" "$check" "$work"
body 69 >"$file"
refuse "a function of 71 lines" "$check" "$work"
printf '\t%092d\n' 0 >"$file"
expect "100 columns" "$check" "$work"
printf '\t%093d\n' 0 >"$file"
refuse "101 columns" "$check" "$work"
finish
