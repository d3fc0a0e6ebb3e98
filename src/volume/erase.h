/* SPDX-License-Identifier: BSD-3-Clause */
/* What deleting a volume does to its cache. */
#ifndef VOLUME_ERASE_H
#define VOLUME_ERASE_H

#include "base/err.h"
#include "base/uuid.h"
#include "dev/dev.h"
#include "volume/settings.h"

/* Opens and locks the cache; *ret is NULL when there is none, or it is gone. */
int erase_take_cache(const struct volume_config *cfg, struct dev **ret, struct err *err);
void erase_give_cache(struct dev *dev); /* NULL is fine */

/* Formats the cache anew, for nobody, if it is that volume's. Durable on return. */
int erase_unbind(struct dev *dev, const struct uuid *volume, struct err *err);

#endif
