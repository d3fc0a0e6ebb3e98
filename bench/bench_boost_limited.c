/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing for long to a slow backing device: what the cache is worth once it is full.
 *
 * The backing device is a disk that does 300 random requests a second. It takes requests in the
 * order in which they come, one at a time, and charges
 *
 *	a transfer of 150 MB/s for the bytes, and before it
 *	nothing, if the request begins where the last one ended;
 *	the time in which the gap passes under the head, if it lies ahead and that is less than a
 *	seek: what a disk does, and why sorting is worth while. Not in the rows "each gap a seek",
 *	in which nothing helps but merging and what need not be written any more;
 *	a seek otherwise, and for a flush.
 *
 * Blocks of 4 KiB are written at random, 32 at once, to four times as much space as the cache has
 * and eight times as much as it can hold, until everything is home. The peer is the same disk
 * without a cache: the same blocks, written through in the order of their arrival, no flush. In the
 * row "hot" nine writes of ten go to a tenth of the space.
 *
 * Time is simulated, and so exact: only the disk takes any, since the processor and the cache are
 * some thousand times faster. The engine is the one that users run, driven by one thread; the
 * medians of five are of five sequences of blocks. At 300 requests a second, measuring one of them
 * by the clock on the wall would take hours.
 */
#include <assert.h>

#include "base/host.h"
#include "base/rng.h"
#include "bench.h"
#include "boost/boost.h"
#include "dev/mem.h"

#define BLOCK 4096u
#define MIB (UINT64_C(1) << 20)
#define CACHE (256 * MIB)
#define SPACE (1024 * MIB)
#define WRITES (2 * SPACE / BLOCK) /* eight times the cache */
#define DEPTH 32
#define BATCH 64 /* segments of 1 MiB: as much as fits, for a disk. The default has half of it */
#define NS_PER_S UINT64_C(1000000000)
#define SEEK_NS (NS_PER_S / 300)
#define BYTES_PER_S UINT64_C(150000000)

/* ---- the disk ------------------------------------------------------------------------------ */

/* One request is under way, queue.next, until due_ns; it happens on the memory device then. */
struct disk {
	struct dev dev;
	struct dev *memory;
	uint64_t *now_ns;
	bool near;
	struct list_head queue;
	uint64_t head_bytes, due_ns;
	uint64_t requests, seeks;
};

static struct disk *to_disk(struct dev *dev)
{
	return container_of(dev, struct disk, dev);
}

static uint64_t transfer_ns(uint64_t bytes)
{
	return bytes * NS_PER_S / BYTES_PER_S;
}

static uint64_t disk_charge(struct disk *disk, const struct dev_req *req)
{
	const uint64_t gap = req->off_bytes - disk->head_bytes;
	uint64_t ns = SEEK_NS;

	disk->requests++;
	if (req->op == DEV_FLUSH)
		return ns;
	if (!gap)
		ns = 0;
	else if (disk->near && req->off_bytes > disk->head_bytes && transfer_ns(gap) < ns)
		ns = transfer_ns(gap);
	else
		disk->seeks++;
	disk->head_bytes = req->off_bytes + req->len_bytes;
	return ns + transfer_ns(req->len_bytes);
}

static void disk_begin(struct disk *disk)
{
	if (!list_empty(&disk->queue))
		disk->due_ns =
			*disk->now_ns +
			disk_charge(disk, list_first_entry(&disk->queue, struct dev_req, link));
	else
		disk->due_ns = UINT64_MAX;
}

static void disk_submit(struct dev *dev, struct dev_req *req)
{
	struct disk *disk = to_disk(dev);
	const bool idle = list_empty(&disk->queue);

	list_add_tail(&req->link, &disk->queue);
	if (idle)
		disk_begin(disk);
}

static void disk_kick(struct dev *dev)
{
	(void)dev;
}

static bool disk_finish_one(struct disk *disk)
{
	struct list_head *link = list_pop(&disk->queue);

	if (!link)
		return false;
	disk_begin(disk);
	dev_submit(disk->memory, list_entry(link, struct dev_req, link));
	while (dev_poll(disk->memory, false))
		;
	return true;
}

/* Whoever waits makes the time pass: nothing else can happen before. */
static bool disk_help(struct dev *dev)
{
	struct disk *disk = to_disk(dev);

	if (!list_empty(&disk->queue) && *disk->now_ns < disk->due_ns)
		*disk->now_ns = disk->due_ns;
	return disk_finish_one(disk);
}

static int disk_poll(struct dev *dev, bool wait)
{
	struct disk *disk = to_disk(dev);

	if (wait)
		return disk_help(dev);
	return disk->due_ns <= *disk->now_ns && disk_finish_one(disk);
}

static void disk_counters(struct dev *dev, struct dev_counters *ret)
{
	struct disk *disk = to_disk(dev);

	disk->memory->ops->counters(disk->memory, ret);
}

static void disk_close(struct dev *dev)
{
	dev_close(to_disk(dev)->memory);
}

