/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block translation table: sectors that are written whole or not at all, on persistent memory
 * (docs/SPEC-btt.md has the bytes and the protocol).
 *
 * Promises. A write, a zeroing or a marking that returned 0 survives any crash. One that was under
 * way at a crash has happened or not, as a whole. A read returns one write's data, never a mixture,
 * never another sector's; and what it returned survives a crash, too.
 *
 * Durability is that of the memory (pmem.h): with pm_mode_text() "forced" on what is not persistent
 * memory, nothing survives a power cut.
 *
 * Threads. Everything between open and close may be called from any thread at once, and is
 * synchronous. No call waits for a reader. Writers wait only when there are more of them than lanes
 * (btt_stat), for one that ends, not for a certain one. A thread may die in the middle of a call:
 * its lane is taken over. It may not leave a call by longjmp, nor call from a signal handler that
 * interrupted one (pmem.h, guards).
 *
 * Fork. In the child every call but btt_close() is -ECHILD; that one then frees memory and writes
 * nothing.
 *
 * Errors. -EINVAL a sector that does not exist; -EIO an error sector, memory that faults, damage
 * (the log has the place); -EROFS; -ECHILD. A fence that failed (msync) is sticky: all later
 * writes fail as it did.
 */
#ifndef BTT_BTT_H
#define BTT_BTT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/uuid.h"
#include "pmem/pmem.h"

struct btt;

/*
 * How making and scanning a table use several processors: run() calls piece(ctx, n) once for each n
 * in [0, pieces), from any threads at once, and returns when all have returned.
 */
struct btt_parallel {
	void (*run)(void *arg, unsigned pieces, void (*piece)(void *ctx, unsigned n), void *ctx);
	void *arg;
};

struct btt_options {
	uint64_t block_bytes; /* create: 1 to 2^32 - 1; open: what it must be, 0: any */
	struct uuid uuid;     /* create: the pool's; zero: a new one */
	uint64_t spares;      /* create: at least 2; 0: by the size of the pool */
	uint64_t min_nblock;  /* create: -EINVAL if there would be fewer sectors */
	bool overwrite;	      /* create: whatever is there */
	const struct btt_parallel *parallel; /* NULL: one after the other */
};

/*
 * Makes a pool of the whole memory, and opens it. All sectors are zeros. Until it is whole the
 * memory is not a pool. The memory stays the caller's, to be closed after the pool.
 *
 * -EINVAL block size, or too small; -EEXIST the first 4 KiB are not zeros, or the
 * last are a superblock, without overwrite; -EROFS; -ENOMEM; -EIO.
 */
int btt_create(struct pmem *pm, const struct btt_options *opt, struct btt **ret, struct err *err);

/*
 * Opens a pool. After a close in order it takes the same time for any size, else the table is
 * scanned. Writes nothing before the first write. Memory that is read-only gives a pool that is.
 *
 * -EINVAL not a pool, or another block size; -ENOTSUP of a later version; -EBADMSG damaged: the
 * text says where, and btt_check() what can be done; -ENOMEM; -EIO.
 */
int btt_open(struct pmem *pm, const struct btt_options *opt, struct btt **ret, struct err *err);

/*
 * No call may be under way. Saves the list of spares, so that the next opening is quick; if that
 * fails the pool is as after a crash, which loses nothing. btt NULL: nothing.
 */
int btt_close(struct btt *btt);

/* As btt_close(), but as if the process had died: nothing is written. */
void btt_abandon(struct btt *btt);

uint64_t btt_nblock(const struct btt *btt);
uint64_t btt_block_bytes(const struct btt *btt);

/* buf has block_bytes. Of what was never written: zeros. */
int btt_read(struct btt *btt, uint64_t lba, void *buf);
int btt_write(struct btt *btt, uint64_t lba, const void *buf);

/* No data is written; the first costs one entry, and so does the second. */
int btt_set_zero(struct btt *btt, uint64_t lba);
int btt_set_error(struct btt *btt, uint64_t lba);

/*
 * A window on a list of buffers: the bytes from skip on. For requests that are scattered, or that
 * want part of a sector.
 */
struct btt_window {
	const struct iovec *iov; /* behind skip there is what is asked for, or more */
	size_t skip_bytes;
};

/* len_bytes from off_bytes on in the sector; both within block_bytes. */
int btt_read_part(struct btt *btt, uint64_t lba, uint64_t off_bytes, uint64_t len_bytes,
		  struct btt_window to);
/* The whole sector. */
int btt_write_window(struct btt *btt, uint64_t lba, struct btt_window from);

struct btt_stat {
	struct uuid uuid;
	uint64_t nblock;
	uint64_t block_bytes;
	uint64_t stride_bytes;
	uint64_t spares;
	uint64_t pool_bytes;
	unsigned lanes;
	bool read_only;
	bool scanned;	    /* this opening had to */
	int failed;	    /* the sticky error, or 0 */
	uint64_t damaged;   /* entries that the scan found, or that were met since */
	uint64_t retries;   /* reads that were overtaken */
	uint64_t hazards;   /* reads that protected their block */
	uint64_t waits;	    /* writes that found no lane */
	uint64_t takeovers; /* lanes that were left by a dead thread */
};

void btt_stat(const struct btt *btt, struct btt_stat *ret);

enum btt_trouble {
	BTT_BAD_SUPERBLOCK, /* one copy; at: its offset */
	BTT_BAD_LIST,	    /* the saved list; at: its offset */
	BTT_BAD_ENTRY,	    /* not valid, or cannot be read; at: the sector */
	BTT_SHARED_BLOCK,   /* two sectors have it; at: one of them, other: the other */
	BTT_ERROR_SECTOR,   /* marked so; no fault of the pool, not to be repaired; at: it */
};

struct btt_problem {
	enum btt_trouble trouble;
	uint64_t at, other;
	const char *text; /* what is wrong, and what repairing would do */
	bool can_repair;
};

struct btt_check_options {
	uint64_t block_bytes; /* what it must be, before anything is repaired; 0: any */
	bool repair; /* the memory must be writable */
	/* Each problem, on the calling thread. With repair: whether to repair it. Not NULL. */
	bool (*problem)(void *arg, const struct btt_problem *problem);
	void *arg;
};

struct btt_check_result {
	uint64_t block_bytes;
	uint64_t problems; /* error sectors not counted */
	uint64_t repaired;
	uint64_t error_sectors;
};

/*
 * Checks a pool that nobody has open: superblocks, list, every entry. 0, whatever it found; or the
 * check could not be made: -EINVAL no pool, or another block size; -ENOTSUP, -EBADMSG no superblock
 * is whole, -ENOMEM, -EIO.
 * Repairing makes error sectors of those that cannot be trusted, and loses no others. It may be cut
 * short at any point and done again.
 */
int btt_check(struct pmem *pm, const struct btt_check_options *opt, struct btt_check_result *ret,
	      struct err *err);

/* The least memory that a pool of so many sectors needs; 0: no memory is that large. */
uint64_t btt_pool_bytes(uint64_t nblock, uint64_t block_bytes);

/* Whether there is a pool, whole or not: a magic number at one of its ends. */
bool btt_probe(const struct pmem *pm);

#endif
