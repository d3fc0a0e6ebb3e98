/* SPDX-License-Identifier: BSD-3-Clause */
#include "lib/wlog_rig.h"

#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"

static struct wlog_rig *home_rig(struct wlog_home *home)
{
	return container_of(home, struct wlog_rig, home);
}

static void answer_run(struct work *work)
{
	struct wlog_rig *rig = container_of(work, struct wlog_rig, answer);
	struct list_head todo = LIST_INIT(todo), *link;

	rig->answering = false;
	list_splice_tail(&rig->pieces, &todo);
	while ((link = list_pop(&todo))) {
		struct wlog_piece *piece =
			container_of((void *)link, struct wlog_piece, priv);

		memcpy(piece->buf, rig->image + piece->lba * DEV_SECTOR_BYTES,
		       (size_t)piece->sectors * DEV_SECTOR_BYTES);
		wlog_piece_done(piece, 0);
	}
}

static void rig_home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	struct wlog_rig *rig = home_rig(home);

	rig->home_reads++;
	list_add_tail((struct list_head *)(void *)&piece->priv, &rig->pieces);
	if (rig->answering)
		return;
	rig->answering = true;
	rig->answer.run = answer_run;
	host_defer(&rig->hs.host, &rig->answer);
}

static void rig_home_destage(struct wlog_home *home, bool urgent)
{
	(void)home;
	(void)urgent;
}

static const struct wlog_home_ops rig_home_ops = {
	.read = rig_home_read,
	.destage = rig_home_destage,
};

static void rig_tick(struct host_single *hs)
{
	wlog_tick(((struct wlog_rig *)hs->owner)->log);
}

struct wlog_rig *wlog_rig_new(uint64_t cache_bytes, uint64_t seed)
{
	struct wlog_rig *rig = calloc(1, sizeof(*rig));
	struct wlog_format_options fo = { .random = seed };

	CHECK(rig != NULL);
	host_single_init(&rig->hs, seed);
	rig->hs.owner = rig;
	rig->hs.tick = rig_tick;
	list_init(&rig->pieces);
	rig->home = (struct wlog_home){ .ops = &rig_home_ops, .sectors = WLOG_RIG_SECTORS };
	wlog_options_default(&rig->opt);
	rig->opt.segment_bytes = 64u << 10;
	rig->image = calloc(WLOG_RIG_SECTORS, DEV_SECTOR_BYTES);
	CHECK(rig->image != NULL);
	CHECK_OK(dev_mem_bytes_new(cache_bytes, &rig->bytes));
	CHECK_OK(dev_mem_open(&(struct dev_mem_options){ .bytes = rig->bytes }, &rig->dev,
			      &rig->err));
	rig->hs.dev = rig->dev;
	CHECK_OK(wlog_format(rig->dev, &fo, &rig->id, &rig->err));
	return rig;
}

void wlog_rig_free(struct wlog_rig *rig)
{
	wlog_rig_crash(rig);
	dev_close(rig->dev);
	dev_mem_bytes_put(rig->bytes);
	free(rig->image);
	free(rig);
}

int wlog_rig_look(struct wlog_rig *rig)
{
	const int r = wlog_open(&rig->hs.host, rig->dev, &rig->home, &rig->opt, 0, &rig->log,
				&rig->err);

	rig->hs.log = rig->log;
	return r;
}

int wlog_rig_start(struct wlog_rig *rig)
{
	int r = 0;

	if (!rig->log)
		r = wlog_rig_look(rig);
	return r ? r : wlog_start(rig->log, &rig->id, 0, &rig->err);
}

void wlog_rig_crash(struct wlog_rig *rig)
{
	host_single_settle(&rig->hs);
	wlog_close(rig->log);
	rig->log = rig->hs.log = NULL;
	rig->hs.wake_ns = UINT64_MAX;
}

void wlog_rig_stop(struct wlog_rig *rig)
{
	host_single_settle(&rig->hs);
	CHECK_OK(wlog_stop(rig->log, &rig->err));
	wlog_rig_crash(rig);
}

int wlog_rig_write(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, uint8_t fill)
{
	void *buf = malloc((size_t)sectors * DEV_SECTOR_BYTES);
	int r;

	CHECK(buf != NULL);
	memset(buf, fill, (size_t)sectors * DEV_SECTOR_BYTES);
	r = host_single_io(&rig->hs, rig->log, DEV_WRITE, lba, sectors, buf, false);
	free(buf);
	return r;
}

int wlog_rig_op(struct wlog_rig *rig, enum dev_op op, uint64_t lba, uint32_t sectors)
{
	return host_single_io(&rig->hs, rig->log, op, lba, sectors, NULL, false);
}

