/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Processes: starting them, knowing them again, and waiting for their end.
 *
 * A process is known by its pid and its start time in clock ticks since boot (/proc/PID/stat, field
 * 22): a pid alone may belong to somebody else by the time we look. Waiting uses a pidfd, which
 * becomes readable when the process ends whoever its parent is, so that nothing sleeps and looks.
 *
 * A daemon starts as an orphan: nbdkit in the foreground asks the kernel to be ended with its
 * parent (PR_SET_PDEATHSIG), which must not be this command. So there is a process between the two,
 * and the daemon holds still until that one is gone.
 */
#include "run.h"

#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Longest output of a helper program that is kept. */
#define OUTPUT_MAX 8192

/* 0 when there is no such process, or only its zombie. */
static uint64_t start_time(pid_t pid)
{
	char path[64], text[1024];
	uint64_t start = 0;
	char *p;
	FILE *f;
	int i;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	p = fgets(text, sizeof(text), f);
	fclose(f);
	/* The program's name, field 2, may hold anything: count from the last parenthesis. */
	p = p ? strrchr(text, ')') : NULL;
	if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
		return 0;
	for (i = 3; i <= 22 && p; i++)
		p = strchr(p + 1, ' ');
	if (p && sscanf(p, "%" SCNu64, &start) != 1)
		start = 0;
	return start;
}

json_t *run_process(pid_t pid)
{
	return json_pack("{s:i, s:I}", "pid", (int)pid, "start", (json_int_t)start_time(pid));
}

pid_t run_process_alive(const json_t *process)
{
	pid_t pid = (pid_t)json_integer_value(json_object_get(process, "pid"));
	uint64_t start = (uint64_t)json_integer_value(json_object_get(process, "start"));

	return pid > 0 && start != 0 && start_time(pid) == start ? pid : 0;
}

bool run_has_program(const char *name)
{
	const char *path = getenv("PATH");
	char *copy = cli_format("%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");
	char *save = NULL, *dir;
	bool found = false;

	for (dir = strtok_r(copy, ":", &save); dir && !found; dir = strtok_r(NULL, ":", &save)) {
		char *file = cli_format("%s/%s", dir, name);

		found = access(file, X_OK) == 0;
		free(file);
	}
	free(copy);
	return found;
}

