/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Damage at rest under the in-place cache: rot in its log, a state of the home that lies, a log
 * that is shorter than what is home. The holes of the published cache that concern these (see
 * crash_holes_boost.c), and the step that check-mutants removes:
 *
 *	 3  hole_3_rot_in_old_segments             -
 *	 3  hole_3_rot_in_a_header_that_is_needed  wlog.refuse_damage
 *	 3  hole_3_rot_loses_only_itself           boost.bad_read, boost.verify_before_write
 *	12  hole_12_state_is_validated             -
 *	15  hole_15_home_ahead_of_a_torn_log       -
 *	18  hole_18_rot_never_goes_home            boost.verify_before_write, boost.bad_read
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "boost/boost_layout.h"
#include "lib/crash_on_boost.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "wlog/wlog_layout.h"

#define SEG_BYTES 8192u

static struct scene *begin(const char *test)
{
	return scene_new(test, &crash_on_boost, NULL);
}

static uint64_t seg_off(unsigned int number)
{
	return WLOG_RING_OFF + (uint64_t)(number - 1) * SEG_BYTES;
}

static void status(struct scene *sc, struct boost_status *st)
{
	host_enter(&sc->s->sh.host);
	boost_status(sc->s->engine, st);
	host_leave(&sc->s->sh.host);
}

/*
 * 3. One rotten segment, even one long written back, made replay discard all newer ones. Here rot
 * in what is home already harms nobody, whether it hits data or a header.
 */
TEST(hole_3_rot_in_old_segments)
{
	for (uint64_t part = 0; part < 2; part++) {
		struct scene *sc = begin("hole_3_rot_in_old_segments");

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_drain(sc);
		scene_close(sc);
		scene_open(sc);
		scene_write(sc, 8, 8);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		CHECK(sim_disk_rot(sc->u.disk, seg_off(1) + part * 4096, 4096, 3) >= 0);
		scene_open(sc);
		CHECK_EQ(scene_judge(sc), 2);
		scene_end(sc);
	}
}

/*
 * 3. Rot in the header of one that is needed: what the log holds behind it cannot be reached. Here
 * that is said, with the place; the log is not cut there, and nothing is given up unless asked for.
 */
TEST(hole_3_rot_in_a_header_that_is_needed)
{
	struct scene *sc = begin("hole_3_rot_in_a_header_that_is_needed");

	scene_open(sc);
	for (uint32_t i = 0; i < 4; i++) {
		scene_write(sc, 8 * i, 8);
		scene_flush(sc);
	}
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK(sim_disk_rot(sc->u.disk, seg_off(2), 128, 1) >= 0);
	CHECK_EQ(scene_try_open(sc, false), -EBADMSG);
	CHECK(strstr(sc->err.text, "segment 2") != NULL);
	CHECK_EQ(scene_try_open(sc, false), -EBADMSG);
	scene_end(sc);
}

/*
 * 3. And one that was needed took everything behind it along. Here it is an error for its own
 * sectors, now and after writeback, until they are written anew; everything else goes home.
 */
TEST(hole_3_rot_loses_only_itself)
{
	struct scene *sc = begin("hole_3_rot_loses_only_itself");
	struct boost_status st;

	scene_open(sc);
	for (uint32_t i = 0; i < 3; i++) {
		scene_write(sc, 8 * i, 8);
		scene_flush(sc);
	}
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK(sim_disk_rot(sc->u.disk, seg_off(2) + 4096, 4096, 3) >= 0);
	sc->u.tolerant = true;
	scene_open(sc);
	scene_drain(sc);
	status(sc, &st);
	CHECK_EQ(st.lost_bytes, 4096);
	for (int round = 0; round < 2; round++) {
		CHECK_EQ(scene_read(sc, 8), -EIO);
		CHECK_EQ(scene_read(sc, 15), -EIO);
		CHECK_EQ(scene_read(sc, 7), 1);
		CHECK_EQ(scene_read(sc, 16), 3);
		/* It is not forgotten with the log that held it. */
		scene_run(sc, 2000);
		sc->u.home_unknown = true;
		scene_crash(sc, SIM_KEEP_ALL);
		scene_open(sc);
	}
	scene_write(sc, 8, 8);
	CHECK_EQ(scene_read(sc, 8), 4);
	scene_drain(sc);
	CHECK_EQ(scene_read(sc, 8), 4);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_read(sc, 8), 4);
	scene_end(sc);
}

/*
 * 12. Lengths and places on the cache were believed: buffers overrun, a BUG() hit. Here what the
 * superblock says of the home is bounded before it is used, even with a right checksum.
 */
static void fix_sb_crc(uint8_t *sb)
{
	struct wlog_sb *hdr = (void *)sb;

	hdr->crc = le32_make(0);
	hdr->crc = le32_make(crc32c(0, sb, sizeof(*hdr)));
}

static uint8_t *find_state(uint8_t *sb)
{
	const le64 magic = le64_make(BOOST_STATE_MAGIC);

	return memmem(sb, sizeof(struct wlog_sb), &magic, sizeof(magic));
}

