/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The home's state in the log's superblock (boost_layout.h, docs/SPEC-boost.md).
 *
 * In memory it is a struct state and a map of bad ranges; on media one block of 2048 bytes with a
 * checksum of its own. The log keeps it with its superblock, so that it is always of the same
 * moment as destaged_lsn, and a torn write cannot leave a mixture.
 *
 * Invariants:
 *   1. what state_encode() has written, state_decode() reads back as the same;
 *   2. decoding trusts nothing: lengths, counts, ranges and their order are checked before use;
 *   3. bad ranges in memory are merged; on media a long one takes several entries.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "boost/boost_impl.h"

#define BAD_MAX_SECTORS UINT16_MAX

static_assert(BOOST_IDENTITY_BYTES == DEV_IDENTITY_LEN, "identities fit");
static_assert(BOOST_STATE_BYTES <= WLOG_HOME_BYTES, "the state fits");

static uint32_t state_crc(const struct boost_state *st)
{
	static const le32 zero;
	const uint8_t *bytes = (const uint8_t *)st;
	const size_t at = offsetof(struct boost_state, crc);
	uint32_t crc = crc32c(0, bytes, at);

	crc = crc32c(crc, &zero, sizeof(zero));
	return crc32c(crc, bytes + at + sizeof(zero), sizeof(*st) - at - sizeof(zero));
}

/* ---- bad ranges */

uint32_t bads_entries(const struct extmap *bads)
{
	struct extmap_iter it;
	struct extent e;
	uint64_t n = 0;

	extmap_iter_init(&it, bads, 0);
	while (extmap_iter_next(&it, &e))
		n += (e.sectors + BAD_MAX_SECTORS - 1) / BAD_MAX_SECTORS;
	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

uint64_t bads_sectors(const struct extmap *bads)
{
	struct extmap_iter it;
	struct extent e;
	uint64_t n = 0;

	extmap_iter_init(&it, bads, 0);
	while (extmap_iter_next(&it, &e))
		n += e.sectors;
	return n;
}

static void bads_encode(const struct extmap *bads, struct boost_state *ret)
{
	struct extmap_iter it;
	struct extent e;
	uint32_t n = 0;

	extmap_iter_init(&it, bads, 0);
	while (extmap_iter_next(&it, &e)) {
		while (e.sectors) {
			const uint64_t part =
				e.sectors < BAD_MAX_SECTORS ? e.sectors : BAD_MAX_SECTORS;

			ret->bad[n].lba = le48_make(e.lba);
			ret->bad[n++].sectors = le16_make((uint16_t)part);
			e.lba += part;
			e.sectors -= part;
		}
	}
	ret->bads = le32_make(n);
}

static int bads_decode(const struct boost_state *st, struct extmap *bads, struct err *err)
{
	const uint64_t end = le64_get(st->backing_bytes) / DEV_SECTOR_BYTES;
	const uint32_t n = le32_get(st->bads);
	uint64_t last = 0;

	if (n > BOOST_BADS)
		return err_corrupt(err, "the home's state: %u bad ranges, there is room for %u", n,
				   BOOST_BADS);
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t lba = le48_get(st->bad[i].lba);
		const uint64_t sectors = le16_get(st->bad[i].sectors);
		int r;

		if (!sectors || lba < last || lba > end || sectors > end - lba)
			return err_corrupt(err,
					   "the home's state: bad range %u, sector %llu and %llu "
					   "more, cannot be",
					   i, (unsigned long long)lba, (unsigned long long)sectors);
		r = extmap_insert(bads, lba, sectors, BAD_TAG);
		if (r)
			return r;
		last = lba + sectors;
	}
	return 0;
}

/* ---- the whole */

