/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Arguments. Each command has one table of its options, from which both the parser and the help
 * text are made: an option cannot be accepted and not documented, or the other way round. (The
 * manual pages are compared with the help by tests/integration/quick-man.sh.)
 *
 * Values are handed on as text. What a size or a store means is the library's to say.
 */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPTIONS_MAX 24
/* getopt_long() returns this plus the index for a long option; letters are below it. */
#define LONG_BASE 256

static const char *command_title(const struct cli_command *command, char buf[64])
{
	snprintf(buf, 64, "%s%s%s", command->group ? command->group : "", command->group ? " " : "",
		 command->name);
	return buf;
}

void cli_help(const struct cli_command *command)
{
	const struct cli_option *o;
	char title[64], left[64];

	printf("Usage: varve %s%s%s%s\n\n%s\n\nOptions:\n", command_title(command, title),
	       command->options->name ? " [OPTION]..." : "", command->operands[0] ? " " : "",
	       command->operands, command->summary);
	for (o = command->options; o->name; o++) {
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		if (o->letter)
			printf("  -%c, %-24s %s\n", o->letter, left, o->help);
		else
			printf("      %-24s %s\n", left, o->help);
	}
	printf("  -h, %-24s %s\n", "--help", "this text");
	printf("\nExample: %s\n", command->example);
}

static const struct cli_option *option_of(const struct cli_command *command, int key)
{
	const struct cli_option *o;

	if (key >= LONG_BASE)
		return &command->options[key - LONG_BASE];
	for (o = command->options; o->name; o++)
		if (o->letter == key)
			return o;
	return NULL;
}

/* Fills getopt's tables from ours. */
static void getopt_tables(const struct cli_command *command, struct option *longs, char *shorts)
{
	unsigned int i;

	*shorts++ = ':';
	*shorts++ = 'h';
	for (i = 0; command->options[i].name && i < OPTIONS_MAX; i++) {
		const struct cli_option *o = &command->options[i];

		longs[i].name = o->name;
		longs[i].has_arg = o->arg ? required_argument : no_argument;
		longs[i].flag = NULL;
		longs[i].val = LONG_BASE + (int)i;
		if (o->letter) {
			*shorts++ = o->letter;
			if (o->arg)
				*shorts++ = ':';
		}
	}
	longs[i] = (struct option){"help", no_argument, NULL, 'h'};
	longs[i + 1] = (struct option){0};
	*shorts = '\0';
}

static int usage(const struct cli_command *command, const char *text, const char *arg)
{
	char title[64];

	command_title(command, title);
	cli_error("%s: %s%s (varve %s --help tells more)", title, text, arg, title);
	return CLI_USAGE;
}

int cli_run(const struct cli_command *command, int argc, char **argv)
{
	struct option longs[OPTIONS_MAX + 2];
	char shorts[3 * OPTIONS_MAX + 4];
	struct cli_args args = {.command = command};
	int key;

	getopt_tables(command, longs, shorts);
	opterr = 0;
	optind = 1;
	while ((key = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (key == 'h') {
			cli_help(command);
			return CLI_OK;
		}
		if (key == ':')
			return usage(command, "a value is missing after ", argv[optind - 1]);
		if (key == '?')
			return usage(command, "unknown option ", argv[optind - 1]);
		if (args.n_given == CLI_GIVEN_MAX)
			return usage(command, "too many options", "");
		args.given[args.n_given].option = option_of(command, key);
		args.given[args.n_given++].value = optarg ? optarg : "";
	}
	args.n = argc - optind;
	args.operands = argv + optind;
	if (args.n < command->min)
		return usage(command, "expected ", command->operands);
	if (args.n > command->max)
		return usage(command, "one too many: ", args.operands[command->max]);
	return command->run(&args);
}

const char *cli_value(const struct cli_args *args, const char *name)
{
	unsigned int i;

	for (i = args->n_given; i-- > 0;)
		if (strcmp(args->given[i].option->name, name) == 0)
			return args->given[i].value;
	return NULL;
}

unsigned int cli_seconds(const struct cli_args *args, const char *name, unsigned int dflt)
{
	const char *text = cli_value(args, name);
	unsigned long value;
	char *end;

	if (!text)
		return dflt;
	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value == 0 || value > 86400)
		exit(usage(args->command, "expected a number of seconds from 1 to 86400, not ",
			   text));
	return (unsigned int)value;
}

void cli_settings_add(struct cli_settings *s, const char *key, const char *value)
{
	const char **list = realloc(s->list, (s->n + 2) * sizeof(*list));

	if (!list)
		cli_oom();
	s->list = list;
	s->list[s->n++] = cli_format("%s=%s", key, value);
	s->list[s->n] = NULL;
}

int cli_settings_from(struct cli_settings *s, const struct cli_args *args)
{
	unsigned int i;

	for (i = 0; i < args->n_given; i++) {
		const char *value = args->given[i].value;
		const char *eq = strchr(value, '=');
		char *key;

		if (strcmp(args->given[i].option->name, "set") != 0)
			continue;
		if (!eq || eq == value)
			return usage(args->command, "expected --set KEY=VALUE, not ", value);
		key = cli_format("%.*s", (int)(eq - value), value);
		cli_settings_add(s, key, eq + 1);
		free(key);
	}
	return 0;
}
