/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening, taking the writer's right, giving it back. Synchronous.
 *
 * Taking it, and what each step makes durable:
 *
 *   lock        the local half: store and cache device, against other processes of this host
 *   unchanged?  superblock and log are as they were when the volume was opened
 *   claim       superblock: attach_epoch e, pending_uuid. From here on a former owner that is
 *               still alive fails its next proof (own.c) and forgets nothing any more
 *   (format)    a cache that is discarded; not before the claim has said that it will be
 *   confirm     list, ask for the next object: the stream ends where it ended when we loaded it.
 *               What the former owner puts from here on must not count, and it does not rely on it
 *   end         superblock: the former window ends at what we loaded, window e begins behind every
 *               number that was listed; the cache is bound; not clean any more
 *   start       log: log_epoch raised, identity with epoch e (wlog_start)
 *   commit      superblock: committed_epoch e. A copy of the cache from before is refused from now
 *               on. Only then is anything acknowledged
 *
 * pair.c lists what each interruption leaves behind. Invariants:
 *   1. an object of a former owner counts if and only if it was durable before "confirm": it is in
 *      the map that we go on from, or behind the end of its window for ever;
 *   2. the claim excludes other claimants by compare-and-swap, "end" and "commit" as well: of two
 *      that attach at once one gets -EAGAIN before it has changed its cache;
 *   3. no LSN is used twice (L1): the log begins behind lsn_floor and the store's reach; a cache
 *      that is bound anew raises lsn_floor to where it begins, and when another one is given up the
 *      new floor lies LSN_JUMP above everything that is known of it.
 *
 * Giving back: everything destaged, a checkpoint covers it --> log clean (wlog_stop) -->
 * superblock clean, with the last number and LSN. A crash in between leaves a volume that was not
 * closed, with a clean cache.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

#define LSN_JUMP (UINT64_C(1) << 40)
#define TRASH_MAX 4096 /* leftovers deleted after one attach */
#define OPEN_TRIES 4

/* ---- opening */

static void attach_cut(const struct lsvd *l, struct lsvd_cut *cut)
{
	cut->lsn = l->installed_lsn;
	cut->wall_ns = l->installed_wall_ns;
	cut->seq = l->installed_seq;
}

static int open_once(struct lsvd *l, struct lsvd_cut *cut, struct err *err)
{
	int r = recover_store(l, err);

	if (!r)
		r = pair_cache(l, cut, err);
	attach_cut(l, cut);
	return r;
}

/* Which superblock the cache has; 0: none. */
static uint64_t open_cache_seq(const struct lsvd *l)
{
	struct wlog_info info;

	return l->cache && !wlog_probe(l->cache, &info, NULL) ? info.sb_seq : 0;
}

/*
 * Whether somebody was at work while we looked: what looks like damage need not be, and a cache
 * that is ahead of the store need not mean that the store was set back.
 */
static bool open_raced(const struct lsvd *l, uint64_t cache_seq)
{
	struct super sb;
	uint64_t version;

	if (cache_seq != open_cache_seq(l))
		return true;
	return !super_read_sync(l->store, l->name, &sb, &version, NULL) && version != l->sb_version;
}

int lsvd_open(struct host *host, struct store *store, const char *name, struct dev *cache,
	      bool discard_cache, const struct lsvd_options *opt, struct lsvd **ret,
	      struct lsvd_cut *ret_cut, struct err *err)
{
	struct lsvd_cut cut;
	uint64_t cache_seq;
	struct lsvd *l;
	int r;

	if (!key_name_ok(name))
		return err_set(err, -ENOENT, "there is no volume \"%s\"", name);
	for (int tries = 1;; tries++) {
		cut = (struct lsvd_cut){0};
		l = lsvd_alloc(host, store, name, opt);
		if (!l)
			return -ENOMEM;
		l->cache = cache;
		l->discard = discard_cache;
		cache_seq = open_cache_seq(l);
		r = open_once(l, &cut, err);
		if (!r)
			break;
		if ((r != -EBADMSG && r != -ESTALE) || tries == OPEN_TRIES ||
		    !open_raced(l, cache_seq)) {
			lsvd_close(l);
			return r;
		}
		lsvd_close(l);
		err_clear(err);
	}
	if (ret_cut)
		*ret_cut = cut;
	*ret = l;
	return 0;
}

/* ---- the steps of taking the right */

