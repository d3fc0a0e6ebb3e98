/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of blocks in persistent memory, each written as a whole or not at all, whatever happens; a
 * block that was read, or whose write has returned, survives any crash. (A block translation
 * table; docs/SPEC-btt.md. libpmemblk's calls, through libpmemblk.so.1, are these.)
 *
 * Units: a pool is an array of blocks of block_bytes each, numbered from 0. Errors are negative
 * errno values, with a sentence in varve_errmsg() of the same thread.
 *
 * Threads: read, write, set_zero and set_error may be called by any number of threads at once.
 * open, close and the rest by one for each pool. fork(): a pool belongs to the process that opened
 * it; in a child every call on it fails with -EOWNERDEAD.
 */
#ifndef VARVE_BTT_H
#define VARVE_BTT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <varve/varve.h>

#ifdef __cplusplus
extern "C" {
#endif

struct varve_btt;

struct varve_btt_options {
	uint64_t pool_bytes; /* create: of the file that is made; 0: see varve_btt_create() */
	mode_t mode;         /* create: the file's permissions; 0: 0600 */
	uint64_t min_blocks; /* create: -EINVAL if there would be fewer */
	bool sparse;         /* create: do not allocate the file's space; a full file system may
				then fail a write with -EIO */
	bool prefault;       /* touch every page now, not when it is first used */
	bool read_only;      /* open: nothing is written; -EROFS for who tries */
};

/*
 * Makes a pool at path. With pool_bytes 0 the file (or device) must exist, and its first 4 KiB be
 * zeros; it is taken whole, whatever else is in it. All blocks read as zeros. options NULL: as if
 * all were 0.
 *
 * -EINVAL block_bytes is 0 or too large for the pool, or the pool too small; -EEXIST the file
 * exists (pool_bytes is not 0), or is not blank (pool_bytes is 0); -ENOENT; -EBUSY in use;
 * -ENOTSUP a PMDK pool set; -ENOSPC, -EACCES and so on.
 */
int varve_btt_create(const char *path, uint32_t block_bytes,
		     const struct varve_btt_options *options, struct varve_btt **ret);

/*
 * Opens a pool, exclusively. block_bytes 0: whatever it is. -EINVAL no pool, or of another block
 * size; -EMEDIUMTYPE a pool that PMDK's libpmemblk made (varve_btt_import() converts it); -EBUSY in
 * use; -EBADMSG damaged: varve_btt_check() says where.
 */
int varve_btt_open(const char *path, uint32_t block_bytes,
		   const struct varve_btt_options *options, struct varve_btt **ret);

/* Marks it clean, so that it opens at once, and frees. No call on it may be running. */
int varve_btt_close(struct varve_btt *btt);

uint32_t varve_btt_block_bytes(const struct varve_btt *btt); /* as given when it was made */
uint64_t varve_btt_blocks(const struct varve_btt *btt);

/*
 * One block. read: -EIO the block was marked by set_error, or its memory cannot be read. write:
 * durable when it returns 0, and the block readable whatever it was. -EINVAL there is no such
 * block,
 * -EROFS, -EIO the medium fails.
 */
int varve_btt_read(struct varve_btt *btt, void *buf, uint64_t block);
int varve_btt_write(struct varve_btt *btt, const void *buf, uint64_t block);

/* The block reads as zeros from now on; fails with -EIO until it is written or set to zero. Durable
 * on return; no block's worth of data is written. */
int varve_btt_set_zero(struct varve_btt *btt, uint64_t block);
int varve_btt_set_error(struct varve_btt *btt, uint64_t block);

/* JSON text: how stores become durable, geometry, lanes, counters; free() it. */
int varve_btt_status(struct varve_btt *btt, char **ret_json);

/*
 * Verifies a pool that nobody has open; the number of problems, or a negative errno. With repair
 * what can be mended is (and told through problem() as such): a superblock from its copy, entries
 * that make no sense become blocks that read as errors.
 */
int varve_btt_check(const char *path, uint32_t block_bytes, bool repair,
		    struct varve_check *check);

/*
 * Makes a pool at dest with the contents of a pool made by PMDK's libpmemblk, which is left as it
 * is: as many blocks at least, of the same size; blocks that were marked as errors stay so. dest
 * must not exist. -ENOENT source is no such pool. progress() of check, which may be NULL, is called
 * now and then; problem() for each block that could not be read and is an error block now.
 */
int varve_btt_import(const char *source, const char *dest, struct varve_check *check);

#ifdef __cplusplus
}
#endif

#endif
