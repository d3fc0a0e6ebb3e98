/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write log over a home in memory; see crash_on_log.h.
 *
 * A destage goes through these deferred steps, so that the power may go off between any two:
 *
 *   gather   pins a group of durable segments that ends with a whole write, loads what is not in
 *            memory
 *   apply    verifies it and copies it into the array, with its LSN: the home's atomic commit
 *   report   tells the log, unpins, and looks for more
 */
#include "lib/crash_on_log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"

#define GROUP_MAX 256
#define CRC_SECTORS 8u
#define ALIGN 4096u

struct member {
	struct wlog_seg *seg;
	struct wlog_seg_view view;
	uint8_t *buf; /* loaded, NULL if view.data is there */
	struct dev_req req;
	struct mem_home *home;
};

struct mem_home {
	struct wlog_home home;
	struct crash_session *s;
	struct wlog *log;
	struct work work;
	void (*next)(struct mem_home *h); /* what the work does */
	bool busy;      /* the work is deferred, or a group is under way */
	bool wanted, urgent;
	int error;      /* it takes nothing more */
	unsigned int loading, count;
	struct member group[GROUP_MAX];
	struct crash_wish *wishes[2];
	unsigned int reads;
};

struct late_read {
	struct work work;
	struct wlog_piece *piece;
	struct mem_home *home;
};

static void step_gather(struct mem_home *h);

static void defer_step(struct mem_home *h, void (*next)(struct mem_home *))
{
	h->busy = true;
	h->next = next;
	host_defer(&h->s->sh.host, &h->work);
}

static void run_step(struct work *work)
{
	struct mem_home *h = container_of(work, struct mem_home, work);

	h->next(h);
}

/* ---- reads -------------------------------------------------------------------------------- */

static void run_read(struct work *work)
{
	struct late_read *read = container_of(work, struct late_read, work);
	struct wlog_piece *piece = read->piece;

	read->home->reads--;
	free(read);
	wlog_piece_done(piece, 0);
}

static void home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	struct mem_home *h = container_of(home, struct mem_home, home);
	struct late_read *read = malloc(sizeof(*read));
	const uint8_t *image = h->s->u->memory.image;

	assert(read);
	memcpy(piece->buf, image + piece->lba * DEV_SECTOR_BYTES,
	       (size_t)piece->sectors * DEV_SECTOR_BYTES);
	*read = (struct late_read){.work.run = run_read, .piece = piece, .home = h};
	h->reads++;
	host_defer(&h->s->sh.host, &read->work);
}

/* ---- wishes ------------------------------------------------------------------------------- */

/* Not entered. */
static void fulfil_wishes(struct mem_home *h)
{
	/* LSNs are skipped: an LSN that the home has not reached may stand for nothing. */
	bool all = !wlog_next_durable(h->log, 0);
	struct wlog_status st;

	wlog_status(h->log, &st);
	for (int i = 0; i < 2; i++) {
		struct crash_wish *wish = h->wishes[i];

		if (!wish)
			continue;
		if (!h->error && st.destaged_lsn < wish->priv.u64[0] &&
		    !(all && st.durable_lsn >= wish->priv.u64[0]))
			continue;
		h->wishes[i] = NULL;
		wish->done(wish, h->error);
	}
}

static void want(struct mem_home *h, bool urgent)
{
	h->wanted = true;
	h->urgent |= urgent;
	if (!h->busy)
		defer_step(h, step_gather);
}

static void log_wish(struct crash_session *s, struct crash_wish *wish)
{
	struct mem_home *h = s->engine;
	struct wlog_status st;

	wlog_status(h->log, &st);
	wish->priv.u64[0] = wish->checkpoint ? 0 : st.published_lsn;
	h->wishes[h->wishes[0] ? 1 : 0] = wish;
	wlog_seal(h->log);
	want(h, true);
}

/* ---- destaging ---------------------------------------------------------------------------- */

/* Entered. */
static void drop_group(struct mem_home *h)
{
	for (unsigned int i = 0; i < h->count; i++) {
		wlog_seg_unpin(h->log, h->group[i].seg);
		free(h->group[i].buf);
	}
	h->count = 0;
}

