/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the size of a volume while it is owned.
 *
 * The size stands in the superblock and nowhere else. Changing it is one conditional replacement:
 * before it the volume has the old size, after it the new one, and no crash leaves it between.
 *
 * Growing. The superblock is durable before the log accepts anything beyond the former end: a log
 * that holds records beyond the end of its volume would be taken for a foreign one at replay.
 *
 * Shrinking. What lies beyond the new end must never come back, not after growing again, not from a
 * crash in between, not from an older checkpoint, not from a store opened without its cache.
 * So it is zeroed first, by a write like any other, and drained: then an object says "zeros" behind
 * every object that has data there, and any recovery from whatever checkpoint applies it. Only when
 * neither map nor log name anything beyond the new end is the superblock replaced. At replay the
 * log's older records beyond the end are behind what the store holds, and are skipped.
 *
 *	caller    ZERO [new, old) --> durable in the store, installed in the map
 *	resize    map and log empty beyond new --> superblock (new) durable --> done
 *
 * Invariants:
 *   1. home.sectors, which the log tests requests against, is never more than a durable superblock
 *      says: it grows after the replacement and shrinks before it;
 *   2. a replacement once begun goes on until the store has told how it ended (own.c), also when
 *      who waited has given up;
 *   3. one size is wanted at a time; one that has not been begun is replaced by a later wish.
 */
#include <errno.h>

#include "lsvd/lsvd_impl.h"

/* The last moment at which a wish can be given up. */
static bool resize_begun(const struct lsvd *l)
{
	return l->resize_bytes && l->sb_busy && l->sb_next.size_bytes == l->resize_bytes;
}

static void resize_done(struct lsvd *l)
{
	l->home.sectors = l->sb.size_bytes / LSVD_SECTOR_BYTES;
	l->resize_bytes = 0;
	drains_reached(&l->resize_waiters, UINT64_MAX);
}

void resize_kick(struct lsvd *l)
{
	if (!l->resize_bytes || l->sb_busy || l->stopping || l->failed)
		return;
	l->sb_next = l->sb;
	l->sb_next.size_bytes = l->resize_bytes;
	own_super(l, resize_done);
}

/*
 * Whether map or log have anything at or behind the sector. The log forgets by and by what the
 * store has: zeros that have been installed may still be known to it.
 */
static bool resize_held(struct lsvd *l, uint64_t lba)
{
	struct extent e;

	if (!all_is_home(l) || extmap_lookup(&l->map, lba, &e))
		return true;
	while (lba < l->home.sectors) {
		int type = 0;

		lba = wlog_extent(l->log, lba, l->home.sectors, &type);
		if (type == WLOG_DATA)
			return true;
	}
	return false;
}

static int resize_check(struct lsvd *l, uint64_t size_bytes)
{
	const uint64_t sectors = size_bytes / LSVD_SECTOR_BYTES;

	if (!size_bytes || size_bytes % l->sb.block_bytes || sectors > LSVD_LBA_END)
		return -EINVAL;
	if (!l->acquired)
		return -EPERM;
	if (l->stopping)
		return -ECANCELED;
	if (l->failed)
		return l->failed;
	if (resize_begun(l))
		return -EBUSY;
	if (sectors < l->home.sectors && resize_held(l, sectors) &&
	    VARVE_STEP("lsvd.gone_before_shrink"))
		return -EBUSY;
	return 0;
}

void lsvd_resize(struct lsvd *l, uint64_t size_bytes, struct drain *d)
{
	const int error = resize_check(l, size_bytes);

	d->lsn = 1;
	d->deadline_ns = host_now_ns(l->host) + l->opt.home_timeout_ns;
	if (error || size_bytes == l->sb.size_bytes) {
		drains_finish(&l->resize_waiters, d, error);
		return;
	}
	if (size_bytes < l->sb.size_bytes)
		l->home.sectors = size_bytes / LSVD_SECTOR_BYTES;
	drains_add(&l->resize_waiters, d);
	l->resize_bytes = size_bytes;
	if (!VARVE_STEP("lsvd.size_before_use")) {
		l->home.sectors = size_bytes / LSVD_SECTOR_BYTES;
		drains_reached(&l->resize_waiters, UINT64_MAX);
	}
	resize_kick(l);
}

/* A wish that waits for a superblock that cannot be written is given up while it can be. */
void resize_tick(struct lsvd *l)
{
	if (l->resize_bytes && list_empty(&l->resize_waiters.waiting) && !resize_begun(l)) {
		l->resize_bytes = 0;
		l->home.sectors = l->sb.size_bytes / LSVD_SECTOR_BYTES;
	}
}
