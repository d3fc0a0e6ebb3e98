/* SPDX-License-Identifier: BSD-3-Clause */
#include "lib/pmdk_make.h"

#include <string.h>

void pmdk_seal(uint8_t *block)
{
	uint32_t low = 0, high = 0;
	le32 word;
	le64 sum;

	memset(block + PMDK_CHECKSUM_OFF, 0, sizeof(sum));
	for (unsigned int i = 0; i < PMDK_BLOCK; i += sizeof(word)) {
		memcpy(&word, block + i, sizeof(word));
		low += le32_get(word);
		high += low;
	}
	sum = le64_make((uint64_t)high << 32 | low);
	memcpy(block + PMDK_CHECKSUM_OFF, &sum, sizeof(sum));
}

void pmdk_set_map(uint8_t *pool, uint32_t block, uint32_t entry)
{
	const le32 field = le32_make(entry);

	memcpy(pool + MADE_MAP_OFF + (size_t)block * sizeof(field), &field, sizeof(field));
}

void pmdk_set_flog(uint8_t *pool, uint32_t lane, unsigned int slot, struct pmdk_flog flog)
{
	memcpy(pool + MADE_FLOG_OFF + (size_t)lane * PMDK_FLOG_PAIR + slot * sizeof(flog), &flog,
	       sizeof(flog));
}

static void make_header(uint8_t *pool)
{
	struct pmdk_hdr hdr = {.major = le32_make(1)};
	struct pmdk_blk blk = {.bsize = le32_make(MADE_BLOCK_BYTES)};

	memcpy(hdr.signature, PMDK_HDR_SIGNATURE, sizeof(PMDK_HDR_SIGNATURE));
	memset(hdr.uuid, 7, sizeof(hdr.uuid));
	memset(hdr.prev_part_uuid, 7, sizeof(hdr.uuid));
	memset(hdr.next_part_uuid, 7, sizeof(hdr.uuid));
	memset(hdr.prev_repl_uuid, 7, sizeof(hdr.uuid));
	memset(hdr.next_repl_uuid, 7, sizeof(hdr.uuid));
	memcpy(pool, &hdr, sizeof(hdr));
	pmdk_seal(pool);
	memcpy(pool + sizeof(hdr), &blk, sizeof(blk));
}

static void make_info(uint8_t *at)
{
	struct pmdk_info info = {
		.major = le16_make(1),
		.minor = le16_make(1),
		.external_lbasize = le32_make(MADE_BLOCK_BYTES),
		.external_nlba = le32_make(MADE_BLOCKS),
		.internal_lbasize = le32_make(MADE_STRIDE),
		.internal_nlba = le32_make(MADE_BLOCKS + MADE_FREE),
		.nfree = le32_make(MADE_FREE),
		.infosize = le32_make(PMDK_BLOCK),
		.dataoff = le64_make(PMDK_BLOCK),
		.mapoff = le64_make(MADE_MAP_OFF - PMDK_DATA_OFF),
		.flogoff = le64_make(MADE_FLOG_OFF - PMDK_DATA_OFF),
		.infooff = le64_make(MADE_INFO2_OFF - PMDK_DATA_OFF),
	};

	memcpy(info.signature, PMDK_INFO_SIGNATURE, sizeof(info.signature));
	memcpy(at, &info, sizeof(info));
	pmdk_seal(at);
}

void pmdk_make(uint8_t pool[MADE_BYTES])
{
	memset(pool, 0, MADE_BYTES);
	make_header(pool);
	make_info(pool + PMDK_DATA_OFF);
	make_info(pool + MADE_INFO2_OFF);
	for (uint32_t n = 0; n < MADE_BLOCKS; n++) {
		const size_t place = (size_t)n + MADE_FREE;

		memset(pool + PMDK_DATA_OFF + PMDK_BLOCK + place * MADE_STRIDE, 'a' + (int)n,
		       MADE_BLOCK_BYTES);
		pmdk_set_map(pool, n, (uint32_t)place | PMDK_MAP_NORMAL);
	}
	for (uint32_t lane = 0; lane < MADE_FREE; lane++)
		pmdk_set_flog(pool, lane, 0,
			      (struct pmdk_flog){
				      .lba = le32_make(lane),
				      .old_map = le32_make(lane | PMDK_MAP_ZERO),
				      .new_map = le32_make(lane | PMDK_MAP_ZERO),
				      .seq = le32_make(1),
			      });
}
