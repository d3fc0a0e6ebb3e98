/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See btt_rig.h.
 *
 * Data structure. A struct history can be copied: each image goes on with its own. A struct rig is
 * one program: memory, pool, and actors that hand a baton to and fro with the scheduler.
 *
 * A block says of itself which write of which sector it is, in every word; so one that is torn, or
 * another sector's, is noticed. A zeroed sector may be any of several zeroings: the oldest that is
 * allowed is assumed, for what a reader was promised as for what a crash left.
 */
#include "lib/btt_rig.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "btt/btt_impl.h"
#include "lib/crash_report.h"
#include "lib/tap.h"
#include "pmem/shadow.h"

#define POOL_BYTES (9u * BTT_PAGE)
#define WORDS 8u
#define BLOCK_BYTES (8 * WORDS)
#define IDS_MAX 400u
#define SECTORS_MAX 8u
#define THREADS_MAX 6u
#define GENERATION_OPS 3u

enum kind {
	KIND_READ,
	KIND_WRITE,
	KIND_ZERO,
	KIND_ERROR
};

struct history {
	unsigned ids;
	enum kind kind[IDS_MAX];
	uint8_t sector[IDS_MAX];
	unsigned pos[IDS_MAX]; /* 0: has none */
	unsigned last[SECTORS_MAX], need[SECTORS_MAX];
};

enum actor_state {
	ACTOR_IDLE,
	ACTOR_PARKED,
	ACTOR_DEAD
};

struct actor {
	struct rig *rig;
	pthread_t thread;
	sem_t go;
	enum actor_state state;
	bool die;
	bool has_op;
	unsigned id;	/* of the operation */
	unsigned start; /* of a read: what was needed when it began */
	enum kind kind;
	unsigned sector;
};

struct rig {
	const struct btt_rig_profile *p;
	struct rng *rng;
	struct history h;
	struct pmem *pm;
	struct btt *btt;
	unsigned depth; /* 0: the program; else an image */
	uint64_t *images_left;
	sem_t back;
	struct actor actors[THREADS_MAX];
	struct actor *current; /* NULL: the scheduler itself */
	unsigned current_id;   /* of an operation that it makes itself */
	bool died;
	const char *where;
};

static void explore(struct rig *rig, unsigned max);

/* Histories */

static uint64_t word_of(unsigned id, unsigned sector, unsigned word)
{
	return ((uint64_t)id << 32 | sector << 8 | word | 1u << 31) * UINT64_C(0x9e3779b97f4a7c15);
}

static void make_block(uint64_t *block, unsigned id, unsigned sector)
{
	for (unsigned i = 0; i < WORDS; i++)
		block[i] = word_of(id, sector, i);
}

/* The oldest place from floor on that a zero or an error may stand for. */
static unsigned place_of_kind(const struct rig *rig, unsigned sector, enum kind kind,
			      unsigned floor)
{
	const struct history *h = &rig->h;
	unsigned best = UINT32_MAX;

	if (kind == KIND_ZERO && floor == 0)
		return 0;
	for (unsigned id = 1; id <= h->ids; id++)
		if (h->kind[id] == kind && h->sector[id] == sector && h->pos[id] &&
		    h->pos[id] >= floor && h->pos[id] < best)
			best = h->pos[id];
	if (best == UINT32_MAX)
		crash_fail("%s: sector %u: reads as %s, which is older than what was promised, "
			   "or never was",
			   rig->where, sector, kind == KIND_ZERO ? "zeros" : "an error");
	return best;
}

static unsigned place_of_data(const struct rig *rig, unsigned sector, const uint64_t *block,
			      unsigned floor)
{
	const struct history *h = &rig->h;

	for (unsigned id = 1; id <= h->ids; id++) {
		if (block[0] != word_of(id, sector, 0))
			continue;
		for (unsigned i = 1; i < WORDS; i++)
			if (block[i] != word_of(id, sector, i))
				crash_fail("%s: sector %u: write %u is torn at word %u", rig->where,
					   sector, id, i);
		if (!h->pos[id])
			crash_fail("%s: sector %u: write %u was lost, or not swapped in",
				   rig->where, sector, id);
		if (h->pos[id] < floor)
			crash_fail("%s: sector %u: write %u at place %u, and %u was promised",
				   rig->where, sector, id, h->pos[id], floor);
		return h->pos[id];
	}
	crash_fail("%s: sector %u: no write of it: 0x%llx", rig->where, sector,
		   (unsigned long long)block[0]);
}

