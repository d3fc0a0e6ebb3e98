/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many threads on one pool, in a file that counts as persistent memory: no read is torn, none goes
 * back in time, no block is lost. Blocks say of themselves, in every word, which write they are of.
 * Threads yield at named points, as a seed says, so that schedules differ from run to run of the
 * seed only by what the kernel adds.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "btt/btt_impl.h"
#include "lib/tap.h"

#define WORDS 512u
#define SECTORS_MAX 64u
#define THREADS_MAX 40u

struct stress {
	struct btt *btt;
	unsigned sectors;
	unsigned rounds;
	/* For each sector and writer: the newest write of it that has returned. */
	_Atomic uint64_t returned[SECTORS_MAX][THREADS_MAX];
};

struct worker {
	struct stress *stress;
	pthread_t thread;
	unsigned self;
	bool writes;
};

static struct pmem *memory(size_t bytes)
{
	const struct pm_options opt = {
		.create = true, .create_bytes = bytes, .force = PM_FORCE_PMEM};
	struct err err = ERR_INIT;
	struct pmem *pm;
	char path[600];
	int r;

	snprintf(path, sizeof(path), "%s/pool", test_tmpdir());
	unlink(path);
	r = pm_open(path, &opt, &pm, &err);
	if (r)
		FAIL("%s", err_text(&err, r));
	return pm;
}

static struct btt *make(struct pmem *pm, uint64_t block_bytes, uint64_t spares)
{
	const struct btt_options opt = {
		.block_bytes = block_bytes, .spares = spares, .uuid = uuid_from_bits(3, 4)};
	struct err err = ERR_INIT;
	struct btt *btt;
	int r = btt_create(pm, &opt, &btt, &err);

	if (r)
		FAIL("%s", err_text(&err, r));
	return btt;
}

static uint64_t word_of(uint64_t lba, unsigned writer, uint64_t version, unsigned word)
{
	return (lba << 56 | (uint64_t)writer << 48 | version << 16 | word) + 1;
}

static void put_block(uint64_t *block, unsigned words, uint64_t lba, unsigned writer,
		      uint64_t version)
{
	for (unsigned i = 0; i < words; i++)
		block[i] = word_of(lba, writer, version, i);
}

static void check_block(const uint64_t *block, unsigned words, uint64_t lba, unsigned *ret_writer,
			uint64_t *ret_version)
{
	const uint64_t first = block[0] - 1;

	*ret_writer = (unsigned)(first >> 48 & 0xff);
	*ret_version = first >> 16 & 0xffffffff;
	if (first >> 56 != lba)
		FAIL("sector %llu reads as sector %llu", (unsigned long long)lba,
		     (unsigned long long)(first >> 56));
	for (unsigned i = 1; i < words; i++)
		if (block[i] != word_of(lba, *ret_writer, *ret_version, i))
			FAIL("sector %llu is torn at word %u", (unsigned long long)lba, i);
}

static void one_write(struct worker *w, uint64_t lba, uint64_t *block)
{
	const unsigned words = (unsigned)(btt_block_bytes(w->stress->btt) / 8);
	_Atomic uint64_t *mine = &w->stress->returned[lba][w->self];
	const uint64_t version = atomic_load(mine) + 1;

	put_block(block, words, lba, w->self, version);
	CHECK_OK(btt_write(w->stress->btt, lba, block));
	atomic_store(mine, version);
}

/* A writer's own writes are in order: of one writer nothing older than what it had finished. */
static void one_read(struct worker *w, uint64_t lba, uint64_t *block)
{
	const unsigned words = (unsigned)(btt_block_bytes(w->stress->btt) / 8);
	uint64_t before[THREADS_MAX], version;
	unsigned writer;

	for (unsigned i = 0; i < THREADS_MAX; i++)
		before[i] = atomic_load(&w->stress->returned[lba][i]);
	CHECK_OK(btt_read(w->stress->btt, lba, block));
	if (!block[0])
		return;
	check_block(block, words, lba, &writer, &version);
	CHECK(writer < THREADS_MAX);
	CHECK(version >= before[writer]);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	uint64_t *block = calloc(WORDS, sizeof(*block));
	struct rng rng;

	rng_seed(&rng, test_seed() + w->self);
	for (unsigned i = 0; i < w->stress->rounds; i++) {
		uint64_t lba = rng_below(&rng, w->stress->sectors);

		if (w->writes)
			one_write(w, lba, block);
		else
			one_read(w, lba, block);
	}
	free(block);
	return NULL;
}

