/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a volume between opening and closing: options, ticks, drains, status.
 *
 * Time. While the volume is owned a tick comes every quarter of batch_age_ns at least, and every
 * second at least, so that drains end in time whatever the age is. It keeps one mark: the highest
 * LSN there was at some moment, and that moment. When the mark has grown old without everything
 * below it having gone into a batch, the log is told to seal and what there is becomes a batch,
 * full or not. So no write stays undestaged for longer than about twice batch_age_ns while the
 * store works, however few of them there are.
 *
 * Health. home_error is the last error of a write to the store with no success since, and
 * error_since_ns when that began. Drains end with it after home_timeout_ns (P8); batches never do.
 *
 * Invariants:
 *   1. busy counts every request, load and deferred work; when it is zero, and the log is idle,
 *      nothing calls back;
 *   2. once failed is set nothing is written, nothing forgotten, nothing read from the store, and
 *      nothing acknowledged.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

/* ---- options */

void lsvd_options_default(struct lsvd_options *opt)
{
	*opt = (struct lsvd_options){
		.batch_bytes = 8u << 20,
		.batch_age_ns = UINT64_C(2000000000),
		.puts_in_flight = 4,
		.checkpoint_bytes = 256u << 20,
		.checkpoint_objects = 65536,
		.checkpoint_part_bytes = 1u << 20,
		.shard_sectors_log2 = 25,
		.header_cache_bytes = 64u << 20,
		.gc_start_percent = 70,
		.gc_stop_percent = 75,
		.gc_min_age_ns = UINT64_C(60000000000),
		.map_limit_bytes = UINT64_C(4) << 30,
		.retry_min_ns = UINT64_C(100000000),
		.retry_max_ns = UINT64_C(5000000000),
		.home_timeout_ns = UINT64_C(60000000000),
	};
	wlog_options_default(&opt->log);
}

/* Zero is the default, what is out of range is brought into it. */
static void options_fix(struct lsvd_options *opt)
{
	struct lsvd_options def;

	lsvd_options_default(&def);
#define OPTION(name, lo, hi) opt->name = clamp64(opt->name ? opt->name : def.name, lo, hi)
	OPTION(batch_bytes, 4096, 512u << 20);
	OPTION(batch_age_ns, 1000000, UINT64_MAX / 4);
	OPTION(puts_in_flight, 1, 64);
	OPTION(checkpoint_objects, 1, UINT32_MAX);
	OPTION(checkpoint_bytes, 4096, UINT64_MAX);
	OPTION(checkpoint_part_bytes, 4096, 8u << 20);
	OPTION(shard_sectors_log2, 11, 40);
	OPTION(header_cache_bytes, 64u << 10, UINT64_MAX);
	OPTION(gc_start_percent, 1, 99);
	OPTION(gc_stop_percent, opt->gc_start_percent, 99);
	OPTION(map_limit_bytes, 1u << 20, SIZE_MAX);
	OPTION(retry_min_ns, 1000, UINT64_MAX / 64);
	OPTION(retry_max_ns, opt->retry_min_ns, UINT64_MAX / 64);
	OPTION(home_timeout_ns, 1000, UINT64_MAX / 4);
#undef OPTION
}

/* ---- creating, freeing */

static const struct wlog_home_ops home_ops = {
	.read = home_read,
	.destage = home_destage,
};

static void drains_busy(struct drains *drains, int delta)
{
	container_of(drains, struct lsvd, drains)->busy += (uint64_t)(int64_t)delta;
}

static void waiters_busy(struct drains *drains, int delta)
{
	container_of(drains, struct lsvd, ckpt_waiters)->busy += (uint64_t)(int64_t)delta;
}

static void resizes_busy(struct drains *drains, int delta)
{
	container_of(drains, struct lsvd, resize_waiters)->busy += (uint64_t)(int64_t)delta;
}

static void gc_waiters_busy(struct drains *drains, int delta)
{
	container_of(drains, struct lsvd, gc.waiters)->busy += (uint64_t)(int64_t)delta;
}

static void loads_busy(struct segload_user *user, int delta)
{
	container_of(user, struct lsvd, loads)->busy += (uint64_t)(int64_t)delta;
}

static void loads_failed(struct segload_user *user, int error)
{
	home_failed(container_of(user, struct lsvd, loads), error);
}

