/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Creating volumes and caches, and listing definitions.
 *
 * varve_create() reads the template, if one is named, then the settings; then it goes through these
 * steps, and back through those it has done when one fails:
 *
 *	1. the cache: open it, or create the file; format it if it is new or that is asked for
 *	2. what belongs to the home: a superblock in the store, ...
 *	3. open the volume and take the writer's right, once: this binds volume and cache to each
 *	   other, so that a lost cache is noticed from the first write on
 *	4. the definition
 *
 * Invariants
 *   1. A cache that existed is formatted only when format_cache=yes says so. One that belongs to
 *      another volume is refused otherwise.
 *   2. After a failure nothing is left that was not there before, except a cache that the caller
 *      asked to be formatted.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "volume/config.h"
#include "volume/erase.h"
#include "volume/media.h"
#include "volume/open.h"

/* What has been done and may have to be undone. */
struct creation {
	struct volume_config cfg;
	bool cache_made;
	bool cache_taken; /* it was there, and nobody's */
	bool home_made;
};

static int refuse_media(const struct volume_config *cfg, const struct volume_config *other,
			struct err *err)
{
	const char *path = NULL;

	if (cfg->backing[0] && media_same(other->backing, cfg->backing))
		path = cfg->backing;
	else if (cfg->cache[0] && media_same(other->backing, cfg->cache))
		path = cfg->cache;
	if (!path)
		return 0;
	return err_set(err, -EEXIST,
		       "%s is the backing device of volume %s, whose cache may hold what it lacks: "
		       "delete that volume first",
		       path, other->name);
}

/*
 * P6: a backing device bears no mark of ours, so nothing but the definitions says that it has a
 * cache already. Two caches before it would each write over what the other has written. What cannot
 * be read of other volumes is no reason to refuse this one.
 */
static int refuse_taken(const struct volume_config *cfg, struct err *err)
{
	struct volume_config *other = malloc(sizeof(*other));
	char **names = NULL;
	int rc = other ? config_list(&names, err) : -ENOMEM;

	for (char **name = names; !rc && *name; name++)
		if (!config_open(*name, other, NULL) && other->backing[0])
			rc = refuse_media(cfg, other, err);
	config_free_list(names);
	free(other);
	return rc;
}

static int validate(const char *name, struct volume_config *cfg, struct err *err)
{
	char path[PATH_MAX];
	int rc = config_path(name, path, err);

	if (rc)
		return rc;
	if (!access(path, F_OK))
		return err_set(err, -EEXIST, "volume %s exists already (%s)", name, path);
	snprintf(cfg->name, sizeof(cfg->name), "%s", name);
	rc = settings_check(cfg, err);
	if (!rc)
		rc = refuse_taken(cfg, err);
	if (!rc)
		rc = home_of(cfg)->create_check(cfg, err);
	return rc ? rc : config_fits(cfg, err);
}

/* ---- the cache ----------------------------------------------------------------------------- */

/*
 * For that volume, or with the null UUID (of a volume that keeps its own elsewhere) for any: either
 * way it is bound when a writer's right is first taken with it.
 */
static int format(struct dev *dev, const struct uuid *volume, bool force, struct err *err)
{
	const struct uuid random = uuid_new();
	struct wlog_format_options opt = {.id.volume_uuid = *volume, .force = force};
	struct wlog_identity id;

	memcpy(&opt.random, random.b, sizeof(opt.random));
	return wlog_format(dev, &opt, &id, err);
}

/* A cache that was there and is to stay as it is: formatted, and nobody's. */
static int adopt(struct creation *c, struct dev *dev, struct err *err)
{
	struct wlog_info info;
	struct err why = ERR_INIT;
	int rc = wlog_probe(dev, &info, &why);

	if (rc == -ENOENT)
		return err_set(err, -ENODEV, "%s is not formatted as a cache: format_cache=yes "
					     "formats it, and what it holds is lost",
			       c->cfg.cache);
	if (rc)
		return err_set(err, rc, "cache %s: %s", c->cfg.cache, err_text(&why, rc));
	if (!uuid_is_zero(&info.id.volume_uuid))
		return err_set(err, -EXDEV,
			       "cache %s belongs to another volume already; format_cache=yes "
			       "takes it, and what it holds is lost",
			       c->cfg.cache);
	if (uuid_is_zero(&c->cfg.uuid))
		return 0;
	rc = format(dev, &c->cfg.uuid, true, err);
	c->cache_taken = !rc;
	return rc;
}

