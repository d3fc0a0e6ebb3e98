/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The adapter of btt: a volume that is a block translation table in persistent memory. There is no
 * log before it: a request is done when it has run, and is durable then, so a flush has nothing to
 * do. (A table as the medium of a log is another matter: cache = btt:PATH, media.c.)
 *
 * The pool is held exclusively from opening to closing, shared if read-only; there is no writer's
 * right to take beside that. What the volume's size leaves over of a block at the pool's end is not
 * part of it.
 *
 * Locks: none beside the table's own. home->acquired is entered.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btt/btt_dev.h"
#include "volume/home.h"
#include "volume/json.h"
#include "volume/media.h"
#include "volume/pool.h"
#include "volume/volume.h"

struct btt_home {
	struct home home;
	struct pmem *pm;
	struct btt *btt;
	struct dev *dev;
	bool acquired;
	struct drains drains; /* none ever waits; those that ask are told by deferred work */
	uint64_t busy;
};

static struct btt_home *to_btt(struct home *home)
{
	return container_of(home, struct btt_home, home);
}

/* ---- media --------------------------------------------------------------------------------- */

/* The drains' work is the one thing in flight that is ours. */
static void drains_busy(struct drains *drains, int delta)
{
	container_of(drains, struct btt_home, drains)->busy += (uint64_t)(int64_t)delta;
}

/* Looking is allowed to those who may not write. */
static int map(struct varve_volume *vol, struct pmem **ret, struct err *err)
{
	struct err why = ERR_INIT;
	int rc = pool_map(vol->cfg.backing, vol->read_only, false, ret, &why);

	if (rc == -EACCES || rc == -EROFS) {
		vol->read_only = true;
		err_clear(&why);
		rc = pool_map(vol->cfg.backing, true, false, ret, &why);
	}
	return rc ? err_set(err, rc, "%s", err_text(&why, rc)) : 0;
}

static void let_go(struct btt_home *b)
{
	dev_close(b->dev);
	if (b->btt)
		btt_close(b->btt);
	pm_close(b->pm);
	free(b);
}

static int media_open(struct varve_volume *vol, struct err *err)
{
	const struct btt_options opt = {.parallel = &pool_parallel};
	struct btt_home *b = calloc(1, sizeof(*b));
	int rc = b ? map(vol, &b->pm, err) : err_set(err, -ENOMEM, "no memory");

	if (!b)
		return rc;
	if (!rc)
		rc = btt_open(b->pm, &opt, &b->btt, err);
	if (!rc)
		rc = btt_dev_open(b->btt, &b->dev, err);
	if (!rc && b->dev->block_bytes > vol->cfg.block_bytes)
		vol->cfg.block_bytes = b->dev->block_bytes;
	if (rc) {
		let_go(b);
		return err_prefix(err, "pool %s", vol->cfg.backing);
	}
	drains_init(&b->drains, &vol->h.host, drains_busy);
	b->home.ops = &home_btt;
	b->home.vol = vol;
	vol->home = &b->home;
	return 0;
}

static void media_close(struct home *home)
{
	let_go(to_btt(home));
}

/* ---- configurations ------------------------------------------------------------------------ */

static int configured(const struct volume_config *cfg, struct err *err)
{
	if (!cfg->backing[0])
		return err_set(err, -EINVAL, "volume %s: no pool is set (backing=PATH)", cfg->name);
	if (!media_is_none(cfg->cache))
		return err_set(err, -EINVAL,
			       "volume %s: a pool has no cache before it: leave cache out",
			       cfg->name);
	return 0;
}

static int spec(const char *text, struct volume_config *cfg, struct err *err)
{
	static const char prefix[] = "btt:";
	const char *base;

	if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
		return 1;
	text += sizeof(prefix) - 1;
	base = strrchr(text, '/');
	snprintf(cfg->name, sizeof(cfg->name), "%s", base ? base + 1 : text);
	return settings_set(cfg, settings_find("backing", 7), text, err);
}

