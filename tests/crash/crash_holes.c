/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Every hole of the published write logs that applies to ours, each as a story. The numbers in the
 * names are those of the list of holes of the in-place cache (docs/DESIGN.md names the promise that
 * each would break). The holes of object streams are in crash_holes_lsvd.c.
 *
 * In these scenes a write of 8 sectors fills a segment, which goes to the device by itself; the
 * n-th segment lies n - 1 times 8 KiB behind the start of the ring.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "lib/crash_on_log.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "wlog/wlog_layout.h"

#define SEG_BYTES 8192u

static uint64_t seg_off(unsigned int number)
{
	return WLOG_RING_OFF + (uint64_t)(number - 1) * SEG_BYTES;
}

static struct wlog_seg_hdr *seg_on_disk(struct scene *sc, unsigned int number)
{
	const char *disk = sim_disk_durable(sc->u.disk);

	return (struct wlog_seg_hdr *)(uintptr_t)(disk + seg_off(number));
}

/* A copy of what lies on the disk; to be put back later, as a late write would. */
static void *seg_copy(struct scene *sc, unsigned int number)
{
	void *copy = malloc(SEG_BYTES);

	CHECK(copy != NULL);
	return memcpy(copy, seg_on_disk(sc, number), SEG_BYTES);
}

static void seg_put(struct scene *sc, unsigned int number, const void *copy)
{
	static const uint8_t zeros[SEG_BYTES];

	sim_disk_poke(sc->u.disk, seg_off(number), copy ? copy : zeros, SEG_BYTES);
}

/* Segment 1 flushed, 2 and 3 at the device but not flushed; then the power goes, and 2 is lost. */
static struct scene *middle_lost(const char *test)
{
	struct scene *sc = scene_new(test, &crash_on_log, NULL);

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_write(sc, 0, 8);
	scene_write(sc, 8, 8);
	scene_run(sc, 1000);
	scene_crash(sc, SIM_KEEP_ALL);
	CHECK_EQ(le64_get(seg_on_disk(sc, 3)->number), 3);
	return sc;
}

