/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve attach and detach: a volume as a block device of the kernel.
 *
 * attach starts a server if none runs, then builds a device on it (device.c), and records each step
 * before or right after it is taken. detach reads that record and undoes what is left of it, in the
 * opposite order, whatever has died in between; it is also what attach does first when it finds the
 * remains of an attach whose server is gone. The server is stopped only when attach started it.
 *
 * File systems are the user's: detach refuses while the device is in use.
 */
#include "cli.h"
#include "device.h"
#include "run.h"
#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_TIMEOUT_S 120

static int need_root(const char *command)
{
	if (geteuid() == 0)
		return 0;
	cli_error("%s: a block device of the kernel needs root; without it, use varve serve and an "
		  "NBD client (nbdfuse, nbdcopy, qemu)",
		  command);
	return -1;
}

/* ---- detach ---------------------------------------------------------------------------------- */

static bool owned_server(const char *name)
{
	json_t *record = run_load(name, "server");
	const char *owner = json_string_value(json_object_get(record, "owner"));
	bool owned = owner && strcmp(owner, "attach") == 0;

	json_decref(record);
	return owned;
}

/* Takes down device and server; all messages are given. */
static int take_down(const char *name, unsigned int timeout_s, bool force)
{
	json_t *record = run_load(name, "device"), *server = server_find(name);
	int rc = CLI_OK;

	if (record && device_busy(name, record)) {
		rc = CLI_FAILED;
		goto out;
	}
	/* Without a server there is nobody to write to, and that is told once, below. */
	if (record && server && device_sync(name, record) < 0)
		rc = CLI_FAILED;
	if (record && device_undo(name, record, timeout_s) < 0) {
		rc = CLI_FAILED;
		goto out;
	}
	if (owned_server(name)) {
		enum server_end end = server_stop(name, timeout_s, force);

		/* One that had died lost nothing: there is a warning, and all is undone. */
		if (end == SERVER_DIRTY || end == SERVER_RUNNING)
			rc = CLI_FAILED;
	}
out:
	json_decref(record);
	json_decref(server);
	return rc;
}

static int detach(const struct cli_args *args)
{
	char *name = run_name(args->operands[0]);
	json_t *record;
	int lock, rc;

	if (need_root("detach") < 0)
		return CLI_FAILED;
	lock = run_lock(name, 30);
	if (lock < 0)
		return CLI_FAILED;
	record = run_load(name, "device");
	if (!record && !owned_server(name)) {
		cli_error("%s is not attached", name);
		rc = CLI_FAILED;
	} else {
		rc = take_down(name, cli_seconds(args, "timeout", DEFAULT_TIMEOUT_S),
			       cli_flag(args, "force"));
	}
	json_decref(record);
	close(lock);
	free(name);
	return rc;
}

/* ---- attach ---------------------------------------------------------------------------------- */

/* An attach that is alive is an error; the remains of a dead one are cleared away. */
static int clear_way(const char *name, unsigned int timeout_s)
{
	json_t *record = run_load(name, "device"), *server = server_find(name);
	const char *dev = record ? device_path(record) : NULL;
	bool alive = dev && server;
	int rc = 0;

	if (alive) {
		cli_error("%s is attached already, as %s", name, dev);
		rc = -1;
	} else if (record || (owned_server(name) && !server)) {
		cli_warn("%s: clearing away what an earlier attach left behind", name);
		if (record &&
		    (device_busy(name, record) || device_undo(name, record, timeout_s) < 0))
			rc = -1;
		if (rc == 0 && !server)
			server_stop(name, timeout_s, false);
	}
	json_decref(record);
	json_decref(server);
	return rc;
}

static int parse_method(const struct cli_args *args, enum device_method *ret)
{
	const char *text = cli_value(args, "method");

	if (!text || strcmp(text, "auto") == 0)
		*ret = device_best_method();
	else if (strcmp(text, "nbd") == 0)
		*ret = DEVICE_NBD;
	else if (strcmp(text, "fuse") == 0)
		*ret = DEVICE_FUSE;
	else {
		cli_error("attach: --method is auto, nbd or fuse, not %s", text);
		return -1;
	}
	if (*ret == DEVICE_FUSE && !run_has_program("nbdfuse")) {
		cli_error("nbdfuse is not installed (Debian: apt install libnbd-bin)");
		return -1;
	}
	return 0;
}

