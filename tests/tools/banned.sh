#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-banned sees each thing that it bans, and is not misled by comments, strings and members.
. "$(dirname "$0")/../lib/tap.sh"
check=$src/tools/check-banned
mkdir -p "$work/src/base" "$work/tests/unit"

plant() { # file, text
	rm -f "$work"/*/*/*.c
	printf '/* SPDX-License-Identifier: BSD-3-Clause */\n%s\n' "$2" >"$work/$1"
}

right() {
	plant "${2-src/base/a.c}" "$1"
	expect "allowed: $1" "$check" "$work"
}

wrong() {
	plant "${2-src/base/a.c}" "$1"
	refuse "banned: $1" "$check" "$work"
}

wrong 'void f(void) { strcpy(a, b); }'
wrong 'void f(void) { sprintf (a, b); }'
wrong 'void f(void) { x = atoi(s); }' tests/unit/a.c
wrong 'volatile int x;'
wrong 'void f(void) { abort(); }'
wrong 'void f(void) { printf("x"); }'
wrong 'void f(void) { fprintf(stderr, "x"); }'
wrong 'void f(void) { assert(i++ < 3); }'
wrong 'void f(void) { assert((x = 3)); }'
wrong 'void f(void) { assert(list_push(&l) == 0); }'
wrong 'int x; // note'
wrong '#if 0'
wrong '/* TODO: later */'
right '/* strcpy() is not used, nor is volatile */'
right 'const char *s = "// strcpy(a, b) volatile";'
right 'void f(void) { ops->abort(x); snprintf(a, 1, "b"); }'
right 'void f(void) { __asm__ volatile("sfence"); }'
right 'void f(void) { assert(a == b && c <= d && e != f && g >= h); }'
right 'void f(void) { printf("x"); exit(1); }' tests/unit/a.c
rm -f "$work"/*/*/*.c
echo 'int x;' >"$work/src/base/a.c"
refuse "banned: no SPDX line" "$check" "$work"
finish