static int prepare_cache(struct creation *c, struct err *err)
{
	const unsigned int flags = c->cfg.cache_bytes ? MEDIA_CREATE : 0;
	struct dev *dev;
	bool fresh;
	int rc = media_cache_open(c->cfg.cache, flags, c->cfg.cache_bytes, &dev, &c->cache_made,
				  err);

	if (rc)
		return err_prefix(err, "cache %s%s", c->cfg.cache,
				  rc == -ENOENT ? " (cache_size creates it)" : "");
	fresh = c->cache_made || media_is_mem(c->cfg.cache);
	rc = dev->ops->lock ? dev->ops->lock(dev, err) : 0;
	if (!rc) {
		if (fresh || c->cfg.format_cache)
			rc = format(dev, &c->cfg.uuid, c->cfg.format_cache, err);
		else
			rc = adopt(c, dev, err);
		if (dev->ops->unlock)
			dev->ops->unlock(dev);
	}
	dev_close(dev);
	return rc;
}

/* ---- volumes ------------------------------------------------------------------------------- */

static int bind_cache(struct creation *c, struct err *err)
{
	struct varve_volume *vol;
	int rc, closed;

	/* Memory without a name is another one at each opening. */
	if (media_is_mem(c->cfg.cache) && !strchr(c->cfg.cache + 4, ':'))
		return 0;
	rc = open_volume(&c->cfg, 0, &vol, err);
	if (rc)
		return rc;
	rc = open_take_right(vol, err);
	closed = open_close(vol, err);
	return rc ? rc : closed;
}

static void undo(struct creation *c)
{
	struct dev *cache;

	if (c->home_made)
		home_of(&c->cfg)->create_unmake(&c->cfg);
	if (c->cache_made)
		unlink(media_path(c->cfg.cache));
	if (c->cache_taken && !erase_take_cache(&c->cfg, &cache, NULL) && cache) {
		erase_unbind(cache, &c->cfg.uuid, NULL);
		erase_give_cache(cache);
	}
}

/* What the template says comes first: the settings may say otherwise. */
static int apply_template(struct creation *c, const char *name, const char *const *settings,
			  struct err *err)
{
	static const char key[] = "template=";
	const char *template = NULL;

	for (; settings && *settings; settings++)
		if (!strncmp(*settings, key, sizeof(key) - 1))
			template = *settings + sizeof(key) - 1;
	return template ? config_read_template(template, name, &c->cfg, err) : 0;
}

/* A definition is read in any directory, and has to name the same things in each. */
static int make_absolute(char text[SETTING_TEXT_LEN], struct err *err)
{
	const size_t skip = strncmp(text, "dir:", 4) && strncmp(text, "btt:", 4) ? 0 : 4;
	char dir[PATH_MAX], path[SETTING_TEXT_LEN];
	int len;

	if (media_is_none(text) || text[skip] == '/' ||
	    (!skip && strcspn(text, ":") < strcspn(text, "/")))
		return 0;
	if (!getcwd(dir, sizeof(dir)))
		return err_sys(err, -errno, "%s: the current directory", text);
	len = snprintf(path, sizeof(path), "%.*s%s/%s", (int)skip, text, dir, text + skip);
	if (len < 0 || (size_t)len >= sizeof(path))
		return err_set(err, -ENAMETOOLONG, "%s/%s: too long", dir, text + skip);
	memcpy(text, path, (size_t)len + 1);
	return 0;
}

static int make_all_absolute(struct volume_config *cfg, struct err *err)
{
	int rc = make_absolute(cfg->store, err);

	if (!rc)
		rc = make_absolute(cfg->backing, err);
	return rc ? rc : make_absolute(cfg->cache, err);
}

static int create(struct creation *c, const char *name, const char *const *settings,
		  struct err *err)
{
	const struct home_ops *ops;
	int rc;

