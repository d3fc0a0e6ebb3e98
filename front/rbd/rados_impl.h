/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stands behind a rados_t and a rados_ioctx_t. librados.so.2 makes them, librbd.so.1 reads
 * them, and in the library for LD_PRELOAD both are the same: so this header is all they share, and
 * the two are built and installed together.
 *
 * There is no cluster. A struct cluster holds what was configured, a struct ioctx the pool's and
 * the namespace's names. Each begins with a magic number, because a program may bring a handle of
 * another library's along: that is refused.
 *
 * Threads: a cluster is configured before it is used, as with librados; the counts are atomic.
 */
#ifndef RBD_RADOS_IMPL_H
#define RBD_RADOS_IMPL_H

#include <stdatomic.h>
#include <stdint.h>

#define CLUSTER_MAGIC 0x76727663u
#define IOCTX_MAGIC 0x76727669u

/* A configuration has some dozen options; this many are a program gone mad. */
#define CONFIG_MAX 1024

struct config_option {
	char *name;
	char *value;
};

struct cluster {
	uint32_t magic;
	_Atomic int refs; /* the user's, and one for each ioctx */
	struct config_option *options;
	unsigned int n_options;
};

struct ioctx {
	uint32_t magic;
	struct cluster *cluster;
	char *pool;
	char *nspace; /* "" for none */
};

#endif
