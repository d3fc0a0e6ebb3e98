/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The object-stream home: a virtual disk as a stream of immutable, numbered objects, in front of
 * which stands a write log. (Hajkazemi et al., "Beating the I/O Bottleneck: A Case for
 * Log-Structured Virtual Disks", EuroSys 2022.) docs/SPEC-objects.md has the bytes.
 *
 * Life of a volume:
 *
 *   lsvd_create()   writes a superblock object, nothing else
 *   lsvd_open()     looks: superblock, checkpoint, roll forward, log. Takes no right
 *   lsvd_acquire()  at the first mutation: locks, new attach_epoch, ends the old one, log
 *   lsvd_drain()    asks that everything acknowledged so far reaches the store
 *   lsvd_checkpoint()  the same for the map and the object table
 *   lsvd_release()  after both: marks both sides clean, gives the right back
 *   lsvd_stop()     before a close without a release: nothing new is begun
 *   lsvd_close()    frees; without a release before it, it is the same as a crash
 *
 * Requests go to the log (lsvd_log(), wlog/wlog.h); what the log does not hold it asks of this
 * home. Where there is no log (the volume was opened without a cache, or with one that is still to
 * be formatted by lsvd_acquire()) reads go to lsvd_read().
 *
 * Functions are "entered" (base/host.h) unless said otherwise. They may submit to the store and the
 * cache device; whoever calls them kicks both after leaving. What runs from a completion or from
 * deferred work kicks by itself.
 */
#ifndef LSVD_LSVD_H
#define LSVD_LSVD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/host.h"
#include "base/uuid.h"
#include "dev/dev.h"
#include "store/store.h"
#include "wlog/drain.h"
#include "wlog/wlog.h"

#define LSVD_SECTORS_MAX (UINT64_C(1) << 48)

struct lsvd;

enum lsvd_gc_policy {
	LSVD_GC_GREEDY,       /* what has the least to be moved */
	LSVD_GC_COST_BENEFIT, /* and what has been left alone for long */
};

struct lsvd_options {
	struct wlog_options log;
	uint32_t batch_bytes;          /* an object's data, default 8 MiB */
	uint64_t batch_age_ns;         /* data is destaged at this age, default 2 s */
	uint32_t puts_in_flight;       /* default 4 */
	uint64_t checkpoint_bytes;     /* a checkpoint after so much, or more if the map is large
					  (docs/DESIGN.md); default 256 MiB */
	uint32_t checkpoint_objects;   /* or after so many objects, default 65536 */
	uint32_t checkpoint_part_bytes; /* what is rewritten for one change, up to 8 MiB; default
					   1 MiB */
	uint32_t shard_sectors_log2;   /* of one checkpoint shard; default 2^25 sectors (16 GiB);
					  larger where a volume would have too many */
	uint64_t header_cache_bytes;   /* memory for object headers (checksums), default 64 MiB */
	uint64_t map_limit_bytes;      /* memory for the map, default 4 GiB */
	uint64_t retry_min_ns, retry_max_ns; /* back-off after a store error: 100 ms to 5 s */
	uint64_t home_timeout_ns;      /* P8: after this much failing, reads of the store end with
					  -EIO and lsvd_drain/release give up; 0: 60 s */
	/* Garbage collection (gc.c, doom.c). */
	enum lsvd_gc_policy gc_policy;
	uint32_t gc_start_percent, gc_stop_percent; /* of data in objects live; default 70, 75 */
	uint64_t gc_min_age_ns; /* an object is deleted so long after it died; default 60 s */
	uint64_t gc_rate;       /* bytes a second that are moved at most; 0: no limit */
	bool hold_destage;             /* nothing is destaged until lsvd_set_hold(false) */
};

void lsvd_options_default(struct lsvd_options *opt);

/*
 * Creates the volume `name` (which is the superblock's key and the prefix of all others).
 * -EEXIST if there is one. Not entered; synchronous.
 */
struct lsvd_create_options {
	struct uuid uuid;      /* null: a new one */
	uint64_t size_bytes;   /* a multiple of block_bytes, up to 2^48 sectors */
	uint32_t block_bytes;  /* unit of atomicity, 512 (default) to 4096 */
	uint64_t wall_ns;
};

int lsvd_create(struct store *store, const char *name, const struct lsvd_create_options *opt,
		struct err *err);

/* What the superblock says. Not entered; synchronous. */
struct lsvd_info {
	struct uuid uuid;
	struct uuid cache_uuid;      /* the bound cache; null: none yet */
	struct uuid pending_uuid;    /* whoever began to attach last (L2) */
	uint64_t size_bytes;
	uint32_t block_bytes;
	uint64_t attach_epoch, committed_epoch;
	uint64_t version;            /* the store's, for compare-and-swap */
	uint64_t created_wall_ns, changed_wall_ns;
	uint64_t checkpoint_seq[2];  /* what they cover, newest first; 0: none */
	uint64_t last_seq, last_lsn; /* as of the last clean close or checkpoint */
	bool clean;                  /* nothing is in any cache that is not here */
};

int lsvd_probe(struct store *store, const char *name, struct lsvd_info *ret, struct err *err);

/*
 * Opens for looking. cache may be NULL: only what the store holds (a prefix, P3). Checks volume
 * and cache pairwise (P6); with discard_cache a missing, stale or foreign cache is not looked at,
 * and the cut is reported in ret_cut. Not entered; synchronous.
 *
 * -ENOENT no volume; -ENODEV the cache is missing or not formatted but may hold acknowledged
 * data; -EXDEV the cache belongs to another volume; -ESTALE the cache is an older copy;
 * -EBADMSG damage. Each with a text that says what to do.
 */
struct lsvd_cut {
	uint64_t lsn;      /* the image holds every write up to here and none after */
	uint64_t wall_ns;  /* when the newest of them was sealed */
	uint64_t seq;      /* the last object */
	uint64_t lost_bytes; /* what the cache tells that it held beyond; 0: none, or unknown */
};

int lsvd_open(struct host *host, struct store *store, const char *name, struct dev *cache,
	      bool discard_cache, const struct lsvd_options *opt, struct lsvd **ret,
	      struct lsvd_cut *ret_cut, struct err *err);

/*
 * Takes the writer's right. May be called once, before the first mutation, with no request in
 * flight. -EBUSY when somebody else has it; -EAGAIN when somebody else had it since lsvd_open()
 * and what we know is old: close and open again. A cache that is not bound yet is bound here,
 * one that was discarded is formatted. Not entered; synchronous.
 */
int lsvd_acquire(struct lsvd *lsvd, struct err *err);
bool lsvd_acquired(const struct lsvd *lsvd);

/* NULL: there is none, see above. lsvd_acquire() may change this. */
struct wlog *lsvd_log(struct lsvd *lsvd);

/*
 * Reads without a log: a DEV_READ on sector boundaries, done through host->ready. Only while
 * lsvd_log() is NULL.
 */
void lsvd_read(struct lsvd *lsvd, struct dev_req *req);

void lsvd_tick(struct lsvd *lsvd); /* the log's tick is included */
void lsvd_set_hold(struct lsvd *lsvd, bool hold);

/*
 * Asks that everything acknowledged before this call reaches the store; drain->done comes when it
 * has, or when home_timeout_ns of nothing but errors has passed.
 */
void lsvd_drain(struct lsvd *lsvd, struct drain *drain);

/* Somebody no longer waits; 0 when the drain was still waiting, and its done() never comes. */
int lsvd_drain_cancel(struct lsvd *lsvd, struct drain *drain);

/*
 * Asks for a checkpoint of all that has reached the store by now; the same way. From then on, until
 * there is new data, garbage is not collected: a release may follow.
 */
void lsvd_checkpoint(struct lsvd *lsvd, struct drain *drain);

/*
 * Collects garbage now: until gc_stop percent of the data in objects are live, as far as that can
 * be had, and what is dead is deleted as far as it is old enough. done: nothing is left to be done.
 */
void lsvd_gc(struct lsvd *lsvd, struct drain *drain);

/*
 * Changes the size: a multiple of the block. done when the superblock with it is durable; until
 * then nothing beyond the smaller of the two sizes is accepted. A smaller one: -EBUSY while log or
 * map have anything beyond it; zero the range and drain first. No request that reaches beyond the
 * smaller size may be pending or come before done. On an error that the store caused the new size
 * may take effect later (lsvd_status.info tells), or not.
 */
void lsvd_resize(struct lsvd *lsvd, uint64_t size_bytes, struct drain *drain);

/*
 * Drain and checkpoint have to be through (the caller asks for them and waits), no request is
 * pending. Marks the log and the superblock clean and gives up the locks. On an error the volume
 * is left as after a crash: nothing is lost. Not entered; synchronous.
 */
int lsvd_release(struct lsvd *lsvd, struct err *err);

/*
 * Before a close that was not preceded by a release: nothing new is begun and nothing tried again,
 * and lsvd_idle() becomes true when what is in flight has come back. Drains that are waiting are
 * done with -ECANCELED.
 */
void lsvd_stop(struct lsvd *lsvd);
bool lsvd_idle(const struct lsvd *lsvd);

/*
 * Frees. Nothing of ours may be in flight any more (lsvd_idle()), unless it will never complete:
 * in a simulation, after the death of devices, store and deferred work. Not entered.
 */
void lsvd_close(struct lsvd *lsvd);

struct lsvd_status {
	struct lsvd_info info;
	struct wlog_status log;
	bool acquired, hold;
	uint64_t sectors; /* what requests may reach; see lsvd_resize() */
	uint64_t objects, total_sectors, live_sectors;
	uint64_t map_extents, map_bytes, map_limit_bytes, header_cache_bytes;
	bool map_full; /* destaging waits for room in it: writers will be slowed down by the log */
	uint64_t next_seq, durable_seq, durable_lsn;
	uint64_t puts_in_flight, put_retries, put_bytes, checkpoint_bytes, checkpoints;
	uint64_t checkpoint_pages, checkpoint_next_bytes; /* it has; another would write, about */
	uint64_t gc_rounds, gc_moved_bytes, gc_filled_bytes, gc_failures;
	uint64_t gc_deleted, gc_deleted_bytes; /* objects that nothing named any more */
	uint64_t gc_waiting, gc_waiting_bytes; /* dead, not deleted yet */
	bool gc_running;
	uint64_t batched_bytes, coalesced_bytes; /* from the log; overwritten in their batch */
	uint64_t oldest_undestaged_ns;
	uint64_t busy;  /* requests and works in flight */
	int home_error; /* the error that the store is failing with now, or 0 */
	int failed;     /* 0; -ESTALE: fenced by another owner, -EEXIST: a foreign object in our
			   way. Nothing is destaged, read or acknowledged any more: close */
};

void lsvd_status(struct lsvd *lsvd, struct lsvd_status *ret);

/*
 * Extents that hold data, of log and home together: for NBD's block status. Returns the end of the
 * run that begins at lba and whether it is data or a hole.
 */
uint64_t lsvd_extent(struct lsvd *lsvd, uint64_t lba, uint64_t end, bool *ret_data);

#endif
