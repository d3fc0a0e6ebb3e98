/* SPDX-License-Identifier: BSD-3-Clause */
/* Segment headers and superblocks: what is encoded decodes, what is damaged does not. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "dev/mem.h"
#include "lib/tap.h"
#include "wlog/wlog_impl.h"

#define RECORDS 100u

/* A segment of random records, encoded; the caller frees both. */
static struct wlog_seg_hdr *make(struct wlog *log, struct wlog_seg **ret_seg, struct rng *rng)
{
	struct wlog_seg *seg = seg_new(log, RECORDS, RECORDS * 4);
	struct wlog_seg_hdr *hdr = NULL;

	seg->number = 7;
	seg->first_lsn = 1000;
	for (uint32_t i = 0; i < RECORDS; i++) {
		const uint32_t sectors = 1 + (uint32_t)rng_below(rng, 32);

		seg->recs[i] = (struct wlog_rec_disk){
			.lba = le48_make(rng_below(rng, 1u << 30)),
			.type = (uint8_t)(1 + rng_below(rng, 3)),
			.sectors = le32_make(sectors),
			.lsn_delta = le32_make(i),
			.data_sector = le32_make(seg->data_sectors),
			.first_crc = le32_make(seg->crcs),
		};
		if (seg->recs[i].type == WLOG_DATA) {
			seg->data_sectors += sectors;
			seg->crcs += (sectors + WLOG_CRC_SECTORS - 1) / WLOG_CRC_SECTORS;
		}
	}
	for (uint32_t i = 0; i < seg->crcs; i++)
		seg->crc[i] = le32_make((uint32_t)rng_next(rng));
	seg->records = RECORDS;
	seg->last_lsn = seg->first_lsn + RECORDS - 1;
	seg->header_bytes = header_bytes_for(seg->records, seg->crcs);
	seg->data_bytes = (seg->data_sectors + 7) / 8 * WLOG_BLOCK;
	CHECK(posix_memalign((void **)&hdr, WLOG_BLOCK, seg->header_bytes) == 0);
	header_encode(log, seg, 0x1234, hdr);
	*ret_seg = seg;
	return hdr;
}

TEST(header_round_trip)
{
	struct wlog log = { .log_epoch = 3, .durable_lsn = 99 };
	struct wlog_seg_hdr *hdr;
	struct seg_header h;
	struct wlog_seg *seg;
	struct rng rng;

	rng_seed(&rng, test_seed());
	hdr = make(&log, &seg, &rng);
	CHECK_OK(header_decode(hdr, seg->header_bytes, &log.id.log_uuid, &h));
	CHECK_EQ(h.number, 7);
	CHECK_EQ(h.log_epoch, 3);
	CHECK_EQ(h.first_lsn, 1000);
	CHECK_EQ(h.last_lsn, 1000 + RECORDS - 1);
	CHECK_EQ(h.watermark_lsn, 99);
	CHECK_EQ(h.prev_crc, 0x1234);
	CHECK_EQ(h.records, RECORDS);
	CHECK_EQ(h.crcs, seg->crcs);
	CHECK_MEMEQ(hdr + 1, seg->recs, RECORDS * sizeof(*seg->recs));
	free(hdr);
	seg_free(seg);
}

TEST(header_longer_than_read_asks_for_more)
{
	struct wlog log = { .log_epoch = 3 };
	struct wlog_seg_hdr *hdr;
	struct seg_header h = { .header_bytes = 0 };
	struct wlog_seg *seg;
	struct rng rng;

	rng_seed(&rng, 1);
	hdr = make(&log, &seg, &rng);
	if (seg->header_bytes > WLOG_BLOCK) {
		CHECK_EQ(header_decode(hdr, WLOG_BLOCK, &log.id.log_uuid, &h), -EAGAIN);
		CHECK_EQ(h.header_bytes, seg->header_bytes);
	}
	free(hdr);
	seg_free(seg);
}

TEST(header_any_flipped_bit_is_found)
{
	struct wlog log = { .log_epoch = 3 };
	struct wlog_seg_hdr *hdr;
	struct seg_header h;
	struct wlog_seg *seg;
	struct rng rng;

	rng_seed(&rng, test_seed());
	hdr = make(&log, &seg, &rng);
	for (int i = 0; i < 2000; i++) {
		const uint64_t bit = rng_below(&rng, seg->header_bytes * 8);
		uint8_t *byte = (uint8_t *)hdr + bit / 8;

		*byte ^= (uint8_t)(1u << bit % 8);
		CHECK(header_decode(hdr, seg->header_bytes, &log.id.log_uuid, &h) != 0);
		*byte ^= (uint8_t)(1u << bit % 8);
	}
	free(hdr);
	seg_free(seg);
}

/* Re-signed after each change: the field checks alone have to catch it. */
static int decode_signed(struct wlog *log, struct wlog_seg *seg, struct wlog_seg_hdr *hdr)
{
	struct seg_header h;

	hdr->crc = le32_make(header_crc(hdr));
	return header_decode(hdr, seg->header_bytes, &log->id.log_uuid, &h);
}