static const struct dev_ops disk_ops = {
	.name = "disk",
	.submit = disk_submit,
	.kick = disk_kick,
	.help = disk_help,
	.poll = disk_poll,
	.counters = disk_counters,
	.close = disk_close,
};

static struct dev *memory_dev(uint64_t bytes)
{
	const struct dev_mem_options opt = {.size_bytes = bytes, .block_bytes = BLOCK};
	struct err err = {0};
	struct dev *dev;

	if (dev_mem_open(&opt, &dev, &err))
		bench_die(err.text, ENOMEM);
	return dev;
}

static void disk_init(struct disk *disk, bool near, uint64_t *now_ns)
{
	*disk = (struct disk){
		.memory = memory_dev(SPACE), .now_ns = now_ns, .near = near, .due_ns = UINT64_MAX};
	disk->dev = *disk->memory;
	disk->dev.ops = &disk_ops;
	list_init(&disk->queue);
}

/* ---- the host: one thread, and a clock that goes on when nothing else does ------------------- */

struct bench_host {
	struct host host;
	struct list_head works;
	struct rng rng;
	struct boost *boost;
	struct dev *cache;
	struct disk disk;
	uint64_t now_ns, wake_ns;
};

static struct bench_host *to_bench(struct host *host)
{
	return container_of(host, struct bench_host, host);
}

static void on_enter(struct host *host)
{
	(void)host;
}

static void fill(struct bench_host *bh, struct dev_req *req)
{
	wlog_fill(boost_log(bh->boost), req);
	wlog_publish(boost_log(bh->boost), req);
}

static void on_leave(struct host *host)
{
	struct list_head *link;

	while ((link = list_pop(&host->fills)))
		fill(to_bench(host), list_entry(link, struct dev_req, link));
	while ((link = list_pop(&host->ready))) {
		struct dev_req *req = list_entry(link, struct dev_req, link);

		req->done(req);
	}
}

static uint64_t on_now(struct host *host)
{
	return to_bench(host)->now_ns;
}

static void on_defer(struct host *host, struct work *work)
{
	list_add_tail(&work->link, &to_bench(host)->works);
}

static void on_wake(struct host *host, uint64_t when_ns)
{
	struct bench_host *bh = to_bench(host);

	if (when_ns < bh->wake_ns)
		bh->wake_ns = when_ns;
}

static uint64_t on_random(struct host *host)
{
	return rng_next(&to_bench(host)->rng);
}

static const struct host_ops host_ops = {
	.enter = on_enter,
	.leave = on_leave,
	.now_ns = on_now,
	.wall_ns = on_now,
	.defer = on_defer,
	.wake_at = on_wake,
	.random = on_random,
};

/* One thing that can happen now, or the clock goes to the next that will. */
static void host_step(struct bench_host *bh)
{
	struct list_head *link = list_pop(&bh->works);

	if (link) {
		struct work *work = list_entry(link, struct work, link);

		work->run(work);
	} else if (dev_poll(bh->cache, false) > 0 || dev_poll(&bh->disk.dev, false) > 0) {
		return;
	} else if (bh->wake_ns <= bh->now_ns) {
		bh->wake_ns = UINT64_MAX;
		host_enter(&bh->host);
		boost_tick(bh->boost);
		host_leave(&bh->host);
	} else {
		const uint64_t due = bh->disk.due_ns;

		bh->now_ns = due < bh->wake_ns ? due : bh->wake_ns;
		if (bh->now_ns == UINT64_MAX)
			bench_die("nothing goes on any more", EDEADLK);
	}
}

static void open_boost(struct bench_host *bh, bool near, uint64_t seed)
{
	const struct wlog_format_options format = {.id.log_uuid = uuid_from_bits(seed, 1),
						   .random = seed};
	struct boost_options opt;
	struct boost_cut cut;
	struct err err = {0};

	*bh = (struct bench_host){.host.ops = &host_ops, .wake_ns = UINT64_MAX};
	list_init(&bh->host.ready);
	list_init(&bh->host.fills);
	list_init(&bh->works);
	rng_seed(&bh->rng, seed);
	bh->cache = memory_dev(CACHE);
	disk_init(&bh->disk, near, &bh->now_ns);
	boost_options_default(&opt);
	opt.nr_max_batched_migration = BATCH;
	if (wlog_format(bh->cache, &format, NULL, &err) ||
	    boost_open(&bh->host, &bh->disk.dev, bh->cache, false, &opt, &bh->boost, &cut, &err) ||
	    boost_acquire(bh->boost, &err))
		bench_die(err.text, EIO);
}

/* ---- the rows ------------------------------------------------------------------------------ */

struct load {
	const char *workload;
	bool near, hot;
	double goal;
};

struct slot {
	struct dev_req req;
	struct list_head link; /* idle */
	struct writer *writer;
};

struct writer {
	struct list_head idle;
	struct slot slot[DEPTH];
	struct rng rng;
	bool hot;
	uint8_t data[BLOCK];
	uint64_t done;
};

