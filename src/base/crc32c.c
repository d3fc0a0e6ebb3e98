/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CRC-32C by ISA-L, and a copy that yields the checksum.
 *
 * ISA-L's function takes and returns the bare shift register, so the usual inversion before and
 * after is made here; chaining then works, as the inversions of two neighbours cancel.
 *
 * The copy is the hot path of every write.  Copying first and then reading the destination again
 * waits for each cache line that the copy had to fetch; reading the source twice is fast but
 * breaks the contract when the source changes in between.  So each register is loaded from the
 * source once, stored, and folded into the checksum, with the carry-less multiplication of four
 * lanes that x86-64 servers have since 2019 (V. Gopal et al., "Fast CRC computation for generic
 * polynomials using PCLMULQDQ", 2009).  Other machines copy and then read, in chunks that stay in
 * the first-level cache.  Non-temporal stores were slower, and the log reads its bytes again.
 *
 * Folding: a register that is followed by D more bits of the message counts as register * x^D in
 * the polynomial ring.  With two constants it is reduced to 128 bits that are congruent to that
 * and are added to the register D bits further on; the order of bits is reflected throughout.
 * What is left in the end, 64 bytes, is congruent to the whole message and goes through the
 * machine's own CRC instruction.
 *
 *	fold constant, low half:  reflect(x^(D + 32) mod P) << 1
 *	               high half: reflect(x^(D - 32) mod P) << 1	P = 0x11EDC6F41
 *
 * Invariants:
 * 1. The bytes summed are the very register contents that are stored.
 * 2. All ways give the same result for all lengths; the test compares them with crc32c.
 */
#include "base/crc32c.h"

#include <isa-l/crc.h>
#include <stdatomic.h>
#include <string.h>

enum {
	CRC_STEP_MAX = 1 << 30, /* ISA-L counts in int */
	COPY_CHUNK = 4096,
	LINE = 64,
	WIDE_LEN = 256,
	WIDE_AHEAD = 1024,
};

/*
 * Stores wait for their cache lines, and what waits blocks the loads behind it.  Asking for the
 * lines early makes a copy into cold memory as fast as memcpy.  Callers run over the end of the
 * destination on purpose: a log's next write goes there.
 */
static inline void expect_stores(const char *dst, size_t len)
{
	for (size_t i = 0; i < len; i += LINE)
		__builtin_prefetch(dst + i, 1);
}

static uint32_t crc_register(uint32_t reg, const void *buf, size_t len)
{
	/* ISA-L's buffer is not const for historical reasons; it only reads. */
	union {
		const void *in;
		unsigned char *out;
	} p = {.in = buf};

	while (len > 0) {
		size_t n = len < CRC_STEP_MAX ? len : CRC_STEP_MAX;

		reg = crc32_iscsi(p.out, (int)n, reg);
		p.out += n;
		len -= n;
	}
	return reg;
}

static uint32_t copy_then_read(uint32_t reg, char *dst, const char *src, size_t len)
{
	while (len > 0) {
		size_t n = len < COPY_CHUNK ? len : COPY_CHUNK;

		expect_stores(dst + n, n);
		memcpy(dst, src, n);
		reg = crc_register(reg, dst, n);
		dst += n;
		src += n;
		len -= n;
	}
	return reg;
}

#ifdef __x86_64__

#include <immintrin.h>

#define FOLD_512_LO 0x740eef02
#define FOLD_512_HI 0x9e4addf8
#define FOLD_2048_LO 0xdcb17aa4
#define FOLD_2048_HI 0xb9e02b86

#define TARGET_WIDE __attribute__((target("sse4.2,pclmul,avx512f,vpclmulqdq")))

TARGET_WIDE static uint32_t crc_residue(const uint64_t residue[LINE / 8])
{
	uint64_t reg = 0;

	for (int i = 0; i < LINE / 8; i++)
		reg = _mm_crc32_u64(reg, residue[i]);
	return (uint32_t)reg;
}

TARGET_WIDE static inline __m512i wide_move(char *dst, const char *src)
{
	__m512i in = _mm512_loadu_si512(src);

	_mm512_storeu_si512(dst, in);
	return in;
}

TARGET_WIDE static inline __m512i wide_fold(__m512i acc, __m512i k, __m512i in)
{
	__m512i lo = _mm512_clmulepi64_epi128(acc, k, 0x00);
	__m512i hi = _mm512_clmulepi64_epi128(acc, k, 0x11);

	return _mm512_ternarylogic_epi64(lo, hi, in, 0x96); /* the sum of the three */
}

/* @len is a multiple of LINE, at least WIDE_LEN. */
TARGET_WIDE static uint32_t wide_copy(uint32_t reg, char *dst, const char *src, size_t len)
{
	const __m512i k = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_512_HI, FOLD_512_LO));
	const __m512i far = _mm512_broadcast_i32x4(_mm_set_epi64x(FOLD_2048_HI, FOLD_2048_LO));
	_Alignas(64) uint64_t residue[LINE / 8];
	__m512i a = wide_move(dst, src);
	__m512i b = wide_move(dst + 64, src + 64);
	__m512i c = wide_move(dst + 128, src + 128);
	__m512i d = wide_move(dst + 192, src + 192);
	size_t at;

	a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)reg)));
	for (at = WIDE_LEN; at + WIDE_LEN <= len; at += WIDE_LEN) {
		expect_stores(dst + at + WIDE_AHEAD, WIDE_LEN);
		a = wide_fold(a, far, wide_move(dst + at, src + at));
		b = wide_fold(b, far, wide_move(dst + at + 64, src + at + 64));
		c = wide_fold(c, far, wide_move(dst + at + 128, src + at + 128));
		d = wide_fold(d, far, wide_move(dst + at + 192, src + at + 192));
	}
	d = wide_fold(wide_fold(wide_fold(a, k, b), k, c), k, d);
	for (; at < len; at += LINE)
		d = wide_fold(d, k, wide_move(dst + at, src + at));
	_mm512_store_si512(residue, d);
	return crc_residue(residue);
}

enum copy_way {
	WAY_UNKNOWN,
	WAY_PLAIN,
	WAY_WIDE
};

static enum copy_way copy_way(void)
{
	static _Atomic int way; /* relaxed: every thread finds the same answer */
	int w = atomic_load_explicit(&way, memory_order_relaxed);

	if (w == WAY_UNKNOWN) {
		w = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("avx512f") &&
				    __builtin_cpu_supports("vpclmulqdq")
			    ? WAY_WIDE
			    : WAY_PLAIN;
		atomic_store_explicit(&way, w, memory_order_relaxed);
	}
	return (enum copy_way)w;
}

/* Copies the bulk, a multiple of LINE bytes, and returns how many; 0 where it cannot. */
static size_t copy_wide(uint32_t *reg, char *dst, const char *src, size_t len)
{
	size_t n = len - len % LINE;

	if (n < WIDE_LEN || copy_way() != WAY_WIDE)
		return 0;
	*reg = wide_copy(*reg, dst, src, n);
	return n;
}

#else

static size_t copy_wide(uint32_t *reg, char *dst, const char *src, size_t len)
{
	(void)reg;
	(void)dst;
	(void)src;
	(void)len;
	return 0;
}

#endif

uint32_t crc32c(uint32_t seed, const void *buf, size_t len)
{
	return ~crc_register(~seed, buf, len);
}

uint32_t crc32c_copy(void *dst, const void *src, size_t len)
{
	uint32_t reg = UINT32_MAX;
	size_t done = copy_wide(&reg, dst, src, len);

	return ~copy_then_read(reg, (char *)dst + done, (const char *)src + done, len - done);
}
