/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One request of the file device, as a sequence of steps.
 *
 * Purpose. A request may need several transfers: bounced data goes piece by piece, zeros may have
 * to be written, a zero with fua needs a flush. The sequence is the same whether a helper runs it
 * on its own thread or the loop runs it; this file says what the next step is, and nothing else.
 *
 *	begin -> WHOLE ------------------------------------> finished
 *	     |     | fallocate is refused (punching a hole first, if the device can do that)
 *	     |     +-> ZEROS (again and again) -+
 *	     |     +--------------------------- +-> FUA ---> finished
 *	     +-> BOUNCED (again and again) ----------------> finished
 *
 * Data structure. struct file_io: the request, the position in it, and the loop_io of the step.
 *
 * Invariants.
 *  1. The first failed step ends the request with its error.
 *  2. If that step was to make something durable (a flush, a write with fua), or the request asked
 *     for it, the error becomes the device's sticky error before done() is called.
 *  3. A mutation or flush that begins after the sticky error was set does not reach the kernel.
 *  4. A step's offset and length are multiples of io_align, and its memory of mem_align: the size
 *     of the device is a multiple of io_align, so a read widened to that stays inside.
 *
 * Locks. None; a file_io belongs to one thread at a time. The sticky error is an atomic.
 */
#include "dev/file_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Enough for any memory alignment that a block device asks for. */
#define BOUNCE_ALIGN 4096

struct file_bounce {
	struct list_head link;
	unsigned char *data;
};

static unsigned char zeros[FILE_ZERO_BYTES] __attribute__((aligned(BOUNCE_ALIGN)));

struct file_bounce *file_bounce_new(void)
{
	struct file_bounce *bounce = malloc(sizeof(*bounce));
	void *data;

	if (!bounce)
		return NULL;
	if (posix_memalign(&data, BOUNCE_ALIGN, FILE_BOUNCE_BYTES)) {
		free(bounce);
		return NULL;
	}
	list_init(&bounce->link);
	bounce->data = data;
	return bounce;
}

struct list_head *file_bounce_link(struct file_bounce *bounce)
{
	return &bounce->link;
}

struct file_bounce *file_bounce_of(struct list_head *link)
{
	return list_entry(link, struct file_bounce, link);
}

void file_bounce_free_all(struct list_head *bounces)
{
	struct list_head *link;

	while ((link = list_pop(bounces))) {
		struct file_bounce *bounce = file_bounce_of(link);

		free(bounce->data);
		free(bounce);
	}
}

bool file_io_must_bounce(const struct dev_file *file, const struct dev_req *req)
{
	uint64_t io_mask = file->io_align - 1;
	uint64_t mem_mask = file->mem_align - 1;
	int i;

	if (req->op != DEV_READ && req->op != DEV_WRITE)
		return false;
	if ((req->off_bytes | req->len_bytes) & io_mask)
		return true;
	for (i = 0; i < req->iovcnt; i++)
		if (((uintptr_t)req->iov[i].iov_base & mem_mask) || (req->iov[i].iov_len & io_mask))
			return true;
	return false;
}

/* Copies between the request's vector, from at_bytes on, and a buffer. */
static void copy(const struct dev_req *req, uint64_t at_bytes, unsigned char *buf,
		 uint64_t len_bytes)
{
	const struct iovec *iov = req->iov;

	for (; len_bytes; iov++) {
		uint64_t part_bytes;

		if (at_bytes >= iov->iov_len) {
			at_bytes -= iov->iov_len;
			continue;
		}
		part_bytes = iov->iov_len - at_bytes;
		if (part_bytes > len_bytes)
			part_bytes = len_bytes;
		if (req->op == DEV_READ)
			memcpy((char *)iov->iov_base + at_bytes, buf, part_bytes);
		else
			memcpy(buf, (char *)iov->iov_base + at_bytes, part_bytes);
		at_bytes = 0;
		buf += part_bytes;
		len_bytes -= part_bytes;
	}
}

static void set_io(struct file_io *fio, enum loop_op op, uint64_t off_bytes, uint64_t len_bytes)
{
	fio->io.op = op;
	fio->io.fd = fio->file->fd;
	fio->io.sync = false;
	fio->io.off_bytes = off_bytes;
	fio->io.len_bytes = len_bytes;
}

/* Where the data of a bounced piece begins in its buffer: reads are widened to io_align. */
static uint64_t bounce_skip(const struct file_io *fio)
{
	return (fio->req->off_bytes + fio->at_bytes) & (fio->file->io_align - 1);
}

static void bounce_step(struct file_io *fio)
{
	const struct dev_req *req = fio->req;
	uint64_t mask = fio->file->io_align - 1;
	uint64_t skip_bytes = bounce_skip(fio);
	uint64_t piece_bytes = req->len_bytes - fio->at_bytes;
	uint64_t io_bytes;

	if (piece_bytes > FILE_BOUNCE_BYTES - skip_bytes)
		piece_bytes = FILE_BOUNCE_BYTES - skip_bytes;
	io_bytes = (skip_bytes + piece_bytes + mask) & ~mask;
	set_io(fio, req->op == DEV_READ ? LOOP_READ : LOOP_WRITE,
	       req->off_bytes + fio->at_bytes - skip_bytes, io_bytes);
	fio->io.sync = req->op == DEV_WRITE && req->fua;
	fio->iov[0].iov_base = fio->bounce->data;
	fio->iov[0].iov_len = io_bytes;
	fio->io.iov = fio->iov;
	fio->io.iovcnt = 1;
	fio->piece_bytes = piece_bytes;
	if (req->op == DEV_WRITE)
		copy(req, fio->at_bytes, fio->bounce->data, piece_bytes);
}

