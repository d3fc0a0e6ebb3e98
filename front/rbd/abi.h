/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The binary interface of librbd 1.16 and of the part of librados 2 that its users need, as Varve
 * serves it: what a program that was compiled against Ceph's headers passes and expects. Names,
 * numbers, layouts and argument lists are what they have to be; the meaning of each call here is in
 * librbd-varve(7), and what is not in this file is in *.symbols and answers -EOPNOTSUPP.
 *
 * Handles are opaque to users. Every function may be called from any thread, unless it says so.
 */
#ifndef RBD_ABI_H
#define RBD_ABI_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define ABI __attribute__((visibility("default")))

/* ---- librados ------------------------------------------------------------------------------- */

typedef void *rados_t;
typedef void *rados_ioctx_t;

ABI void rados_version(int *major, int *minor, int *extra);
ABI int rados_create(rados_t *ret, const char *id);
ABI int rados_create2(rados_t *ret, const char *cluster_name, const char *name, uint64_t flags);
ABI int rados_connect(rados_t cluster);
ABI void rados_shutdown(rados_t cluster);
ABI int rados_conf_read_file(rados_t cluster, const char *path);
ABI int rados_conf_parse_env(rados_t cluster, const char *variable);
ABI int rados_conf_set(rados_t cluster, const char *option, const char *value);
ABI int rados_conf_get(rados_t cluster, const char *option, char *buf, size_t len);
ABI int rados_ioctx_create(rados_t cluster, const char *pool, rados_ioctx_t *ret);
ABI void rados_ioctx_destroy(rados_ioctx_t io);
ABI void rados_ioctx_set_namespace(rados_ioctx_t io, const char *nspace);
ABI int rados_ioctx_get_namespace(rados_ioctx_t io, char *buf, unsigned int len);
ABI int rados_ioctx_get_pool_name(rados_ioctx_t io, char *buf, unsigned int len);
ABI rados_t rados_ioctx_get_cluster(rados_ioctx_t io);

/* ---- librbd: types -------------------------------------------------------------------------- */

typedef void *rbd_image_t;
typedef void *rbd_completion_t;
typedef void *rbd_image_options_t;
typedef void *rbd_pool_stats_t;

typedef void (*rbd_callback_t)(rbd_completion_t completion, void *arg);
typedef int (*librbd_progress_fn_t)(uint64_t done, uint64_t total, void *arg);
typedef int (*rbd_diff_fn)(uint64_t offset, size_t length, int exists, void *arg);

enum {
	RBD_VERSION_MAJOR = 1,
	RBD_VERSION_MINOR = 16,
	RBD_VERSION_EXTRA = 0,
};

#define RBD_FEATURE_OBJECT_MAP (1ULL << 3)
#define RBD_FEATURE_FAST_DIFF (1ULL << 4)

enum {
	EVENT_TYPE_PIPE = 1,
	EVENT_TYPE_EVENTFD = 2,
};

enum {
	RBD_WRITE_ZEROES_FLAG_THICK_PROVISION = 1 << 0,
};

typedef struct {
	uint64_t size;
	uint64_t obj_size;
	uint64_t num_objs;
	int order;
	char block_name_prefix[24];
	int64_t parent_pool;
	char parent_name[96];
} rbd_image_info_t;

static_assert(sizeof(rbd_image_info_t) == 160, "rbd_image_info_t");
static_assert(offsetof(rbd_image_info_t, order) == 24, "rbd_image_info_t.order");
static_assert(offsetof(rbd_image_info_t, block_name_prefix) == 28, "rbd_image_info_t.prefix");
static_assert(offsetof(rbd_image_info_t, parent_pool) == 56, "rbd_image_info_t.parent_pool");
static_assert(offsetof(rbd_image_info_t, parent_name) == 64, "rbd_image_info_t.parent_name");

typedef struct {
	uint64_t id;
	uint64_t size;
	const char *name;
} rbd_snap_info_t;

