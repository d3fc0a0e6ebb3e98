/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verifying a volume at rest.
 *
 * Opening already verifies superblocks, checkpoints, the chain of objects, the log, and that they
 * belong together. What is left is the data: everything that the map names is read, which verifies
 * every checksum of log and objects on the way. A range that cannot be read is halved until the
 * problem has an address.
 *
 * The volume is opened for reading and takes no right. A writer may be at work meanwhile: what it
 * moves under our feet may then look like a problem, so a check of an open volume says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "volume/open.h"

#define CHECK_CHUNK (UINT64_C(1) << 20)
#define CHECK_PROBLEMS_MAX 1000 /* reported; more are only counted */

struct run {
	struct varve_volume *vol;
	struct varve_check *check;
	char *buf;
	int problems;
};

static void report(struct run *run, const char *text)
{
	run->problems++;
	if (run->check && run->check->problem && run->problems <= CHECK_PROBLEMS_MAX)
		run->check->problem(run->check, text);
}

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

static int read_all(struct run *run)
{
	const uint64_t size = run->vol->size_bytes;
	uint64_t at = 0, length;
	bool data;

	while (at < size) {
		int rc = varve_extent(run->vol, at, size - at, &length, &data);

		if (rc)
			return rc;
		for (uint64_t end = at + length; data && at < end;) {
			const uint64_t n = end - at < CHECK_CHUNK ? end - at : CHECK_CHUNK;

			read_range(run, at, n);
			at += n;
			if (run->check && run->check->progress)
				run->check->progress(run->check, at, size);
		}
		if (!data)
			at += length;
	}
	if (run->check && run->check->progress)
		run->check->progress(run->check, size, size);
	return 0;
}

/* Whether a failure to open is a finding about the media, rather than about this attempt. */
static bool is_finding(int rc)
{
	return rc == -EBADMSG || rc == -ENODEV || rc == -EXDEV || rc == -ESTALE || rc == -EIO;
}

static int check(const char *name_or_spec, struct run *run, struct volume_config *cfg,
		 struct err *err)
{
	int rc = open_configure(name_or_spec, NULL, cfg, err);

	if (rc)
		return rc;
	rc = open_volume(cfg, VARVE_OPEN_READ_ONLY, &run->vol, err);
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

int varve_check(const char *name_or_spec, struct varve_check *check_or_null)
{
	struct volume_config *cfg = malloc(sizeof(*cfg));
	struct run run = {.check = check_or_null, .buf = malloc(CHECK_CHUNK)};
	struct err err = ERR_INIT;
	int rc = cfg && run.buf ? check(name_or_spec, &run, cfg, &err) : -ENOMEM;

	free(cfg);
	free(run.buf);
	errmsg_begin();
	return rc ? errmsg_set(rc, "checking volume %s: %s", name_or_spec, err_text(&err, rc))
		  : run.problems;
}
