/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store when things go wrong: system calls that fail, file systems without this or
 * that, processes that are killed. The system calls that this file defines stand in for those of
 * the C library, in front of the real ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "lib/tap.h"
#include "store/dir.h"

#define KILLS 60
#define PUTS_MAX 400

static struct store *store;
static char path[512];

/* What the stand-ins do. */
static struct {
	bool no_tmpfile, no_rename_flags, no_direct;
	int file_fsync_error, dir_fsync_error;
	char trace[4096]; /* f: fsync of a file, d: of a directory, n: a name was given or taken */
} sys;

static bool is_dir(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

static void note(char c)
{
	size_t len = strlen(sys.trace);

	if (len + 1 < sizeof(sys.trace))
		sys.trace[len] = c;
}

int fsync(int fd)
{
	bool dir = is_dir(fd);
	int error = dir ? sys.dir_fsync_error : sys.file_fsync_error;

	note(dir ? 'd' : 'f');
	if (!error)
		return (int)syscall(SYS_fsync, fd);
	errno = error;
	return -1;
}

int openat(int fd, const char *name, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	if (sys.no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, fd, name, flags, mode);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	if (sys.no_rename_flags && flags) {
		errno = EINVAL;
		return -1;
	}
	note('n');
	return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	note('n');
	return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	note('n');
	return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int unlinkat(int fd, const char *name, int flags)
{
	note('n');
	return (int)syscall(SYS_unlinkat, fd, name, flags);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	int flags = fcntl(fd, F_GETFL);

	if (sys.no_direct && flags >= 0 && (flags & O_DIRECT)) {
		errno = EINVAL;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, buf, len, off);
}

static void open_store(void)
{
	struct err err = ERR_INIT;
	int ret;

	snprintf(path, sizeof(path), "%s/v", test_tmpdir());
	ret = dir_store_open(path, NULL, &store, &err);
	if (ret)
		FAIL("%s", err.text);
}

/* How many files there are in all, but for the lock. */
static int files(void)
{
	char cmd[1024], line[32] = "";
	FILE *f;

	snprintf(cmd, sizeof(cmd), "find %s -type f ! -name v.lock | wc -l", test_tmpdir());
	f = popen(cmd, "r");
	CHECK(f && fgets(line, sizeof(line), f));
	pclose(f);
	return (int)strtol(line, NULL, 10);
}

static const char *traced(void)
{
	static char copy[sizeof(sys.trace)];

	memcpy(copy, sys.trace, sizeof(copy));
	memset(sys.trace, 0, sizeof(sys.trace));
	return copy;
}

TEST(body_before_name_before_done)
{
	uint64_t version = 0;

	open_store();
	/* The first put also makes the names of base.d and of the shard durable. */
	CHECK_OK(store_put_new(store, "v.1", "x", 1));
	CHECK_STREQ(traced(), "ddfnd");
	CHECK_OK(store_delete(store, "v.1"));
	CHECK_STREQ(traced(), "nd");
	CHECK_OK(store_put_new(store, "v.1", "x", 1));
	CHECK_STREQ(traced(), "fnd");
	/* Who put it may not have come to it. */
	CHECK_EQ(store_put_new(store, "v.1", "x", 1), -EEXIST);
	CHECK_STREQ(traced(), "d");
	CHECK_OK(store_replace(store, "v", "x", 1, &version));
	CHECK_STREQ(traced(), "fnd");
	CHECK_OK(store_replace(store, "v", "x", 1, &version));
	CHECK_STREQ(traced(), "fnd");
	store_close(store);
	/* And whoever made the directories may not have come to that. */
	open_store();
	CHECK_EQ(store_put_new(store, "v.1", "x", 1), -EEXIST);
	CHECK_STREQ(traced(), "ddd");
	store_close(store);
}

static int no_entry(struct store_req *req, const char *key, uint64_t size_bytes)
{
	(void)size_bytes;
	return strncmp(key, req->key, 1);
}

TEST(lists_show_only_what_is_durable)
{
	struct store_req req = {.op = STORE_LIST, .key = "v", .entry = no_entry};

	open_store();
	CHECK_OK(store_put_new(store, "v.1", "x", 1));
	store_close(store);
	open_store();
	traced();
	CHECK_OK(store_sync(store, &req));
	/* /path, the one shard, base.d */
	CHECK_STREQ(traced(), "ddd");
	sys.dir_fsync_error = EIO;
	CHECK_EQ(store_sync(store, &req), -EIO);
	sys.dir_fsync_error = EROFS;
	CHECK_OK(store_sync(store, &req));
	store_close(store);
}

TEST(failed_fsync_leaves_no_object)
{
	uint64_t version = 0, old;

	open_store();
	CHECK_OK(store_put_new(store, "v.1", "x", 1));
	CHECK_OK(store_replace(store, "v", "x", 1, &version));
	old = version;
	for (int named = 0; named < 2; named++) {
		sys.no_tmpfile = named;
		sys.file_fsync_error = EIO;
		CHECK_EQ(store_put_new(store, "v.2", "x", 1), -EIO);
		CHECK_EQ(store_replace(store, "v", "y", 1, &version), -EIO);
		sys.file_fsync_error = 0;
		CHECK_EQ(version, old);
		CHECK_EQ(files(), 2);
	}
	sys.dir_fsync_error = ENOSPC;
	CHECK_EQ(store_put_new(store, "v.1", "x", 1), -ENOSPC);
	CHECK_EQ(store_put_new(store, "v.2", "x", 1), -ENOSPC);
	CHECK_EQ(store_delete(store, "v.1"), -ENOSPC);
	sys.dir_fsync_error = 0;
	CHECK_EQ(files(), 1);
	CHECK_OK(store_put_new(store, "v.2", "x", 1));
	store_close(store);
}

/* File systems without O_TMPFILE, without RENAME_NOREPLACE, without O_DIRECT. */
TEST(poor_file_systems)
{
	uint8_t *body = malloc(3000000), *back = malloc(3000000);

	memset(body, 7, 3000000);
	for (int i = 0; i < 8; i++) {
		uint64_t version = 0;
		char key[16];

		memset(&sys, 0, sizeof(sys));
		sys.no_tmpfile = i & 1;
		sys.no_rename_flags = i & 2;
		sys.no_direct = i & 4;
		snprintf(key, sizeof(key), "v.%d", i);
		open_store();
		CHECK_OK(store_put_new(store, key, body, 3000000));
		CHECK_EQ(store_put_new(store, key, body, 3000000), -EEXIST);
		CHECK_OK(store_get(store, key, back, 3000000, 0));
		CHECK_MEMEQ(back, body, 3000000);
		CHECK_OK(store_replace(store, "v", "a", 1, &version));
		CHECK_OK(store_replace(store, "v", "b", 1, &version));
		CHECK_OK(store_delete(store, "v"));
		CHECK_EQ(files(), i + 1);
		store_close(store);
	}
	free(body);
	free(back);
}

/* Object n has a size of its own and consists of one byte, so that half of one shows. */
static size_t size_of(unsigned n)
{
	return n % 5 == 0 ? 1500000 + n : n % 3 == 0 ? 70000 + n : n;
}

static void put_until_killed(int to_parent, bool no_tmpfile)
{
	uint8_t *body = malloc(2000000);
	uint64_t version = 0;
	char key[32];

	sys.no_tmpfile = no_tmpfile;
	open_store();
	for (unsigned n = 0; n < PUTS_MAX; n++) {
		snprintf(key, sizeof(key), "v.%u", n);
		memset(body, (int)(n % 255 + 1), size_of(n));
		CHECK_OK(store_put_new(store, key, body, size_of(n)));
		CHECK_OK(store_replace(store, "v", &n, sizeof(n), &version));
		CHECK_EQ(write(to_parent, &n, sizeof(n)), sizeof(n));
	}
	pause();
}

struct checker {
	struct store_req req;
	unsigned count;
};

static int check_whole(struct store_req *req, const char *key, uint64_t size_bytes)
{
	struct checker *c = container_of(req, struct checker, req);
	unsigned n;
	uint8_t *body;
	size_t len;

	if (sscanf(key, "v.%u", &n) != 1)
		return 0;
	c->count++;
	CHECK_EQ(size_bytes, size_of(n));
	CHECK_OK(store_get_all(store, key, 2000000, (void **)&body, &len, NULL));
	for (size_t i = 0; i < len; i++)
		if (body[i] != n % 255 + 1)
			FAIL("%s is not whole at %zu", key, i);
	free(body);
	return 0;
}

static void check_after_kill(unsigned acked)
{
	struct checker c = {.req = {.op = STORE_LIST, .key = "v.", .entry = check_whole}};
	struct err err = ERR_INIT;
	unsigned last;

	open_store();
	CHECK_OK(store->ops->lock(store, "v", &err));
	CHECK_OK(store_sync(store, &c.req));
	CHECK(c.count == acked || c.count == acked + 1);
	if (acked) {
		CHECK_OK(store_get(store, "v", &last, sizeof(last), 0));
		CHECK(last + 1 == acked || last == acked);
	}
	store_close(store);
}

static void kill_once(struct rng *rng, bool no_tmpfile)
{
	unsigned acked = 0, n, target = (unsigned)rng_below(rng, 40);
	char cmd[1024];
	int fds[2];
	pid_t pid, checker;
	int status;

	snprintf(cmd, sizeof(cmd), "rm -rf %s/v*", test_tmpdir());
	CHECK_EQ(system(cmd), 0);
	CHECK_EQ(pipe(fds), 0);
	pid = fork();
	if (pid == 0)
		put_until_killed(fds[1], no_tmpfile);
	close(fds[1]);
	while (acked < target && read(fds[0], &n, sizeof(n)) == sizeof(n))
		acked = n + 1;
	/* Anywhere in the next few puts, which are in all stages by then. */
	usleep((useconds_t)rng_below(rng, 6000));
	kill(pid, SIGKILL);
	while (read(fds[0], &n, sizeof(n)) == sizeof(n))
		acked = n + 1;
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	close(fds[0]);
	/* In a process of its own too: this one has to stay without threads. */
	checker = fork();
	if (checker == 0) {
		check_after_kill(acked);
		_exit(0);
	}
	CHECK_EQ(waitpid(checker, &status, 0), checker);
	CHECK_EQ(status, 0);
}

TEST(killed_writers_leave_no_half_objects)
{
	struct rng rng;

	rng_seed(&rng, test_seed());
	for (int i = 0; i < KILLS; i++)
		kill_once(&rng, i % 2);
}
