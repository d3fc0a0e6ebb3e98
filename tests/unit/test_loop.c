/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The event loop: transfers, timers, posted work, its end, and fork; each by ring and by threads.
 */
#include "lib/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "runtime/loop.h"

#define BOTH(fn)                                                                   \
	static void fn(void);                                                      \
	TEST(fn##_uring)                                                           \
	{                                                                          \
		unsetenv("VARVE_NO_URING");                                        \
		fn();                                                              \
	}                                                                          \
	TEST(fn##_threads)                                                         \
	{                                                                          \
		setenv("VARVE_NO_URING", "1", 1);                                  \
		fn();                                                              \
	}                                                                          \
	static void fn(void)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static unsigned done_count; /* under lock */

static void count_one(void)
{
	pthread_mutex_lock(&lock);
	done_count++;
	pthread_cond_broadcast(&moved);
	pthread_mutex_unlock(&lock);
}

static void wait_count(unsigned count)
{
	pthread_mutex_lock(&lock);
	while (done_count < count)
		pthread_cond_wait(&moved, &lock);
	pthread_mutex_unlock(&lock);
}

static void io_done(struct loop_io *io)
{
	(void)io;
	count_one();
}

static int open_temp(const char *name)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(fd >= 0);
	return fd;
}

static void submit_one(struct loop *loop, struct loop_io *io)
{
	struct list_head list = LIST_INIT(list);

	io->done = io_done;
	list_add_tail(&io->link, &list);
	loop_submit(loop, &list);
}

static int run_one(struct loop *loop, struct loop_io *io)
{
	unsigned before = done_count;

	submit_one(loop, io);
	wait_count(before + 1);
	return io->result;
}

/* More elements than the kernel takes at once, some of them empty: the transfer is continued. */
BOTH(long_vectors_are_continued)
{
	enum { COUNT = 3000 };
	static unsigned char in[COUNT * 3], out[COUNT * 3];
	static struct iovec iov[COUNT];
	struct loop_io io = {.op = LOOP_WRITE, .iov = iov, .iovcnt = COUNT, .off_bytes = 5};
	struct loop *loop;
	unsigned i, at = 0;

	CHECK_OK(loop_get(&loop));
	io.fd = open_temp("file");
	for (i = 0; i < COUNT; i++) {
		iov[i].iov_base = in + at;
		iov[i].iov_len = i % 4;
		at += i % 4;
	}
	io.len_bytes = at;
	for (i = 0; i < at; i++)
		in[i] = (unsigned char)(i * 7 + i / 256);
	CHECK_OK(run_one(loop, &io));
	memcpy(out, in, at);
	memset(in, 0, sizeof(in));
	io.op = LOOP_READ;
	CHECK_OK(run_one(loop, &io));
	CHECK_MEMEQ(in, out, at);
	memset(in, 0, sizeof(in));
	CHECK_OK(loop_io_run(&io));
	CHECK_MEMEQ(in, out, at);
	close(io.fd);
	loop_put(loop);
}

BOTH(the_end_of_the_file_is_an_error)
{
	char buf[100];
	struct iovec iov = {buf, sizeof(buf)};
	struct loop_io io = {.op = LOOP_READ, .iov = &iov, .iovcnt = 1, .len_bytes = 100};
	struct loop *loop;

	CHECK_OK(loop_get(&loop));
	io.fd = open_temp("file");
	CHECK_EQ(pwrite(io.fd, buf, 60, 0), 60);
	CHECK_EQ(run_one(loop, &io), -EIO);
	CHECK_EQ(loop_io_run(&io), -EIO);
	close(io.fd);
	io.fd = -1;
	CHECK_EQ(run_one(loop, &io), -EBADF);
	io.op = LOOP_FLUSH;
	CHECK_EQ(run_one(loop, &io), -EBADF);
	loop_put(loop);
}

BOTH(flush_punch_and_zero)
{
	char buf[12288];
	struct loop_io io = {.op = LOOP_FLUSH};
	struct loop *loop;
	int i, r;

	CHECK_OK(loop_get(&loop));
	io.fd = open_temp("file");
	memset(buf, 'x', sizeof(buf));
	CHECK_EQ(pwrite(io.fd, buf, sizeof(buf), 0), sizeof(buf));
	CHECK_OK(run_one(loop, &io));
	io.op = LOOP_PUNCH;
	io.len_bytes = 4096;
	CHECK_OK(run_one(loop, &io));
	io.op = LOOP_ZERO;
	io.off_bytes = 8192;
	r = run_one(loop, &io);
	CHECK(r == 0 || r == -EOPNOTSUPP);
	CHECK_EQ(pread(io.fd, buf, sizeof(buf), 0), sizeof(buf));
	for (i = 0; i < 4096; i++) {
		CHECK_EQ(buf[i], 0);
		CHECK_EQ(buf[4096 + i], 'x');
		CHECK_EQ(buf[8192 + i], r ? 'x' : 0);
	}
	close(io.fd);
	loop_put(loop);
}

/* More than LOOP_DEPTH at once: the rest waits, submit does not. */
BOTH(what_exceeds_the_depth_waits)
{
	enum { COUNT = 3 * LOOP_DEPTH };
	struct loop_io *ios = calloc(COUNT, sizeof(*ios));
	struct iovec *iov = calloc(COUNT, sizeof(*iov));
	unsigned *data = calloc(COUNT, sizeof(*data));
	struct list_head list = LIST_INIT(list);
	struct loop *loop;
	unsigned i;
	int fd;

	CHECK(ios && iov && data);
	CHECK_OK(loop_get(&loop));
	fd = open_temp("file");
	for (i = 0; i < COUNT; i++) {
		CHECK_EQ(pwrite(fd, &i, sizeof(i), (off_t)(i * sizeof(i))), sizeof(i));
		iov[i].iov_base = &data[i];
		iov[i].iov_len = sizeof(i);
		ios[i] = (struct loop_io){.op = LOOP_READ, .fd = fd, .iov = &iov[i], .iovcnt = 1};
		ios[i].off_bytes = i * sizeof(i);
		ios[i].len_bytes = sizeof(i);
		ios[i].done = io_done;
		list_add_tail(&ios[i].link, &list);
	}
	loop_submit(loop, &list);
	CHECK(list_empty(&list));
	wait_count(COUNT);
	for (i = 0; i < COUNT; i++) {
		CHECK_OK(ios[i].result);
		CHECK_EQ(data[i], i);
	}
	close(fd);
	loop_put(loop);
	free(data);
	free(iov);
	free(ios);
}

struct submitter {
	struct loop *loop;
	int fd;
	unsigned char id;
	struct loop_io io;
	struct iovec iov;
	unsigned char buf[512];
};

/* Submits one flush, which the kernel runs on this thread's behalf, and ends at once. */
static void *submit_and_exit(void *arg)
{
	struct submitter *s = arg;

	s->io = (struct loop_io){.op = LOOP_FLUSH, .fd = s->fd};
	submit_one(s->loop, &s->io);
	return NULL;
}

BOTH(a_submitter_may_exit_before_its_io_is_done)
{
	enum { COUNT = 100 };
	struct submitter *s = calloc(COUNT, sizeof(*s));
	struct loop *loop;
	int i, fd;

	CHECK(s);
	CHECK_OK(loop_get(&loop));
	fd = open_temp("file");
	for (i = 0; i < COUNT; i++) {
		pthread_t thread;

		CHECK_EQ(pwrite(fd, &i, sizeof(i), i * 4096), sizeof(i));
		s[i].loop = loop;
		s[i].fd = fd;
		CHECK_EQ(pthread_create(&thread, NULL, submit_and_exit, &s[i]), 0);
		CHECK_EQ(pthread_join(thread, NULL), 0);
	}
	wait_count(COUNT);
	for (i = 0; i < COUNT; i++)
		CHECK_OK(s[i].io.result);
	close(fd);
	loop_put(loop);
	free(s);
}

struct stamp {
	struct loop_timer timer;
	struct loop *loop;
	unsigned order;
	uint64_t fired_ns;
};

static void stamp_fired(struct loop_timer *timer)
{
	struct stamp *s = container_of(timer, struct stamp, timer);

	CHECK(loop_is_current(s->loop));
	s->fired_ns = clock_now_ns();
	s->order = done_count;
	count_one();
}

struct timer_set {
	struct work work;
	uint64_t start_ns;
	struct stamp s[5];
};

static const unsigned timer_ms[] = {30, 10, 20, 0, 10};

/* On the loop's thread, so that nothing fires before all are set. */
static void set_timers(struct work *work)
{
	struct timer_set *set = container_of(work, struct timer_set, work);
	int i;

	set->start_ns = clock_now_ns();
	for (i = 0; i < 5; i++)
		loop_timer_set(set->s[i].loop, &set->s[i].timer,
			       set->start_ns + timer_ms[i] * CLOCK_NS_PER_MS);
}

BOTH(timers_fire_in_order_and_never_early)
{
	static const unsigned order[] = {4, 1, 3, 0, 2};
	struct timer_set set = {.work.run = set_timers};
	struct loop *loop;
	int i;

	CHECK_OK(loop_get(&loop));
	CHECK(!loop_is_current(loop));
	for (i = 0; i < 5; i++) {
		set.s[i].loop = loop;
		loop_timer_init(&set.s[i].timer, stamp_fired);
	}
	loop_post(loop, &set.work);
	wait_count(5);
	for (i = 0; i < 5; i++) {
		CHECK(set.s[i].fired_ns >= set.start_ns + timer_ms[i] * CLOCK_NS_PER_MS);
		CHECK_EQ(set.s[i].order, order[i]);
	}
	loop_put(loop);
}

/* The time limit of the case is what fails if the thread sleeps on. */
BOTH(an_earlier_timer_gets_the_thread_up)
{
	struct stamp far = {0}, near = {0};

	CHECK_OK(loop_get(&far.loop));
	near.loop = far.loop;
	loop_timer_init(&far.timer, stamp_fired);
	loop_timer_init(&near.timer, stamp_fired);
	loop_timer_set(far.loop, &far.timer, clock_now_ns() + 1000 * CLOCK_NS_PER_SEC);
	loop_timer_set(far.loop, &near.timer, clock_now_ns() + 5 * CLOCK_NS_PER_MS);
	wait_count(1);
	loop_timer_set(far.loop, &far.timer, clock_now_ns() + 5 * CLOCK_NS_PER_MS);
	wait_count(2);
	loop_put(far.loop);
}

static void timer_again(struct loop_timer *timer)
{
	struct stamp *s = container_of(timer, struct stamp, timer);

	count_one();
	loop_timer_set(s->loop, timer, clock_now_ns());
}

BOTH(a_cancelled_timer_does_not_fire)
{
	struct stamp s = {0};
	unsigned count;
	int i;

	CHECK_OK(loop_get(&s.loop));
	loop_timer_init(&s.timer, timer_again);
	loop_timer_cancel(s.loop, &s.timer);
	for (i = 0; i < 100; i++) {
		unsigned seen = done_count;

		loop_timer_set(s.loop, &s.timer, clock_now_ns());
		wait_count(seen + 3);
		loop_timer_cancel(s.loop, &s.timer);
		pthread_mutex_lock(&lock);
		count = done_count;
		pthread_mutex_unlock(&lock);
		CHECK(!s.timer.armed);
	}
	loop_put(s.loop);
	CHECK_EQ(done_count, count);
}

struct post {
	struct work work;
	struct loop *loop;
	unsigned left;
};

static void run_post(struct work *work)
{
	struct post *post = container_of(work, struct post, work);

	CHECK(loop_is_current(post->loop));
	if (post->left--)
		loop_post(post->loop, work);
	else
		count_one();
}

BOTH(posted_work_runs_on_the_thread_and_before_the_end)
{
	struct post post[10] = {0};
	struct loop *loop;
	int i;

	CHECK_OK(loop_get(&loop));
	for (i = 0; i < 10; i++) {
		post[i].work.run = run_post;
		post[i].loop = loop;
		post[i].left = 100;
		loop_post(loop, &post[i].work);
	}
	loop_put(loop);
	CHECK_EQ(done_count, 10);
}

static void run_put(struct work *work)
{
	loop_put(container_of(work, struct post, work)->loop);
	count_one();
}

BOTH(a_callback_may_drop_the_last_reference)
{
	struct post post = {.work.run = run_put};
	struct loop *next;

	CHECK_OK(loop_get(&post.loop));
	loop_post(post.loop, &post.work);
	wait_count(1);
	CHECK_OK(loop_get(&next));
	loop_put(next);
}

BOTH(a_child_gets_a_loop_of_its_own)
{
	struct loop *loop, *again;
	int status;
	pid_t pid;

#ifdef __SANITIZE_THREAD__
	SKIP("the thread sanitizer has no threads in the child of a threaded process");
#endif
	CHECK_OK(loop_get(&loop));
	CHECK_OK(loop_get(&again));
	CHECK(loop == again);
	loop_put(again);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		struct loop_io io = {.op = LOOP_FLUSH, .fd = open_temp("child")};
		struct loop *mine;

		CHECK_OK(loop_get(&mine));
		CHECK(mine != loop);
		CHECK_OK(run_one(mine, &io));
		CHECK_EQ(run_one(loop, &io), -EOWNERDEAD);
		loop_put(loop);
		loop_put(mine);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	struct loop_io io = {.op = LOOP_FLUSH, .fd = open_temp("parent")};

	CHECK_OK(run_one(loop, &io));
	loop_put(loop);
}

TEST(the_environment_chooses)
{
	struct loop *loop;

	setenv("VARVE_NO_URING", "1", 1);
	CHECK_OK(loop_get(&loop));
	CHECK(!loop_has_uring(loop));
	loop_put(loop);
	setenv("VARVE_NO_URING", "0", 1);
	CHECK_OK(loop_get(&loop));
	test_note("io_uring here: %s", loop_has_uring(loop) ? "yes" : "no");
	loop_put(loop);
}
