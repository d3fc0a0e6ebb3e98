/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pmemblk_fill: fills a pool through a given libpmemblk, and checks what another one finds in it.
 *
 *   pmemblk_fill LIB POOL make BSIZE SIZE SEED   creates it; some blocks data, zero, or error,
 *                                                the rest never written
 *   pmemblk_fill LIB POOL check SEED BLOCKS      finds exactly that in the first BLOCKS
 *   pmemblk_fill LIB POOL run THREADS            writes stamped blocks until it is killed
 *   pmemblk_fill LIB POOL whole                  every block is one stamp, whole, or zeros
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#define THREADS_MAX 16

static void *(*pool_create)(const char *path, size_t bsize, size_t size, mode_t mode);
static void *(*pool_open)(const char *path, size_t bsize);
static void (*pool_close)(void *pool);
static size_t (*pool_bsize)(void *pool);
static size_t (*pool_nblock)(void *pool);
static int (*pool_read)(void *pool, void *buf, long long block);
static int (*pool_write)(void *pool, const void *buf, long long block);
static int (*pool_set_zero)(void *pool, long long block);
static int (*pool_set_error)(void *pool, long long block);
static const char *(*pool_errormsg)(void);

static void *pool;
static size_t bsize, nblock;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s (%s)\n", what, strerror(errno), pool_errormsg());
	exit(1);
}

static void *symbol(void *lib, const char *name)
{
	void *fn = dlsym(lib, name);

	if (!fn) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	return fn;
}

static void load(const char *path)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	*(void **)&pool_create = symbol(lib, "pmemblk_create");
	*(void **)&pool_open = symbol(lib, "pmemblk_open");
	*(void **)&pool_close = symbol(lib, "pmemblk_close");
	*(void **)&pool_bsize = symbol(lib, "pmemblk_bsize");
	*(void **)&pool_nblock = symbol(lib, "pmemblk_nblock");
	*(void **)&pool_read = symbol(lib, "pmemblk_read");
	*(void **)&pool_write = symbol(lib, "pmemblk_write");
	*(void **)&pool_set_zero = symbol(lib, "pmemblk_set_zero");
	*(void **)&pool_set_error = symbol(lib, "pmemblk_set_error");
	*(void **)&pool_errormsg = symbol(lib, "pmemblk_errormsg");
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

/* What a block holds follows from its number and a stamp, in every byte. */
static void pattern(uint8_t *buf, uint64_t block, uint64_t stamp)
{
	const uint64_t word = mix(block << 32 ^ stamp);

	for (size_t i = 0; i < bsize; i++)
		buf[i] = (uint8_t)(mix(word + i / 8) >> i % 8 * 8);
	if (bsize >= 16) {
		memcpy(buf, &stamp, 8);
		memcpy(buf + 8, &block, 8);
	}
}

enum kind { NEVER, DATA, ZERO, LOST };

/* Blocks at both ends and some between, so that large pools take no time. */
static bool chosen(uint64_t block)
{
	return block < 500 || block >= nblock - 500 || block % 97 == 0;
}

static enum kind kind_of(uint64_t block, uint64_t seed)
{
	const uint64_t r = mix(block ^ seed) % 12;

	return !chosen(block) ? NEVER : r < 4 ? DATA : r == 4 ? ZERO : r == 5 ? LOST : NEVER;
}

static void make(uint8_t *buf, uint64_t seed)
{
	for (uint64_t b = 0; b < nblock; b++) {
		const enum kind kind = kind_of(b, seed);

		/* Written twice, so that blocks have moved. */
		for (int i = 0; kind != NEVER && i < 2; i++) {
			pattern(buf, b, seed + (uint64_t)i);
			if (pool_write(pool, buf, (long long)b))
				die("write");
		}
		if ((kind == ZERO && pool_set_zero(pool, (long long)b)) ||
		    (kind == LOST && pool_set_error(pool, (long long)b)))
			die("mark");
	}
	/* For the checker, whose pool may have more blocks. */
	printf("%zu\n", nblock);
}

static void check(uint8_t *buf, uint8_t *want, uint64_t seed, size_t blocks)
{
	if (blocks > nblock) {
		fprintf(stderr, "%zu blocks of %zu\n", nblock, blocks);
		exit(1);
	}
	nblock = blocks;
	for (uint64_t b = 0; b < nblock; b++) {
		const enum kind kind = kind_of(b, seed);
		const int rc = pool_read(pool, buf, (long long)b);

		if (kind == LOST ? !rc || errno != EIO : rc)
			die("read");
		memset(want, 0, bsize);
		if (kind == DATA)
			pattern(want, b, seed + 1);
		if (kind != LOST && memcmp(buf, want, bsize)) {
			fprintf(stderr, "block %llu is not what was written\n",
				(unsigned long long)b);
			exit(1);
		}
	}
}

static void *runner(void *arg)
{
	uint64_t stamp = (uint64_t)(uintptr_t)arg << 48;
	uint8_t *buf = malloc(bsize);

	for (;;) {
		const uint64_t block = mix(++stamp) % 64;

		pattern(buf, block, stamp);
		if (pool_write(pool, buf, (long long)block))
			die("write");
	}
	return NULL;
}

static void run(unsigned int threads)
{
	pthread_t thread[THREADS_MAX];

	if (threads > THREADS_MAX)
		exit(2);
	printf("running\n");
	fflush(stdout);
	for (unsigned int i = 0; i < threads; i++)
		pthread_create(&thread[i], NULL, runner, (void *)(uintptr_t)(i + 1));
	for (unsigned int i = 0; i < threads; i++)
		pthread_join(thread[i], NULL);
}

static void whole(uint8_t *buf, uint8_t *want)
{
	unsigned int written = 0;

	for (uint64_t b = 0; b < 64; b++) {
		uint64_t stamp;

		if (pool_read(pool, buf, (long long)b))
			die("read");
		memset(want, 0, bsize);
		if (!memcmp(buf, want, bsize))
			continue;
		memcpy(&stamp, buf, sizeof(stamp));
		pattern(want, b, stamp);
		if (memcmp(buf, want, bsize)) {
			fprintf(stderr, "block %llu is a mixture\n", (unsigned long long)b);
			exit(1);
		}
		written++;
	}
	printf("%u blocks are whole\n", written);
}

int main(int argc, char **argv)
{
	const char *what = argc > 3 ? argv[3] : "";
	uint8_t *buf, *want;

	if (argc < 4) {
		fprintf(stderr, "usage: pmemblk_fill LIB POOL make|check|run|whole ...\n");
		return 2;
	}
	load(argv[1]);
	if (!strcmp(what, "make") && argc == 7)
		pool = pool_create(argv[2], strtoull(argv[4], NULL, 10),
				   strtoull(argv[5], NULL, 10), 0600);
	else
		pool = pool_open(argv[2], 0);
	if (!pool)
		die(argv[2]);
	bsize = pool_bsize(pool);
	nblock = pool_nblock(pool);
	buf = malloc(bsize);
	want = malloc(bsize);
	if (!buf || !want)
		return 2;
	if (!strcmp(what, "make"))
		make(buf, strtoull(argv[6], NULL, 10));
	else if (!strcmp(what, "check") && argc == 6)
		check(buf, want, strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
	else if (!strcmp(what, "run") && argc == 5)
		run((unsigned int)strtoul(argv[4], NULL, 10));
	else if (!strcmp(what, "whole"))
		whole(buf, want);
	else
		return 2;
	pool_close(pool);
	return 0;
}
