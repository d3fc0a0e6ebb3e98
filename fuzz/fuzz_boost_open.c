/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "Open this cache and this backing device as one volume, check it, read everything": the input is
 * a list of edits to a small volume that was in use, with some of its data home and some not.
 *
 * The first byte says what is made right again afterwards, and what is done with the volume (enum
 * flags). Each edit is five bytes: a place (enum place, and which segment), an offset in it, and
 * two bytes that are put there.
 */
#include <string.h>

#include "base/crc32c.h"
#include "boost/boost.h"
#include "boost/boost_layout.h"
#include "dev/mem.h"
#include "tap_abort.h"
#include "lib/host_single.h"
#include "wlog/wlog_impl.h"

#define RING_BYTES (128u << 10)
#define CACHE_BYTES (WLOG_RING_OFF + RING_BYTES)
#define SECTORS 256u
#define BACKING_BYTES (SECTORS * DEV_SECTOR_BYTES)
#define MAX_EDITS 24
#define EDIT_BYTES 5

enum flags {
	FIX_SB = 1,
	FIX_STATE = 2,
	FIX_HEADERS = 4,
	ONE_SB = 8, /* the other one is zeros */
	DISCARD = 16,
	ACQUIRE = 32,
	DRAIN = 64,
	RELEASE = 128,
};

