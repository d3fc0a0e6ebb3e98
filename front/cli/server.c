/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starting and stopping nbdkit with the varve plugin.
 *
 * nbdkit runs in the foreground (-f) as a daemon of ours: the volume is opened after nbdkit's own
 * fork, when its parent would be gone, and the reason of a failure would reach nobody. So we wait
 * for one of two events: the server greets an NBD client, or it ends, and then its log says why.
 *
 * A stop is SIGTERM. nbdkit drops its connections, and the plugin closes the volume and writes how
 * that went to NAME.result. No result file means that the server died: then the data is in the
 * cache, and the next open recovers it.
 *
 * The plugin is the one of the build tree when this program runs from there, else the installed
 * one, else whatever nbdkit itself finds under the name "varve"; VARVE_PLUGIN overrides.
 */
#include "server.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "run.h"

#ifndef VARVE_PLUGIN_DIR
#define VARVE_PLUGIN_DIR "/usr/local/lib/nbdkit/plugins"
#endif

#define PLUGIN_FILE "nbdkit-varve-plugin.so"
#define POLL_MS 20
#define SUSPENDED_MS 1000 /* a server that takes longer to end may be suspended */
#define DEFAULT_THREADS "64" /* slow requests hold a thread each: reads of a far store */

/* ---- nbdkit's command line ------------------------------------------------------------------- */

struct argv {
	char **list;
	unsigned int n;
};

static void argv_add(struct argv *a, char *text)
{
	char **list = realloc(a->list, (a->n + 2) * sizeof(*list));

	if (!list || !text)
		cli_oom();
	a->list = list;
	a->list[a->n++] = text;
	a->list[a->n] = NULL;
}

static void argv_free(struct argv *a)
{
	while (a->n > 0)
		free(a->list[--a->n]);
	free(a->list);
}

static char *find_plugin(void)
{
	const char *env = getenv("VARVE_PLUGIN");
	char self[PATH_MAX], *path;
	ssize_t n;

	if (env && env[0])
		return cli_format("%s", env);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = '\0';
		path = cli_format("%s/front/nbdkit/%s", dirname(self), PLUGIN_FILE);
		if (access(path, R_OK) == 0)
			return path;
		free(path);
	}
	if (access(VARVE_PLUGIN_DIR "/" PLUGIN_FILE, R_OK) == 0)
		return cli_format("%s", VARVE_PLUGIN_DIR "/" PLUGIN_FILE);
	return cli_format("varve");
}

static char *socket_path(const struct server_options *opt)
{
	char *path;

	if (opt->tcp)
		return NULL;
	if (!opt->socket)
		return run_path(opt->name, "nbd");
	path = opt->socket[0] == '/' ? cli_format("%s", opt->socket) : NULL;
	if (!path) {
		char *cwd = getcwd(NULL, 0);

		path = cli_format("%s/%s", cwd ? cwd : ".", opt->socket);
		free(cwd);
	}
	return path;
}

static void argv_listen(struct argv *a, const struct server_options *opt, const char *path)
{
	char host[256], port[8];

	if (path) {
		argv_add(a, cli_format("--unix"));
		argv_add(a, cli_format("%s", path));
		return;
	}
	nbd_split_tcp(opt->tcp, host, port);
	argv_add(a, cli_format("--ipaddr"));
	argv_add(a, cli_format("%s", host));
	argv_add(a, cli_format("--port"));
	argv_add(a, cli_format("%s", port));
}

static void argv_build(struct argv *a, const struct server_options *opt, const char *path)
{
	char *pid = run_path(opt->name, "pid"), *result = run_path(opt->name, "result");
	unsigned int i;

	argv_add(a, cli_format("nbdkit"));
	argv_add(a, cli_format("--foreground"));
	argv_add(a, cli_format("--pidfile"));
	argv_add(a, pid);
	argv_listen(a, opt, path);
	argv_add(a, cli_format("--threads"));
	argv_add(a, cli_format("%s", opt->threads ? opt->threads : DEFAULT_THREADS));
	if (opt->read_only)
		argv_add(a, cli_format("--readonly"));
	argv_add(a, find_plugin());
	argv_add(a, cli_format("volume=%s", opt->volume));
	argv_add(a, cli_format("result=%s", result));
	if (opt->read_only)
		argv_add(a, cli_format("readonly=true"));
	if (opt->discard_cache)
		argv_add(a, cli_format("discard-cache=true"));
	for (i = 0; opt->settings && i < opt->settings->n; i++)
		argv_add(a, cli_format("set=%s", opt->settings->list[i]));
	free(result);
}

