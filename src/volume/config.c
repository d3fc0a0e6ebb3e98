/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading and writing definitions.
 *
 * A definition is one section, [volume], of keys from the table of settings. inih does the
 * parsing; a reader of ours feeds it line by line, counts them, and refuses lines that would not
 * fit its buffer, so that every complaint has a file and a line and nothing is cut silently.
 *
 * Invariants
 *   1. A definition is complete or absent: it is written to a temporary file, synced, linked to
 *      its name (which fails if the name exists), and the directory is synced.
 *   2. What config_write() writes, config_read() reads: a line that would be too long for inih is
 *      refused, by varve_create() before it has done anything.
 *   3. An unknown key, a key given twice, a bad value, another section: all are errors. A setting
 *      that is silently ignored is worse than a volume that does not open.
 */
#include "volume/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "volume/home.h"

#define SECTION "volume"
#define SUFFIX ".conf"
#define TEMPLATE_SUFFIX ".template"

/* ---- places -------------------------------------------------------------------------------- */

bool config_name_ok(const char *name)
{
	const size_t len = strlen(name);

	return len && len <= VOLUME_NAME_MAX && name[0] != '.' && name[0] != '-' &&
	       len == strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				   "0123456789._-");
}

static int put_path(char path[PATH_MAX], struct err *err, const char *a, const char *b,
		    const char *c)
{
	const int n = snprintf(path, PATH_MAX, "%s%s%s", a, b, c);

	return n < PATH_MAX ? 0 : err_set(err, -ENAMETOOLONG, "%s%s%s: too long", a, b, c);
}

int config_dir(char path[PATH_MAX], struct err *err)
{
	const char *dir = getenv("VARVE_CONFIG_DIR");

	if (dir && *dir)
		return put_path(path, err, dir, "", "");
	if (geteuid() == 0)
		return put_path(path, err, "/etc/varve", "", "");
	dir = getenv("XDG_CONFIG_HOME");
	if (dir && *dir == '/')
		return put_path(path, err, dir, "/varve", "");
	dir = getenv("HOME");
	if (!dir || !*dir)
		return err_set(err, -ENOENT, "neither VARVE_CONFIG_DIR nor HOME is set");
	return put_path(path, err, dir, "/.config/varve", "");
}

int config_path(const char *name, char path[PATH_MAX], struct err *err)
{
	char dir[PATH_MAX], file[VOLUME_NAME_MAX + sizeof(SUFFIX) + 1];
	int rc;

	if (!config_name_ok(name))
		return err_set(err, -EINVAL,
			       "%s is no name of a volume: letters, digits, '.', '_' and '-', "
			       "no '.' or '-' first, %d at most",
			       name, VOLUME_NAME_MAX);
	rc = config_dir(dir, err);
	if (rc)
		return rc;
	snprintf(file, sizeof(file), "%s" SUFFIX, name);
	return put_path(path, err, dir, "/", file);
}

/* ---- reading ------------------------------------------------------------------------------- */

struct parse {
	FILE *file;
	const char *path;
	int line;
	int rc; /* the first error; what follows is only skipped */
	struct volume_config *cfg;
	uint64_t seen; /* bit i: settings_table[i] stood in this file */
	const char *volume; /* a template: what %n stands for; NULL: a definition */
	struct err *err;
};

static int complain(struct parse *p, const char *text)
{
	if (!p->rc)
		p->rc = err_set(p->err, -EINVAL, "%s:%d: %s", p->path, p->line, text);
	return 0;
}

static char *read_line(char *buf, int size, void *stream)
{
	struct parse *p = stream;
	char *got = p->rc ? NULL : fgets(buf, size, p->file);

	if (!got)
		return NULL;
	p->line++;
	if (!strchr(buf, '\n') && !feof(p->file)) {
		complain(p, "line too long");
		return NULL;
	}
	return got;
}

/* With %n replaced by the volume's name, %% by %. */
static int expand(const struct parse *p, const char *value, char text[SETTING_TEXT_LEN])
{
	size_t at = 0;

	for (; *value; value++) {
		const char *add = NULL;

		if (*value == '%' && p->volume) {
			value++;
			if (*value != 'n' && *value != '%')
				return -EINVAL;
			add = *value == 'n' ? p->volume : "%";
		}
		if (add) {
			const int n = snprintf(text + at, SETTING_TEXT_LEN - at, "%s", add);

			at += (size_t)n;
		} else if (at < SETTING_TEXT_LEN) {
			text[at++] = *value;
		}
		if (at >= SETTING_TEXT_LEN)
			return -ENAMETOOLONG;
	}
	text[at] = '\0';
	return 0;
}

/* What stands in a definition is kept in it; a template may order too, but not name another one. */
static bool may_stand(const struct parse *p, const struct setting *setting)
{
	if (!p->volume)
		return !(setting->flags & SETTING_CREATE);
	return strcmp(setting->key, "template") != 0 && strcmp(setting->key, "uuid") != 0;
}

