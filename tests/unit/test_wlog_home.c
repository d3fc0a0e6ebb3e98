/* SPDX-License-Identifier: BSD-3-Clause */
/* What the log gives its home: bytes in its superblock, and what need not be written any more. */
#include <errno.h>
#include <string.h>

#include "lib/tap.h"
#include "lib/wlog_rig.h"
#include "wlog/wlog_impl.h"

static struct wlog_rig *begin(void)
{
	struct wlog_rig *rig = wlog_rig_new(4u << 20, test_seed());

	CHECK_OK(wlog_rig_start(rig));
	return rig;
}

TEST(a_new_log_keeps_nothing_of_a_home)
{
	struct wlog_rig *rig = wlog_rig_new(1u << 20, 1);
	struct wlog_info info;
	uint32_t bytes;

	CHECK_OK(wlog_probe(rig->dev, &info, &rig->err));
	CHECK_EQ(info.home_bytes, 0);
	CHECK_OK(wlog_rig_look(rig));
	CHECK(wlog_home_state(rig->log, &bytes) != NULL);
	CHECK_EQ(bytes, 0);
	wlog_rig_free(rig);
}

TEST(home_state_is_written_by_start_and_stop)
{
	struct wlog_rig *rig = wlog_rig_new(1u << 20, 1);
	struct wlog_info info;
	uint8_t state[WLOG_HOME_BYTES];
	uint32_t bytes;

	memset(state, 0x5a, sizeof(state));
	CHECK_OK(wlog_rig_look(rig));
	wlog_set_home_state(rig->log, state, sizeof(state));
	CHECK_OK(wlog_rig_start(rig));
	CHECK_OK(wlog_probe(rig->dev, &info, &rig->err));
	CHECK_EQ(info.home_bytes, sizeof(state));
	CHECK_MEMEQ(info.home, state, sizeof(state));
	host_enter(&rig->hs.host);
	wlog_set_home_state(rig->log, "abc", 3);
	host_leave(&rig->hs.host);
	wlog_rig_stop(rig);
	CHECK_OK(wlog_rig_look(rig));
	CHECK_MEMEQ(wlog_home_state(rig->log, &bytes), "abc", 3);
	CHECK_EQ(bytes, 3);
	wlog_rig_free(rig);
}

TEST(home_state_that_is_too_long_is_damage)
{
	struct wlog log = { .sb_seq = 1, .ring_off = WLOG_RING_OFF, .ring_bytes = WLOG_RING_MIN,
			    .cut_seg = 1, .home_bytes = 5 };
	struct wlog_sb sb, out;
	struct err err = ERR_INIT;

	log.tail.seg = 1;
	sb_encode(&log, &log.tail, false, &sb);
	CHECK_OK(sb_decode(&sb, 1u << 20, &out, &err));
	CHECK_EQ(le32_get(out.home_bytes), 5);
	log.home_bytes = 0;
	sb_encode(&log, &log.tail, false, &sb);
	sb.home_bytes = le32_make(WLOG_HOME_BYTES + 1);
	sb_sign(&sb);
	CHECK_EQ(sb_decode(&sb, 1u << 20, &out, &err), -EBADMSG);
	CHECK(strstr(err.text, "home") != NULL);
}

TEST(nothing_is_superseded_by_itself_or_by_what_is_older)
{
	struct wlog_rig *rig = begin();
	uint64_t first, second;
	bool newer;

	CHECK_OK(wlog_rig_write(rig, 0, 16, 1));
	CHECK_OK(wlog_rig_flush(rig));
	first = wlog_rig_last(rig);
	CHECK_OK(wlog_rig_write(rig, 4, 4, 2));
	CHECK_OK(wlog_rig_flush(rig));
	second = wlog_rig_last(rig);
	CHECK(second > first);
	CHECK_EQ(wlog_rig_superseded(rig, 0, 16, first, &newer), 4);
	CHECK(!newer);
	CHECK_EQ(wlog_rig_superseded(rig, 4, 16, first, &newer), 8);
	CHECK(newer);
	CHECK_EQ(wlog_rig_superseded(rig, 5, 7, first, &newer), 7);
	CHECK(newer);
	CHECK_EQ(wlog_rig_superseded(rig, 8, 16, first, &newer), 16);
	CHECK(!newer);
	CHECK_EQ(wlog_rig_superseded(rig, 0, 16, second, &newer), 16);
	CHECK(!newer);
	wlog_rig_free(rig);
}

TEST(what_is_not_in_the_map_is_not_superseded)
{
	struct wlog_rig *rig = begin();
	uint64_t first;
	bool newer;

	CHECK_OK(wlog_rig_write(rig, 0, 8, 1));
	CHECK_OK(wlog_rig_flush(rig));
	first = wlog_rig_last(rig);
	CHECK_OK(wlog_rig_write(rig, 40, 8, 2));
	CHECK_OK(wlog_rig_op(rig, DEV_ZERO, 60, 4));
	CHECK_OK(wlog_rig_flush(rig));
	CHECK_EQ(wlog_rig_superseded(rig, 20, 100, first, &newer), 40);
	CHECK(!newer);
	CHECK_EQ(wlog_rig_superseded(rig, 40, 100, first, &newer), 48);
	CHECK(newer);
	CHECK_EQ(wlog_rig_superseded(rig, 48, 100, first, &newer), 60);
	CHECK(!newer);
	CHECK_EQ(wlog_rig_superseded(rig, 60, 100, first, &newer), 64);
	CHECK(newer);
	CHECK_EQ(wlog_rig_superseded(rig, 64, 100, first, &newer), 100);
	CHECK(!newer);
	wlog_rig_free(rig);
}

TEST(a_segment_that_was_forgotten_meanwhile_is_not_superseded)
{
	struct wlog_rig *rig = begin();
	bool newer;

	CHECK_OK(wlog_rig_write(rig, 0, 8, 1));
	CHECK_OK(wlog_rig_flush(rig));
	wlog_rig_destage(rig, UINT64_MAX);
	CHECK_EQ(wlog_rig_superseded(rig, 0, 8, 0, &newer), 8);
	CHECK(!newer);
	wlog_rig_free(rig);
}
