/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where things lie in a pool, and its superblock.
 *
 * Purpose. Geometry is computed once, at creation, and then read; so how much is kept spare is no
 * part of the format.
 *
 * Spares. A lane for each 64 blocks, at most 128: more writers than that do not help any memory.
 * And for every four lanes a block of reserve, at most 32: so many readers can protect a block at
 * once. A pool has at least one of each.
 *
 * Invariants.
 *  1. A geometry that btt_sb_decode() lets pass has regions that do not overlap, in order, inside
 *     the memory; no sum or product of its numbers overflows 64 bits.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "btt/btt_impl.h"

static uint64_t page_up(uint64_t v)
{
	return (v + BTT_PAGE - 1) & ~(uint64_t)(BTT_PAGE - 1);
}

static uint64_t clamp(uint64_t v, uint64_t lo, uint64_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

static uint64_t spares_for(uint64_t blocks, uint64_t wanted)
{
	uint64_t lanes = clamp(blocks / 64, 1, BTT_LANES_MAX);

	if (wanted)
		return wanted;
	return lanes + clamp(lanes / 4, 1, BTT_SLOTS_MAX);
}

/* Lays out so many blocks; whether they fit. */
static bool lay_out(struct btt_geometry *g, uint64_t blocks, uint64_t spares)
{
	g->blocks = blocks;
	g->spares = spares_for(blocks, spares);
	if (blocks <= g->spares)
		return false;
	g->nblock = blocks - g->spares;
	g->map_off = BTT_PAGE;
	g->list_off = g->map_off + page_up(8 * g->nblock);
	g->data_off = g->list_off + page_up(8 * g->spares);
	return g->data_off <= g->pool_bytes - BTT_PAGE &&
	       blocks <= (g->pool_bytes - BTT_PAGE - g->data_off) / g->stride_bytes;
}

bool btt_geometry_fit_spares(uint64_t pool_bytes, uint64_t block_bytes, uint64_t spares,
			     struct btt_geometry *ret)
{
	struct btt_geometry g = {.block_bytes = block_bytes};
	uint64_t lo, hi;

	if (!block_bytes || block_bytes > BTT_BLOCK_BYTES_MAX || pool_bytes < 4 * BTT_PAGE ||
	    pool_bytes > INT64_MAX || spares == 1 || spares >= BTT_BLOCKS_MAX / 2)
		return false;
	g.pool_bytes = pool_bytes & ~(uint64_t)(BTT_PAGE - 1);
	g.stride_bytes = (block_bytes + BTT_STRIDE_UNIT - 1) & ~(uint64_t)(BTT_STRIDE_UNIT - 1);
	g.stride_bytes = clamp(g.stride_bytes, BTT_STRIDE_MIN, UINT64_MAX);
	hi = clamp(g.pool_bytes / g.stride_bytes, 0, BTT_BLOCKS_MAX) + 1;
	/* More blocks take more of everything: what fits is an interval from the least on. */
	for (lo = spares ? spares + 1 : 3; lo + 1 < hi;) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (lay_out(&g, mid, spares))
			lo = mid;
		else
			hi = mid;
	}
	if (!lay_out(&g, lo, spares))
		return false;
	*ret = g;
	return true;
}

uint64_t btt_pool_bytes(uint64_t nblock, uint64_t block_bytes)
{
	uint64_t lo = 0, hi = 4;
	struct btt_geometry g;

	/* In pages. A larger pool has at least as many sectors. */
	while (!btt_geometry_fit(hi * BTT_PAGE, block_bytes, &g) || g.nblock < nblock) {
		if (hi > INT64_MAX / BTT_PAGE / 2)
			return 0;
		lo = hi;
		hi *= 2;
	}
	while (lo + 1 < hi) {
		const uint64_t mid = lo + (hi - lo) / 2;

		if (btt_geometry_fit(mid * BTT_PAGE, block_bytes, &g) && g.nblock >= nblock)
			hi = mid;
		else
			lo = mid;
	}
	return hi * BTT_PAGE;
}

bool btt_geometry_fit(uint64_t pool_bytes, uint64_t block_bytes, struct btt_geometry *ret)
{
	return btt_geometry_fit_spares(pool_bytes, block_bytes, 0, ret);
}

uint64_t btt_salt(const struct uuid *uuid)
{
	le64 first;

	memcpy(&first, uuid->b, sizeof(first));
	return le64_get(first);
}

