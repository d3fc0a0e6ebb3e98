/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether a cache belongs to a volume (P6), and who may write (P7). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lib/tap.h"
#include "lsvd/lsvd_layout.h"

/* A volume that was not closed: 0..7 in the store, 8..15 in the cache only. */
static struct lsvd_rig *rig_dirty(void)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	return rig;
}

static void forget(struct lsvd_rig *rig, uint32_t lba, uint32_t sectors)
{
	for (uint32_t i = lba; i < lba + sectors; i++)
		rig->oracle[i] = 0;
}

static void expect(struct lsvd_rig *rig, int got, int want, const char *word)
{
	CHECK_EQ(got, want);
	CHECK(strstr(rig->err.text, word) != NULL);
}

TEST(no_volume)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct lsvd_info info;

	CHECK_EQ(lsvd_probe(rig->store, "other", &info, NULL), -ENOENT);
	CHECK_EQ(lsvd_probe(rig->store, "no/name", &info, NULL), -ENOENT);
	CHECK_OK(lsvd_probe(rig->store, RIG_NAME, &info, NULL));
	CHECK(info.clean);
	CHECK(uuid_equal(&info.uuid, &rig->uuid));
	CHECK_EQ(info.size_bytes, RIG_SECTORS * DEV_SECTOR_BYTES);
	rig_free(rig);
}

TEST(create_refuses_what_cannot_be)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct lsvd_create_options opt = {.size_bytes = 1 << 20};

	CHECK_EQ(lsvd_create(rig->store, RIG_NAME, &opt, NULL), -EEXIST);
	CHECK_EQ(lsvd_create(rig->store, "a/b", &opt, NULL), -EINVAL);
	opt.size_bytes = 1000;
	CHECK_EQ(lsvd_create(rig->store, "x", &opt, NULL), -EINVAL);
	opt.size_bytes = 1 << 20;
	opt.block_bytes = 1000;
	CHECK_EQ(lsvd_create(rig->store, "x", &opt, NULL), -EINVAL);
	opt.block_bytes = 4096;
	CHECK_OK(lsvd_create(rig->store, "x", &opt, NULL));
	rig_free(rig);
}

TEST(clean_volume_needs_no_cache)
{
	struct lsvd_rig *rig = rig_dirty();

	CHECK_OK(rig_open(rig));
	rig_release(rig);
	CHECK_OK(rig_look(rig, false, false));
	rig_verify(rig);
	CHECK_EQ(rig_acquire(rig), -ENODEV);
	rig_free(rig);
}

TEST(missing_cache_is_refused)
{
	struct lsvd_rig *rig = rig_dirty();

	expect(rig, rig_look(rig, false, false), -ENODEV, "discard");
	CHECK_OK(rig_look(rig, false, true));
	forget(rig, 8, 8);
	rig_verify(rig);
	rig_free(rig);
}

TEST(unformatted_cache_is_refused)
{
	struct lsvd_rig *rig = rig_dirty();

	memset(dev_mem_bytes_data(rig->cache_bytes), 0, 1 << 20);
	expect(rig, rig_look(rig, true, false), -ENODEV, "discard");
	CHECK_OK(rig_look(rig, true, true));
	CHECK_OK(rig_acquire(rig));
	forget(rig, 8, 8);
	rig_verify(rig);
	rig_free(rig);
}

TEST(another_cache_is_refused)
{
	struct lsvd_rig *rig = rig_dirty();
	struct dev_mem_bytes *mine = rig_new_cache(rig);

	expect(rig, rig_look(rig, true, false), -ENODEV, "discard");
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, mine);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(rig);
}

TEST(cache_of_another_volume_is_refused)
{
	struct lsvd_rig *rig = rig_dirty(), *other = rig_new(test_seed() + 1);
	struct dev_mem_bytes *theirs;

	CHECK_OK(rig_open(other));
	CHECK_OK(rig_write(other, 0, 8));
	rig_release(other);
	theirs = rig_copy_cache(other);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, theirs);
	expect(rig, rig_look(rig, true, false), -EXDEV, "another volume");
	rig_free(other);
	rig_free(rig);
}

/* Not formatted either, whatever is to be discarded: it may hold what the other one needs. */
TEST(discard_spares_the_cache_of_another_volume)
{
	struct lsvd_rig *rig = rig_dirty(), *other = rig_new(test_seed() + 1);
	struct dev_mem_bytes *mine = rig->cache_bytes;

	CHECK_OK(rig_open(other));
	CHECK_OK(rig_write(other, 0, 8));
	CHECK_OK(rig_flush(other));
	rig_set_cache(rig, rig_copy_cache(other));
	CHECK_OK(rig_look(rig, true, true));
	expect(rig, rig_acquire(rig), -EXDEV, "another volume");
	rig_crash(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, mine);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_free(other);
	rig_free(rig);
}