/* ---- records --------------------------------------------------------------------------------- */

static char *make_uri(const struct server_options *opt, const char *path)
{
	char host[256], port[8];

	if (path)
		return cli_format("nbd+unix:///%s?socket=%s", opt->name, path);
	nbd_split_tcp(opt->tcp, host, port);
	if (strchr(host, ':'))
		return cli_format("nbd://[%s]:%s/%s", host, port, opt->name);
	return cli_format("nbd://%s:%s/%s", host, port, opt->name);
}

static json_t *make_record(const struct server_options *opt, const char *path, pid_t pid)
{
	char *uri = make_uri(opt, path);
	json_t *record;

	record = json_pack("{s:o, s:s, s:s*, s:s*, s:s, s:b, s:s}", "process", run_process(pid),
			   "uri", uri, "socket", path, "tcp", opt->tcp, "owner", opt->owner,
			   "read_only", opt->read_only, "volume", opt->volume);
	if (!record)
		cli_oom();
	free(uri);
	return record;
}

json_t *server_find(const char *name)
{
	json_t *record = run_load(name, "server");

	if (record && !run_process_alive(json_object_get(record, "process"))) {
		json_decref(record);
		record = NULL;
	}
	return record;
}

/* Makes room for a new server: 0, or -1 after a message. */
static int prepare(const struct server_options *opt, const char *path)
{
	json_t *record = server_find(opt->name);
	char *log, *old;

	/* It may have been killed a moment ago, and take a while to die. */
	if (record &&
	    run_wait_gone(run_process_alive(json_object_get(record, "process")), 500, NULL)) {
		json_decref(record);
		record = NULL;
	}
	if (record) {
		cli_error("%s is served already by process %d at %s", opt->name,
			  (int)run_process_alive(json_object_get(record, "process")),
			  json_string_value(json_object_get(record, "uri")));
		json_decref(record);
		return -1;
	}
	if (path && strlen(path) > 107) {
		cli_error("the socket's path is too long (%zu bytes, at most 107): %s; use "
			  "--socket or a shorter VARVE_RUN_DIR",
			  strlen(path), path);
		return -1;
	}
	if (path && nbd_answers(path, NULL, 1000) != 0) {
		cli_error("another server listens at %s; give another --socket", path);
		return -1;
	}
	/* Left behind by a server that was killed; nbdkit would refuse to bind. */
	if (path && unlink(path) < 0 && errno != ENOENT) {
		cli_error("cannot remove the old socket %s: %s", path, strerror(errno));
		return -1;
	}
	run_forget(opt->name, "server");
	run_forget(opt->name, "result");
	log = run_path(opt->name, "log");
	old = run_path(opt->name, "log.old");
	rename(log, old);
	free(log);
	free(old);
	return 0;
}

/* ---- start ----------------------------------------------------------------------------------- */

/* nbdkit's messages so far; its own prefix is left out. */
static void show_log(const char *log_path, const char *prefix)
{
	char line[2048];
	FILE *f = fopen(log_path, "re");

	while (f && fgets(line, sizeof(line), f)) {
		char *text = line;

		if (strncmp(text, "nbdkit: ", 8) == 0)
			text += 8;
		if (strncmp(text, "error: ", 7) == 0)
			text += 7;
		line[strcspn(line, "\n")] = '\0';
		if (text[0])
			fprintf(stderr, "varve: %s%s\n", prefix, text);
	}
	if (f)
		fclose(f);
}

/* Waits for its first answer or its end. */
static int wait_ready(const struct server_options *opt, const char *path, pid_t pid,
		      const char *log)
{
	uint64_t deadline = run_now_ms() + opt->timeout_s * UINT64_C(1000);

	for (;;) {
		uint64_t now = run_now_ms();
		unsigned int left = now < deadline ? (unsigned int)(deadline - now) : 0;
		/* Ended already? Otherwise this is the pause between two attempts. */
		bool gone = run_wait_gone(pid, left < POLL_MS ? left : POLL_MS, NULL);

		if (gone) {
			show_log(log, "");
			cli_error("%s: the server could not start; its log is %s", opt->name, log);
			return -1;
		}
		/* One that dies closes the connection, so this does not outlast it. */
		if (nbd_answers(path, opt->tcp, left) == 1)
			return 0;
		if (left == 0)
			break;
	}
	kill(pid, SIGTERM);
	if (!run_wait_gone(pid, 5000, NULL)) {
		kill(pid, SIGKILL);
		run_wait_gone(pid, 5000, NULL);
	}
	show_log(log, "");
	cli_error("%s: the server did not answer within %u s and was stopped; --timeout waits "
		  "longer, its log is %s",
		  opt->name, opt->timeout_s, log);
	return -1;
}

