/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The block translation table behind the vtable of block devices.
 *
 * Purpose. Requests are cut into sectors, and each is one synchronous call: there is nothing to
 * wait for.
 *
 * Data structure. A list of requests under the gate's lock, as in dev/mem.
 *
 * Durable when: a write, when its done() is called; so a flush has nothing to do but to tell that
 * memory failed.
 *
 * Invariants.
 *  1. submit only appends. A request leaves the queue with the thread that runs it, and that thread
 *     calls its done().
 *  2. A kick from inside done() returns at once: the kick further up on the stack takes what is
 *     queued, as it goes on until the queue is empty.
 *
 * Locks. gate.lock guards the queue. The right to write is one flag in the pool.
 */
#include "btt/btt_dev.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "btt/btt_impl.h"
#include "dev/gate.h"

#define BLOCK_MAX 65536u

struct btt_dev {
	struct dev dev;
	struct dev_gate gate;
	struct btt *btt;
	struct pmem *own; /* to be closed with the device, and btt before it; or NULL */
	bool has_lock;
	struct list_head queue; /* dev_req; under gate.lock */
};

static struct btt_dev *to_btt(struct dev *dev)
{
	return container_of(dev, struct btt_dev, dev);
}

/* Reads may begin and end within a sector. */
static int run_read(struct btt *btt, const struct dev_req *req)
{
	const uint64_t block = btt_block_bytes(btt);
	struct btt_window to = {req->iov, 0};
	int r = 0;

	for (uint64_t at = req->off_bytes, left = req->len_bytes; left && !r;) {
		uint64_t off = at % block, n = block - off;

		n = n < left ? n : left;
		r = btt_read_part(btt, at / block, off, n, to);
		to.skip_bytes += n;
		at += n;
		left -= n;
	}
	return r;
}

static int run_change(struct btt *btt, const struct dev_req *req)
{
	const uint64_t block = btt_block_bytes(btt);
	const uint64_t first = req->off_bytes / block, count = req->len_bytes / block;
	int r = 0;

	for (uint64_t i = 0; i < count && !r; i++) {
		const struct btt_window from = {req->iov, i * block};

		r = req->op == DEV_WRITE ? btt_write_window(btt, first + i, from)
					 : btt_set_zero(btt, first + i);
	}
	return r;
}

static int run(struct btt_dev *d, const struct dev_req *req)
{
	int r = gate_check(&d->dev, req);

	if (r)
		return r;
	if (req->op == DEV_FLUSH)
		return atomic_load(&d->btt->failed);
	return req->op == DEV_READ ? run_read(d->btt, req) : run_change(d->btt, req);
}

/* Runs the oldest request; false if there is none. */
static bool run_one(struct btt_dev *d)
{
	struct list_head *link;
	struct dev_req *req;

	pthread_mutex_lock(&d->gate.lock);
	link = list_pop(&d->queue);
	if (link)
		gate_begin_locked(&d->gate);
	pthread_mutex_unlock(&d->gate.lock);
	if (!link)
		return false;
	req = list_entry(link, struct dev_req, link);
	req->result = run(d, req);
	gate_count(&d->gate, req);
	req->done(req);
	pthread_mutex_lock(&d->gate.lock);
	gate_end_locked(&d->gate);
	pthread_mutex_unlock(&d->gate.lock);
	return true;
}

static int run_all(struct btt_dev *d)
{
	struct gate_frame frame;
	int count = 0;

	if (!gate_frame_enter(&frame, &d->gate))
		return 0;
	while (run_one(d))
		count++;
	gate_frame_leave(&frame);
	return count;
}

static void btt_dev_submit(struct dev *dev, struct dev_req *req)
{
	struct btt_dev *d = to_btt(dev);

	pthread_mutex_lock(&d->gate.lock);
	list_add_tail(&req->link, &d->queue);
	pthread_mutex_unlock(&d->gate.lock);
}

static void btt_dev_kick(struct dev *dev)
{
	run_all(to_btt(dev));
}

static bool btt_dev_help(struct dev *dev)
{
	return run_one(to_btt(dev));
}

static int btt_dev_poll(struct dev *dev, bool wait)
{
	struct btt_dev *d = to_btt(dev);
	int count = run_all(d);

	return count ? count : gate_wait(&d->gate, wait);
}

static void btt_dev_counters(struct dev *dev, struct dev_counters *ret)
{
	gate_counters(&to_btt(dev)->gate, ret);
}

static int btt_dev_lock(struct dev *dev, struct err *err)
{
	struct btt_dev *d = to_btt(dev);

	if (dev->read_only)
		return err_set(err, -EROFS, "block translation table: opened read-only");
	if (d->has_lock)
		return 0;
	if (atomic_exchange_explicit(&d->btt->dev_locked, true, memory_order_acquire))
		return err_set(err, -EBUSY, "block translation table: in use by another opening");
	d->has_lock = true;
	return 0;
}

static void btt_dev_unlock(struct dev *dev)
{
	struct btt_dev *d = to_btt(dev);

	/* Release: pairs with the acquire in btt_dev_lock() of the next owner. */
	if (d->has_lock)
		atomic_store_explicit(&d->btt->dev_locked, false, memory_order_release);
	d->has_lock = false;
}

static void btt_dev_close(struct dev *dev)
{
	struct btt_dev *d = to_btt(dev);

	gate_close(&d->gate);
	assert(list_empty(&d->queue));
	btt_dev_unlock(dev);
	if (d->own) {
		btt_close(d->btt);
		pm_close(d->own);
	}
	free(d);
}

static const struct dev_ops btt_dev_ops = {
	.name = "btt",
	.submit = btt_dev_submit,
	.kick = btt_dev_kick,
	.help = btt_dev_help,
	.poll = btt_dev_poll,
	.counters = btt_dev_counters,
	.lock = btt_dev_lock,
	.unlock = btt_dev_unlock,
	.close = btt_dev_close,
};

int btt_dev_open(struct btt *btt, struct dev **ret, struct err *err)
{
	const uint64_t block = btt_block_bytes(btt);
	struct btt_dev *d;

	if (block < DEV_SECTOR_BYTES || block > BLOCK_MAX || block & (block - 1))
		return err_set(err, -EINVAL,
			       "a pool with blocks of %llu bytes cannot be a block "
			       "device: they must be a power of two from 512 to 65536",
			       (unsigned long long)block);
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_sys(err, -ENOMEM, "block device");
	gate_init(&d->gate);
	list_init(&d->queue);
	d->btt = btt;
	d->dev.ops = &btt_dev_ops;
	d->dev.size_bytes = btt_nblock(btt) * block;
	d->dev.block_bytes = (uint32_t)block;
	d->dev.read_only = btt->read_only;
	d->dev.can_discard = !btt->read_only;
	d->dev.can_zero = !btt->read_only;
	*ret = &d->dev;
	return 0;
}

void btt_dev_own(struct dev *dev, struct pmem *pm)
{
	to_btt(dev)->own = pm;
}
