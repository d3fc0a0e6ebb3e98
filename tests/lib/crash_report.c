/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the crash harness prints, and what it is told from outside; see crash_report.h.
 */
#include "lib/crash_report.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "lib/tap.h"

#define DEFAULT_IMAGES 100000
#define FIRST_SEED 1000
#define TRACE_LINES 200
#define TRACE_LEN 120
#define TEXT_LEN 4096

static struct {
	const char *test;
	uint64_t seed;
	unsigned int level; /* 0: the program, 1: an image */
	char line[2][TRACE_LINES][TRACE_LEN];
	uint64_t next[2];
} ctx;

void crash_trace(const char *fmt, ...)
{
	char *line = ctx.line[ctx.level][ctx.next[ctx.level]++ % TRACE_LINES];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, TRACE_LEN, fmt, ap);
	va_end(ap);
}

void crash_trace_image(bool image)
{
	ctx.level = image;
	if (image)
		ctx.next[1] = 0;
}

static void print_trace(unsigned int level)
{
	uint64_t next = ctx.next[level];
	uint64_t first = next > TRACE_LINES ? next - TRACE_LINES : 0;

	for (uint64_t i = first; i < next; i++)
		test_note("%s %3" PRIu64 "  %s", level ? "  image" : "program", i,
			  ctx.line[level][i % TRACE_LINES]);
}

static void print_replay(void)
{
	print_trace(0);
	if (ctx.level)
		print_trace(1);
	test_note("replay: VARVE_SEED=%" PRIu64 " %s --no-fork %s; add VARVE_CRASH_SHRINK=1 to "
		  "shorten it",
		  ctx.seed, program_invocation_name, ctx.test);
}

/* An assertion has failed or worse; the trace is worth more than async-signal safety. */
static void on_signal(int sig)
{
	signal(sig, SIG_DFL);
	print_replay();
	raise(sig);
}

/* What an engine has to say goes where the trace goes. */
static void trace_sink(void *arg, enum log_level level, const char *text)
{
	(void)arg;
	crash_trace("%s: %s", log_level_name(level), text);
}

void crash_begin(const char *test, uint64_t seed)
{
	memset(&ctx, 0, sizeof(ctx));
	ctx.test = test;
	ctx.seed = seed;
	log_set_level(LOG_LEVEL_WARN);
	log_set_sink(trace_sink, NULL);
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
}

void crash_fail(const char *fmt, ...)
{
	char text[TEXT_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	test_note("%s", text);
	print_replay();
	FAIL("seed %" PRIu64 " fails", ctx.seed);
}

uint64_t crash_images(uint32_t share_ppm)
{
	const char *env = getenv("VARVE_CRASH_IMAGES");
	uint64_t all = env ? strtoull(env, NULL, 0) : DEFAULT_IMAGES;
	uint64_t images = all * share_ppm / 1000000;

	return images ? images : 1;
}

uint64_t crash_seed(uint64_t nth, bool *ret_only)
{
	const char *env = getenv("VARVE_SEED");

	*ret_only = env && !getenv("VARVE_CRASH_IMAGES");
	return (env ? strtoull(env, NULL, 0) : FIRST_SEED) + nth;
}
