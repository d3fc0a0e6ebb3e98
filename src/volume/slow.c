/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that the engine cannot take as they are: not aligned to the volume's blocks, longer
 * than it takes at once, or with more memory than length.
 *
 * Such a request is cut into pieces, done one after the other. A read is widened to whole blocks,
 * what is too much goes into a scratch block. Of a write, a piece whose ends are not aligned is a
 * read-modify-write under an exclusive range:
 *
 *	range -> grace -> read first block -> read last block -> write it all -> range back
 *
 * Grace. The read must see every write that began before the range was taken: if it missed one
 * that was reserved but not yet published, the bytes around ours would be written back as they
 * were before that write. Writes that begin later see the range and wait. Those that are under way
 * are waited for as in read-copy-update: the current phase is flipped, and when the counter of the
 * old phase is zero all of them have ended. Read-modify-writes that come meanwhile wait together
 * for the next flip.
 *
 * Invariants
 *   1. While grace is false, the counter of the phase that is not current is zero.
 *   2. The blocks of a granted exclusive range are written by nobody but its owner, once the
 *      owner has passed its grace.
 *   3. A piece of a write is one request to the engine: it is atomic. FUA is asked of the last
 *      piece only; the log becomes durable in order.
 *   4. What a request allocates it allocates when it starts, once; a waiting one grows nothing.
 *
 * No deadlock: a range's owner waits for its grace, whose writes have room reserved or are queued
 * for it in the log, and never wait for a range again.
 *
 * Locks: the host's, for ranges, phase and grace lists.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "volume/volume.h"

enum slow_step {
	SLOW_HEAD, /* the first block is being read */
	SLOW_TAIL, /* the last */
	SLOW_MAIN, /* the piece itself is with the engine */
};

struct vio_slow {
	enum slow_step step;
	bool graced;
	uint64_t end;                    /* of the request */
	uint64_t start, stop;            /* the piece, in bytes of the request */
	uint64_t cover_start, cover_end; /* the same in whole blocks */
	char *head, *tail;               /* one block each */
	const struct iovec *from;        /* the user's memory that is not yet in a piece */
	size_t from_skip;
	int iovcnt; /* of iov */
	struct iovec iov[];
};

static uint64_t block_down(const struct vio *v, uint64_t bytes)
{
	return bytes & ~(uint64_t)(v->vol->block_bytes - 1);
}

static uint64_t block_up(const struct vio *v, uint64_t bytes)
{
	return block_down(v, bytes + v->vol->block_bytes - 1);
}

static bool is_rmw(struct vio *v)
{
	const struct vio_slow *s = v->slow;

	return vio_io(v)->op != VARVE_READ &&
	       (s->start != s->cover_start || s->stop != s->cover_end);
}

/* ---- grace --------------------------------------------------------------------------------- */

static void watch_update(struct varve_volume *vol)
{
	const int state = atomic_load_explicit(&vol->state, memory_order_relaxed);
	const bool acquiring = state == VOLUME_ACQUIRING && !vol->acquire_started;

	atomic_store(&vol->watch, vol->grace || acquiring || state == VOLUME_PAUSED);
}

/* Begins to wait for the writes of the current phase. */
static void grace_flip(struct varve_volume *vol)
{
	vol->phase ^= 1;
	vol->grace = true;
	/* Before the counter is read: pairs with vio_uncount() (io.c, invariant 4). */
	atomic_store(&vol->watch, true);
}

static bool grace_over(struct varve_volume *vol)
{
	return atomic_load(&vol->inflight[vol->phase ^ 1]) == 0;
}

void slow_grace_check(struct varve_volume *vol)
{
	struct list_head *link;

	while (vol->grace && grace_over(vol)) {
		vol->grace = false;
		while ((link = list_pop(&vol->grace_now)))
			vio_resume_later(vio_of_req(list_entry(link, struct dev_req, link)));
		if (!list_empty(&vol->grace_next)) {
			list_splice_tail(&vol->grace_next, &vol->grace_now);
			grace_flip(vol);
		}
	}
	watch_update(vol);
}

/* Entered. Whether v may go on; else it is resumed when the writes of now have ended. */
static bool grace_passed(struct vio *v)
{
	struct varve_volume *vol = v->vol;

	v->slow->graced = true;
	if (vol->grace) {
		list_add_tail(&v->req.link, &vol->grace_next);
		return false;
	}
	grace_flip(vol);
	if (!grace_over(vol)) {
		list_add_tail(&v->req.link, &vol->grace_now);
		return false;
	}
	vol->grace = false;
	watch_update(vol);
	return true;
}

/* ---- pieces -------------------------------------------------------------------------------- */

static void add_memory(struct vio_slow *s, void *base, uint64_t len)
{
	if (!len)
		return;
	s->iov[s->iovcnt].iov_base = base;
	s->iov[s->iovcnt].iov_len = len;
	s->iovcnt++;
}

/* The user's next len bytes. */
static void add_user(struct vio_slow *s, uint64_t len)
{
	while (len) {
		const size_t left = s->from->iov_len - s->from_skip;
		const size_t take = left < len ? left : len;

		add_memory(s, (char *)s->from->iov_base + s->from_skip, take);
		len -= take;
		s->from_skip += take;
		if (s->from_skip == s->from->iov_len) {
			s->from++;
			s->from_skip = 0;
		}
	}
}

