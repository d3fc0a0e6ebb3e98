/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log and object stream as a target; see crash_on_lsvd.h.
 */
#include "lib/crash_on_lsvd.h"

#include <errno.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

void crash_lsvd_options(const struct crash_config *cfg, struct lsvd_options *opt)
{
	lsvd_options_default(opt);
	opt->log.segment_bytes = cfg->segment_bytes;
	opt->log.buffers = cfg->buffers;
	opt->log.writes_in_flight = cfg->writes_in_flight;
	opt->log.barrier_deadline_us = cfg->barrier_deadline_us;
	opt->log.full_timeout_ns = cfg->full_timeout_ns;
	opt->batch_bytes = cfg->batch_bytes;
	opt->batch_age_ns = cfg->batch_age_ns;
	opt->puts_in_flight = cfg->puts_in_flight;
	opt->checkpoint_objects = cfg->checkpoint_objects;
	opt->checkpoint_part_bytes = cfg->part_bytes;
	opt->shard_sectors_log2 = cfg->shard_log2;
	opt->header_cache_bytes = cfg->header_cache_bytes;
	/* Eager: it is at work all the time, and deletes as soon as it may. */
	opt->gc_policy = cfg->buffers % 2 ? LSVD_GC_COST_BENEFIT : LSVD_GC_GREEDY;
	opt->gc_start_percent = 85;
	opt->gc_stop_percent = 95;
	opt->gc_min_age_ns = 0;
	if (cfg->home_timeout_ns)
		opt->home_timeout_ns = cfg->home_timeout_ns;
	opt->hold_destage = false;
}

static int lsvd_make(struct crash_universe *u, struct err *err)
{
	struct lsvd_create_options opt = {
		.uuid = uuid_from_bits(3, u->oracle->volume),
		.size_bytes = (u->cfg->lba_base + u->cfg->sectors) * DEV_SECTOR_BYTES,
		.wall_ns = 1,
	};
	struct wlog_format_options format = {.random = rng_next(&u->world.rng)};
	struct store *store;
	struct dev *dev;
	int rc = sim_store_open(u->bucket, 0, &store);

	if (rc)
		return rc;
	rc = lsvd_create(store, CRASH_VOLUME, &opt, err);
	store_close(store);
	if (rc)
		return rc;
	rc = sim_dev_open(u->disk, &dev);
	if (rc)
		return rc;
	format.id.log_uuid = uuid_from_bits(4, rng_next(&u->world.rng));
	rc = wlog_format(dev, &format, NULL, err);
	dev_close(dev);
	return rc;
}

static int lsvd_look(struct crash_session *s, bool discard_cache, struct err *err)
{
	struct lsvd_options opt;
	struct lsvd_cut cut;
	struct lsvd *l;
	int rc;

	crash_lsvd_options(s->u->cfg, &opt);
	rc = lsvd_open(&s->sh.host, s->sh.store, CRASH_VOLUME, s->cache, discard_cache, &opt, &l,
		       &cut, err);
	if (rc)
		return rc;
	s->engine = l;
	s->sh.log = lsvd_log(l);
	return 0;
}

/* What is known of each object's live sectors against a scan of the whole map. */
static void counts_right(struct crash_session *s, const char *when)
{
	if (!map_counts_right(s->engine))
		crash_fail("live counts are wrong %s", when);
}

static int lsvd_take(struct crash_session *s, struct err *err)
{
	int rc = lsvd_acquire(s->engine, err);

	s->sh.log = lsvd_log(s->engine);
	if (!rc)
		counts_right(s, "after recovery");
	return rc;
}

static void lsvd_timer(struct sim_host *sh)
{
	struct crash_session *s = sh->owner;

	lsvd_tick(s->engine);
}

static void wish_done(struct drain *drain, int error)
{
	struct crash_wish *wish = container_of((void *)drain, struct crash_wish, priv);

	wish->done(wish, error);
}

static void lsvd_wish(struct crash_session *s, struct crash_wish *wish)
{
	struct drain *drain = (struct drain *)(void *)&wish->priv;

	static_assert(sizeof(*drain) <= sizeof(wish->priv), "fits priv");
	drain->done = wish_done;
	if (wish->checkpoint)
		lsvd_checkpoint(s->engine, drain);
	else
		lsvd_drain(s->engine, drain);
}

static uint64_t lsvd_reached(struct crash_session *s)
{
	struct lsvd_status st;

	lsvd_status(s->engine, &st);
	return st.durable_lsn;
}

static bool lsvd_is_idle(struct crash_session *s)
{
	return lsvd_idle(s->engine) && (!s->sh.log || wlog_idle(s->sh.log));
}

static int lsvd_give_up(struct crash_session *s, struct err *err)
{
	counts_right(s, "before a release");
	return lsvd_release(s->engine, err);
}

static void lsvd_end(struct crash_session *s)
{
	lsvd_close(s->engine);
	s->engine = NULL;
	s->sh.log = NULL;
}

const struct crash_target crash_on_lsvd = {
	.name = "lsvd",
	.has_store = true,
	.create = lsvd_make,
	.open = lsvd_look,
	.acquire = lsvd_take,
	.tick = lsvd_timer,
	.wish = lsvd_wish,
	.destaged_lsn = lsvd_reached,
	.idle = lsvd_is_idle,
	.release = lsvd_give_up,
	.close = lsvd_end,
};
