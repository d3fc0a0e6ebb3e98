/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libpmemblk: arrays of blocks in persistent memory, each written as a whole or not at all.
 *
 * The calls of PMDK's libpmemblk 1.12 (libpmemblk(7)), served by Varve; libpmemblk-varve(7) says
 * what differs. Programs that were compiled with PMDK's header run unchanged.
 *
 * Where a call fails it returns NULL or -1, sets errno, and pmemblk_errormsg() has a sentence.
 */
#ifndef LIBPMEMBLK_H
#define LIBPMEMBLK_H 1

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pmemblk PMEMblkpool;

#define PMEMBLK_MAJOR_VERSION 1
#define PMEMBLK_MINOR_VERSION 1

/* The smallest pool, in bytes; the smallest piece of space that a block takes. */
#define PMEMBLK_MIN_POOL ((size_t)(16 * 1024 + 8) * 1024)
#define PMEMBLK_MIN_PART ((size_t)2 * 1024 * 1024)
#define PMEMBLK_MIN_BLK ((size_t)512)

/* NULL: this library serves programs made for that version; else why not. */
const char *pmemblk_check_version(unsigned major_required, unsigned minor_required);

/* What the library allocates for pools with; NULL: the default. They must not call it back. */
void pmemblk_set_funcs(void *(*malloc_func)(size_t size), void (*free_func)(void *ptr),
		       void *(*realloc_func)(void *ptr, size_t size),
		       char *(*strdup_func)(const char *s));

/* The calling thread's last failure; valid until its next. */
const char *pmemblk_errormsg(void);

/*
 * poolsize 0: the file exists and its first 4 KiB are zeros; it is taken whole. Else it must not
 * exist. EINVAL bsize or poolsize; EEXIST, ENOENT, ENOSPC, EACCES; EWOULDBLOCK in use; ENOTSUP a
 * pool set.
 */
PMEMblkpool *pmemblk_create(const char *path, size_t bsize, size_t poolsize, mode_t mode);

/* bsize 0: whatever it is. EINVAL no pool, another block size, or a pool of PMDK's own. */
PMEMblkpool *pmemblk_open(const char *path, size_t bsize);
void pmemblk_close(PMEMblkpool *pbp);

/* 1 consistent, 0 not, -1 it could not be found out. */
int pmemblk_check(const char *path, size_t bsize);

size_t pmemblk_bsize(PMEMblkpool *pbp);
size_t pmemblk_nblock(PMEMblkpool *pbp);

/* By any number of threads at once. EINVAL no such block; EIO an error block, or the medium. */
int pmemblk_read(PMEMblkpool *pbp, void *buf, long long blockno);
int pmemblk_write(PMEMblkpool *pbp, const void *buf, long long blockno);
int pmemblk_set_zero(PMEMblkpool *pbp, long long blockno);
int pmemblk_set_error(PMEMblkpool *pbp, long long blockno);

/* Entry points: int values named prefault.at_open and so on; libpmemblk-varve(7) lists them. */
int pmemblk_ctl_get(PMEMblkpool *pbp, const char *name, void *arg);
int pmemblk_ctl_set(PMEMblkpool *pbp, const char *name, void *arg);
int pmemblk_ctl_exec(PMEMblkpool *pbp, const char *name, void *arg);

#ifdef __cplusplus
}
#endif

#endif
