/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Superblocks of the write log (L12).
 *
 * Two slots are written in turn, each with FUA, so that one of them is always whole: a power cut
 * tears at most the one that was being written, which nothing had relied on yet. The valid slot
 * with the higher sb_seq counts. What a superblock says:
 *
 * 1. Space before tail_pos is free. It is overwritten only after the superblock that says so is
 *    durable (L6), so the older slot's tail, too, leads to an unbroken chain for as long as the
 *    newer slot has not been completed.
 * 2. Segments from cut_seg on carry log_epoch, those before it an older one. A segment with a
 *    later epoch than the superblock's means that the newer superblock is lost: refused.
 * 3. Everything up to watermark_lsn was durable when it was written.
 * 4. destaged_lsn and what the home keeps here are of one moment: both are taken when the
 *    superblock is encoded, entered, and not again until the next one.
 */
#include "wlog/wlog_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/mutant.h"

static uint32_t sb_crc(const struct wlog_sb *sb)
{
	static const le32 zero;
	const uint8_t *bytes = (const uint8_t *)sb;
	const size_t at = offsetof(struct wlog_sb, crc);
	uint32_t crc = crc32c(0, bytes, at);

	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, bytes + at + sizeof(zero), sizeof(*sb) - at - sizeof(zero));
}

void sb_sign(struct wlog_sb *sb)
{
	sb->crc = le32_make(sb_crc(sb));
}

void sb_encode(const struct wlog *log, const struct tail *tail, bool clean, struct wlog_sb *sb)
{
	memset(sb, 0, sizeof(*sb));
	sb->magic = le64_make(WLOG_SB_MAGIC);
	sb->version = le32_make(WLOG_VERSION);
	memcpy(sb->log_uuid, log->id.log_uuid.b, sizeof(sb->log_uuid));
	memcpy(sb->volume_uuid, log->id.volume_uuid.b, sizeof(sb->volume_uuid));
	sb->sb_seq = le64_make(log->sb_seq);
	sb->attach_epoch = le64_make(log->id.attach_epoch);
	sb->log_epoch = le64_make(log->log_epoch);
	sb->device_bytes = le64_make(log->device_bytes);
	sb->ring_off = le64_make(log->ring_off);
	sb->ring_bytes = le64_make(log->ring_bytes);
	sb->tail_pos = le64_make(tail->pos);
	sb->tail_seg = le64_make(tail->seg);
	sb->cut_seg = le64_make(log->cut_seg);
	sb->tail_lsn = le64_make(tail->lsn);
	sb->watermark_lsn = le64_make(log->durable_lsn);
	sb->destaged_lsn = le64_make(log->destaged_lsn);
	sb->next_lsn = le64_make(log->next_lsn);
	sb->life_bytes = le64_make(log->life_bytes + log->written_bytes);
	sb->wall_ns = le64_make(log->host ? host_wall_ns(log->host) : 0);
	sb->tail_prev_crc = le32_make(tail->prev_crc);
	sb->state = le32_make(clean ? WLOG_STATE_CLEAN : 0);
	sb->home_bytes = le32_make(log->home_bytes);
	memcpy(sb->home, log->home_state, log->home_bytes);
	sb_sign(sb);
}

static bool sb_geometry_ok(const struct wlog_sb *sb, uint64_t device_bytes)
{
	const uint64_t off = le64_get(sb->ring_off), bytes = le64_get(sb->ring_bytes);

	return off >= WLOG_RING_OFF && off % WLOG_BLOCK == 0 && bytes % WLOG_BLOCK == 0 &&
	       bytes >= WLOG_RING_MIN && off <= device_bytes && bytes <= device_bytes - off &&
	       le64_get(sb->tail_pos) % WLOG_BLOCK == 0 && le64_get(sb->tail_seg) >= 1 &&
	       le64_get(sb->cut_seg) >= 1;
}

/*
 * Counters that only grow and start low: what is near their end is no log's. Map values have 43
 * bits for the number of a segment.
 */
#define SEG_LIMIT (UINT64_C(1) << 42)
#define COUNT_LIMIT (UINT64_C(1) << 62)

static_assert(63 - WLOG_OFF_BITS > 42, "the number of any segment fits a map value");

static bool sb_counters_ok(const struct wlog_sb *sb)
{
	return le64_get(sb->tail_seg) < SEG_LIMIT && le64_get(sb->cut_seg) < SEG_LIMIT &&
	       le64_get(sb->tail_pos) < COUNT_LIMIT && le64_get(sb->tail_lsn) < COUNT_LIMIT &&
	       le64_get(sb->watermark_lsn) < COUNT_LIMIT &&
	       le64_get(sb->destaged_lsn) < COUNT_LIMIT && le64_get(sb->next_lsn) < COUNT_LIMIT;
}

