/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file device: its queue, and who runs what is in it.
 *
 * Purpose. The shortest way for a thread that waits for its own write and flush (help: no other
 * thread is involved), and deep queues through the loop for everybody else (kick).
 *
 * Data structure. Two queues, flushes and the rest, in order of submission. What is started is a
 * struct file_io (file_io.c has the steps): in one of FILE_SLOTS when the loop runs it, on the
 * stack when a helper does.
 *
 *	submit -> queue, flushes --help--> on the helper's stack --> done()
 *	                |                                             ^
 *	              kick -> slot -> loop -> callback ---------------+
 *
 * Flushes. All flushes that are queued when one starts are answered by it: each was submitted
 * before that fdatasync began, so it covers what each must cover.
 *
 * Invariants.
 *  1. A request is on one of the queues, or belongs to one started file_io.
 *  2. Started file_ios are counted in gate.inflight, until after done().
 *  3. The kernel reports a lost write to the first fdatasync that asks, and to nobody after it. So
 *     one flush is in flight at a time (syncing), and the next begins when the sticky error is
 *     set. Through the page cache the same holds for writes with fua, which ask too; with O_DIRECT
 *     a write's error is its own, and they run side by side.
 *  4. What could not start for want of a slot, a buffer or syncing stays queued; whoever returns
 *     one of these starts it if a kick had found it (want_kick), else it waits for help or kick.
 *  5. A kick from inside a done() that a kick called does not recurse: it leaves want_kick to the
 *     outer one.
 *
 * Locks. gate.lock guards the queues and the free lists. No system call and no callback under it.
 */
#include "dev/file_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct dev_file *to_file(struct dev *dev)
{
	return container_of(dev, struct dev_file, dev);
}

static struct dev_req *first_req(const struct list_head *list)
{
	return list_empty(list) ? NULL : list_first_entry(list, struct dev_req, link);
}

/* Whether the request asks the kernel about lost writes (invariant 3). */
static bool must_sync_alone(const struct dev_file *file, const struct dev_req *req)
{
	if (!req->fua || req->op == DEV_READ)
		return false;
	return req->op != DEV_WRITE || !file->direct;
}

/* A buffer, or false when the request has to wait for one. */
static bool take_bounce_locked(struct dev_file *file, struct file_io *fio)
{
	struct list_head *link = list_pop(&file->bounces);

	if (!link && file->bounces_made < FILE_BOUNCES) {
		fio->bounce = file_bounce_new();
		if (fio->bounce)
			file->bounces_made++;
		/* With none at all nobody would ever return one: the request fails instead. */
		return fio->bounce || !file->bounces_made;
	}
	if (!link)
		return false;
	fio->bounce = file_bounce_of(link);
	return true;
}

static bool start_flushes_locked(struct dev_file *file, struct file_io *fio)
{
	if (file->syncing)
		return false;
	file->syncing = true;
	fio->syncs = true;
	list_splice_tail(&file->flushes, &fio->flushes);
	return true;
}

static bool start_req_locked(struct dev_file *file, struct file_io *fio, struct dev_req *req)
{
	bool alone = must_sync_alone(file, req);

	if (alone && file->syncing)
		return false;
	if (req->priv.u64[FILE_PRIV_BOUNCED] && !take_bounce_locked(file, fio))
		return false;
	if (alone)
		file->syncing = true;
	fio->syncs = alone;
	fio->req = req;
	list_del(&req->link);
	return true;
}

/* Starts the oldest request that can be, in *fio; returns false if there is none. */
static bool start_locked(struct dev_file *file, struct file_io *fio)
{
	struct dev_req *req = first_req(&file->queue);
	struct dev_req *flush = first_req(&file->flushes);
	bool flush_first = flush && (!req || flush->priv.u64[FILE_PRIV_SEQ] <
						     req->priv.u64[FILE_PRIV_SEQ]);
	bool started;

	fio->file = file;
	fio->req = NULL;
	fio->bounce = NULL;
	fio->syncs = false;
	list_init(&fio->flushes);
	started = flush_first && start_flushes_locked(file, fio);
	if (!started && req)
		started = start_req_locked(file, fio, req);
	if (!started && flush && !flush_first)
		started = start_flushes_locked(file, fio);
	if (started)
		gate_begin_locked(&file->gate);
	return started;
}

