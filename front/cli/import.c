/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * varve import: copies a raw image into a volume, or makes a pool of Varve's of one that PMDK's
 * libpmemblk made, which is told by its first bytes.
 *
 * Of an image the data is written; what is a hole of the file, or a block of zeros, is made to read
 * as zeros where the volume does not do so already. What the volume says of its extents decides
 * that; and before a copy is begun without --force the range is looked at, so that nothing is
 * overwritten silently: after that look all of it is known to be zeros.
 *
 * What is durable when: a write that was answered is not, yet. Each flush_bytes all requests are
 * waited for, the volume is flushed, and then the state says that everything before is durable.
 * When the command ends with success all of it is.
 */
#include "transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <varve/btt.h>

#include "run.h"

/* ---- pools of PMDK's ------------------------------------------------------------------------- */

struct pool_run {
	struct cli_bar bar;
	json_t *lost; /* with --json */
	unsigned int nlost;
};

static void lost(struct varve_check *check, const char *text)
{
	struct pool_run *run = check->user;

	cli_bar_clear(&run->bar);
	run->nlost++;
	if (run->lost)
		json_array_append_new(run->lost, json_string(text));
	else
		cli_warn("%s", text);
}

static void progress(struct varve_check *check, uint64_t done, uint64_t total)
{
	struct pool_run *run = check->user;

	cli_bar_show(&run->bar, done, total);
}

static int import_pool(const struct cli_args *args)
{
	const char *source = args->operands[0], *dest = args->operands[1];
	struct pool_run run = {0};
	struct varve_check check = {.problem = lost, .progress = progress, .user = &run};
	int rc;

	for (unsigned int i = 0; i < args->n_given; i++) {
		const char *name = args->given[i].option->name;

		if (strcmp(name, "json") == 0 || strcmp(name, "progress") == 0)
			continue;
		cli_error("import: --%s is for raw images, and %s is a pool of PMDK's libpmemblk; "
			  "--raw takes it as an image",
			  name, source);
		return CLI_USAGE;
	}
	cli_bar_init(&run.bar, cli_flag(args, "progress"));
	if (cli_flag(args, "json"))
		run.lost = json_array();
	rc = varve_btt_import(source, dest, &check);
	cli_bar_clear(&run.bar);
	if (rc < 0) {
		cli_fail_plain();
	} else if (run.lost) {
		json_t *result = json_pack("{s:s, s:s, s:O}", "source", source, "pool", dest,
					   "lost", run.lost);

		cli_print_json(result);
		json_decref(result);
	} else {
		printf("%s: made of %s, which is as it was; %u block%s could not be read\n", dest,
		       source, run.nlost, run.nlost == 1 ? "" : "s");
	}
	json_decref(run.lost);
	return rc < 0 || run.nlost ? CLI_FAILED : CLI_OK;
}

static bool is_pool(const char *path)
{
	char magic[8];
	/* Not to hang on a FIFO. */
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const ssize_t n = fd < 0 ? -1 : pread(fd, magic, sizeof(magic), 0);

	if (fd >= 0)
		close(fd);
	return n == (ssize_t)sizeof(magic) && memcmp(magic, "PMEMBLK", sizeof(magic)) == 0;
}

/* ---- what is to be done with a piece of the image -------------------------------------------- */

/* Zeros, only where the volume does not read as such. */
static int plan_zeros(struct slot *slot, uint64_t from, uint64_t to)
{
	struct transfer *t = slot->transfer;

	while (!t->target_zero && from < to) {
		uint64_t bytes;
		bool data;
		int rc = varve_extent(t->volume, from, to - from, &bytes, &data);

		if (rc < 0) {
			cli_bar_clear(&t->bar);
			cli_fail_plain();
			return rc;
		}
		if (data)
			ring_add(slot, VARVE_ZERO, from, bytes);
		from += bytes;
	}
	return 0;
}

static int plan_data(struct slot *slot)
{
	const uint64_t end = slot->offset + slot->bytes;
	uint64_t from = slot->offset;
	int rc = 0;

	while (!rc && from < end) {
		bool zero;
		const uint64_t to = transfer_zero_run(slot, from, &zero);

		if (zero) {
			rc = plan_zeros(slot, from, to);
		} else {
			ring_add(slot, VARVE_WRITE, from, to - from);
			slot->transfer->data_bytes += to - from;
		}
		from = to;
	}
	return rc;
}

/* ---- the copy -------------------------------------------------------------------------------- */

