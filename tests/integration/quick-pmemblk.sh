#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# libpmemblk.so.1 in place of PMDK's: the same answers, its pools taken over, a killed writer.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/pmemblk-lib.sh"
pmemblk_setup

if [ -n "$THEIRS" ]; then
	case_ok "the same calls, the same answers" pair "$SEED" 2500
	case_ok "a pool of PMDK's is taken over" convert 512 17000000 "$SEED"
	fails "... and refused by name" 1 "varve import" "$T/pmemblk_fill" "$OURS" "$T/old" whole
	fails "a pool is not made twice" 1 "exists" "$V" import "$T/old" "$T/new"
	fails "a pool of ours is none of PMDK's" 1 "libpmemblk" "$V" import "$T/new" "$T/new2"
else
	skip "the same calls, the same answers" "PMDK's libpmemblk1 is not installed"
fi
rm -f "$T/old" "$T/new"
case_ok "memory comes from the functions that were set" calls funcs
case_ok "each thread has its own message" calls messages
case_ok "a child may close a pool, and nothing else" calls fork
case_ok "damage is told in words" calls damage
is "settings of the environment" \
	"$(PMEMBLK_CONF='prefault.at_open=1;fallocate.at_create=n' calls sizes)" "1 0"
printf 'prefault.at_open = y; # each page\n' >"$T/settings"
is "settings of a file" "$(PMEMBLK_CONF_FILE=$T/settings calls sizes)" "1 1"
fails "a setting that does not exist" 1 "PMEMBLK_CONF" env PMEMBLK_CONF=no.such=1 \
	"$T/pmemblk_calls" "$OURS" "$T/none" sizes
fails "a value that is none" 1 "PMEMBLK_CONF" env PMEMBLK_CONF=prefault.at_open=maybe \
	"$T/pmemblk_calls" "$OURS" "$T/none" sizes
case_ok "a pool" "$T/pmemblk_fill" "$OURS" "$T/pool" make 4000 17000000 "$SEED"
die_writing "$OURS" "$T/pool" 3 0.3
case_ok "after a kill every block is whole" "$T/pmemblk_fill" "$OURS" "$T/pool" whole
finish
