/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a volume between opening and closing: options, ticks, drains, status.
 *
 * Time. While the volume is owned a tick comes every quarter of batch_age_ns at least, and every
 * second at least, so that drains end in time whatever the age is. It keeps one mark: the highest
 * LSN that was acknowledged at some moment, and that moment. When the mark has grown old without
 * everything below it being home, the log is told to seal, and what there is becomes a batch, full
 * or not. So no write stays out for longer than about twice batch_age_ns while the backing device
 * works, however few of them there are.
 *
 * Health. home_error is the last error of writeback with no batch home since, and error_since_ns
 * when that began. Drains end with it after home_timeout_ns (P8); the batch is tried for ever.
 *
 * A log that has failed takes no more writes. What of it is durable goes home all the same, as long
 * as it can be read; drains that wait for more than that end with the log's error.
 *
 * Invariants:
 *   1. busy counts every request, load and deferred work; when it is zero, and the log is idle,
 *      nothing calls back;
 *   2. once failed is set nothing is written to the backing device, and the log takes no writes;
 *   3. a drain is done exactly once, from deferred work, never entered.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boost/boost_impl.h"

#define TICK_MAX_NS UINT64_C(1000000000)
#define GIVE_BACK_NS UINT64_C(10000000000)

/* ---- options */

void boost_options_default(struct boost_options *opt)
{
	*opt = (struct boost_options){
		.nr_max_batched_migration = 64,
		.allow_migrate = true,
		.writes_in_flight = 32,
		.batch_age_ns = UINT64_C(2000000000),
		.retry_min_ns = UINT64_C(100000000),
		.retry_max_ns = UINT64_C(5000000000),
		.home_timeout_ns = UINT64_C(60000000000),
	};
	wlog_options_default(&opt->log);
}

