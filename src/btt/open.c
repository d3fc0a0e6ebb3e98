/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making, opening and closing a pool.
 *
 * Durable when: a new pool when both superblocks are, which are written last; those that were there
 * are destroyed first, so that no old superblock ever stands above a new table. Opening writes
 * nothing. Closing saves the list of spares, if it knows all of them.
 *
 * Invariants.
 *  1. The spares that were found are all in lanes and reserve. Slots are fewer than the reserve has
 *     blocks, if that has several, so that some are left for lanes that lost theirs.
 *  2. A list is saved only if it has every spare, each once: no lane was left in doubt, no block
 *     left out, no entry damaged, no fence failed. Every entry is durable by then.
 *
 * Locks. None: nobody else has the pool yet, or any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "btt/btt_impl.h"

static void pool_free(struct btt *btt)
{
	if (!btt)
		return;
	pthread_cond_destroy(&btt->turn);
	pthread_mutex_destroy(&btt->turn_lock);
	pthread_mutex_destroy(&btt->super_lock);
	pthread_mutex_destroy(&btt->reserve_lock);
	free(btt->reserve);
	free(btt->slots);
	free(btt->lanes);
	free(btt->pending);
	free(btt->reuse);
	free(btt);
}

static void *zeroed(size_t align, uint64_t n, size_t size)
{
	void *p = NULL;

	if (n > SIZE_MAX / size / 2 || posix_memalign(&p, align, n * size))
		return NULL;
	memset(p, 0, n * size);
	return p;
}

static struct btt *pool_new(struct pmem *pm, const struct btt_geometry *g, const struct uuid *uuid)
{
	struct btt *btt = zeroed(alignof(struct btt), 1, sizeof(*btt));

	if (!btt)
		return NULL;
	if (btt_lock_init(&btt->reserve_lock) || btt_lock_init(&btt->super_lock) ||
	    btt_lock_init(&btt->turn_lock) || pthread_cond_init(&btt->turn, NULL)) {
		free(btt);
		return NULL;
	}
	btt->pm = pm;
	btt->g = *g;
	btt->uuid = *uuid;
	btt->salt = btt_salt(uuid);
	btt->map = (_Atomic uint64_t *)(void *)(pm->base + g->map_off);
	btt->data = pm->base + g->data_off;
	btt->read_only = pm->read_only;
	btt->fork_id = btt_fork_id();
	btt->tries = BTT_TRIES;
	btt->reuse = zeroed(PM_LINE_BYTES, BTT_STRIPES, sizeof(*btt->reuse));
	btt->pending = zeroed(PM_LINE_BYTES, BTT_STRIPES, sizeof(*btt->pending));
	if (!btt->reuse || !btt->pending || !btt->fork_id) {
		pool_free(btt);
		return NULL;
	}
	return btt;
}