struct lsvd *lsvd_alloc(struct host *host, struct store *store, const char *name,
			const struct lsvd_options *opt)
{
	struct lsvd *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->host = host;
	l->store = store;
	l->home.ops = &home_ops;
	l->opt = *opt;
	l->hold = opt->hold_destage;
	options_fix(&l->opt);
	memcpy(l->name, name, strlen(name) + 1); /* callers have asked key_name_ok() */
	extmap_init(&l->map, NULL, (size_t)l->opt.map_limit_bytes);
	hcache_init(l);
	list_init(&l->batches);
	drains_init(&l->drains, host, drains_busy);
	drains_init(&l->ckpt_waiters, host, waiters_busy);
	drains_init(&l->resize_waiters, host, resizes_busy);
	drains_init(&l->gc.waiters, host, gc_waiters_busy);
	list_init(&l->ckpt_ios);
	list_init(&l->trash);
	timers_init(&l->timers, host);
	l->loads = (struct segload_user){ .timers = &l->timers,
					  .retry_min_ns = l->opt.retry_min_ns,
					  .retry_max_ns = l->opt.retry_max_ns,
					  .busy = loads_busy,
					  .failed = loads_failed };
	if (read_init(l)) {
		free(l);
		return NULL;
	}
	return l;
}

void lsvd_unlock(struct lsvd *l)
{
	if (l->locked_cache)
		l->cache->ops->unlock(l->cache);
	if (l->locked_store)
		l->store->ops->unlock(l->store, l->name);
	l->locked_cache = l->locked_store = false;
}

void lsvd_close(struct lsvd *l)
{
	struct list_head *link;

	if (!l)
		return;
	while ((link = list_pop(&l->batches)))
		batch_free(list_entry(link, struct batch, link));
	free(l->gather);
	gc_free(l);
	ckpt_drop(l);
	read_free(l);
	hcache_free(l);
	if (l->log)
		wlog_close(l->log);
	lsvd_unlock(l);
	extmap_destroy(&l->map);
	objtab_free(&l->objs);
	free(l);
}

int lsvd_create(struct store *store, const char *name, const struct lsvd_create_options *opt,
		struct err *err)
{
	struct super sb = {
		.uuid = opt->uuid,
		.size_bytes = opt->size_bytes,
		.block_bytes = opt->block_bytes ? opt->block_bytes : LSVD_SECTOR_BYTES,
		.created_wall_ns = opt->wall_ns,
		.wall_ns = opt->wall_ns,
		.writes = 1,
		.clean = true,
	};
	uint8_t buf[LSVD_SUPER_BYTES];
	struct super check;
	int r;

	if (!key_name_ok(name))
		return err_set(err, -EINVAL,
			       "\"%s\" cannot be a volume's name: letters, digits, "
			       "'.', '_', '-', up to %d of them, and not like an object's key",
			       name, LSVD_NAME_MAX);
	if (uuid_is_zero(&sb.uuid))
		sb.uuid = uuid_new();
	super_encode(buf, &sb);
	/* What cannot be read back must not be written: this checks sizes and limits. */
	r = super_decode(buf, sizeof(buf), &check, err);
	if (r) {
		err_prefix(err, "cannot create %s", name);
		return -EINVAL;
	}
	r = store_put_new(store, name, buf, sizeof(buf));
	if (r == -EEXIST)
		return err_set(err, r, "there is a volume %s already", name);
	return r ? err_sys(err, r, "cannot create %s", name) : 0;
}

void info_from_super(const struct super *sb, uint64_t version, struct lsvd_info *ret)
{
	*ret = (struct lsvd_info){
		.uuid = sb->uuid,
		.cache_uuid = sb->cache_uuid,
		.pending_uuid = sb->pending_uuid,
		.size_bytes = sb->size_bytes,
		.block_bytes = sb->block_bytes,
		.attach_epoch = sb->attach_epoch,
		.committed_epoch = sb->committed_epoch,
		.version = version,
		.created_wall_ns = sb->created_wall_ns,
		.changed_wall_ns = sb->wall_ns,
		.checkpoint_seq = {sb->roots[0].covered_seq, sb->roots[1].covered_seq},
		.last_seq = sb->last_seq,
		.last_lsn = sb->last_lsn,
		.clean = sb->clean,
	};
}

int lsvd_probe(struct store *store, const char *name, struct lsvd_info *ret, struct err *err)
{
	struct super sb;
	uint64_t version;
	int r;

	if (!key_name_ok(name))
		return err_set(err, -ENOENT, "there is no volume \"%s\"", name);
	r = super_read_sync(store, name, &sb, &version, err);
	if (!r)
		info_from_super(&sb, version, ret);
	return r;
}

/* ---- health */

void lsvd_exit(struct lsvd *l)
{
	struct host *host = l->host;

	host_leave(host);
	if (l->cache)
		dev_kick(l->cache);
	store_kick(l->store);
	host_enter(host);
	l->busy--;
	host_leave(host);
}

void home_failed(struct lsvd *l, int error)
{
	if (!l->home_error)
		l->error_since_ns = host_now_ns(l->host);
	l->home_error = error;
}

void home_works(struct lsvd *l)
{
	l->home_error = 0;
}

