/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulator's host; see sim_host.h.
 *
 * Invariants
 *  1. Every choice is drawn from sh->rng or the world's, in the order of the calls: one seed and
 *     one program give one history.
 *  2. The engine is entered once at a time. A second enter is a bug of the engine.
 *  3. done() of users runs after leave, and what it submits does not recurse into delivery.
 */
#include "lib/sim_host.h"

#include <assert.h>

#include "dev/sim.h"
#include "store/sim.h"

/* One in so many steps lets time pass although there is something to do. */
#define IDLE_ONE_IN 64
#define IDLE_MAX_NS UINT64_C(2000000)

static struct sim_host *to_sim(struct host *host)
{
	return container_of(host, struct sim_host, host);
}

static struct sim_op *to_op(struct dev_req *req)
{
	return container_of(req, struct sim_op, req);
}

static void op_done(struct dev_req *req)
{
	struct sim_op *op = to_op(req);

	assert(op->stage == SIM_OP_QUEUED);
	op->stage = SIM_OP_IDLE;
	op->done(op);
}

static void host_enter_sim(struct host *host)
{
	struct sim_host *sh = to_sim(host);

	assert(!sh->entered);
	sh->entered = true;
}

static void take_fills(struct sim_host *sh)
{
	struct list_head *link;

	while ((link = list_pop(&sh->host.fills))) {
		struct sim_op *op = to_op(list_entry(link, struct dev_req, link));

		assert(op->stage == SIM_OP_QUEUED);
		op->stage = SIM_OP_FILL;
		list_add_tail(&op->link, &sh->stepping);
		if (op->taken)
			op->taken(op);
	}
}

static void host_leave_sim(struct host *host)
{
	struct sim_host *sh = to_sim(host);
	struct list_head done = LIST_INIT(done);
	struct list_head *link;

	assert(sh->entered);
	take_fills(sh);
	list_splice_tail(&host->ready, &done);
	sh->entered = false;
	while ((link = list_pop(&done))) {
		struct dev_req *req = list_entry(link, struct dev_req, link);

		sh->in_flight -= req->done == op_done;
		req->done(req);
	}
}

static uint64_t host_now_sim(struct host *host)
{
	return to_sim(host)->world->clock_ns;
}

static uint64_t host_wall_sim(struct host *host)
{
	return UINT64_C(1700000000000000000) + to_sim(host)->world->clock_ns;
}

static void host_defer_sim(struct host *host, struct work *work)
{
	list_add_tail(&work->link, &to_sim(host)->works);
}

static void host_wake_sim(struct host *host, uint64_t when_ns)
{
	struct sim_host *sh = to_sim(host);

	assert(sh->entered);
	if (when_ns < sh->wake_ns)
		sh->wake_ns = when_ns;
}

static uint64_t host_random_sim(struct host *host)
{
	return rng_next(&to_sim(host)->rng);
}

static const struct host_ops sim_host_ops = {
	.enter = host_enter_sim,
	.leave = host_leave_sim,
	.now_ns = host_now_sim,
	.wall_ns = host_wall_sim,
	.defer = host_defer_sim,
	.wake_at = host_wake_sim,
	.random = host_random_sim,
};

void sim_host_init(struct sim_host *sh, struct sim_world *world, uint64_t seed)
{
	*sh = (struct sim_host){.world = world, .wake_ns = UINT64_MAX};
	sh->host.ops = &sim_host_ops;
	list_init(&sh->host.ready);
	list_init(&sh->host.fills);
	list_init(&sh->works);
	list_init(&sh->stepping);
	rng_seed(&sh->rng, seed);
}

/* ---- operations ------------------------------------------------------------------------------ */

static int submit_write(struct sim_host *sh, struct sim_op *op)
{
	int rc = wlog_reserve(sh->log, &op->req);

	if (rc == 1) {
		op->stage = SIM_OP_FILL;
		list_add_tail(&op->link, &sh->stepping);
		if (op->taken)
			op->taken(op);
		rc = 0;
	}
	return rc;
}

int sim_host_submit(struct sim_host *sh, struct sim_op *op)
{
	int rc = 0;

	op->req.done = op_done;
	op->req.result = 0;
	op->stage = SIM_OP_QUEUED;
	sh->in_flight++;
	host_enter(&sh->host);
	switch (op->req.op) {
	case DEV_READ:
		/* Before begin: what has been read completes only after the copy. */
		op->stage = SIM_OP_COPY;
		list_add_tail(&op->link, &sh->stepping);
		wlog_read_begin(sh->log, &op->req);
		break;
	case DEV_FLUSH:
		wlog_flush(sh->log, &op->req);
		break;
	default:
		rc = submit_write(sh, op);
	}
	if (rc < 0) {
		op->stage = SIM_OP_IDLE;
		sh->in_flight--;
	}
	host_leave(&sh->host);
	return rc < 0 ? rc : 0;
}

