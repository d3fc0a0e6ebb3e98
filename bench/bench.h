/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the benchmarks share: time, medians, rows, files that are written once.
 *
 * A row has ours and the peer's rate, measured turn about in one run, BENCH_ROUNDS times each;
 * medians are compared. A ratio over 1 means ours is better.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BENCH_ROUNDS 5

static inline uint64_t bench_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline void bench_die(const char *what, int rc)
{
	fprintf(stderr, "%s: %s\n", what, strerror(rc < 0 ? -rc : rc));
	exit(1);
}

static inline void *bench_memory(size_t bytes)
{
	void *p = NULL;
	const int rc = posix_memalign(&p, 4096, bytes);

	if (rc)
		bench_die("memory", rc);
	/* Touched, and not all zero: neither page faults nor a shared zero page are measured. */
	memset(p, 0x5a, bytes);
	return p;
}

static inline int bench_by_value(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static inline double bench_median(double rates[BENCH_ROUNDS])
{
	qsort(rates, BENCH_ROUNDS, sizeof(*rates), bench_by_value);
	return rates[BENCH_ROUNDS / 2];
}

/* The rounds' spread goes to stderr: a row without it could be luck. */
static inline void bench_row(const char *bench, const char *workload, double *ours,
			     const char *unit, const char *peer, double *theirs, double goal)
{
	double a, b;

	a = bench_median(ours);
	b = bench_median(theirs);
	fprintf(stderr, "# %s: ours %.3g to %.3g, theirs %.3g to %.3g %s\n", workload, ours[0],
		ours[BENCH_ROUNDS - 1], theirs[0], theirs[BENCH_ROUNDS - 1], unit);
	printf("%s\t%s\t%.4g\t%s\t%s\t%.4g\t%.2f\t%g\n", bench, workload, a, unit, peer, b, a / b,
	       goal);
	fflush(stdout);
}

/*
 * Runs fn in a process of its own and returns what it returns. The process ends without closing
 * its volumes: nobody wants their data, and no time is spent on destaging it.
 */
static inline double bench_in_child(double (*fn)(int round), int round)
{
	double rate = 0;
	int fds[2], status;
	pid_t pid;

	if (pipe(fds))
		bench_die("pipe", errno);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		rate = fn(round);
		fflush(stdout);
		_exit(write(fds[1], &rate, sizeof(rate)) != sizeof(rate));
	}
	close(fds[1]);
	if (read(fds[0], &rate, sizeof(rate)) != sizeof(rate) || waitpid(pid, &status, 0) != pid)
		bench_die("child", ECHILD);
	close(fds[0]);
	return rate;
}

enum bench_fio_field { /* of the terse form */
	BENCH_FIO_READ_IOPS = 8,
	BENCH_FIO_WRITE_KIB = 48, /* a second */
};

static inline double bench_fio(const char *options, enum bench_fio_field field)
{
	char command[8400];
	double value = 0;
	FILE *out;

	snprintf(command, sizeof(command),
		 "fio --name=peer %s --output-format=terse --terse-version=3 | cut -d';' -f%d",
		 options, field);
	out = popen(command, "r");
	if (!out || fscanf(out, "%lf", &value) != 1)
		bench_die("fio", EIO);
	pclose(out);
	return value;
}

/* A file that is allocated and written, opened with O_DIRECT. */
static inline int bench_file(const char *path, uint64_t bytes)
{
	const size_t chunk = 1 << 20;
	char *buf = bench_memory(chunk);
	const int fd = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);

	if (fd < 0)
		bench_die(path, errno);
	for (uint64_t at = 0; at < bytes; at += chunk)
		if (pwrite(fd, buf, chunk, (off_t)at) != (ssize_t)chunk)
			bench_die(path, errno);
	fdatasync(fd);
	free(buf);
	return fd;
}

#endif