static unsigned place_of_read(const struct rig *rig, unsigned sector, const uint64_t *block, int r,
			      unsigned floor)
{
	static const uint64_t zeros[WORDS];

	if (r == -EIO)
		return place_of_kind(rig, sector, KIND_ERROR, floor);
	if (r)
		crash_fail("%s: sector %u: %s", rig->where, sector, strerror(-r));
	if (!memcmp(block, zeros, sizeof(zeros)))
		return place_of_kind(rig, sector, KIND_ZERO, floor);
	return place_of_data(rig, sector, block, floor);
}

static void promise(struct history *h, unsigned sector, unsigned place)
{
	if (h->need[sector] < place)
		h->need[sector] = place;
}

/* What a recovery shows is promised from now on; what it does not show is lost for ever. */
static void judge(struct rig *rig)
{
	struct history *h = &rig->h;

	for (unsigned s = 0; s < rig->p->sectors; s++) {
		uint64_t block[WORDS];
		int r = btt_read(rig->btt, s, block);
		unsigned place = place_of_read(rig, s, block, r, h->need[s]);

		promise(h, s, place);
		h->last[s] = place;
		for (unsigned id = 1; id <= h->ids; id++)
			if (h->sector[id] == s && h->pos[id] > place)
				h->pos[id] = 0;
	}
}

/* Operations */

static int operate(struct rig *rig, enum kind kind, unsigned sector, unsigned id, unsigned start)
{
	uint64_t block[WORDS];
	int r;

	switch (kind) {
	case KIND_READ:
		r = btt_read(rig->btt, sector, block);
		promise(&rig->h, sector, place_of_read(rig, sector, block, r, start));
		return 0;
	case KIND_WRITE:
		make_block(block, id, sector);
		return btt_write(rig->btt, sector, block);
	case KIND_ZERO:
		return btt_set_zero(rig->btt, sector);
	case KIND_ERROR:
		return btt_set_error(rig->btt, sector);
	}
	return -EINVAL;
}

static unsigned new_id(struct history *h, enum kind kind, unsigned sector)
{
	const unsigned id = ++h->ids;

	h->kind[id] = kind;
	h->sector[id] = (uint8_t)sector;
	h->pos[id] = 0;
	return id;
}

static enum kind draw_kind(struct rig *rig)
{
	if (rng_chance(rig->rng, rig->p->read_percent, 100))
		return KIND_READ;
	if (rng_chance(rig->rng, rig->p->mark_percent, 100))
		return rng_chance(rig->rng, 1, 2) ? KIND_ZERO : KIND_ERROR;
	return KIND_WRITE;
}

static void finish(struct rig *rig, enum kind kind, unsigned sector, unsigned id, int r)
{
	if (r)
		crash_fail("operation on sector %u: %s", sector, strerror(-r));
	if (kind != KIND_READ)
		promise(&rig->h, sector, rig->h.pos[id]);
}

/* Named points */

static void hand_back(struct rig *rig, struct actor *a)
{
	sem_post(&rig->back);
	while (sem_wait(&a->go))
		;
	if (a->die)
		pthread_exit(NULL);
}

static void at_point(void *arg, const char *name)
{
	struct rig *rig = arg;
	struct actor *a = rig->current;
	unsigned id = a ? a->id : rig->current_id;

	rig->where = name;
	/* Nobody else has run since the swap: so this is its place. */
	if (!strcmp(name, "swapped") && id)
		rig->h.pos[id] = ++rig->h.last[rig->h.sector[id]];
	if (a) {
		crash_trace("actor %td: %s of sector %u, operation %u", a - rig->actors, name,
			    a->sector, a->id);
		a->state = ACTOR_PARKED;
		hand_back(rig, a);
	} else if (rig->depth && rng_chance(rig->rng, 1, 4)) {
		explore(rig, 2);
	}
}

/* Actors */

static void *actor_main(void *arg)
{
	struct actor *a = arg;

	while (sem_wait(&a->go))
		;
	while (!a->die) {
		int r = operate(a->rig, a->kind, a->sector, a->id, a->start);

		finish(a->rig, a->kind, a->sector, a->id, r);
		crash_trace("actor %td: done", a - a->rig->actors);
		a->has_op = false;
		a->id = 0;
		a->state = ACTOR_IDLE;
		hand_back(a->rig, a);
	}
	return NULL;
}

static void actor_start(struct rig *rig, struct actor *a)
{
	memset(a, 0, sizeof(*a));
	a->rig = rig;
	sem_init(&a->go, 0, 0);
	CHECK_EQ(pthread_create(&a->thread, NULL, actor_main, a), 0);
}

