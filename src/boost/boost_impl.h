/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The home's inside, shared by its files:
 *
 *   state.c     the home's state in the log's superblock; bad ranges; the binding
 *   sample.c    samples of the backing device: where they are, taking and comparing them
 *   open.c      opening: do cache and backing device belong together?
 *   attach.c    taking and giving back the writer's right
 *   gather.c    which segments make the next batch, and when it is due
 *   batch.c     a batch on its way: its beginning, loading, its end
 *   load.c      data that is no longer in memory, also of the next batch
 *   build.c     from segments to sorted pieces that are verified
 *   write.c     writing, flushing
 *   refused.c   places that the backing device refuses to write
 *   read.c      reads of the backing device
 *   boost.c     the life of a volume, ticks, drains, status
 *
 * Everything in struct boost is guarded by the host ("entered") but for what a comment excepts.
 * Nothing here kicks a device while entered: functions that run outside do it at their end
 * (boost_exit), and whoever drives the engine does it after leaving (boost.h).
 */
#ifndef BOOST_BOOST_IMPL_H
#define BOOST_BOOST_IMPL_H

#include "base/extmap.h"
#include "base/log.h"
#include "base/mutant.h"
#include "base/timers.h"
#include "boost/boost.h"
#include "boost/boost_layout.h"
#include "wlog/segload.h"

/* ---- the state (state.c) */

struct samples {
	uint64_t seed;
	uint32_t crc[BOOST_SAMPLES];
	bool valid[BOOST_SAMPLES];
};

struct state {
	uint64_t backing_bytes;
	uint64_t bound_wall_ns;
	uint64_t destaged_wall_ns;
	uint32_t block_bytes;
	char identity[DEV_IDENTITY_LEN];
	struct samples samples;
};

#define BAD_TAG (EXTMAP_CONST | 1) /* what bad ranges are mapped to */

/* Writes the state with the bad ranges. -ENOSPC: there are more of these than it can hold. */
int state_encode(const struct state *state, const struct extmap *bads, struct boost_state *ret);
/* bads must be empty, and is cleared after an error. */
int state_decode(const void *buf, uint32_t bytes, struct state *ret, struct extmap *bads,
		 struct err *err);
/* How many entries of the table the ranges take. */
uint32_t bads_entries(const struct extmap *bads);
uint64_t bads_sectors(const struct extmap *bads);

/* ---- samples (sample.c) */

uint64_t sample_off(const struct state *state, uint32_t index);
uint32_t sample_len(const struct state *state, uint32_t index);
/* Takes all that the log does not cover. Not entered; synchronous. */
int samples_take(struct boost *b, struct state *state, struct err *err);
/* Compares those that the log does not cover. -ESTALE. Not entered; synchronous. */
int samples_check(struct boost *b, const struct state *state, struct err *err);

/* ---- batches */

enum piece_kind {
	PIECE_DATA,
	PIECE_ZERO,
	PIECE_LOST, /* its data is damaged */
};

struct piece {
	uint64_t lba;
	union {
		uint64_t lin; /* before it was verified */
		const uint8_t *data;
	} u;
	uint32_t sectors;
	enum piece_kind kind;
};

struct pieces {
	struct piece *p;
	size_t n, cap;
};

/* A DATA record of the batch. */
struct source {
	uint64_t lin; /* ascending */
	uint64_t lba;
	uint32_t sectors;
	uint32_t seg;
	uint32_t first_crc;   /* in its segment */
	uint32_t first_chunk; /* in batch.chunk */
};

struct bseg {
	struct wlog_seg *seg; /* pinned */
	struct wlog_seg_view view;
	const uint8_t *data; /* the log's memory, or the batch's */
	uint64_t base;	     /* where its data begins in the batch's linear space */
};

/* A way to load a segment, and one to write. There is a fixed number of each. */
struct bload {
	struct list_head link; /* batch.loads_free */
	struct segload load;
	struct boost *b;
	bool ahead; /* for the next batch, or when it was */
};

/* What is read ahead for the next batch. */
struct ahead {
	struct bseg *segs; /* pinned; by number */
	size_t n, cap;
	size_t next; /* the first that is not begun */
	uint32_t in_flight;
	uint8_t *arena;
	size_t used;
	bool dropped; /* nobody wants it any more, when what is in flight is back */
};

