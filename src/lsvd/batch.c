/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Building an object from the segments of a batch.
 *
 * Not entered: the segments are pinned, their records and data do not change, and nobody else
 * knows the batch's buffers. The data of all segments together is one linear space (a segment's
 * data begins at its base, with a gap of one sector after each). The records, applied in order to
 * a small extent map LBA -> linear place, leave the newest version of each sector of the batch;
 * walking that map in LBA order gives the object's extents.
 *
 *   build_sources    one struct source for each DATA record, and room for what its chunks' checks
 *                    have shown
 *   build_map        coalescing
 *   build_pieces     runs of one source each, checked; what is rotten becomes an ERROR piece
 *   build_header     pieces that continue each other in LBA become one extent
 *   build_crcs       a chunk that is a chunk of the log as well keeps its checksum
 *   build_iov        the body, straight from the segments' memory
 *
 * Invariants:
 *   1. coalescing is within the batch only: across batches it would break the prefix (P3);
 *   2. every byte of the body lies in a chunk that has been compared with the log's checksum after
 *      it was last in anybody else's hands. A mismatch becomes an ERROR extent: loud, confined to
 *      the chunk, and no reason for the tail of the log to stop (L9);
 *   3. a batch holds whole writes only (destage.c cuts it), so the object is one atomic step.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

#define PLACE_ZERO (EXTMAP_CONST | 2)

struct source {
	uint64_t lin; /* ascending */
	uint64_t lba;
	uint32_t sectors;
	uint32_t seg;
	uint32_t first_crc;   /* in its segment */
	uint32_t first_chunk; /* in build.chunk */
};

enum chunk_state {
	CHUNK_UNKNOWN,
	CHUNK_GOOD,
	CHUNK_ROTTEN,
};

struct piece {
	uint64_t lba;
	uint64_t lin;
	uint32_t sectors;
	uint32_t source;
	enum lsvd_ext_type type;
};

struct build {
	struct batch *b;
	struct source *source;
	uint32_t nsources, chunks;
	uint8_t *chunk; /* enum chunk_state */
	struct extmap map;
	struct piece *piece;
	uint32_t npieces, pieces_cap;
	uint32_t exts, crcs;
};

static const uint8_t *build_data(const struct build *bd, const struct source *src, uint64_t lin)
{
	const struct bseg *bs = &bd->b->segs[src->seg];

	return bs->data + (lin - bs->base) * DEV_SECTOR_BYTES;
}

/* ---- records */

static int build_map_record(struct build *bd, const struct wlog_rec *rec, uint64_t base)
{
	if (rec->type == WLOG_DATA)
		return extmap_insert(&bd->map, rec->lba, rec->sectors, base + rec->data_sector);
	/* A tag, not a removal: the object has to say that the range is zero now. */
	return extmap_insert(&bd->map, rec->lba, rec->sectors, PLACE_ZERO);
}

static bool build_wants(const struct wlog_rec *rec)
{
	return !rec->skip &&
	       (rec->type == WLOG_DATA || rec->type == WLOG_ZERO || rec->type == WLOG_DISCARD);
}

static int build_segment(struct build *bd, uint32_t index)
{
	const struct bseg *bs = &bd->b->segs[index];

	for (uint32_t i = 0; i < bs->view.records; i++) {
		struct wlog_rec rec;
		int r;

		wlog_seg_rec(bs->seg, i, &rec);
		if (!build_wants(&rec))
			continue;
		r = build_map_record(bd, &rec, bs->base);
		if (r)
			return r;
		if (rec.type != WLOG_DATA)
			continue;
		bd->source[bd->nsources++] = (struct source){
			.lin = bs->base + rec.data_sector,
			.lba = rec.lba,
			.sectors = rec.sectors,
			.seg = index,
			.first_crc = rec.first_crc,
			.first_chunk = bd->chunks,
		};
		bd->chunks += obj_crcs(rec.sectors);
		bd->b->taken_bytes += (uint64_t)rec.sectors * DEV_SECTOR_BYTES;
	}
	return 0;
}

