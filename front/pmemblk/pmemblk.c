/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libpmemblk's calls (libpmemblk.h) on Varve's pools (<varve/btt.h>).
 *
 * This file translates: sizes and block numbers that libpmemblk's callers may get wrong in ways
 * that the types below do not allow, errors into errno and a text, and names of settings. Two rules
 * of libpmemblk that are not Varve's are kept here, since programs and their tests rely on them:
 * the smallest pool, and that a pool has room for MIN_BLOCKS blocks.
 *
 * Errors. A text is kept for each thread, as varve_errmsg() would be overwritten by the next call,
 * and libpmemblk's lasts until the next failure. errno is as PMDK has it: EWOULDBLOCK for a pool
 * that is open, EINVAL for whatever is no pool of ours, a damaged one included.
 *
 * Threads: any, but for close. set_funcs before the first pool, as with PMDK.
 */
#include "libpmemblk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <varve/btt.h>

#include "ctl.h"

#define EXPORT __attribute__((visibility("default")))
#define MESSAGE_LEN 1024
#define MIN_BLOCKS 352u /* PMDK's 512, without as many as we keep spare at most */

struct pmemblk {
	struct varve_btt *btt;
	uint64_t blocks;
};

static _Thread_local char message[MESSAGE_LEN];

static void *(*pool_malloc)(size_t size) = malloc;
static void (*pool_free)(void *ptr) = free;

/* ---- errors -------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static int fail(int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	errno = error;
	return -1;
}

/* What a varve call has returned; -1 for a failure. */
static int result(int rc)
{
	if (rc >= 0)
		return rc;
	if (rc == -EBUSY)
		rc = -EWOULDBLOCK;
	else if (rc == -EMEDIUMTYPE || rc == -EBADMSG || rc == -EISDIR)
		rc = -EINVAL;
	return fail(-rc, "%s", varve_errmsg());
}

EXPORT const char *pmemblk_errormsg(void)
{
	return message;
}

EXPORT const char *pmemblk_check_version(unsigned major_required, unsigned minor_required)
{
	if (major_required != PMEMBLK_MAJOR_VERSION)
		fail(EINVAL, "libpmemblk major version mismatch (need %u, found %u)",
		     major_required, PMEMBLK_MAJOR_VERSION);
	else if (minor_required > PMEMBLK_MINOR_VERSION)
		fail(EINVAL, "libpmemblk minor version mismatch (need %u, found %u)",
		     minor_required, PMEMBLK_MINOR_VERSION);
	else
		return NULL;
	return message;
}

EXPORT void pmemblk_set_funcs(void *(*malloc_func)(size_t size), void (*free_func)(void *ptr),
			      void *(*realloc_func)(void *ptr, size_t size),
			      char *(*strdup_func)(const char *s))
{
	/* Nothing here grows or is duplicated. */
	(void)realloc_func;
	(void)strdup_func;
	pool_malloc = malloc_func ? malloc_func : malloc;
	pool_free = free_func ? free_func : free;
}

/* ---- pools --------------------------------------------------------------------------------- */

static PMEMblkpool *pool_of(int rc, struct varve_btt *btt)
{
	PMEMblkpool *pool;

	if (result(rc) < 0)
		return NULL;
	pool = pool_malloc(sizeof(*pool));
	if (!pool) {
		varve_btt_close(btt);
		fail(ENOMEM, "no memory");
		return NULL;
	}
	*pool = (PMEMblkpool){.btt = btt, .blocks = varve_btt_blocks(btt)};
	return pool;
}

static int check_environment(void)
{
	const char *why = ctl_load();

	return why ? fail(EINVAL, "%s", why) : 0;
}

/* A block size that no pool has, but for a pool that is looked at before it is compared. */
static uint32_t block_bytes(size_t bsize)
{
	return bsize > UINT32_MAX ? UINT32_MAX : (uint32_t)bsize;
}

/* In PMDK's order, which decides what a call that is wrong twice fails with. */
static int check_sizes(const char *path, size_t bsize, size_t poolsize)
{
	if (check_environment())
		return -1;
	if (!bsize || bsize > UINT32_MAX)
		return fail(EINVAL, "Invalid block size %zu", bsize);
	if (poolsize && !access(path, F_OK))
		return fail(EEXIST, "file %s already exists", path);
	if (poolsize && poolsize < PMEMBLK_MIN_POOL)
		return fail(EINVAL, "pool size %zu is smaller than %zu", poolsize,
			    PMEMBLK_MIN_POOL);
	return 0;
}

