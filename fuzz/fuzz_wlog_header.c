/* SPDX-License-Identifier: BSD-3-Clause */
/* Decodes arbitrary bytes, their checksum made right, as a segment header; walks its records. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wlog/wlog_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t sink; /* keeps the reads from being optimised away */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seg_header h;
	struct wlog_seg_hdr *hdr;
	struct uuid uuid;
	int rc;

	if (size < WLOG_BLOCK)
		return 0;
	hdr = malloc(size);
	if (!hdr)
		return 0;
	memcpy(hdr, data, size);
	hdr->magic = le64_make(WLOG_SEG_MAGIC);
	hdr->version = le32_make(WLOG_VERSION);
	memcpy(uuid.b, hdr->log_uuid, sizeof(uuid.b));
	if (le32_get(hdr->header_bytes) >= WLOG_BLOCK && le32_get(hdr->header_bytes) <= size)
		hdr->crc = le32_make(header_crc(hdr));
	rc = header_decode(hdr, size, &uuid, &h);
	if (!rc) {
		const struct wlog_rec_disk *recs = (const void *)(hdr + 1);
		const le32 *crcs = (const void *)(recs + h.records);
		uint32_t sum = 0;

		/* Everything that a decoded header promises must be readable. */
		for (uint32_t i = 0; i < h.records; i++)
			sum += le32_get(recs[i].sectors);
		for (uint32_t i = 0; i < h.crcs; i++)
			sum += le32_get(crcs[i]);
		sink += sum;
	}
	free(hdr);
	return 0;
}
