/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The contents of a simulated disk, and what a power cut makes of them.
 *
 * There are two images: durable, which survives, and visible, which reads return. Every write
 * that is not known to be durable is kept with its data in one of two lists: acked, in the order
 * of acknowledgement, and flying, in the order of submission. A flush applies a prefix of acked
 * to the durable image. A crash chooses from both lists, applies the choice to the durable image,
 * and copies the touched ranges back to the visible one; so it costs what is in the lists and
 * not the size of the disk.
 *
 * Invariants
 *  1. Outside the ranges of the two lists visible equals durable, unless diverged is set.
 *  2. visible is durable plus all of acked in order, plus the EARLY sectors of flying.
 *  3. A sector of an acknowledged write that a FUA write has overwritten durably is GONE: no
 *     choice may bring back what is older than something durable.
 *  4. The choices of a crash depend on the lists and on struct sim_keep only, and change neither
 *     the lists nor the world.
 *
 * A choice for each sector of each write in order gives each sector any of its versions, whatever
 * the order in which the medium really took overlapping writes; some choices shuffle all the
 * same, so that whole writes change places too.
 *
 * Locks: none, one thread.
 */
#include "dev/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Separates the seeds of several disks that crash with the same sim_keep. */
#define ID_MIX UINT64_C(0x9e3779b97f4a7c15)

static uint8_t *sector_data(struct sim_write *w, uint64_t i)
{
	return w->data + i * DEV_SECTOR_BYTES;
}

static uint64_t sector_off(const struct sim_write *w, uint64_t i)
{
	return w->off_bytes + i * DEV_SECTOR_BYTES;
}

static void apply_sector(uint8_t *image, struct sim_write *w, uint64_t i)
{
	if (w->state[i] != SIM_SECTOR_GONE)
		memcpy(image + sector_off(w, i), sector_data(w, i), DEV_SECTOR_BYTES);
}

static void apply(uint8_t *image, struct sim_write *w)
{
	for (uint64_t i = 0; i < w->sectors; i++)
		apply_sector(image, w, i);
}

struct sim_write *sim_write_new(struct sim_disk *disk, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t sectors = len_bytes / DEV_SECTOR_BYTES;
	struct sim_write *w = malloc(sizeof(*w) + len_bytes + sectors);

	if (!w)
		return NULL;
	w->dev = NULL;
	w->seq = 0;
	w->off_bytes = off_bytes;
	w->sectors = sectors;
	w->state = w->data + len_bytes;
	memset(w->state, SIM_SECTOR_OPEN, sectors);
	list_add_tail(&w->link, &disk->flying);
	return w;
}

void sim_write_free(struct sim_write *w)
{
	list_del(&w->link);
	free(w);
}

/* Invariant 3: what was acknowledged earlier may not come back over a durable newer write. */
static void supersede(struct sim_disk *disk, const struct sim_write *newer)
{
	struct sim_write *w;
	uint64_t end = newer->off_bytes + newer->sectors * DEV_SECTOR_BYTES;

	list_for_each_entry(w, &disk->acked, struct sim_write, link) {
		for (uint64_t i = 0; i < w->sectors; i++) {
			uint64_t off = sector_off(w, i);

			if (off < newer->off_bytes || off >= end)
				continue;
			if (newer->state[(off - newer->off_bytes) / DEV_SECTOR_BYTES] !=
			    SIM_SECTOR_GONE)
				w->state[i] = SIM_SECTOR_GONE;
		}
	}
}

void sim_write_land(struct sim_disk *disk, struct sim_write *w, bool fua)
{
	memset(disk->written + w->off_bytes / DEV_SECTOR_BYTES, 1, w->sectors);
	apply(disk->visible, w);
	list_del(&w->link);
	if (fua) {
		supersede(disk, w);
		apply(disk->durable, w);
		free(w);
		return;
	}
	w->seq = ++disk->seq;
	list_add_tail(&w->link, &disk->acked);
}

