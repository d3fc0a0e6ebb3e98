/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve bench btt: two questions about pools of atomic blocks, asked of this machine's memory.
 *
 *	--starvation   how long one reader waits for a block while writers do nothing but write it
 *	--recovery     how long opening takes after a close, and after a death, against the size
 *
 * Times are of this machine at this moment, and are printed, not judged.
 */
#include "cli.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <varve/btt.h>

#define WRITERS_MAX 64
#define SAMPLES_MAX (1u << 20)
#define STARVED_BLOCKS 4u /* that the writers write: few, so that they meet the reader */
#define MIB (UINT64_C(1) << 20)

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct bench {
	char path[4096];
	uint32_t block_bytes;
	json_t *rows; /* with --json */
};

/* A new pool under a name of its own, removed in the end. */
static int make(struct bench *b, uint64_t pool_bytes, struct varve_btt **ret)
{
	const struct varve_btt_options options = {.pool_bytes = pool_bytes, .prefault = true};

	unlink(b->path);
	if (varve_btt_create(b->path, b->block_bytes, &options, ret) < 0)
		return cli_fail_plain();
	return CLI_OK;
}

static void row(struct bench *b, const char *title, json_t *object)
{
	const char *key;
	json_t *value;

	if (b->rows) {
		json_array_append(b->rows, object);
	} else {
		printf("%s:", title);
		json_object_foreach (object, key, value)
			printf("  %s %.6g", key, json_number_value(value));
		printf("\n");
	}
	json_decref(object);
}

/* ---- starvation ---------------------------------------------------------------------------- */

struct starve {
	struct varve_btt *btt;
	uint32_t block_bytes;
	atomic_bool stop;
	_Atomic uint64_t writes;
};

static void *writer(void *arg)
{
	struct starve *s = arg;
	uint8_t *buf = calloc(1, s->block_bytes);
	uint64_t n = 0;

	while (buf && !atomic_load_explicit(&s->stop, memory_order_relaxed)) {
		if (varve_btt_write(s->btt, buf, n % STARVED_BLOCKS) < 0)
			break;
		n++;
	}
	atomic_fetch_add(&s->writes, n);
	free(buf);
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Reads for so long; how often, with the times in ns[]. */
static unsigned int read_for(struct starve *s, uint64_t end_ns, uint64_t *ns)
{
	uint8_t *buf = calloc(1, s->block_bytes);
	unsigned int n = 0;

	while (buf && n < SAMPLES_MAX && now_ns() < end_ns) {
		const uint64_t start = now_ns();

		if (varve_btt_read(s->btt, buf, n % STARVED_BLOCKS) < 0)
			break;
		ns[n++] = now_ns() - start;
	}
	free(buf);
	return n;
}

static void starve_row(struct bench *b, unsigned int writers, const struct starve *s,
		       double seconds, uint64_t *ns, unsigned int n)
{
	char title[32];

	snprintf(title, sizeof(title), "%u writer%s", writers, writers == 1 ? "" : "s");
	qsort(ns, n, sizeof(*ns), by_value);
	row(b, title,
	    json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "writers", (int)writers, "writes_s",
		      (double)atomic_load(&s->writes) / seconds, "reads_s", n / seconds,
		      "read_median_us", n ? (double)ns[n / 2] / 1e3 : 0.0, "read_p99_us",
		      n ? (double)ns[n - 1 - n / 100] / 1e3 : 0.0, "read_p9999_us",
		      n ? (double)ns[n - 1 - n / 10000] / 1e3 : 0.0, "read_max_us",
		      n ? (double)ns[n - 1] / 1e3 : 0.0));
}

static int starve_with(struct bench *b, struct varve_btt *btt, unsigned int writers,
		       unsigned int seconds, uint64_t *ns)
{
	struct starve s = {.btt = btt, .block_bytes = b->block_bytes};
	pthread_t thread[WRITERS_MAX];
	unsigned int started = 0, n;
	uint64_t start = now_ns();

	for (; started < writers; started++)
		if (pthread_create(&thread[started], NULL, writer, &s))
			break;
	n = read_for(&s, start + (uint64_t)seconds * 1000000000u, ns);
	atomic_store(&s.stop, true);
	start = now_ns() - start;
	for (unsigned int i = 0; i < started; i++)
		pthread_join(thread[i], NULL);
	if (started < writers || !n) {
		cli_error("%s", n ? "cannot start threads" : varve_errmsg());
		return CLI_FAILED;
	}
	starve_row(b, writers, &s, (double)start / 1e9, ns, n);
	return CLI_OK;
}

static int starvation(struct bench *b, unsigned int writers_max, unsigned int seconds)
{
	uint64_t *ns = malloc(SAMPLES_MAX * sizeof(*ns));
	struct varve_btt *btt;
	int rc;

	if (!ns)
		cli_oom();
	rc = make(b, 64 * MIB, &btt);
	if (rc == CLI_OK) {
		rc = starve_with(b, btt, 0, seconds, ns);
		for (unsigned int n = 1; rc == CLI_OK && n <= writers_max; n *= 2)
			rc = starve_with(b, btt, n, seconds, ns);
		varve_btt_close(btt);
	}
	free(ns);
	return rc;
}

