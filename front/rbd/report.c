/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One line for each message, in one write, so that lines of several threads do not mix.
 */
#include "report.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <varve/varve.h>

#define LINE_MAX_BYTES 2048
/* As in syslog: 4 is a warning. */
#define WORST_UNREPORTED 5

static bool is_quiet(void)
{
	const char *env = getenv("VARVE_RBD_QUIET");

	return env && env[0] && strcmp(env, "0") != 0;
}

void report(const char *format, ...)
{
	char text[LINE_MAX_BYTES];
	va_list ap;

	if (is_quiet())
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	fprintf(stderr, "varve: %s\n", text);
}

static void from_library(void *arg, int level, const char *text)
{
	(void)arg;
	if (level < WORST_UNREPORTED)
		report("%s", text);
}

static void start(void)
{
	varve_set_log(from_library, NULL);
}

void report_start(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, start);
}
