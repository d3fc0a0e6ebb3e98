/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The in-place home: a write cache before a block device. What is written goes to the log on the
 * cache device; later the newest durable copy of each sector is written, sorted and merged, to its
 * own place on the backing device. (Akira Hayakawa, dm-writeboost; docs/DESIGN.md.)
 *
 * Life of a volume:
 *
 *   boost_open()     looks: the log, and whether cache and backing device belong together
 *   boost_acquire()  at the first mutation: locks both devices, binds them, starts the log
 *   boost_drain()    asks that everything acknowledged so far reaches the backing device
 *   boost_release()  after a drain: marks the log clean, gives the locks back. The backing device
 *                    then holds everything and may be used without the cache
 *   boost_stop()     before a close without a release: nothing new is begun
 *   boost_close()    frees; without a release before it, it is the same as a crash
 *
 * Requests go to the log (boost_log(), wlog/wlog.h), which asks this home for what it lacks.
 * Without a log (cache NULL, or discarded) reads go to boost_read(), and boost_acquire() formats a
 * discarded one.
 *
 * The backing device carries data alone, where it always was: sector n of the volume is its sector
 * n. So who belongs to whom (P6) is kept in the log's superblock: the device's identity as its
 * kernel tells it, its size, and checksums of sampled places. While the log holds what the backing
 * device lacks, a device that has any other identity, has shrunk, or differs in a sampled place
 * that the log does not cover is refused: it is another one, or was written to without its cache.
 * After a release it may have changed in any way but into another device.
 *
 * A promise that is not made: without its cache the backing device is no prefix of what was
 * acknowledged (P3). It is what some moment of writeback left, with newer and older sectors side by
 * side; a file system on it may be beyond repair.
 *
 * Functions are "entered" (base/host.h) unless said otherwise. They may submit to both devices;
 * whoever calls them kicks both after leaving. What runs from a completion or from deferred work
 * kicks by itself.
 */
#ifndef BOOST_BOOST_H
#define BOOST_BOOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/host.h"
#include "base/uuid.h"
#include "dev/dev.h"
#include "wlog/drain.h"
#include "wlog/wlog.h"

struct boost;

struct boost_options {
	struct wlog_options log;
	struct uuid volume_uuid;  /* must be the cache's; null: whatever the cache says */
	/*
	 * Segments written back in one batch, default 64. Of those that are not full, as many more
	 * as make up for it: what counts is the sorting of as much data.
	 */
	uint32_t nr_max_batched_migration;
	bool allow_migrate;       /* write back without need; default true. false: only when the log
				     is full, or for a drain */
	uint32_t writes_in_flight; /* at the backing device during writeback; default 32 */
	uint64_t batch_age_ns;    /* data is written back at this age, default 2 s */
	uint64_t retry_min_ns, retry_max_ns; /* back-off after an error: 100 ms to 5 s */
	uint64_t home_timeout_ns; /* P8: after so much failing, drain and release give up; 60 s */
	bool hold;                /* nothing at all is written back, until boost_set_hold(false) */
};

void boost_options_default(struct boost_options *opt);

/* What a log says of its backing device (wlog_info.home); docs/SPEC-log.md has the bytes. */
struct boost_binding {
	uint64_t backing_bytes;
	char identity[DEV_IDENTITY_LEN];
	uint64_t bound_wall_ns;
	uint64_t bad_bytes; /* whose newest data was lost to damage, as far as that is home */
};

/* -ENOENT: the log is not bound to a backing device; -EBADMSG. Any time, not entered. */
int boost_binding(const struct wlog_info *info, struct boost_binding *ret, struct err *err);

/* Where the image was cut when a cache was discarded, and what that lost. */
struct boost_cut {
	/*
	 * The backing device has everything up to here, and more, mixed; but not what was
	 * overwritten later, or what it refused: of that it may have older copies.
	 */
	uint64_t lsn;
	uint64_t wall_ns;    /* when the newest of that was sealed; 0: unknown */
	uint64_t lost_bytes; /* that only the cache held, as far as it can be read; 0: none */
	bool unknown;        /* the cache cannot be read: nobody knows what is lost */
};

