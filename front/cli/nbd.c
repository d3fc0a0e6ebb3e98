/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Just enough of the NBD protocol to know that a server is ready: connect, read the greeting
 * (NBDMAGIC, IHAVEOPT, flags), answer with our flags and NBD_OPT_ABORT, so that the server sees a
 * client that changed its mind and not a broken one.
 *
 * A socket that accepts is not enough: nbdkit listens before the volume is open, and the greeting
 * comes only after that.
 */
#include "server.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "run.h"

#define GREETING_LEN 18

int nbd_split_tcp(const char *tcp, char host[256], char port[8])
{
	const char *colon = strrchr(tcp, ':');
	const char *p = colon ? colon + 1 : tcp;
	size_t len = colon ? (size_t)(colon - tcp) : 0;

	if (!p[0] || strlen(p) > 5 || p[strspn(p, "0123456789")])
		return -1;
	snprintf(port, 8, "%s", p);
	if (len >= 2 && tcp[0] == '[' && tcp[len - 1] == ']') {
		tcp++;
		len -= 2;
	}
	if (len == 0)
		snprintf(host, 256, "127.0.0.1");
	else if (len < 256)
		snprintf(host, 256, "%.*s", (int)len, tcp);
	else
		return -1;
	return 0;
}

static int connect_unix(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int saved = errno;

		close(fd);
		errno = saved;
		return -1;
	}
	return fd;
}

static int connect_tcp(const char *tcp)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *ai;
	char host[256], port[8];
	int fd = -1;

	if (nbd_split_tcp(tcp, host, port) < 0 || getaddrinfo(host, port, &hints, &list) != 0) {
		errno = EINVAL;
		return -1;
	}
	for (ai = list; ai && fd < 0; ai = ai->ai_next) {
		fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
		if (fd >= 0 && connect(fd, ai->ai_addr, ai->ai_addrlen) < 0) {
			close(fd);
			fd = -1;
		}
	}
	freeaddrinfo(list);
	return fd;
}

/* Length read: less than len when the time is over or the peer has closed. */
static size_t read_for(int fd, unsigned char *buf, size_t len, unsigned int timeout_ms)
{
	uint64_t deadline = run_now_ms() + timeout_ms;
	size_t got = 0;

	while (got < len) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		uint64_t now = run_now_ms();
		ssize_t n;

		if (now >= deadline || poll(&pfd, 1, (int)(deadline - now)) <= 0)
			break;
		n = read(fd, buf + got, len - got);
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

int nbd_answers(const char *socket_path, const char *tcp, unsigned int timeout_ms)
{
	/* Client flags: fixed newstyle, no zeroes; then IHAVEOPT, NBD_OPT_ABORT, no data. */
	static const unsigned char abort_msg[] = {
		0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 2, 0, 0, 0, 0,
	};
	unsigned char greeting[GREETING_LEN];
	size_t got;
	int fd = socket_path ? connect_unix(socket_path) : connect_tcp(tcp);

	if (fd < 0)
		return 0;
	got = read_for(fd, greeting, sizeof(greeting), timeout_ms);
	if (got == sizeof(greeting) && memcmp(greeting, "NBDMAGIC", 8) == 0 &&
	    send(fd, abort_msg, sizeof(abort_msg), MSG_NOSIGNAL) == sizeof(abort_msg)) {
		/* The server's acknowledgement, or its close: either way it has seen ours. */
		read_for(fd, greeting, 1, 1000);
		close(fd);
		return 1;
	}
	close(fd);
	return got >= 8 && memcmp(greeting, "NBDMAGIC", 8) != 0 ? -1 : 0;
}