enum place {
	PLACE_SB,
	PLACE_STATE,
	PLACE_HEADER,
	PLACE_DATA,
	PLACE_BACKING,
	PLACES,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct rig {
	struct host_single hs;
	struct dev_mem_bytes *cache_bytes, *backing_bytes;
	struct dev *cache, *backing;
	struct boost *boost;
	bool drained;
};

static uint8_t golden_cache[CACHE_BYTES], golden_backing[BACKING_BYTES];
static uint8_t all[BACKING_BYTES];

/* ---- a volume -------------------------------------------------------------------------------- */

static void tick(struct host_single *hs)
{
	boost_tick(((struct rig *)hs->owner)->boost);
}

static void rig_init(struct rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	host_single_init(&rig->hs, 1);
	rig->hs.owner = rig;
	rig->hs.tick = tick;
	CHECK_OK(dev_mem_bytes_new(CACHE_BYTES, &rig->cache_bytes));
	CHECK_OK(dev_mem_bytes_new(BACKING_BYTES, &rig->backing_bytes));
	CHECK_OK(dev_mem_open(&(struct dev_mem_options){.bytes = rig->cache_bytes}, &rig->cache,
			      NULL));
	CHECK_OK(dev_mem_open(&(struct dev_mem_options){.bytes = rig->backing_bytes},
			      &rig->backing, NULL));
	rig->hs.dev = rig->cache;
}

static void settle(struct rig *rig)
{
	do {
		host_single_settle(&rig->hs);
	} while (dev_poll(rig->backing, false) > 0);
}

static void advance(struct rig *rig, unsigned int rounds)
{
	while (rounds--) {
		settle(rig);
		host_single_advance(&rig->hs, 50000000);
		settle(rig);
	}
}

static int rig_open(struct rig *rig, bool discard)
{
	struct boost_options opt;
	struct boost_cut cut;
	struct err err = ERR_INIT;

	boost_options_default(&opt);
	opt.log.segment_bytes = 16u << 10;
	opt.log.buffers = 8;
	opt.allow_migrate = false;
	opt.home_timeout_ns = 1000000000;
	return boost_open(&rig->hs.host, rig->backing, rig->cache, discard, &opt, &rig->boost,
			  &cut, &err);
}

static void rig_end(struct rig *rig)
{
	if (rig->boost) {
		host_enter(&rig->hs.host);
		boost_stop(rig->boost);
		host_leave(&rig->hs.host);
		for (int i = 0; i < 1000 && !boost_idle(rig->boost); i++)
			advance(rig, 1);
		CHECK(boost_idle(rig->boost));
		boost_close(rig->boost);
	}
	dev_close(rig->cache);
	dev_close(rig->backing);
	dev_mem_bytes_put(rig->cache_bytes);
	dev_mem_bytes_put(rig->backing_bytes);
}

/* ---- requests -------------------------------------------------------------------------------- */

static bool done;

static void req_done(struct dev_req *req)
{
	(void)req;
	done = true;
}

static void drain_done(struct drain *drain, int error)
{
	(void)drain;
	(void)error;
	done = true;
}

static void wait_done(struct rig *rig)
{
	for (int i = 0; i < 10000 && !done; i++)
		advance(rig, 1);
	CHECK(done);
}

static void rig_io(struct rig *rig, enum dev_op op, uint64_t lba, uint32_t sectors)
{
	struct dev_req req = {.op = op, .off_bytes = lba * DEV_SECTOR_BYTES, .done = req_done};
	struct wlog *log = boost_log(rig->boost);
	int rc = 0;

	rig->hs.log = log;
	done = false;
	dev_req_buf(&req, all, (size_t)sectors * DEV_SECTOR_BYTES);
	host_enter(&rig->hs.host);
	if (!log)
		boost_read(rig->boost, &req);
	else if (op == DEV_READ)
		wlog_read_begin(log, &req);
	else if (op == DEV_FLUSH)
		wlog_flush(log, &req);
	else
		rc = wlog_reserve(log, &req);
	host_leave(&rig->hs.host);
	if (rc < 0)
		return;
	if (log && op == DEV_READ)
		wlog_read_copy(log, &req);
	if (rc == 1) {
		wlog_fill(log, &req);
		host_enter(&rig->hs.host);
		wlog_publish(log, &req);
		host_leave(&rig->hs.host);
	}
	wait_done(rig);
}

static void rig_drain(struct rig *rig)
{
	struct drain drain = {.done = drain_done};

	done = false;
	host_enter(&rig->hs.host);
	boost_drain(rig->boost, &drain);
	host_leave(&rig->hs.host);
	wait_done(rig);
}

static void look_at_everything(struct rig *rig)
{
	struct boost_status st;
	uint64_t lba = 0, at, n;
	bool data;

	host_enter(&rig->hs.host);
	boost_status(rig->boost, &st);
	CHECK(st.sectors <= SECTORS);
	for (at = 0; at < st.sectors; at = lba) {
		lba = boost_extent(rig->boost, at, st.sectors, &data);
		CHECK(lba > at && lba <= st.sectors);
	}
	for (at = 0; boost_dirty(rig->boost, at, &lba, &n); at = lba + n)
		CHECK(lba >= at && n > 0 && lba + n <= st.sectors);
	host_leave(&rig->hs.host);
	if (st.sectors)
		rig_io(rig, DEV_READ, 0, (uint32_t)st.sectors);
}

/* ---- the golden volume ----------------------------------------------------------------------- */

static void make_golden(void)
{
	struct wlog_format_options opt = {.random = 0x1234567};
	struct err err = ERR_INIT;
	struct rig rig;

	rig_init(&rig);
	CHECK_OK(wlog_format(rig.cache, &opt, NULL, NULL));
	CHECK_OK(rig_open(&rig, false));
	CHECK_OK(boost_acquire(rig.boost, &err));
	for (uint32_t i = 0; i < 6; i++) {
		memset(all, (int)i + 1, sizeof(all));
		rig_io(&rig, i == 4 ? DEV_ZERO : DEV_WRITE, i * 20, 16);
		rig_io(&rig, DEV_FLUSH, 0, 0);
		if (i == 2)
			rig_drain(&rig);
	}
	settle(&rig);
	memcpy(golden_cache, dev_mem_bytes_data(rig.cache_bytes), CACHE_BYTES);
	memcpy(golden_backing, dev_mem_bytes_data(rig.backing_bytes), BACKING_BYTES);
	rig_end(&rig);
}

/* ---- edits ----------------------------------------------------------------------------------- */

static void edit(uint8_t *cache, uint8_t *backing, const uint8_t *e)
{
	const uint32_t seg = (uint32_t)(e[0] / PLACES) % (RING_BYTES / WLOG_BLOCK);
	uint32_t at = (uint32_t)e[1] | (uint32_t)e[2] << 8;
	struct wlog_sb *sb = (void *)cache;

	switch ((enum place)(e[0] % PLACES)) {
	case PLACE_SB:
		memcpy(cache + at % (sizeof(*sb) - 1), e + 3, 2);
		break;
	case PLACE_STATE:
		memcpy(sb->home + at % (sizeof(sb->home) - 1), e + 3, 2);
		break;
	case PLACE_HEADER:
		memcpy(cache + WLOG_RING_OFF + seg * WLOG_BLOCK + at % 512, e + 3, 2);
		break;
	case PLACE_DATA:
		memcpy(cache + WLOG_RING_OFF + seg * WLOG_BLOCK + at % (WLOG_BLOCK - 1), e + 3, 2);
		break;
	default:
		memcpy(backing + at % (BACKING_BYTES - 1), e + 3, 2);
	}
}

static void fix_headers(uint8_t *cache)
{
	for (uint32_t at = 0; at < RING_BYTES; at += WLOG_BLOCK) {
		struct wlog_seg_hdr *hdr = (void *)(cache + WLOG_RING_OFF + at);
		const uint32_t len = le32_get(hdr->header_bytes);

		if (le64_get(hdr->magic) == WLOG_SEG_MAGIC && len >= WLOG_BLOCK &&
		    len <= RING_BYTES - at)
			hdr->crc = le32_make(header_crc(hdr));
	}
}

static void fix(uint8_t *cache, uint8_t flags)
{
	struct wlog_sb *sb = (void *)cache;
	struct boost_state *state = (void *)sb->home;

	if (flags & FIX_STATE) {
		state->crc = le32_make(0);
		state->crc = le32_make(crc32c(0, state, sizeof(*state)));
	}
	if (flags & FIX_SB) {
		sb->crc = le32_make(0);
		sb->crc = le32_make(crc32c(0, sb, sizeof(*sb)));
	}
	if (flags & FIX_HEADERS)
		fix_headers(cache);
}

static void use(struct rig *rig, uint8_t flags)
{
	struct err err = ERR_INIT;

	look_at_everything(rig);
	if (!(flags & ACQUIRE) || boost_acquire(rig->boost, &err))
		return;
	rig_io(rig, DEV_WRITE, 3, 9);
	if (flags & DRAIN)
		rig_drain(rig);
	look_at_everything(rig);
	if (flags & RELEASE)
		(void)boost_release(rig->boost, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *cache, *backing;
	struct wlog_sb *newer;
	struct rig rig;
	uint8_t flags;

	if (size < 1)
		return 0;
	if (!golden_cache[0])
		make_golden();
	flags = data[0];
	rig_init(&rig);
	cache = dev_mem_bytes_data(rig.cache_bytes);
	backing = dev_mem_bytes_data(rig.backing_bytes);
	memcpy(cache, golden_cache, CACHE_BYTES);
	memcpy(backing, golden_backing, BACKING_BYTES);
	/* The newer superblock is the first one, so that edits have an effect. */
	newer = (void *)(cache + WLOG_SB_STRIDE);
	if (le64_get(newer->sb_seq) > le64_get(((struct wlog_sb *)(void *)cache)->sb_seq)) {
		memcpy(cache, newer, sizeof(*newer));
		flags |= ONE_SB;
	}
	for (size_t i = 0; i < MAX_EDITS && 1 + (i + 1) * EDIT_BYTES <= size; i++)
		edit(cache, backing, data + 1 + i * EDIT_BYTES);
	if (flags & ONE_SB)
		memset(newer, 0, sizeof(*newer));
	fix(cache, flags);
	if (rig_open(&rig, flags & DISCARD) == 0)
		use(&rig, flags);
	else
		rig.boost = NULL;
	rig_end(&rig);
	return 0;
}
