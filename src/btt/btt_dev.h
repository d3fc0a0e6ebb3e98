/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block translation table as a block device: what a log lies on, or what is served.
 *
 * Requests wait in a queue until kick, help or poll runs them, on the calling thread, several
 * threads at once if they like; submit never completes anything. Each sector is written whole or
 * not at all, and is durable when its request is done: a flush, and fua, cost nothing. Discarded
 * and zeroed sectors read as zeros and cost no data. A request of several sectors that fails has
 * written some of them.
 */
#ifndef BTT_BTT_DEV_H
#define BTT_BTT_DEV_H

#include "btt/btt.h"
#include "dev/dev.h"

/*
 * The pool stays the caller's, to be closed after the device. Several devices may have one pool:
 * lock() excludes one from another, but nobody who uses the pool without a device.
 * -EINVAL: the pool's blocks are not a power of two from 512 to 65536.
 */
int btt_dev_open(struct btt *btt, struct dev **ret, struct err *err);

/* From now on closing the device closes the pool, and the memory that it lies in. */
void btt_dev_own(struct dev *dev, struct pmem *pm);

#endif