static_assert(sizeof(rbd_snap_info_t) == 24, "rbd_snap_info_t");

typedef struct {
	char *id;
	char *name;
} rbd_image_spec_t;

static_assert(sizeof(rbd_image_spec_t) == 16, "rbd_image_spec_t");

/* ---- librbd: images ------------------------------------------------------------------------- */

ABI void rbd_version(int *major, int *minor, int *extra);

ABI int rbd_create(rados_ioctx_t io, const char *name, uint64_t size, int *order);
ABI int rbd_create2(rados_ioctx_t io, const char *name, uint64_t size, uint64_t features,
		    int *order);
ABI int rbd_create3(rados_ioctx_t io, const char *name, uint64_t size, uint64_t features,
		    int *order, uint64_t stripe_unit, uint64_t stripe_count);
ABI int rbd_remove(rados_ioctx_t io, const char *name);
ABI int rbd_remove_with_progress(rados_ioctx_t io, const char *name, librbd_progress_fn_t fn,
				 void *arg);
ABI int rbd_list(rados_ioctx_t io, char *names, size_t *size);
ABI int rbd_list2(rados_ioctx_t io, rbd_image_spec_t *images, size_t *count);
ABI void rbd_image_spec_cleanup(rbd_image_spec_t *image);
ABI void rbd_image_spec_list_cleanup(rbd_image_spec_t *images, size_t count);
ABI int rbd_namespace_exists(rados_ioctx_t io, const char *name, bool *exists);
ABI int rbd_namespace_list(rados_ioctx_t io, char *names, size_t *size);
ABI void rbd_image_options_create(rbd_image_options_t *ret);
ABI void rbd_pool_stats_create(rbd_pool_stats_t *ret);

ABI int rbd_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap);
ABI int rbd_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap);
ABI int rbd_aio_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap,
		     rbd_completion_t c);
ABI int rbd_aio_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *ret,
			       const char *snap, rbd_completion_t c);
ABI int rbd_close(rbd_image_t image);
ABI int rbd_aio_close(rbd_image_t image, rbd_completion_t c);

ABI int rbd_resize(rbd_image_t image, uint64_t size);
ABI int rbd_resize2(rbd_image_t image, uint64_t size, bool allow_shrink, librbd_progress_fn_t fn,
		    void *arg);
ABI int rbd_resize_with_progress(rbd_image_t image, uint64_t size, librbd_progress_fn_t fn,
				 void *arg);
ABI int rbd_invalidate_cache(rbd_image_t image);

/* ---- librbd: what an image is --------------------------------------------------------------- */

ABI int rbd_stat(rbd_image_t image, rbd_image_info_t *info, size_t info_size);
ABI int rbd_get_size(rbd_image_t image, uint64_t *size);
ABI int rbd_get_features(rbd_image_t image, uint64_t *features);
ABI int rbd_get_op_features(rbd_image_t image, uint64_t *features);
ABI int rbd_get_flags(rbd_image_t image, uint64_t *flags);
ABI int rbd_get_old_format(rbd_image_t image, uint8_t *old);
ABI int rbd_get_stripe_unit(rbd_image_t image, uint64_t *bytes);
ABI int rbd_get_stripe_count(rbd_image_t image, uint64_t *count);
ABI int rbd_get_overlap(rbd_image_t image, uint64_t *overlap);
ABI int rbd_get_name(rbd_image_t image, char *name, size_t *len);
ABI int rbd_get_id(rbd_image_t image, char *id, size_t len);
ABI int rbd_get_block_name_prefix(rbd_image_t image, char *prefix, size_t len);
ABI int rbd_get_parent_info(rbd_image_t image, char *pool, size_t pool_len, char *name,
			    size_t name_len, char *snap, size_t snap_len);
ABI int rbd_get_parent_info2(rbd_image_t image, char *pool, size_t pool_len, char *name,
			     size_t name_len, char *id, size_t id_len, char *snap, size_t snap_len);
