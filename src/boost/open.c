/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening: do cache, volume and backing device belong together (P6)? Writes nothing.
 *
 * The log's superblock names the volume, and holds the home's state: the backing device's identity,
 * its size, samples of its contents. "Empty" below: the log was closed in order (boost_release) and
 * everything was home; the device may have been used without its cache since.
 *
 *   the log                              verdict
 *   none there                           -ENODEV
 *   of another volume                    -EXDEV
 *   started, without a state of ours     -EXDEV: it is the cache of a volume of another kind
 *   never started                        good: it will be bound to this device (attach.c)
 *   state, another identity              -EXDEV, also when it is empty: attach the right one
 *   state, smaller or larger blocks      good if it is empty, else -EXDEV
 *   state, larger                        good
 *   state, a sample differs              good if it is empty, else -ESTALE
 *
 * An identity that was not known when they were bound cannot be compared, and is recorded as soon
 * as it is known. Larger blocks would not do: what the log holds may be parts of them.
 *
 * With discard the log is only looked at, to tell what is lost. The wrong one is not given up: a
 * discard is for what this volume's cache holds.
 */
#include <errno.h>
#include <string.h>

#include "boost/boost_impl.h"

#define OPEN_TRIES 4
#define DISCARD_HINT "; with --discard-cache what it holds can be given up"

void backing_identity(struct dev *dev, char ret[DEV_IDENTITY_LEN])
{
	memset(ret, 0, DEV_IDENTITY_LEN);
	if (dev->ops->identity)
		dev->ops->identity(dev, ret);
	ret[DEV_IDENTITY_LEN - 1] = 0;
}

void open_count(struct boost *b)
{
	struct wlog_seg *seg = wlog_next_durable(b->log, 0);
	struct wlog_seg_view view;

	b->home_lsn = boost_published_lsn(b);
	b->home_number = 0;
	b->dirty_before = 0;
	for (bool first = true; seg; first = false) {
		wlog_seg_view(seg, &view);
		if (first)
			b->home_lsn = view.first_lsn - 1;
		b->dirty_before += view.data_sectors;
		seg = wlog_next_durable(b->log, view.number);
	}
	gather_reset(b);
}

/* ---- whose log it is */

/* No owner has ever started it. */
static bool log_is_new(const struct wlog_info *info)
{
	return !info->home_bytes && info->log_epoch == 1 && info->clean &&
	       info->watermark_lsn == info->tail_lsn;
}

static int open_volume(const struct boost *b, const struct wlog_info *info, struct err *err)
{
	const struct uuid *want = &b->opt.volume_uuid;
	char ours[UUID_TEXT_LEN], theirs[UUID_TEXT_LEN];

	if (!uuid_is_zero(want) && !uuid_is_zero(&info->id.volume_uuid) &&
	    !uuid_equal(want, &info->id.volume_uuid) && VARVE_STEP("boost.check_volume"))
		return err_set(err, -EXDEV,
			       "the cache belongs to volume %s, this is volume %s: attach its own "
			       "cache",
			       uuid_to_text(&info->id.volume_uuid, theirs),
			       uuid_to_text(want, ours));
	if (!info->home_bytes && !log_is_new(info))
		return err_set(
			err, -EXDEV,
			"the cache is in use by a volume of another kind: it is not bound "
			"to a backing device. Attach it there, or format it if what it holds "
			"is not wanted");
	return 0;
}

static int open_identity(const struct boost *b, const struct state *state, struct err *err)
{
	char now[DEV_IDENTITY_LEN];

	backing_identity(b->backing, now);
	if (!state->identity[0] || strcmp(state->identity, now) == 0 ||
	    !VARVE_STEP("boost.check_identity"))
		return 0;
	return err_set(err, -EXDEV,
		       "the cache is bound to backing device %s, this one is %s: attach the device "
		       "that it was bound to" DISCARD_HINT,
		       state->identity, now[0] ? now : "not known by any name");
}

static int open_size(const struct boost *b, const struct state *state, struct err *err)
{
	const uint64_t bytes = b->home.sectors * DEV_SECTOR_BYTES;

	if (bytes < state->backing_bytes)
		return err_set(err, -EXDEV,
			       "the backing device has %llu bytes, and had %llu when the cache was "
			       "last used: it has shrunk, or is another one" DISCARD_HINT,
			       (unsigned long long)bytes, (unsigned long long)state->backing_bytes);
	if (b->backing->block_bytes > state->block_bytes)
		return err_set(err, -EXDEV,
			       "the backing device has blocks of %u bytes, and had ones of %u when "
			       "the cache was last used: what the cache holds may not be whole "
			       "blocks" DISCARD_HINT,
			       b->backing->block_bytes, state->block_bytes);
	return 0;
}

/* ---- with the log */

static int open_log(struct boost *b, const struct wlog_info *info, struct wlog **ret,
		    struct err *err)
{
	b->cache_sb_seq = info->sb_seq;
	b->attach_epoch = info->id.attach_epoch;
	b->ring_bytes = info->ring_bytes;
	return wlog_open(b->host, b->cache, &b->home, &b->opt.log, 0, ret, err);
}

/*
 * The state is taken from the log as it was opened, not as it was probed: its owner may have been
 * at work in between.
 */
static int open_bound(struct boost *b, const struct wlog_info *info, struct err *err)
{
	uint32_t bytes = 0;
	const void *buf = wlog_home_state(b->log, &bytes);
	int r = state_decode(buf, bytes, &b->state, &b->bads, err);

	if (r)
		return r;
	b->bound = true;
	b->empty = info->clean && !wlog_next_durable(b->log, 0);
	r = open_identity(b, &b->state, err);
	if (r || b->empty)
		return r;
	r = open_size(b, &b->state, err);
	if (!r)
		r = samples_check(b, &b->state, err);
	return r;
}

