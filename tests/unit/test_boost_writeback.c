/* SPDX-License-Identifier: BSD-3-Clause */
/* The in-place home: what is written reaches its own place on the backing device. */
#include "lib/boost_rig.h"
#include "lib/tap.h"

TEST(drained_data_is_in_its_place)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	CHECK_OK(brig_write(rig, 100, 8));
	CHECK_OK(brig_write(rig, 7000, 300));
	CHECK_OK(brig_drain(rig));
	brig_verify_home(rig);
	brig_verify(rig);
	brig_free(rig);
}

TEST(released_volume_opens_again)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 500; i++)
		brig_random_op(rig);
	brig_release(rig);
	brig_verify_home(rig);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	for (int i = 0; i < 500; i++)
		brig_random_op(rig);
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}

TEST(flushed_data_survives_a_crash)
{
	struct brig *rig = brig_new(test_seed(), NULL);

	CHECK_OK(brig_open(rig));
	for (int i = 0; i < 300; i++)
		brig_random_op(rig);
	CHECK_OK(brig_flush(rig));
	brig_crash(rig, SIM_KEEP_NONE);
	CHECK_OK(brig_open(rig));
	brig_verify(rig);
	brig_release(rig);
	brig_verify_home(rig);
	brig_free(rig);
}
