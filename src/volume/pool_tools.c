/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of blocks at rest: verifying them, and making one of a pool of PMDK's libpmemblk.
 *
 * Importing writes to a file that has a pool only when it is whole: it is made under its name with
 * ".part" behind it, and takes its name when everything is in it and durable. So what bears the
 * name is never half a pool; what is left of an import that was cut short is removed by the next.
 * One that is under way is held, from its making until it has its name, so that no other import
 * removes it and puts half a pool in its place.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btt/pmdk.h"
#include "volume/pool.h"
#include "volume/volume.h"

#define PROGRESS_BLOCKS 4096u

/* ---- checking ------------------------------------------------------------------------------ */

struct checking {
	struct varve_check *user;
	bool repair;
};

static bool check_problem(void *arg, const struct btt_problem *problem)
{
	const struct checking *c = arg;
	char text[ERR_TEXT_LEN];

	if (problem->trouble == BTT_ERROR_SECTOR)
		return false; /* somebody has marked it: no fault of the pool */
	snprintf(text, sizeof(text), "%s at %llu: %s%s",
		 problem->trouble == BTT_BAD_SUPERBLOCK || problem->trouble == BTT_BAD_LIST
			 ? "byte"
			 : "block",
		 (unsigned long long)problem->at, problem->text,
		 !c->repair             ? ""
		 : problem->can_repair ? " (repaired)"
					: " (cannot be repaired)");
	if (c->user && c->user->problem)
		c->user->problem(c->user, text);
	return c->repair;
}

int varve_btt_check(const char *path, uint32_t block_bytes, bool repair, struct varve_check *check)
{
	struct checking c = {.user = check, .repair = repair};
	const struct btt_check_options opt = {
		.block_bytes = block_bytes,
		.repair = repair,
		.problem = check_problem,
		.arg = &c,
	};
	struct btt_check_result result = {0};
	struct err *err = errmsg_begin();
	struct pmem *pm;
	int rc = pool_map(path, !repair, false, &pm, err);

	if (rc)
		return rc;
	rc = btt_check(pm, &opt, &result, err);
	pm_close(pm);
	if (rc)
		return err_prefix(err, "checking the pool %s", path);
	return result.problems > INT_MAX ? INT_MAX : (int)result.problems;
}

/* ---- importing ----------------------------------------------------------------------------- */

struct import {
	struct pmem *from_pm;
	struct pmdk_pool *from;
	struct varve_btt *to;
	uint8_t *buf;
	struct varve_check *user;
	bool made; /* part is ours */
	char part[PATH_MAX];
};

static void lost(const struct import *im, uint64_t block, const char *why)
{
	char text[ERR_TEXT_LEN];

	snprintf(text, sizeof(text), "block %llu cannot be read and is an error block now: %.300s",
		 (unsigned long long)block, why);
	if (im->user && im->user->problem)
		im->user->problem(im->user, text);
}

static int import_block(const struct import *im, uint64_t block)
{
	struct err why = ERR_INIT;
	enum pmdk_state state;
	const int rc = pmdk_read(im->from, block, im->buf, &state, &why);

	if (rc) {
		lost(im, block, err_text(&why, rc));
		return varve_btt_set_error(im->to, block);
	}
	if (state == PMDK_ERROR)
		return varve_btt_set_error(im->to, block);
	/* A new pool's blocks are zeros. */
	return state == PMDK_DATA ? varve_btt_write(im->to, im->buf, block) : 0;
}

static int import_blocks(const struct import *im)
{
	const uint64_t blocks = pmdk_blocks(im->from);

	for (uint64_t block = 0; block < blocks; block++) {
		const int rc = import_block(im, block);

		if (rc)
			return rc;
		if (block % PROGRESS_BLOCKS == 0 && im->user && im->user->progress)
			im->user->progress(im->user, block, blocks);
	}
	if (im->user && im->user->progress)
		im->user->progress(im->user, blocks, blocks);
	return 0;
}