static int build_sources(struct build *bd)
{
	struct batch *b = bd->b;
	uint64_t records = 0, base = 0;

	for (uint32_t i = 0; i < b->nsegs; i++) {
		records += b->segs[i].view.records;
		b->segs[i].base = base;
		base += b->segs[i].view.data_sectors + 1;
	}
	b->taken_bytes = 0;
	bd->source = malloc((records + 1) * sizeof(*bd->source));
	if (!bd->source)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nsegs; i++) {
		int r = build_segment(bd, i);

		if (r)
			return r;
	}
	bd->chunk = calloc(bd->chunks + 1, 1);
	return bd->chunk ? 0 : -ENOMEM;
}

static uint32_t build_source_at(const struct build *bd, uint64_t lin)
{
	uint32_t lo = 0, hi = bd->nsources;

	while (hi - lo > 1) {
		const uint32_t mid = lo + (hi - lo) / 2;

		if (bd->source[mid].lin > lin)
			hi = mid;
		else
			lo = mid;
	}
	return lo;
}

/* ---- pieces */

static int build_add(struct build *bd, const struct piece *p)
{
	struct piece *last = bd->npieces ? &bd->piece[bd->npieces - 1] : NULL;

	if (last && last->type == p->type && last->source == p->source &&
	    last->lba + last->sectors == p->lba &&
	    (p->type != LSVD_EXT_DATA || last->lin + last->sectors == p->lin) &&
	    (uint64_t)last->sectors + p->sectors <= UINT32_MAX) {
		last->sectors += p->sectors;
		return 0;
	}
	if (bd->npieces == bd->pieces_cap) {
		const uint32_t cap = bd->pieces_cap ? bd->pieces_cap * 2 : 64;
		struct piece *piece = realloc(bd->piece, cap * sizeof(*piece));

		if (!piece)
			return -ENOMEM;
		bd->piece = piece;
		bd->pieces_cap = cap;
	}
	bd->piece[bd->npieces++] = *p;
	return 0;
}

/* Whether the chunk of a source is what the log once took a checksum of. */
static bool build_chunk_good(struct build *bd, const struct source *src, uint32_t chunk)
{
	uint8_t *state = &bd->chunk[src->first_chunk + chunk];
	const uint32_t from = chunk * LSVD_CRC_SECTORS;
	const uint32_t sectors = min32(LSVD_CRC_SECTORS, src->sectors - from);
	const struct bseg *bs = &bd->b->segs[src->seg];
	uint32_t crc;

	if (*state == CHUNK_UNKNOWN) {
		crc = crc32c(0, build_data(bd, src, src->lin + from), sectors * DEV_SECTOR_BYTES);
		*state = CHUNK_GOOD;
		if (crc != wlog_seg_crc(bs->seg, src->first_crc + chunk) &&
		    VARVE_STEP("lsvd.verify_log")) {
			*state = CHUNK_ROTTEN;
			log_error("%s: the cache's copy of sectors %llu to %llu is damaged; they "
				  "will read as errors until they are written again",
				  bd->b->l->name, (unsigned long long)(src->lba + from),
				  (unsigned long long)(src->lba + from + sectors - 1));
		}
	}
	return *state == CHUNK_GOOD;
}