TEST(older_copy_of_the_cache_is_refused)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct dev_mem_bytes *copy;

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	copy = rig_copy_cache(rig);
	/* Another owner, whose writes are in the newer copy only. */
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, copy);
	expect(rig, rig_look(rig, true, false), -ESTALE, "old copy");
	rig_free(rig);
}

TEST(copy_from_before_binding_is_refused)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct dev_mem_bytes *copy = rig_copy_cache(rig);

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, copy);
	expect(rig, rig_look(rig, true, false), -ESTALE, "first");
	rig_free(rig);
}

TEST(copy_of_the_same_epoch_is_refused_by_lsn)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct dev_mem_bytes *copy;

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_flush(rig));
	copy = rig_copy_cache(rig);
	CHECK_OK(rig_write(rig, 8, 8));
	CHECK_OK(rig_drain(rig));
	rig_crash(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, copy);
	expect(rig, rig_look(rig, true, false), -ESTALE, "LSN");
	rig_free(rig);
}

TEST(store_that_was_set_back_is_refused)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	uint8_t super[LSVD_SUPER_BYTES];
	struct store_req head = {.op = STORE_HEAD, .key = RIG_NAME};

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(store_get(rig->store, RIG_NAME, super, sizeof(super), 0));
	CHECK_OK(rig_write(rig, 8, 8));
	rig_release(rig);
	/* Of the objects, only the first one comes back from the backup. */
	while (rig_objects(rig, 'c'))
		CHECK_OK(sim_bucket_lose(rig->bucket, rig_object(rig, 'c', 0)));
	while (rig_objects(rig, 'r'))
		CHECK_OK(sim_bucket_lose(rig->bucket, rig_object(rig, 'r', 0)));
	CHECK_OK(sim_bucket_lose(rig->bucket, rig_object(rig, 'd', 1)));
	CHECK_OK(store_sync(rig->store, &head));
	CHECK_OK(store_replace(rig->store, RIG_NAME, super, sizeof(super), &head.version));
	expect(rig, rig_look(rig, true, false), -ESTALE, "set back");
	CHECK_OK(rig_look(rig, true, true));
	forget(rig, 8, 8);
	rig_verify(rig);
	rig_free(rig);
}

TEST(replaced_cache_is_not_taken_back)
{
	struct lsvd_rig *rig = rig_dirty();
	struct dev_mem_bytes *old = rig_new_cache(rig);

	CHECK_OK(rig_look(rig, true, true));
	CHECK_OK(rig_acquire(rig));
	forget(rig, 8, 8);
	CHECK_OK(rig_write(rig, 16, 8));
	rig_verify(rig);
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_release(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, old);
	expect(rig, rig_look(rig, true, false), -ESTALE, "taken its place");
	rig_free(rig);
}

TEST(clean_volume_takes_a_new_cache)
{
	struct lsvd_rig *rig = rig_dirty();
	struct dev_mem_bytes *old;

	CHECK_OK(rig_open(rig));
	rig_release(rig);
	old = rig_new_cache(rig);
	for (unsigned i = 0; i < 3; i++) {
		CHECK_OK(rig_open(rig));
		rig_verify(rig);
		CHECK_OK(rig_write(rig, 100 + i, 1));
		CHECK_OK(rig_flush(rig));
		rig_crash(rig);
	}
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	CHECK_OK(rig_drain(rig));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	dev_mem_bytes_put(old);
	rig_free(rig);
}

/* As varve cache create --uuid does it: the log names a volume that does not know of it. */
static void format_for(struct lsvd_rig *rig, struct uuid volume, uint64_t attach_epoch)
{
	const struct wlog_format_options opt = {
		.id.log_uuid = uuid_from_bits(rng_next(&rig->hs.rng), 1),
		.id.volume_uuid = volume,
		.id.attach_epoch = attach_epoch,
		.random = rng_next(&rig->hs.rng),
		.force = true,
	};

	CHECK_OK(wlog_format(rig->cache, &opt, NULL, &rig->err));
}

TEST(new_volume_takes_a_cache_that_was_made_for_it)
{
	struct lsvd_rig *rig = rig_new(test_seed());
	struct dev_mem_bytes *copy;

	format_for(rig, rig->uuid, 0);
	copy = rig_copy_cache(rig);
	CHECK_OK(rig_look(rig, true, false));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 0, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_crash(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, copy);
	expect(rig, rig_look(rig, true, false), -ESTALE, "first");
	rig_free(rig);
}

