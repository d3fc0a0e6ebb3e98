/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The rules of completions: where callbacks run and in what order, release, waiting, events,
 * closing with requests in flight, and what a flush waits for.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <varve/varve.h>

#include "lib/tap.h"
#include "rbd/abi.h"

#define MIB (1u << 20)
#define SPEC "mem:64M:a,mem:a"

struct env {
	rados_t cluster;
	rados_ioctx_t io;
	rbd_image_t image;
};

static struct env begin(const char *spec, const char *set)
{
	struct env e;

	setenv("VARVE_RUN_DIR", test_tmpdir(), 1);
	setenv("VARVE_RBD_SET", set, 1);
	CHECK_OK(rados_create(&e.cluster, NULL));
	CHECK_OK(rados_conf_set(e.cluster, "varve_size", "64M"));
	CHECK_OK(rados_ioctx_create(e.cluster, "rbd", &e.io));
	CHECK_OK(rbd_open(e.io, spec, &e.image, NULL));
	return e;
}

static void end(struct env *e)
{
	CHECK_OK(rbd_close(e->image));
	rados_ioctx_destroy(e->io);
	rados_shutdown(e->cluster);
}

static rbd_completion_t completion(rbd_callback_t fn, void *arg)
{
	rbd_completion_t c = NULL;

	CHECK_OK(rbd_aio_create_completion(arg, fn, &c));
	return c;
}

/* Something that callbacks count up and cases wait for. */
struct tally {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int count;
};

static struct tally tally = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static void count(void)
{
	pthread_mutex_lock(&tally.lock);
	tally.count++;
	pthread_cond_broadcast(&tally.changed);
	pthread_mutex_unlock(&tally.lock);
}

static void wait_until(unsigned int n)
{
	pthread_mutex_lock(&tally.lock);
	while (tally.count < n)
		pthread_cond_wait(&tally.changed, &tally.lock);
	pthread_mutex_unlock(&tally.lock);
}

static __thread bool submitting;

static void not_inside_submit(rbd_completion_t c, void *arg)
{
	(void)arg;
	CHECK(!submitting);
	CHECK_EQ(rbd_aio_is_complete(c), 1);
	CHECK_EQ(rbd_aio_get_return_value(c), 0);
	rbd_aio_release(c);
	count();
}

TEST(a_callback_runs_outside_of_submission_and_may_release)
{
	struct env e = begin(SPEC, "");
	char buf[4096] = "x";
	unsigned int i;

	for (i = 0; i < 1000; i++) {
		rbd_completion_t c = completion(not_inside_submit, NULL);

		submitting = true;
		CHECK_OK(rbd_aio_write(e.image, i * 4096, sizeof(buf), buf, c));
		submitting = false;
	}
	wait_until(1000);
	end(&e);
}

TEST(results_are_bytes_for_reads_and_zero_for_others)
{
	struct env e = begin(SPEC, "");
	char a[1000], b[3000];
	const struct iovec iov[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
	rbd_completion_t c = completion(NULL, &e);

	CHECK(rbd_aio_get_arg(c) == &e);
	CHECK_EQ(rbd_aio_is_complete(c), 0);
	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	CHECK_OK(rbd_aio_writev(e.image, iov, 2, 333, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_is_complete(c), 1);
	CHECK_EQ(rbd_aio_get_return_value(c), 0);
	/* It has served. */
	CHECK_EQ(rbd_aio_flush(e.image, c), -EINVAL);
	rbd_aio_release(c);
	memset(a, 0, sizeof(a));
	memset(b, 0, sizeof(b));
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_readv(e.image, iov, 2, 333, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_get_return_value(c), 4000);
	CHECK_EQ(a[999], 'a');
	CHECK_EQ(b[0], 'b');
	CHECK_EQ(b[2999], 'b');
	rbd_aio_release(c);
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_read(e.image, 64 * MIB - 10, sizeof(a), a, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_get_return_value(c), 10);
	rbd_aio_release(c);
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_write(e.image, 64 * MIB - 10, sizeof(a), a, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_get_return_value(c), -EINVAL);
	rbd_aio_release(c);
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_write_zeroes(e.image, 333, 1000, c, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION,
				      0));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_get_return_value(c), 0);
	rbd_aio_release(c);
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_discard(e.image, 1333, 64 * MIB, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_get_return_value(c), 0);
	rbd_aio_release(c);
	end(&e);
}

