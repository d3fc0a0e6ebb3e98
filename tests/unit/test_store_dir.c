/* SPDX-License-Identifier: BSD-3-Clause */
/* The directory store: the contract of store.h, and how its files lie. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "lib/tap.h"
#include "store/dir.h"

#define MIB (1u << 20)

static struct store *store;
static char path[512];

static void make_path(const char *base)
{
	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), base);
}

static void open_at(const char *base)
{
	struct err err = ERR_INIT;
	int ret;

	make_path(base);
	ret = dir_store_open(path, NULL, &store, &err);
	if (ret)
		FAIL("%s", err.text);
}

static bool exists(const char *name)
{
	char file[1024];

	snprintf(file, sizeof(file), "%s/%s", test_tmpdir(), name);
	return access(file, F_OK) == 0;
}

struct lister {
	struct store_req req;
	char keys[4096];
	int count;
	uint64_t bytes;
};

static void append(char *to, size_t size, const char *key)
{
	size_t len = strlen(to);

	snprintf(to + len, size - len, "%s ", key);
}

static int on_entry(struct store_req *req, const char *key, uint64_t size_bytes)
{
	struct lister *l = container_of(req, struct lister, req);

	if (l->count++ < 50)
		append(l->keys, sizeof(l->keys), key);
	l->bytes += size_bytes;
	return strcmp(key, "v.stop") == 0 ? -ECANCELED : 0;
}

static int list(struct lister *l, const char *prefix)
{
	memset(l, 0, sizeof(*l));
	l->req.op = STORE_LIST;
	l->req.entry = on_entry;
	snprintf(l->req.key, sizeof(l->req.key), "%s", prefix);
	return store_sync(store, &l->req);
}

TEST(objects_come_back)
{
	uint64_t version = 0, old;
	struct lister l;
	void *all;
	size_t len;
	char buf[8];

	open_at("v");
	CHECK_EQ(store_get(store, "v", buf, 2, 0), -ENOENT);
	CHECK_EQ(store_get(store, "v.1", buf, 2, 0), -ENOENT);
	CHECK_OK(store_delete(store, "v.1"));
	CHECK_OK(list(&l, "v"));
	CHECK_STREQ(l.keys, "");
	CHECK_OK(store_put_new(store, "v.2", "hello", 5));
	CHECK_EQ(store_put_new(store, "v.2", "other", 5), -EEXIST);
	CHECK_OK(store_put_new(store, "v.1", "", 0));
	CHECK_OK(store_get(store, "v.2", buf, 2, 3));
	CHECK_MEMEQ(buf, "lo", 2);
	CHECK_EQ(store_get(store, "v.2", buf, 2, 4), -ERANGE);
	CHECK_EQ(store_get(store, "v.2", buf, 2, UINT64_MAX), -ERANGE);
	CHECK_OK(store_get_all(store, "v.1", 8, &all, &len, &version));
	CHECK_EQ(len, 0);
	CHECK(version != 0);
	free(all);
	version = 0;
	CHECK_OK(store_replace(store, "v", "sb1", 3, &version));
	old = version;
	CHECK_OK(store_replace(store, "v", "sb2", 3, &version));
	CHECK(version > old);
	CHECK_EQ(store_replace(store, "v", "sb3", 3, &old), -ESTALE);
	old = 0;
	CHECK_EQ(store_replace(store, "v", "sb3", 3, &old), -ESTALE);
	CHECK_OK(store_get(store, "v", buf, 3, 0));
	CHECK_MEMEQ(buf, "sb2", 3);
	CHECK_OK(store_put_new(store, "v.10", "x", 1));
	CHECK_OK(list(&l, "v"));
	CHECK_STREQ(l.keys, "v v.1 v.10 v.2 ");
	CHECK_EQ(l.bytes, 3 + 0 + 1 + 5);
	CHECK_OK(list(&l, "v.1"));
	CHECK_STREQ(l.keys, "v.1 v.10 ");
	CHECK_OK(list(&l, ""));
	CHECK_EQ(l.count, 4);
	CHECK_OK(store_put_new(store, "v.stop", "", 0));
	CHECK_EQ(list(&l, "v"), -ECANCELED);
	CHECK_OK(store_delete(store, "v.2"));
	CHECK_EQ(store_get(store, "v.2", buf, 1, 0), -ENOENT);
	CHECK_OK(store_delete(store, "v"));
	CHECK(!exists("v"));
	store_close(store);
	open_at("v");
	CHECK_OK(list(&l, "v.1"));
	CHECK_STREQ(l.keys, "v.1 v.10 ");
	store_close(store);
}

TEST(superblock_is_a_file_with_its_name)
{
	uint64_t version = 0;
	char text[8] = "";
	FILE *f;

	open_at("disk-1.img");
	CHECK_OK(store_replace(store, "disk-1.img", "text", 4, &version));
	f = fopen(path, "r");
	CHECK(f && fread(text, 1, 7, f) == 4);
	fclose(f);
	CHECK_STREQ(text, "text");
	CHECK_OK(store_put_new(store, "disk-1.img.0001", "x", 1));
	/* The shard is part of the format. */
	CHECK(exists("disk-1.img.d/03/disk-1.img.0001"));
	store_close(store);
}

