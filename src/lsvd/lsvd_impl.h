/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The home's inside, shared by its files:
 *
 *   key.c obj.c super.c ckptfmt.c   forms of objects (codec.h)
 *   map.c       the map, the object table and the live counts
 *   put.c       putting one object, for as long as it takes
 *   own.c       the superblock while the volume is owned: proofs of ownership, replacing it
 *   destage.c   batches on their way from the log to the store
 *   batch.c     building an object from segments
 *   hcache.c    headers of objects, for their checksums
 *   read.c      reads
 *   ckpt.c ckptrun.c   writing checkpoints        load.c   loading them
 *   pages.c     which parts of the newest checkpoint are still true
 *   recover.c   opening: rolling forward   ahead.c  reading headers ahead for it
 *   pair.c      opening: the cache and whether it belongs here
 *   attach.c    taking and giving back the writer's right
 *   resize.c    changing the size
 *   lsvd.c      the life of a volume, ticks, drains, status
 *   gc.c gcplan.c gcbuild.c   moving live data out of old objects      doom.c   deleting these
 *   dump.c check.c   for people
 *
 * Everything in struct lsvd is guarded by the host ("entered") but for what a comment excepts.
 * Nothing here kicks a device while entered: functions that run outside do it at their end, and
 * whoever drives the engine does it after leaving (lsvd.h).
 */
#ifndef LSVD_LSVD_IMPL_H
#define LSVD_LSVD_IMPL_H

#include "base/extmap.h"
#include "base/log.h"
#include "base/mutant.h"
#include "base/timers.h"
#include "lsvd/codec.h"
#include "lsvd/gc.h"
#include "lsvd/lsvd.h"
#include "wlog/segload.h"

/* ---- puts (put.c) */

/*
 * Puts an object under a key of our own, for ever: done is called (not entered) with 0, or with
 * -EEXIST when another object lies under the key. While the engine stops, done may never come.
 */
struct oput {
	struct lsvd *l;
	struct key key;
	const struct iovec *iov; /* header first, in a piece of its own */
	int iovcnt;
	uint64_t len_bytes;
	void (*done)(struct oput *put, int error);
	struct list_head link; /* its owner's */
	/* Its own. */
	struct store_req req;
	struct timer timer;
	struct lsvd_hdr theirs;
	unsigned tries;
};

void oput_start(struct oput *put); /* entered */

/* ---- batches (batch.c, destage.c) */

struct batch;

struct bseg {
	struct wlog_seg *seg; /* pinned */
	struct wlog_seg_view view;
	const uint8_t *data; /* the log's memory, or own */
	uint64_t base;       /* where its data begins in the batch's linear space */
	/* Loading what is not in memory. */
	void *own;
	struct batch *batch;
	struct segload load;
};

enum batch_state {
	BATCH_LOADING,
	BATCH_BUILDING,
	BATCH_PUTTING,
	BATCH_INSTALLING,
};

struct batch {
	struct list_head link; /* l->batches, by seq */
	struct lsvd *l;
	enum batch_state state;
	uint64_t seq, prev_seq;
	uint64_t first_lsn, last_lsn, last_number, wall_ns;
	uint32_t epoch;
	struct uuid volume_uuid; /* a copy: building is not entered, and the superblock changes */
	struct bseg *segs;
	uint32_t nsegs, loads_left;
	/* The object. */
	uint8_t *hdr;
	uint32_t header_bytes, exts, data_sectors;
	struct iovec *iov;
	int iovcnt;
	uint64_t taken_bytes, coalesced_bytes;
	struct oput put;
	bool submitted, put_done, installed;
	uint64_t proof_needed; /* l->events when the put was through */
	uint32_t install_at;   /* the next extent */
	uint32_t install_off;  /* sectors of it that are done */
	unsigned tries;
	struct work work;
	struct timer timer;
	/* A GC object's: no segments, and the data in a piece of memory of its own. */
	bool gc;
	uint8_t *gc_buf;
	struct obj_moves moves; /* done so far */
};

