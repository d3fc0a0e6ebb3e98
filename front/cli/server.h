/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Servers: the nbdkit process that has a volume open. Callers hold the volume's lock (run_lock).
 *
 * The record, NAME.server:
 *   {"process": {...}, "uri": "...", "socket": "..." or absent, "tcp": "..." or absent,
 *    "owner": "serve" or "attach", "read_only": bool, "volume": "as given"}
 */
#ifndef CLI_SERVER_H
#define CLI_SERVER_H

#include <stdbool.h>

#include <jansson.h>

#include "cli.h"

struct server_options {
	const char *volume;  /* name or spec */
	const char *name;    /* run_name() of it */
	const char *owner;   /* "serve" or "attach" */
	const char *socket;  /* unix socket, or NULL for the default */
	const char *tcp;     /* [HOST:]PORT, or NULL */
	const char *threads; /* or NULL */
	const struct cli_settings *settings;
	bool read_only, discard_cache;
	unsigned int timeout_s; /* for the first answer */
};

/* How a server ended, as server_stop() found. */
enum server_end {
	SERVER_NONE,	/* there was none */
	SERVER_CLEAN,	/* closed: everything is in the store */
	SERVER_DIRTY,	/* closed with an error, which was printed */
	SERVER_DIED,	/* it was gone already, without a close */
	SERVER_RUNNING, /* did not end in time */
};

/* The record of the server that runs for the volume, or NULL. */
json_t *server_find(const char *name);

/* Starts one in the background and waits until it answers. The record, or NULL after a message. */
json_t *server_start(const struct server_options *opt);

/* Becomes the server; returns only after an error and its message. */
int server_exec(const struct server_options *opt);

/*
 * Asks the server to end and waits for its close; with force, kills it when that takes too long.
 * Says what went wrong.
 */
enum server_end server_stop(const char *name, unsigned int timeout_s, bool force);

/* ---- nbd.c ----------------------------------------------------------------------------------- */

/*
 * Whether an NBD server answers at the socket (or at tcp, when socket is NULL): 1 yes, 0 not yet,
 * -1 something else is there.
 */
int nbd_answers(const char *socket, const char *tcp, unsigned int timeout_ms);

/* Splits "[HOST:]PORT"; host is 127.0.0.1 when none is given. -1: malformed. */
int nbd_split_tcp(const char *tcp, char host[256], char port[8]);

#endif
