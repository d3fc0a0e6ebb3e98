/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From (pool, namespace, image), which is what librbd's callers have, to what varve_open() and
 * varve_create() take.
 */
#ifndef RBD_NAME_H
#define RBD_NAME_H

#include <stdbool.h>

#include <varve/varve.h>

#include "rados_impl.h"

/* The handle behind a user's, or NULL: none, or another library's; stderr has been told then. */
struct ioctx *ioctx_from(void *handle);

/* A name or a spec; free() it. -ENOENT: it is said to be in a namespace, and there is none. */
int name_resolve(const struct ioctx *io, const char *image, char **ret);

/* Whether what name_resolve() gave is a spec, and no name of a definition. */
bool name_is_spec(const char *name);

/* Whether pool and namespace may be the beginning of a spec. */
bool name_begins_spec(const struct ioctx *io, const char *nspace);

/* How volumes are opened: flags of varve_open_with() and settings; both from the configuration. */
struct open_options {
	unsigned int flags;
	bool control;	 /* serve a control socket for a volume that is written to */
	char **settings; /* KEY=VALUE, NULL-terminated */
};

/* -EINVAL, told on stderr: a value that is none. */
int options_get(const struct cluster *cluster, struct open_options *ret);
void options_free(struct open_options *o);

/* A setting that overrides those before it. */
int options_add(struct open_options *o, const char *key, const char *value);

#endif
