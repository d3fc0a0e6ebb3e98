/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * librbd.so.1 as programs use it, over volumes in memory: opening, names, synchronous requests,
 * what an image says of itself, differences, and what is not supported.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/tap.h"
#include "rbd/abi.h"

/* Its run-time does not start threads in a child of a process that had some. */
#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif

#define MIB (1u << 20)
#define SIZE (64u * MIB)

static rados_t cluster;

static rados_ioctx_t pool(const char *name)
{
	rados_ioctx_t io;

	setenv("VARVE_RUN_DIR", test_tmpdir(), 1);
	setenv("VARVE_CONFIG_DIR", test_tmpdir(), 1);
	CHECK_OK(rados_create(&cluster, "admin"));
	CHECK_OK(rados_conf_set(cluster, "varve_size", "64M"));
	CHECK_OK(rados_conf_set(cluster, "varve_batch_age", "10ms"));
	CHECK_OK(rados_connect(cluster));
	CHECK_OK(rados_ioctx_create(cluster, name, &io));
	return io;
}

static void leave(rados_ioctx_t io)
{
	rados_ioctx_destroy(io);
	rados_shutdown(cluster);
}

static rbd_image_t open_image(rados_ioctx_t io, const char *spec)
{
	rbd_image_t image = NULL;

	CHECK_OK(rbd_open(io, spec, &image, NULL));
	CHECK(image);
	return image;
}

