/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The adapter of lsvd: a volume whose home is a stream of objects in a store.
 *
 * Engine calls go straight to lsvd.h. What concerns media at rest is below: creating writes the
 * superblock object, erasing deletes all objects (the superblock last, so that a deletion that was
 * interrupted can be repeated), checking walks the store.
 *
 * Memory stores are made on the way: nothing can be lost in one, so a volume in a memory store that
 * does not exist is created when it is opened (tests, benchmarks, a first look).
 *
 * Locks: the volume's, as home.h says; home->lsvd changes only in open and close, when nobody else
 * is in the engine.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_check.h"
#include "runtime/clock.h"
#include "volume/home_lsvd.h"
#include "volume/json.h"
#include "volume/media.h"
#include "volume/volume.h"

#define MEM_VOLUME_BYTES (UINT64_C(1) << 30)

struct lsvd_home {
	struct home home;
	struct lsvd *lsvd; /* NULL: not open */
	char object[STORE_KEY_MAX + 1];
};

static struct lsvd_home *to_lsvd(struct home *home)
{
	return container_of(home, struct lsvd_home, home);
}

static struct lsvd *engine(struct home *home)
{
	return to_lsvd(home)->lsvd;
}

/* ---- configuration and media --------------------------------------------------------------- */

static int configured(const struct volume_config *cfg, struct err *err)
{
	return cfg->store[0] ? 0 : err_set(err, -EINVAL, "volume %s: no store is set", cfg->name);
}

static int spec(const char *text, struct volume_config *cfg, struct err *err)
{
	const char *base = strrchr(text, '/');

	if (!base)
		base = strchr(text, ':');
	snprintf(cfg->name, sizeof(cfg->name), "%s", base ? base + 1 : text);
	return settings_set(cfg, settings_find("store", 5), text, err);
}

static int create_object(struct store *store, const char *object, const struct volume_config *cfg,
			 struct err *err)
{
	const struct lsvd_create_options opt = {
		.size_bytes = cfg->size_bytes ? cfg->size_bytes : MEM_VOLUME_BYTES,
		.block_bytes = (uint32_t)cfg->block_bytes,
		.wall_ns = clock_wall_ns(),
	};

	return lsvd_create(store, object, &opt, err);
}

static int create_in_mem(const struct lsvd_home *l, struct store *store, struct err *err)
{
	const struct volume_config *cfg = &l->home.vol->cfg;
	struct lsvd_info info;
	int rc;

	if (!media_is_mem(cfg->store))
		return 0;
	rc = lsvd_probe(store, l->object, &info, NULL);
	if (rc != -ENOENT)
		return 0;
	rc = create_object(store, l->object, cfg, err);
	/* Another opener may have been faster. */
	return rc == -EEXIST ? 0 : rc;
}

static int media_open(struct varve_volume *vol, struct err *err)
{
	struct lsvd_home *l = calloc(1, sizeof(*l));
	struct store *store = NULL;
	int rc;

	if (!l)
		return err_set(err, -ENOMEM, "volume %s: no memory", vol->cfg.name);
	l->home.ops = &home_lsvd;
	l->home.vol = vol;
	rc = media_store_open(vol->cfg.store, &store, l->object, err);
	if (!rc)
		rc = create_in_mem(l, store, err);
	if (!rc) {
		rc = sluice_store_new(store, &vol->h.store);
		if (rc)
			err_set(err, rc, "volume %s: no memory", vol->cfg.name);
	}
	if (rc) {
		if (store)
			store_close(store);
		free(l);
		return rc;
	}
	vol->home = &l->home;
	return 0;
}

static void media_close(struct home *home)
{
	store_close(&home->vol->h.store->store);
	free(to_lsvd(home));
}

/* ---- creating ------------------------------------------------------------------------------ */

