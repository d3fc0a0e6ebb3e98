/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emulated persistent memory: formatting and recovery.
 *
 * Purpose. From two copies of each unit, find the newest that is whole, and tell what a power cut
 * has torn, which is normal, from what has rotted, which must not pass for an older state.
 *
 * Algorithm. A copy has a stamp at both ends, with its batch. A copy is whole when both stamps and
 * the payload agree; of a damaged one a stamp that is left still tells its batch. Let B be the
 * highest batch that any stamp tells: all batches before B were durable when B was written. The
 * newest whole copy of a unit is its content, and if its other copy
 *
 *   tells no batch, or an older one   nothing is lost: it was about to be overwritten, or unused
 *   tells batch B                     the write of it was cut off: it had not been acknowledged
 *   tells a newer one before B        it had been durable: damage, refused
 *
 * A torn copy is then written again from the whole one, as of batch B still: with B + 1 in other
 * units it would look like damage at the next opening. Damage to a copy of batch B itself, or to
 * both stamps at once, passes for a torn write; nothing tells them apart.
 *
 * Durable when: before a memory is handed out, one flush makes everything durable that recovery has
 * read, for it may have come from the device's cache, left there by a process that was killed, and
 * what has been read must not be gone after the next power cut.
 *
 * Formatting. The superblocks are wiped and that is flushed; the units are written and flushed;
 * the superblocks are written and flushed. So whoever finds a superblock finds all units.
 *
 * Locks. None: nobody else has the memory yet.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bitmap.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/mutant.h"
#include "pmem/emu_impl.h"

#define EMU_SUPERS_ALL ((1u << EMU_SUPERS) - 1)

/* What recovery knows of a unit whose other copy is damaged and newer. */
struct emu_lost {
	uint64_t unit;
	uint64_t batch;
	unsigned side;
};

struct emu_scan {
	struct emu *emu;
	struct err *err;
	uint8_t *copies[2]; /* EMU_WAVE units each */
	struct emu_lost *lost;
	size_t lost_count, lost_room;
	uint64_t last_batch;
};

static int aligned_memory(void **ret, size_t align, size_t len)
{
	return -posix_memalign(ret, align, len);
}

static int geometry(struct dev *dev, uint64_t off, uint64_t len, struct emu_geometry *ret,
		    struct err *err)
{
	uint32_t unit = dev->block_bytes > EMU_UNIT_MIN ? dev->block_bytes : EMU_UNIT_MIN;

	if (unit > EMU_UNIT_MAX)
		return err_set(err, -EINVAL, "emulated memory: blocks of %u bytes are too large",
			       dev->block_bytes);
	if (off % dev->block_bytes || len % dev->block_bytes)
		return err_set(err, -EINVAL, "emulated memory: the range at %" PRIu64 " of %" PRIu64
			       " bytes is not made of whole blocks of %u", off, len,
			       dev->block_bytes);
	if (off > dev->size_bytes || len > dev->size_bytes - off)
		return err_set(err, -EINVAL, "emulated memory: the range at %" PRIu64 " of %" PRIu64
			       " bytes ends behind the device, which has %" PRIu64, off, len,
			       dev->size_bytes);
	if (len / unit < EMU_SUPERS + 2)
		return err_set(err, -EINVAL, "emulated memory: %" PRIu64 " bytes are too few, at "
			       "least %u are needed", len, unit * (EMU_SUPERS + 2));
	ret->off_bytes = off;
	ret->len_bytes = len;
	ret->unit_bytes = unit;
	ret->units = (len / unit - EMU_SUPERS) / 2;
	return 0;
}

static uint32_t super_crc(const struct emu_super *super)
{
	struct emu_super copy = *super;

	copy.crc = le32_make(0);
	return crc32c(0, &copy, sizeof(copy));
}

