# SPDX-License-Identifier: BSD-3-Clause
# shellcheck shell=bash
# Guests for integration tests: a Linux kernel of Debian's under qemu-system-x86_64 without KVM, and
# busybox as its only program (guest/init). Sourced after lib.sh.
#
#	guest_need            skips the test where something is missing
#	guest_start ARG...    boots; ARG is given to qemu, devices for the most part
#	guest SECONDS LINE    has the guest run a line of shell; output in $OUT, code returned
#	guest_kill            ends it at once, as a host that loses its power
#
# The kernel is taken from VARVE_GUEST_ROOT, which has boot/ and lib/modules/ as in a package; or
# from the machine, when one is installed whose files may be read; or a package is fetched by
# apt-get once, into the build directory, and unpacked there: nothing is installed, no boot menu
# changes.

GUEST_PID=
GUEST_FLAVOUR=linux-image-cloud-amd64

# guest_kernel_in ROOT: sets GUEST_KERNEL and GUEST_MODULES to the newest kernel there.
guest_kernel_in() {
	local kernel version
	while read -r kernel; do
		version=${kernel##*/vmlinuz-}
		if [ -r "$kernel" ] && [ -d "$1/lib/modules/$version/kernel" ]; then
			GUEST_KERNEL=$kernel
			GUEST_MODULES=$1/lib/modules/$version
			return 0
		fi
	done < <(find "$1/boot" -name 'vmlinuz-*-amd64' 2>/dev/null | sort -rV)
	return 1
}

# guest_fetch DIR: a kernel's package, unpacked, in DIR/root.
guest_fetch() {
	local package
	command -v apt-get >/dev/null || return 1
	package=$(apt-cache depends "$GUEST_FLAVOUR" 2>/dev/null |
		sed -n 's/^ *Depends: *\(linux-image-.*\)/\1/p' | head -1)
	[ -n "$package" ] || return 1
	rm -rf "$1"
	mkdir -p "$1" &&
		(cd "$1" && timeout 300 apt-get download -q "$package" &&
			dpkg-deb -x ./*.deb unpacked && rm ./*.deb && mv unpacked root)
}

guest_need() {
	local cache=$BUILD/guest-kernel
	need qemu-system-x86_64
	need busybox
	busybox --list | grep -qx depmod || skip_all "busybox is not the one of busybox-static"
	[ "$(uname -m)" = x86_64 ] || skip_all "the guest's kernel and busybox are for x86_64"
	if [ -n "${VARVE_GUEST_ROOT:-}" ]; then
		guest_kernel_in "$VARVE_GUEST_ROOT" ||
			skip_all "no boot/vmlinuz-* with its modules in $VARVE_GUEST_ROOT"
	else
		guest_kernel_in / || guest_kernel_in "$cache/root" || {
			guest_fetch "$cache" >"$T/fetch.log" 2>&1 && guest_kernel_in "$cache/root"
		} || skip_all "no kernel in /boot, and $GUEST_FLAVOUR cannot be fetched by apt-get"
	fi
	guest_initramfs || skip_all "the guest's initramfs cannot be made"
}

# busybox, init, and the drivers that a disk and its file system need.
guest_initramfs() {
	local root=$T/initramfs module
	local to=$root${GUEST_MODULES#"${GUEST_MODULES%/lib/modules/*}"}
	mkdir -p "$root"/{bin,dev,proc,sys,mnt,tmp} "$to" || return 1
	cp "$(command -v busybox)" "$root/bin/busybox" || return 1
	install -m 755 "$HERE/guest/init" "$root/init" || return 1
	cp "$GUEST_MODULES"/modules.{builtin,order} "$to" 2>/dev/null
	(cd "$GUEST_MODULES" &&
		find kernel/drivers/virtio kernel/drivers/block/virtio_blk.ko* kernel/fs/ext4 \
			kernel/fs/jbd2 kernel/fs/mbcache.ko* kernel/lib/crc*.ko* \
			kernel/crypto/crc32c*.ko* -type f 2>/dev/null) |
		while read -r module; do
			mkdir -p "$to/${module%/*}" && cp "$GUEST_MODULES/$module" "$to/$module"
		done
	busybox depmod -b "$root" "${GUEST_MODULES##*/}" || return 1
	(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) | gzip -1 >"$T/initramfs.gz"
}

guest_start() {
	rm -f "$T"/serial.*
	mkfifo "$T/serial.in" "$T/serial.out" || return 1
	# Both ends stay open here, so that neither side waits for the other to open its own.
	exec 8<>"$T/serial.in" 9<>"$T/serial.out"
	qemu-system-x86_64 -accel tcg -machine q35 -cpu max -m 256M -nodefaults -display none \
		-no-reboot -object memory-backend-memfd,id=mem,size=256M,share=on \
		-machine memory-backend=mem -kernel "$GUEST_KERNEL" -initrd "$T/initramfs.gz" \
		-append "console=ttyS0 loglevel=4 panic=-1 rdinit=/init" \
		-serial "file:$T/console.log" -chardev "pipe,id=serial,path=$T/serial" \
		-serial chardev:serial "$@" >"$T/guest.log" 2>&1 &
	GUEST_PID=$!
	guest_answer 120 && return 0
	OUT="the guest does not start: $(cat "$T/guest.log"; tail -5 "$T/console.log")"
	echo "$OUT"
	return 1
}

# guest_answer SECONDS: waits for the end of a line's output.
guest_answer() {
	local line end=$((SECONDS + $1))
	OUT=
	while [ $SECONDS -lt $end ]; do
		if IFS= read -r -t 1 line <&9; then
			line=${line%$'\r'}
			case $line in '@@ '*) return "${line#@@ }" ;; esac
			OUT=$OUT${OUT:+$'\n'}$line
		elif gone "$GUEST_PID"; then
			OUT="$OUT the guest has ended: $(cat "$T/guest.log")"
			return 125
		fi
	done
	OUT="$OUT no answer of the guest; its console: $(tail -5 "$T/console.log")"
	return 124
}

guest() {
	printf '%s\n' "$2" >&8
	guest_answer "$1"
}

guest_kill() {
	[ -n "$GUEST_PID" ] || return 0
	kill -9 "$GUEST_PID" 2>/dev/null
	wait "$GUEST_PID" 2>/dev/null
	GUEST_PID=
	exec 8>&- 9>&-
}
