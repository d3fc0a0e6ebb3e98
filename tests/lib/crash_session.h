/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One life of an engine in the simulator: from open to close, or to the power cut.
 *
 * A universe is what survives: the cache disk, the bucket, the backing disk or the memory of the
 * home, and the oracle. A session opens the engine on a universe, submits operations, checks every
 * read at once, tells the oracle what was acknowledged, and ends cleanly (session_close) or dead
 * (session_abandon, after a cut or a kill).
 *
 * What engine it is, is the target's affair: crash_on_log.h, crash_on_lsvd.h, crash_on_boost.h.
 */
#ifndef TESTS_LIB_CRASH_SESSION_H
#define TESTS_LIB_CRASH_SESSION_H

#include "dev/sim.h"
#include "lib/crash_report.h"
#include "lib/oracle.h"
#include "lib/sim_host.h"
#include "store/sim.h"

#define SESSION_OPS_MAX 12

/* Everything random about a run but its program. */
struct crash_config {
	uint32_t sectors;      /* that are used: the oracle's */
	uint64_t lba_base;     /* where they begin in the volume */
	uint32_t disk_bytes;   /* of the cache device */
	uint32_t segment_bytes, buffers, writes_in_flight, barrier_deadline_us;
	uint32_t batch_bytes, puts_in_flight, checkpoint_objects, part_bytes, shard_log2;
	uint32_t header_cache_bytes;
	uint64_t batch_age_ns;
	uint64_t full_timeout_ns, home_timeout_ns;
	uint64_t latency_ns, jitter_ns;
	uint32_t ops_in_flight;
	uint32_t max_write;    /* sectors */
	uint32_t hot;          /* sectors that most operations fall into; 0: all alike */
	bool lazy_home;        /* takes only when it must */
	/* Of homes that are a backing device. */
	uint32_t block_bytes;  /* its logical block; 0: 512 */
	uint32_t backing_more; /* bytes of it behind what is used */
	uint32_t batch_segments;
	bool adopt;            /* it has held data before it got a cache */
	bool moody;            /* tunables change at each opening and now and then */
};

enum crash_op_kind {
	CRASH_WRITE,
	CRASH_ZERO,
	CRASH_DISCARD,
	CRASH_READ,
	CRASH_FLUSH,
	CRASH_DRAIN,
	CRASH_CHECKPOINT,
	CRASH_REOPEN, /* a clean close, and open again */
	CRASH_PAUSE,  /* nothing new until everything is done */
};

struct crash_op {
	enum crash_op_kind kind;
	bool fua;
	uint32_t lba, sectors;
};

/* What a home in memory keeps over crashes (crash_on_log.c). */
struct crash_memory {
	uint64_t destaged_lsn;
	uint64_t attach_epoch;
	uint8_t *image;
};

struct crash_universe {
	struct sim_world world;
	const struct crash_config *cfg;
	struct sim_disk *disk;
	struct sim_bucket *bucket;  /* NULL: the target has none */
	struct sim_disk *backing;   /* NULL: the target has none */
	struct crash_memory memory; /* image NULL: the target has none */
	struct oracle *oracle;
	bool cache_lost;            /* the disk is a new one, and what it held is gone */
	bool home_unknown;          /* the oracle does not know what the backing disk alone holds */
	bool tolerant;              /* faults are planned: errors are no failure */
};

struct crash_session;

/* A request to the home: drain or checkpoint. */
struct crash_wish {
	void (*done)(struct crash_wish *wish, int error);
	struct crash_session *session;
	uint32_t mark;
	bool checkpoint;
	union {
		uint64_t u64[12];
		void *ptr[12];
	} priv;
};