void lsvd_fail(struct lsvd *l, int error, const char *why)
{
	if (l->failed)
		return;
	l->failed = error;
	log_error("%s: stopped: %s", l->name, why);
	/* Writers that wait for space would wait for ever (P8). */
	if (l->log)
		wlog_fail(l->log, error);
	drains_check(l);
}

void retry_set(struct lsvd *l, struct timer *timer, unsigned tries)
{
	timers_set_backoff(&l->timers, timer, tries, l->opt.retry_min_ns, l->opt.retry_max_ns);
}

/* ---- drains */

uint64_t last_lsn(const struct lsvd *l)
{
	const uint64_t last = wlog_last_lsn(l->log);

	return last > l->void_from && last <= l->void_to ? l->void_from : last;
}

/* The highest LSN up to which the store has everything, and the log has been told so. */
static uint64_t stable_lsn(const struct lsvd *l)
{
	if (list_empty(&l->batches))
		return l->closed_lsn;
	return list_first_entry(&l->batches, struct batch, link)->first_lsn - 1;
}

void drains_check(struct lsvd *l)
{
	drains_reached(&l->drains, stable_lsn(l));
	if (l->failed) {
		drains_beyond(&l->drains, 0, l->failed);
		drains_beyond(&l->ckpt_waiters, 0, l->failed);
		drains_beyond(&l->resize_waiters, 0, l->failed);
		drains_beyond(&l->gc.waiters, 0, l->failed);
	}
}

static void drains_late(struct lsvd *l, struct drains *drains, uint64_t now_ns)
{
	if (l->home_error && now_ns - l->error_since_ns >= l->opt.home_timeout_ns)
		drains_timeout(drains, now_ns, l->home_error);
}

/* Data that a failed log cannot make durable any more will never get here. */
static void drains_log_failed(struct lsvd *l)
{
	struct wlog_status st;
	bool stuck;

	if (list_empty(&l->drains.waiting))
		return;
	wlog_status(l->log, &st);
	if (!st.failed)
		return;
	/* The last that is durable may be a part of a write, which is never taken. */
	stuck = list_empty(&l->batches) && !l->gather_whole &&
		!wlog_next_durable(l->log, l->taken_number);
	drains_beyond(&l->drains, stuck ? 0 : wlog_durable_lsn(l->log), st.failed);
}

/* What has been acknowledged. What is only reserved would not be sealed by wlog_seal(). */
static uint64_t published_lsn(const struct lsvd *l)
{
	struct wlog_status st;

	wlog_status(l->log, &st);
	return st.published_lsn;
}

bool all_is_home(const struct lsvd *l)
{
	return stable_lsn(l) >= published_lsn(l);
}

void lsvd_drain(struct lsvd *l, struct drain *d)
{
	d->lsn = l->log ? published_lsn(l) : 0;
	d->deadline_ns = host_now_ns(l->host) + l->opt.home_timeout_ns;
	if (!l->acquired) {
		/* Only an owner can move what the log may hold. */
		drains_finish(&l->drains, d, l->log && wlog_next_durable(l->log, 0) ? -EPERM : 0);
		return;
	}
	if (l->stopping) {
		drains_finish(&l->drains, d, -ECANCELED);
		return;
	}
	drains_add(&l->drains, d);
	if (d->lsn > stable_lsn(l)) {
		l->drain_lsn = d->lsn;
		l->push_lsn = d->lsn;
		/* Also if that is durable: it may be a part of a write, which is taken whole. */
		wlog_seal(l->log);
		destage_kick(l);
	}
	drains_check(l);
}

int lsvd_drain_cancel(struct lsvd *l, struct drain *drain)
{
	const int rc = drains_cancel(&l->drains, drain);

	return rc ? drains_cancel(&l->gc.waiters, drain) : 0;
}

void lsvd_checkpoint(struct lsvd *l, struct drain *d)
{
	d->lsn = l->installed_seq;
	d->deadline_ns = host_now_ns(l->host) + l->opt.home_timeout_ns;
	if (!l->acquired || l->stopping) {
		drains_finish(&l->ckpt_waiters, d, l->stopping ? -ECANCELED : -EPERM);
		return;
	}
	gc_pause(l);
	drains_add(&l->ckpt_waiters, d);
	ckpt_kick(l);
	drains_check(l);
}

/* ---- ticks */

#define TICK_MAX_NS UINT64_C(1000000000)

void tick_later(struct lsvd *l)
{
	const uint64_t ns = l->opt.batch_age_ns / 4;

	host_wake_at(l->host, host_now_ns(l->host) + (ns < TICK_MAX_NS ? ns : TICK_MAX_NS));
}

