/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve cache create and info: the file or device that holds the write log.
 */
#include "cli.h"

#include <string.h>

static int cache_create(const struct cli_args *args)
{
	const char *path = args->operands[0];
	struct cli_settings settings = {0};
	static const char *const none[] = {NULL};

	if (cli_value(args, "size"))
		cli_settings_add(&settings, "size", cli_value(args, "size"));
	if (cli_value(args, "uuid"))
		cli_settings_add(&settings, "uuid", cli_value(args, "uuid"));
	if (cli_flag(args, "force"))
		cli_settings_add(&settings, "force", "yes");
	if (varve_cache_create(path, settings.list ? settings.list : none) < 0)
		return cli_fail("cannot make %s a cache", path);
	return CLI_OK;
}

static int cache_info(const struct cli_args *args)
{
	const char *path = args->operands[0];
	char *text = NULL;
	json_t *value;

	if (varve_dump(path, "cache", &text) < 0)
		return cli_fail("cannot read the cache %s", path);
	value = cli_json(text);
	if (!value)
		return CLI_FAILED;
	if (cli_flag(args, "json"))
		cli_print_json(value);
	else
		cli_print_table(value);
	json_decref(value);
	return CLI_OK;
}

static const struct cli_option create_options[] = {
	{"size", 's', "SIZE", "size of a file that is made; a device is used whole"},
	{"uuid", 'u', "UUID", "the volume that it is to serve"},
	{"force", 'f', NULL, "format it even if it holds a log; what that held is lost"},
	{0},
};

static const struct cli_option info_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{0},
};

const struct cli_command cache_commands[] = {
	{
		.group = "cache",
		.name = "create",
		.operands = "PATH",
		.min = 1,
		.max = 1,
		.summary = "Formats a file or device as a cache.",
		.example = "varve cache create /dev/nvme0n1p3",
		.options = create_options,
		.run = cache_create,
	},
	{
		.group = "cache",
		.name = "info",
		.operands = "PATH",
		.min = 1,
		.max = 1,
		.summary = "Tells what a cache holds and whose it is.",
		.example = "varve cache info /ssd/vm1",
		.options = info_options,
		.run = cache_info,
	},
	{0},
};
