/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The requests of import and export, their options, and how they begin and end.
 *
 * Data structure: a ring of slots, each with a buffer of request_bytes and a list of runs. A slot
 * is taken at the tail, started, and looked at when it is the oldest and done; so whoever uses the
 * ring sees pieces in order, while n_slots of them are in flight. The next run of a slot is
 * submitted by the callback of the one before.
 *
 * Invariants:
 *   1. A slot is the library's from ring_start() until done is set, under the ring's lock.
 *   2. The slots in flight cover disjoint ranges, so that their order does not matter.
 *   3. Nothing is in flight when the volume is flushed for a state, or closed.
 *
 * Signals only set a flag, which is looked at between pieces; a second one ends the process.
 */
#include "transfer.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (UINT64_C(1) << 20)
#define PACE_MS 100
#define MEMORY_BYTES (4096 * MIB)

static atomic_int stopped_by;

static void stop(int sig)
{
	atomic_store_explicit(&stopped_by, sig, memory_order_relaxed);
}

bool transfer_stopped(void)
{
	return atomic_load_explicit(&stopped_by, memory_order_relaxed) != 0;
}

uint64_t transfer_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- the ring -------------------------------------------------------------------------------- */

static void slot_step(struct slot *slot);

static void run_done(struct varve_io *io)
{
	struct slot *slot = io->user;

	if (io->result < 0 && !slot->rc) {
		slot->rc = io->result;
		slot->failed_offset = io->offset;
	}
	slot_step(slot);
}

/* Called by whoever has the slot: its taker at first, then the callback of each run. */
static void slot_step(struct slot *slot)
{
	struct ring *ring = &slot->transfer->ring;
	const struct run *run = &slot->runs[slot->next_run];

	if (slot->rc || slot->next_run == slot->n_runs) {
		pthread_mutex_lock(&ring->lock);
		slot->done = true;
		pthread_cond_signal(&ring->finished);
		pthread_mutex_unlock(&ring->lock);
		return;
	}
	slot->next_run++;
	memset(&slot->io, 0, sizeof(slot->io));
	slot->io.op = run->op;
	slot->io.offset = run->offset;
	slot->io.length = run->bytes;
	slot->io.done = run_done;
	slot->io.user = slot;
	if (run->op == VARVE_READ || run->op == VARVE_WRITE) {
		slot->iov.iov_base = slot->buf + (run->offset - slot->offset);
		slot->iov.iov_len = (size_t)run->bytes;
		slot->io.iov = &slot->iov;
		slot->io.iovcnt = 1;
	}
	varve_submit(slot->transfer->volume, &slot->io);
}

struct slot *ring_take(struct transfer *t, uint64_t offset, uint64_t bytes)
{
	struct ring *ring = &t->ring;
	struct slot *slot;

	if (ring->used == t->n_slots)
		return NULL;
	slot = &ring->slots[(ring->head + ring->used++) % t->n_slots];
	slot->offset = offset;
	slot->bytes = bytes;
	slot->n_runs = slot->next_run = 0;
	slot->hole = slot->done = false;
	slot->rc = 0;
	return slot;
}

void ring_add(struct slot *slot, enum varve_op op, uint64_t offset, uint64_t bytes)
{
	if (slot->n_runs == slot->max_runs) {
		const size_t max = slot->max_runs ? 2 * slot->max_runs : 16;
		struct run *runs = realloc(slot->runs, max * sizeof(*runs));

		if (!runs)
			cli_oom();
		slot->runs = runs;
		slot->max_runs = max;
	}
	slot->runs[slot->n_runs++] = (struct run){.op = op, .offset = offset, .bytes = bytes};
}

void ring_start(struct slot *slot)
{
	slot_step(slot);
}

static const char *advice(int rc)
{
	if (rc == -EBUSY)
		return " (another process has it open for writing: stop that first)";
	if (rc == -EROFS)
		return " (it is open for reading only)";
	return "";
}

