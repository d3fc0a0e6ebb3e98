/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages: what can be asked of an open volume besides data.
 *
 * A message is a word, or a key of the table of settings and a value. Settings that the table does
 * not mark as changeable are refused with a sentence that says where they are set.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "volume/volume.h"

static int change(struct varve_volume *vol, const char *text)
{
	const char *value = strchr(text, ' ');
	const struct setting *setting = settings_find(text, strcspn(text, " "));
	struct err *err = errmsg_begin();
	int rc;

	if (!setting || !value)
		return errmsg_set(-EINVAL, "%s: expected drain, flush, checkpoint, hold yes|no, "
					   "or a setting and its value",
				  text);
	if (!(setting->flags & SETTING_RUNNING))
		return errmsg_set(-EBUSY, "%s cannot change while the volume is open: set it in "
					  "the definition, or when opening",
				  setting->key);
	rc = volume_enter_settled(vol);
	if (rc)
		return rc;
	/* Nothing changes when the value is wrong. */
	rc = settings_set(&vol->cfg, setting, value + 1, err);
	if (!rc)
		vol->home->ops->set(vol->home, &vol->cfg);
	volume_leave(vol);
	return rc;
}

int varve_message(struct varve_volume *volume, const char *text, char **ret_json)
{
	int rc = errmsg_check_owner(volume);

	if (rc)
		return rc;
	if (!strcmp(text, "flush"))
		rc = varve_flush(volume);
	else if (!strcmp(text, "drain"))
		rc = volume_drain(volume);
	else if (!strcmp(text, "checkpoint"))
		rc = volume_checkpoint(volume);
	else
		rc = change(volume, text);
	if (rc)
		return errmsg_set(rc, "%s of volume %s: %s", text, volume->cfg.name,
				  strerror(-rc));
	if (ret_json)
		*ret_json = NULL;
	return 0;
}
