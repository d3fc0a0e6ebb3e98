/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Encoding and decoding of objects, without any state: shared by the engine, the checker, the
 * dumper and the fuzzers.
 *
 * A decoder is given a buffer and believes nothing in it: it checks every bound before it uses a
 * length, and the checksum before it looks at a field. On success what it returns is consistent, so
 * that later code need not doubt it; on failure (-EBADMSG, or -ENOTSUP for what a newer version
 * wrote) outputs are untouched and err says what is wrong; the caller puts the key in front.
 */
#ifndef LSVD_CODEC_H
#define LSVD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/extmap.h"
#include "base/uuid.h"
#include "lsvd/lsvd_layout.h"
#include "store/store.h"

/* ---- key.c: names of objects */

#define LSVD_NAME_MAX 160

enum key_kind {
	KEY_DATA,
	KEY_PART,
	KEY_ROOT,
};

struct key {
	enum key_kind kind;
	uint64_t seq; /* or the checkpoint's number */
	uint32_t epoch;
	uint32_t part;
};

/* Whether a volume can have this name: letters, digits, "._-", not like an object's key. */
bool key_name_ok(const char *name);
void key_format(char ret[STORE_KEY_MAX + 1], const char *name, const struct key *key);
/* False when text is not the key of an object of the volume. */
bool key_parse(const char *name, const char *text, struct key *ret);

/* ---- obj.c: the common header, and data objects */

/* struct lsvd_hdr in host form. */
struct obj_hdr {
	enum lsvd_type type;
	struct uuid volume_uuid;
	uint32_t epoch, crc, header_bytes, generation;
	uint64_t seq, data_bytes, wall_ns, first_lsn, last_lsn, prev_seq;
	uint32_t ext_count, ext_off, crc_count, crc_off, source_count, source_off, incompat;
};

struct obj_ext {
	uint64_t lba;
	uint32_t sectors;
	enum lsvd_ext_type type;
	uint32_t data_sector;
	uint32_t first_crc;
};

static inline uint32_t obj_crcs(uint32_t sectors)
{
	return (sectors + LSVD_CRC_SECTORS - 1) / LSVD_CRC_SECTORS;
}

/* How long the header of a data or GC object with so many of each is. */
uint64_t obj_header_bytes(uint64_t extents, uint64_t crcs, uint64_t sources);

/*
 * Lays out a data object's header in a zeroed buffer of obj_header_bytes(), with the counts that
 * hdr names; extents and checksums are put in afterwards, and obj_seal() last.
 */
void obj_begin(void *buf, const struct obj_hdr *hdr);
void obj_put_ext(void *buf, uint32_t index, const struct obj_ext *ext);
void obj_put_crc(void *buf, uint32_t index, uint32_t crc);
void obj_put_source(void *buf, uint32_t index, uint64_t place, uint32_t sectors);
/* Also for headers of other types: computes the checksum over header_bytes. */
uint32_t obj_seal(void *buf);
/* Fills the common fields of a header that is not a data object's. */
void obj_common(struct lsvd_hdr *h, const struct obj_hdr *hdr);

/*
 * The fields of the first sizeof(struct lsvd_hdr) bytes with their bounds, before the checksum can
 * be verified: good for telling header_bytes, and for nothing else.
 */
int obj_peek(const void *buf, size_t len_bytes, struct obj_hdr *ret, struct err *err);
/* The whole header of any type; len_bytes may be more than it. Verifies the checksum. */
int obj_decode_hdr(const void *buf, size_t len_bytes, struct obj_hdr *ret, struct err *err);
/* A data or GC object's header with all its tables. */
int obj_decode(const void *buf, size_t len_bytes, struct obj_hdr *ret, struct err *err);

/* Of a buffer that obj_decode() has accepted. */
void obj_ext(const void *buf, uint32_t index, struct obj_ext *ret);
uint32_t obj_crc(const void *buf, uint32_t index);
void obj_source(const void *buf, uint32_t index, uint64_t *place, uint32_t *sectors);

/* The moves that a GC object stands for, each as large as it can be. Begins as {0}. */
struct obj_moves {
	uint32_t source, ext;         /* the next */
	uint32_t source_off, ext_off; /* sectors of them that are done */
};

