/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of the adapter of boost: home_boost.c, the engine, and what follows, its media. */
#ifndef VOLUME_HOME_BOOST_H
#define VOLUME_HOME_BOOST_H

#include "volume/home.h"

/* home_boost_media.c: members of home_ops. */
int home_boost_configured(const struct volume_config *cfg, struct err *err);
int home_boost_spec(const char *text, struct volume_config *cfg, struct err *err);
int home_boost_create_check(struct volume_config *cfg, struct err *err);
int home_boost_create_make(struct volume_config *cfg, bool *ret_made, struct err *err);
void home_boost_create_unmake(const struct volume_config *cfg);
int home_boost_check(const struct volume_config *cfg, struct varve_check *check, struct err *err);
int home_boost_dump(const struct volume_config *cfg, const char *what, json_t **ret,
		    struct err *err);

/* home_boost_erase.c */
int home_boost_erase(struct home_erase *erase, struct err *err);

#endif
