/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC-32C: known answers, chaining, and the copy that sums. */
#include "base/crc32c.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "lib/tap.h"

/* One bit at a time, as the polynomial is defined. */
static uint32_t crc32c_slow(uint32_t seed, const uint8_t *p, size_t len)
{
	uint32_t reg = ~seed;

	for (size_t i = 0; i < len; i++) {
		reg ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			reg = reg & 1 ? reg >> 1 ^ 0x82f63b78 : reg >> 1;
	}
	return ~reg;
}

/* RFC 3720, appendix B.4. */
TEST(known_answers)
{
	uint8_t buf[32];

	CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283);
	CHECK_EQ(crc32c(0, "", 0), 0);
	CHECK_EQ(crc32c(7, "", 0), 7);
	memset(buf, 0, sizeof(buf));
	CHECK_EQ(crc32c(0, buf, sizeof(buf)), 0x8a9136aa);
	memset(buf, 0xff, sizeof(buf));
	CHECK_EQ(crc32c(0, buf, sizeof(buf)), 0x62a8ab43);
	for (uint8_t i = 0; i < 32; i++)
		buf[i] = i;
	CHECK_EQ(crc32c(0, buf, sizeof(buf)), 0x46dd794e);
}

TEST(chains)
{
	uint8_t buf[1000];
	struct rng r;

	rng_seed(&r, test_seed());
	rng_fill(&r, buf, sizeof(buf));
	for (int i = 0; i < 1000; i++) {
		size_t len = rng_below(&r, sizeof(buf) + 1), cut = rng_below(&r, len + 1);
		uint32_t whole = crc32c(0, buf, len);

		CHECK_EQ(crc32c(crc32c(0, buf, cut), buf + cut, len - cut), whole);
		CHECK_EQ(crc32c_slow(0, buf, len), whole);
	}
}

/* Every length up to past two chunks, at changing alignments. */
TEST(copies_and_sums)
{
	enum {
		MAX = 9000,
		PAD = 64
	};
	uint8_t *src = malloc(MAX + PAD), *dst = malloc(MAX + PAD);
	struct rng r;

	rng_seed(&r, test_seed());
	rng_fill(&r, src, MAX + PAD);
	for (size_t len = 0; len <= MAX; len += len < 2100 ? 1 : 61) {
		uint8_t *from = src + rng_below(&r, PAD), *to = dst + 1 + rng_below(&r, PAD - 1);
		uint8_t before = to[-1], behind = to[len];

		memset(to, 0x5a, len);
		CHECK_EQ(crc32c_copy(to, from, len), crc32c(0, from, len));
		CHECK_MEMEQ(to, from, len);
		CHECK_EQ(to[-1], before);
		if (len < MAX)
			CHECK_EQ(to[len], behind);
	}
	free(src);
	free(dst);
}

struct race {
	uint64_t src[512];
	atomic_bool stop;
};

static void *scribble(void *arg)
{
	struct race *race = arg;

	for (uint64_t v = 1; !atomic_load(&race->stop); v++)
		__atomic_store_n(&race->src[v * 7 % 512], v, __ATOMIC_RELAXED);
	return NULL;
}

/* A guest may change its buffer during the copy: sum and copy agree all the same. */
TEST(source_may_change)
{
	static struct race race;
	uint64_t dst[512];
	pthread_t thread;

#if defined(__SANITIZE_THREAD__)
	SKIP("a race on purpose");
#endif
	CHECK_OK(pthread_create(&thread, NULL, scribble, &race));
	for (int i = 0; i < 20000; i++) {
		uint32_t sum = crc32c_copy(dst, race.src, sizeof(dst));

		CHECK_EQ(sum, crc32c(0, dst, sizeof(dst)));
	}
	atomic_store(&race.stop, true);
	CHECK_OK(pthread_join(thread, NULL));
}
