/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock and the saved list of spares.
 *
 * Purpose. After a close in order the next opening reads the list instead of the table. The list is
 * right until the table changes, so what says that it counts is taken back before that.
 *
 * Data structure. Two copies, at both ends of the pool: what destroys one end leaves the other. A
 * copy is 4 KiB with a checksum; the newer one that is right counts.
 *
 * Invariants.
 *  1. Copies are written one after the other, the other when the first is durable, and one that is
 *     torn, lost or old comes first: at any time at least one is whole, also if every opening ends
 *     in a crash.
 *  2. Before the first change of the table both copies say that the list does not count: neither
 *     alone can bring it back if the other is damaged later.
 *  3. A copy that says that the list counts has its checksum. They are made durable together: a
 *     list that is not what the copy was written for is scanned over.
 *
 * Locks. super_lock: seq, and the change of withdrawn. It is held over fences: the first writers
 * after an opening all wait for the same ones.
 *
 * Recovery. A crash between the copies leaves the old state or the new one, and both are true: the
 * table changes only after both.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "btt/btt_impl.h"

#define LIST_BATCH 512u

struct super_pair {
	struct pmem *pm;
	const struct btt_geometry *g;
	bool last_first; /* the order */
	struct btt_sb sb;
};

static int write_pair(void *arg)
{
	struct super_pair *p = arg;
	struct pmem *pm = p->pm;
	const uint64_t last = p->g->pool_bytes - BTT_PAGE;
	int r;

	/* Durable after each fence; see the invariants. */
	pm_copy(pm, pm->base + (p->last_first ? last : 0), &p->sb, sizeof(p->sb));
	if (VARVE_STEP("btt.first_superblock_fence")) {
		r = pm_fence(pm);
		if (r)
			return r;
	}
	if (VARVE_STEP("btt.second_superblock"))
		pm_copy(pm, pm->base + (p->last_first ? 0 : last), &p->sb, sizeof(p->sb));
	return VARVE_STEP("btt.second_superblock_fence") ? pm_fence(pm) : 0;
}

int btt_super_write(struct pmem *pm, const struct btt_geometry *g, const struct uuid *uuid,
		    uint64_t seq, uint32_t state, uint32_t list_crc, bool last_first)
{
	struct super_pair pair = {
		.pm = pm,
		.g = g,
		.last_first = last_first && VARVE_STEP("btt.bad_superblock_first"),
	};

	btt_sb_encode(&pair.sb, g, uuid, seq, state, list_crc);
	return pm_guarded(write_pair, &pair, NULL);
}

int btt_super_withdraw(struct btt *btt)
{
	int r = 0;

	btt_lock(&btt->super_lock);
	if (!atomic_load_explicit(&btt->withdrawn, memory_order_relaxed)) {
		if (VARVE_STEP("btt.withdraw_list"))
			r = btt_super_write(btt->pm, &btt->g, &btt->uuid, btt->seq + 1, 0, 0,
					    btt->last_first);
		if (!r) {
			btt->seq++;
			/* Release: pairs with the acquire of writers that need not come here. */
			atomic_store_explicit(&btt->withdrawn, true, memory_order_release);
		}
	}
	pthread_mutex_unlock(&btt->super_lock);
	if (r)
		log_error("btt: the superblocks cannot be written: %s; nothing will be",
			  err_text(NULL, r));
	return r;
}

/* 0, or what is wrong with the copy at an offset. */
static int look_at(struct pmem *pm, uint64_t at, struct btt_sb *sb, struct btt_geometry *g,
		   struct err *err)
{
	int r = pm_read(pm, sb, pm->base + at, sizeof(*sb));

	if (r)
		r = err_sys(err, r, "superblock cannot be read");
	else
		r = btt_sb_decode(sb, pm->len_bytes, g, err);
	if (!r && at && at != g->pool_bytes - BTT_PAGE)
		r = err_corrupt(err, "superblock: not of a pool that ends here");
	err_prefix(err, "at byte %llu", (unsigned long long)at);
	return r;
}

static uint64_t last_page(const struct pmem *pm)
{
	return (pm->len_bytes & ~(uint64_t)(BTT_PAGE - 1)) - BTT_PAGE;
}

static void take(struct btt_found *found, const struct btt_sb *sb, const struct btt_geometry *g)
{
	found->sb = *sb;
	found->g = *g;
	found->seq = le64_get(sb->seq);
	memcpy(found->uuid.b, sb->uuid, sizeof(found->uuid.b));
	found->listed = le32_get(sb->state) & BTT_STATE_LISTED;
}