static uint32_t sb_crc(const struct btt_sb *sb)
{
	const le32 zero = le32_make(0);
	uint32_t crc = crc32c(0, sb, offsetof(struct btt_sb, crc));

	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, &sb->compat_flags, sizeof(*sb) - offsetof(struct btt_sb, compat_flags));
}

void btt_sb_encode(struct btt_sb *sb, const struct btt_geometry *g, const struct uuid *uuid,
		   uint64_t seq, uint32_t state, uint32_t list_crc)
{
	memset(sb, 0, sizeof(*sb));
	sb->magic = le64_make(BTT_SB_MAGIC);
	sb->version = le32_make(BTT_VERSION);
	memcpy(sb->uuid, uuid->b, sizeof(sb->uuid));
	sb->seq = le64_make(seq);
	sb->pool_bytes = le64_make(g->pool_bytes);
	sb->block_bytes = le64_make(g->block_bytes);
	sb->stride_bytes = le64_make(g->stride_bytes);
	sb->nblock = le64_make(g->nblock);
	sb->spares = le64_make(g->spares);
	sb->map_off = le64_make(g->map_off);
	sb->list_off = le64_make(g->list_off);
	sb->data_off = le64_make(g->data_off);
	sb->state = le32_make(state);
	sb->list_crc = le32_make(list_crc);
	sb->crc = le32_make(sb_crc(sb));
}

static bool sizes_agree(const struct btt_geometry *g)
{
	return g->block_bytes && g->block_bytes <= BTT_BLOCK_BYTES_MAX &&
	       g->stride_bytes >= g->block_bytes && g->stride_bytes >= BTT_STRIDE_MIN &&
	       g->stride_bytes <= BTT_BLOCK_BYTES_MAX + BTT_STRIDE_UNIT &&
	       g->stride_bytes % BTT_STRIDE_UNIT == 0 && g->nblock && g->spares >= 2 &&
	       g->nblock < BTT_BLOCKS_MAX && g->spares <= BTT_BLOCKS_MAX - g->nblock;
}

/* Each bound is checked before what it bounds is used. */
static bool regions_agree(const struct btt_geometry *g)
{
	const uint64_t offsets = g->pool_bytes | g->map_off | g->list_off | g->data_off;

	return offsets % BTT_PAGE == 0 && g->pool_bytes <= INT64_MAX &&
	       g->pool_bytes >= 2 * BTT_PAGE && g->map_off >= BTT_PAGE &&
	       g->map_off <= g->list_off && g->list_off <= g->data_off &&
	       g->data_off <= g->pool_bytes - BTT_PAGE &&
	       g->list_off - g->map_off >= 8 * g->nblock &&
	       g->data_off - g->list_off >= 8 * g->spares &&
	       (g->pool_bytes - BTT_PAGE - g->data_off) / g->stride_bytes >= g->blocks;
}

int btt_sb_decode(const struct btt_sb *sb, uint64_t pm_bytes, struct btt_geometry *ret,
		  struct err *err)
{
	struct btt_geometry g = {
		.pool_bytes = le64_get(sb->pool_bytes),
		.block_bytes = le64_get(sb->block_bytes),
		.stride_bytes = le64_get(sb->stride_bytes),
		.nblock = le64_get(sb->nblock),
		.spares = le64_get(sb->spares),
		.map_off = le64_get(sb->map_off),
		.list_off = le64_get(sb->list_off),
		.data_off = le64_get(sb->data_off),
	};

	if (le64_get(sb->magic) != BTT_SB_MAGIC)
		return err_set(err, -EINVAL, "no block translation table: wrong magic number");
	if (le32_get(sb->crc) != sb_crc(sb))
		return err_corrupt(err, "superblock: wrong checksum");
	if (le32_get(sb->version) != BTT_VERSION || le32_get(sb->incompat_flags))
		return err_set(err, -ENOTSUP, "version %u, flags 0x%x: made by a later program",
			       le32_get(sb->version), le32_get(sb->incompat_flags));
	if (!sizes_agree(&g))
		return err_corrupt(err, "superblock: sizes that do not agree");
	g.blocks = g.nblock + g.spares;
	if (!regions_agree(&g))
		return err_corrupt(err, "superblock: regions that do not agree");
	if (g.pool_bytes > pm_bytes)
		return err_corrupt(err,
				   "the pool has %llu bytes, of which there are %llu: it was "
				   "cut short",
				   (unsigned long long)g.pool_bytes, (unsigned long long)pm_bytes);
	*ret = g;
	return 0;
}
