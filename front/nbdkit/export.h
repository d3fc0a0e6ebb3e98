/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The exports of one nbdkit process: each is an open volume with its name. Written by the thread
 * that starts the server (export_add, export_open_all), read by all others after that, and taken
 * down when the last connection is gone (export_close_all): no lock is needed.
 */
#ifndef NBDKIT_EXPORT_H
#define NBDKIT_EXPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <varve/varve.h>

struct export
{
	const char *spec;	     /* as given: a name or CACHE,STORE; nbdkit's argv owns it */
	struct varve_volume *volume; /* NULL before it is opened and after it is closed */
	struct varve_info info;
	_Atomic uint64_t window_start_s; /* of export_may_report() */
	_Atomic unsigned int reported;
};

/* How volumes are opened, from the command line. */
struct export_options {
	const char **settings; /* key=value, NULL-terminated */
	unsigned int flags;    /* VARVE_OPEN_* */
	bool control;	       /* serve a control socket for each */
	const char *result;    /* file that tells how the close went, or NULL */
};

/* The one in use is bounded, so that a table can be an array. */
#define EXPORT_MAX 64

/* -EEXIST when it was named before, -E2BIG when there are too many. */
int export_add(const char *spec);
unsigned int export_count(void);
struct export *export_at(unsigned int i);

/* The export of that name; "" is the first. NULL: there is none. */
struct export *export_find(const char *name);

/* Opens all, or none: then -1, and nbdkit has been told why. */
int export_open_all(const struct export_options *opt);

/* Closes all that are open. Errors go to nbdkit's log and to opt->result. */
void export_close_all(const struct export_options *opt);

/* False when this export has said enough in the last few seconds. */
bool export_may_report(struct export *export);

#endif
