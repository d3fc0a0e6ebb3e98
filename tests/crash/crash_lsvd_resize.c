/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the size of an lsvd volume, cut at every request to the store: the volume has one of the
 * two sizes, what lies within both is as it was, and what a shrinking gave up never comes back.
 */
#include <errno.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"

#define HALF (RIG_SECTORS / 2)
#define CUTS_MAX 200

struct wait {
	struct drain drain;
	bool done;
	int error;
};

static void wait_done(struct drain *drain, int error)
{
	struct wait *w = container_of(drain, struct wait, drain);

	w->done = true;
	w->error = error;
}

/* -ETIME: the power is off, and nobody will ever answer. */
static int resize(struct lsvd_rig *rig, uint32_t sectors)
{
	static struct wait w;

	w = (struct wait){.drain.done = wait_done};
	host_enter(&rig->hs.host);
	lsvd_resize(rig->lsvd, (uint64_t)sectors * DEV_SECTOR_BYTES, &w.drain);
	host_leave(&rig->hs.host);
	for (unsigned int i = 0; !w.done && i < 2000; i++)
		host_single_advance(&rig->hs, 10000000);
	return w.done ? w.error : -ETIME;
}

static int drain(struct lsvd_rig *rig)
{
	static struct wait w;

	w = (struct wait){.drain.done = wait_done};
	host_enter(&rig->hs.host);
	lsvd_drain(rig->lsvd, &w.drain);
	host_leave(&rig->hs.host);
	for (unsigned int i = 0; !w.done && i < 2000; i++)
		host_single_advance(&rig->hs, 10000000);
	return w.done ? w.error : -ETIME;
}

/* As the volume does it: what lies beyond is zeroed and drained first. */
static int shrink(struct lsvd_rig *rig)
{
	int r = rig_zero(rig, DEV_ZERO, HALF, RIG_SECTORS - HALF);

	if (!r)
		r = drain(rig);
	return r ? r : resize(rig, HALF);
}

static uint32_t sectors_now(struct lsvd_rig *rig)
{
	struct lsvd_status st;

	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	return (uint32_t)(st.info.size_bytes / DEV_SECTOR_BYTES);
}

static void write_some(struct lsvd_rig *rig)
{
	for (uint32_t lba = 0; lba < RIG_SECTORS; lba += 1000)
		CHECK_OK(rig_write(rig, lba, 24));
	CHECK_OK(rig_write(rig, HALF - 8, 16));
	CHECK_OK(rig_flush(rig));
}

static void forget_tail(struct lsvd_rig *rig)
{
	memset(rig->oracle + HALF, 0, (RIG_SECTORS - HALF) * sizeof(rig->oracle[0]));
}

static void power_cycle(struct lsvd_rig *rig)
{
	rig_crash(rig);
	sim_world_power_on(&rig->world);
	CHECK_OK(rig_open(rig));
}

/* Grows again if that is needed: the tail is zeros, or all as it was when nothing was zeroed. */
static void verify_tail(struct lsvd_rig *rig, uint32_t mark)
{
	uint8_t buf[DEV_SECTOR_BYTES];

	if (sectors_now(rig) == HALF) {
		CHECK_EQ(rig_read(rig, HALF, 1, buf), -EINVAL);
		CHECK_EQ(rig_write(rig, HALF, 1), -EINVAL);
		CHECK_OK(resize(rig, RIG_SECTORS));
	}
	CHECK_EQ(sectors_now(rig), RIG_SECTORS);
	CHECK_OK(rig_read(rig, HALF, 1, buf));
	if (buf[0] || buf[1] || buf[2] || buf[3])
		rig->oracle[HALF] = mark;
	rig_verify(rig);
}

TEST(a_shrinking_that_is_cut)
{
	bool through = false;

	for (uint64_t cut = 1; !through; cut++) {
		struct lsvd_rig *rig = rig_new(test_seed());
		uint32_t before[RIG_SECTORS];
		int r;

		CHECK_OK(rig_open(rig));
		write_some(rig);
		CHECK_OK(rig_drain(rig));
		CHECK_OK(rig_checkpoint(rig));
		CHECK_OK(rig_write(rig, RIG_SECTORS - 300, 100));
		memcpy(before, rig->oracle, sizeof(before));
		rig->world.cut_at = rig->world.events + cut;
		r = shrink(rig);
		through = !r;
		test_note("cut %u: %d", (unsigned int)cut, r);
		power_cycle(rig);
		/* Zeroed or not, it was one write: nothing between. */
		if (sectors_now(rig) == RIG_SECTORS) {
			uint8_t buf[DEV_SECTOR_BYTES];

			CHECK(!through);
			CHECK_OK(rig_read(rig, RIG_SECTORS - 300, 1, buf));
			if (buf[0] || buf[1] || buf[2] || buf[3])
				memcpy(rig->oracle, before, sizeof(before));
		}
		verify_tail(rig, before[HALF]);
		CHECK_OK(rig_write(rig, RIG_SECTORS - 8, 8));
		CHECK_OK(rig_flush(rig));
		power_cycle(rig);
		rig_verify(rig);
		rig_free(rig);
		CHECK(cut < CUTS_MAX);
	}
}

/* Whatever of log and checkpoints it is opened from. */
TEST(what_was_given_up_stays_away_without_the_cache)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	write_some(rig);
	CHECK_OK(rig_drain(rig));
	CHECK_OK(shrink(rig));
	CHECK_OK(resize(rig, RIG_SECTORS));
	forget_tail(rig);
	rig_verify(rig);
	rig_close(rig);
	CHECK_OK(rig_look(rig, false, true));
	rig_verify(rig);
	rig_close(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_release(rig);
	rig_free(rig);
}

/* Once it is done a flushed write beyond the former end survives, whenever the power fails. */
TEST(a_growing_that_is_cut)
{
	bool through = false;

	for (uint64_t cut = 1; !through; cut++) {
		struct lsvd_rig *rig = rig_new(test_seed());
		bool wrote = false;
		int r;

		CHECK_OK(rig_open(rig));
		write_some(rig);
		CHECK_OK(shrink(rig));
		forget_tail(rig);
		rig->world.cut_at = rig->world.events + cut;
		r = resize(rig, RIG_SECTORS);
		if (!r) {
			/* Into the log, which the power's failure does not reach. */
			CHECK_OK(rig_write(rig, HALF + 100, 8));
			CHECK_OK(rig_flush(rig));
			wrote = true;
		}
		through = !r && rig->world.events < rig->world.cut_at;
		test_note("cut %u: %d", (unsigned int)cut, r);
		power_cycle(rig);
		if (wrote)
			CHECK_EQ(sectors_now(rig), RIG_SECTORS);
		verify_tail(rig, 0);
		rig_free(rig);
		CHECK(cut < CUTS_MAX);
	}
}

TEST(a_size_that_cannot_be_is_refused)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_look(rig, true, false));
	CHECK_EQ(resize(rig, HALF), -EPERM);
	CHECK_OK(rig_acquire(rig));
	CHECK_EQ(resize(rig, 0), -EINVAL);
	CHECK_OK(rig_write(rig, HALF + 5, 1));
	CHECK_EQ(resize(rig, HALF), -EBUSY); /* in the log */
	CHECK_OK(drain(rig));
	CHECK_EQ(resize(rig, HALF), -EBUSY); /* in the map */
	CHECK_OK(resize(rig, RIG_SECTORS));
	rig_verify(rig);
	rig_release(rig);
	rig_free(rig);
}
