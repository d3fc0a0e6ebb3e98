/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block device in anonymous memory.
 *
 * Purpose. The shortest honest device: a queue, and whoever kicks, helps or polls copies.
 *
 * Data structure. A list of requests under the gate's lock; the contents are an anonymous mapping
 * in a refcounted struct dev_mem_bytes.
 *
 * Invariants.
 *  1. submit only appends. A request leaves the queue with the thread that runs it, and that
 *     thread calls its done().
 *  2. Copies run outside the lock, so requests that overlap and are in flight at once may mix,
 *     as on any disk.
 *  3. A kick from inside done() returns at once: the kick further up on the stack takes what is
 *     queued, as it goes on until the queue is empty.
 *
 * Locks. gate.lock guards the queue. The lock of the contents is one atomic flag.
 */
#include "dev/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dev/gate.h"

#define MEM_PAGE_BYTES 4096u
#define MEM_BLOCK_MAX 65536u

struct dev_mem_bytes {
	atomic_uint refs;
	atomic_bool locked;
	uint64_t size_bytes;
	unsigned char *data;
};

struct dev_mem {
	struct dev dev;
	struct dev_gate gate;
	struct dev_mem_bytes *bytes;
	bool has_lock;
	struct list_head queue; /* dev_req; under gate.lock */
};

static struct dev_mem *to_mem(struct dev *dev)
{
	return container_of(dev, struct dev_mem, dev);
}

int dev_mem_bytes_new(uint64_t size_bytes, struct dev_mem_bytes **ret)
{
	struct dev_mem_bytes *bytes;
	void *data;

	if (!size_bytes || size_bytes > SIZE_MAX / 2)
		return -EINVAL;
	bytes = calloc(1, sizeof(*bytes));
	if (!bytes)
		return -ENOMEM;
	data = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (data == MAP_FAILED) {
		free(bytes);
		return -ENOMEM;
	}
	atomic_init(&bytes->refs, 1);
	bytes->size_bytes = size_bytes;
	bytes->data = data;
	*ret = bytes;
	return 0;
}

struct dev_mem_bytes *dev_mem_bytes_get(struct dev_mem_bytes *bytes)
{
	atomic_fetch_add_explicit(&bytes->refs, 1, memory_order_relaxed);
	return bytes;
}

void dev_mem_bytes_put(struct dev_mem_bytes *bytes)
{
	/* Acquire and release among all puts: the last one unmaps after all others' uses. */
	if (!bytes || atomic_fetch_sub_explicit(&bytes->refs, 1, memory_order_acq_rel) != 1)
		return;
	munmap(bytes->data, bytes->size_bytes);
	free(bytes);
}

int dev_mem_bytes_grow(struct dev_mem_bytes *bytes, uint64_t size_bytes)
{
	void *data;

	if (size_bytes < bytes->size_bytes || size_bytes > SIZE_MAX / 2)
		return -EINVAL;
	if (size_bytes == bytes->size_bytes)
		return 0;
	data = mremap(bytes->data, bytes->size_bytes, size_bytes, MREMAP_MAYMOVE);
	if (data == MAP_FAILED)
		return -ENOMEM;
	bytes->data = data;
	bytes->size_bytes = size_bytes;
	return 0;
}

void *dev_mem_bytes_data(struct dev_mem_bytes *bytes)
{
	return bytes->data;
}

uint64_t dev_mem_bytes_size(const struct dev_mem_bytes *bytes)
{
	return bytes->size_bytes;
}

static void transfer(unsigned char *at, const struct dev_req *req)
{
	int i;

	for (i = 0; i < req->iovcnt; i++) {
		const struct iovec *iov = &req->iov[i];

		if (!iov->iov_len)
			continue;
		if (req->op == DEV_READ)
			memcpy(iov->iov_base, at, iov->iov_len);
		else
			memcpy(at, iov->iov_base, iov->iov_len);
		at += iov->iov_len;
	}
}

/* Whole pages go back to the kernel, which gives them out as zeros again. */
static void clear(unsigned char *at, uint64_t len_bytes)
{
	uint64_t head_bytes = -(uintptr_t)at & (MEM_PAGE_BYTES - 1);
	uint64_t pages_bytes;

	if (head_bytes > len_bytes)
		head_bytes = len_bytes;
	memset(at, 0, head_bytes);
	at += head_bytes;
	len_bytes -= head_bytes;
	pages_bytes = len_bytes & ~(uint64_t)(MEM_PAGE_BYTES - 1);
	if (pages_bytes && madvise(at, pages_bytes, MADV_DONTNEED) < 0)
		memset(at, 0, pages_bytes);
	memset(at + pages_bytes, 0, len_bytes - pages_bytes);
}

static int run(struct dev_mem *mem, const struct dev_req *req)
{
	unsigned char *at;
	int r = gate_check(&mem->dev, req);

	if (r || req->op == DEV_FLUSH)
		return r;
	at = mem->bytes->data + req->off_bytes;
	if (req->op == DEV_READ || req->op == DEV_WRITE)
		transfer(at, req);
	else
		clear(at, req->len_bytes);
	return 0;
}