TEST(clean_volume_takes_a_cache_that_was_made_for_it)
{
	struct lsvd_rig *rig = rig_dirty();
	struct dev_mem_bytes *old;

	CHECK_OK(rig_open(rig));
	rig_release(rig);
	old = rig_new_cache(rig);
	format_for(rig, rig->uuid, 0);
	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_write(rig, 100, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	rig_crash(rig);
	dev_mem_bytes_put(rig->cache_bytes);
	rig_set_cache(rig, old);
	expect(rig, rig_look(rig, true, false), -ESTALE, "taken its place");
	rig_free(rig);
}

TEST(unclosed_volume_wants_its_own_cache)
{
	struct lsvd_rig *rig = rig_dirty();
	struct dev_mem_bytes *mine = rig_new_cache(rig);

	format_for(rig, rig->uuid, 0);
	expect(rig, rig_look(rig, true, false), -ENODEV, "discard");
	CHECK_OK(rig_look(rig, true, true));
	CHECK_EQ(rig->cut.lost_bytes, 0);
	CHECK_OK(rig_acquire(rig));
	forget(rig, 8, 8);
	CHECK_OK(rig_write(rig, 16, 8));
	CHECK_OK(rig_flush(rig));
	rig_crash(rig);
	CHECK_OK(rig_open(rig));
	rig_verify(rig);
	dev_mem_bytes_put(mine);
	rig_free(rig);
}

TEST(cache_that_was_made_for_another_volume_is_refused)
{
	struct lsvd_rig *rig = rig_new(test_seed());

	format_for(rig, uuid_from_bits(test_seed(), 78), 0);
	expect(rig, rig_look(rig, true, false), -EXDEV, "another volume");
	/* Our name alone does not do either: an owner has had this one. */
	format_for(rig, rig->uuid, 1);
	expect(rig, rig_look(rig, true, false), -ESTALE, "this volume's once");
	rig_free(rig);
}

/* Binding it is cut at every event; afterwards it opens, bound or not. */
TEST(interrupted_binding_goes_on)
{
	bool through = false;

	for (uint64_t cut = 1; !through; cut++) {
		struct lsvd_rig *rig = rig_new(test_seed());

		format_for(rig, rig->uuid, 0);
		CHECK_OK(rig_look(rig, true, false));
		rig->world.cut_at = rig->world.events + cut;
		through = !rig_acquire(rig);
		rig_crash(rig);
		sim_world_power_on(&rig->world);
		CHECK_OK(rig_open(rig));
		CHECK_OK(rig_write(rig, 0, 8));
		CHECK_OK(rig_flush(rig));
		rig_crash(rig);
		CHECK_OK(rig_open(rig));
		rig_verify(rig);
		rig_free(rig);
	}
}

/* A discard that was cut at that event: whether the cache is formatted, but not bound. */
static bool cut_discard(struct lsvd_rig *rig, uint64_t at)
{
	struct wlog_info log;
	struct lsvd_info info;

	forget(rig, 8, 8);
	CHECK_OK(rig_look(rig, true, true));
	rig->world.cut_at = rig->world.events + at;
	CHECK(rig_acquire(rig) < 0);
	rig_crash(rig);
	sim_world_power_on(&rig->world);
	CHECK_OK(wlog_probe(rig->cache, &log, NULL));
	CHECK_OK(lsvd_probe(rig->store, RIG_NAME, &info, NULL));
	return uuid_equal(&log.id.log_uuid, &info.pending_uuid) &&
	       !uuid_equal(&info.cache_uuid, &info.pending_uuid);
}

/* And what goes on with it is cut as well, anywhere. */
TEST(interrupted_discard_goes_on)
{
	struct lsvd_rig *rig = rig_dirty();
	uint64_t at = 1;
	bool through = false;

	for (; !cut_discard(rig, at); at++) {
		rig_free(rig);
		rig = rig_dirty();
	}
	for (uint64_t cut = 1; !through; cut++) {
		CHECK_OK(rig_look(rig, true, false));
		rig->world.cut_at = rig->world.events + cut;
		through = !rig_acquire(rig);
		rig_crash(rig);
		sim_world_power_on(&rig->world);
		CHECK_OK(rig_open(rig));
		rig_verify(rig);
		rig_free(rig);
		rig = rig_dirty();
		CHECK(cut_discard(rig, at));
	}
	rig_free(rig);
}

TEST(lost_bytes_are_told)
{
	struct lsvd_rig *rig = rig_dirty();

	CHECK_OK(rig_look(rig, true, true));
	CHECK_EQ(rig->cut.lost_bytes, 8 * DEV_SECTOR_BYTES);
	CHECK_EQ(rig->cut.seq, 1);
	CHECK(rig->cut.wall_ns > 0);
	rig_free(rig);
}

TEST(no_lsn_is_used_twice_after_discards)
{
	struct lsvd_rig *rig = rig_dirty();
	uint64_t last = rig->cut.lsn;

	for (unsigned i = 0; i < 4; i++) {
		struct wlog_info info;
		struct dev_mem_bytes *old = rig_new_cache(rig);

		dev_mem_bytes_put(old);
		CHECK_OK(rig_look(rig, true, true));
		CHECK_OK(rig_acquire(rig));
		CHECK(wlog_last_lsn(lsvd_log(rig->lsvd)) > last);
		CHECK_OK(rig_write(rig, 100, 8));
		CHECK_OK(rig_flush(rig));
		last = wlog_last_lsn(lsvd_log(rig->lsvd));
		rig_crash(rig);
		CHECK_OK(wlog_probe(rig->cache, &info, NULL));
	}
	rig_free(rig);
}

TEST(second_owner_is_excluded)
{
	struct lsvd_rig *rig = rig_dirty();
	struct lsvd *second;

	CHECK_OK(rig_open(rig));
	CHECK_OK(lsvd_open(&rig->hs.host, rig->store, RIG_NAME, rig->cache, false, &rig->opt,
			   &second, NULL, NULL));
	CHECK_EQ(lsvd_acquire(second, NULL), -EBUSY);
	lsvd_close(second);
	rig_verify(rig);
	rig_free(rig);
}

/* Who was refused goes on looking, and stands in nobody's way. */
TEST(failed_attempt_leaves_no_lock)
{
	const struct sim_fault out = {
		.kind = SIM_STORE_ERROR,
		.ops = 1u << STORE_REPLACE,
		.error = -EIO,
		.nth = 1,
	};
	struct lsvd_rig *rig = rig_dirty();
	struct lsvd *second;

	CHECK_OK(lsvd_open(&rig->hs.host, rig->store, RIG_NAME, rig->cache, false, &rig->opt,
			   &second, NULL, NULL));
	CHECK_OK(sim_bucket_fault(rig->bucket, &out));
	CHECK_EQ(lsvd_acquire(second, NULL), -EIO);
	CHECK_EQ(lsvd_acquire(second, NULL), -EALREADY);
	sim_bucket_heal(rig->bucket);
	CHECK_OK(rig_open(rig));
	lsvd_close(second);
	rig_verify(rig);
	rig_free(rig);
}

TEST(who_looked_before_another_owner_came_must_look_again)
{
	struct lsvd_rig *rig = rig_dirty();
	struct lsvd *second;

	CHECK_OK(lsvd_open(&rig->hs.host, rig->store, RIG_NAME, rig->cache, false, &rig->opt,
			   &second, NULL, NULL));
	CHECK_OK(rig_open(rig));
	rig_release(rig);
	CHECK_EQ(lsvd_acquire(second, NULL), -EAGAIN);
	lsvd_close(second);
	rig_free(rig);
}

/* An owner on another machine takes over; the first one is paused and does not know. */
TEST(fenced_owner_gives_nothing_up)
{
	struct lsvd_rig *rig = rig_dirty();
	const struct dev_mem_options dopt = {.size_bytes = RIG_CACHE_BYTES};
	struct lsvd_status st;
	struct lsvd *second;
	struct store *store;
	struct dev *cache;

	CHECK_OK(rig_open(rig));
	CHECK_OK(rig_drain(rig));
	CHECK_OK(rig_write(rig, 32, 8));
	CHECK_OK(rig_flush(rig));
	CHECK_OK(sim_store_open(rig->bucket, 2, &store));
	CHECK_OK(dev_mem_open(&dopt, &cache, NULL));
	CHECK_OK(lsvd_open(&rig->hs.host, store, RIG_NAME, cache, true, &rig->opt, &second, NULL,
			   NULL));
	CHECK_OK(lsvd_acquire(second, NULL));
	/* Now the first one goes on: what it puts does not count, and it must notice. */
	CHECK_EQ(rig_drain(rig), -ESTALE);
	host_enter(&rig->hs.host);
	lsvd_status(rig->lsvd, &st);
	host_leave(&rig->hs.host);
	CHECK_EQ(st.failed, -ESTALE);
	CHECK(st.log.destaged_lsn < st.log.durable_lsn);
	host_single_settle(&rig->hs);
	lsvd_close(second);
	store_close(store);
	dev_close(cache);
	rig_free(rig);
}