static int attach_lock(struct lsvd *l, struct err *err)
{
	int r = 0;

	if (l->store->ops->lock)
		r = l->store->ops->lock(l->store, l->name, err);
	if (r)
		return r;
	l->locked_store = l->store->ops->lock != NULL;
	if (l->cache->ops->lock)
		r = l->cache->ops->lock(l->cache, err);
	if (!r)
		l->locked_cache = l->cache->ops->lock != NULL;
	return r;
}

static int attach_changed(const struct lsvd *l, struct err *err)
{
	return err_set(err, -EAGAIN,
		       "%s: somebody else has had it since it was opened: open it "
		       "again",
		       l->name);
}

static int attach_unchanged(struct lsvd *l, struct err *err)
{
	struct wlog_info info;
	struct super sb;
	uint64_t version;
	int r = super_read_sync(l->store, l->name, &sb, &version, err);

	if (r)
		return r;
	if (version != l->sb_version)
		return attach_changed(l, err);
	if (!l->log)
		return 0;
	r = wlog_probe(l->cache, &info, err);
	if (!r && (info.sb_seq != l->cache_sb_seq ||
		   !uuid_equal(&info.id.log_uuid, &wlog_identity(l->log)->log_uuid)))
		r = attach_changed(l, err);
	return r;
}

/* A replacement that loses against somebody else's means that we have to look again. */
static int attach_replace(struct lsvd *l, const struct super *next, struct err *err)
{
	const int r = super_replace_sync(l, next, err);

	return r == -ESTALE ? -EAGAIN : r;
}

static int attach_claim(struct lsvd *l, const struct uuid *cache, struct err *err)
{
	struct super next = l->sb;

	if (next.attach_epoch >= UINT32_MAX - 1)
		return err_set(err, -EOVERFLOW, "%s: there are no epochs left", l->name);
	next.attach_epoch++;
	/* A discard that was interrupted goes on with the cache that it had formatted. */
	next.replace = l->discard || (next.replace && uuid_equal(&next.pending_uuid, cache));
	next.pending_uuid = *cache;
	if (!VARVE_STEP("lsvd.claim_epoch")) {
		l->sb = next;
		return 0;
	}
	return attach_replace(l, &next, err);
}

static int attach_format(struct lsvd *l, const struct uuid *cache, uint64_t floor, struct err *err)
{
	const struct wlog_format_options opt = {
		.id =
			{
				.log_uuid = *cache,
				.volume_uuid = l->sb.uuid,
				.attach_epoch = l->sb.attach_epoch,
			},
		.first_lsn = floor + 1,
		.random = host_random(l->host),
		.force = true,
	};
	int r = wlog_format(l->cache, &opt, NULL, err);

	if (!r)
		r = wlog_open(l->host, l->cache, &l->home, &l->opt.log, 0, &l->log, err);
	return r;
}

/* Ends the former window where the image ends, and opens ours behind every number seen. */
static int attach_windows(struct lsvd *l, struct super *next, struct err *err)
{
	struct epoch_end *last = next->end_count ? &next->ends[next->end_count - 1] : NULL;
	int r;

	if (last && last->end_seq == LSVD_SEQ_OPEN) {
		last->end_seq = l->installed_seq;
		/* Nobody has put anything in it: it need not be remembered. */
		if (last->end_seq < last->first_seq)
			next->end_count--;
	}
	if (next->end_count == LSVD_EPOCH_ENDS) {
		r = ckpt_write_sync(l, next, err);
		if (r)
			return r;
	}
	next->ends[next->end_count++] = (struct epoch_end){
		.epoch = next->attach_epoch,
		.first_seq = l->next_seq,
		.end_seq = LSVD_SEQ_OPEN,
	};
	return 0;
}

static int attach_end(struct lsvd *l, uint64_t floor, struct err *err)
{
	const struct uuid *cache = &wlog_identity(l->log)->log_uuid;
	struct super next = l->sb;
	bool new_root;
	int r = attach_windows(l, &next, err);

	if (r)
		return r;
	new_root = next.roots[0].no != l->sb.roots[0].no;
	if (!uuid_equal(&next.cache_uuid, cache)) {
		next.cache_uuid = *cache;
		next.bound_epoch = next.attach_epoch;
		next.bind_lsn = wlog_durable_lsn(l->log);
		next.lsn_floor = max64(floor, wlog_last_lsn(l->log));
	}
	next.clean = next.replace = false;
	next.last_seq = l->installed_seq;
	next.last_lsn = l->installed_lsn;
	if (!VARVE_STEP("lsvd.end_epoch")) {
		l->sb = next;
		return 0;
	}
	r = attach_replace(l, &next, err);
	if (!r && new_root)
		l->good_root = 0;
	return r;
}

