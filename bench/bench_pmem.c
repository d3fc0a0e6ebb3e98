/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The primitives of persistent memory beside the bare instructions of libpmem, on a forced mapping
 * (/dev/shm, or the directory of the first argument), at random addresses; medians of five, turn
 * about. What an operation costs, guards included, is what a block write cannot be faster than.
 * Time is that of the thread: what other programs take is not counted.
 *
 * stdout: bench, workload, ours, unit, peer, theirs, ratio, goal; a ratio over 1 means ours is
 * better.
 */
#include <libpmem.h>

#include "base/rng.h"
#include "bench.h"
#include "pmem/pmem.h"

#define MAP_BYTES ((size_t)256 << 20)
#define BLOCK 4096
#define OPS 200000

static struct pmem *pm;
static uint8_t data[BLOCK], back[BLOCK];

struct place {
	uint8_t *at;
	uint64_t value;
};

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void ours_copy(const struct place *p)
{
	pm_copy(pm, p->at, data, BLOCK);
	if (pm_fence(pm))
		bench_die("fence", EIO);
}

static void their_copy(const struct place *p)
{
	pmem_memcpy(p->at, data, BLOCK, PMEM_F_MEM_NONTEMPORAL | PMEM_F_MEM_NODRAIN);
	pmem_drain();
}

static void ours_word(const struct place *p)
{
	pm_publish8(pm, (_Atomic uint64_t *)p->at, p->value);
	if (pm_fence(pm))
		bench_die("fence", EIO);
}

static void their_word(const struct place *p)
{
	*(uint64_t *)p->at = p->value;
	pmem_flush(p->at, 8);
	pmem_drain();
}

static int copy_fn(void *arg)
{
	const struct place *p = arg;

	ours_copy(p);
	return 0;
}

static void ours_guarded(const struct place *p)
{
	struct place here = *p;

	if (pm_guarded(copy_fn, &here, NULL))
		bench_die("guard", EIO);
}

static void ours_read(const struct place *p)
{
	if (pm_read(pm, back, p->at, BLOCK))
		bench_die("read", EIO);
}

static void their_read(const struct place *p)
{
	memcpy(back, p->at, BLOCK);
	/* The copy is used, as far as the compiler can tell. */
	atomic_signal_fence(memory_order_seq_cst);
}

static double rate(void (*fn)(const struct place *p), uint64_t seed)
{
	struct rng rng;
	uint64_t t0;

	rng_seed(&rng, seed);
	t0 = cpu_ns();
	for (uint64_t i = 0; i < OPS; i++) {
		struct place p = {pm->base + rng_below(&rng, MAP_BYTES / BLOCK) * BLOCK, i};

		fn(&p);
	}
	return OPS * 1e9 / (double)(cpu_ns() - t0);
}

static void compare(const char *workload, void (*ours)(const struct place *p), const char *peer,
		    void (*theirs)(const struct place *p), double goal)
{
	double a[BENCH_ROUNDS], b[BENCH_ROUNDS];

	for (uint64_t i = 0; i < BENCH_ROUNDS; i++) {
		a[i] = rate(ours, i);
		b[i] = rate(theirs, i);
	}
	bench_row("pmem", workload, a, "ops/s", peer, b, goal);
}

static int nothing(void *arg)
{
	return *(int *)arg;
}

static void tell_guard(void)
{
	int zero = 0;
	uint64_t t0 = cpu_ns();

	for (int i = 0; i < 10 * OPS; i++)
		if (pm_guarded(nothing, &zero, NULL))
			bench_die("guard", EIO);
	fprintf(stderr, "# a guard: %.1f ns\n", (double)(cpu_ns() - t0) / (10 * OPS));
}

int main(int argc, char **argv)
{
	const struct pm_options opt = {
		.create = true, .create_bytes = MAP_BYTES, .force = PM_FORCE_PMEM};
	struct err err = ERR_INIT;
	char path[512];

	snprintf(path, sizeof(path), "%s/bench-pmem-%d", argc > 1 ? argv[1] : "/dev/shm",
		 (int)getpid());
	if (pm_open(path, &opt, &pm, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	unlink(path);
	pm_set(pm, pm->base, 1, MAP_BYTES);
	compare("4k-copy-fence", ours_copy, "libpmem", their_copy, 0.98);
	compare("8-byte-persist", ours_word, "libpmem", their_word, 0.98);
	compare("4k-copy-fence-guarded", ours_guarded, "libpmem", their_copy, 0.95);
	compare("4k-read-guarded", ours_read, "memcpy", their_read, 0.95);
	tell_guard();
	pm_close(pm);
	return 0;
}