static void age_tick(struct lsvd *l, uint64_t now_ns)
{
	const uint64_t last = last_lsn(l);
	const uint64_t old_ns = l->opt.batch_age_ns / 4 * 3;

	if (l->mark_lsn <= l->closed_lsn) {
		l->mark_lsn = last > l->closed_lsn ? last : 0;
		l->mark_ns = now_ns;
	} else if (!l->hold && now_ns - l->mark_ns >= old_ns) {
		l->push_now = now_ns - l->mark_ns >= l->opt.batch_age_ns;
		if (last > l->push_lsn)
			l->push_lsn = last;
		if (last > wlog_durable_lsn(l->log))
			wlog_seal(l->log);
	}
}

void lsvd_tick(struct lsvd *l)
{
	const uint64_t now_ns = host_now_ns(l->host);

	if (l->log)
		wlog_tick(l->log);
	timers_run(&l->timers, now_ns);
	if (!l->acquired || l->stopping)
		return;
	tick_later(l);
	if (l->failed)
		return;
	age_tick(l, now_ns);
	destage_kick(l);
	destage_advance(l);
	ckpt_kick(l);
	gc_kick(l);
	doom_kick(l);
	trash_kick(l);
	drains_check(l);
	drains_late(l, &l->drains, now_ns);
	drains_late(l, &l->ckpt_waiters, now_ns);
	drains_late(l, &l->resize_waiters, now_ns);
	drains_late(l, &l->gc.waiters, now_ns);
	resize_tick(l);
	drains_log_failed(l);
}

void lsvd_set_hold(struct lsvd *l, bool hold)
{
	l->hold = hold;
	destage_kick(l);
}

void lsvd_stop(struct lsvd *l)
{
	l->stopping = true;
	l->timers.stopped = true;
	drains_beyond(&l->drains, 0, -ECANCELED);
	drains_beyond(&l->ckpt_waiters, 0, -ECANCELED);
	drains_beyond(&l->resize_waiters, 0, -ECANCELED);
	drains_beyond(&l->gc.waiters, 0, -ECANCELED);
}

/* ---- looking */

bool lsvd_acquired(const struct lsvd *l)
{
	return l->acquired;
}

struct wlog *lsvd_log(struct lsvd *l)
{
	return l->log;
}

bool lsvd_idle(const struct lsvd *l)
{
	return l->busy == 0 && (!l->log || wlog_idle(l->log));
}

void lsvd_status(struct lsvd *l, struct lsvd_status *ret)
{
	*ret = l->st;
	info_from_super(&l->sb, l->sb_version, &ret->info);
	if (l->log)
		wlog_status(l->log, &ret->log);
	ret->acquired = l->acquired;
	ret->hold = l->hold;
	ret->sectors = l->home.sectors;
	ret->objects = l->objs.n;
	ret->total_sectors = l->total_sectors;
	ret->live_sectors = l->live_sectors;
	ret->map_extents = extmap_count(&l->map);
	ret->map_bytes = extmap_bytes(&l->map);
	ret->map_limit_bytes = l->opt.map_limit_bytes;
	ret->map_full = l->map_full;
	ret->checkpoint_pages = l->pages[0].n + l->pages[1].n;
	ret->checkpoint_next_bytes = ckpt_cost_bytes(l);
	ret->header_cache_bytes = l->hcache.bytes;
	ret->gc_running = l->gc.running;
	ret->gc_waiting = l->dooms.n;
	ret->gc_waiting_bytes = l->dooms.bytes;
	ret->next_seq = l->next_seq;
	ret->durable_seq = l->installed_seq;
	ret->durable_lsn = l->installed_lsn;
	if (l->mark_lsn > l->closed_lsn)
		ret->oldest_undestaged_ns = host_now_ns(l->host) - l->mark_ns;
	ret->busy = l->busy;
	ret->home_error = l->failed ? l->failed : l->home_error;
	ret->failed = l->failed;
}

static uint64_t home_extent(const struct lsvd *l, uint64_t lba, uint64_t end, bool *ret_data)
{
	struct extent e;

	if (!extmap_lookup(&l->map, lba, &e) || e.lba >= end) {
		*ret_data = false;
		return end;
	}
	if (e.lba > lba) {
		*ret_data = false;
		return e.lba;
	}
	*ret_data = true;
	return e.lba + e.sectors < end ? e.lba + e.sectors : end;
}

#define EXTENT_STEPS 1024 /* runs looked at in one call */

uint64_t lsvd_extent(struct lsvd *l, uint64_t lba, uint64_t end, bool *ret_data)
{
	uint64_t at = lba;

	for (unsigned i = 0; i < EXTENT_STEPS && at < end; i++) {
		uint64_t to = end;
		bool data = false;
		int type = 0;

		if (l->log)
			to = wlog_extent(l->log, at, end, &type);
		if (!type)
			to = home_extent(l, at, to, &data);
		else
			data = type == WLOG_DATA;
		if (at == lba)
			*ret_data = data;
		else if (data != *ret_data)
			break;
		at = to;
	}
	return at;
}
