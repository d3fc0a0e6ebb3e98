/* SPDX-License-Identifier: BSD-3-Clause */
/* The object-stream home at work: write, destage, read, checkpoint, release, open again. */
#include <errno.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"

static struct lsvd_status status(struct lsvd_rig *rig)
{
	struct lsvd_status st;

	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	return st;
}

TEST(empty_volume_reads_zeros)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_release(rig);
	CHECK_EQ(rig_objects(rig, 'd'), 0);
	rig_free(rig);
}

TEST(write_drain_read)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 100, 40));
	CHECK_OK(rig_write(rig, 7, 3));
	CHECK_OK(rig_zero(rig, DEV_DISCARD, 110, 5));
	rig_verify(rig);
	CHECK_OK(rig_drain(rig));
	CHECK(rig_objects(rig, 'd') >= 1);
	CHECK_EQ(status(rig).live_sectors, 38);
	rig_verify(rig);
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	CHECK_EQ(status(rig).live_sectors, 38);
	rig_free(rig);
}

TEST(random_ops_against_oracle)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.checkpoint_objects = 5;
	CHECK_OK(rig_open(rig));
	for (unsigned round = 0; round < 12; round++) {
		for (unsigned i = 0; i < 60; i++)
			rig_random_op(rig);
		if (round % 3 == 0)
			CHECK_OK(rig_drain(rig));
		if (round % 4 == 1) {
			rig_release(rig);
			CHECK_OK(rig_open(rig));
		}
		if (round % 4 == 3) {
			CHECK_OK(rig_flush(rig));
			rig_crash(rig);
			CHECK_OK(rig_open(rig));
		}
		rig_verify(rig);
	}
	CHECK(status(rig).info.checkpoint_seq[0] > 0);
	CHECK(rig_objects(rig, 'r') <= 2);
	rig_free(rig);
}

/* Opening skips LSNs, which stand for nothing: the next opening must not miss them. */
TEST(opened_and_closed_without_writing)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	for (unsigned i = 0; i < 6; i++) {
		CHECK_OK(rig_open(rig));
		rig_verify(rig);
		if (i == 2)
			CHECK_OK(rig_write(rig, 10, 8));
		if (i == 4)
			rig_crash(rig);
		else
			rig_release(rig);
	}
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	CHECK_OK(rig_drain(rig));
	rig_free(rig);
}

TEST(nothing_waits_for_what_has_stopped)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	host_enter(&rig->hs.host);
	lsvd_stop(rig->lsvd);
	host_leave(&rig->hs.host);
	CHECK_EQ(rig_drain(rig), -ECANCELED);
	CHECK_EQ(rig_checkpoint(rig), -ECANCELED);
	rig_close(rig);
	CHECK_OK(rig_open(rig));
	rig_free(rig);
}
