#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The manual: every option of every command's --help is in its page, and mandoc has no complaint.
. "$(dirname "$0")/lib.sh"
setup

man=$SRC/docs/man

# The commands as "varve help" lists them; those of a group share a page.
commands() {
	"$V" help | sed -n '/^Commands:/,/^$/p' | sed -nE 's/^  ([a-z]+( [a-z]+)?)  .*/\1/p' |
		grep -Ev '^(version|help)$'
}

undocumented() {
	local page=$man/varve-${1%% *}.1 option
	[ -f "$page" ] || {
		echo "no page $page"
		return
	}
	# shellcheck disable=SC2086 # "cache create" is two words
	"$V" $1 --help | grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+( [A-Z]+)?' |
		sed 's/^ *//; s/^-[a-zA-Z], //' | while read -r option _; do
		grep -qE -- "Fl (. , Fl )?\\\\-${option#--}( |$)" "$page" || echo "$option"
	done
}

n=0
while read -r command; do
	n=$((n + 1))
	missing=$(undocumented "$command")
	is "varve $command: every option is in the manual" "$missing" ""
	like "varve.1 names ${command%% *}" "$(cat "$man/varve.1")" "Xr varve-${command%% *} 1"
done < <(commands)
[ $n -ge 14 ] && pass "$n commands were looked at" || fail "only $n commands were looked at"

if command -v mandoc >/dev/null; then
	for page in "$man"/*.[1-9]; do
		is "mandoc on ${page##*/}" "$(mandoc -Tlint -Wwarning "$page" 2>&1)" ""
	done
else
	skip "mandoc" "mandoc is not installed"
fi
finish
