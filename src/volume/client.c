/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The other end of a control socket: one request, one answer, each a line.
 *
 * A socket that nobody listens on is what a killed process has left: it counts as not there. A
 * process that is stopped or stuck still has its socket, and the kernel connects as long as the
 * backlog has room: so connecting, sending and waiting for a quick answer end at one deadline. What
 * may rightly take long (control_message_text()) is waited for without one, once it was sent.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/clock.h"
#include "volume/control.h"
#include "volume/rundir.h"
#include "volume/volume.h"

#define NO_DEADLINE UINT64_MAX

int rundir_address_of_path(const char *path, struct sockaddr_un *ret, struct err *err)
{
	const size_t len = strlen(path);

	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	if (len >= sizeof(ret->sun_path))
		return err_set(err, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes",
			       path, sizeof(ret->sun_path) - 1);
	memcpy(ret->sun_path, path, len + 1);
	return 0;
}

int rundir_address(const char *name_or_spec, struct sockaddr_un *ret, struct err *err)
{
	const char *dir = getenv("VARVE_RUN_DIR");
	const char *below = "";
	const char *name = name_or_spec + strlen(name_or_spec);
	char path[PATH_MAX];

	while (name > name_or_spec && !strchr("/,:", name[-1]))
		name--;
	if (!dir || !*dir) {
		dir = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
		below = "/varve";
	}
	if (!dir || !*dir)
		return err_set(err, -ENOENT,
			       "no run directory: set VARVE_RUN_DIR or XDG_RUNTIME_DIR");
	if (snprintf(path, sizeof(path), "%s%s/%s.sock", dir, below, name) >= (int)sizeof(path))
		return err_set(err, -ENAMETOOLONG, "%s%s/%s.sock: too long", dir, below, name);
	return rundir_address_of_path(path, ret, err);
}

/* Until the socket is ready for events. */
static int wait_ready(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	for (;;) {
		const uint64_t now = clock_now_ns();
		int timeout_ms = -1, n;

		if (deadline_ns != NO_DEADLINE)
			timeout_ms = now < deadline_ns ? (int)((deadline_ns - now) / 1000000 + 1)
						       : 0;
		n = poll(&pfd, 1, timeout_ms);
		if (n > 0)
			return 0;
		if (n == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

/* The socket's own timeout does for connecting: a full backlog cannot be polled for. */
static int connect_within(int fd, const struct sockaddr_un *address, unsigned int timeout_ms)
{
	const struct timeval patience = {
		.tv_sec = timeout_ms / 1000,
		.tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000,
	};

	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		return -errno;
	while (connect(fd, (const struct sockaddr *)address, sizeof(*address))) {
		if (errno == EINTR)
			continue;
		if (errno == EAGAIN)
			return -ETIMEDOUT;
		return errno == ECONNREFUSED ? -ENOENT : -errno;
	}
	return 0;
}

static int send_line(int fd, const char *text, uint64_t deadline_ns)
{
	const struct iovec iov[2] = {
		{.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)},
		{.iov_base = (void *)(uintptr_t)"\n", .iov_len = 1},
	};

	for (int i = 0; i < 2; i++) {
		const char *at = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left) {
			const int rc = wait_ready(fd, POLLOUT, deadline_ns);
			const ssize_t n = rc ? -1 : send(fd, at, left,
							 MSG_NOSIGNAL | MSG_DONTWAIT);

			if (rc)
				return rc;
			if (n < 0 && (errno == EINTR || errno == EAGAIN))
				continue;
			if (n < 0)
				return -errno;
			at += n;
			left -= (size_t)n;
		}
	}
	return 0;
}

/* A line without its end, malloc'd. */
static int receive_line(int fd, uint64_t deadline_ns, char **ret)
{
	size_t len = 0, room = 4096;
	char *buf = malloc(room);

	while (buf) {
		const int rc = wait_ready(fd, POLLIN, deadline_ns);
		const ssize_t n = rc ? -1 : recv(fd, buf + len, room - len - 1, 0);
		char *end;

		if (n < 0 && !rc && errno == EINTR)
			continue;
		if (n <= 0) {
			const int error = rc ? rc : n ? -errno : -EPIPE;

			free(buf);
			return error;
		}
		buf[len + (size_t)n] = '\0';
		end = memchr(buf + len, '\n', (size_t)n);
		len += (size_t)n;
		if (end) {
			*end = '\0';
			*ret = buf;
			return 0;
		}
		if (room - len < 1024) {
			char *more = room < CONTROL_ANSWER_MAX ? realloc(buf, room * 2) : NULL;

			if (!more)
				free(buf);
			buf = more;
			room *= 2;
		}
	}
	return -ENOMEM;
}

static bool is_quick(const char *request_json)
{
	json_t *request = json_loads(request_json, 0, NULL);
	const bool quick = !control_message_text(request);

	json_decref(request);
	return quick;
}

int control_call(const char *name, const char *request_json, unsigned int timeout_ms,
		 char **ret_json)
{
	const uint64_t deadline_ns = clock_now_ns() + timeout_ms * UINT64_C(1000000);
	struct err *err = errmsg_begin();
	struct sockaddr_un address;
	int fd, rc = rundir_address(name, &address, err);

	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "control socket of %s", name);
	rc = connect_within(fd, &address, timeout_ms);
	if (!rc)
		rc = send_line(fd, request_json, deadline_ns);
	if (!rc)
		rc = receive_line(fd, is_quick(request_json) ? deadline_ns : NO_DEADLINE, ret_json);
	close(fd);
	if (rc == -ENOENT)
		return err_set(err, rc, "nobody has volume %s open (%s)", name, address.sun_path);
	if (rc == -ETIMEDOUT)
		return err_set(err, rc,
			       "control socket %s: no answer within %u ms; is the process that has "
			       "volume %s open stopped or stuck?",
			       address.sun_path, timeout_ms, name);
	return rc ? err_sys(err, rc, "control socket %s", address.sun_path) : 0;
}

int varve_control_call(const char *name, const char *request_json, char **ret_json)
{
	return control_call(name, request_json, CONTROL_TIMEOUT_MS, ret_json);
}