/* Those superblocks whose bits are set, as of geo, or zeros. */
static int write_supers(struct dev *dev, const struct emu_geometry *geo, unsigned which, bool wipe)
{
	struct emu_super super = {
		.magic = le64_make(EMU_MAGIC),
		.version = le32_make(EMU_VERSION),
		.unit_bytes = le32_make(geo->unit_bytes),
		.off_bytes = le64_make(geo->off_bytes),
		.len_bytes = le64_make(geo->len_bytes),
		.units = le64_make(geo->units),
	};
	uint8_t *buf = calloc(1, geo->unit_bytes);
	int r = buf ? 0 : -ENOMEM;

	memcpy(super.uuid, geo->uuid.b, sizeof(super.uuid));
	super.crc = le32_make(super_crc(&super));
	if (buf && !wipe)
		memcpy(buf, &super, sizeof(super));
	for (unsigned i = 0; i < EMU_SUPERS && !r; i++) {
		if (!(which & 1u << i))
			continue;
		r = dev_pwrite(dev, buf, geo->unit_bytes,
			       geo->off_bytes + (uint64_t)i * geo->unit_bytes, false);
	}
	free(buf);
	return r;
}

/* Zeros as batch 1 into the first place of each unit; what is in the second has another format. */
static int write_zeros(struct dev *dev, const struct emu_geometry *geo)
{
	uint8_t *buf = calloc(EMU_WAVE, geo->unit_bytes);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t unit = 0; unit < geo->units && !r;) {
		uint64_t first = unit;

		for (; unit < geo->units && unit - first < EMU_WAVE; unit++)
			emu_stamp(geo, buf + (unit - first) * geo->unit_bytes, unit, 1);
		r = dev_pwrite(dev, buf, (unit - first) * geo->unit_bytes,
			       emu_place(geo, 0, first), false);
	}
	free(buf);
	return r;
}

int pm_emu_format(struct dev *dev, uint64_t off_bytes, uint64_t len_bytes, const struct uuid *uuid,
		  struct err *err)
{
	struct emu_geometry geo = {.uuid = *uuid};
	int r = geometry(dev, off_bytes, len_bytes, &geo, err);

	if (r)
		return r;
	r = write_supers(dev, &geo, EMU_SUPERS_ALL, true);
	if (!r && VARVE_STEP("pmem.emu_format_wipe_flush"))
		r = dev_flush(dev);
	if (!r)
		r = write_zeros(dev, &geo);
	if (!r && VARVE_STEP("pmem.emu_format_units_flush"))
		r = dev_flush(dev);
	if (!r)
		r = write_supers(dev, &geo, EMU_SUPERS_ALL, false);
	if (!r && VARVE_STEP("pmem.emu_format_super_flush"))
		r = dev_flush(dev);
	return r ? err_sys(err, r, "emulated memory: formatting") : 0;
}

static int decode_super(const struct emu_super *super, struct emu_geometry *geo, struct err *err)
{
	struct emu_geometry want = *geo;

	if (le64_get(super->magic) != EMU_MAGIC)
		return -ENODEV;
	if (le32_get(super->crc) != super_crc(super))
		return -EBADMSG;
	if (le32_get(super->version) != EMU_VERSION || le32_get(super->incompat_flags))
		return err_set(err, -ENOTSUP, "emulated memory: version %u, flags %#x are of a "
			       "newer program", le32_get(super->version),
			       le32_get(super->incompat_flags));
	if (le64_get(super->off_bytes) != geo->off_bytes ||
	    le64_get(super->len_bytes) != geo->len_bytes)
		return err_set(err, -EXDEV, "emulated memory: was formatted for the range at %"
			       PRIu64 " of %" PRIu64 " bytes, not at %" PRIu64 " of %" PRIu64,
			       le64_get(super->off_bytes), le64_get(super->len_bytes),
			       geo->off_bytes, geo->len_bytes);
	want.unit_bytes = le32_get(super->unit_bytes);
	want.units = le64_get(super->units);
	/* Units of another size were made on a device with other blocks: they cannot be written. */
	if (want.unit_bytes != geo->unit_bytes || want.units != geo->units)
		return err_set(err, -EXDEV, "emulated memory: has %" PRIu64 " units of %u bytes; "
			       "on this device it would have %" PRIu64 " of %u", want.units,
			       want.unit_bytes, geo->units, geo->unit_bytes);
	memcpy(geo->uuid.b, super->uuid, sizeof(geo->uuid.b));
	return 0;
}

