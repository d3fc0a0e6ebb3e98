/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening, the cache's half: does this device belong to this volume, and is it as new as it has to
 * be (P6)? Writes nothing.
 *
 * The superblock names the bound cache (cache_uuid), who began to attach last (pending_uuid), the
 * epoch that the bound cache is known to have seen (committed_epoch) and the present one
 * (attach_epoch). A log names its volume and the epoch that it saw last. "Needed" below: a cache is
 * bound and the volume is not clean, so the cache may hold what has been acknowledged. A log that
 * was formatted for our volume and never started (varve cache create --uuid) has no volume yet: the
 * volume did not know of it, and it counts as "unbound" all through the tables below.
 *
 *   the log's volume   the log is        verdict
 *   another one        -                 -EXDEV
 *   ours               bound             its epoch must lie in [committed, attach], else -ESTALE
 *   ours               the pending one   good, if it is to replace the bound one (REPLACE)
 *   ours               neither           -ESTALE: it was replaced; what it holds was given up
 *   none yet           bound             good while committed < bound_epoch, else -ESTALE: a copy
 *                                        from before it was bound
 *   none yet           not bound         good if no cache is needed, else -ENODEV
 *   no log at all      -                 -ENODEV
 *   no device          -                 good for looking if no cache is needed, else -ENODEV
 *
 * What attaching (attach.c) leaves behind when it is interrupted, and that it opens. K is the bound
 * cache, N another one that is being attached, e the new epoch:
 *
 *   interrupted after       superblock                    log              opening with
 *   nothing                 as before                     as before        K, as before
 *   claim                   attach e, pending N           as before        K: epoch <= e
 *     ... of a clean one    the same, still clean         N unbound        K or N: none is needed
 *     ... with discard      the same, REPLACE             N not a log yet  K: still whole, or
 *                                                                          discard again
 *   format (discard)        the same                      N ours, epoch e  N: pending, REPLACE
 *   end of the old epoch    cache N, bound e, window e    N unbound        N: committed < bound
 *     ... N was K           cache K, window e             K, old epoch     K: committed <= epoch
 *   log started             the same                      N ours, epoch e  N
 *   commit                  committed e                   the same         N; older copies do not
 *
 * Then LSNs are compared. The store's reach is the last LSN of the last object.
 *   1. Every object came through the log, and from durable segments (L7). A bound log whose last
 *      LSN is below the reach, when the reach is beyond where its LSNs began (lsn_floor), is an
 *      older copy: -ESTALE.
 *   2. The log forgets only what counts for ever in the store. A log that has given up more than
 *      the store holds means that the store has been set back: -ESTALE.
 */
#include <errno.h>

#include "lsvd/lsvd_impl.h"

static const char *pair_text(const struct uuid *u, char text[UUID_TEXT_LEN])
{
	return uuid_to_text(u, text);
}

/* For no volume yet, or for ours as it was formatted: no owner has ever started it. */
static bool pair_unbound(const struct lsvd *l, const struct wlog_info *info)
{
	if (uuid_is_zero(&info->id.volume_uuid))
		return true;
	return uuid_equal(&info->id.volume_uuid, &l->sb.uuid) && info->id.attach_epoch == 0 &&
	       info->log_epoch == 1 && info->clean && info->watermark_lsn == info->tail_lsn;
}

static bool pair_needed(const struct lsvd *l)
{
	return !uuid_is_zero(&l->sb.cache_uuid) && !l->sb.clean;
}

#define PAIR_DISCARD                                                                           \
	"without it only what the store holds can be had, with what was written last missing " \
	"(see "                                                                                \
	"--discard-cache)"

static int pair_missing(const struct lsvd *l, const char *what, struct err *err)
{
	char text[UUID_TEXT_LEN];

	if (!pair_needed(l))
		return err_set(err, -ENODEV, "%s: %s; format it as a cache first", l->name, what);
	return err_set(err, -ENODEV,
		       "%s: %s, but the volume was not closed, and its cache %s may "
		       "hold acknowledged writes: attach that one; " PAIR_DISCARD,
		       l->name, what, pair_text(&l->sb.cache_uuid, text));
}

static int pair_bound(const struct lsvd *l, const struct wlog_info *info, struct err *err)
{
	const struct super *sb = &l->sb;
	char text[UUID_TEXT_LEN];

	pair_text(&info->id.log_uuid, text);
	if (pair_unbound(l, info)) {
		if (sb->committed_epoch < sb->bound_epoch)
			return 0;
		return err_set(err, -ESTALE,
			       "%s: cache %s is a copy from before it was first "
			       "used; " PAIR_DISCARD,
			       l->name, text);
	}
	if (info->id.attach_epoch < sb->committed_epoch && VARVE_STEP("lsvd.check_committed"))
		return err_set(err, -ESTALE,
			       "%s: cache %s is an old copy: it has seen epoch %llu, "
			       "the volume has been used in epoch %u since; " PAIR_DISCARD,
			       l->name, text, (unsigned long long)info->id.attach_epoch,
			       sb->committed_epoch);
	if (info->id.attach_epoch > sb->attach_epoch)
		return err_set(err, -ESTALE,
			       "%s: the store is an old copy: it knows epoch %u, "
			       "cache %s has seen epoch %llu",
			       l->name, sb->attach_epoch, text,
			       (unsigned long long)info->id.attach_epoch);
	return 0;
}

