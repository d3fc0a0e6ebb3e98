# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for the benchmarks that source this
# What the benchmarks share that run other programs. A benchmark sources this and calls bench_start
# NAME; then $dir is an empty directory for its files, removed in the end, and $build the build.
#
#	VARVE_BUILD        the build directory
#	VARVE_BENCH_DIR    where files are made (16 GiB); default: TMPDIR, else /var/tmp
#
# Ours and the peer's rates go to $dir/ours and $dir/theirs, turn about, $ROUNDS of each.

set -eu
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=${VARVE_BUILD:-$here/build}
plugin=$build/front/nbdkit/nbdkit-varve-plugin.so
ROUNDS=5
SECONDS_EACH=3
# The published prototype on one NVMe SSD: thousands of 4K random writes a second.
PROTOTYPE_QD1=2.4
PROTOTYPE_QD32=21.5
server=

bench_start()
{
	bench=$1
	dir=$(mktemp -d "${VARVE_BENCH_DIR:-${TMPDIR:-/var/tmp}}/bench-$bench.XXXXXX")
	trap cleanup EXIT
	trap 'exit 1' INT TERM HUP
}

cleanup()
{
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
}

# serve SOCKET COMMAND...: starts a server and waits until it listens; its pid is in $server.
serve()
{
	local socket=$1 i
	shift
	rm -f "$socket"
	"$@" 2>>"$dir/server.log" &
	server=$!
	for ((i = 0; i < 600; i++)); do
		[ -S "$socket" ] && return
		kill -0 "$server" 2>/dev/null || break
		sleep 0.1
	done
	cat "$dir/server.log" >&2
	exit 1
}

stop()
{
	kill "$server"
	wait "$server" || true
	server=
}

# Nobody wants its data: no time is spent on writing it home.
stop_at_once()
{
	kill -9 "$server"
	wait "$server" 2>/dev/null || true
	server=
}

# User and system time of a process, in clock ticks.
ticks()
{
	awk '{ print $14 + $15 }' "/proc/$1/stat"
}

# cpu_each TICKS RATE: microseconds for each of so many thousand a second.
cpu_each()
{
	awk -v t="$1" -v k="$2" -v s="$SECONDS_EACH" -v hz="$(getconf CLK_TCK)" \
		'BEGIN { printf "%.1f", t / hz * 1e6 / (k * 1000 * s) }'
}

# random write|read DEPTH FIO-OPTION...: thousands of 4K random requests a second.
random()
{
	# Of the terse form: the write and the read IOPS.
	local field=49 rw=$1 depth=$2
	[ "$rw" = write ] || field=8
	shift 2
	fio --name=n --rw="rand$rw" --bs=4k --iodepth="$depth" --norandommap --time_based \
		--runtime="$SECONDS_EACH" --output-format=terse --terse-version=3 "$@" \
		2>>"$dir/fio.log" |
		awk -F';' -v f="$field" 'NF > 50 { printf "%.3f\n", $f / 1000; ok = 1 }
			END { exit !ok }' || {
		cat "$dir/fio.log" >&2
		return 1
	}
}

# write_nbd SOCKET DEPTH SIZE: over NBD.
write_nbd()
{
	random write "$2" --ioengine=nbd --uri="nbd+unix:///?socket=$1" --size="$3"
}

# written FILE SIZE: a file whose blocks have all been written, so that none is allocated later.
written()
{
	fio --name=w --filename="$1" --rw=write --bs=1m --size="$2" --direct=1 --end_fsync=1 \
		--ioengine=io_uring --iodepth=8 >"$dir/fio.log" 2>&1
}

has_fio_engine()
{
	fio --enghelp 2>/dev/null | grep -qw "$1"
}

rates()
{
	: >"$dir/ours"
	: >"$dir/theirs"
}

median()
{
	sort -g "$dir/$1" | sed -n "$((ROUNDS / 2 + 1))p"
}

# row WORKLOAD OURS UNIT PEER THEIRS GOAL, tab-separated:
#	bench  workload  ours  unit  peer  theirs  ratio  goal
# A ratio over 1 means ours is better.
row()
{
	awk -v n="$bench" -v w="$1" -v a="$2" -v u="$3" -v p="$4" -v b="$5" -v g="$6" 'BEGIN {
		printf "%s\t%s\t%.4g\t%s\t%s\t%.4g\t%.2f\t%s\n", n, w, a, u, p, b, a / b, g }'
}

# row_of_medians WORKLOAD UNIT PEER GOAL; the spread, without which a row could be luck, on stderr.
row_of_medians()
{
	row "$1" "$(median ours)" "$2" "$3" "$(median theirs)" "$4"
	echo "# $1: ours $(sort -g "$dir/ours" | tr '\n' ' ')theirs $(sort -g "$dir/theirs" |
		tr '\n' ' ')$2" >&2
}
