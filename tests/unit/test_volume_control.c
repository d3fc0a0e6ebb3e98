/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Status, messages, dump and check of a volume; the control socket and those who misuse it.
 */
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <varve/varve.h>

#include "lib/tap.h"
#include "volume/control.h"

static struct varve_volume *open_served(const char *spec)
{
	const char *const settings[] = {"size=64M", NULL};
	struct varve_volume *vol;

	CHECK_OK(setenv("VARVE_RUN_DIR", test_tmpdir(), 1));
	CHECK_OK(varve_open_with(spec, 0, settings, &vol));
	CHECK_OK(varve_control_start(vol, NULL));
	return vol;
}

static json_t *call(const char *name, const char *request)
{
	char *text = NULL;
	const int rc = varve_control_call(name, request, &text);
	json_t *answer;

	test_note("%s -> %d %s", request, rc, text ? text : varve_errmsg());
	CHECK_OK(rc);
	answer = json_loads(text, 0, NULL);
	CHECK(answer != NULL);
	free(text);
	return answer;
}

static bool ok(json_t *answer)
{
	const bool yes = json_is_true(json_object_get(answer, "ok"));

	json_decref(answer);
	return yes;
}

TEST(status_tells_what_was_written)
{
	struct varve_volume *vol = open_served("mem:64M,mem:st");
	char buf[4096] = "";
	json_t *top, *status;

	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, VARVE_FUA));
	top = call("st", "{\"command\": \"status\"}");
	status = json_object_get(top, "status");
	CHECK_STREQ(json_string_value(json_object_get(status, "state")), "ok");
	CHECK_STREQ(json_string_value(json_object_get(status, "access")), "writable");
	CHECK_EQ(json_integer_value(json_object_get(status, "block_bytes")), 512);
	CHECK_EQ(json_integer_value(json_object_get(json_object_get(status, "log"),
						    "user_bytes")), 4096);
	CHECK_STREQ(json_string_value(json_object_get(json_object_get(status, "settings"),
						      "batch_size")), "8M");
	CHECK(json_integer_value(json_object_get(json_object_get(status, "cache"),
						 "write_bytes")) >= 4096);
	json_decref(top);
	CHECK_OK(varve_close(vol));
}

/* Of the buffers alone. */
static json_int_t buffers_bytes(const char *spec, const char *segment_size)
{
	const char *const settings[] = {"size=64M", "buffers=10", segment_size, NULL};
	struct varve_volume *vol;
	json_t *status, *log, *home;
	json_int_t bytes;
	char *text;

	CHECK_OK(varve_open_with(spec, 0, settings, &vol));
	CHECK_OK(varve_pwrite(vol, "x", 1, 0, VARVE_FUA));
	CHECK_OK(varve_status(vol, &text));
	status = json_loads(text, 0, NULL);
	log = json_object_get(status, "log");
	home = json_object_get(status, "home");
	bytes = json_integer_value(json_object_get(status, "memory_bytes")) -
		json_integer_value(json_object_get(log, "map_bytes")) -
		json_integer_value(json_object_get(home, "map_bytes")) -
		json_integer_value(json_object_get(home, "header_cache_bytes"));
	CHECK(json_integer_value(json_object_get(status, "log_used_bytes")) >= 4096);
	json_decref(status);
	free(text);
	CHECK_OK(varve_close(vol));
	return bytes;
}

TEST(memory_goes_by_the_segments_size)
{
	CHECK_EQ(buffers_bytes("mem:64M,mem:seg1", "segment_size=64K"), 10 * (64 << 10));
	CHECK_EQ(buffers_bytes("mem:64M,mem:seg2", "segment_size=2M"), 10 * (2 << 20));
	/* Too long for so short a log. */
	CHECK_EQ(buffers_bytes("mem:8M,mem:seg3", "segment_size=2M"), 10 * (256 << 10));
}

TEST(info_tells_what_get_info_does)
{
	struct varve_volume *vol = open_served("mem:64M,mem:inf");
	json_t *top = call("inf", "{\"command\": \"info\"}");
	const json_t *got = json_object_get(top, "info");
	struct varve_info info;

	varve_get_info(vol, &info);
	CHECK(info.optimal_bytes > 0);
	CHECK_STREQ(json_string_value(json_object_get(got, "uuid")), info.uuid);
	CHECK_EQ(json_integer_value(json_object_get(got, "size_bytes")), info.size_bytes);
	CHECK_EQ(json_integer_value(json_object_get(got, "block_bytes")), info.block_bytes);
	CHECK_EQ(json_integer_value(json_object_get(got, "optimal_bytes")), info.optimal_bytes);
	CHECK_EQ(json_integer_value(json_object_get(got, "max_atomic_bytes")),
		 info.max_atomic_bytes);
	json_decref(top);
	CHECK_OK(varve_close(vol));
}

