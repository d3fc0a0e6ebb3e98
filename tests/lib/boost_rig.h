/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A cache and a backing device for tests: two simulated disks without latency, a host on one
 * thread, and an array that says what each sector should hold.
 *
 * A sector's contents are its LBA and the number of the write that made them; 0 is zeros.
 */
#ifndef TESTS_LIB_BOOST_RIG_H
#define TESTS_LIB_BOOST_RIG_H

#include "boost/boost.h"
#include "dev/sim.h"
#include "lib/host_single.h"

#define BRIG_SECTORS 16384u /* 8 MiB, unless asked otherwise */
#define BRIG_CACHE_BYTES (8u << 20)

#define BRIG_REQUESTS 4096

/* What the home has submitted to the backing device, reads excepted. */
struct brig_request {
	enum dev_op op;
	uint64_t off_bytes, len_bytes;
};

struct brig {
	struct host_single hs;
	struct sim_world world;
	struct sim_disk *cache_disk, *backing_disk;
	struct dev *cache, *backing;
	struct dev_ops backing_ops; /* the simulated disk's, with what follows */
	char identity[DEV_IDENTITY_LEN];
	bool can_zero;
	uint64_t backing_bytes;
	uint64_t cut_bytes; /* the backing device shows so much less of itself */
	uint32_t block_bytes;
	struct boost_options opt;
	struct boost *boost;
	struct boost_cut boost_cut;
	struct err err;
	uint32_t next_mark;
	uint32_t sectors;
	uint32_t *oracle;
	struct brig_request requests[BRIG_REQUESTS];
	uint32_t nrequests; /* a case may set it to 0 */
};

struct brig_options {
	uint64_t backing_bytes; /* 0: BRIG_SECTORS */
	uint64_t cache_bytes;   /* 0: BRIG_CACHE_BYTES */
	uint32_t block_bytes;   /* 0: 512 */
};

/* A blank backing device and a formatted, unbound cache. Ends with brig_free(). opt may be NULL. */
struct brig *brig_new(uint64_t seed, const struct brig_options *opt);
void brig_free(struct brig *rig);

/* Opens and acquires; the error of whichever failed. */
int brig_open(struct brig *rig);
int brig_look(struct brig *rig, bool with_cache, bool discard);
int brig_acquire(struct brig *rig);
/* Drain, release, close: all must succeed. */
void brig_release(struct brig *rig);
/* Stops and closes without a release. */
void brig_close(struct brig *rig);
/* A power cut: the disks keep what was durable, and of the rest what keep says. */
void brig_crash(struct brig *rig, struct sim_keep keep);
/* Closes and opens both devices, for changed sizes and identities. Nothing may be open. */
void brig_reopen_media(struct brig *rig);
/* Formats the cache anew, unbound. */
void brig_format(struct brig *rig);

int brig_write(struct brig *rig, uint32_t lba, uint32_t sectors);
int brig_zero(struct brig *rig, enum dev_op op, uint32_t lba, uint32_t sectors);
int brig_flush(struct brig *rig);
int brig_drain(struct brig *rig);
int brig_read(struct brig *rig, uint32_t lba, uint32_t sectors, void *buf);
/* Everything is as the array says. */
void brig_verify(struct brig *rig);
/* The same, of the backing device alone and of what it durably holds. */
void brig_verify_home(struct brig *rig);
/* Which write made what the backing device durably holds there; 0: zeros. */
uint32_t brig_home_mark(struct brig *rig, uint32_t lba);
/* A random write, zero or flush. */
void brig_random_op(struct brig *rig);
struct boost_status brig_status(struct brig *rig);
/* Plans a fault that fails requests of that kind; times 0: for ever. */
void brig_fault(struct sim_disk *disk, enum dev_op op, uint64_t nth, uint64_t times);

#endif