/* Runs the oldest request; false if there is none. */
static bool run_one(struct dev_mem *mem)
{
	struct list_head *link;
	struct dev_req *req;

	pthread_mutex_lock(&mem->gate.lock);
	link = list_pop(&mem->queue);
	if (link)
		gate_begin_locked(&mem->gate);
	pthread_mutex_unlock(&mem->gate.lock);
	if (!link)
		return false;
	req = list_entry(link, struct dev_req, link);
	req->result = run(mem, req);
	gate_count(&mem->gate, req);
	req->done(req);
	pthread_mutex_lock(&mem->gate.lock);
	gate_end_locked(&mem->gate);
	pthread_mutex_unlock(&mem->gate.lock);
	return true;
}

static int run_all(struct dev_mem *mem)
{
	struct gate_frame frame;
	int count = 0;

	if (!gate_frame_enter(&frame, &mem->gate))
		return 0;
	while (run_one(mem))
		count++;
	gate_frame_leave(&frame);
	return count;
}

static void mem_submit(struct dev *dev, struct dev_req *req)
{
	struct dev_mem *mem = to_mem(dev);

	pthread_mutex_lock(&mem->gate.lock);
	list_add_tail(&req->link, &mem->queue);
	pthread_mutex_unlock(&mem->gate.lock);
}

static void mem_kick(struct dev *dev)
{
	run_all(to_mem(dev));
}

static bool mem_help(struct dev *dev)
{
	return run_one(to_mem(dev));
}

static int mem_poll(struct dev *dev, bool wait)
{
	struct dev_mem *mem = to_mem(dev);
	int count = run_all(mem);

	return count ? count : gate_wait(&mem->gate, wait);
}

static void mem_counters(struct dev *dev, struct dev_counters *ret)
{
	gate_counters(&to_mem(dev)->gate, ret);
}

static int mem_lock(struct dev *dev, struct err *err)
{
	struct dev_mem *mem = to_mem(dev);

	if (dev->read_only)
		return err_set(err, -EROFS, "memory device: opened read-only, cannot be locked");
	if (mem->has_lock)
		return 0;
	if (atomic_exchange_explicit(&mem->bytes->locked, true, memory_order_acquire))
		return err_set(err, -EBUSY, "memory device: in use by another opening");
	mem->has_lock = true;
	return 0;
}

static void mem_unlock(struct dev *dev)
{
	struct dev_mem *mem = to_mem(dev);

	/* Release: pairs with the acquire in mem_lock() of the next owner. */
	if (mem->has_lock)
		atomic_store_explicit(&mem->bytes->locked, false, memory_order_release);
	mem->has_lock = false;
}

static int mem_resize_look(struct dev *dev)
{
	dev->size_bytes = to_mem(dev)->bytes->size_bytes & ~(uint64_t)(dev->block_bytes - 1);
	return 0;
}

static int mem_resize(struct dev *dev, uint64_t size_bytes)
{
	int r;

	if (dev->read_only)
		return -EROFS;
	if (size_bytes % dev->block_bytes || size_bytes < dev->size_bytes)
		return -EINVAL;
	r = dev_mem_bytes_grow(to_mem(dev)->bytes, size_bytes);
	return r ? r : mem_resize_look(dev);
}

static void mem_close(struct dev *dev)
{
	struct dev_mem *mem = to_mem(dev);

	gate_close(&mem->gate);
	assert(list_empty(&mem->queue));
	mem_unlock(dev);
	dev_mem_bytes_put(mem->bytes);
	free(mem);
}

static const struct dev_ops mem_ops = {
	.name = "mem",
	.submit = mem_submit,
	.kick = mem_kick,
	.help = mem_help,
	.poll = mem_poll,
	.counters = mem_counters,
	.lock = mem_lock,
	.unlock = mem_unlock,
	.resize_look = mem_resize_look,
	.resize = mem_resize,
	.close = mem_close,
};

struct dev_mem_bytes *dev_mem_bytes(struct dev *dev)
{
	assert(dev->ops == &mem_ops);
	return to_mem(dev)->bytes;
}

int dev_mem_open(const struct dev_mem_options *opt, struct dev **ret, struct err *err)
{
	uint32_t block_bytes = opt->block_bytes ? opt->block_bytes : DEV_SECTOR_BYTES;
	uint64_t size_bytes = opt->bytes ? opt->bytes->size_bytes : opt->size_bytes;
	struct dev_mem *mem;
	int r = 0;

	if (block_bytes < DEV_SECTOR_BYTES || block_bytes > MEM_BLOCK_MAX ||
	    block_bytes & (block_bytes - 1))
		return err_set(err, -EINVAL, "memory device: block size %u is not a power of two "
			       "from 512 to 65536", block_bytes);
	if (!size_bytes || size_bytes % block_bytes)
		return err_set(err, -EINVAL, "memory device: size %llu is not a multiple of the "
			       "block size %u", (unsigned long long)size_bytes, block_bytes);
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return err_sys(err, -ENOMEM, "memory device");
	if (opt->bytes)
		mem->bytes = dev_mem_bytes_get(opt->bytes);
	else
		r = dev_mem_bytes_new(size_bytes, &mem->bytes);
	if (r) {
		free(mem);
		return err_sys(err, r, "memory device of %llu bytes",
			       (unsigned long long)size_bytes);
	}
	gate_init(&mem->gate);
	list_init(&mem->queue);
	mem->dev.ops = &mem_ops;
	mem->dev.size_bytes = size_bytes;
	mem->dev.block_bytes = block_bytes;
	mem->dev.read_only = opt->read_only;
	mem->dev.can_discard = !opt->read_only;
	mem->dev.can_zero = !opt->read_only;
	*ret = &mem->dev;
	return 0;
}
