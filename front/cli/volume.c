/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve create, list, info, delete: the definitions of volumes.
 *
 * What a volume is lies in the library; what runs for it is in the run directory's records. list
 * and info join the two. A volume that is being served is never opened a second time here: its
 * server is asked instead.
 */
#include "cli.h"
#include "device.h"
#include "run.h"
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- create ---------------------------------------------------------------------------------- */

static int create(const struct cli_args *args)
{
	/* Options that are settings by another name. */
	static const char *const same[][2] = {
		{"size", "size"},
		{"store", "store"},
		{"cache", "cache"},
		{"cache-size", "cache_size"},
		{"block-size", "block_size"},
		{"type", "type"},
	};
	struct cli_settings settings = {0};
	const char *name = args->operands[0];
	size_t i;

	for (i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
		const char *value = cli_value(args, same[i][0]);

		if (value)
			cli_settings_add(&settings, same[i][1], value);
	}
	if (cli_settings_from(&settings, args) != 0)
		return CLI_USAGE;
	if (!settings.list) {
		cli_error("create: a new volume needs at least --size, --store and --cache");
		return CLI_USAGE;
	}
	if (varve_create(name, settings.list) < 0)
		return cli_fail_plain();
	return CLI_OK;
}

/* ---- list and info --------------------------------------------------------------------------- */

/* What runs for a volume: {"server": {"pid", "uri"} or null, "device": path or null}. */
static json_t *running(const char *volume)
{
	char *name = run_name(volume);
	json_t *server = server_find(name), *device = run_load(name, "device");
	const char *path = device ? device_path(device) : NULL;
	json_t *ret = json_object();

	if (server)
		json_object_set_new(
			ret, "server",
			json_pack("{s:O, s:O}", "pid",
				  json_object_get(json_object_get(server, "process"), "pid"), "uri",
				  json_object_get(server, "uri")));
	else
		json_object_set_new(ret, "server", json_null());
	json_object_set_new(ret, "device", path ? json_string(path) : json_null());
	json_decref(server);
	json_decref(device);
	free(name);
	return ret;
}

static void list_line(const char *name, const json_t *state)
{
	const json_t *server = json_object_get(state, "server");
	const char *device = json_string_value(json_object_get(state, "device"));

	if (json_is_null(server))
		printf("%-20s %s\n", name, device ? "server died; varve detach clears up" : "-");
	else if (device)
		printf("%-20s attached %s\n", name, device);
	else
		printf("%-20s served %s\n", name,
		       json_string_value(json_object_get(server, "uri")));
}

static int list(const struct cli_args *args)
{
	json_t *all = json_array();
	char **names, **n;

	if (varve_list(&names) < 0) {
		json_decref(all);
		return cli_fail("cannot list the volumes");
	}
	for (n = names; *n; n++) {
		json_t *state = running(*n);

		if (cli_flag(args, "json")) {
			json_object_set_new(state, "name", json_string(*n));
			json_array_append(all, state);
		} else {
			list_line(*n, state);
		}
		json_decref(state);
	}
	if (cli_flag(args, "json"))
		cli_print_json(all);
	varve_free_names(names);
	json_decref(all);
	return CLI_OK;
}

static json_t *info_of_open(const char *volume)
{
	struct varve_volume *v;
	struct varve_info info;

	if (varve_open(volume, VARVE_OPEN_READ_ONLY, &v) < 0) {
		cli_fail_plain();
		return NULL;
	}
	varve_get_info(v, &info);
	varve_close(v);
	return json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:i}", "name", info.name, "type",
			 info.type, "uuid", info.uuid, "size_bytes", (json_int_t)info.size_bytes,
			 "block_bytes", (int)info.block_bytes, "optimal_bytes",
			 (int)info.optimal_bytes, "max_atomic_bytes", (int)info.max_atomic_bytes);
}

static json_t *info_of_server(const char *volume)
{
	json_t *answer, *ret;
	char *text = NULL;
	int rc;

	rc = varve_control_call(volume, "{\"command\": \"info\"}", &text);
	if (rc < 0) {
		cli_fail("%s: its server does not answer", volume);
		return NULL;
	}
	answer = cli_json(text);
	ret = json_incref(json_object_get(answer, "info"));
	if (!ret)
		cli_error("%s: its server does not tell", volume);
	json_decref(answer);
	return ret;
}

