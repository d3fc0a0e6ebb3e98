/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Headers of data objects, and superblocks. The input is decoded as it is, and once more with a
 * checksum that is right, so that the bounds behind the checksum are reached. What is accepted is
 * read to the end: nothing may lie outside of the input.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/codec.h"
#include "lsvd/lsvd_dump.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint64_t fuzz_sink; /* keeps the reads from being optimised away */

static void on_string(struct lsvd_dump *dump, const char *key, const char *value)
{
	(void)dump;
	fuzz_sink += (key ? strlen(key) : 0) + strlen(value);
}

static void on_number(struct lsvd_dump *dump, const char *key, uint64_t value)
{
	(void)dump;
	fuzz_sink += (key ? strlen(key) : 0) + value;
}

static void on_begin(struct lsvd_dump *dump, const char *key, bool array)
{
	(void)dump;
	fuzz_sink += (key ? strlen(key) : 0) + array;
}

static void on_end(struct lsvd_dump *dump)
{
	(void)dump;
}

static void read_object(const void *buf, const struct obj_hdr *h)
{
	const uint64_t sectors = h->data_bytes / LSVD_SECTOR_BYTES;
	const uint64_t step = sectors / 64 + 1;
	struct obj_ext e;

	for (uint32_t i = 0; i < h->ext_count; i++) {
		obj_ext(buf, i, &e);
		fuzz_sink += e.lba + e.sectors;
	}
	for (uint32_t i = 0; i < h->crc_count; i++)
		fuzz_sink += obj_crc(buf, i);
	for (uint64_t s = 0; s < sectors; s += step) {
		obj_find(buf, (uint32_t)s, &e);
		if (e.type != LSVD_EXT_DATA || s < e.data_sector || s - e.data_sector >= e.sectors)
			abort();
	}
}

/* The moves of a GC object tile its data. */
static void read_moves(const void *buf, const struct obj_hdr *h)
{
	struct obj_moves it = {0};
	struct obj_move mv;
	uint64_t sum = 0;

	while (obj_next_move(buf, &it, &mv)) {
		sum += mv.sectors;
		if (!mv.sectors || place_seq(mv.to) != h->seq || place_seq(mv.from) >= h->seq)
			abort();
	}
	if (sum * LSVD_SECTOR_BYTES != h->data_bytes)
		abort();
}

static void decode(const void *buf, size_t size)
{
	struct lsvd_dump dump = {on_string, on_number, on_begin, on_end};
	struct obj_hdr h;
	struct super sb, again;
	uint8_t out[LSVD_SUPER_BYTES];

	if (!obj_decode(buf, size, &h, NULL)) {
		read_object(buf, &h);
		if (h.type == LSVD_TYPE_GC)
			read_moves(buf, &h);
	}
	if (!super_decode(buf, size, &sb, NULL)) {
		super_encode(out, &sb);
		if (super_decode(out, sizeof(out), &again, NULL))
			abort();
	}
	lsvd_dump_buffer("fuzz", buf, size, &dump);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *buf = malloc(size + !size);
	struct obj_hdr h;

	if (size)
		memcpy(buf, data, size);
	decode(buf, size);
	if (!obj_peek(buf, size, &h, NULL) && h.header_bytes <= size) {
		obj_seal(buf);
		decode(buf, size);
	}
	free(buf);
	return 0;
}
