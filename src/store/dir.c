/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The directory store: opening, requests and threads. What a request does is in dir_put.c and
 * dir_get.c; how the files lie is in dir.h.
 *
 * All system calls block, so requests wait in a queue (queue.h). kick wakes as many workers as
 * there are requests; each takes requests until there are none. help and poll(wait) run requests
 * on the calling thread.
 *
 * Invariants
 *  1. A worker is busy from the moment it is deferred until it has seen the queue empty, under
 *     queue.lock; so a request that is queued before a kick is taken by somebody.
 *  2. Opening writes nothing.
 *
 * Locks: queue.lock (queue, busy), shard_lock, bounce_lock, change_lock, owner_lock; what each
 * guards is in dir_impl.h. None is taken while another is held.
 */
#include "store/dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "store/dir_impl.h"

#define THREADS_DEFAULT 4u

static int run(struct store *store, struct store_req *req)
{
	struct dir_store *dir = dir_of(store);

	/* A list's key is a prefix: it may be a part of ours, or the other way round. */
	if (req->op == STORE_LIST)
		return dir_list(dir, req);
	if (!dir_key_ours(dir, req->key))
		return -EINVAL;
	switch (req->op) {
	case STORE_PUT_NEW:
		return dir_put_new(dir, req);
	case STORE_REPLACE:
		return dir_replace(dir, req);
	case STORE_GET:
		return dir_get(dir, req);
	case STORE_HEAD:
		return dir_head(dir, req);
	default:
		return dir_delete(dir, req);
	}
}

static void worker_run(struct work *work)
{
	struct dir_worker *w = container_of(work, struct dir_worker, work);
	struct store_queue *q = &w->dir->queue;
	bool more = true;

	while (more) {
		while (store_queue_run_one(q))
			;
		pthread_mutex_lock(&q->lock);
		more = !list_empty(&q->list);
		w->busy = more;
		pthread_mutex_unlock(&q->lock);
	}
}

static void dir_submit(struct store *store, struct store_req *req)
{
	store_queue_submit(&dir_of(store)->queue, req);
}

static void dir_kick(struct store *store)
{
	struct dir_store *dir = dir_of(store);
	struct dir_worker *wake[DIR_THREADS_MAX];
	unsigned n = 0;

	pthread_mutex_lock(&dir->queue.lock);
	for (unsigned i = 0; i < dir->threads && n < dir->queue.queued; i++) {
		if (dir->worker[i].busy)
			continue;
		dir->worker[i].busy = true;
		wake[n++] = &dir->worker[i];
	}
	pthread_mutex_unlock(&dir->queue.lock);
	while (n)
		workers_defer(dir->workers, &wake[--n]->work);
}

static bool dir_help(struct store *store)
{
	return store_queue_run_one(&dir_of(store)->queue);
}

static int dir_poll(struct store *store, bool wait)
{
	struct store_queue *q = &dir_of(store)->queue;

	/* The workers deliver. Who would sleep may as well work. */
	if (!wait)
		return 0;
	return store_queue_run_one(q) ? 1 : store_queue_wait(q);
}

static void dir_counters(struct store *store, struct store_counters *ret)
{
	store_queue_counters(&dir_of(store)->queue, ret);
}

static void free_dir(struct dir_store *dir)
{
	struct dir_bounce *b, *tmp;

	dir_shards_close(dir);
	list_for_each_entry_safe(b, tmp, &dir->bounces, struct dir_bounce, link) {
		free(b->data);
		free(b);
	}
	pthread_mutex_destroy(&dir->shard_lock);
	pthread_mutex_destroy(&dir->bounce_lock);
	pthread_mutex_destroy(&dir->change_lock);
	pthread_mutex_destroy(&dir->owner_lock);
	free(dir->path);
	free(dir);
}

static void dir_close(struct store *store)
{
	struct dir_store *dir = dir_of(store);

	workers_close(dir->workers);
	store_queue_close(&dir->queue);
	dir_unlock(store, NULL);
	free_dir(dir);
}