/*
 * Opens for looking. cache NULL: reads of the backing device alone. With discard_cache the log is
 * read only to tell what is given up (ret_cut), and boost_acquire() formats it anew.
 * Not entered; synchronous.
 *
 * -ENODEV the cache is not formatted; -EXDEV cache and volume or backing device belong to others;
 * -ESTALE the backing device has been written to without its cache, or the cache is an old copy;
 * -EBADMSG damage. Each with a text that says what to do.
 */
int boost_open(struct host *host, struct dev *backing, struct dev *cache, bool discard_cache,
	       const struct boost_options *opt, struct boost **ret, struct boost_cut *ret_cut,
	       struct err *err);

/*
 * Takes the writer's right: locks both devices, binds log and backing device when the log is new,
 * records a grown size, starts the log. May be called once, with no request in flight. -EBUSY when
 * somebody else has it; -EAGAIN when somebody else had it since boost_open(): close and open again.
 * Not entered; synchronous.
 */
int boost_acquire(struct boost *b, struct err *err);
bool boost_acquired(const struct boost *b);

struct wlog *boost_log(struct boost *b); /* NULL: there is none. boost_acquire() may change this */
void boost_read(struct boost *b, struct dev_req *req); /* only while boost_log() is NULL */

void boost_tick(struct boost *b); /* the log's tick is included */

/* What can change while running. */
void boost_set_hold(struct boost *b, bool hold);
void boost_set_allow_migrate(struct boost *b, bool allow);
void boost_set_batch(struct boost *b, uint32_t nr_max_batched_migration);
void boost_clear_stat(struct boost *b);

/* As in wlog/drain.h: everything acknowledged before this call reaches the backing device. */
void boost_drain(struct boost *b, struct drain *drain);
/* Somebody no longer waits; 0 when the drain was still waiting, and its done() never comes. */
int boost_drain_cancel(struct boost *b, struct drain *drain);

int boost_release(struct boost *b, struct err *err); /* not entered; synchronous; after a drain */
void boost_stop(struct boost *b);
bool boost_idle(const struct boost *b);
void boost_close(struct boost *b); /* not entered */

/*
 * Extents that only the log holds, in LBA order: what a removal of the cache by force would lose.
 * The run at or after lba; false when there is none. For looking at a volume too.
 */
bool boost_dirty(struct boost *b, uint64_t lba, uint64_t *ret_lba, uint64_t *ret_sectors);

/* The run of equal state that begins at lba, and whether it is data or known to be zeros. */
uint64_t boost_extent(struct boost *b, uint64_t lba, uint64_t end, bool *ret_data);

struct boost_status {
	struct wlog_status log;
	struct boost_binding binding;
	struct uuid volume_uuid;
	uint64_t sectors;
	uint32_t block_bytes; /* the backing device's logical block: what all requests align to */
	bool acquired, hold, allow_migrate;
	bool can_discard; /* false: a discard is only a hint; complete it, do not log it */
	uint32_t nr_max_batched_migration;
	/*
	 * Data in the log that is not home yet; what was written twice counts twice. What the log
	 * still buffers is included, zeros and discards are not.
	 */
	uint64_t dirty_sectors;
	uint64_t migrated_bytes; /* written to the backing device */
	uint64_t migrate_writes; /* in so many requests */
	uint64_t superseded_bytes; /* that need not be written: newer durable copies */
	uint64_t batches, flushes;
	uint64_t lost_bytes;     /* given up for damage in the log, reported when it happened */
	uint64_t bad_sectors;    /* of these, not written again since: reads of it are EIO */
	uint64_t oldest_dirty_ns; /* age of the oldest; 0: none */
	uint64_t retries, busy;
	int home_error; /* the error that the backing device is failing with now, or 0 */
	int failed;     /* 0, or why nothing is written back any more */
};

void boost_status(struct boost *b, struct boost_status *ret);

#endif
