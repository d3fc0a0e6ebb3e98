/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests: from varve_submit() to done().
 *
 * The hot path is an aligned write that finds room: enter, reserve, leave; fill; enter, publish,
 * leave, and done() is called by that leave. It takes no clock, no memory, no system call, and
 * nothing else shared but two counter updates. A read is the same with begin and copy.
 *
 * A request lives in the caller's struct varve_io (struct vio), and is at any time in one place:
 * with the engine; in vol->waiting while the writer's right is being taken; with a range lock or
 * in a grace list (slow.c); or on its way through host->ready. v->go() starts it, and starts it
 * again after a wait, from the top: it tests everything anew.
 *
 * Counters. A request is counted while the engine has it: mutations in the phase in which they
 * began, all else in one. Whoever takes a counter to zero looks at vol->watch.
 *
 * Invariants
 *   1. done() is the library's last use of the varve_io, and, on that thread, of the volume.
 *   2. Every end goes through vio_finish() or the engine's ready list: done() never recurses.
 *   3. A mutation enters the engine only in WRITABLE, after rangelock_meets() said no, or holding
 *      its range.
 *   4. watch is set, locked, before somebody waits for a counter, and the counter is read after
 *      that; the counter is lowered before watch is read. Both are sequentially consistent, so one
 *      of the two sees the other.
 *
 * Locks: the host's. Nothing is called with it held but the engine and rangelock.
 */
#include <errno.h>
#include <limits.h>

#include "volume/volume.h"

static void engine_done(struct dev_req *req);

/* ---- counting ------------------------------------------------------------------------------ */

static void count(struct vio *v, unsigned int kind)
{
	v->inflight = (uint8_t)kind;
	atomic_fetch_add_explicit(&v->vol->inflight[kind], 1, memory_order_relaxed);
}

static void uncount_watched(struct varve_volume *vol)
{
	volume_enter(vol);
	slow_grace_check(vol);
	acquire_check(vol, NULL);
	volume_leave(vol);
}

void vio_uncount(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	const unsigned int kind = v->inflight;

	if (kind == INFLIGHT_NONE)
		return;
	v->inflight = INFLIGHT_NONE;
	/* Pairs with the store to watch in slow.c and acquire.c (invariant 4). */
	if (atomic_fetch_sub(&vol->inflight[kind], 1) == 1 && atomic_load(&vol->watch))
		uncount_watched(vol);
}

/* ---- ends ---------------------------------------------------------------------------------- */

void vio_range_granted(struct range *range)
{
	vio_resume_later(container_of(range, struct vio, range));
}

void vio_release_range(struct vio *v)
{
	struct varve_volume *vol = v->vol;

	volume_enter(vol);
	rangelock_del(&vol->ranges, &v->range, vio_range_granted);
	volume_leave(vol);
}

/* The end of a request of one piece, from the engine or from vio_finish(). */
static void vio_done(struct dev_req *req)
{
	struct vio *v = vio_of_req(req);
	struct varve_io *io = vio_io(v);

	if (v->range.granted)
		vio_release_range(v);
	vio_uncount(v);
	io->result = req->result;
	io->done(io);
}

void vio_finish(struct vio *v, int result)
{
	v->req.done = vio_done;
	v->req.result = result;
	vhost_deliver(&v->req);
}

static void vio_resume(struct dev_req *req)
{
	struct vio *v = vio_of_req(req);

	v->go(v);
}

void vio_refuse_later(struct vio *v, int error)
{
	v->refused = true;
	v->req.result = error;
	v->req.done = engine_done;
	vhost_ready(&v->vol->h, &v->req);
}

void vio_resume_later(struct vio *v)
{
	v->req.done = vio_resume;
	vhost_ready(&v->vol->h, &v->req);
}

/* ---- gates --------------------------------------------------------------------------------- */

static void wait_for_acquire(struct vio *v)
{
	list_add_tail(&v->req.link, &v->vol->waiting);
}

int vio_gate_mutation(struct vio *v)
{
	struct varve_volume *vol = v->vol;

	switch (atomic_load_explicit(&vol->state, memory_order_relaxed)) {
	case VOLUME_WRITABLE:
		return 1;
	case VOLUME_FAILED:
		return vol->failed;
	case VOLUME_LOOKING:
		atomic_store(&vol->state, VOLUME_ACQUIRING);
		vol->acquire_started = false;
		wait_for_acquire(v);
		acquire_check(vol, v);
		return 0;
	default:
		wait_for_acquire(v);
		return 0;
	}
}

