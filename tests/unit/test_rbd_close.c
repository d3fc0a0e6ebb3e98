/* SPDX-License-Identifier: BSD-3-Clause */
/* Closing: whatever the image's thread does for a user that polls, and inside a callback. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/tap.h"
#include "rbd/abi.h"

#define ROUNDS 100

static void poll_one(rbd_image_t image, int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	rbd_completion_t got;
	uint64_t one;

	CHECK_EQ(poll(&pfd, 1, -1), 1);
	CHECK_EQ(rbd_poll_io_events(image, &got, 1), 1);
	CHECK_EQ(read(fd, &one, sizeof(one)), sizeof(one));
	rbd_aio_release(got);
}

static rbd_completion_t write_one(rbd_image_t image)
{
	static const char buf[4096] = "x";
	rbd_completion_t c;

	CHECK_OK(rbd_aio_create_completion(NULL, NULL, &c));
	CHECK_OK(rbd_aio_write(image, 0, sizeof(buf), buf, c));
	return c;
}

/*
 * The first poll leaves callbacks to the poller; the second request is not polled for in time, so
 * that the thread delivers it after its nap; after the third it naps again, and is closed then.
 */
static void write_and_close(rados_ioctx_t io, unsigned int yields)
{
	const int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	rbd_image_t image;

	CHECK_OK(rbd_open(io, "mem:8M:a,mem:a", &image, NULL));
	CHECK_OK(rbd_set_image_notification(image, fd, EVENT_TYPE_EVENTFD));
	write_one(image);
	poll_one(image, fd);
	CHECK_OK(rbd_aio_wait_for_complete(write_one(image)));
	poll_one(image, fd);
	write_one(image);
	poll_one(image, fd);
	/* Not to wait for anything: so that it is closed at each point of the nap. */
	for (unsigned int i = 0; i < yields; i++)
		sched_yield();
	CHECK_OK(rbd_close(image));
	close(fd);
}

TEST(closing_right_after_polling_ends)
{
	rados_t cluster;
	rados_ioctx_t io;

	setenv("VARVE_RUN_DIR", test_tmpdir(), 1);
	CHECK_OK(rados_create(&cluster, NULL));
	CHECK_OK(rados_ioctx_create(cluster, "rbd", &io));
	for (unsigned int i = 0; i < ROUNDS; i++)
		write_and_close(io, i * 10);
	rados_ioctx_destroy(io);
	rados_shutdown(cluster);
}

static void close_inside(rbd_completion_t c, void *arg)
{
	CHECK_OK(rbd_aio_get_return_value(c));
	rbd_aio_release(c);
	CHECK_OK(rbd_close(arg));
}

/* The writer's right is free when the image is closed: until then it is -EBUSY, or so. */
static void write_when_free(rados_ioctx_t io)
{
	static const char buf[512] = "next";
	rbd_image_t image;
	ssize_t rc;

	do {
		CHECK_OK(rbd_open(io, "mem:8M:a,mem:a", &image, NULL));
		rc = rbd_write(image, 0, sizeof(buf), buf);
		CHECK(rc == sizeof(buf) || rc == -EBUSY || rc == -EROFS);
		CHECK_OK(rbd_close(image));
	} while (rc < 0);
}

TEST(a_callback_may_close)
{
	static const char buf[4096] = "last";
	rados_t cluster;
	rados_ioctx_t io;

	setenv("VARVE_RUN_DIR", test_tmpdir(), 1);
	setenv("VARVE_RBD_QUIET", "1", 1);
	CHECK_OK(rados_create(&cluster, NULL));
	CHECK_OK(rados_ioctx_create(cluster, "rbd", &io));
	for (unsigned int i = 0; i < ROUNDS; i++) {
		rbd_completion_t last, c;
		rbd_image_t image;

		CHECK_OK(rbd_open(io, "mem:8M:a,mem:a", &image, NULL));
		CHECK_OK(rbd_aio_create_completion(image, close_inside, &last));
		CHECK_OK(rbd_aio_create_completion(NULL, NULL, &c));
		CHECK_OK(rbd_aio_write(image, 0, sizeof(buf), buf, c));
		rbd_aio_release(c);
		CHECK_OK(rbd_aio_flush(image, last));
		write_when_free(io);
	}
	rados_ioctx_destroy(io);
	rados_shutdown(cluster);
}
