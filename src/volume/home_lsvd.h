/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the adapter of lsvd: home_lsvd.c and what follows. */
#ifndef VOLUME_HOME_LSVD_H
#define VOLUME_HOME_LSVD_H

#include "store/store.h"
#include "volume/home.h"

/* home_lsvd_dump.c: home_ops.dump */
int home_lsvd_dump(const struct volume_config *cfg, const char *what, json_t **ret,
		   struct err *err);

/* home_lsvd_erase.c: home_ops.erase */
int home_lsvd_erase(struct home_erase *erase, struct err *err);
/*
 * Deletes all objects of a volume, the superblock last: what a failure leaves can be erased again.
 * The caller has the store's lock, or nobody else knows the volume.
 */
int home_lsvd_erase_objects(struct store *store, const char *object, struct err *err);

#endif
