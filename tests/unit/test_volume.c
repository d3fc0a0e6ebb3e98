/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A volume as its users see it, over memory: requests of both kinds, the trampoline, opening again,
 * two volumes at once, a second opener, fork.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <varve/varve.h>

#include "base/rng.h"
#include "lib/tap.h"

#define MIB (1u << 20)
#define SIZE (64u * MIB)

static const char *const settings[] = {"size=64M", "batch_age=10ms", NULL};

static struct varve_volume *open_mem(const char *spec, unsigned int flags)
{
	struct varve_volume *vol = NULL;
	const int rc = varve_open_with(spec, flags, settings, &vol);

	test_note("%s", varve_errmsg());
	CHECK_OK(rc);
	return vol;
}

static void fill(void *buf, size_t len, uint64_t seed)
{
	struct rng rng;
	uint8_t *at = buf;

	rng_seed(&rng, seed);
	for (size_t i = 0; i < len; i++)
		at[i] = (uint8_t)rng_next(&rng);
}

TEST(what_was_written_is_read)
{
	struct varve_volume *vol = open_mem("mem:64M:a,mem:a", 0);
	char *in = malloc(MIB), *out = malloc(MIB);

	fill(in, MIB, 1);
	CHECK_OK(varve_pwrite(vol, in, MIB, 4096, 0));
	CHECK_OK(varve_pread(vol, out, MIB, 4096));
	CHECK_MEMEQ(in, out, MIB);
	CHECK_OK(varve_flush(vol));
	CHECK_OK(varve_pread(vol, out, MIB, 0));
	CHECK_MEMEQ(in, out + 4096, MIB - 4096);
	CHECK_EQ(out[0], 0);
	free(in);
	free(out);
	CHECK_OK(varve_close(vol));
}

TEST(a_closed_volume_is_found_again)
{
	struct varve_volume *vol = open_mem("mem:64M:b,mem:b", 0);
	char in[8192], out[8192];

	fill(in, sizeof(in), 2);
	CHECK_OK(varve_pwrite(vol, in, sizeof(in), 12345, 0));
	CHECK_OK(varve_close(vol));
	for (int i = 0; i < 3; i++) {
		vol = open_mem("mem:64M:b,mem:b", 0);
		CHECK_OK(varve_pread(vol, out, sizeof(out), 12345));
		CHECK_MEMEQ(in, out, sizeof(in));
		in[i * 1000] = (char)i;
		CHECK_OK(varve_pwrite(vol, in, sizeof(in), 12345, VARVE_FUA));
		CHECK_OK(varve_close(vol));
	}
}

TEST(a_request_beyond_the_end_is_refused)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:c", 0);
	char buf[1024] = "";

	CHECK_EQ(varve_pread(vol, buf, 512, SIZE), -EINVAL);
	CHECK_EQ(varve_pread(vol, buf, 1024, SIZE - 512), -EINVAL);
	CHECK_EQ(varve_pwrite(vol, buf, 1, SIZE, 0), -EINVAL);
	CHECK_EQ(varve_zero(vol, SIZE - 1, 2, 0), -EINVAL);
	CHECK_EQ(varve_discard(vol, UINT64_MAX, 2, 0), -EINVAL);
	CHECK(strlen(varve_errmsg()) > 10);
	CHECK_OK(varve_pread(vol, buf, 0, SIZE));
	CHECK_OK(varve_pwrite(vol, buf, 0, SIZE, 0));
	CHECK_OK(varve_flush(vol));
	CHECK_OK(varve_close(vol));
}

TEST(zeroes_and_discards_of_any_alignment)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:z", 0);
	char in[16384], out[16384];

	fill(in, sizeof(in), 3);
	CHECK_OK(varve_pwrite(vol, in, sizeof(in), 0, 0));
	CHECK_OK(varve_zero(vol, 100, 9000, 0));
	memset(in + 100, 0, 9000);
	CHECK_OK(varve_zero(vol, 10001, 7, VARVE_FUA));
	memset(in + 10001, 0, 7);
	CHECK_OK(varve_discard(vol, 12000, 300, 0));
	CHECK_OK(varve_pread(vol, out, sizeof(out), 0));
	CHECK_MEMEQ(in, out, sizeof(in));
	CHECK_OK(varve_discard(vol, 0, 16384, 0));
	CHECK_OK(varve_pread(vol, out, 16384, 0));
	memset(in, 0, sizeof(in));
	CHECK_MEMEQ(in, out, sizeof(in));
	CHECK_OK(varve_close(vol));
}