/* In the child: an ordinary environment for a program, whatever ours was. */
static void child_exec(const char *const argv[])
{
	const char *path = getenv("PATH");
	char *full = cli_format("%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin");

	setenv("PATH", full, 1);
	signal(SIGPIPE, SIG_DFL);
	/* execvp() does not write to them; its type is older than const. */
	execvp(argv[0], (char *const *)(uintptr_t)argv);
	fprintf(stderr, "varve: cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* The daemon itself: waits until it is an orphan, then becomes the program. */
static void daemon_child(const char *const argv[], int log, int go)
{
	char byte;
	int null;

	while (read(go, &byte, 1) < 0 && errno == EINTR)
		;
	null = open("/dev/null", O_RDONLY);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	child_exec(argv);
}

/*
 * In the parent: learns the daemon's pid, sees the process between us end, and only then lets the
 * daemon go on.
 */
static pid_t daemon_parent(pid_t middle, int pid_fd, int go)
{
	pid_t pid = -1;

	if (middle > 0) {
		if (read(pid_fd, &pid, sizeof(pid)) != sizeof(pid))
			pid = -1;
		while (waitpid(middle, NULL, 0) < 0 && errno == EINTR)
			;
	}
	close(go);
	return pid;
}

pid_t run_daemon(const char *const argv[], const char *log_path)
{
	int go[2] = {-1, -1}, report[2] = {-1, -1}, log;
	pid_t middle = -1, pid;

	log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (log < 0) {
		cli_error("cannot write %s: %s", log_path, strerror(errno));
		return -1;
	}
	fflush(NULL);
	if (pipe2(go, O_CLOEXEC) == 0 && pipe2(report, O_CLOEXEC) == 0)
		middle = fork();
	if (middle == 0) {
		setsid();
		pid = fork();
		if (pid == 0) {
			close(go[1]);
			daemon_child(argv, log, go[0]);
		}
		if (pid < 0 || write(report[1], &pid, sizeof(pid)) != sizeof(pid))
			_exit(1);
		_exit(0);
	}
	close(report[1]);
	pid = daemon_parent(middle, report[0], go[1]);
	if (pid < 0)
		cli_error("cannot start %s: %s", argv[0], strerror(errno));
	close(report[0]);
	close(go[0]);
	close(log);
	return pid;
}

bool run_wait_gone(pid_t pid, unsigned int timeout_ms, int *ret_status)
{
	uint64_t deadline = run_now_ms() + timeout_ms;
	struct pollfd pfd = {.events = POLLIN};
	int status = 0, n;

	pfd.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	/* ENOSYS needs a kernel older than 5.3; then a child can still be waited for. */
	if (pfd.fd >= 0) {
		do {
			uint64_t now = run_now_ms();

			n = poll(&pfd, 1, now < deadline ? (int)(deadline - now) : 0);
		} while (n < 0 && errno == EINTR);
		close(pfd.fd);
		if (n == 0)
			return false;
	} else if (errno != ESRCH && errno != EINVAL) {
		return false;
	}
	if (waitpid(pid, &status, WNOHANG) == pid && ret_status)
		*ret_status = status;
	return true;
}

/* ---- helper programs ------------------------------------------------------------------------- */

struct capture {
	int fd;
	size_t len;
	char text[OUTPUT_MAX];
};

/* Reads what is there; closes at the end of the stream. */
static void capture_read(struct capture *c)
{
	char buf[1024];
	ssize_t n = read(c->fd, buf, sizeof(buf));

	if (n < 0 && errno == EINTR)
		return;
	if (n <= 0) {
		close(c->fd);
		c->fd = -1;
		return;
	}
	if ((size_t)n > sizeof(c->text) - 1 - c->len)
		n = (ssize_t)(sizeof(c->text) - 1 - c->len);
	memcpy(c->text + c->len, buf, (size_t)n);
	c->len += (size_t)n;
}

static char *capture_text(struct capture *c, bool first_line)
{
	c->text[c->len] = '\0';
	if (first_line)
		c->text[strcspn(c->text, "\n")] = '\0';
	while (c->len > 0 && strchr(" \n", c->text[c->len - 1]) && c->text[c->len - 1])
		c->text[--c->len] = '\0';
	return cli_format("%s", c->text);
}

/* Until both streams have ended; false when the time is over. */
static bool capture_both(struct capture *out, struct capture *err, uint64_t deadline)
{
	while (out->fd >= 0 || err->fd >= 0) {
		struct pollfd pfd[2] = {{.fd = out->fd, .events = POLLIN},
					{.fd = err->fd, .events = POLLIN}};
		uint64_t now = run_now_ms();

		if (now >= deadline)
			return false;
		if (poll(pfd, 2, (int)(deadline - now)) < 0)
			continue;
		if (pfd[0].revents)
			capture_read(out);
		if (pfd[1].revents)
			capture_read(err);
	}
	return true;
}

static pid_t spawn_captured(const char *const argv[], struct capture *out, struct capture *err)
{
	int po[2], pe[2];
	pid_t pid;

	if (pipe2(po, O_CLOEXEC) < 0)
		return -1;
	if (pipe2(pe, O_CLOEXEC) < 0) {
		close(po[0]);
		close(po[1]);
		return -1;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		dup2(po[1], STDOUT_FILENO);
		dup2(pe[1], STDERR_FILENO);
		child_exec(argv);
	}
	close(po[1]);
	close(pe[1]);
	out->fd = po[0];
	err->fd = pe[0];
	return pid;
}

int run_program(const char *const argv[], unsigned int timeout_s, char **ret_out, char **ret_err)
{
	uint64_t deadline = run_now_ms() + timeout_s * UINT64_C(1000);
	struct capture *c = calloc(2, sizeof(*c));
	int status = 0, code = -1;
	pid_t pid;

	if (!c)
		cli_oom();
	c[0].fd = c[1].fd = -1;
	pid = spawn_captured(argv, &c[0], &c[1]);
	if (pid > 0) {
		uint64_t now;

		capture_both(&c[0], &c[1], deadline);
		now = run_now_ms();
		if (!run_wait_gone(pid, now < deadline ? (unsigned int)(deadline - now) : 0,
				   &status)) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			status = SIGKILL;
		}
		code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	}
	if (c[0].fd >= 0)
		close(c[0].fd);
	if (c[1].fd >= 0)
		close(c[1].fd);
	if (ret_out)
		*ret_out = capture_text(&c[0], true);
	if (ret_err)
		*ret_err = capture_text(&c[1], false);
	free(c);
	return code;
}