static int take(void *user, const char *section, const char *key, const char *value)
{
	struct parse *p = user;
	const struct setting *setting;
	char text[SETTING_TEXT_LEN];
	struct err err = ERR_INIT;
	uint64_t bit;

	if (p->rc)
		return 0;
	if (strcmp(section, SECTION) != 0)
		return complain(p, "expected the section [" SECTION "] and no other");
	setting = settings_find(key, strlen(key));
	if (!setting || !may_stand(p, setting)) {
		p->rc = err_set(p->err, -EINVAL, "%s:%d: unknown setting %s, see varve.conf(5)",
				p->path, p->line, key);
		return 0;
	}
	bit = UINT64_C(1) << (setting - settings_table);
	if (p->seen & bit) {
		p->rc = err_set(p->err, -EINVAL, "%s:%d: %s is given twice", p->path, p->line,
				key);
		return 0;
	}
	p->seen |= bit;
	if (expand(p, value, text))
		return complain(p, "expected %n, the volume's name, or %% after a %");
	if (settings_set(p->cfg, setting, text, &err))
		return complain(p, err.text);
	return 1;
}

/* p->file is open, and closed here. */
static int parse_file(struct parse *p)
{
	const int rc = ini_parse_stream(read_line, p, take, p);

	if (rc > 0 && !p->rc)
		p->rc = err_set(p->err, -EINVAL, "%s:%d: expected KEY = VALUE", p->path, rc);
	else if (rc < 0 && !p->rc)
		p->rc = err_set(p->err, -ENOMEM, "%s: no memory", p->path);
	if (ferror(p->file) && !p->rc)
		p->rc = err_set(p->err, -EIO, "%s: cannot be read", p->path);
	fclose(p->file);
	return p->rc;
}

int config_read(const char *name, struct volume_config *cfg, struct err *err)
{
	char path[PATH_MAX];
	struct parse p = {.path = path, .cfg = cfg, .err = err};
	const int rc = config_path(name, path, err);

	if (rc)
		return rc;
	p.file = fopen(path, "re");
	if (!p.file)
		return errno == ENOENT
			       ? err_set(err, -ENOENT, "there is no volume %s (%s)", name, path)
			       : err_sys(err, -errno, "%s", path);
	return parse_file(&p);
}

int config_read_template(const char *name, const char *volume, struct volume_config *cfg,
			 struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX], file[VOLUME_NAME_MAX + sizeof(TEMPLATE_SUFFIX) + 1];
	struct parse p = {.path = path, .cfg = cfg, .volume = volume, .err = err};
	int rc = 0;

	if (!config_name_ok(name))
		return err_set(err, -EINVAL, "%s is no name of a template", name);
	snprintf(file, sizeof(file), "%s" TEMPLATE_SUFFIX, name);
	rc = config_dir(dir, err);
	if (!rc)
		rc = put_path(path, err, dir, "/", file);
	if (rc)
		return rc;
	p.file = fopen(path, "re");
	if (p.file)
		return parse_file(&p);
	if (errno != ENOENT)
		return err_sys(err, -errno, "template %s", path);
	return err_set(err, -ENOENT,
		       "there is no template %s: %s does not exist. It would hold settings such as "
		       "\"[volume]\", \"store = dir:/srv/varve/%%n\", \"cache = /ssd/%%n\", "
		       "\"cache_size = 1G\", a line each, where %%n is the volume's name",
		       name, path);
}

int config_open(const char *name, struct volume_config *cfg, struct err *err)
{
	int rc;

	settings_default(cfg);
	rc = config_read(name, cfg, err);
	if (rc)
		return rc;
	snprintf(cfg->name, sizeof(cfg->name), "%s", name);
	rc = settings_check(cfg, err);
	if (!rc)
		rc = home_of(cfg)->configured(cfg, err);
	return rc ? err_prefix(err, "volume %s", name) : 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

static int make_dir(const char *dir, struct err *err)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s", dir);
	for (char *at = path + 1; ; at++) {
		const char c = *at;

		if (c && c != '/')
			continue;
		*at = '\0';
		if (mkdir(path, 0755) && errno != EEXIST)
			return err_sys(err, -errno, "%s", path);
		*at = c;
		if (!c)
			return 0;
	}
}