int batch_build(struct batch *b); /* not entered; -ENOMEM */
void batch_unpin(struct batch *b); /* entered */
void batch_free(struct batch *b);

/* ---- checkpoints (ckpt.c, ckptrun.c) */

enum ckpt_phase {
	CKPT_SHARDS,
	CKPT_OBJECTS,
	CKPT_ROOT,
	CKPT_END,
};

/* What a part covers of map or object table (pages.c). */
struct ckpt_page {
	uint64_t first;      /* LBA or object number; it goes on to the next page's */
	struct part_ref ref; /* no 0: there is no part of it */
	bool dirty;          /* changed since it was written */
	bool taken;          /* by the checkpoint that is being written */
};

struct pages {
	struct ckpt_page *p; /* ascending */
	size_t n, cap;
};

int pages_reset(struct pages *pg); /* -ENOMEM, as the next one */
int pages_add(struct pages *pg, const struct ckpt_page *page);
void pages_free(struct pages *pg);
void pages_mark(struct pages *pg, uint64_t first, uint64_t last);
uint64_t pages_clean_entries(const struct pages *pg);
/* Takes the dirty page `from` and what is to be written with it; returns the index behind. */
size_t pages_take_run(struct pages *pg, size_t from, uint32_t capacity);
void pages_untake(struct pages *pg);
void pages_inherit(struct pages *next, const struct pages *old);

/* The parts of a kept checkpoint, by key. */
struct partset {
	struct part_ref *p;
	size_t n;
};

int partset_add(struct partset *s, const struct part_ref *refs, size_t n);
int partset_of_root(struct partset *s, const void *root, uint32_t parts);
bool partset_has(const struct partset *s, const struct key *key);
void partset_free(struct partset *s);

struct ckpt {
	struct lsvd *l;
	uint64_t no;
	uint32_t epoch;
	struct root_hdr root;
	enum ckpt_phase phase;
	enum lsvd_part_kind kind;
	/* The walk: the next page, and where in the run of dirty ones before; no end: in none. */
	size_t page;
	uint64_t at, run_end;
	/* The object that is being made. */
	uint64_t first; /* that its page covers */
	uint64_t shard;
	uint8_t *buf;
	size_t buf_bytes, len_bytes;
	uint32_t entries, capacity;
	struct key key;
	uint32_t crc;
	/* What there is: the pages, those taken over included, and what the root says of them. */
	struct pages next[2];
	struct part_ref *parts;
	struct partset set;
	uint32_t nparts, written;
	uint64_t bytes;
};

int ckpt_begin(struct lsvd *l, struct ckpt *ck); /* -ENOMEM: give it up */
/* Goes on for a bounded while, entered: 0 call again, 1 an object is ready to be put, -errno. */
int ckpt_step(struct ckpt *ck);
void ckpt_seal(struct ckpt *ck);  /* not entered: checksum of the object that is ready */
int ckpt_taken(struct ckpt *ck); /* it is put; 0 more to come, 1 that was the root, -errno */
void ckpt_super(const struct ckpt *ck, struct super *sb); /* enters it into a superblock */
void ckpt_commit(struct ckpt *ck);  /* entered: the superblock names it */
void ckpt_give_up(struct ckpt *ck); /* entered */
void ckpt_free(struct ckpt *ck);
void ckpt_kick(struct lsvd *l); /* entered: starts one if one is due */
uint64_t ckpt_cost_bytes(const struct lsvd *l); /* what one would write now, about */
int ckpt_write_sync(struct lsvd *l, struct super *sb, struct err *err);

void ckpt_drop(struct lsvd *l);

/* Keys that are to be deleted when somebody has time. */
struct trash {
	struct list_head link;
	char key[STORE_KEY_MAX + 1];
	struct root_ref ref; /* no != 0: a root, whose parts go with it */
};

void trash_add(struct lsvd *l, const struct key *key); /* entered */
void trash_kick(struct lsvd *l);

/* ---- headers (hcache.c) */

struct hdr_ent;