static uint64_t clamp64(uint64_t v, uint64_t lo, uint64_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

#define BATCHED_MAX 4096u

/* Zero is the default, what is out of range is brought into it. */
static void options_fix(struct boost_options *opt)
{
	struct boost_options def;

	boost_options_default(&def);
#define OPTION(name, lo, hi) opt->name = clamp64(opt->name ? opt->name : def.name, lo, hi)
	OPTION(nr_max_batched_migration, 1, BATCHED_MAX);
	OPTION(writes_in_flight, 1, 1024);
	OPTION(batch_age_ns, 1000000, UINT64_MAX / 4);
	OPTION(retry_min_ns, 1000, UINT64_MAX / 64);
	OPTION(retry_max_ns, opt->retry_min_ns, UINT64_MAX / 64);
	OPTION(home_timeout_ns, 1000, UINT64_MAX / 4);
	OPTION(log.segment_bytes, 4096, 8u << 20);
#undef OPTION
}

/* ---- making and freeing */

static const struct wlog_home_ops home_ops = {
	.read = boost_home_read,
	.destage = boost_home_destage,
};

static void drains_busy(struct drains *drains, int delta)
{
	container_of(drains, struct boost, drains)->busy += (uint64_t)(int64_t)delta;
}

static void load_busy(struct segload_user *user, int delta)
{
	container_of(user, struct boost, load_user)->busy += (uint64_t)(int64_t)delta;
}

/* A cache that cannot be read keeps drains from their end just as a backing device does. */
static void load_failed(struct segload_user *user, int error)
{
	boost_home_failed(container_of(user, struct boost, load_user), error);
}

struct boost *boost_alloc(struct host *host, struct dev *backing, struct dev *cache,
			  const struct boost_options *opt)
{
	struct boost *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->host = host;
	b->backing = backing;
	b->cache = cache;
	b->opt = *opt;
	options_fix(&b->opt);
	b->hold = opt->hold;
	b->allow_migrate = opt->allow_migrate;
	b->home.ops = &home_ops;
	b->home.sectors = backing->size_bytes / backing->block_bytes * backing->block_bytes /
			  DEV_SECTOR_BYTES;
	extmap_init(&b->bads, NULL, 0);
	timers_init(&b->timers, host);
	drains_init(&b->drains, host, drains_busy);
	b->load_user = (struct segload_user){
		.dev = cache,
		.timers = &b->timers,
		.retry_min_ns = b->opt.retry_min_ns,
		.retry_max_ns = b->opt.retry_max_ns,
		.busy = load_busy,
		.failed = load_failed,
	};
	if (bread_init(b) || wb_init(b)) {
		boost_close(b);
		return NULL;
	}
	return b;
}

void boost_unlock(struct boost *b)
{
	if (b->locked_cache)
		b->cache->ops->unlock(b->cache);
	if (b->locked_backing)
		b->backing->ops->unlock(b->backing);
	b->locked_cache = b->locked_backing = false;
}

void boost_close(struct boost *b)
{
	if (!b)
		return;
	wb_free(b);
	bread_free(b);
	wlog_close(b->log);
	wlog_close(b->given_up);
	boost_unlock(b);
	extmap_destroy(&b->bads);
	free(b);
}

/* ---- health */

void boost_exit(struct boost *b)
{
	struct host *host = b->host;

	host_leave(host);
	if (b->cache)
		dev_kick(b->cache);
	dev_kick(b->backing);
	host_enter(host);
	b->busy--;
	host_leave(host);
}

void boost_home_failed(struct boost *b, int error)
{
	if (!b->home_error)
		b->error_since_ns = host_now_ns(b->host);
	b->home_error = error;
}

void boost_fail(struct boost *b, int error, const char *why)
{
	if (b->failed)
		return;
	b->failed = error;
	log_error("writeback has stopped for good: %s; the cache keeps what is not written back",
		  why);
	/* Writers that wait for space would wait for ever (P8). */
	wlog_fail(b->log, error);
	drains_beyond(&b->drains, 0, error);
}

/* ---- drains */

uint64_t boost_published_lsn(const struct boost *b)
{
	struct wlog_status st;

	wlog_status(b->log, &st);
	return st.published_lsn;
}

uint64_t boost_drain_target(const struct boost *b)
{
	const struct drain *d;
	uint64_t lsn = 0;

	list_for_each_entry(d, &b->drains.waiting, struct drain, link)
	{
		if (d->lsn > lsn)
			lsn = d->lsn;
	}
	return lsn;
}

/* Data that a failed log cannot make durable any more will never get here. */
static void drains_log_failed(struct boost *b)
{
	struct wlog_status st;
	bool stuck;

	if (list_empty(&b->drains.waiting))
		return;
	wlog_status(b->log, &st);
	if (!st.failed)
		return;
	/* The last that is durable may be a part of a write, which is never taken. */
	stuck = b->batch.phase == BATCH_NONE && !b->gather.cut;
	drains_beyond(&b->drains, stuck ? b->home_lsn : wlog_durable_lsn(b->log), st.failed);
}

void boost_drain(struct boost *b, struct drain *drain)
{
	drain->lsn = b->log ? boost_published_lsn(b) : 0;
	drain->deadline_ns = host_now_ns(b->host) + b->opt.home_timeout_ns;
	if (!b->acquired) {
		/* Only an owner can move what the log may hold. */
		drains_finish(&b->drains, drain, drain->lsn > b->home_lsn ? -EPERM : 0);
		return;
	}
	if (b->stopping || b->failed) {
		drains_finish(&b->drains, drain, b->failed ? b->failed : -ECANCELED);
		return;
	}
	drains_add(&b->drains, drain);
	if (drain->lsn > b->home_lsn) {
		/* Also if that is durable: it may be a part of a write, which is taken whole. */
		wlog_seal(b->log);
		wb_kick(b);
	}
	drains_reached(&b->drains, b->home_lsn);
	gather_run(b);
	drains_log_failed(b);
}

int boost_drain_cancel(struct boost *b, struct drain *drain)
{
	return drains_cancel(&b->drains, drain);
}

/* ---- ticks */

void boost_tick_later(struct boost *b)
{
	const uint64_t ns = b->opt.batch_age_ns / 4;

	host_wake_at(b->host, host_now_ns(b->host) + (ns < TICK_MAX_NS ? ns : TICK_MAX_NS));
}

static void age_tick(struct boost *b, uint64_t now_ns)
{
	const uint64_t last = boost_published_lsn(b);

	if (b->mark_lsn <= b->home_lsn) {
		b->mark_lsn = last > b->home_lsn ? last : 0;
		b->mark_ns = now_ns;
	} else if (!b->hold && b->allow_migrate &&
		   now_ns - b->mark_ns >= b->opt.batch_age_ns / 4 * 3) {
		if (last > b->push_lsn)
			b->push_lsn = last;
		if (last > wlog_durable_lsn(b->log))
			wlog_seal(b->log);
	}
}

static void batch_tick(struct boost *b, uint64_t now_ns)
{
	struct wlog_status st;

	if (b->batch.phase != BATCH_NONE)
		return;
	wlog_status(b->log, &st);
	b->urgent |= st.waiting != 0;
	gather_run(b);
	if (gather_due(b))
		wb_kick(b);
	if (now_ns - b->used_ns >= GIVE_BACK_NS) {
		wb_give_back(b);
		b->used_ns = now_ns;
	}
}

void boost_tick(struct boost *b)
{
	const uint64_t now_ns = host_now_ns(b->host);

	if (b->log)
		wlog_tick(b->log);
	timers_run(&b->timers, now_ns);
	if (!b->acquired || b->stopping)
		return;
	boost_tick_later(b);
	if (b->failed)
		return;
	age_tick(b, now_ns);
	batch_tick(b, now_ns);
	if (b->home_error && now_ns - b->error_since_ns >= b->opt.home_timeout_ns &&
	    VARVE_STEP("boost.home_timeout"))
		drains_timeout(&b->drains, now_ns, b->home_error);
	drains_log_failed(b);
}

/* ---- what can change while running */

void boost_set_hold(struct boost *b, bool hold)
{
	b->hold = hold;
	wb_kick(b);
}

void boost_set_allow_migrate(struct boost *b, bool allow)
{
	b->allow_migrate = allow;
	wb_kick(b);
}

void boost_set_batch(struct boost *b, uint32_t nr_max_batched_migration)
{
	b->opt.nr_max_batched_migration =
		(uint32_t)clamp64(nr_max_batched_migration, 1, BATCHED_MAX);
	gather_reset(b);
	wb_kick(b);
}

void boost_clear_stat(struct boost *b)
{
	b->st = (struct boost_status){.lost_bytes = b->st.lost_bytes};
	if (b->log)
		wlog_clear_stat(b->log);
}

void boost_stop(struct boost *b)
{
	b->stopping = true;
	b->timers.stopped = true;
	refused_stop(b);
	drains_beyond(&b->drains, 0, -ECANCELED);
}

/* ---- looking */

bool boost_acquired(const struct boost *b)
{
	return b->acquired;
}

struct wlog *boost_log(struct boost *b)
{
	return b->log;
}

bool boost_idle(const struct boost *b)
{
	return b->busy == 0 && (!b->log || wlog_idle(b->log));
}

static uint64_t dirty_sectors(const struct boost *b, const struct wlog_status *log)
{
	const uint64_t taken =
		b->dirty_before + (log->user_bytes + log->relogged_bytes) / DEV_SECTOR_BYTES;

	if (b->home_lsn >= log->published_lsn)
		return 0;
	return taken > b->home_sectors ? taken - b->home_sectors : 0;
}

void boost_status(struct boost *b, struct boost_status *ret)
{
	*ret = b->st;
	ret->binding.backing_bytes = b->state.backing_bytes;
	ret->binding.bound_wall_ns = b->state.bound_wall_ns;
	memcpy(ret->binding.identity, b->state.identity, sizeof(b->state.identity));
	ret->volume_uuid = b->volume_uuid;
	ret->sectors = b->home.sectors;
	ret->block_bytes = b->backing->block_bytes;
	ret->acquired = b->acquired;
	ret->hold = b->hold;
	ret->allow_migrate = b->allow_migrate;
	ret->can_discard = b->backing->can_zero;
	ret->nr_max_batched_migration = b->opt.nr_max_batched_migration;
	ret->bad_sectors = bads_sectors(&b->bads);
	ret->busy = b->busy;
	ret->home_error = b->failed ? b->failed : b->home_error;
	ret->failed = b->failed;
	if (!b->log)
		return;
	wlog_status(b->log, &ret->log);
	ret->dirty_sectors = dirty_sectors(b, &ret->log);
	if (b->acquired && ret->log.published_lsn > b->home_lsn)
		ret->oldest_dirty_ns =
			b->mark_lsn > b->home_lsn ? host_now_ns(b->host) - b->mark_ns + 1 : 1;
}

#define EXTENT_STEPS 1024 /* runs looked at in one call */

bool boost_dirty(struct boost *b, uint64_t lba, uint64_t *ret_lba, uint64_t *ret_sectors)
{
	struct wlog *log = b->log ? b->log : b->given_up;
	uint64_t at = lba, from = lba;
	int type = 0;

	while (log && at < b->home.sectors && !type) {
		from = at;
		at = wlog_extent(log, at, b->home.sectors, &type);
	}
	if (!type)
		return false;
	for (unsigned int i = 0; i < EXTENT_STEPS && at < b->home.sectors; i++) {
		const uint64_t to = wlog_extent(log, at, b->home.sectors, &type);

		if (!type)
			break;
		at = to;
	}
	*ret_lba = from;
	*ret_sectors = at - from;
	return true;
}

uint64_t boost_extent(struct boost *b, uint64_t lba, uint64_t end, bool *ret_data)
{
	uint64_t at = lba;

	/* Of the backing device nothing is known: what it holds is data. */
	*ret_data = true;
	if (!b->log)
		return end;
	for (unsigned int i = 0; i < EXTENT_STEPS && at < end; i++) {
		int type = 0;
		const uint64_t to = wlog_extent(b->log, at, end, &type);
		const bool data = type != WLOG_ZERO;

		if (at == lba)
			*ret_data = data;
		else if (data != *ret_data)
			break;
		at = to;
	}
	return at;
}
