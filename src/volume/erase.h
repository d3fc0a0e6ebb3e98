/* SPDX-License-Identifier: BSD-3-Clause */
/* Deleting the objects of a volume. */
#ifndef VOLUME_ERASE_H
#define VOLUME_ERASE_H

#include "base/err.h"
#include "store/store.h"

/*
 * Deletes all objects of a volume, the superblock last: what a failure leaves can be erased again.
 * The caller has the store's lock, or nobody else knows the volume.
 */
int erase_objects(struct store *store, const char *object, struct err *err);

#endif
