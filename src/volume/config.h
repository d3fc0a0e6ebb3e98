/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Definitions of volumes: INI files, one for each volume, in the configuration directory, which is
 * $VARVE_CONFIG_DIR, or /etc/varve for root, or $XDG_CONFIG_HOME/varve, or ~/.config/varve.
 */
#ifndef VOLUME_CONFIG_H
#define VOLUME_CONFIG_H

#include "volume/settings.h"

/* Whether a name may be a volume's: [A-Za-z0-9._-], no dot or dash first, VOLUME_NAME_MAX bytes. */
bool config_name_ok(const char *name);

/* The directory, or the file of a volume in it. */
int config_dir(char path[PATH_MAX], struct err *err);
int config_path(const char *name, char path[PATH_MAX], struct err *err);

/* Reads NAME's definition over what cfg has. -ENOENT when there is none. */
int config_read(const char *name, struct volume_config *cfg, struct err *err);

/* The same over the defaults, and all that opening needs must be there. */
int config_open(const char *name, struct volume_config *cfg, struct err *err);

/*
 * Reads the template NAME.template over what cfg has: the same form, with %n in values for the
 * volume's name, and orders to varve_create() too. -ENOENT when there is none.
 */
int config_read_template(const char *name, const char *volume, struct volume_config *cfg,
			 struct err *err);

/* -ENAMETOOLONG when a setting would make a line that config_read() cannot read. */
int config_fits(const struct volume_config *cfg, struct err *err);

/* Writes a new one, whole or not at all; durable on return. -EEXIST, and as config_fits(). */
int config_write(const char *name, const struct volume_config *cfg, struct err *err);

int config_remove(const char *name, struct err *err);

/* Names, sorted, NULL-terminated, malloc'd each and all. */
int config_list(char ***ret_names, struct err *err);
void config_free_list(char **names);

#endif