TEST(header_lying_lengths_are_refused)
{
	struct wlog log = { .log_epoch = 3 };
	struct wlog_rec_disk *recs;
	struct wlog_seg_hdr *hdr;
	struct wlog_seg *seg;
	struct rng rng;

	rng_seed(&rng, test_seed());
	hdr = make(&log, &seg, &rng);
	recs = (struct wlog_rec_disk *)(void *)(hdr + 1);
	CHECK_OK(decode_signed(&log, seg, hdr));
	hdr->records = le32_make(RECORDS + 1);
	CHECK(decode_signed(&log, seg, hdr) != 0);
	hdr->records = le32_make(RECORDS);
	hdr->data_bytes = le32_make(seg->data_bytes - WLOG_BLOCK);
	CHECK(decode_signed(&log, seg, hdr) != 0);
	hdr->data_bytes = le32_make(seg->data_bytes);
	recs[5].sectors = le32_make(0);
	CHECK(decode_signed(&log, seg, hdr) != 0);
	recs[5].sectors = seg->recs[5].sectors;
	recs[6].lba = le48_make(LE48_MAX);
	recs[6].sectors = le32_make(2);
	CHECK(decode_signed(&log, seg, hdr) != 0);
	free(hdr);
	seg_free(seg);
}

TEST(superblock_round_trip_and_damage)
{
	struct wlog log = { .sb_seq = 5, .log_epoch = 2, .cut_seg = 4, .ring_off = WLOG_RING_OFF };
	const struct tail tail = { 9, 3 * WLOG_BLOCK, 77, 0xabcd };
	struct wlog_sb sb, out;
	struct rng rng;

	rng_seed(&rng, test_seed());
	log.ring_bytes = 64 * WLOG_BLOCK;
	log.device_bytes = WLOG_RING_OFF + log.ring_bytes;
	sb_encode(&log, &tail, true, &sb);
	CHECK_OK(sb_decode(&sb, log.device_bytes, &out, NULL));
	CHECK_EQ(le64_get(out.tail_seg), 9);
	CHECK_EQ(le64_get(out.tail_lsn), 77);
	CHECK_EQ(le32_get(out.tail_prev_crc), 0xabcd);
	/* A device that has shrunk. */
	CHECK_EQ(sb_decode(&sb, log.device_bytes - WLOG_BLOCK, &out, NULL), -EBADMSG);
	for (int i = 0; i < 2000; i++) {
		const uint64_t bit = rng_below(&rng, sizeof(sb) * 8);
		uint8_t *byte = (uint8_t *)&sb + bit / 8;

		*byte ^= (uint8_t)(1u << bit % 8);
		CHECK(sb_decode(&sb, log.device_bytes, &out, NULL) != 0);
		*byte ^= (uint8_t)(1u << bit % 8);
	}
}

/* A file system's superblock, say: never formatted without being told to (P6). */
/* Numbers that would not fit where they are kept, with a right checksum. */
TEST(superblock_of_endless_counters_is_refused)
{
	static const size_t fields[] = {
		offsetof(struct wlog_sb, tail_seg),      offsetof(struct wlog_sb, cut_seg),
		offsetof(struct wlog_sb, tail_pos),      offsetof(struct wlog_sb, tail_lsn),
		offsetof(struct wlog_sb, watermark_lsn), offsetof(struct wlog_sb, destaged_lsn),
		offsetof(struct wlog_sb, next_lsn),
	};
	struct wlog log = { .sb_seq = 1, .ring_off = WLOG_RING_OFF, .ring_bytes = WLOG_RING_MIN,
			    .cut_seg = 1 };
	struct wlog_sb sb, out;

	log.tail.seg = 1;
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		sb_encode(&log, &log.tail, false, &sb);
		((uint8_t *)&sb)[fields[i] + 7] = 0xb0;
		sb_sign(&sb);
		CHECK_EQ(sb_decode(&sb, 1u << 20, &out, NULL), -EBADMSG);
	}
}

TEST(format_refuses_what_is_not_blank)
{
	const struct dev_mem_options options = { .size_bytes = 1u << 20 };
	struct wlog_format_options format = { .random = 1 };
	const uint8_t block[512] = { [56] = 0x53, [57] = 0xef };
	struct dev *dev;

	CHECK_OK(dev_mem_open(&options, &dev, NULL));
	CHECK_OK(dev_pwrite(dev, block, sizeof(block), 1024, false));
	CHECK_EQ(wlog_format(dev, &format, NULL, NULL), -EEXIST);
	format.force = true;
	CHECK_OK(wlog_format(dev, &format, NULL, NULL));
	format.force = false;
	CHECK_EQ(wlog_format(dev, &format, NULL, NULL), -EEXIST);
	dev_close(dev);
}
