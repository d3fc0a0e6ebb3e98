/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two clocks: one that never goes back, for intervals and deadlines, and the one on the wall,
 * for what people read. Engines do not use these; they ask their host (base/host.h).
 */
#ifndef RUNTIME_CLOCK_H
#define RUNTIME_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_NS_PER_SEC UINT64_C(1000000000)
#define CLOCK_NS_PER_MS UINT64_C(1000000)
#define CLOCK_NS_PER_US UINT64_C(1000)

static inline uint64_t clock_read_ns(clockid_t id)
{
	struct timespec ts;

	/* Cannot fail for the two clocks that every Linux has. */
	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * CLOCK_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds of a clock that never goes back; its zero means nothing. */
static inline uint64_t clock_now_ns(void)
{
	return clock_read_ns(CLOCK_MONOTONIC);
}

/* Nanoseconds since 1970. Jumps when somebody sets the time. */
static inline uint64_t clock_wall_ns(void)
{
	return clock_read_ns(CLOCK_REALTIME);
}

static inline struct timespec clock_timespec(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / CLOCK_NS_PER_SEC),
		.tv_nsec = (long)(ns % CLOCK_NS_PER_SEC),
	};

	return ts;
}

#endif
