/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection: what is live in objects that are mostly dead moves into new ones.
 *
 * A round makes one object. It is one machine, in deferred work and in completions:
 *
 *   gc_pick     entered: the victims, by policy, until their live data fills an object
 *   GC_PLAN     which ranges of LBAs are live in them                   gcplan.c
 *   GC_MERGE    neighbours among these become one, small holes are filled
 *   GC_READ     several reads at once, through read.c: verified, and with the places that the map
 *               named at that moment
 *   GC_BUILD    gcbuild.c, not entered
 *   GC_PUT      it gets the next number and is put and installed as a batch is (destage.c)
 *
 * Victims are objects that a durable checkpoint covers, so that deleting them never makes a hole in
 * what has to be rolled forward. What has been moved is colder than what is written, and stays
 * apart from it: in objects of its own.
 *
 * Rounds begin when less than gc_start percent of all data in objects is live, and go on until
 * gc_stop percent are. Objects without anything live count as gone: they only wait (doom.c).
 *
 * Invariants:
 *   1. moving changes nothing that can be read. A move is installed only where the map still names
 *      the place that the data was read from, in the order of numbers, now and when rolling
 *      forward; a place never holds other data. With a move or without it a sector reads the same;
 *   2. so a round can be given up at any moment, and an object that was never put can be skipped;
 *   3. one round at a time, and of bounded memory: the live data of one object and a quarter for
 *      holes;
 *   4. the log is not needed: a full log does not stop it, nor does it fill one (L9). Neither does
 *      a full map: a move that finds no room in the map is left out;
 *   5. what cannot be read stays where it is. After a few such rounds its object is left alone.
 *
 * Durable when: as batches are. What has been moved is deleted by doom.c and by nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

#define READ_SECTORS 4096u
#define FORCED_CHECKPOINTS 3
#define FORCED_TRIES 5 /* rounds that fail in a row before whoever waits is told */

static void gc_run(struct work *work);

/* ---- the machine */

void gc_defer(struct lsvd *l)
{
	/* One at a time: it works on the round's memory without being entered. */
	if (l->gc.work_queued) {
		l->gc.again = true;
		return;
	}
	l->gc.work_queued = true;
	l->gc.again = false;
	l->gc_work.run = gc_run;
	l->busy++;
	host_defer(l->host, &l->gc_work);
}

static void gc_timer(struct timer *timer)
{
	struct lsvd *l = container_of(timer, struct lsvd, gc_timer);

	l->gc.timer_set = false;
	gc_kick(l);
}

/* The round's memory. The batch owns buf once it has it. */
static void gc_clear(struct gc *g)
{
	free(g->range);
	free(g->piece);
	free(g->buf);
	g->range = NULL;
	g->piece = NULL;
	g->buf = NULL;
	g->ranges = g->ranges_cap = g->pieces = g->pieces_cap = 0;
	g->at_victim = g->at_ext = g->victims = g->generation = 0;
	g->at_range = g->merged = 0;
	g->sectors = g->filled = g->buf_at = g->range_off = 0;
	g->failed = false;
	g->clock = 0;
	g->phase = GC_IDLE;
}

static void gc_end(struct lsvd *l)
{
	gc_clear(&l->gc);
	ckpt_kick(l);
	gc_kick(l);
	doom_kick(l);
}

/* The round is over without an object; the next one waits a while. */
static void gc_give_up(struct lsvd *l, int error)
{
	struct gc *g = &l->gc;

	for (uint32_t i = 0; error == -EIO && i < g->victims; i++) {
		struct ckpt_obj *o = objtab_find(&l->objs, g->victim[i]);

		if (o)
			o->gc_failures++;
	}
	l->st.gc_failures++;
	g->timer_set = true;
	l->gc_timer.fn = gc_timer;
	retry_set(l, &l->gc_timer, ++g->tries);
	if (g->tries >= FORCED_TRIES && g->forced) {
		g->forced = false;
		drains_beyond(&g->waiters, 0, error);
	}
	gc_end(l);
}

/* ---- reading */

void gc_read_piece(struct gc_read *r, const struct extent *e)
{
	struct gc *g = &r->l->gc;

	if (e->value & EXTMAP_CONST) /* a hole by now */
		return;
	if (g->pieces == g->pieces_cap) {
		const size_t cap = g->pieces_cap ? g->pieces_cap * 2 : 256;
		struct gc_piece *p = realloc(g->piece, cap * sizeof(*p));

		if (!p) {
			r->error = -ENOMEM;
			return;
		}
		g->piece = p;
		g->pieces_cap = cap;
	}
	g->piece[g->pieces++] = (struct gc_piece){
		.lba = e->lba,
		.place = e->value,
		.sectors = (uint32_t)e->sectors,
		.at = r->at + (e->lba - r->lba),
	};
}

