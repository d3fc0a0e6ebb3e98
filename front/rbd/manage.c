/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Creating, removing, listing and resizing.
 *
 * A volume needs more than a name and a size: where its cache lies, and its store. The pool says
 * it: it names the template of which varve.conf(5) tells. So an administrator writes a template
 * once and gives its name to everybody who makes images. Pools hold nothing, so each lists all
 * volumes.
 *
 * A spec names media and no definition, so it can be opened, but not created or removed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "image.h"
#include "name.h"
#include "report.h"

/* What librbd takes as log2 of an object's size. */
#define ORDER_SMALLEST 12
#define ORDER_LARGEST 25
/* What an image says of itself when the volume has no wish (image.c). */
#define ORDER_USUAL 16

/* ---- create, remove -------------------------------------------------------------------------- */

static int get_name(struct ioctx *io, const char *image, const char *what, char **ret)
{
	char *name;
	int rc;

	if (!io || !image || !image[0])
		return -EINVAL;
	report_start();
	rc = name_resolve(io, image, &name);
	if (rc)
		return rc;
	if (name_is_spec(name)) {
		report("%s is CACHE,STORE, which cannot be %sd: use \"varve %s\"", name, what,
		       what);
		free(name);
		return -EOPNOTSUPP;
	}
	*ret = name;
	return 0;
}

static int create(struct ioctx *io, const char *name, uint64_t size)
{
	struct open_options o;
	char text[32];
	int rc = options_get(io->cluster, &o);

	if (rc)
		return rc;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
	rc = options_add(&o, "template", io->pool);
	if (!rc)
		rc = options_add(&o, "size", text);
	if (!rc) {
		rc = varve_create(name, (const char *const *)o.settings);
		if (rc)
			report("%s", varve_errmsg());
	}
	options_free(&o);
	return rc;
}

int rbd_create3(rados_ioctx_t handle, const char *image, uint64_t size, uint64_t features,
		int *order, uint64_t stripe_unit, uint64_t stripe_count)
{
	struct ioctx *io = ioctx_from(handle);
	char *name;
	int rc;

	/* A geometry that cannot be had. The object size is a wish; what it became is told. */
	if ((features & ~(RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF)) || stripe_count > 1 ||
	    (stripe_unit && !stripe_count))
		return -EOPNOTSUPP;
	if (order && *order && (*order < ORDER_SMALLEST || *order > ORDER_LARGEST))
		return -EDOM;
	rc = get_name(io, image, "create", &name);
	if (rc)
		return rc;
	rc = create(io, name, size);
	free(name);
	if (!rc && order)
		*order = ORDER_USUAL;
	return rc;
}

int rbd_create2(rados_ioctx_t io, const char *name, uint64_t size, uint64_t features, int *order)
{
	return rbd_create3(io, name, size, features, order, 0, 0);
}

int rbd_create(rados_ioctx_t io, const char *name, uint64_t size, int *order)
{
	return rbd_create3(io, name, size, 0, order, 0, 0);
}

int rbd_remove_with_progress(rados_ioctx_t handle, const char *image, librbd_progress_fn_t fn,
			     void *arg)
{
	char *name;
	int rc = get_name(ioctx_from(handle), image, "delete", &name);

	if (rc)
		return rc;
	rc = varve_delete(name, true);
	if (rc)
		report("%s", varve_errmsg());
	else if (fn)
		fn(1, 1, arg);
	free(name);
	return rc;
}

int rbd_remove(rados_ioctx_t io, const char *name)
{
	return rbd_remove_with_progress(io, name, NULL, NULL);
}

/* ---- list ------------------------------------------------------------------------------------ */