int btt_super_find(struct pmem *pm, struct btt_found *ret, struct err *err)
{
	struct btt_found found = {.at = {0, 0}};
	struct btt_geometry g[2];
	struct btt_sb sb[2];
	struct err second = ERR_INIT;
	int r[2];

	if (pm->len_bytes < 2 * BTT_PAGE)
		return err_set(err, -EINVAL, "no block translation table: too small");
	r[0] = look_at(pm, 0, &sb[0], &g[0], err);
	found.at[1] = r[0] ? last_page(pm) : g[0].pool_bytes - BTT_PAGE;
	r[1] = look_at(pm, found.at[1], &sb[1], &g[1], &second);
	if (r[0] == -ENOTSUP || (r[0] && r[1]))
		return r[0] == -EINVAL && r[1] != -EINVAL ? err_set(err, r[1], "%s", second.text)
							  : r[0];
	err_clear(err);
	if (!r[0] && !r[1] && memcmp(sb[0].uuid, sb[1].uuid, sizeof(sb[0].uuid)))
		return err_corrupt(err, "the superblocks at both ends are of different pools");
	for (int i = 0; i < 2; i++)
		if (!r[i] && le64_get(sb[i].seq) >= found.seq)
			take(&found, &sb[i], &g[i]);
	for (int i = 0; i < 2; i++)
		found.good[i] = !r[i] && le64_get(sb[i].seq) == found.seq;
	*ret = found;
	return 0;
}

struct list_load {
	const uint8_t *list;
	const struct btt_found *found;
	uint64_t *spares;
};

/* In batches, so that what is checked is what is used. */
static int load_list(void *arg)
{
	const struct list_load *load = arg;
	const struct btt_geometry *g = &load->found->g;
	const uint64_t salt = btt_salt(&load->found->uuid);
	le64 batch[LIST_BATCH];
	uint32_t crc = 0;

	for (uint64_t at = 0; at < g->spares; at += LIST_BATCH) {
		uint64_t n = g->spares - at < LIST_BATCH ? g->spares - at : LIST_BATCH;

		memcpy(batch, load->list + 8 * at, 8 * n);
		crc = crc32c(crc, batch, 8 * n);
		for (uint64_t i = 0; i < n; i++) {
			uint64_t entry = le64_get(batch[i]);

			if (!entry_valid(entry, g->nblock + at + i, salt, g->blocks))
				return -EBADMSG;
			load->spares[at + i] = entry_block(entry);
		}
	}
	return crc == le32_get(load->found->sb.list_crc) ? 0 : -EBADMSG;
}

int btt_list_load(struct pmem *pm, const struct btt_found *found, uint64_t *spares)
{
	struct list_load load = {pm->base + found->g.list_off, found, spares};

	return pm_guarded(load_list, &load, NULL);
}

struct list_save {
	struct btt *btt;
	const uint64_t *spares;
	uint32_t crc;
};

static int save_list(void *arg)
{
	struct list_save *save = arg;
	struct btt *btt = save->btt;
	const struct btt_geometry *g = &btt->g;
	le64 batch[LIST_BATCH];

	for (uint64_t at = 0; at < g->spares; at += LIST_BATCH) {
		uint64_t n = g->spares - at < LIST_BATCH ? g->spares - at : LIST_BATCH;

		for (uint64_t i = 0; i < n; i++)
			batch[i] = le64_make(entry_make(g->nblock + at + i, btt->salt,
							save->spares[at + i], BTT_ENTRY_DATA));
		save->crc = crc32c(save->crc, batch, 8 * n);
		pm_copy(btt->pm, btt->pm->base + g->list_off + 8 * at, batch, 8 * n);
	}
	/* Durable with the first copy, whose fence follows; torn, it fails its checksum. */
	return 0;
}

int btt_list_save(struct btt *btt, const uint64_t *spares)
{
	struct list_save save = {.btt = btt, .spares = spares};
	int r = pm_guarded(save_list, &save, NULL);

	if (!r)
		r = btt_super_write(btt->pm, &btt->g, &btt->uuid, btt->seq + 1, BTT_STATE_LISTED,
				    save.crc, btt->last_first);
	return r;
}

bool btt_probe(const struct pmem *pm)
{
	le64 magic;

	if (pm->len_bytes < 2 * BTT_PAGE)
		return false;
	if (!pm_read(pm, &magic, pm->base, sizeof(magic)) && le64_get(magic) == BTT_SB_MAGIC)
		return true;
	return !pm_read(pm, &magic, pm->base + last_page(pm), sizeof(magic)) &&
	       le64_get(magic) == BTT_SB_MAGIC;
}
