/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening and closing images.
 *
 * rbd_open() opens the volume, which takes no writer's right, and starts the thread that delivers
 * completions. The first mutation takes the right; then this process is the one that people want
 * to ask, and the control socket is started.
 *
 * An image opened for looking sees what the volume was when it was opened. rbd_invalidate_cache()
 * means "somebody else has written, look again": qemu calls it when a guest arrives by migration.
 * Then the volume is closed and opened again behind the image's back. Once we have written nobody
 * else can have, and nothing is done.
 *
 * fork(): the threads of a volume exist in the process that opened it. A counter that goes up in
 * each child tells; there every call fails with -EOWNERDEAD and touches no lock, since a thread
 * that does not exist may hold it. The memory stays, as does the rest of the parent's.
 *
 * Invariants:
 *   1. volume is used by those who have entered, and changed only when left has reached entered
 *      with the gate closed.
 *   2. The gate does not hold up who runs a callback: a callback of a request that has not
 *      left submits another, and to wait here would be to wait for itself.
 *   3. entered is raised before the gate is looked at; the gate is closed before entered is looked
 *      at; both sequentially consistent. So either the newcomer sees the gate or is waited for.
 *
 * Locks: lock guards the turns of gate_closed and the waiting of image_quiesce(). Taken alone.
 */
#include "image.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "report.h"

#define IMAGE_MAGIC 0x7672766du
/* The size of objects that is told: a power of two of 64 KiB or more. */
#define ORDER_MIN 16
#define ORDER_MAX 25

/* ---- fork ------------------------------------------------------------------------------------ */

/* Written in a child before it has a second thread. */
static unsigned int generation;

static void in_child(void)
{
	generation++;
}

static void watch_forks(void)
{
	pthread_atfork(NULL, NULL, in_child);
}

/* ---- entering -------------------------------------------------------------------------------- */

struct image *image_from(rbd_image_t handle)
{
	struct image *image = handle;

	return image && image->magic == IMAGE_MAGIC ? image : NULL;
}

bool image_is_foreign(const struct image *image)
{
	return image->generation != generation;
}

struct image *image_of_deliver(struct deliver *d)
{
	return (struct image *)(void *)((char *)d - offsetof(struct image, deliver));
}

void image_leave(struct image *image, uint64_t count)
{
	/* Sequentially consistent, as the load: pairs with image_quiesce(). */
	atomic_fetch_add(&image->left, count);
	if (!atomic_load(&image->quiescing))
		return;
	pthread_mutex_lock(&image->lock);
	pthread_cond_broadcast(&image->changed);
	pthread_mutex_unlock(&image->lock);
}

static void wait_at_gate(struct image *image)
{
	image_leave(image, 1);
	pthread_mutex_lock(&image->lock);
	while (atomic_load(&image->gate_closed))
		pthread_cond_wait(&image->changed, &image->lock);
	pthread_mutex_unlock(&image->lock);
}

int image_enter(struct image *image)
{
	if (image_is_foreign(image))
		return -EOWNERDEAD;
	for (;;) {
		atomic_fetch_add(&image->entered, 1);
		if (!atomic_load(&image->gate_closed) || deliver_in_callback(&image->deliver))
			break;
		wait_at_gate(image);
	}
	if (image->volume)
		return 0;
	image_leave(image, 1);
	return -EIO;
}

/* Closes the gate and waits until everybody has left. */
static void image_quiesce(struct image *image)
{
	pthread_mutex_lock(&image->lock);
	/* One at a time. */
	while (atomic_load(&image->gate_closed))
		pthread_cond_wait(&image->changed, &image->lock);
	atomic_store(&image->gate_closed, true);
	atomic_store(&image->quiescing, true);
	for (;;) {
		const uint64_t left = atomic_load(&image->left);

		/* left first: it never passes entered, so equal means that all have left. */
		if (left == atomic_load(&image->entered))
			break;
		pthread_cond_wait(&image->changed, &image->lock);
	}
	atomic_store(&image->quiescing, false);
	pthread_mutex_unlock(&image->lock);
}

static void image_open_gate(struct image *image)
{
	pthread_mutex_lock(&image->lock);
	atomic_store(&image->gate_closed, false);
	pthread_cond_broadcast(&image->changed);
	pthread_mutex_unlock(&image->lock);
}