static int pair_identity(const struct lsvd *l, const struct wlog_info *info, struct err *err)
{
	const struct super *sb = &l->sb;
	char text[UUID_TEXT_LEN], other[UUID_TEXT_LEN];
	const bool ours = uuid_equal(&info->id.volume_uuid, &sb->uuid);

	pair_text(&info->id.log_uuid, text);
	if (!ours && !uuid_is_zero(&info->id.volume_uuid))
		return err_set(err, -EXDEV, "%s: cache %s belongs to another volume, %s", l->name,
			       text, pair_text(&info->id.volume_uuid, other));
	if (uuid_equal(&info->id.log_uuid, &sb->cache_uuid))
		return pair_bound(l, info, err);
	if (pair_unbound(l, info))
		return pair_needed(l) ? pair_missing(l, "this is another cache", err) : 0;
	if (sb->replace && uuid_equal(&info->id.log_uuid, &sb->pending_uuid))
		return 0;
	return err_set(err, -ESTALE,
		       "%s: cache %s was this volume's once, but cache %s has taken "
		       "its place",
		       l->name, text, pair_text(&sb->cache_uuid, other));
}

/* What of a log that is being discarded was not in the store. */
static uint64_t pair_lost_bytes(struct lsvd *l, struct wlog *log)
{
	uint64_t lba = 0, sum = 0;

	while (lba < l->home.sectors) {
		int type;
		const uint64_t to = wlog_extent(log, lba, l->home.sectors, &type);

		if (type)
			sum += (to - lba) * LSVD_SECTOR_BYTES;
		lba = to;
	}
	return sum;
}

/*
 * A cache that is being discarded is looked at for two things only: how much is lost, and which
 * LSNs it may have used.
 */
static void pair_discard(struct lsvd *l, struct lsvd_cut *cut)
{
	struct wlog_info info;
	struct wlog *log;

	l->discard_lsn = 0;
	if (!l->cache || wlog_probe(l->cache, &info, NULL))
		return;
	if (!uuid_equal(&info.id.volume_uuid, &l->sb.uuid) || pair_unbound(l, &info))
		return;
	if (wlog_open(l->host, l->cache, &l->home, &l->opt.log, l->installed_lsn, &log, NULL))
		return;
	cut->lost_bytes = pair_lost_bytes(l, log);
	l->discard_lsn = wlog_last_lsn(log);
	wlog_close(log);
}

/*
 * What the log has given up is what it said when it was opened, not when it was probed: its owner
 * may be at work. lsvd_open() looks again if that is why this fails.
 */
static int pair_lsns(const struct lsvd *l, const struct wlog_info *info, struct err *err)
{
	const uint64_t reach = l->installed_lsn;
	const uint64_t last = wlog_durable_lsn(l->log);
	const uint64_t known = reach > l->sb.bind_lsn ? reach : l->sb.bind_lsn;
	struct wlog_status st;

	wlog_status(l->log, &st);
	if (!uuid_equal(&info->id.log_uuid, &l->sb.cache_uuid))
		return 0;
	if (reach > l->sb.lsn_floor && last < reach && VARVE_STEP("lsvd.check_cache_reach"))
		return err_set(err, -ESTALE,
			       "%s: the cache is an old copy: it ends at LSN %llu, "
			       "the store has LSN %llu; " PAIR_DISCARD,
			       l->name, (unsigned long long)last, (unsigned long long)reach);
	if (st.destaged_lsn > known && VARVE_STEP("lsvd.check_store_reach"))
		return err_set(err, -ESTALE,
			       "%s: the store has been set back: it ends at LSN %llu, "
			       "but the cache has seen it hold LSN %llu; with --discard-cache the "
			       "older state can be had",
			       l->name, (unsigned long long)reach,
			       (unsigned long long)st.destaged_lsn);
	return 0;
}

int pair_cache(struct lsvd *l, struct lsvd_cut *cut, struct err *err)
{
	struct wlog_info info;
	int r;

	if (l->discard) {
		pair_discard(l, cut);
		return 0;
	}
	if (!l->cache)
		return pair_needed(l) ? pair_missing(l, "no cache was given", err) : 0;
	r = wlog_probe(l->cache, &info, err);
	if (r == -ENOENT) {
		err_clear(err);
		return pair_missing(l, "the cache device is not formatted", err);
	}
	if (r)
		return r;
	r = pair_identity(l, &info, err);
	if (r)
		return r;
	l->cache_sb_seq = info.sb_seq;
	r = wlog_open(l->host, l->cache, &l->home, &l->opt.log, l->installed_lsn, &l->log, err);
	if (r)
		return r;
	return pair_lsns(l, &info, err);
}