static void actor_end(struct actor *a)
{
	a->die = true;
	sem_post(&a->go);
	CHECK_EQ(pthread_join(a->thread, NULL), 0);
	sem_destroy(&a->go);
}

/* Lets one actor go on to its next point, or the end of its operation. */
static void step(struct rig *rig, struct actor *a)
{
	struct history *h = &rig->h;

	if (!a->has_op) {
		a->kind = draw_kind(rig);
		a->sector = (unsigned)rng_below(rig->rng, rig->p->sectors);
		a->id = a->kind == KIND_READ ? 0 : new_id(h, a->kind, a->sector);
		a->start = h->need[a->sector];
		a->has_op = true;
	}
	rig->current = a;
	sem_post(&a->go);
	while (sem_wait(&rig->back))
		;
	rig->current = NULL;
}

/* Images */

static int open_pool(struct rig *rig)
{
	struct err err = ERR_INIT;
	int r = btt_open(rig->pm, NULL, &rig->btt, &err);

	if (r)
		crash_fail("%s: open: %s", rig->where, err_text(&err, r));
	rig->btt->tries = !rig->p->protect;
	rig->btt->nslots = 1;
	rig->btt->point = at_point;
	rig->btt->point_arg = rig;
	return 0;
}

static void at_fence(struct pmem *pm, enum pm_shadow_point point, void *arg)
{
	struct rig *rig = arg;

	(void)pm;
	(void)point;
	/* Threads are looked at at their points; these are the fences without one. */
	if (rig->btt && !rig->current && rng_chance(rig->rng, 1, rig->depth ? 4 : 1))
		explore(rig, rig->depth ? 2 : rig->p->images);
}

static void check_whole(struct rig *rig)
{
	uint64_t seen = 0;

	CHECK(rig->btt->g.blocks <= 64);
	for (uint64_t lba = 0; lba < rig->btt->g.nblock; lba++) {
		uint64_t entry = btt_load_entry(rig->btt, lba);

		if (!btt_valid(rig->btt, entry, lba))
			crash_fail("%s: the entry of sector %u is damaged", rig->where,
				   (unsigned)lba);
		if (seen >> entry_block(entry) & 1)
			crash_fail("%s: a block has two sectors", rig->where);
		seen |= UINT64_C(1) << entry_block(entry);
	}
	for (unsigned i = 0; i < rig->btt->nlanes; i++)
		if (rig->btt->lanes[i].spare != BTT_NONE && seen >> rig->btt->lanes[i].spare & 1)
			crash_fail("%s: a sector's block is spare", rig->where);
}

static void one_op(struct rig *rig)
{
	const enum kind kind = draw_kind(rig);
	const unsigned sector = (unsigned)rng_below(rig->rng, rig->p->sectors);

	rig->current_id = kind == KIND_READ ? 0 : new_id(&rig->h, kind, sector);
	finish(rig, kind, sector, rig->current_id,
	       operate(rig, kind, sector, rig->current_id, rig->h.need[sector]));
	rig->current_id = 0;
}

/* One crash: recover, judge, go on, and end in one of the ways that there are. */
static int look(void *arg, const uint8_t *image, uint64_t n)
{
	const struct rig *from = arg;
	struct rig *rig = calloc(1, sizeof(*rig));
	const struct pm_shadow_options opt = {
		.len_bytes = POOL_BYTES,
		.image = image,
		.on_point = from->depth + 1 < from->p->generations ? at_fence : NULL,
		.arg = rig,
	};

	(void)n;
	CHECK(rig);
	*rig = (struct rig){.p = from->p,
			    .rng = from->rng,
			    .h = from->h,
			    .depth = from->depth + 1,
			    .images_left = from->images_left,
			    .where = from->where};
	if (*rig->images_left)
		--*rig->images_left;
	CHECK_OK(pm_shadow_open(&opt, &rig->pm));
	open_pool(rig);
	check_whole(rig);
	judge(rig);
	if (rig->depth < rig->p->generations)
		for (unsigned i = 0; i < GENERATION_OPS; i++)
			one_op(rig);
	if (rig->p->close && rng_chance(rig->rng, 1, 2)) {
		CHECK_OK(btt_close(rig->btt));
		open_pool(rig);
		check_whole(rig);
		judge(rig);
	}
	btt_abandon(rig->btt);
	pm_close(rig->pm);
	free(rig);
	return 0;
}

