/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of this room share. docs/SPEC-btt.md has the protocol, btt.h the promises.
 *
 * Locks: reserve_lock, super_lock and turn_lock, none inside another. They are robust: who dies
 * with one leaves memory that the next owner can use as it is.
 */
#ifndef BTT_BTT_IMPL_H
#define BTT_BTT_IMPL_H

#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>

#include "base/mutant.h"
#include "btt/btt.h"
#include "btt/entry.h"

#define BTT_STRIPES 1024u
#define BTT_LANES_MAX 128u
#define BTT_SLOTS_MAX 32u
#define BTT_TRIES 4u
#define BTT_NONE UINT64_MAX
#define BTT_ENTRIES_IN_PAGE (BTT_PAGE / 8)

/* A counter that has its cache line to itself. */
struct btt_stripe {
	alignas(PM_LINE_BYTES) _Atomic uint64_t n;
};

/*
 * A writer's place. Fields are its owner's; they are atomic because who takes it over may be
 * another thread, and is told by owner alone.
 */
struct btt_lane {
	alignas(2 * PM_LINE_BYTES) _Atomic uint32_t owner; /* thread ID; 0: free */
	atomic_bool swapping;	/* lba and old are valid, and the entry may have been swapped */
	_Atomic uint64_t spare; /* its block; BTT_NONE: retired */
	_Atomic uint64_t old;	/* becomes the spare if the swap is made */
	_Atomic uint64_t lba;
};

/* A reader's protection of one block. */
struct btt_slot {
	alignas(PM_LINE_BYTES) _Atomic uint32_t owner; /* thread ID; 0: free */
	_Atomic uint64_t block;			       /* BTT_NONE: none */
};

struct btt_geometry {
	uint64_t pool_bytes;
	uint64_t block_bytes, stride_bytes;
	uint64_t nblock, spares, blocks; /* blocks: the sum of the two */
	uint64_t map_off, list_off, data_off;
};

struct btt {
	struct pmem *pm;
	_Atomic uint64_t *map;
	uint8_t *data;
	struct btt_geometry g;
	uint64_t salt;
	struct btt_stripe *reuse;   /* by block: writes that were begun there */
	struct btt_stripe *pending; /* by sector: swaps that may not be durable */
	struct btt_lane *lanes;
	unsigned nlanes;
	unsigned nslots;
	struct btt_slot *slots;
	uint32_t fork_id;
	bool read_only;
	bool scanned;
	atomic_bool withdrawn;	/* the medium says that the saved list does not count */
	_Atomic int failed;	/* a fence failed */
	atomic_bool dev_locked; /* some device on it has the right to write */

	/* For tests: fewer. */
	unsigned tries; /* of a reader, before it protects its block */

	/* For tests: called at named points of the protocol, where another thread may come. */
	void (*point)(void *arg, const char *name);
	void *point_arg;

	alignas(PM_LINE_BYTES) atomic_uint hazards; /* at least the slots in use */
	atomic_uint waiters;			    /* writers that found no lane */

	pthread_mutex_t reserve_lock;
	uint64_t *reserve; /* spare blocks that no lane has; BTT_NONE: a gap */
	uint64_t reserve_room, reserve_count;

	pthread_mutex_t super_lock;
	struct uuid uuid;
	uint64_t seq;	 /* of the newest superblock */
	bool last_first; /* the last copy was not good at opening: it is to be written first */

	pthread_mutex_t turn_lock; /* for waiters to sleep */
	pthread_cond_t turn;

	_Atomic uint64_t damaged, retries, hazard_reads, waits, takeovers;
	atomic_bool leaked; /* a block is in nobody's hands: only a scan finds it */
};

static inline void btt_point(struct btt *btt, const char *name)
{
	if (__builtin_expect(btt->point != NULL, 0))
		btt->point(btt->point_arg, name);
}

/*
 * A full fence. The thread sanitizer knows no fences, so there it is an operation on a variable
 * that all share, which orders at least as much.
 */