struct hdr_wait {
	struct list_head link;
	struct hdr_ent *ent; /* a reference, once ready */
	int error;
	void (*ready)(struct hdr_wait *wait); /* entered */
};

#define HCACHE_BUCKETS 4096

struct hcache {
	struct hdr_ent *bucket[HCACHE_BUCKETS];
	struct list_head lru; /* least recently used first */
	uint64_t bytes;
};

void hcache_init(struct lsvd *l);
void hcache_free(struct lsvd *l);
/* 0: wait->ent is set. 1: ready() will come. -errno. */
int hcache_get(struct lsvd *l, uint64_t seq, struct hdr_wait *wait);
void hcache_put(struct lsvd *l, struct hdr_ent *ent);
/* Hands over a malloc'd header of an object just written. */
void hcache_add(struct lsvd *l, uint64_t seq, void *buf, uint32_t bytes);
const void *hcache_buf(const struct hdr_ent *ent); /* immutable while referenced */

/* ---- reads (read.c) */

struct rd;
#define RD_POOL 32

int read_init(struct lsvd *l);
void read_free(struct lsvd *l);
void home_read(struct wlog_home *home, struct wlog_piece *piece);

/* ---- the volume */

struct objtab {
	struct ckpt_obj *o; /* ascending by seq */
	size_t n, cap;
};

struct lsvd {
	struct wlog_home home;
	struct host *host;
	struct store *store;
	struct dev *cache; /* NULL: looking at the store only */
	struct wlog *log;  /* NULL: no cache, or one that acquire will format */
	struct lsvd_options opt;
	char name[LSVD_NAME_MAX + 1];

	bool acquired, stopping, hold, discard;
	bool tried; /* to acquire */
	bool locked_store, locked_cache;
	int failed; /* fenced or worse: nothing is written any more */

	/* The superblock as it is in the store, and its version. */
	struct super sb;
	uint64_t sb_version;
	uint32_t good_root;     /* which of sb.roots was loaded */
	uint64_t cache_sb_seq;  /* the log's, at open */
	uint64_t discard_lsn;   /* the last LSN of a cache that is being discarded, if it tells */

	/* Proofs of ownership (own.c). events orders puts and proofs. */
	bool sb_busy;
	uint64_t events, proven;
	struct store_req own_req;
	struct timer own_timer;
	uint64_t own_event;
	unsigned own_tries;
	struct super sb_next;
	uint8_t sb_buf[LSVD_SUPER_BYTES], sb_seen[LSVD_SUPER_BYTES];
	void (*sb_done)(struct lsvd *l); /* entered */

	/* The stream. */
	struct extmap map;
	bool map_high, map_full; /* near its limit; an installation waits for room in it */
	struct objtab objs;
	uint64_t live_sectors, total_sectors;
	uint64_t next_seq, data_seq; /* to give out; the last data object given out */
	uint64_t installed_seq, installed_data_seq, installed_lsn, installed_wall_ns;
	uint64_t reach_seq; /* the last object whose installation has begun */

	/* Destaging (destage.c). */
	struct list_head batches;
	uint32_t nbatches;
	struct bseg *gather; /* pinned, not in a batch yet */
	uint32_t ngather, gather_cap, gather_whole;
	uint64_t gather_bytes, gather_records;
	uint64_t taken_number, closed_lsn;
	uint64_t void_from, void_to; /* LSNs behind the one up to the other were never used */
	struct batch *installing;
	struct work destage_work;
	bool destage_queued, urgent;
	uint64_t push_lsn, drain_lsn; /* do not wait for a full batch up to here; not for hold */
	uint64_t mark_lsn, mark_ns;   /* the oldest data not in a batch is as old as this */
	bool push_now;

	/* Waiters. */
	struct drains drains, ckpt_waiters, resize_waiters;
	uint64_t resize_bytes; /* the size that is wanted; 0: none is (resize.c) */