TEST(what_was_written_is_read)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	char in[10000], out[10000];

	memset(in, 'x', sizeof(in));
	CHECK_EQ(rbd_write(image, 777, sizeof(in), in), sizeof(in));
	CHECK_OK(rbd_flush(image));
	CHECK_EQ(rbd_read(image, 777, sizeof(out), out), sizeof(out));
	CHECK_MEMEQ(in, out, sizeof(in));
	CHECK_OK(rbd_close(image));
	image = open_image(io, "mem:64M:a,mem:a");
	CHECK_EQ(rbd_read2(image, 777, sizeof(out), out, 0), sizeof(out));
	CHECK_MEMEQ(in, out, sizeof(in));
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(requests_at_the_end)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	char buf[4096] = "";

	CHECK_EQ(rbd_read(image, SIZE - 100, sizeof(buf), buf), 100);
	CHECK_EQ(rbd_read(image, SIZE, sizeof(buf), buf), -EINVAL);
	CHECK_EQ(rbd_read(image, UINT64_MAX - 10, sizeof(buf), buf), -EINVAL);
	CHECK_EQ(rbd_read(image, UINT64_MAX, 0, buf), 0);
	CHECK_EQ(rbd_write(image, SIZE - 100, sizeof(buf), buf), -EINVAL);
	CHECK_EQ(rbd_write(image, SIZE, 1, buf), -EINVAL);
	CHECK_EQ(rbd_write(image, SIZE - 1, 1, buf), 1);
	CHECK_EQ(rbd_discard(image, SIZE - 100, 4096), 100);
	CHECK_EQ(rbd_discard(image, SIZE, 1), -EINVAL);
	CHECK_EQ(rbd_discard(image, 0, (uint64_t)INT_MAX + 1), -EINVAL);
	CHECK_EQ(rbd_write_zeroes(image, 0, 4096, 2, 0), -EINVAL);
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(zeroes_and_discards_have_any_alignment)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	char buf[16384];
	int i;

	memset(buf, 'x', sizeof(buf));
	CHECK_EQ(rbd_write(image, 0, sizeof(buf), buf), sizeof(buf));
	CHECK_EQ(rbd_write_zeroes(image, 1000, 3000, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0),
		 3000);
	CHECK_EQ(rbd_write_zeroes(image, 5000, 3000, 0, 0), 3000);
	CHECK_EQ(rbd_discard(image, 9001, 5001), 5001);
	CHECK_EQ(rbd_read(image, 0, sizeof(buf), buf), sizeof(buf));
	for (i = 0; i < 9001; i++)
		CHECK_EQ(buf[i], (i >= 1000 && i < 4000) || (i >= 5000 && i < 8000) ? 0 : 'x');
	for (i = 14002; i < 16384; i++)
		CHECK_EQ(buf[i], 'x');
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(an_image_says_what_it_is)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	rbd_image_info_t info;
	rbd_snap_info_t snaps[4];
	char text[64];
	uint64_t value;
	size_t len = 1, vals_len = 9;
	int max = 4;
	bool yes = true;
	uint8_t old = 1;

	memset(&info, 0xff, sizeof(info));
	CHECK_OK(rbd_stat(image, &info, sizeof(info)));
	CHECK_EQ(info.size, SIZE);
	CHECK_EQ(info.obj_size, 1ULL << info.order);
	CHECK_EQ(info.num_objs, SIZE >> info.order);
	CHECK_EQ(info.parent_pool, -1);
	CHECK_EQ(info.parent_name[0], 0);
	CHECK_OK(rbd_get_size(image, &value));
	CHECK_EQ(value, SIZE);
	CHECK_OK(rbd_get_features(image, &value));
	CHECK_EQ(value, RBD_FEATURE_OBJECT_MAP | RBD_FEATURE_FAST_DIFF);
	CHECK_OK(rbd_get_flags(image, &value));
	CHECK_EQ(value, 0);
	CHECK_OK(rbd_get_stripe_count(image, &value));
	CHECK_EQ(value, 1);
	CHECK_OK(rbd_get_old_format(image, &old));
	CHECK_EQ(old, 0);
	CHECK_EQ(rbd_get_name(image, text, &len), -ERANGE);
	CHECK_EQ(len, 2);
	CHECK_OK(rbd_get_name(image, text, &len));
	CHECK_STREQ(text, "a");
	CHECK_EQ(rbd_get_id(image, text, 5), -ERANGE);
	CHECK_OK(rbd_get_id(image, text, sizeof(text)));
	CHECK_EQ(strlen(text), 36);
	CHECK_EQ(rbd_get_parent_info(image, NULL, 0, NULL, 0, NULL, 0), -ENOENT);
	CHECK_EQ(rbd_snap_list(image, snaps, &max), 0);
	max = 0;
	CHECK_EQ(rbd_snap_list(image, snaps, &max), -ERANGE);
	CHECK_EQ(max, 1);
	CHECK_OK(rbd_snap_exists(image, "s", &yes));
	CHECK(!yes);
	CHECK_EQ(rbd_metadata_get(image, "key", text, &len), -ENOENT);
	CHECK_OK(rbd_metadata_list(image, "", 0, NULL, &len, NULL, &vals_len));
	CHECK_EQ(len + vals_len, 0);
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(a_snapshot_is_not_found)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = NULL;

	CHECK_EQ(rbd_open(io, "mem:64M:a,mem:a", &image, "snap"), -ENOENT);
	CHECK(!image);
	leave(io);
}

TEST(what_does_not_exist_is_not_found)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = NULL;
	bool exists = true;

	CHECK_EQ(rbd_open(io, "nothing", &image, NULL), -ENOENT);
	CHECK_EQ(rbd_remove(io, "nothing"), -ENOENT);
	CHECK_EQ(rbd_open(NULL, "nothing", &image, NULL), -EINVAL);
	CHECK_OK(rbd_namespace_exists(io, "space", &exists));
	CHECK(!exists);
	rados_ioctx_set_namespace(io, "space");
	CHECK_EQ(rbd_open(io, "nothing", &image, NULL), -ENOENT);
	leave(io);
}

