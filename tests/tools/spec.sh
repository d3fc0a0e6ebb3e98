#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# check-spec sees each way in which a specification and its struct can differ.
. "$(dirname "$0")/../lib/tap.sh"
check=$src/tools/check-spec
mkdir -p "$work/src/x" "$work/docs"
cat >"$work/src/x/x_layout.h" <<'END'
#include <stdint.h>
struct x_sb {
	uint8_t magic[8]; /* with a comment; and a semicolon */
	uint8_t count[4], flags[4];
	uint8_t tail[];
};
END

row() {
	printf '| %s | %s | `%s` | meaning |\n' "$@"
}

spec() { # rows on stdin
	{
		printf '# X\n\n### struct x_sb\n\n| offset | size | name | meaning |\n'
		echo '|---|---|---|---|'
		cat
		printf '\n### Other\n\n'
		row 99 99 elsewhere
	} >"$work/docs/SPEC-x.md"
}

{ row 0 8 magic; row 8 4 count; row 0xc 4 flags; row 16 ... tail; } | spec
expect "the same bytes" "$check" "$work"
{ row 0 8 magic; row 8 4 flags; row 12 4 count; row 16 ... tail; } | spec
refuse "fields in another order" "$check" "$work"
{ row 0 8 magic; row 8 8 count; row 16 ... tail; } | spec
refuse "a field is not specified" "$check" "$work"
{ row 0 8 magic; row 8 4 count; row 12 2 flags; row 14 2 more; row 16 ... tail; } | spec
refuse "a specified field is not in the struct" "$check" "$work"
{ row 0 8 magic; row 8 4 count; row 12 4 flags; row 16 4 tail; } | spec
refuse "another size" "$check" "$work"
{ row 0 4 magic; row 8 4 count; row 12 4 flags; row 16 ... tail; } | spec
refuse "a gap" "$check" "$work"
spec </dev/null
refuse "no table" "$check" "$work"
rm "$work/docs/SPEC-x.md"
refuse "no specification" "$check" "$work"
finish