/* The server's block size, asked over its control socket; 512 when it does not tell. */
static uint32_t block_size(const char *volume)
{
	char *text = NULL;
	json_int_t block;
	json_t *answer;

	if (varve_control_call(volume, "{\"command\": \"info\"}", &text) < 0)
		return 512;
	answer = cli_json(text);
	block = json_integer_value(json_object_get(json_object_get(answer, "info"), "block_bytes"));
	json_decref(answer);
	return block == 1024 || block == 2048 || block == 4096 ? (uint32_t)block : 512;
}

static int build(struct device_options *opt, const char *volume, enum device_method method,
		 const json_t *server, json_t *record)
{
	int rc;

	opt->uri = json_string_value(json_object_get(server, "uri"));
	opt->socket = json_string_value(json_object_get(server, "socket"));
	opt->read_only = opt->read_only || json_is_true(json_object_get(server, "read_only"));
	opt->block_bytes = block_size(volume);
	/* nbd-client wants host and port apart; nbdfuse takes any URI. */
	if (!opt->socket && method == DEVICE_NBD)
		method = DEVICE_FUSE;
	rc = method == DEVICE_NBD ? device_add_nbd(opt, record) : device_add_fuse(opt, record);
	return rc < 0 ? rc : device_add_link(opt, record);
}

static void print_device(const struct cli_args *args, json_t *record, const json_t *server)
{
	if (!cli_flag(args, "json")) {
		printf("%s\n", json_string_value(json_object_get(record, "link")));
		return;
	}
	json_object_set_new(record, "device", json_string(device_path(record)));
	json_object_set(record, "server", json_object_get(server, "process"));
	json_object_set(record, "uri", json_object_get(server, "uri"));
	cli_print_json(record);
}

static int attach_locked(const struct cli_args *args, const struct server_options *server_opt,
			 enum device_method method)
{
	struct device_options opt = {
		.name = server_opt->name,
		.read_only = server_opt->read_only,
		.timeout_s = server_opt->timeout_s,
	};
	json_t *record = NULL, *server;
	int rc = CLI_FAILED;

	if (clear_way(opt.name, opt.timeout_s) < 0)
		return CLI_FAILED;
	server = server_find(opt.name);
	if (!server)
		server = server_start(server_opt);
	if (!server)
		return CLI_FAILED;
	record = json_object();
	if (build(&opt, server_opt->volume, method, server, record) == 0) {
		print_device(args, record, server);
		rc = CLI_OK;
	} else {
		take_down(opt.name, opt.timeout_s, false);
	}
	json_decref(record);
	json_decref(server);
	return rc;
}

static int attach(const struct cli_args *args)
{
	struct cli_settings settings = {0};
	struct server_options opt = {
		.volume = args->operands[0],
		.name = run_name(args->operands[0]),
		.owner = "attach",
		.threads = cli_value(args, "threads"),
		.settings = &settings,
		.read_only = cli_flag(args, "read-only"),
		.discard_cache = cli_flag(args, "discard-cache"),
		.timeout_s = cli_seconds(args, "timeout", DEFAULT_TIMEOUT_S),
	};
	enum device_method method;
	int lock, rc;

	if (cli_settings_from(&settings, args) != 0)
		return CLI_USAGE;
	if (need_root("attach") < 0 || parse_method(args, &method) < 0)
		return CLI_FAILED;
	lock = run_lock(opt.name, 30);
	if (lock < 0)
		return CLI_FAILED;
	rc = attach_locked(args, &opt, method);
	close(lock);
	return rc;
}

static const struct cli_option attach_options[] = {
	{"read-only", 'r', NULL, "a device that cannot be written"},
	{"discard-cache", 0, NULL, "open from the store alone; give up what the cache held"},
	{"set", 0, "KEY=VALUE", "override a setting; may be repeated"},
	{"method", 'm', "METHOD", "auto (default), nbd (the kernel's driver) or fuse"},
	{"threads", 0, "N", "requests at once (default 64)"},
	{"timeout", 0, "SECONDS", "wait so long for each piece (120)"},
	{"json", 'j', NULL, "print all that was set up as JSON"},
	{0},
};

static const struct cli_option detach_options[] = {
	{"timeout", 0, "SECONDS", "wait so long for the close (120)"},
	{"force", 0, NULL, "kill a server that takes longer; data stays in the cache"},
	{0},
};

const struct cli_command attach_commands[] = {
	{
		.name = "attach",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Makes a block device of a volume and prints its path.",
		.example = "mount \"$(varve attach vm1)\" /mnt",
		.options = attach_options,
		.run = attach,
	},
	{
		.name = "detach",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Undoes attach, closing the volume.",
		.example = "umount /mnt && varve detach vm1",
		.options = detach_options,
		.run = detach,
	},
	{0},
};
