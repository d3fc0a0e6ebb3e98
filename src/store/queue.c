/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue of requests of a blocking store.
 *
 * A list under a lock; and two thread-local variables: at which queue this thread last waited and
 * how many finished requests it had seen there; and the stack of store_queue_run_all() calls that
 * it is in, whose elements live in the callers' frames.
 *
 * Invariants
 *  1. done() is called before finished counts it, under the lock: whoever has seen the count also
 *     sees the effects of done().
 *  2. A thread sleeps in store_queue_wait() only while finished is what it was at the thread's
 *     last call, the list is empty, and something runs.
 *
 * Locks: q->lock guards the fields that queue.h says. No call leaves here with it.
 */
#include "store/queue.h"

struct frame {
	const struct store_queue *q;
	struct frame *up;
};

static _Thread_local struct {
	uint64_t id;
	uint64_t finished;
} seen;

static _Thread_local struct frame *frames;

static _Atomic uint64_t last_id;

void store_queue_init(struct store_queue *q, struct store *store,
		      int (*run)(struct store *store, struct store_req *req))
{
	*q = (struct store_queue){.store = store, .run = run};
	q->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->moved, NULL);
	list_init(&q->list);
}

void store_queue_close(struct store_queue *q)
{
	pthread_mutex_lock(&q->lock);
	while (q->running)
		pthread_cond_wait(&q->moved, &q->lock);
	pthread_mutex_unlock(&q->lock);
	pthread_cond_destroy(&q->moved);
	pthread_mutex_destroy(&q->lock);
}

unsigned store_queue_submit(struct store_queue *q, struct store_req *req)
{
	unsigned queued;

	pthread_mutex_lock(&q->lock);
	list_add_tail(&req->link, &q->list);
	queued = ++q->queued;
	pthread_mutex_unlock(&q->lock);
	return queued;
}

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static void count(struct store_queue *q, const struct store_req *req)
{
	if (req->result)
		add(&q->errors, 1);
	switch (req->op) {
	case STORE_PUT_NEW:
	case STORE_REPLACE:
		add(&q->puts, 1);
		add(&q->put_bytes, req->len_bytes);
		break;
	case STORE_GET:
		add(&q->gets, 1);
		add(&q->get_bytes, req->len_bytes);
		break;
	case STORE_LIST:
		add(&q->lists, 1);
		break;
	case STORE_DELETE:
		add(&q->deletes, 1);
		break;
	case STORE_HEAD:
		break;
	}
}

bool store_queue_run_one(struct store_queue *q)
{
	struct list_head *link;
	struct store_req *req;

	pthread_mutex_lock(&q->lock);
	link = list_pop(&q->list);
	if (link) {
		q->queued--;
		q->running++;
	}
	pthread_mutex_unlock(&q->lock);
	if (!link)
		return false;
	req = list_entry(link, struct store_req, link);
	req->result = store_req_check(req);
	if (req->result == 0)
		req->result = q->run(q->store, req);
	count(q, req);
	req->done(req);
	pthread_mutex_lock(&q->lock);
	q->running--;
	q->finished++;
	pthread_cond_broadcast(&q->moved);
	pthread_mutex_unlock(&q->lock);
	return true;
}

int store_queue_run_all(struct store_queue *q)
{
	struct frame here = {q, frames};
	int n = 0;

	for (struct frame *f = frames; f; f = f->up)
		if (f->q == q)
			return 0;
	frames = &here;
	while (store_queue_run_one(q))
		n++;
	frames = here.up;
	return n;
}

int store_queue_wait(struct store_queue *q)
{
	int n = 0;

	pthread_mutex_lock(&q->lock);
	if (seen.id == q->id && seen.finished == q->finished) {
		while (seen.finished == q->finished && q->running && list_empty(&q->list))
			pthread_cond_wait(&q->moved, &q->lock);
		n = (int)(q->finished - seen.finished);
	}
	seen.id = q->id;
	seen.finished = q->finished;
	pthread_mutex_unlock(&q->lock);
	return n;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void store_queue_counters(struct store_queue *q, struct store_counters *ret)
{
	*ret = (struct store_counters){
		.puts = get(&q->puts),
		.put_bytes = get(&q->put_bytes),
		.gets = get(&q->gets),
		.get_bytes = get(&q->get_bytes),
		.lists = get(&q->lists),
		.deletes = get(&q->deletes),
		.errors = get(&q->errors),
	};
}
