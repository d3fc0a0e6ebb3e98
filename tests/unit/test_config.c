/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Definitions of volumes: their files, and what is wrong with them.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <varve/varve.h>

#include "lib/tap.h"
#include "volume/config.h"

static void use_tmpdir(void)
{
	CHECK_OK(setenv("VARVE_CONFIG_DIR", test_tmpdir(), 1));
}

static void put_file(const char *name, const char *text)
{
	char path[4096];
	FILE *file;

	use_tmpdir();
	snprintf(path, sizeof(path), "%s/%s.conf", test_tmpdir(), name);
	file = fopen(path, "w");
	CHECK(file != NULL);
	fputs(text, file);
	fclose(file);
}

static void wrong(const char *text, const char *why)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	struct err err = ERR_INIT;
	int rc;

	put_file("bad", text);
	settings_default(cfg);
	rc = config_read("bad", cfg, &err);
	test_note("%s", err.text);
	CHECK_EQ(rc, -EINVAL);
	CHECK(strstr(err.text, why) != NULL);
	free(cfg);
}

TEST(a_definition_is_read)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	struct err err = ERR_INIT;

	put_file("v", "# a comment\n[volume]\nsize = 10G ; ten\nstore=dir:/srv/o/v\n"
		      "cache = /ssd/v.img\nbatch_age = 1500ms\nhold = yes\n");
	settings_default(cfg);
	CHECK_OK(config_read("v", cfg, &err));
	CHECK_EQ(cfg->size_bytes, UINT64_C(10) << 30);
	CHECK_STREQ(cfg->store, "dir:/srv/o/v");
	CHECK_STREQ(cfg->cache, "/ssd/v.img");
	CHECK_EQ(cfg->batch_age_ns, 1500000000);
	CHECK(cfg->hold);
	CHECK_EQ(cfg->lsvd.puts_in_flight, 4);
	free(cfg);
}

TEST(every_complaint_has_file_and_line)
{
	char line[400];

	wrong("[volume]\nsize = 10G\ncolour = red\n", "bad.conf:3: unknown setting colour");
	wrong("[volume]\nsize = ten\n", "bad.conf:2: size = ten: expected");
	wrong("[volume]\nsize = 1G\n\nsize = 2G\n", "bad.conf:4: size is given twice");
	wrong("[volume]\nsize = 1G\n  more\n", "bad.conf:3: size is given twice");
	wrong("size = 1G\n", "bad.conf:1: expected the section [volume]");
	wrong("[volume]\n[other]\nsize = 1G\n", "bad.conf:3: expected the section");
	wrong("[volume]\nnonsense\n", "bad.conf:2: expected KEY = VALUE");
	wrong("[volume]\nformat_cache = yes\n", "bad.conf:2: unknown setting");
	snprintf(line, sizeof(line), "[volume]\ncache = /%0300d\n", 1);
	wrong(line, "bad.conf:2: line too long");
}

TEST(a_missing_definition_is_enoent)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	struct err err = ERR_INIT;

	use_tmpdir();
	settings_default(cfg);
	CHECK_EQ(config_read("none", cfg, &err), -ENOENT);
	CHECK(strstr(err.text, "there is no volume none") != NULL);
	free(cfg);
}

TEST(names_that_could_be_paths_are_refused)
{
	char name[200];

	CHECK(config_name_ok("vm1"));
	CHECK(config_name_ok("A.b_c-9"));
	CHECK(!config_name_ok(""));
	CHECK(!config_name_ok(".hidden"));
	CHECK(!config_name_ok("-option"));
	CHECK(!config_name_ok("a/b"));
	CHECK(!config_name_ok("a b"));
	CHECK(!config_name_ok(".."));
	memset(name, 'x', sizeof(name));
	name[VOLUME_NAME_MAX] = '\0';
	CHECK(config_name_ok(name));
	name[VOLUME_NAME_MAX] = 'x';
	name[VOLUME_NAME_MAX + 1] = '\0';
	CHECK(!config_name_ok(name));
}

