/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the segments of a batch to pieces that can be written: sorted, newest only, verified.
 *
 * The data of all segments together is one linear space (a segment's data begins at its base, with
 * a gap of one sector after each). The records, applied in order to a small extent map LBA ->
 * linear place (of zeros: the segment's index), leave the newest version of each sector of the
 * batch; walking that map gives the pieces in LBA order.
 *
 *   build_map          not entered: the map; which samples of the device will change
 *   build_superseded   entered, in slices: leaves out what a later, durable segment has
 *   build_verify       not entered: compares each 4 KiB with its checksum; what is damaged becomes
 *                      a LOST piece, and a bad range when the batch is home
 *
 * Invariants:
 *   1. of two records of the batch the later one wins; of a record of the batch and one behind it
 *      the latter wins only if it is durable (L7): else a crash would leave neither;
 *   2. every byte of a DATA piece lies in a chunk that has been compared with its checksum in the
 *      memory that it is written from. A chunk that does not match goes nowhere;
 *   3. pieces are whole blocks of the backing device, because records are;
 *   4. segments are pinned: their records, checksums and data do not change, and need no entering.
 *
 * It takes O(n log n), and memory that is kept for the next batch.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "boost/boost_impl.h"

#define CRC_SECTORS 8u /* one checksum for so many sectors of a record, counted from its start */
#define SUPERSEDED_SLICE 256

enum chunk_state {
	CHUNK_UNKNOWN,
	CHUNK_GOOD,
	CHUNK_ROTTEN,
};

static uint32_t min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Room for `want` entries of `size`; doubles, so that many calls cost little. */
static int grow(void **mem, size_t *cap, size_t want, size_t size)
{
	size_t more = *cap ? *cap : 64;
	void *p;

	if (want <= *cap)
		return 0;
	while (more < want)
		more *= 2;
	p = realloc(*mem, more * size);
	if (!p)
		return -ENOMEM;
	*mem = p;
	*cap = more;
	return 0;
}

/* Adds a piece behind the others; joins it with the last if it continues that. */
int pieces_add(struct pieces *list, const struct piece *p)
{
	struct piece *last = list->n ? &list->p[list->n - 1] : NULL;
	int r;

	if (last && last->kind == p->kind && last->lba + last->sectors == p->lba &&
	    (uint64_t)last->sectors + p->sectors <= EXTMAP_LEN_MAX &&
	    (p->kind != PIECE_DATA ||
	     last->u.data + (size_t)last->sectors * DEV_SECTOR_BYTES == p->u.data)) {
		last->sectors += p->sectors;
		return 0;
	}
	r = grow((void **)&list->p, &list->cap, list->n + 1, sizeof(*p));
	if (!r)
		list->p[list->n++] = *p;
	return r;
}

/* ---- the map */

static int build_newest(struct batch *bt, const struct wlog_rec *rec, uint64_t value)
{
	struct extent e;

	/* Later records come later and win, unless that is what a test takes away. */
	if (!VARVE_STEP("boost.newest_copy") && extmap_lookup(&bt->map, rec->lba, &e) &&
	    e.lba < rec->lba + rec->sectors)
		return 0;
	return extmap_insert(&bt->map, rec->lba, rec->sectors, value);
}

static int build_record(struct batch *bt, uint32_t index, const struct wlog_rec *rec)
{
	const uint64_t base = bt->segs[index].base;
	int r;

	if (rec->type != WLOG_DATA)
		return build_newest(bt, rec, EXTMAP_CONST | index);
	r = build_newest(bt, rec, base + rec->data_sector);
	if (r)
		return r;
	bt->source[bt->nsource++] = (struct source){
		.lin = base + rec->data_sector,
		.lba = rec->lba,
		.sectors = rec->sectors,
		.seg = index,
		.first_crc = rec->first_crc,
		.first_chunk = (uint32_t)bt->chunks,
	};
	bt->chunks += (rec->sectors + CRC_SECTORS - 1) / CRC_SECTORS;
	return 0;
}

/* Records were checked when they were made and are under a checksum since: this is a last look. */
static bool record_possible(const struct boost *b, const struct wlog_rec *rec)
{
	const uint32_t block = b->backing->block_bytes / DEV_SECTOR_BYTES;

	return rec->sectors && rec->lba < b->home.sectors &&
	       rec->sectors <= b->home.sectors - rec->lba && rec->lba % block == 0 &&
	       rec->sectors % block == 0;
}

static int build_segment(struct boost *b, uint32_t index)
{
	struct batch *bt = &b->batch;
	const struct bseg *bs = &bt->segs[index];

	for (uint32_t i = 0; i < bs->view.records; i++) {
		struct wlog_rec rec;
		int r;

		wlog_seg_rec(bs->seg, i, &rec);
		if (rec.skip)
			continue;
		if (!record_possible(b, &rec)) {
			log_error("segment %llu of the cache, record %u: sector %llu and %u more "
				  "are not whole blocks of the backing device",
				  (unsigned long long)bs->view.number, i,
				  (unsigned long long)rec.lba, rec.sectors);
			return -EBADMSG;
		}
		r = build_record(bt, index, &rec);
		if (r)
			return r;
	}
	return 0;
}

/* The samples that the batch may change, whether or not all of it is written in the end. */
static void build_samples(struct boost *b)
{
	struct batch *bt = &b->batch;

	for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
		const uint64_t lba = sample_off(&b->state, i) / DEV_SECTOR_BYTES;
		const uint64_t end = lba + sample_len(&b->state, i) / DEV_SECTOR_BYTES;
		struct extent e;

		bt->sample_touched[i] = extmap_lookup(&bt->map, lba, &e) && e.lba < end;
	}
}

