/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading a pool that PMDK's libpmemblk made, as it would be after its own recovery. Nothing is
 * written to it. docs/SPEC-pmdk.md has the bytes.
 */
#ifndef BTT_PMDK_H
#define BTT_PMDK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "pmem/pmem.h"

struct pmdk_pool;

/* Whether memory that begins so is a pool of libpmemblk: by its first 8 bytes alone. */
bool pmdk_is_pool(const void *start, size_t len);

/*
 * The pool in pm, which stays the caller's and must stay open. -ENOENT it is no pool of libpmemblk;
 * -ENOTSUP it is one of several parts, or of a version that is not known; -EBADMSG it is damaged.
 * The error says where.
 */
int pmdk_open(const struct pmem *pm, struct pmdk_pool **ret, struct err *err);
void pmdk_close(struct pmdk_pool *pool);

uint32_t pmdk_block_bytes(const struct pmdk_pool *pool);
/* 0: nothing was ever written, so that nobody has laid it out yet. */
uint64_t pmdk_blocks(const struct pmdk_pool *pool);

enum pmdk_state {
	PMDK_ZERO,  /* reads as zeros: never written, or set so */
	PMDK_DATA,
	PMDK_ERROR, /* was marked as lost */
};

/*
 * Reads a block, pmdk_block_bytes() long; buf is filled only for PMDK_DATA. A negative errno: -EIO
 * the memory cannot be read, -EBADMSG its map entry points out of the arena.
 */
int pmdk_read(const struct pmdk_pool *pool, uint64_t block, void *buf, enum pmdk_state *ret,
	      struct err *err);

#endif