TEST(what_is_written_is_read_and_nothing_else_is_left)
{
	struct volume_config *cfg = malloc(sizeof(*cfg)), *again = malloc(sizeof(*again));
	const char *const list[] = {"size=3G", "store=/srv/o/w", "cache=/ssd/w", "buffers=17",
				    "full_timeout=90s", "format_cache=yes", NULL};
	struct err err = ERR_INIT;
	const struct dirent *entry;
	DIR *dir;
	int files = 0;

	use_tmpdir();
	settings_default(cfg);
	settings_default(again);
	CHECK_OK(settings_apply(cfg, list, &err));
	CHECK_OK(config_write("w", cfg, &err));
	CHECK_EQ(config_write("w", cfg, &err), -EEXIST);
	CHECK_OK(config_read("w", again, &err));
	CHECK_EQ(again->size_bytes, 0); /* the volume itself knows it */
	CHECK_EQ(again->log.buffers, 17);
	CHECK_EQ(again->log.full_timeout_ns, UINT64_C(90000000000));
	CHECK(!again->format_cache);
	dir = opendir(test_tmpdir());
	while ((entry = readdir(dir)))
		files += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
	closedir(dir);
	CHECK_EQ(files, 1);
	free(cfg);
	free(again);
}

/* The longest line that is written is read back, one character more is refused. */
TEST(lines_that_could_not_be_read_are_not_written)
{
	struct volume_config *cfg = malloc(sizeof(*cfg)), *again = malloc(sizeof(*again));
	char setting[4000] = "cache=/";
	const char *const list[] = {"size=3G", "store=/srv/o/w", setting, NULL};
	struct err err = ERR_INIT;
	size_t len = strlen(setting);
	int rc = 0;

	use_tmpdir();
	while (!rc && len < sizeof(setting) - 1) {
		setting[len++] = 'x';
		settings_default(cfg);
		CHECK_OK(settings_apply(cfg, list, &err));
		rc = config_fits(cfg, &err);
	}
	CHECK_EQ(config_write("long", cfg, &err), -ENAMETOOLONG);
	test_note("%s", err.text);
	CHECK_EQ(rc, -ENAMETOOLONG);
	CHECK(strstr(err.text, "cache: ") != NULL);
	err_clear(&err);
	setting[len - 1] = '\0';
	settings_default(again);
	CHECK_OK(settings_apply(cfg, list, &err));
	CHECK_OK(config_write("long", cfg, &err));
	CHECK_OK(config_read("long", again, &err));
	CHECK_STREQ(again->cache, cfg->cache);
	free(cfg);
	free(again);
}

/* ---- whole volumes ------------------------------------------------------------------------- */

static char cache_arg[4200], store_arg[4200];

static void create_args(void)
{
	use_tmpdir();
	snprintf(cache_arg, sizeof(cache_arg), "cache=%s/cache.img", test_tmpdir());
	snprintf(store_arg, sizeof(store_arg), "store=dir:%s/objects", test_tmpdir());
}

