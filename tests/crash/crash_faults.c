/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Programs under faults of the cache device and the store.
 *
 * fault_errors: requests fail, are late, take effect although they failed, the store is out for a
 * while. Operations may fail, with an error, and nothing hangs. Then a crash, the faults are gone,
 * and recovery must work: each sector holds its last durable write or a later one (P2), the whole
 * a prefix if no write has failed.
 *
 * fault_corruption: writes are lost or go astray, bits rot, objects are short, wrong or lost. What
 * is read at all is what was once written there, never garbage, another sector's or another
 * volume's; anything else is an error or a refusal (P5).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/crash.h"
#include "lib/crash_on_lsvd.h"
#include "lib/tap.h"

static const struct crash_profile profile = {.target = &crash_on_lsvd, .ops = 60};

struct fault_run {
	struct crash_universe u;
	struct crash_config cfg;
	struct oracle *oracle;
	struct rng rng;
	struct crash_session *s;
	bool flush_may_fail;
};

static void begin(struct fault_run *r, const char *test, uint64_t seed)
{
	struct err err = ERR_INIT;

	memset(r, 0, sizeof(*r));
	crash_begin(test, seed);
	rng_seed(&r->rng, seed);
	crash_config_random(&r->cfg, &profile, &r->rng);
	r->cfg.full_timeout_ns = rng_chance(&r->rng, 1, 2) ? UINT64_C(30000000000) : 0;
	r->cfg.home_timeout_ns = UINT64_C(20000000000);
	r->oracle = malloc(sizeof(*r->oracle));
	oracle_init(r->oracle, seed + 1, r->cfg.sectors);
	universe_init(&r->u, &crash_on_lsvd, &r->cfg, rng_next(&r->rng), r->oracle);
	CHECK_OK(crash_on_lsvd.create(&r->u, &err));
	r->s = session_new(&crash_on_lsvd, &r->u, rng_next(&r->rng));
	CHECK_OK(session_open(r->s, false, &err));
	r->u.tolerant = true;
}

static void end(struct fault_run *r)
{
	if (r->s)
		session_abandon(r->s);
	universe_free(&r->u);
	free(r->oracle);
}

static void work_on(struct fault_run *r, uint32_t steps, bool reads)
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

static void work(struct fault_run *r, uint32_t steps)
{
	work_on(r, steps, true);
}

/* ---- faults ---------------------------------------------------------------------------------- */

#define DEV_WRITES (1u << DEV_WRITE | 1u << DEV_ZERO | 1u << DEV_DISCARD)
#define STORE_PUTS (1u << STORE_PUT_NEW | 1u << STORE_REPLACE)

static const int store_errors[] = {-EIO, -ETIMEDOUT, -ENOSPC, -EACCES};

/* From some request on, for some time. */
static void when(struct sim_fault *f, struct rng *rng)
{
	f->nth = rng_between(rng, 1, 40);
	f->times = rng_chance(rng, 1, 3) ? 0 : rng_between(rng, 1, 8);
	if (rng_chance(rng, 1, 3)) {
		f->nth = 0;
		f->chance_ppm = (uint32_t)rng_between(rng, 10000, 300000);
	}
}

static void plan_dev_error(struct fault_run *r)
{
	static const unsigned int ops[] = {1u << DEV_READ, 1u << DEV_FLUSH, DEV_WRITES, 0};
	struct sim_fault f = {.kind = SIM_DEV_ERROR, .error = -EIO};

	f.ops = ops[rng_below(&r->rng, 4)];
	if (rng_chance(&r->rng, 1, 4)) {
		f.kind = SIM_DEV_DELAY;
		f.delay_ns = rng_below(&r->rng, 1000000000);
	}
	when(&f, &r->rng);
	if (!f.ops || f.ops == 1u << DEV_READ) {
		/*
		 * What of the log cannot be read after several tries is given up on purpose, so
		 * that one bad sector does not stop everything: that is for the other test.
		 */
		f.chance_ppm = 0;
		f.nth = rng_between(&r->rng, 1, 40);
		f.times = 2;
	}
	r->flush_may_fail |= !f.ops || (f.ops & 1u << DEV_FLUSH);
	CHECK_OK(sim_disk_fault(r->u.disk, &f));
}

static void plan_store_error(struct fault_run *r)
{
	static const int kinds[] = {SIM_STORE_ERROR, SIM_STORE_EFFECT, SIM_STORE_LATE,
				    SIM_STORE_DELAY, SIM_STORE_STALE};
	struct sim_fault f = {.kind = kinds[rng_below(&r->rng, 5)],
			      .error = store_errors[rng_below(&r->rng, 4)],
			      .delay_ns = rng_below(&r->rng, 5000000000)};

	if (rng_chance(&r->rng, 1, 2))
		f.ops = STORE_PUTS;
	when(&f, &r->rng);
	if (rng_chance(&r->rng, 1, 4)) {
		/* An outage: everything, for up to a minute. */
		f = (struct sim_fault){.kind = SIM_STORE_ERROR, .error = -ETIMEDOUT, .nth = 1};
		f.from_ns = r->u.world.clock_ns;
		f.until_ns = f.from_ns + rng_below(&r->rng, UINT64_C(60000000000));
	}
	CHECK_OK(sim_bucket_fault(r->u.bucket, &f));
}