static inline void btt_full_fence(void)
{
#ifdef __SANITIZE_THREAD__
	extern atomic_uint btt_fence_word;

	atomic_fetch_add_explicit(&btt_fence_word, 1, memory_order_seq_cst);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* What comes before, loads of data above all, comes before the loads that follow. */
static inline void btt_load_fence(void)
{
#ifndef __SANITIZE_THREAD__
	atomic_thread_fence(memory_order_acquire);
#endif
}

static inline _Atomic uint64_t *btt_reuse(struct btt *btt, uint64_t block)
{
	return &btt->reuse[block % BTT_STRIPES].n;
}

static inline _Atomic uint64_t *btt_pending(struct btt *btt, uint64_t lba)
{
	return &btt->pending[lba % BTT_STRIPES].n;
}

static inline uint8_t *btt_data(struct btt *btt, uint64_t block)
{
	return btt->data + block * btt->g.stride_bytes;
}

static inline bool btt_valid(const struct btt *btt, uint64_t entry, uint64_t lba)
{
	return entry_valid(entry, lba, btt->salt, btt->g.blocks);
}

static inline uint64_t btt_load_entry(struct btt *btt, uint64_t lba)
{
	return entry_disk(pm_load8(&btt->map[lba]));
}

/* layout.c */

/* The largest pool that fits; false: none does. */
bool btt_geometry_fit(uint64_t pool_bytes, uint64_t block_bytes, struct btt_geometry *ret);
/* With so many spares; 0: as the size says. */
bool btt_geometry_fit_spares(uint64_t pool_bytes, uint64_t block_bytes, uint64_t spares,
			     struct btt_geometry *ret);
uint64_t btt_salt(const struct uuid *uuid);
void btt_sb_encode(struct btt_sb *sb, const struct btt_geometry *g, const struct uuid *uuid,
		   uint64_t seq, uint32_t state, uint32_t list_crc);
/* -EINVAL no superblock; -EBADMSG, -ENOTSUP; each with its text. pm_bytes: room that there is. */
int btt_sb_decode(const struct btt_sb *sb, uint64_t pm_bytes, struct btt_geometry *ret,
		  struct err *err);

/* super.c */

struct btt_found {
	struct btt_sb sb; /* the copy that counts */
	struct btt_geometry g;
	struct uuid uuid;
	uint64_t seq;
	bool good[2]; /* which copies are right and the newest */
	uint64_t at[2];
	bool listed;
};

int btt_super_find(struct pmem *pm, struct btt_found *ret, struct err *err);
/* Writes both copies, each durable before the next; guarded. last_first: the one at the end comes
 * first, because it is the one that does not count. */
int btt_super_write(struct pmem *pm, const struct btt_geometry *g, const struct uuid *uuid,
		    uint64_t seq, uint32_t state, uint32_t list_crc, bool last_first);
int btt_super_withdraw(struct btt *btt);
/* Reads the saved list into spares[g.spares]; -EBADMSG if it cannot be believed. */
int btt_list_load(struct pmem *pm, const struct btt_found *found, uint64_t *spares);
int btt_list_save(struct btt *btt, const uint64_t *spares);

/* recover.c */

struct btt_scan {
	uint64_t *unused; /* blocks that no entry names, allocated; or NULL */
	uint64_t count;
	uint64_t damaged; /* entries */
};

/* Scans the table of btt, makes it durable, and lists what is unused. */
int btt_recover(struct btt *btt, const struct btt_parallel *parallel, struct btt_scan *ret,
		struct err *err);

void btt_run_pieces(const struct btt_parallel *parallel, unsigned pieces,
		    void (*piece)(void *ctx, unsigned n), void *ctx);

/* thread.c */

/* Not 0, and another one in a forked child. 0: it cannot be told. */
uint32_t btt_fork_id(void);
/* Of the calling thread; *ret_hint is its own variable: where it last found a lane. */
uint32_t btt_thread_id(unsigned **ret_hint);
bool btt_thread_is_dead(uint32_t id);
int btt_lock_init(pthread_mutex_t *lock);
void btt_lock(pthread_mutex_t *lock);

static inline bool btt_is_forked(const struct btt *btt)
{
	return btt_fork_id() != btt->fork_id;
}

/* lane.c */

/* NULL: all lanes are retired. */
struct btt_lane *btt_lane_get(struct btt *btt);
void btt_lane_put(struct btt *btt, struct btt_lane *lane);
/* Puts right what a thread that died or faulted left; the caller owns the lane. */
void btt_lane_settle(struct btt *btt, struct btt_lane *lane);
/* Drops the lane's spare, which is bad, and takes another; without one the lane is retired. */
void btt_lane_replace(struct btt *btt, struct btt_lane *lane);

/* reserve.c */

bool btt_hazard_on(struct btt *btt, uint64_t block);
/* Exchanges the lane's spare, which is protected, for one that is not. */
void btt_reserve_exchange(struct btt *btt, struct btt_lane *lane);
/* A block beyond those that readers may pin; BTT_NONE: there is none. */
uint64_t btt_reserve_take(struct btt *btt);
void btt_reserve_put(struct btt *btt, uint64_t block);
struct btt_slot *btt_slot_get(struct btt *btt);
void btt_slot_put(struct btt *btt, struct btt_slot *slot);

/* write.c */

/* Flush and fence of an entry. A failure is the pool's. */
int btt_entry_persist(struct btt *btt, uint64_t lba);
int btt_fence(struct btt *btt);
/* Makes it an error sector, if the entry still names this block. */
void btt_mark_faulty(struct btt *btt, uint64_t lba, uint64_t block);

/* read.c */

/* Makes the entry durable if somebody may not have done so yet. */
int btt_settle_entry(struct btt *btt, uint64_t lba);

#endif