/* Removes what an earlier import has left, unless it is still at work. */
static int import_clear(const struct import *im, struct err *err)
{
	const struct pm_options opt = {.sparse = true};
	struct err why = ERR_INIT;
	struct pmem *pm = NULL;
	int rc = pm_open(im->part, &opt, &pm, &why);

	if (rc == -EBUSY)
		return err_set(err, rc, "%s: another import is making it", im->part);
	/* Else it is nobody's, whatever it is. */
	rc = unlink(im->part) && errno != ENOENT ? -errno : 0;
	pm_close(pm);
	return rc ? err_sys(err, rc, "%s", im->part) : 0;
}

/* A pool with room for as many blocks; of a pool that was never written to, for as many bytes. */
static int import_make(struct import *im, struct err *err)
{
	const uint64_t blocks = pmdk_blocks(im->from);
	const uint32_t block_bytes = pmdk_block_bytes(im->from);
	struct varve_btt_options options = {
		.pool_bytes = blocks ? btt_pool_bytes(blocks, block_bytes)
				     : im->from_pm->len_bytes,
	};

	int rc;

	if (!options.pool_bytes)
		return err_set(err, -EFBIG, "a pool of %llu blocks of %u bytes is too large",
			       (unsigned long long)blocks, block_bytes);
	im->buf = malloc(block_bytes);
	if (!im->buf)
		return err_set(err, -ENOMEM, "no memory");
	rc = import_clear(im, err);
	if (rc)
		return rc;
	rc = varve_btt_create(im->part, block_bytes, &options, &im->to);
	im->made = !rc;
	return rc ? err_set(err, rc, "%s", varve_errmsg()) : 0;
}

/* Gives the finished pool its name, unless it is taken, and makes the name durable. */
static int import_publish(const struct import *im, const char *dest, struct err *err)
{
	char dir[PATH_MAX];
	char *slash;
	int fd, rc = 0;

	if (link(im->part, dest))
		return err_sys(err, -errno, "%s", dest);
	unlink(im->part);
	snprintf(dir, sizeof(dir), "%s", dest);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		rc = err_sys(err, -errno, "%s: its name may not be durable", dest);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int import_open(struct import *im, const char *source, const char *dest, struct err *err)
{
	const struct pm_options opt = {.read_only = true};
	int rc;

	if ((size_t)snprintf(im->part, sizeof(im->part), "%s.part", dest) >= sizeof(im->part))
		return err_set(err, -ENAMETOOLONG, "%.80s...", dest);
	if (!access(dest, F_OK))
		return err_set(err, -EEXIST, "%s exists", dest);
	rc = pm_open(source, &opt, &im->from_pm, err);
	return rc ? rc : pmdk_open(im->from_pm, &im->from, err);
}

int varve_btt_import(const char *source, const char *dest, struct varve_check *check)
{
	struct import *im = calloc(1, sizeof(*im));
	struct err why = ERR_INIT; /* what is called uses the thread's record too */
	int rc, closed;

	errmsg_begin();
	if (!im)
		return errmsg_set(-ENOMEM, "importing %s: no memory", source);
	im->user = check;
	rc = import_open(im, source, dest, &why);
	if (!rc)
		rc = import_make(im, &why);
	if (!rc)
		rc = import_blocks(im);
	if (rc && !why.code)
		err_set(&why, rc, "%s", varve_errmsg());
	/* Every block was durable when its write returned: the close adds nothing but speed. */
	if (!rc)
		rc = import_publish(im, dest, &why);
	if (rc && im->made)
		unlink(im->part);
	closed = varve_btt_close(im->to);
	if (!rc && closed)
		rc = err_set(&why, closed, "%s is whole, but: %s", dest, varve_errmsg());
	pmdk_close(im->from);
	pm_close(im->from_pm);
	free(im->buf);
	free(im);
	errmsg_begin();
	return rc ? errmsg_set(rc, "importing %s: %s", source, err_text(&why, rc)) : 0;
}
