/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How far a transfer is: a small JSON file beside the image, so that --resume can go on.
 *
 *	{"transfer": "import", "volume_uuid": ..., "image_size": ..., "image_mtime_ns": ...,
 *	 "image_dev": ..., "image_ino": ..., "offset": ...}
 *
 * Invariants:
 *   1. Everything before "offset" is durable in the target: state_save() is called after the flush
 *      of the volume, or the sync of the file, was answered, and never before.
 *   2. The file is whole: it is written under another name, made durable, and renamed. A cut
 *      leaves the one before, which says less, and is as true.
 *   3. A state of another volume, of another image, or of one that has changed is refused. Of an
 *      export's image the time of its last change is not looked at, as the export changes it.
 */
#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint64_t number(const json_t *object, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

/* What in the state does not fit, or NULL. */
static const char *misfit(const struct transfer *t, const json_t *state)
{
	const bool import = strcmp(t->state.what, "import") == 0;

	if (strcmp(text(state, "transfer"), t->state.what) != 0)
		return "it is of another kind of transfer";
	if (strcmp(text(state, "volume_uuid"), t->info.uuid) != 0)
		return "it belongs to another volume";
	if (number(state, "image_size") != t->total_bytes)
		return "the size is another one now";
	if (number(state, "image_dev") != t->image.dev ||
	    number(state, "image_ino") != t->image.ino)
		return "it belongs to another image";
	if (import && number(state, "image_mtime_ns") != t->image.mtime_ns)
		return "the image has been changed since";
	if (!import && t->image.size_bytes < number(state, "offset"))
		return "the image is shorter than what was written to it";
	if (number(state, "offset") > t->total_bytes)
		return "its offset lies behind the end";
	return NULL;
}

int state_load(struct transfer *t)
{
	struct transfer_state *s = &t->state;
	json_error_t error;
	json_t *state = t->resume ? json_load_file(s->path, 0, &error) : NULL;
	const char *why = state ? misfit(t, state) : t->resume ? error.text : NULL;
	int rc = CLI_OK;

	if (!t->resume)
		return CLI_OK;
	if (why) {
		cli_error("%s: cannot resume with it: %s; without --resume and with --force "
			  "everything is copied from the beginning",
			  s->path, why);
		rc = CLI_FAILED;
	} else {
		s->offset = t->resumed_bytes = number(state, "offset");
	}
	json_decref(state);
	return rc;
}

int state_find(struct transfer *t)
{
	struct transfer_state *s = &t->state;

	if (!s->path)
		return CLI_OK;
	s->exists = access(s->path, F_OK) == 0;
	if (!s->exists && errno != ENOENT) {
		cli_error("%s: %s; --state names another file", s->path, strerror(errno));
		return CLI_FAILED;
	}
	if (!s->exists && t->resume) {
		cli_error("nothing to resume: there is no %s; leave --resume out", s->path);
		return CLI_FAILED;
	}
	if (s->exists && !t->force && !t->resume) {
		cli_error("%s: this %s was cut short: --resume goes on, --force copies everything "
			  "from the beginning",
			  s->path, s->what);
		return CLI_FAILED;
	}
	return CLI_OK;
}

/* The name is durable too when its directory is. */
static int sync_directory(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? cli_format("%.*s", (int)(slash - path) + 1, path) : cli_format(".");
	const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	free(dir);
	return rc;
}

static int write_durably(const char *path, const json_t *state)
{
	char *temp = cli_format("%s.new", path);
	int fd, rc = 0;

	/* What a cut has left under that name, be it a link, is not written through. */
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		rc = -errno;
	else if (json_dumpfd(state, fd, JSON_INDENT(2)) < 0)
		rc = errno ? -errno : -EIO;
	/* Before the rename: else the name could be there, and the contents not. */
	else if (fsync(fd) < 0)
		rc = -errno;
	if (fd >= 0 && close(fd) < 0 && !rc)
		rc = -errno;
	if (!rc && rename(temp, path) < 0)
		rc = -errno;
	if (rc && fd >= 0)
		unlink(temp);
	free(temp);
	return rc ? rc : sync_directory(path);
}

int state_save(struct transfer *t, uint64_t offset)
{
	struct transfer_state *s = &t->state;
	json_t *state;
	int rc;

	if (!s->path) {
		s->offset = offset;
		return 0;
	}
	state = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "transfer", s->what, "volume_uuid",
			  t->info.uuid, "image_size", (json_int_t)t->total_bytes, "image_mtime_ns",
			  (json_int_t)t->image.mtime_ns, "image_dev", (json_int_t)t->image.dev,
			  "image_ino", (json_int_t)t->image.ino, "offset", (json_int_t)offset);
	if (!state)
		cli_oom();
	errno = 0;
	rc = write_durably(s->path, state);
	json_decref(state);
	if (rc) {
		cli_bar_clear(&t->bar);
		cli_error("cannot write %s: %s; --state names another file", s->path,
			  strerror(-rc));
		return rc;
	}
	s->offset = offset;
	s->exists = true;
	return 0;
}

void state_remove(struct transfer *t)
{
	if (t->state.path && t->state.exists && unlink(t->state.path) < 0 && errno != ENOENT)
		cli_warn("cannot remove %s: %s", t->state.path, strerror(errno));
	t->state.exists = false;
}