static int create_check(struct volume_config *cfg, struct err *err)
{
	if (!cfg->size_bytes || !cfg->store[0] || media_is_none(cfg->cache))
		return err_set(err, -EINVAL, "volume %s needs size, store and cache", cfg->name);
	if (cfg->size_bytes % cfg->block_bytes)
		return err_set(err, -EINVAL, "size is not a multiple of block_size (%llu)",
			       (unsigned long long)cfg->block_bytes);
	return 0;
}

static int create_make(struct volume_config *cfg, bool *ret_made, struct err *err)
{
	char object[STORE_KEY_MAX + 1];
	struct store *store;
	int rc = media_store_open(cfg->store, &store, object, err);

	if (rc)
		return rc;
	rc = create_object(store, object, cfg, err);
	*ret_made = !rc;
	store_close(store);
	return rc;
}

static void create_unmake(const struct volume_config *cfg)
{
	char object[STORE_KEY_MAX + 1];
	struct store *store;

	if (media_store_open(cfg->store, &store, object, NULL))
		return;
	home_lsvd_erase_objects(store, object, NULL);
	store_close(store);
}

/* ---- checking ------------------------------------------------------------------------------ */

struct check_run {
	struct lsvd_check check;
	struct varve_check *user;
};

static void check_problem(struct lsvd_check *check, const struct lsvd_problem *problem)
{
	struct varve_check *user = container_of(check, struct check_run, check)->user;
	char text[ERR_TEXT_LEN + STORE_KEY_MAX + 64];
	int n = snprintf(text, sizeof(text), "%s: %s", problem->object, problem->text);

	if (problem->sectors && n > 0 && (size_t)n < sizeof(text))
		snprintf(text + n, sizeof(text) - (size_t)n, " (bytes %llu to %llu of the volume)",
			 (unsigned long long)problem->lba * DEV_SECTOR_BYTES,
			 (unsigned long long)(problem->lba + problem->sectors) *
				 DEV_SECTOR_BYTES);
	user->problem(user, text);
}

static void check_progress(struct lsvd_check *check, uint64_t done, uint64_t total)
{
	struct varve_check *user = container_of(check, struct check_run, check)->user;

	user->progress(user, done, total);
}

static int check(const struct volume_config *cfg, struct varve_check *user, struct err *err)
{
	struct check_run run = {
		.check = {.problem = check_problem, .progress = check_progress},
		.user = user,
	};
	char object[STORE_KEY_MAX + 1];
	struct store *store;
	int rc = media_store_open(cfg->store, &store, object, err);

	if (rc)
		return rc;
	rc = lsvd_check(store, object, &run.check, err);
	store_close(store);
	return rc;
}

/* ---- the engine ---------------------------------------------------------------------------- */

static int open_engine(struct home *home, bool discard_cache, struct home_cut *ret_cut,
		       struct err *err)
{
	struct lsvd_home *l = to_lsvd(home);
	struct varve_volume *vol = home->vol;
	struct dev *cache = vol->h.dev ? &vol->h.dev->dev : NULL;
	struct lsvd_options opt = vol->cfg.lsvd;
	struct lsvd_cut cut;
	int rc;

	opt.log = vol->cfg.log;
	opt.batch_age_ns = vol->cfg.batch_age_ns;
	opt.retry_min_ns = vol->cfg.retry_min_ns;
	opt.retry_max_ns = vol->cfg.retry_max_ns;
	opt.home_timeout_ns = vol->cfg.home_timeout_ns;
	opt.hold_destage = vol->cfg.hold;
	rc = lsvd_open(&vol->h.host, &vol->h.store->store, l->object, cache, discard_cache, &opt,
		       &l->lsvd, &cut, err);
	if (!rc)
		*ret_cut = (struct home_cut){cut.lsn, cut.wall_ns, cut.lost_bytes, false};
	return rc;
}

static int acquire(struct home *home, struct err *err)
{
	return lsvd_acquire(engine(home), err);
}

static int release(struct home *home, struct err *err)
{
	return lsvd_release(engine(home), err);
}

