/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve status, message, flush: talking to whoever has a volume open.
 *
 * The server is asked over its control socket. When nobody has the volume open, status opens it for
 * reading, and message and flush open it, do what is asked, and close it again.
 */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Sends the request to the volume's server. *ret: the answer, NULL after a message. Returns false
 * when nobody has the volume open. timeout_s 0: only the library's own.
 */
static bool ask_server(const char *name, json_t *request, unsigned int timeout_s, json_t **ret)
{
	char *text = json_dumps(request, JSON_COMPACT), *answer = NULL;
	int rc;

	*ret = NULL;
	if (!text)
		cli_oom();
	cli_deadline(timeout_s, name);
	rc = varve_control_call(name, text, &answer);
	cli_deadline(0, NULL);
	free(text);
	if (rc == -ENOENT)
		return false;
	if (rc < 0) {
		cli_fail("%s: its server does not answer", name);
		return true;
	}
	*ret = cli_json(answer);
	if (*ret && json_is_false(json_object_get(*ret, "ok"))) {
		const char *why = json_string_value(json_object_get(*ret, "error"));

		cli_error("%s: %s", name, why ? why : "the server refused");
		json_decref(*ret);
		*ret = NULL;
	}
	return true;
}

/* ---- status ---------------------------------------------------------------------------------- */

static json_t *status_of_closed(const char *name)
{
	struct varve_volume *v;
	json_t *status = NULL;
	char *text = NULL;

	if (varve_open(name, VARVE_OPEN_READ_ONLY, &v) < 0) {
		cli_fail("%s is not open anywhere, and cannot be opened", name);
		return NULL;
	}
	if (varve_status(v, &text) < 0)
		cli_fail("%s: no status", name);
	else
		status = cli_json(text);
	varve_close(v);
	return status;
}

static int print_status(const struct cli_args *args, const char *name, json_t *value)
{
	const char *line = json_string_value(json_object_get(value, "line"));

	if (cli_flag(args, "line")) {
		if (!line) {
			cli_error("%s has no status line: a boost volume that has its cache has "
				  "one",
				  name);
			return CLI_FAILED;
		}
		printf("%s\n", line);
	} else if (cli_flag(args, "json")) {
		cli_print_json(value);
	} else {
		/* An empty list reads as nothing, not as a number. */
		if (!json_array_size(json_object_get(value, "reasons")))
			json_object_del(value, "reasons");
		cli_print_table(value);
	}
	return CLI_OK;
}

static int status(const struct cli_args *args)
{
	const char *name = args->operands[0];
	json_t *request = json_pack("{s:s}", "command", "status");
	json_t *answer, *value = NULL;
	int rc;

	if (ask_server(name, request, cli_seconds(args, "timeout", 0), &answer)) {
		if (answer)
			value = json_incref(json_object_get(answer, "status"));
		json_decref(answer);
	} else {
		value = status_of_closed(name);
	}
	json_decref(request);
	if (!value)
		return CLI_FAILED;
	rc = print_status(args, name, value);
	json_decref(value);
	return rc;
}

/* ---- message --------------------------------------------------------------------------------- */

/*
 * Waiting ends with SIGINT. Nothing is closed then, since closing would write back what was asked
 * for: it is as after a crash, all that was acknowledged is safe in the cache.
 */
static void interrupted(int signal)
{
	static const char text[] = "varve: interrupted; what was not written back stays in the "
				   "cache\n";

	(void)signal;
	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(130);
	_exit(130);
}

static void interruptible(bool on)
{
	const struct sigaction act = {.sa_handler = on ? interrupted : SIG_DFL};

	sigaction(SIGINT, &act, NULL);
}

/* Opens, tells, closes; the answer is printed. */
static int message_to_closed(const char *name, const char *text)
{
	struct varve_volume *v;
	char *answer = NULL;
	int rc;

	if (varve_open(name, 0, &v) < 0)
		return cli_fail("%s is not open anywhere, and cannot be opened", name);
	interruptible(true);
	rc = varve_message(v, text, &answer);
	interruptible(false);
	if (rc < 0)
		cli_fail("%s: %s", name, text);
	if (varve_close(v) < 0) {
		cli_fail("closing %s", name);
		rc = -1;
	}
	if (rc >= 0 && answer && answer[0])
		printf("%s\n", answer);
	free(answer);
	return rc < 0 ? CLI_FAILED : CLI_OK;
}

int cli_message(const char *name, const char *text, unsigned int timeout_s)
{
	json_t *request = json_pack("{s:s, s:s}", "command", "message", "text", text);
	json_t *answer, *value;
	bool served;

	served = ask_server(name, request, timeout_s, &answer);
	json_decref(request);
	if (!served && strcmp(text, "suspend") == 0) {
		cli_error("%s is not open anywhere: there is nothing to suspend", name);
		return CLI_FAILED;
	}
	if (!served)
		return message_to_closed(name, text);
	if (!answer)
		return CLI_FAILED;
	value = json_object_get(answer, "answer");
	if (value && !json_is_null(value))
		cli_print_json(value);
	json_decref(answer);
	return CLI_OK;
}

static int send_message(const struct cli_args *args, const char *text)
{
	return cli_message(args->operands[0], text, cli_seconds(args, "timeout", 600));
}

static int message(const struct cli_args *args)
{
	char *text = cli_format("%s", args->operands[1]);
	int i, rc;

	for (i = 2; i < args->n; i++) {
		char *more = cli_format("%s %s", text, args->operands[i]);

		free(text);
		text = more;
	}
	rc = send_message(args, text);
	free(text);
	return rc;
}

static int flush(const struct cli_args *args)
{
	return send_message(args, cli_flag(args, "store") ? "drain" : "flush");
}

static const struct cli_option status_options[] = {
	{"json", 'j', NULL, "print JSON"},
	{"line", 'l', NULL, "boost: print the line of numbers of dm-writeboost"},
	{"timeout", 0, "SECONDS", "wait so long for the answer, 10 at most (10)"},
	{0},
};

static const struct cli_option message_options[] = {
	{"timeout", 0, "SECONDS", "wait so long until it is done (600)"},
	{0},
};

static const struct cli_option flush_options[] = {
	{"store", 0, NULL, "until everything has reached the store, not only the cache"},
	{"timeout", 0, "SECONDS", "wait so long until it is done (600)"},
	{0},
};

const struct cli_command status_commands[] = {
	{
		.name = "status",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Shows the state of a volume.",
		.example = "varve status vm1",
		.options = status_options,
		.run = status,
	},
	{
		.name = "message",
		.operands = "NAME TEXT...",
		.min = 2,
		.max = 64,
		.summary = "Tells an open volume to do something or changes a setting.",
		.example = "varve message vm1 checkpoint",
		.options = message_options,
		.run = message,
	},
	{
		.name = "flush",
		.operands = "NAME",
		.min = 1,
		.max = 1,
		.summary = "Makes what was written durable, or with --store destages it.",
		.example = "varve flush vm1 --store",
		.options = flush_options,
		.run = flush,
	},
	{0},
};