static int gate_other(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	const int state = atomic_load_explicit(&vol->state, memory_order_relaxed);

	if (state == VOLUME_FAILED)
		return vol->failed;
	if (state != VOLUME_ACQUIRING && state != VOLUME_PAUSED)
		return 1;
	wait_for_acquire(v);
	return 0;
}

/* Entered: the size may have changed since the request was checked, or while it waited. */
static bool beyond_end(const struct vio *v)
{
	return v->req.off_bytes + v->req.len_bytes > volume_size(v->vol);
}

/* Entered: whether v may go on as far as ranges are concerned; else it was queued. */
static bool range_clear(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	const uint64_t start = v->req.off_bytes;
	const uint64_t end = start + v->req.len_bytes;

	if (v->range.granted || !rangelock_meets(&vol->ranges, start, end))
		return true;
	v->range.start = start;
	v->range.end = end;
	v->range.exclusive = false;
	return rangelock_add(&vol->ranges, &v->range);
}

/* ---- the three kinds of requests ----------------------------------------------------------- */

#define RUN 2 /* by the home, which has no log before it */

static_assert(sizeof(struct work) <= sizeof(((struct dev_req *)NULL)->priv), "fits priv");

static void run_now(struct vio *v)
{
	struct home *home = v->vol->home;

	v->req.result = home->ops->run(home, &v->req);
	vhost_deliver(&v->req);
}

static void run_by_worker(struct work *work)
{
	struct dev_req *req = (void *)((char *)work - offsetof(struct dev_req, priv));

	run_now(vio_of_req(req));
}

/* Submit never blocks: what may sleep is for a worker, unless the caller waits anyway. */
static void run(struct vio *v)
{
	struct home *home = v->vol->home;
	struct work *work = (void *)&v->req.priv;

	if (v->sync || !home->ops->may_sleep(home)) {
		run_now(v);
		return;
	}
	work->run = run_by_worker;
	host_defer(&v->vol->h.host, work);
}

void vio_go_mutate(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	int rc;

	v->req.done = engine_done;
	volume_enter(vol);
	rc = vio_gate_mutation(v);
	if (rc > 0) {
		rc = beyond_end(v) ? -EINVAL : 0;
		if (!rc && range_clear(v)) {
			count(v, vol->phase);
			rc = vol->log ? wlog_reserve(vol->log, &v->req) : RUN;
		}
	}
	volume_leave(vol);
	/* At 0 the request may be anywhere by now, even finished. */
	if (rc == RUN) {
		run(v);
	} else if (rc > 0) {
		const bool fua = v->req.fua;

		wlog_fill(vol->log, &v->req);
		volume_enter(vol);
		wlog_publish(vol->log, &v->req);
		vhost_lazy(!fua);
		volume_leave(vol);
		vhost_lazy(false);
	} else if (rc < 0) {
		v->req.result = rc;
		vhost_deliver(&v->req);
	}
}

void vio_go_read(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	struct wlog *log = NULL;
	int rc;

	v->req.done = engine_done;
	volume_enter(vol);
	rc = gate_other(v);
	if (rc > 0 && beyond_end(v))
		rc = -EINVAL;
	if (rc > 0) {
		count(v, INFLIGHT_OTHER);
		log = vol->log;
		if (log)
			wlog_read_begin(log, &v->req);
		else if (vol->home->ops->no_log)
			rc = RUN;
		else
			vol->home->ops->read(vol->home, &v->req);
	}
	volume_leave(vol);
	if (rc == RUN) {
		run(v);
	} else if (log) {
		wlog_read_copy(log, &v->req);
	} else if (rc < 0) {
		v->req.result = rc;
		vhost_deliver(&v->req);
	}
}

static void go_flush(struct vio *v)
{
	struct varve_volume *vol = v->vol;
	bool clean;
	int rc;

	v->req.done = engine_done;
	volume_enter(vol);
	rc = gate_other(v);
	/* Before the first mutation there is nothing that could be lost; nor is there without a
	 * log, where what is done is durable. */
	clean = rc > 0 && (vol->home->ops->no_log ||
			   atomic_load_explicit(&vol->state, memory_order_relaxed) ==
				   VOLUME_LOOKING);
	if (rc > 0 && !clean) {
		count(v, INFLIGHT_OTHER);
		wlog_flush(vol->log, &v->req);
	}
	volume_leave(vol);
	if (clean || rc < 0)
		vio_finish(v, clean ? 0 : rc);
}

/* ---- the beginning ------------------------------------------------------------------------- */