TEST(a_request_longer_than_the_log_takes_at_once)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:long", 0);
	const size_t len = 40u * MIB + 123;
	char *in = malloc(len), *out = calloc(1, len);

	fill(in, len, 4);
	CHECK_OK(varve_pwrite(vol, in, len, 777, 0));
	CHECK_OK(varve_pread(vol, out, len, 777));
	CHECK_MEMEQ(in, out, len);
	free(in);
	free(out);
	CHECK_OK(varve_close(vol));
}

TEST(read_only_volumes_are_left_alone)
{
	struct varve_volume *vol = open_mem("mem:64M:ro,mem:ro", 0);
	char buf[512] = "x";

	CHECK_OK(varve_pwrite(vol, buf, 512, 0, 0));
	CHECK_OK(varve_close(vol));
	vol = open_mem("mem:64M:ro,mem:ro", VARVE_OPEN_READ_ONLY);
	CHECK_EQ(varve_pwrite(vol, buf, 512, 0, 0), -EROFS);
	CHECK_EQ(varve_zero(vol, 0, 512, 0), -EROFS);
	CHECK_OK(varve_flush(vol));
	buf[0] = 0;
	CHECK_OK(varve_pread(vol, buf, 512, 0));
	CHECK_EQ(buf[0], 'x');
	CHECK_OK(varve_close(vol));
}

/* ---- requests with a completion ------------------------------------------------------------ */

struct chain {
	struct varve_io io;
	struct varve_volume *vol;
	struct iovec iov;
	char buf[4096];
	int left, deepest;
	_Atomic int over;
};

/* Of this thread: another may call done() while submit is still returning here. */
static __thread int depth;

static void chain_done(struct varve_io *io)
{
	struct chain *c = io->user;

	CHECK_OK(io->result);
	if (!--c->left) {
		atomic_store(&c->over, 1);
		return;
	}
	depth++;
	if (depth > c->deepest)
		c->deepest = depth;
	io->offset = (uint64_t)(c->left % 1000) * 4096;
	varve_submit(c->vol, io);
	depth--;
}

TEST(done_that_submits_again_does_not_recurse)
{
	struct chain *c = calloc(1, sizeof(*c));

	c->vol = open_mem("mem:64M,mem:t", 0);
	CHECK_OK(varve_pwrite(c->vol, c->buf, 4096, 0, 0));
	c->left = 100000;
	c->iov = (struct iovec){c->buf, sizeof(c->buf)};
	c->io = (struct varve_io){.op = VARVE_WRITE, .length = 4096, .iov = &c->iov, .iovcnt = 1,
				  .done = chain_done, .user = c};
	varve_submit(c->vol, &c->io);
	while (!atomic_load(&c->over))
		usleep(1000);
	CHECK_EQ(c->deepest, 1);
	CHECK_OK(varve_close(c->vol));
	free(c);
}

static void deadlock_done(struct varve_io *io)
{
	struct chain *c = io->user;

	c->left = varve_flush(c->vol);
	atomic_store(&c->over, 1);
}

TEST(a_call_that_waits_is_refused_inside_done)
{
	struct chain *c = calloc(1, sizeof(*c));

	c->vol = open_mem("mem:64M,mem:dl", 0);
	c->io = (struct varve_io){.op = VARVE_FLUSH, .done = deadlock_done, .user = c};
	varve_submit(c->vol, &c->io);
	CHECK_EQ(atomic_load(&c->over), 1);
	CHECK_EQ(c->left, -EDEADLK);
	CHECK_OK(varve_close(c->vol));
	free(c);
}

struct counted {
	struct varve_io io;
	struct iovec iov[3];
	_Atomic int *left;
};

static void counted_done(struct varve_io *io)
{
	struct counted *c = io->user;

	CHECK_OK(io->result);
	atomic_fetch_sub(c->left, 1);
}