struct obj_move {
	uint64_t lba, from, to; /* from and to are places */
	uint32_t sectors;
};

/* False: there are no more. */
bool obj_next_move(const void *buf, struct obj_moves *it, struct obj_move *ret);
/* The extent that holds that sector of the data; it must be below data_bytes. */
void obj_find(const void *buf, uint32_t data_sector, struct obj_ext *ret);

/* ---- super.c */

struct root_ref {
	uint64_t no; /* 0: none */
	uint32_t epoch, bytes, crc;
	uint64_t covered_seq;
};

struct epoch_end {
	uint32_t epoch;
	uint64_t first_seq, end_seq; /* end_seq LSVD_SEQ_OPEN: goes on */
};

struct super {
	struct uuid uuid, cache_uuid, pending_uuid;
	uint32_t attach_epoch, committed_epoch, bound_epoch;
	uint64_t writes, size_bytes, wall_ns, created_wall_ns;
	uint32_t block_bytes;
	bool clean, replace;
	uint64_t last_seq, last_lsn, lsn_floor, bind_lsn, nonce;
	struct root_ref roots[LSVD_ROOTS];
	uint32_t incompat; /* LSVD_INCOMPAT_* */
	uint32_t end_count;
	struct epoch_end ends[LSVD_EPOCH_ENDS];
};

void super_encode(void *buf, const struct super *sb); /* LSVD_SUPER_BYTES */
int super_decode(const void *buf, size_t len_bytes, struct super *ret, struct err *err);
/* The window with seq, or else the first one beyond it; NULL: none. */
const struct epoch_end *super_window(const struct super *sb, uint64_t seq);
/* Drops windows that end at or before covered_seq. */
void super_prune_ends(struct super *sb, uint64_t covered_seq);

/* ---- ckptfmt.c: checkpoint parts and roots */

struct part_hdr {
	uint64_t shard;
	enum lsvd_part_kind kind;
	uint32_t part, entries;
};

struct part_ref {
	uint64_t shard, no;
	uint32_t epoch, part, bytes, entries, crc;
	enum lsvd_part_kind kind;
};

struct root_hdr {
	uint64_t covered_seq, covered_data_seq, covered_lsn, reach_seq, covered_wall_ns;
	uint32_t shard_sectors_log2, parts;
};

struct ckpt_obj {
	uint64_t seq;
	uint32_t epoch, header_bytes, data_sectors, live_sectors;
	enum lsvd_type type;
	uint32_t gc_failures; /* in memory only: how often moving its data has failed */
};

size_t part_bytes(enum lsvd_part_kind kind, uint32_t entries);
uint32_t part_capacity(enum lsvd_part_kind kind, size_t bytes);
/* buf: part_bytes(). Entries first, then the header, which returns the checksum. */
void part_put_ext(void *buf, uint32_t index, uint64_t lba, uint32_t sectors, uint64_t place);
void part_put_obj(void *buf, uint32_t index, const struct ckpt_obj *obj);
uint32_t part_seal(void *buf, const struct obj_hdr *hdr, const struct part_hdr *part);
int part_decode(const void *buf, size_t len_bytes, struct obj_hdr *ret_hdr,
		struct part_hdr *ret_part, struct err *err);
void part_ext(const void *buf, uint32_t index, uint64_t *lba, uint32_t *sectors, uint64_t *place);
void part_obj(const void *buf, uint32_t index, struct ckpt_obj *ret);

size_t root_bytes(uint32_t parts);
uint32_t root_encode(void *buf, const struct obj_hdr *hdr, const struct root_hdr *root,
		     const struct part_ref *parts);
int root_decode(const void *buf, size_t len_bytes, struct obj_hdr *ret_hdr,
		struct root_hdr *ret_root, struct err *err);
void root_part(const void *buf, uint32_t index, struct part_ref *ret);

/* ---- map values */

#define PLACE_ERROR (EXTMAP_CONST | 1)

static inline uint64_t place_make(uint64_t seq, uint32_t sector)
{
	return seq << LSVD_OFF_BITS | sector;
}

static inline uint64_t place_seq(uint64_t place)
{
	return place >> LSVD_OFF_BITS;
}

static inline uint32_t place_sector(uint64_t place)
{
	return (uint32_t)(place & LSVD_DATA_MAX_SECTORS);
}

#endif