static void run(struct stress *stress, unsigned writers, unsigned readers)
{
	struct worker workers[THREADS_MAX];

	for (unsigned i = 0; i < writers + readers; i++) {
		workers[i] = (struct worker){.stress = stress, .self = i, .writes = i < writers};
		CHECK_EQ(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < writers + readers; i++)
		CHECK_EQ(pthread_join(workers[i].thread, NULL), 0);
}

/* Each block has one place: sector, lane or reserve. */
static void check_whole(struct btt *btt)
{
	uint8_t *places = calloc(btt->g.blocks, 1);
	uint64_t count = 0;

	CHECK(places);
	for (uint64_t lba = 0; lba < btt->g.nblock; lba++) {
		uint64_t entry = btt_load_entry(btt, lba);

		CHECK(btt_valid(btt, entry, lba));
		CHECK_EQ(places[entry_block(entry)]++, 0);
	}
	for (unsigned i = 0; i < btt->nlanes; i++, count++)
		CHECK_EQ(places[btt->lanes[i].spare]++, 0);
	for (uint64_t i = 0; i < btt->reserve_count; i++, count++)
		CHECK_EQ(places[btt->reserve[i]]++, 0);
	CHECK_EQ(count, btt->g.spares);
	for (unsigned i = 0; i < BTT_STRIPES; i++)
		CHECK_EQ(btt->pending[i].n, 0);
	free(places);
}

static void at_point(void *arg, const char *name)
{
	static _Thread_local struct rng rng;
	static _Thread_local bool seeded;
	static _Atomic uint64_t threads;

	(void)arg;
	(void)name;
	if (!seeded)
		rng_seed(&rng, test_seed() + atomic_fetch_add(&threads, 1));
	seeded = true;
	if (rng_chance(&rng, 1, 4))
		sched_yield();
}

static void stress(unsigned sectors, uint64_t block_bytes, unsigned rounds, unsigned writers,
		   unsigned readers, bool yields)
{
	struct pmem *pm = memory(2u << 20);
	struct stress *s = calloc(1, sizeof(*s));

	CHECK(s);
	s->btt = make(pm, block_bytes, 0);
	s->sectors = sectors;
	s->rounds = rounds;
	s->btt->point = yields ? at_point : NULL;
	run(s, writers, readers);
	check_whole(s->btt);
	CHECK_OK(btt_close(s->btt));
	CHECK_OK(btt_open(pm, NULL, &s->btt, NULL));
	CHECK(!s->btt->scanned);
	btt_abandon(s->btt);
	pm_close(pm);
	free(s);
}

TEST(one_sector_and_everybody)
{
	stress(1, 4096, 4000, 3, 3, false);
}

TEST(few_sectors)
{
	stress(4, 512, 10000, 4, 4, false);
}

TEST(one_sector_with_yields_at_every_point)
{
	stress(1, 512, 2000, 3, 3, true);
}

TEST(few_sectors_with_yields_at_every_point)
{
	stress(3, 4096, 1500, 4, 4, true);
}

/* 2 MiB of 4 KiB blocks have 7 lanes. */
TEST(more_threads_than_lanes)
{
	stress(16, 4096, 300, 24, 16, false);
}

TEST(more_threads_than_lanes_with_yields)
{
	stress(2, 4096, 60, 24, 16, true);
}

static void *die_in_the_middle(void *arg)
{
	struct btt *btt = arg;
	static const uint8_t block[4096];

	btt_write(btt, 5, block);
	return NULL;
}

static void die_at(void *arg, const char *name)
{
	if (!strcmp(name, arg))
		pthread_exit(NULL);
}

/* A thread dies at each point in turn, on every lane; the pool goes on and loses nothing. */
TEST(dead_threads_leave_their_lanes)
{
	static const char *const points[] = {"bumped",	"half",	   "filled",   "noted",
					     "swapped", "flushed", "persisted"};
	struct pmem *pm = memory(2u << 20);
	struct btt *btt = make(pm, 4096, 0);
	const unsigned count = sizeof(points) / sizeof(*points);
	struct btt_stat stat;
	uint64_t block[WORDS];

	for (unsigned i = 0; i < 3 * count; i++) {
		pthread_t thread;

		btt->point = die_at;
		btt->point_arg = (void *)(uintptr_t)points[i % count];
		CHECK_EQ(pthread_create(&thread, NULL, die_in_the_middle, btt), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	}
	btt->point = NULL;
	for (uint64_t i = 0; i < 20; i++) {
		put_block(block, WORDS, i % 7, 1, i);
		CHECK_OK(btt_write(btt, i % 7, block));
	}
	btt_stat(btt, &stat);
	CHECK(stat.takeovers > 0);
	CHECK_OK(btt_close(btt));
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	for (uint64_t i = 13; i < 20; i++) {
		unsigned writer;
		uint64_t version;

		CHECK_OK(btt_read(btt, i % 7, block));
		check_block(block, WORDS, i % 7, &writer, &version);
		CHECK_EQ(version, i);
	}
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

static void *read_and_die(void *arg)
{
	struct btt *btt = arg;
	uint8_t block[4096];

	btt_read(btt, 5, block);
	return NULL;
}

/* Readers die with their block protected, more of them than there are slots. */
TEST(dead_readers_block_nobody)
{
	struct pmem *pm = memory(2u << 20);
	struct btt *btt = make(pm, 4096, 0);
	uint64_t block[WORDS];

	put_block(block, WORDS, 5, 1, 1);
	CHECK_OK(btt_write(btt, 5, block));
	btt->tries = 0;
	for (unsigned i = 0; i < 3 * btt->nslots + 1; i++) {
		pthread_t thread;

		btt->point = die_at;
		btt->point_arg = (void *)(uintptr_t) "read half";
		CHECK_EQ(pthread_create(&thread, NULL, read_and_die, btt), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		btt->point = NULL;
		for (uint64_t v = 0; v < 20; v++) {
			put_block(block, WORDS, v % 8, 1, v);
			CHECK_OK(btt_write(btt, v % 8, block));
			CHECK_OK(btt_read(btt, v % 8, block));
		}
	}
	CHECK_OK(btt_close(btt));
	pm_close(pm);
}

struct pieces {
	void (*piece)(void *ctx, unsigned n);
	void *ctx;
	unsigned count;
	atomic_uint next;
};

static void *run_some(void *arg)
{
	struct pieces *p = arg;
	unsigned n;

	while ((n = atomic_fetch_add(&p->next, 1)) < p->count)
		p->piece(p->ctx, n);
	return NULL;
}

static void run_parallel(void *arg, unsigned count, void (*piece)(void *ctx, unsigned n), void *ctx)
{
	struct pieces p = {piece, ctx, count, 0};
	pthread_t threads[3];

	++*(unsigned *)arg;
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, run_some, &p), 0);
	for (unsigned i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST(scan_in_parallel_finds_the_same)
{
	struct pmem *pm = memory(8u << 20);
	unsigned calls = 0;
	const struct btt_parallel parallel = {run_parallel, &calls};
	const struct btt_options opt = {
		.block_bytes = 512, .uuid = uuid_from_bits(3, 4), .parallel = &parallel};
	uint64_t block[64], *spares;
	struct btt *btt;

	CHECK_OK(btt_create(pm, &opt, &btt, NULL));
	CHECK_EQ(calls, 2);
	for (uint64_t i = 0; i < 5000; i++) {
		put_block(block, 64, i % 100, 1, i);
		CHECK_OK(btt_write(btt, i * 17 % btt_nblock(btt), block));
	}
	btt_abandon(btt);
	CHECK_OK(btt_open(pm, &opt, &btt, NULL));
	CHECK_EQ(calls, 3);
	check_whole(btt);
	spares = calloc(btt->nlanes, sizeof(*spares));
	for (unsigned i = 0; i < btt->nlanes; i++)
		spares[i] = btt->lanes[i].spare;
	btt_abandon(btt);
	CHECK_OK(btt_open(pm, NULL, &btt, NULL));
	for (unsigned i = 0; i < btt->nlanes; i++)
		CHECK_EQ(btt->lanes[i].spare, spares[i]);
	free(spares);
	btt_abandon(btt);
	pm_close(pm);
}