TEST(messages_are_done_when_answered)
{
	struct varve_volume *vol = open_served("mem:64M,mem:msg");
	char buf[4096] = "";
	json_t *top;

	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 0, 0));
	CHECK(ok(call("msg", "{\"command\": \"flush\"}")));
	CHECK(ok(call("msg", "{\"command\": \"message\", \"text\": \"drain\"}")));
	top = call("msg", "{\"command\": \"status\"}");
	CHECK(json_integer_value(json_object_get(
		      json_object_get(json_object_get(top, "status"), "home"), "objects")) > 0);
	json_decref(top);
	CHECK(ok(call("msg", "{\"command\": \"message\", \"text\": \"checkpoint\"}")));
	CHECK(ok(call("msg", "{\"command\": \"message\", \"text\": \"hold 1\"}")));
	CHECK(ok(call("msg", "{\"command\": \"message\", \"text\": \"hold no\"}")));
	CHECK(!ok(call("msg", "{\"command\": \"message\", \"text\": \"hold maybe\"}")));
	CHECK(!ok(call("msg", "{\"command\": \"message\", \"text\": \"batch_size 1M\"}")));
	CHECK(!ok(call("msg", "{\"command\": \"message\", \"text\": \"nonsense\"}")));
	CHECK(!ok(call("msg", "{\"command\": \"message\"}")));
	CHECK(!ok(call("msg", "{\"command\": 5}")));
	CHECK(!ok(call("msg", "[]")));
	CHECK(!ok(call("msg", "no json")));
	CHECK(ok(call("msg", "{\"command\": \"info\"}")));
	CHECK_OK(varve_close(vol));
}

TEST(nobody_there_is_enoent)
{
	struct varve_volume *vol = open_served("mem:64M,mem:gone");
	char *text;

	CHECK_OK(varve_close(vol));
	CHECK_EQ(varve_control_call("gone", "{}", &text), -ENOENT);
}

/* A socket whose process does nothing. */
static int listen_as(const char *name, int backlog)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK_OK(setenv("VARVE_RUN_DIR", test_tmpdir(), 1));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.sock", test_tmpdir(), name);
	CHECK_OK(bind(fd, (struct sockaddr *)&address, sizeof(address)));
	CHECK_OK(listen(fd, backlog));
	return fd;
}

TEST(a_stuck_process_is_not_waited_for)
{
	const int fd = listen_as("stuck", 0);
	int rc, calls = 0;
	char *text;

	/* What was given up stays in the backlog: soon there is no room to connect. */
	for (; calls < 3; calls++) {
		rc = control_call("stuck", "{\"command\": \"status\"}", 20, &text);
		test_note("%s", varve_errmsg());
		CHECK_EQ(rc, -ETIMEDOUT);
		CHECK(strstr(varve_errmsg(), "stuck.sock: no answer within 20 ms") != NULL);
	}
	CHECK_EQ(control_call("stuck", "{\"command\": \"drain\"}", 20, &text), -ETIMEDOUT);
	close(fd);
}

static void *call_drain(void *ret_text)
{
	const int rc = control_call("slow", "{\"command\": \"drain\"}", 500, ret_text);

	return (void *)(intptr_t)rc;
}

/* A quick request with the same timeout begins later and is given up: the drain still waits. */
TEST(a_drain_takes_as_long_as_it_takes)
{
	const int fd = listen_as("slow", 4), stuck = listen_as("stuck", 4);
	char line[100], *text = NULL, *none;
	pthread_t thread;
	void *rc;
	int client;

	CHECK_OK(pthread_create(&thread, NULL, call_drain, &text));
	client = accept(fd, NULL, NULL);
	CHECK(client >= 0);
	CHECK(recv(client, line, sizeof(line), 0) > 0);
	CHECK_EQ(control_call("stuck", "{\"command\": \"info\"}", 500, &none), -ETIMEDOUT);
	CHECK_EQ(send(client, "{}\n", 3, 0), 3);
	CHECK_OK(pthread_join(thread, &rc));
	CHECK_EQ((intptr_t)rc, 0);
	CHECK_STREQ(text, "{}");
	free(text);
	close(client);
	close(stuck);
	close(fd);
}

static int connect_to(const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.sock", test_tmpdir(), name);
	CHECK_OK(connect(fd, (struct sockaddr *)&address, sizeof(address)));
	return fd;
}

