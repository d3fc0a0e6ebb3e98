/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A seeded, deterministic random number generator (xoshiro256**, by Blackman and Vigna, seeded
 * by splitmix64).  The same seed gives the same numbers on every machine, for ever: a printed
 * seed reproduces a failure.  Not for secrets.  One generator belongs to one thread.
 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
	uint64_t s[4];
};

static inline void rng_seed(struct rng *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));

		z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
		r->s[i] = z ^ (z >> 31);
	}
}

static inline uint64_t rng_rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

/* The next 64 random bits. */
static inline uint64_t rng_next(struct rng *r)
{
	uint64_t *s = r->s;
	uint64_t ret = rng_rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rng_rotl(s[3], 45);
	return ret;
}

/*
 * A number in [0, n), each equally likely; n > 0.  Draws below 2^64 mod n are thrown away, which
 * leaves a multiple of n: the remainder is then unbiased.
 */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
	uint64_t x;

	assert(n > 0);
	if ((n & (n - 1)) == 0)
		return rng_next(r) & (n - 1);
	do {
		x = rng_next(r);
	} while (x < -n % n);
	return x % n;
}

/* A number in [lo, hi], both included. */
static inline uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi)
{
	assert(lo <= hi);
	return hi - lo == UINT64_MAX ? rng_next(r) : lo + rng_below(r, hi - lo + 1);
}

/* True in @num of @den cases. */
static inline bool rng_chance(struct rng *r, uint64_t num, uint64_t den)
{
	return rng_below(r, den) < num;
}

static inline void rng_fill(struct rng *r, void *buf, size_t len)
{
	uint8_t *p = buf;

	while (len > 0) {
		uint64_t v = rng_next(r);
		size_t n = len < sizeof(v) ? len : sizeof(v);

		memcpy(p, &v, n);
		p += n;
		len -= n;
	}
}

#endif