/* ret_bad: the bits of those that are damaged, if one is good. */
static int read_super(struct dev *dev, struct emu_geometry *geo, unsigned *ret_bad,
		      struct err *err)
{
	uint8_t *buf = malloc(geo->unit_bytes);
	int r[EMU_SUPERS] = {-ENOMEM, -ENOMEM};
	unsigned bad = 0;

	for (unsigned i = 0; i < EMU_SUPERS && buf; i++) {
		struct emu_super super;

		r[i] = dev_pread(dev, buf, geo->unit_bytes,
				 geo->off_bytes + (uint64_t)i * geo->unit_bytes);
		memcpy(&super, buf, sizeof(super));
		if (!r[i])
			r[i] = decode_super(&super, geo, err);
		bad |= r[i] ? 1u << i : 0;
	}
	free(buf);
	*ret_bad = bad;
	if (buf && bad != EMU_SUPERS_ALL)
		return 0;
	if (r[0] == -ENODEV && r[1] == -ENODEV)
		return err_set(err, -ENODEV, "emulated memory: there is none at %" PRIu64
			       "; format it first", geo->off_bytes);
	return err_sys(err, r[0] != -ENODEV ? r[0] : r[1],
		       "emulated memory: no superblock at %" PRIu64 " can be read",
		       geo->off_bytes);
}

int pm_emu_free(struct dev *dev, uint64_t off_bytes, uint64_t len_bytes, struct err *err)
{
	struct emu_geometry geo;
	unsigned bad = 0;
	int r = geometry(dev, off_bytes, len_bytes, &geo, err);

	if (!r)
		r = read_super(dev, &geo, &bad, err);
	/* Damaged, but ours: a magic number was there. */
	if (r == -EBADMSG) {
		err_clear(err);
		r = 0;
	}
	if (r)
		return r;
	r = write_supers(dev, &geo, EMU_SUPERS_ALL, true);
	if (!r && VARVE_STEP("pmem.emu_free_flush"))
		r = dev_flush(dev);
	return r ? err_sys(err, r, "emulated memory: giving back its range") : 0;
}

static bool stamp_is_good(const struct emu_geometry *geo, const struct emu_stamp *stamp,
			  uint64_t unit)
{
	return le32_get(stamp->crc) == crc32c(0, (const uint8_t *)stamp + 4, sizeof(*stamp) - 4) &&
	       le64_get(stamp->format) == emu_format_id(geo) && le64_get(stamp->unit) == unit;
}

/* Whether the copy is whole; the batch that it tells, 0 for none. */
static bool inspect(const struct emu_geometry *geo, const uint8_t *copy, uint64_t unit,
		    uint64_t *ret_batch)
{
	uint32_t payload = emu_payload_bytes(geo);
	struct emu_stamp head, tail;
	bool head_good, tail_good;
	uint64_t a, b;

	memcpy(&head, copy, sizeof(head));
	memcpy(&tail, copy + sizeof(head) + payload, sizeof(tail));
	head_good = stamp_is_good(geo, &head, unit);
	tail_good = stamp_is_good(geo, &tail, unit);
	a = head_good ? le64_get(head.batch) : 0;
	b = tail_good ? le64_get(tail.batch) : 0;
	*ret_batch = a > b ? a : b;
	return head_good && tail_good && !memcmp(&head, &tail, sizeof(head)) &&
	       crc32c(0, copy + sizeof(head), payload) == le32_get(head.payload_crc);
}