static void apply_record(struct mem_home *h, const struct member *m, const struct wlog_rec *rec)
{
	uint8_t *to = h->s->u->memory.image + rec->lba * DEV_SECTOR_BYTES;
	const uint8_t *from = m->view.data;
	uint32_t crc_index = rec->first_crc;

	if (rec->type != WLOG_DATA) {
		memset(to, 0, (size_t)rec->sectors * DEV_SECTOR_BYTES);
		return;
	}
	from = (m->buf ? m->buf : from) + (size_t)rec->data_sector * DEV_SECTOR_BYTES;
	for (uint32_t at = 0; at < rec->sectors; at += CRC_SECTORS, crc_index++) {
		uint32_t n = rec->sectors - at < CRC_SECTORS ? rec->sectors - at : CRC_SECTORS;

		if (crc32c(0, from + (size_t)at * 512, (size_t)n * 512) !=
		    wlog_seg_crc(m->seg, crc_index)) {
			h->error = -EBADMSG;
			return;
		}
	}
	memcpy(to, from, (size_t)rec->sectors * DEV_SECTOR_BYTES);
}

static void verify_durable(const struct mem_home *h, const struct wlog_seg_view *view)
{
	if (view->last_lsn > wlog_durable_lsn(h->log))
		crash_fail("the home was given LSN %llu, but only %llu is durable",
			   (unsigned long long)view->last_lsn,
			   (unsigned long long)wlog_durable_lsn(h->log));
}

static void step_report(struct mem_home *h)
{
	host_enter(&h->s->sh.host);
	wlog_destaged(h->log, h->group[h->count - 1].view.number);
	drop_group(h);
	h->busy = false;
	want(h, h->urgent);
	host_leave(&h->s->sh.host);
	fulfil_wishes(h);
}

static void step_apply(struct mem_home *h)
{
	struct crash_memory *mem = &h->s->u->memory;

	/* A home without power writes nothing. */
	for (unsigned int i = 0; i < h->count && !h->error && !h->s->dead; i++) {
		const struct member *m = &h->group[i];

		verify_durable(h, &m->view);
		for (uint32_t r = 0; r < m->view.records && !h->error; r++) {
			struct wlog_rec rec;

			wlog_seg_rec(m->seg, r, &rec);
			if (!rec.skip && rec.lsn > mem->destaged_lsn)
				apply_record(h, m, &rec);
		}
	}
	if (h->error || h->s->dead) {
		h->error = h->error ? h->error : -ENODEV;
		host_enter(&h->s->sh.host);
		drop_group(h);
		h->busy = false;
		host_leave(&h->s->sh.host);
		fulfil_wishes(h);
		return;
	}
	mem->destaged_lsn = h->group[h->count - 1].view.last_lsn;
	defer_step(h, step_report);
}

static void load_done(struct dev_req *req)
{
	struct member *m = container_of(req, struct member, req);
	struct mem_home *h = m->home;

	if (req->result)
		h->error = req->result;
	if (--h->loading == 0)
		defer_step(h, step_apply);
}

/* Entered. Whether a group that ends with a whole write could be pinned. */
static bool pin_group(struct mem_home *h)
{
	uint64_t after = 0;
	unsigned int whole = 0;

	for (h->count = 0; h->count < GROUP_MAX; h->count++) {
		struct member *m = &h->group[h->count];

		m->seg = wlog_next_durable(h->log, after);
		if (!m->seg)
			break;
		wlog_seg_pin(h->log, m->seg);
		wlog_seg_view(m->seg, &m->view);
		m->buf = NULL;
		m->home = h;
		after = m->view.number;
		if (m->view.ends_whole)
			whole = h->count + 1;
		if (whole && rng_chance(&h->s->sh.rng, 1, 3)) {
			h->count++;
			break;
		}
	}
	while (h->count > whole)
		wlog_seg_unpin(h->log, h->group[--h->count].seg);
	return whole > 0;
}

