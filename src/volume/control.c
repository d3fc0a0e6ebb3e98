/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Serving the control socket.
 *
 * One thread polls the socket, CONTROL_CLIENTS clients at most, and an eventfd. Requests that are
 * quick are answered there. Those that may take long (drain waits for the home) run on a pool with
 * a thread for each client, so that status still answers, and resume ends a suspension, while
 * others wait; the client that asked is not listened to until then. When it hangs up its wait ends.
 *
 *	READING --line--> answered at once --> READING
 *	   \--line--> WORKING --eventfd--> READING (or freed if it has gone)
 *	                 \--hangs up--> volume_cancel() --> WORKING
 *
 * Invariants
 *   1. A client's fields belong to the polling thread, but for those of answer while WORKING,
 *      which belong to the worker until it has stored done.
 *   2. Bounded: clients, the length of a line, one request of a client at a time. A client that
 *      does not take its answer within SEND_TIMEOUT_S is dropped.
 *   3. The socket is 0600 from its birth: it is made under a name of its own and renamed.
 *
 * Locks: none; done is atomic, and stop is told by the eventfd.
 */
#include "volume/control.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "volume/rundir.h"
#include "volume/volume.h"

#define SEND_TIMEOUT_S 5
#define WORKER_THREADS CONTROL_CLIENTS

struct client {
	struct control *control;
	int fd; /* -1: free */
	bool working, gone;
	struct cancel cancel;
	size_t len;
	char *line; /* CONTROL_LINE_MAX */
	struct work work;
	json_t *request, *answer;
	_Atomic bool done; /* the worker's last word; pairs acquire with release */
};

struct control {
	struct varve_volume *vol;
	int listener, wake;
	_Atomic bool stop;
	pthread_t thread;
	struct workers *workers;
	struct sockaddr_un address;
	struct client clients[CONTROL_CLIENTS];
};

/* ---- requests ------------------------------------------------------------------------------ */

static json_t *failure(int rc, const char *text)
{
	return json_pack("{s:b, s:s, s:i}", "ok", 0, "error", text, "errno", -rc);
}

static json_t *answer_status(struct varve_volume *vol)
{
	char *text = NULL;
	const int rc = varve_status(vol, &text);
	json_t *status = rc ? NULL : json_loads(text, 0, NULL);

	free(text);
	return status ? json_pack("{s:b, s:o}", "ok", 1, "status", status)
		      : failure(rc ? rc : -ENOMEM, rc ? varve_errmsg() : "no memory");
}

static json_t *answer_info(struct varve_volume *vol)
{
	struct varve_info info;

	varve_get_info(vol, &info);
	return json_pack("{s:b, s:{s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:b, s:i}}", "ok", 1, "info",
			 "name", info.name, "type", info.type, "uuid", info.uuid, "size_bytes",
			 (json_int_t)info.size_bytes, "block_bytes", (int)info.block_bytes,
			 "optimal_bytes", (int)info.optimal_bytes, "max_atomic_bytes",
			 (int)info.max_atomic_bytes, "read_only", (int)info.read_only, "pid",
			 (int)getpid());
}

static json_t *answer_message(struct varve_volume *vol, const char *text,
			      const struct cancel *cancel)
{
	char *told = NULL;
	const int rc = message_run(vol, text, cancel, &told);
	json_t *value = told ? json_loads(told, JSON_DECODE_ANY, NULL) : NULL;

	free(told);
	if (rc)
		return failure(rc, varve_errmsg());
	return json_pack("{s:b, s:o}", "ok", 1, "answer", value ? value : json_null());
}

static const char *message_text(const json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	if (command && !strcmp(command, "message"))
		return json_string_value(json_object_get(request, "text"));
	if (command && (!strcmp(command, "flush") || !strcmp(command, "drain")))
		return command;
	return NULL;
}

const char *control_message_text(const json_t *request)
{
	const char *text = message_text(request);

	return text && message_is_quick(text) ? NULL : text;
}

static json_t *answer_quick(struct varve_volume *vol, json_t *request)
{
	const char *command = json_string_value(json_object_get(request, "command"));

	if (!command)
		return failure(-EINVAL, "expected a JSON object with a command");
	if (!strcmp(command, "status"))
		return answer_status(vol);
	if (!strcmp(command, "info"))
		return answer_info(vol);
	if (message_text(request))
		return answer_message(vol, message_text(request), NULL);
	return failure(-EINVAL, "expected the command status, info, message, flush or drain");
}

static void control_wake(struct control *c)
{
	const uint64_t one = 1;

	/* Full would be fine too: it is readable then. */
	if (write(c->wake, &one, sizeof(one)) < 0)
		return;
}

