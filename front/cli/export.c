/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve export: copies a volume into a raw image.
 *
 * The volume is opened for reading. What it says is a hole is not read, and what reads as zeros is
 * not written: a file is made of holes first, and a block device is punched there. A stream gets
 * all of it.
 *
 * What is durable when: bytes that were written are not, yet. Each flush_bytes the image is synced,
 * and then the state says that everything before is durable. When the command ends with success all
 * of it is, and the file's name too.
 */
#include "transfer.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- the copy -------------------------------------------------------------------------------- */

static int settle(struct transfer *t, uint64_t pos)
{
	int rc = image_sync(&t->image);

	return rc ? rc : state_save(t, pos);
}

static int put(struct transfer *t, struct slot *slot, uint64_t from, uint64_t to, bool zero)
{
	if (zero && !t->image.stream)
		return image_zero(&t->image, from, to - from);
	t->data_bytes += zero ? 0 : to - from;
	return image_write(&t->image, slot->buf + (from - slot->offset), from, (size_t)(to - from));
}

/* Pieces come in order, so everything before the end of this one has been written. */
static int copy_piece(struct transfer *t, struct slot *slot)
{
	const uint64_t end = slot->offset + slot->bytes;
	uint64_t from = slot->offset;
	int rc = 0;

	if (slot->hole)
		rc = image_zero(&t->image, from, slot->bytes);
	while (!slot->hole && !rc && from < end) {
		bool zero;
		const uint64_t to = transfer_zero_run(slot, from, &zero);

		rc = put(t, slot, from, to, zero);
		from = to;
	}
	if (rc)
		return rc;
	t->copied_bytes = end;
	transfer_show(t, end);
	if (end - t->state.offset >= t->flush_bytes && !t->image.stream)
		rc = settle(t, end);
	return rc;
}

static int copy(struct transfer *t)
{
	int rc = image_prepare(&t->image, t->state.offset, t->total_bytes), rest;

	t->copied_bytes = t->state.offset;
	/* From the first byte on there is a state: whoever comes next sees that this was begun. */
	if (!rc)
		rc = settle(t, t->state.offset);
	if (!rc)
		rc = transfer_scan(t, t->state.offset, t->total_bytes, copy_piece);
	if (!rc || rc == -EINTR) {
		/* Cut by a signal, it goes on exactly here. */
		rest = settle(t, t->copied_bytes);
		rc = rest ? rest : rc;
	}
	return rc;
}

/* ---- what has to be so before ---------------------------------------------------------------- */

static int open_image(struct transfer *t, const char *path)
{
	if (t->verify_only)
		return image_open_source(&t->image, path);
	return image_open_target(&t->image, path, t->force, t->resume);
}

static int verify_size(const struct transfer *t)
{
	if (t->image.size_bytes == t->total_bytes ||
	    (t->image.device && t->image.size_bytes > t->total_bytes))
		return CLI_OK;
	cli_error("%s has %" PRIu64 " bytes, and volume %s %" PRIu64, t->image.path,
		  t->image.size_bytes, t->name, t->total_bytes);
	return CLI_FAILED;
}

static int export_image(struct transfer *t, const struct cli_args *args)
{
	const char *path = args->operands[1];
	int rc = transfer_options(t, args);

	t->image.path = path;
	t->image.stream = strcmp(path, "-") == 0;
	if (!rc)
		rc = transfer_open_volume(t, args, VARVE_OPEN_READ_ONLY);
	if (!rc)
		rc = transfer_apart(t, path);
	if (!t->state.path && !t->image.stream && !t->verify_only)
		t->state.path = cli_format("%s.export-state", path);
	t->total_bytes = t->info.size_bytes;
	if (!rc)
		rc = state_find(t);
	if (!rc && open_image(t, path) < 0)
		rc = CLI_FAILED;
	if (!rc)
		rc = t->verify_only ? verify_size(t) : state_load(t);
	if (!rc)
		rc = transfer_begin(t);
	if (rc || t->verify_only)
		return rc;
	if (copy(t) != 0)
		return transfer_cut(t);
	state_remove(t);
	return CLI_OK;
}

static int export(const struct cli_args *args)
{
	struct transfer t;
	int rc = export_image(&t, args);

	if (!rc && t.verify)
		rc = transfer_verify(&t);
	if (!rc)
		transfer_report(&t);
	return transfer_end(&t, rc);
}

static const struct cli_option export_options[] = {
	TRANSFER_OPTIONS,
	{0},
};

const struct cli_command export_commands[] = {
	{
		.name = "export",
		.operands = "NAME IMAGE",
		.min = 2,
		.max = 2,
		.summary = "Copies a volume into a raw image.",
		.example = "varve export vm1 disk.img --verify",
		.options = export_options,
		.run = export,
	},
	{0},
};