static int note_lost(struct emu_scan *scan, uint64_t unit, uint64_t batch, unsigned side)
{
	size_t room = scan->lost_room ? 2 * scan->lost_room : 16;
	struct emu_lost *lost = scan->lost;

	if (scan->lost_count == scan->lost_room) {
		lost = realloc(lost, room * sizeof(*lost));
		if (!lost)
			return err_sys(scan->err, -ENOMEM, "emulated memory");
		scan->lost = lost;
		scan->lost_room = room;
	}
	lost[scan->lost_count++] = (struct emu_lost){unit, batch, side};
	return 0;
}

static int scan_unit(struct emu_scan *scan, uint64_t unit, const uint8_t *copy[2])
{
	struct emu *emu = scan->emu;
	const struct emu_geometry *geo = &emu->geo;
	uint32_t payload = emu_payload_bytes(geo);
	uint64_t batch[2];
	bool whole[2];
	unsigned newest;

	for (int i = 0; i < 2; i++) {
		whole[i] = inspect(geo, copy[i], unit, &batch[i]);
		if (batch[i] > scan->last_batch)
			scan->last_batch = batch[i];
	}
	if ((!whole[0] && !whole[1]) || (whole[0] && whole[1] && batch[0] == batch[1]))
		return err_corrupt(scan->err, "emulated memory: unit %" PRIu64 " is damaged in "
				   "both its places, at %" PRIu64 " and %" PRIu64, unit,
				   emu_place(geo, 0, unit), emu_place(geo, 1, unit));
	newest = whole[0] && (!whole[1] || batch[0] > batch[1]) ? 0 : 1;
	memcpy(emu->pm.base + unit * payload, copy[newest] + sizeof(struct emu_stamp), payload);
	if (newest)
		bitmap_set(emu->side, unit);
	if (!whole[!newest] && batch[!newest] > batch[newest])
		return note_lost(scan, unit, batch[!newest], !newest);
	return 0;
}

static int scan_units(struct emu_scan *scan)
{
	const struct emu_geometry *geo = &scan->emu->geo;
	int r = 0;

	for (uint64_t first = 0; first < geo->units && !r; first += EMU_WAVE) {
		uint64_t n = geo->units - first < EMU_WAVE ? geo->units - first : EMU_WAVE;

		for (unsigned side = 0; side < 2; side++) {
			uint64_t place = emu_place(geo, side, first);

			r = dev_pread(scan->emu->dev, scan->copies[side], n * geo->unit_bytes,
				      place);
			if (r)
				return err_sys(scan->err, r, "emulated memory: reading at %" PRIu64,
					       place);
		}
		for (uint64_t i = 0; i < n && !r; i++) {
			const uint8_t *copy[2] = {scan->copies[0] + i * geo->unit_bytes,
						  scan->copies[1] + i * geo->unit_bytes};

			r = scan_unit(scan, first + i, copy);
		}
	}
	return r;
}

/* Refuses what was durable and is damaged; what was torn is written again. */
static int mend(struct emu_scan *scan)
{
	struct emu *emu = scan->emu;
	int r = 0;

	for (size_t i = 0; i < scan->lost_count; i++) {
		const struct emu_lost *lost = &scan->lost[i];

		if (lost->batch < scan->last_batch)
			return err_corrupt(scan->err, "emulated memory: unit %" PRIu64 " was "
					   "durable as of batch %" PRIu64 " at %" PRIu64 " and is "
					   "damaged there", lost->unit, lost->batch,
					   emu_place(&emu->geo, lost->side, lost->unit));
		bitmap_set(emu->writing, lost->unit);
	}
	emu->torn = scan->lost_count;
	emu->batch = scan->last_batch;
	if (emu->pm.read_only) {
		memset(emu->writing, 0, BITMAP_WORDS(emu->geo.units) * sizeof(*emu->writing));
		return 0;
	}
	if (scan->lost_count)
		log_info("emulated memory: %zu units had been torn by a crash, their last "
			 "acknowledged contents are kept", scan->lost_count);
	if (VARVE_STEP("pmem.emu_recover_flush"))
		r = dev_flush(emu->dev);
	if (!r && scan->lost_count && VARVE_STEP("pmem.emu_mend"))
		r = emu_write_batch(emu, scan->last_batch);
	return r ? err_sys(scan->err, r, "emulated memory: recovery") : 0;
}