/* The first requests of a volume: they wait for the right, which a worker takes. */
TEST(requests_queue_while_the_right_is_taken)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:q", 0);
	struct counted *c = calloc(64, sizeof(*c));
	char *in = malloc(64 * 512), *out = malloc(64 * 512);
	_Atomic int left = 64;

	fill(in, 64 * 512, 5);
	for (int i = 0; i < 64; i++) {
		c[i].left = &left;
		c[i].iov[0] = (struct iovec){in + i * 512, 100};
		c[i].iov[1] = (struct iovec){in + i * 512 + 100, 412};
		c[i].io = (struct varve_io){.op = VARVE_WRITE, .offset = (uint64_t)i * 512,
					    .length = 512, .iov = c[i].iov, .iovcnt = 2,
					    .done = counted_done, .user = &c[i]};
		varve_submit(vol, &c[i].io);
	}
	while (atomic_load(&left))
		usleep(1000);
	CHECK_OK(varve_pread(vol, out, 64 * 512, 0));
	CHECK_MEMEQ(in, out, 64 * 512);
	CHECK_OK(varve_close(vol));
	free(c);
	free(in);
	free(out);
}

/* ---- several ------------------------------------------------------------------------------- */

TEST(two_volumes_at_once)
{
	struct varve_volume *a = open_mem("mem:64M,mem:one", 0);
	struct varve_volume *b = open_mem("mem:64M,mem:two", 0);
	char buf[4096];

	memset(buf, 'a', sizeof(buf));
	CHECK_OK(varve_pwrite(a, buf, sizeof(buf), 0, 0));
	memset(buf, 'b', sizeof(buf));
	CHECK_OK(varve_pwrite(b, buf, sizeof(buf), 0, VARVE_FUA));
	CHECK_OK(varve_pread(a, buf, sizeof(buf), 0));
	CHECK_EQ(buf[17], 'a');
	CHECK_OK(varve_pread(b, buf, sizeof(buf), 0));
	CHECK_EQ(buf[17], 'b');
	CHECK_OK(varve_close(a));
	CHECK_OK(varve_close(b));
}

TEST(a_second_opener_looks_and_may_not_write)
{
	struct varve_volume *a = open_mem("mem:64M:s,mem:s", 0), *b;
	char buf[512] = "first";

	CHECK_OK(varve_pwrite(a, buf, 512, 0, 0));
	CHECK_OK(varve_close(a));
	a = open_mem("mem:64M:s,mem:s", 0);
	CHECK_OK(varve_pwrite(a, "second", 6, 512, VARVE_FUA));
	b = open_mem("mem:64M:s,mem:s", 0);
	CHECK_OK(varve_pread(b, buf, 512, 0));
	CHECK_STREQ(buf, "first");
	CHECK_EQ(varve_pwrite(b, buf, 512, 1024, 0), -EBUSY);
	CHECK_EQ(varve_pwrite(b, buf, 512, 1024, 0), -EBUSY);
	CHECK(strlen(varve_errmsg()) > 10);
	CHECK_OK(varve_pwrite(a, "third", 6, 1024, 0));
	CHECK_OK(varve_close(a));
	/* The right is free, but what b knows is old: it looks again by itself. */
	CHECK_OK(varve_pwrite(b, "fourth", 7, 2048, 0));
	CHECK_OK(varve_pread(b, buf, 512, 1024));
	CHECK_STREQ(buf, "third");
	CHECK_OK(varve_close(b));
}

TEST(a_child_of_fork_may_not_use_the_volume)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:f", 0);
	char buf[512] = "";
	int status;
	pid_t pid;

	CHECK_OK(varve_pwrite(vol, buf, 512, 0, 0));
	pid = fork();
	if (!pid) {
		char *text;

		if (varve_pread(vol, buf, 512, 0) != -EOWNERDEAD ||
		    varve_close(vol) != -EOWNERDEAD ||
		    varve_status(vol, &text) != -EOWNERDEAD || !strstr(varve_errmsg(), "process"))
			_exit(1);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_OK(varve_pwrite(vol, buf, 512, 0, 0));
	CHECK_OK(varve_close(vol));
}

/* ---- many threads against an oracle -------------------------------------------------------- */

#define THREADS 8
#define SHARED 65536 /* bytes that all threads write into, each at its own places */

struct worker {
	struct varve_volume *vol;
	int id;
	uint64_t seed;
	uint8_t *mine; /* what this thread's bytes of each group of THREADS are */
};

/*
 * Byte i belongs to thread i / 32 % THREADS: every sector has bytes of all threads, so that a
 * read-modify-write that loses a neighbour's write is found.
 */