	settings_default(&c->cfg);
	rc = apply_template(c, name, settings, err);
	if (!rc)
		rc = settings_apply(&c->cfg, settings, err);
	if (!rc)
		rc = make_all_absolute(&c->cfg, err);
	if (!rc)
		rc = validate(name, &c->cfg, err);
	if (rc)
		return rc;
	ops = home_of(&c->cfg);
	rc = ops->no_log ? 0 : prepare_cache(c, err);
	if (!rc)
		rc = ops->create_make(&c->cfg, &c->home_made, err);
	if (!rc && !ops->no_log)
		rc = bind_cache(c, err);
	if (!rc)
		rc = config_write(name, &c->cfg, err);
	if (rc)
		undo(c);
	return rc;
}

int varve_create(const char *name, const char *const *settings)
{
	struct err *err = errmsg_begin();
	struct err why = ERR_INIT; /* what is called uses the thread's record too */
	struct creation *c = calloc(1, sizeof(*c));
	int rc = c ? create(c, name, settings, &why) : -ENOMEM;

	free(c);
	err = errmsg_begin();
	return rc ? err_set(err, rc, "creating volume %s: %s", name, err_text(&why, rc)) : 0;
}

/* ---- caches -------------------------------------------------------------------------------- */

struct cache_settings {
	uint64_t bytes;
	struct uuid volume;
	bool force;
};

static int parse_cache_setting(struct cache_settings *set, const char *text, struct err *err)
{
	int rc = -EINVAL;

	if (!strncmp(text, "size=", 5))
		rc = size_parse(text + 5, &set->bytes);
	else if (!strncmp(text, "uuid=", 5))
		rc = uuid_from_text(text + 5, &set->volume);
	else if (!strcmp(text, "force=yes") || !strcmp(text, "force=no"))
		set->force = text[6] == 'y', rc = 0;
	return rc ? err_set(err, -EINVAL, "%s: expected size=SIZE, uuid=UUID or force=yes", text)
		  : 0;
}

int varve_cache_create(const char *path, const char *const *settings)
{
	struct err *err = errmsg_begin();
	struct cache_settings set = {0};
	bool made = false;
	struct dev *dev;
	int rc = 0;

	for (; settings && *settings && !rc; settings++)
		rc = parse_cache_setting(&set, *settings, err);
	if (!rc)
		rc = media_cache_open(path, set.bytes ? MEDIA_CREATE : 0, set.bytes, &dev, &made,
				      err);
	if (rc)
		return rc;
	rc = dev->ops->lock ? dev->ops->lock(dev, err) : 0;
	if (!rc) {
		rc = format(dev, &set.volume, set.force, err);
		if (dev->ops->unlock)
			dev->ops->unlock(dev);
	}
	dev_close(dev);
	if (rc && made)
		unlink(path);
	return rc;
}

/* ---- definitions --------------------------------------------------------------------------- */

int varve_list(char ***ret_names)
{
	return config_list(ret_names, errmsg_begin());
}

void varve_free_names(char **names)
{
	config_free_list(names);
}

static json_t *definition_json(const char *name, const struct volume_config *cfg)
{
	json_t *top = json_object(), *settings = json_object();
	char *text = malloc(SETTING_TEXT_LEN);

	json_object_set_new(top, "name", json_string(name));
	json_object_set_new(top, "type", json_string(cfg->type));
	json_object_set_new(top, "without_cache", json_string(home_of(cfg)->promise));
	for (unsigned int i = 0; text && i < settings_count; i++) {
		if (!(cfg->given >> i & 1))
			continue;
		settings_get(cfg, &settings_table[i], text);
		json_object_set_new(settings, settings_table[i].key, json_string(text));
	}
	free(text);
	json_object_set_new(top, "settings", settings);
	return top;
}

int varve_definition(const char *name, char **ret_json)
{
	struct err *err = errmsg_begin();
	struct volume_config *cfg = malloc(sizeof(*cfg));
	int rc = cfg ? config_open(name, cfg, err) : -ENOMEM;
	json_t *top = rc ? NULL : definition_json(name, cfg);
	char *text = top ? json_dumps(top, JSON_COMPACT) : NULL;

	json_decref(top);
	free(cfg);
	if (!rc && !text)
		rc = err_set(err, -ENOMEM, "volume %s: no memory", name);
	if (!rc)
		*ret_json = text;
	return rc;
}
