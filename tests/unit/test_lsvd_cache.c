/* SPDX-License-Identifier: BSD-3-Clause */
/* A cache device in which its owner writes while another looks, and one that cannot be read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"

/* A device in front of another one: something happens before the n-th read, or reads fail. */
struct shim {
	struct dev dev;
	struct dev *inner;
	struct lsvd_rig *rig;
	unsigned reads, strike_at; /* 0: never */
	bool unreadable;
};

/* The owner writes so much that the tail of its log moves on. */
static void owner_works(struct lsvd_rig *rig)
{
	CHECK_OK(rig_write(rig, 0, 8));
	for (unsigned i = 0; i < 8; i++) {
		CHECK_OK(rig_write(rig, 512 * (i + 1), 512));
		CHECK_OK(rig_drain(rig));
	}
	host_single_settle(&rig->hs);
}

static void shim_submit(struct dev *dev, struct dev_req *req)
{
	struct shim *s = container_of(dev, struct shim, dev);

	if (req->op == DEV_READ && ++s->reads == s->strike_at)
		owner_works(s->rig);
	/* Beyond the end of the device: an error, whatever else there is. */
	if (req->op == DEV_READ && s->unreadable)
		req->off_bytes = s->dev.size_bytes;
	dev_submit(s->inner, req);
}

static void shim_kick(struct dev *dev)
{
	dev_kick(container_of(dev, struct shim, dev)->inner);
}

static bool shim_help(struct dev *dev)
{
	return dev_help(container_of(dev, struct shim, dev)->inner);
}

static int shim_poll(struct dev *dev, bool wait)
{
	return dev_poll(container_of(dev, struct shim, dev)->inner, wait);
}

static void shim_close(struct dev *dev)
{
	dev_close(container_of(dev, struct shim, dev)->inner);
}

static const struct dev_ops shim_ops = {
	.name = "shim",
	.submit = shim_submit,
	.kick = shim_kick,
	.help = shim_help,
	.poll = shim_poll,
	.close = shim_close,
};

static struct dev *shim_over(struct shim *s, struct dev *inner)
{
	s->inner = inner;
	s->dev = *inner;
	s->dev.ops = &shim_ops;
	return &s->dev;
}

/*
 * Whatever moment the owner chooses for its work: who looks gets an image, and one in which the
 * log has given up no more than the map names.
 */
TEST(looking_while_the_owner_works)
{
	bool struck = true;

	for (unsigned at = 1; struck; at++) {
		struct lsvd_rig *rig = rig_new(test_seed());
		const struct dev_mem_options opt = {.bytes = rig->cache_bytes};
		struct shim shim = {.rig = rig, .strike_at = at};
		struct lsvd_status st;
		struct lsvd *second;
		struct err err = ERR_INIT;
		struct dev *cache;

		CHECK_OK(rig_open(rig));
		owner_works(rig);
		CHECK_OK(dev_mem_open(&opt, &cache, NULL));
		shim_over(&shim, cache);
		if (lsvd_open(&rig->hs.host, rig->store, RIG_NAME, &shim.dev, false, &rig->opt,
			      &second, NULL, &err))
			FAIL("owner at work before read %u: %s", at, err.text);
		struck = shim.reads >= at;
		host_enter(&rig->hs.host);
		lsvd_status(second, &st);
		host_leave(&rig->hs.host);
		CHECK(st.log.destaged_lsn <= st.durable_lsn);
		lsvd_close(second);
		dev_close(&shim.dev);
		rig_free(rig);
	}
}

TEST(drain_of_a_cache_that_cannot_be_read_ends)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct shim shim = {.rig = rig};

	rig->opt.hold_destage = true;
	rig->cache = rig->hs.dev = shim_over(&shim, rig->cache);
	CHECK_OK(rig_open(rig));
	/* More than stays in memory. */
	for (unsigned i = 0; i < 8; i++)
		CHECK_OK(rig_write(rig, 512 * i, 512));
	CHECK_OK(rig_flush(rig));
	shim.unreadable = true;
	CHECK(rig_drain(rig) < 0);
	/* Nothing has been given up for that. */
	shim.unreadable = false;
	CHECK_OK(rig_drain(rig));
	rig_verify(rig);
	rig_free(rig);
}