int build_map(struct boost *b)
{
	struct batch *bt = &b->batch;
	uint64_t records = 0, base = 0;
	int r;

	/* Keeps its memory, unless that fails. */
	if (extmap_remove(&bt->map, 0, EXTMAP_LBA_END, NULL, NULL))
		extmap_clear(&bt->map);
	bt->nsource = 0;
	bt->chunks = 0;
	for (uint32_t i = 0; i < bt->nsegs; i++) {
		records += bt->segs[i].view.records;
		bt->segs[i].base = base;
		base += bt->segs[i].view.data_sectors + 1;
	}
	r = grow((void **)&bt->source, &bt->source_cap, records, sizeof(*bt->source));
	for (uint32_t i = 0; !r && i < bt->nsegs; i++)
		r = build_segment(b, i);
	if (!r)
		r = grow((void **)&bt->chunk, &bt->chunk_cap, bt->chunks, 1);
	if (r)
		return r;
	if (bt->chunks)
		memset(bt->chunk, CHUNK_UNKNOWN, bt->chunks);
	build_samples(b);
	bt->found.n = 0;
	bt->superseded_sectors = 0;
	bt->at = 0;
	return 0;
}

/* ---- superseded */

/* The part of [at, to) that is extent e's, up to what can be one piece. */
static int found_add(struct batch *bt, const struct extent *e, uint64_t at, uint64_t to)
{
	struct piece p = {
		.lba = at,
		.sectors = (uint32_t)(to - at),
		.kind = e->value & EXTMAP_CONST ? PIECE_ZERO : PIECE_DATA,
	};
	int r = grow((void **)&bt->found.p, &bt->found.cap, bt->found.n + 1, sizeof(p));

	p.u.lin = extmap_value_at(e->value, at - e->lba);
	if (!r)
		bt->found.p[bt->found.n++] = p;
	return r;
}

/* bt->at is the LBA to go on from. */
int build_superseded(struct boost *b)
{
	struct batch *bt = &b->batch;
	struct extmap_iter it;
	struct extent e;
	uint64_t run_end = 0;
	unsigned int left = SUPERSEDED_SLICE;
	bool gone = false;

	extmap_iter_init(&it, &bt->map, bt->at);
	while (extmap_iter_next(&it, &e)) {
		const uint64_t end = e.lba + e.sectors;
		uint64_t at = e.lba > bt->at ? e.lba : bt->at;

		while (at < end) {
			uint64_t to;
			int r = 0;

			if (at >= run_end) {
				if (!left--)
					return 1;
				run_end = wlog_superseded(b->log, at, end, bt->last_number, &gone);
			}
			to = run_end < end ? run_end : end;
			if (!gone)
				r = found_add(bt, &e, at, to);
			else if (!(e.value & EXTMAP_CONST))
				bt->superseded_sectors += to - at;
			if (r)
				return r;
			at = bt->at = to;
		}
	}
	return 0;
}

/* ---- verifying */

static const struct source *source_at(const struct batch *bt, uint64_t lin)
{
	uint32_t lo = 0, hi = bt->nsource;

	while (hi - lo > 1) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (bt->source[mid].lin > lin)
			hi = mid;
		else
			lo = mid;
	}
	return &bt->source[lo];
}

uint64_t build_segment_of(const struct batch *bt, uint64_t value)
{
	const uint64_t index =
		value & EXTMAP_CONST ? value & ~EXTMAP_CONST : source_at(bt, value)->seg;

	return bt->segs[index].view.number;
}