/* What could not be read, or not noted, does not move. */
static void gc_unread(struct gc *g, const struct gc_read *r)
{
	size_t kept = 0;

	for (size_t i = 0; i < g->pieces; i++) {
		if (g->piece[i].at < r->at || g->piece[i].at >= r->at + r->sectors)
			g->piece[kept++] = g->piece[i];
	}
	g->pieces = kept;
	g->failed = true;
}

void gc_read_done(struct gc_read *r, int error)
{
	struct lsvd *l = r->l;

	r->busy = false;
	l->gc.reads--;
	if (error || r->error)
		gc_unread(&l->gc, r);
	gc_defer(l);
}

static struct gc_read *gc_read_free(struct gc *g)
{
	for (unsigned i = 0; i < GC_READS; i++) {
		if (!g->read[i].busy)
			return &g->read[i];
	}
	return NULL;
}

/* Keeps reads in flight; 1: wait; 0: all has been read. Entered. */
static int gc_read(struct lsvd *l)
{
	struct gc *g = &l->gc;

	while (g->at_range < g->merged) {
		const struct gc_range *range = &g->range[g->at_range];
		struct gc_read *r = gc_read_free(g);
		const uint64_t left = range->sectors - g->range_off;

		if (!r)
			return 1;
		r->l = l;
		r->lba = range->lba + g->range_off;
		r->sectors = left < READ_SECTORS ? (uint32_t)left : READ_SECTORS;
		r->at = g->buf_at;
		r->error = 0;
		/* Others' reads are first; when one is through gc_kick() comes. */
		if (gc_read_start(r, g->buf + r->at * LSVD_SECTOR_BYTES))
			return 1;
		r->busy = true;
		g->reads++;
		g->buf_at += r->sectors;
		g->range_off += r->sectors;
		if (g->range_off == range->sectors) {
			g->range_off = 0;
			g->at_range++;
		}
	}
	if (g->reads)
		return 1;
	g->phase = GC_BUILD;
	return 0;
}

/* ---- building and putting */

static int piece_cmp(const void *a, const void *b)
{
	const struct gc_piece *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static int gc_new_batch(struct lsvd *l)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->l = l;
	b->gc = true;
	b->epoch = l->sb.attach_epoch;
	b->volume_uuid = l->sb.uuid;
	b->wall_ns = host_wall_ns(l->host);
	l->gc.batch = b;
	return 0;
}

/* The object is built: it takes its place in the stream, and its turn. Entered. */
static void gc_submit(struct lsvd *l)
{
	struct gc *g = &l->gc;
	struct batch *b = g->batch;

	b->gc_buf = g->buf;
	g->buf = NULL;
	g->phase = GC_PUT;
	g->tries = 0;
	b->seq = l->next_seq++;
	b->prev_seq = l->data_seq;
	b->first_lsn = l->closed_lsn + 1; /* what has to be in the store before it */
	gc_number(b);
	list_add_tail(&b->link, &l->batches);
	l->st.gc_rounds++;
	l->st.gc_moved_bytes += (uint64_t)b->data_sectors * LSVD_SECTOR_BYTES;
	l->st.gc_filled_bytes += g->filled * LSVD_SECTOR_BYTES;
	for (uint32_t i = 0; g->failed && i < g->victims; i++) {
		struct ckpt_obj *o = objtab_find(&l->objs, g->victim[i]);

		if (o)
			o->gc_failures++;
	}
	if (l->opt.gc_rate)
		g->next_ns = host_now_ns(l->host) +
			     (uint64_t)((double)b->data_sectors * LSVD_SECTOR_BYTES * 1e9 /
					(double)l->opt.gc_rate);
	g->batch = NULL;
	destage_submit(b);
}

/* Not entered, alone with the round's memory. */
static int gc_build_run(struct lsvd *l)
{
	struct gc *g = &l->gc;

	if (!g->pieces)
		return g->failed ? -EIO : -ESRCH;
	qsort(g->piece, g->pieces, sizeof(*g->piece), piece_cmp);
	return gc_build(g, g->batch);
}

void gc_installed(struct lsvd *l)
{
	if (l->gc.phase == GC_PUT)
		gc_end(l);
}

/* One step; 0: another one, 1: something else has to happen first, -errno. */
static int gc_step(struct lsvd *l)
{
	struct gc *g = &l->gc;
	int r = 0;

	host_enter(l->host);
	if (l->stopping || l->failed)
		r = 1;
	else if (g->phase == GC_PLAN)
		r = gc_plan(l);
	else if (g->phase == GC_MERGE)
		r = gc_merge(l);
	else if (g->phase == GC_READ)
		r = gc_read(l);
	if (!r && g->phase == GC_BUILD)
		r = gc_new_batch(l);
	host_leave(l->host);
	if (!r && g->phase == GC_MERGE && !g->at_range && g->ranges)
		gc_sort(g);
	if (!r && g->phase == GC_BUILD)
		r = gc_build_run(l);
	return r;
}

