/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the size of an open volume, and pausing one: what happens to requests that are in
 * flight, that wait, and that come later.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <varve/varve.h>

#include "lib/tap.h"

#define MIB (1u << 20)

static const char *const settings[] = {"size=64M", "batch_age=1ms", NULL};

static struct varve_volume *open_mem(const char *spec)
{
	struct varve_volume *vol = NULL;
	const int rc = varve_open_with(spec, 0, settings, &vol);

	test_note("%s", varve_errmsg());
	CHECK_OK(rc);
	return vol;
}

static uint64_t size_of(struct varve_volume *vol)
{
	struct varve_info info;

	varve_get_info(vol, &info);
	return info.size_bytes;
}

TEST(a_grown_volume_is_grown_when_it_is_opened_again)
{
	struct varve_volume *vol = open_mem("mem:32M:g,mem:g");
	char in[4096], out[4096];

	memset(in, 'g', sizeof(in));
	CHECK_EQ(varve_pwrite(vol, in, sizeof(in), 64u * MIB, 0), -EINVAL);
	CHECK_OK(varve_resize(vol, 128u * MIB, 0));
	CHECK_EQ(size_of(vol), 128u * MIB);
	CHECK_OK(varve_pread(vol, out, sizeof(out), 100u * MIB));
	CHECK_EQ(out[0], 0);
	CHECK_OK(varve_pwrite(vol, in, sizeof(in), 128u * MIB - 4096, 0));
	CHECK_EQ(varve_pwrite(vol, in, sizeof(in), 128u * MIB - 4095, 0), -EINVAL);
	CHECK_OK(varve_close(vol));
	vol = open_mem("mem:32M:g,mem:g");
	CHECK_EQ(size_of(vol), 128u * MIB);
	CHECK_OK(varve_pread(vol, out, sizeof(out), 128u * MIB - 4096));
	CHECK_MEMEQ(in, out, sizeof(in));
	CHECK_OK(varve_close(vol));
}

TEST(what_a_shrinking_cut_off_does_not_come_back)
{
	struct varve_volume *vol = open_mem("mem:32M:s,mem:s");
	char in[8192], out[8192];

	memset(in, 's', sizeof(in));
	CHECK_OK(varve_pwrite(vol, in, sizeof(in), 32u * MIB - 4096, VARVE_FUA));
	CHECK_OK(varve_message(vol, "drain", NULL));
	CHECK_OK(varve_pwrite(vol, in, sizeof(in), 40u * MIB, 0));
	CHECK_EQ(varve_resize(vol, 32u * MIB, 0), -EINVAL);
	CHECK(strstr(varve_errmsg(), "shrink") != NULL);
	CHECK_OK(varve_resize(vol, 32u * MIB, VARVE_RESIZE_SHRINK));
	CHECK_EQ(size_of(vol), 32u * MIB);
	CHECK_EQ(varve_pread(vol, out, 512, 32u * MIB), -EINVAL);
	CHECK_OK(varve_resize(vol, 64u * MIB, 0));
	for (int i = 0; i < 2; i++) {
		CHECK_OK(varve_pread(vol, out, sizeof(out), 32u * MIB - 4096));
		CHECK_MEMEQ(in, out, 4096);
		CHECK_EQ(out[4096], 0);
		CHECK_OK(varve_pread(vol, out, sizeof(out), 40u * MIB));
		CHECK_EQ(out[0], 0);
		CHECK_OK(varve_close(vol));
		vol = open_mem("mem:32M:s,mem:s");
	}
	CHECK_OK(varve_close(vol));
}

TEST(sizes_that_cannot_be_are_refused)
{
	struct varve_volume *vol = open_mem("mem:32M,mem:r");

	CHECK_EQ(varve_resize(vol, 0, 0), -EINVAL);
	CHECK_EQ(varve_resize(vol, 64u * MIB + 1, 0), -EINVAL);
	CHECK_EQ(varve_resize(vol, UINT64_MAX / 512 * 512, 0), -EINVAL);
	CHECK_EQ(varve_resize(vol, 128u * MIB, 77), -EINVAL);
	CHECK_OK(varve_resize(vol, 64u * MIB, 0));
	CHECK_EQ(size_of(vol), 64u * MIB);
	CHECK_OK(varve_message(vol, "suspend", NULL));
	CHECK_EQ(varve_resize(vol, 128u * MIB, 0), -EBUSY);
	CHECK_OK(varve_close(vol));
}

/* ---- requests meanwhile -------------------------------------------------------------------- */

struct writer {
	struct varve_volume *vol;
	_Atomic bool over;
	_Atomic unsigned long done;
};