static void *unaligned_writer(void *arg)
{
	struct worker *w = arg;
	struct rng rng;

	rng_seed(&rng, w->seed);
	for (int i = 0; i < 3000; i++) {
		const uint32_t group = (uint32_t)rng_below(&rng, SHARED / (32 * THREADS));
		const uint32_t from = (uint32_t)rng_below(&rng, 32);
		const uint32_t len = 1 + (uint32_t)rng_below(&rng, 32 - from);
		const uint32_t at = group * 32 * THREADS + (uint32_t)w->id * 32 + from;

		fill(w->mine + at, len, rng_next(&rng));
		CHECK_OK(varve_pwrite(w->vol, w->mine + at, len, at, i % 64 ? 0 : VARVE_FUA));
	}
	return NULL;
}

TEST(unaligned_writers_do_not_lose_each_other)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:many", 0);
	struct worker w[THREADS];
	pthread_t threads[THREADS];
	uint8_t *out = malloc(SHARED);

	for (int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){vol, i, test_seed() + (uint64_t)i, calloc(1, SHARED)};
		CHECK_OK(-pthread_create(&threads[i], NULL, unaligned_writer, &w[i]));
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_OK(varve_pread(vol, out, SHARED, 0));
	for (uint32_t at = 0; at < SHARED; at++)
		CHECK_EQ(out[at], w[at / 32 % THREADS].mine[at]);
	for (int i = 0; i < THREADS; i++)
		free(w[i].mine);
	free(out);
	CHECK_OK(varve_close(vol));
}

struct duel {
	struct varve_volume *vol;
	_Atomic bool over;
};

static void *few_bytes_writer(void *arg)
{
	struct duel *d = arg;
	char bytes[10];

	for (unsigned int i = 0; !atomic_load(&d->over); i++) {
		memset(bytes, (int)i, sizeof(bytes));
		CHECK_OK(varve_pwrite(d->vol, bytes, sizeof(bytes), 100, 0));
	}
	return NULL;
}

/* A read-modify-write that read before an aligned write was published would undo it. */
TEST(an_aligned_write_is_not_undone_by_an_unaligned_one)
{
	struct duel d = {.vol = open_mem("mem:64M,mem:duel", 0)};
	pthread_t threads[3];
	uint8_t in[512], out[512];

	memset(in, 0, sizeof(in));
	CHECK_OK(varve_pwrite(d.vol, in, 512, 0, 0));
	for (int i = 0; i < 3; i++)
		CHECK_OK(-pthread_create(&threads[i], NULL, few_bytes_writer, &d));
	for (int i = 0; i < 20000; i++) {
		memset(in, i, sizeof(in));
		CHECK_OK(varve_pwrite(d.vol, in, 512, 0, 0));
		CHECK_OK(varve_pread(d.vol, out, 512, 0));
		CHECK_MEMEQ(in, out, 100);
		CHECK_MEMEQ(in + 110, out + 110, 402);
	}
	atomic_store(&d.over, true);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	CHECK_OK(varve_close(d.vol));
}

/* Writes and zeroes of any alignment and length, each thread in a range of its own. */
static void *mixed_writer(void *arg)
{
	struct worker *w = arg;
	struct rng rng;

	rng_seed(&rng, w->seed);
	for (int i = 0; i < 2000; i++) {
		const uint64_t at = (uint64_t)w->id * SHARED + rng_below(&rng, SHARED - 5000);
		const uint32_t len = 1 + (uint32_t)rng_below(&rng, 5000);
		uint8_t *bytes = w->mine + (at - (uint64_t)w->id * SHARED);

		if (rng_below(&rng, 4) == 0) {
			memset(bytes, 0, len);
			CHECK_OK(varve_zero(w->vol, at, len, 0));
		} else {
			fill(bytes, len, rng_next(&rng));
			CHECK_OK(varve_pwrite(w->vol, bytes, len, at, 0));
		}
		if (i % 100 == 0)
			CHECK_OK(varve_flush(w->vol));
	}
	return NULL;
}

TEST(each_thread_reads_back_its_own)
{
	struct varve_volume *vol = open_mem("mem:64M,mem:own", 0);
	struct worker w[THREADS];
	pthread_t threads[THREADS];
	uint8_t *out = malloc(SHARED);

	for (int i = 0; i < THREADS; i++) {
		w[i] = (struct worker){vol, i, test_seed() + (uint64_t)i, calloc(1, SHARED)};
		CHECK_OK(-pthread_create(&threads[i], NULL, mixed_writer, &w[i]));
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		CHECK_OK(varve_pread(vol, out, SHARED, (uint64_t)i * SHARED));
		CHECK_MEMEQ(out, w[i].mine, SHARED);
		free(w[i].mine);
	}
	free(out);
	CHECK_OK(varve_close(vol));
}
