/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve dump: what lies on a cache or in a store, as text.
 *
 * A superblock is printed with the fields that people of object-stream disks know, in their order
 * (name, magic, UUID, version, type, seq, ...), and then with whatever else the library tells.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* Each line of the known form: its label and the keys that may hold it. */
static const char *const known[][3] = {
	{"name", "name", NULL},
	{"magic", "magic", NULL},
	{"UUID", "uuid", NULL},
	{"version", "version", NULL},
	{"type", "type", NULL},
	{"seq", "seq", NULL},
	{"n_hdr", "n_hdr", NULL},
	{"n_data", "n_data", NULL},
	{"vol_size", "vol_size", NULL},
	{"total_sectors", "total_sectors", NULL},
	{"live_sectors", "live_sectors", NULL},
	{"ckpts", "ckpts", "checkpoints"},
	{"clones", "clones", NULL},
	{"snaps", "snaps", "snapshots"},
};

#define N_KNOWN (sizeof(known) / sizeof(known[0]))

static void print_superblock(json_t *value)
{
	const char *magic = json_string_value(json_object_get(value, "magic"));
	size_t i, k;

	/* The library has compared it, or there would be nothing to print. */
	if (magic && strcmp(magic, "OK") != 0) {
		char *text = cli_format("OK (%s)", magic);

		json_object_set_new(value, "magic", json_string(text));
		free(text);
	}
	for (i = 0; i < N_KNOWN; i++) {
		json_t *member = NULL;

		for (k = 1; k < 3 && known[i][k] && !member; k++) {
			member = json_object_get(value, known[i][k]);
			json_incref(member);
			json_object_del(value, known[i][k]);
		}
		/* An empty list reads as nothing, not as a number. */
		if (json_is_array(member) && json_array_size(member) == 0)
			printf("%s:%*s[]\n", known[i][0], 27 - (int)strlen(known[i][0]), "");
		else
			cli_print_field(known[i][0], member, 0);
		json_decref(member);
	}
	cli_print_table(value);
}

static bool is_path(const char *text)
{
	struct stat st;

	return !strchr(text, ',') && strchr(text, '/') && stat(text, &st) == 0 &&
	       !S_ISDIR(st.st_mode);
}

static int dump(const struct cli_args *args)
{
	const char *of = args->operands[0], *what;
	char *text = NULL;
	json_t *value;

	what = args->n > 1 ? args->operands[1] : is_path(of) ? "cache" : "superblock";
	if (varve_dump(of, what, &text) < 0)
		return cli_fail("cannot dump %s of %s", what, of);
	value = cli_json(text);
	if (!value)
		return CLI_FAILED;
	if (cli_flag(args, "json"))
		cli_print_json(value);
	else if (strcmp(what, "superblock") == 0 && json_is_object(value))
		print_superblock(value);
	else
		cli_print_table(value);
	json_decref(value);
	return CLI_OK;
}

static const struct cli_option dump_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{0},
};

const struct cli_command dump_commands[] = {
	{
		.name = "dump",
		.operands = "NAME|PATH [WHAT]",
		.min = 1,
		.max = 2,
		.summary = "Shows media: superblock, objects, checkpoint, cache, log, or a key.",
		.example = "varve dump vm1 superblock",
		.options = dump_options,
		.run = dump,
	},
	{0},
};
