/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The adapter of boost: a volume whose home is a block device that is written in place.
 *
 * Engine calls go straight to boost.h. The volume's size is the backing device's; its unit of
 * atomicity is never smaller than the device's logical block. The volume's UUID stands in the
 * definition and in the cache, nowhere else: the backing device has no room for it.
 *
 * Locks: the volume's, as home.h says; home->boost changes only in open and close, when nobody else
 * is in the engine.
 */
#include "boost/boost.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "volume/home_boost.h"
#include "volume/json.h"
#include "volume/media.h"
#include "volume/volume.h"

#define LINE_BLOCK 4096 /* what the status line counts in */

struct boost_home {
	struct home home;
	struct boost *boost; /* NULL: not open */
};

static struct boost_home *to_boost(struct home *home)
{
	return container_of(home, struct boost_home, home);
}

static struct boost *engine(struct home *home)
{
	return to_boost(home)->boost;
}

/* ---- media --------------------------------------------------------------------------------- */

/* Looking is allowed to those who may not write. */
static int open_backing(struct varve_volume *vol, struct dev **ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = media_backing_open(vol->cfg.backing, vol->read_only ? MEDIA_READ_ONLY : 0, 0, ret,
				    &why);

	if (rc == -EACCES || rc == -EROFS) {
		vol->read_only = true;
		err_clear(&why);
		rc = media_backing_open(vol->cfg.backing, MEDIA_READ_ONLY, 0, ret, &why);
	}
	return rc ? err_set(err, rc, "backing device %s: %s", vol->cfg.backing, err_text(&why, rc))
		  : 0;
}

static int media_open(struct varve_volume *vol, struct err *err)
{
	struct boost_home *b = calloc(1, sizeof(*b));
	struct dev *dev = NULL;
	int rc = b ? open_backing(vol, &dev, err) : -ENOMEM;

	if (!rc)
		rc = sluice_dev_new(dev, &vol->h.backing);
	if (rc) {
		dev_close(dev);
		free(b);
		return err_set(err, rc, "volume %s: no memory", vol->cfg.name);
	}
	b->home.ops = &home_boost;
	b->home.vol = vol;
	vol->home = &b->home;
	return 0;
}

static void media_close(struct home *home)
{
	dev_close(&home->vol->h.backing->dev);
	free(to_boost(home));
}

/* ---- the engine ---------------------------------------------------------------------------- */

static int open_engine(struct home *home, bool discard_cache, struct home_cut *ret_cut,
		       struct err *err)
{
	struct varve_volume *vol = home->vol;
	struct dev *cache = vol->h.dev ? &vol->h.dev->dev : NULL;
	struct boost_options opt = vol->cfg.boost;
	struct boost_cut cut = {0};
	int rc;

	opt.log = vol->cfg.log;
	opt.volume_uuid = vol->cfg.uuid;
	opt.batch_age_ns = vol->cfg.batch_age_ns;
	opt.retry_min_ns = vol->cfg.retry_min_ns;
	opt.retry_max_ns = vol->cfg.retry_max_ns;
	opt.home_timeout_ns = vol->cfg.home_timeout_ns;
	opt.hold = vol->cfg.hold;
	rc = boost_open(&vol->h.host, &vol->h.backing->dev, cache, discard_cache, &opt,
			&to_boost(home)->boost, &cut, err);
	if (!rc)
		*ret_cut = (struct home_cut){cut.lsn, cut.wall_ns, cut.lost_bytes, cut.unknown};
	return rc;
}

static int acquire(struct home *home, struct err *err)
{
	return boost_acquire(engine(home), err);
}

static int release(struct home *home, struct err *err)
{
	return boost_release(engine(home), err);
}

static void close_engine(struct home *home)
{
	struct boost_home *b = to_boost(home);

	boost_close(b->boost);
	b->boost = NULL;
}

static bool acquired(struct home *home)
{
	return boost_acquired(engine(home));
}

static struct wlog *log_of(struct home *home)
{
	return boost_log(engine(home));
}

static void read_through(struct home *home, struct dev_req *req)
{
	boost_read(engine(home), req);
}

static void tick(struct home *home)
{
	boost_tick(engine(home));
}

static void hold(struct home *home, bool hold)
{
	boost_set_hold(engine(home), hold);
}

static void set(struct home *home, const struct volume_config *cfg)
{
	boost_set_allow_migrate(engine(home), cfg->boost.allow_migrate);
	boost_set_batch(engine(home), cfg->boost.nr_max_batched_migration);
	hold(home, cfg->hold);
}

static void clear_stat(struct home *home)
{
	struct wlog *log = boost_log(engine(home));

	boost_clear_stat(engine(home));
	if (log)
		wlog_clear_stat(log);
}

static void drain(struct home *home, struct drain *drain)
{
	boost_drain(engine(home), drain);
}

