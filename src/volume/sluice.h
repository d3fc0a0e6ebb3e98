/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sluices: what a volume puts between its engine and a device or store, to know whether anything
 * has been submitted since it was last kicked.
 *
 * Devices and stores start what is queued when they are kicked. Kicking costs a lock, and the hot
 * path of a write submits nothing; so the sluice passes everything through and keeps one flag.
 *
 * Who must kick: sluice_take() hands the duty to exactly one caller. The flag is raised after the
 * request is queued, so whoever takes it and kicks afterwards starts that request.
 *
 * Threads: as dev/dev.h and store/store.h; sluice_*_take() from any thread.
 */
#ifndef VOLUME_SLUICE_H
#define VOLUME_SLUICE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "dev/dev.h"
#include "store/store.h"

struct sluice_dev {
	struct dev dev;
	struct dev *inner;
	_Atomic bool queued;
};

struct sluice_store {
	struct store store;
	struct store *inner;
	_Atomic bool queued;
};

/* The sluice owns inner: dev_close(&sluice->dev) closes both. -ENOMEM leaves it alone. */
int sluice_dev_new(struct dev *inner, struct sluice_dev **ret);
int sluice_store_new(struct store *inner, struct sluice_store **ret);

/* Whether something may be queued; if so, the caller has to kick or to help. */
static inline bool sluice_dev_take(struct sluice_dev *sluice)
{
	/* Pairs with the release in submit: what made the flag true is queued already. */
	return sluice && atomic_load_explicit(&sluice->queued, memory_order_relaxed) &&
	       atomic_exchange_explicit(&sluice->queued, false, memory_order_acquire);
}

static inline bool sluice_store_take(struct sluice_store *sluice)
{
	return sluice && atomic_load_explicit(&sluice->queued, memory_order_relaxed) &&
	       atomic_exchange_explicit(&sluice->queued, false, memory_order_acquire);
}

#endif
