/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an engine asks of whoever drives it.
 *
 * The engines (wlog, lsvd, boost) are state machines without a thread, a lock, a clock or a
 * system call of their own. A struct host stands for all four. At run time the volume implements
 * it on a mutex, the clock and the worker threads; in the simulator it is a seeded scheduler on
 * one thread that may cut the power between any two steps.
 *
 * Locking. An engine function whose comment says "entered" is called between host_enter() and
 * host_leave(); the engine's state changes only there. Completions of devices and stores arrive
 * outside, and the engine's own done-functions enter and leave by themselves.
 *
 * Callbacks to users never run entered. An engine that finishes a request appends it to
 * host->ready by host_complete(); host_leave() delivers what is there after it has let go.
 */
#ifndef BASE_HOST_H
#define BASE_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct host;

/*
 * A piece of work that may take long (building an object, copying late data). run() is called
 * once, not entered, from any thread; it enters by itself where it touches shared state. The
 * struct belongs to the engine and may be freed or deferred again from inside run().
 */
struct work {
	struct list_head link;
	void (*run)(struct work *work);
};

struct host_ops {
	void (*enter)(struct host *host);
	void (*leave)(struct host *host);
	/* Nanoseconds of a clock that never goes back. May be called entered or not. */
	uint64_t (*now_ns)(struct host *host);
	/* Nanoseconds since 1970, for what people read. */
	uint64_t (*wall_ns)(struct host *host);
	/* Runs work->run(work) later, on another step or thread. Entered or not. */
	void (*defer)(struct host *host, struct work *work);
	/*
	 * Asks for the engine's tick at or after when_ns, if that is earlier than what is set
	 * already. Entered.
	 */
	void (*wake_at)(struct host *host, uint64_t when_ns);
	/* A random number; not for secrets. Entered or not. */
	uint64_t (*random)(struct host *host);
};

struct dev_req;

struct host {
	const struct host_ops *ops;
	struct list_head ready; /* struct dev_req: finished, their done is to be called. Entered. */
	struct list_head fills; /* struct dev_req: writes that got their space late. Entered. */
};

static inline void host_enter(struct host *host)
{
	host->ops->enter(host);
}

static inline void host_leave(struct host *host)
{
	host->ops->leave(host);
}

static inline uint64_t host_now_ns(struct host *host)
{
	return host->ops->now_ns(host);
}

static inline uint64_t host_wall_ns(struct host *host)
{
	return host->ops->wall_ns(host);
}

static inline void host_defer(struct host *host, struct work *work)
{
	host->ops->defer(host, work);
}

static inline void host_wake_at(struct host *host, uint64_t when_ns)
{
	host->ops->wake_at(host, when_ns);
}

static inline uint64_t host_random(struct host *host)
{
	return host->ops->random(host);
}

#endif