void sim_write_land_part(struct sim_disk *disk, struct sim_write *w)
{
	uint64_t eighths = sim_world_below(disk->world, 9);

	/* What a read has seen already has happened: it stays. */
	for (uint64_t i = 0; i < w->sectors; i++)
		if (w->state[i] == SIM_SECTOR_OPEN && sim_world_below(disk->world, 8) >= eighths)
			w->state[i] = SIM_SECTOR_GONE;
	sim_write_land(disk, w, false);
}

void sim_disk_race(struct sim_disk *disk, uint64_t off_bytes, uint64_t len_bytes)
{
	struct sim_write *w;

	list_for_each_entry(w, &disk->flying, struct sim_write, link) {
		if (w->off_bytes >= off_bytes + len_bytes ||
		    off_bytes >= w->off_bytes + w->sectors * DEV_SECTOR_BYTES)
			continue;
		if (sim_world_below(disk->world, 4))
			continue;
		for (uint64_t i = 0; i < w->sectors; i++) {
			if (w->state[i] != SIM_SECTOR_OPEN || sim_world_below(disk->world, 2))
				continue;
			w->state[i] = SIM_SECTOR_EARLY;
			apply_sector(disk->visible, w, i);
		}
	}
}

void sim_disk_flush(struct sim_disk *disk, uint64_t seq)
{
	struct sim_write *w, *tmp;

	list_for_each_entry_safe(w, tmp, &disk->acked, struct sim_write, link) {
		if (w->seq > seq)
			return;
		apply(disk->durable, w);
		sim_write_free(w);
	}
}

void sim_disk_flush_failed(struct sim_disk *disk)
{
	struct sim_write *w, *tmp;
	bool revert = sim_world_below(disk->world, 2);
	uint64_t eighths = sim_world_below(disk->world, 9);

	list_for_each_entry(w, &disk->acked, struct sim_write, link)
		for (uint64_t i = 0; i < w->sectors; i++)
			if (sim_world_below(disk->world, 8) < eighths)
				apply_sector(disk->durable, w, i);
	list_for_each_entry_safe(w, tmp, &disk->acked, struct sim_write, link) {
		if (revert)
			memcpy(disk->visible + w->off_bytes, disk->durable + w->off_bytes,
			       w->sectors * DEV_SECTOR_BYTES);
		sim_write_free(w);
	}
	/* Like a page cache that has marked its pages clean: reads may show what is not there. */
	disk->diverged = true;
}

/* One write of a random choice: whole, its beginning, or any of its sectors. */
static void choose_torn(uint8_t *image, struct sim_write *w, struct rng *rng)
{
	uint64_t how = rng_below(rng, 4);
	uint64_t upto = how == 2 ? rng_below(rng, w->sectors + 1) : w->sectors;

	for (uint64_t i = 0; i < upto; i++)
		if (how != 3 || rng_next(rng) & 1)
			apply_sector(image, w, i);
}

static void choose_subset(uint8_t *image, struct sim_write **all, uint64_t count, struct rng *rng)
{
	static const uint8_t eighths[] = {1, 4, 7};
	uint64_t keep = eighths[rng_below(rng, 3)];

	if (rng_chance(rng, 1, 2)) {
		for (uint64_t i = count; i > 1; i--) {
			uint64_t j = rng_below(rng, i);
			struct sim_write *w = all[j];

			all[j] = all[i - 1];
			all[i - 1] = w;
		}
	}
	for (uint64_t i = 0; i < count; i++)
		if (rng_below(rng, 8) < keep)
			choose_torn(image, all[i], rng);
}

static void choose_prefix(uint8_t *image, struct sim_write **all, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++)
		apply(image, all[i]);
}

static void choose_random(uint8_t *image, struct sim_write **all, uint64_t count, struct rng *rng)
{
	uint64_t prefix;

	switch (rng_below(rng, 8)) {
	case 0:
		break;
	case 1:
		choose_prefix(image, all, count);
		break;
	case 2:
	case 3:
		prefix = rng_below(rng, count + 1);
		choose_prefix(image, all, prefix);
		if (prefix < count)
			choose_torn(image, all[prefix], rng);
		break;
	default:
		choose_subset(image, all, count, rng);
	}
}