/* The engine's done: for one-piece requests the end, else slow.c goes on. */
static void engine_done(struct dev_req *req)
{
	struct vio *v = vio_of_req(req);

	if (v->slow)
		slow_piece_done(v);
	else
		vio_done(req);
}

static bool is_mutation(enum varve_op op)
{
	return op == VARVE_WRITE || op == VARVE_DISCARD || op == VARVE_ZERO;
}

/* No sum of mapped memory overflows; of anything else the engine would fault anyway. */
static uint64_t iov_bytes(const struct varve_io *io)
{
	uint64_t sum = 0;

	for (int i = 0; i < io->iovcnt; i++)
		sum += io->iov[i].iov_len;
	return sum;
}

static int check_iov(const struct varve_io *io)
{
	if (io->iovcnt < 0 || io->iovcnt > IOV_MAX || (io->length && !io->iov))
		return -EINVAL;
	return iov_bytes(io) < io->length ? -EINVAL : 0;
}

/* 0, or why the request is refused whatever the volume's state. */
static int check(const struct varve_volume *vol, const struct varve_io *io)
{
	const uint64_t size = volume_size(vol);

	if (volume_forked(vol))
		return -EOWNERDEAD;
	if ((unsigned int)io->op > VARVE_ZERO || (io->flags & ~(unsigned int)VARVE_FUA))
		return -EINVAL;
	if (io->op == VARVE_FLUSH)
		return 0;
	if (is_mutation(io->op) && vol->read_only)
		return -EROFS;
	if (io->offset > size || io->length > size - io->offset)
		return -EINVAL;
	return io->op == VARVE_READ || io->op == VARVE_WRITE ? check_iov(io) : 0;
}

static enum dev_op dev_op_of(enum varve_op op)
{
	static const enum dev_op ops[] = {
		[VARVE_READ] = DEV_READ,   [VARVE_WRITE] = DEV_WRITE,
		[VARVE_FLUSH] = DEV_FLUSH, [VARVE_DISCARD] = DEV_DISCARD,
		[VARVE_ZERO] = DEV_ZERO,
	};

	return ops[op];
}

/*
 * Of a discard only whole blocks count: the rest of the range stays as it was. Nothing of it counts
 * with block 0.
 */
static void trim_discard(struct vio *v, uint32_t block)
{
	uint64_t end;

	if (!block) {
		v->req.len_bytes = 0;
		return;
	}
	end = (v->req.off_bytes + v->req.len_bytes) / block * block;
	v->req.off_bytes = (v->req.off_bytes + block - 1) / block * block;
	v->req.len_bytes = end > v->req.off_bytes ? end - v->req.off_bytes : 0;
}

/* Whether one request to the engine will do: blocks, and memory that sums up exactly. */
static bool is_plain(const struct varve_volume *vol, const struct varve_io *io)
{
	if ((io->offset | io->length) & (vol->block_bytes - 1))
		return false;
	if (io->op == VARVE_ZERO)
		return true;
	if (io->length > volume_max_io(vol))
		return false;
	return iov_bytes(io) == io->length;
}

static void prepare(struct vio *v, const struct varve_io *io)
{
	v->req.op = dev_op_of(io->op);
	v->req.fua = io->flags & VARVE_FUA;
	v->req.off_bytes = io->offset;
	v->req.len_bytes = io->length;
	v->req.iov = io->iov;
	v->req.iovcnt = io->iovcnt;
}

void vio_start(struct varve_volume *vol, struct varve_io *io, bool sync)
{
	struct vio *v = vio_of(io);
	const int rc = check(vol, io);

	v->vol = vol;
	v->slow = NULL;
	v->range.granted = false;
	v->inflight = INFLIGHT_NONE;
	v->sync = sync;
	v->runs_acquire = false;
	v->refused = false;
	if (rc || (!io->length && io->op != VARVE_FLUSH)) {
		vio_finish(v, rc);
		return;
	}
	prepare(v, io);
	if (io->op == VARVE_FLUSH) {
		v->go = go_flush;
	} else if (io->op == VARVE_DISCARD) {
		trim_discard(v, vol->discards ? vol->block_bytes : 0);
		v->go = vio_go_mutate;
	} else if (is_plain(vol, io)) {
		v->go = io->op == VARVE_READ ? vio_go_read : vio_go_mutate;
	} else {
		slow_start(v);
		return;
	}
	if (!v->req.len_bytes && v->go != go_flush)
		vio_finish(v, 0);
	else
		v->go(v);
}

void varve_submit(struct varve_volume *volume, struct varve_io *io)
{
	vio_start(volume, io, false);
}