/* Starts all that can be, in slots, and remembers whether something is left. */
static void start_all_locked(struct dev_file *file, struct list_head *batch)
{
	struct list_head *link;

	while ((link = list_pop(&file->slots))) {
		struct file_io *fio = list_entry(link, struct file_io, link);

		if (!start_locked(file, fio)) {
			list_add(link, &file->slots);
			break;
		}
		list_add_tail(link, batch);
	}
	file->want_kick = !list_empty(&file->queue) || !list_empty(&file->flushes);
}

static void call_done(struct dev_file *file, struct dev_req *req, int result)
{
	req->result = result;
	gate_count(&file->gate, req);
	req->done(req);
}

/*
 * Delivers and gives back what was taken. Appends to *batch what could be started instead; when
 * that is empty the device may be gone.
 */
static void finish(struct file_io *fio, struct list_head *batch)
{
	struct dev_file *file = fio->file;
	struct list_head *link;

	if (fio->req)
		call_done(file, fio->req, fio->result);
	while ((link = list_pop(&fio->flushes)))
		call_done(file, list_entry(link, struct dev_req, link), fio->result);
	pthread_mutex_lock(&file->gate.lock);
	if (fio->bounce)
		list_add(file_bounce_link(fio->bounce), &file->bounces);
	if (fio->syncs)
		file->syncing = false;
	if (fio->own_slot)
		list_add(&fio->link, &file->slots);
	if (file->want_kick)
		start_all_locked(file, batch);
	gate_end_locked(&file->gate);
	pthread_mutex_unlock(&file->gate.lock);
}

/* Hands a batch to the loop, and what is finished before it began to its owners. */
static void run_batch(struct dev_file *file, struct list_head *batch)
{
	struct list_head ios = LIST_INIT(ios);
	struct list_head over = LIST_INIT(over);
	struct list_head *link;

	while (!list_empty(batch)) {
		while ((link = list_pop(batch))) {
			struct file_io *fio = list_entry(link, struct file_io, link);

			if (file_io_begin(fio))
				list_add_tail(&fio->io.link, &ios);
			else
				list_add_tail(&fio->link, &over);
		}
		if (!list_empty(&ios))
			loop_submit(file->loop, &ios);
		while ((link = list_pop(&over)))
			finish(list_entry(link, struct file_io, link), batch);
	}
}

/* The loop's callback: a step is over. */
static void step_done(struct loop_io *io)
{
	struct file_io *fio = container_of(io, struct file_io, io);
	struct dev_file *file = fio->file;
	struct list_head list = LIST_INIT(list);

	if (file_io_next(fio)) {
		list_add_tail(&io->link, &list);
		loop_submit(file->loop, &list);
		return;
	}
	finish(fio, &list);
	run_batch(file, &list);
}

static void file_submit(struct dev *dev, struct dev_req *req)
{
	struct dev_file *file = to_file(dev);

	req->priv.u64[FILE_PRIV_CHECK] = (uint64_t)gate_check(dev, req);
	req->priv.u64[FILE_PRIV_BOUNCED] =
		!req->priv.u64[FILE_PRIV_CHECK] && file_io_must_bounce(file, req);
	pthread_mutex_lock(&file->gate.lock);
	req->priv.u64[FILE_PRIV_SEQ] = ++file->last_seq;
	list_add_tail(&req->link, req->op == DEV_FLUSH ? &file->flushes : &file->queue);
	pthread_mutex_unlock(&file->gate.lock);
}

static void file_kick(struct dev *dev)
{
	struct dev_file *file = to_file(dev);
	struct list_head batch = LIST_INIT(batch);
	struct gate_frame frame;
	bool outermost = gate_frame_enter(&frame, &file->gate);

	pthread_mutex_lock(&file->gate.lock);
	if (outermost)
		start_all_locked(file, &batch);
	else
		file->want_kick = true;
	pthread_mutex_unlock(&file->gate.lock);
	if (!outermost)
		return;
	run_batch(file, &batch);
	gate_frame_leave(&frame);
}