struct slot *ring_oldest(struct transfer *t, int *ret_rc)
{
	struct ring *ring = &t->ring;
	struct slot *slot = &ring->slots[ring->head];

	*ret_rc = 0;
	if (!ring->used)
		return NULL;
	pthread_mutex_lock(&ring->lock);
	while (!slot->done)
		pthread_cond_wait(&ring->finished, &ring->lock);
	pthread_mutex_unlock(&ring->lock);
	if (slot->rc && !t->failed) {
		t->failed = true; /* the others in flight fail for the same reason */
		cli_bar_clear(&t->bar);
		cli_error("volume %s: %s at offset %" PRIu64 ": %s%s", t->name,
			  slot->runs[slot->next_run - 1].op == VARVE_READ ? "cannot read"
									  : "cannot write",
			  slot->failed_offset, strerror(-slot->rc), advice(slot->rc));
	}
	*ret_rc = slot->rc;
	return slot;
}

void ring_drop(struct transfer *t)
{
	t->ring.head = (t->ring.head + 1) % t->n_slots;
	t->ring.used--;
}

int ring_drain(struct transfer *t)
{
	int first = 0, rc;

	while (ring_oldest(t, &rc)) {
		ring_drop(t);
		first = first ? first : rc;
	}
	return first;
}

static void ring_init(struct transfer *t)
{
	struct ring *ring = &t->ring;

	pthread_mutex_init(&ring->lock, NULL);
	pthread_cond_init(&ring->finished, NULL);
	ring->slots = calloc(t->n_slots, sizeof(*ring->slots));
	for (unsigned int i = 0; ring->slots && i < t->n_slots; i++) {
		ring->slots[i].transfer = t;
		if (posix_memalign((void **)&ring->slots[i].buf, TRANSFER_BLOCK_BYTES,
				   t->request_bytes))
			cli_oom();
	}
	if (!ring->slots)
		cli_oom();
}

static void ring_free(struct transfer *t)
{
	for (unsigned int i = 0; t->ring.slots && i < t->n_slots; i++) {
		free(t->ring.slots[i].runs);
		free(t->ring.slots[i].buf);
	}
	free(t->ring.slots);
	t->ring.slots = NULL;
}

/* ---- speed and progress ---------------------------------------------------------------------- */

void transfer_pace(struct transfer *t, uint64_t bytes)
{
	uint64_t due_ns;

	t->paced_bytes += bytes;
	if (!t->rate)
		return;
	if (!t->pace_ns)
		t->pace_ns = transfer_now_ns();
	due_ns = t->pace_ns + (uint64_t)((double)t->paced_bytes / (double)t->rate * 1e9);
	while (!transfer_stopped()) {
		const uint64_t now = transfer_now_ns();

		if (now >= due_ns)
			break;
		poll(NULL, 0,
		     due_ns - now > PACE_MS * UINT64_C(1000000)
			     ? PACE_MS
			     : (int)((due_ns - now) / 1000000) + 1);
	}
}

void transfer_show(struct transfer *t, uint64_t done)
{
	if (t->total_bytes)
		cli_bar_show(&t->bar, done, t->total_bytes);
}

/* ---- options --------------------------------------------------------------------------------- */

static int bad(const struct cli_args *args, const char *option, const char *expected)
{
	cli_error("%s: --%s: expected %s, not %s (varve %s --help tells more)", args->command->name,
		  option, expected, cli_value(args, option), args->command->name);
	return CLI_USAGE;
}

/* A number with K, M, G or T behind it, within bounds; dflt when the option was not given. */
static int size_option(const struct cli_args *args, const char *option, const char *expected,
		       uint64_t min, uint64_t max, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *text = cli_value(args, option), *unit;
	unsigned int shift = 0;
	uint64_t value;
	char *end;

	if (!text)
		return CLI_OK;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || text[0] < '0' || text[0] > '9')
		return bad(args, option, expected);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
	}
	if (*end || value > UINT64_MAX >> shift || value << shift < min || value << shift > max)
		return bad(args, option, expected);
	*ret = value << shift;
	return CLI_OK;
}

