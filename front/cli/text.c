/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the command says: messages on stderr, results on stdout.
 *
 * State arrives from the library as JSON, and its fields are the library's business: with --json it
 * is printed as it came, and otherwise as a table that knows no field by name. What a number means
 * is told by the end of its key (_bytes, _ns, wall_ns): a new field shows without a change here.
 */
#include "cli.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

__attribute__((format(printf, 2, 0))) static void say(const char *level, const char *fmt,
						     va_list ap, const char *reason)
{
	fflush(stdout);
	fprintf(stderr, "varve: %s", level);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "%s%s\n", reason ? ": " : "", reason ? reason : "");
}

void cli_error(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap, NULL);
	va_end(ap);
}

void cli_warn(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say("warning: ", fmt, ap, NULL);
	va_end(ap);
}

int cli_fail(const char *fmt, ...)
{
	const char *reason = varve_errmsg();
	va_list ap;

	va_start(ap, fmt);
	say("", fmt, ap, reason);
	va_end(ap);
	return CLI_FAILED;
}

int cli_fail_plain(void)
{
	cli_error("%s", varve_errmsg());
	return CLI_FAILED;
}

void cli_oom(void)
{
	static const char text[] = "varve: out of memory\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(CLI_FAILED);
	_exit(CLI_FAILED);
}

char *cli_format(const char *fmt, ...)
{
	va_list ap;
	char *text;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		cli_oom();
	return text;
}

/* ---- deadlines ------------------------------------------------------------------------------- */

/* Written before the alarm is set and read by its handler. */
static char deadline_text[512];

static void deadline_passed(int sig)
{
	(void)sig;
	if (write(STDERR_FILENO, deadline_text, strlen(deadline_text)) < 0)
		_exit(CLI_FAILED);
	_exit(CLI_FAILED);
}

void cli_deadline(unsigned int seconds, const char *what)
{
	struct sigaction sa = {.sa_handler = deadline_passed};

	alarm(0);
	if (seconds == 0)
		return;
	snprintf(deadline_text, sizeof(deadline_text),
		 "varve: %s: no answer within %u s; --timeout waits longer\n", what, seconds);
	sigaction(SIGALRM, &sa, NULL);
	alarm(seconds);
}

/* ---- output ---------------------------------------------------------------------------------- */

json_t *cli_json(char *text)
{
	json_error_t error;
	json_t *value;

	value = json_loads(text ? text : "{}", JSON_DECODE_ANY, &error);
	if (!value)
		cli_error("the answer is not JSON (%s): %s", error.text, text);
	free(text);
	return value;
}

void cli_print_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	putchar('\n');
}

const char *cli_size_text(uint64_t bytes, char buf[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned int i = 0;

	while (value >= 1024.0 && i + 1 < sizeof(units) / sizeof(units[0])) {
		value /= 1024.0;
		i++;
	}
	snprintf(buf, 32, i ? "%.1f %s" : "%.0f %s", value, units[i]);
	return buf;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static void print_integer(const char *key, json_int_t value)
{
	char buf[32];

	if (value > 0 && ends_with(key, "wall_ns")) {
		time_t t = (time_t)(value / 1000000000);
		struct tm tm;
		char when[64];

		localtime_r(&t, &tm);
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S %z", &tm);
		printf("%s", when);
	} else if (ends_with(key, "_ns")) {
		printf("%.3f s", (double)value / 1e9);
	} else if (value >= 1024 && ends_with(key, "_bytes")) {
		printf("%" JSON_INTEGER_FORMAT " (%s)", value, cli_size_text((uint64_t)value, buf));
	} else {
		printf("%" JSON_INTEGER_FORMAT, value);
	}
}

static void print_nested(json_t *value, int indent);

void cli_print_field(const char *key, json_t *value, int indent)
{
	int width = 28 - indent;
	size_t len = strlen(key);

	printf("%*s%s:", indent, "", key);
	if (json_is_object(value) && json_object_size(value) > 0) {
		putchar('\n');
		print_nested(value, indent + 2);
		return;
	}
	printf("%*s", len + 1 < (size_t)width ? width - (int)len - 1 : 1, "");
	if (json_is_string(value))
		printf("%s", json_string_value(value));
	else if (json_is_integer(value))
		print_integer(key, json_integer_value(value));
	else if (json_is_real(value))
		printf("%.3f", json_real_value(value));
	else if (json_is_boolean(value))
		printf("%s", json_is_true(value) ? "yes" : "no");
	else if (!value || json_is_null(value))
		printf("-");
	else
		print_nested(value, indent + 2);
	putchar('\n');
}

/* Lists of objects are tables of their own, and long: each element on a line, as compact JSON. */
static void print_nested(json_t *value, int indent)
{
	const char *key;
	json_t *member;
	size_t i;

	if (json_is_array(value)) {
		printf("%zu", json_array_size(value));
		for (i = 0; i < json_array_size(value); i++) {
			printf("\n%*s", indent, "");
			json_dumpf(json_array_get(value, i), stdout,
				   JSON_COMPACT | JSON_ENCODE_ANY);
		}
		return;
	}
	json_object_foreach(value, key, member) cli_print_field(key, member, indent);
}

void cli_print_table(json_t *object)
{
	print_nested(object, 0);
	if (json_is_array(object))
		putchar('\n');
}