static uint64_t gather(const struct sim_disk *disk, struct sim_write **all)
{
	const struct list_head *lists[] = {&disk->acked, &disk->flying};
	struct sim_write *w;
	uint64_t count = 0;

	for (int i = 0; i < 2; i++) {
		list_for_each_entry(w, lists[i], struct sim_write, link) {
			if (all)
				all[count] = w;
			count++;
		}
	}
	return count;
}

/* Applies to the image what a crash of disk leaves of its undurable writes. */
static int choose(const struct sim_disk *disk, struct sim_keep keep, uint8_t *image)
{
	struct sim_write *few[64], **all = few;
	uint64_t count = gather(disk, NULL);
	struct rng rng;

	if (count == 0)
		return 0;
	if (count > sizeof(few) / sizeof(few[0])) {
		all = malloc(count * sizeof(struct sim_write *));
		if (!all)
			return -ENOMEM;
	}
	gather(disk, all);
	switch (keep.what) {
	case SIM_KEEP_WHAT_NONE:
		break;
	case SIM_KEEP_WHAT_ALL:
		choose_prefix(image, all, count);
		break;
	case SIM_KEEP_WHAT_PREFIX:
		choose_prefix(image, all, keep.n < count ? keep.n : count);
		break;
	case SIM_KEEP_WHAT_RANDOM:
		rng_seed(&rng, keep.n ^ (disk->id * ID_MIX));
		choose_random(image, all, count, &rng);
		break;
	}
	if (all != few)
		free(all);
	return 0;
}

static void drop_list(struct sim_disk *disk, struct list_head *list, bool resync)
{
	struct sim_write *w, *tmp;

	list_for_each_entry_safe(w, tmp, list, struct sim_write, link) {
		if (resync)
			memcpy(disk->visible + w->off_bytes, disk->durable + w->off_bytes,
			       w->sectors * DEV_SECTOR_BYTES);
		sim_write_free(w);
	}
}

/* A new life: no undurable writes, no devices, no lock. */
static void reboot(struct sim_disk *disk, bool resync)
{
	drop_list(disk, &disk->acked, resync);
	drop_list(disk, &disk->flying, resync);
	disk->boot++;
	disk->owner = NULL;
}

int sim_disk_crash(struct sim_disk *disk, struct sim_keep keep)
{
	int ret = choose(disk, keep, disk->durable);

	if (ret)
		return ret;
	reboot(disk, !disk->diverged);
	if (disk->diverged)
		memcpy(disk->visible, disk->durable, disk->opt.size_bytes);
	disk->diverged = false;
	return 0;
}

int sim_dev_crash(struct sim_disk *disk, struct rng *rng)
{
	return sim_disk_crash(disk, SIM_KEEP_RANDOM(rng_next(rng)));
}

int sim_disk_image(const struct sim_disk *src, struct sim_keep keep, struct sim_disk *dst)
{
	uint64_t size = src->opt.size_bytes;
	int ret;

	if (dst == src || dst->opt.size_bytes != size)
		return -EINVAL;
	reboot(dst, false);
	memcpy(dst->durable, src->durable, size);
	ret = choose(src, keep, dst->durable);
	memcpy(dst->visible, dst->durable, size);
	memcpy(dst->written, src->written, size / DEV_SECTOR_BYTES);
	dst->diverged = false;
	return ret;
}

int sim_disk_new(struct sim_world *world, const struct sim_disk_options *opt, struct sim_disk **ret)
{
	uint32_t block = opt->block_bytes ? opt->block_bytes : DEV_SECTOR_BYTES;
	struct sim_disk *disk;

	if (block < DEV_SECTOR_BYTES || (block & (block - 1)) || !opt->size_bytes ||
	    opt->size_bytes % block)
		return -EINVAL;
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return -ENOMEM;
	disk->world = world;
	disk->opt = *opt;
	disk->opt.block_bytes = block;
	disk->id = ++world->next_id;
	list_init(&disk->acked);
	list_init(&disk->flying);
	disk->durable = calloc(1, opt->size_bytes);
	disk->visible = calloc(1, opt->size_bytes);
	disk->written = calloc(1, opt->size_bytes / DEV_SECTOR_BYTES);
	if (!disk->durable || !disk->visible || !disk->written) {
		sim_disk_free(disk);
		return -ENOMEM;
	}
	if (opt->garbage) {
		rng_fill(&world->rng, disk->durable, opt->size_bytes);
		memcpy(disk->visible, disk->durable, opt->size_bytes);
	}
	*ret = disk;
	return 0;
}