int wlog_rig_flush(struct wlog_rig *rig)
{
	return wlog_rig_op(rig, DEV_FLUSH, 0, 0);
}

int wlog_rig_read(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, void *buf)
{
	return host_single_io(&rig->hs, rig->log, DEV_READ, lba, sectors, buf, false);
}

void wlog_rig_verify(struct wlog_rig *rig, uint64_t lba, uint32_t sectors, uint8_t fill)
{
	const size_t bytes = (size_t)sectors * DEV_SECTOR_BYTES;
	uint8_t *buf = malloc(bytes);

	CHECK(buf != NULL);
	CHECK_OK(wlog_rig_read(rig, lba, sectors, buf));
	for (size_t i = 0; i < bytes; i++)
		CHECK_EQ(buf[i], fill);
	free(buf);
}

static void take_rec(struct wlog_rig *rig, const struct wlog_rec *rec, const uint8_t *data)
{
	uint8_t *to = rig->image + rec->lba * DEV_SECTOR_BYTES;
	const size_t bytes = (size_t)rec->sectors * DEV_SECTOR_BYTES;

	if (rec->skip)
		return;
	if (rec->type == WLOG_DATA)
		memcpy(to, data + (size_t)rec->data_sector * DEV_SECTOR_BYTES, bytes);
	else
		memset(to, 0, bytes);
}

static void load_done(struct dev_req *req)
{
	CHECK_OK(req->result);
}

/* The data of a pinned segment: what the caller frees. */
static void *load(struct wlog_rig *rig, struct wlog_seg *seg, uint32_t sectors)
{
	struct dev_req req = { .done = load_done };
	void *buf = aligned_alloc(4096, (sectors * DEV_SECTOR_BYTES + 4095u) & ~4095u);

	CHECK(buf != NULL);
	host_enter(&rig->hs.host);
	wlog_seg_load(rig->log, seg, &req, buf);
	host_leave(&rig->hs.host);
	host_single_settle(&rig->hs);
	return buf;
}

static void take(struct wlog_rig *rig, struct wlog_seg *seg)
{
	struct wlog_seg_view view;
	struct wlog_rec rec;
	void *own = NULL;

	wlog_seg_view(seg, &view);
	if (!view.data && view.data_sectors)
		own = load(rig, seg, view.data_sectors);
	for (uint32_t i = 0; i < view.records; i++) {
		wlog_seg_rec(seg, i, &rec);
		take_rec(rig, &rec, own ? own : view.data);
	}
	free(own);
}

static struct wlog_seg *next_to_take(struct wlog_rig *rig, uint64_t upto)
{
	struct wlog_seg_view view;
	struct wlog_seg *seg;

	host_enter(&rig->hs.host);
	seg = wlog_next_durable(rig->log, 0);
	if (seg) {
		wlog_seg_view(seg, &view);
		if (view.number > upto)
			seg = NULL;
		else
			wlog_seg_pin(rig->log, seg);
	}
	host_leave(&rig->hs.host);
	return seg;
}

void wlog_rig_destage(struct wlog_rig *rig, uint64_t number)
{
	struct wlog_seg_view view;
	struct wlog_seg *seg;

	while ((seg = next_to_take(rig, number))) {
		take(rig, seg);
		wlog_seg_view(seg, &view);
		host_enter(&rig->hs.host);
		wlog_seg_unpin(rig->log, seg);
		wlog_destaged(rig->log, view.number);
		host_leave(&rig->hs.host);
	}
	host_single_settle(&rig->hs);
}

void wlog_rig_status(struct wlog_rig *rig, struct wlog_status *ret)
{
	host_enter(&rig->hs.host);
	wlog_status(rig->log, ret);
	host_leave(&rig->hs.host);
}

uint64_t wlog_rig_superseded(struct wlog_rig *rig, uint64_t lba, uint64_t end, uint64_t number,
			     bool *ret)
{
	uint64_t to;

	host_enter(&rig->hs.host);
	to = wlog_superseded(rig->log, lba, end, number, ret);
	host_leave(&rig->hs.host);
	return to;
}

uint64_t wlog_rig_last(struct wlog_rig *rig)
{
	struct wlog_seg_view view = { .number = 0 };
	struct wlog_seg *seg;
	uint64_t last = 0;

	host_enter(&rig->hs.host);
	while ((seg = wlog_next_durable(rig->log, last))) {
		wlog_seg_view(seg, &view);
		last = view.number;
	}
	host_leave(&rig->hs.host);
	return last;
}
