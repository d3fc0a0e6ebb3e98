/* SPDX-License-Identifier: BSD-3-Clause */
/* varve import: makes a pool of Varve's of one that PMDK's libpmemblk made. */
#include "cli.h"

#include <stdio.h>

#include <varve/btt.h>

struct import_run {
	struct cli_bar bar;
	json_t *lost; /* with --json */
	unsigned int nlost;
};

static void lost(struct varve_check *check, const char *text)
{
	struct import_run *run = check->user;

	cli_bar_clear(&run->bar);
	run->nlost++;
	if (run->lost)
		json_array_append_new(run->lost, json_string(text));
	else
		cli_warn("%s", text);
}

static void progress(struct varve_check *check, uint64_t done, uint64_t total)
{
	struct import_run *run = check->user;

	cli_bar_show(&run->bar, done, total);
}

static int import(const struct cli_args *args)
{
	const char *source = args->operands[0], *dest = args->operands[1];
	struct import_run run = {0};
	struct varve_check check = {.problem = lost, .progress = progress, .user = &run};
	int rc;

	cli_bar_init(&run.bar, cli_flag(args, "progress"));
	if (cli_flag(args, "json"))
		run.lost = json_array();
	rc = varve_btt_import(source, dest, &check);
	cli_bar_clear(&run.bar);
	if (rc < 0) {
		cli_fail_plain();
	} else if (run.lost) {
		json_t *result = json_pack("{s:s, s:s, s:O}", "source", source, "pool", dest,
					   "lost", run.lost);

		cli_print_json(result);
		json_decref(result);
	} else {
		printf("%s: made of %s, which is as it was; %u block%s could not be read\n", dest,
		       source, run.nlost, run.nlost == 1 ? "" : "s");
	}
	json_decref(run.lost);
	return rc < 0 || run.nlost ? CLI_FAILED : CLI_OK;
}

static const struct cli_option import_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{"progress", 'p', NULL, "show a progress bar even when stderr is no terminal"},
	{0},
};

const struct cli_command import_commands[] = {
	{
		.name = "import",
		.operands = "PMDK-POOL NEW-POOL",
		.min = 2,
		.max = 2,
		.summary = "Makes a pool of one that PMDK's libpmemblk made.",
		.example = "varve import /mnt/pmem/old.pool /mnt/pmem/new.pool",
		.options = import_options,
		.run = import,
	},
	{0},
};