static int open_cache(struct boost *b, struct err *err)
{
	struct wlog_info info;
	int r = wlog_probe(b->cache, &info, err);

	if (r == -ENOENT) {
		err_clear(err);
		return err_set(
			err, -ENODEV,
			"the cache device holds no log: format it with \"varve cache create\" "
			"if it is new. If it was this volume's cache, what it held is gone, "
			"and --discard-cache goes on without");
	}
	if (r)
		return r;
	r = open_volume(b, &info, err);
	if (r)
		return r;
	/* Before anything is replayed: a record beyond the end would look like damage. */
	if (info.home_bytes) {
		r = state_decode(info.home, info.home_bytes, &b->state, &b->bads, err);
		if (!r)
			r = open_identity(b, &b->state, err);
		if (!r && !info.clean)
			r = open_size(b, &b->state, err);
		extmap_clear(&b->bads);
		if (r)
			return r;
	}
	b->volume_uuid =
		uuid_is_zero(&info.id.volume_uuid) ? b->opt.volume_uuid : info.id.volume_uuid;
	r = open_log(b, &info, &b->log, err);
	if (r)
		return r;
	open_count(b);
	return info.home_bytes ? open_bound(b, &info, err) : 0;
}

/* ---- giving up a log */

static uint64_t lost_bytes(struct boost *b)
{
	uint64_t lba = 0, sum = bads_sectors(&b->bads);

	while (lba < b->home.sectors) {
		int type = 0;
		const uint64_t to = wlog_extent(b->given_up, lba, b->home.sectors, &type);

		if (type)
			sum += to - lba;
		lba = to;
	}
	return sum * DEV_SECTOR_BYTES;
}

int open_may_discard(struct boost *b, struct err *err)
{
	struct wlog_info info;
	struct state state;
	struct extmap bads;
	int r;

	if (wlog_probe(b->cache, &info, NULL))
		return 0;
	r = open_volume(b, &info, err);
	/* One that is empty may be on its way to another device of the same volume. */
	if (r || info.clean || !info.home_bytes)
		return r;
	extmap_init(&bads, NULL, 0);
	r = state_decode(info.home, info.home_bytes, &state, &bads, NULL);
	extmap_destroy(&bads);
	return r ? 0 : open_identity(b, &state, err);
}

/*
 * A cache that is being discarded is looked at for what is lost, and for which LSNs it may have
 * used. Whatever cannot be read of it is no error.
 */
static void open_discard(struct boost *b, struct boost_cut *cut)
{
	struct wlog_info info;

	cut->unknown = true;
	if (!b->cache || wlog_probe(b->cache, &info, NULL))
		return;
	b->cache_sb_seq = info.sb_seq;
	b->attach_epoch = info.id.attach_epoch;
	b->ring_bytes = info.ring_bytes;
	b->discard_lsn = info.watermark_lsn;
	if (open_volume(b, &info, NULL) || !info.home_bytes ||
	    state_decode(info.home, info.home_bytes, &b->state, &b->bads, NULL))
		return;
	if (uuid_is_zero(&b->opt.volume_uuid))
		b->volume_uuid = info.id.volume_uuid;
	cut->lsn = info.destaged_lsn;
	cut->wall_ns = b->state.destaged_wall_ns;
	if (open_identity(b, &b->state, NULL) || open_log(b, &info, &b->given_up, NULL))
		return;
	cut->unknown = false;
	cut->lost_bytes = lost_bytes(b);
	b->discard_lsn = wlog_last_lsn(b->given_up);
}

/* ---- the whole */

static int open_once(struct boost *b, struct boost_cut *cut, struct err *err)
{
	if (!b->home.sectors)
		return err_set(err, -EINVAL, "the backing device is empty");
	if (b->home.sectors > EXTMAP_LBA_END)
		return err_set(err, -EFBIG, "the backing device is larger than 2^57 bytes");
	b->volume_uuid = b->opt.volume_uuid;
	if (b->discard)
		open_discard(b, cut);
	else if (b->cache)
		return open_cache(b, err);
	return 0;
}

/* What moves while an owner is at work. */
struct seen {
	uint64_t sb_seq, lsn;
};

static struct seen open_seen(const struct boost *b)
{
	return (struct seen){
		.sb_seq = b->cache_sb_seq,
		.lsn = b->log ? wlog_durable_lsn(b->log) : 0,
	};
}

/*
 * While another process writes, what one looks at is not of one moment: it may seem damaged, or the
 * backing device ahead of the cache. What is really so stays so while nothing moves.
 */
int boost_open(struct host *host, struct dev *backing, struct dev *cache, bool discard_cache,
	       const struct boost_options *opt, struct boost **ret, struct boost_cut *ret_cut,
	       struct err *err)
{
	struct seen before = {0};

	for (int tries = 1;; tries++) {
		struct boost_cut cut = {0};
		struct err now = ERR_INIT;
		struct boost *b = boost_alloc(host, backing, cache, opt);
		struct seen seen;
		int r;

		if (!b)
			return err_set(err, -ENOMEM, "no memory");
		b->discard = discard_cache;
		r = open_once(b, &cut, &now);
		if (!r) {
			b->load_user.log = b->log;
			if (ret_cut)
				*ret_cut = cut;
			*ret = b;
			return 0;
		}
		seen = open_seen(b);
		boost_close(b);
		if ((r != -EBADMSG && r != -ESTALE) || tries == OPEN_TRIES ||
		    (tries > 1 && seen.sb_seq == before.sb_seq && seen.lsn == before.lsn))
			return err_set(err, r, "%s", err_text(&now, r));
		before = seen;
	}
}