/* Chooses the piece that begins at s->start, which is not the end. */
static void plan(struct vio *v)
{
	struct vio_slow *s = v->slow;
	const struct varve_volume *vol = v->vol;
	uint64_t most = block_down(v, s->start) + volume_max_io(vol);

	if (vio_io(v)->op == VARVE_ZERO) {
		/* Zeroes of whole blocks have no length to fear; their ends are blocks of data. */
		if (s->start != block_down(v, s->start) || s->end < block_up(v, s->start + 1))
			most = block_up(v, s->start + 1);
		else
			most = block_down(v, s->end);
	}
	s->stop = s->end < most ? s->end : most;
	s->cover_start = block_down(v, s->start);
	s->cover_end = block_up(v, s->stop);
	s->step = SLOW_HEAD;
	s->graced = false;
}

/* Whether the last block of the piece has to be read by itself. */
static bool reads_tail(const struct vio *v)
{
	const struct vio_slow *s = v->slow;
	const bool head_has_it = s->start != s->cover_start &&
				 s->cover_end - s->cover_start == v->vol->block_bytes;

	return s->stop != s->cover_end && !head_has_it;
}

/* Lays out the memory of the whole piece: what surrounds it, and the user's. */
static void gather(struct vio *v)
{
	struct vio_slow *s = v->slow;
	const uint32_t block = v->vol->block_bytes;
	const uint64_t before = s->start - s->cover_start, after = s->cover_end - s->stop;
	char *last = reads_tail(v) || vio_io(v)->op == VARVE_READ ? s->tail : s->head;

	s->iovcnt = 0;
	add_memory(s, s->head, before);
	if (vio_io(v)->op == VARVE_ZERO) {
		/* A piece with data is one block; the user's part becomes zeros in place. */
		memset(last + (s->start - s->cover_start), 0, s->stop - s->start);
		add_memory(s, last + before, s->stop - s->start);
	} else {
		add_user(s, s->stop - s->start);
	}
	add_memory(s, last + block - after, after);
	v->req.iov = s->iov;
	v->req.iovcnt = s->iovcnt;
}

static void read_block(struct vio *v, enum slow_step step, char *block, uint64_t off)
{
	v->slow->step = step;
	v->req.op = DEV_READ;
	v->req.fua = false;
	v->req.off_bytes = off;
	dev_req_buf(&v->req, block, v->vol->block_bytes);
	v->go = vio_go_read;
	vio_go_read(v);
}

static void main_step(struct vio *v)
{
	struct vio_slow *s = v->slow;
	const struct varve_io *io = vio_io(v);
	const bool rmw = is_rmw(v);

	s->step = SLOW_MAIN;
	v->req.off_bytes = s->cover_start;
	v->req.len_bytes = s->cover_end - s->cover_start;
	v->req.fua = (io->flags & VARVE_FUA) && s->stop == s->end;
	if (io->op == VARVE_ZERO && !rmw) {
		v->req.op = DEV_ZERO;
		v->req.iovcnt = 0;
	} else {
		v->req.op = io->op == VARVE_READ ? DEV_READ : DEV_WRITE;
		gather(v);
	}
	v->go = io->op == VARVE_READ ? vio_go_read : vio_go_mutate;
	v->go(v);
}

/* The first read of a read-modify-write, which has at least one. */
static void first_step(struct vio *v)
{
	const struct vio_slow *s = v->slow;

	if (s->start != s->cover_start)
		read_block(v, SLOW_HEAD, s->head, s->cover_start);
	else
		read_block(v, SLOW_TAIL, s->tail, s->cover_end - v->vol->block_bytes);
}

/* Starts a read-modify-write: the right, the range, the grace; called again after each wait. */
static void go_rmw(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	struct vio_slow *s = v->slow;
	bool ready = false;
	int rc;

	volume_enter(vol);
	rc = vio_gate_mutation(v);
	if (rc > 0) {
		if (!v->range.granted) {
			v->range.start = s->cover_start;
			v->range.end = s->cover_end;
			v->range.exclusive = true;
			rangelock_add(&vol->ranges, &v->range);
		}
		ready = v->range.granted && (s->graced || grace_passed(v));
	}
	volume_leave(vol);
	if (rc < 0) {
		v->req.result = rc;
		slow_piece_done(v);
	} else if (ready) {
		first_step(v);
	}
}

static void go_piece(struct vio *v)
{
	plan(v);
	if (is_rmw(v)) {
		v->go = go_rmw;
		go_rmw(v);
	} else {
		main_step(v);
	}
}

static void end(struct vio *v, int result)
{
	free(v->slow);
	v->slow = NULL;
	vio_finish(v, result);
}

/* A step is over: with the piece, or with one of the reads before it. */
void slow_piece_done(struct vio *v)
{
	struct vio_slow *s = v->slow;
	const int result = v->req.result;

	vio_uncount(v);
	if (!result && s->step != SLOW_MAIN) {
		if (s->step == SLOW_HEAD && reads_tail(v))
			read_block(v, SLOW_TAIL, s->tail, s->cover_end - v->vol->block_bytes);
		else
			main_step(v);
		return;
	}
	if (v->range.granted)
		vio_release_range(v);
	s->start = s->stop;
	if (result || s->start == s->end)
		end(v, result);
	else
		go_piece(v);
}

void slow_start(struct vio *v)
{
	const struct varve_io *io = vio_io(v);
	const uint32_t block = v->vol->block_bytes;
	const size_t vectors = ((size_t)io->iovcnt + 3) * sizeof(struct iovec);
	struct vio_slow *s = malloc(sizeof(*s) + vectors + 2 * (size_t)block);

	if (!s) {
		vio_finish(v, -ENOMEM);
		return;
	}
	*s = (struct vio_slow){
		.end = io->offset + io->length,
		.start = io->offset,
		.head = (char *)s->iov + vectors,
		.tail = (char *)s->iov + vectors + block,
		.from = io->iov,
	};
	v->slow = s;
	go_piece(v);
}