/* The names one after the other, each with its NUL. Returns their length; -ERANGE tells it. */
int rbd_list(rados_ioctx_t handle, char *names, size_t *size)
{
	char **all, **n;
	size_t need = 0;
	int rc;

	if (!ioctx_from(handle) || !size)
		return -EINVAL;
	rc = varve_list(&all);
	if (rc < 0) {
		report("%s", varve_errmsg());
		return rc;
	}
	for (n = all; *n; n++)
		need += strlen(*n) + 1;
	if (!names || *size < need) {
		rc = need ? -ERANGE : 0;
	} else {
		for (n = all; *n; n++)
			names = mempcpy(names, *n, strlen(*n) + 1);
		rc = (int)need;
	}
	*size = need;
	varve_free_names(all);
	return rc;
}

void rbd_image_spec_cleanup(rbd_image_spec_t *image)
{
	free(image->id);
	free(image->name);
	image->id = NULL;
	image->name = NULL;
}

void rbd_image_spec_list_cleanup(rbd_image_spec_t *images, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		rbd_image_spec_cleanup(&images[i]);
}

/* A volume's UUID is known when it is opened; until then its name is its identity. */
int rbd_list2(rados_ioctx_t handle, rbd_image_spec_t *images, size_t *count)
{
	size_t n = 0, room, i;
	char **all;
	int rc;

	if (!ioctx_from(handle) || !count)
		return -EINVAL;
	rc = varve_list(&all);
	if (rc < 0) {
		report("%s", varve_errmsg());
		return rc;
	}
	while (all[n])
		n++;
	room = *count;
	*count = n;
	if (room < n || (n && !images))
		rc = -ERANGE;
	for (i = 0; i < n && rc >= 0; i++) {
		images[i] = (rbd_image_spec_t){.id = strdup(all[i]), .name = strdup(all[i])};
		if (images[i].id && images[i].name)
			continue;
		rbd_image_spec_list_cleanup(images, i + 1);
		rc = -ENOMEM;
	}
	varve_free_names(all);
	return rc < 0 ? rc : (int)n;
}

/* ---- namespaces ------------------------------------------------------------------------------ */

/* There are none, but qemu takes a part of a spec's path for one and asks (name.c). */
int rbd_namespace_exists(rados_ioctx_t handle, const char *name, bool *exists)
{
	struct ioctx *io = ioctx_from(handle);

	if (!io || !name || !exists)
		return -EINVAL;
	*exists = name[0] == '\0' || name_begins_spec(io, name);
	return 0;
}

int rbd_namespace_list(rados_ioctx_t handle, char *names, size_t *size)
{
	(void)names;
	if (!ioctx_from(handle) || !size)
		return -EINVAL;
	*size = 0;
	return 0;
}

/* ---- resize ---------------------------------------------------------------------------------- */

/* Durable when it returns 0 (varve_resize()). */
int rbd_resize2(rbd_image_t handle, uint64_t size, bool allow_shrink, librbd_progress_fn_t fn,
		void *arg)
{
	struct image *image = image_from(handle);
	int rc;

	/* 0 has a meaning of its own for varve_resize(), and an image without bytes none. */
	if (!image || !size)
		return -EINVAL;
	rc = image_enter(image);
	if (rc)
		return rc;
	rc = varve_resize(image->volume, size, allow_shrink ? VARVE_RESIZE_SHRINK : 0);
	if (rc)
		report("%s: resizing to %llu bytes: %s", image->info.name, (unsigned long long)size,
		       varve_errmsg());
	else
		image_wrote(image);
	image_learn_size(image);
	image_leave(image, 1);
	if (!rc && fn)
		fn(1, 1, arg);
	return rc;
}

int rbd_resize_with_progress(rbd_image_t image, uint64_t size, librbd_progress_fn_t fn, void *arg)
{
	return rbd_resize2(image, size, true, fn, arg);
}

int rbd_resize(rbd_image_t image, uint64_t size)
{
	return rbd_resize2(image, size, true, NULL, NULL);
}

/* ---- objects that cannot be made ------------------------------------------------------------- */

/* They return nothing; what is done with the handle then answers -EOPNOTSUPP. */
void rbd_image_options_create(rbd_image_options_t *ret)
{
	*ret = NULL;
}

void rbd_pool_stats_create(rbd_pool_stats_t *ret)
{
	*ret = NULL;
}