static void explore(struct rig *rig, unsigned max)
{
	const struct pm_shadow_plan plan = {.max = max, .seed = rng_next(rig->rng)};

	if (rig->depth >= rig->p->generations || !*rig->images_left)
		return;
	crash_trace_image(true);
	CHECK_OK(pm_shadow_images(rig->pm, &plan, look, rig, NULL, NULL));
	if (!rig->depth)
		crash_trace_image(false);
}

/* Programs */

static void limit_lanes(struct rig *rig)
{
	const unsigned lanes = rig->p->lanes ? rig->p->lanes : rig->p->threads;

	/* Fewer, so that lanes are wanted; then a list cannot be saved, as spares are missing. */
	if (!rig->p->close && lanes < rig->btt->nlanes)
		rig->btt->nlanes = lanes;
}

static void kill_process(struct rig *rig)
{
	crash_trace("the process dies");
	for (unsigned i = 0; i < rig->p->threads; i++)
		actor_end(&rig->actors[i]);
	btt_abandon(rig->btt);
	rig->where = "after a kill";
	open_pool(rig);
	limit_lanes(rig);
	check_whole(rig);
	judge(rig);
	explore(rig, rig->p->images);
	for (unsigned i = 0; i < rig->p->threads; i++)
		actor_start(rig, &rig->actors[i]);
}

static void close_in_order(struct rig *rig)
{
	bool idle = true;

	for (unsigned i = 0; i < rig->p->threads; i++)
		idle = idle && !rig->actors[i].has_op;
	if (!idle)
		return;
	crash_trace("closed and opened");
	CHECK_OK(btt_close(rig->btt));
	open_pool(rig);
	check_whole(rig);
	judge(rig);
}

static void thread_dies(struct rig *rig, struct actor *a)
{
	if (rig->died || !a->has_op)
		return;
	crash_trace("actor %td dies", a - rig->actors);
	rig->died = true;
	actor_end(a);
	actor_start(rig, a);
}

static void create(struct rig *rig)
{
	const struct pm_shadow_options opt = {
		.len_bytes = POOL_BYTES, .on_point = at_fence, .arg = rig};
	struct btt_options options = {
		.block_bytes = BLOCK_BYTES,
		.spares = 10,
		.uuid = uuid_from_bits(rng_next(rig->rng), 1),
	};
	struct btt *btt;

	CHECK_OK(pm_shadow_open(&opt, &rig->pm));
	CHECK_OK(btt_create(rig->pm, &options, &btt, NULL));
	CHECK_OK(btt_close(btt));
	open_pool(rig);
	limit_lanes(rig);
}

static void run_steps(struct rig *rig)
{
	/* From "anybody at each point" to "one goes on for long while the others stand". */
	static const unsigned stay_percents[] = {0, 50, 80, 95};
	const unsigned stay_percent = stay_percents[rng_below(rig->rng, 4)];
	struct actor *a = &rig->actors[0];

	while (rig->h.ids < rig->p->ops && *rig->images_left) {
		if (!rng_chance(rig->rng, stay_percent, 100))
			a = &rig->actors[rng_below(rig->rng, rig->p->threads)];
		step(rig, a);
		if (rng_chance(rig->rng, rig->p->image_percent, 100))
			explore(rig, rig->p->images);
		if (rng_chance(rig->rng, rig->p->die_percent, 100))
			thread_dies(rig, a);
		if (rng_chance(rig->rng, rig->p->kill_percent, 100))
			kill_process(rig);
		if (rig->p->close)
			close_in_order(rig);
	}
}

static void run_program(const struct btt_rig_profile *p, uint64_t seed, uint64_t *images_left)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct rng rng;

	CHECK(rig);
	CHECK(p->threads <= THREADS_MAX && p->sectors <= SECTORS_MAX);
	CHECK(p->ops + p->threads + GENERATION_OPS * p->generations < IDS_MAX);
	crash_begin(p->test, seed);
	rng_seed(&rng, seed);
	*rig = (struct rig){.p = p, .rng = &rng, .images_left = images_left, .where = "at first"};
	sem_init(&rig->back, 0, 0);
	create(rig);
	for (unsigned i = 0; i < p->threads; i++)
		actor_start(rig, &rig->actors[i]);
	run_steps(rig);
	for (unsigned i = 0; i < p->threads; i++)
		actor_end(&rig->actors[i]);
	btt_abandon(rig->btt);
	pm_close(rig->pm);
	sem_destroy(&rig->back);
	free(rig);
}

void btt_rig_run(const struct btt_rig_profile *profile)
{
	uint64_t left = crash_images(profile->share_ppm), programs = 0;
	bool only = false;

	while (left && !only)
		run_program(profile, crash_seed(programs++, &only), &left);
}
