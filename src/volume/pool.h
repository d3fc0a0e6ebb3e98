/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of blocks (<varve/btt.h>) from the inside: a block translation table and the memory it
 * lies in.
 */
#ifndef VOLUME_POOL_H
#define VOLUME_POOL_H

#include <jansson.h>

#include <varve/btt.h>

#include "base/err.h"
#include "btt/btt.h"
#include "dev/dev.h"
#include "pmem/pmem.h"

struct varve_btt {
	struct pmem *pm;
	struct btt *btt;
	uint64_t blocks;
	uint32_t block_bytes;
};

/* Runs pieces on the process's worker threads; for btt_options.parallel. */
extern const struct btt_parallel pool_parallel;

/*
 * Maps what is to be opened as a pool. -EMEDIUMTYPE with what to do about it when PMDK made it,
 * -ENOTSUP for a pool set.
 */
int pool_map(const char *path, bool read_only, bool prefault, struct pmem **ret,
	     struct err *err);

/*
 * A pool as a block device that owns it; with MEDIA_CREATE one that holds bytes is made if there is
 * no file. Flags as of media.h.
 */
int pool_dev_open(const char *path, unsigned int flags, uint64_t bytes, struct dev **ret,
		  bool *ret_created, struct err *err);

/* What status tells of it. */
json_t *pool_json(const struct pmem *pm, const struct btt *btt);

#endif