static void step_gather(struct mem_home *h)
{
	bool lazy = h->s->u->cfg->lazy_home && !h->urgent && !h->wishes[0] && !h->wishes[1];

	host_enter(&h->s->sh.host);
	h->busy = false;
	if (!h->wanted || lazy || h->error || h->s->dead || !pin_group(h)) {
		h->wanted = false;
		h->urgent = false;
		host_leave(&h->s->sh.host);
		fulfil_wishes(h);
		return;
	}
	h->loading = 1;
	for (unsigned int i = 0; i < h->count; i++) {
		struct member *m = &h->group[i];

		if (m->view.data || !m->view.data_sectors)
			continue;
		m->buf = aligned_alloc(ALIGN, (m->view.data_sectors * 512u + ALIGN - 1) / ALIGN *
						      ALIGN);
		assert(m->buf);
		m->req.done = load_done;
		h->loading++;
		wlog_seg_load(h->log, m->seg, &m->req, m->buf);
	}
	h->busy = true;
	if (--h->loading == 0)
		defer_step(h, step_apply);
	host_leave(&h->s->sh.host);
}

static void home_destage(struct wlog_home *home, bool urgent)
{
	want(container_of(home, struct mem_home, home), urgent);
}

static const struct wlog_home_ops mem_home_ops = {
	.read = home_read,
	.destage = home_destage,
};

/* ---- the target --------------------------------------------------------------------------- */

static int log_create(struct crash_universe *u, struct err *err)
{
	struct wlog_format_options opt = {.random = rng_next(&u->world.rng)};
	struct dev *dev;
	int rc = sim_dev_open(u->disk, &dev);

	if (rc)
		return rc;
	opt.id.log_uuid = uuid_from_bits(1, rng_next(&u->world.rng));
	opt.id.volume_uuid = uuid_from_bits(2, 2);
	rc = wlog_format(dev, &opt, NULL, err);
	dev_close(dev);
	return rc;
}

static void set_options(const struct crash_config *cfg, struct wlog_options *opt)
{
	wlog_options_default(opt);
	opt->segment_bytes = cfg->segment_bytes;
	opt->buffers = cfg->buffers;
	opt->writes_in_flight = cfg->writes_in_flight;
	opt->barrier_deadline_us = cfg->barrier_deadline_us;
	opt->full_timeout_ns = cfg->full_timeout_ns;
}

static int log_open(struct crash_session *s, bool discard_cache, struct err *err)
{
	struct mem_home *h = calloc(1, sizeof(*h));
	struct wlog_options opt;
	int rc;

	(void)discard_cache;
	assert(h);
	set_options(s->u->cfg, &opt);
	h->home.ops = &mem_home_ops;
	h->home.sectors = s->u->cfg->sectors;
	h->s = s;
	h->work.run = run_step;
	rc = wlog_open(&s->sh.host, s->cache, &h->home, &opt, s->u->memory.destaged_lsn, &h->log,
		       err);
	if (rc) {
		free(h);
		return rc;
	}
	s->engine = h;
	s->sh.log = h->log;
	return 0;
}

static int log_acquire(struct crash_session *s, struct err *err)
{
	struct mem_home *h = s->engine;
	struct wlog_identity id = *wlog_identity(h->log);

	id.attach_epoch = ++s->u->memory.attach_epoch;
	return wlog_start(h->log, &id, s->u->memory.destaged_lsn, err);
}

static void log_tick(struct sim_host *sh)
{
	wlog_tick(sh->log);
}

static uint64_t log_destaged_lsn(struct crash_session *s)
{
	struct wlog_status st;

	wlog_status(s->sh.log, &st);
	return st.destaged_lsn;
}

static bool log_idle(struct crash_session *s)
{
	const struct mem_home *h = s->engine;

	return wlog_idle(h->log) && !h->busy && !h->reads;
}

static int log_release(struct crash_session *s, struct err *err)
{
	return wlog_stop(s->sh.log, err);
}

static void log_close(struct crash_session *s)
{
	struct mem_home *h = s->engine;

	wlog_close(h->log);
	free(h);
	s->engine = NULL;
	s->sh.log = NULL;
}

const struct crash_target crash_on_log = {
	.name = "log",
	.create = log_create,
	.open = log_open,
	.acquire = log_acquire,
	.tick = log_tick,
	.wish = log_wish,
	.destaged_lsn = log_destaged_lsn,
	.idle = log_idle,
	.release = log_release,
	.close = log_close,
};
