/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small writes to a volume, in process: what a write costs that only has to be remembered, and what
 * one costs that has to be durable.
 *
 *	memory   one thread, 4 KiB at random in 4 GiB, no flush, nothing destaged; the peer copies
 *	         the same blocks into a ring as large as the log's buffers and takes their CRC-32C.
 *	         The log writes to its device meanwhile, and that is in ours, not in the peer's.
 *	flush    each write followed by a flush, by one thread and by 32 together; the peer is one
 *	         thread that writes 8 KiB, one after the other, with O_DIRECT, and calls fdatasync:
 *	         what the log has to do at the least.
 *
 * bench_volume DIR: files are made there. stdout: one row for each; stderr: notes.
 */
#include <pthread.h>

#include "base/crc32c.h"
#include "bench_stream.h"

#define GIB (UINT64_C(1) << 30)
#define SPACE (4 * GIB)
#define BURST_BLOCKS 100000 /* 400 MB: fits in the buffers, so that no device is waited for */
#define SLICES 20	    /* of a burst: turn about with the peer, to share what else runs */
#define SOURCE_BLOCKS 1024
#define RING_BYTES GIB
#define FLUSH_NS UINT64_C(1000000000) /* a round of synchronous writes */
#define CALLERS 32

static const char *dir;
static uint8_t *source;

static struct varve_volume *open_volume(const char *cache, const char *const *settings)
{
	struct varve_volume *vol;
	char spec[8192];

	snprintf(spec, sizeof(spec), "%s/%s,mem:bench", dir, cache);
	if (varve_open_with(spec, VARVE_OPEN_HOLD_DESTAGE, settings, &vol)) {
		fprintf(stderr, "%s: %s\n", spec, varve_errmsg());
		exit(1);
	}
	return vol;
}

/* ---- memory -------------------------------------------------------------------------------- */

/* Each slice adds the time that it took. */
static void slice_ours(struct varve_volume *vol, struct rng *rng, uint64_t *spent_ns)
{
	const uint64_t start = bench_now_ns();

	for (int i = 0; i < BURST_BLOCKS / SLICES; i++) {
		const uint64_t at = rng_below(rng, SPACE / BENCH_BLOCK) * BENCH_BLOCK;

		bench_check(varve_pwrite(vol, source + (size_t)(i % SOURCE_BLOCKS) * BENCH_BLOCK,
					 BENCH_BLOCK, at, 0));
	}
	*spent_ns += bench_now_ns() - start;
}

static _Atomic uint32_t sink; /* keeps the checksums from being optimised away */

static void slice_peer(uint8_t *ring, uint64_t *at, struct rng *rng, uint64_t *spent_ns)
{
	const uint64_t start = bench_now_ns();
	uint32_t sum = 0;

	for (int i = 0; i < BURST_BLOCKS / SLICES; i++) {
		/* The same random numbers are drawn: they are not the log's cost. */
		sum += (uint32_t)rng_below(rng, SPACE / BENCH_BLOCK);
		memcpy(ring + *at, source + (size_t)(i % SOURCE_BLOCKS) * BENCH_BLOCK, BENCH_BLOCK);
		sum += crc32c(0, ring + *at, BENCH_BLOCK);
		*at = (*at + BENCH_BLOCK) % RING_BYTES;
	}
	sink = sum;
	*spent_ns += bench_now_ns() - start;
}

/* All buffers once, so that no page fault is measured. A function of its own, for profiles. */
static __attribute__((noinline)) void warm_up(struct varve_volume *vol, struct rng *rng)
{
	uint64_t spent = 0;

	for (int i = 0; i < 4 * SLICES; i++)
		slice_ours(vol, rng, &spent);
	bench_check(varve_flush(vol));
}

static double bench_memory_writes(int round)
{
	const char *const settings[] = {"size=4G", "buffers=1024", NULL};
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	uint8_t *ring = bench_memory(RING_BYTES);
	struct varve_volume *vol;
	struct rng rng;
	uint64_t at = 0;

	rng_seed(&rng, 1);
	bench_format_cache(dir, "burst.img", "size=8G");
	vol = open_volume("burst.img", settings);
	warm_up(vol, &rng);
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		uint64_t a = 0, b = 0;

		for (int k = 0; k < SLICES; k++) {
			slice_ours(vol, &rng, &a);
			slice_peer(ring, &at, &rng, &b);
		}
		/* Not measured: the device catches up, so that the next burst finds buffers. */
		bench_check(varve_flush(vol));
		ours[i] = BURST_BLOCKS * 1e6 / (double)a;
		theirs[i] = BURST_BLOCKS * 1e6 / (double)b;
	}
	bench_row("lsvd", "4K random write, in process", ours, "kIOPS", "memcpy + CRC32C", theirs,
		  0.6);
	return round;
}