TEST(opening_writes_nothing)
{
	struct lister l;

	open_at("v");
	CHECK_OK(list(&l, "v"));
	CHECK(!exists("v.d") && !exists("v.lock"));
	store_close(store);
}

TEST(unlucky_names_are_refused)
{
	static const char *const bad[] = {"", ".v", "a b", "v.d", "v.lock", "\xc3\xa4", "a*", ".."};
	static const char *const keys[] = {"w", "v1", "v/1", "../v", "v..", "v.\n", "v. "};
	char longest[STORE_KEY_MAX + 2];
	struct err err;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		err_clear(&err);
		make_path(bad[i]);
		CHECK_EQ(dir_store_open(path, NULL, &store, &err), -EINVAL);
		CHECK(strstr(err.text, path) != NULL);
	}
	err_clear(&err);
	CHECK_EQ(dir_store_open("/nowhere/at/all/v", NULL, &store, &err), -ENOENT);
	CHECK(strstr(err.text, "/nowhere/at/all") != NULL);
	open_at("v");
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		/* "v.." is as good a key as any other. */
		int want = strcmp(keys[i], "v..") == 0 ? 0 : -EINVAL;

		CHECK_EQ(store_put_new(store, keys[i], "x", 1), want);
	}
	memset(longest, 'k', sizeof(longest));
	memcpy(longest, "v.", 2);
	longest[STORE_KEY_MAX + 1] = 0;
	CHECK_EQ(store_put_new(store, longest, "x", 1), -EINVAL);
	longest[STORE_KEY_MAX] = 0;
	CHECK_OK(store_put_new(store, longest, "x", 1));
	store_close(store);
	/* And a base as long as can be has room for its neighbours' names. */
	memset(longest, 'b', STORE_KEY_MAX);
	open_at(longest);
	CHECK_OK(store_replace(store, longest, "x", 1, &(uint64_t){0}));
	CHECK_OK(store->ops->lock(store, longest, &err));
	store_close(store);
}

TEST(strangers_in_the_directories_are_no_objects)
{
	struct lister l;
	char cmd[2048];

	open_at("v");
	CHECK_OK(store_put_new(store, "v.1", "x", 1));
	snprintf(cmd, sizeof(cmd),
		 "cd %s && mkdir -p v.d/00 && touch v.d/00/v.1 v.d/readme v.d/00/.tmp-v-1 v.d/00/w "
		 "v.9 w && mkdir v.d/00/v.2", test_tmpdir());
	CHECK_EQ(system(cmd), 0);
	CHECK_OK(list(&l, "v"));
	CHECK_STREQ(l.keys, "v.1 ");
	store_close(store);
}

