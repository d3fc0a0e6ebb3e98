/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A log for unit tests: a memory device, a home that is an array, a host on one thread. Nothing is
 * destaged but by the test.
 *
 * A crash is wlog_rig_crash(): the log's memory is gone, the device keeps what it was given. So
 * what had been flushed is there and what was in buffers alone is not.
 */
#ifndef TESTS_LIB_WLOG_RIG_H
#define TESTS_LIB_WLOG_RIG_H

#include "dev/mem.h"
#include "lib/host_single.h"
#include "wlog/wlog.h"

#define WLOG_RIG_SECTORS 32768u /* of the volume: 16 MiB */

struct wlog_rig {
	struct host_single hs;
	struct wlog_home home;
	struct dev *dev;
	struct dev_mem_bytes *bytes;
	struct wlog_identity id;
	struct wlog_options opt;
	struct wlog *log;
	struct err err;
	uint8_t *image; /* the home's, WLOG_RIG_SECTORS long */
	uint64_t home_reads; /* pieces that were asked of it */
	struct list_head pieces; /* that wait for their answer */
	struct work answer;
	bool answering;
};

/* A formatted log of that many bytes, not open. Ends with wlog_rig_free(). */
struct wlog_rig *wlog_rig_new(uint64_t cache_bytes, uint64_t seed);
void wlog_rig_free(struct wlog_rig *rig);

int wlog_rig_look(struct wlog_rig *rig);  /* wlog_open() */
int wlog_rig_start(struct wlog_rig *rig); /* and wlog_start() */
void wlog_rig_crash(struct wlog_rig *rig);
void wlog_rig_stop(struct wlog_rig *rig); /* wlog_stop(), which must succeed, and close */

/* A write of sectors that all consist of one byte, and what it says when read. */
int wlog_rig_write(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, uint8_t fill);
int wlog_rig_flush(struct wlog_rig *rig);
int wlog_rig_op(struct wlog_rig *rig, enum dev_op op, uint64_t lba, uint32_t sectors);
int wlog_rig_read(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, void *buf);
/* Every sector of the range holds that byte. */
void wlog_rig_verify(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, uint8_t fill);

/* Takes every durable segment up to `number` to the array, and says so. */
void wlog_rig_destage(struct wlog_rig *rig, uint64_t number);
void wlog_rig_status(struct wlog_rig *rig, struct wlog_status *ret);
/* wlog_superseded(), entered. */
uint64_t wlog_rig_superseded(struct wlog_rig *rig, uint64_t lba, uint64_t end, uint64_t number,
			     bool *ret);
/* The number of the last durable segment. */
uint64_t wlog_rig_last(struct wlog_rig *rig);

#endif