static int attach_start(struct lsvd *l, struct err *err)
{
	const struct wlog_identity id = {
		.log_uuid = wlog_identity(l->log)->log_uuid,
		.volume_uuid = l->sb.uuid,
		.attach_epoch = l->sb.attach_epoch,
	};
	struct super next = l->sb;
	int r = wlog_start(l->log, &id, max64(l->sb.lsn_floor, l->installed_lsn), err);

	if (r)
		return r;
	next.committed_epoch = next.attach_epoch;
	if (!VARVE_STEP("lsvd.commit_epoch"))
		return 0;
	return attach_replace(l, &next, err);
}

/* ---- what former owners have left behind */

static bool leftover_kept(const struct key *key, const struct root_ref *roots,
			  const struct partset *parts)
{
	for (unsigned i = 0; i < LSVD_ROOTS && key->kind == KEY_ROOT; i++) {
		if (roots[i].no == key->seq && roots[i].epoch == key->epoch)
			return true;
	}
	return key->kind == KEY_PART && partset_has(parts, key);
}

/* All parts that the kept roots refer to; an error means that nothing must be deleted. */
static int leftover_parts(struct lsvd *l, struct partset *ret)
{
	int r = 0;

	for (unsigned i = 0; !r && i < LSVD_ROOTS; i++) {
		struct root_hdr root;
		void *buf;

		if (!l->sb.roots[i].no)
			continue;
		r = load_root(l->store, l->name, &l->sb.uuid, &l->sb.roots[i], &buf, &root, NULL);
		if (!r) {
			r = partset_of_root(ret, buf, root.parts);
			free(buf);
		}
	}
	return r;
}

static void attach_stray(struct lsvd *l, const struct listed *e)
{
	const struct ckpt_obj *obj = objtab_find(&l->objs, e->key.seq);

	if (!obj || obj->epoch != e->key.epoch)
		doom_stray(l, &e->key, e->size_bytes);
}

/*
 * Parts and roots of checkpoints that were never finished or not deleted to the end, and objects
 * stranded behind the end of the stream. None can ever count: the former are not referred to by
 * the superblock that is durable by now, the latter are outside of every window.
 *
 * And objects within the stream that are not in the table: a former owner was about to delete them,
 * or its put came late. The older kept checkpoint may still name them (doom.c).
 */
static void attach_leftovers(struct lsvd *l, const struct listing *list,
			     const struct partset *parts)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n && n < TRASH_MAX; i++) {
		const struct key *key = &list->e[i].key;

		if (key->epoch >= l->sb.attach_epoch)
			continue;
		if (key->kind == KEY_DATA && key->seq <= l->installed_seq) {
			attach_stray(l, &list->e[i]);
			continue;
		}
		if (key->kind != KEY_DATA && leftover_kept(key, l->sb.roots, parts))
			continue;
		trash_add(l, key);
		n++;
	}
}

/* ---- the whole */

/* What has been written since the checkpoint that was loaded. */
static void attach_since(struct lsvd *l)
{
	const uint64_t covered = l->sb.roots[l->good_root].covered_seq;

	l->since_ckpt = l->since_bytes = 0;
	for (size_t i = objtab_from(&l->objs, covered + 1); i < l->objs.n; i++) {
		const struct ckpt_obj *o = &l->objs.o[i];

		l->since_ckpt++;
		l->since_bytes += object_weight(
			o->header_bytes + (uint64_t)o->data_sectors * LSVD_SECTOR_BYTES);
	}
}