/* Pieces of any length and alignment, empty ones too, on both sides of direct I/O. */
TEST(many_unaligned_pieces)
{
	static const size_t sizes[] = {1, 511, 4096, 131071, 131072, 131073, MIB, MIB + 1,
				       3 * MIB + 4097, 8 * MIB};
	struct rng rng;
	uint8_t *body = malloc(8 * MIB + 1), *back = malloc(8 * MIB + 1);
	struct iovec *iov = malloc(sizeof(*iov) * 4000);

	rng_seed(&rng, test_seed());
	rng_fill(&rng, body, 8 * MIB + 1);
	open_at("v");
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct store_req put = {.op = STORE_PUT_NEW, .len_bytes = sizes[i], .iov = iov};
		struct store_req get = {.op = STORE_GET, .len_bytes = sizes[i], .iov = iov};
		size_t at = 0, n = 0;

		while (at < sizes[i]) {
			size_t len = rng_below(&rng, sizes[i] / 500 + 10);

			if (n == 3999 || len > sizes[i] - at)
				len = sizes[i] - at;
			iov[n++] = (struct iovec){body + 1 + at, len};
			at += len;
		}
		put.iovcnt = get.iovcnt = (int)n;
		snprintf(put.key, sizeof(put.key), "v.%zu", i);
		memcpy(get.key, put.key, sizeof(put.key));
		CHECK_OK(store_sync(store, &put));
		for (size_t j = 0, to = 0; j < n; to += iov[j++].iov_len)
			iov[j].iov_base = back + to;
		memset(back, 0, sizes[i]);
		CHECK_OK(store_sync(store, &get));
		CHECK_EQ(get.size_bytes, sizes[i]);
		CHECK_MEMEQ(back, body + 1, sizes[i]);
	}
	store_close(store);
	free(iov);
	free(body);
	free(back);
}

TEST(same_contents_are_another_version)
{
	uint64_t first = 0, version;

	open_at("v");
	CHECK_OK(store_replace(store, "v", "same", 4, &first));
	version = first;
	for (int i = 0; i < 100; i++) {
		uint64_t old = version;

		CHECK_OK(store_replace(store, "v", "same", 4, &version));
		CHECK(version > old);
	}
	CHECK_OK(store_delete(store, "v"));
	version = 0;
	CHECK_OK(store_replace(store, "v", "same", 4, &version));
	CHECK(version != first);
	store_close(store);
}

TEST(a_clock_that_went_back_does_not_matter)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 4000000000}};
	struct store_req head = {.op = STORE_HEAD, .key = "v"};
	uint64_t version = 0;

	open_at("v");
	CHECK_OK(store_replace(store, "v", "a", 1, &version));
	CHECK_EQ(utimensat(AT_FDCWD, path, times, 0), 0);
	/* Whoever touches the superblock fences the writer off. */
	CHECK_EQ(store_replace(store, "v", "b", 1, &version), -ESTALE);
	CHECK_OK(store_sync(store, &head));
	version = head.version;
	CHECK_OK(store_replace(store, "v", "b", 1, &version));
	CHECK(version > head.version);
	store_close(store);
}

static _Atomic int wins;

static void *put_same_keys(void *arg)
{
	struct store *s = arg;
	uint8_t body[3000];
	char key[32];

	memset(body, (int)(uintptr_t)arg, sizeof(body));
	for (int i = 0; i < 100; i++) {
		int ret;

		snprintf(key, sizeof(key), "v.%d", i);
		ret = store_put_new(s, key, body, sizeof(body));
		CHECK(ret == 0 || ret == -EEXIST);
		wins += ret == 0;
	}
	return NULL;
}

TEST(one_winner_among_threads_and_openings)
{
	pthread_t threads[4];
	struct store *stores[2];

	open_at("v");
	stores[0] = store;
	open_at("v");
	stores[1] = store;
	for (int i = 0; i < 4; i++)
		CHECK_OK(pthread_create(&threads[i], NULL, put_same_keys, stores[i % 2]));
	for (int i = 0; i < 4; i++)
		CHECK_OK(pthread_join(threads[i], NULL));
	CHECK_EQ(wins, 100);
	store_close(stores[0]);
	store_close(stores[1]);
}

