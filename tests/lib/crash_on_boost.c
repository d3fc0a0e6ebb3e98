/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log and in-place home as a target; see crash_on_boost.h.
 *
 * A moody configuration opens with allow_migrate on or off as it falls, and turns the tunables
 * whenever the program asks for a checkpoint, of which this home has none. Some of these hold
 * writeback until what they ask for is home: for longer would be the end of a full log.
 */
#include "lib/crash_on_boost.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void crash_boost_options(const struct crash_config *cfg, struct boost_options *opt)
{
	boost_options_default(opt);
	opt->log.segment_bytes = cfg->segment_bytes;
	opt->log.buffers = cfg->buffers;
	opt->log.writes_in_flight = cfg->writes_in_flight;
	opt->log.barrier_deadline_us = cfg->barrier_deadline_us;
	opt->log.full_timeout_ns = cfg->full_timeout_ns;
	if (cfg->batch_segments)
		opt->nr_max_batched_migration = cfg->batch_segments;
	opt->allow_migrate = !cfg->lazy_home;
	opt->writes_in_flight = cfg->puts_in_flight;
	opt->batch_age_ns = cfg->batch_age_ns;
	if (cfg->home_timeout_ns)
		opt->home_timeout_ns = cfg->home_timeout_ns;
}

struct uuid crash_boost_uuid(const struct crash_universe *u)
{
	return uuid_from_bits(5, u->oracle->volume);
}

/* What a file system would have left there: writes of all sizes, and gaps of zeros. */
static void adopt(struct crash_universe *u)
{
	uint32_t block = u->cfg->block_bytes > 512 ? u->cfg->block_bytes / DEV_SECTOR_BYTES : 1;
	struct oracle *o = u->oracle;
	uint64_t ids[ORACLE_SECTORS_MAX] = {0};
	uint8_t *buf = malloc((size_t)o->sectors * DEV_SECTOR_BYTES);
	uint32_t lba = 0;

	assert(buf);
	while (lba < o->sectors) {
		uint32_t n = (1 + (uint32_t)sim_world_below(&u->world, 20)) * block;
		uint64_t id;

		if (n > o->sectors - lba)
			n = o->sectors - lba;
		if (sim_world_below(&u->world, 3)) {
			id = oracle_write(o, ORACLE_DATA, lba, n);
			oracle_stamp(o, id, lba, buf, n);
			sim_disk_poke(u->backing, (u->cfg->lba_base + lba) * DEV_SECTOR_BYTES, buf,
				      (size_t)n * DEV_SECTOR_BYTES);
			for (uint32_t i = 0; i < n; i++)
				ids[lba + i] = id;
		}
		lba += n;
	}
	oracle_rebase(o, ids);
	free(buf);
}

int crash_boost_format(struct crash_universe *u, struct sim_disk *disk, struct err *err)
{
	struct wlog_format_options opt = {.random = rng_next(&u->world.rng)};
	struct dev *dev;
	int rc = sim_dev_open(disk, &dev);

	if (rc)
		return rc;
	opt.id.log_uuid = uuid_from_bits(6, rng_next(&u->world.rng));
	rc = wlog_format(dev, &opt, NULL, err);
	dev_close(dev);
	return rc;
}

static int boost_make(struct crash_universe *u, struct err *err)
{
	if (u->cfg->adopt)
		adopt(u);
	return crash_boost_format(u, u->disk, err);
}

static int boost_look(struct crash_session *s, bool discard_cache, struct err *err)
{
	struct boost_options opt;
	struct boost_cut cut;
	struct boost *b;
	int rc;

	crash_boost_options(s->u->cfg, &opt);
	opt.volume_uuid = crash_boost_uuid(s->u);
	if (s->u->cfg->moody)
		opt.allow_migrate = rng_chance(&s->sh.rng, 1, 2);
	rc = boost_open(&s->sh.host, s->backing, s->cache, discard_cache, &opt, &b, &cut, err);
	if (rc)
		return rc;
	s->engine = b;
	s->sh.log = boost_log(b);
	return 0;
}

static int boost_take(struct crash_session *s, struct err *err)
{
	int rc = boost_acquire(s->engine, err);

	s->sh.log = boost_log(s->engine);
	return rc;
}

static void boost_timer(struct sim_host *sh)
{
	struct crash_session *s = sh->owner;

	boost_tick(s->engine);
}

static void wish_done(struct drain *drain, int error)
{
	struct crash_wish *wish = container_of((void *)drain, struct crash_wish, priv);
	struct crash_session *s = wish->session;

	if (wish->checkpoint) {
		host_enter(&s->sh.host);
		boost_set_hold(s->engine, false);
		host_leave(&s->sh.host);
	}
	wish->done(wish, error);
}

/* Entered. */
static void change_mood(struct crash_session *s)
{
	struct rng *rng = &s->sh.rng;

	boost_set_allow_migrate(s->engine, rng_chance(rng, 1, 2));
	boost_set_batch(s->engine, (uint32_t)rng_between(rng, 1, 40));
	boost_set_hold(s->engine, rng_chance(rng, 1, 4));
	if (rng_chance(rng, 1, 4))
		boost_clear_stat(s->engine);
}

static void boost_wish(struct crash_session *s, struct crash_wish *wish)
{
	struct drain *drain = (struct drain *)(void *)&wish->priv;

	static_assert(sizeof(*drain) <= sizeof(wish->priv), "fits priv");
	drain->done = wish_done;
	if (wish->checkpoint && s->u->cfg->moody)
		change_mood(s);
	boost_drain(s->engine, drain);
}

/* What the home refused counts as home with its segment, and is at the head of the log. */
static void note_refused(struct crash_session *s, const struct boost_status *st)
{
	if (st->log.relogged_bytes)
		s->u->home_unknown = true;
}

static uint64_t boost_reached(struct crash_session *s)
{
	struct boost_status st;

	boost_status(s->engine, &st);
	note_refused(s, &st);
	return st.log.destaged_lsn;
}

static bool boost_is_idle(struct crash_session *s)
{
	struct boost_status st;

	/* Asked for at least once before the engine is gone. */
	boost_status(s->engine, &st);
	note_refused(s, &st);
	return boost_idle(s->engine) && (!s->sh.log || wlog_idle(s->sh.log));
}

static int boost_give_up(struct crash_session *s, struct err *err)
{
	return boost_release(s->engine, err);
}

static void boost_end_work(struct crash_session *s)
{
	host_enter(&s->sh.host);
	boost_stop(s->engine);
	host_leave(&s->sh.host);
}

static void boost_end(struct crash_session *s)
{
	boost_close(s->engine);
	s->engine = NULL;
	s->sh.log = NULL;
}

const struct crash_target crash_on_boost = {
	.name = "boost",
	.has_backing = true,
	.create = boost_make,
	.open = boost_look,
	.acquire = boost_take,
	.tick = boost_timer,
	.wish = boost_wish,
	.destaged_lsn = boost_reached,
	.idle = boost_is_idle,
	.stop = boost_end_work,
	.release = boost_give_up,
	.close = boost_end,
};