static void gc_run(struct work *work)
{
	struct lsvd *l = container_of(work, struct lsvd, gc_work);
	struct gc *g = &l->gc;
	int r;

	r = gc_step(l);
	host_enter(l->host);
	g->work_queued = false;
	if (l->stopping || l->failed || g->phase == GC_IDLE || g->phase == GC_PUT) {
		/* Its end, or a completion that came late. */
	} else if (r < 0) {
		if (g->batch)
			batch_free(g->batch);
		g->batch = NULL;
		gc_drop_header(l);
		gc_give_up(l, r);
	} else if (g->phase == GC_BUILD) {
		gc_submit(l);
	} else if (!r || g->again) {
		gc_defer(l);
	}
	lsvd_exit(l);
}

/* ---- when */

bool gc_busy(const struct lsvd *l)
{
	return l->gc.phase != GC_IDLE || l->gc.forced || l->dooms.proof;
}

bool gc_resting(const struct lsvd *l)
{
	return l->gc.paused && !l->gc.forced;
}

void gc_pause(struct lsvd *l)
{
	l->gc.paused = true;
}

void gc_resume(struct lsvd *l)
{
	l->gc.paused = false;
}

/* Somebody waits, and there is nothing more to move: what is dead has to go. */
static void gc_settle(struct lsvd *l)
{
	struct gc *g = &l->gc;
	bool dead = doom_waiting(l) > 0;

	for (size_t i = 0; !dead && i < l->objs.n && l->objs.o[i].seq <= l->installed_seq; i++)
		dead = !l->objs.o[i].live_sectors;
	if (dead && g->checkpoints) {
		if (!l->ckpt_active) {
			g->checkpoints--;
			l->ckpt_forced = true;
			ckpt_kick(l);
		}
		return;
	}
	doom_kick(l);
	if (l->dooms.proof || l->trash_busy || l->ckpt_active)
		return;
	g->forced = false;
	drains_reached(&g->waiters, UINT64_MAX);
	ckpt_kick(l);
}

/* What is not covered by a checkpoint yet cannot be moved; whoever asks now wants it to be. */
static bool gc_covered(struct lsvd *l)
{
	const struct root_ref *root = &l->sb.roots[l->good_root];

	if (root->no && root->covered_seq >= l->installed_data_seq &&
	    l->sb.incompat & LSVD_INCOMPAT_GC)
		return true;
	if (!l->ckpt_active && l->gc.checkpoints) {
		l->gc.checkpoints--;
		l->ckpt_forced = true;
		ckpt_kick(l);
		return false;
	}
	return !l->ckpt_active;
}

void gc_kick(struct lsvd *l)
{
	struct gc *g = &l->gc;

	if (!l->acquired || l->stopping || l->failed || gc_resting(l))
		return;
	/* Whoever waited has given up. */
	if (list_empty(&g->waiters.waiting))
		g->forced = false;
	if (g->phase == GC_READ)
		gc_defer(l);
	if (g->phase != GC_IDLE || g->timer_set)
		return;
	if (g->forced && !gc_covered(l))
		return;
	if (l->opt.gc_rate && host_now_ns(l->host) < g->next_ns)
		return;
	if (l->sb.incompat & LSVD_INCOMPAT_GC && gc_wanted(l) && gc_pick(l)) {
		g->phase = GC_PLAN;
		g->clock = ++l->rd_clock;
		gc_defer(l);
	} else if (g->forced) {
		gc_settle(l);
	}
}

void lsvd_gc(struct lsvd *l, struct drain *d)
{
	struct gc *g = &l->gc;

	d->lsn = 1;
	d->deadline_ns = host_now_ns(l->host) + l->opt.home_timeout_ns;
	if (!l->acquired || l->stopping || l->failed) {
		drains_finish(&g->waiters, d,
			      l->failed ? l->failed : l->stopping ? -ECANCELED : -EPERM);
		return;
	}
	drains_add(&g->waiters, d);
	gc_resume(l);
	g->forced = true;
	g->checkpoints = FORCED_CHECKPOINTS;
	gc_kick(l);
}

void gc_free(struct lsvd *l)
{
	struct gc *g = &l->gc;

	if (g->batch)
		batch_free(g->batch);
	g->batch = NULL;
	gc_clear(g);
	free(l->dooms.d);
	l->dooms = (struct dooms){0};
}