/* Each success counts one further: a lost update shows in the sum. */
static int count_up(int times)
{
	int done = 0;

	while (done < times) {
		uint64_t version;
		unsigned *value;
		size_t len;

		CHECK_OK(store_get_all(store, "v", 4, (void **)&value, &len, &version));
		++*value;
		done += store_replace(store, "v", value, sizeof(*value), &version) == 0;
		free(value);
	}
	return done;
}

TEST(replace_has_one_winner_among_processes)
{
	unsigned zero = 0, sum;
	uint64_t version = 0;
	pid_t pids[4];
	int status;

	open_at("v");
	CHECK_OK(store_replace(store, "v", &zero, sizeof(zero), &version));
	store_close(store);
	for (int i = 0; i < 4; i++) {
		pids[i] = fork();
		if (pids[i])
			continue;
		open_at("v");
		count_up(50);
		store_close(store);
		_exit(0);
	}
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(waitpid(pids[i], &status, 0), pids[i]);
		CHECK_EQ(status, 0);
	}
	open_at("v");
	CHECK_OK(store_get(store, "v", &sum, sizeof(sum), 0));
	CHECK_EQ(sum, 200);
	store_close(store);
}

static void lock_in_child(int from_parent, int to_parent)
{
	struct err err = ERR_INIT;
	char c;

	CHECK_EQ(read(from_parent, &c, 1), 1);
	open_at("v");
	CHECK_OK(store->ops->lock(store, "v", &err));
	CHECK_EQ(write(to_parent, "l", 1), 1);
	pause();
}

TEST(lock_excludes_openings_and_processes)
{
	struct err err = ERR_INIT;
	struct store *first;
	char pid_text[32], c;
	int go[2], locked[2];
	pid_t pid;

	/* Forked before there are threads: sanitizers want it so. */
	CHECK_EQ(pipe(go) | pipe(locked), 0);
	pid = fork();
	if (pid == 0)
		lock_in_child(go[0], locked[1]);
	open_at("v");
	first = store;
	CHECK_OK(first->ops->lock(first, "v", &err));
	CHECK_EQ(first->ops->lock(first, "w", &err), -EINVAL);
	open_at("v");
	err_clear(&err);
	CHECK_EQ(store->ops->lock(store, "v", &err), -EBUSY);
	snprintf(pid_text, sizeof(pid_text), "%ld", (long)getpid());
	CHECK(strstr(err.text, pid_text) && strstr(err.text, path));
	/* What the other opening does in the meantime does not lose it. */
	CHECK_OK(store_replace(store, "v", "x", 1, &(uint64_t){0}));
	err_clear(&err);
	CHECK_EQ(first->ops->lock(first, "v", &err), -EBUSY);
	store_close(first);
	CHECK_OK(store->ops->lock(store, "v", &err));
	store->ops->unlock(store, "v");

	CHECK_EQ(write(go[1], "g", 1), 1);
	CHECK_EQ(read(locked[0], &c, 1), 1);
	err_clear(&err);
	CHECK_EQ(store->ops->lock(store, "v", &err), -EBUSY);
	snprintf(pid_text, sizeof(pid_text), "%ld", (long)pid);
	CHECK(strstr(err.text, pid_text) != NULL);
	kill(pid, SIGKILL);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_OK(store->ops->lock(store, "v", &err));
	store_close(store);
}