/* Gives the spares to lanes and the reserve; count is at least 2. */
static int deal(struct btt *btt, const uint64_t *spares, uint64_t count)
{
	uint64_t reserve = btt->g.spares / 5, lanes;

	reserve = reserve ? reserve : 1;
	lanes = btt->g.spares - reserve;
	lanes = lanes < BTT_LANES_MAX ? lanes : BTT_LANES_MAX;
	lanes = lanes < count ? lanes : count - 1;
	reserve = count - lanes;
	btt->nlanes = (unsigned)lanes;
	btt->nslots = reserve < 4 ? 1
				  : (unsigned)(reserve * 3 / 4 < BTT_SLOTS_MAX ? reserve * 3 / 4
									       : BTT_SLOTS_MAX);
	btt->reserve_room = count;
	btt->reserve_count = reserve;
	btt->lanes = zeroed(alignof(struct btt_lane), lanes, sizeof(*btt->lanes));
	btt->slots = zeroed(alignof(struct btt_slot), btt->nslots, sizeof(*btt->slots));
	btt->reserve = zeroed(sizeof(uint64_t), count, sizeof(*btt->reserve));
	if (!btt->lanes || !btt->slots || !btt->reserve)
		return -ENOMEM;
	for (uint64_t i = 0; i < lanes; i++)
		atomic_init(&btt->lanes[i].spare, spares[i]);
	for (uint64_t i = 0; i < btt->nslots; i++)
		atomic_init(&btt->slots[i].block, BTT_NONE);
	memcpy(btt->reserve, spares + lanes, reserve * sizeof(*spares));
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Sorts, and whether each is there once. */
static bool all_different(uint64_t *blocks, uint64_t count)
{
	qsort(blocks, count, sizeof(*blocks), by_value);
	for (uint64_t i = 1; i < count; i++)
		if (blocks[i] == blocks[i - 1])
			return false;
	return true;
}

/* By the saved list; -EBADMSG if there is none that can be believed. */
static int spares_by_list(struct btt *btt, const struct btt_found *found)
{
	uint64_t *spares;
	int r;

	if (!found->listed)
		return -EBADMSG;
	spares = calloc(btt->g.spares, sizeof(*spares));
	if (!spares)
		return -ENOMEM;
	r = btt_list_load(btt->pm, found, spares);
	if (!r && !all_different(spares, btt->g.spares))
		r = -EBADMSG;
	if (!r)
		r = deal(btt, spares, btt->g.spares);
	else if (r != -ENOMEM)
		log_warn("btt: the saved list of spare blocks is damaged; the table is scanned");
	free(spares);
	return r == -ENOMEM || !r ? r : -EBADMSG;
}

static int spares_by_scan(struct btt *btt, const struct btt_parallel *parallel, struct err *err)
{
	struct btt_scan scan = {0};
	int r = btt_recover(btt, parallel, &scan, err);

	btt->scanned = true;
	if (r)
		return r;
	atomic_store(&btt->damaged, scan.damaged);
	atomic_store(&btt->leaked, scan.damaged != 0);
	/* Even a list that counts no more is taken back before the first write. */
	r = deal(btt, scan.unused, scan.count);
	if (r)
		err_sys(err, r, "lanes");
	free(scan.unused);
	return r;
}

static int open_found(struct pmem *pm, const struct btt_found *found,
		      const struct btt_parallel *parallel, struct btt **ret, struct err *err)
{
	struct btt *btt = pool_new(pm, &found->g, &found->uuid);
	int r;

	if (!btt)
		return err_sys(err, -ENOMEM, "block translation table");
	btt->seq = found->seq;
	btt->last_first = !found->good[1];
	/* A copy that is lost or old is put right with the first write, listed or not. */
	atomic_store(&btt->withdrawn, !found->listed && found->good[0] && found->good[1]);
	r = spares_by_list(btt, found);
	if (r == -EBADMSG)
		r = spares_by_scan(btt, parallel, err);
	if (r) {
		pool_free(btt);
		return err_sys(err, r, "block translation table");
	}
	*ret = btt;
	return 0;
}

int btt_open(struct pmem *pm, const struct btt_options *opt, struct btt **ret, struct err *err)
{
	struct btt_found found;
	int r;

	entry_tables_init();
	r = btt_super_find(pm, &found, err);
	if (r)
		return r;
	if (opt && opt->block_bytes && opt->block_bytes != found.g.block_bytes)
		return err_set(err, -EINVAL, "the pool has blocks of %llu bytes, not %llu",
			       (unsigned long long)found.g.block_bytes,
			       (unsigned long long)opt->block_bytes);
	return open_found(pm, &found, opt ? opt->parallel : NULL, ret, err);
}

struct making {
	struct pmem *pm;
	struct btt_geometry g;
	struct uuid uuid;
	uint64_t seq;
	uint64_t pages_in_piece;
	_Atomic int error;
};

/* Zeros at the start, and no pool of ours whose first superblock has been lost. */
static int look_blank(void *arg)
{
	static const uint8_t zeros[BTT_PAGE];
	const struct making *m = arg;

	return memcmp(m->pm->base, zeros, sizeof(zeros)) || btt_probe(m->pm) ? -EEXIST : 0;
}

/* Durable before anything else is written: no old superblock stands above a new table. */
static int clear_ends(void *arg)
{
	struct making *m = arg;
	const uint64_t last = m->g.pool_bytes - BTT_PAGE;

	if (VARVE_STEP("btt.clear_ends")) {
		pm_set(m->pm, m->pm->base, 0, BTT_PAGE);
		pm_set(m->pm, m->pm->base + last, 0, BTT_PAGE);
	}
	return pm_fence(m->pm);
}

struct table_range {
	const struct making *m;
	uint64_t from, to; /* sectors */
};

static int make_range(void *arg)
{
	const struct table_range *range = arg;
	const struct making *m = range->m;
	const uint64_t salt = btt_salt(&m->uuid);
	le64 page[BTT_ENTRIES_IN_PAGE];

	for (uint64_t lba = range->from; lba < range->to;) {
		uint64_t n = 0;

		for (; n < BTT_ENTRIES_IN_PAGE && lba + n < range->to; n++)
			page[n] = le64_make(entry_make(lba + n, salt, lba + n, BTT_ENTRY_ZERO));
		pm_copy(m->pm, m->pm->base + m->g.map_off + 8 * lba, page, 8 * n);
		lba += n;
	}
	/* The whole table is durable before a superblock is. */
	return VARVE_STEP("btt.table_fence") ? pm_fence(m->pm) : 0;
}

static void make_table_piece(void *ctx, unsigned n)
{
	struct making *m = ctx;
	struct table_range range = {m, n * m->pages_in_piece * BTT_ENTRIES_IN_PAGE, 0};
	int r;

	range.to = range.from + m->pages_in_piece * BTT_ENTRIES_IN_PAGE;
	range.to = range.to < m->g.nblock ? range.to : m->g.nblock;
	r = range.from < range.to ? pm_guarded(make_range, &range, NULL) : 0;
	if (r)
		atomic_store(&m->error, r);
}

/* Above what was there before, so that a copy of it that comes back would not count. */
static uint64_t next_seq(struct pmem *pm)
{
	struct btt_found found;

	return btt_super_find(pm, &found, NULL) ? 1 : found.seq + 1;
}

static int make(struct making *m, const struct btt_parallel *parallel)
{
	const uint64_t pages = (m->g.nblock + BTT_ENTRIES_IN_PAGE - 1) / BTT_ENTRIES_IN_PAGE;
	const unsigned pieces = pages < 256 ? (unsigned)pages : 256;
	int r = pm_guarded(clear_ends, m, NULL);

	if (r)
		return r;
	m->pages_in_piece = (pages + pieces - 1) / pieces;
	btt_run_pieces(parallel, pieces, make_table_piece, m);
	r = atomic_load(&m->error);
	return r ? r : btt_super_write(m->pm, &m->g, &m->uuid, m->seq, 0, 0, false);
}

int btt_create(struct pmem *pm, const struct btt_options *opt, struct btt **ret, struct err *err)
{
	struct making m = {.pm = pm, .uuid = opt->uuid};
	int r = 0;

	entry_tables_init();
	if (pm->read_only)
		return err_set(err, -EROFS, "the memory is read-only");
	if (!opt->overwrite && pm->len_bytes >= BTT_PAGE)
		r = pm_guarded(look_blank, &m, NULL);
	if (r == -EEXIST)
		return err_set(err, r,
			       "there is something already: the first 4 KiB are not zeros, "
			       "or the last are a superblock");
	if (r)
		return err_sys(err, r, "reading what is there");
	if (!btt_geometry_fit_spares(pm->len_bytes, opt->block_bytes, opt->spares, &m.g) ||
	    m.g.nblock < opt->min_nblock)
		return err_set(err, -EINVAL,
			       "%llu bytes of memory do not hold a table of blocks "
			       "of %llu bytes: 1 to 4294967295, and some must fit",
			       (unsigned long long)pm->len_bytes,
			       (unsigned long long)opt->block_bytes);
	if (uuid_is_zero(&m.uuid))
		m.uuid = uuid_new();
	m.seq = next_seq(pm);
	r = make(&m, opt->parallel);
	if (r)
		return err_sys(err, r, "writing a new table");
	return btt_open(pm, opt, ret, err);
}

/* All spares, or -EBADMSG if not all are known. */
static int gather(struct btt *btt, uint64_t *spares)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < btt->nlanes; i++) {
		struct btt_lane *lane = &btt->lanes[i];

		btt_lane_settle(btt, lane);
		if (n < btt->g.spares && atomic_load(&lane->spare) != BTT_NONE)
			spares[n++] = atomic_load(&lane->spare);
	}
	for (uint64_t i = 0; i < btt->reserve_count && n < btt->g.spares; i++)
		if (btt->reserve[i] != BTT_NONE)
			spares[n++] = btt->reserve[i];
	if (n != btt->g.spares || atomic_load(&btt->leaked) || !all_different(spares, n))
		return -EBADMSG;
	return 0;
}

