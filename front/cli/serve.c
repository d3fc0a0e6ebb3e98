/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve serve: an NBD server for a volume, for any NBD client: qemu, nbdcopy, libnbd, nbd-client.
 * All of the work is in server.c, which attach uses too.
 */
#include "cli.h"
#include "run.h"
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int stop(const struct cli_args *args, const char *name)
{
	json_t *record = server_find(name);
	const char *owner = json_string_value(json_object_get(record, "owner"));
	bool attached = owner && strcmp(owner, "attach") == 0;
	enum server_end end;

	json_decref(record);
	if (attached) {
		cli_error("%s is attached; varve detach %s stops its server too", name, name);
		return CLI_FAILED;
	}
	end = server_stop(name, cli_seconds(args, "timeout", 120), cli_flag(args, "force"));
	if (end == SERVER_NONE)
		cli_error("%s is not served", name);
	return end == SERVER_CLEAN || end == SERVER_DIED ? CLI_OK : CLI_FAILED;
}

static int start(const struct cli_args *args, struct server_options *opt)
{
	json_t *record;

	if (cli_flag(args, "foreground"))
		return server_exec(opt);
	record = server_start(opt);
	if (!record)
		return CLI_FAILED;
	if (cli_flag(args, "json"))
		cli_print_json(record);
	else
		printf("%s\n", json_string_value(json_object_get(record, "uri")));
	json_decref(record);
	return CLI_OK;
}

static int serve(const struct cli_args *args)
{
	struct cli_settings settings = {0};
	struct server_options opt = {
		.volume = args->operands[0],
		.name = run_name(args->operands[0]),
		.owner = "serve",
		.socket = cli_value(args, "socket"),
		.tcp = cli_value(args, "tcp"),
		.threads = cli_value(args, "threads"),
		.settings = &settings,
		.read_only = cli_flag(args, "read-only"),
		.discard_cache = cli_flag(args, "discard-cache"),
		.timeout_s = cli_seconds(args, "timeout", 120),
	};
	char host[256], port[8];
	int lock, rc;

	if (cli_settings_from(&settings, args) != 0)
		return CLI_USAGE;
	if (opt.socket && opt.tcp) {
		cli_error("serve: --socket and --tcp exclude each other");
		return CLI_USAGE;
	}
	if (opt.tcp && nbd_split_tcp(opt.tcp, host, port) < 0) {
		cli_error("serve: expected --tcp HOST:PORT, not %s", opt.tcp);
		return CLI_USAGE;
	}
	if (!run_has_program("nbdkit")) {
		cli_error("nbdkit is not installed (Debian: apt install nbdkit)");
		return CLI_FAILED;
	}
	lock = run_lock(opt.name, 10);
	if (lock < 0)
		return CLI_FAILED;
	rc = cli_flag(args, "stop") ? stop(args, opt.name) : start(args, &opt);
	close(lock);
	return rc;
}

static const struct cli_option serve_options[] = {
	{"socket", 's', "PATH", "unix socket to listen on (default RUN/NAME.nbd)"},
	{"tcp", 't', "HOST:PORT", "listen on TCP instead; no encryption, no password"},
	{"read-only", 'r', NULL, "open for reading, refuse writes"},
	{"discard-cache", 0, NULL, "open from the store alone; give up what the cache held"},
	{"set", 0, "KEY=VALUE", "override a setting; may be repeated"},
	{"threads", 0, "N", "requests at once (default 64)"},
	{"foreground", 'f', NULL, "do not go to the background"},
	{"timeout", 0, "SECONDS", "wait so long for the first answer, or for the end (120)"},
	{"stop", 0, NULL, "end the server that runs: flush, destage, close"},
	{"force", 0, NULL, "with --stop: kill it when that takes too long"},
	{"json", 'j', NULL, "print the server's record as JSON"},
	{0},
};

const struct cli_command serve_commands[] = {
	{
		.name = "serve",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Serves a volume over NBD and prints its URI.",
		.example = "nbdinfo \"$(varve serve vm1)\"",
		.options = serve_options,
		.run = serve,
	},
	{0},
};