void image_wrote(struct image *image)
{
	/* Relaxed: what matters is that one comes first. */
	if (atomic_load_explicit(&image->wrote, memory_order_relaxed) ||
	    atomic_exchange_explicit(&image->wrote, true, memory_order_relaxed))
		return;
	/* Data can be served without it, so a failure here is no reason to fail. */
	if (image->options.control && varve_control_start(image->volume, NULL) < 0)
		report("%s: no control socket, \"varve status\" will not work: %s",
		       image->info.name, varve_errmsg());
}

void image_submit_all(struct image *image, struct completion *list)
{
	while (list) {
		struct completion *c = list;

		/* It may be gone when it was submitted. */
		list = c->next;
		varve_submit(image->volume, &c->io);
	}
}

uint64_t image_learn_size(struct image *image)
{
	struct varve_info info;

	varve_get_info(image->volume, &info);
	atomic_store_explicit(&image->size, info.size_bytes, memory_order_relaxed);
	return info.size_bytes;
}

int image_clip(struct image *image, uint64_t offset, uint64_t *length)
{
	const uint64_t size = atomic_load_explicit(&image->size, memory_order_relaxed);

	if (*length == 0)
		return 0;
	if (offset >= size)
		return -EINVAL;
	if (*length > size - offset)
		*length = size - offset;
	return 0;
}

/* ---- opening --------------------------------------------------------------------------------- */

static int volume_open(struct image *image)
{
	int rc = varve_open_with(image->name, image->options.flags,
				 (const char *const *)image->options.settings, &image->volume);
	unsigned int order = ORDER_MIN;

	if (rc < 0) {
		image->volume = NULL;
		report("opening %s: %s", image->name, varve_errmsg());
		return rc;
	}
	varve_get_info(image->volume, &image->info);
	while (order < ORDER_MAX && (1u << order) < image->info.optimal_bytes)
		order++;
	image->order = order;
	atomic_store_explicit(&image->size, image->info.size_bytes, memory_order_relaxed);
	if (image->info.cut)
		report("%s: opened without its cache: the image is cut after LSN %llu, %llu bytes "
		       "known to be lost",
		       image->info.name, (unsigned long long)image->info.cut_lsn,
		       (unsigned long long)image->info.cut_lost_bytes);
	return 0;
}

static int volume_close(struct image *image)
{
	int rc = 0;

	if (image->volume) {
		rc = varve_close(image->volume);
		if (rc < 0)
			report("closing %s: %s", image->info.name, varve_errmsg());
	}
	image->volume = NULL;
	return rc;
}

static void image_free(struct image *image)
{
	order_destroy(&image->flushes);
	pthread_mutex_destroy(&image->lock);
	pthread_cond_destroy(&image->changed);
	options_free(&image->options);
	free(image->name);
	image->magic = 0;
	free(image);
}

static struct image *image_new(void)
{
	struct image *image = aligned_alloc(CACHE_LINE, sizeof(*image));

	if (!image)
		return NULL;
	memset(image, 0, sizeof(*image));
	image->magic = IMAGE_MAGIC;
	image->generation = generation;
	atomic_init(&image->size, 0);
	atomic_init(&image->wrote, false);
	atomic_init(&image->entered, 0);
	atomic_init(&image->left, 0);
	atomic_init(&image->gate_closed, false);
	atomic_init(&image->quiescing, false);
	pthread_mutex_init(&image->lock, NULL);
	pthread_cond_init(&image->changed, NULL);
	order_init(&image->flushes);
	return image;
}

/* All of opening that needs no medium. */
static int image_prepare(struct ioctx *io, const char *name, const char *snap, unsigned int flags,
			 struct image **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct image *image;
	int rc;

	if (!io || !name || !ret)
		return -EINVAL;
	if (snap) {
		report("opening %s@%s: there are no snapshots", name, snap);
		return -ENOENT;
	}
	pthread_once(&once, watch_forks);
	report_start();
	image = image_new();
	if (!image)
		return -ENOMEM;
	rc = options_get(io->cluster, &image->options);
	if (!rc)
		rc = name_resolve(io, name, &image->name);
	image->options.flags |= flags;
	if (rc)
		image_free(image);
	else
		*ret = image;
	return rc;
}

/* The rest; frees the image when it fails. */
static int image_start(struct image *image)
{
	int rc = volume_open(image);

	if (!rc) {
		rc = deliver_start(&image->deliver);
		if (rc)
			volume_close(image);
	}
	if (rc)
		image_free(image);
	return rc;
}

