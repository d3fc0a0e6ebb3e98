/* SPDX-License-Identifier: BSD-3-Clause */
/* Worker pools: everything runs once, within the bound, and drain means drained. */
#include "lib/tap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/workers.h"

struct job {
	struct work work;
	struct workers *workers;
	unsigned again;
};

static atomic_uint ran, running, most;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static void note_running(void)
{
	unsigned now = atomic_fetch_add(&running, 1) + 1;
	unsigned max = atomic_load(&most);

	while (now > max && !atomic_compare_exchange_weak(&most, &max, now))
		;
}

static void run_job(struct work *work)
{
	struct job *job = container_of(work, struct job, work);

	note_running();
	atomic_fetch_add(&ran, 1);
	atomic_fetch_sub(&running, 1);
	if (job->again--)
		workers_defer(job->workers, work);
	else
		free(job);
}

static void defer_job(struct workers *workers, unsigned again)
{
	struct job *job = calloc(1, sizeof(*job));

	CHECK(job);
	job->work.run = run_job;
	job->workers = workers;
	job->again = again;
	workers_defer(workers, &job->work);
}

TEST(everything_runs_once)
{
	struct workers *workers;
	int i;

	CHECK_OK(workers_open("test", 3, &workers));
	for (i = 0; i < 1000; i++)
		defer_job(workers, 0);
	workers_drain(workers);
	CHECK_EQ(atomic_load(&ran), 1000);
	CHECK(atomic_load(&most) <= 3);
	workers_close(workers);
}

TEST(work_may_defer_itself_and_close_waits_for_it)
{
	struct workers *workers;
	int i;

	CHECK_OK(workers_open("test", 2, &workers));
	for (i = 0; i < 10; i++)
		defer_job(workers, 99);
	workers_close(workers);
	CHECK_EQ(atomic_load(&ran), 1000);
}

static void run_gated(struct work *work)
{
	(void)work;
	atomic_fetch_add(&running, 1);
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	atomic_fetch_sub(&running, 1);
}

TEST(blocked_work_does_not_block_the_others_up_to_the_bound)
{
	struct work work[4] = {0};
	struct workers *workers;
	int i;

	CHECK_OK(workers_open("test", 4, &workers));
	pthread_mutex_lock(&gate);
	for (i = 0; i < 4; i++) {
		work[i].run = run_gated;
		workers_defer(workers, &work[i]);
	}
	/* The case's time limit is the failure: all four must get going. */
	while (atomic_load(&running) < 4)
		sched_yield();
	pthread_mutex_unlock(&gate);
	workers_drain(workers);
	CHECK_EQ(atomic_load(&running), 0);
	workers_close(workers);
}

TEST(bad_limits_are_refused)
{
	struct workers *workers;

	CHECK_EQ(workers_open("test", 0, &workers), -EINVAL);
	CHECK_EQ(workers_open("test", WORKERS_MAX_THREADS + 1, &workers), -EINVAL);
	workers_close(NULL);
}

TEST(the_shared_pool_is_one_and_made_anew_in_a_child)
{
	struct workers *a, *b;
	int status;
	pid_t pid;

#ifdef __SANITIZE_THREAD__
	SKIP("the thread sanitizer has no threads in the child of a threaded process");
#endif
	CHECK_OK(workers_get(&a));
	CHECK_OK(workers_get(&b));
	CHECK(a == b);
	workers_put(b);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		struct workers *c;

		CHECK_OK(workers_get(&c));
		CHECK(c != a);
		defer_job(c, 10);
		workers_drain(c);
		CHECK_EQ(atomic_load(&ran), 11);
		workers_put(c);
		workers_put(a);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	defer_job(a, 0);
	workers_put(a);
	CHECK_EQ(atomic_load(&ran), 1);
}
