/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The test library: registration, a process for each case, TAP.
 *
 * The parent has one thread and forks; the child runs the case and exits. They share one page
 * (struct shared), in which the child leaves what the parent must know however the child ends: the
 * reason of a skip, the seed, the directory to remove. The child's stdout and stderr go to a memory
 * file, which the parent prints as TAP comments if the case failed, so that nothing a case prints
 * can be taken for a result.
 *
 * A child that passes leaves through exit(), so that leak checkers and coverage get their turn; a
 * child that fails leaves through _exit(), from whatever thread.
 */
#include "lib/tap.h"

#include <errno.h>
#include <fnmatch.h>
#include <ftw.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_SKIPPED = 77,
	DEFAULT_TIMEOUT_S = 60,
	OUTPUT_MAX = 1 << 20, /* of one case's output, the rest is cut */
};

#define DEFAULT_SEED UINT64_C(0x5eed)

struct shared {
	char skip_reason[256];
	char tmpdir[512];
	uint64_t seed;
	bool seed_used;
};

static struct test_case *first_case;
static struct test_case **last_case = &first_case;
static struct shared *shared;
static bool no_fork;
static bool verbose;
static pthread_mutex_t tmpdir_lock = PTHREAD_MUTEX_INITIALIZER; /* guards shared->tmpdir */

void test_register(struct test_case *tc)
{
	*last_case = tc;
	last_case = &tc->next;
}

/* --- what a case calls, on any thread ------------------------------------------------------- */

static _Noreturn void end_case(int code)
{
	fflush(NULL);
	if (no_fork && code == EXIT_FAILED)
		abort();
	_exit(code);
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
	char msg[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fprintf(stderr, "%s:%d: %s\n", file, line, msg);
	end_case(EXIT_FAILED);
}

void test_note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void test_check(bool ok, const char *file, int line, const char *text)
{
	if (!ok)
		test_fail(file, line, "CHECK(%s) failed", text);
}

void test_check_eq(intmax_t a, intmax_t b, const char *file, int line, const char *ta,
		   const char *tb)
{
	if (a != b)
		test_fail(file, line,
			  "%s == %s failed: %" PRIdMAX " (0x%jx) != %" PRIdMAX " (0x%jx)", ta, tb,
			  a, (uintmax_t)a, b, (uintmax_t)b);
}

void test_check_streq(const char *a, const char *b, const char *file, int line, const char *ta,
		      const char *tb)
{
	if (!a || !b || strcmp(a, b) != 0)
		test_fail(file, line, "%s == %s failed: \"%s\" != \"%s\"", ta, tb, a ? a : "(null)",
			  b ? b : "(null)");
}

void test_check_memeq(const void *a, const void *b, size_t len, const char *file, int line,
		      const char *ta, const char *tb)
{
	const unsigned char *pa = a;
	const unsigned char *pb = b;

	for (size_t i = 0; i < len; i++) {
		if (pa[i] != pb[i])
			test_fail(file, line, "%s == %s failed: byte %zu of %zu: 0x%02x != 0x%02x",
				  ta, tb, i, len, pa[i], pb[i]);
	}
}

void test_check_ok(intmax_t ret, const char *file, int line, const char *text)
{
	if (ret == 0)
		return;
	if (ret < 0 && ret > -4096)
		test_fail(file, line, "%s failed: %s (%" PRIdMAX ")", text, strerror((int)-ret),
			  ret);
	test_fail(file, line, "%s failed: returned %" PRIdMAX ", not 0", text, ret);
}

void test_skip(const char *reason)
{
	snprintf(shared->skip_reason, sizeof(shared->skip_reason), "%s", reason);
	if (no_fork)
		printf("# skipped: %s\n", reason);
	end_case(EXIT_SKIPPED);
}

uint64_t test_seed(void)
{
	__atomic_store_n(&shared->seed_used, true, __ATOMIC_RELAXED);
	return shared->seed;
}

const char *test_tmpdir(void)
{
	const char *base = getenv("VARVE_TEST_DIR");
	char path[sizeof(shared->tmpdir)];

	pthread_mutex_lock(&tmpdir_lock);
	if (!shared->tmpdir[0]) {
		base = base ? base : getenv("TMPDIR");
		snprintf(path, sizeof(path), "%s/varve-test-XXXXXX", base ? base : "/tmp");
		if (!mkdtemp(path))
			test_fail(__FILE__, __LINE__, "mkdtemp %s: %s", path, strerror(errno));
		memcpy(shared->tmpdir, path, sizeof(path));
	}
	pthread_mutex_unlock(&tmpdir_lock);
	return shared->tmpdir;
}

/* --- the parent ----------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_tmpdir(void)
{
	if (!shared->tmpdir[0])
		return;
	if (getenv("VARVE_TEST_KEEP"))
		printf("# kept %s\n", shared->tmpdir);
	else if (nftw(shared->tmpdir, remove_one, 32, FTW_DEPTH | FTW_PHYS) != 0)
		printf("# could not remove %s: %s\n", shared->tmpdir, strerror(errno));
}

static void reset_shared(void)
{
	const char *seed = getenv("VARVE_SEED");

	memset(shared, 0, sizeof(*shared));
	shared->seed = seed ? strtoull(seed, NULL, 0) : DEFAULT_SEED;
}

static _Noreturn void run_child(const struct test_case *tc, int output)
{
	sigset_t none;

	/* A group of its own, so that the parent can end what the case itself has started. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	close(output);
	tc->run();
	fflush(NULL);
	exit(0);
}

static unsigned int case_timeout_s(void)
{
	const char *env = getenv("VARVE_TEST_TIMEOUT");

	return env ? (unsigned int)strtoul(env, NULL, 10) : DEFAULT_TIMEOUT_S;
}

/* Waits for the child, kills it when its time is up. Returns whether it was in time. */
static bool wait_child(pid_t pid, int *status)
{
	unsigned int limit_s = case_timeout_s();
	struct timespec deadline, now, left;
	sigset_t chld;
	siginfo_t info;
	bool in_time = true;

	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += limit_s;
	for (;;) {
		info.si_pid = 0;
		if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
		    info.si_pid == pid)
			break;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (limit_s && in_time && now.tv_sec >= deadline.tv_sec) {
			in_time = false;
			kill(-pid, SIGKILL);
		}
		/* Once a second at least: a SIGCHLD may have come before the wait began. */
		left = (struct timespec){.tv_sec = 1};
		sigtimedwait(&chld, NULL, &left);
	}
	/* Not reaped yet, so the group's number cannot be anybody else's. */
	kill(-pid, SIGKILL);
	waitpid(pid, status, 0);
	return in_time;
}