#define BWRITE_BYTES (1u << 20)
#define BWRITE_IOV 256

struct bwrite {
	struct list_head link; /* batch.writes_free */
	struct dev_req req;
	struct boost *b;
	uint32_t sample; /* a read of a sample: which */
	struct iovec iov[BWRITE_IOV];
};

enum batch_phase {
	BATCH_NONE,
	BATCH_LOADING,
	BATCH_BUILDING,
	BATCH_WRITING,
	BATCH_FLUSHING,
	BATCH_SAMPLING,
	BATCH_RELOGGING,
	BATCH_FAILED, /* waits for its next try */
};

#define BATCH_LOADS 32
#define BATCH_REFUSED 256

/* What the device did not write, while it wrote other things. */
struct refused {
	uint64_t lba, sectors;
};

struct batch {
	enum batch_phase phase;
	/* Memory that is kept from one batch to the next. */
	struct bseg *segs;
	size_t segs_cap;
	struct source *source;
	size_t source_cap;
	uint8_t *chunk; /* what verifying has shown */
	size_t chunk_cap;
	struct pieces found, ready;
	uint8_t *arena; /* for loads */
	struct ahead ahead;
	uint8_t *sample_buf;
	struct bload *loads;
	struct bwrite *writes;
	struct list_head loads_free, writes_free;
	bool used; /* since the last look at whether to give the memory back */
	/* The batch. */
	uint32_t nsegs, next_load;
	size_t ahead_at;
	uint32_t nsource;
	uint64_t chunks;
	uint64_t last_number, last_lsn, wall_ns, data_sectors;
	size_t arena_used;
	struct extmap map;
	struct extmap bads; /* as they are when it is home */
	bool bads_changed;
	bool sample_touched[BOOST_SAMPLES];
	uint32_t sample_crc[BOOST_SAMPLES];
	bool sample_valid[BOOST_SAMPLES];
	uint64_t lost_sectors, superseded_sectors;
	/* Building and writing. */
	size_t at;	 /* the next piece */
	uint32_t at_off; /* sectors of it that are done */
	uint32_t in_flight;
	uint64_t written_bytes;
	uint64_t writes_done;
	int error;
	unsigned int tries;
	bool forgive; /* the device has failed since it was last written to */
	struct work work;
	struct timer timer;
	struct dev_req flush_req;
	/* Refused places (refused.c). */
	bool careful; /* one by one, so as to find them */
	bool widen;   /* all of it was refused: the next try takes as much as it may */
	struct refused refused[BATCH_REFUSED];
	uint32_t nrefused, refused_at;
	uint64_t refused_lba; /* goes on here */
	int refused_error;
	struct wlog_relog relog;
	bool relog_active;
};

/* ---- gathering (gather.c) */

#define BATCH_BYTES_MAX (UINT64_C(64) << 20)

/* How far the log's durable segments have been looked at for the next batch. */
struct gather {
	uint64_t number; /* the last one seen */
	uint64_t cut;	 /* the last one that ends a write, or 0: here the batch may end */
	uint64_t first_lsn;
	uint64_t weight, records;
	bool full;
};

/* ---- reads (read.c) */

#define READ_POOL 128

struct bread;

/* ---- the volume */

struct boost {
	struct wlog_home home;
	struct host *host;
	struct dev *backing, *cache;
	struct wlog *log;      /* NULL: no cache, or one that acquire will format */
	struct wlog *given_up; /* a log that is being discarded, for looking */
	struct boost_options opt;

	bool acquired, tried, stopping, hold, allow_migrate, discard;
	bool locked_backing, locked_cache;
	bool bound; /* state is what the log says; else it is to be made */
	bool empty; /* the log was closed in order and holds nothing: the device may have changed */
	int failed;

	struct uuid volume_uuid;
	uint64_t cache_sb_seq; /* the log's, at open */
	uint64_t attach_epoch;
	uint64_t ring_bytes;
	uint64_t discard_lsn; /* the highest known of a log that is being given up */
	struct state state;
	struct extmap bads;
	struct boost_state state_mem;

	/* Writeback. */
	struct batch batch;
	struct gather gather;
	struct work batch_work;
	bool batch_queued, urgent;
	uint64_t home_number, home_lsn; /* the backing device has everything through it */
	uint64_t mark_lsn, mark_ns;	/* the oldest data that is not home is as old as this */
	uint64_t used_ns;		/* when the memory of batches was looked at */
	uint64_t push_lsn;		/* do not wait for a full batch up to here */
	struct drains drains;
	struct segload_user load_user;
	struct timers timers;

