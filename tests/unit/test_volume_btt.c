/* SPDX-License-Identifier: BSD-3-Clause */
/* Volumes that are pools of atomic blocks, and pools that carry a log. */
#include <dlfcn.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <varve/btt.h>

#include "volume/volume.h"
#include "lib/pmdk_make.h"
#include "lib/tap.h"

/* In place of libc's: as many processors as a test wants. */
static long processors;

long sysconf(int name)
{
	long (*real)(int) = NULL;

	if (name == _SC_NPROCESSORS_ONLN && processors)
		return processors;
	*(void **)&real = dlsym(RTLD_NEXT, "sysconf");
	return real(name);
}

static char backing[512], cache[512], store[512];

static void begin(void)
{
	const char *dir = test_tmpdir();

	CHECK_EQ(setenv("VARVE_CONFIG_DIR", dir, 1), 0);
	CHECK_EQ(setenv("VARVE_RUN_DIR", dir, 1), 0);
	CHECK_EQ(setenv("PMEM_IS_PMEM_FORCE", "1", 1), 0);
	snprintf(backing, sizeof(backing), "backing=%s/pool", dir);
	snprintf(cache, sizeof(cache), "cache=btt:%s/log", dir);
	snprintf(store, sizeof(store), "store=dir:%s/v", dir);
}

static void create(const char *block_size)
{
	const char *const settings[] = {"type=btt", backing, "size=4M", block_size, NULL};

	begin();
	CHECK_OK(varve_create("v", settings));
}

static struct varve_volume *open_v(unsigned int flags)
{
	struct varve_volume *vol = NULL;

	CHECK_OK(varve_open("v", flags, &vol));
	return vol;
}

TEST(what_is_written_is_read_also_after_reopening)
{
	char buf[8192], got[8192];
	struct varve_volume *vol;
	struct varve_info info;

	create("block_size=4096");
	vol = open_v(0);
	varve_get_info(vol, &info);
	CHECK_STREQ(info.type, "btt");
	CHECK_EQ(info.size_bytes % 4096, 0);
	CHECK(info.size_bytes >= 4 << 20);
	CHECK_EQ(info.max_atomic_bytes, 4096);
	memset(buf, 'x', sizeof(buf));
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 4096, 0));
	CHECK_OK(varve_flush(vol));
	CHECK_OK(varve_close(vol));
	vol = open_v(0);
	CHECK_OK(varve_pread(vol, got, sizeof(got), 4096));
	CHECK_MEMEQ(got, buf, sizeof(got));
	CHECK_OK(varve_close(vol));
}

TEST(any_alignment_is_accepted)
{
	char buf[5000], got[5002];
	struct varve_volume *vol;

	create("block_size=4096");
	vol = open_v(0);
	memset(buf, 'y', sizeof(buf));
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 7777, 0));
	CHECK_OK(varve_pread(vol, got, sizeof(got), 7776));
	CHECK_EQ(got[0], 0);
	CHECK_MEMEQ(got + 1, buf, sizeof(buf));
	CHECK_EQ(got[5001], 0);
	CHECK_OK(varve_close(vol));
}

TEST(zeroed_and_discarded_ranges_are_zeros)
{
	char buf[65536], zeros[65536] = {0};
	struct varve_volume *vol;

	create("block_size=512");
	vol = open_v(0);
	memset(buf, 'z', sizeof(buf));
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, 0));
	CHECK_OK(varve_zero(vol, 0, 30000, 0));
	CHECK_OK(varve_discard(vol, 30208, 35328, 0));
	CHECK_OK(varve_pread(vol, buf, 30000, 0));
	CHECK_MEMEQ(buf, zeros, 30000);
	CHECK_OK(varve_pread(vol, buf, 35328, 30208));
	CHECK_MEMEQ(buf, zeros, 35328);
	CHECK_OK(varve_close(vol));
}

TEST(writes_survive_the_death_of_their_process)
{
	char got[4096], want[4096];
	struct varve_volume *vol;
	int status;
	pid_t pid;

	create("block_size=512");
	memset(want, 'k', sizeof(want));
	pid = fork();
	if (!pid) {
		vol = open_v(0);
		CHECK_OK(varve_pwrite(vol, want, sizeof(want), 12288, 0));
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	vol = open_v(0);
	CHECK_OK(varve_pread(vol, got, sizeof(got), 12288));
	CHECK_MEMEQ(got, want, sizeof(got));
	CHECK_OK(varve_close(vol));
}

TEST(by_msync_nothing_blocks_the_submitter_and_all_is_done)
{
	char buf[4096] = "msync", got[4096];
	struct varve_volume *vol;

	create("block_size=4096");
	CHECK_EQ(setenv("PMEM_IS_PMEM_FORCE", "0", 1), 0);
	vol = open_v(0);
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, VARVE_FUA));
	CHECK_OK(varve_pread(vol, got, sizeof(got), 0));
	CHECK_MEMEQ(got, buf, sizeof(got));
	CHECK_OK(varve_close(vol));
}

