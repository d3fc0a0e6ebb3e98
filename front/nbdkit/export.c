/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The exports: volumes that this process has open, by name.
 *
 * A volume has threads, so it is opened after nbdkit has forked (after_fork), once for the whole
 * process, and shared by all connections: that is what makes a flush on one connection cover the
 * writes of the others (can_multi_conn). Opening takes no writer's right; that comes with the first
 * write, so a server that only reads never gets in the way of another.
 *
 * It is closed in nbdkit's cleanup, when no connection is left. Closing destages and may fail, for
 * example because the store does not answer; nobody reads nbdkit's exit code for that, so the
 * outcome is also written to the file result=PATH, one line for each volume: "ok NAME" or
 * "error NAME: why". A process that was killed leaves no such file, which tells the two apart.
 *
 * Invariants:
 *   1. Either every export is open or none is: a server never offers half of its exports.
 *   2. The result file appears complete or not at all (it is renamed into place).
 */
#include "export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <nbdkit-plugin.h>

/* A client that retries a failing request would fill the log: this many messages in a window. */
#define REPORT_BURST 10
#define REPORT_WINDOW_S 5

static struct export exports[EXPORT_MAX];
static unsigned int n_exports;

int export_add(const char *spec)
{
	unsigned int i;

	for (i = 0; i < n_exports; i++)
		if (strcmp(exports[i].spec, spec) == 0)
			return -EEXIST;
	if (n_exports == EXPORT_MAX)
		return -E2BIG;
	exports[n_exports++].spec = spec;
	return 0;
}

unsigned int export_count(void)
{
	return n_exports;
}

struct export *export_at(unsigned int i)
{
	return &exports[i];
}

struct export *export_find(const char *name)
{
	unsigned int i;

	if (name[0] == '\0')
		return n_exports ? &exports[0] : NULL;
	for (i = 0; i < n_exports; i++)
		if (strcmp(exports[i].info.name, name) == 0 || strcmp(exports[i].spec, name) == 0)
			return &exports[i];
	return NULL;
}

bool export_may_report(struct export *export)
{
	struct timespec now;
	uint64_t start;

	clock_gettime(CLOCK_MONOTONIC, &now);
	/* Two threads that begin a window at once cost a few more messages, no more than that. */
	start = atomic_load_explicit(&export->window_start_s, memory_order_relaxed);
	if ((uint64_t)now.tv_sec >= start + REPORT_WINDOW_S) {
		atomic_store_explicit(&export->window_start_s, (uint64_t)now.tv_sec,
				      memory_order_relaxed);
		atomic_store_explicit(&export->reported, 0, memory_order_relaxed);
	}
	return atomic_fetch_add_explicit(&export->reported, 1, memory_order_relaxed) < REPORT_BURST;
}

/* Two specs may turn out to be one volume, or two volumes of one name: neither can be exported. */
static bool export_is_unique(const struct export *export)
{
	unsigned int i;

	for (i = 0; i < n_exports; i++) {
		if (&exports[i] == export || !exports[i].volume)
			continue;
		if (strcmp(exports[i].info.name, export->info.name) == 0)
			return false;
	}
	return true;
}

/* Of an image written in place a cut has no order: what is lost may be anything, anywhere. */
static void report_cut(const struct varve_info *info)
{
	if (info->cut_unknown)
		nbdkit_error("%s: opened without its cache, which cannot be read: nobody knows "
			     "what is lost",
			     info->name);
	else if (strcmp(info->type, "boost") == 0)
		nbdkit_error("%s: opened without its cache: %llu bytes that only it held are lost, "
			     "here and there",
			     info->name, (unsigned long long)info->cut_lost_bytes);
	else
		nbdkit_error("%s: opened without its cache: the image is cut after LSN %llu, %llu "
			     "bytes known to be lost",
			     info->name, (unsigned long long)info->cut_lsn,
			     (unsigned long long)info->cut_lost_bytes);
}

static int export_open(struct export *export, const struct export_options *opt)
{
	int rc;

	rc = varve_open_with(export->spec, opt->flags, opt->settings, &export->volume);
	if (rc < 0) {
		nbdkit_error("%s", varve_errmsg());
		export->volume = NULL;
		return -1;
	}
	varve_get_info(export->volume, &export->info);
	if (!export_is_unique(export)) {
		nbdkit_error("%s: a volume named %s is exported already", export->spec,
			     export->info.name);
		return -1;
	}
	if (export->info.cut)
		report_cut(&export->info);
	/* Data can be served without it, so a failure here is no reason to refuse. */
	if (opt->control && varve_control_start(export->volume, NULL) < 0)
		nbdkit_error("%s: no control socket, \"varve status\" will not work: %s",
			     export->info.name, varve_errmsg());
	return 0;
}

int export_open_all(const struct export_options *opt)
{
	struct export_options quiet = *opt;
	unsigned int i;

	for (i = 0; i < n_exports; i++) {
		if (export_open(&exports[i], opt) < 0) {
			quiet.result = NULL;
			export_close_all(&quiet);
			return -1;
		}
	}
	return 0;
}

static void result_write(FILE *result, const char *name, const char *error)
{
	if (!result)
		return;
	if (error)
		fprintf(result, "error %s: %s\n", name, error);
	else
		fprintf(result, "ok %s\n", name);
}

void export_close_all(const struct export_options *opt)
{
	char temp[4096];
	FILE *result = NULL;
	unsigned int i;

	if (opt->result) {
		snprintf(temp, sizeof(temp), "%s.new", opt->result);
		result = fopen(temp, "we");
		if (!result)
			nbdkit_error("cannot write %s: %m", temp);
	}
	for (i = 0; i < n_exports; i++) {
		struct export *e = &exports[i];
		int rc;

		if (!e->volume)
			continue;
		rc = varve_close(e->volume);
		e->volume = NULL;
		if (rc < 0)
			nbdkit_error("closing %s: %s", e->info.name, varve_errmsg());
		result_write(result, e->info.name, rc < 0 ? varve_errmsg() : NULL);
	}
	if (!result)
		return;
	if (fclose(result) != 0 || rename(temp, opt->result) != 0)
		nbdkit_error("cannot write %s: %m", opt->result);
}
