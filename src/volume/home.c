/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of types. A new kind of home is a line here, one in the table of settings, and an
 * adapter home_*.c.
 */
#include "volume/home.h"

#include <stdio.h>
#include <string.h>

static const struct home_ops *const homes[] = {
	&home_lsvd,
	&home_boost,
	&home_btt,
};

#define HOMES (sizeof(homes) / sizeof(homes[0]))

const struct home_ops *home_find(const char *type)
{
	for (unsigned int i = 0; i < HOMES; i++)
		if (!strcmp(homes[i]->type, type))
			return homes[i];
	return NULL;
}

const struct home_ops *home_of(const struct volume_config *cfg)
{
	const struct home_ops *ops = home_find(cfg->type);

	return ops ? ops : homes[0];
}

const char *home_types(char text[64])
{
	size_t at = 0;

	text[0] = '\0';
	for (unsigned int i = 0; i < HOMES && at < 64; i++)
		at += (size_t)snprintf(text + at, 64 - at, "%s%s", i ? ", " : "", homes[i]->type);
	return text;
}

int home_spec(const char *text, struct volume_config *cfg, struct err *err)
{
	int rc = 1;

	/* The first type takes whatever no other one knows as its own. */
	for (unsigned int i = HOMES; i-- > 0 && rc > 0;) {
		rc = homes[i]->spec(text, cfg, err);
		if (!rc)
			snprintf(cfg->type, sizeof(cfg->type), "%s", homes[i]->type);
	}
	return rc;
}

void home_tell_cache(const struct wlog_info *info, json_t *top)
{
	for (unsigned int i = 0; i < HOMES; i++)
		if (homes[i]->tell_cache)
			homes[i]->tell_cache(info, top);
}