TEST(empty_requests_complete)
{
	struct env e = begin(SPEC, "");
	char buf[1];
	rbd_completion_t c = completion(not_inside_submit, NULL);

	CHECK_OK(rbd_aio_write(e.image, 0, 0, buf, c));
	c = completion(not_inside_submit, NULL);
	CHECK_OK(rbd_aio_read(e.image, 0, 0, buf, c));
	c = completion(not_inside_submit, NULL);
	CHECK_OK(rbd_aio_readv(e.image, &(struct iovec){buf, 0}, 0, 0, c));
	c = completion(not_inside_submit, NULL);
	CHECK_OK(rbd_aio_discard(e.image, 0, 0, c));
	wait_until(4);
	end(&e);
}

/* ---- callbacks that do more ------------------------------------------------------------------ */

struct chain {
	rbd_image_t image;
	unsigned int left;
	char buf[512];
};

static void submit_next(rbd_completion_t c, void *arg)
{
	struct chain *chain = arg;

	CHECK_EQ(rbd_aio_get_return_value(c), 0);
	rbd_aio_release(c);
	if (chain->left-- == 0) {
		count();
		return;
	}
	CHECK_OK(rbd_aio_write(chain->image, chain->left * 512, sizeof(chain->buf), chain->buf,
			       completion(submit_next, chain)));
}

TEST(a_callback_may_submit)
{
	struct env e = begin(SPEC, "");
	struct chain chain = {.image = e.image, .left = 2000};

	CHECK_OK(rbd_aio_flush(e.image, completion(submit_next, &chain)));
	wait_until(1);
	end(&e);
}

static void wait_inside(rbd_completion_t c, void *arg)
{
	rbd_image_t image = arg;
	rbd_completion_t inner = completion(NULL, NULL);
	char buf[512] = "y", back[512];

	rbd_aio_release(c);
	CHECK_OK(rbd_aio_write(image, MIB, sizeof(buf), buf, inner));
	CHECK_OK(rbd_aio_wait_for_complete(inner));
	CHECK_EQ(rbd_aio_get_return_value(inner), 0);
	rbd_aio_release(inner);
	CHECK_OK(rbd_flush(image));
	CHECK_EQ(rbd_read(image, MIB, sizeof(back), back), sizeof(back));
	CHECK_EQ(back[0], 'y');
	count();
}

TEST(a_callback_may_wait_for_another_request)
{
	struct env e = begin(SPEC, "");
	unsigned int i;

	for (i = 0; i < 20; i++)
		CHECK_OK(rbd_aio_flush(e.image, completion(wait_inside, e.image)));
	wait_until(20);
	end(&e);
}

/* ---- closing --------------------------------------------------------------------------------- */

static void count_and_release(rbd_completion_t c, void *arg)
{
	(void)arg;
	rbd_aio_release(c);
	count();
}

TEST(closing_waits_for_what_is_in_flight)
{
	char buf[8192] = "x";
	unsigned int round, i;

	for (round = 0; round < 20; round++) {
		struct env e = begin(SPEC, "");

		for (i = 0; i < 64; i++) {
			CHECK_OK(rbd_aio_write(e.image, i * sizeof(buf), sizeof(buf), buf,
					       completion(count_and_release, NULL)));
			CHECK_OK(rbd_aio_flush(e.image, completion(count_and_release, NULL)));
		}
		end(&e);
		CHECK_EQ(tally.count, (round + 1) * 128);
	}
}

