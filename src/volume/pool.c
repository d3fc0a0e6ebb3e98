/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of blocks: the calls of <varve/btt.h> on the block translation table and on persistent
 * memory. No policy but what file is taken for what:
 *
 *	PMDK's pool header, or its pool set: refused, with what to do
 *	a file that is to be adopted: blank, as btt_create() has it
 *	anything else that is no pool: -EINVAL (btt_open)
 *
 * Durability: what btt.h promises; nothing is kept back here. A file that is made is removed again
 * when no pool could be made in it, and its name is durable before the call returns (pm_open).
 *
 * Locks: none. Calls on blocks go straight through.
 */
#include "volume/pool.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btt/pmdk.h"
#include "runtime/workers.h"
#include "volume/json.h"
#include "volume/volume.h"

#define POOLSET_SIGNATURE "PMEMPOOLSET"
#define PARALLEL_MAX 16

/* ---- work in pieces ------------------------------------------------------------------------ */

struct pieces {
	_Atomic unsigned int next;
	unsigned int count;
	void (*piece)(void *ctx, unsigned int n);
	void *ctx;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int running; /* lock */
};

struct pieces_work {
	struct work work;
	struct pieces *pieces;
};

static void pieces_run(struct pieces *p)
{
	for (;;) {
		/* Relaxed: only that no number is given out twice matters. */
		const unsigned int n = atomic_fetch_add_explicit(&p->next, 1,
								 memory_order_relaxed);

		if (n >= p->count)
			return;
		p->piece(p->ctx, n);
	}
}

