/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A simulated block device with a volatile write cache, for tests: deterministic, on one thread.
 *
 * struct sim_disk is the platters: it survives power cuts and is what devices are opened on.
 * A device completes its requests one at a time, in an order drawn from the world's seed, each
 * time poll() or help() is called. See base/sim_world.h for power cuts and faults.
 *
 *	sim_world_init(&world, seed);
 *	sim_disk_new(&world, &(struct sim_disk_options){.size_bytes = 1 << 20}, &disk);
 *	sim_dev_open(disk, &dev);
 *	world.cut_at = 17;
 *	... use dev until world.power_off ...
 *	dev_close(dev);
 *	sim_disk_crash(disk, SIM_KEEP_RANDOM(seed));
 *	sim_world_power_on(&world);
 *	sim_dev_open(disk, &dev);
 *
 * The order of closing the dead device and of the crash does not matter. To go on after looking
 * at a crash, take images instead: sim_disk_image().
 */
#ifndef DEV_SIM_H
#define DEV_SIM_H

#include "base/sim_world.h"
#include "dev/dev.h"

struct sim_disk;

struct sim_disk_options {
	uint64_t size_bytes;
	uint32_t block_bytes; /* 0: 512 */
	bool no_discard;
	bool garbage; /* sectors never written read as seeded garbage, not as zeros */
	bool can_zero;
	char identity[DEV_IDENTITY_LEN]; /* what dev_identity() says */
	/* A request completes latency_ns after its submission, plus up to jitter_ns. */
	uint64_t latency_ns;
	uint64_t jitter_ns;
};

/* The kinds of struct sim_fault for disks. Faults belong to the disk and survive crashes. */
enum sim_dev_fault {
	/*
	 * The request fails with fault->error. Of a write, any part may have happened. After a
	 * failed flush any part of what it would have covered is lost for good, though reads may
	 * still show it, and all later writes and flushes fail until the device is reopened or
	 * forgiven (dev_forgive()).
	 */
	SIM_DEV_ERROR,
	SIM_DEV_LOST,      /* a write or zero succeeds but never happens */
	SIM_DEV_MISDIRECT, /* a write or zero succeeds but goes to another place */
	SIM_DEV_ROT,       /* a bit of what is read, or was written, is wrong from now on */
	SIM_DEV_DELAY,     /* it takes fault->delay_ns longer */
	SIM_DEV_FLUSH_LIE, /* a flush succeeds and does nothing: what the harness must notice */
};

int sim_disk_new(struct sim_world *world, const struct sim_disk_options *opt,
		 struct sim_disk **ret);

/* All devices on it must be closed. */
void sim_disk_free(struct sim_disk *disk);

/* Several devices may be open on one disk; they see each other's writes. */
int sim_dev_open(struct sim_disk *disk, struct dev **ret);

/*
 * A power cut, as this disk sees it. Its contents become what keep says; devices opened before
 * are dead and never complete anything again, except as base/sim_world.h says for poll(wait).
 * Fails with -ENOMEM only, and then has changed nothing.
 */
int sim_disk_crash(struct sim_disk *disk, struct sim_keep keep);

/* The same with a seed drawn from rng: SIM_KEEP_RANDOM. */
int sim_dev_crash(struct sim_disk *disk, struct rng *rng);

/*
 * Makes dst, a disk of the same size and usually of another world, what src would be after a
 * crash now. src goes on undisturbed. Faults are not copied: dst has its own. Devices that were
 * open on dst are dead.
 */
int sim_disk_image(const struct sim_disk *src, struct sim_keep keep, struct sim_disk *dst);

/*
 * The death of the process that had dev open: requests in flight land or not, by the seed; what
 * was acknowledged stays in the write cache of the disk. The device is dead.
 */
void sim_dev_kill(struct dev *dev);

/* How many writes, zeroes and discards a crash would now decide about: the bound of PREFIX. */
uint64_t sim_disk_undurable(const struct sim_disk *disk);

/* Persistence points passed by this disk alone. */
uint64_t sim_disk_events(const struct sim_disk *disk);

/* Writes whose memory changed between submit and done: always a bug of the caller. */
uint64_t sim_disk_scribbles(const struct sim_disk *disk);

int sim_disk_fault(struct sim_disk *disk, const struct sim_fault *fault);
void sim_disk_heal(struct sim_disk *disk);

/*
 * Flips that many bits in the range, durable and visible at once. len_bytes 0: somewhere in one
 * sector, drawn from those ever written. Returns the offset of the last byte hit, or -ENOENT.
 */
int64_t sim_disk_rot(struct sim_disk *disk, uint64_t off_bytes, uint64_t len_bytes, unsigned bits);

/*
 * The disk is that many bytes long from now on, durably; what is new was never written. -EINVAL: it
 * would shrink, or is no multiple of the block; -ENOMEM. Then nothing has changed. Devices learn of
 * it by resize_look; dev_resize() is the same for one of them.
 */
int sim_disk_grow(struct sim_disk *disk, uint64_t size_bytes);
uint64_t sim_disk_size(const struct sim_disk *disk);

/* The durable bytes; and the way to change them behind everybody's back. */
const void *sim_disk_durable(const struct sim_disk *disk);
void sim_disk_poke(struct sim_disk *disk, uint64_t off_bytes, const void *buf, size_t len_bytes);

/* When the next request of the device is due; UINT64_MAX when none is in flight. */
uint64_t sim_dev_next_due_ns(struct dev *dev);

#endif