TEST(the_socket_is_private_and_bounded)
{
	struct varve_volume *vol = open_served("mem:64M,mem:priv");
	char path[4200], *long_line = malloc(2 * CONTROL_LINE_MAX), answer[200];
	int fds[CONTROL_CLIENTS + 4];
	struct stat st;

	snprintf(path, sizeof(path), "%s/priv.sock", test_tmpdir());
	CHECK_OK(stat(path, &st));
	CHECK_EQ(st.st_mode & 0777, 0600);
	/* More clients than there is room for, all silent: one that leaves makes room. */
	for (int i = 0; i < CONTROL_CLIENTS + 4; i++)
		fds[i] = connect_to("priv");
	for (int i = 0; i < CONTROL_CLIENTS + 4; i++)
		close(fds[i]);
	CHECK(ok(call("priv", "{\"command\": \"info\"}")));
	memset(long_line, 'x', 2 * CONTROL_LINE_MAX);
	fds[0] = connect_to("priv");
	send(fds[0], long_line, 2 * CONTROL_LINE_MAX, MSG_NOSIGNAL);
	CHECK(recv(fds[0], answer, sizeof(answer), 0) > 0);
	CHECK(!strncmp(answer, "{\"ok\": false", 12) || !strncmp(answer, "{\"ok\":false", 11));
	close(fds[0]);
	CHECK(ok(call("priv", "{\"command\": \"info\"}")));
	free(long_line);
	CHECK_OK(varve_close(vol));
	CHECK(stat(path, &st) != 0);
}

TEST(two_requests_in_one_packet_are_answered_in_order)
{
	struct varve_volume *vol = open_served("mem:64M,mem:order");
	const char text[] = "{\"command\": \"drain\"}\n{\"command\": \"info\"}\n";
	char answer[2000];
	const int fd = connect_to("order");
	size_t len = 0;

	CHECK_EQ(send(fd, text, strlen(text), 0), strlen(text));
	do {
		const ssize_t n = recv(fd, answer + len, sizeof(answer) - len - 1, 0);

		CHECK(n > 0);
		len += (size_t)n;
		answer[len] = '\0';
	} while (!strstr(answer, "\"pid\""));
	CHECK(strstr(answer, "answer") < strstr(answer, "\"pid\""));
	close(fd);
	CHECK_OK(varve_close(vol));
}

TEST(dump_and_check_of_a_closed_volume)
{
	static const char *const what[] = {"superblock", "objects", "checkpoint", "cache", "log"};
	const char *const settings[] = {"size=64M", NULL};
	struct varve_check check = {0};
	struct varve_volume *vol;
	char buf[8192], *text;

	memset(buf, 7, sizeof(buf));
	CHECK_OK(varve_open_with("mem:64M:dump,mem:dump", 0, settings, &vol));
	CHECK_OK(varve_pwrite(vol, buf, sizeof(buf), 4096, 0));
	CHECK_OK(varve_close(vol));
	for (unsigned int i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
		const int rc = varve_dump("mem:64M:dump,mem:dump", what[i], &text);

		test_note("%s: %s", what[i], rc ? varve_errmsg() : text);
		CHECK_OK(rc);
		free(text);
	}
	CHECK_EQ(varve_dump("mem:64M:dump,mem:dump", "nokey", &text), -ENOENT);
	CHECK_EQ(varve_check("mem:64M:dump,mem:dump", &check), 0);
}

/* ---- clients that lose patience ------------------------------------------------------------ */

/* More of them than there is room for: each wait ends when its client hangs up. */
TEST(a_wait_ends_when_its_client_hangs_up)
{
	static const char request[] = "{\"command\": \"message\", \"text\": \"drain\"}\n";
	const char *const settings[] = {"home_timeout=1h", NULL};
	char dir[600], away[600], store[700];
	const char *const create[] = {"size=64M", "cache=mem:64M:hang", store, NULL};
	struct varve_volume *vol;

	snprintf(dir, sizeof(dir), "%s/s", test_tmpdir());
	snprintf(away, sizeof(away), "%s/away", test_tmpdir());
	snprintf(store, sizeof(store), "store=dir:%s/hang", dir);
	CHECK_OK(mkdir(dir, 0700));
	CHECK_OK(setenv("VARVE_RUN_DIR", test_tmpdir(), 1));
	CHECK_OK(setenv("VARVE_CONFIG_DIR", test_tmpdir(), 1));
	CHECK_OK(varve_create("hang", create));
	CHECK_OK(varve_open_with("hang", 0, settings, &vol));
	CHECK_OK(varve_control_start(vol, NULL));
	CHECK_OK(varve_message(vol, "hold yes", NULL));
	CHECK_OK(varve_pwrite(vol, "x", 1, 0, VARVE_FUA));
	CHECK_OK(rename(dir, away));
	for (int i = 0; i < 3 * CONTROL_CLIENTS; i++) {
		const int fd = connect_to("hang");

		CHECK_EQ(write(fd, request, sizeof(request) - 1), (ssize_t)sizeof(request) - 1);
		close(fd);
	}
	CHECK(ok(call("hang", "{\"command\": \"status\"}")));
	CHECK_OK(rename(away, dir));
	CHECK_OK(varve_close(vol));
}
