/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens arbitrary bytes as a log, and reads all of it. So that the input gets past the checksums,
 * they are made right first: of the superblock, and of every block of the ring that could be a
 * header. What is behind them must then be caught by the checks of each field.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "dev/mem.h"
#include "wlog/wlog_impl.h"

#define RING_BYTES (128u << 10)
#define DEVICE_BYTES (WLOG_RING_OFF + RING_BYTES)
#define SECTORS 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void enter(struct host *host)
{
	(void)host;
}

static uint64_t now_ns(struct host *host)
{
	(void)host;
	return 1;
}

static void defer(struct host *host, struct work *work)
{
	(void)host;
	(void)work;
}

static void wake_at(struct host *host, uint64_t when_ns)
{
	(void)host;
	(void)when_ns;
}

static const struct host_ops host_ops = {
	.enter = enter,
	.leave = enter,
	.now_ns = now_ns,
	.wall_ns = now_ns,
	.defer = defer,
	.wake_at = wake_at,
	.random = now_ns,
};

static struct wlog_piece *piece_waiting;

static void home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	(void)home;
	memset(piece->buf, 0, piece->sectors * DEV_SECTOR_BYTES);
	piece->priv[0] = piece_waiting;
	piece_waiting = piece;
}

static void home_destage(struct wlog_home *home, bool urgent)
{
	(void)home;
	(void)urgent;
}

static const struct wlog_home_ops home_ops = { .read = home_read, .destage = home_destage };

static void fix_superblock(uint8_t *mem, const uint8_t *data)
{
	struct wlog_sb *sb = (void *)mem;
	uint32_t crc;

	memcpy(sb, data, sizeof(*sb));
	sb->magic = le64_make(WLOG_SB_MAGIC);
	sb->version = le32_make(WLOG_VERSION);
	sb->incompat_flags = le32_make(0);
	sb->ring_off = le64_make(WLOG_RING_OFF);
	if (!(sb->reserved[0] & 1))
		sb->ring_bytes = le64_make(RING_BYTES);
	sb->crc = le32_make(0);
	crc = crc32c(0, sb, sizeof(*sb));
	sb->crc = le32_make(crc);
}

static void fix_headers(uint8_t *mem)
{
	const struct wlog_sb *sb = (void *)mem;

	for (uint32_t at = 0; at < RING_BYTES; at += WLOG_BLOCK) {
		struct wlog_seg_hdr *hdr = (void *)(mem + WLOG_RING_OFF + at);

		if (!(hdr->reserved[0] & 1))
			continue;
		hdr->magic = le64_make(WLOG_SEG_MAGIC);
		hdr->version = le32_make(WLOG_VERSION);
		memcpy(hdr->log_uuid, sb->log_uuid, sizeof(hdr->log_uuid));
		if (le32_get(hdr->header_bytes) > RING_BYTES - at ||
		    le32_get(hdr->header_bytes) < WLOG_BLOCK)
			hdr->header_bytes = le32_make(WLOG_BLOCK);
		hdr->crc = le32_make(header_crc(hdr));
	}
}

static bool done;

static void req_done(struct dev_req *req)
{
	(void)req;
	done = true;
}

static void read_all(struct host *host, struct dev *dev, struct wlog *log)
{
	static uint8_t out[SECTORS * DEV_SECTOR_BYTES];
	struct dev_req req = { .op = DEV_READ, .done = req_done };

	dev_req_buf(&req, out, sizeof(out));
	wlog_read_begin(log, &req);
	wlog_read_copy(log, &req);
	while (list_empty(&host->ready)) {
		struct wlog_piece *piece = piece_waiting;

		if (piece) {
			piece_waiting = piece->priv[0];
			wlog_piece_done(piece, 0);
		} else if (!dev_help(dev)) {
			abort();
		}
	}
	list_pop(&host->ready);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dev_mem_options options = { .size_bytes = DEVICE_BYTES };
	struct host host = { .ops = &host_ops };
	struct wlog_home home = { .ops = &home_ops, .sectors = SECTORS };
	struct wlog_options opt;
	struct wlog *log = NULL;
	struct dev *dev;
	uint8_t *mem;

	if (size < sizeof(struct wlog_sb) || dev_mem_open(&options, &dev, NULL))
		return 0;
	mem = dev_mem_bytes_data(dev_mem_bytes(dev));
	fix_superblock(mem, data);
	data += sizeof(struct wlog_sb);
	size -= sizeof(struct wlog_sb);
	memcpy(mem + WLOG_RING_OFF, data, size < RING_BYTES ? size : RING_BYTES);
	fix_headers(mem);
	list_init(&host.ready);
	list_init(&host.fills);
	wlog_options_default(&opt);
	if (wlog_open(&host, dev, &home, &opt, 0, &log, NULL) == 0)
		read_all(&host, dev, log);
	wlog_close(log);
	dev_close(dev);
	return 0;
}