static void zeros_step(struct file_io *fio)
{
	const struct dev_req *req = fio->req;
	uint64_t left_bytes = req->len_bytes - fio->at_bytes;
	int n;

	fio->piece_bytes = 0;
	for (n = 0; n < FILE_ZERO_IOVS && left_bytes; n++) {
		uint64_t part_bytes = left_bytes < FILE_ZERO_BYTES ? left_bytes : FILE_ZERO_BYTES;

		fio->iov[n].iov_base = zeros;
		fio->iov[n].iov_len = part_bytes;
		fio->piece_bytes += part_bytes;
		left_bytes -= part_bytes;
	}
	set_io(fio, LOOP_WRITE, req->off_bytes + fio->at_bytes, fio->piece_bytes);
	fio->io.iov = fio->iov;
	fio->io.iovcnt = n;
}

static void set_sticky(struct dev_file *file, int error)
{
	int none = 0;

	/* Release: whoever sees it also sees what led to it. The first error stays. */
	atomic_compare_exchange_strong_explicit(&file->sticky, &none, error,
						memory_order_acq_rel, memory_order_acquire);
}

static int sticky(struct dev_file *file)
{
	return atomic_load_explicit(&file->sticky, memory_order_acquire);
}

static bool finished(struct file_io *fio, int result)
{
	fio->result = result;
	return false;
}

bool file_io_begin(struct file_io *fio)
{
	const struct dev_req *req = fio->req;
	int error = sticky(fio->file);

	fio->stage = FILE_WHOLE;
	fio->at_bytes = 0;
	if (req && (int)req->priv.u64[FILE_PRIV_CHECK])
		return finished(fio, (int)req->priv.u64[FILE_PRIV_CHECK]);
	if (error && (!req || req->op != DEV_READ))
		return finished(fio, error);
	if (!req) {
		set_io(fio, LOOP_FLUSH, 0, 0);
		return true;
	}
	if (!req->len_bytes)
		return finished(fio, 0);
	if (req->priv.u64[FILE_PRIV_BOUNCED]) {
		if (!fio->bounce)
			return finished(fio, -ENOMEM);
		fio->stage = FILE_BOUNCED;
		bounce_step(fio);
		return true;
	}
	if (req->op == DEV_READ || req->op == DEV_WRITE) {
		set_io(fio, req->op == DEV_READ ? LOOP_READ : LOOP_WRITE, req->off_bytes,
		       req->len_bytes);
		fio->io.sync = req->op == DEV_WRITE && req->fua;
		fio->io.iov = req->iov;
		fio->io.iovcnt = req->iovcnt;
		return true;
	}
	set_io(fio, req->op == DEV_ZERO && !fio->file->dev.can_zero ? LOOP_ZERO : LOOP_PUNCH,
	       req->off_bytes, req->len_bytes);
	return true;
}

static bool is_unsupported(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS;
}

/* After a zero or discard: the flush, if it was asked for. */
static bool fua_step(struct file_io *fio)
{
	if (!fio->req->fua)
		return finished(fio, 0);
	fio->stage = FILE_FUA;
	set_io(fio, LOOP_FLUSH, 0, 0);
	return true;
}

static bool failed(struct file_io *fio)
{
	const struct dev_req *req = fio->req;

	if (fio->stage == FILE_WHOLE && fio->io.op == LOOP_PUNCH && req->op == DEV_ZERO &&
	    is_unsupported(fio->io.result)) {
		set_io(fio, LOOP_ZERO, req->off_bytes, req->len_bytes);
		return true;
	}
	if (fio->stage == FILE_WHOLE && fio->io.op == LOOP_ZERO && is_unsupported(fio->io.result)) {
		fio->stage = FILE_ZEROS;
		zeros_step(fio);
		return true;
	}
	/* A discard is a hint: what it could not free is still there, at every read. */
	if (fio->io.op == LOOP_PUNCH && is_unsupported(fio->io.result))
		return finished(fio, 0);
	if (!req || (req->fua && req->op != DEV_READ))
		set_sticky(fio->file, fio->io.result);
	return finished(fio, fio->io.result);
}

bool file_io_next(struct file_io *fio)
{
	const struct dev_req *req = fio->req;

	if (fio->io.result < 0)
		return failed(fio);
	switch (fio->stage) {
	case FILE_WHOLE:
		if (req && (req->op == DEV_ZERO || req->op == DEV_DISCARD))
			return fua_step(fio);
		break;
	case FILE_BOUNCED:
		if (req->op == DEV_READ)
			copy(req, fio->at_bytes, fio->bounce->data + bounce_skip(fio),
			     fio->piece_bytes);
		fio->at_bytes += fio->piece_bytes;
		if (fio->at_bytes == req->len_bytes)
			return finished(fio, 0);
		bounce_step(fio);
		return true;
	case FILE_ZEROS:
		fio->at_bytes += fio->piece_bytes;
		if (fio->at_bytes == req->len_bytes)
			return fua_step(fio);
		zeros_step(fio);
		return true;
	case FILE_FUA:
		break;
	}
	/* What failed while a flush was under way may have taken the flush's data with it. */
	return finished(fio, fio->io.op == LOOP_FLUSH ? sticky(fio->file) : 0);
}
