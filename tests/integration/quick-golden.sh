#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Volumes that released versions left on media (tests/compat, made by tools/make-golden) check clean
# and hold the same image, now and after they have been written to and closed.
. "$(dirname "$0")/lib.sh"
setup
need nbdcopy qemu-io tar xz

sum_of() {
	timeout 60 nbdcopy "$(uri "$1")" "$T/image" && sha256sum <"$T/image" | cut -d' ' -f1
}

n=0
for archive in "$SRC"/tests/compat/*.tar.xz; do
	[ -e "$archive" ] || skip_all "there are no golden images"
	n=$((n + 1))
	what=$(basename "$archive" .tar.xz)
	dir=$T/golden$n
	mkdir "$dir"
	must "$what: unpack" tar -C "$dir" -xJf "$archive"
	cat >"$T/conf/g$n.conf" <<-END
	[volume]
	type = lsvd
	store = dir:$dir/store-v/vol
	cache = $dir/cache
	END
	case_ok "$what: check" "$V" check "g$n"
	must "$what: serve" "$V" serve "g$n" --timeout 20
	is "$what: image" "$(sum_of "g$n")" "$(cat "$dir/sha256")"
	case_ok "$what: write" qio "g$n" "write -P 9 4M 8k" flush
	case_ok "$what: close" "$V" serve --stop "g$n"
	must "$what: serve again" "$V" serve "g$n" --timeout 20
	case_ok "$what: what was written" qio "g$n" "read -P 9 4M 8k"
	case_ok "$what: close again" "$V" serve --stop "g$n"
	case_ok "$what: check again" "$V" check "g$n"
done
finish