	/* Checkpoints (ckptrun.c). */
	struct ckpt ckpt;
	struct pages pages[2];  /* by kind: what the newest checkpoint covers */
	struct partset kept[2]; /* parts of the kept checkpoints, newest first */
	uint32_t pages_log2;    /* shard size of its parts */
	bool ckpt_active, ckpt_timer_set, ckpt_super_wanted, ckpt_stalled;
	bool ckpt_forced; /* one is wanted though nothing is new */
	struct list_head ckpt_ios;
	uint32_t ckpt_nios;
	struct work ckpt_work;
	struct timer ckpt_timer;
	unsigned ckpt_tries;
	uint64_t since_ckpt, since_bytes; /* objects, and what they weigh */
	uint64_t next_ckpt_no;
	struct root_ref ckpt_third, ckpt_bad; /* to be deleted once the superblock is replaced */
	struct list_head trash;
	struct store_req trash_req;
	struct timer trash_timer;
	void *trash_buf;
	bool trash_busy;
	unsigned trash_tries;

	/* Reads. */
	struct hcache hcache;
	struct rd *rds;
	struct list_head rd_free;
	uint64_t rd_clock; /* counts slices: what they have looked up may be in use */
	void *rd_queue_head, *rd_queue_tail; /* pieces or requests that wait for a free rd */

	/* Garbage collection. */
	struct gc gc;
	struct hdr_wait gc_wait;
	struct work gc_work;
	struct timer gc_timer;
	struct dooms dooms;

	struct timers timers;
	struct segload_user loads;
	uint64_t busy; /* requests, loads and works in flight */

	/* The store's health. */
	int home_error;
	uint64_t error_since_ns;
	struct lsvd_status st; /* counters */
};

static inline struct pages *pages_of(struct lsvd *l, enum lsvd_part_kind kind)
{
	return &l->pages[kind == LSVD_PART_OBJECTS];
}

static inline struct pages *ckpt_pages(struct ckpt *ck)
{
	return &ck->next[ck->kind == LSVD_PART_OBJECTS];
}

/* How much of a checkpoint's interval an object takes up (docs/DESIGN.md). */
#define CKPT_OBJECT_WEIGHT (UINT64_C(1) << 20)

static inline uint64_t object_weight(uint64_t bytes)
{
	return bytes > CKPT_OBJECT_WEIGHT ? bytes : CKPT_OBJECT_WEIGHT;
}

/* ---- map.c */

struct ckpt_obj *objtab_find(const struct objtab *t, uint64_t seq);
size_t objtab_from(const struct objtab *t, uint64_t seq); /* the first at or behind it, or n */
int objtab_add(struct objtab *t, const struct ckpt_obj *obj);
void objtab_free(struct objtab *t);
/*
 * Enters extents [from, to) of a decoded header into the map. With live, counts are kept; without,
 * map_count_live() must follow. -ENOMEM: may be called again with the same range.
 */
int map_install(struct lsvd *l, const void *hdr, uint64_t seq, uint32_t from, uint32_t to,
		bool live);
int map_install_one(struct lsvd *l, const struct obj_ext *e, uint64_t seq, bool live);
int map_move(struct lsvd *l, const struct obj_move *mv, bool live);
bool map_counts_right(struct lsvd *l); /* against a scan of all of it; for tests */
int map_count_live(struct lsvd *l, struct err *err);

/* ---- lsvd.c */

struct lsvd *lsvd_alloc(struct host *host, struct store *store, const char *name,
			const struct lsvd_options *opt);
void lsvd_unlock(struct lsvd *l); /* gives up what attaching has locked */
void lsvd_fail(struct lsvd *l, int error, const char *why); /* entered */
/*
 * How a function that entered at a completion or from a deferred work ends: leaves, kicks what it
 * may have submitted, and only then gives up its count in busy, which keeps all of this alive.
 */
