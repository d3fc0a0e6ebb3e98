/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hole 11 of the published caches: positions in the log computed in 32 bits, so that a cache of
 * more than 2 TiB wraps onto its own superblock.
 *
 * The device here says that it has 5 TiB. Behind it is a small simulated disk: its beginning, and a
 * window far away in which the log's head is put by hand. Writes anywhere else fail the test, reads
 * give zeros.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "lib/crash_on_log.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "wlog/wlog_layout.h"

#define HUGE_BYTES (UINT64_C(5) << 40)
#define WINDOW_OFF (WLOG_RING_OFF + (UINT64_C(3) << 40))
#define WINDOW_BYTES (UINT64_C(1) << 20)
#define DISK_BYTES (8u << 20) /* the rest is what is read everywhere else */

struct huge {
	struct dev dev;
	struct dev *under;
	uint64_t far_writes;
};

static void huge_submit(struct dev *dev, struct dev_req *req)
{
	struct huge *h = container_of(dev, struct huge, dev);
	uint64_t off = req->off_bytes;

	if (req->op != DEV_FLUSH && off >= WLOG_RING_OFF) {
		bool inside = off >= WINDOW_OFF &&
			      off + req->len_bytes <= WINDOW_OFF + WINDOW_BYTES;

		if (!inside && req->op != DEV_READ)
			crash_fail("a write at %llu", (unsigned long long)off);
		h->far_writes += req->op == DEV_WRITE;
		/* The window lies right in front of the zeros. */
		req->off_bytes = WLOG_RING_OFF + (off >= WINDOW_OFF &&
						  off < WINDOW_OFF + WINDOW_BYTES ?
							  off - WINDOW_OFF : WINDOW_BYTES);
	}
	dev_submit(h->under, req);
}

static void huge_kick(struct dev *dev)
{
	dev_kick(container_of(dev, struct huge, dev)->under);
}

static bool huge_help(struct dev *dev)
{
	return dev_help(container_of(dev, struct huge, dev)->under);
}

static int huge_poll(struct dev *dev, bool wait)
{
	return dev_poll(container_of(dev, struct huge, dev)->under, wait);
}

static const struct dev_ops huge_ops = {
	.name = "huge",
	.submit = huge_submit,
	.kick = huge_kick,
	.help = huge_help,
	.poll = huge_poll,
};

static void huge_on(struct huge *h, struct dev *under)
{
	h->dev = *under;
	h->dev.ops = &huge_ops;
	h->dev.size_bytes = HUGE_BYTES;
	h->under = under;
}

/* As if 3 TiB had been written since it was formatted. */
static void move_head(struct scene *sc)
{
	union {
		struct wlog_sb sb;
		uint8_t bytes[WLOG_BLOCK];
	} u;

	for (uint64_t slot = 0; slot < WLOG_SB_SLOTS; slot++) {
		uint64_t off = slot * WLOG_SB_STRIDE;

		memcpy(u.bytes, (const char *)sim_disk_durable(sc->u.disk) + off, sizeof(u));
		u.sb.tail_pos = le64_make(WINDOW_OFF - WLOG_RING_OFF);
		u.sb.crc = le32_make(0);
		u.sb.crc = le32_make(crc32c(0, u.bytes, sizeof(u)));
		sim_disk_poke(sc->u.disk, off, u.bytes, sizeof(u));
	}
}

static void large_disk(struct crash_config *cfg)
{
	cfg->disk_bytes = DISK_BYTES;
}

static void open_huge(struct scene *sc, struct huge *h)
{
	err_clear(&sc->err);
	sc->s = session_new(&crash_on_log, &sc->u, 1);
	huge_on(h, sc->s->sh.dev);
	sc->s->cache = &h->dev;
	if (session_open(sc->s, false, &sc->err))
		crash_fail("does not open: %s", sc->err.text);
}

TEST(hole_11_positions_have_64_bits)
{
	struct scene *sc =
		scene_new("hole_11_positions_have_64_bits", &crash_on_log, large_disk);
	struct wlog_format_options opt = {.random = 1, .force = true};
	struct huge h = {0};
	struct dev *dev;

	CHECK_OK(sim_dev_open(sc->u.disk, &dev));
	huge_on(&h, dev);
	CHECK_OK(wlog_format(&h.dev, &opt, NULL, &sc->err));
	dev_close(dev);
	move_head(sc);
	open_huge(sc, &h);
	for (uint32_t i = 0; i < 20; i++) {
		scene_write(sc, i % 8 * 8, 8);
		scene_flush(sc);
	}
	CHECK(h.far_writes >= 20);
	scene_crash(sc, SIM_KEEP_NONE);
	open_huge(sc, &h);
	CHECK_EQ(scene_judge(sc), 20);
	scene_write(sc, 3, 5);
	scene_drain(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	open_huge(sc, &h);
	CHECK_EQ(scene_judge(sc), 1);
	scene_end(sc);
}