static int consistent(const struct transfer *t, const struct cli_args *args, bool stream)
{
	const char *why = NULL;

	if (stream && (t->resume || cli_flag(args, "state")))
		why = "a stream cannot be resumed: leave --resume and --state out";
	else if (stream && (t->verify || t->verify_only))
		why = "a stream cannot be read again to compare it: leave --verify out";
	else if (t->verify_only && (t->resume || t->force))
		why = "--verify-only copies nothing: leave --resume and --force out";
	else if (t->resume && t->force)
		why = "--resume goes on and --force begins again: one of them";
	if (!why)
		return CLI_OK;
	cli_error("%s: %s", args->command->name, why);
	return CLI_USAGE;
}

int transfer_options(struct transfer *t, const struct cli_args *args)
{
	const bool import = strcmp(args->command->name, "import") == 0;
	const char *image = args->operands[import ? 0 : 1];
	const bool stream = strcmp(image, "-") == 0;
	uint64_t requests = 8, request_bytes = MIB, flush_bytes = 1024 * MIB, rate = 0;
	int rc;

	*t = (struct transfer){.name = args->operands[import ? 1 : 0], .image = {.fd = -1}};
	t->began_ns = transfer_now_ns();
	t->force = cli_flag(args, "force");
	t->resume = cli_flag(args, "resume");
	t->verify_only = cli_flag(args, "verify-only");
	t->verify = cli_flag(args, "verify") || t->verify_only;
	t->json = cli_flag(args, "json");
	rc = consistent(t, args, stream);
	if (!rc)
		rc = size_option(args, "requests", "a number from 1 to 256", 1, 256, &requests);
	if (!rc)
		rc = size_option(args, "request-size", "a size from 4K to 64M", 4096, 64 * MIB,
				 &request_bytes);
	if (!rc)
		rc = size_option(args, "flush-every", "a size from 64K on", 65536, INT64_MAX,
				 &flush_bytes);
	if (!rc)
		rc = size_option(args, "rate", "a number of bytes such as 100M", 1, INT64_MAX,
				 &rate);
	if (!rc && request_bytes % TRANSFER_BLOCK_BYTES)
		rc = bad(args, "request-size", "a multiple of 4096");
	if (!rc && requests * request_bytes > MEMORY_BYTES)
		rc = bad(args, "request-size", "at most 4G with all requests together");
	t->n_slots = (unsigned int)requests;
	t->request_bytes = (size_t)request_bytes;
	t->flush_bytes = flush_bytes;
	t->rate = rate;
	t->state.what = import ? "import" : "export";
	if (!stream && !t->verify_only && cli_flag(args, "state"))
		t->state.path = cli_format("%s", cli_value(args, "state"));
	cli_bar_init(&t->bar, cli_flag(args, "progress"));
	return rc;
}

/* ---- begin and end --------------------------------------------------------------------------- */

int transfer_open_volume(struct transfer *t, const struct cli_args *args, unsigned int flags)
{
	struct cli_settings settings = {0};
	int rc = cli_settings_from(&settings, args);

	if (!rc && varve_open_with(t->name, flags, settings.list, &t->volume) < 0)
		rc = cli_fail_plain();
	free(settings.list);
	if (rc)
		return rc;
	varve_get_info(t->volume, &t->info);
	ring_init(t);
	return CLI_OK;
}

static bool same_medium(const char *a, const char *b)
{
	struct stat x, y;

	if (!a || stat(a, &x) < 0 || stat(b, &y) < 0)
		return false;
	return (x.st_dev == y.st_dev && x.st_ino == y.st_ino) ||
	       (S_ISBLK(x.st_mode) && S_ISBLK(y.st_mode) && x.st_rdev == y.st_rdev);
}

