/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A volume for tests: a simulated store without latency, a memory device as its cache, a host on
 * one thread, and an array that says what each sector should hold.
 *
 * A sector's contents are its LBA and the number of the write that made them; 0 is a hole.
 */
#ifndef TESTS_LIB_LSVD_RIG_H
#define TESTS_LIB_LSVD_RIG_H

#include "dev/mem.h"
#include "lib/host_single.h"
#include "lsvd/lsvd.h"
#include "store/sim.h"

#define RIG_NAME "vol"
#define RIG_SECTORS 16384u /* 8 MiB */
#define RIG_CACHE_BYTES (8u << 20)

struct lsvd_rig {
	struct host_single hs;
	struct sim_world world;
	struct sim_bucket *bucket;
	struct store *store;
	struct dev_mem_bytes *cache_bytes;
	struct dev *cache;
	struct lsvd_options opt;
	struct lsvd *lsvd;
	struct lsvd_cut cut;
	struct err err;
	struct uuid uuid;
	uint32_t next_mark;
	uint32_t oracle[RIG_SECTORS];
};

/* A created volume and a formatted, unbound cache. Ends with rig_free(). */
struct lsvd_rig *rig_new(uint64_t seed);
void rig_free(struct lsvd_rig *rig);

/* Opens and acquires; the error of whichever failed. */
int rig_open(struct lsvd_rig *rig);
int rig_look(struct lsvd_rig *rig, bool with_cache, bool discard);
int rig_acquire(struct lsvd_rig *rig);
/* Drain, checkpoint, release, close: all must succeed. */
void rig_release(struct lsvd_rig *rig);
/* Stops and closes without a release. */
void rig_close(struct lsvd_rig *rig);
/* Ends everything at once; what the cache had acknowledged is there, flushed or not. */
void rig_crash(struct lsvd_rig *rig);
/* A crash of which the store decides what happens to requests in flight. */
void rig_crash_keep(struct lsvd_rig *rig, struct sim_keep keep);

int rig_write(struct lsvd_rig *rig, uint32_t lba, uint32_t sectors);
int rig_zero(struct lsvd_rig *rig, enum dev_op op, uint32_t lba, uint32_t sectors);
int rig_flush(struct lsvd_rig *rig);
int rig_drain(struct lsvd_rig *rig);
int rig_checkpoint(struct lsvd_rig *rig);
int rig_gc(struct lsvd_rig *rig);
/* Bytes of all objects of the kind (see rig_object()). */
uint64_t rig_bytes(struct lsvd_rig *rig, char kind);
/* Reads; with no log, from the store. */
int rig_read(struct lsvd_rig *rig, uint32_t lba, uint32_t sectors, void *buf);
/* Everything is as the array says. */
void rig_verify(struct lsvd_rig *rig);
/* A random write, zero or discard. */
void rig_random_op(struct lsvd_rig *rig);

/* A new, formatted, unbound cache device in the place of the old one, which is returned. */
struct dev_mem_bytes *rig_new_cache(struct lsvd_rig *rig);
void rig_set_cache(struct lsvd_rig *rig, struct dev_mem_bytes *bytes);
struct dev_mem_bytes *rig_copy_cache(struct lsvd_rig *rig);
/* The n-th object of the kind: 'd' data, 'c' part, 'r' root, in order of keys; NULL: none. */
const char *rig_object(struct lsvd_rig *rig, char kind, unsigned n);
unsigned rig_objects(struct lsvd_rig *rig, char kind);
/* Flips a bit of that byte of the object, which must not be the superblock. */
void rig_rot(struct lsvd_rig *rig, const char *key, size_t off_bytes);

#endif
