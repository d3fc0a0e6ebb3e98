/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A boost volume as its users see it, over memory and files: what is adopted, what is told, what is
 * given up.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <varve/varve.h>

#include "lib/tap.h"

#define MIB (1u << 20)

static const char *const settings[] = {"batch_age=1ms", NULL};

static struct varve_volume *open_it(const char *spec, unsigned int flags)
{
	struct varve_volume *vol = NULL;
	const int rc = varve_open_with(spec, flags, settings, &vol);

	test_note("%s", varve_errmsg());
	CHECK_OK(rc);
	return vol;
}

static json_t *status_of(struct varve_volume *vol)
{
	json_t *status;
	char *text;

	CHECK_OK(varve_status(vol, &text));
	status = json_loads(text, 0, NULL);
	free(text);
	CHECK(status != NULL);
	return status;
}

static uint64_t dirty_bytes(struct varve_volume *vol)
{
	json_t *status = status_of(vol);
	const json_int_t bytes = json_integer_value(
		json_object_get(json_object_get(status, "home"), "dirty_bytes"));

	json_decref(status);
	return (uint64_t)bytes;
}

static void make_file(const char *path, uint64_t bytes)
{
	const int fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	CHECK(fd >= 0);
	CHECK_OK(ftruncate(fd, (off_t)bytes));
	CHECK_OK(close(fd));
}

TEST(what_was_written_is_read)
{
	struct varve_volume *vol = open_it("mem:16M:a,boost:mem:32M:a2", 0);
	char in[10000], out[10000];
	struct varve_info info;

	varve_get_info(vol, &info);
	CHECK_STREQ(info.type, "boost");
	CHECK_STREQ(info.name, "a2");
	CHECK_EQ(info.size_bytes, 32u * MIB);
	memset(in, 'b', sizeof(in));
	for (int i = 0; i < 3; i++) {
		CHECK_OK(varve_pwrite(vol, in, sizeof(in), 12345, 0));
		CHECK_EQ(varve_pwrite(vol, in, sizeof(in), 32u * MIB - 9999, 0), -EINVAL);
		CHECK_OK(varve_zero(vol, 12345 + 5000, 100, 0));
		memset(in + 5000, 0, 100);
		CHECK_OK(varve_message(vol, "drop_caches", NULL));
		CHECK_EQ(dirty_bytes(vol), 0);
		CHECK_OK(varve_pread(vol, out, sizeof(out), 12345));
		CHECK_MEMEQ(in, out, sizeof(in));
		CHECK_OK(varve_discard(vol, 0, MIB, 0));
		CHECK_OK(varve_close(vol));
		vol = open_it("mem:16M:a,boost:mem:32M:a2", 0);
	}
	CHECK_OK(varve_close(vol));
}

TEST(it_grows)
{
	struct varve_volume *vol = open_it("mem:16M:g,boost:mem:8M:g2", 0);
	struct varve_info info;
	char out[4];

	CHECK_OK(varve_message(vol, "hold yes", NULL));
	CHECK_OK(varve_pwrite(vol, "kept", 4, 100, 0));
	CHECK_OK(varve_resize(vol, 24u * MIB, 0));
	varve_get_info(vol, &info);
	CHECK_EQ(info.size_bytes, 24u * MIB);
	CHECK_OK(varve_pread(vol, out, 4, 100));
	CHECK_MEMEQ(out, "kept", 4);
	CHECK_OK(varve_pwrite(vol, "more", 4, 23u * MIB, 0));
	CHECK_EQ(varve_resize(vol, 8u * MIB, VARVE_RESIZE_SHRINK), -EOPNOTSUPP);
	CHECK_OK(varve_resize(vol, 0, 0));
	CHECK_OK(varve_pread(vol, out, 4, 23u * MIB));
	CHECK_MEMEQ(out, "more", 4);
	CHECK_OK(varve_close(vol));
}

/*
 * Who looks while another resizes, and writes after that, has the new size; what lies beyond it is
 * refused.
 */