TEST(a_read_only_image_refuses_writes)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	char c = 'x';

	CHECK_EQ(rbd_write(image, 0, 1, &c), 1);
	CHECK_OK(rbd_close(image));
	CHECK_OK(rbd_open_read_only(io, "mem:64M:a,mem:a", &image, NULL));
	CHECK_EQ(rbd_write(image, 0, 1, &c), -EROFS);
	CHECK_EQ(rbd_read(image, 0, 1, &c), 1);
	CHECK_EQ(c, 'x');
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(a_spec_that_was_cut_at_its_slashes_is_put_together)
{
	rados_ioctx_t io = pool("dir");
	rbd_image_t image;
	bool exists = false;

	/* There is no such cache: the message in the log, and the error, are of the whole path. */
	rados_ioctx_set_namespace(io, "cache,dir");
	CHECK_OK(rbd_namespace_exists(io, "cache,dir", &exists));
	CHECK(exists);
	CHECK(rbd_open(io, "vm", &image, NULL) < 0);
	leave(io);
	io = pool("");
	CHECK_OK(rbd_namespace_exists(io, "tmp", &exists));
	CHECK(exists);
	CHECK_OK(rbd_namespace_exists(io, "no such directory", &exists));
	CHECK(!exists);
	leave(io);
}

TEST(options_are_settings)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = NULL;
	char text[8];

	CHECK_OK(rados_conf_set(cluster, "rbd_cache", "true"));
	CHECK_OK(rados_conf_get(cluster, "rbd_cache", text, sizeof(text)));
	CHECK_STREQ(text, "true");
	CHECK_EQ(rados_conf_get(cluster, "rbd_cache", text, 4), -ENAMETOOLONG);
	CHECK_EQ(rados_conf_get(cluster, "other", text, sizeof(text)), -ENOENT);
	CHECK_OK(rados_conf_set(cluster, "varve_read_only", "perhaps"));
	CHECK_EQ(rbd_open(io, "mem:64M:a,mem:a", &image, NULL), -EINVAL);
	CHECK_OK(rados_conf_set(cluster, "varve_read_only", "no"));
	CHECK_OK(rados_conf_set(cluster, "varve_nonsense", "1"));
	CHECK_EQ(rbd_open(io, "mem:64M:a,mem:a", &image, NULL), -EINVAL);
	leave(io);
	setenv("VARVE_RBD_SET", "read_only=yes", 1);
	io = pool("rbd");
	/*
	 * Memory that was never written holds no volume to look at, or one that cannot be
	 * written.
	 */
	if (rbd_open(io, "mem:64M:a,mem:a", &image, NULL) == 0) {
		CHECK_EQ(rbd_write(image, 0, 1, "x"), -EROFS);
		CHECK_OK(rbd_close(image));
	}
	setenv("VARVE_RBD_SET", "read_only", 1);
	CHECK_EQ(rbd_open(io, "mem:64M:a,mem:a", &image, NULL), -EINVAL);
	leave(io);
}

TEST(a_handle_of_another_library_is_refused)
{
	uint64_t foreign[32] = {0x1234567890abcdef};
	rbd_image_t image = NULL;
	rados_ioctx_t io = pool("rbd");

	CHECK_EQ(rbd_open(foreign, "mem:64M:a,mem:a", &image, NULL), -EINVAL);
	CHECK_EQ(rbd_read(foreign, 0, 1, (char *)foreign), -EINVAL);
	rbd_aio_release(NULL);
	leave(io);
}

/* ---- differences ----------------------------------------------------------------------------- */

struct runs {
	uint64_t offset[16], length[16];
	int n, stop_at;
};

static int keep_run(uint64_t offset, size_t length, int exists, void *arg)
{
	struct runs *r = arg;

	CHECK_EQ(exists, 1);
	CHECK(r->n < 16);
	r->offset[r->n] = offset;
	r->length[r->n++] = length;
	return r->n == r->stop_at ? -9000 : 0;
}

