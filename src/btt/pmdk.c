/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of PMDK's libpmemblk, for reading (pmdk_layout.h, docs/SPEC-pmdk.md).
 *
 * A write there goes to a free block, then into a log of two slots for each free block (the flog),
 * then into the map. So after a crash a flog entry may name a change that the map has yet to make:
 * when the map still has the entry's old value, the new one counts. Here these changes are found at
 * opening and kept aside (struct fix); the pool itself is not touched, and can still be opened by
 * what made it.
 *
 * Invariants
 *   1. Offsets and counts of the info blocks are checked against the memory before they are used,
 *      in 64 bits, where none of them can overflow.
 *   2. Every access to the memory is guarded (pm_read()): a page that is lost is -EIO.
 *   3. Entries that lead out of the data area are -EBADMSG, whoever looks.
 *
 * The checksum is no proof of the map and the flog, which have none.
 */
#include "btt/pmdk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "btt/pmdk_layout.h"

#define MAJOR_KNOWN 1u
#define ARENAS_MAX 65536u /* 32 PiB */

/* A change that the flog has and the map lacks. */
struct fix {
	uint32_t lba;
	uint32_t entry;
};

struct arena {
	uint64_t off; /* in the memory */
	uint64_t first_block;
	uint32_t blocks, internal_blocks, internal_bytes, nfree;
	uint64_t data_off, map_off, flog_off; /* in the memory */
	struct fix *fixes; /* sorted by lba */
	uint32_t nfixes;
};

struct pmdk_pool {
	const struct pmem *pm;
	uint32_t block_bytes;
	uint64_t blocks;
	struct arena *arenas;
	uint32_t narenas;
};

/* Fletcher's checksum over 32-bit words; those from byte `end` on count as zeros. */
static uint64_t fletcher64(const void *block, size_t end)
{
	const le32 *word = block;
	uint32_t low = 0, high = 0;

	for (unsigned int i = 0; i < PMDK_BLOCK / sizeof(*word); i++) {
		if (i < end / sizeof(*word))
			low += le32_get(word[i]);
		high += low;
	}
	return (uint64_t)high << 32 | low;
}

static int read_at(const struct pmem *pm, void *buf, uint64_t off, size_t len, struct err *err)
{
	int rc;

	if (off > pm->len_bytes || len > pm->len_bytes - off)
		return err_corrupt(err, "the pool ends before byte %llu",
				   (unsigned long long)off + len);
	rc = pm_read(pm, buf, pm->base + off, len);
	return rc ? err_sys(err, rc, "reading the pool at byte %llu", (unsigned long long)off) : 0;
}

/* ---- info blocks --------------------------------------------------------------------------- */

static bool is_zero(const void *buf, size_t len)
{
	const uint8_t *byte = buf;

	return !len || (!byte[0] && !memcmp(byte, byte + 1, len - 1));
}

/* Whether a region of the arena lies inside it. */
static bool inside(uint64_t arena_bytes, uint64_t off, uint64_t len)
{
	return off >= PMDK_BLOCK && off <= arena_bytes && len <= arena_bytes - off;
}

static bool info_fits(const struct pmdk_info *info, uint64_t arena_bytes, uint32_t block_bytes)
{
	const uint64_t internal = le32_get(info->internal_nlba);

	return le32_get(info->external_nlba) && le32_get(info->external_nlba) <= internal &&
	       internal <= PMDK_MAP_LBA && le32_get(info->external_lbasize) == block_bytes &&
	       le32_get(info->internal_lbasize) >= block_bytes && le32_get(info->nfree) &&
	       inside(arena_bytes, le64_get(info->dataoff),
		      internal * le32_get(info->internal_lbasize)) &&
	       inside(arena_bytes, le64_get(info->mapoff),
		      (uint64_t)le32_get(info->external_nlba) * sizeof(le32)) &&
	       inside(arena_bytes, le64_get(info->flogoff),
		      (uint64_t)le32_get(info->nfree) * PMDK_FLOG_PAIR);
}

static bool info_valid(const struct pmdk_info *info)
{
	return !memcmp(info->signature, PMDK_INFO_SIGNATURE, sizeof(info->signature)) &&
	       le64_get(info->checksum) == fletcher64(info, PMDK_CHECKSUM_OFF);
}

