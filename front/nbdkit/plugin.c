/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbdkit-varve-plugin: volumes as NBD exports.
 *
 * A front holds no policy: this file turns nbdkit's command line into a call of varve_open_with(),
 * and NBD requests into calls of the public API.
 *
 *   config            volume=NAME (repeatable), set=KEY=VALUE (repeatable), readonly=, ...
 *   get_ready         still one process and one thread: nothing is opened here
 *   after_fork        opens all volumes (their threads would not survive a fork)
 *   open              a connection picks an export by its name
 *   requests          synchronous calls on nbdkit's own threads, any number at once: PARALLEL
 *   cleanup           the last connection is gone: closes the volumes
 *
 * What this front promises to NBD clients, and why it may:
 *   1. can_multi_conn: every connection uses the same open volume, and a flush covers everything
 *      that was acknowledged on it, whichever connection it came from.
 *   2. Native FUA on write, zero and trim: VARVE_FUA has the same meaning.
 *   3. Fast zero: a zero is a record in the log and a change of the map, never data.
 *   4. An extent that is reported as a hole reads as zeros.
 *
 * nbdkit knows few errno values and turns all others into EINVAL, which would read as a mistake of
 * the client: request_error() maps what the API returns to what a client can make sense of.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <varve/varve.h>

#include "export.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* One answer to a block status request carries at most this many extents. */
#define EXTENTS_MAX 1024
/* What NBD allows without negotiation, and what nbdkit takes at most in one request. */
#define REQUEST_MAX (32u << 20)

static struct export_options options = {.control = true};
static const char *settings[EXPORT_MAX + 1];
static unsigned int n_settings;

/* ---- configuration --------------------------------------------------------------------------- */

static int config_bool(const char *value, unsigned int flag)
{
	int r = nbdkit_parse_bool(value);

	if (r < 0)
		return -1;
	options.flags = r ? options.flags | flag : options.flags & ~flag;
	return 0;
}

static int config_volume(const char *value)
{
	switch (export_add(value)) {
	case 0:
		return 0;
	case -EEXIST:
		nbdkit_error("volume=%s is given twice", value);
		return -1;
	default:
		nbdkit_error("too many volumes: at most %d for one server", EXPORT_MAX);
		return -1;
	}
}

static int config_set(const char *value)
{
	if (!strchr(value, '=')) {
		nbdkit_error("set=%s: expected set=KEY=VALUE, see varve.conf(5)", value);
		return -1;
	}
	if (n_settings == EXPORT_MAX) {
		nbdkit_error("too many settings: at most %d", EXPORT_MAX);
		return -1;
	}
	settings[n_settings++] = value;
	return 0;
}

static int varve_nbd_config(const char *key, const char *value)
{
	int r;

	if (strcmp(key, "volume") == 0)
		return config_volume(value);
	if (strcmp(key, "set") == 0)
		return config_set(value);
	if (strcmp(key, "readonly") == 0)
		return config_bool(value, VARVE_OPEN_READ_ONLY);
	if (strcmp(key, "discard-cache") == 0)
		return config_bool(value, VARVE_OPEN_DISCARD_CACHE);
	if (strcmp(key, "hold-destage") == 0)
		return config_bool(value, VARVE_OPEN_HOLD_DESTAGE);
	if (strcmp(key, "control") == 0) {
		r = nbdkit_parse_bool(value);
		options.control = r > 0;
		return r < 0 ? -1 : 0;
	}
	if (strcmp(key, "result") == 0) {
		/* The server may change its directory before it ends. */
		options.result = nbdkit_absolute_path(value);
		return options.result ? 0 : -1;
	}
	nbdkit_error("unknown parameter %s; for a volume's setting write set=%s=%s", key, key,
		     value);
	return -1;
}

static int varve_nbd_config_complete(void)
{
	if (export_count() == 0) {
		nbdkit_error("which volume? Give volume=NAME, once for each export; \"varve list\" "
			     "shows the names");
		return -1;
	}
	options.settings = settings;
	return 0;
}

