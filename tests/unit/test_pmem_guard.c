/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Faults of a mapping: errors inside a guard, the host's business outside.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/tap.h"
#include "pmem/pmem.h"
#include "pmem/shadow.h"

#define MIB ((size_t)1 << 20)

static char path[512];
static struct pmem *pm;

static struct pmem *open_map(const char *name, enum pm_force force)
{
	const struct pm_options opt = {.create = true, .create_bytes = MIB, .force = force};
	struct err err = ERR_INIT;
	struct pmem *ret;

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	unlink(path);
	if (pm_open(path, &opt, &ret, &err))
		FAIL("%s", err.text);
	return ret;
}

/* The pages of the mapping from half of it on have no medium any more. */
static void open_truncated(void)
{
	pm = open_map("pool", PM_FORCE_PMEM);
	CHECK_OK(truncate(path, MIB / 2));
}

static int touch(void *arg)
{
	return *(_Atomic uint8_t *)arg;
}

TEST(a_fault_in_a_guard_is_an_error_with_its_address)
{
	const void *fault = &pm;

	open_truncated();
	CHECK_OK(pm_guarded(touch, pm->base, &fault));
	CHECK(!fault);
	CHECK_EQ(pm_guarded(touch, pm->base + MIB / 2 + 5, &fault), -EIO);
	CHECK_EQ(fault, pm->base + MIB / 2 + 5);
	CHECK_EQ(pm_guarded(touch, pm->base + MIB - 1, NULL), -EIO);
	CHECK_OK(pm_guarded(touch, pm->base + MIB / 2 - 1, NULL));
	pm_close(pm);
}

TEST(reads_and_writes_are_guarded)
{
	char buf[8192] = "";

	open_truncated();
	CHECK_OK(pm_write(pm, pm->base, buf, sizeof(buf)));
	CHECK_OK(pm_read(pm, buf, pm->base, sizeof(buf)));
	CHECK_EQ(pm_read(pm, buf, pm->base + MIB / 2 - 4096, sizeof(buf)), -EIO);
	CHECK_EQ(pm_write(pm, pm->base + MIB / 2 - 4096, buf, sizeof(buf)), -EIO);
	CHECK_EQ(pm_read(pm, buf, pm->base + MIB - 4096, sizeof(buf)), -EINVAL);
	CHECK_EQ(pm_write(pm, pm->base - 1, buf, 1), -EINVAL);
	pm_close(pm);
}

TEST(a_fence_of_what_was_cut_off_is_an_error_or_nothing)
{
	pm = open_map("pool", PM_FORCE_MSYNC);
	pm_set(pm, pm->base, 1, MIB);
	CHECK_OK(truncate(path, MIB / 2));
	CHECK_OK(pm_fence(pm));
	pm_close(pm);
}

static int outer_fn(void *arg)
{
	/* The inner guard takes the fault, and this one goes on. */
	CHECK_EQ(pm_guarded(touch, arg, NULL), -EIO);
	CHECK_OK(pm_guarded(touch, pm->base, NULL));
	return 17;
}

static int outer_fault_fn(void *arg)
{
	CHECK_OK(pm_guarded(touch, pm->base, NULL));
	return touch(arg);
}

TEST(guards_nest)
{
	open_truncated();
	CHECK_EQ(pm_guarded(outer_fn, pm->base + MIB - 1, NULL), 17);
	CHECK_EQ(pm_guarded(outer_fault_fn, pm->base + MIB - 1, NULL), -EIO);
	pm_close(pm);
}

TEST(the_mask_of_signals_survives_a_fault)
{
	sigset_t before, after;

	open_truncated();
	sigemptyset(&before);
	sigaddset(&before, SIGUSR1);
	CHECK_OK(sigprocmask(SIG_SETMASK, &before, NULL));
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pm_guarded(touch, pm->base + MIB - 1, NULL), -EIO);
	CHECK_OK(sigprocmask(SIG_SETMASK, NULL, &after));
	CHECK(sigismember(&after, SIGUSR1) == 1 && sigismember(&after, SIGBUS) == 0);
	pm_close(pm);
}

static void *hammer(void *arg)
{
	char buf[256];

	(void)arg;
	for (int i = 0; i < 2000; i++) {
		bool bad = i % 3 == 0;
		uint8_t *at = pm->base + (bad ? MIB / 2 : 0) + (size_t)i * 64;

		CHECK_EQ(pm_read(pm, buf, at, sizeof(buf)), bad ? -EIO : 0);
		if (i % 100 == 0)
			CHECK_EQ(pm_write(pm, at, buf, sizeof(buf)), bad ? -EIO : 0);
	}
	return NULL;
}

TEST(threads_fault_at_once)
{
	pthread_t threads[8];

	open_truncated();
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, hammer, NULL), 0);
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	pm_close(pm);
}

static void *cut_off(void *arg)
{
	pthread_barrier_t *start = arg;

	pthread_barrier_wait(start);
	CHECK_OK(truncate(path, MIB / 2));
	return NULL;
}