static int info(const struct cli_args *args)
{
	const char *volume = args->operands[0];
	json_t *state = running(volume), *ret;
	int rc = CLI_FAILED;

	if (json_is_null(json_object_get(state, "server")))
		ret = info_of_open(volume);
	else
		ret = info_of_server(volume);
	if (ret) {
		json_object_update(ret, state);
		if (cli_flag(args, "json"))
			cli_print_json(ret);
		else
			cli_print_table(ret);
		rc = CLI_OK;
	}
	json_decref(state);
	json_decref(ret);
	return rc;
}

/* ---- delete ---------------------------------------------------------------------------------- */

static bool confirmed(const char *name, bool data)
{
	char answer[16] = "";

	if (!isatty(STDIN_FILENO)) {
		cli_error("delete asks before it deletes; without a terminal, give --yes");
		return false;
	}
	printf("Delete the volume %s%s? [y/N] ", name,
	       data ? " and all of its data" : "'s definition (the data stays)");
	fflush(stdout);
	if (!fgets(answer, sizeof(answer), stdin))
		return false;
	return answer[0] == 'y' || answer[0] == 'Y';
}

static int delete_locked(const struct cli_args *args, const char *name)
{
	bool data = !cli_flag(args, "keep-data");
	json_t *server = server_find(name), *device = run_load(name, "device");
	bool busy = server || device;

	json_decref(server);
	json_decref(device);
	if (busy) {
		cli_error("%s is %s; end that first: varve %s %s", name,
			  device ? "attached" : "served", device ? "detach" : "serve --stop", name);
		return CLI_FAILED;
	}
	if (!cli_flag(args, "yes") && !confirmed(name, data))
		return CLI_FAILED;
	if (varve_delete(name, data) < 0)
		return cli_fail_plain();
	return CLI_OK;
}

static int delete (const struct cli_args *args)
{
	const char *name = args->operands[0];
	int lock, rc;

	lock = run_lock(name, 10);
	if (lock < 0)
		return CLI_FAILED;
	rc = delete_locked(args, name);
	close(lock);
	return rc;
}

/* ---- table ----------------------------------------------------------------------------------- */

static const struct cli_option create_options[] = {
	{"size", 's', "SIZE", "size of the volume: 10G, 512M, ..."},
	{"store", 0, "STORE", "where its objects go: dir:/path/base"},
	{"cache", 'c', "PATH", "file or device for the write log"},
	{"cache-size", 0, "SIZE", "size of a cache file that is made"},
	{"block-size", 0, "SIZE", "unit of atomicity, 512 (default) to 4096"},
	{"type", 0, "TYPE", "kind of volume (default lsvd)"},
	{"set", 0, "KEY=VALUE", "any setting of varve.conf(5); may be repeated"},
	{0},
};

static const struct cli_option list_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{0},
};

static const struct cli_option delete_options[] = {
	{"yes", 'y', NULL, "do not ask"},
	{"keep-data", 0, NULL, "remove the definition only; objects and cache stay"},
	{0},
};

const struct cli_command volume_commands[] = {
	{
		.name = "create",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Creates a volume and its definition.",
		.example = "varve create vm1 --size 10G --store dir:/srv/varve/vm1 "
			   "--cache /ssd/vm1 --cache-size 1G",
		.options = create_options,
		.run = create,
	},
	{
		.name = "list",
		.operands = "",
		.summary = "Lists the volumes and what runs for them.",
		.example = "varve list",
		.options = list_options,
		.run = list,
	},
	{
		.name = "info",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Describes a volume.",
		.example = "varve info vm1 --json | jq .size_bytes",
		.options = list_options,
		.run = info,
	},
	{
		.name = "delete",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Deletes a volume, its data included.",
		.example = "varve delete vm1 --yes",
		.options = delete_options,
		.run = delete,
	},
	{0},
};
