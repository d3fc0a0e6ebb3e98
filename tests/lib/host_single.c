/* SPDX-License-Identifier: BSD-3-Clause */
#include "lib/host_single.h"

#include "lib/tap.h"

#define IO_LIMIT_NS UINT64_C(600000000000)

static struct host_single *to_single(struct host *host)
{
	return container_of(host, struct host_single, host);
}

static void single_enter(struct host *host)
{
	CHECK(!to_single(host)->entered);
	to_single(host)->entered = true;
}

static void single_leave(struct host *host)
{
	struct host_single *hs = to_single(host);
	struct list_head ready = LIST_INIT(ready), fills = LIST_INIT(fills);
	struct list_head *link;

	CHECK(hs->entered);
	list_splice_tail(&host->ready, &ready);
	list_splice_tail(&host->fills, &fills);
	hs->entered = false;
	while ((link = list_pop(&fills))) {
		struct dev_req *req = list_entry(link, struct dev_req, link);

		wlog_fill(hs->log, req);
		host_enter(host);
		wlog_publish(hs->log, req);
		host_leave(host);
	}
	while ((link = list_pop(&ready))) {
		struct dev_req *req = list_entry(link, struct dev_req, link);

		req->done(req);
	}
}

static uint64_t single_now(struct host *host)
{
	return to_single(host)->now_ns;
}

static uint64_t single_wall(struct host *host)
{
	return UINT64_C(1700000000000000000) + to_single(host)->now_ns;
}

static void single_defer(struct host *host, struct work *work)
{
	list_add_tail(&work->link, &to_single(host)->works);
}

static void single_wake(struct host *host, uint64_t when_ns)
{
	struct host_single *hs = to_single(host);

	CHECK(hs->entered);
	if (when_ns < hs->wake_ns)
		hs->wake_ns = when_ns;
}

static uint64_t single_random(struct host *host)
{
	return rng_next(&to_single(host)->rng);
}

static const struct host_ops single_ops = {
	.enter = single_enter,
	.leave = single_leave,
	.now_ns = single_now,
	.wall_ns = single_wall,
	.defer = single_defer,
	.wake_at = single_wake,
	.random = single_random,
};

void host_single_init(struct host_single *hs, uint64_t seed)
{
	*hs = (struct host_single){.wake_ns = UINT64_MAX, .now_ns = 1000};
	hs->host.ops = &single_ops;
	list_init(&hs->host.ready);
	list_init(&hs->host.fills);
	list_init(&hs->works);
	rng_seed(&hs->rng, seed);
}

void host_single_settle(struct host_single *hs)
{
	bool did = true;

	while (did) {
		struct list_head *link = list_pop(&hs->works);

		did = link != NULL;
		if (link) {
			struct work *work = list_entry(link, struct work, link);

			work->run(work);
		}
		if (hs->dev && dev_poll(hs->dev, false) > 0)
			did = true;
		if (hs->backing && dev_poll(hs->backing, false) > 0)
			did = true;
		if (hs->store && store_poll(hs->store, false) > 0)
			did = true;
	}
}

static void single_set_clock(struct host_single *hs, uint64_t now_ns)
{
	if (now_ns <= hs->now_ns)
		return;
	if (hs->world)
		hs->world->clock_ns += now_ns - hs->now_ns;
	hs->now_ns = now_ns;
}

void host_single_advance(struct host_single *hs, uint64_t ns)
{
	const uint64_t until = hs->now_ns + ns;

	host_single_settle(hs);
	while (hs->tick && hs->wake_ns <= until) {
		single_set_clock(hs, hs->wake_ns);
		hs->wake_ns = UINT64_MAX;
		host_enter(&hs->host);
		hs->tick(hs);
		host_leave(&hs->host);
		host_single_settle(hs);
	}
	single_set_clock(hs, until);
}

struct single_io {
	struct dev_req req;
	bool done;
};

static void single_io_done(struct dev_req *req)
{
	container_of(req, struct single_io, req)->done = true;
}

int host_single_io(struct host_single *hs, struct wlog *log, enum dev_op op, uint64_t lba,
		   uint32_t sectors, void *buf, bool fua)
{
	struct single_io io = {.req = {.op = op, .fua = fua, .done = single_io_done}};
	const uint64_t limit = hs->now_ns + IO_LIMIT_NS;
	int rc;

	hs->log = log;
	io.req.off_bytes = lba * DEV_SECTOR_BYTES;
	dev_req_buf(&io.req, buf, (size_t)sectors * DEV_SECTOR_BYTES);
	host_enter(&hs->host);
	if (op == DEV_READ) {
		wlog_read_begin(log, &io.req);
		host_leave(&hs->host);
		wlog_read_copy(log, &io.req);
	} else if (op == DEV_FLUSH) {
		wlog_flush(log, &io.req);
		host_leave(&hs->host);
	} else {
		rc = wlog_reserve(log, &io.req);
		host_leave(&hs->host);
		if (rc < 0)
			return rc;
		if (rc == 1) {
			wlog_fill(log, &io.req);
			host_enter(&hs->host);
			wlog_publish(log, &io.req);
			host_leave(&hs->host);
		}
	}
	host_single_settle(hs);
	while (!io.done) {
		CHECK(hs->now_ns < limit);
		host_single_advance(hs, 10000000);
	}
	return io.req.result;
}