static int create_check(struct volume_config *cfg, struct err *err)
{
	const bool there = !access(cfg->backing, F_OK);
	int rc = configured(cfg, err);

	if (rc)
		return rc;
	if (there && cfg->size_bytes)
		return err_set(err, -EEXIST,
			       "%s exists, and is taken as large as it is: leave size out",
			       cfg->backing);
	if (!there && !cfg->size_bytes)
		return err_set(err, -ENOENT, "%s does not exist; with size= a file is created",
			       cfg->backing);
	if (cfg->size_bytes % cfg->block_bytes)
		return err_set(err, -EINVAL, "size is not a multiple of block_size (%llu)",
			       (unsigned long long)cfg->block_bytes);
	return 0;
}

/* A file, device-dax or block device that exists must be blank, or be a pool already. */
static int create_make(struct volume_config *cfg, bool *ret_made, struct err *err)
{
	const uint32_t block = (uint32_t)cfg->block_bytes;
	const struct varve_btt_options options = {
		.pool_bytes = cfg->size_bytes ? btt_pool_bytes(cfg->size_bytes / block, block) : 0,
	};
	struct varve_btt *pool;
	int rc;

	if (cfg->size_bytes && !options.pool_bytes)
		return err_set(err, -EFBIG, "a pool of %llu bytes is too large",
			       (unsigned long long)cfg->size_bytes);
	rc = varve_btt_create(cfg->backing, block, &options, &pool);
	if (rc)
		return err_set(err, rc, "%s", varve_errmsg());
	*ret_made = cfg->size_bytes != 0;
	rc = varve_btt_close(pool);
	return rc ? err_set(err, rc, "%s", varve_errmsg()) : 0;
}

static void create_unmake(const struct volume_config *cfg)
{
	unlink(cfg->backing);
}

static int clear_ends(struct pmem *pm)
{
	static const uint8_t zeros[PM_ALIGN_BYTES];
	int rc = pm_write(pm, pm->base, zeros, sizeof(zeros));

	if (!rc)
		rc = pm_write(pm, pm->base + pm->len_bytes / sizeof(zeros) * sizeof(zeros) -
					  sizeof(zeros),
			      zeros, sizeof(zeros));
	return rc;
}

/* With its data a file is removed, and a device is no pool any more. */
static int erase(struct home_erase *erase, struct err *err)
{
	const char *path = erase->cfg->backing;
	struct pmem *pm;
	int rc = pool_map(path, !erase->data, false, &pm, err);

	if (rc == -ENOENT && erase->force) {
		err_clear(err);
		return 0;
	}
	if (rc)
		return rc;
	if (erase->data) {
		rc = clear_ends(pm);
		if (!rc && !media_is_block(path) && unlink(path))
			rc = -errno;
	}
	pm_close(pm);
	return rc ? err_sys(err, rc, "removing the pool %s", path) : 0;
}

/* ---- looking ------------------------------------------------------------------------------- */

static int check(const struct volume_config *cfg, struct varve_check *check, struct err *err)
{
	const int rc = varve_btt_check(cfg->backing, 0, check->repair, check);

	if (check->progress)
		check->progress(check, 1, 1);
	return rc < 0 ? err_set(err, rc, "%s", varve_errmsg()) : 0;
}

/* Blocks have no checksums: to read them would prove nothing. */
static uint64_t check_run(struct home *home, uint64_t lba, uint64_t end, bool *ret_read)
{
	(void)home;
	(void)lba;
	*ret_read = false;
	return end;
}

static int dump(const struct volume_config *cfg, const char *what, json_t **ret, struct err *err)
{
	(void)ret;
	return err_set(err, -ENOENT, "there is no %s of the pool %s: varve info and status tell "
				     "what there is",
		       what, cfg->backing);
}

/* ---- the engine ---------------------------------------------------------------------------- */

static int open_engine(struct home *home, bool discard_cache, struct home_cut *ret_cut,
		       struct err *err)
{
	(void)home;
	(void)ret_cut;
	return discard_cache ? err_set(err, -EINVAL, "a pool has no cache to discard") : 0;
}