/* Everything before pos is durable in the volume, and then the state says so. */
static int settle(struct transfer *t, uint64_t pos)
{
	int rc = ring_drain(t);

	if (rc)
		return rc;
	rc = varve_flush(t->volume);
	if (rc < 0) {
		cli_bar_clear(&t->bar);
		cli_fail("volume %s: cannot flush at offset %" PRIu64, t->name, pos);
		return rc;
	}
	return state_save(t, pos);
}

/* Where the next piece ends, and whether it has to be read. */
static int next_piece(struct transfer *t, uint64_t pos, uint64_t *ret_end, bool *ret_data)
{
	uint64_t end = t->total_bytes, limit;
	int rc = 0;

	*ret_data = true;
	if (t->image.stream)
		end = t->info.size_bytes;
	else
		rc = image_segment(&t->image, pos, &end, ret_data);
	limit = pos + (*ret_data ? t->request_bytes : TRANSFER_SKIP_BYTES);
	/* Pieces end at blocks of the image, so that those of zeros are seen as such. */
	if (*ret_data)
		limit -= limit % TRANSFER_BLOCK_BYTES;
	*ret_end = end < limit ? end : limit;
	return rc;
}

/* The slot is filled and started. A stream that ends makes it shorter. */
static int copy_piece(struct transfer *t, struct slot *slot, bool data)
{
	size_t got = (size_t)slot->bytes;
	int rc = 0;

	if (data)
		rc = image_read(&t->image, slot->buf, slot->offset, got, &got);
	if (!rc && data) {
		slot->bytes = got;
		rc = plan_data(slot);
	} else if (!rc) {
		rc = plan_zeros(slot, slot->offset, slot->offset + slot->bytes);
	}
	if (rc)
		slot->n_runs = 0;
	ring_start(slot);
	return rc;
}

/* Bytes that are left of a stream when the volume is full. */
static int stream_ended(struct transfer *t)
{
	uint8_t more;
	size_t got;
	int rc = image_read(&t->image, &more, t->info.size_bytes, 1, &got);

	if (rc || !got)
		return rc;
	cli_bar_clear(&t->bar);
	cli_error("the image is larger than volume %s, which has %" PRIu64
		  " bytes and is full of it "
		  "now; varve resize makes it larger",
		  t->name, t->info.size_bytes);
	return -ENOSPC;
}

/* Waits for a free slot. */
static int make_room(struct transfer *t)
{
	int rc = 0;

	while (!rc && t->ring.used == t->n_slots) {
		ring_oldest(t, &rc);
		ring_drop(t);
	}
	return rc;
}

/* One piece; pos is where it ends. */
static int step(struct transfer *t, uint64_t *pos, bool *ret_ended)
{
	struct slot *slot;
	uint64_t end;
	bool data;
	int rc = 0;

	if (*pos - t->state.offset >= t->flush_bytes && !t->image.stream)
		rc = settle(t, *pos);
	if (!rc)
		rc = make_room(t);
	if (!rc)
		rc = next_piece(t, *pos, &end, &data);
	if (rc)
		return rc;
	slot = ring_take(t, *pos, end - *pos);
	rc = copy_piece(t, slot, data);
	if (rc)
		return rc;
	*pos += slot->bytes;
	*ret_ended = *pos < end;
	transfer_pace(t, data ? slot->bytes : 0);
	transfer_show(t, *pos);
	return transfer_stopped() ? -EINTR : 0;
}

static int copy(struct transfer *t)
{
	const uint64_t end = t->image.stream ? t->info.size_bytes : t->total_bytes;
	uint64_t pos = t->state.offset;
	bool ended = false;
	int rc = 0, rest;

	/* From the first byte on there is a state: whoever comes next sees that this was begun. */
	if (!t->state.exists || !t->resume)
		rc = state_save(t, pos);
	while (!rc && !ended && pos < end)
		rc = step(t, &pos, &ended);
	if (!rc && t->image.stream && !ended)
		rc = stream_ended(t);
	if (!rc)
		rc = image_unchanged(&t->image);
	if (!rc || rc == -EINTR) {
		/* Cut by a signal, it goes on exactly here. */
		rest = settle(t, pos);
		rc = rest ? rest : rc;
	}
	rest = ring_drain(t);
	if (!rc && t->image.stream)
		t->total_bytes = pos;
	return rc ? rc : rest;
}

/* ---- what has to be so before ---------------------------------------------------------------- */