static void work_on_message(struct work *work)
{
	struct client *client = container_of(work, struct client, work);
	struct control *c = client->control;

	client->answer = answer_message(c->vol, message_text(client->request),
					&client->cancel);
	atomic_store_explicit(&client->done, true, memory_order_release);
	control_wake(c);
}

/* ---- clients ------------------------------------------------------------------------------- */

static void drop(struct client *client)
{
	close(client->fd);
	free(client->line);
	client->line = NULL;
	client->fd = -1;
	client->len = 0;
}

static void reply(struct client *client, json_t *answer)
{
	char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0, at = 0;
	ssize_t n = len ? 0 : -1;

	json_decref(answer);
	if (text)
		text[len++] = '\n'; /* in place of the end: it is sent by length */
	while (n >= 0 && at < len) {
		n = send(client->fd, text + at, len - at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			n = 0;
		at += n > 0 ? (size_t)n : 0;
	}
	free(text);
	if (n < 0)
		drop(client);
}

static void handle_line(struct client *client, const char *line)
{
	struct control *c = client->control;
	json_t *request = json_loads(line, 0, NULL);

	if (!request) {
		reply(client, failure(-EINVAL, "not a JSON object"));
		return;
	}
	if (!control_message_text(request)) {
		reply(client, answer_quick(c->vol, request));
		json_decref(request);
		return;
	}
	client->request = request;
	client->working = true;
	client->gone = false;
	client->cancel = (struct cancel){0};
	atomic_store_explicit(&client->done, false, memory_order_relaxed);
	workers_defer(c->workers, &client->work);
}

/* Handles what lies in the buffer as far as the client is not busy. */
static void handle_buffer(struct client *client)
{
	char *end;

	while (client->fd >= 0 && !client->working &&
	       (end = memchr(client->line, '\n', client->len))) {
		const size_t used = (size_t)(end - client->line) + 1;

		*end = '\0';
		handle_line(client, client->line);
		if (client->fd < 0)
			return;
		client->len -= used;
		memmove(client->line, client->line + used, client->len);
	}
	if (client->fd >= 0 && !client->working && client->len == CONTROL_LINE_MAX) {
		client->len = 0;
		reply(client, failure(-EMSGSIZE, "line too long"));
		if (client->fd >= 0)
			drop(client);
	}
}

static void receive(struct client *client)
{
	const ssize_t n = recv(client->fd, client->line + client->len,
			       CONTROL_LINE_MAX - client->len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		drop(client);
		return;
	}
	client->len += (size_t)n;
	handle_buffer(client);
}

static void finish_work(struct client *client)
{
	client->working = false;
	json_decref(client->request);
	client->request = NULL;
	reply(client, client->answer);
	client->answer = NULL;
	if (client->fd >= 0)
		handle_buffer(client);
}

/* Whoever asked does not wait any more. The answer is for nobody: sending it drops the client. */
static void hang_up(struct client *client)
{
	client->gone = true;
	volume_cancel(client->control->vol, &client->cancel);
}

static void welcome(struct control *c)
{
	const struct timeval patience = {.tv_sec = SEND_TIMEOUT_S};
	const int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
	struct client *client = NULL;

	if (fd < 0)
		return;
	for (int i = 0; i < CONTROL_CLIENTS && !client; i++)
		if (c->clients[i].fd < 0)
			client = &c->clients[i];
	if (client)
		client->line = malloc(CONTROL_LINE_MAX);
	if (!client || !client->line) {
		close(fd);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	client->fd = fd;
	client->len = 0;
	client->gone = false;
}

/* ---- the thread ---------------------------------------------------------------------------- */

static bool is_full(const struct control *c)
{
	for (int i = 0; i < CONTROL_CLIENTS; i++)
		if (c->clients[i].fd < 0)
			return false;
	return true;
}

static void wait_for_events(struct control *c, struct pollfd fds[CONTROL_CLIENTS + 2])
{
	fds[0] = (struct pollfd){.fd = c->wake, .events = POLLIN};
	/* More than we have room for wait in the socket's backlog. */
	fds[1] = (struct pollfd){.fd = is_full(c) ? -1 : c->listener, .events = POLLIN};
	for (int i = 0; i < CONTROL_CLIENTS; i++)
		/* A hang-up is told without being asked for. */
		fds[i + 2] = (struct pollfd){
			.fd = c->clients[i].gone ? -1 : c->clients[i].fd,
			.events = c->clients[i].working ? 0 : POLLIN,
		};
	if (poll(fds, CONTROL_CLIENTS + 2, -1) < 0)
		for (int i = 0; i < CONTROL_CLIENTS + 2; i++)
			fds[i].revents = 0;
}

static void *serve(void *arg)
{
	struct pollfd fds[CONTROL_CLIENTS + 2];
	struct control *c = arg;
	uint64_t count;

	while (!atomic_load(&c->stop)) {
		wait_for_events(c, fds);
		if (fds[0].revents && read(c->wake, &count, sizeof(count)) < 0)
			continue;
		for (int i = 0; i < CONTROL_CLIENTS; i++) {
			struct client *client = &c->clients[i];

			if (client->working) {
				if (atomic_load_explicit(&client->done, memory_order_acquire))
					finish_work(client);
				else if (fds[i + 2].revents && !client->gone)
					hang_up(client);
			} else if (client->fd >= 0 && fds[i + 2].revents) {
				receive(client);
			}
		}
		if (fds[1].revents)
			welcome(c);
	}
	return NULL;
}

/* ---- life ---------------------------------------------------------------------------------- */

/* Whether a process listens at the address. */
static bool is_served(const struct sockaddr_un *address)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const bool served =
		fd >= 0 && !connect(fd, (const struct sockaddr *)address, sizeof(*address));

	if (fd >= 0)
		close(fd);
	return served;
}

static int make_listener(struct control *c, struct err *err)
{
	struct sockaddr_un own = c->address;
	char path[PATH_MAX];
	int rc = 0;

	snprintf(path, sizeof(path), "%s.%ld", c->address.sun_path, (long)getpid());
	if (rundir_address_of_path(path, &own, err))
		return -ENAMETOOLONG;
	if (is_served(&c->address))
		return err_set(err, -EADDRINUSE, "%s: another process serves it",
			       c->address.sun_path);
	c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->listener < 0)
		return err_sys(err, -errno, "control socket");
	unlink(own.sun_path);
	if (bind(c->listener, (struct sockaddr *)&own, sizeof(own)))
		return err_sys(err, -errno, "%s", own.sun_path);
	if (chmod(own.sun_path, 0600) || listen(c->listener, CONTROL_CLIENTS) ||
	    rename(own.sun_path, c->address.sun_path)) {
		rc = err_sys(err, -errno, "%s", c->address.sun_path);
		unlink(own.sun_path);
	}
	return rc;
}