static bool file_help(struct dev *dev)
{
	struct dev_file *file = to_file(dev);
	struct list_head batch = LIST_INIT(batch);
	struct file_io fio;
	bool started;

	pthread_mutex_lock(&file->gate.lock);
	started = start_locked(file, &fio);
	pthread_mutex_unlock(&file->gate.lock);
	if (!started)
		return false;
	fio.own_slot = false;
	if (file_io_begin(&fio)) {
		do
			loop_io_run(&fio.io);
		while (file_io_next(&fio));
	}
	finish(&fio, &batch);
	run_batch(file, &batch);
	return true;
}

static int file_poll(struct dev *dev, bool wait)
{
	struct dev_file *file = to_file(dev);

	/* The loop's thread would wait for itself. */
	assert(!wait || !loop_is_current(file->loop));
	return gate_wait(&file->gate, wait);
}

static void file_counters(struct dev *dev, struct dev_counters *ret)
{
	gate_counters(&to_file(dev)->gate, ret);
}

static void file_forgive(struct dev *dev)
{
	/* Nothing is in flight: what begins after this sees it by the gate's lock. */
	atomic_store_explicit(&to_file(dev)->sticky, 0, memory_order_release);
}

static void file_free(struct dev_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file_bounce_free_all(&file->bounces);
	free(file->all_slots);
	free(file->path);
	free(file);
}

static void file_close(struct dev *dev)
{
	struct dev_file *file = to_file(dev);

	gate_close(&file->gate);
	assert(list_empty(&file->queue) && list_empty(&file->flushes));
	file_unlock(dev);
	loop_put(file->loop);
	file_free(file);
}

const struct dev_ops file_ops = {
	.name = "file",
	.submit = file_submit,
	.kick = file_kick,
	.help = file_help,
	.poll = file_poll,
	.counters = file_counters,
	.lock = file_lock,
	.unlock = file_unlock,
	.forgive = file_forgive,
	.identity = file_identity,
	.resize_look = file_resize_look,
	.resize = file_resize,
	.close = file_close,
};

static int alloc_slots(struct dev_file *file)
{
	unsigned i;

	file->all_slots = calloc(FILE_SLOTS, sizeof(*file->all_slots));
	if (!file->all_slots)
		return -ENOMEM;
	for (i = 0; i < FILE_SLOTS; i++) {
		file->all_slots[i].own_slot = true;
		file->all_slots[i].io.done = step_done;
		list_add_tail(&file->all_slots[i].link, &file->slots);
	}
	return 0;
}

int dev_file_open(const char *path, const struct dev_file_options *opt, struct dev **ret,
		  struct err *err)
{
	static const struct dev_file_options defaults;
	struct dev_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file)
		return err_sys(err, -ENOMEM, "%s", path);
	file->fd = -1;
	file->claim_fd = -1;
	file->dev.ops = &file_ops;
	list_init(&file->queue);
	list_init(&file->flushes);
	list_init(&file->slots);
	list_init(&file->bounces);
	file->path = strdup(path);
	r = file->path ? alloc_slots(file) : -ENOMEM;
	if (r) {
		err_sys(err, r, "%s", path);
		goto out;
	}
	/* Before the file: a new one is not left behind when this fails. */
	r = loop_get(&file->loop);
	if (r) {
		err_sys(err, r, "%s: no event loop", path);
		goto out;
	}
	r = file_setup(file, opt ? opt : &defaults, err);
	if (r)
		goto out;
	gate_init(&file->gate);
	*ret = &file->dev;
	return 0;
out:
	loop_put(file->loop);
	file_free(file);
	return r;
}

void dev_file_info(struct dev *dev, struct dev_file_info *ret)
{
	struct dev_file *file = to_file(dev);

	assert(dev->ops == &file_ops);
	ret->direct = file->direct;
	ret->is_block_device = file->is_block;
	ret->uring = loop_has_uring(file->loop);
	ret->io_align = file->io_align;
	ret->mem_align = file->mem_align;
	ret->sticky = atomic_load_explicit(&file->sticky, memory_order_acquire);
}
