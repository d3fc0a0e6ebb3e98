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

/* What the definition says, borrowed from ret_all, which is to be freed. */
static const char *defined(const char *name, const char *key, json_t **ret_all)
{
	char *text = NULL;

	*ret_all = varve_definition(name, &text) < 0 ? NULL : cli_json(text);
	return json_string_value(json_object_get(*ret_all, key));
}

/* Of a volume that is not worth much without its cache that is said, once. */
static void promise_note(const char *name)
{
	json_t *all;
	const char *type = defined(name, "type", &all);
	const char *promise = json_string_value(json_object_get(all, "without_cache"));

	if (type && promise && strcmp(type, "lsvd") != 0)
		fprintf(stderr, "%s: without its cache: %s\n", name, promise);
	json_decref(all);
}

static int create(const struct cli_args *args)
{
	/* Options that are settings by another name. */
	static const char *const same[][2] = {
		{"size", "size"},
		{"store", "store"},
		{"backing", "backing"},
		{"cache", "cache"},
		{"cache-size", "cache_size"},
		{"block-size", "block_size"},
		{"type", "type"},
		{"template", "template"},
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
		cli_error("create: a new volume needs at least --size, --store and --cache, or "
			  "--type boost, --backing and --cache, or --template");
		return CLI_USAGE;
	}
	if (varve_create(name, settings.list) < 0)
		return cli_fail_plain();
	promise_note(name);
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
	const char *type = json_string_value(json_object_get(state, "type"));
	const json_t *server = json_object_get(state, "server");
	const char *device = json_string_value(json_object_get(state, "device"));

	printf("%-20s %-6s ", name, type ? type : "?");
	if (json_is_null(server))
		printf("%s\n", device ? "server died; varve detach clears up" : "-");
	else if (device)
		printf("attached %s\n", device);
	else
		printf("served %s\n",
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
		json_t *state = running(*n), *definition;
		const char *type = defined(*n, "type", &definition);

		json_object_set_new(state, "type", type ? json_string(type) : json_null());
		if (cli_flag(args, "json")) {
			json_object_set_new(state, "name", json_string(*n));
			json_array_append(all, state);
		} else {
			list_line(*n, state);
		}
		json_decref(definition);
		json_decref(state);
	}
	if (cli_flag(args, "json"))
		cli_print_json(all);
	varve_free_names(names);
	json_decref(all);
	return CLI_OK;
}

/* Where it is, and how cache and home are bound: what status knows of that. */
static void info_places(json_t *info, const json_t *status)
{
	static const char *const from[][3] = {
		{"cache", "cache", "path"},
		{"store", "store", "place"},
		{"backing", "backing", "path"},
		{"binding", "home", "binding"},
	};

	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		json_t *value = json_object_get(json_object_get(status, from[i][1]), from[i][2]);

		if (value)
			json_object_set(info, from[i][0], value);
	}
	if (json_object_get(status, "without_cache"))
		json_object_set(info, "without_cache", json_object_get(status, "without_cache"));
}

static json_t *info_of_open(const char *volume)
{
	struct varve_volume *v;
	struct varve_info info;
	char *text = NULL;
	json_t *ret, *status;

	if (varve_open(volume, VARVE_OPEN_READ_ONLY, &v) < 0) {
		cli_fail_plain();
		return NULL;
	}
	varve_get_info(v, &info);
	status = varve_status(v, &text) < 0 ? NULL : cli_json(text);
	varve_close(v);
	ret = json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:i}", "name", info.name, "type",
			 info.type, "uuid", info.uuid, "size_bytes", (json_int_t)info.size_bytes,
			 "block_bytes", (int)info.block_bytes, "optimal_bytes",
			 (int)info.optimal_bytes, "max_atomic_bytes", (int)info.max_atomic_bytes);
	info_places(ret, status);
	json_decref(status);
	return ret;
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
	text = NULL;
	if (ret && varve_control_call(volume, "{\"command\": \"status\"}", &text) == 0) {
		answer = cli_json(text);
		info_places(ret, json_object_get(answer, "status"));
		json_decref(answer);
	}
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

static unsigned int delete_flags(const struct cli_args *args)
{
	return (cli_flag(args, "keep-data") ? VARVE_DELETE_KEEP_DATA : 0) |
	       (cli_flag(args, "drain") ? VARVE_DELETE_DRAIN : 0) |
	       (cli_flag(args, "force") ? VARVE_DELETE_FORCE : 0);
}