static void step_op(struct sim_host *sh, struct sim_op *op)
{
	switch (op->stage) {
	case SIM_OP_FILL:
		wlog_fill(sh->log, &op->req);
		op->stage = SIM_OP_PUBLISH;
		break;
	case SIM_OP_PUBLISH:
		list_del(&op->link);
		op->stage = SIM_OP_QUEUED;
		host_enter(&sh->host);
		wlog_publish(sh->log, &op->req);
		host_leave(&sh->host);
		break;
	case SIM_OP_COPY:
		list_del(&op->link);
		op->stage = SIM_OP_QUEUED;
		wlog_read_copy(sh->log, &op->req);
		break;
	default:
		assert(!"an operation in this stage takes no step");
	}
}

/* ---- steps ----------------------------------------------------------------------------------- */

static struct list_head *draw(struct sim_host *sh, struct list_head *list)
{
	uint64_t pick = rng_below(&sh->rng, list_count(list));
	struct list_head *pos = list->next;

	while (pick--)
		pos = pos->next;
	return pos;
}

static void run_work(struct sim_host *sh)
{
	struct list_head *link = draw(sh, &sh->works);
	struct work *work = list_entry(link, struct work, link);

	list_del(link);
	work->run(work);
}

static void run_tick(struct sim_host *sh)
{
	host_enter(&sh->host);
	sh->wake_ns = UINT64_MAX;
	sh->tick(sh);
	host_leave(&sh->host);
}

static uint64_t due_ns(struct dev *dev)
{
	return dev ? sim_dev_next_due_ns(dev) : UINT64_MAX;
}

static uint64_t store_due_ns(const struct sim_host *sh)
{
	return sh->store ? sim_store_next_due_ns(sh->store) : UINT64_MAX;
}

/* Nothing is due now: the clock goes to whatever is due first. */
static bool jump(struct sim_host *sh)
{
	uint64_t next = sh->wake_ns;

	if (due_ns(sh->dev) < next)
		next = due_ns(sh->dev);
	if (due_ns(sh->backing) < next)
		next = due_ns(sh->backing);
	if (store_due_ns(sh) < next)
		next = store_due_ns(sh);
	if (next == UINT64_MAX)
		return false;
	sim_world_advance_to(sh->world, next);
	return true;
}

enum step {
	STEP_DEV,
	STEP_BACKING,
	STEP_STORE,
	STEP_WORK,
	STEP_OP,
	STEP_TICK,
};

/* The steps that are possible now, those of which there are several more often. */
static unsigned int list_steps(const struct sim_host *sh, enum step *steps)
{
	uint64_t now = sh->world->clock_ns;
	unsigned int n = 0;

	if (due_ns(sh->dev) <= now)
		steps[n++] = STEP_DEV;
	if (due_ns(sh->backing) <= now)
		steps[n++] = STEP_BACKING;
	if (store_due_ns(sh) <= now)
		steps[n++] = STEP_STORE;
	if (!list_empty(&sh->works))
		steps[n++] = STEP_WORK;
	if (!list_empty(&sh->stepping)) {
		steps[n++] = STEP_OP;
		steps[n++] = STEP_OP;
	}
	if (sh->tick && sh->wake_ns <= now)
		steps[n++] = STEP_TICK;
	return n;
}

bool sim_host_step(struct sim_host *sh)
{
	enum step steps[8];
	unsigned int n = list_steps(sh, steps);

	if (sh->world->power_off)
		return false;
	sh->steps++;
	if (n == 0)
		return jump(sh);
	if (rng_chance(&sh->rng, 1, IDLE_ONE_IN))
		sh->world->clock_ns += rng_below(&sh->rng, IDLE_MAX_NS);
	switch (steps[rng_below(&sh->rng, n)]) {
	case STEP_DEV:
		dev_poll(sh->dev, false);
		break;
	case STEP_BACKING:
		dev_poll(sh->backing, false);
		break;
	case STEP_STORE:
		store_poll(sh->store, false);
		break;
	case STEP_WORK:
		run_work(sh);
		break;
	case STEP_OP:
		step_op(sh, list_entry(draw(sh, &sh->stepping), struct sim_op, link));
		break;
	case STEP_TICK:
		run_tick(sh);
		break;
	}
	return true;
}

bool sim_host_bury(struct sim_host *sh)
{
	bool busy = false;

	while (!list_empty(&sh->stepping)) {
		step_op(sh, list_entry(sh->stepping.next, struct sim_op, link));
		busy = true;
	}
	while (!list_empty(&sh->works)) {
		run_work(sh);
		busy = true;
	}
	/* A device without power gives back one request at each wait. */
	if (sh->dev)
		busy |= dev_poll(sh->dev, true) > 0;
	if (sh->backing)
		busy |= dev_poll(sh->backing, true) > 0;
	if (sh->store)
		busy |= store_poll(sh->store, true) > 0;
	return busy;
}