static int build_data_extent(struct build *bd, const struct extent *e)
{
	uint64_t at = 0;

	while (at < e->sectors) {
		const uint32_t index = build_source_at(bd, e->value + at);
		const struct source *src = &bd->source[index];
		const uint32_t off = (uint32_t)(e->value + at - src->lin);
		const uint32_t in_chunk = LSVD_CRC_SECTORS - off % LSVD_CRC_SECTORS;
		const uint64_t left = e->sectors - at;
		struct piece p = {
			.lba = e->lba + at,
			.lin = e->value + at,
			.source = index,
			.type = LSVD_EXT_DATA,
		};
		int r;

		p.sectors = min32(in_chunk, src->sectors - off);
		if (p.sectors > left)
			p.sectors = (uint32_t)left;
		if (!build_chunk_good(bd, src, off / LSVD_CRC_SECTORS)) {
			p.type = LSVD_EXT_ERROR;
			p.source = 0;
		}
		r = build_add(bd, &p);
		if (r)
			return r;
		at += p.sectors;
	}
	return 0;
}

static int build_pieces(struct build *bd)
{
	struct extmap_iter it;
	struct extent e;
	int r = 0;

	extmap_iter_init(&it, &bd->map, 0);
	while (!r && extmap_iter_next(&it, &e)) {
		const struct piece zero = {
			.lba = e.lba,
			.sectors = (uint32_t)e.sectors,
			.type = LSVD_EXT_ZERO,
		};

		r = e.value == PLACE_ZERO ? build_add(bd, &zero) : build_data_extent(bd, &e);
	}
	return r;
}

/* ---- the object */

/* The pieces from first on that make one extent; returns the index behind them. */
static uint32_t build_extent(const struct build *bd, uint32_t first, struct obj_ext *ret)
{
	const struct piece *p = bd->piece;
	uint64_t sectors = p[first].sectors;
	uint32_t i = first + 1;

	while (i < bd->npieces && p[i].type == p[first].type &&
	       p[i].lba == p[i - 1].lba + p[i - 1].sectors && sectors + p[i].sectors <= UINT32_MAX)
		sectors += p[i++].sectors;
	ret->lba = p[first].lba;
	ret->sectors = (uint32_t)sectors;
	ret->type = p[first].type;
	return i;
}

static int build_header(struct build *bd)
{
	struct batch *b = bd->b;
	struct obj_hdr hdr = {
		.type = LSVD_TYPE_DATA,
		.volume_uuid = b->volume_uuid,
		.epoch = b->epoch,
		.seq = b->seq,
		.wall_ns = b->wall_ns,
		.first_lsn = b->first_lsn,
		.last_lsn = b->last_lsn,
		.prev_seq = b->prev_seq,
	};
	struct obj_ext e;
	uint32_t index = 0;
	uint64_t sectors = 0;

	for (uint32_t i = 0; i < bd->npieces; hdr.ext_count++) {
		i = build_extent(bd, i, &e);
		if (e.type == LSVD_EXT_DATA) {
			hdr.crc_count += obj_crcs(e.sectors);
			sectors += e.sectors;
		}
	}
	hdr.data_bytes = sectors * DEV_SECTOR_BYTES;
	hdr.header_bytes = (uint32_t)obj_header_bytes(hdr.ext_count, hdr.crc_count, 0);
	b->hdr = calloc(1, hdr.header_bytes);
	if (!b->hdr)
		return -ENOMEM;
	obj_begin(b->hdr, &hdr);
	b->header_bytes = hdr.header_bytes;
	b->exts = hdr.ext_count;
	b->data_sectors = (uint32_t)sectors;
	b->coalesced_bytes = b->taken_bytes - hdr.data_bytes;
	e.data_sector = e.first_crc = 0;
	for (uint32_t i = 0; i < bd->npieces; index++) {
		i = build_extent(bd, i, &e);
		obj_put_ext(b->hdr, index, &e);
		if (e.type == LSVD_EXT_DATA) {
			e.data_sector += e.sectors;
			e.first_crc += obj_crcs(e.sectors);
		}
	}
	return 0;
}

/* A checksum that is being taken over the pieces of an extent. */
struct crc_run {
	uint32_t crc;
	uint32_t sectors; /* so far in this chunk */
	uint32_t index;	  /* of the next checksum */
};

static void crc_emit(struct batch *b, struct crc_run *run)
{
	obj_put_crc(b->hdr, run->index++, run->crc);
	run->crc = run->sectors = 0;
}