static void print_output(int fd)
{
	off_t end = lseek(fd, 0, SEEK_END);
	size_t len = end > OUTPUT_MAX ? OUTPUT_MAX : (size_t)end;
	char *text = len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	bool line_start = true;

	if (text == MAP_FAILED)
		return;
	for (size_t i = 0; i < len; i++) {
		if (line_start)
			fputs("#   ", stdout);
		line_start = text[i] == '\n';
		putchar(text[i]);
	}
	fputs(line_start ? "" : "\n", stdout);
	if (end > OUTPUT_MAX)
		printf("#   ... %jd bytes more\n", (intmax_t)(end - OUTPUT_MAX));
	munmap(text, len);
}

static void print_failure(const struct test_case *tc, bool in_time, int status)
{
	if (!in_time)
		printf("# %s: no end after %u seconds, killed\n", tc->name, case_timeout_s());
	else if (WIFSIGNALED(status))
		printf("# %s: %s\n", tc->name, strsignal(WTERMSIG(status)));
	else
		printf("# %s: exit code %d\n", tc->name, WEXITSTATUS(status));
	if (shared->seed_used)
		printf("# reproduce with VARVE_SEED=0x%" PRIx64 "\n", shared->seed);
}

/* Returns whether the case did not fail. */
static bool run_forked(const struct test_case *tc, unsigned int number)
{
	int output = memfd_create(tc->name, MFD_CLOEXEC);
	int status = 0;
	bool in_time, ok;
	pid_t pid;

	reset_shared();
	fflush(NULL);
	pid = output < 0 ? -1 : fork();
	if (pid < 0) {
		printf("not ok %u - %s\n# fork: %s\n", number, tc->name, strerror(errno));
		return false;
	}
	if (pid == 0)
		run_child(tc, output);
	setpgid(pid, pid);
	in_time = wait_child(pid, &status);
	ok = in_time && WIFEXITED(status) &&
	     (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXIT_SKIPPED);
	printf("%s %u - %s", ok ? "ok" : "not ok", number, tc->name);
	if (ok && WEXITSTATUS(status) == EXIT_SKIPPED)
		printf(" # SKIP %s", shared->skip_reason);
	putchar('\n');
	if (!ok)
		print_failure(tc, in_time, status);
	if (!ok || verbose)
		print_output(output);
	close(output);
	remove_tmpdir();
	fflush(stdout);
	return ok;
}

static bool run_in_process(const struct test_case *tc, unsigned int number)
{
	reset_shared();
	tc->run();
	remove_tmpdir();
	printf("ok %u - %s\n", number, tc->name);
	return true;
}

static bool is_selected(const struct test_case *tc, char **patterns)
{
	if (!*patterns)
		return true;
	for (; *patterns; patterns++) {
		if (fnmatch(*patterns, tc->name, 0) == 0)
			return true;
	}
	return false;
}

static int run_all(char **patterns, bool list)
{
	unsigned int count = 0, number = 0, failed = 0;

	for (struct test_case *tc = first_case; tc; tc = tc->next)
		count += is_selected(tc, patterns);
	if (!list)
		printf("1..%u\n", count);
	for (struct test_case *tc = first_case; tc; tc = tc->next) {
		if (!is_selected(tc, patterns))
			continue;
		number++;
		if (list)
			puts(tc->name);
		else
			failed += !(no_fork ? run_in_process : run_forked)(tc, number);
	}
	if (*patterns && count == 0) {
		fprintf(stderr, "no case of that name; --list lists them\n");
		return EXIT_USAGE;
	}
	return failed ? EXIT_FAILED : 0;
}

int main(int argc, char **argv)
{
	bool list = false;
	sigset_t chld;
	int i, ret;

	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--list") == 0) {
			list = true;
		} else if (strcmp(argv[i], "--no-fork") == 0) {
			no_fork = true;
		} else if (strcmp(argv[i], "-v") == 0) {
			verbose = true;
		} else {
			fprintf(stderr, "usage: %s [--list] [--no-fork] [-v] [NAME|GLOB]...\n",
				argv[0]);
			return EXIT_USAGE;
		}
	}
	/* What a case printed before it crashed must not die with it. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED) {
		perror("mmap");
		return EXIT_FAILED;
	}
	/* Blocked before the first fork, so that sigtimedwait() sees every one of them. */
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigprocmask(SIG_BLOCK, &chld, NULL);
	ret = run_all(argv + i, list);
	munmap(shared, sizeof(*shared));
	return ret;
}
