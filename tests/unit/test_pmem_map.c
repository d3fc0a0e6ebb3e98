/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mappings: what they prove, who may hold them, how files are made, the primitives.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dev/file.h"
#include "lib/tap.h"
#include "pmem/pmem.h"

#define MIB ((uint64_t)1 << 20)

static char path[512];
static struct err err;

static const char *in_tmpdir(const char *name)
{
	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	return path;
}

static struct pmem *must_open(const struct pm_options *opt)
{
	struct pmem *pm;

	err_clear(&err);
	if (pm_open(path, opt, &pm, &err))
		FAIL("%s", err.text);
	return pm;
}

static struct pmem *create(const char *name, uint64_t bytes, enum pm_force force)
{
	in_tmpdir(name);
	return must_open(&(struct pm_options){
		.create = true, .create_bytes = bytes, .force = force});
}

static int try_open(const struct pm_options *opt)
{
	struct pmem *pm;
	int r;

	err_clear(&err);
	r = pm_open(path, opt, &pm, &err);
	if (!r)
		pm_close(pm);
	else
		CHECK(strstr(err.text, path));
	return r;
}

static void use(struct pmem *pm)
{
	_Atomic uint64_t *word = (_Atomic uint64_t *)(pm->base + 4096);
	uint64_t expected = 8;

	CHECK_EQ((uintptr_t)pm->base % PM_ALIGN_BYTES, 0);
	pm_copy(pm, pm->base + 10, "some bytes", 10);
	pm_set(pm, pm->base + 20, '!', 3);
	CHECK_OK(pm_fence(pm));
	pm_publish8(pm, word, 7);
	CHECK_OK(pm_fence(pm));
	CHECK(!pm_cas8(pm, word, &expected, 9));
	CHECK_EQ(expected, 7);
	CHECK(pm_cas8(pm, word, &expected, 9));
	CHECK_OK(pm_persist(pm, word, 8));
	CHECK_OK(pm_write(pm, pm->base + pm->len_bytes - 3, "end", 3));
	pm_close(pm);
}

static void check_used(void)
{
	struct pmem *pm = must_open(&(struct pm_options){.read_only = true});
	char buf[13];

	CHECK_OK(pm_read(pm, buf, pm->base + 10, 13));
	CHECK_MEMEQ(buf, "some bytes!!!", 13);
	CHECK_EQ(pm_load8((_Atomic uint64_t *)(pm->base + 4096)), 9);
	CHECK_OK(pm_read(pm, buf, pm->base + pm->len_bytes - 3, 3));
	CHECK_MEMEQ(buf, "end", 3);
	CHECK_EQ(pm_write(pm, pm->base, "no", 2), -EROFS);
	pm_close(pm);
}

static void use_in_mode(enum pm_force force, enum pm_mode mode, const char *text)
{
	struct pmem *pm = create("pool", MIB + 777, force);

	CHECK_EQ(pm->mode, mode);
	CHECK_STREQ(pm_mode_text(pm), text);
	CHECK_EQ(pm_is_proven(pm), force == PM_FORCE_PROOF);
	CHECK_EQ(pm->len_bytes, MIB + 777);
	use(pm);
	check_used();
}

TEST(a_page_cache_proves_nothing_and_is_synced)
{
	use_in_mode(PM_FORCE_PROOF, PM_MSYNC, "msync");
}

TEST(tmpfs_proves_nothing_either)
{
	struct statfs fs;

	if (statfs("/dev/shm", &fs) || fs.f_type != 0x01021994)
		SKIP("/dev/shm is no tmpfs");
	setenv("VARVE_TEST_DIR", "/dev/shm", 1);
	use_in_mode(PM_FORCE_PROOF, PM_MSYNC, "msync");
}

TEST(forced_mode_writes_cache_lines)
{
	setenv("VARVE_TEST_DIR", "/dev/shm", 1);
	use_in_mode(PM_FORCE_PMEM, PM_CACHE_LINES, "forced");
}

TEST(forced_msync_says_so)
{
	use_in_mode(PM_FORCE_MSYNC, PM_MSYNC, "forced msync");
}

TEST(the_environment_forces_as_for_libpmem)
{
	struct pmem *pm;

	setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	pm = create("pool", MIB, PM_FORCE_ENVIRONMENT);
	CHECK_STREQ(pm_mode_text(pm), "forced");
	pm_close(pm);
	setenv("PMEM_IS_PMEM_FORCE", "0", 1);
	pm = must_open(NULL);
	CHECK_STREQ(pm_mode_text(pm), "forced msync");
	pm_close(pm);
	setenv("PMEM_IS_PMEM_FORCE", "2", 1);
	pm = must_open(NULL);
	CHECK_STREQ(pm_mode_text(pm), "msync");
	pm_close(pm);
	setenv("PMEM_IS_PMEM_FORCE", "1", 1);
	setenv("PMEM_NO_FLUSH", "1", 1);
	pm = must_open(NULL);
	CHECK_EQ(pm->mode, PM_EADR);
	CHECK_STREQ(pm_mode_text(pm), "forced");
	pm_close(pm);
}