TEST(differences_are_told_in_order)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	const uint64_t obj = 65536;
	struct runs r = {0};
	char buf[8192];

	memset(buf, 'x', sizeof(buf));
	CHECK_EQ(rbd_write(image, 4096, 8192, buf), 8192);
	CHECK_EQ(rbd_write(image, 5 * obj + 8192, 4096, buf), 4096);
	CHECK_EQ(rbd_write(image, 6 * obj, 4096, buf), 4096);
	CHECK_EQ(rbd_write(image, SIZE - 4096, 4096, buf), 4096);

	CHECK_EQ(rbd_diff_iterate2(image, NULL, 0, SIZE, 1, 0, keep_run, &r), 0);
	CHECK_EQ(r.n, 4);
	CHECK_EQ(r.offset[0], 4096);
	CHECK_EQ(r.length[0], 8192);
	CHECK_EQ(r.offset[3], SIZE - 4096);

	r = (struct runs){0};
	CHECK_EQ(rbd_diff_iterate2(image, NULL, 0, SIZE, 1, 1, keep_run, &r), 0);
	CHECK_EQ(r.n, 3);
	CHECK_EQ(r.offset[0], 0);
	CHECK_EQ(r.length[0], obj);
	CHECK_EQ(r.offset[1], 5 * obj);
	CHECK_EQ(r.length[1], 2 * obj);
	CHECK_EQ(r.offset[2], SIZE - obj);
	CHECK_EQ(r.length[2], obj);

	/* Cut to what was asked for. */
	r = (struct runs){0};
	CHECK_EQ(rbd_diff_iterate2(image, NULL, 5 * obj + 100, obj, 1, 1, keep_run, &r), 0);
	CHECK_EQ(r.n, 1);
	CHECK_EQ(r.offset[0], 5 * obj + 100);
	CHECK_EQ(r.length[0], obj);

	r = (struct runs){.stop_at = 2};
	CHECK_EQ(rbd_diff_iterate2(image, NULL, 0, SIZE, 1, 1, keep_run, &r), -9000);
	CHECK_EQ(r.n, 2);

	r = (struct runs){0};
	CHECK_EQ(rbd_diff_iterate2(image, NULL, 20 * obj, obj, 1, 1, keep_run, &r), 0);
	CHECK_EQ(r.n, 0);
	CHECK_EQ(rbd_diff_iterate2(image, "snap", 0, SIZE, 1, 1, keep_run, &r), -ENOENT);
	CHECK_OK(rbd_close(image));
	leave(io);
}

/* ---- life ------------------------------------------------------------------------------------ */

TEST(a_child_is_told_that_the_image_is_not_its_own)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a"), other;
	rbd_completion_t c;
	char buf[512] = "x";
	int status;
	pid_t pid;

	CHECK_EQ(rbd_write(image, 0, sizeof(buf), buf), sizeof(buf));
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		int bad = rbd_write(image, 0, sizeof(buf), buf) != -EOWNERDEAD;

		bad |= rbd_aio_create_completion(NULL, NULL, &c) != 0;
		bad |= rbd_aio_write(image, 0, sizeof(buf), buf, c) != -EOWNERDEAD;
		bad |= rbd_aio_flush(image, c) != -EOWNERDEAD;
		rbd_aio_release(c);
		bad |= rbd_close(image) != -EOWNERDEAD;
#ifndef UNDER_TSAN
		/* One of its own is as good as any. */
		bad |= rbd_open(io, "mem:64M:b,mem:b", &other, NULL) != 0;
		bad |= rbd_write(other, 0, sizeof(buf), buf) != sizeof(buf);
		bad |= rbd_close(other) != 0;
#else
		(void)other;
#endif
		_exit(bad);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	CHECK_EQ(WEXITSTATUS(status), 0);
	CHECK_EQ(rbd_write(image, 0, sizeof(buf), buf), sizeof(buf));
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(looking_again_keeps_the_image)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	char c = 'x';

	CHECK_EQ(rbd_write(image, 5, 1, &c), 1);
	CHECK_OK(rbd_invalidate_cache(image));
	CHECK_OK(rbd_close(image));
	image = open_image(io, "mem:64M:a,mem:a");
	/* Nothing was written yet, so the volume is opened again. */
	CHECK_OK(rbd_invalidate_cache(image));
	c = 0;
	CHECK_EQ(rbd_read(image, 5, 1, &c), 1);
	CHECK_EQ(c, 'x');
	CHECK_OK(rbd_close(image));
	leave(io);
}

