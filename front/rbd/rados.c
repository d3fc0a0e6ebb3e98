/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The calls of librados by which a program gets from nothing to the handle that it gives to
 * rbd_open(). There is no cluster to connect to, so these succeed and remember: the names of pool
 * and namespace, and the configuration.
 *
 * Configuration: an option varve_KEY becomes the setting KEY of the volumes that are opened or
 * created (image.c). All other options say how a Ceph cluster is reached and used, such as mon_host
 * or rbd_cache; programs set them unasked, so they are accepted, can be read back, and mean
 * nothing. For the same reason a configuration file is not read: it only has to be there if it was
 * named.
 *
 * Invariants:
 *   1. A cluster lives until it was shut down and its last ioctx was destroyed, in any order.
 *   2. Nothing but what is said here reports success: see librados.symbols for the rest.
 */
#include "abi.h"
#include "rados_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* ---- clusters -------------------------------------------------------------------------------- */

static struct cluster *cluster_of(rados_t handle)
{
	struct cluster *c = handle;

	return c && c->magic == CLUSTER_MAGIC ? c : NULL;
}

static void cluster_put(struct cluster *c)
{
	unsigned int i;

	/* Acquire and release: the last to leave sees what the others did. */
	if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (i = 0; i < c->n_options; i++) {
		free(c->options[i].name);
		free(c->options[i].value);
	}
	free(c->options);
	c->magic = 0;
	free(c);
}

void rados_version(int *major, int *minor, int *extra)
{
	if (major)
		*major = 3;
	if (minor)
		*minor = 0;
	if (extra)
		*extra = 0;
}

int rados_create(rados_t *ret, const char *id)
{
	return rados_create2(ret, NULL, id, 0);
}

int rados_create2(rados_t *ret, const char *cluster_name, const char *name, uint64_t flags)
{
	struct cluster *c;

	/* Whoever may open the volume's files may use it: there are no users of our own. */
	(void)cluster_name;
	(void)name;
	(void)flags;
	if (!ret)
		return -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->magic = CLUSTER_MAGIC;
	atomic_init(&c->refs, 1);
	*ret = c;
	return 0;
}

int rados_connect(rados_t cluster)
{
	return cluster_of(cluster) ? 0 : -EINVAL;
}

void rados_shutdown(rados_t cluster)
{
	struct cluster *c = cluster_of(cluster);

	if (c)
		cluster_put(c);
}

/* ---- configuration --------------------------------------------------------------------------- */

static struct config_option *option_find(struct cluster *c, const char *name)
{
	unsigned int i;

	for (i = 0; i < c->n_options; i++)
		if (strcasecmp(c->options[i].name, name) == 0)
			return &c->options[i];
	return NULL;
}

int rados_conf_read_file(rados_t cluster, const char *path)
{
	if (!cluster_of(cluster))
		return -EINVAL;
	return path && access(path, R_OK) < 0 ? -errno : 0;
}

/* Its options would be Ceph's. */
int rados_conf_parse_env(rados_t cluster, const char *variable)
{
	(void)variable;
	return cluster_of(cluster) ? 0 : -EINVAL;
}

int rados_conf_set(rados_t cluster, const char *option, const char *value)
{
	struct cluster *c = cluster_of(cluster);
	struct config_option *o, *grown;
	char *name, *copy;

	if (!c || !option || !value || !option[0])
		return -EINVAL;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	o = option_find(c, option);
	if (o) {
		free(o->value);
		o->value = copy;
		return 0;
	}
	name = strdup(option);
	grown = c->n_options < CONFIG_MAX ? realloc(c->options, (c->n_options + 1) * sizeof(*grown))
					  : NULL;
	if (grown)
		c->options = grown;
	if (!name || !grown) {
		free(name);
		free(copy);
		return c->n_options < CONFIG_MAX ? -ENOMEM : -E2BIG;
	}
	c->options[c->n_options++] = (struct config_option){.name = name, .value = copy};
	return 0;
}

/* What a buffer of a user's takes, or the errno that librados has for one that is too small. */
static int text_out(const char *text, char *buf, size_t len)
{
	size_t need = strlen(text) + 1;

	if (!buf)
		return -EINVAL;
	if (len < need)
		return -ERANGE;
	memcpy(buf, text, need);
	return (int)(need - 1);
}

int rados_conf_get(rados_t cluster, const char *option, char *buf, size_t len)
{
	struct cluster *c = cluster_of(cluster);
	const struct config_option *o;
	int rc;

	if (!c || !option)
		return -EINVAL;
	o = option_find(c, option);
	if (!o)
		return -ENOENT;
	rc = text_out(o->value, buf, len);
	if (rc == -ERANGE)
		return -ENAMETOOLONG;
	return rc < 0 ? rc : 0;
}

/* ---- pools ----------------------------------------------------------------------------------- */

static struct ioctx *ioctx_of(rados_ioctx_t handle)
{
	struct ioctx *io = handle;

	return io && io->magic == IOCTX_MAGIC ? io : NULL;
}

int rados_ioctx_create(rados_t cluster, const char *pool, rados_ioctx_t *ret)
{
	struct cluster *c = cluster_of(cluster);
	struct ioctx *io;

	if (!c || !pool || !ret)
		return -EINVAL;
	io = calloc(1, sizeof(*io));
	if (!io)
		return -ENOMEM;
	io->pool = strdup(pool);
	io->nspace = strdup("");
	if (!io->pool || !io->nspace) {
		free(io->pool);
		free(io->nspace);
		free(io);
		return -ENOMEM;
	}
	io->magic = IOCTX_MAGIC;
	io->cluster = c;
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	*ret = io;
	return 0;
}

void rados_ioctx_destroy(rados_ioctx_t handle)
{
	struct ioctx *io = ioctx_of(handle);

	if (!io)
		return;
	cluster_put(io->cluster);
	io->magic = 0;
	free(io->pool);
	free(io->nspace);
	free(io);
}

/* It cannot fail by its declaration; without a namespace's name no image is found by mistake. */
void rados_ioctx_set_namespace(rados_ioctx_t handle, const char *nspace)
{
	struct ioctx *io = ioctx_of(handle);

	if (!io)
		return;
	free(io->nspace);
	io->nspace = strdup(nspace ? nspace : "");
}

int rados_ioctx_get_namespace(rados_ioctx_t handle, char *buf, unsigned int len)
{
	struct ioctx *io = ioctx_of(handle);

	if (!io)
		return -EINVAL;
	return io->nspace ? text_out(io->nspace, buf, len) : -ENOMEM;
}

int rados_ioctx_get_pool_name(rados_ioctx_t handle, char *buf, unsigned int len)
{
	struct ioctx *io = ioctx_of(handle);

	return io ? text_out(io->pool, buf, len) : -EINVAL;
}

rados_t rados_ioctx_get_cluster(rados_ioctx_t handle)
{
	struct ioctx *io = ioctx_of(handle);

	return io ? io->cluster : NULL;
}