static void pieces_by_worker(struct work *work)
{
	struct pieces *p = container_of(work, struct pieces_work, work)->pieces;

	pieces_run(p);
	pthread_mutex_lock(&p->lock);
	p->running--;
	pthread_cond_signal(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void run_parallel(void *arg, unsigned int pieces, void (*piece)(void *ctx, unsigned int n),
			 void *ctx)
{
	struct pieces p = {
		.count = pieces,
		.piece = piece,
		.ctx = ctx,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.changed = PTHREAD_COND_INITIALIZER,
	};
	const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	/* Not read from p, where those that are done already have counted themselves out. */
	const unsigned int helpers = cpus > PARALLEL_MAX ? PARALLEL_MAX
				     : cpus > 1		 ? (unsigned int)cpus - 1
							 : 0;
	struct pieces_work work[PARALLEL_MAX];
	struct workers *workers;

	(void)arg;
	if (workers_get(&workers)) {
		pieces_run(&p); /* alone, then */
		return;
	}
	p.running = helpers;
	for (unsigned int i = 0; i < helpers; i++) {
		work[i] = (struct pieces_work){.work.run = pieces_by_worker, .pieces = &p};
		workers_defer(workers, &work[i].work);
	}
	pieces_run(&p);
	pthread_mutex_lock(&p.lock);
	while (p.running)
		pthread_cond_wait(&p.changed, &p.lock);
	pthread_mutex_unlock(&p.lock);
	workers_put(workers);
}

const struct btt_parallel pool_parallel = {.run = run_parallel};

/* ---- making and opening -------------------------------------------------------------------- */

/* What starts a file that is not ours, but known. */
static int refuse_others(const char *path, const struct pmem *pm, struct err *err)
{
	char start[16] = {0};

	if (pm->len_bytes < sizeof(start) || pm_read(pm, start, pm->base, sizeof(start)))
		return 0;
	if (!memcmp(start, POOLSET_SIGNATURE, sizeof(POOLSET_SIGNATURE) - 1))
		return err_set(err, -ENOTSUP,
			       "%s is a pool set: pools of several parts or replicas are not "
			       "supported; name one file or device",
			       path);
	if (pmdk_is_pool(start, sizeof(start)))
		return err_set(err, -EMEDIUMTYPE,
			       "%s was made by PMDK's libpmemblk: \"varve import %s NEW\" makes a "
			       "pool of Varve's of it, and leaves it as it is",
			       path, path);
	return 0;
}

int pool_map(const char *path, bool read_only, bool prefault, struct pmem **ret, struct err *err)
{
	const struct pm_options opt = {.read_only = read_only, .prefault = prefault};
	struct pmem *pm;
	int rc = pm_open(path, &opt, &pm, err);

	if (rc)
		return rc;
	rc = refuse_others(path, pm, err);
	if (rc) {
		pm_close(pm);
		return rc;
	}
	*ret = pm;
	return 0;
}

static struct varve_btt *pool_new(struct pmem *pm, struct btt *btt)
{
	struct varve_btt *pool = malloc(sizeof(*pool));

	if (pool)
		*pool = (struct varve_btt){
			.pm = pm,
			.btt = btt,
			.blocks = btt_nblock(btt),
			.block_bytes = (uint32_t)btt_block_bytes(btt),
		};
	return pool;
}

static int map_for_create(const char *path, const struct varve_btt_options *options,
			  struct pmem **ret, struct err *err)
{
	const struct pm_options opt = {
		.create = true,
		.create_bytes = options->pool_bytes,
		.mode = options->mode,
		.sparse = options->sparse,
		.prefault = options->prefault,
	};

	if (!options->pool_bytes)
		return pool_map(path, false, options->prefault, ret, err);
	return pm_open(path, &opt, ret, err);
}

int varve_btt_create(const char *path, uint32_t block_bytes,
		     const struct varve_btt_options *options, struct varve_btt **ret)
{
	static const struct varve_btt_options none;
	struct btt_options opt = {.block_bytes = block_bytes, .parallel = &pool_parallel};
	struct err *err = errmsg_begin();
	struct btt *btt = NULL;
	struct varve_btt *pool = NULL;
	struct pmem *pm;
	int rc;

	options = options ? options : &none;
	opt.min_nblock = options->min_blocks;
	rc = map_for_create(path, options, &pm, err);
	if (rc)
		return rc;
	rc = btt_create(pm, &opt, &btt, err);
	if (!rc) {
		pool = pool_new(pm, btt);
		rc = pool ? 0 : err_set(err, -ENOMEM, "no memory");
	}
	if (rc) {
		btt_abandon(btt);
		pm_close(pm);
		if (options->pool_bytes)
			unlink(path);
		return err_prefix(err, "making a pool of %s", path);
	}
	*ret = pool;
	return 0;
}

int varve_btt_open(const char *path, uint32_t block_bytes,
		   const struct varve_btt_options *options, struct varve_btt **ret)
{
	static const struct varve_btt_options none;
	const struct btt_options opt = {.block_bytes = block_bytes, .parallel = &pool_parallel};
	struct err *err = errmsg_begin();
	struct btt *btt = NULL;
	struct varve_btt *pool = NULL;
	struct pmem *pm;
	int rc;

	options = options ? options : &none;
	rc = pool_map(path, options->read_only, options->prefault, &pm, err);
	if (rc)
		return rc;
	rc = btt_open(pm, &opt, &btt, err);
	if (!rc) {
		pool = pool_new(pm, btt);
		rc = pool ? 0 : err_set(err, -ENOMEM, "no memory");
	}
	if (rc) {
		btt_abandon(btt);
		pm_close(pm);
		return err_prefix(err, "opening the pool %s", path);
	}
	*ret = pool;
	return 0;
}

int varve_btt_close(struct varve_btt *btt)
{
	int rc;

	if (!btt)
		return 0;
	errmsg_begin();
	rc = btt_close(btt->btt);
	pm_close(btt->pm);
	free(btt);
	return rc ? errmsg_set(rc, "closing a pool: %s; the next opening scans it",
			       strerror(-rc))
		  : 0;
}

uint32_t varve_btt_block_bytes(const struct varve_btt *btt)
{
	return btt->block_bytes;
}

uint64_t varve_btt_blocks(const struct varve_btt *btt)
{
	return btt->blocks;
}

/* ---- blocks -------------------------------------------------------------------------------- */

static int block_failed(const struct varve_btt *btt, const char *what, uint64_t block, int rc)
{
	errmsg_begin();
	switch (rc) {
	case -ECHILD:
		return errmsg_set(-EOWNERDEAD, "%s of block %llu: the pool belongs to the process "
					       "that opened it",
				  what, (unsigned long long)block);
	case -EINVAL:
		return errmsg_set(rc, "%s of block %llu: the pool has %llu", what,
				  (unsigned long long)block, (unsigned long long)btt->blocks);
	case -EIO:
		return errmsg_set(rc, "%s of block %llu: it is marked as an error, or its memory "
				      "cannot be used",
				  what, (unsigned long long)block);
	default:
		return errmsg_set(rc, "%s of block %llu: %s", what, (unsigned long long)block,
				  strerror(-rc));
	}
}

int varve_btt_read(struct varve_btt *btt, void *buf, uint64_t block)
{
	const int rc = btt_read(btt->btt, block, buf);

	return rc ? block_failed(btt, "read", block, rc) : 0;
}

int varve_btt_write(struct varve_btt *btt, const void *buf, uint64_t block)
{
	const int rc = btt_write(btt->btt, block, buf);

	return rc ? block_failed(btt, "write", block, rc) : 0;
}

int varve_btt_set_zero(struct varve_btt *btt, uint64_t block)
{
	const int rc = btt_set_zero(btt->btt, block);

	return rc ? block_failed(btt, "set_zero", block, rc) : 0;
}

int varve_btt_set_error(struct varve_btt *btt, uint64_t block)
{
	const int rc = btt_set_error(btt->btt, block);

	return rc ? block_failed(btt, "set_error", block, rc) : 0;
}

/* ---- status -------------------------------------------------------------------------------- */

json_t *pool_json(const struct pmem *pm, const struct btt *btt)
{
	json_t *top = json_object();
	struct btt_stat st;

	btt_stat(btt, &st);
	json_put_uuid(top, "uuid", &st.uuid);
	json_object_set_new(top, "persistence", json_string(pm_mode_text(pm)));
	json_object_set_new(top, "proven", json_boolean(pm_is_proven(pm)));
	json_object_set_new(top, "read_only", json_boolean(st.read_only));
	json_object_set_new(top, "scanned", json_boolean(st.scanned));
	json_object_set_new(top, "error",
			    st.failed ? json_string(strerror(-st.failed)) : json_null());
	json_put(top, "pool_bytes", st.pool_bytes);
	json_put(top, "blocks", st.nblock);
	json_put(top, "block_bytes", st.block_bytes);
	json_put(top, "stride_bytes", st.stride_bytes);
	json_put(top, "spares", st.spares);
	json_put(top, "lanes", st.lanes);
	json_put(top, "damaged_entries", st.damaged);
	json_put(top, "read_retries", st.retries);
	json_put(top, "hazards", st.hazards);
	json_put(top, "lane_waits", st.waits);
	json_put(top, "takeovers", st.takeovers);
	return top;
}

int varve_btt_status(struct varve_btt *btt, char **ret_json)
{
	json_t *json = pool_json(btt->pm, btt->btt);

	errmsg_begin();
	*ret_json = json_dumps(json, 0);
	json_decref(json);
	return *ret_json ? 0 : errmsg_set(-ENOMEM, "status of a pool: no memory");
}