/*
 * The info block of the arena at off, or else its copy at the arena's end. 1 when the arena has
 * never been laid out.
 */
static int info_read(const struct pmdk_pool *pool, uint64_t off, uint64_t arena_bytes,
		     struct pmdk_info *ret, struct err *err)
{
	struct pmdk_info copy;
	struct err lost = ERR_INIT;
	int rc = read_at(pool->pm, ret, off, sizeof(*ret), &lost);
	const bool fresh = !rc && is_zero(ret, sizeof(*ret));

	if (rc || !info_valid(ret)) {
		const uint64_t end = off + arena_bytes / PMDK_BLOCK * PMDK_BLOCK;

		rc = read_at(pool->pm, &copy, end - PMDK_BLOCK, sizeof(copy), err);
		if (rc)
			return rc;
		if (!info_valid(&copy))
			return fresh && is_zero(&copy, sizeof(copy))
				       ? 1
				       : err_corrupt(err, "neither info block of the arena at byte "
							  "%llu is intact",
						     (unsigned long long)off);
		*ret = copy;
	}
	if (le16_get(ret->major) != MAJOR_KNOWN)
		return err_set(err, -ENOTSUP, "the arena at byte %llu has version %u.%u, not 1.x",
			       (unsigned long long)off, le16_get(ret->major),
			       le16_get(ret->minor));
	if (!info_fits(ret, arena_bytes, pool->block_bytes))
		return err_corrupt(err, "the info block of the arena at byte %llu is impossible",
				   (unsigned long long)off);
	return 0;
}

/* ---- the flog ------------------------------------------------------------------------------ */

static int fix_compare(const void *a, const void *b)
{
	const struct fix *x = a, *y = b;

	return x->lba < y->lba ? -1 : x->lba > y->lba;
}

static uint32_t seq_next(uint32_t seq)
{
	return seq == 3 ? 1 : seq + 1;
}

/* The newer slot of a pair, or NULL: neither is valid. */
static const struct pmdk_flog *flog_newer(const struct pmdk_flog pair[2])
{
	const uint32_t a = le32_get(pair[0].seq), b = le32_get(pair[1].seq);

	if (a > 3 || b > 3 || a == b)
		return NULL;
	if (!a || !b)
		return a ? &pair[0] : &pair[1];
	return seq_next(b) == a ? &pair[0] : &pair[1];
}

static uint32_t map_value(uint32_t raw, uint32_t lba)
{
	return raw & PMDK_MAP_NORMAL ? raw : lba | PMDK_MAP_NORMAL;
}

static int map_raw(const struct pmdk_pool *pool, const struct arena *a, uint32_t lba,
		   uint32_t *ret, struct err *err)
{
	le32 entry;
	int rc = read_at(pool->pm, &entry, a->map_off + (uint64_t)lba * sizeof(entry),
			 sizeof(entry), err);

	*ret = rc ? 0 : le32_get(entry);
	return rc;
}

static int fix_add(struct arena *a, uint32_t lba, uint32_t entry)
{
	struct fix *fixes = realloc(a->fixes, (a->nfixes + 1) * sizeof(*fixes));

	if (!fixes)
		return -ENOMEM;
	a->fixes = fixes;
	a->fixes[a->nfixes++] = (struct fix){lba, entry};
	return 0;
}

static int flog_pair(const struct pmdk_pool *pool, struct arena *a, uint32_t lane, struct err *err)
{
	struct pmdk_flog pair[2];
	const struct pmdk_flog *now;
	uint32_t lba, raw, old, new;
	int rc = read_at(pool->pm, pair, a->flog_off + (uint64_t)lane * PMDK_FLOG_PAIR,
			 sizeof(pair), err);

	if (rc)
		return rc;
	now = flog_newer(pair);
	lba = now ? le32_get(now->lba) : 0;
	if (!now || lba >= a->blocks)
		return err_corrupt(err, "flog entry %u of the arena at byte %llu is damaged", lane,
				   (unsigned long long)a->off);
	old = le32_get(now->old_map);
	new = le32_get(now->new_map);
	if (old == new)
		return 0; /* a free block that was never used */
	rc = map_raw(pool, a, lba, &raw, err);
	if (rc)
		return rc;
	raw = map_value(raw, lba);
	/* The map has yet to take the new value, if it still has the old one. */
	return raw != new && raw == old ? fix_add(a, lba, new) : 0;
}