/* 1. A segment is lost, its successor is not: nothing behind the gap counts. */
TEST(hole_1_gap_in_the_log)
{
	struct scene *sc = middle_lost("hole_1_gap_in_the_log");

	seg_put(sc, 2, NULL);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* 2. What was cut off must not come back when numbers are used again. */
TEST(hole_2_cut_off_segments_stay_dead)
{
	struct scene *sc = middle_lost("hole_2_cut_off_segments_stay_dead");

	seg_put(sc, 2, NULL);
	scene_open(sc);
	scene_judge(sc);
	/* The new segment 2 is as long as the old one: the old 3 lies right behind it. */
	scene_write(sc, 16, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK_EQ(le64_get(seg_on_disk(sc, 3)->number), 3);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* 2. The same when the lost segment turns up late, after recovery has done without it. */
TEST(hole_2_late_segment_is_of_an_old_epoch)
{
	struct scene *sc = middle_lost("hole_2_late_segment_is_of_an_old_epoch");
	void *late = seg_copy(sc, 2);

	seg_put(sc, 2, NULL);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_crash(sc, SIM_KEEP_NONE);
	seg_put(sc, 2, late);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 0);
	free(late);
	scene_end(sc);
}

/* 2. And when it turns up in the place of its durable successor: that is damage, not history. */
TEST(hole_2_late_segment_breaks_the_chain)
{
	struct scene *sc = middle_lost("hole_2_late_segment_breaks_the_chain");
	void *late = seg_copy(sc, 2);
	int rc;

	seg_put(sc, 2, NULL);
	scene_open(sc);
	scene_judge(sc);
	scene_write(sc, 16, 8);
	scene_write(sc, 24, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	scene_judge(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	seg_put(sc, 2, late);
	rc = scene_try_open(sc, false);
	CHECK_EQ(rc, -EBADMSG);
	free(late);
	scene_end(sc);
}

/* 3. Rot in an old segment must not make newer ones vanish without a word. */
TEST(hole_3_rot_is_not_the_end_of_the_log)
{
	struct scene *sc = scene_new("hole_3_rot_is_not_the_end_of_the_log", &crash_on_log, NULL);
	int rc;

	scene_open(sc);
	for (uint32_t i = 0; i < 4; i++) {
		scene_write(sc, 8 * i, 8);
		scene_flush(sc);
	}
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK(sim_disk_rot(sc->u.disk, seg_off(2), 128, 1) >= 0);
	rc = scene_try_open(sc, false);
	CHECK_EQ(rc, -EBADMSG);
	CHECK(strstr(sc->err.text, "segment 2") != NULL);
	scene_end(sc);
}

/* 3. Rot in data that is in the home already harms nobody. */
TEST(hole_3_rot_of_destaged_data_is_harmless)
{
	struct scene *sc =
		scene_new("hole_3_rot_of_destaged_data_is_harmless", &crash_on_log, NULL);

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_drain(sc);
	scene_write(sc, 8, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK(sim_disk_rot(sc->u.disk, seg_off(1) + 4096, 4096, 3) >= 0);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 2);
	scene_end(sc);
}

/* 18. Rot in data that is only here: an error for its sectors, never data. */
TEST(hole_18_rot_is_an_error)
{
	struct scene *sc = scene_new("hole_18_rot_is_an_error", &crash_on_log, NULL);

	scene_open(sc);
	for (uint32_t i = 0; i < 3; i++) {
		scene_write(sc, 8 * i, 8);
		scene_flush(sc);
	}
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK(sim_disk_rot(sc->u.disk, seg_off(2) + 4096, 4096, 1) >= 0);
	sc->u.tolerant = true;
	scene_open(sc);
	CHECK_EQ(scene_read(sc, 8), -EIO);
	CHECK_EQ(scene_read(sc, 15), -EIO);
	CHECK_EQ(scene_read(sc, 0), 1);
	CHECK_EQ(scene_read(sc, 23), 3);
	scene_end(sc);
}

/* 4. An overwrite in memory must not make the durable older copy count as done with. */
TEST(hole_4_overwrite_in_memory_keeps_the_durable_copy)
{
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct scene *sc = scene_new("hole_4_overwrite_in_memory_keeps_the_durable_copy",
					     &crash_on_log, NULL);

		sc->cfg.lazy_home = false;
		scene_open(sc);
		rng_seed(&sc->s->sh.rng, seed);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		scene_submit(sc, CRASH_WRITE, 0, 4, false);
		scene_submit(sc, CRASH_WRITE, 2, 3, false);
		scene_run(sc, (unsigned int)seed);
		scene_crash(sc, SIM_KEEP_NONE);
		scene_open(sc);
		scene_judge(sc);
		scene_end(sc);
	}
}

/* 5. A failed flush is an error for who asked, and the end of writing; nothing is forgotten. */
TEST(hole_5_failed_flush_is_an_error)
{
	struct scene *sc = scene_new("hole_5_failed_flush_is_an_error", &crash_on_log, NULL);
	struct sim_fault fault = {.kind = SIM_DEV_ERROR,
				  .ops = 1u << DEV_FLUSH | 1u << DEV_WRITE,
				  .error = -EIO,
				  .nth = 1};
	uint64_t errors;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	sc->u.tolerant = true;
	CHECK_OK(sim_disk_fault(sc->u.disk, &fault));
	scene_write(sc, 8, 2);
	scene_flush(sc);
	errors = sc->s->errors;
	CHECK_EQ(errors, 1);
	scene_flush(sc);
	scene_write(sc, 16, 8);
	CHECK_EQ(sc->s->errors, errors + 2);
	CHECK_EQ(scene_read(sc, 0), 1);
	scene_crash(sc, SIM_KEEP_NONE);
	sim_disk_heal(sc->u.disk);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* 12. What a header says is bounded before it is believed, even with a right checksum. */
TEST(hole_12_lengths_are_validated)
{
	static const size_t fields[] = {
		offsetof(struct wlog_seg_hdr, header_bytes),
		offsetof(struct wlog_seg_hdr, data_bytes),
		offsetof(struct wlog_seg_hdr, records),
		offsetof(struct wlog_seg_hdr, crcs),
		sizeof(struct wlog_seg_hdr) + offsetof(struct wlog_rec_disk, sectors),
		sizeof(struct wlog_seg_hdr) + offsetof(struct wlog_rec_disk, lba) + 2,
		sizeof(struct wlog_seg_hdr) + offsetof(struct wlog_rec_disk, data_sector),
		sizeof(struct wlog_seg_hdr) + offsetof(struct wlog_rec_disk, first_crc),
		sizeof(struct wlog_seg_hdr) + offsetof(struct wlog_rec_disk, lsn_delta),
	};
	static const uint32_t values[] = {0, 1, 7, 4096, 65536, 1u << 30, 0x7fffffff, 0xffffffff};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) * 8; i++) {
		struct scene *sc =
			scene_new("hole_12_lengths_are_validated", &crash_on_log, NULL);
		union {
			struct wlog_seg_hdr hdr;
			uint8_t bytes[WLOG_BLOCK];
		} u;

		scene_open(sc);
		scene_write(sc, 0, 8);
		scene_flush(sc);
		scene_crash(sc, SIM_KEEP_NONE);
		memcpy(u.bytes, seg_on_disk(sc, 1), sizeof(u.bytes));
		memcpy(u.bytes + fields[i / 8], &values[i % 8], 4);
		u.hdr.crc = le32_make(0);
		u.hdr.crc = le32_make(crc32c(0, u.bytes, sizeof(u.bytes)));
		sim_disk_poke(sc->u.disk, seg_off(1), u.bytes, sizeof(u.bytes));
		/* Refused, cut off, or an error: but it ends, and nothing is overrun. */
		sc->u.tolerant = true;
		if (scene_try_open(sc, false) == 0)
			scene_read(sc, 0);
		scene_end(sc);
	}
}

/* 13. A device that fails ends writing with errors, in bounded time, and stays readable. */
TEST(hole_13_device_failure_does_not_spin)
{
	struct scene *sc = scene_new("hole_13_device_failure_does_not_spin", &crash_on_log, NULL);
	struct sim_fault fault = {
		.kind = SIM_DEV_ERROR, .ops = 1u << DEV_WRITE, .error = -EIO, .nth = 1};

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	sc->u.tolerant = true;
	CHECK_OK(sim_disk_fault(sc->u.disk, &fault));
	for (uint32_t i = 0; i < 8; i++)
		scene_submit(sc, i % 3 ? CRASH_WRITE : CRASH_FLUSH, i, 8, i == 4);
	scene_wait(sc);
	CHECK(sc->s->errors >= 3);
	CHECK(sc->s->sh.steps < 10000);
	scene_run(sc, 100000);
	CHECK(sc->s->sh.steps < 20000);
	scene_end(sc);
}

/* 14. A lone small flush costs 8 KiB of log; one that has nothing to flush costs nothing. */
TEST(hole_14_empty_barriers_cost_nothing)
{
	struct scene *sc = scene_new("hole_14_empty_barriers_cost_nothing", &crash_on_log, NULL);
	struct wlog_status before, after;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	wlog_status(sc->s->sh.log, &before);
	for (int i = 0; i < 100; i++)
		scene_flush(sc);
	wlog_status(sc->s->sh.log, &after);
	CHECK_EQ(after.device_bytes, before.device_bytes);
	scene_write(sc, 0, 1);
	scene_flush(sc);
	wlog_status(sc->s->sh.log, &after);
	CHECK_EQ(after.device_bytes - before.device_bytes, 8192);
	scene_end(sc);
}

/* 15. The home is ahead of what the log still has: counters do not run below zero. */
TEST(hole_15_home_ahead_of_the_log)
{
	struct scene *sc = scene_new("hole_15_home_ahead_of_the_log", &crash_on_log, NULL);
	struct wlog_status st;
	uint64_t lsn;

	scene_open(sc);
	for (uint32_t i = 0; i < 3; i++)
		scene_write(sc, 8 * i, 8);
	scene_drain(sc);
	lsn = wlog_last_lsn(sc->s->sh.log);
	scene_crash(sc, SIM_KEEP_NONE);
	/* All of it is in the home: the log may have lost it. */
	for (unsigned int n = 1; n <= 3; n++)
		seg_put(sc, n, NULL);
	if (scene_try_open(sc, false)) {
		CHECK(sc->err.code == -EBADMSG); /* it was durable: refusing is right as well */
		scene_end(sc);
		return;
	}
	CHECK_EQ(scene_judge(sc), 3);
	wlog_status(sc->s->sh.log, &st);
	CHECK(st.used_bytes <= st.ring_bytes);
	CHECK(st.destaged_lsn >= lsn);
	CHECK(st.next_lsn > lsn);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/* A log of no room left, over a home that takes nothing, holds writers back, and then goes on. */
TEST(full_log_waits_for_the_home)
{
	struct scene *sc = scene_new("full_log_waits_for_the_home", &crash_on_log, NULL);
	struct wlog_status st;

	scene_open(sc);
	for (uint32_t i = 0; i < 200; i++)
		scene_write(sc, i % 7 * 8, 8);
	wlog_status(sc->s->sh.log, &st);
	CHECK(st.user_bytes > st.ring_bytes);
	CHECK(st.destaged_lsn > 0);
	scene_crash(sc, SIM_KEEP_RANDOM(1));
	scene_open(sc);
	scene_judge(sc);
	scene_end(sc);
}

/* No LSN twice: a recovered log goes on behind everything that may have been used (L1). */
TEST(lsn_is_never_used_again)
{
	struct scene *sc = scene_new("lsn_is_never_used_again", &crash_on_log, NULL);
	uint64_t highest = 0;

	for (uint64_t i = 0; i < 5; i++) {
		scene_open(sc);
		CHECK(wlog_last_lsn(sc->s->sh.log) >= highest);
		scene_judge(sc);
		for (uint32_t k = 0; k < 4; k++)
			scene_write(sc, 8 * k, 8);
		highest = wlog_last_lsn(sc->s->sh.log);
		scene_crash(sc, i % 2 ? SIM_KEEP_NONE : SIM_KEEP_RANDOM(i));
	}
	scene_end(sc);
}

/* The random start of a new log: what an earlier one has left behind cannot continue it. */
TEST(format_over_an_old_log)
{
	struct scene *sc = scene_new("format_over_an_old_log", &crash_on_log, NULL);
	struct wlog_format_options opt = {.force = false, .random = 0x123456789};
	struct dev *dev;

	scene_open(sc);
	for (uint32_t i = 0; i < 4; i++)
		scene_write(sc, 8 * i, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	CHECK_OK(sim_dev_open(sc->u.disk, &dev));
	/* P6: a device that carries a log is refused, never formatted by mistake. */
	CHECK_EQ(wlog_format(dev, &opt, NULL, &sc->err), -EEXIST);
	opt.force = true;
	CHECK_OK(wlog_format(dev, &opt, NULL, &sc->err));
	dev_close(dev);
	oracle_rebase(sc->oracle, sc->ids);
	scene_open(sc);
	scene_expect(sc, 0);
	scene_write(sc, 40, 8);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}

/*
 * 10. One looks at the log while another still writes to it; the other dies, the first takes over.
 * What was made durable in between must not be cut off.
 */
TEST(hole_10_looking_before_taking)
{
	struct scene *sc = scene_new("hole_10_looking_before_taking", &crash_on_log, NULL);
	struct crash_session *second;
	int rc;

	scene_open(sc);
	scene_write(sc, 0, 8);
	scene_flush(sc);
	second = session_new(&crash_on_log, &sc->u, 2);
	CHECK_OK(crash_on_log.open(second, false, &sc->err));
	scene_write(sc, 8, 8);
	scene_flush(sc);
	scene_kill(sc);
	rc = crash_on_log.acquire(second, &sc->err);
	if (rc) {
		/* Refused: then he has to look again. */
		session_abandon(second);
		scene_open(sc);
	} else {
		second->acquired = true;
		sc->s = second;
	}
	CHECK_EQ(scene_judge(sc), 2);
	scene_flush(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	scene_open(sc);
	scene_judge(sc);
	scene_end(sc);
}