static void plan_dev_corruption(struct fault_run *r)
{
	static const int kinds[] = {SIM_DEV_LOST, SIM_DEV_MISDIRECT, SIM_DEV_ROT};
	struct sim_fault f = {.kind = kinds[rng_below(&r->rng, 3)], .times = 1};

	/* Of a write, or of what is read. */
	f.ops = f.kind == SIM_DEV_ROT && rng_chance(&r->rng, 1, 2) ? 1u << DEV_READ : DEV_WRITES;
	f.nth = rng_between(&r->rng, 1, 30);
	CHECK_OK(sim_disk_fault(r->u.disk, &f));
}

static void plan_store_corruption(struct fault_run *r)
{
	static const int kinds[] = {SIM_STORE_LOST, SIM_STORE_SHORT, SIM_STORE_CORRUPT,
				    SIM_STORE_GARBLE};
	struct sim_fault f = {.kind = kinds[rng_below(&r->rng, 4)], .times = 1};

	f.ops = f.kind == SIM_STORE_GARBLE || rng_chance(&r->rng, 1, 4) ? 1u << STORE_GET :
									 STORE_PUTS;
	f.nth = rng_between(&r->rng, 1, 20);
	CHECK_OK(sim_bucket_fault(r->u.bucket, &f));
}

static void heal(struct fault_run *r)
{
	sim_disk_heal(r->u.disk);
	sim_bucket_heal(r->u.bucket);
}

static void crash(struct fault_run *r)
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

static int reopen(struct fault_run *r, bool discard, struct err *err)
{
	int rc = -EAGAIN;

	for (int i = 0; i < 8 && rc == -EAGAIN; i++) {
		r->s = session_new(&crash_on_lsvd, &r->u, rng_next(&r->rng));
		err_clear(err);
		rc = session_open(r->s, discard, err);
		if (rc) {
			session_abandon(r->s);
			r->s = NULL;
		}
	}
	return rc;
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void check_promises(struct fault_run *r)
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
	oracle_rebase(o, ids);
}

static void run_errors(uint64_t seed)
{
	struct fault_run r;
	struct err err = ERR_INIT;
	int rc;

	begin(&r, "fault_errors", seed);
	for (uint32_t generation = 0; generation < 3; generation++) {
		work(&r, (uint32_t)rng_below(&r.rng, 200));
		for (uint64_t i = rng_between(&r.rng, 1, 2); i > 0; i--) {
			if (rng_chance(&r.rng, 1, 2))
				plan_dev_error(&r);
			else
				plan_store_error(&r);
		}
		work(&r, (uint32_t)rng_below(&r.rng, 600));
		if (rng_chance(&r.rng, 1, 2)) {
			/* Every operation comes to its end while the faults last, or when they
			 * are gone. */
			if (!r.cfg.full_timeout_ns || rng_chance(&r.rng, 1, 2))
				heal(&r);
			session_settle(r.s);
		}
		crash(&r);
		/* Recovery under faults: it works, or it says why not and changes nothing. */
		rc = reopen(&r, false, &err);
		heal(&r);
		if (rc) {
			universe_crash(&r.u, SIM_KEEP_RANDOM(rng_next(&r.rng)));
			rc = reopen(&r, false, &err);
		}
		if (rc)
			crash_fail("does not recover: %s", err_text(&err, rc));
		check_promises(&r);
		r.flush_may_fail = false;
	}
	end(&r);
}

TEST(fault_errors)
{
	uint64_t runs = crash_images(20000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_errors(crash_seed(i, &only));
}

/* ---- corruption ------------------------------------------------------------------------------ */

/* Each sector by itself: an error, or something that was once written there. */
static void check_no_garbage(struct fault_run *r)
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

static void rot_at_rest(struct fault_run *r)
{
	const char *key;

	if (rng_chance(&r->rng, 1, 2)) {
		sim_disk_rot(r->u.disk, 0, 0, 1 + (unsigned int)rng_below(&r->rng, 3));
		return;
	}
	key = sim_bucket_key(r->u.bucket, rng_below(&r->rng, sim_bucket_count(r->u.bucket)));
	if (key)
		sim_bucket_rot(r->u.bucket, key, 0, 1 + (unsigned int)rng_below(&r->rng, 3));
}

static void run_corruption(uint64_t seed)
{
	struct fault_run r;
	struct err err = ERR_INIT;

	begin(&r, "fault_corruption", seed);
	work(&r, (uint32_t)rng_below(&r.rng, 200));
	switch (rng_below(&r.rng, 3)) {
	case 0:
		plan_dev_corruption(&r);
		break;
	case 1:
		plan_store_corruption(&r);
		break;
	default:
		break;
	}
	work(&r, (uint32_t)rng_below(&r.rng, 600));
	crash(&r);
	rot_at_rest(&r);
	if (rng_chance(&r.rng, 1, 4))
		universe_lose_cache(&r.u);
	if (reopen(&r, false, &err) && reopen(&r, true, &err)) {
		if (!err.text[0])
			crash_fail("refused without a word");
	} else {
		check_no_garbage(&r);
		/* The oracle does not know which of the older writes are left. */
		work_on(&r, 200, false);
		session_settle(r.s);
		check_no_garbage(&r);
	}
	end(&r);
}

TEST(fault_corruption)
{
	uint64_t runs = crash_images(20000);
	bool only = false;

	for (uint64_t i = 0; i < runs && !only; i++)
		run_corruption(crash_seed(i, &only));
}
