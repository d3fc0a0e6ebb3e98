/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of the simulated disk, shared by sim.c (requests) and sim_disk.c (contents).
 */
#ifndef DEV_SIM_DISK_H
#define DEV_SIM_DISK_H

#include "base/list.h"
#include "dev/sim.h"

/* What became of one sector of a write that is not durable as a whole. */
enum sim_sector {
	SIM_SECTOR_OPEN,  /* may yet become durable, or not */
	SIM_SECTOR_EARLY, /* the same, and reads have seen it before the write was acknowledged */
	SIM_SECTOR_GONE,  /* never will: something newer is durable, or a fault took it */
};

/* A write, zero or discard between its submission and the flush that covers it. */
struct sim_write {
	struct list_head link; /* disk->acked or disk->flying */
	const struct dev *dev; /* who submitted it; compared only */
	uint64_t seq;          /* of its acknowledgement */
	uint64_t off_bytes;
	uint64_t sectors;
	uint8_t *state; /* enum sim_sector for each sector */
	uint8_t data[];
};

struct sim_disk {
	struct sim_world *world;
	struct sim_disk_options opt;
	uint32_t id;
	uint64_t boot; /* devices opened under an older number are dead */
	uint8_t *durable;
	uint8_t *visible;        /* what reads return */
	uint8_t *written;        /* for each sector: was ever written */
	bool diverged;           /* visible and durable differ outside what the lists say */
	struct list_head acked;  /* in the order of seq */
	struct list_head flying; /* in the order of submission */
	uint64_t seq;            /* the last one given */
	struct sim_faults faults;
	const struct dev *owner; /* who holds the lock */
	uint64_t events;
	uint64_t scribbles;
};

/* A write with room for its data, on disk->flying; NULL when there is no memory. */
struct sim_write *sim_write_new(struct sim_disk *disk, uint64_t off_bytes, uint64_t len_bytes);
void sim_write_free(struct sim_write *w);

/* Acknowledges w: reads see it from now on. With fua it is durable, and w is freed. */
void sim_write_land(struct sim_disk *disk, struct sim_write *w, bool fua);

/* The same for any part of it, drawn from the world's seed. */
void sim_write_land_part(struct sim_disk *disk, struct sim_write *w);

/* Lets some of what is in flight in the range be seen, as a read that races it may. */
void sim_disk_race(struct sim_disk *disk, uint64_t off_bytes, uint64_t len_bytes);

/* Makes everything acknowledged up to seq durable. */
void sim_disk_flush(struct sim_disk *disk, uint64_t seq);

/* A flush that failed: of everything acknowledged, some is durable, the rest lost for good. */
void sim_disk_flush_failed(struct sim_disk *disk);

#endif