static void post(struct varve_io *io)
{
	sem_post(io->user);
}

/* Whichever thread touches the memory: what is submitted is by msync done by a worker. */
TEST(a_file_that_is_cut_short_is_an_error_and_no_death)
{
	static char buf[4096];
	const struct iovec iov = {buf, sizeof(buf)};
	struct varve_volume *vol;
	struct varve_io io;
	sem_t done;

	create("block_size=4096");
	CHECK_EQ(setenv("PMEM_IS_PMEM_FORCE", "0", 1), 0);
	vol = open_v(0);
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, 0));
	CHECK_EQ(truncate(strchr(backing, '/'), 4096), 0);
	CHECK_EQ(varve_pread(vol, buf, sizeof(buf), 0), -EIO);
	CHECK_EQ(varve_pwrite(vol, buf, sizeof(buf), 0, 0), -EIO);
	CHECK_EQ(sem_init(&done, 0, 0), 0);
	io = (struct varve_io){.op = VARVE_READ,
			       .length = sizeof(buf),
			       .iov = &iov,
			       .iovcnt = 1,
			       .done = post,
			       .user = &done};
	varve_submit(vol, &io);
	while (sem_wait(&done))
		CHECK_EQ(errno, EINTR);
	CHECK_EQ(io.result, -EIO);
	varve_close(vol);
}

/* Workers are done before the last of them is asked. (The thread sanitizer sees it each time.) */
TEST(scanning_on_many_processors_ends)
{
	struct varve_btt_options options = {.pool_bytes = 1 << 20};
	struct varve_volume *vol;
	struct varve_btt *btt;
	char path[600];

	create("block_size=4096");
	processors = 16;
	vol = open_v(0); /* keeps the workers at hand */
	snprintf(path, sizeof(path), "%s/many", test_tmpdir());
	for (unsigned int i = 0; i < 400; i++) {
		CHECK_OK(varve_btt_create(path, 4096, &options, &btt));
		CHECK_OK(varve_btt_close(btt));
		CHECK_EQ(unlink(path), 0);
	}
	CHECK_OK(varve_close(vol));
}

TEST(a_pool_is_held_by_one)
{
	struct varve_volume *vol, *other;

	create("block_size=512");
	vol = open_v(0);
	CHECK_EQ(varve_open("v", 0, &other), -EBUSY);
	CHECK_OK(varve_close(vol));
}

TEST(suspending_and_draining_have_nothing_to_wait_for)
{
	char buf[512] = "s";
	struct varve_volume *vol;

	create("block_size=512");
	vol = open_v(0);
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, 0));
	CHECK_OK(varve_message(vol, "drain", NULL));
	CHECK_OK(varve_message(vol, "suspend", NULL));
	CHECK_OK(varve_message(vol, "resume", NULL));
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 512, 0));
	CHECK_OK(varve_close(vol));
}

TEST(a_cache_before_it_makes_no_sense)
{
	const char *const settings[] = {"type=btt", backing, "size=4M", "cache=mem:4M", NULL};

	begin();
	CHECK_EQ(varve_create("v", settings), -EINVAL);
}

TEST(what_exists_is_not_made_again)
{
	const char *const with_size[] = {"type=btt", backing, "size=4M", NULL};
	const char *const as_it_is[] = {"type=btt", backing, NULL};

	create("block_size=512");
	CHECK_EQ(varve_create("w", with_size), -EEXIST);
	CHECK_EQ(varve_create("w", as_it_is), -EEXIST);
	CHECK_OK(varve_delete("v", true));
	CHECK(access(backing + strlen("backing="), F_OK));
}

TEST(a_pool_of_libpmemblk_s_calls_is_a_volume)
{
	char path[600], spec[700], buf[512] = "block 3", got[512];
	struct varve_volume *vol;
	struct varve_btt *btt;

	begin();
	snprintf(path, sizeof(path), "%s/direct", test_tmpdir());
	snprintf(spec, sizeof(spec), "none,btt:%s", path);
	CHECK_OK(varve_btt_create(path, 512,
				  &(struct varve_btt_options){.pool_bytes = 4u << 20}, &btt));
	CHECK_OK(varve_btt_write(btt, buf, 3));
	CHECK_OK(varve_btt_close(btt));
	CHECK_OK(varve_open(spec, 0, &vol));
	CHECK_OK(varve_pread(vol, got, sizeof(got), 3 * 512));
	CHECK_MEMEQ(got, buf, sizeof(got));
	CHECK_OK(varve_close(vol));
}

TEST(a_pool_carries_a_log)
{
	char buf[4096] = "in the log", got[4096];
	struct varve_volume *vol;
	const char *settings[] = {"type=lsvd", cache, "cache_size=8M", store, "size=16M", NULL};

	begin();
	CHECK_OK(varve_create("l", settings));
	CHECK_OK(varve_open("l", 0, &vol));
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 8192, VARVE_FUA));
	CHECK_OK(varve_close(vol));
	CHECK_OK(varve_open("l", VARVE_OPEN_READ_ONLY, &vol));
	CHECK_OK(varve_pread(vol, got, sizeof(got), 8192));
	CHECK_MEMEQ(got, buf, sizeof(got));
	CHECK_OK(varve_close(vol));
	CHECK_OK(varve_delete("l", true));
}