/* 0, -ENOENT (no superblock of ours), -EBADMSG (damaged), -ENOTSUP (of a later version). */
int sb_decode(const void *block, uint64_t device_bytes, struct wlog_sb *ret, struct err *err)
{
	const struct wlog_sb *sb = block;

	if (le64_get(sb->magic) != WLOG_SB_MAGIC)
		return -ENOENT;
	if (le32_get(sb->crc) != sb_crc(sb))
		return err_corrupt(err, "log superblock: checksum does not match");
	if (le32_get(sb->version) != WLOG_VERSION ||
	    (le32_get(sb->incompat_flags) & ~WLOG_INCOMPAT_KNOWN))
		return err_set(err, -ENOTSUP,
			       "log superblock: version %u, flags %#x are newer than this program",
			       le32_get(sb->version), le32_get(sb->incompat_flags));
	if (!sb_geometry_ok(sb, device_bytes))
		return err_corrupt(err,
				   "log superblock: ring of %llu bytes at %llu does not fit a "
				   "device of %llu bytes; has the device shrunk?",
				   (unsigned long long)le64_get(sb->ring_bytes),
				   (unsigned long long)le64_get(sb->ring_off),
				   (unsigned long long)device_bytes);
	if (!sb_counters_ok(sb))
		return err_corrupt(err,
				   "log superblock: tail in segment %llu at %llu, LSN %llu: no "
				   "log has written so much",
				   (unsigned long long)le64_get(sb->tail_seg),
				   (unsigned long long)le64_get(sb->tail_pos),
				   (unsigned long long)le64_get(sb->next_lsn));
	if (le32_get(sb->home_bytes) > sizeof(sb->home))
		return err_corrupt(err, "log superblock: %u bytes of the home, %zu at most",
				   le32_get(sb->home_bytes), sizeof(sb->home));
	*ret = *sb;
	return 0;
}

int sb_read(struct dev *dev, struct wlog_sb *ret, uint32_t *ret_slot, struct err *err)
{
	struct wlog_sb *block;
	int found = -ENOENT, unreadable = 0, rc = 0;

	if (dev->size_bytes < WLOG_RING_OFF)
		return err_set(err, -ENOENT, "the device is too small to hold a log");
	if (posix_memalign((void **)&block, WLOG_BLOCK, sizeof(*block)))
		return -ENOMEM;
	for (uint32_t slot = 0; slot < WLOG_SB_SLOTS; slot++) {
		struct err slot_err = ERR_INIT;
		struct wlog_sb sb;

		rc = dev_pread(dev, block, sizeof(*block), (uint64_t)slot * WLOG_SB_STRIDE);
		if (rc) {
			/* The other one may do: replay notices if it is too old. */
			unreadable = rc;
			continue;
		}
		rc = sb_decode(block, dev->size_bytes, &sb, &slot_err);
		if (rc == -ENOTSUP) {
			err_set(err, rc, "%s", slot_err.text);
			goto out;
		}
		if (rc) {
			if (found)
				found = found == -EBADMSG ? found : rc;
			continue;
		}
		if (found || le64_get(sb.sb_seq) > le64_get(ret->sb_seq)) {
			*ret = sb;
			*ret_slot = slot;
		}
		found = 0;
	}
	rc = found && unreadable ? unreadable : found;
	if (rc && unreadable)
		err_set(err, rc, "cannot read the log's superblocks");
	else if (rc == -EBADMSG)
		err_corrupt(err, "no log superblock is intact");
	else if (rc)
		err_set(err, rc, "there is no log here: format it with \"varve cache create\"");
out:
	free(block);
	return rc;
}

void sb_load(struct wlog *log, const struct wlog_sb *sb, uint32_t slot)
{
	memcpy(log->id.log_uuid.b, sb->log_uuid, sizeof(sb->log_uuid));
	memcpy(log->id.volume_uuid.b, sb->volume_uuid, sizeof(sb->volume_uuid));
	log->id.attach_epoch = le64_get(sb->attach_epoch);
	log->log_epoch = le64_get(sb->log_epoch);
	log->sb_seq = le64_get(sb->sb_seq);
	log->sb_slot = slot;
	log->device_bytes = le64_get(sb->device_bytes);
	log->ring_off = le64_get(sb->ring_off);
	log->ring_bytes = le64_get(sb->ring_bytes);
	log->tail.pos = le64_get(sb->tail_pos);
	log->tail.seg = le64_get(sb->tail_seg);
	log->tail.lsn = le64_get(sb->tail_lsn);
	log->tail.prev_crc = le32_get(sb->tail_prev_crc);
	log->tail_seg = log->tail.seg;
	log->next_seg = log->tail.seg;
	log->cut_seg = le64_get(sb->cut_seg);
	log->destaged_lsn = le64_get(sb->destaged_lsn);
	log->next_lsn = le64_get(sb->next_lsn);
	log->life_bytes = le64_get(sb->life_bytes);
	log->home_bytes = le32_get(sb->home_bytes);
	memcpy(log->home_state, sb->home, log->home_bytes);
}

/* Durable when it returns 0 (FUA). Only while nothing else is in flight. */
int sb_write_sync(struct wlog *log, bool clean, bool both, struct err *err)
{
	int rc;

	for (int i = 0; i < (both ? 2 : 1); i++) {
		log->sb_seq++;
		log->sb_slot = (log->sb_slot + 1) % WLOG_SB_SLOTS;
		sb_encode(log, &log->tail, clean, log->sb_mem);
		rc = dev_pwrite(log->dev, log->sb_mem, sizeof(*log->sb_mem),
				(uint64_t)log->sb_slot * WLOG_SB_STRIDE,
				VARVE_STEP("wlog.sb_fua_sync"));
		if (rc)
			return err_set(err, rc, "cannot write the log's superblock");
		log->written_bytes += WLOG_BLOCK;
	}
	return 0;
}