/* ---- recovery ------------------------------------------------------------------------------ */

static int open_ms(struct bench *b, double *ret)
{
	const uint64_t start = now_ns();
	struct varve_btt *btt;

	if (varve_btt_open(b->path, 0, NULL, &btt) < 0)
		return cli_fail_plain();
	*ret = (double)(now_ns() - start) / 1e6;
	return varve_btt_close(btt) < 0 ? cli_fail_plain() : CLI_OK;
}

/* A process that writes, and dies with the pool open. */
static int die_open(struct bench *b)
{
	const pid_t pid = fork();
	int status;

	if (!pid) {
		uint8_t *buf = calloc(1, b->block_bytes);
		struct varve_btt *btt;

		_exit(!buf || varve_btt_open(b->path, 0, NULL, &btt) < 0 ||
		      varve_btt_write(btt, buf, 0) < 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		cli_error("cannot run a process that dies");
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int recover_at(struct bench *b, uint64_t pool_bytes)
{
	double clean_ms = 0, died_ms = 0;
	struct varve_btt *btt;
	uint64_t blocks;
	char title[32];
	int rc = make(b, pool_bytes, &btt);

	if (rc != CLI_OK)
		return rc;
	blocks = varve_btt_blocks(btt);
	varve_btt_close(btt);
	rc = open_ms(b, &clean_ms);
	if (rc == CLI_OK)
		rc = die_open(b);
	if (rc == CLI_OK)
		rc = open_ms(b, &died_ms);
	if (rc != CLI_OK)
		return rc;
	cli_size_text(pool_bytes, title);
	row(b, title,
	    json_pack("{s:I, s:I, s:f, s:f, s:f}", "pool_bytes", (json_int_t)pool_bytes, "blocks",
		      (json_int_t)blocks, "open_clean_ms", clean_ms, "open_died_ms", died_ms,
		      "ns_a_block", died_ms * 1e6 / (double)blocks));
	return CLI_OK;
}

static int recovery(struct bench *b, uint64_t largest)
{
	int rc = CLI_OK;

	for (uint64_t bytes = 64 * MIB; rc == CLI_OK && bytes <= largest; bytes *= 4)
		rc = recover_at(b, bytes);
	return rc;
}

/* ---- the command --------------------------------------------------------------------------- */

/* A whole number of the option from 1 to max, or dflt; ends the program when it is none. */
static unsigned int number(const struct cli_args *args, const char *name, unsigned int dflt,
			   unsigned int max)
{
	const unsigned int n = cli_seconds(args, name, dflt);

	if (n >= 1 && n <= max)
		return n;
	cli_error("--%s is a number from 1 to %u", name, max);
	exit(CLI_USAGE);
}

static int bench_btt(const struct cli_args *args)
{
	const char *dir = args->n ? args->operands[0] : "/dev/shm";
	struct bench b = {.block_bytes = number(args, "block-size", 512, 1u << 24)};
	const unsigned int writers = number(args, "writers", 8, WRITERS_MAX);
	const unsigned int seconds = number(args, "seconds", 2, 3600);
	const unsigned int gib = number(args, "gib", 1, 65536);
	int rc = CLI_OK;

	if (!cli_flag(args, "starvation") && !cli_flag(args, "recovery")) {
		cli_error("bench btt: say --starvation, --recovery, or both");
		return CLI_USAGE;
	}
	snprintf(b.path, sizeof(b.path), "%s/varve-bench-%ld.pool", dir, (long)getpid());
	if (cli_flag(args, "json"))
		b.rows = json_array();
	if (cli_flag(args, "starvation"))
		rc = starvation(&b, writers, seconds);
	if (rc == CLI_OK && cli_flag(args, "recovery"))
		rc = recovery(&b, (uint64_t)gib << 30);
	unlink(b.path);
	if (b.rows && rc == CLI_OK)
		cli_print_json(b.rows);
	json_decref(b.rows);
	return rc;
}

static const struct cli_option bench_btt_options[] = {
	{"starvation", 's', NULL, "latency of a reader under 1, 2, 4, ... writers"},
	{"recovery", 'r', NULL, "time to open pools of 64 MiB, 256 MiB, ..."},
	{"writers", 'w', "N", "so many writers at most; the default is 8"},
	{"seconds", 't', "SECONDS", "so long with each number of writers; the default is 2"},
	{"gib", 'g', "N", "the largest pool, in GiB; the default is 1"},
	{"block-size", 'b', "BYTES", "of the pools; the default is 512"},
	{"json", 'j', NULL, "print JSON"},
	{0},
};

const struct cli_command bench_commands[] = {
	{
		.group = "bench",
		.name = "btt",
		.operands = "[DIRECTORY]",
		.min = 0,
		.max = 1,
		.summary = "Measures readers under writers, and opening after a death.",
		.example = "varve bench btt --starvation /mnt/pmem",
		.options = bench_btt_options,
		.run = bench_btt,
	},
	{0},
};