static int acquire(struct home *home, struct err *err)
{
	(void)err;
	to_btt(home)->acquired = true;
	return 0;
}

static int release(struct home *home, struct err *err)
{
	(void)err;
	to_btt(home)->acquired = false;
	return 0;
}

static void close_engine(struct home *home)
{
	to_btt(home)->acquired = false;
}

static bool acquired(struct home *home)
{
	return to_btt(home)->acquired;
}

static struct wlog *no_log(struct home *home)
{
	(void)home;
	return NULL;
}

static int run(struct home *home, struct dev_req *req)
{
	return dev_sync(to_btt(home)->dev, req);
}

static bool may_sleep(struct home *home)
{
	return !to_btt(home)->pm->direct;
}

static void tick(struct home *home)
{
	(void)home;
}

static void set(struct home *home, const struct volume_config *cfg)
{
	(void)home;
	(void)cfg;
}

static void hold(struct home *home, bool hold)
{
	(void)home;
	(void)hold;
}

static void drain(struct home *home, struct drain *drain)
{
	drains_finish(&to_btt(home)->drains, drain, 0);
}

static int drain_cancel(struct home *home, struct drain *drain)
{
	(void)home;
	(void)drain;
	return -ENOENT; /* it is over already */
}

static void stop(struct home *home)
{
	(void)home;
}

static bool idle(struct home *home)
{
	return !to_btt(home)->busy;
}

static uint64_t extent(struct home *home, uint64_t lba, uint64_t end, bool *ret_data)
{
	(void)home;
	(void)lba;
	*ret_data = true;
	return end;
}

static void facts(struct home *home, struct home_facts *ret)
{
	struct btt_home *b = to_btt(home);
	const uint64_t block = home->vol->cfg.block_bytes;
	struct btt_stat st;

	btt_stat(b->btt, &st);
	ret->uuid = st.uuid;
	ret->block_bytes = (uint32_t)block;
	ret->size_bytes = b->dev->size_bytes / block * block;
	ret->discards = true;
}

/* ---- the size ------------------------------------------------------------------------------ */

static int resize_check(struct home *home, uint64_t *bytes, struct err *err)
{
	(void)bytes;
	return err_set(err, -EOPNOTSUPP,
		       "volume %s: a pool keeps its size; make another, and copy",
		       home->vol->cfg.name);
}

/* ---- status -------------------------------------------------------------------------------- */

static void look(struct home *home, struct home_look *ret)
{
	struct btt_home *b = to_btt(home);
	struct btt_stat st;

	btt_stat(b->btt, &st);
	memset(ret, 0, sizeof(*ret));
	ret->acquired = b->acquired;
	ret->failed = st.failed;
	if (st.damaged)
		ret->reasons[0] = "entries of the table are damaged: their blocks read as errors "
				  "until they are written again";
}

static void tell(struct home *home, const struct home_look *look, json_t *top)
{
	struct btt_home *b = to_btt(home);

	(void)look;
	json_object_set_new(top, "home", pool_json(b->pm, b->btt));
}

const struct home_ops home_btt = {
	.type = "btt",
	.home = "pool",
	.no_log = true,
	.repairs = true,
	.configured = configured,
	.spec = spec,
	.media_open = media_open,
	.media_close = media_close,
	.create_check = create_check,
	.create_make = create_make,
	.create_unmake = create_unmake,
	.erase = erase,
	.check = check,
	.check_run = check_run,
	.dump = dump,
	.open = open_engine,
	.acquire = acquire,
	.release = release,
	.close = close_engine,
	.acquired = acquired,
	.log = no_log,
	.run = run,
	.may_sleep = may_sleep,
	.tick = tick,
	.set = set,
	.hold = hold,
	.drain = drain,
	.drain_cancel = drain_cancel,
	.resize_check = resize_check,
	.stop = stop,
	.idle = idle,
	.extent = extent,
	.facts = facts,
	.look = look,
	.tell = tell,
};