static void close_engine(struct home *home)
{
	struct lsvd_home *l = to_lsvd(home);

	lsvd_close(l->lsvd);
	l->lsvd = NULL;
}

static bool acquired(struct home *home)
{
	return lsvd_acquired(engine(home));
}

static struct wlog *log_of(struct home *home)
{
	return lsvd_log(engine(home));
}

static void read_through(struct home *home, struct dev_req *req)
{
	lsvd_read(engine(home), req);
}

static void tick(struct home *home)
{
	lsvd_tick(engine(home));
}

static void hold(struct home *home, bool hold)
{
	lsvd_set_hold(engine(home), hold);
}

static void set(struct home *home, const struct volume_config *cfg)
{
	hold(home, cfg->hold);
}

static void clear_stat(struct home *home)
{
	struct wlog *log = lsvd_log(engine(home));

	if (log)
		wlog_clear_stat(log);
}

static void drain(struct home *home, struct drain *drain)
{
	lsvd_drain(engine(home), drain);
}

static int drain_cancel(struct home *home, struct drain *drain)
{
	return lsvd_drain_cancel(engine(home), drain);
}

static void gc(struct home *home, struct drain *drain)
{
	lsvd_gc(engine(home), drain);
}

static void checkpoint(struct home *home, struct drain *drain)
{
	lsvd_checkpoint(engine(home), drain);
}

static void stop(struct home *home)
{
	lsvd_stop(engine(home));
}

static bool idle(struct home *home)
{
	return lsvd_idle(engine(home));
}

static uint64_t extent(struct home *home, uint64_t lba, uint64_t end, bool *ret_data)
{
	return lsvd_extent(engine(home), lba, end, ret_data);
}

static void resize(struct home *home, uint64_t bytes, struct drain *drain)
{
	lsvd_resize(engine(home), bytes, drain);
}

static int resize_check(struct home *home, uint64_t *bytes, struct err *err)
{
	(void)home;
	if (!*bytes)
		return err_set(err, -EINVAL, "which size? Its store has none of its own");
	if (*bytes / DEV_SECTOR_BYTES > LSVD_SECTORS_MAX)
		return err_set(err, -EINVAL, "%llu bytes are more than a volume can have",
			       (unsigned long long)*bytes);
	return 0;
}

/* The store's data has been verified by check(): what is mapped shows that all answer together. */
static uint64_t check_run(struct home *home, uint64_t lba, uint64_t end, bool *ret_read)
{
	return lsvd_extent(engine(home), lba, end, ret_read);
}

static void facts(struct home *home, struct home_facts *ret)
{
	struct lsvd_status st;

	/* The superblock was read by lsvd_open(): status repeats it. */
	lsvd_status(engine(home), &st);
	ret->uuid = st.info.uuid;
	ret->size_bytes = st.sectors * DEV_SECTOR_BYTES;
	ret->block_bytes = st.info.block_bytes;
	ret->discards = true;
}

/* ---- status -------------------------------------------------------------------------------- */

static_assert(sizeof(struct lsvd_status) <= sizeof(((struct home_look *)NULL)->own), "look");

static void look(struct home *home, struct home_look *ret)
{
	struct lsvd_status *st = (struct lsvd_status *)(void *)ret->own.bytes;

	lsvd_status(engine(home), st);
	ret->log = st->log;
	ret->has_log = lsvd_log(engine(home));
	ret->acquired = st->acquired;
	ret->hold = st->hold;
	ret->home_error = st->home_error;
	ret->failed = st->failed;
	ret->memory_bytes = st->map_bytes + st->header_cache_bytes;
}