TEST(old_temporary_files_go)
{
	struct err err = ERR_INIT;
	char cmd[2048];

	open_at("v");
	CHECK_OK(store_put_new(store, "v.1", "x", 1));
	snprintf(cmd, sizeof(cmd),
		 "cd %s && mkdir -p v.d/00 && touch -d '2 hours ago' .tmp-v-1 v.d/00/.tmp-v-2 "
		 ".tmp-w-3 && touch .tmp-v-new", test_tmpdir());
	CHECK_EQ(system(cmd), 0);
	CHECK_OK(store->ops->lock(store, "v", &err));
	CHECK(!exists(".tmp-v-1") && !exists("v.d/00/.tmp-v-2"));
	CHECK(exists(".tmp-w-3") && exists(".tmp-v-new"));
	store_close(store);
}

TEST(no_space_leaves_nothing_behind)
{
	uint8_t *body = calloc(1, 4 * MIB);
	struct lister l;
	char where[600], volume[700];
	struct err err = ERR_INIT;

	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0)
		SKIP("needs root, to mount a small file system");
	snprintf(where, sizeof(where), "%s/small", test_tmpdir());
	snprintf(volume, sizeof(volume), "%s/v", where);
	CHECK_EQ(mkdir(where, 0755), 0);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("varve", where, "tmpfs", 0, "size=3m") < 0)
		SKIP("cannot mount a tmpfs");
	CHECK_OK(dir_store_open(volume, NULL, &store, &err));
	for (int i = 0; i < 20; i++)
		CHECK_EQ(store_put_new(store, "v.big", body, 4 * MIB), -ENOSPC);
	CHECK_OK(list(&l, "v"));
	CHECK_EQ(l.count, 0);
	/* All of it is free again. */
	CHECK_OK(store_put_new(store, "v.fits", body, 2 * MIB));
	CHECK_EQ(store_replace(store, "v", body, 2 * MIB, &(uint64_t){0}), -ENOSPC);
	CHECK_OK(store_delete(store, "v.fits"));
	CHECK_OK(store_replace(store, "v", body, 2 * MIB, &(uint64_t){0}));
	store_close(store);
	free(body);
}

static _Atomic int in_flight;

static void on_put(struct store_req *req)
{
	CHECK_OK(req->result);
	in_flight--;
}

TEST(puts_in_flight_are_done_by_workers_and_helpers)
{
	struct store_req *reqs = calloc(64, sizeof(*reqs));
	struct store_counters c;
	struct lister l;
	char body[100];

	open_at("v");
	memset(body, 'x', sizeof(body));
	for (int i = 0; i < 64; i++) {
		reqs[i] = (struct store_req){.op = STORE_PUT_NEW, .len_bytes = sizeof(body),
					     .one = {body, sizeof(body)}, .iovcnt = 1,
					     .done = on_put};
		reqs[i].iov = &reqs[i].one;
		snprintf(reqs[i].key, sizeof(reqs[i].key), "v.%d", i);
		in_flight++;
		store_submit(store, &reqs[i]);
		if (i % 3 == 0)
			store_kick(store);
	}
	CHECK(store_help(store) || in_flight < 64);
	while (in_flight)
		store_poll(store, true);
	/* The last done() may not have been counted yet when it has set in_flight. */
	while (store_poll(store, true))
		;
	CHECK(!store_help(store));
	store->ops->counters(store, &c);
	CHECK_EQ(c.puts, 64);
	CHECK_EQ(c.errors, 0);
	CHECK_OK(list(&l, "v"));
	CHECK_EQ(l.count, 64);
	store_close(store);
	free(reqs);
}

/* More shards than descriptors are kept for. */
TEST(all_shards)
{
	struct lister l;
	char key[32];

	open_at("v");
	for (int i = 0; i < 1500; i++) {
		snprintf(key, sizeof(key), "v.%d", i);
		CHECK_OK(store_put_new(store, key, key, 3));
	}
	CHECK_OK(list(&l, "v."));
	CHECK_EQ(l.count, 1500);
	for (int i = 0; i < 1500; i++) {
		snprintf(key, sizeof(key), "v.%d", i);
		CHECK_OK(store_delete(store, key));
	}
	CHECK_OK(list(&l, "v."));
	CHECK_EQ(l.count, 0);
	store_close(store);
}