static int flog_read(const struct pmdk_pool *pool, struct arena *a, struct err *err)
{
	int rc = 0;

	for (uint32_t lane = 0; !rc && lane < a->nfree; lane++)
		rc = flog_pair(pool, a, lane, err);
	if (!rc && a->nfixes)
		qsort(a->fixes, a->nfixes, sizeof(*a->fixes), fix_compare);
	return rc;
}

/* ---- opening ------------------------------------------------------------------------------- */

static int arena_add(struct pmdk_pool *pool, uint64_t off, const struct pmdk_info *info,
		     struct err *err)
{
	struct arena *arenas = realloc(pool->arenas, (pool->narenas + 1) * sizeof(*arenas));
	struct arena *a;

	if (!arenas)
		return err_set(err, -ENOMEM, "no memory");
	pool->arenas = arenas;
	a = &arenas[pool->narenas++];
	*a = (struct arena){
		.off = off,
		.first_block = pool->blocks,
		.blocks = le32_get(info->external_nlba),
		.internal_blocks = le32_get(info->internal_nlba),
		.internal_bytes = le32_get(info->internal_lbasize),
		.nfree = le32_get(info->nfree),
		.data_off = off + le64_get(info->dataoff),
		.map_off = off + le64_get(info->mapoff),
		.flog_off = off + le64_get(info->flogoff),
	};
	pool->blocks += a->blocks;
	return flog_read(pool, a, err);
}

static int arenas_read(struct pmdk_pool *pool, struct err *err)
{
	uint64_t off = PMDK_DATA_OFF, next;

	do {
		const uint64_t left = pool->pm->len_bytes - off;
		const uint64_t bytes = left < PMDK_ARENA_MAX ? left : PMDK_ARENA_MAX;
		struct pmdk_info info;
		int rc;

		if (bytes < 2 * PMDK_BLOCK || pool->narenas == ARENAS_MAX)
			return err_corrupt(err, "there is no room for an arena at byte %llu",
					   (unsigned long long)off);
		rc = info_read(pool, off, bytes, &info, err);
		if (rc == 1 && !pool->narenas)
			return 0;
		if (rc == 1)
			rc = err_corrupt(err, "the arena at byte %llu is blank",
					 (unsigned long long)off);
		if (!rc)
			rc = arena_add(pool, off, &info, err);
		if (rc)
			return rc;
		next = le64_get(info.nextoff);
		if (next && (next < 2 * PMDK_BLOCK || next > left))
			return err_corrupt(err, "the arena at byte %llu names an impossible next",
					   (unsigned long long)off);
		off += next;
	} while (next);
	return 0;
}

bool pmdk_is_pool(const void *start, size_t len)
{
	return len >= sizeof(PMDK_HDR_SIGNATURE) &&
	       !memcmp(start, PMDK_HDR_SIGNATURE, sizeof(PMDK_HDR_SIGNATURE));
}

/* Of a pool of one file all UUIDs but the set's are the same. */
static bool is_single(const struct pmdk_hdr *hdr)
{
	const size_t len = sizeof(hdr->uuid);

	return !memcmp(hdr->uuid, hdr->prev_part_uuid, len) &&
	       !memcmp(hdr->uuid, hdr->next_part_uuid, len) &&
	       !memcmp(hdr->uuid, hdr->prev_repl_uuid, len) &&
	       !memcmp(hdr->uuid, hdr->next_repl_uuid, len);
}

static bool header_intact(const struct pmdk_hdr *hdr)
{
	const bool half = le32_get(hdr->incompat) & PMDK_INCOMPAT_CKSUM_2K;

	return le64_get(hdr->checksum) == fletcher64(hdr, half ? 2048 : PMDK_CHECKSUM_OFF);
}

