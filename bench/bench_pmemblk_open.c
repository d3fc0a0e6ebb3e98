/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench_pmemblk_open OURS [THEIRS]: how long a pool of 8 GiB with blocks of 512 bytes takes to
 * open.
 *
 *   after a close in order    beside PMDK's libpmemblk, THEIRS, turn about
 *   after the death of its    beside one pass over as many bytes as its table has, by the widest
 *   process                   loads that the compiler makes, on one core
 *
 * The files are in BENCH_DIR, which should be a tmpfs with huge pages; PMEM_IS_PMEM_FORCE=1.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define POOL_BYTES (UINT64_C(8) << 30)
#define BLOCK_BYTES 512u
#define WRITES 200000u
#define ENTRY_BYTES 8u

struct lib {
	void *(*create)(const char *path, size_t bsize, size_t size, mode_t mode);
	void *(*open)(const char *path, size_t bsize);
	void (*close)(void *pool);
	size_t (*nblock)(void *pool);
	int (*write)(void *pool, const void *buf, long long block);
	const char *(*errormsg)(void);
};

static void *symbol(void *handle, const char *name)
{
	void *fn = dlsym(handle, name);

	if (!fn)
		bench_die(name, -ENOSYS);
	return fn;
}

static void lib_load(struct lib *lib, const char *path)
{
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!handle) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	*(void **)&lib->create = symbol(handle, "pmemblk_create");
	*(void **)&lib->open = symbol(handle, "pmemblk_open");
	*(void **)&lib->close = symbol(handle, "pmemblk_close");
	*(void **)&lib->nblock = symbol(handle, "pmemblk_nblock");
	*(void **)&lib->write = symbol(handle, "pmemblk_write");
	*(void **)&lib->errormsg = symbol(handle, "pmemblk_errormsg");
}

static void *must(const struct lib *lib, void *pool)
{
	if (!pool) {
		fprintf(stderr, "%s\n", lib->errormsg());
		exit(1);
	}
	return pool;
}

static void scatter(const struct lib *lib, void *pool)
{
	static char buf[BLOCK_BYTES] = "block";
	const size_t n = lib->nblock(pool);
	uint64_t r = 88172645463325252u;

	for (unsigned int i = 0; i < WRITES; i++) {
		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		if (lib->write(pool, buf, (long long)(r % n)))
			bench_die("write", -errno);
	}
}

static void make(const struct lib *lib, const char *path)
{
	void *pool;

	unlink(path);
	pool = must(lib, lib->create(path, BLOCK_BYTES, POOL_BYTES, 0600));
	scatter(lib, pool);
	lib->close(pool);
}

/* Opens a second. */
static double open_rate(const struct lib *lib, const char *path)
{
	const uint64_t start = bench_now_ns();
	void *pool = must(lib, lib->open(path, BLOCK_BYTES));
	const uint64_t ns = bench_now_ns() - start;

	lib->close(pool);
	return 1e9 / (double)ns;
}

/* Writes, and dies with the pool open. */
static void crash(const struct lib *lib, const char *path)
{
	int status = 0;
	const pid_t pid = fork();

	if (!pid) {
		scatter(lib, must(lib, lib->open(path, BLOCK_BYTES)));
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		bench_die("child", -ECHILD);
}

static double table_rate(const char *path, size_t bytes)
{
	const int fd = open(path, O_RDONLY);
	const uint64_t *word;
	uint64_t start, sum = 0;

	word = mmap(NULL, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (fd < 0 || word == MAP_FAILED)
		bench_die(path, -errno);
	start = bench_now_ns();
	for (size_t i = 0; i < bytes / sizeof(*word); i++)
		sum += word[i];
	/* The sum is used, so that the loop stays. */
	__asm__ __volatile__("" : : "r"(sum));
	start = bench_now_ns() - start;
	munmap((void *)(uintptr_t)word, bytes);
	close(fd);
	return 1e9 / (double)start;
}

static void row(const char *workload, double ours[BENCH_ROUNDS], const char *peer,
		double theirs[BENCH_ROUNDS], const char *goal)
{
	const double a = bench_median(ours), b = bench_median(theirs);

	printf("btt\t%s\t%.4g\topens/s\t%s\t%.4g\t%.2f\t%s\n", workload, a, peer, b, a / b, goal);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	const char *dir = getenv("BENCH_DIR");
	double a[BENCH_ROUNDS], b[BENCH_ROUNDS];
	char mine[4096], other[4096];
	struct lib ours, theirs;

	if (argc < 2 || !dir) {
		fprintf(stderr, "usage: BENCH_DIR=DIR bench_pmemblk_open OURS [THEIRS]\n");
		return 2;
	}
	snprintf(mine, sizeof(mine), "%s/open.ours", dir);
	snprintf(other, sizeof(other), "%s/open.theirs", dir);
	lib_load(&ours, argv[1]);
	make(&ours, mine);
	if (argc > 2) {
		lib_load(&theirs, argv[2]);
		make(&theirs, other);
		for (int i = 0; i < BENCH_ROUNDS; i++) {
			a[i] = open_rate(&ours, mine);
			b[i] = open_rate(&theirs, other);
		}
		row("open after a clean close, 8 GiB, 512 B", a, "libpmemblk1", b, "1.0");
		unlink(other);
	}
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		crash(&ours, mine);
		a[i] = open_rate(&ours, mine);
		b[i] = table_rate(mine, POOL_BYTES / BLOCK_BYTES * ENTRY_BYTES);
	}
	row("open after a crash, 8 GiB, 512 B", a, "one pass over the table", b, "0.5");
	unlink(mine);
	return 0;
}
