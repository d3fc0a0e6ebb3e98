/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * See gate.h.
 *
 * Data structure. Two thread-local variables: which gate this thread last waited at and how many
 * deliveries it had seen there; and the stack of sections that it is in, whose elements live in
 * the callers' frames.
 *
 * Invariants.
 *  1. done() of a request is called before delivered counts it, under the lock. So whoever has
 *     seen delivered == n under the lock also sees the effects of the first n calls of done().
 *  2. A thread sleeps in gate_wait() only while delivered is what it was at the thread's last call
 *     and something is in flight: with 1, a caller's loop of look and wait misses nothing.
 *
 * Locks. gate->lock.
 */
#include "dev/gate.h"

#include <errno.h>

static _Thread_local struct {
	uint64_t gate_id;
	uint64_t delivered;
} seen;

static _Thread_local struct gate_frame *frames;

static _Atomic uint64_t last_id;

void gate_init(struct dev_gate *gate)
{
	pthread_mutex_init(&gate->lock, NULL);
	pthread_cond_init(&gate->moved, NULL);
	gate->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
	gate->inflight = 0;
	gate->waiters = 0;
	gate->delivered = 0;
}

void gate_close(struct dev_gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->waiters++;
	while (gate->inflight)
		pthread_cond_wait(&gate->moved, &gate->lock);
	gate->waiters--;
	pthread_mutex_unlock(&gate->lock);
	pthread_cond_destroy(&gate->moved);
	pthread_mutex_destroy(&gate->lock);
}

void gate_begin_locked(struct dev_gate *gate)
{
	gate->inflight++;
}

void gate_end_locked(struct dev_gate *gate)
{
	gate->inflight--;
	gate->delivered++;
	if (gate->waiters)
		pthread_cond_broadcast(&gate->moved);
}

int gate_wait(struct dev_gate *gate, bool wait)
{
	int count = 0;

	if (!wait)
		return 0;
	pthread_mutex_lock(&gate->lock);
	if (seen.gate_id == gate->id && seen.delivered == gate->delivered) {
		gate->waiters++;
		while (seen.delivered == gate->delivered && gate->inflight)
			pthread_cond_wait(&gate->moved, &gate->lock);
		gate->waiters--;
		count = (int)(gate->delivered - seen.delivered);
	}
	seen.gate_id = gate->id;
	seen.delivered = gate->delivered;
	pthread_mutex_unlock(&gate->lock);
	return count;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

void gate_count(struct dev_gate *gate, const struct dev_req *req)
{
	if (req->result < 0)
		add(&gate->errors, 1);
	switch (req->op) {
	case DEV_READ:
		add(&gate->reads, 1);
		add(&gate->read_bytes, req->len_bytes);
		break;
	case DEV_WRITE:
	case DEV_ZERO:
		add(&gate->writes, 1);
		add(&gate->write_bytes, req->len_bytes);
		break;
	case DEV_FLUSH:
		add(&gate->flushes, 1);
		break;
	case DEV_DISCARD:
		add(&gate->discards, 1);
		add(&gate->discard_bytes, req->len_bytes);
		break;
	}
}

static uint64_t get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void gate_counters(struct dev_gate *gate, struct dev_counters *ret)
{
	ret->reads = get(&gate->reads);
	ret->read_bytes = get(&gate->read_bytes);
	ret->writes = get(&gate->writes);
	ret->write_bytes = get(&gate->write_bytes);
	ret->flushes = get(&gate->flushes);
	ret->discards = get(&gate->discards);
	ret->discard_bytes = get(&gate->discard_bytes);
	ret->errors = get(&gate->errors);
}

bool gate_frame_enter(struct gate_frame *frame, const struct dev_gate *gate)
{
	const struct gate_frame *f;

	for (f = frames; f; f = f->up)
		if (f->gate == gate)
			return false;
	frame->gate = gate;
	frame->up = frames;
	frames = frame;
	return true;
}

void gate_frame_leave(struct gate_frame *frame)
{
	frames = frame->up;
}

int gate_check(const struct dev *dev, const struct dev_req *req)
{
	uint64_t align = req->op == DEV_READ ? DEV_SECTOR_BYTES : dev->block_bytes;

	if (req->op == DEV_FLUSH)
		return 0;
	if (req->off_bytes > dev->size_bytes || req->len_bytes > dev->size_bytes - req->off_bytes)
		return -EINVAL;
	if ((req->off_bytes | req->len_bytes) & (align - 1))
		return -EINVAL;
	if (req->op != DEV_READ && dev->read_only)
		return -EROFS;
	return 0;
}
