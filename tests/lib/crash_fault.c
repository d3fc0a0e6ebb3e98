/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Work under faults; see crash_fault.h.
 */
#include "lib/crash_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"

#define EAGAIN_TRIES 8

void fault_begin(struct fault_run *r, const struct crash_profile *p, const char *test,
		 uint64_t seed)
{
	struct err err = ERR_INIT;

	memset(r, 0, sizeof(*r));
	crash_begin(test, seed);
	r->target = p->target;
	rng_seed(&r->rng, seed);
	crash_config_random(&r->cfg, p, &r->rng);
	r->cfg.full_timeout_ns = rng_chance(&r->rng, 1, 2) ? UINT64_C(30000000000) : 0;
	r->cfg.home_timeout_ns = UINT64_C(20000000000);
	r->oracle = malloc(sizeof(*r->oracle));
	CHECK(r->oracle != NULL);
	oracle_init(r->oracle, seed + 1, r->cfg.sectors);
	universe_init(&r->u, p->target, &r->cfg, rng_next(&r->rng), r->oracle);
	CHECK_OK(p->target->create(&r->u, &err));
	r->s = session_new(p->target, &r->u, rng_next(&r->rng));
	CHECK_OK(session_open(r->s, false, &err));
	r->u.tolerant = true;
}

void fault_end(struct fault_run *r)
{
	if (r->s)
		session_abandon(r->s);
	if (sim_disk_scribbles(r->u.disk) ||
	    (r->u.backing && sim_disk_scribbles(r->u.backing)))
		crash_fail("memory of a write was changed before its completion");
	universe_free(&r->u);
	free(r->oracle);
}

static void work(struct fault_run *r, uint32_t steps, bool reads)
{
	for (uint32_t i = 0; i < steps; i++) {
		struct crash_op op;

		crash_op_random(&op, &r->cfg, &r->rng);
		if (rng_chance(&r->rng, 1, 4) && session_can(r->s, &op) &&
		    (reads || op.kind != CRASH_READ))
			session_submit(r->s, &op);
		else
			session_step(r->s);
	}
}

void fault_work(struct fault_run *r, uint32_t steps)
{
	work(r, steps, true);
}

void fault_work_blind(struct fault_run *r, uint32_t steps)
{
	work(r, steps, false);
}

/* ---- plans ----------------------------------------------------------------------------------- */

void fault_when(struct sim_fault *f, struct rng *rng)
{
	f->nth = rng_between(rng, 1, 40);
	f->times = rng_chance(rng, 1, 3) ? 0 : rng_between(rng, 1, 8);
	if (rng_chance(rng, 1, 3)) {
		f->nth = 0;
		f->chance_ppm = (uint32_t)rng_between(rng, 10000, 300000);
	}
}

void fault_plan_disk(struct fault_run *r, struct sim_disk *disk)
{
	static const unsigned int ops[] = {1u << DEV_READ, 1u << DEV_FLUSH, FAULT_DEV_WRITES, 0};
	struct sim_fault f = {.kind = SIM_DEV_ERROR, .error = -EIO};
	bool cache = disk == r->u.disk;

	f.ops = ops[rng_below(&r->rng, 4)];
	if (rng_chance(&r->rng, 1, 4)) {
		f.kind = SIM_DEV_DELAY;
		f.delay_ns = rng_below(&r->rng, 1000000000);
	}
	fault_when(&f, &r->rng);
	if (cache && (!f.ops || f.ops == 1u << DEV_READ)) {
		/*
		 * What of the log cannot be read after several tries is given up on purpose, so
		 * that one bad sector does not stop everything: that is for the other test.
		 */
		f.chance_ppm = 0;
		f.nth = rng_between(&r->rng, 1, 40);
		f.times = 2;
	}
	r->flush_may_fail |= cache && (!f.ops || (f.ops & 1u << DEV_FLUSH));
	CHECK_OK(sim_disk_fault(disk, &f));
}

void fault_plan_rot(struct fault_run *r, struct sim_disk *disk)
{
	static const int kinds[] = {SIM_DEV_LOST, SIM_DEV_MISDIRECT, SIM_DEV_ROT};
	struct sim_fault f = {.kind = kinds[rng_below(&r->rng, 3)], .times = 1};

	/* Of a write, or of what is read. */
	f.ops = f.kind == SIM_DEV_ROT && rng_chance(&r->rng, 1, 2) ? 1u << DEV_READ :
								     FAULT_DEV_WRITES;
	f.nth = rng_between(&r->rng, 1, 30);
	CHECK_OK(sim_disk_fault(disk, &f));
}

void fault_heal(struct fault_run *r)
{
	sim_disk_heal(r->u.disk);
	if (r->u.backing)
		sim_disk_heal(r->u.backing);
	if (r->u.bucket)
		sim_bucket_heal(r->u.bucket);
}

/* ---- crashes --------------------------------------------------------------------------------- */

void fault_crash(struct fault_run *r)
{
	/*
	 * After a failed flush reads may show what is not on the media, and nobody who comes later
	 * can know: only a power cut makes an end of that.
	 */
	if (!r->flush_may_fail && rng_chance(&r->rng, 1, 3)) {
		session_kill(r->s, SIM_KEEP_RANDOM(rng_next(&r->rng)));
	} else {
		r->u.world.power_off = true;
		session_abandon(r->s);
		universe_crash(&r->u, SIM_KEEP_RANDOM(rng_next(&r->rng)));
	}
	r->s = NULL;
}

int fault_reopen(struct fault_run *r, bool discard, struct err *err)
{
	int rc = -EAGAIN;

	for (int i = 0; i < EAGAIN_TRIES && rc == -EAGAIN; i++) {
		r->s = session_new(r->target, &r->u, rng_next(&r->rng));
		err_clear(err);
		rc = session_open(r->s, discard, err);
		if (rc) {
			session_abandon(r->s);
			r->s = NULL;
		}
	}
	return rc;
}

void fault_recover(struct fault_run *r)
{
	struct err err = ERR_INIT;
	int rc = fault_reopen(r, false, &err);

	fault_heal(r);
	if (rc) {
		universe_crash(&r->u, SIM_KEEP_RANDOM(rng_next(&r->rng)));
		rc = fault_reopen(r, false, &err);
	}
	if (rc)
		crash_fail("does not recover: %s", err_text(&err, rc));
	r->flush_may_fail = false;
}

/* ---- judgement ------------------------------------------------------------------------------- */

void fault_check_promises(struct fault_run *r)
{
	struct oracle *o = r->oracle;
	uint64_t ids[ORACLE_SECTORS_MAX];
	bool ok;
	int error;

	if (!session_read_all(r->s, ids, &error))
		crash_fail("reading after recovery: %s", strerror(-error));
	ok = o->failed ? oracle_check_sectors(o, ids, o->lo) :
			 oracle_check_prefix(o, ids, o->lo, NULL);
	if (!ok)
		crash_fail("%s", o->text);
	/* Of what is before the base the home may still lack some. */
	oracle_rebase(o, ids);
	r->u.home_unknown = true;
}

void fault_check_no_garbage(struct fault_run *r)
{
	static const uint32_t floor[1];
	uint8_t sector[DEV_SECTOR_BYTES];

	for (uint32_t lba = 0; lba < r->cfg.sectors; lba++) {
		if (session_read(r->s, lba, sector))
			continue;
		if (!oracle_check_read(r->oracle, lba, 1, floor, sector))
			crash_fail("%s", r->oracle->text);
	}
}
