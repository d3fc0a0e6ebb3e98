/* SPDX-License-Identifier: BSD-3-Clause */
/* Where control sockets are: $VARVE_RUN_DIR, /run/varve for root, or $XDG_RUNTIME_DIR/varve. */
#ifndef VOLUME_RUNDIR_H
#define VOLUME_RUNDIR_H

#include <sys/un.h>

#include "base/err.h"

/* The address of NAME's socket. Of a spec the part that names the volume counts. */
int rundir_address(const char *name_or_spec, struct sockaddr_un *ret, struct err *err);
int rundir_address_of_path(const char *path, struct sockaddr_un *ret, struct err *err);

#endif
