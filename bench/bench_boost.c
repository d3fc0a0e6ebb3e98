/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A write cache before a block device, in process: 4 KiB at random, 32 requests at once, for so
 * long that memory counts for nothing, but within the cache, and a flush at the end; writeback
 * waits. The peer is fio, which writes the same amount one after the other to a file beside the
 * cache with O_DIRECT, 1 MiB blocks, 32 at once: the most that the cache device can take. Three
 * quarters of that are what a log of small writes should reach at the least.
 *
 * bench_boost DIR: files are made there. stdout: one row; stderr: notes. VARVE_BENCH_GIB: how much
 * is written, 4 GiB by default, 64 times the buffers.
 */
#include "bench_stream.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define SPACE (4 * GIB)
#define OF_SEQUENTIAL 0.75

static const char *dir;
static uint64_t sustained_bytes = 4 * GIB;

/* In a process of its own, so that nothing is closed and so written back. */
static double sustained_round(int round)
{
	struct bench_stream s = {.blocks = SPACE / BENCH_BLOCK, .op = VARVE_WRITE};
	char spec[8400];

	snprintf(spec, sizeof(spec), "%s/cache.img,boost:%s/backing.img", dir, dir);
	bench_check(varve_open_with(spec, VARVE_OPEN_HOLD_DESTAGE, NULL, &s.vol));
	rng_seed(&s.rng, (uint64_t)round);
	return bench_stream(&s, sustained_bytes / BENCH_BLOCK) * BENCH_BLOCK / (double)MIB;
}

static double sequential_peer(void)
{
	char options[8192];

	snprintf(options, sizeof(options),
		 "--filename=%s/peer.img --rw=write --bs=1m --direct=1 --ioengine=io_uring "
		 "--iodepth=%d --size=%llu --end_fsync=1 --overwrite=1",
		 dir, BENCH_DEPTH, (unsigned long long)sustained_bytes);
	return OF_SEQUENTIAL * bench_fio(options, BENCH_FIO_WRITE_KIB) / 1024;
}

static void make_files(void)
{
	char path[4096];
	int fd;

	/* Never written to: its holes cost no disk. */
	snprintf(path, sizeof(path), "%s/backing.img", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, SPACE))
		bench_die(path, errno);
	close(fd);
	snprintf(path, sizeof(path), "%s/peer.img", dir);
	close(bench_file(path, sustained_bytes));
}

int main(int argc, char **argv)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	const char *gib = getenv("VARVE_BENCH_GIB");
	char size[64];

	dir = argc > 1 ? argv[1] : ".";
	if (gib && strtoull(gib, NULL, 10) > 0)
		sustained_bytes = strtoull(gib, NULL, 10) * GIB;
	make_files();
	snprintf(size, sizeof(size), "size=%llu",
		 (unsigned long long)(sustained_bytes + sustained_bytes / 8 + 256 * MIB));
	bench_format_cache(dir, "cache.img", size);
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		const char *const settings[] = {"force=yes", NULL};
		char path[4096];

		/* An empty log, on the same file. */
		snprintf(path, sizeof(path), "%s/cache.img", dir);
		bench_check(varve_cache_create(path, settings));
		ours[i] = bench_in_child(sustained_round, i);
		theirs[i] = sequential_peer();
	}
	bench_row("boost", "4K random write, QD32, sustained within the cache", ours, "MiB/s",
		  "0.75 of fio 1M sequential, QD32", theirs, 1);
	return 0;
}
