/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool as a block device, by name: what "btt:PATH" is where a file or block device may be named.
 * Sectors of the log are then written whole in any case, and are durable when they are written.
 */
#include <errno.h>
#include <unistd.h>

#include "btt/btt_dev.h"
#include "volume/media.h"
#include "volume/pool.h"

#define BLOCK_BYTES 4096u /* of pools that are made for it: the log writes nothing less */

static int make(const char *path, uint64_t bytes, struct err *err)
{
	const struct varve_btt_options options = {
		.pool_bytes = btt_pool_bytes(bytes / BLOCK_BYTES, BLOCK_BYTES),
	};
	struct varve_btt *pool;
	int rc = varve_btt_create(path, BLOCK_BYTES, &options, &pool);

	if (!rc)
		rc = varve_btt_close(pool);
	return rc ? err_set(err, rc, "%s", varve_errmsg()) : 0;
}

static int open_made(const char *path, bool read_only, struct dev **ret, struct err *err)
{
	const struct btt_options opt = {.parallel = &pool_parallel};
	struct btt *btt = NULL;
	struct pmem *pm;
	int rc = pool_map(path, read_only, false, &pm, err);

	if (rc)
		return rc;
	rc = btt_open(pm, &opt, &btt, err);
	if (!rc)
		rc = btt_dev_open(btt, ret, err);
	if (rc) {
		btt_abandon(btt);
		pm_close(pm);
		return err_prefix(err, "pool %s", path);
	}
	btt_dev_own(*ret, pm);
	return 0;
}

int pool_dev_open(const char *path, unsigned int flags, uint64_t bytes, struct dev **ret,
		  bool *ret_created, struct err *err)
{
	int rc;

	if ((flags & MEDIA_CREATE) && access(path, F_OK)) {
		rc = make(path, bytes, err);
		if (rc)
			return rc;
		if (ret_created)
			*ret_created = true;
	}
	return open_made(path, flags & MEDIA_READ_ONLY, ret, err);
}