static const struct store_ops dir_ops = {
	.name = "dir",
	.submit = dir_submit,
	.kick = dir_kick,
	.help = dir_help,
	.poll = dir_poll,
	.counters = dir_counters,
	.lock = dir_lock,
	.unlock = dir_unlock,
	.close = dir_close,
};

static bool ends_with(const char *text, const char *end)
{
	size_t a = strlen(text), b = strlen(end);

	return a >= b && strcmp(text + a - b, end) == 0;
}

/* Splits /path/base; the base is checked, the path opened. */
static int set_path(struct dir_store *dir, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	char *parent;

	if (!store_key_valid(base))
		return err_set(err, -EINVAL, "%s: '%s' is no name for a volume: it takes 1 to %d "
			       "of A-Z a-z 0-9 . _ - and does not begin with a dot", path, base,
			       STORE_KEY_MAX);
	if (ends_with(base, ".d") || ends_with(base, ".lock"))
		return err_set(err, -EINVAL, "%s: a volume's name may not end in .d or .lock, as "
			       "those of its neighbours' files do", path);
	memcpy(dir->base, base, strlen(base) + 1);
	dir->path = strdup(path);
	parent = !slash ? strdup(".") : slash == path ? strdup("/")
						      : strndup(path, (size_t)(slash - path));
	if (!dir->path || !parent) {
		free(parent);
		return err_sys(err, -ENOMEM, "%s", path);
	}
	dir->top.fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir->top.fd < 0) {
		int error = -errno;

		err_sys(err, error, "opening the directory %s", parent);
		free(parent);
		return error;
	}
	free(parent);
	return 0;
}

static struct dir_store *new_dir(unsigned threads)
{
	struct dir_store *dir = calloc(1, sizeof(*dir));

	if (!dir)
		return NULL;
	dir->store.ops = &dir_ops;
	dir->threads = threads;
	dir->top.fd = dir->objects_fd = dir->owner_fd = -1;
	for (unsigned n = 0; n < DIR_SHARDS; n++)
		dir->shard[n].fd = -1;
	for (unsigned i = 0; i < threads; i++)
		dir->worker[i] = (struct dir_worker){.work.run = worker_run, .dir = dir};
	pthread_mutex_init(&dir->shard_lock, NULL);
	pthread_mutex_init(&dir->bounce_lock, NULL);
	pthread_mutex_init(&dir->change_lock, NULL);
	pthread_mutex_init(&dir->owner_lock, NULL);
	list_init(&dir->bounces);
	dir->have_proc = access("/proc/self/fd", X_OK) == 0;
	/* A clash of names is no harm: the file is created exclusively. */
	if (getrandom(&dir->nonce, sizeof(dir->nonce), GRND_NONBLOCK) < 0)
		dir->nonce = (uint64_t)time(NULL) * 65536 + (uint64_t)getpid();
	return dir;
}

int dir_store_open(const char *path, const struct dir_store_options *opt, struct store **ret,
		   struct err *err)
{
	unsigned threads = opt && opt->threads ? opt->threads : THREADS_DEFAULT;
	struct dir_store *dir;
	int error;

	if (threads > DIR_THREADS_MAX)
		return err_set(err, -EINVAL, "%s: %u threads; at most %u are possible", path,
			       threads, DIR_THREADS_MAX);
	dir = new_dir(threads);
	if (!dir)
		return err_sys(err, -ENOMEM, "%s", path);
	error = set_path(dir, path, err);
	if (error == 0) {
		error = workers_open("varve-dir", threads, &dir->workers);
		if (error)
			err_sys(err, error, "%s: starting threads", path);
	}
	if (error) {
		free_dir(dir);
		return error;
	}
	store_queue_init(&dir->queue, &dir->store, run);
	*ret = &dir->store;
	return 0;
}
