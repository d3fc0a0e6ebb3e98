/* SPDX-License-Identifier: BSD-3-Clause */
/* Timers of an engine, and those who wait for its home. */
#include <errno.h>
#include <string.h>

#include "base/timers.h"
#include "lib/host_single.h"
#include "lib/tap.h"
#include "wlog/drain.h"

#define MS UINT64_C(1000000)

static struct host_single hs;
static struct timers timers;
static int runs;

struct counted {
	struct timer timer;
	int runs, again;
};

static void run(struct timer *timer)
{
	struct counted *c = container_of(timer, struct counted, timer);

	CHECK(hs.entered);
	c->runs++;
	runs++;
	if (c->again-- > 0)
		timers_set(&timers, timer, hs.now_ns + MS);
}

static void tick(struct host_single *host)
{
	timers_run(&timers, host->now_ns);
}

static void begin(void)
{
	host_single_init(&hs, test_seed());
	hs.tick = tick;
	timers_init(&timers, &hs.host);
	runs = 0;
}

static void set(struct counted *c, uint64_t after_ns)
{
	c->timer.fn = run;
	host_enter(&hs.host);
	timers_set(&timers, &c->timer, hs.now_ns + after_ns);
	host_leave(&hs.host);
}

TEST(a_timer_runs_once_when_it_is_due)
{
	struct counted a = { .again = 0 }, b = { .again = 0 };

	begin();
	set(&a, 20 * MS);
	set(&b, 10 * MS);
	host_single_advance(&hs, 9 * MS);
	CHECK_EQ(runs, 0);
	host_single_advance(&hs, 1 * MS);
	CHECK_EQ(a.runs, 0);
	CHECK_EQ(b.runs, 1);
	/* The tick for the later one has been asked for again. */
	host_single_advance(&hs, 10 * MS);
	CHECK_EQ(a.runs, 1);
	host_single_advance(&hs, 100 * MS);
	CHECK_EQ(runs, 2);
}

TEST(a_timer_may_be_set_from_its_own_run)
{
	struct counted c = { .again = 3 };

	begin();
	set(&c, MS);
	host_single_advance(&hs, 100 * MS);
	CHECK_EQ(c.runs, 4);
}

TEST(stopped_timers_never_run)
{
	struct counted before = { .again = 0 }, after = { .again = 0 };

	begin();
	set(&before, MS);
	timers.stopped = true;
	set(&after, MS);
	host_single_advance(&hs, 100 * MS);
	CHECK_EQ(runs, 0);
}

TEST(waiting_doubles_up_to_a_bound)
{
	CHECK_EQ(backoff_ns(0, 100, 1000), 100);
	CHECK_EQ(backoff_ns(1, 100, 1000), 100);
	CHECK_EQ(backoff_ns(2, 100, 1000), 200);
	CHECK_EQ(backoff_ns(4, 100, 1000), 800);
	CHECK_EQ(backoff_ns(5, 100, 1000), 1000);
	CHECK_EQ(backoff_ns(UINT32_MAX, 100, 1000), 1000);
	CHECK_EQ(backoff_ns(UINT32_MAX, 1, UINT64_MAX), UINT64_MAX);
	CHECK_EQ(backoff_ns(3, 500, 100), 100);
}

TEST(retries_are_spread_by_a_quarter)
{
	begin();
	for (int i = 0; i < 200; i++) {
		struct counted c = { .timer.fn = run };

		host_enter(&hs.host);
		timers_set_backoff(&timers, &c.timer, 3, 100 * MS, 1000 * MS);
		host_leave(&hs.host);
		CHECK(c.timer.when_ns >= hs.now_ns + 400 * MS);
		CHECK(c.timer.when_ns <= hs.now_ns + 500 * MS);
		list_del(&c.timer.link);
	}
}

/* ---- drains */

static struct drains drains;
static int busy;

struct waiter {
	struct drain drain;
	int calls, error;
};

static void count_busy(struct drains *d, int delta)
{
	CHECK(d == &drains && hs.entered);
	busy += delta;
}

static void over(struct drain *drain, int error)
{
	struct waiter *w = container_of(drain, struct waiter, drain);

	CHECK(!hs.entered && busy > 0);
	w->calls++;
	w->error = error;
}

static void wait_for(struct waiter *w, uint64_t lsn, uint64_t deadline_ns)
{
	*w = (struct waiter){ .drain = { .lsn = lsn, .deadline_ns = deadline_ns, .done = over } };
	drains_add(&drains, &w->drain);
}

static void begin_drains(struct waiter *w, int n)
{
	begin();
	busy = 0;
	drains_init(&drains, &hs.host, count_busy);
	host_enter(&hs.host);
	for (int i = 0; i < n; i++)
		wait_for(&w[i], (uint64_t)i * 10, (uint64_t)i * 100);
}

static void end_drains(void)
{
	host_leave(&hs.host);
	host_single_settle(&hs);
	CHECK_EQ(busy, 0);
}

TEST(a_drain_ends_when_its_lsn_is_reached)
{
	struct waiter w[3];

	begin_drains(w, 3);
	drains_reached(&drains, 10);
	CHECK_EQ(w[0].calls, 0); /* never entered */
	end_drains();
	CHECK_EQ(w[0].calls, 1);
	CHECK_EQ(w[1].calls, 1);
	CHECK_EQ(w[2].calls, 0);
	CHECK_OK(w[1].error);
}

TEST(a_drain_fails_that_waits_for_too_much)
{
	struct waiter w[3];

	begin_drains(w, 3);
	drains_beyond(&drains, UINT64_MAX, -EIO);
	drains_beyond(&drains, 10, -EIO);
	end_drains();
	CHECK_EQ(w[0].calls + w[1].calls, 0);
	CHECK_EQ(w[2].error, -EIO);
	host_enter(&hs.host);
	drains_beyond(&drains, 0, -ESTALE);
	end_drains();
	CHECK_EQ(w[0].error, -ESTALE);
	CHECK_EQ(w[1].error, -ESTALE);
	CHECK_EQ(w[2].calls, 1);
}

TEST(a_drain_ends_at_its_deadline)
{
	struct waiter w[3];

	begin_drains(w, 3);
	drains_timeout(&drains, 100, -ETIMEDOUT);
	end_drains();
	CHECK_EQ(w[0].error, -ETIMEDOUT);
	CHECK_EQ(w[1].error, -ETIMEDOUT);
	CHECK_EQ(w[2].calls, 0);
}