	/* Reads. */
	struct bread *reads;
	struct list_head reads_free;
	void *read_queue_head, *read_queue_tail; /* pieces or requests that wait for one */

	uint64_t busy; /* requests and works in flight */
	int home_error;
	uint64_t refused_lsn; /* what the device refused last lies in the log up to here */
	uint32_t refused_rounds;
	uint64_t error_since_ns;
	uint64_t dirty_before;	/* data sectors that the log held when it was opened */
	uint64_t home_sectors;	/* of data, since */
	struct boost_status st; /* counters */
};

/* boost.c */
struct boost *boost_alloc(struct host *host, struct dev *backing, struct dev *cache,
			  const struct boost_options *opt);
/*
 * How a function that entered at a completion or from deferred work ends: leaves, kicks what it may
 * have submitted, and only then gives up its count in busy, which keeps all of this alive.
 */
void boost_exit(struct boost *b);
void boost_fail(struct boost *b, int error, const char *why); /* entered */
void boost_unlock(struct boost *b);
void boost_home_failed(struct boost *b, int error); /* entered */
void boost_tick_later(struct boost *b);
uint64_t boost_published_lsn(const struct boost *b); /* the last that was acknowledged */
uint64_t boost_drain_target(const struct boost *b);  /* somebody waits for everything up to here */

/* open.c */
void backing_identity(struct dev *dev, char ret[DEV_IDENTITY_LEN]);
/* Whether a discard may give up what is there (P6). */
int open_may_discard(struct boost *b, struct err *err);
/* Finds out what the log holds that is not home; once, before anything runs. */
void open_count(struct boost *b);

/* gather.c */
uint64_t gather_limit(const struct boost *b);
uint64_t gather_weight(const struct wlog_seg_view *view);
void gather_reset(struct boost *b);
void gather_run(struct boost *b);
bool gather_due(struct boost *b);
/* The number of the segment that the next batch ends with; 0: there is none. */
uint64_t gather_cut(struct boost *b);
void boost_home_destage(struct wlog_home *home, bool urgent);

/* batch.c */
int wb_init(struct boost *b);
void wb_free(struct boost *b);
void wb_kick(struct boost *b);		    /* begins one if one is due, soon */
void wb_give_back(struct boost *b);	    /* memory, when nothing has happened for a while */
void wb_build(struct boost *b);		    /* sorts, verifies and writes what is loaded */
void wb_failed(struct boost *b, int error); /* nothing of the batch is in flight */
void wb_ended(struct boost *b);		    /* all of it is durable on the backing device */

/* load.c */
int load_begin(struct boost *b);
void load_batch(struct boost *b); /* then wb_build() */
/* Reads for the next batch, if that will be full and is no longer in memory. */
void load_ahead(struct boost *b);
void load_ahead_drop(struct boost *b);
bool load_ahead_gone(const struct boost *b);
void load_free(struct batch *bt);

/* write.c */
void wb_write(struct boost *b); /* what is ready; then wb_failed() or wb_ended() */

/*
 * build.c. Not entered, but for build_superseded(): it goes on for a bounded while, 0 when all is
 * looked at, 1 call again. -ENOMEM leaves everything as it was. build_verify(): -EBADMSG when a
 * record cannot be this volume's; -ENOSPC when there are more bad ranges than can be remembered.
 */
int build_map(struct boost *b);
int build_superseded(struct boost *b);
int build_verify(struct boost *b);
int pieces_add(struct pieces *list, const struct piece *p);
/* The number of the segment that a value of the batch's map is of. */
uint64_t build_segment_of(const struct batch *bt, uint64_t value);

/* refused.c */
bool refused_careful(const struct boost *b);
bool refused_add(struct batch *bt, const struct dev_req *req); /* false: no room */
void refused_all(struct boost *b);
void refused_relog(struct boost *b); /* then wb_build() or wb_failed() */
void refused_stop(struct boost *b);

/* read.c */
int bread_init(struct boost *b);
void bread_free(struct boost *b);
void boost_home_read(struct wlog_home *home, struct wlog_piece *piece);

#endif
