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

static struct wlog_seg *seg_number(struct wlog_rig *rig, uint64_t number)
{
	return wlog_next_durable(rig->log, number - 1);
}

static void pin(struct wlog_rig *rig, uint64_t number, bool on)
{
	host_enter(&rig->hs.host);
	if (on)
		wlog_seg_pin(rig->log, seg_number(rig, number));
	else
		wlog_seg_unpin(rig->log, seg_number(rig, number));
	host_leave(&rig->hs.host);
}

static const uint8_t *data_of(struct wlog_rig *rig, uint64_t number)
{
	struct wlog_seg_view view;

	wlog_seg_view(seg_number(rig, number), &view);
	return view.data;
}

/* One pin was too late for memory, the next was not; the first one's end is not the other's. */
TEST(data_stays_until_the_last_pin_is_gone)
{
	struct wlog_rig *rig = wlog_rig_new(4u << 20, test_seed());
	uint8_t want[8 * DEV_SECTOR_BYTES];
	const uint8_t *data;

	rig->opt.segment_bytes = 4096;
	rig->opt.buffers = 4;
	CHECK_OK(wlog_rig_start(rig));
	for (uint8_t i = 1; i <= 3; i++) {
		CHECK_OK(wlog_rig_write(rig, 8u * i, 8, i));
		CHECK_OK(wlog_rig_flush(rig));
	}
	/* The home may keep two of four. */
	for (uint64_t i = 1; i <= 3; i++)
		pin(rig, i, true);
	CHECK(data_of(rig, 1) && data_of(rig, 2) && !data_of(rig, 3));
	pin(rig, 1, false);
	pin(rig, 3, true);
	data = data_of(rig, 3);
	CHECK(data != NULL);
	pin(rig, 3, false);
	for (uint8_t i = 4; i < 20; i++) {
		CHECK_OK(wlog_rig_write(rig, 8u * i, 8, i));
		CHECK_OK(wlog_rig_flush(rig));
	}
	memset(want, 3, sizeof(want));
	CHECK_MEMEQ(data, want, sizeof(want));
	CHECK(data_of(rig, 3) == data);
	pin(rig, 3, false);
	pin(rig, 2, false);
	wlog_rig_free(rig);
}
