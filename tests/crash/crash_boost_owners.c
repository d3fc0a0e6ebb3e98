/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two openers of one cache and backing device on one machine (P7): while the first is at work,
 * others are refused the writer's right, with its cache or with one of their own. One of them looks
 * at the volume while the first goes on; the first then dies, or closes in order, and the other one
 * takes over from what it has seen, or is told to look again. Nothing that was durable is lost, and
 * nothing of the first appears later.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash_fault.h"
#include "lib/crash_on_boost.h"
#include "lib/tap.h"

static const struct crash_profile profile = {
	.target = &crash_on_boost, .ops = 60, .disk_kib = 80};

struct duel {
	struct fault_run r; /* r.s is the first, later the second */
	bool looking, inside;
	uint32_t eagerness; /* of the first, while the second looks */
};

static void on_event(struct sim_world *world, void *arg)
{
	struct duel *d = arg;

	(void)world;
	if (!d->looking || d->inside)
		return;
	d->inside = true;
	fault_work(&d->r, (uint32_t)rng_below(&d->r.rng, d->eagerness + 1));
	d->inside = false;
}

/* Whoever comes with this cache may look, but does not get the right to write. */
static void refuse(struct duel *d, struct sim_disk *cache)
{
	struct crash_session *s = session_new_on(&crash_on_boost, &d->r.u, rng_next(&d->r.rng), 0,
						 cache);
	struct err err = ERR_INIT;
	int rc = s->target->open(s, false, &err);

	/* A cache that is written to while it is looked at may look damaged; that is no harm. */
	if (rc == 0) {
		rc = s->target->acquire(s, &err);
		if (rc != -EBUSY)
			crash_fail("the second opener: %s", rc ? err_text(&err, rc) : "let in");
	}
	session_abandon(s);
}

static struct crash_session *look(struct duel *d)
{
	struct crash_session *s = session_new(&crash_on_boost, &d->r.u, rng_next(&d->r.rng));
	struct err err = ERR_INIT;

	d->looking = true;
	if (s->target->open(s, false, &err)) {
		d->looking = false;
		session_abandon(s);
		return NULL;
	}
	d->looking = false;
	return s;
}

/* The first has gone. */
static void take_over(struct duel *d, struct crash_session *second)
{
	struct fault_run *r = &d->r;
	struct err err = ERR_INIT;
	int rc = -EAGAIN;

	if (second) {
		rc = second->target->acquire(second, &err);
		second->acquired = !rc;
		r->s = second;
		if (rc)
			session_abandon(second);
	}
	if (rc == -EAGAIN)
		rc = fault_reopen(r, false, &err);
	if (rc)
		crash_fail("taking over: %s", err_text(&err, rc));
}

static void duel(uint64_t seed)
{
	struct duel *d = calloc(1, sizeof(*d));
	struct fault_run *r = &d->r;
	struct crash_session *second;
	struct sim_disk *other;
	struct err err = ERR_INIT;

	CHECK(d != NULL);
	fault_begin(r, &profile, "boost_second_opener", seed);
	r->u.tolerant = false;
	r->u.world.on_event = on_event;
	r->u.world.on_event_arg = d;
	d->eagerness = (uint32_t)rng_below(&r->rng, 100);
	CHECK_OK(sim_disk_new(&r->u.world,
			      &(struct sim_disk_options){.size_bytes = r->cfg.disk_bytes}, &other));
	CHECK_OK(crash_boost_format(&r->u, other, &err));
	fault_work(r, (uint32_t)rng_below(&r->rng, 400));
	refuse(d, r->u.disk);
	refuse(d, other);
	second = look(d);
	fault_work(r, (uint32_t)rng_below(&r->rng, 3) * 50);
	if (rng_chance(&r->rng, 1, 3))
		CHECK(session_close(r->s));
	else
		session_kill(r->s, SIM_KEEP_RANDOM(seed));
	r->s = NULL;
	take_over(d, second);
	fault_check_promises(r);
	fault_work(r, (uint32_t)rng_below(&r->rng, 300));
	fault_crash(r);
	fault_recover(r);
	fault_check_promises(r);
	sim_disk_free(other);
	fault_end(r);
	free(d);
}

TEST(boost_second_opener)
{
	uint64_t runs = crash_images(20000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		duel(crash_seed(i, &only));
}
