/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve: the command.
 *
 * Each group of commands has a file and a table in it; this file only finds the command, and
 * answers help and version. A command holds no policy: it turns arguments into a call of the public
 * API, or into processes (nbdkit, nbdfuse, losetup) that do the serving, and errors into text.
 */
#include "cli.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct cli_command *const groups[] = {
	volume_commands, cache_commands, serve_commands, attach_commands,
	status_commands, check_commands, dump_commands,
	import_commands, export_commands, bench_commands,
};

#define N_GROUPS (sizeof(groups) / sizeof(groups[0]))

/* The library's messages of levels error and warning; the rest is for servers. */
static void log_to_stderr(void *arg, int level, const char *text)
{
	(void)arg;
	if (level <= 4)
		fprintf(stderr, "varve: %s\n", text);
}

static int command_help(void)
{
	const struct cli_command *c;
	char title[64];
	size_t g;

	printf("Usage: varve COMMAND [OPTION]... [OPERAND]...\n\nCommands:\n");
	for (g = 0; g < N_GROUPS; g++) {
		for (c = groups[g]; c->name; c++) {
			snprintf(title, sizeof(title), "%s%s%s", c->group ? c->group : "",
				 c->group ? " " : "", c->name);
			printf("  %-14s %s\n", title, c->summary);
		}
	}
	printf("  %-14s %s\n  %-14s %s\n\n", "version", "Prints the version.", "help [COMMAND]",
	       "Explains a command.");
	printf("varve COMMAND --help explains a command; varve(1) has more.\n");
	return CLI_OK;
}

/*
 * The command that the words begin with, and how many words its name has. With a group's name
 * alone, NULL and 1.
 */
static const struct cli_command *find(int argc, char **argv, int *ret_words)
{
	const struct cli_command *c;
	size_t g;

	*ret_words = 0;
	for (g = 0; g < N_GROUPS; g++) {
		for (c = groups[g]; c->name; c++) {
			if (!c->group && strcmp(c->name, argv[0]) == 0) {
				*ret_words = 1;
				return c;
			}
			if (!c->group || strcmp(c->group, argv[0]) != 0)
				continue;
			*ret_words = 1;
			if (argc > 1 && strcmp(c->name, argv[1]) == 0) {
				*ret_words = 2;
				return c;
			}
		}
	}
	return NULL;
}

static int unknown(int argc, char **argv, int words)
{
	if (words == 1 && argc > 1)
		cli_error("no command \"%s %s\"; varve help lists them", argv[0], argv[1]);
	else if (words == 1)
		cli_error("%s what? varve help lists the commands", argv[0]);
	else
		cli_error("no command \"%s\"; varve help lists them", argv[0]);
	return CLI_USAGE;
}

static int help(int argc, char **argv)
{
	const struct cli_command *c;
	int words;

	if (argc == 0)
		return command_help();
	c = find(argc, argv, &words);
	if (!c)
		return unknown(argc, argv, words);
	cli_help(c);
	return CLI_OK;
}

static int run(int argc, char **argv)
{
	const struct cli_command *c;
	int words;

	if (argc == 0) {
		command_help();
		return CLI_USAGE;
	}
	if (strcmp(argv[0], "help") == 0 || strcmp(argv[0], "--help") == 0 ||
	    strcmp(argv[0], "-h") == 0)
		return help(argc - 1, argv + 1);
	if (strcmp(argv[0], "version") == 0 || strcmp(argv[0], "--version") == 0) {
		printf("varve %s\n", varve_version());
		return CLI_OK;
	}
	c = find(argc, argv, &words);
	if (!c)
		return unknown(argc, argv, words);
	return cli_run(c, argc - words + 1, argv + words - 1);
}

int main(int argc, char **argv)
{
	int rc;

	setlocale(LC_ALL, "");
	/* Numbers are read and written by programs. */
	setlocale(LC_NUMERIC, "C");
	varve_set_log(log_to_stderr, NULL);
	rc = run(argc - 1, argv + 1);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		cli_error("cannot write the output: %s", strerror(errno));
		return rc == CLI_OK ? CLI_FAILED : rc;
	}
	return rc;
}