json_t *server_start(const struct server_options *opt)
{
	char *path = socket_path(opt), *log = run_path(opt->name, "log");
	struct argv a = {0};
	json_t *record = NULL;
	pid_t pid;

	if (prepare(opt, path) < 0)
		goto out;
	argv_build(&a, opt, path);
	pid = run_daemon((const char *const *)a.list, log);
	if (pid < 0)
		goto out;
	record = make_record(opt, path, pid);
	if (run_save(opt->name, "server", record) < 0 || wait_ready(opt, path, pid, log) < 0) {
		run_forget(opt->name, "server");
		run_forget(opt->name, "pid");
		if (path)
			unlink(path);
		json_decref(record);
		record = NULL;
		goto out;
	}
	/* A cut image, a missing control socket: not fatal, and not to be kept back either. */
	show_log(log, "warning: ");
out:
	argv_free(&a);
	free(log);
	free(path);
	return record;
}

int server_exec(const struct server_options *opt)
{
	char *path = socket_path(opt);
	struct argv a = {0};
	json_t *record;

	if (prepare(opt, path) < 0)
		return CLI_FAILED;
	argv_build(&a, opt, path);
	/* exec keeps pid and start time: the record speaks of the server that we become. */
	record = make_record(opt, path, getpid());
	if (run_save(opt->name, "server", record) < 0)
		return CLI_FAILED;
	printf("%s\n", json_string_value(json_object_get(record, "uri")));
	fflush(stdout);
	execvp(a.list[0], a.list);
	cli_error("cannot run nbdkit: %s; install it", strerror(errno));
	run_forget(opt->name, "server");
	return CLI_FAILED;
}

/* ---- stop ------------------------------------------------------------------------------------ */

static enum server_end read_result(const char *name)
{
	char *path = run_path(name, "result");
	enum server_end end = SERVER_DIED;
	char line[2048];
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "error ", 6) == 0) {
			cli_error("closing %s", line + 6);
			end = SERVER_DIRTY;
		} else if (end == SERVER_DIED) {
			end = SERVER_CLEAN;
		}
	}
	if (f)
		fclose(f);
	free(path);
	return end;
}

/* A suspended volume has requests that would keep its server: it ends no earlier than they. */
static void resume(const char *name)
{
	char *answer = NULL;

	if (!varve_control_call(name, "{\"command\": \"message\", \"text\": \"resume\"}",
				&answer))
		free(answer);
}

enum server_end server_stop(const char *name, unsigned int timeout_s, bool force)
{
	json_t *record = run_load(name, "server");
	enum server_end end;
	pid_t pid;

	if (!record)
		return SERVER_NONE;
	pid = run_process_alive(json_object_get(record, "process"));
	json_decref(record);
	if (pid && kill(pid, SIGTERM) < 0 && errno != ESRCH) {
		cli_error("cannot stop the server, process %d: %s", (int)pid, strerror(errno));
		return SERVER_RUNNING;
	}
	if (pid && !run_wait_gone(pid, SUSPENDED_MS, NULL))
		resume(name);
	if (pid && !run_wait_gone(pid, timeout_s * 1000, NULL)) {
		if (!force) {
			cli_error("%s: the server, process %d, has not finished within %u s; it "
				  "may be writing to the store. Try again, or use --force: then "
				  "the data stays in the cache",
				  name, (int)pid, timeout_s);
			return SERVER_RUNNING;
		}
		kill(pid, SIGKILL);
		run_wait_gone(pid, 5000, NULL);
	}
	end = read_result(name);
	if (end == SERVER_DIED)
		cli_warn("%s: the server ended without closing the volume; what was acknowledged "
			 "is in the cache, and the next start recovers it",
			 name);
	run_forget(name, "server");
	run_forget(name, "result");
	run_forget(name, "pid");
	run_forget(name, "nbd");
	return end;
}
