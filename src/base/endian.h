/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Little-endian fields of media structures.
 *
 * The types are byte arrays: they have no alignment, no padding, and cannot be read or written
 * by accident as host integers.  The accessors compile to one load or store each.
 *
 *	struct header { le32 magic; le48 lba; le16 flags; };
 *	uint32_t magic = le32_get(h->magic);
 *	h->lba = le48_make(lba);
 */
#ifndef BASE_ENDIAN_H
#define BASE_ENDIAN_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	uint8_t b[2];
} le16;
typedef struct {
	uint8_t b[4];
} le32;
typedef struct {
	uint8_t b[6];
} le48;
typedef struct {
	uint8_t b[8];
} le64;

static_assert(sizeof(le16) == 2 && sizeof(le32) == 4 && sizeof(le48) == 6 && sizeof(le64) == 8,
	      "media types have no padding");
static_assert(_Alignof(le64) == 1, "media types have no alignment");

#define LE48_MAX ((UINT64_C(1) << 48) - 1)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
static inline uint16_t endian_swap16(uint16_t v)
{
	return v;
}
static inline uint32_t endian_swap32(uint32_t v)
{
	return v;
}
static inline uint64_t endian_swap64(uint64_t v)
{
	return v;
}
#else
static inline uint16_t endian_swap16(uint16_t v)
{
	return __builtin_bswap16(v);
}
static inline uint32_t endian_swap32(uint32_t v)
{
	return __builtin_bswap32(v);
}
static inline uint64_t endian_swap64(uint64_t v)
{
	return __builtin_bswap64(v);
}
#endif

static inline uint16_t le16_get(le16 f)
{
	uint16_t v;

	memcpy(&v, f.b, sizeof(v));
	return endian_swap16(v);
}

static inline le16 le16_make(uint16_t v)
{
	le16 f;

	v = endian_swap16(v);
	memcpy(f.b, &v, sizeof(v));
	return f;
}

static inline uint32_t le32_get(le32 f)
{
	uint32_t v;

	memcpy(&v, f.b, sizeof(v));
	return endian_swap32(v);
}

static inline le32 le32_make(uint32_t v)
{
	le32 f;

	v = endian_swap32(v);
	memcpy(f.b, &v, sizeof(v));
	return f;
}

static inline uint64_t le64_get(le64 f)
{
	uint64_t v;

	memcpy(&v, f.b, sizeof(v));
	return endian_swap64(v);
}

static inline le64 le64_make(uint64_t v)
{
	le64 f;

	v = endian_swap64(v);
	memcpy(f.b, &v, sizeof(v));
	return f;
}

static inline uint64_t le48_get(le48 f)
{
	uint64_t v = 0;

	memcpy(&v, f.b, sizeof(f.b));
	return endian_swap64(v);
}

/* @v must not exceed LE48_MAX: what cannot be stored is a bug of the caller. */
static inline le48 le48_make(uint64_t v)
{
	le48 f;

	assert(v <= LE48_MAX);
	v = endian_swap64(v);
	memcpy(f.b, &v, sizeof(f.b));
	return f;
}

#endif
