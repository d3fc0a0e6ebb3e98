/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sluices. Each is a member of its vtable that forwards every call, requests untouched, so that
 * done() goes straight from the inner device to the engine. State: one flag, see sluice.h.
 *
 * Invariants
 *   1. After submit has returned, the request was kicked, or queued is true, or somebody took
 *      the flag after the request was queued and has yet to kick.
 *   2. The public fields of the sluice's struct dev are those of the inner one; of these only the
 *      size changes, through the sluice.
 *
 * Locks: none.
 */
#include "volume/sluice.h"

#include <stdlib.h>

static struct sluice_dev *to_sluice_dev(struct dev *dev)
{
	return container_of(dev, struct sluice_dev, dev);
}

static void sluice_dev_submit(struct dev *dev, struct dev_req *req)
{
	struct sluice_dev *sluice = to_sluice_dev(dev);

	dev_submit(sluice->inner, req);
	atomic_store_explicit(&sluice->queued, true, memory_order_release);
}

static void sluice_dev_kick(struct dev *dev)
{
	struct sluice_dev *sluice = to_sluice_dev(dev);

	atomic_store_explicit(&sluice->queued, false, memory_order_relaxed);
	dev_kick(sluice->inner);
}

static bool sluice_dev_help(struct dev *dev)
{
	return dev_help(to_sluice_dev(dev)->inner);
}

static int sluice_dev_poll(struct dev *dev, bool wait)
{
	return dev_poll(to_sluice_dev(dev)->inner, wait);
}

static void sluice_dev_counters(struct dev *dev, struct dev_counters *ret)
{
	struct dev *inner = to_sluice_dev(dev)->inner;

	inner->ops->counters(inner, ret);
}

static int sluice_dev_lock(struct dev *dev, struct err *err)
{
	struct dev *inner = to_sluice_dev(dev)->inner;

	return inner->ops->lock ? inner->ops->lock(inner, err) : 0;
}

static void sluice_dev_unlock(struct dev *dev)
{
	struct dev *inner = to_sluice_dev(dev)->inner;

	if (inner->ops->unlock)
		inner->ops->unlock(inner);
}

static void sluice_dev_forgive(struct dev *dev)
{
	dev_forgive(to_sluice_dev(dev)->inner);
}

static void sluice_dev_identity(struct dev *dev, char *ret)
{
	dev_identity(to_sluice_dev(dev)->inner, ret);
}

static int sluice_dev_resize_look(struct dev *dev)
{
	struct dev *inner = to_sluice_dev(dev)->inner;
	const int r = dev_resize_look(inner);

	dev->size_bytes = inner->size_bytes;
	return r;
}

static int sluice_dev_resize(struct dev *dev, uint64_t size_bytes)
{
	struct dev *inner = to_sluice_dev(dev)->inner;
	const int r = dev_resize(inner, size_bytes);

	dev->size_bytes = inner->size_bytes;
	return r;
}

static void sluice_dev_close(struct dev *dev)
{
	struct sluice_dev *sluice = to_sluice_dev(dev);

	dev_close(sluice->inner);
	free(sluice);
}

static struct sluice_store *to_sluice_store(struct store *store)
{
	return container_of(store, struct sluice_store, store);
}

static void sluice_store_submit(struct store *store, struct store_req *req)
{
	struct sluice_store *sluice = to_sluice_store(store);

	store_submit(sluice->inner, req);
	atomic_store_explicit(&sluice->queued, true, memory_order_release);
}

static void sluice_store_kick(struct store *store)
{
	struct sluice_store *sluice = to_sluice_store(store);

	atomic_store_explicit(&sluice->queued, false, memory_order_relaxed);
	store_kick(sluice->inner);
}

static bool sluice_store_help(struct store *store)
{
	return store_help(to_sluice_store(store)->inner);
}

static int sluice_store_poll(struct store *store, bool wait)
{
	return store_poll(to_sluice_store(store)->inner, wait);
}

static void sluice_store_counters(struct store *store, struct store_counters *ret)
{
	struct store *inner = to_sluice_store(store)->inner;

	inner->ops->counters(inner, ret);
}

static int sluice_store_lock(struct store *store, const char *name, struct err *err)
{
	struct store *inner = to_sluice_store(store)->inner;

	return inner->ops->lock ? inner->ops->lock(inner, name, err) : 0;
}

static void sluice_store_unlock(struct store *store, const char *name)
{
	struct store *inner = to_sluice_store(store)->inner;

	if (inner->ops->unlock)
		inner->ops->unlock(inner, name);
}

static void sluice_store_close(struct store *store)
{
	struct sluice_store *sluice = to_sluice_store(store);

	store_close(sluice->inner);
	free(sluice);
}

static const struct dev_ops sluice_dev_ops = {
	.name = "sluice",
	.submit = sluice_dev_submit,
	.kick = sluice_dev_kick,
	.help = sluice_dev_help,
	.poll = sluice_dev_poll,
	.counters = sluice_dev_counters,
	.lock = sluice_dev_lock,
	.unlock = sluice_dev_unlock,
	.forgive = sluice_dev_forgive,
	.identity = sluice_dev_identity,
	.resize_look = sluice_dev_resize_look,
	.resize = sluice_dev_resize,
	.close = sluice_dev_close,
};

static const struct store_ops sluice_store_ops = {
	.name = "sluice",
	.submit = sluice_store_submit,
	.kick = sluice_store_kick,
	.help = sluice_store_help,
	.poll = sluice_store_poll,
	.counters = sluice_store_counters,
	.lock = sluice_store_lock,
	.unlock = sluice_store_unlock,
	.close = sluice_store_close,
};

int sluice_dev_new(struct dev *inner, struct sluice_dev **ret)
{
	struct sluice_dev *sluice = calloc(1, sizeof(*sluice));

	if (!sluice)
		return -ENOMEM;
	sluice->dev = *inner;
	sluice->dev.ops = &sluice_dev_ops;
	sluice->inner = inner;
	*ret = sluice;
	return 0;
}

int sluice_store_new(struct store *inner, struct sluice_store **ret)
{
	struct sluice_store *sluice = calloc(1, sizeof(*sluice));

	if (!sluice)
		return -ENOMEM;
	sluice->store = *inner;
	sluice->store.ops = &sluice_store_ops;
	sluice->inner = inner;
	*ret = sluice;
	return 0;
}
