/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verifies everything that the store holds of a volume: the superblock, both checkpoint roots with
 * their parts, that the stream can be rolled forward, every object's header and all its data
 * against their checksums, the map against the objects, and the live counts. Changes nothing.
 *
 * A volume that somebody is writing to may show problems that are none: check it at rest.
 */
#ifndef LSVD_LSVD_CHECK_H
#define LSVD_LSVD_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "store/store.h"

struct lsvd_problem {
	const char *object; /* its key */
	const char *text;
	/* What of the volume is affected, in sectors; sectors 0: nothing, or not known. */
	uint64_t lba, sectors;
};

struct lsvd_check {
	/* Both may be NULL. A range that is not contiguous is told in several problems. */
	void (*problem)(struct lsvd_check *check, const struct lsvd_problem *problem);
	void (*progress)(struct lsvd_check *check, uint64_t done_bytes, uint64_t total_bytes);
	bool headers_only; /* leave the data alone */
	/* Results. */
	uint64_t problems;
	uint64_t objects, bytes;       /* that count, and were verified */
	uint64_t stranded, leftovers;  /* objects and parts of checkpoints that count for nothing */
	uint64_t total_sectors, live_sectors, error_sectors;
	uint64_t last_seq, last_lsn;
};

/*
 * 0 when the check could be carried out, whatever it found; a negative errno when it could not
 * (no such volume, the store does not answer). Not entered; synchronous.
 */
int lsvd_check(struct store *store, const char *name, struct lsvd_check *check, struct err *err);

#endif