/* ---- flush --------------------------------------------------------------------------------- */

struct caller {
	struct varve_volume *vol;
	uint64_t seed, until_ns;
	uint64_t done;
};

static void *call(void *arg)
{
	struct caller *c = arg;
	struct rng rng;

	rng_seed(&rng, c->seed);
	while (bench_now_ns() < c->until_ns) {
		const uint64_t at = rng_below(&rng, SPACE / BENCH_BLOCK) * BENCH_BLOCK;

		bench_check(varve_pwrite(c->vol, source + (c->done % SOURCE_BLOCKS) * BENCH_BLOCK,
					 BENCH_BLOCK, at, 0));
		bench_check(varve_flush(c->vol));
		c->done++;
	}
	return NULL;
}

static double flush_ours(struct varve_volume *vol, int callers, uint64_t seed)
{
	const uint64_t start = bench_now_ns();
	struct caller c[CALLERS];
	pthread_t threads[CALLERS];
	uint64_t sum = 0;

	for (int i = 0; i < callers; i++) {
		c[i] = (struct caller){vol, seed * CALLERS + (uint64_t)i, start + FLUSH_NS, 0};
		if (callers > 1 && pthread_create(&threads[i], NULL, call, &c[i]))
			bench_die("threads", EAGAIN);
	}
	if (callers == 1)
		call(&c[0]);
	for (int i = 0; i < callers; i++) {
		if (callers > 1)
			pthread_join(threads[i], NULL);
		sum += c[i].done;
	}
	return (double)sum * 1e9 / (double)(bench_now_ns() - start);
}

static double flush_peer(int fd, uint64_t bytes, uint64_t *at)
{
	const uint64_t start = bench_now_ns();
	uint64_t count = 0;

	while (bench_now_ns() < start + FLUSH_NS) {
		if (pwrite(fd, source, 2 * BENCH_BLOCK, (off_t)*at) != 2 * BENCH_BLOCK ||
		    fdatasync(fd))
			bench_die("peer", errno);
		*at = (*at + 2 * BENCH_BLOCK) % bytes;
		count++;
	}
	return (double)count * 1e9 / (double)(bench_now_ns() - start);
}

static double bench_flushes(int round)
{
	const char *const settings[] = {"size=4G", NULL};
	double one[BENCH_ROUNDS], many[BENCH_ROUNDS], theirs[BENCH_ROUNDS], again[BENCH_ROUNDS];
	struct varve_volume *vol;
	char path[4096];
	uint64_t at = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/peer.img", dir);
	fd = bench_file(path, GIB);
	/* Nothing is destaged: large enough for all rounds, or the callers would wait for ever. */
	bench_format_cache(dir, "flush.img", "size=12G");
	vol = open_volume("flush.img", settings);
	flush_ours(vol, 1, 99);
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		one[i] = flush_ours(vol, 1, (uint64_t)i);
		theirs[i] = again[i] = flush_peer(fd, GIB, &at);
		many[i] = flush_ours(vol, CALLERS, (uint64_t)i + 100);
	}
	bench_row("lsvd", "4K random write + flush, QD1", one, "IOPS", "pwrite 8K + fdatasync",
		  theirs, 0.9);
	bench_row("lsvd", "4K random write + flush, 32 callers", many, "IOPS",
		  "pwrite 8K + fdatasync, QD1", again, 8);
	close(fd);
	unlink(path);
	return round;
}

int main(int argc, char **argv)
{
	dir = argc > 1 ? argv[1] : ".";
	source = bench_memory(SOURCE_BLOCKS * BENCH_BLOCK);
	for (size_t i = 0; i < SOURCE_BLOCKS * BENCH_BLOCK; i++)
		source[i] = (uint8_t)(i * 2654435761u >> 24);
	if (argc < 3 || !strcmp(argv[2], "memory"))
		bench_in_child(bench_memory_writes, 0);
	if (argc < 3 || !strcmp(argv[2], "flush"))
		bench_in_child(bench_flushes, 0);
	free(source);
	return 0;
}