static int drain_cancel(struct home *home, struct drain *drain)
{
	return boost_drain_cancel(engine(home), drain);
}

static void stop(struct home *home)
{
	boost_stop(engine(home));
}

static bool idle(struct home *home)
{
	return boost_idle(engine(home));
}

static uint64_t extent(struct home *home, uint64_t lba, uint64_t end, bool *ret_data)
{
	return boost_extent(engine(home), lba, end, ret_data);
}

/* Only what the log holds has checksums: reading the backing device would prove nothing. */
static uint64_t check_run(struct home *home, uint64_t lba, uint64_t end, bool *ret_read)
{
	uint64_t at, sectors;

	*ret_read = false;
	if (!boost_dirty(engine(home), lba, &at, &sectors) || at >= end)
		return end;
	if (at > lba)
		return at;
	*ret_read = true;
	return at + sectors < end ? at + sectors : end;
}

static void facts(struct home *home, struct home_facts *ret)
{
	const uint64_t wish = home->vol->cfg.block_bytes;
	struct boost_status st;

	boost_status(engine(home), &st);
	ret->uuid = st.volume_uuid;
	ret->block_bytes = st.block_bytes > wish ? st.block_bytes : (uint32_t)wish;
	ret->size_bytes = st.sectors * DEV_SECTOR_BYTES / ret->block_bytes * ret->block_bytes;
	ret->discards = st.can_discard;
}

/* ---- the size ------------------------------------------------------------------------------ */

static int resize_check(struct home *home, uint64_t *bytes, struct err *err)
{
	struct varve_volume *vol = home->vol;
	const char *path = vol->cfg.backing;
	struct dev *dev;
	uint64_t now;
	int rc;

	if (media_is_mem(path)) {
		*bytes = *bytes ? *bytes : volume_size(vol);
		return *bytes >= volume_size(vol)
			       ? 0
			       : err_set(err, -EOPNOTSUPP, "memory cannot be made smaller");
	}
	rc = media_backing_open(path, MEDIA_READ_ONLY, 0, &dev, err);
	if (rc)
		return rc;
	now = dev->size_bytes / vol->block_bytes * vol->block_bytes;
	dev_close(dev);
	*bytes = *bytes ? *bytes : now;
	if (!media_is_block(path))
		return 0;
	if (now < volume_size(vol))
		return err_set(err, -EINVAL,
			       "%s has shrunk to %llu bytes: what lay beyond is lost, and a cache "
			       "cannot be used with less; make it as large as it was",
			       path, (unsigned long long)now);
	if (*bytes != now)
		return err_set(err, -EINVAL,
			       "%s is a block device of %llu bytes: resize it with its own tools "
			       "first (it cannot shrink here), then say varve resize %s without a "
			       "size",
			       path, (unsigned long long)now, vol->cfg.name);
	return 0;
}

/* The log is empty, and says so on its device: nothing can be written beyond the new end. */
static int truncate_file(const char *path, uint64_t bytes, struct err *err)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) || fsync(fd))
		rc = err_sys(err, -errno, "%s", path);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int resize_media(struct home *home, uint64_t bytes, struct err *err)
{
	struct dev *dev = &home->vol->h.backing->dev;
	const char *path = home->vol->cfg.backing;
	int rc = dev_resize_look(dev);

	if (!rc && bytes < dev->size_bytes && !media_is_mem(path)) {
		rc = truncate_file(path, bytes, err);
		if (!rc)
			rc = dev_resize_look(dev);
	} else if (!rc && bytes > dev->size_bytes) {
		rc = dev_resize(dev, bytes);
	}
	return rc ? err_sys(err, rc, "resizing %s", path) : 0;
}

/* ---- status -------------------------------------------------------------------------------- */

static_assert(sizeof(struct boost_status) <= sizeof(((struct home_look *)NULL)->own), "look");

static void look(struct home *home, struct home_look *ret)
{
	struct boost_status *st = (struct boost_status *)(void *)ret->own.bytes;
	unsigned int n = 0;

	boost_status(engine(home), st);
	ret->log = st->log;
	ret->has_log = boost_log(engine(home));
	ret->acquired = st->acquired;
	ret->hold = st->hold;
	ret->home_error = st->home_error;
	ret->failed = st->failed;
	if (st->bad_sectors)
		ret->reasons[n++] = "data was lost to damage in the cache: reads of it fail until "
				    "it is written again (bad_bytes)";
	ret->reasons[n] = NULL;
}

static json_t *binding_json(const struct boost_binding *binding)
{
	json_t *top = json_object();

	json_object_set_new(top, "identity", json_string(binding->identity));
	json_put(top, "backing_bytes", binding->backing_bytes);
	json_put(top, "bound_wall_ns", binding->bound_wall_ns);
	return top;
}

