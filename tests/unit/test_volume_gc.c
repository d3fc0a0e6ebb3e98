/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Garbage collection under threads that write, read and flush: each finds what it wrote, and the
 * volume is closed in the midst of it and opened again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <varve/varve.h>

#include "base/rng.h"
#include "lib/tap.h"

#define THREADS 3
#define SHARE (768u << 10)
#define STEP 4096u

/* Small objects, and all that is dead goes at once. */
static const char *const settings[] = {"size=8M",       "batch_size=64k", "batch_age=2ms",
				       "gc_start=90",   "gc_stop=95",     "gc_min_age=0",
				       "checkpoint_objects=4", NULL};

struct worker {
	struct varve_volume *vol;
	uint64_t at, seed;
	uint8_t *mine;
};

static void *overwrite(void *arg)
{
	struct worker *w = arg;
	uint8_t *out = malloc(STEP);
	struct rng rng;

	rng_seed(&rng, w->seed);
	for (unsigned i = 0; i < 1200; i++) {
		const uint64_t at = rng_below(&rng, SHARE / STEP) * STEP;

		memset(w->mine + at, (int)(i % 255 + 1), STEP);
		CHECK_OK(varve_pwrite(w->vol, w->mine + at, STEP, w->at + at, 0));
		if (i % 50 == 0)
			CHECK_OK(varve_flush(w->vol));
		if (i % 10 == 0) {
			const uint64_t other = rng_below(&rng, SHARE / STEP) * STEP;

			CHECK_OK(varve_pread(w->vol, out, STEP, w->at + other));
			CHECK_MEMEQ(out, w->mine + other, STEP);
		}
	}
	free(out);
	return NULL;
}

TEST(threads_write_while_it_collects)
{
	struct worker w[THREADS];
	pthread_t threads[THREADS];
	uint8_t *out = malloc(SHARE);

	for (unsigned i = 0; i < THREADS; i++)
		w[i] = (struct worker){.at = i * SHARE, .mine = calloc(1, SHARE)};
	for (unsigned round = 0; round < 2; round++) {
		struct varve_volume *vol = NULL;
		const int rc = varve_open_with("mem:4M:gc,mem:gc", 0, settings, &vol);

		test_note("%s", varve_errmsg());
		CHECK_OK(rc);
		for (unsigned i = 0; i < THREADS; i++) {
			w[i].vol = vol;
			w[i].seed = test_seed() + round * 10 + i;
			CHECK_OK(-pthread_create(&threads[i], NULL, overwrite, &w[i]));
		}
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		for (unsigned i = 0; i < THREADS; i++) {
			CHECK_OK(varve_pread(vol, out, SHARE, w[i].at));
			CHECK_MEMEQ(out, w[i].mine, SHARE);
		}
		CHECK_OK(varve_close(vol));
	}
	for (unsigned i = 0; i < THREADS; i++)
		free(w[i].mine);
	free(out);
}