static void attach_go(struct lsvd *l, const struct listing *list)
{
	struct wlog_seg_view view;
	struct partset parts = {0};
	struct wlog_seg *seg;
	/* Reads from the store, so before entering. */
	const bool clear = !l->discard && !leftover_parts(l, &parts);

	host_enter(l->host);
	/* LSNs between what the log held and what it gives out from now on stand for nothing. */
	l->void_from = wlog_durable_lsn(l->log);
	l->void_to = wlog_last_lsn(l->log);
	l->closed_lsn = l->void_from;
	seg = wlog_next_durable(l->log, 0);
	if (seg) {
		wlog_seg_view(seg, &view);
		l->closed_lsn = view.first_lsn - 1;
	}
	l->data_seq = l->installed_data_seq;
	attach_since(l);
	l->acquired = true;
	if (clear)
		attach_leftovers(l, list, &parts);
	tick_later(l);
	destage_kick(l);
	ckpt_kick(l);
	trash_kick(l);
	l->busy++;
	lsvd_exit(l);
	partset_free(&parts);
}

/* A discard gives up what this volume's cache holds, not what another volume's does (P6). */
static int attach_may_format(const struct lsvd *l, struct err *err)
{
	struct wlog_info info;

	if (!l->discard || wlog_probe(l->cache, &info, NULL) || info.clean ||
	    uuid_is_zero(&info.id.volume_uuid) || uuid_equal(&info.id.volume_uuid, &l->sb.uuid))
		return 0;
	return err_set(err, -EXDEV,
		       "%s: the cache device is in use by another volume; format it first if what "
		       "it holds is not wanted",
		       l->name);
}

/* Everything up to the start of the log: a failure leaves nothing behind that could write. */
static int attach_run(struct lsvd *l, struct listing *list, struct err *err)
{
	struct uuid cache;
	uint64_t floor = max64(l->sb.lsn_floor, l->installed_lsn);
	int r = attach_unchanged(l, err);

	if (!r)
		r = attach_may_format(l, err);
	if (r)
		return r;
	if (l->discard) {
		const uint64_t hi = host_random(l->host);

		cache = uuid_from_bits(hi, host_random(l->host));
		floor = max64(floor, l->discard_lsn) + LSN_JUMP;
	} else {
		cache = wlog_identity(l->log)->log_uuid;
	}
	r = attach_claim(l, &cache, err);
	if (!r && l->discard)
		r = attach_format(l, &cache, floor, err);
	if (r)
		return r;
	if (VARVE_STEP("lsvd.list_after_claim"))
		r = recover_confirm(l, list, err);
	if (r > 0)
		return attach_changed(l, err);
	return r ? r : attach_end(l, floor, err);
}

int lsvd_acquire(struct lsvd *l, struct err *err)
{
	struct listing list = {0};
	int r;

	if (l->acquired || l->tried)
		return err_set(err, -EALREADY, "%s: attached already", l->name);
	if (!l->cache)
		return err_set(err, -ENODEV, "%s: cannot be written without a cache", l->name);
	if (l->cache->read_only)
		return err_set(err, -EROFS, "%s: the cache device is read-only", l->name);
	l->tried = true;
	r = attach_lock(l, err);
	if (!r)
		r = attach_run(l, &list, err);
	if (r)
		lsvd_unlock(l); /* who goes on looking stands in nobody's way */
	else
		r = attach_start(l, err);
	if (!r)
		attach_go(l, &list);
	listing_free(&list);
	return r;
}

/* ---- giving back */

static bool release_ready(const struct lsvd *l)
{
	const struct root_ref *root = &l->sb.roots[l->good_root];

	return list_empty(&l->batches) && !l->ngather &&
	       !wlog_next_durable(l->log, l->taken_number) && !l->sb_busy && !l->ckpt_active &&
	       (l->installed_seq == 0 ||
		(root->no && root->covered_seq >= l->installed_data_seq));
}

int lsvd_release(struct lsvd *l, struct err *err)
{
	struct super next;
	bool ready;
	int r;

	if (!l->acquired)
		return err_set(err, -EINVAL, "%s: is not attached", l->name);
	host_enter(l->host);
	ready = release_ready(l);
	lsvd_stop(l);
	host_leave(l->host);
	if (l->failed)
		return err_set(err, l->failed, "%s: the ownership was lost", l->name);
	if (!ready)
		return err_set(err, -EBUSY, "%s: not everything is in the store yet", l->name);
	r = wlog_stop(l->log, err);
	if (r)
		return r;
	next = l->sb;
	next.clean = true;
	next.last_seq = l->installed_seq;
	next.last_lsn = l->installed_lsn;
	r = super_replace_sync(l, &next, err);
	if (r)
		return r;
	l->acquired = false;
	lsvd_unlock(l);
	return 0;
}