TEST(a_new_file_is_allocated)
{
	struct pmem *pm = create("pool", 3 * MIB, PM_FORCE_PROOF);
	struct stat st;

	CHECK_OK(stat(path, &st));
	CHECK_EQ(st.st_size, 3 * MIB);
	CHECK((uint64_t)st.st_blocks * 512 >= 3 * MIB);
	CHECK_EQ(st.st_mode & 0777, 0600);
	for (size_t i = 0; i < 3 * MIB; i++)
		CHECK(!pm->base[i]);
	pm_close(pm);
}

TEST(holes_are_filled_when_a_file_is_opened_for_writing)
{
	struct stat st;

	in_tmpdir("sparse");
	CHECK_OK(close(open(path, O_CREAT | O_RDWR, 0600)));
	CHECK_OK(truncate(path, 2 * MIB));
	CHECK_OK(try_open(&(struct pm_options){.read_only = true}));
	CHECK_OK(try_open(&(struct pm_options){.sparse = true}));
	CHECK_OK(stat(path, &st));
	CHECK_EQ(st.st_blocks, 0);
	CHECK_OK(try_open(NULL));
	CHECK_OK(stat(path, &st));
	CHECK((uint64_t)st.st_blocks * 512 >= 2 * MIB);
}

TEST(a_full_file_system_is_an_error_at_once)
{
	char dir[256];
	struct stat st;

	if (geteuid())
		SKIP("needs root to mount");
	snprintf(dir, sizeof(dir), "%s/full", test_tmpdir());
	CHECK_OK(mkdir(dir, 0700));
	if (mount("none", dir, "tmpfs", 0, "size=1m"))
		SKIP("cannot mount a tmpfs");
	snprintf(path, sizeof(path), "%s/new", dir);
	CHECK_EQ(try_open(&(struct pm_options){.create = true, .create_bytes = 2 * MIB}), -ENOSPC);
	CHECK(stat(path, &st) && errno == ENOENT);
	CHECK_OK(close(open(path, O_CREAT | O_RDWR, 0600)));
	CHECK_OK(truncate(path, 2 * MIB));
	CHECK_EQ(try_open(NULL), -ENOSPC);
	CHECK_OK(try_open(&(struct pm_options){.sparse = true}));
	CHECK_OK(umount(dir));
}

TEST(pages_are_mapped_beforehand_if_asked)
{
	struct pmem *pm;

	pm_close(create("pool", MIB, PM_FORCE_PROOF));
	pm = must_open(&(struct pm_options){.prefault = true});
	use(pm);
	pm = must_open(&(struct pm_options){.prefault = true, .read_only = true});
	CHECK_EQ(pm->base[10], 's');
	pm_close(pm);
	check_used();
}

TEST(a_memory_is_held_once)
{
	struct pmem *pm = create("pool", MIB, PM_FORCE_PROOF), *second;
	pid_t pid;
	int status;

	CHECK_EQ(try_open(NULL), -EBUSY);
	CHECK(strstr(err.text, "in use"));
	CHECK_EQ(try_open(&(struct pm_options){.read_only = true}), -EBUSY);
	pid = fork();
	if (!pid)
		_exit(try_open(NULL) == -EBUSY ? 0 : 1);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	pm_close(pm);
	/* Readers share, and keep writers out. */
	pm = must_open(&(struct pm_options){.read_only = true});
	second = must_open(&(struct pm_options){.read_only = true});
	CHECK_EQ(try_open(NULL), -EBUSY);
	pm_close(pm);
	pm_close(second);
	CHECK_OK(try_open(NULL));
}

/* A child has the opened file as well: its close frees nothing, and the parent's does. */
TEST(a_forked_child_neither_frees_nor_keeps_a_memory)
{
	struct pmem *pm = create("pool", MIB, PM_FORCE_PROOF);
	int closed[2], over[2], status;
	char byte;
	pid_t first, second;

	CHECK_EQ(pipe(closed), 0);
	CHECK_EQ(pipe(over), 0);
	first = fork();
	if (!first) {
		pm_close(pm);
		_exit(write(closed[1], "", 1) != 1);
	}
	CHECK_EQ(read(closed[0], &byte, 1), 1);
	CHECK_EQ(try_open(NULL), -EBUSY);
	second = fork();
	if (!second) {
		close(over[1]);
		_exit(read(over[0], &byte, 1) != 0);
	}
	pm_close(pm);
	CHECK_OK(try_open(NULL));
	close(over[1]);
	CHECK_EQ(waitpid(first, &status, 0), first);
	CHECK_EQ(status, 0);
	CHECK_EQ(waitpid(second, &status, 0), second);
	CHECK_EQ(status, 0);
}

