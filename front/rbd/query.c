/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an image is, and which parts of it hold data.
 *
 * Objects: librbd tells users a size of objects, which is a power of two. Ours is the granularity
 * at which holes are told when a caller asks for whole objects, and nothing on any medium.
 *
 * Features: object-map and fast-diff, which say that asking for the differences to nothing
 * (rbd_diff_iterate2() without a snapshot) is cheap and always right. That lets qemu find holes.
 * Nothing else of librbd's list can be had.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "abi.h"
#include "image.h"
#include "report.h"

/* Enters the image behind a handle. */
static int query_begin(rbd_image_t handle, const void *result, struct image **ret)
{
	struct image *image = image_from(handle);

	if (!image || !result)
		return -EINVAL;
	*ret = image;
	return image_enter(image);
}

static int query_u64(rbd_image_t handle, uint64_t *ret, uint64_t value)
{
	struct image *image;
	int rc = query_begin(handle, ret, &image);

	if (rc)
		return rc;
	*ret = value;
	image_leave(image, 1);
	return 0;
}

/* ---- size and geometry ----------------------------------------------------------------------- */

void rbd_version(int *major, int *minor, int *extra)
{
	if (major)
		*major = RBD_VERSION_MAJOR;
	if (minor)
		*minor = RBD_VERSION_MINOR;
	if (extra)
		*extra = RBD_VERSION_EXTRA;
}

static void prefix_of(const struct image *image, char *prefix, size_t len)
{
	snprintf(prefix, len, "rbd_data.%.12s", image->info.uuid);
}

int rbd_stat(rbd_image_t handle, rbd_image_info_t *info, size_t info_size)
{
	rbd_image_info_t full = {.parent_pool = -1};
	struct image *image;
	int rc = query_begin(handle, info, &image);

	if (rc)
		return rc;
	full.size = image_learn_size(image);
	full.order = (int)image->order;
	full.obj_size = 1ULL << image->order;
	full.num_objs = (full.size + full.obj_size - 1) / full.obj_size;
	prefix_of(image, full.block_name_prefix, sizeof(full.block_name_prefix));
	memcpy(info, &full, info_size < sizeof(full) ? info_size : sizeof(full));
	image_leave(image, 1);
	return 0;
}

int rbd_get_size(rbd_image_t handle, uint64_t *size)
{
	struct image *image;
	int rc = query_begin(handle, size, &image);

	if (rc)
		return rc;
	*size = image_learn_size(image);
	image_leave(image, 1);
	return 0;
}

int rbd_get_stripe_unit(rbd_image_t handle, uint64_t *bytes)
{
	struct image *image = image_from(handle);

	return query_u64(handle, bytes, image ? 1ULL << image->order : 0);
}

int rbd_get_stripe_count(rbd_image_t image, uint64_t *count)
{
	return query_u64(image, count, 1);
}

int rbd_get_features(rbd_image_t image, uint64_t *features)
{
	return query_u64(image, features, RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF);
}

int rbd_get_op_features(rbd_image_t image, uint64_t *features)
{
	return query_u64(image, features, 0);
}

int rbd_get_flags(rbd_image_t image, uint64_t *flags)
{
	return query_u64(image, flags, 0);
}

/* With no parent there is none. */
int rbd_get_overlap(rbd_image_t image, uint64_t *overlap)
{
	return query_u64(image, overlap, 0);
}