#define varve_nbd_config_help                                                                      \
	"[volume=]NAME|CACHE,STORE  (required, repeatable) What to export.\n"                      \
	"set=KEY=VALUE              (repeatable) Overrides a setting of the volume.\n"             \
	"readonly=BOOL              Open for reading only; use with -r.\n"                         \
	"discard-cache=BOOL         Open from the store alone; what the cache held is given up.\n" \
	"hold-destage=BOOL          Write nothing to the store for now.\n"                         \
	"control=BOOL               Serve a control socket (default true).\n"                      \
	"result=PATH                File that tells how closing went."

/* ---- life ------------------------------------------------------------------------------------ */

static void varve_nbd_log(void *arg, int level, const char *text)
{
	(void)arg;
	if (level <= 4)
		nbdkit_error("%s", text);
	else
		nbdkit_debug("%s", text);
}

static void varve_nbd_load(void)
{
	varve_set_log(varve_nbd_log, NULL);
}

static int varve_nbd_after_fork(void)
{
	return export_open_all(&options);
}

static void varve_nbd_cleanup(void)
{
	export_close_all(&options);
}

static void varve_nbd_unload(void)
{
	varve_set_log(NULL, NULL);
	free((void *)(uintptr_t)options.result);
}

static void varve_nbd_dump_plugin(void)
{
	printf("varve_version=%s\n", varve_version());
	printf("varve_max_exports=%d\n", EXPORT_MAX);
}

/* ---- connections ----------------------------------------------------------------------------- */

static int varve_nbd_list_exports(int readonly, int is_tls, struct nbdkit_exports *list)
{
	unsigned int i;

	(void)readonly;
	(void)is_tls;
	for (i = 0; i < export_count(); i++) {
		const struct export *e = export_at(i);

		if (nbdkit_add_export(list, e->info.name, e->info.uuid) < 0)
			return -1;
	}
	return 0;
}

static const char *varve_nbd_default_export(int readonly, int is_tls)
{
	(void)readonly;
	(void)is_tls;
	return export_at(0)->info.name;
}

static void *varve_nbd_open(int readonly)
{
	const char *name = nbdkit_export_name();
	struct export *e;

	(void)readonly;
	if (!name)
		return NULL;
	e = export_find(name);
	if (!e)
		nbdkit_error("no export named \"%s\" here; \"nbdinfo --list\" shows the names",
			     name);
	return e;
}

static const char *varve_nbd_export_description(void *handle)
{
	const struct export *e = handle;

	return nbdkit_printf_intern("varve %s volume %s", e->info.type, e->info.uuid);
}

static int64_t varve_nbd_get_size(void *handle)
{
	const struct export *e = handle;
	struct varve_info now;

	/* It may have been resized since the last connection. */
	varve_get_info(e->volume, &now);
	return (int64_t)now.size_bytes;
}

static int varve_nbd_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
				uint32_t *maximum)
{
	const struct export *e = handle;
	uint32_t optimal = e->info.optimal_bytes;

	/* Any alignment is accepted; less than a block is read, changed and written. */
	*minimum = 1;
	/* NBD wants a power of two of at least 512 here. */
	if (optimal < 512 || optimal > REQUEST_MAX || (optimal & (optimal - 1)))
		optimal = 4096;
	*preferred = optimal;
	*maximum = REQUEST_MAX;
	return 0;
}

static int varve_nbd_can_write(void *handle)
{
	const struct export *e = handle;

	return !e->info.read_only;
}

static int varve_nbd_yes(void *handle)
{
	(void)handle;
	return 1;
}

static int varve_nbd_no(void *handle)
{
	(void)handle;
	return 0;
}

static int varve_nbd_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

/* A prefetch is a read whose data is thrown away: it fills the read cache on its way. */
static int varve_nbd_can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_EMULATE;
}

/* ---- requests -------------------------------------------------------------------------------- */

static int client_errno(int error)
{
	switch (error) {
	case EPERM:
	case EROFS:
	case EIO:
	case ENOMEM:
	case ENOSPC:
	case EINVAL:
	case EOVERFLOW:
	case EOPNOTSUPP:
	case ESHUTDOWN:
		return error;
	case EBUSY: /* somebody else writes to this volume */
	case EACCES:
	case EOWNERDEAD:
		return EPERM;
	case EDQUOT:
	case EFBIG:
		return ENOSPC;
	default:
		return EIO;
	}
}