static void bend_state(struct scene *sc, uint32_t at, uint64_t value, size_t len)
{
	for (uint64_t slot = 0; slot < WLOG_SB_SLOTS; slot++) {
		uint8_t sb[sizeof(struct wlog_sb)], *state;
		struct boost_state *st;

		memcpy(sb, (const uint8_t *)sim_disk_durable(sc->u.disk) + slot * WLOG_SB_STRIDE,
		       sizeof(sb));
		state = find_state(sb);
		if (!state)
			continue;
		st = (void *)state;
		memcpy(state + at, &value, len);
		st->crc = le32_make(0);
		st->crc = le32_make(crc32c(0, state, BOOST_STATE_BYTES));
		fix_sb_crc(sb);
		sim_disk_poke(sc->u.disk, slot * WLOG_SB_STRIDE, sb, sizeof(sb));
	}
}

TEST(hole_12_state_is_validated)
{
	static const struct {
		size_t at, len;
		uint64_t value;
		bool refuse;
	} bends[] = {
		{offsetof(struct boost_state, magic), 8, 1, true},
		{offsetof(struct boost_state, version), 4, 2, true},
		{offsetof(struct boost_state, incompat_flags), 4, 1, true},
		{offsetof(struct boost_state, backing_bytes), 8, 0, true},
		{offsetof(struct boost_state, backing_bytes), 8, UINT64_MAX, true},
		{offsetof(struct boost_state, backing_bytes), 8, 513, true},
		{offsetof(struct boost_state, block_bytes), 4, 3, true},
		{offsetof(struct boost_state, block_bytes), 4, 0, true},
		{offsetof(struct boost_state, bads), 4, BOOST_BADS + 1, true},
		{offsetof(struct boost_state, bads), 4, UINT32_MAX, true},
		{offsetof(struct boost_state, bads), 4, 1, true}, /* of no sectors */
		{offsetof(struct boost_state, sample_seed), 8, 77, false},
		{offsetof(struct boost_state, sample_crc), 4, 1, false},
		{offsetof(struct boost_state, identity), 8, UINT64_MAX, false},
	};

	for (size_t i = 0; i < sizeof(bends) / sizeof(bends[0]); i++) {
		struct scene *sc = begin("hole_12_state_is_validated");
		int rc;

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		bend_state(sc, (uint32_t)bends[i].at, bends[i].value, bends[i].len);
		rc = scene_try_open(sc, false);
		if (bends[i].refuse)
			CHECK(rc < 0);
		if (rc)
			CHECK(sc->err.text[0] != '\0');
		else
			CHECK_EQ(scene_judge(sc), 1);
		scene_end(sc);
	}
}

/*
 * 15. A record that said more was written back than the truncated log held made counters run below
 * zero. Here the log goes on above it, and no count is out of its range.
 */
TEST(hole_15_home_ahead_of_a_torn_log)
{
	static const uint8_t zeros[SEG_BYTES];
	struct scene *sc = begin("hole_15_home_ahead_of_a_torn_log");
	struct boost_status st;
	uint64_t lsn;

	scene_open(sc);
	for (uint32_t i = 0; i < 3; i++)
		scene_write(sc, 8 * i, 8);
	scene_drain(sc);
	/* So that a superblock says so. */
	scene_close(sc);
	scene_open(sc);
	lsn = wlog_last_lsn(sc->s->sh.log);
	scene_write(sc, 24, 8);
	scene_run(sc, 100);
	scene_crash(sc, SIM_KEEP_NONE);
	for (unsigned int n = 1; n <= 4; n++)
		sim_disk_poke(sc->u.disk, seg_off(n), zeros, SEG_BYTES);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 3);
	status(sc, &st);
	CHECK(st.log.used_bytes <= st.log.ring_bytes);
	CHECK(st.log.destaged_lsn + 1 <= st.log.next_lsn);
	CHECK(st.log.next_lsn > lsn);
	CHECK(st.log.destaged_seg <= st.log.durable_seg + 1);
	CHECK(st.dirty_sectors <= st.sectors);
	CHECK_EQ(st.oldest_dirty_ns, 0);
	scene_write(sc, 0, 8);
	scene_drain(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/*
 * 18. Nothing was verified on a hit or when it was written back, so rot in the cache became the
 * backing device's contents. Here it is an error for its sectors and never goes home.
 */
TEST(hole_18_rot_never_goes_home)
{
	for (uint32_t cut = 0; cut < 2; cut++) {
		struct scene *sc = begin("hole_18_rot_never_goes_home");
		uint64_t ids[ORACLE_SECTORS_MAX];
		const uint8_t *home;

		scene_open(sc);
		for (uint32_t i = 0; i < 3; i++) {
			scene_write(sc, 8 * i, 8);
			scene_flush(sc);
		}
		/* Of the second only a part would go home. */
		if (cut)
			scene_write(sc, 10, 2);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		CHECK(sim_disk_rot(sc->u.disk, seg_off(2) + 4096, 1024, 1) >= 0);
		sc->u.tolerant = true;
		scene_open(sc);
		CHECK_EQ(scene_read(sc, 8), -EIO);
		scene_drain(sc);
		CHECK_EQ(scene_read(sc, 8), -EIO);
		CHECK_EQ(scene_read(sc, 0), 1);
		CHECK_EQ(scene_read(sc, 23), 3);
		home = sim_disk_durable(sc->u.backing);
		CHECK(oracle_decode_all(sc->oracle, home, ids));
		CHECK_EQ(ids[0], 1);
		CHECK_EQ(ids[8], 0);
		CHECK_EQ(ids[16], 3);
		sc->u.home_unknown = true;
		scene_end(sc);
	}
}