TEST(a_device_on_the_same_file_is_kept_out)
{
	struct pmem *pm = create("pool", MIB, PM_FORCE_PROOF);
	struct dev *dev;

	CHECK_OK(dev_file_open(path, NULL, &dev, &err));
	CHECK_EQ(dev->ops->lock(dev, NULL), -EBUSY);
	pm_close(pm);
	CHECK_OK(dev->ops->lock(dev, &err));
	CHECK_EQ(try_open(NULL), -EBUSY);
	dev_close(dev);
	CHECK_OK(try_open(NULL));
}

TEST(a_flock_of_another_program_keeps_us_out)
{
	int fd;

	pm_close(create("pool", MIB, PM_FORCE_PROOF));
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK_OK(flock(fd, LOCK_EX));
	CHECK_EQ(try_open(NULL), -EBUSY);
	close(fd);
}

TEST(what_cannot_be_mapped_is_refused)
{
	struct stat st;

	in_tmpdir("none");
	CHECK_EQ(try_open(NULL), -ENOENT);
	CHECK_EQ(try_open(&(struct pm_options){.create = true}), -EINVAL);
	CHECK_EQ(try_open(&(struct pm_options){.create = true, .create_bytes = UINT64_MAX}),
		 -EFBIG);
	CHECK(stat(path, &st) && errno == ENOENT);
	CHECK_OK(close(open(path, O_CREAT | O_RDWR, 0600)));
	CHECK_EQ(try_open(NULL), -EINVAL);
	CHECK_EQ(try_open(&(struct pm_options){.create = true, .create_bytes = MIB}), -EEXIST);
	snprintf(path, sizeof(path), "%s", test_tmpdir());
	CHECK_EQ(try_open(&(struct pm_options){.read_only = true}), -EINVAL);
	CHECK_EQ(try_open(NULL), -EISDIR);
	snprintf(path, sizeof(path), "/dev/null");
	CHECK_EQ(try_open(NULL), -EINVAL);
	in_tmpdir("fifo");
	CHECK_OK(mkfifo(path, 0600));
	CHECK_EQ(try_open(NULL), -EINVAL);
}

TEST(a_block_device_is_mapped_and_claimed)
{
	char image[512], cmd[700];
	struct pmem *pm;
	FILE *out;

	if (geteuid())
		SKIP("needs root for a loop device");
	in_tmpdir("disk");
	snprintf(image, sizeof(image), "%s", path);
	CHECK_OK(close(open(image, O_CREAT | O_RDWR, 0600)));
	CHECK_OK(truncate(image, 4 * MIB));
	snprintf(cmd, sizeof(cmd), "losetup -f --show %s 2>/dev/null", image);
	out = popen(cmd, "r");
	if (!out || !fgets(path, sizeof(path), out)) {
		if (out)
			pclose(out);
		SKIP("no loop device");
	}
	pclose(out);
	path[strcspn(path, "\n")] = '\0';
	pm = must_open(&(struct pm_options){.force = PM_FORCE_PROOF});
	CHECK_EQ(pm->len_bytes, 4 * MIB);
	CHECK_STREQ(pm_mode_text(pm), "msync");
	CHECK(open(path, O_RDWR | O_EXCL | O_CLOEXEC) < 0 && errno == EBUSY);
	use(pm);
	check_used();
	snprintf(cmd, sizeof(cmd), "losetup -d %s", path);
	CHECK_EQ(system(cmd), 0);
}

/* Threads that fence at once: each finds its own bytes in the file when its fence has returned. */
struct fencer {
	struct pmem *pm;
	int id;
};

static void *fence_often(void *arg)
{
	struct fencer *f = arg;
	_Atomic uint64_t *word = (_Atomic uint64_t *)(f->pm->base + 65536 * (size_t)f->id);

	for (uint64_t i = 1; i <= 50; i++) {
		pm_publish8(f->pm, word, i);
		CHECK_OK(pm_fence(f->pm));
	}
	return NULL;
}

TEST(threads_share_fences)
{
	struct pmem *pm = create("pool", MIB, PM_FORCE_MSYNC);
	struct fencer fencers[4];
	pthread_t threads[4];

	for (int i = 0; i < 4; i++) {
		fencers[i] = (struct fencer){pm, i};
		CHECK_EQ(pthread_create(&threads[i], NULL, fence_often, &fencers[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pm_load8((_Atomic uint64_t *)(pm->base + 65536 * (size_t)i)), 50);
	pm_close(pm);
}
