/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two owners of one volume, the second one on another machine and without the first one's cache:
 * what the first one has been told is in the store must be in the second one's image, whatever the
 * moment of the take-over. Then what a new owner must not believe: lists, and the cache's memory.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"

/* A store that calls a function at each request, just before it is submitted. */
struct shim {
	struct store store;
	struct store *inner;
	struct lsvd_rig *rig; /* the first owner */
	enum store_op after;  /* strike at the first `at` that follows an `after` */
	enum store_op at;
	bool armed, struck;
	int drained; /* what the first owner's drain returned */
};

static void shim_submit(struct store *store, struct store_req *req)
{
	struct shim *s = container_of(store, struct shim, store);

	if (s->armed && !s->struck && req->op == s->at) {
		s->struck = true;
		s->drained = rig_drain(s->rig);
	}
	if (req->op == s->after)
		s->armed = true;
	store_submit(s->inner, req);
}

static void shim_kick(struct store *store)
{
	store_kick(container_of(store, struct shim, store)->inner);
}

static bool shim_help(struct store *store)
{
	return store_help(container_of(store, struct shim, store)->inner);
}

static int shim_poll(struct store *store, bool wait)
{
	return store_poll(container_of(store, struct shim, store)->inner, wait);
}

static const struct store_ops shim_ops = {
	.name = "shim",
	.submit = shim_submit,
	.kick = shim_kick,
	.help = shim_help,
	.poll = shim_poll,
};

/*
 * The first owner has sectors 8..15 in its cache only. The second one takes over; at the given
 * moment of that the first one destages them. True when it was told that it had.
 */
static bool take_over(struct lsvd_rig *rig, enum store_op after, enum store_op at, int want)
{
	struct lsvd_rig *second = rig_new(test_seed() + 1);
	struct shim shim = {.store.ops = &shim_ops, .rig = rig, .after = after, .at = at};
	struct store *own = second->store;
	int r;

	CHECK_OK(sim_store_open(rig->bucket, 2, &shim.inner));
	second->store = second->hs.store = &shim.store;
	CHECK_OK(rig_look(second, true, true));
	shim.armed = after == at;
	r = rig_acquire(second);
	CHECK(shim.struck);
	CHECK_EQ(r, want);
	if (!r) {
		/* What the first one was told is there, is there. */
		memcpy(second->oracle, rig->oracle, sizeof(second->oracle));
		for (unsigned i = 8; shim.drained && i < 16; i++)
			second->oracle[i] = 0;
		rig_verify(second);
	}
	rig_close(second);
	second->store = second->hs.store = own;
	store_close(shim.inner);
	rig_free(second);
	return shim.drained == 0;
}

static struct lsvd_rig *first_owner(void)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	rig->opt.hold_destage = true;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_flush(rig));
	return rig;
}

/* Before the claim: it counts, and the second owner, which has loaded already, must notice. */
TEST(object_before_the_claim)
{
	struct lsvd_rig *rig = first_owner();

	CHECK(take_over(rig, STORE_REPLACE, STORE_REPLACE, -EAGAIN));
	rig_free(rig);
}

/* Behind the list, before the end of the old window is fixed: it does not count. */
TEST(object_between_list_and_end)
{
	struct lsvd_rig *rig = first_owner();
	struct lsvd_status st;

	CHECK(!take_over(rig, STORE_LIST, STORE_REPLACE, 0));
	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	CHECK_EQ(st.failed, -ESTALE);
	CHECK(st.log.destaged_lsn < st.log.durable_lsn);
	rig_free(rig);
}

/* A list that omits what is new does not make the stream shorter. */
TEST(late_list)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	const struct sim_fault f = {.kind = SIM_STORE_STALE, .ops = 1u << STORE_LIST, .nth = 1};

	CHECK_OK(rig_open(rig));
	for (unsigned i = 0; i < 8; i++) {
		CHECK_OK(rig_write(rig, i * 8, 8));
		CHECK_OK(rig_drain(rig));
	}
	rig_crash(rig);
	CHECK_OK(sim_bucket_fault(rig->bucket, &f));
	CHECK_OK(rig_look(rig, true, true));
	CHECK_OK(rig_acquire(rig));
	rig_verify(rig);
	CHECK_OK(rig_write(rig, 100, 8));
	CHECK_OK(rig_drain(rig));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

/* What has rotted in the cache must not get a fresh checksum on its way to the store. */
TEST(rot_is_not_laundered)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	uint8_t buf[8 * DEV_SECTOR_BYTES], *media;
	const uint32_t want[2] = {1, 10};
	size_t off = 0;

	rig->opt.hold_destage = true;
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 20));
	/* Cuts a chunk in pieces, whose checksums have to be made anew. */
	CHECK_OK(rig_write(rig, 9, 1));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_look(rig, true, false));
	media = dev_mem_bytes_data(rig->cache_bytes);
	while (memcmp(media + off, want, sizeof(want)) != 0)
		off += DEV_SECTOR_BYTES;
	media[off + 99] ^= 1;
	CHECK_OK(rig_acquire(rig));
	CHECK_OK(rig_drain(rig));
	rig_release(rig);
	CHECK_OK(rig_open(rig));
	CHECK_EQ(rig_read(rig, 10, 1, buf), -EIO);
	CHECK_OK(rig_read(rig, 9, 1, buf));
	CHECK_OK(rig_read(rig, 0, 8, buf));
	CHECK_OK(rig_read(rig, 16, 4, buf));
	rig_free(rig);
}

/* Attaching is cut at every request: the volume always opens, with everything in it. */
static void cut_attach(bool fresh_cache, bool discard)
{
	for (uint64_t cut = 1;; cut++) {
		struct lsvd_rig *rig = rig_new(test_seed());
		bool through;
		int r;

		CHECK_OK(rig_open(rig));
		CHECK_OK(rig_write(rig, 0, 8));
		if (fresh_cache) {
			rig_release(rig);
			dev_mem_bytes_put(rig_new_cache(rig));
		} else {
			CHECK_OK(rig_flush(rig));
			rig_crash(rig);
		}
		if (discard)
			memset(rig->oracle, 0, sizeof(rig->oracle));
		CHECK_OK(rig_look(rig, true, discard));
		rig->world.cut_at = rig->world.events + cut;
		r = rig_acquire(rig);
		through = !r;
		rig_crash(rig);
		sim_world_power_on(&rig->world);
		test_note("cut %u: %d", (unsigned)cut, r);
		r = rig_open(rig);
		if (discard && !through && r)
			/* It had not been given up yet, or has to be given up again. */
			CHECK_OK(rig_look(rig, true, true));
		else
			CHECK_OK(r);
		if (!discard)
			rig_verify(rig);
		rig_free(rig);
		if (through)
			break;
		CHECK(cut < 100);
	}
}

TEST(attach_is_cut)
{
	cut_attach(false, false);
}

TEST(attach_of_a_new_cache_is_cut)
{
	cut_attach(true, false);
}

TEST(attach_with_discard_is_cut)
{
	cut_attach(false, true);
}