static int flush_table(void *arg)
{
	const struct btt *btt = arg;

	pm_flush(btt->pm, btt->map, 8 * btt->g.nblock);
	return 0;
}

/*
 * A thread that died may have left an entry swapped and not durable, and in this process readers
 * know by pending. The next one, opening by the list, would not: what it returns could be undone.
 */
static int settle_table(struct btt *btt)
{
	bool left = false;

	for (unsigned i = 0; i < BTT_STRIPES; i++)
		left = left || atomic_load(&btt->pending[i].n);
	if (!left || !VARVE_STEP("btt.close_settle"))
		return 0;
	/* Where it faults the list is not saved, and the next opening scans page by page. */
	return pm_guarded(flush_table, btt, NULL) ? -EBADMSG : btt_fence(btt);
}

int btt_close(struct btt *btt)
{
	uint64_t *spares;
	int r = 0;

	if (!btt)
		return 0;
	if (!btt_is_forked(btt)) {
		r = atomic_load(&btt->failed);
		/* Nothing was written since the list was read, or nothing can be: leave it. */
		if (!r && !btt->read_only && (atomic_load(&btt->withdrawn) || btt->scanned)) {
			spares = calloc(btt->g.spares, sizeof(*spares));
			r = spares ? gather(btt, spares) : -ENOMEM;
			if (!r)
				r = settle_table(btt);
			if (!r)
				r = btt_list_save(btt, spares);
			/* Without a list the next opening scans: no more than after a crash. */
			if (r == -EBADMSG || r == -ENOMEM)
				r = 0;
			free(spares);
		}
	}
	pool_free(btt);
	return r;
}

void btt_abandon(struct btt *btt)
{
	pool_free(btt);
}

uint64_t btt_nblock(const struct btt *btt)
{
	return btt->g.nblock;
}

uint64_t btt_block_bytes(const struct btt *btt)
{
	return btt->g.block_bytes;
}

void btt_stat(const struct btt *btt, struct btt_stat *ret)
{
	*ret = (struct btt_stat){
		.uuid = btt->uuid,
		.nblock = btt->g.nblock,
		.block_bytes = btt->g.block_bytes,
		.stride_bytes = btt->g.stride_bytes,
		.spares = btt->g.spares,
		.pool_bytes = btt->g.pool_bytes,
		.lanes = btt->nlanes,
		.read_only = btt->read_only,
		.scanned = btt->scanned,
		.failed = atomic_load(&btt->failed),
		.damaged = atomic_load(&btt->damaged),
		.retries = atomic_load(&btt->retries),
		.hazards = atomic_load(&btt->hazard_reads),
		.waits = atomic_load(&btt->waits),
		.takeovers = atomic_load(&btt->takeovers),
	};
}
