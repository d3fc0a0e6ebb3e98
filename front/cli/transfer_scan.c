/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading a volume in order, holes passed over, and comparing it with an image.
 */
#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

bool transfer_all_zero(const uint8_t *buf, size_t bytes)
{
	/* The first byte is zero, and each is as the one before. */
	return !bytes || (!buf[0] && memcmp(buf, buf + 1, bytes - 1) == 0);
}

/* The blocks are those of the image, so an offset in the midst of one ends with it. */
static uint64_t block_end(uint64_t offset, uint64_t end)
{
	const uint64_t next = (offset / TRANSFER_BLOCK_BYTES + 1) * TRANSFER_BLOCK_BYTES;

	return next < end ? next : end;
}

uint64_t transfer_zero_run(const struct slot *slot, uint64_t offset, bool *ret_zero)
{
	const uint64_t end = slot->offset + slot->bytes;
	const uint8_t *base = slot->buf;
	uint64_t to = block_end(offset, end);

	*ret_zero = transfer_all_zero(base + (offset - slot->offset), (size_t)(to - offset));
	while (to < end) {
		const uint64_t next = block_end(to, end);

		if (transfer_all_zero(base + (to - slot->offset), (size_t)(next - to)) != *ret_zero)
			break;
		to = next;
	}
	return to;
}

/* ---- reading in order ------------------------------------------------------------------------ */

static int extent(struct transfer *t, uint64_t from, uint64_t to, uint64_t *ret_end, bool *ret_data)
{
	uint64_t bytes;
	int rc = varve_extent(t->volume, from, to - from, &bytes, ret_data);

	if (rc < 0) {
		cli_bar_clear(&t->bar);
		cli_fail_plain();
		return rc;
	}
	*ret_end = from + bytes;
	return 0;
}

/* What is read at once, or passed over: short holes are read with what is around them. */
static int next_piece(struct transfer *t, uint64_t from, uint64_t to, uint64_t *ret_end,
		      bool *ret_data)
{
	const uint64_t limit = to - from < t->request_bytes ? to : from + t->request_bytes;
	const uint64_t far = to - from < TRANSFER_SKIP_BYTES ? to : from + TRANSFER_SKIP_BYTES;
	uint64_t end;
	bool data;
	int rc = extent(t, from, far, &end, &data);

	if (rc)
		return rc;
	*ret_data = data || (end - from < TRANSFER_HOLE_BYTES && end < to);
	*ret_end = end;
	while (*ret_data && *ret_end < limit) {
		const uint64_t at = *ret_end;

		rc = extent(t, at, to - at < TRANSFER_HOLE_BYTES ? to : at + TRANSFER_HOLE_BYTES,
			    &end, &data);
		if (rc)
			return rc;
		if (!data && end - at >= TRANSFER_HOLE_BYTES)
			break;
		*ret_end = end;
	}
	if (*ret_data && *ret_end > limit)
		*ret_end = limit;
	return 0;
}

/* Fills the ring. */
static int read_ahead(struct transfer *t, uint64_t *pos, uint64_t to)
{
	while (*pos < to && t->ring.used < t->n_slots) {
		struct slot *slot;
		uint64_t end;
		bool data;
		int rc = next_piece(t, *pos, to, &end, &data);

		if (rc)
			return rc;
		slot = ring_take(t, *pos, end - *pos);
		slot->hole = !data;
		if (data)
			ring_add(slot, VARVE_READ, *pos, end - *pos);
		ring_start(slot);
		*pos = end;
	}
	return 0;
}

int transfer_scan(struct transfer *t, uint64_t from, uint64_t to,
		  int (*fn)(struct transfer *t, struct slot *slot))
{
	struct slot *slot;
	int rc = read_ahead(t, &from, to), rest;

	while (!rc) {
		slot = ring_oldest(t, &rc);
		if (!slot || rc)
			break;
		rc = fn(t, slot);
		transfer_pace(t, slot->hole ? 0 : slot->bytes);
		ring_drop(t);
		if (!rc && transfer_stopped())
			rc = -EINTR;
		if (!rc)
			rc = read_ahead(t, &from, to);
	}
	rest = ring_drain(t);
	return rc ? rc : rest;
}

/* ---- comparing ------------------------------------------------------------------------------- */

static int differs(struct transfer *t, uint64_t offset)
{
	cli_bar_clear(&t->bar);
	cli_error("%s and %s differ at offset %" PRIu64, t->image.path, t->name, offset);
	return 1;
}

/* Volume bytes, or zeros when they are NULL, against the image from offset on. */
static int compare_bytes(struct transfer *t, const uint8_t *want, uint64_t offset, size_t bytes)
{
	uint8_t buf[16 * TRANSFER_BLOCK_BYTES];

	while (bytes) {
		const size_t n = bytes < sizeof(buf) ? bytes : sizeof(buf);
		size_t got, i;
		int rc = image_read(&t->image, buf, offset, n, &got);

		if (rc)
			return rc;
		if (want ? memcmp(buf, want, n) != 0 : !transfer_all_zero(buf, n)) {
			for (i = 0; buf[i] == (want ? want[i] : 0); i++)
				;
			return differs(t, offset + i);
		}
		want = want ? want + n : NULL;
		offset += n;
		bytes -= n;
	}
	return 0;
}

/* Of a hole of both nothing has to be read. */
static int compare_hole(struct transfer *t, uint64_t from, uint64_t to)
{
	int rc = 0;

	while (!rc && from < to) {
		uint64_t end;
		bool data;

		rc = image_segment(&t->image, from, &end, &data);
		end = end < to ? end : to;
		if (!rc && data && end - from > t->request_bytes)
			end = from + t->request_bytes;
		if (!rc && data)
			rc = compare_bytes(t, NULL, from, (size_t)(end - from));
		if (!rc && transfer_stopped())
			rc = -EINTR;
		from = end;
	}
	return rc;
}

static int compare_piece(struct transfer *t, struct slot *slot)
{
	const uint64_t end = slot->offset + slot->bytes;
	int rc = slot->hole ? compare_hole(t, slot->offset, end)
			    : compare_bytes(t, slot->buf, slot->offset, (size_t)slot->bytes);

	t->verified_bytes = end;
	transfer_show(t, end);
	return rc;
}

int transfer_compare(struct transfer *t)
{
	t->image.segment_end = 0;
	/* Not what memory has of it, where it can be helped. */
	posix_fadvise(t->image.fd, 0, 0, POSIX_FADV_DONTNEED);
	return transfer_scan(t, 0, t->total_bytes, compare_piece);
}

int transfer_verify(struct transfer *t)
{
	const int rc = transfer_compare(t);

	if (rc == -EINTR)
		cli_error("ended before everything was compared; --verify-only compares");
	return rc ? CLI_FAILED : CLI_OK;
}