static void build_crc_piece(struct build *bd, const struct piece *p, bool last, struct crc_run *run)
{
	const struct source *src = &bd->source[p->source];
	const struct bseg *bs = &bd->b->segs[src->seg];
	uint32_t at = 0;

	while (at < p->sectors) {
		const uint32_t n = min32(LSVD_CRC_SECTORS - run->sectors, p->sectors - at);
		const uint32_t off = (uint32_t)(p->lin - src->lin) + at;
		const bool ends = n == LSVD_CRC_SECTORS || (last && at + n == p->sectors);

		if (!run->sectors && ends && off % LSVD_CRC_SECTORS == 0 &&
		    n == min32(LSVD_CRC_SECTORS, src->sectors - off))
			run->crc = wlog_seg_crc(bs->seg, src->first_crc + off / LSVD_CRC_SECTORS);
		else
			run->crc = crc32c(run->crc, build_data(bd, src, p->lin + at),
					  n * DEV_SECTOR_BYTES);
		run->sectors += n;
		at += n;
		if (run->sectors == LSVD_CRC_SECTORS)
			crc_emit(bd->b, run);
	}
}

static void build_crcs(struct build *bd)
{
	struct crc_run run = {0};
	struct obj_ext e;

	for (uint32_t i = 0; i < bd->npieces;) {
		const uint32_t end = build_extent(bd, i, &e);

		for (; i < end; i++) {
			if (e.type == LSVD_EXT_DATA)
				build_crc_piece(bd, &bd->piece[i], i + 1 == end, &run);
		}
		if (run.sectors)
			crc_emit(bd->b, &run);
	}
	obj_seal(bd->b->hdr);
}

static int build_iov(struct build *bd)
{
	struct batch *b = bd->b;
	struct iovec *last;

	b->iov = malloc((bd->npieces + 1) * sizeof(*b->iov));
	if (!b->iov)
		return -ENOMEM;
	b->iov[0] = (struct iovec){b->hdr, b->header_bytes};
	b->iovcnt = 1;
	for (uint32_t i = 0; i < bd->npieces; i++) {
		const struct piece *p = &bd->piece[i];
		const size_t len = (size_t)p->sectors * DEV_SECTOR_BYTES;
		const uint8_t *data;

		if (p->type != LSVD_EXT_DATA)
			continue;
		data = build_data(bd, &bd->source[p->source], p->lin);
		last = &b->iov[b->iovcnt - 1];
		/* The header stays a piece of its own: put.c compares it. */
		if (b->iovcnt > 1 && (uint8_t *)last->iov_base + last->iov_len == data)
			last->iov_len += len;
		else
			b->iov[b->iovcnt++] = (struct iovec){(void *)(uintptr_t)data, len};
	}
	return 0;
}

int batch_build(struct batch *b)
{
	struct build bd = {.b = b};
	int r;

	free(b->hdr);
	free(b->iov);
	b->hdr = NULL;
	b->iov = NULL;
	extmap_init(&bd.map, NULL, 0);
	r = build_sources(&bd);
	if (!r)
		r = build_pieces(&bd);
	if (!r)
		r = build_header(&bd);
	if (!r) {
		build_crcs(&bd);
		r = build_iov(&bd);
	}
	extmap_destroy(&bd.map);
	free(bd.source);
	free(bd.chunk);
	free(bd.piece);
	return r;
}

void batch_unpin(struct batch *b)
{
	for (uint32_t i = 0; i < b->nsegs; i++)
		wlog_seg_unpin(b->l->log, b->segs[i].seg);
}

void batch_free(struct batch *b)
{
	for (uint32_t i = 0; i < b->nsegs; i++)
		free(b->segs[i].own);
	free(b->segs);
	free(b->gc_buf);
	free(b->hdr);
	free(b->iov);
	free(b);
}