static int image_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap,
		      unsigned int flags)
{
	struct image *image;
	int rc;

	if (!ret)
		return -EINVAL;
	rc = image_prepare(ioctx_from(io), name, snap, flags, &image);
	if (!rc)
		rc = image_start(image);
	if (!rc)
		*ret = image;
	return rc;
}

int rbd_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap)
{
	return image_open(io, name, ret, snap, 0);
}

int rbd_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap)
{
	return image_open(io, name, ret, snap, VARVE_OPEN_READ_ONLY);
}

int rbd_invalidate_cache(rbd_image_t handle)
{
	struct image *image = image_from(handle);
	int rc = 0;

	if (!image)
		return -EINVAL;
	if (image_is_foreign(image))
		return -EOWNERDEAD;
	/* Relaxed: a first write that runs at the same time may come first or last. */
	if (atomic_load_explicit(&image->wrote, memory_order_relaxed))
		return 0;
	if (deliver_in_callback(&image->deliver))
		return -EDEADLK;
	image_quiesce(image);
	if (!atomic_load_explicit(&image->wrote, memory_order_relaxed)) {
		volume_close(image);
		rc = volume_open(image);
	}
	image_open_gate(image);
	return rc;
}

/* ---- closing, and opening and closing in the background -------------------------------------- */

static int image_close(struct image *image)
{
	int rc;

	deliver_hurry(&image->deliver);
	image_quiesce(image);
	deliver_stop(&image->deliver);
	/* Everything acknowledged is durable, in the cache or in the store, when this returns 0. */
	rc = volume_close(image);
	image_free(image);
	return rc;
}

struct background {
	struct completion *c;
	struct image *image;
	rbd_image_t *ret; /* NULL: close */
};

static void *background_run(void *arg)
{
	struct background b = *(struct background *)arg;

	free(arg);
	if (b.ret) {
		b.c->result = image_start(b.image);
		if (b.c->result == 0)
			*b.ret = b.image;
	} else {
		b.c->result = image_close(b.image);
	}
	completion_end(b.c);
	completion_put(b.c);
	return NULL;
}

static int background_start(struct background *with)
{
	struct background *b = malloc(sizeof(*b));
	sigset_t all, before;
	pthread_t thread;
	int rc;

	if (!b)
		return -ENOMEM;
	*b = *with;
	rc = completion_begin(b->c, NULL, KIND_FLUSH);
	if (rc) {
		free(b);
		return rc;
	}
	/* But for the fault of a mapped page, which kills if it is blocked. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = -pthread_create(&thread, NULL, background_run, b);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		completion_put(b->c);
		free(b);
		return rc;
	}
	pthread_detach(thread);
	return 0;
}

static int image_aio_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap,
			  rbd_completion_t c, unsigned int flags)
{
	struct background b = {.c = completion_from(c), .ret = ret};
	int rc;

	if (!b.c || !ret)
		return -EINVAL;
	rc = image_prepare(ioctx_from(io), name, snap, flags, &b.image);
	if (rc)
		return rc;
	rc = background_start(&b);
	if (rc)
		image_free(b.image);
	return rc;
}

int rbd_aio_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap,
		 rbd_completion_t c)
{
	return image_aio_open(io, name, ret, snap, c, 0);
}

int rbd_aio_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap,
			   rbd_completion_t c)
{
	return image_aio_open(io, name, ret, snap, c, VARVE_OPEN_READ_ONLY);
}

/*
 * A callback cannot wait for its own thread, nor for itself: the image is closed when it has
 * returned, by a thread of its own, and an error is told on stderr alone (volume_close()).
 */
static int close_behind_callback(struct image *image)
{
	struct background b = {.image = image};
	rbd_completion_t c;
	int rc = rbd_aio_create_completion(NULL, NULL, &c);

	if (rc)
		return rc;
	b.c = completion_from(c);
	rc = background_start(&b);
	rbd_aio_release(c);
	return rc;
}

int rbd_close(rbd_image_t handle)
{
	struct image *image = image_from(handle);

	if (!image)
		return -EINVAL;
	if (image_is_foreign(image))
		return -EOWNERDEAD;
	return deliver_in_callback(&image->deliver) ? close_behind_callback(image)
						    : image_close(image);
}

int rbd_aio_close(rbd_image_t handle, rbd_completion_t c)
{
	struct background b = {.c = completion_from(c), .image = image_from(handle)};

	if (!b.c || !b.image)
		return -EINVAL;
	if (image_is_foreign(b.image))
		return -EOWNERDEAD;
	return background_start(&b);
}