static int request_error(struct export *e, int rc, const char *what, uint64_t offset,
			 uint64_t count)
{
	/* Before anything else calls the library on this thread. */
	if (export_may_report(e))
		nbdkit_error("%s: %s of %llu bytes at %llu: %s", e->info.name, what,
			     (unsigned long long)count, (unsigned long long)offset, varve_errmsg());
	errno = client_errno(-rc);
	return -1;
}

static unsigned int request_flags(uint32_t flags)
{
	return flags & NBDKIT_FLAG_FUA ? VARVE_FUA : 0;
}

static int varve_nbd_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct export *e = handle;
	int rc;

	(void)flags;
	rc = varve_pread(e->volume, buf, count, offset);
	return rc < 0 ? request_error(e, rc, "read", offset, count) : 0;
}

static int varve_nbd_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
			    uint32_t flags)
{
	struct export *e = handle;
	int rc;

	rc = varve_pwrite(e->volume, buf, count, offset, request_flags(flags));
	return rc < 0 ? request_error(e, rc, "write", offset, count) : 0;
}

static int varve_nbd_flush(void *handle, uint32_t flags)
{
	struct export *e = handle;
	int rc;

	(void)flags;
	rc = varve_flush(e->volume);
	return rc < 0 ? request_error(e, rc, "flush", 0, 0) : 0;
}

static int varve_nbd_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct export *e = handle;
	int rc;

	rc = varve_discard(e->volume, offset, count, request_flags(flags));
	return rc < 0 ? request_error(e, rc, "trim", offset, count) : 0;
}

/* With or without MAY_TRIM, and with FAST_ZERO, it is the same: zeroing never writes data. */
static int varve_nbd_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct export *e = handle;
	int rc;

	rc = varve_zero(e->volume, offset, count, request_flags(flags));
	return rc < 0 ? request_error(e, rc, "zero", offset, count) : 0;
}

static int varve_nbd_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
			     struct nbdkit_extents *extents)
{
	struct export *e = handle;
	uint64_t end = offset + count;
	unsigned int n;

	for (n = 0; offset < end && n < EXTENTS_MAX; n++) {
		uint64_t length = 0;
		bool data = true;
		int rc = varve_extent(e->volume, offset, end - offset, &length, &data);

		if (rc < 0)
			return request_error(e, rc, "extents", offset, end - offset);
		if (length == 0)
			break;
		if (nbdkit_add_extent(extents, offset, length,
				      data ? 0 : NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO) < 0)
			return -1;
		offset += length;
		if (flags & NBDKIT_FLAG_REQ_ONE)
			break;
	}
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name = "varve",
	.longname = "nbdkit varve plugin",
	.version = VARVE_VERSION,
	.description = "log-structured volumes on a local cache and an object store",
	.magic_config_key = "volume",
	.config_help = varve_nbd_config_help,
	.errno_is_preserved = 1,
	.load = varve_nbd_load,
	.unload = varve_nbd_unload,
	.dump_plugin = varve_nbd_dump_plugin,
	.config = varve_nbd_config,
	.config_complete = varve_nbd_config_complete,
	.after_fork = varve_nbd_after_fork,
	.cleanup = varve_nbd_cleanup,
	.list_exports = varve_nbd_list_exports,
	.default_export = varve_nbd_default_export,
	.open = varve_nbd_open,
	.export_description = varve_nbd_export_description,
	.get_size = varve_nbd_get_size,
	.block_size = varve_nbd_block_size,
	.can_write = varve_nbd_can_write,
	.can_flush = varve_nbd_yes,
	.is_rotational = varve_nbd_no,
	.can_trim = varve_nbd_yes,
	.can_zero = varve_nbd_yes,
	.can_fast_zero = varve_nbd_yes,
	.can_fua = varve_nbd_can_fua,
	.can_multi_conn = varve_nbd_yes,
	.can_extents = varve_nbd_yes,
	.can_cache = varve_nbd_can_cache,
	.pread = varve_nbd_pread,
	.pwrite = varve_nbd_pwrite,
	.flush = varve_nbd_flush,
	.trim = varve_nbd_trim,
	.zero = varve_nbd_zero,
	.extents = varve_nbd_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