int rbd_get_old_format(rbd_image_t handle, uint8_t *old)
{
	struct image *image;
	int rc = query_begin(handle, old, &image);

	if (rc)
		return rc;
	*old = 0;
	image_leave(image, 1);
	return 0;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int query_text(rbd_image_t handle, char *buf, size_t len, const char *text)
{
	const size_t need = strlen(text) + 1;

	if (!image_from(handle) || !buf)
		return -EINVAL;
	if (len < need)
		return -ERANGE;
	memcpy(buf, text, need);
	return 0;
}

int rbd_get_name(rbd_image_t handle, char *name, size_t *len)
{
	struct image *image = image_from(handle);
	size_t room;

	if (!image || !len)
		return -EINVAL;
	room = *len;
	*len = strlen(image->info.name) + 1;
	return room < *len ? -ERANGE : query_text(handle, name, room, image->info.name);
}

int rbd_get_id(rbd_image_t handle, char *id, size_t len)
{
	struct image *image = image_from(handle);

	return image ? query_text(handle, id, len, image->info.uuid) : -EINVAL;
}

int rbd_get_block_name_prefix(rbd_image_t handle, char *prefix, size_t len)
{
	struct image *image = image_from(handle);
	char text[24];

	if (!image)
		return -EINVAL;
	prefix_of(image, text, sizeof(text));
	return query_text(handle, prefix, len, text);
}

/* ---- what there is none of ------------------------------------------------------------------- */

int rbd_get_parent_info(rbd_image_t image, char *pool, size_t pool_len, char *name, size_t name_len,
			char *snap, size_t snap_len)
{
	return rbd_get_parent_info2(image, pool, pool_len, name, name_len, NULL, 0, snap, snap_len);
}

int rbd_get_parent_info2(rbd_image_t image, char *pool, size_t pool_len, char *name,
			 size_t name_len, char *id, size_t id_len, char *snap, size_t snap_len)
{
	(void)pool, (void)pool_len, (void)name, (void)name_len;
	(void)id, (void)id_len, (void)snap, (void)snap_len;
	return image_from(image) ? -ENOENT : -EINVAL;
}

int rbd_get_parent(rbd_image_t image, void *parent, void *snap)
{
	(void)parent;
	(void)snap;
	return image_from(image) ? -ENOENT : -EINVAL;
}

/* librbd wants room for an end mark that is not counted. */
int rbd_snap_list(rbd_image_t image, rbd_snap_info_t *snaps, int *max)
{
	if (!image_from(image) || !max)
		return -EINVAL;
	if (*max < 1 || !snaps) {
		*max = 1;
		return -ERANGE;
	}
	snaps[0] = (rbd_snap_info_t){0};
	return 0;
}

void rbd_snap_list_end(rbd_snap_info_t *snaps)
{
	(void)snaps;
}

int rbd_snap_exists(rbd_image_t image, const char *name, bool *exists)
{
	if (!image_from(image) || !name || !exists)
		return -EINVAL;
	*exists = false;
	return 0;
}

int rbd_metadata_get(rbd_image_t image, const char *key, char *value, size_t *len)
{
	(void)value;
	(void)len;
	return image_from(image) && key ? -ENOENT : -EINVAL;
}

int rbd_metadata_list(rbd_image_t image, const char *start, uint64_t max, char *keys,
		      size_t *keys_len, char *values, size_t *values_len)
{
	(void)start, (void)max, (void)keys, (void)values;
	if (!image_from(image) || !keys_len || !values_len)
		return -EINVAL;
	*keys_len = 0;
	*values_len = 0;
	return 0;
}

/* ---- differences ----------------------------------------------------------------------------- */

/* What a caller gets to see, and what it said so far. */
struct diff {
	struct image *image;
	uint64_t begin, end;
	rbd_diff_fn fn;
	void *arg;
	/* Data that is not told yet. */
	uint64_t data_begin, data_end;
};

static int diff_tell(struct diff *d)
{
	uint64_t at = d->data_begin < d->begin ? d->begin : d->data_begin;
	const uint64_t end = d->data_end > d->end ? d->end : d->data_end;
	int rc = 0;

	if (at < end)
		rc = d->fn(at, (size_t)(end - at), 1, d->arg);
	d->data_begin = d->data_end;
	return rc < 0 ? rc : 0;
}

/* Data from begin to end, which come in order but may overlap when they were rounded. */
static int diff_add(struct diff *d, uint64_t begin, uint64_t end)
{
	int rc = 0;

	if (begin > d->data_end) {
		rc = diff_tell(d);
		d->data_begin = begin;
	}
	if (end > d->data_end)
		d->data_end = end;
	return rc;
}

/*
 * Runs of data are told in ascending order, holes not at all. Whole objects: an object of which any
 * byte is data is data, so the ends are rounded to objects and then cut to what was asked for; an
 * object is judged once, though writes go on meanwhile, or a caller could see it overlap itself.
 */
static int diff_run(struct diff *d, uint64_t size, uint64_t object)
{
	uint64_t at = d->begin & ~(object - 1);
	uint64_t stop = (d->end + object - 1) & ~(object - 1);
	int rc;

	d->data_begin = d->data_end = at;
	if (stop > size)
		stop = size;
	while (at < stop) {
		uint64_t length = 0;
		bool data = true;

		rc = varve_extent(d->image->volume, at, stop - at, &length, &data);
		if (rc < 0) {
			report("%s: %s", d->image->info.name, varve_errmsg());
			return rc;
		}
		if (!length)
			return -EIO;
		if (data) {
			length = ((at + length + object - 1) & ~(object - 1)) - at;
			rc = diff_add(d, at & ~(object - 1), at + length);
			if (rc < 0)
				return rc;
		} else if (at >= d->data_end) {
			/* A hole ends what was data: the caller may have seen enough. */
			rc = diff_tell(d);
			if (rc < 0)
				return rc;
		}
		at += length;
	}
	return diff_tell(d);
}

int rbd_diff_iterate2(rbd_image_t handle, const char *from, uint64_t offset, uint64_t length,
		      uint8_t include_parent, uint8_t whole_object, rbd_diff_fn fn, void *arg)
{
	struct image *image = image_from(handle);
	struct diff d = {.fn = fn, .arg = arg};
	uint64_t size;
	int rc;

	(void)include_parent;
	if (!image || !fn)
		return -EINVAL;
	if (from)
		return -ENOENT;
	rc = image_enter(image);
	if (rc)
		return rc;
	size = image_learn_size(image);
	rc = image_clip(image, offset, &length);
	if (!rc && length) {
		d.image = image;
		d.begin = offset;
		d.end = offset + length;
		rc = diff_run(&d, size, whole_object ? 1ULL << image->order : 1);
	}
	image_leave(image, 1);
	return rc;
}

int rbd_diff_iterate(rbd_image_t image, const char *from, uint64_t offset, uint64_t length,
		     rbd_diff_fn fn, void *arg)
{
	return rbd_diff_iterate2(image, from, offset, length, 1, 0, fn, arg);
}