TEST(create_list_open_delete)
{
	const char *const settings[] = {"size=64M", cache_arg, store_arg, "cache_size=32M", NULL};
	struct varve_volume *vol;
	struct varve_info info;
	char **names, buf[512] = "hello", path[4200];
	int rc;

	create_args();
	rc = varve_create("vm1", settings);
	test_note("%s", varve_errmsg());
	CHECK_OK(rc);
	CHECK_EQ(varve_create("vm1", settings), -EEXIST);
	CHECK_OK(varve_list(&names));
	CHECK_STREQ(names[0], "vm1");
	CHECK(names[1] == NULL);
	varve_free_names(names);
	for (int i = 0; i < 2; i++) {
		rc = varve_open("vm1", 0, &vol);
		test_note("%s", varve_errmsg());
		CHECK_OK(rc);
		varve_get_info(vol, &info);
		CHECK_EQ(info.size_bytes, 64 << 20);
		CHECK_STREQ(info.name, "vm1");
		if (!i)
			CHECK_OK(varve_pwrite(vol, buf, 512, 0, VARVE_FUA));
		memset(buf, 0, sizeof(buf));
		CHECK_OK(varve_pread(vol, buf, 512, 0));
		CHECK_STREQ(buf, "hello");
		if (!i) {
			CHECK_EQ(varve_delete("vm1", true), -EBUSY);
			test_note("%s", varve_errmsg());
			CHECK(strstr(varve_errmsg(), "deleting volume vm1: ") == varve_errmsg());
		}
		CHECK_OK(varve_close(vol));
	}
	CHECK_OK(varve_delete("vm1", true));
	CHECK_EQ(varve_open("vm1", 0, &vol), -ENOENT);
	CHECK_EQ(varve_delete("vm1", true), -ENOENT);
	CHECK(strstr(varve_errmsg(), "deleting volume vm1: there is no volume") != NULL);
	snprintf(path, sizeof(path), "%s/objects", test_tmpdir());
	CHECK(access(path, F_OK) != 0);
	/* The cache was given back: it can serve another volume. */
	CHECK_OK(varve_create("vm2", settings));
	CHECK_OK(varve_delete("vm2", false));
}

TEST(a_create_that_fails_leaves_nothing)
{
	const char *const settings[] = {"size=64M", cache_arg, store_arg, "cache_size=32M", NULL};
	char path[4200];

	create_args();
	snprintf(store_arg, sizeof(store_arg), "store=dir:%s/missing/objects", test_tmpdir());
	CHECK_EQ(varve_create("vm1", settings), -ENOENT);
	snprintf(path, sizeof(path), "%s/cache.img", test_tmpdir());
	CHECK(access(path, F_OK) != 0);
	snprintf(path, sizeof(path), "%s/vm1.conf", test_tmpdir());
	CHECK(access(path, F_OK) != 0);
}

TEST(create_refuses_a_setting_that_is_too_long)
{
	const char *const settings[] = {"size=64M", cache_arg, store_arg, "cache_size=32M", NULL};
	char path[4200];

	create_args();
	snprintf(path, sizeof(path), "%s/cache.img", test_tmpdir());
	snprintf(store_arg, sizeof(store_arg), "store=dir:%s/%0300d", test_tmpdir(), 1);
	CHECK_EQ(varve_create("vm1", settings), -ENAMETOOLONG);
	test_note("%s", varve_errmsg());
	CHECK(strstr(varve_errmsg(), "creating volume vm1: store: ") != NULL);
	CHECK(access(path, F_OK) != 0);
}

TEST(a_foreign_cache_is_not_formatted)
{
	const char *const settings[] = {"size=64M", cache_arg, store_arg, "cache_size=32M", NULL};
	const char *const forced[] = {"size=64M", cache_arg, store_arg, "format_cache=yes", NULL};
	struct varve_volume *vol;

	create_args();
	CHECK_OK(varve_create("vm1", settings));
	snprintf(store_arg, sizeof(store_arg), "store=dir:%s/others", test_tmpdir());
	CHECK_EQ(varve_create("vm2", settings), -EXDEV);
	CHECK_OK(varve_open("vm1", 0, &vol));
	CHECK_OK(varve_close(vol));
	CHECK_OK(varve_create("vm2", forced));
	CHECK(varve_open("vm1", 0, &vol) == 0 || strlen(varve_errmsg()) > 10);
}

TEST(a_file_that_is_no_cache_is_refused)
{
	const char *const settings[] = {"size=64M", cache_arg, store_arg, NULL};
	char path[4200];

	create_args();
	snprintf(path, sizeof(path), "%s/cache.img", test_tmpdir());
	CHECK_EQ(varve_create("vm1", settings), -ENOENT);
	fclose(fopen(path, "w"));
	CHECK_OK(truncate(path, 32 << 20));
	CHECK_EQ(varve_create("vm1", settings), -ENODEV);
	CHECK(strstr(varve_errmsg(), "format_cache=yes") != NULL);
}
