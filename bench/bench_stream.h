/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Blocks of 4 KiB at random, BENCH_DEPTH requests at once, to or from a volume in process.
 *
 * Reads are submitted again by their done(), as a server does that only passes on. Writes are
 * submitted by one thread, which sleeps when all are under way, as a program does that has data.
 */
#ifndef BENCH_BENCH_STREAM_H
#define BENCH_BENCH_STREAM_H

#include <semaphore.h>
#include <stdatomic.h>

#include <varve/varve.h>

#include "base/rng.h"
#include "bench.h"

#define BENCH_BLOCK 4096u
#define BENCH_DEPTH 32

static inline void bench_check(int rc)
{
	if (rc) {
		fprintf(stderr, "%s\n", varve_errmsg());
		exit(1);
	}
}

/* An empty cache of that size ("size=4G") in dir. */
static inline void bench_format_cache(const char *dir, const char *cache, const char *size)
{
	const char *const settings[] = {size, NULL};
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, cache);
	unlink(path);
	bench_check(varve_cache_create(path, settings));
}

struct bench_stream {
	struct varve_volume *vol;
	struct rng rng;
	uint64_t blocks; /* the part of the volume that the requests go to */
	enum varve_op op;
	_Atomic long left;  /* reads: to be submitted */
	_Atomic int flying; /* not done */
	sem_t idle;	    /* posted by each write that is done */
};

struct bench_request {
	struct varve_io io;
	struct iovec iov;
	struct bench_stream *stream;
	struct rng rng; /* each has its own, so that threads share none */
	_Atomic bool busy;
};

static inline void bench_start(struct bench_request *r)
{
	r->io.op = r->stream->op;
	r->io.offset = rng_below(&r->rng, r->stream->blocks) * BENCH_BLOCK;
	varve_submit(r->stream->vol, &r->io);
}

static inline void bench_request_done(struct varve_io *io)
{
	struct bench_request *r = io->user;
	struct bench_stream *s = r->stream;

	if (io->result)
		bench_die("request", io->result);
	if (s->op == VARVE_READ && atomic_fetch_sub(&s->left, 1) > 0) {
		bench_start(r);
		return;
	}
	atomic_store(&r->busy, false);
	atomic_fetch_sub(&s->flying, 1);
	sem_post(&s->idle);
}

static inline void bench_run_writes(struct bench_stream *s, struct bench_request *r, uint64_t ops)
{
	unsigned int at = 0;

	while (ops) {
		struct bench_request *next = &r[at++ % BENCH_DEPTH];

		if (!atomic_load(&next->busy)) {
			atomic_store(&next->busy, true);
			atomic_fetch_add(&s->flying, 1);
			bench_start(next);
			ops--;
		} else if (atomic_load(&s->flying) == BENCH_DEPTH) {
			sem_wait(&s->idle);
		}
	}
}

static inline double bench_stream(struct bench_stream *s, uint64_t ops)
{
	struct bench_request *r = calloc(BENCH_DEPTH, sizeof(*r));
	uint8_t *bufs = bench_memory((size_t)BENCH_DEPTH * BENCH_BLOCK);
	const uint64_t begin = bench_now_ns();
	uint64_t spent;

	sem_init(&s->idle, 0, 0);
	for (int i = 0; i < BENCH_DEPTH; i++) {
		rng_seed(&r[i].rng, rng_next(&s->rng));
		r[i].stream = s;
		r[i].iov = (struct iovec){bufs + (size_t)i * BENCH_BLOCK, BENCH_BLOCK};
		r[i].io = (struct varve_io){.length = BENCH_BLOCK,
					    .iov = &r[i].iov,
					    .iovcnt = 1,
					    .done = bench_request_done,
					    .user = &r[i]};
	}
	if (s->op == VARVE_WRITE) {
		bench_run_writes(s, r, ops);
	} else {
		atomic_store(&s->left, (long)ops - BENCH_DEPTH);
		atomic_store(&s->flying, BENCH_DEPTH);
		for (int i = 0; i < BENCH_DEPTH; i++)
			bench_start(&r[i]);
	}
	while (atomic_load(&s->flying))
		sem_wait(&s->idle);
	if (s->op == VARVE_WRITE)
		bench_check(varve_flush(s->vol));
	spent = bench_now_ns() - begin;
	sem_destroy(&s->idle);
	free(r);
	free(bufs);
	return (double)ops * 1e9 / (double)spent;
}

#endif