EXPORT PMEMblkpool *pmemblk_create(const char *path, size_t bsize, size_t poolsize, mode_t mode)
{
	struct varve_btt_options options = {
		.pool_bytes = poolsize,
		.mode = mode,
		.min_blocks = MIN_BLOCKS,
	};
	struct varve_btt *btt = NULL;
	int rc;

	if (check_sizes(path, bsize, poolsize))
		return NULL;
	options.prefault = ctl_value(CTL_PREFAULT_AT_CREATE);
	options.sparse = !ctl_value(CTL_FALLOCATE_AT_CREATE);
	rc = varve_btt_create(path, (uint32_t)bsize, &options, &btt);
	return pool_of(rc, btt);
}

EXPORT PMEMblkpool *pmemblk_open(const char *path, size_t bsize)
{
	struct varve_btt_options options = {0};
	struct varve_btt *btt = NULL;
	int rc;

	if (check_environment())
		return NULL;
	options.prefault = ctl_value(CTL_PREFAULT_AT_OPEN);
	rc = varve_btt_open(path, block_bytes(bsize), &options, &btt);
	return pool_of(rc, btt);
}

EXPORT void pmemblk_close(PMEMblkpool *pbp)
{
	result(varve_btt_close(pbp->btt));
	pool_free(pbp);
}

/* The first problem is the text: callers have no other place to learn of it. */
static void keep_first(struct varve_check *check, const char *text)
{
	char *first = check->user;

	if (!*first)
		snprintf(first, MESSAGE_LEN, "%s", text);
}

EXPORT int pmemblk_check(const char *path, size_t bsize)
{
	char first[MESSAGE_LEN] = "";
	struct varve_check check = {.problem = keep_first, .user = first};
	int rc;

	if (check_environment())
		return -1;
	rc = varve_btt_check(path, block_bytes(bsize), false, &check);
	if (rc == -EBADMSG || rc > 0) {
		fail(0, "%s: inconsistent: %s", path, rc > 0 ? first : varve_errmsg());
		return 0;
	}
	return result(rc) < 0 ? -1 : 1;
}

EXPORT size_t pmemblk_bsize(PMEMblkpool *pbp)
{
	return varve_btt_block_bytes(pbp->btt);
}

EXPORT size_t pmemblk_nblock(PMEMblkpool *pbp)
{
	return pbp->blocks;
}

/* ---- blocks -------------------------------------------------------------------------------- */

static int block_fail(const PMEMblkpool *pool, long long block)
{
	if (block < 0)
		return fail(EINVAL, "negative block number");
	return fail(EINVAL, "block %lld of a pool with %llu", block,
		    (unsigned long long)pool->blocks);
}

static inline int block_ok(const PMEMblkpool *pool, long long block)
{
	return block >= 0 && (uint64_t)block < pool->blocks;
}

EXPORT int pmemblk_read(PMEMblkpool *pbp, void *buf, long long blockno)
{
	if (!block_ok(pbp, blockno))
		return block_fail(pbp, blockno);
	return result(varve_btt_read(pbp->btt, buf, (uint64_t)blockno));
}

EXPORT int pmemblk_write(PMEMblkpool *pbp, const void *buf, long long blockno)
{
	if (!block_ok(pbp, blockno))
		return block_fail(pbp, blockno);
	return result(varve_btt_write(pbp->btt, buf, (uint64_t)blockno));
}

EXPORT int pmemblk_set_zero(PMEMblkpool *pbp, long long blockno)
{
	if (!block_ok(pbp, blockno))
		return block_fail(pbp, blockno);
	return result(varve_btt_set_zero(pbp->btt, (uint64_t)blockno));
}

EXPORT int pmemblk_set_error(PMEMblkpool *pbp, long long blockno)
{
	if (!block_ok(pbp, blockno))
		return block_fail(pbp, blockno);
	return result(varve_btt_set_error(pbp->btt, (uint64_t)blockno));
}

/* ---- control ------------------------------------------------------------------------------- */

static int ctl_entry(const char *name)
{
	const char *why = ctl_load();
	int id;

	if (why)
		return fail(EINVAL, "%s", why);
	id = ctl_find(name);
	return id < 0 ? fail(EINVAL, "invalid query entry point %s", name) : id;
}

EXPORT int pmemblk_ctl_get(PMEMblkpool *pbp, const char *name, void *arg)
{
	const int id = ctl_entry(name);

	(void)pbp;
	if (id >= 0)
		*(int *)arg = ctl_value((enum ctl_id)id);
	return id < 0 ? -1 : 0;
}

EXPORT int pmemblk_ctl_set(PMEMblkpool *pbp, const char *name, void *arg)
{
	const int id = ctl_entry(name);

	(void)pbp;
	if (id >= 0 && ctl_set_value((enum ctl_id)id, *(const int *)arg))
		return fail(EINVAL, "%s cannot be %d", name, *(const int *)arg);
	return id < 0 ? -1 : 0;
}

EXPORT int pmemblk_ctl_exec(PMEMblkpool *pbp, const char *name, void *arg)
{
	(void)pbp;
	(void)arg;
	return fail(EINVAL, "invalid query entry point %s", name);
}