/* What a removal by force has given up. Takes the text. */
static void tell_lost(const struct cli_args *args, char *text)
{
	json_t *told = cli_json(text);
	const json_t *list = json_object_get(told, "list");
	const json_int_t ranges = json_integer_value(json_object_get(told, "ranges"));
	const json_int_t bad = json_integer_value(json_object_get(told, "bad_bytes"));
	char size[32];
	json_t *range;
	size_t i;

	if (cli_flag(args, "json")) {
		cli_print_json(told);
	} else if (json_is_true(json_object_get(told, "unknown"))) {
		printf("nobody knows what is lost: %s\n",
		       json_string_value(json_object_get(told, "reason")));
	} else if (ranges) {
		printf("lost: %s in %lld ranges\n",
		       cli_size_text((uint64_t)json_integer_value(
					     json_object_get(told, "lost_bytes")),
				     size),
		       (long long)ranges);
		json_array_foreach(list, i, range)
			printf("  LBA %lld, %lld bytes\n",
			       (long long)json_integer_value(json_object_get(range, "offset")) /
				       512,
			       (long long)json_integer_value(json_object_get(range, "length")));
		if ((size_t)ranges > json_array_size(list))
			printf("  and %lld ranges more\n",
			       (long long)ranges - (long long)json_array_size(list));
	}
	if (bad && !cli_flag(args, "json"))
		printf("lost before, to damage in the cache: %s\n",
		       cli_size_text((uint64_t)bad, size));
	json_decref(told);
}

static int delete_locked(const struct cli_args *args, const char *name)
{
	bool data = !cli_flag(args, "keep-data");
	json_t *server = server_find(name), *device = run_load(name, "device");
	bool busy = server || device;
	char *told = NULL;
	int rc;

	json_decref(server);
	json_decref(device);
	if (busy) {
		cli_error("%s is %s; end that first: varve %s %s", name,
			  device ? "attached" : "served", device ? "detach" : "serve --stop", name);
		return CLI_FAILED;
	}
	if (!cli_flag(args, "yes") && !confirmed(name, data))
		return CLI_FAILED;
	rc = varve_delete_with(name, delete_flags(args), &told);
	if (rc < 0)
		cli_fail_plain();
	if (told && (rc == 0 || cli_flag(args, "force")))
		tell_lost(args, told);
	else
		free(told);
	return rc < 0 ? CLI_FAILED : CLI_OK;
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

/* ---- resize ---------------------------------------------------------------------------------- */

/* The library parses sizes of settings; a message has the same form. */
static int resize(const struct cli_args *args)
{
	char *text = cli_format("resize%s%s%s", args->n > 1 ? " " : "",
				args->n > 1 ? args->operands[1] : "",
				cli_flag(args, "shrink") ? " shrink" : "");
	int rc = cli_message(args->operands[0], text, cli_seconds(args, "timeout", 600));

	free(text);
	return rc;
}

/* ---- table ----------------------------------------------------------------------------------- */

static const struct cli_option create_options[] = {
	{"size", 's', "SIZE", "size of the volume: 10G, 512M, ..."},
	{"store", 0, "STORE", "where its objects go: dir:/path/base"},
	{"cache", 'c', "PATH", "file or device for the write log"},
	{"cache-size", 0, "SIZE", "size of a cache file that is made"},
	{"block-size", 0, "SIZE", "unit of atomicity, 512 (default) to 4096"},
	{"type", 0, "TYPE", "kind of volume: lsvd (default), boost or btt"},
	{"backing", 'b', "PATH", "boost: the device or file that is cached; btt: the pool"},
	{"template", 't', "NAME", "read settings from NAME.template first"},
	{"set", 0, "KEY=VALUE", "any setting of varve.conf(5); may be repeated"},
	{0},
};

static const struct cli_option list_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{0},
};

static const struct cli_option delete_options[] = {
	{"yes", 'y', NULL, "do not ask"},
	{"keep-data", 0, NULL, "remove the definition only; data and cache stay"},
	{"drain", 0, NULL, "boost: write back what only the cache holds first"},
	{"force", 0, NULL, "boost: give up what only the cache holds, and tell what that is"},
	{"json", 'j', NULL, "tell it as JSON"},
	{0},
};

static const struct cli_option resize_options[] = {
	{"shrink", 0, NULL, "allow a smaller size: what lies beyond is discarded"},
	{"timeout", 0, "SECONDS", "wait so long until it is done (600)"},
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
	{
		.name = "resize",
		.operands = "NAME [SIZE]",
		.min = 1,
		.max = 2,
		.summary = "Changes the size of a volume, or takes over its device's.",
		.example = "varve resize vm1 20G",
		.options = resize_options,
		.run = resize,
	},
	{0},
};