static void put_file(const char *path, const void *bytes, size_t len)
{
	FILE *file = fopen(path, "w");

	CHECK(file);
	CHECK_EQ(fwrite(bytes, len, 1, file), 1);
	CHECK_EQ(fclose(file), 0);
}

/* What an import leaves that was killed is removed; what one is at work on is let alone. */
TEST(imports_into_one_name_do_not_mix)
{
	const struct varve_btt_options options = {.pool_bytes = 1 << 20};
	static uint8_t old[MADE_BYTES];
	char source[600], dest[600], part[610], got[MADE_BLOCK_BYTES];
	struct varve_btt *other, *pool;

	begin();
	snprintf(source, sizeof(source), "%s/old", test_tmpdir());
	snprintf(dest, sizeof(dest), "%s/new", test_tmpdir());
	snprintf(part, sizeof(part), "%s.part", dest);
	pmdk_make(old);
	put_file(source, old, sizeof(old));
	CHECK_OK(varve_btt_create(part, MADE_BLOCK_BYTES, &options, &other));
	CHECK_EQ(varve_btt_import(source, dest, NULL), -EBUSY);
	CHECK_OK(access(part, F_OK));
	CHECK_EQ(access(dest, F_OK), -1);
	CHECK_OK(varve_btt_close(other));
	CHECK_OK(varve_btt_import(source, dest, NULL));
	CHECK_EQ(access(part, F_OK), -1);
	CHECK_EQ(varve_btt_import(source, dest, NULL), -EEXIST);
	CHECK_OK(varve_btt_open(dest, MADE_BLOCK_BYTES, NULL, &pool));
	CHECK_OK(varve_btt_read(pool, got, 3));
	CHECK_EQ(got[0], 'd');
	CHECK_EQ(got[MADE_BLOCK_BYTES - 1], 'd');
	CHECK_OK(varve_btt_close(pool));
}

static void count_text(struct varve_check *check, const char *text)
{
	unsigned int *n = check->user;

	*n += strstr(text, "(repaired)") != NULL;
}

/* Writes over the second superblock and over an entry of the table. */
static void damage(const char *path)
{
	static const char junk[4096] = {1};
	FILE *file = fopen(path, "r+");

	CHECK(file);
	CHECK_EQ(fseek(file, -4096, SEEK_END), 0);
	CHECK_EQ(fwrite(junk, sizeof(junk), 1, file), 1);
	CHECK_EQ(fseek(file, 4096 + 8 * 5, SEEK_SET), 0);
	CHECK_EQ(fwrite(junk, 8, 1, file), 1);
	CHECK_EQ(fclose(file), 0);
}

TEST(a_damaged_pool_is_repaired)
{
	char buf[512] = "all but one block are as they were", got[512];
	unsigned int repaired = 0;
	struct varve_check look = {0};
	struct varve_check mend = {.problem = count_text, .user = &repaired, .repair = true};
	struct varve_volume *vol;

	create("block_size=512");
	vol = open_v(0);
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, 0));
	CHECK_EQ(varve_check("v", &mend), -EBUSY);
	CHECK_OK(varve_close(vol));
	damage(strchr(backing, '/'));
	CHECK_EQ(varve_btt_check(strchr(backing, '/'), 4096, true, &mend), -EINVAL);
	CHECK_EQ(repaired, 0);
	CHECK_EQ(varve_check("v", &look), 2);
	CHECK_EQ(varve_check("v", &look), 2);
	CHECK_EQ(varve_check("v", &mend), 2);
	CHECK_EQ(repaired, 2);
	CHECK_EQ(varve_check("v", &look), 0);
	vol = open_v(0);
	CHECK_OK(varve_pread(vol, got, sizeof(got), 0));
	CHECK_MEMEQ(got, buf, sizeof(got));
	CHECK_EQ(varve_pread(vol, got, sizeof(got), 5 * 512), -EIO);
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 5 * 512, 0));
	CHECK_OK(varve_pread(vol, got, sizeof(got), 5 * 512));
	CHECK_OK(varve_close(vol));
}

TEST(what_mends_itself_is_not_repaired)
{
	struct varve_check mend = {.repair = true};
	const char *const settings[] = {"type=lsvd", store, cache, "cache_size=64M", "size=64M",
					NULL};

	begin();
	CHECK_OK(varve_create("l", settings));
	CHECK_EQ(varve_check("l", &mend), -EOPNOTSUPP);
}

TEST(a_pool_is_verified)
{
	struct varve_check check = {0};

	create("block_size=512");
	CHECK_EQ(varve_check("v", &check), 0);
}