ABI int rbd_get_parent(rbd_image_t image, void *parent, void *snap);
ABI int rbd_snap_list(rbd_image_t image, rbd_snap_info_t *snaps, int *max);
ABI void rbd_snap_list_end(rbd_snap_info_t *snaps);
ABI int rbd_snap_exists(rbd_image_t image, const char *name, bool *exists);
ABI int rbd_metadata_get(rbd_image_t image, const char *key, char *value, size_t *len);
ABI int rbd_metadata_list(rbd_image_t image, const char *start, uint64_t max, char *keys,
			  size_t *keys_len, char *values, size_t *values_len);
ABI int rbd_diff_iterate(rbd_image_t image, const char *from, uint64_t offset, uint64_t length,
			 rbd_diff_fn fn, void *arg);
ABI int rbd_diff_iterate2(rbd_image_t image, const char *from, uint64_t offset, uint64_t length,
			  uint8_t include_parent, uint8_t whole_object, rbd_diff_fn fn, void *arg);

/* ---- librbd: synchronous requests ------------------------------------------------------------ */

ABI ssize_t rbd_read(rbd_image_t image, uint64_t offset, size_t length, char *buf);
ABI ssize_t rbd_read2(rbd_image_t image, uint64_t offset, size_t length, char *buf, int op_flags);
ABI ssize_t rbd_write(rbd_image_t image, uint64_t offset, size_t length, const char *buf);
ABI ssize_t rbd_write2(rbd_image_t image, uint64_t offset, size_t length, const char *buf,
		       int op_flags);
ABI int rbd_discard(rbd_image_t image, uint64_t offset, uint64_t length);
ABI ssize_t rbd_write_zeroes(rbd_image_t image, uint64_t offset, size_t length, int zero_flags,
			     int op_flags);
ABI int rbd_flush(rbd_image_t image);

/* ---- librbd: asynchronous requests ----------------------------------------------------------- */

ABI int rbd_aio_create_completion(void *arg, rbd_callback_t fn, rbd_completion_t *ret);
ABI int rbd_aio_is_complete(rbd_completion_t c);
ABI int rbd_aio_wait_for_complete(rbd_completion_t c);
ABI ssize_t rbd_aio_get_return_value(rbd_completion_t c);
ABI void *rbd_aio_get_arg(rbd_completion_t c);
ABI void rbd_aio_release(rbd_completion_t c);
ABI int rbd_set_image_notification(rbd_image_t image, int fd, int type);
ABI int rbd_poll_io_events(rbd_image_t image, rbd_completion_t *ret, int max);

ABI int rbd_aio_read(rbd_image_t image, uint64_t offset, size_t length, char *buf,
		     rbd_completion_t c);
ABI int rbd_aio_read2(rbd_image_t image, uint64_t offset, size_t length, char *buf,
		      rbd_completion_t c, int op_flags);
ABI int rbd_aio_readv(rbd_image_t image, const struct iovec *iov, int iovcnt, uint64_t offset,
		      rbd_completion_t c);
ABI int rbd_aio_write(rbd_image_t image, uint64_t offset, size_t length, const char *buf,
		      rbd_completion_t c);
ABI int rbd_aio_write2(rbd_image_t image, uint64_t offset, size_t length, const char *buf,
		       rbd_completion_t c, int op_flags);
ABI int rbd_aio_writev(rbd_image_t image, const struct iovec *iov, int iovcnt, uint64_t offset,
		       rbd_completion_t c);
ABI int rbd_aio_discard(rbd_image_t image, uint64_t offset, uint64_t length, rbd_completion_t c);
ABI int rbd_aio_write_zeroes(rbd_image_t image, uint64_t offset, size_t length, rbd_completion_t c,
			     int zero_flags, int op_flags);
ABI int rbd_aio_flush(rbd_image_t image, rbd_completion_t c);

#endif