static int header_read(struct pmdk_pool *pool, struct err *err)
{
	struct pmdk_hdr hdr;
	struct pmdk_blk blk;
	int rc;

	if (pool->pm->len_bytes < PMDK_DATA_OFF)
		return err_set(err, -ENOENT, "too short for a pool");
	rc = read_at(pool->pm, &hdr, 0, sizeof(hdr), err);
	if (rc)
		return rc;
	if (!pmdk_is_pool(&hdr, sizeof(hdr)))
		return err_set(err, -ENOENT, "not a pool of PMDK's libpmemblk");
	if (!header_intact(&hdr))
		return err_corrupt(err, "the pool header's checksum does not match");
	if (le32_get(hdr.major) != MAJOR_KNOWN ||
	    (le32_get(hdr.incompat) & ~PMDK_INCOMPAT_KNOWN))
		return err_set(err, -ENOTSUP, "a pool of version %u with features %#x: not known",
			       le32_get(hdr.major), le32_get(hdr.incompat));
	if (!is_single(&hdr))
		return err_set(err, -ENOTSUP, "a part of a pool set: only pools of one file can "
					      "be read");
	rc = read_at(pool->pm, &blk, sizeof(hdr), sizeof(blk), err);
	pool->block_bytes = rc ? 0 : le32_get(blk.bsize);
	if (!rc && !pool->block_bytes)
		rc = err_corrupt(err, "the pool's block size is 0");
	return rc;
}

int pmdk_open(const struct pmem *pm, struct pmdk_pool **ret, struct err *err)
{
	struct pmdk_pool *pool = calloc(1, sizeof(*pool));
	int rc;

	if (!pool)
		return err_set(err, -ENOMEM, "no memory");
	pool->pm = pm;
	rc = header_read(pool, err);
	if (!rc)
		rc = arenas_read(pool, err);
	if (rc) {
		pmdk_close(pool);
		return rc;
	}
	*ret = pool;
	return 0;
}

void pmdk_close(struct pmdk_pool *pool)
{
	if (!pool)
		return;
	for (uint32_t i = 0; i < pool->narenas; i++)
		free(pool->arenas[i].fixes);
	free(pool->arenas);
	free(pool);
}

uint32_t pmdk_block_bytes(const struct pmdk_pool *pool)
{
	return pool->block_bytes;
}

uint64_t pmdk_blocks(const struct pmdk_pool *pool)
{
	return pool->blocks;
}

/* ---- reading ------------------------------------------------------------------------------- */

static const struct arena *arena_of(const struct pmdk_pool *pool, uint64_t block)
{
	uint32_t low = 0, high = pool->narenas;

	while (high - low > 1) {
		const uint32_t mid = low + (high - low) / 2;

		if (pool->arenas[mid].first_block <= block)
			low = mid;
		else
			high = mid;
	}
	return &pool->arenas[low];
}

int pmdk_read(const struct pmdk_pool *pool, uint64_t block, void *buf, enum pmdk_state *ret,
	      struct err *err)
{
	const struct arena *a;
	const struct fix *fix;
	struct fix key;
	uint32_t entry;
	int rc;

	if (block >= pool->blocks)
		return err_set(err, -EINVAL, "block %llu of %llu", (unsigned long long)block,
			       (unsigned long long)pool->blocks);
	a = arena_of(pool, block);
	key = (struct fix){.lba = (uint32_t)(block - a->first_block)};
	rc = map_raw(pool, a, key.lba, &entry, err);
	if (rc)
		return rc;
	fix = a->nfixes ? bsearch(&key, a->fixes, a->nfixes, sizeof(key), fix_compare) : NULL;
	if (fix)
		entry = fix->entry;
	switch (entry & PMDK_MAP_NORMAL) {
	case PMDK_MAP_NORMAL:
		break;
	case PMDK_MAP_ERROR:
		*ret = PMDK_ERROR;
		return 0;
	default:
		*ret = PMDK_ZERO;
		return 0;
	}
	if ((entry & PMDK_MAP_LBA) >= a->internal_blocks)
		return err_corrupt(err, "the map entry of block %llu leads out of its arena",
				   (unsigned long long)block);
	*ret = PMDK_DATA;
	return read_at(pool->pm, buf,
		       a->data_off + (uint64_t)(entry & PMDK_MAP_LBA) * a->internal_bytes,
		       pool->block_bytes, err);
}
