/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bitmaps over arrays of 64-bit words that the caller owns.
 *
 * A bitmap of n bits takes BITMAP_WORDS(n) words.  Bits at or beyond n may hold anything: every
 * function that takes the size ignores them.  Not thread safe.
 */
#ifndef BASE_BITMAP_H
#define BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#define BITMAP_WORDS(nbits) (((uint64_t)(nbits) + 63) / 64)

static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
	return map[bit / 64] >> (bit % 64) & 1;
}

static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
	map[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
	map[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

/* The bits of word @word that lie in [from, to), from < to, given that some do. */
static inline uint64_t bitmap_mask(uint64_t word, uint64_t from, uint64_t to)
{
	uint64_t lo = word == from / 64 ? UINT64_MAX << (from % 64) : UINT64_MAX;
	uint64_t hi = word == (to - 1) / 64 ? UINT64_MAX >> (63 - (to - 1) % 64) : UINT64_MAX;

	return lo & hi;
}

static inline void bitmap_set_range(uint64_t *map, uint64_t from, uint64_t to)
{
	for (uint64_t w = from / 64; from < to && w <= (to - 1) / 64; w++)
		map[w] |= bitmap_mask(w, from, to);
}

static inline void bitmap_clear_range(uint64_t *map, uint64_t from, uint64_t to)
{
	for (uint64_t w = from / 64; from < to && w <= (to - 1) / 64; w++)
		map[w] &= ~bitmap_mask(w, from, to);
}

/* How many bits of [from, to) are set. */
static inline uint64_t bitmap_weight(const uint64_t *map, uint64_t from, uint64_t to)
{
	uint64_t n = 0;

	for (uint64_t w = from / 64; from < to && w <= (to - 1) / 64; w++)
		n += (uint64_t)__builtin_popcountll(map[w] & bitmap_mask(w, from, to));
	return n;
}

static inline uint64_t bitmap_find(const uint64_t *map, uint64_t from, uint64_t size,
				   uint64_t invert)
{
	for (uint64_t w = from / 64; from < size && w <= (size - 1) / 64; w++) {
		uint64_t bits = (map[w] ^ invert) & bitmap_mask(w, from, size);

		if (bits)
			return w * 64 + (uint64_t)__builtin_ctzll(bits);
	}
	return size;
}

/* The first set bit in [from, size), or @size. */
static inline uint64_t bitmap_next_set(const uint64_t *map, uint64_t from, uint64_t size)
{
	return bitmap_find(map, from, size, 0);
}

/* The first clear bit in [from, size), or @size. */
static inline uint64_t bitmap_next_clear(const uint64_t *map, uint64_t from, uint64_t size)
{
	return bitmap_find(map, from, size, UINT64_MAX);
}

#endif