void lsvd_exit(struct lsvd *l);
void home_failed(struct lsvd *l, int error);               /* entered: a write to the store */
void home_works(struct lsvd *l);
/* entered: runs the timer later, after so many failures in a row */
void retry_set(struct lsvd *l, struct timer *timer, unsigned tries);
void tick_later(struct lsvd *l);                           /* entered: asks for the next */
uint64_t last_lsn(const struct lsvd *l); /* the last LSN that was really used */
void drains_check(struct lsvd *l);
bool all_is_home(const struct lsvd *l); /* everything acknowledged is installed */
void info_from_super(const struct super *sb, uint64_t version, struct lsvd_info *ret);

/* ---- destage.c */

void destage_kick(struct lsvd *l);
void destage_advance(struct lsvd *l);
void destage_submit(struct batch *b); /* it is built: to be put, and installed in its turn */
void home_destage(struct wlog_home *home, bool urgent);

/* ---- resize.c, entered */

void resize_kick(struct lsvd *l); /* the superblock is free */
void resize_tick(struct lsvd *l);

/* ---- own.c */

void own_prove(struct lsvd *l);
/* Replaces the superblock by l->sb_next; sb_busy must be false. done: it is in place. */
void own_super(struct lsvd *l, void (*done)(struct lsvd *l));
/* The same on the calling thread: for attaching. -ESTALE: somebody else has replaced it. */
int super_replace_sync(struct lsvd *l, const struct super *next, struct err *err);
int super_read_sync(struct store *store, const char *name, struct super *ret,
		    uint64_t *ret_version, struct err *err);

/* ---- load.c, recover.c, pair.c */

int load_checkpoint(struct lsvd *l, struct root_hdr *ret, struct err *err);
/* A root with its parts' references: *ret_buf is malloc'd. */
int load_root(struct store *store, const char *name, const struct uuid *uuid,
	      const struct root_ref *ref, void **ret_buf, struct root_hdr *ret, struct err *err);
/* ahead: the object, read ahead and malloc'd, taken over; or NULL. */
int load_part(struct store *store, const char *name, const struct uuid *uuid,
	      const struct part_ref *ref, uint32_t shard_log2, void *ahead, void **ret_buf,
	      struct err *err);

/* Keys of the volume, as LIST gave them. */
struct listing {
	struct listed {
		struct key key;
		uint64_t size_bytes;
	} *e;
	size_t n, cap;
	uint64_t max_seq;
};

int listing_read(struct store *store, const char *name, struct listing *ret, struct err *err);
void listing_free(struct listing *list);
const struct listed *listing_find(const struct listing *list, uint64_t seq, uint32_t epoch);
/*
 * A data object's header, verified as this volume's: *ret_buf is malloc'd. -ENOENT: none. Of listed
 * NULL it is asked whether it exists. first: its beginning, read ahead and malloc'd, taken over; or
 * NULL.
 */
int object_header(struct store *store, const char *name, const struct uuid *uuid, uint64_t seq,
		  uint32_t epoch, const struct listed *listed, void *first, void **ret_buf,
		  struct obj_hdr *ret, struct err *err);

#define HEADER_FIRST_BYTES (64u << 10) /* most headers are shorter */

static inline size_t header_first_bytes(uint64_t size_bytes)
{
	return size_bytes < HEADER_FIRST_BYTES ? (size_t)size_bytes : HEADER_FIRST_BYTES;
}

/* ---- ahead.c: what will be wanted next is read ahead */

struct ahead;

/* Key and length of what comes index-th; 0: that was all. */
typedef size_t ahead_want_fn(const void *arg, size_t index, char key[STORE_KEY_MAX + 1]);

struct ahead *ahead_new(struct store *store, ahead_want_fn *want, const void *arg);
void ahead_free(struct ahead *a);
/* The index-th, malloc'd, as long as want() said; NULL: read it yourself. Indexes ascend. */
void *ahead_take(struct ahead *a, size_t index);

/* Superblock, checkpoint, rolling forward. */
int recover_store(struct lsvd *l, struct err *err);
/* Whether the stream ends where we think; 1: it has grown. */
int recover_confirm(struct lsvd *l, struct listing *list, struct err *err);
int pair_cache(struct lsvd *l, struct lsvd_cut *cut, struct err *err);

#endif