static int recover(struct emu *emu, struct err *err)
{
	size_t wave = (size_t)EMU_WAVE * emu->geo.unit_bytes;
	struct emu_scan scan = {.emu = emu, .err = err};
	void *copies = NULL;
	int r = aligned_memory(&copies, PM_ALIGN_BYTES, 2 * wave);

	if (r)
		return err_sys(err, r, "emulated memory");
	scan.copies[0] = copies;
	scan.copies[1] = scan.copies[0] + wave;
	r = scan_units(&scan);
	if (!r)
		r = mend(&scan);
	free(copies);
	free(scan.lost);
	return r;
}

static int allocate(struct emu *emu)
{
	const struct emu_geometry *geo = &emu->geo;
	size_t words = BITMAP_WORDS(geo->units);
	void *bounce = NULL, *base;
	int r;

	if (geo->units > (PTRDIFF_MAX - PM_ALIGN_BYTES) / geo->unit_bytes)
		return -EFBIG;
	emu->pm.len_bytes = (size_t)geo->units * emu_payload_bytes(geo);
	emu->map_bytes = (emu->pm.len_bytes + PM_ALIGN_BYTES - 1) & ~(size_t)(PM_ALIGN_BYTES - 1);
	emu->dirty = calloc(words, sizeof(*emu->dirty));
	emu->writing = calloc(words, sizeof(*emu->writing));
	emu->side = calloc(words, sizeof(*emu->side));
	emu->reqs = calloc(EMU_WAVE, sizeof(*emu->reqs));
	if (!emu->dirty || !emu->writing || !emu->side || !emu->reqs)
		return -ENOMEM;
	r = aligned_memory(&bounce, PM_ALIGN_BYTES, (size_t)EMU_WAVE * geo->unit_bytes);
	if (r)
		return r;
	emu->bounce = bounce;
	base = mmap(NULL, emu->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (base == MAP_FAILED)
		return -errno;
	emu->pm.base = base;
	r = gather_init(&emu->gather);
	emu->gather_ready = !r;
	return r;
}

static int open_emu(struct emu *emu, struct err *err)
{
	unsigned bad;
	int r = read_super(emu->dev, &emu->geo, &bad, err);

	if (r)
		return r;
	err_clear(err);
	r = allocate(emu);
	if (r)
		return err_sys(err, r, "emulated memory");
	r = recover(emu, err);
	if (r || !bad || emu->pm.read_only)
		return r;
	/* The other one is left alone, and says the same: no flush is needed. */
	log_warn("emulated memory: one of two superblocks was damaged and is written again");
	r = write_supers(emu->dev, &emu->geo, bad, false);
	return r ? err_sys(err, r, "emulated memory: writing the superblock") : 0;
}

int pm_emu_open(struct dev *dev, uint64_t off_bytes, uint64_t len_bytes, struct pmem **ret,
		struct uuid *ret_uuid, struct err *err)
{
	struct emu *emu = calloc(1, sizeof(*emu));
	int r;

	if (!emu)
		return err_sys(err, -ENOMEM, "emulated memory");
	emu->dev = dev;
	emu->pm.ops = &emu_ops;
	emu->pm.mode = PM_EMU;
	emu->pm.read_only = dev->read_only;
	r = geometry(dev, off_bytes, len_bytes, &emu->geo, err);
	if (!r)
		r = open_emu(emu, err);
	if (r) {
		emu_free(emu);
		return r;
	}
	if (ret_uuid)
		*ret_uuid = emu->geo.uuid;
	*ret = &emu->pm;
	return 0;
}
