/* SPDX-License-Identifier: BSD-3-Clause */
/* Checkpoint parts and roots, as in fuzz_obj.c. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

uint64_t fuzz_sink; /* keeps the reads from being optimised away */

static void read_part(const void *buf, const struct part_hdr *part)
{
	uint64_t lba, place, end = 0;
	struct ckpt_obj obj;
	uint32_t sectors;

	for (uint32_t i = 0; i < part->entries; i++) {
		if (part->kind == LSVD_PART_OBJECTS) {
			part_obj(buf, i, &obj);
			fuzz_sink += obj.seq;
			continue;
		}
		part_ext(buf, i, &lba, &sectors, &place);
		if (lba < end || lba + sectors > LSVD_LBA_END)
			abort();
		end = lba + sectors;
		fuzz_sink += place;
	}
}

static void decode(const void *buf, size_t size)
{
	struct root_hdr root;
	struct part_hdr part;
	struct part_ref ref;
	struct obj_hdr h;

	if (!part_decode(buf, size, &h, &part, NULL))
		read_part(buf, &part);
	if (!root_decode(buf, size, &h, &root, NULL)) {
		for (uint32_t i = 0; i < root.parts; i++) {
			root_part(buf, i, &ref);
			fuzz_sink += ref.bytes;
		}
	}
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