/* Of a spec, "CACHE,STORE", what is before the comma. */
static bool is_cache_of_spec(const char *spec, const char *path)
{
	char *cache = cli_format("%.*s", (int)strcspn(spec, ","), spec);
	const bool same = strchr(spec, ',') && same_medium(cache, path);

	free(cache);
	return same;
}

int transfer_apart(const struct transfer *t, const char *path)
{
	json_t *definition = NULL, *settings;
	char *text = NULL;
	bool same = is_cache_of_spec(t->name, path);

	if (!same && varve_definition(t->name, &text) == 0) {
		definition = cli_json(text);
		settings = json_object_get(definition, "settings");
		same = same_medium(json_string_value(json_object_get(settings, "cache")), path) ||
		       same_medium(json_string_value(json_object_get(settings, "backing")), path);
	}
	json_decref(definition);
	if (!same)
		return CLI_OK;
	cli_error("%s is what volume %s itself lies on: it cannot be its image", path, t->name);
	return CLI_FAILED;
}

int transfer_begin(struct transfer *t)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	/* Once: a second one ends the process, as a crash would. */
	struct sigaction sa = {.sa_handler = stop, .sa_flags = (int)SA_RESETHAND};

	(void)t;
	for (unsigned int i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
	/* A reader of the stream that leaves is an error of the write. */
	signal(SIGPIPE, SIG_IGN);
	return CLI_OK;
}

int transfer_end(struct transfer *t, int rc)
{
	cli_bar_clear(&t->bar);
	if (t->volume && varve_close(t->volume) < 0 && rc == CLI_OK)
		rc = cli_fail("%s: the copy is durable in the cache, but", t->name);
	t->volume = NULL;
	image_close(&t->image);
	ring_free(t);
	free(t->state.path);
	t->state.path = NULL;
	return rc;
}

int transfer_cut(const struct transfer *t)
{
	if (!t->state.exists)
		cli_error("%s ended before it was whole", t->state.what);
	else
		cli_error(
			"%s ended before it was whole; with --resume it goes on at offset %" PRIu64
			" of %" PRIu64,
			t->state.what, t->state.offset, t->total_bytes);
	return CLI_FAILED;
}

static void report_json(const struct transfer *t, const char *key, double seconds)
{
	json_t *result = json_pack(
		"{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:f}", "transfer", t->state.what, "volume",
		t->name, key, t->image.path, "bytes", (json_int_t)t->total_bytes, "data_bytes",
		(json_int_t)t->data_bytes, "resumed_bytes", (json_int_t)t->resumed_bytes,
		"verified_bytes", (json_int_t)t->verified_bytes, "seconds", seconds);

	if (!result)
		cli_oom();
	cli_print_json(result);
	json_decref(result);
}

void transfer_report(struct transfer *t)
{
	const double seconds = (double)(transfer_now_ns() - t->began_ns) / 1e9;
	const bool import = strcmp(t->state.what, "import") == 0;
	char total[32], data[32];

	cli_bar_clear(&t->bar);
	/* Standard output is the image. */
	if (t->image.stream && !import)
		return;
	if (t->json) {
		report_json(t, "image", seconds);
		return;
	}
	cli_size_text(t->total_bytes, total);
	cli_size_text(t->data_bytes, data);
	if (t->verify_only)
		printf("%s and %s are the same, %s, in %.1f s\n", t->image.path, t->name, total,
		       seconds);
	else
		printf("%s: %s %s, %s, %s of it data%s, in %.1f s\n",
		       import ? t->name : t->image.path, import ? "made of" : "image of",
		       import ? t->image.path : t->name, total, data, t->verify ? ", compared" : "",
		       seconds);
	if (import && t->total_bytes < t->info.size_bytes)
		printf("%s: from offset %" PRIu64 " to its end at %" PRIu64
		       " the volume is as it was\n",
		       t->name, t->total_bytes, t->info.size_bytes);
}
