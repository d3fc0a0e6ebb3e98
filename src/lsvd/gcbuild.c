/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Building a GC object: extents, checksums and sources for data that has been read and verified.
 *
 * Pieces come sorted by LBA; neighbours in LBA lie next to each other in the buffer, since they are
 * of one range (gc.c). So an extent is a run of neighbours, its data is one stretch of memory, and
 * the checksums are taken over that, in 4 KiB from the extent's beginning. A source is a run of
 * neighbours that were neighbours before, too.
 *
 * Not entered: it works on the round's own memory. The number is entered afterwards, when it has
 * been given out (gc_number), and with it the checksum of the header.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/minmax.h"
#include "lsvd/lsvd_impl.h"

/* The pieces from first on that make one extent; returns the index behind them. */
static size_t gcb_extent(const struct gc *g, size_t first, struct obj_ext *ret)
{
	const struct gc_piece *p = g->piece;
	size_t i = first + 1;
	uint64_t sectors = p[first].sectors;

	while (i < g->pieces && p[i].lba == p[i - 1].lba + p[i - 1].sectors &&
	       p[i].at == p[i - 1].at + p[i - 1].sectors)
		sectors += p[i++].sectors;
	ret->lba = p[first].lba;
	ret->sectors = (uint32_t)sectors;
	ret->type = LSVD_EXT_DATA;
	return i;
}

/* The same for sources; a source may reach over extents. */
static size_t gcb_source(const struct gc *g, size_t first, uint32_t *ret_sectors)
{
	const struct gc_piece *p = g->piece;
	size_t i = first + 1;
	uint32_t sectors = p[first].sectors;

	while (i < g->pieces && p[i].place == p[i - 1].place + p[i - 1].sectors)
		sectors += p[i++].sectors;
	*ret_sectors = sectors;
	return i;
}

static void gcb_crcs(struct batch *b, const struct gc *g, const struct obj_ext *e, uint64_t at)
{
	const uint8_t *data = g->buf + at * LSVD_SECTOR_BYTES;

	for (uint32_t i = 0; i < obj_crcs(e->sectors); i++) {
		const uint32_t off = i * LSVD_CRC_SECTORS;
		const uint32_t n = min32(LSVD_CRC_SECTORS, e->sectors - off);

		obj_put_crc(b->hdr, e->first_crc + i,
			    crc32c(0, data + (size_t)off * LSVD_SECTOR_BYTES,
				   (size_t)n * LSVD_SECTOR_BYTES));
	}
}

static void gcb_iov(struct batch *b, uint8_t *data, size_t len)
{
	struct iovec *last = &b->iov[b->iovcnt - 1];

	if (b->iovcnt > 1 && (uint8_t *)last->iov_base + last->iov_len == data)
		last->iov_len += len;
	else
		b->iov[b->iovcnt++] = (struct iovec){data, len};
}

static void gcb_fill(struct gc *g, struct batch *b)
{
	struct obj_ext e = {0};
	uint32_t index = 0, sectors;
	size_t next;

	b->iov[0] = (struct iovec){b->hdr, b->header_bytes};
	b->iovcnt = 1;
	for (size_t i = 0; i < g->pieces; i = next, index++) {
		next = gcb_extent(g, i, &e);
		obj_put_ext(b->hdr, index, &e);
		gcb_crcs(b, g, &e, g->piece[i].at);
		gcb_iov(b, g->buf + g->piece[i].at * LSVD_SECTOR_BYTES,
			(size_t)e.sectors * LSVD_SECTOR_BYTES);
		e.data_sector += e.sectors;
		e.first_crc += obj_crcs(e.sectors);
	}
	index = 0;
	for (size_t i = 0; i < g->pieces; i = next, index++) {
		next = gcb_source(g, i, &sectors);
		obj_put_source(b->hdr, index, g->piece[i].place, sectors);
	}
}

int gc_build(struct gc *g, struct batch *b)
{
	struct obj_hdr hdr = {
		.type = LSVD_TYPE_GC,
		.incompat = LSVD_INCOMPAT_GC,
		.volume_uuid = b->volume_uuid,
		.epoch = b->epoch,
		.wall_ns = b->wall_ns,
		.generation = g->generation + 1,
	};
	struct obj_ext e;
	uint64_t sum = 0;
	uint32_t sectors;

	for (size_t i = 0; i < g->pieces; hdr.ext_count++) {
		i = gcb_extent(g, i, &e);
		hdr.crc_count += obj_crcs(e.sectors);
		sum += e.sectors;
	}
	for (size_t i = 0; i < g->pieces; hdr.source_count++)
		i = gcb_source(g, i, &sectors);
	hdr.data_bytes = sum * LSVD_SECTOR_BYTES;
	hdr.header_bytes = (uint32_t)obj_header_bytes(hdr.ext_count, hdr.crc_count,
						      hdr.source_count);
	b->hdr = calloc(1, hdr.header_bytes);
	b->iov = malloc((hdr.ext_count + 1) * sizeof(*b->iov));
	if (!b->hdr || !b->iov)
		return -ENOMEM;
	obj_begin(b->hdr, &hdr);
	b->header_bytes = hdr.header_bytes;
	b->exts = hdr.ext_count;
	b->data_sectors = (uint32_t)sum;
	gcb_fill(g, b);
	return 0;
}

void gc_number(struct batch *b)
{
	struct lsvd_hdr *h = (void *)b->hdr;

	h->seq = le64_make(b->seq);
	h->prev_seq = le64_make(b->prev_seq);
	obj_seal(b->hdr);
}
