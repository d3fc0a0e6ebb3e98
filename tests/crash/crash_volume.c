/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a volume promises of its devices while it is open: copies of both that are made while it is
 * suspended are a volume with everything acknowledged in it, whatever its type, and what only a
 * cache holds is not erased. Files, since copies are what it is about.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <varve/varve.h>

#include "lib/tap.h"

#define MIB (1u << 20)
#define SIZE (8u * MIB)
#define BLOCKS 250u

static void run(const char *command)
{
	test_note("%s", command);
	CHECK_EQ(system(command), 0);
}

struct pair {
	char cache[600], home[600], cache_copy[600], home_copy[600];
};

static void name_files(struct pair *p)
{
	const char *dir = test_tmpdir();

	CHECK_OK(setenv("VARVE_CONFIG_DIR", dir, 1));
	CHECK_OK(setenv("VARVE_RUN_DIR", dir, 1));
	snprintf(p->cache, sizeof(p->cache), "%s/cache", dir);
	snprintf(p->home, sizeof(p->home), "%s/home", dir);
	snprintf(p->cache_copy, sizeof(p->cache_copy), "%s/cache2", dir);
	snprintf(p->home_copy, sizeof(p->home_copy), "%s/home2", dir);
}

static void create(const struct pair *p, bool boost, const char *batch_age)
{
	char home[700], cache[700], store_dir[1400];
	const char *settings[] = {boost ? "type=boost" : "type=lsvd", home, cache, "size=8M",
				  "cache_size=8M", batch_age, NULL};
	int rc;

	snprintf(cache, sizeof(cache), "cache=%s", p->cache);
	snprintf(home, sizeof(home), boost ? "backing=%s" : "store=dir:%s/v", p->home);
	snprintf(store_dir, sizeof(store_dir), "mkdir -p '%s' '%s'", p->home, p->home_copy);
	if (!boost)
		run(store_dir);
	rc = varve_create("v", settings);
	test_note("%s", varve_errmsg());
	CHECK_OK(rc);
}

static void write_all(struct varve_volume *vol, int round)
{
	char buf[4096];

	for (uint32_t i = 0; i < BLOCKS; i++) {
		memset(buf, (int)(i + (unsigned int)round * 7 + 1), sizeof(buf));
		CHECK_OK(varve_pwrite(vol, buf, sizeof(buf),
				      (uint64_t)(i * 37 % BLOCKS) * 2 * 4096, 0));
	}
}

static void verify_all(struct varve_volume *vol, int round)
{
	char buf[4096], want[4096];

	for (uint32_t i = 0; i < BLOCKS; i++) {
		CHECK_OK(varve_pread(vol, buf, sizeof(buf),
				     (uint64_t)(i * 37 % BLOCKS) * 2 * 4096));
		memset(want, (int)(i + (unsigned int)round * 7 + 1), sizeof(want));
		CHECK_MEMEQ(buf, want, sizeof(buf));
	}
}

/* Nothing moves between the two copies, and both together have all of the last round. */
static void suspend_and_copy(bool boost)
{
	struct pair p;
	struct varve_volume *vol, *copy;
	char command[2500], spec[1300];

	name_files(&p);
	create(&p, boost, "batch_age=1h");
	CHECK_OK(varve_open("v", 0, &vol));
	for (int round = 0; round < 4; round++) {
		int rc;

		write_all(vol, round);
		CHECK_OK(varve_message(vol, "suspend", NULL));
		snprintf(command, sizeof(command), "rm -rf '%s' && cp -r '%s' '%s'", p.home_copy,
			 p.home, p.home_copy);
		run(command);
		snprintf(command, sizeof(command), "cp '%s' '%s'", p.cache, p.cache_copy);
		run(command);
		CHECK_OK(varve_message(vol, "resume", NULL));
		snprintf(spec, sizeof(spec), boost ? "%s,boost:%s" : "%s,dir:%s/v", p.cache_copy,
			 p.home_copy);
		rc = varve_open(spec, 0, &copy);
		test_note("%s", varve_errmsg());
		CHECK_OK(rc);
		verify_all(copy, round);
		CHECK_OK(varve_close(copy));
	}
	CHECK_OK(varve_close(vol));
}

