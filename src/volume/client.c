/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The other end of a control socket: one request, one answer, each a line.
 *
 * A socket that nobody listens on is what a killed process has left: it counts as not there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "volume/control.h"
#include "volume/rundir.h"
#include "volume/volume.h"

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

static int send_line(int fd, const char *text)
{
	const struct iovec iov[2] = {
		{.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)},
		{.iov_base = (void *)(uintptr_t)"\n", .iov_len = 1},
	};

	for (int i = 0; i < 2; i++) {
		const char *at = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left) {
			const ssize_t n = send(fd, at, left, MSG_NOSIGNAL);

			if (n < 0 && errno == EINTR)
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
static int receive_line(int fd, char **ret)
{
	size_t len = 0, room = 4096;
	char *buf = malloc(room);

	while (buf) {
		const ssize_t n = recv(fd, buf + len, room - len - 1, 0);
		char *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			free(buf);
			return n ? -errno : -EPIPE;
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

int varve_control_call(const char *name, const char *request_json, char **ret_json)
{
	struct err *err = errmsg_begin();
	struct sockaddr_un address;
	int fd, rc = rundir_address(name, &address, err);

	if (rc)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_sys(err, -errno, "control socket of %s", name);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)))
		rc = errno == ECONNREFUSED ? -ENOENT : -errno;
	if (!rc)
		rc = send_line(fd, request_json);
	if (!rc)
		rc = receive_line(fd, ret_json);
	close(fd);
	if (rc == -ENOENT)
		return err_set(err, rc, "nobody has volume %s open (%s)", name, address.sun_path);
	return rc ? err_sys(err, rc, "control socket %s", address.sun_path) : 0;
}