static int see_zeros(struct transfer *t, struct slot *slot)
{
	bool zero = true;
	uint64_t from = slot->offset;

	while (!slot->hole && zero && from < slot->offset + slot->bytes) {
		const uint64_t to = transfer_zero_run(slot, from, &zero);

		if (zero)
			from = to;
	}
	transfer_show(t, slot->offset + slot->bytes);
	if (zero)
		return 0;
	cli_bar_clear(&t->bar);
	cli_error("volume %s holds data already, at offset %" PRIu64
		  " first; --force overwrites it",
		  t->name, from);
	return 1;
}

/* Nothing is overwritten that nobody has spoken of. */
static int look(struct transfer *t)
{
	int rc;

	if (t->force || t->resume)
		return CLI_OK;
	rc = transfer_scan(t, 0, t->image.stream ? t->info.size_bytes : t->total_bytes, see_zeros);
	t->target_zero = rc == 0;
	if (rc == -EINTR)
		cli_error("ended before anything was written");
	return rc ? CLI_FAILED : CLI_OK;
}

static int fits(struct transfer *t)
{
	t->total_bytes = t->image.size_bytes;
	if (t->total_bytes <= t->info.size_bytes)
		return CLI_OK;
	cli_error("%s has %" PRIu64 " bytes, and volume %s %" PRIu64 ": make it larger by \"varve "
		  "resize %s %" PRIu64 "\", or create one with --size %" PRIu64,
		  t->image.path, t->total_bytes, t->name, t->info.size_bytes, t->name,
		  (t->total_bytes + TRANSFER_BLOCK_BYTES - 1) / TRANSFER_BLOCK_BYTES *
			  TRANSFER_BLOCK_BYTES,
		  (t->total_bytes + TRANSFER_BLOCK_BYTES - 1) / TRANSFER_BLOCK_BYTES *
			  TRANSFER_BLOCK_BYTES);
	return CLI_FAILED;
}

/* NAME.import-state, in the image's directory. */
static void choose_state(struct transfer *t)
{
	const char *path = t->image.path, *slash = strrchr(path, '/');
	char *name;

	if (t->state.path || t->image.stream || t->verify_only)
		return;
	name = run_name(t->name);
	t->state.path =
		cli_format("%.*s%s.import-state", slash ? (int)(slash - path) + 1 : 0, path, name);
	free(name);
}

static int import_image(struct transfer *t, const struct cli_args *args)
{
	int rc = transfer_options(t, args);

	if (!rc && image_open_source(&t->image, args->operands[0]) < 0)
		rc = CLI_FAILED;
	if (!rc) {
		rc = transfer_open_volume(t, args, t->verify_only ? VARVE_OPEN_READ_ONLY : 0);
		if (rc == CLI_FAILED && !t->image.stream)
			cli_error("%s was taken as a raw image, as it does not begin as a pool of "
				  "PMDK's libpmemblk does",
				  t->image.path);
	}
	if (!rc && !t->image.stream)
		rc = transfer_apart(t, t->image.path);
	if (!rc) {
		choose_state(t);
		rc = fits(t);
	}
	if (!rc)
		rc = state_find(t);
	if (!rc)
		rc = state_load(t);
	if (!rc)
		rc = transfer_begin(t);
	if (rc || t->verify_only)
		return rc;
	rc = look(t);
	if (rc)
		return rc;
	rc = copy(t);
	/* With an image that has changed nothing can go on. */
	if (!rc || rc == -ESTALE)
		state_remove(t);
	if (rc && rc != -ESTALE)
		return transfer_cut(t);
	return rc ? CLI_FAILED : CLI_OK;
}

static int import(const struct cli_args *args)
{
	struct transfer t;
	int rc;

	if (!cli_flag(args, "raw") && strcmp(args->operands[0], "-") != 0 &&
	    is_pool(args->operands[0]))
		return import_pool(args);
	rc = import_image(&t, args);
	if (!rc && t.verify)
		rc = transfer_verify(&t);
	if (!rc)
		transfer_report(&t);
	return transfer_end(&t, rc);
}

static const struct cli_option import_options[] = {
	TRANSFER_OPTIONS,
	{"raw", 0, NULL, "take a pool of PMDK's as a raw image"},
	{0},
};

const struct cli_command import_commands[] = {
	{
		.name = "import",
		.operands = "IMAGE NAME | PMDK-POOL NEW-POOL",
		.min = 2,
		.max = 2,
		.summary = "Copies a raw image into a volume, or a pool of PMDK's.",
		.example = "varve import disk.img vm1 --verify",
		.options = import_options,
		.run = import,
	},
	{0},
};
