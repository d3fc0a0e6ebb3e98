/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block translation table in memory that counts as persistent, beside what the least of the
 * work costs: for a write, a copy of the block past the caches, a fence, and one word made durable,
 * both at random places of as much memory; for a read, a copy. By 1 to 8 threads, which do the same
 * on both sides. Time is that of the threads: what other programs take is not counted, and threads
 * that sleep would show as a rate that more of them do not raise; wall-clock rates go to stderr.
 *
 *	bench_btt [DIRECTORY [MIB]]     of a tmpfs, /dev/shm and 1024 by default
 *
 * stdout: bench, workload, ours, unit, peer, theirs, ratio, goal; a ratio over 1 means ours is
 * better.
 */
#include "bench.h"

#include <inttypes.h>
#include <pthread.h>
#include <sys/mman.h>

#include "base/rng.h"
#include "btt/btt.h"

#define THREADS_MAX 8
#define MS_EACH 50
#define SLICES 5 /* of a round, turn about */

enum job {
	OUR_WRITES,
	THEIR_WRITES,
	OUR_READS,
	THEIR_READS
};

struct worker {
	pthread_t thread;
	enum job job;
	uint64_t seed;
	uint64_t done, cpu_ns;
	uint64_t block_bytes, stride, blocks;
};

static struct pmem *pm;
static struct btt *btt;
static uint64_t deadline_ns;

static void one(const struct worker *w, struct rng *rng, uint8_t *buf)
{
	const uint64_t at = rng_below(rng, w->blocks);
	/* Words first, then blocks, as in a pool. */
	uint8_t *block = pm->base + 8 * w->blocks + at * w->stride;
	uint64_t word = rng_below(rng, w->blocks);
	int r = 0;

	switch (w->job) {
	case OUR_WRITES:
		r = btt_write(btt, at, buf);
		break;
	case OUR_READS:
		r = btt_read(btt, at, buf);
		break;
	case THEIR_WRITES:
		pm_copy(pm, block, buf, w->block_bytes);
		r = pm_fence(pm);
		pm_publish8(pm, (_Atomic uint64_t *)(void *)(pm->base + 8 * word), at);
		r = r ? r : pm_fence(pm);
		break;
	case THEIR_READS:
		memcpy(buf, block, w->block_bytes);
		break;
	}
	if (r)
		bench_die("operation", r);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint8_t *buf = bench_memory(w->block_bytes);
	struct timespec cpu;
	struct rng rng;
	uint64_t first;

	rng_seed(&rng, w->seed);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	first = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
	while (bench_now_ns() < deadline_ns) {
		for (int i = 0; i < 64; i++)
			one(w, &rng, buf);
		w->done += 64;
	}
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	w->cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec - first;
	free(buf);
	return NULL;
}

struct tally {
	uint64_t done, cpu_ns, wall_ns;
};

static void slice(enum job job, unsigned threads, const struct btt_stat *stat, struct tally *tally)
{
	struct worker workers[THREADS_MAX];
	const uint64_t start = bench_now_ns();

	deadline_ns = start + MS_EACH * UINT64_C(1000000);
	for (unsigned i = 0; i < threads; i++) {
		workers[i] = (struct worker){
			.job = job,
			.seed = start + i,
			.block_bytes = stat->block_bytes,
			.stride = stat->stride_bytes,
			.blocks = stat->nblock,
		};
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			bench_die("thread", EAGAIN);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		tally->done += workers[i].done;
		tally->cpu_ns += workers[i].cpu_ns;
	}
	tally->wall_ns += bench_now_ns() - start;
}

/* Thousands of operations a second of a processor. */
static double rate(const struct tally *tally)
{
	return (double)tally->done / (double)tally->cpu_ns * 1e6;
}

static void pool_open(const char *path, uint64_t bytes, uint64_t block_bytes)
{
	const struct pm_options pm_opt = {.sparse = true, .force = PM_FORCE_PMEM};
	const struct btt_options opt = {.block_bytes = block_bytes, .overwrite = true};
	struct err err = ERR_INIT;
	const int fd = open(path, O_RDWR | O_CREAT, 0600);
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)bytes))
		bench_die(path, errno);
	close(fd);
	r = pm_open(path, &pm_opt, &pm, &err);
	if (r)
		bench_die(err_text(&err, r), r);
	/* Nothing stays behind, even of a run that is ended. */
	unlink(path);
	/* Huge pages, or it is the TLB that is measured; and no page faults. */
	madvise(pm->base, pm->len_bytes, MADV_HUGEPAGE);
	memset(pm->base, 0x5a, pm->len_bytes);
	r = btt_create(pm, &opt, &btt, &err);
	if (r)
		bench_die(err_text(&err, r), r);
}