TEST(a_file_is_cut_short_under_readers)
{
	pthread_barrier_t start;
	pthread_t thread;
	char buf[4096];

	pm = open_map("pool", PM_FORCE_PMEM);
	CHECK_EQ(pthread_barrier_init(&start, NULL, 2), 0);
	CHECK_EQ(pthread_create(&thread, NULL, cut_off, &start), 0);
	pthread_barrier_wait(&start);
	while (!pm_read(pm, buf, pm->base + MIB / 2 - 100, sizeof(buf)))
		;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(pm_read(pm, buf, pm->base + MIB / 2, 1), -EIO);
	CHECK_OK(pm_read(pm, buf, pm->base, sizeof(buf)));
	pm_close(pm);
}

TEST(two_memories_do_not_mix)
{
	struct pmem *other;
	char buf[64];

	open_truncated();
	other = open_map("other", PM_FORCE_MSYNC);
	CHECK_EQ(pm_read(pm, buf, pm->base + MIB / 2, 64), -EIO);
	CHECK_OK(pm_read(other, buf, other->base + MIB / 2, 64));
	pm_close(pm);
	CHECK_OK(truncate(path, 0));
	CHECK_EQ(pm_read(other, buf, other->base, 64), -EIO);
	pm_close(other);
}

/* How a child ends that touches a bad page outside of any guard. */
static int death_of(void (*fn)(void))
{
	pid_t pid = fork();
	int status;

	CHECK(pid >= 0);
	if (!pid) {
		/* A sanitizer may have put its own handler there. */
		CHECK(signal(SIGBUS, SIG_DFL) != SIG_ERR);
		fn();
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void touch_unguarded(void)
{
	open_truncated();
	touch(pm->base + MIB - 1);
}

static void touch_elsewhere_guarded(void)
{
	void *at;
	int fd;

	open_truncated();
	fd = memfd_create("foreign", 0);
	at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	pm_guarded(touch, at, NULL);
}

static void send_in_guard(void)
{
	open_truncated();
	raise(SIGBUS);
}

TEST(other_faults_kill_as_ever)
{
	CHECK_EQ(death_of(touch_unguarded), -SIGBUS);
	CHECK_EQ(death_of(touch_elsewhere_guarded), -SIGBUS);
	CHECK_EQ(death_of(send_in_guard), -SIGBUS);
}

static sigjmp_buf host_env;
static const void *host_fault;

static void host_handler(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	host_fault = info->si_addr;
	siglongjmp(host_env, 1);
}

TEST(the_host_gets_what_is_not_ours)
{
	struct sigaction host = {.sa_sigaction = host_handler, .sa_flags = SA_SIGINFO}, now;
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	uint8_t *at;

	CHECK_OK(sigaction(SIGBUS, &host, NULL));
	open_truncated();
	at = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED);
	CHECK_EQ(pm_guarded(touch, pm->base + MIB - 1, NULL), -EIO);
	CHECK(!host_fault);
	if (!sigsetjmp(host_env, 1))
		touch(at + 3);
	CHECK_EQ(host_fault, at + 3);
	pm_close(pm);
	/* And it has its handler back. */
	CHECK_OK(sigaction(SIGBUS, NULL, &now));
	CHECK(now.sa_sigaction == host_handler);
	CHECK_OK(munmap(at, 4096));
	close(fd);
}

static unsigned ignored;

static void count_handler(int sig)
{
	ignored += sig == SIGBUS;
}

TEST(sent_signals_go_to_the_host_and_ignored_ones_are_ignored)
{
	struct sigaction host = {.sa_handler = count_handler};

	CHECK_OK(sigaction(SIGBUS, &host, NULL));
	open_truncated();
	CHECK_OK(raise(SIGBUS));
	CHECK_EQ(ignored, 1);
	pm_close(pm);
	host.sa_handler = SIG_IGN;
	CHECK_OK(sigaction(SIGBUS, &host, NULL));
	open_truncated();
	CHECK_OK(raise(SIGBUS));
	CHECK_EQ(ignored, 1);
	pm_close(pm);
}

TEST(a_handler_above_ours_may_stay)
{
	struct sigaction host = {.sa_handler = count_handler}, ours;

	CHECK(signal(SIGBUS, SIG_DFL) != SIG_ERR);
	open_truncated();
	CHECK_OK(sigaction(SIGBUS, &host, &ours));
	pm_close(pm);
	/* The host takes its own away later; ours, which was below, works for the next memory. */
	CHECK_OK(sigaction(SIGBUS, &ours, NULL));
	open_truncated();
	CHECK_EQ(pm_guarded(touch, pm->base + MIB - 1, NULL), -EIO);
	pm_close(pm);
	CHECK_OK(sigaction(SIGBUS, NULL, &host));
	CHECK(host.sa_handler == SIG_DFL);
}

static struct sigaction below;

static void pass_down(int sig, siginfo_t *info, void *context)
{
	below.sa_sigaction(sig, info, context);
}

TEST(a_handler_above_ours_may_pass_faults_down)
{
	struct sigaction host = {.sa_sigaction = pass_down, .sa_flags = SA_SIGINFO};

	/* It runs with everything blocked, and what it calls jumps out of it, again and again. */
	sigfillset(&host.sa_mask);
	open_truncated();
	CHECK_OK(sigaction(SIGBUS, &host, &below));
	for (int i = 0; i < 3; i++)
		CHECK_EQ(pm_guarded(touch, pm->base + MIB - 1, NULL), -EIO);
	CHECK_OK(sigaction(SIGBUS, &below, NULL));
	pm_close(pm);
}
