/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two owners of one volume, on two machines (P7): while the first is at work the second attaches
 * without its cache, and at every persistence point inside the attach the first goes on for a few
 * steps. Whatever the first has said to be destaged, before, during or after, is in the image that
 * the second goes on from; nothing of the first appears in it later; and the first notices.
 *
 * Then the first dies, with puts in flight that land late, the second writes, and a third machine
 * opens what is left when the second is lost as well: a prefix of the second's history.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash.h"
#include "lib/crash_on_lsvd.h"
#include "lib/tap.h"

static const struct crash_profile profile = {
	.test = "second_owner", .target = &crash_on_lsvd, .ops = 60};

struct duel {
	struct crash_universe u;
	struct crash_config cfg;
	struct oracle *oracle;
	struct rng rng;
	struct crash_session *first;
	bool attaching, inside;
	uint32_t eagerness; /* of the first, while the second attaches */
};

static void work(struct duel *d, struct crash_session *s, uint32_t steps)
{
	for (uint32_t i = 0; i < steps; i++) {
		struct crash_op op;

		crash_op_random(&op, &d->cfg, &d->rng);
		if (rng_chance(&d->rng, 1, 12))
			op.kind = CRASH_DRAIN;
		if (rng_chance(&d->rng, 1, 4) && op.kind != CRASH_READ && session_can(s, &op))
			session_submit(s, &op);
		else
			session_step(s);
	}
}

static void on_event(struct sim_world *world, void *arg)
{
	struct duel *d = arg;

	(void)world;
	if (!d->attaching || d->inside)
		return;
	d->inside = true;
	work(d, d->first, (uint32_t)rng_below(&d->rng, d->eagerness + 1));
	d->inside = false;
}

static struct sim_disk *new_disk(struct duel *d)
{
	struct sim_disk *disk;

	CHECK_OK(sim_disk_new(&d->u.world,
			      &(struct sim_disk_options){.size_bytes = d->cfg.disk_bytes}, &disk));
	return disk;
}

/* Attaches without the cache of whoever was the owner before. */
static struct crash_session *attach(struct duel *d, unsigned int machine, struct sim_disk *disk)
{
	for (int i = 0; i < 50; i++) {
		struct crash_session *s = session_new_on(&crash_on_lsvd, &d->u,
							 rng_next(&d->rng), machine, disk);
		struct err err = ERR_INIT;
		int rc = session_open(s, true, &err);

		if (!rc)
			return s;
		session_abandon(s);
		if (rc != -EAGAIN)
			crash_fail("the second owner: %s", err_text(&err, rc));
		/* Who replaces the superblock all the time keeps others out: let it tire. */
		d->eagerness = d->eagerness * 3 / 4;
	}
	crash_fail("the second owner never gets in");
}

static void judge(struct duel *d, const uint64_t *ids)
{
	if (!oracle_check_prefix(d->oracle, ids, d->oracle->lo_home, NULL))
		crash_fail("%s", d->oracle->text);
}

static void read_image(struct crash_session *s, uint64_t *ids)
{
	int error;

	if (!session_read_all(s, ids, &error))
		crash_fail("reading: %s", strerror(-error));
}

static void begin(struct duel *d, uint64_t seed)
{
	struct err err = ERR_INIT;

	memset(d, 0, sizeof(*d));
	crash_begin(profile.test, seed);
	rng_seed(&d->rng, seed);
	crash_config_random(&d->cfg, &profile, &d->rng);
	d->cfg.batch_age_ns = 1000000;
	d->oracle = malloc(sizeof(*d->oracle));
	oracle_init(d->oracle, seed + 1, d->cfg.sectors);
	universe_init(&d->u, &crash_on_lsvd, &d->cfg, rng_next(&d->rng), d->oracle);
	d->u.world.on_event = on_event;
	d->u.world.on_event_arg = d;
	CHECK_OK(crash_on_lsvd.create(&d->u, &err));
	d->first = session_new(&crash_on_lsvd, &d->u, rng_next(&d->rng));
	CHECK_OK(session_open(d->first, false, &err));
	d->u.tolerant = true;
	d->eagerness = (uint32_t)rng_below(&d->rng, 200);
}

static void duel(uint64_t seed)
{
	uint64_t ids[ORACLE_SECTORS_MAX], again[ORACLE_SECTORS_MAX];
	struct crash_session *second, *third;
	struct sim_disk *disk2, *disk3;
	struct duel d;

	begin(&d, seed);
	work(&d, d.first, (uint32_t)rng_below(&d.rng, 600));
	disk2 = new_disk(&d);
	d.attaching = true;
	second = attach(&d, 1, disk2);
	d.attaching = false;
	read_image(second, ids);
	judge(&d, ids);
	work(&d, d.first, 600);
	/* Nothing that the first has come to believe since may be missing. */
	judge(&d, ids);
	session_kill(d.first, SIM_KEEP_RANDOM(seed));
	read_image(second, again);
	CHECK_MEMEQ(ids, again, d.cfg.sectors * sizeof(ids[0]));

	oracle_rebase(d.oracle, ids);
	work(&d, second, (uint32_t)rng_below(&d.rng, 300));
	session_kill(second, SIM_KEEP_RANDOM(seed + 1));
	disk3 = new_disk(&d);
	third = attach(&d, 2, disk3);
	read_image(third, ids);
	judge(&d, ids);
	session_abandon(third);
	universe_free(&d.u);
	sim_disk_free(disk2);
	sim_disk_free(disk3);
	free(d.oracle);
}

TEST(second_owner)
{
	uint64_t runs = crash_images(20000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		duel(crash_seed(i, &only));
}
