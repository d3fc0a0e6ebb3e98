/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening by configuration, for those in this room that have one: create, delete, check, dump.
 */
#ifndef VOLUME_OPEN_H
#define VOLUME_OPEN_H

#include "volume/volume.h"

/*
 * What name_or_spec says, with settings on top: a definition, or "CACHE,STORE". cfg->name becomes
 * the definition's name, or the volume's name in its store.
 */
int open_configure(const char *name_or_spec, const char *const *settings,
		   struct volume_config *cfg, struct err *err);

/* flags: VARVE_OPEN_*. */
int open_volume(const struct volume_config *cfg, unsigned int flags, struct varve_volume **ret,
		struct err *err);

/* Takes the writer's right at once; for varve_create(), which binds the cache by it. */
int open_take_right(struct varve_volume *vol, struct err *err);

/* As varve_close(). */
int open_close(struct varve_volume *vol, struct err *err);

/* Closes home and cache, and frees. The engine is closed. */
void open_close_media(struct varve_volume *vol);

#endif
