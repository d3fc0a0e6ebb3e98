/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CRC-32C (Castagnoli, as in iSCSI and ext4), by ISA-L.
 *
 * A seed of 0 starts a checksum, and a result is the seed of what follows:
 *	crc32c(crc32c(0, a, alen), b, blen) == crc32c(0, ab, alen + blen)
 *	crc32c(0, "123456789", 9) == 0xE3069283
 * Safe on any thread.
 */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t seed, const void *buf, size_t len);

/*
 * Copies @len bytes and returns the CRC-32C (seed 0) of the bytes that arrived in @dst: a caller
 * that changes @src meanwhile gets a copy and a checksum that agree.  The buffers must not overlap.
 */
uint32_t crc32c_copy(void *dst, const void *src, size_t len);

#endif