static json_t *home_json(const struct lsvd_status *st)
{
	json_t *home = json_object();

	json_put(home, "objects", st->objects);
	json_put(home, "total_bytes", st->total_sectors * DEV_SECTOR_BYTES);
	json_put(home, "live_bytes", st->live_sectors * DEV_SECTOR_BYTES);
	json_put(home, "map_extents", st->map_extents);
	json_put(home, "map_bytes", st->map_bytes);
	json_put(home, "map_limit_bytes", st->map_limit_bytes);
	json_object_set_new(home, "map_full", json_boolean(st->map_full));
	json_put(home, "header_cache_bytes", st->header_cache_bytes);
	json_put(home, "next_seq", st->next_seq);
	json_put(home, "durable_seq", st->durable_seq);
	json_put(home, "durable_lsn", st->durable_lsn);
	json_put(home, "puts_in_flight", st->puts_in_flight);
	json_put(home, "put_retries", st->put_retries);
	json_put(home, "put_bytes", st->put_bytes);
	json_put(home, "checkpoints", st->checkpoints);
	json_put(home, "checkpoint_bytes", st->checkpoint_bytes);
	json_put(home, "checkpoint_pages", st->checkpoint_pages);
	json_put(home, "checkpoint_next_bytes", st->checkpoint_next_bytes);
	json_object_set_new(home, "gc_running", json_boolean(st->gc_running));
	json_put(home, "gc_rounds", st->gc_rounds);
	json_put(home, "gc_moved_bytes", st->gc_moved_bytes);
	json_put(home, "gc_filled_bytes", st->gc_filled_bytes);
	json_put(home, "gc_failures", st->gc_failures);
	json_put(home, "gc_deleted", st->gc_deleted);
	json_put(home, "gc_deleted_bytes", st->gc_deleted_bytes);
	json_put(home, "gc_waiting", st->gc_waiting);
	json_put(home, "gc_waiting_bytes", st->gc_waiting_bytes);
	json_put(home, "batched_bytes", st->batched_bytes);
	json_put(home, "coalesced_bytes", st->coalesced_bytes);
	json_put(home, "oldest_undestaged_ns", st->oldest_undestaged_ns);
	json_put(home, "attach_epoch", st->info.attach_epoch);
	json_put(home, "committed_epoch", st->info.committed_epoch);
	json_put(home, "created_wall_ns", st->info.created_wall_ns);
	json_put(home, "changed_wall_ns", st->info.changed_wall_ns);
	json_object_set_new(home, "clean", json_boolean(st->info.clean));
	json_object_set_new(home, "error", st->home_error
						   ? json_string(strerror(-st->home_error))
						   : json_null());
	return home;
}

static json_t *store_json(struct varve_volume *vol)
{
	struct store_counters c = {0};
	json_t *store = json_object();

	vol->h.store->store.ops->counters(&vol->h.store->store, &c);
	json_object_set_new(store, "place", json_string(vol->cfg.store));
	json_put(store, "puts", c.puts);
	json_put(store, "put_bytes", c.put_bytes);
	json_put(store, "gets", c.gets);
	json_put(store, "get_bytes", c.get_bytes);
	json_put(store, "lists", c.lists);
	json_put(store, "deletes", c.deletes);
	json_put(store, "errors", c.errors);
	return store;
}

static void tell(struct home *home, const struct home_look *look, json_t *top)
{
	if (look)
		json_object_set_new(top, "home",
				    home_json((const void *)look->own.bytes));
	json_object_set_new(top, "store", store_json(home->vol));
}

static const char promise[] =
	"what the store holds is a prefix of the acknowledged writes, in order";

const struct home_ops home_lsvd = {
	.type = "lsvd",
	.home = "store",
	.promise = promise,
	.configured = configured,
	.spec = spec,
	.media_open = media_open,
	.media_close = media_close,
	.create_check = create_check,
	.create_make = create_make,
	.create_unmake = create_unmake,
	.erase = home_lsvd_erase,
	.check = check,
	.check_run = check_run,
	.dump = home_lsvd_dump,
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
	.resize = resize,
	.resize_check = resize_check,
	.checkpoint = checkpoint,
	.gc = gc,
	.stop = stop,
	.idle = idle,
	.extent = extent,
	.facts = facts,
	.look = look,
	.tell = tell,
};