TEST(who_looks_while_another_resizes_writes_by_the_new_size)
{
	static const char cache[] = "/tmp/varve-test-%d.cache", backing[] = "/tmp/varve-test-%d";
	struct varve_volume *looker, *owner;
	char cache_path[64], path[64], spec[160];
	struct varve_info info;

	snprintf(cache_path, sizeof(cache_path), cache, getpid());
	snprintf(path, sizeof(path), backing, getpid());
	snprintf(spec, sizeof(spec), "%s,boost:%s", cache_path, path);
	make_file(path, 16u * MIB);
	make_file(cache_path, 16u * MIB);
	CHECK_OK(varve_cache_create(cache_path, NULL));
	for (unsigned int mib = 8; mib <= 24; mib += 16) {
		looker = open_it(spec, 0);
		owner = open_it(spec, 0);
		CHECK_OK(varve_pwrite(owner, "owner", 5, 0, 0));
		CHECK_OK(varve_resize(owner, (uint64_t)mib * MIB, VARVE_RESIZE_SHRINK));
		CHECK_OK(varve_close(owner));
		CHECK_OK(varve_pwrite(looker, "looks", 5, MIB, 0));
		varve_get_info(looker, &info);
		CHECK_EQ(info.size_bytes, (uint64_t)mib * MIB);
		CHECK_EQ(varve_pwrite(looker, "beyond", 6, (uint64_t)mib * MIB - 1, 0), -EINVAL);
		CHECK_OK(varve_close(looker));
	}
	CHECK_OK(unlink(path));
	CHECK_OK(unlink(cache_path));
}

TEST(only_its_own_settings)
{
	const char *const wrong[] = {"batch_size=1M", NULL};
	struct varve_volume *vol;

	CHECK_EQ(varve_open_with("mem:16M,boost:mem:8M", 0, wrong, &vol), -EINVAL);
	CHECK(strstr(varve_errmsg(), "batch_size is a setting of lsvd volumes") != NULL);
	CHECK_EQ(varve_open("mem:16M:x,boost:mem:16M:x", 0, &vol), -EINVAL);
	CHECK(strstr(varve_errmsg(), "is the backing device") != NULL);
}

/* The second process's cache is gone: it is told what that means. */
TEST(a_cut_is_told)
{
	const char *const held[] = {"hold=yes", NULL};
	char cache[600], home[600], spec[1300];
	struct varve_volume *vol;
	struct varve_info info;
	int fd;

	snprintf(cache, sizeof(cache), "%s/c", test_tmpdir());
	snprintf(home, sizeof(home), "%s/b", test_tmpdir());
	snprintf(spec, sizeof(spec), "%s,boost:%s", cache, home);
	fd = open(home, O_RDWR | O_CREAT, 0600);
	CHECK_OK(ftruncate(fd, 8 * MIB));
	close(fd);
	CHECK_OK(varve_cache_create(cache, (const char *const[]){"size=16M", NULL}));
	if (!fork()) {
		if (varve_open_with(spec, 0, held, &vol))
			_exit(1);
		_exit(varve_pwrite(vol, cache, 512, 8192, VARVE_FUA) ? 2 : 0);
	}
	wait(NULL);
	vol = open_it(spec, VARVE_OPEN_DISCARD_CACHE);
	varve_get_info(vol, &info);
	CHECK(info.cut);
	CHECK(!info.cut_unknown);
	CHECK_EQ(info.cut_lost_bytes, 512);
	CHECK_OK(varve_close(vol));
	fd = open(cache, O_RDWR);
	CHECK_OK(ftruncate(fd, 0));
	CHECK_OK(ftruncate(fd, 16 * MIB));
	close(fd);
	vol = open_it(spec, VARVE_OPEN_DISCARD_CACHE);
	varve_get_info(vol, &info);
	CHECK(info.cut && info.cut_unknown);
	CHECK_OK(varve_close(vol));
}

TEST(the_state_is_one_word_with_reasons)
{
	struct varve_volume *vol = open_it("mem:16M:s,boost:mem:8M:s2", 0);
	json_t *status = status_of(vol);

	CHECK_STREQ(json_string_value(json_object_get(status, "state")), "ok");
	CHECK_EQ(json_array_size(json_object_get(status, "reasons")), 0);
	CHECK(strstr(json_string_value(json_object_get(status, "without_cache")), "nothing is") !=
	      NULL);
	json_decref(status);
	CHECK_OK(varve_message(vol, "suspend", NULL));
	status = status_of(vol);
	CHECK_STREQ(json_string_value(json_object_get(status, "state")), "degraded");
	CHECK_EQ(json_array_size(json_object_get(status, "reasons")), 1);
	json_decref(status);
	CHECK_OK(varve_close(vol));
}