static void fill(void)
{
	uint8_t *buf = bench_memory(btt_block_bytes(btt));
	int r = 0;

	for (uint64_t lba = 0; lba < btt_nblock(btt) && !r; lba++)
		r = btt_write(btt, lba, buf);
	if (r)
		bench_die("fill", r);
	free(buf);
}

/* Theirs writes over the pool, whose contents are put back. */
static void round_of(enum job ours, enum job theirs, unsigned threads, struct tally *a,
		     struct tally *b, uint8_t *saved)
{
	struct btt_stat stat;

	btt_stat(btt, &stat);
	for (int i = 0; i < SLICES; i++) {
		slice(ours, threads, &stat, a);
		if (theirs == THEIR_WRITES)
			memcpy(saved, pm->base, pm->len_bytes);
		slice(theirs, threads, &stat, b);
		if (theirs == THEIR_WRITES)
			memcpy(pm->base, saved, pm->len_bytes);
	}
}

static void row(const char *what, enum job ours, enum job theirs, unsigned threads,
		const char *peer, double goal, uint8_t *saved)
{
	double a[BENCH_ROUNDS], b[BENCH_ROUNDS];
	struct tally wall_a = {0}, wall_b = {0};
	char name[100];

	for (int i = 0; i < BENCH_ROUNDS; i++) {
		struct tally ta = {0}, tb = {0};

		round_of(ours, theirs, threads, &ta, &tb, saved);
		a[i] = rate(&ta);
		b[i] = rate(&tb);
		wall_a.done += ta.done;
		wall_a.wall_ns += ta.wall_ns;
		wall_b.done += tb.done;
		wall_b.wall_ns += tb.wall_ns;
	}
	snprintf(name, sizeof(name), "%s of %" PRIu64 " bytes, %u threads", what,
		 btt_block_bytes(btt), threads);
	bench_row("btt", name, a, "kIOPS a processor", peer, b, goal);
	fprintf(stderr, "# %s: by the clock ours %.0f, theirs %.0f kIOPS\n", name,
		(double)wall_a.done / (double)wall_a.wall_ns * 1e6,
		(double)wall_b.done / (double)wall_b.wall_ns * 1e6);
}

static void open_after_crash(void)
{
	struct btt_stat stat;
	uint64_t start;
	int r;

	btt_abandon(btt);
	start = bench_now_ns();
	r = btt_open(pm, NULL, &btt, NULL);
	if (r)
		bench_die("open", r);
	btt_stat(btt, &stat);
	fprintf(stderr, "# open after a crash: %.1f ns for each of %" PRIu64 " sectors\n",
		(double)(bench_now_ns() - start) / (double)stat.nblock, stat.nblock);
	r = btt_close(btt);
	start = bench_now_ns();
	r = r ? r : btt_open(pm, NULL, &btt, NULL);
	if (r)
		bench_die("open", r);
	fprintf(stderr, "# open after a close: %.0f us\n", (double)(bench_now_ns() - start) / 1000);
}

int main(int argc, char **argv)
{
	static const uint64_t sizes[] = {4096, 512};
	const uint64_t bytes = (argc > 2 ? strtoull(argv[2], NULL, 0) : 1024) << 20;
	char path[4096];
	uint8_t *saved = bench_memory(bytes);

	madvise(saved, bytes, MADV_HUGEPAGE);
	snprintf(path, sizeof(path), "%s/bench-btt.%d", argc > 1 ? argv[1] : "/dev/shm",
		 (int)getpid());
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		pool_open(path, bytes, sizes[i]);
		fill();
		for (unsigned threads = 1; threads <= THREADS_MAX; threads *= 2) {
			row("random writes", OUR_WRITES, THEIR_WRITES, threads,
			    "copy, fence, word, fence", 0.9, saved);
			row("random reads", OUR_READS, THEIR_READS, threads, "copy", 0.9, saved);
		}
		open_after_crash();
		btt_close(btt);
		pm_close(pm);
	}
	free(saved);
	return 0;
}
