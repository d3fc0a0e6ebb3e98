/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The array oracle: what a volume must hold, sector by sector, and after a crash may hold.
 *
 * Every sector that is written gets a stamp {volume, lba, write id} and a pattern that follows
 * from these, over all of its 512 bytes; so a sector that is read tells which write it is from, and
 * a mixture, another sector's or another volume's data is recognised. Zeros are id 0.
 *
 * A write has an id from its submission. It gets its place in the history, a sequence number, when
 * the engine takes it (reserve): from then on it may be on media. Numbers 1..n are the order in
 * which the writes count; position 0 is the base: what was there before them.
 *
 *	id = oracle_write(o, ORACLE_DATA, lba, sectors);
 *	oracle_stamp(o, id, lba, buf, sectors);
 *	oracle_sequence(o, id);               reserve returned 1, or the write got its space late
 *	oracle_acknowledge(o, id);            done with result 0
 *	mark = oracle_mark(o);                a barrier is submitted
 *	oracle_durable(o, mark);              and has returned
 *	oracle_destaged(o, mark);             the home was reported to hold everything up to mark
 *
 * The promises as predicates (docs/DESIGN.md, section 4). Each returns true, or false with a text.
 *
 *	oracle_check_prefix    P1, P2, P3 together: the image is the state after a prefix of the
 *	                       history that ends in [lo, n], whole writes only
 *	oracle_check_sectors   P1, P2 alone, for runs in which writes have failed: each sector holds
 *	                       its newest durable write or a later one
 *	oracle_check_home      what a home that writes in place holds by itself: of each sector
 *	                       that nothing newer covers, the newest that it was reported to
 *	                       hold, or a later one
 *	oracle_check_read      a read while the volume is in use: nothing older than what was
 *	                       acknowledged before it was submitted
 *
 * After a recovery oracle_recovered() cuts the history where the image ends: whatever comes later
 * must answer the same (P2: "reading it again, after yet another crash"). Where writes have failed
 * there is no such place, and oracle_rebase() makes the image itself the base.
 */
#ifndef TESTS_LIB_ORACLE_H
#define TESTS_LIB_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ORACLE_WRITES_MAX 1024
#define ORACLE_SECTORS_MAX 4096
#define ORACLE_TEXT_LEN 2048

/* Values of a sector that no write has: garbage of some kind. */
#define ORACLE_GARBAGE UINT64_MAX

enum oracle_kind {
	ORACLE_DATA,
	ORACLE_ZERO, /* zero and discard */
};

enum oracle_state {
	ORACLE_SUBMITTED,
	ORACLE_ACKNOWLEDGED,
	ORACLE_FAILED,
};

struct oracle_write {
	uint64_t id;
	uint64_t lsn; /* the log's LSN when it was sequenced, or 0 */
	uint32_t lba, sectors;
	uint32_t seq; /* 0: not taken yet */
	uint8_t kind, state;
};

struct oracle {
	uint64_t volume;
	uint64_t next_id;
	uint32_t sectors;
	uint32_t count;    /* writes since the base */
	uint32_t n;        /* of these sequenced */
	uint32_t lo;       /* a crash that keeps the cache must keep 1..lo */
	uint32_t lo_home;  /* one that loses it must keep 1..lo_home */
	uint32_t failed;   /* writes that ended with an error */
	uint32_t order[ORACLE_WRITES_MAX]; /* order[seq - 1]: index into writes */
	struct oracle_write writes[ORACLE_WRITES_MAX];
	uint64_t base[ORACLE_SECTORS_MAX];
	char text[ORACLE_TEXT_LEN]; /* why the last predicate was false */
};

void oracle_init(struct oracle *o, uint64_t volume, uint32_t sectors);
void oracle_copy(struct oracle *dst, const struct oracle *src);

/* False when a program has become too long for another write. */
bool oracle_has_room(const struct oracle *o);
uint64_t oracle_write(struct oracle *o, enum oracle_kind kind, uint32_t lba, uint32_t sectors);
void oracle_stamp(const struct oracle *o, uint64_t id, uint32_t lba, void *buf, uint32_t sectors);

/* lsn: the highest that the log has given out by now, 0 if that is not exact. */
void oracle_sequence(struct oracle *o, uint64_t id, uint64_t lsn);
void oracle_acknowledge(struct oracle *o, uint64_t id);
void oracle_fail(struct oracle *o, uint64_t id);
uint32_t oracle_seq_of(const struct oracle *o, uint64_t id);

/* Everything that is acknowledged now: the highest sequence number among it. */
uint32_t oracle_mark(const struct oracle *o);
void oracle_durable(struct oracle *o, uint32_t mark);
void oracle_destaged(struct oracle *o, uint32_t mark);
/* The same from an LSN that the engine reports. */
void oracle_destaged_lsn(struct oracle *o, uint64_t lsn);

/* Sector contents to write ids: 0 for zeros, ORACLE_GARBAGE with o->text set for what is none. */
uint64_t oracle_decode(struct oracle *o, uint32_t lba, const void *sector);
bool oracle_decode_all(struct oracle *o, const void *buf, uint64_t *ret_ids);

/* ret_end, which may be NULL: the longest prefix that fits. */
bool oracle_check_prefix(struct oracle *o, const uint64_t *ids, uint32_t lo, uint32_t *ret_end);
bool oracle_check_sectors(struct oracle *o, const uint64_t *ids, uint32_t lo);
bool oracle_check_home(struct oracle *o, const uint64_t *ids, uint32_t lo_home);

/* Positions before which a read that is submitted now must not go back, one for each sector. */
void oracle_read_floor(const struct oracle *o, uint32_t lba, uint32_t sectors, uint32_t *floor);
bool oracle_check_read(struct oracle *o, uint32_t lba, uint32_t sectors, const uint32_t *floor,
		       const void *buf);

/* The image is the history up to end, durably; what was behind it never was. */
void oracle_recovered(struct oracle *o, uint32_t end, bool from_home);
void oracle_rebase(struct oracle *o, const uint64_t *ids);

#endif