static const uint8_t *source_data(const struct batch *bt, const struct source *src, uint32_t off)
{
	const struct bseg *bs = &bt->segs[src->seg];

	return bs->data + (src->lin + off - bs->base) * DEV_SECTOR_BYTES;
}

static bool chunk_good(struct batch *bt, const struct source *src, uint32_t chunk)
{
	uint8_t *state = &bt->chunk[src->first_chunk + chunk];
	const uint32_t from = chunk * CRC_SECTORS;
	const uint32_t sectors = min32(CRC_SECTORS, src->sectors - from);

	if (*state == CHUNK_UNKNOWN) {
		const uint32_t crc =
			crc32c(0, source_data(bt, src, from), (size_t)sectors * DEV_SECTOR_BYTES);

		*state = CHUNK_GOOD;
		if (crc != wlog_seg_crc(bt->segs[src->seg].seg, src->first_crc + chunk) &&
		    VARVE_STEP("boost.verify_before_write"))
			*state = CHUNK_ROTTEN;
	}
	return *state == CHUNK_GOOD;
}

/*
 * Verifies what can be told apart: a chunk, or a block of the device if that is longer, which is
 * written whole or not at all. Returns where it ends, in sectors of the record.
 */
static uint32_t unit_verify(const struct boost *b, struct batch *bt, const struct source *src,
			    uint32_t off, bool *ret_good)
{
	uint32_t unit = b->backing->block_bytes / DEV_SECTOR_BYTES;
	uint32_t from, to;

	if (unit < CRC_SECTORS)
		unit = CRC_SECTORS;
	from = off - off % unit;
	to = min32(from + unit, src->sectors);
	*ret_good = true;
	for (uint32_t at = from; at < to && *ret_good; at += CRC_SECTORS)
		*ret_good = chunk_good(bt, src, at / CRC_SECTORS);
	return to;
}

static int verify_data(struct boost *b, const struct piece *found)
{
	struct batch *bt = &b->batch;
	uint32_t done = 0;

	while (done < found->sectors) {
		const struct source *src = source_at(bt, found->u.lin + done);
		const uint32_t off = (uint32_t)(found->u.lin + done - src->lin);
		struct piece p = {.lba = found->lba + done, .kind = PIECE_DATA};
		bool good;
		int r;

		p.sectors = min32(unit_verify(b, bt, src, off, &good) - off, found->sectors - done);
		p.u.data = source_data(bt, src, off);
		if (!good) {
			p.kind = PIECE_LOST;
			bt->lost_sectors += p.sectors;
		}
		r = pieces_add(&bt->ready, &p);
		if (r)
			return r;
		done += p.sectors;
	}
	return 0;
}

/* ---- bad ranges */

static int bads_copy(const struct extmap *from, struct extmap *to)
{
	struct extmap_iter it;
	struct extent e;
	int r = 0;

	extmap_clear(to);
	extmap_iter_init(&it, from, 0);
	while (!r && extmap_iter_next(&it, &e))
		r = extmap_append(to, e.lba, e.sectors, e.value);
	return r;
}

/* What will be bad when the batch is home: not what it writes, but what it had to leave out. */
static int build_bads(struct boost *b)
{
	struct batch *bt = &b->batch;
	int r = 0;

	bt->bads_changed = bt->lost_sectors || extmap_count(&b->bads);
	if (!bt->bads_changed)
		return 0;
	r = bads_copy(&b->bads, &bt->bads);
	for (size_t i = 0; !r && i < bt->ready.n; i++) {
		const struct piece *p = &bt->ready.p[i];

		if (p->kind == PIECE_LOST)
			r = extmap_insert(&bt->bads, p->lba, p->sectors, BAD_TAG);
		else
			r = extmap_remove(&bt->bads, p->lba, p->sectors, NULL, NULL);
	}
	if (!r && bads_entries(&bt->bads) > BOOST_BADS)
		r = -ENOSPC;
	return r;
}

int build_verify(struct boost *b)
{
	struct batch *bt = &b->batch;
	int r = 0;

	bt->ready.n = 0;
	bt->lost_sectors = 0;
	for (size_t i = 0; !r && i < bt->found.n; i++) {
		if (bt->found.p[i].kind == PIECE_ZERO)
			r = pieces_add(&bt->ready, &bt->found.p[i]);
		else
			r = verify_data(b, &bt->found.p[i]);
	}
	if (!r)
		r = build_bads(b);
	return r;
}
