/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map: LBA -> value, for ranges of 512-byte sectors, in memory.
 *
 * Keys are sectors below 2^48.  The value given for an extent belongs to its first sector and
 * advances by one with each sector, as addresses do; a value with EXTMAP_CONST set is a tag and is
 * the same for all sectors of its extent.  So the map is a function from sectors to values, and
 * extents are merely how it is stored: what is inserted is merged with neighbours that continue it
 * as long as the result is at most EXTMAP_LEN_MAX sectors; what is longer takes several entries.
 *
 * Not thread safe: the caller locks; lookups and iterators only read, and may share.  A change
 * that fails leaves the map as it was (only -ENOMEM and -EINVAL happen, both before the first
 * change and before the first callback).  Memory is kept for reuse until extmap_clear.
 */
#ifndef BASE_EXTMAP_H
#define BASE_EXTMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTMAP_LBA_END (UINT64_C(1) << 48)
#define EXTMAP_LEN_MAX ((UINT64_C(1) << 24) - 1)
#define EXTMAP_CONST (UINT64_C(1) << 63)
#define EXTMAP_HOLE UINT64_MAX /* in answers: nothing is mapped here; cannot be inserted */

struct extent {
	uint64_t lba;
	uint64_t sectors;
	uint64_t value; /* at lba */
};

/* The value @delta sectors into an extent that begins with @value. */
static inline uint64_t extmap_value_at(uint64_t value, uint64_t delta)
{
	return value & EXTMAP_CONST ? value : value + delta;
}

/*
 * Where nodes come from.  @align is a power of two and divides @len.  alloc returns NULL when
 * there is no memory.  The default takes small pieces from malloc and 2 MiB ones from mmap, with
 * huge pages.
 */
struct extmap_alloc {
	void *(*alloc)(void *arg, size_t align, size_t len);
	void (*free)(void *arg, void *ptr, size_t len);
	void *arg;
};

struct extmap_chunk;

/* A source of nodes of one size. */
struct extmap_pool {
	struct extmap_chunk *chunks;
	void *free;  /* nodes given back, each pointing at the next */
	char *fresh; /* nodes never used, in the newest chunk */
	size_t node_size;
	size_t nfresh;
	size_t nfree; /* given back and fresh */
	size_t total;
};

/* Fields are private to extmap*.c. */
struct extmap {
	void *root; /* a leaf when depth is 0; NULL when the map is empty */
	unsigned depth;
	uint64_t count;
	size_t bytes;
	size_t limit_bytes;
	struct extmap_pool leaves;
	struct extmap_pool inners;
	struct extmap_alloc alloc;
};

/*
 * Makes an empty map; allocates nothing and cannot fail.  @alloc may be NULL for the default.
 * The map's memory stays at or below @limit_bytes; 0 means no limit.
 */
void extmap_init(struct extmap *m, const struct extmap_alloc *alloc, size_t limit_bytes);

/* Gives all memory back.  The map is as after init. */
void extmap_clear(struct extmap *m);
void extmap_destroy(struct extmap *m);

/* A lowered limit below what is in use only refuses growth. */
void extmap_set_limit(struct extmap *m, size_t limit_bytes);

/* Memory taken, struct extmap not counted; and the number of stored extents. */
static inline size_t extmap_bytes(const struct extmap *m)
{
	return m->bytes;
}

static inline uint64_t extmap_count(const struct extmap *m)
{
	return m->count;
}

/*
 * Is told each piece that a change takes out of the map, in LBA order, cut to the changed range:
 * sectors [lba, lba + sectors) had values from @value on.  Must not touch the map.
 */
typedef void extmap_displaced_fn(void *arg, const struct extent *old);

/*
 * Maps [lba, lba + sectors) to @value onwards, whatever was there before.
 * 0; -EINVAL for an empty range, one beyond EXTMAP_LBA_END, EXTMAP_HOLE, or a value that would
 * advance into EXTMAP_CONST; -ENOMEM.  @fn may be NULL.
 */
int extmap_replace(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t value,
		   extmap_displaced_fn *fn, void *arg);

static inline int extmap_insert(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t value)
{
	return extmap_replace(m, lba, sectors, value, NULL, NULL);
}

/*
 * Makes sure that so many changes cannot fail with -ENOMEM, each of at most EXTMAP_LEN_MAX sectors,
 * if no others come between.  0 or -ENOMEM.
 */
int extmap_reserve(struct extmap *m, unsigned int changes);

/* Unmaps [lba, lba + sectors).  -ENOMEM is possible: cutting a hole makes two extents of one. */
int extmap_remove(struct extmap *m, uint64_t lba, uint64_t sectors, extmap_displaced_fn *fn,
		  void *arg);

/*
 * The conditional forms touch only the sectors x of the range whose value is the one that
 * @old_value gives for it, extmap_value_at(old_value, x - lba): those where the map still names
 * the old place.  They are unmapped, or mapped to what @new_value gives for x.
 */
int extmap_remove_if(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t old_value,
		     extmap_displaced_fn *fn, void *arg);
int extmap_insert_if(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t old_value,
		     uint64_t new_value, extmap_displaced_fn *fn, void *arg);

/*
 * Adds an extent at or beyond the end of the last one (else -EINVAL), as when a map is loaded
 * from sorted input: faster than an insert, and fills nodes to the brim.
 */
int extmap_append(struct extmap *m, uint64_t lba, uint64_t sectors, uint64_t value);

/* The stored extent that covers @lba, or else the next one after it; false if there is none. */
bool extmap_lookup(const struct extmap *m, uint64_t lba, struct extent *ret);

/*
 * Describes [lba, lba + sectors), from its start, in at most @max pieces, cut to the range and
 * without gaps: a hole is a piece with the value EXTMAP_HOLE.  Returns how many pieces were
 * written; when the range is not exhausted (the last piece ends before it), ask again from there.
 */
unsigned extmap_lookup_range(const struct extmap *m, uint64_t lba, uint64_t sectors,
			     struct extent *pieces, unsigned max);

/* Brings into the caches what a change or lookup at @lba will need. */
void extmap_prefetch(const struct extmap *m, uint64_t lba);

#define EXTMAP_DEPTH_MAX 12

/* A walk in LBA order, valid until the map is changed. */
struct extmap_iter {
	void *node[EXTMAP_DEPTH_MAX]; /* from the root; the leaf is node[depth] */
	unsigned index[EXTMAP_DEPTH_MAX];
	unsigned depth;
};

/* Sets out at the extent that covers @lba, or else the next one after it. */
void extmap_iter_init(struct extmap_iter *it, const struct extmap *m, uint64_t lba);

/* Gives the extent and steps on; false at the end. */
bool extmap_iter_next(struct extmap_iter *it, struct extent *ret);

/* Verifies every invariant of extmap.c; NULL, or a text that says which one is broken. */
const char *extmap_check(const struct extmap *m);

#endif