/* What changed nothing has not taken the writer's right, so another may have written since. */
TEST(who_changed_nothing_looks_again)
{
	static const char name[] = "mem:16M:n,mem:n";
	rados_ioctx_t io = pool("rbd");
	rbd_image_t looker = open_image(io, name), writer = open_image(io, name);
	rbd_completion_t done;
	char c = 'x';

	CHECK_OK(rbd_aio_create_completion(NULL, NULL, &done));
	CHECK_OK(rbd_aio_write(looker, 0, 0, &c, done));
	CHECK_OK(rbd_aio_wait_for_complete(done));
	CHECK_OK(rbd_aio_get_return_value(done));
	rbd_aio_release(done);
	CHECK_EQ(rbd_write(writer, 5, 1, &c), 1);
	CHECK_OK(rbd_close(writer));
	CHECK_OK(rbd_invalidate_cache(looker));
	c = 0;
	CHECK_EQ(rbd_read(looker, 5, 1, &c), 1);
	CHECK_EQ(c, 'x');
	CHECK_OK(rbd_close(looker));
	leave(io);
}

TEST(an_image_grows_and_shrinks)
{
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	uint64_t size = 0;
	char c = 'x';

	CHECK_OK(rbd_resize(image, SIZE + MIB));
	CHECK_OK(rbd_get_size(image, &size));
	CHECK_EQ(size, SIZE + MIB);
	CHECK_EQ(rbd_write(image, SIZE, 1, &c), 1);
	CHECK_EQ(rbd_resize2(image, SIZE, false, NULL, NULL), -EINVAL);
	CHECK_OK(rbd_resize(image, SIZE));
	CHECK_EQ(rbd_write(image, SIZE, 1, &c), -EINVAL);
	CHECK_OK(rbd_resize(image, 2 * SIZE));
	CHECK_EQ(rbd_read(image, SIZE, 1, &c), 1);
	CHECK_EQ(c, 0);
	CHECK_EQ(rbd_resize(image, 0), -EINVAL);
	CHECK_OK(rbd_close(image));
	leave(io);
}

TEST(what_is_not_supported_says_so)
{
	extern int rbd_snap_create(void *image, const char *name);
	extern int rbd_encryption_load(void *image, int format, void *opts, size_t size);
	extern int rbd_clone(void *, const char *, const char *, void *, const char *, uint64_t,
			     int *);
	extern int rados_write(void *io, const char *oid, const char *buf, size_t len,
			       uint64_t off);
	extern void *rados_create_write_op(void);
	rados_ioctx_t io = pool("rbd");
	rbd_image_t image = open_image(io, "mem:64M:a,mem:a");
	rbd_image_options_t opts = image;
	int order = 0;

	CHECK_EQ(rbd_snap_create(image, "s"), -EOPNOTSUPP);
	CHECK_EQ(rbd_encryption_load(image, 0, NULL, 0), -EOPNOTSUPP);
	CHECK_EQ(rbd_clone(io, "a", "s", io, "b", 0, &order), -EOPNOTSUPP);
	CHECK_EQ(rbd_create3(io, "x", MIB, 1, &order, 0, 0), -EOPNOTSUPP);
	CHECK_EQ(rbd_create(io, "mem:64M:c,mem:c", MIB, &order), -EOPNOTSUPP);
	order = 26;
	CHECK_EQ(rbd_create(io, "x", MIB, &order), -EDOM);
	CHECK_EQ(rados_write(io, "o", "x", 1, 0), -EOPNOTSUPP);
	CHECK(!rados_create_write_op());
	rbd_image_options_create(&opts);
	CHECK(!opts);
	CHECK_OK(rbd_close(image));
	leave(io);
}