struct crash_target {
	const char *name;
	bool has_store;
	bool has_backing;
	/* Makes a volume on fresh media. */
	int (*create)(struct crash_universe *u, struct err *err);
	/* Opens for looking; sets s->sh.log and s->engine. */
	int (*open)(struct crash_session *s, bool discard_cache, struct err *err);
	int (*acquire)(struct crash_session *s, struct err *err);
	/* Entered. */
	void (*tick)(struct sim_host *sh);
	void (*wish)(struct crash_session *s, struct crash_wish *wish);
	/* Not entered. Everything that was reported to be in the home: an LSN. */
	uint64_t (*destaged_lsn)(struct crash_session *s);
	bool (*idle)(struct crash_session *s);
	/* It is brought down without a release; may be NULL. */
	void (*stop)(struct crash_session *s);
	int (*release)(struct crash_session *s, struct err *err);
	void (*close)(struct crash_session *s);
};

struct crash_session {
	const struct crash_target *target;
	struct crash_universe *u;
	struct sim_host sh;
	struct dev *cache; /* what the engine gets: sh.dev, or something in front of it */
	struct dev *backing; /* the same: sh.backing; NULL when the target has none */
	void *engine;
	bool acquired;
	bool reading; /* everything, for a judgement */
	bool dead; /* completions no longer mean anything */
	unsigned int busy_wishes;
	struct crash_wish wishes[2];
	struct sim_op ops[SESSION_OPS_MAX];
	uint8_t *mem[SESSION_OPS_MAX];
	uint32_t *floors[SESSION_OPS_MAX];
	uint32_t ops_used;
	uint64_t errors;         /* operations that ended with one */
	uint64_t progress_step;  /* when something was last done */
	uint64_t progress_ns;
};

void universe_init(struct crash_universe *u, const struct crash_target *t,
		   const struct crash_config *cfg, uint64_t seed, struct oracle *oracle);
void universe_free(struct crash_universe *u);
/* Makes dst what a crash of src would leave now: of the cache, and of the home. */
void universe_image(const struct crash_universe *src, struct sim_keep keep,
		    struct sim_keep keep_home, struct crash_universe *dst);
/*
 * What the backing disk durably holds without its cache is what the engine has reported: fails the
 * test otherwise. clean: everything, since the last session was closed in order.
 */
void universe_check_home(struct crash_universe *u, bool clean);
/* The power cut itself: all sessions must be abandoned. */
void universe_crash(struct crash_universe *u, struct sim_keep keep);
/* Another, empty cache device in place of the old one. */
void universe_lose_cache(struct crash_universe *u);

struct crash_session *session_new(const struct crash_target *t, struct crash_universe *u,
				  uint64_t seed);
/* On another machine, with a cache of its own, over the same bucket. */
struct crash_session *session_new_on(const struct crash_target *t, struct crash_universe *u,
				     uint64_t seed, unsigned int machine, struct sim_disk *disk);
/* Opens and acquires. Afterwards the power may be off, whatever it returns. */
int session_open(struct crash_session *s, bool discard_cache, struct err *err);
bool session_can(const struct crash_session *s, const struct crash_op *op);
void session_submit(struct crash_session *s, const struct crash_op *op);
/* One step. False when nothing is left to do by itself. Fails the test when there is no end. */
bool session_step(struct crash_session *s);
/* Steps until every operation is done or the power is off. */
void session_settle(struct crash_session *s);
/* Reads the whole volume into ids. False when the power went off or a read failed. */
bool session_read_all(struct crash_session *s, uint64_t *ids, int *ret_error);
/* Reads sectors, or one: 0 or the error. */
int session_read_range(struct crash_session *s, uint32_t lba, uint32_t sectors, void *to);
int session_read(struct crash_session *s, uint32_t lba, void *sector);
/* Drain, checkpoint, release, close, free. False if the power went off: it is abandoned then. */
bool session_close(struct crash_session *s);
/* After a power cut or a kill, or to leave without a word: brings everything back and frees. */
void session_abandon(struct crash_session *s);
/* The process dies, the devices live on. Abandons. */
void session_kill(struct crash_session *s, struct sim_keep keep);

#endif