/* All over the larger size, at any alignment: in range it succeeds, beyond it is refused. */
static void *write_all_over(void *arg)
{
	struct writer *w = arg;
	char buf[3000];

	memset(buf, 'w', sizeof(buf));
	for (uint64_t i = 0; !atomic_load(&w->over); i++) {
		const uint64_t at = i * 1000003 % (64u * MIB - sizeof(buf));
		const int rc = varve_pwrite(w->vol, buf, sizeof(buf), at, i % 32 ? 0 : VARVE_FUA);

		CHECK(rc == 0 || (rc == -EINVAL && at + sizeof(buf) > 16u * MIB));
		atomic_fetch_add(&w->done, 1);
	}
	return NULL;
}

TEST(a_volume_is_resized_under_load)
{
	struct writer w = {.vol = open_mem("mem:64M:l,mem:l")};
	pthread_t threads[4];
	char out[3000];

	for (int i = 0; i < 4; i++)
		CHECK_OK(-pthread_create(&threads[i], NULL, write_all_over, &w));
	/* On a busy machine all of the resizing may be over before one of them has begun. */
	while (!atomic_load(&w.done))
		sched_yield();
	for (int i = 0; i < 10; i++) {
		CHECK_OK(varve_resize(w.vol, 16u * MIB, VARVE_RESIZE_SHRINK));
		CHECK_EQ(varve_pread(w.vol, out, sizeof(out), 20u * MIB), -EINVAL);
		CHECK_OK(varve_resize(w.vol, 64u * MIB, 0));
	}
	atomic_store(&w.over, true);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK_OK(varve_close(w.vol));
}

/* ---- suspending ---------------------------------------------------------------------------- */

static void *write_once(void *arg)
{
	struct writer *w = arg;

	CHECK_OK(varve_pwrite(w->vol, "late", 4, 0, VARVE_FUA));
	atomic_store(&w->done, 1);
	return NULL;
}

struct counters {
	uint64_t cache, home;
};

/* Written to the cache and to the home so far. */
static struct counters counters(struct varve_volume *vol)
{
	struct counters ret = {0};
	char *text;

	CHECK_OK(varve_status(vol, &text));
	CHECK(strstr(text, "\"suspended\":true") != NULL);
	ret.cache = strtoull(strstr(text, "\"write_bytes\":") + 14, NULL, 10);
	ret.home = strtoull(strstr(text, "\"put_bytes\":") + 12, NULL, 10);
	free(text);
	return ret;
}

TEST(a_suspended_volume_writes_nothing)
{
	struct writer w = {.vol = open_mem("mem:64M:q,mem:q")};
	struct counters before, after;
	char buf[4096] = "early", out[8];
	pthread_t thread;

	for (uint32_t i = 0; i < 1000; i++)
		CHECK_OK(varve_pwrite(w.vol, buf, sizeof(buf), i * 8192, 0));
	CHECK_OK(varve_message(w.vol, "suspend", NULL));
	CHECK_EQ(varve_message(w.vol, "suspend", NULL), -EBUSY);
	CHECK_EQ(varve_message(w.vol, "drain", NULL), -EBUSY);
	CHECK_OK(varve_message(w.vol, "flush", NULL));
	before = counters(w.vol);
	CHECK_OK(-pthread_create(&thread, NULL, write_once, &w));
	for (int i = 0; i < 2000; i++)
		after = counters(w.vol);
	CHECK_EQ(atomic_load(&w.done), 0);
	CHECK_EQ(before.cache, after.cache);
	CHECK_EQ(before.home, after.home);
	CHECK_OK(varve_message(w.vol, "resume", NULL));
	CHECK_EQ(varve_message(w.vol, "resume", NULL), -EALREADY);
	pthread_join(thread, NULL);
	CHECK_OK(varve_pread(w.vol, out, 4, 0));
	CHECK_MEMEQ(out, "late", 4);
	CHECK_OK(varve_close(w.vol));
}

TEST(a_suspended_volume_can_be_closed)
{
	struct varve_volume *vol = open_mem("mem:64M:c,mem:c");
	char out[4];

	CHECK_OK(varve_pwrite(vol, "kept", 4, 0, 0));
	CHECK_OK(varve_message(vol, "suspend", NULL));
	CHECK_OK(varve_close(vol));
	vol = open_mem("mem:64M:c,mem:c");
	/* Nobody writes to it: the gate is another one. */
	CHECK_OK(varve_message(vol, "suspend", NULL));
	CHECK_OK(varve_message(vol, "resume", NULL));
	CHECK_OK(varve_pread(vol, out, 4, 0));
	CHECK_MEMEQ(out, "kept", 4);
	CHECK_OK(varve_close(vol));
}