static uint8_t *grown(const uint8_t *old, uint64_t old_bytes, uint64_t new_bytes)
{
	uint8_t *p = calloc(1, new_bytes);

	if (p)
		memcpy(p, old, old_bytes);
	return p;
}

int sim_disk_grow(struct sim_disk *disk, uint64_t size_bytes)
{
	const uint64_t old = disk->opt.size_bytes;
	uint8_t *durable, *visible, *written;

	if (size_bytes < old || size_bytes % disk->opt.block_bytes)
		return -EINVAL;
	durable = grown(disk->durable, old, size_bytes);
	visible = grown(disk->visible, old, size_bytes);
	written = grown(disk->written, old / DEV_SECTOR_BYTES, size_bytes / DEV_SECTOR_BYTES);
	if (!durable || !visible || !written) {
		free(durable);
		free(visible);
		free(written);
		return -ENOMEM;
	}
	if (disk->opt.garbage && size_bytes > old) {
		rng_fill(&disk->world->rng, durable + old, size_bytes - old);
		memcpy(visible + old, durable + old, size_bytes - old);
	}
	free(disk->durable);
	free(disk->visible);
	free(disk->written);
	disk->durable = durable;
	disk->visible = visible;
	disk->written = written;
	disk->opt.size_bytes = size_bytes;
	return 0;
}

uint64_t sim_disk_size(const struct sim_disk *disk)
{
	return disk->opt.size_bytes;
}

void sim_disk_free(struct sim_disk *disk)
{
	if (!disk)
		return;
	reboot(disk, false);
	free(disk->durable);
	free(disk->visible);
	free(disk->written);
	free(disk);
}

uint64_t sim_disk_undurable(const struct sim_disk *disk)
{
	return gather(disk, NULL);
}

uint64_t sim_disk_events(const struct sim_disk *disk)
{
	return disk->events;
}

uint64_t sim_disk_scribbles(const struct sim_disk *disk)
{
	return disk->scribbles;
}

int sim_disk_fault(struct sim_disk *disk, const struct sim_fault *fault)
{
	return sim_faults_add(&disk->faults, fault);
}

void sim_disk_heal(struct sim_disk *disk)
{
	disk->faults.count = 0;
}

/* A sector that was ever written, or -1. */
static int64_t draw_written(struct sim_disk *disk)
{
	uint64_t sectors = disk->opt.size_bytes / DEV_SECTOR_BYTES;
	uint64_t first = sim_world_below(disk->world, sectors);

	for (uint64_t i = 0; i < sectors; i++) {
		uint64_t s = (first + i) % sectors;

		if (disk->written[s])
			return (int64_t)s;
	}
	return -1;
}

int64_t sim_disk_rot(struct sim_disk *disk, uint64_t off_bytes, uint64_t len_bytes, unsigned bits)
{
	uint64_t at = off_bytes;

	if (len_bytes == 0) {
		int64_t sector = draw_written(disk);

		if (sector < 0)
			return -ENOENT;
		off_bytes = (uint64_t)sector * DEV_SECTOR_BYTES;
		len_bytes = DEV_SECTOR_BYTES;
	}
	for (unsigned i = 0; i < bits; i++) {
		uint8_t bit = (uint8_t)(1u << sim_world_below(disk->world, 8));

		at = off_bytes + sim_world_below(disk->world, len_bytes);
		disk->durable[at] ^= bit;
		disk->visible[at] ^= bit;
	}
	/* An undurable write of this place is still sound, and a flush will bring it back. */
	disk->diverged = true;
	return (int64_t)at;
}

const void *sim_disk_durable(const struct sim_disk *disk)
{
	return disk->durable;
}

void sim_disk_poke(struct sim_disk *disk, uint64_t off_bytes, const void *buf, size_t len_bytes)
{
	memcpy(disk->durable + off_bytes, buf, len_bytes);
	memcpy(disk->visible + off_bytes, buf, len_bytes);
	disk->diverged = true;
}