static void control_free(struct control *c)
{
	workers_close(c->workers);
	for (int i = 0; i < CONTROL_CLIENTS; i++) {
		struct client *client = &c->clients[i];

		json_decref(client->request);
		json_decref(client->answer);
		if (client->fd >= 0)
			drop(client);
	}
	if (c->listener >= 0)
		close(c->listener);
	if (c->wake >= 0)
		close(c->wake);
	free(c);
}

static int control_open(struct control *c, struct err *err)
{
	char dir[sizeof(c->address.sun_path)];
	char *slash;
	int rc;

	memcpy(dir, c->address.sun_path, sizeof(dir));
	slash = strrchr(dir, '/');
	if (slash) {
		*slash = '\0';
		mkdir(dir, 0755); /* if that fails, bind says so */
	}
	c->wake = eventfd(0, EFD_CLOEXEC);
	if (c->wake < 0)
		return err_sys(err, -errno, "eventfd");
	rc = workers_open("varve-control", WORKER_THREADS, &c->workers);
	if (rc)
		return err_sys(err, rc, "control threads");
	rc = make_listener(c, err);
	if (rc)
		return rc;
	rc = -pthread_create(&c->thread, NULL, serve, c);
	if (rc)
		unlink(c->address.sun_path);
	return rc ? err_sys(err, rc, "control thread") : 0;
}

int varve_control_start(struct varve_volume *volume, const char *path_or_null)
{
	struct err *err = errmsg_begin();
	struct control *c;
	int rc = errmsg_check_owner(volume);

	if (rc)
		return rc;
	if (volume->control)
		return err_set(err, -EALREADY, "volume %s has a control socket already",
			       volume->cfg.name);
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, -ENOMEM, "control socket: no memory");
	c->vol = volume;
	c->listener = -1;
	c->wake = -1;
	for (int i = 0; i < CONTROL_CLIENTS; i++) {
		c->clients[i].control = c;
		c->clients[i].fd = -1;
		c->clients[i].work.run = work_on_message;
	}
	rc = path_or_null ? rundir_address_of_path(path_or_null, &c->address, err)
			  : rundir_address(volume->cfg.name, &c->address, err);
	if (!rc)
		rc = control_open(c, err);
	if (rc) {
		control_free(c);
		return rc;
	}
	volume->control = c;
	volume->served = true;
	return 0;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	atomic_store(&c->stop, true);
	control_wake(c);
	pthread_join(c->thread, NULL);
	unlink(c->address.sun_path);
	/* Nobody waits any more: what a suspension holds up ends too, and none begins. */
	for (int i = 0; i < CONTROL_CLIENTS; i++)
		if (c->clients[i].working)
			volume_cancel(c->vol, &c->clients[i].cancel);
	volume_resume(c->vol);
	control_free(c);
}
