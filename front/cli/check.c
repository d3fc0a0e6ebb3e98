/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve check: verifies what is at rest. Exit codes: 0 clean, 1 problems found, repaired or not, 2
 * it could not be checked (also when the command line is wrong, which is the same to a script).
 */
#include "cli.h"

#include <stdio.h>

/* The codes of this command. */
enum {
	CHECK_CLEAN = 0,
	CHECK_PROBLEMS = 1,
	CHECK_FAILED = 2
};

struct check_run {
	json_t *problems; /* with --json */
	struct cli_bar bar;
};

static void found(struct varve_check *check, const char *text)
{
	struct check_run *run = check->user;

	cli_bar_clear(&run->bar);
	if (run->problems)
		json_array_append_new(run->problems, json_string(text));
	else
		printf("problem: %s\n", text);
}

static void progress(struct varve_check *check, uint64_t done, uint64_t total)
{
	struct check_run *run = check->user;

	cli_bar_show(&run->bar, done, total);
}

static int check_volume(const struct cli_args *args)
{
	const char *name = args->operands[0];
	struct check_run run = {0};
	struct varve_check check = {.problem = found, .progress = progress, .user = &run};
	int n;

	cli_bar_init(&run.bar, cli_flag(args, "progress"));
	check.repair = cli_flag(args, "repair");
	if (cli_flag(args, "json"))
		run.problems = json_array();
	n = varve_check(name, &check);
	cli_bar_clear(&run.bar);
	if (n < 0) {
		cli_fail_plain();
	} else if (run.problems) {
		json_t *result = json_pack("{s:s, s:i, s:O}", "name", name, "count", n, "problems",
					   run.problems);

		cli_print_json(result);
		json_decref(result);
	} else if (n == 0) {
		printf("%s: clean\n", name);
	} else {
		printf("%s: %d problem%s\n", name, n, n == 1 ? "" : "s");
	}
	json_decref(run.problems);
	return n < 0 ? CHECK_FAILED : n == 0 ? CHECK_CLEAN : CHECK_PROBLEMS;
}

static const struct cli_option check_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{"progress", 'p', NULL, "show a progress bar even when stderr is no terminal"},
	{"repair", 'r', NULL, "mend what can be mended (type btt); check again afterwards"},
	{0},
};

const struct cli_command check_commands[] = {
	{
		.name = "check",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Verifies everything that a volume has at rest.",
		.example = "varve check vm1",
		.options = check_options,
		.run = check_volume,
	},
	{0},
};