static void write_done(struct dev_req *req)
{
	struct slot *slot = container_of(req, struct slot, req);

	if (req->result)
		bench_die("write", req->result);
	slot->writer->done++;
	list_add_tail(&slot->link, &slot->writer->idle);
}

static void writer_init(struct writer *w, const struct load *load, uint64_t seed)
{
	*w = (struct writer){.hot = load->hot};
	rng_seed(&w->rng, seed);
	list_init(&w->idle);
	for (int i = 0; i < DEPTH; i++) {
		w->slot[i].writer = w;
		list_add_tail(&w->slot[i].link, &w->idle);
	}
}

static uint64_t pick_block(struct writer *w)
{
	uint64_t blocks = SPACE / BLOCK;

	if (w->hot && rng_below(&w->rng, 10) > 0)
		blocks /= 10;
	return rng_below(&w->rng, blocks);
}

/* The next write, or NULL while DEPTH of them are under way. */
static struct dev_req *writer_next(struct writer *w)
{
	struct list_head *link = list_pop(&w->idle);
	struct dev_req *req;

	if (!link)
		return NULL;
	req = &list_entry(link, struct slot, link)->req;
	*req = (struct dev_req){.op = DEV_WRITE, .done = write_done};
	dev_req_buf(req, w->data, BLOCK);
	req->off_bytes = pick_block(w) * BLOCK;
	return req;
}

static void log_write(struct bench_host *bh, struct dev_req *req)
{
	struct wlog *log = boost_log(bh->boost);
	int rc;

	host_enter(&bh->host);
	rc = wlog_reserve(log, req);
	host_leave(&bh->host);
	if (rc < 0)
		bench_die("write", rc);
	if (rc == 0)
		return;
	wlog_fill(log, req);
	host_enter(&bh->host);
	wlog_publish(log, req);
	host_leave(&bh->host);
}

static bool drained;

static void drain_done(struct drain *drain, int error)
{
	(void)drain;
	if (error)
		bench_die("drain", error);
	drained = true;
}

static void drain(struct bench_host *bh)
{
	struct drain all = {.done = drain_done};

	drained = false;
	host_enter(&bh->host);
	boost_drain(bh->boost, &all);
	host_leave(&bh->host);
	while (!drained)
		host_step(bh);
}

/* Writes a second, until all of them are home. */
static double with_cache(const struct load *load, uint64_t seed)
{
	static struct bench_host bh;
	struct boost_status st;
	struct writer w;
	struct err err = {0};
	struct dev_req *req;

	open_boost(&bh, load->near, seed);
	writer_init(&w, load, seed);
	for (uint64_t n = 0; n < WRITES;) {
		req = writer_next(&w);
		if (req) {
			log_write(&bh, req);
			n++;
		} else {
			host_step(&bh);
		}
	}
	drain(&bh);
	assert(w.done == WRITES);
	boost_status(bh.boost, &st);
	fprintf(stderr, "# %llu writes, %llu requests of the disk, %llu seeks, %llu batches\n",
		(unsigned long long)WRITES, (unsigned long long)bh.disk.requests,
		(unsigned long long)bh.disk.seeks, (unsigned long long)st.batches);
	if (boost_release(bh.boost, &err))
		bench_die(err.text, EIO);
	boost_close(bh.boost);
	dev_close(bh.cache);
	dev_close(&bh.disk.dev);
	return (double)WRITES * 1e9 / (double)bh.now_ns;
}

/* The same blocks, each written when it comes. */
static double without_cache(const struct load *load, uint64_t seed)
{
	uint64_t now_ns = 0;
	struct dev_req *req;
	struct writer w;
	struct disk disk;

	disk_init(&disk, load->near, &now_ns);
	writer_init(&w, load, seed);
	for (uint64_t n = 0; n < WRITES;) {
		req = writer_next(&w);
		if (req) {
			dev_submit(&disk.dev, req);
			n++;
		} else {
			dev_poll(&disk.dev, true);
		}
	}
	while (dev_poll(&disk.dev, true))
		;
	assert(w.done == WRITES);
	dev_close(&disk.dev);
	return (double)WRITES * 1e9 / (double)now_ns;
}

static void bench_limited(const struct load *load)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];

	for (int i = 0; i < BENCH_ROUNDS; i++) {
		ours[i] = with_cache(load, (uint64_t)i + 1);
		theirs[i] = without_cache(load, (uint64_t)i + 1);
	}
	bench_row("boost", load->workload, ours, "IOPS", "written through as it comes", theirs,
		  load->goal);
}

int main(void)
{
	static const struct load loads[] = {
		{"4K random write, 8 caches full, disk of 300 random IOPS", true, false, 5},
		{"the same, each gap a seek", false, false, 1},
		{"the same, each gap a seek, hot", false, true, 3},
	};

	for (unsigned int i = 0; i < sizeof(loads) / sizeof(loads[0]); i++)
		bench_limited(&loads[i]);
	return 0;
}
