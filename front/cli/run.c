/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The run directory: $VARVE_RUN_DIR, else /run/varve for root, else $XDG_RUNTIME_DIR/varve.
 *
 *   NAME.lock     taken while a command starts or stops things for the volume
 *   NAME.server   record of the running nbdkit (server.c)
 *   NAME.device   record of what attach has built (device.c)
 *   NAME.log      output of nbdkit and nbdfuse; the one before is NAME.log.old
 *   NAME.nbd      NBD socket; NAME.pid nbdkit's own pid file; NAME.result how its close went
 *   NAME.sock     the library's control socket
 *
 * Invariants:
 *   1. A record is written before the thing that it speaks of is made, or right after it with the
 *      lock held, so that whatever a killed command leaves behind can be found and undone.
 *   2. A pid is only ever signalled when its start time and the boot are those of the record.
 *   3. The lock's descriptor is close-on-exec: a daemon must not hold off the next command.
 */
#include "run.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool from_env;

static char *choose_dir(void)
{
	const char *env = getenv("VARVE_RUN_DIR");

	if (env && env[0]) {
		from_env = true;
		return cli_format("%s", env);
	}
	if (geteuid() == 0)
		return cli_format("/run/varve");
	env = getenv("XDG_RUNTIME_DIR");
	if (env && env[0])
		return cli_format("%s/varve", env);
	return NULL;
}

const char *run_dir(void)
{
	static char *dir;
	char *chosen, *real;

	if (dir)
		return dir;
	chosen = choose_dir();
	if (!chosen) {
		cli_error("no run directory: set VARVE_RUN_DIR (or XDG_RUNTIME_DIR)");
		return NULL;
	}
	if (mkdir(chosen, 0755) < 0 && errno != EEXIST) {
		cli_error("cannot make the run directory %s: %s; set VARVE_RUN_DIR", chosen,
			  strerror(errno));
		free(chosen);
		return NULL;
	}
	/* Daemons and mount tables know absolute paths only. */
	real = realpath(chosen, NULL);
	if (!real) {
		cli_error("run directory %s: %s", chosen, strerror(errno));
		free(chosen);
		return NULL;
	}
	free(chosen);
	dir = real;
	return dir;
}

bool run_dir_is_private(void)
{
	return run_dir() && from_env;
}

/* As the library names the control socket of a spec: by what follows its last separator. */
char *run_name(const char *name_or_spec)
{
	const char *name = name_or_spec + strlen(name_or_spec);

	while (name > name_or_spec && !strchr("/,:", name[-1]))
		name--;
	return cli_format("%s", name[0] ? name : "volume");
}

char *run_path(const char *name, const char *suffix)
{
	const char *dir = run_dir();

	if (!dir)
		exit(CLI_FAILED);
	return cli_format("%s/%s.%s", dir, name, suffix);
}

uint64_t run_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int run_lock(const char *name, unsigned int timeout_s)
{
	uint64_t deadline = run_now_ms() + timeout_s * UINT64_C(1000);
	char *path = run_path(name, "lock");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0) {
		cli_error("cannot open %s: %s", path, strerror(errno));
		free(path);
		return -1;
	}
	/* There is no flock() with a timeout. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK || run_now_ms() >= deadline) {
			cli_error("%s: another varve command is at work on it since %u s or more "
				  "(it holds %s); try again later",
				  name, timeout_s, path);
			close(fd);
			free(path);
			return -1;
		}
		poll(NULL, 0, 20);
	}
	free(path);
	return fd;
}

/* ---- records --------------------------------------------------------------------------------- */

static char *boot_id(void)
{
	char text[64] = "";
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (f) {
		if (fgets(text, sizeof(text), f))
			text[strcspn(text, "\n")] = '\0';
		fclose(f);
	}
	return cli_format("%s", text);
}

json_t *run_load(const char *name, const char *suffix)
{
	char *path = run_path(name, suffix);
	char *boot = boot_id();
	json_t *record = json_load_file(path, 0, NULL);
	const char *then = json_string_value(json_object_get(record, "boot"));

	if (record && (!then || strcmp(then, boot) != 0)) {
		json_decref(record);
		record = NULL;
	}
	free(boot);
	free(path);
	return record;
}

int run_save(const char *name, const char *suffix, json_t *record)
{
	char *path = run_path(name, suffix);
	char *temp = cli_format("%s.new", path);
	char *boot = boot_id();
	int rc = 0;

	json_object_set_new(record, "boot", json_string(boot));
	if (json_dump_file(record, temp, JSON_INDENT(2)) < 0 || rename(temp, path) < 0) {
		cli_error("cannot write %s: %s", path, strerror(errno));
		rc = -1;
	}
	free(boot);
	free(temp);
	free(path);
	return rc;
}

void run_forget(const char *name, const char *suffix)
{
	char *path = run_path(name, suffix);

	if (unlink(path) < 0 && errno != ENOENT)
		cli_warn("cannot remove %s: %s", path, strerror(errno));
	free(path);
}
