/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the command share: the table of commands, parsed arguments, messages and the
 * ways to print JSON. One thread; whatever cannot be allocated ends the program (cli_oom).
 *
 * Exit codes: CLI_OK, CLI_FAILED (the message says what, where and what to do), CLI_USAGE. check
 * has its own meaning for them: clean, problems found, could not check.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <varve/varve.h>

enum {
	CLI_OK = 0,
	CLI_FAILED = 1,
	CLI_USAGE = 2
};

/* ---- commands and their arguments (args.c) --------------------------------------------------- */

struct cli_option {
	const char *name; /* without dashes; NULL ends the table */
	char letter;	  /* or 0 */
	const char *arg;  /* the name of its value in the help; NULL: a flag */
	const char *help;
};

struct cli_args;

struct cli_command {
	const char *group; /* "cache" of "cache create", or NULL */
	const char *name;
	const char *operands; /* for the help: "NAME [WHAT]" */
	int min, max;	      /* number of operands */
	const char *summary;  /* a line */
	const char *example;
	const struct cli_option *options;
	int (*run)(const struct cli_args *args);
};

#define CLI_GIVEN_MAX 128

struct cli_args {
	const struct cli_command *command;
	int n;
	char **operands;
	unsigned int n_given;
	struct {
		const struct cli_option *option;
		const char *value;
	} given[CLI_GIVEN_MAX];
};

/* Parses and runs. --help is answered here. */
int cli_run(const struct cli_command *command, int argc, char **argv);
void cli_help(const struct cli_command *command);

/* The last value given for the option, "" for a flag, NULL when it was not given. */
const char *cli_value(const struct cli_args *args, const char *name);

static inline bool cli_flag(const struct cli_args *args, const char *name)
{
	return cli_value(args, name) != NULL;
}

/* The value of a number of seconds, or dflt. Ends the program when it is none. */
unsigned int cli_seconds(const struct cli_args *args, const char *name, unsigned int dflt);

/* Tells whoever has the volume open, or opens it; prints the answer (status.c). An exit code. */
int cli_message(const char *name, const char *text, unsigned int timeout_s);

/* The tables of the command groups; a NULL name ends each. */
extern const struct cli_command volume_commands[];
extern const struct cli_command cache_commands[];
extern const struct cli_command serve_commands[];
extern const struct cli_command attach_commands[];
extern const struct cli_command status_commands[];
extern const struct cli_command check_commands[];
extern const struct cli_command dump_commands[];
extern const struct cli_command import_commands[];
extern const struct cli_command export_commands[];
extern const struct cli_command bench_commands[];

/* ---- key=value lists for the API (args.c) ---------------------------------------------------- */

struct cli_settings {
	const char **list; /* NULL-terminated, or NULL when it is empty */
	unsigned int n;
};

/* The value goes to the library as it was typed: sizes and paths are parsed there, once. */
void cli_settings_add(struct cli_settings *s, const char *key, const char *value);

/* All --set options. Returns 0, or CLI_USAGE after a message. */
int cli_settings_from(struct cli_settings *s, const struct cli_args *args);

/* ---- messages (text.c) ----------------------------------------------------------------------- */

void cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void cli_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* "varve: TEXT: what the library said"; returns CLI_FAILED. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Where the library's own sentence names the volume and what was to be done with it. */
int cli_fail_plain(void);
void cli_oom(void) __attribute__((noreturn));
char *cli_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Ends the program with a message when cli_deadline(0, NULL) does not come in time. */
void cli_deadline(unsigned int seconds, const char *what);

/* ---- output (text.c) ------------------------------------------------------------------------- */

/* Parses the library's JSON and frees the text. NULL after a message when it is none. */
json_t *cli_json(char *text);

void cli_print_json(const json_t *value);

/* "key: value" lines; sizes, times and durations are told by the keys' endings (_bytes, _ns). */
void cli_print_table(json_t *object);

/* A progress bar on stderr (bar.c): when wanted, or when that is a terminal. */
struct cli_bar {
	bool on;
	int percent; /* shown last; -1: nothing is */
};

void cli_bar_init(struct cli_bar *bar, bool wanted);
void cli_bar_clear(struct cli_bar *bar);
void cli_bar_show(struct cli_bar *bar, uint64_t done, uint64_t total);

/* One such line. */
void cli_print_field(const char *key, json_t *value, int indent);

/* "10.0 GiB" */
const char *cli_size_text(uint64_t bytes, char buf[32]);

#endif