TEST(copies_of_a_suspended_lsvd_volume)
{
	suspend_and_copy(false);
}

TEST(copies_of_a_suspended_boost_volume)
{
	suspend_and_copy(true);
}

/* Whoever suspends it finds nothing written from then on, not even what was on its way. */
TEST(nothing_is_written_back_while_suspended)
{
	struct varve_volume *vol;
	struct pair p;
	char *first, *second;

	name_files(&p);
	create(&p, true, "batch_age=1ms");
	CHECK_OK(varve_open("v", 0, &vol));
	for (int round = 0; round < 20; round++) {
		write_all(vol, round);
		CHECK_OK(varve_message(vol, "suspend", NULL));
		CHECK_OK(varve_status(vol, &first));
		for (int i = 0; i < 300; i++) {
			CHECK_OK(varve_status(vol, &second));
			CHECK(!strcmp(strstr(first, "\"backing\":{"),
				      strstr(second, "\"backing\":{")));
			free(second);
		}
		CHECK_OK(varve_message(vol, "resume", NULL));
		free(first);
	}
	CHECK_OK(varve_close(vol));
}

/* The engine is closed and opened again on the way: that must lose nothing acknowledged. */
TEST(growing_loses_nothing)
{
	struct varve_volume *vol;
	struct pair p;

	name_files(&p);
	create(&p, true, "batch_age=1h");
	CHECK_OK(varve_open("v", 0, &vol));
	for (int round = 0; round < 3; round++) {
		write_all(vol, round);
		CHECK_OK(varve_resize(vol, SIZE + ((uint64_t)round + 1) * MIB, 0));
		verify_all(vol, round);
	}
	write_all(vol, 3);
	CHECK_OK(varve_resize(vol, SIZE, VARVE_RESIZE_SHRINK));
	verify_all(vol, 3);
	CHECK_OK(varve_close(vol));
}

/* Leaves the volume as a killed process does, with data that only the cache has. */
static void write_and_die(const struct pair *p)
{
	struct varve_volume *vol;
	const pid_t pid = fork();
	int status;

	if (!pid) {
		if (varve_open("v", VARVE_OPEN_HOLD_DESTAGE, &vol))
			_exit(1);
		_exit(varve_pwrite(vol, p->cache, 512, 4096, VARVE_FUA) ? 2 : 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

TEST(what_only_the_cache_holds_is_not_erased)
{
	struct varve_volume *vol;
	struct pair p;
	char buf[512], *told;
	int fd;

	name_files(&p);
	create(&p, true, "batch_age=1ms");
	write_and_die(&p);
	CHECK_EQ(varve_delete("v", true), -EBUSY);
	CHECK(strstr(varve_errmsg(), "512 bytes") != NULL);
	CHECK_OK(varve_open("v", 0, &vol));
	CHECK_OK(varve_pread(vol, buf, sizeof(buf), 4096));
	CHECK_MEMEQ(buf, p.cache, sizeof(buf));
	CHECK_OK(varve_pwrite(vol, buf, 1, 0, 0));
	CHECK_EQ(varve_delete("v", true), -EBUSY); /* it is open */
	CHECK_EQ(varve_delete_with("v", VARVE_DELETE_FORCE, NULL), -EBUSY);
	CHECK_OK(varve_close(vol));
	write_and_die(&p);
	CHECK_OK(varve_delete_with("v", VARVE_DELETE_DRAIN, &told));
	free(told);
	fd = open(p.home, O_RDONLY);
	CHECK_EQ(pread(fd, buf, sizeof(buf), 4096), sizeof(buf));
	close(fd);
	CHECK_MEMEQ(buf, p.cache, sizeof(buf));
}
