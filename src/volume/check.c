/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verifying a volume at rest.
 *
 *	1. the home, by itself: of lsvd superblock, checkpoints, stream, every object with all its
 *	   data; of boost the binding in the log
 *	2. the pair: opening for reading replays the log and compares it with the home
 *	3. the log's data: whatever the log holds is read, which verifies its checksums. What the
 *	   home says beside (home_ops.check_run) is read too: that all extents of an lsvd volume
 *	   can be read proves that map, objects and log together answer
 *
 * A range that cannot be read is halved until the problem has an address. Nothing is written and
 * no right is taken, but by a home that is told to repair, before the rest; a volume that somebody
 * is writing to may show problems that are none.
 *
 * Progress is in thousandths of two halves: step 1 by bytes of objects, step 3 by offset.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "volume/open.h"

#define CHECK_CHUNK (UINT64_C(1) << 20)
#define CHECK_PROBLEMS_MAX 1000 /* reported; more are only counted */
#define CHECK_STEPS 1000        /* of progress, for each half */

struct run {
	struct varve_check home; /* what the home tells */
	struct varve_volume *vol;
	struct varve_check *user;
	char *buf;
	int problems;
};

static void report(struct run *run, const char *text)
{
	run->problems++;
	if (run->user && run->user->problem && run->problems <= CHECK_PROBLEMS_MAX)
		run->user->problem(run->user, text);
}

static void progress(struct run *run, unsigned int half, uint64_t done, uint64_t total)
{
	const uint64_t part = total ? (uint64_t)((double)done / (double)total * CHECK_STEPS)
				    : CHECK_STEPS;

	if (run->user && run->user->progress)
		run->user->progress(run->user, half * CHECK_STEPS + part, 2 * CHECK_STEPS);
}

/* ---- the home ------------------------------------------------------------------------------ */

static void home_problem(struct varve_check *check, const char *text)
{
	report(container_of(check, struct run, home), text);
}

static void home_progress(struct varve_check *check, uint64_t done, uint64_t total)
{
	progress(container_of(check, struct run, home), 0, done, total);
}

static int check_home(struct run *run, const struct volume_config *cfg, struct err *err)
{
	run->home.problem = home_problem;
	run->home.progress = home_progress;
	run->home.repair = run->user && run->user->repair;
	if (run->home.repair && !home_of(cfg)->repairs)
		return err_set(err, -EOPNOTSUPP, "type %s has nothing that could be repaired: "
						 "opening it for writing mends what can be mended",
			       home_of(cfg)->type);
	return home_of(cfg)->check(cfg, &run->home, err);
}

/* ---- what can be read ---------------------------------------------------------------------- */

static void read_range(struct run *run, uint64_t offset, uint64_t length)
{
	const uint64_t half = length / 2 / 4096 * 4096;
	char text[ERR_TEXT_LEN + 64];
	int rc = varve_pread(run->vol, run->buf, length, offset);

	if (!rc)
		return;
	if (half) {
		read_range(run, offset, half);
		read_range(run, offset + half, length - half);
		return;
	}
	snprintf(text, sizeof(text), "bytes %llu to %llu: %s", (unsigned long long)offset,
		 (unsigned long long)(offset + length), varve_errmsg());
	report(run, text);
}

/* The run that the home wants read, or not, at offset; its end. */
static int next_run(struct varve_volume *vol, uint64_t offset, uint64_t size, uint64_t *ret_end,
		    bool *ret_read)
{
	const int rc = volume_enter_settled(vol);

	if (rc)
		return errmsg_set(rc, "volume %s has failed", vol->cfg.name);
	*ret_end = vol->home->ops->check_run(vol->home, offset / DEV_SECTOR_BYTES,
					     size / DEV_SECTOR_BYTES, ret_read) *
		   DEV_SECTOR_BYTES;
	volume_leave(vol);
	return 0;
}

static int read_all(struct run *run)
{
	const uint64_t size = volume_size(run->vol);
	uint64_t at = 0, end = 0;
	bool data;

	while (at < size) {
		int rc = next_run(run->vol, at, size, &end, &data);

		if (rc)
			return rc;
		while (data && at < end) {
			const uint64_t n = end - at < CHECK_CHUNK ? end - at : CHECK_CHUNK;

			read_range(run, at, n);
			at += n;
			progress(run, 1, at, size);
		}
		at = end;
	}
	progress(run, 1, size, size);
	return 0;
}

/* Whether a failure to open is a finding about the media, rather than about this attempt. */
static bool is_finding(int rc)
{
	return rc == -EBADMSG || rc == -ENODEV || rc == -EXDEV || rc == -ESTALE || rc == -EIO;
}

static int check_volume(struct run *run, const struct volume_config *cfg, struct err *err)
{
	int rc = open_volume(cfg, VARVE_OPEN_READ_ONLY, &run->vol, err);

	if (is_finding(rc)) {
		report(run, err_text(err, rc));
		return 0;
	}
	if (rc)
		return rc;
	rc = read_all(run);
	open_close(run->vol, NULL);
	return rc;
}

static int check(const char *name_or_spec, struct run *run, struct volume_config *cfg,
		 struct err *err)
{
	int rc = open_configure(name_or_spec, NULL, cfg, err);

	if (!rc)
		rc = check_home(run, cfg, err);
	return rc ? rc : check_volume(run, cfg, err);
}

int varve_check(const char *name_or_spec, struct varve_check *check_or_null)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	struct run run = {.user = check_or_null, .buf = malloc(CHECK_CHUNK)};
	struct err err = ERR_INIT;
	int rc = cfg && run.buf ? check(name_or_spec, &run, cfg, &err) : -ENOMEM;

	free(cfg);
	free(run.buf);
	errmsg_begin();
	return rc ? errmsg_set(rc, "checking volume %s: %s", name_or_spec, err_text(&err, rc))
		  : run.problems;
}