static void tell_cache(const struct wlog_info *info, json_t *top)
{
	struct boost_binding binding;

	if (!boost_binding(info, &binding, NULL))
		json_object_set_new(top, "binding", binding_json(&binding));
}

static json_t *home_json(const struct boost_status *st)
{
	json_t *home = json_object();

	json_put(home, "dirty_bytes", st->dirty_sectors * DEV_SECTOR_BYTES);
	json_put(home, "migrated_bytes", st->migrated_bytes);
	json_put(home, "migrate_writes", st->migrate_writes);
	json_put(home, "superseded_bytes", st->superseded_bytes);
	json_put(home, "batches", st->batches);
	json_put(home, "flushes", st->flushes);
	json_put(home, "lost_bytes", st->lost_bytes);
	json_put(home, "bad_bytes", st->bad_sectors * DEV_SECTOR_BYTES);
	json_put(home, "oldest_dirty_ns", st->oldest_dirty_ns);
	json_put(home, "retries", st->retries);
	json_put(home, "block_bytes", st->block_bytes);
	json_put(home, "nr_max_batched_migration", st->nr_max_batched_migration);
	json_object_set_new(home, "allow_migrate", json_boolean(st->allow_migrate));
	json_object_set_new(home, "can_discard", json_boolean(st->can_discard));
	json_object_set_new(home, "binding",
			    st->binding.backing_bytes ? binding_json(&st->binding) : json_null());
	json_object_set_new(home, "error", st->home_error
						   ? json_string(strerror(-st->home_error))
						   : json_null());
	return home;
}

/*
 * The status line of dm-writeboost as it was published in 2013, in blocks of 4 KiB:
 *	<#dirty caches> <#segments> <last migrated> <last flushed> <current> <cursor> <16 stat>
 *	<# kv pairs> <kv pairs>
 * A segment has no fixed length here: #segments is how many full ones the ring has room for. Of the
 * pairs those are told that there are.
 */
static json_t *line(const struct varve_volume *vol, const struct boost_status *st)
{
	const uint64_t block_sectors = LINE_BLOCK / DEV_SECTOR_BYTES;
	const uint64_t segment = status_segment_bytes(vol->cfg.log.segment_bytes,
						      st->log.ring_bytes);
	char stat[WLOG_IO_KINDS * 21 + 1] = "";
	size_t at = 0;

	for (unsigned int i = 0; i < WLOG_IO_KINDS; i++)
		at += (size_t)snprintf(stat + at, sizeof(stat) - at, " %llu",
				       (unsigned long long)st->log.io[i]);
	return json_sprintf(
		"%llu %llu %llu %llu %llu %llu%s 3 barrier_deadline_ms %u allow_migrate %d "
		"nr_max_batched_migration %u",
		(unsigned long long)((st->dirty_sectors + block_sectors - 1) / block_sectors),
		(unsigned long long)(st->log.ring_bytes / segment),
		(unsigned long long)st->log.destaged_seg, (unsigned long long)st->log.durable_seg,
		(unsigned long long)st->log.head_seg,
		(unsigned long long)((st->log.head_sectors + block_sectors - 1) / block_sectors),
		stat, (vol->cfg.log.barrier_deadline_us + 999) / 1000, st->allow_migrate,
		st->nr_max_batched_migration);
}

static void tell(struct home *home, const struct home_look *look, json_t *top)
{
	struct varve_volume *vol = home->vol;
	json_t *backing = status_dev_json(&vol->h.backing->dev, vol->cfg.backing);

	if (look) {
		const struct boost_status *st = (const void *)look->own.bytes;

		json_object_set_new(top, "home", home_json(st));
		if (look->has_log)
			json_object_set_new(top, "line", line(vol, st));
	}
	json_object_set_new(top, "backing", backing);
}

static const char promise[] =
	"nothing is promised of the backing device alone: it has newer and older sectors side by "
	"side until everything was written back";

const struct home_ops home_boost = {
	.type = "boost",
	.home = "backing device",
	.promise = promise,
	.configured = home_boost_configured,
	.spec = home_boost_spec,
	.media_open = media_open,
	.media_close = media_close,
	.create_check = home_boost_create_check,
	.create_make = home_boost_create_make,
	.create_unmake = home_boost_create_unmake,
	.erase = home_boost_erase,
	.check = home_boost_check,
	.check_run = check_run,
	.tell_cache = tell_cache,
	.dump = home_boost_dump,
	.open = open_engine,
	.acquire = acquire,
	.release = release,
	.close = close_engine,
	.acquired = acquired,
	.log = log_of,
	.read = read_through,
	.tick = tick,
	.set = set,
	.hold = hold,
	.clear_stat = clear_stat,
	.drain = drain,
	.drain_cancel = drain_cancel,
	.resize_check = resize_check,
	.resize_media = resize_media,
	.stop = stop,
	.idle = idle,
	.extent = extent,
	.facts = facts,
	.look = look,
	.tell = tell,
};