int state_encode(const struct state *state, const struct extmap *bads, struct boost_state *ret)
{
	if (bads_entries(bads) > BOOST_BADS)
		return -ENOSPC;
	memset(ret, 0, sizeof(*ret));
	ret->magic = le64_make(BOOST_STATE_MAGIC);
	ret->version = le32_make(BOOST_STATE_VERSION);
	ret->backing_bytes = le64_make(state->backing_bytes);
	ret->bound_wall_ns = le64_make(state->bound_wall_ns);
	ret->destaged_wall_ns = le64_make(state->destaged_wall_ns);
	ret->sample_seed = le64_make(state->samples.seed);
	ret->block_bytes = le32_make(state->block_bytes);
	memcpy(ret->identity, state->identity, strnlen(state->identity, DEV_IDENTITY_LEN - 1));
	for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
		if (!state->samples.valid[i])
			continue;
		ret->sample_valid[i / 8] |= (uint8_t)(1u << i % 8);
		ret->sample_crc[i] = le32_make(state->samples.crc[i]);
	}
	bads_encode(bads, ret);
	ret->crc = le32_make(state_crc(ret));
	return 0;
}

static int state_check(const struct boost_state *st, struct err *err)
{
	const uint64_t bytes = le64_get(st->backing_bytes);
	const uint32_t block = le32_get(st->block_bytes);

	if (le32_get(st->crc) != state_crc(st))
		return err_corrupt(err, "the home's state: checksum does not match");
	if (le32_get(st->version) != BOOST_STATE_VERSION ||
	    (le32_get(st->incompat_flags) & ~BOOST_INCOMPAT_KNOWN))
		return err_set(err, -ENOTSUP,
			       "the home's state: version %u, flags %#x are newer than this "
			       "program",
			       le32_get(st->version), le32_get(st->incompat_flags));
	if (block < DEV_SECTOR_BYTES || block > (64u << 10) || (block & (block - 1)))
		return err_corrupt(err, "the home's state: blocks of %u bytes", block);
	if (!bytes || bytes % DEV_SECTOR_BYTES || bytes / DEV_SECTOR_BYTES > EXTMAP_LBA_END)
		return err_corrupt(err, "the home's state: a device of %llu bytes",
				   (unsigned long long)bytes);
	if (!memchr(st->identity, 0, sizeof(st->identity)))
		return err_corrupt(err, "the home's state: the device's identity has no end");
	return 0;
}

int state_decode(const void *buf, uint32_t bytes, struct state *ret, struct extmap *bads,
		 struct err *err)
{
	const struct boost_state *st = buf;
	int r;

	if (bytes != sizeof(*st) || le64_get(st->magic) != BOOST_STATE_MAGIC)
		return err_corrupt(err, "the home's state: it is none of an in-place home");
	r = state_check(st, err);
	if (!r)
		r = bads_decode(st, bads, err);
	if (r) {
		extmap_clear(bads);
		return r;
	}
	*ret = (struct state){
		.backing_bytes = le64_get(st->backing_bytes),
		.bound_wall_ns = le64_get(st->bound_wall_ns),
		.destaged_wall_ns = le64_get(st->destaged_wall_ns),
		.block_bytes = le32_get(st->block_bytes),
		.samples.seed = le64_get(st->sample_seed),
	};
	memcpy(ret->identity, st->identity, sizeof(ret->identity));
	for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
		ret->samples.valid[i] = st->sample_valid[i / 8] >> i % 8 & 1;
		ret->samples.crc[i] = le32_get(st->sample_crc[i]);
	}
	return 0;
}

int boost_binding(const struct wlog_info *info, struct boost_binding *ret, struct err *err)
{
	struct extmap bads;
	struct state state;
	int r;

	if (!info->home_bytes)
		return err_set(err, -ENOENT, "the log is not bound to a backing device");
	extmap_init(&bads, NULL, 0);
	r = state_decode(info->home, info->home_bytes, &state, &bads, err);
	if (!r) {
		*ret = (struct boost_binding){
			.backing_bytes = state.backing_bytes,
			.bound_wall_ns = state.bound_wall_ns,
			.bad_bytes = bads_sectors(&bads) * DEV_SECTOR_BYTES,
		};
		memcpy(ret->identity, state.identity, sizeof(ret->identity));
	}
	extmap_destroy(&bads);
	return r;
}
