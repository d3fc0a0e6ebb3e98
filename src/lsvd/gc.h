/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection's part of the engine; gc.c and doom.c say what it does. Included by
 * lsvd_impl.h alone.
 */
#ifndef LSVD_GC_H
#define LSVD_GC_H

#include "lsvd/codec.h"
#include "lsvd/lsvd.h"
#include "wlog/drain.h"

struct batch;

#define GC_VICTIMS 64
#define GC_READS 8

enum gc_phase {
	GC_IDLE,
	GC_PLAN,  /* which ranges of LBAs are live in the victims */
	GC_MERGE, /* neighbours among them become one range, small holes are filled */
	GC_READ,
	GC_BUILD,
	GC_PUT, /* the batch goes its way (destage.c) */
};

/* Data that has been read: where from, and where in gc.buf it is. */
struct gc_piece {
	uint64_t lba, place, at;
	uint32_t sectors;
};

struct gc_range {
	uint64_t lba;
	uint64_t sectors;
};

/* A read of the home that says which places it took the data from (read.c). */
struct gc_read {
	struct lsvd *l;
	uint64_t lba;
	uint32_t sectors;
	uint64_t at; /* in gc.buf */
	bool busy;
	int error;
};

struct gc {
	bool running; /* between gc_start and gc_stop */
	bool paused;  /* after a checkpoint that somebody asked for, until there is new data */
	enum gc_phase phase;
	uint64_t clock; /* as struct rd has one: the round may look at what it names */
	/* The round. */
	uint64_t victim[GC_VICTIMS];
	uint32_t victims, at_victim, at_ext, generation;
	struct hdr_ent *hdr;
	struct gc_range *range;
	size_t ranges, ranges_cap, at_range, merged;
	uint64_t sectors, filled;
	uint8_t *buf;
	uint64_t buf_at, range_off; /* READ: where the next goes; in the range */
	struct gc_read read[GC_READS];
	uint32_t reads;
	bool failed;
	struct gc_piece *piece;
	size_t pieces, pieces_cap;
	struct batch *batch;
	bool work_queued, again; /* or at work; and was asked for once more meanwhile */
	bool timer_set;
	unsigned tries;
	uint64_t next_ns; /* not before, for gc_rate */
	/* lsvd_gc(). */
	struct drains waiters;
	bool forced;
	unsigned checkpoints; /* that it may still ask for */
};

/* gc.c, entered */
void gc_kick(struct lsvd *l);
void gc_pause(struct lsvd *l);
void gc_resume(struct lsvd *l);
bool gc_busy(const struct lsvd *l);
bool gc_resting(const struct lsvd *l); /* paused, and nobody asks for it */
void gc_installed(struct lsvd *l); /* its batch is through, or as far as it can be */
void gc_free(struct lsvd *l);
/* From read.c: a piece of what a read takes; and the read's end. */
void gc_read_piece(struct gc_read *r, const struct extent *e);
void gc_read_done(struct gc_read *r, int error);

void gc_defer(struct lsvd *l); /* goes on outside */

/* gcplan.c, entered but for gc_sort(). A step: 0 call again, 1 wait, -errno. */
bool gc_wanted(struct lsvd *l);
bool gc_pick(struct lsvd *l);
int gc_plan(struct lsvd *l);
int gc_merge(struct lsvd *l);
void gc_sort(struct gc *g);
void gc_drop_header(struct lsvd *l);

/* gcbuild.c, not entered: header and iov of the batch from gc.piece[], sorted. -ENOMEM. */
int gc_build(struct gc *g, struct batch *b);
void gc_number(struct batch *b); /* entered: its number is known */

/* read.c, entered: -EAGAIN when too many reads are in hand. */
int gc_read_start(struct gc_read *r, uint8_t *buf);
/* Reads that began at this clock or before are still at work while it is not below. */
uint64_t reads_oldest(const struct lsvd *l);

/* doom.c, entered: objects that nothing names. */

/* Out of the table, not deleted yet. */
struct doomed {
	struct key key;
	uint64_t bytes;
	uint64_t since_no; /* the first checkpoint without it */
	uint64_t since_ns, clock;
};

struct dooms {
	struct doomed *d; /* ascending by since_no */
	size_t n, cap;
	uint64_t bytes;
	uint64_t proof; /* the event that has to be proven; 0: not asked for */
};

/* A checkpoint with that number begins: what is dead leaves the table. */
void doom_sweep(struct lsvd *l, uint64_t ckpt_no);
/* Not in the table though it lies in the store: a former owner did not come to delete it. */
void doom_stray(struct lsvd *l, const struct key *key, uint64_t bytes);
void doom_kick(struct lsvd *l);
/* How many of them wait for checkpoints. */
size_t doom_waiting(const struct lsvd *l);

#endif