/* The last callback lets another thread close, while the submitter may not have returned yet. */
static void *close_at_last_callback(void *arg)
{
	wait_until(1);
	CHECK_OK(rbd_close(arg));
	return NULL;
}

TEST(another_thread_may_close_when_the_last_callback_has_come)
{
	char buf[4096] = "x";
	unsigned int round;

	for (round = 0; round < 50; round++) {
		struct env e = begin(SPEC, "");
		pthread_t closer;

		tally.count = 0;
		CHECK_EQ(pthread_create(&closer, NULL, close_at_last_callback, e.image), 0);
		CHECK_OK(rbd_aio_write(e.image, 0, sizeof(buf), buf,
				       completion(count_and_release, NULL)));
		CHECK_EQ(pthread_join(closer, NULL), 0);
		rados_ioctx_destroy(e.io);
		rados_shutdown(e.cluster);
	}
}

TEST(opening_and_closing_in_the_background)
{
	struct env e = begin(SPEC, "");
	rbd_image_t other = NULL;
	rbd_completion_t c = completion(NULL, NULL);
	char x = 'x';

	CHECK_OK(rbd_aio_open(e.io, "mem:64M:b,mem:b", &other, NULL, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_OK(rbd_aio_get_return_value(c));
	rbd_aio_release(c);
	CHECK_EQ(rbd_write(other, 0, 1, &x), 1);
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_close(other, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_OK(rbd_aio_get_return_value(c));
	rbd_aio_release(c);
	c = completion(NULL, NULL);
	CHECK_OK(rbd_aio_open(e.io, "nothing", &other, NULL, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	CHECK_EQ(rbd_aio_get_return_value(c), -ENOENT);
	rbd_aio_release(c);
	end(&e);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void mark(rbd_completion_t c, void *arg)
{
	(void)c;
	atomic_store((_Atomic int *)arg, 1);
}

TEST(an_event_comes_after_its_callback)
{
	struct env e = begin(SPEC, "");
	const int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	_Atomic int marks[100] = {0};
	rbd_completion_t got[7];
	char buf[4096] = "x";
	int seen = 0, i;

	CHECK(fd >= 0);
	CHECK_EQ(rbd_set_image_notification(e.image, fd, 3), -EINVAL);
	CHECK_OK(rbd_set_image_notification(e.image, fd, EVENT_TYPE_EVENTFD));
	for (i = 0; i < 100; i++)
		CHECK_OK(rbd_aio_write(e.image, (unsigned int)i * 4096, sizeof(buf), buf,
				       completion(mark, &marks[i])));
	while (seen < 100) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t one;
		int n;

		CHECK_EQ(poll(&pfd, 1, -1), 1);
		n = rbd_poll_io_events(e.image, got, 7);
		CHECK(n >= 1);
		CHECK(n <= 7);
		for (i = 0; i < n; i++) {
			CHECK_EQ(atomic_load((_Atomic int *)rbd_aio_get_arg(got[i])), 1);
			CHECK_EQ(read(fd, &one, sizeof(one)), sizeof(one));
			CHECK_EQ(one, 1);
			rbd_aio_release(got[i]);
		}
		seen += n;
	}
	CHECK_EQ(rbd_poll_io_events(e.image, got, 7), 0);
	CHECK_EQ(rbd_poll_io_events(e.image, got, 0), -EINVAL);
	CHECK_EQ(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 0), 0);
	end(&e);
	close(fd);
}

TEST(an_event_of_a_released_completion_is_dropped)
{
	struct env e = begin(SPEC, "");
	const int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
	rbd_completion_t got;
	int i;

	CHECK_OK(rbd_set_image_notification(e.image, fd, EVENT_TYPE_EVENTFD));
	for (i = 0; i < 10; i++)
		CHECK_OK(rbd_aio_flush(e.image, completion(count_and_release, NULL)));
	wait_until(10);
	CHECK_EQ(rbd_poll_io_events(e.image, &got, 1), 0);
	end(&e);
	close(fd);
}

/* Polls once, so that callbacks are left to the poller from then on. */
static int begin_polling(rbd_image_t image)
{
	const int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK);
	rbd_completion_t got;

	CHECK(fd >= 0);
	CHECK_OK(rbd_set_image_notification(image, fd, EVENT_TYPE_EVENTFD));
	CHECK_EQ(rbd_poll_io_events(image, &got, 1), 0);
	return fd;
}

TEST(callbacks_come_though_nobody_goes_on_polling)
{
	struct env e = begin(SPEC, "");
	const int fd = begin_polling(e.image);
	rbd_completion_t c = completion(NULL, NULL);
	char buf[512] = "x";
	unsigned int i;

	for (i = 0; i < 20; i++)
		CHECK_OK(rbd_aio_write(e.image, 0, sizeof(buf), buf,
				       completion(count_and_release, NULL)));
	wait_until(20);
	CHECK_OK(rbd_aio_flush(e.image, c));
	CHECK_OK(rbd_aio_wait_for_complete(c));
	rbd_aio_release(c);
	CHECK_OK(rbd_aio_flush(e.image, completion(count_and_release, NULL)));
	end(&e);
	CHECK_EQ(tally.count, 21);
	close(fd);
}

TEST(a_callback_inside_of_polling_may_do_what_others_may)
{
	struct env e = begin(SPEC, "");
	const int fd = begin_polling(e.image);
	struct chain chain = {.image = e.image, .left = 50};
	rbd_completion_t got;

	CHECK_OK(rbd_aio_flush(e.image, completion(wait_inside, e.image)));
	CHECK_OK(rbd_aio_flush(e.image, completion(submit_next, &chain)));
	while (tally.count < 2)
		CHECK(rbd_poll_io_events(e.image, &got, 1) >= 0);
	end(&e);
	close(fd);
}

TEST(every_event_is_told_once)
{
	struct env e = begin(SPEC, "");
	const int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC | EFD_NONBLOCK);
	unsigned int seen = 0, told = 0, sent;
	rbd_completion_t got[3];
	char buf[512] = "x";
	uint64_t one;

	CHECK_OK(rbd_set_image_notification(e.image, fd, EVENT_TYPE_EVENTFD));
	/* The first are told by the thread, the others by those who push. */
	for (sent = 0; sent < 500; sent++)
		CHECK_OK(rbd_aio_write(e.image, 0, sizeof(buf), buf, completion(NULL, NULL)));
	while (seen < 1000) {
		const int n = rbd_poll_io_events(e.image, got, 3);

		CHECK(n >= 0);
		for (int i = 0; i < n; i++) {
			CHECK_OK(rbd_aio_get_return_value(got[i]));
			rbd_aio_release(got[i]);
			if (sent++ < 1000)
				CHECK_OK(rbd_aio_write(e.image, 0, sizeof(buf), buf,
						       completion(NULL, NULL)));
		}
		seen += (unsigned int)n;
	}
	end(&e);
	while (read(fd, &one, sizeof(one)) == sizeof(one))
		told++;
	CHECK_EQ(told, seen);
	close(fd);
}

/* ---- flush ----------------------------------------------------------------------------------- */

static _Atomic unsigned int order_seen;

static void first(rbd_completion_t c, void *arg)
{
	(void)arg;
	rbd_aio_release(c);
	atomic_fetch_add(&order_seen, 1);
	count();
}

static void after_all(rbd_completion_t c, void *arg)
{
	CHECK_EQ(atomic_load(&order_seen), *(unsigned int *)arg);
	CHECK_OK(rbd_aio_get_return_value(c));
	rbd_aio_release(c);
	count();
}

static void *flush_and_count(void *arg)
{
	CHECK_OK(rbd_flush(arg));
	count();
	return NULL;
}

/* The log is full and nothing is taken from it: writes wait, and so do flushes that follow them. */
TEST(a_flush_waits_for_writes_that_were_submitted_before)
{
	struct env e = begin("mem:8M:full,mem:full", "hold_destage=yes");
	static char buf[256 << 10];
	unsigned int writes = 0;
	pthread_t thread;
	char *answer = NULL;

	do {
		rbd_completion_t c = completion(first, NULL);

		writes++;
		CHECK_OK(rbd_aio_write(e.image, writes * sizeof(buf), sizeof(buf), buf, c));
	} while (writes < 100);
	/* The control socket is there when the first write has been told. */
	wait_until(1);
	CHECK(atomic_load(&order_seen) < writes);
	CHECK_OK(rbd_aio_flush(e.image, completion(after_all, &writes)));
	CHECK_EQ(pthread_create(&thread, NULL, flush_and_count, e.image), 0);
	CHECK(atomic_load(&order_seen) < writes);
	CHECK_OK(varve_control_call("full", "{\"command\":\"message\",\"text\":\"hold 0\"}",
				    &answer));
	test_note("%s", answer);
	free(answer);
	wait_until(writes + 2);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	end(&e);
}

/* ---- many threads ---------------------------------------------------------------------------- */

struct worker {
	rbd_image_t image;
	unsigned int number;
	pthread_t thread;
};

static void *hammer(void *arg)
{
	struct worker *w = arg;
	char in[3000], out[3000];
	unsigned int i;

	for (i = 0; i < 300; i++) {
		const uint64_t at = w->number * MIB + i * 3001;
		rbd_completion_t c = completion(NULL, NULL);

		memset(in, (int)(w->number + i), sizeof(in));
		CHECK_OK(rbd_aio_write(w->image, at, sizeof(in), in, c));
		CHECK_OK(rbd_aio_wait_for_complete(c));
		CHECK_OK(rbd_aio_get_return_value(c));
		rbd_aio_release(c);
		if (i % 8 == 0)
			CHECK_OK(rbd_aio_flush(w->image, completion(count_and_release, NULL)));
		if (i % 50 == 0)
			CHECK_OK(rbd_invalidate_cache(w->image));
		CHECK_EQ(rbd_read(w->image, at, sizeof(out), out), sizeof(out));
		CHECK_MEMEQ(in, out, sizeof(in));
	}
	return NULL;
}

TEST(many_threads)
{
	struct env e = begin(SPEC, "");
	struct worker w[4];
	unsigned int i;

	for (i = 0; i < 4; i++) {
		w[i] = (struct worker){.image = e.image, .number = i};
		CHECK_EQ(pthread_create(&w[i].thread, NULL, hammer, &w[i]), 0);
	}
	for (i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(w[i].thread, NULL), 0);
	end(&e);
}

/* Reads and a volume that is opened again and again behind their backs. */
static void *look_again(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	for (i = 0; i < 100; i++)
		CHECK_OK(rbd_invalidate_cache(w->image));
	return NULL;
}

TEST(requests_while_the_volume_is_opened_again)
{
	struct env e = begin(SPEC, "");
	struct worker w = {.image = e.image};
	char buf[4096];
	unsigned int i;

	CHECK_EQ(pthread_create(&w.thread, NULL, look_again, &w), 0);
	for (i = 0; i < 2000; i++) {
		rbd_completion_t c = completion(NULL, NULL);

		CHECK_OK(rbd_aio_read(e.image, i * 4096, sizeof(buf), buf, c));
		CHECK_OK(rbd_aio_wait_for_complete(c));
		CHECK_EQ(rbd_aio_get_return_value(c), sizeof(buf));
		rbd_aio_release(c);
		CHECK_EQ(rbd_read(e.image, 0, 100, buf), 100);
	}
	CHECK_EQ(pthread_join(w.thread, NULL), 0);
	end(&e);
}
