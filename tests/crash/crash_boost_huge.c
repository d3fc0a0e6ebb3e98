/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hole 11 of the published in-place cache: places on the cache computed in 32 bits, so that one of
 * more than 2 TiB wrapped onto its own superblock. Here cache and backing device both say that they
 * have 5 TiB, and what is used lies 3 TiB behind the beginning of each.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "lib/crash_on_boost.h"
#include "lib/crash_scene.h"
#include "lib/tap.h"
#include "wlog/wlog_layout.h"

#define HUGE_BYTES (UINT64_C(5) << 40)
#define WINDOW_OFF (UINT64_C(3) << 40)
#define WINDOW_BYTES (UINT64_C(1) << 20)
#define DISK_BYTES (8u << 20)

/*
 * A device that says it has 5 TiB. Behind it is a small disk: its first `low` bytes, and right
 * behind these a window that lies `low` above 3 TiB. Writes anywhere else fail the test, reads give
 * zeros.
 */
struct huge {
	struct dev dev;
	struct dev *under;
	uint64_t low, far_writes;
};

static void huge_submit(struct dev *dev, struct dev_req *req)
{
	struct huge *h = container_of(dev, struct huge, dev);
	uint64_t off = req->off_bytes, window = WINDOW_OFF + h->low;

	if (req->op != DEV_FLUSH && off >= h->low) {
		bool inside = off >= window && off + req->len_bytes <= window + WINDOW_BYTES;

		if (!inside && req->op != DEV_READ)
			crash_fail("a write at %llu", (unsigned long long)off);
		h->far_writes += req->op == DEV_WRITE;
		req->off_bytes = h->low + (inside ? off - window : WINDOW_BYTES);
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

static void huge_on(struct huge *h, struct dev *under, uint64_t low)
{
	h->dev = *under;
	h->dev.ops = &huge_ops;
	h->dev.size_bytes = HUGE_BYTES;
	h->under = under;
	h->low = low;
}

/* As if 3 TiB had been written to the log since it was formatted. */
static void move_head(struct scene *sc)
{
	union {
		struct wlog_sb sb;
		uint8_t bytes[sizeof(struct wlog_sb)];
	} u;

	for (uint64_t slot = 0; slot < WLOG_SB_SLOTS; slot++) {
		uint64_t off = slot * WLOG_SB_STRIDE;

		memcpy(u.bytes, (const char *)sim_disk_durable(sc->u.disk) + off, sizeof(u));
		u.sb.tail_pos = le64_make(WINDOW_OFF);
		u.sb.crc = le32_make(0);
		u.sb.crc = le32_make(crc32c(0, u.bytes, sizeof(u)));
		sim_disk_poke(sc->u.disk, off, u.bytes, sizeof(u));
	}
}

static void far_away(struct crash_config *cfg)
{
	cfg->disk_bytes = DISK_BYTES;
	cfg->backing_more = DISK_BYTES;
}

struct huge_pair {
	struct huge cache, backing;
};

static void open_huge(struct scene *sc, struct huge_pair *h)
{
	err_clear(&sc->err);
	sc->s = session_new(&crash_on_boost, &sc->u, 1);
	huge_on(&h->cache, sc->s->sh.dev, WLOG_RING_OFF);
	huge_on(&h->backing, sc->s->sh.backing, WLOG_RING_OFF);
	sc->s->cache = &h->cache.dev;
	sc->s->backing = &h->backing.dev;
	if (session_open(sc->s, false, &sc->err))
		crash_fail("does not open: %s", sc->err.text);
}

/* It is found there, before and after writeback, and on the backing device alone. */
TEST(hole_11_beyond_two_tib)
{
	struct scene *sc = scene_new("hole_11_beyond_two_tib", &crash_on_boost, far_away);
	struct wlog_format_options opt = {.random = 1, .force = true};
	struct huge_pair h = {0};
	struct dev *dev;

	/* The oracle's sectors lie in the window. */
	sc->cfg.lba_base = (WINDOW_OFF + WLOG_RING_OFF) / DEV_SECTOR_BYTES;
	sc->u.home_unknown = true;
	CHECK_OK(sim_dev_open(sc->u.disk, &dev));
	huge_on(&h.cache, dev, WLOG_RING_OFF);
	CHECK_OK(wlog_format(&h.cache.dev, &opt, NULL, &sc->err));
	dev_close(dev);
	move_head(sc);
	open_huge(sc, &h);
	for (uint32_t i = 0; i < 20; i++) {
		scene_write(sc, i % 8 * 8, 8);
		scene_flush(sc);
	}
	CHECK(h.cache.far_writes >= 20);
	scene_crash(sc, SIM_KEEP_NONE);
	open_huge(sc, &h);
	CHECK_EQ(scene_judge(sc), 20);
	scene_drain(sc);
	CHECK(h.backing.far_writes > 0);
	scene_write(sc, 3, 5);
	scene_drain(sc);
	scene_crash(sc, SIM_KEEP_NONE);
	open_huge(sc, &h);
	CHECK_EQ(scene_judge(sc), 1);
	scene_crash(sc, SIM_KEEP_NONE);
	/* Without the cache: at its place on the backing device. */
	CHECK(oracle_decode_all(sc->oracle,
				(const uint8_t *)sim_disk_durable(sc->u.backing) + WLOG_RING_OFF,
				sc->ids));
	CHECK_EQ(sc->ids[4], 21);
	CHECK_EQ(sc->ids[0], 17);
	scene_end(sc);
}
