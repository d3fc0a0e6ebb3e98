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

/* ---- settings ------------------------------------------------------------------------------ */

static int change(struct varve_volume *vol, const char *text)
{
	const char *value = strchr(text, ' ');
	const struct setting *setting = settings_find(text, strcspn(text, " "));
	struct err *err = errmsg_begin();
	int rc;

	if (!setting || !value)
		return errmsg_set(-EINVAL,
				  "%s: expected flush, drain, drop_caches, checkpoint, gc, "
				  "suspend, resume, resize, clear_stat, or a setting "
				  "that can change while running, and its value",
				  text);
	if (!settings_has(&vol->cfg, setting))
		return errmsg_set(-EINVAL, "%s is no setting of %s volumes, which volume %s is",
				  setting->key, vol->cfg.type, vol->cfg.name);
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
	if (vol->suspended)
		vol->home->ops->hold(vol->home, true);
	volume_leave(vol);
	return rc;
}

/* ---- resize -------------------------------------------------------------------------------- */

/* "resize [SIZE] [shrink]" */
static int resize(struct varve_volume *vol, const char *text)
{
	char size[SIZE_TEXT_LEN + 8] = "";
	const char *at = text + strlen("resize");
	unsigned int flags = 0;
	uint64_t bytes = 0;

	while (*at == ' ') {
		const size_t len = strcspn(++at, " ");

		if (len == 6 && !strncmp(at, "shrink", 6)) {
			flags = VARVE_RESIZE_SHRINK;
		} else if (!size[0] && len && len < sizeof(size)) {
			memcpy(size, at, len);
			size[len] = '\0';
		} else {
			return errmsg_set(-EINVAL,
				  "%s: expected resize [SIZE] [shrink]", text);
		}
		at += len;
	}
	if (size[0] && (size_parse(size, &bytes) || !bytes))
		return errmsg_set(-EINVAL,
				  "%s: expected a size such as 512M or 20G", size);
	return varve_resize(vol, bytes, flags);
}

static bool is_resize(const char *text)
{
	return !strncmp(text, "resize", 6) && (!text[6] || text[6] == ' ');
}

/* ---- words --------------------------------------------------------------------------------- */

static int suspended(struct varve_volume *vol)
{
	return volume_is_suspended(vol)
		       ? errmsg_set(-EBUSY, "volume %s is suspended: resume it first",
				    vol->cfg.name)
		       : 0;
}

/* What was acknowledged before a suspension is durable, and nothing has been since. */
static int say_flush(struct varve_volume *vol, const struct cancel *cancel)
{
	(void)cancel;
	return volume_is_suspended(vol) ? 0 : varve_flush(vol);
}

static int say_drain(struct varve_volume *vol, const struct cancel *cancel)
{
	const int rc = suspended(vol);

	return rc ? rc : volume_drain(vol, cancel);
}

static int say_checkpoint(struct varve_volume *vol, const struct cancel *cancel)
{
	const int rc = suspended(vol);

	(void)cancel;
	if (!vol->home->ops->checkpoint)
		return errmsg_set(-EOPNOTSUPP, "volume %s has no checkpoints: its type is %s",
				  vol->cfg.name, vol->cfg.type);
	return rc ? rc : volume_checkpoint(vol);
}

static int say_gc(struct varve_volume *vol, const struct cancel *cancel)
{
	const int rc = suspended(vol);

	if (!vol->home->ops->gc)
		return errmsg_set(-EOPNOTSUPP, "volume %s has no garbage: its type is %s",
				  vol->cfg.name, vol->cfg.type);
	return rc ? rc : volume_gc(vol, cancel);
}

static int say_suspend(struct varve_volume *vol, const struct cancel *cancel)
{
	const int rc = volume_suspend(vol, cancel);

	if (rc == -EBUSY)
		return errmsg_set(rc, "volume %s is suspended already, or being resized",
				  vol->cfg.name);
	if (rc == -ETIMEDOUT)
		return errmsg_set(rc,
				  "suspending volume %s: what is in flight has not ended within "
				  "home_timeout; it goes on",
				  vol->cfg.name);
	return rc;
}

static int say_resume(struct varve_volume *vol, const struct cancel *cancel)
{
	const int rc = volume_resume(vol);

	(void)cancel;
	return rc == -EALREADY ? errmsg_set(rc, "volume %s is not suspended", vol->cfg.name) : rc;
}

static int say_clear_stat(struct varve_volume *vol, const struct cancel *cancel)
{
	const int rc = volume_enter_settled(vol);

	(void)cancel;
	if (rc)
		return rc;
	vol->home->ops->clear_stat(vol->home);
	volume_leave(vol);
	return 0;
}

static const struct word {
	const char *word;
	bool quick;
	int (*say)(struct varve_volume *vol, const struct cancel *cancel);
} words[] = {
	{"flush", false, say_flush},
	{"drain", false, say_drain},
	{"drop_caches", false, say_drain},
	{"checkpoint", false, say_checkpoint},
	{"gc", false, say_gc},
	{"suspend", false, say_suspend},
	/* Not behind those that wait for it. */
	{"resume", true, say_resume},
	{"clear_stat", true, say_clear_stat},
};

static const struct word *word_find(const char *text)
{
	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(words[i].word, text))
			return &words[i];
	return NULL;
}

bool message_is_quick(const char *text)
{
	const struct word *word = word_find(text);

	return word && word->quick;
}

int message_run(struct varve_volume *vol, const char *text, const struct cancel *cancel,
		char **ret_json)
{
	const struct word *word = word_find(text);
	int rc = errmsg_check_owner(vol);

	if (rc)
		return rc;
	if (is_resize(text))
		rc = resize(vol, text);
	else
		rc = word ? word->say(vol, cancel) : change(vol, text);
	if (rc)
		return errmsg_set(rc, "%s of volume %s: %s", text, vol->cfg.name, strerror(-rc));
	if (ret_json)
		*ret_json = NULL;
	return 0;
}

int varve_message(struct varve_volume *volume, const char *text, char **ret_json)
{
	return message_run(volume, text, NULL, ret_json);
}