static int sync_dir(const char *dir, struct err *err)
{
	const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0 || fsync(fd))
		rc = err_sys(err, -errno, "%s", dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Reads nothing, but learns how large a line's buffer is: a matter of how inih was compiled. */
static char *learn_size(char *buf, int size, void *stream)
{
	(void)buf;
	*(int *)stream = size;
	return NULL;
}

static int ignore(void *user, const char *section, const char *key, const char *value)
{
	(void)user, (void)section, (void)key, (void)value;
	return 1;
}

/* Without the line's end. */
static size_t longest_line(void)
{
	int size = 0;

	ini_parse_stream(learn_size, &size, ignore, NULL);
	return size > 2 ? (size_t)size - 2 : 0;
}

/* Whether it stands in a definition that is written. */
static bool is_written(const struct volume_config *cfg, unsigned int i)
{
	const unsigned int flags = settings_table[i].flags;

	return !(flags & (SETTING_CREATE | SETTING_ONCE)) &&
	       ((cfg->given >> i & 1) || (flags & SETTING_DEFINES));
}

int config_fits(const struct volume_config *cfg, struct err *err)
{
	const size_t most = longest_line();
	char text[SETTING_TEXT_LEN];

	for (unsigned int i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		size_t len;

		if (!is_written(cfg, i))
			continue;
		settings_get(cfg, setting, text);
		len = strlen(setting->key) + strlen(" = ") + strlen(text);
		if (len > most)
			return err_set(err, -ENAMETOOLONG,
				       "%s: its line in the definition would have %zu characters, "
				       "%zu at most can be read; use a shorter value",
				       setting->key, len, most);
	}
	return 0;
}

static int write_settings(FILE *file, const struct volume_config *cfg)
{
	char text[SETTING_TEXT_LEN];

	fprintf(file, "[" SECTION "]\n");
	for (unsigned int i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];

		if (!is_written(cfg, i))
			continue;
		settings_get(cfg, setting, text);
		fprintf(file, "# %s\n%s = %s\n", setting->help, setting->key, text);
	}
	return fflush(file) || ferror(file) || fsync(fileno(file)) ? -errno : 0;
}

/* link, not rename: of two that create the same name one fails. */
static int write_and_link(const char *temp, const char *path, const struct volume_config *cfg,
			  struct err *err)
{
	FILE *file = fopen(temp, "wxe");
	int rc;

	if (!file)
		return err_sys(err, -errno, "%s", temp);
	rc = write_settings(file, cfg);
	if (fclose(file) && !rc)
		rc = -errno;
	if (rc)
		err_sys(err, rc, "%s", temp);
	else if (link(temp, path))
		rc = err_sys(err, -errno, "%s", path);
	unlink(temp);
	return rc;
}

int config_write(const char *name, const struct volume_config *cfg, struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX], temp[PATH_MAX], base[NAME_MAX];
	int rc = config_path(name, path, err);

	if (!rc)
		rc = config_fits(cfg, err);
	if (!rc)
		rc = config_dir(dir, err);
	if (!rc)
		rc = make_dir(dir, err);
	if (rc)
		return rc;
	snprintf(base, sizeof(base), ".%s.%ld.tmp", name, (long)getpid());
	rc = put_path(temp, err, dir, "/", base);
	if (!rc)
		rc = write_and_link(temp, path, cfg, err);
	return rc ? rc : sync_dir(dir, err);
}

int config_remove(const char *name, struct err *err)
{
	char dir[PATH_MAX], path[PATH_MAX];
	int rc = config_path(name, path, err);

	if (!rc)
		rc = config_dir(dir, err);
	if (!rc && unlink(path))
		rc = err_sys(err, -errno, "%s", path);
	return rc ? rc : sync_dir(dir, err);
}

/* ---- listing ------------------------------------------------------------------------------- */

void config_free_list(char **names)
{
	for (char **name = names; name && *name; name++)
		free(*name);
	free(names);
}

/* The volume's name if the file is a definition, malloc'd; "" if it is none; NULL: no memory. */
static char *name_of_file(const char *file)
{
	const size_t len = strlen(file), suffix = strlen(SUFFIX);
	char *name = strdup(file);

	if (!name)
		return NULL;
	name[len > suffix && !strcmp(file + len - suffix, SUFFIX) ? len - suffix : 0] = '\0';
	if (!config_name_ok(name))
		name[0] = '\0';
	return name;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int collect(DIR *dir, char ***names, size_t *count)
{
	const struct dirent *entry;

	while ((entry = readdir(dir))) {
		char *name = name_of_file(entry->d_name);
		char **more;

		if (!name)
			return -ENOMEM;
		if (!*name) {
			free(name);
			continue;
		}
		more = realloc(*names, (*count + 2) * sizeof(*more));
		if (!more) {
			free(name);
			return -ENOMEM;
		}
		*names = more;
		more[(*count)++] = name;
		more[*count] = NULL;
	}
	return 0;
}

int config_list(char ***ret_names, struct err *err)
{
	char path[PATH_MAX];
	char **names = calloc(1, sizeof(*names));
	size_t count = 0;
	DIR *dir = NULL;
	int rc = names ? config_dir(path, err) : -ENOMEM;

	if (!rc) {
		dir = opendir(path);
		/* No directory: no volumes. */
		if (!dir && errno != ENOENT)
			rc = err_sys(err, -errno, "%s", path);
	}
	if (dir) {
		rc = collect(dir, &names, &count);
		closedir(dir);
	}
	if (rc) {
		config_free_list(names);
		return err_set(err, rc, "listing volumes: no memory");
	}
	qsort(names, count, sizeof(*names), by_name);
	*ret_names = names;
	return 0;
}
