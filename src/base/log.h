/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log: how a library tells its front what an operator should know.
 *
 * Libraries never print.  Messages go to one process-wide sink that a front installs; without one
 * they are dropped before they are formatted, and no clock is read.  Each call site is limited to
 * LOG_BURST messages in LOG_WINDOW_NS; the first one after a quiet time says how many were
 * suppressed.  LOG_DEBUG messages are not limited.
 *
 * Any thread may log.  The sink runs under the log's lock: it is never called twice at once, must
 * not log, and should not block for long.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR, /* data or service is in danger; somebody must act */
	LOG_LEVEL_WARN,	 /* out of the ordinary, handled */
	LOG_LEVEL_INFO,	 /* opened, recovered, closed */
	LOG_LEVEL_DEBUG,
};

#define LOG_BURST 10
#define LOG_WINDOW_NS UINT64_C(5000000000)
#define LOG_TEXT_LEN 1024

/* @text is one line without its newline, valid during the call. */
typedef void log_sink_fn(void *arg, enum log_level level, const char *text);

/* Installs the sink; NULL drops everything again.  After it returns, the old sink is not called. */
void log_set_sink(log_sink_fn *fn, void *arg);

/* Messages above @level are dropped; LOG_LEVEL_INFO at first. */
void log_set_level(enum log_level level);

/* A sink for fronts: "<prefix>: <level>: <text>\n" to stderr; @arg is the prefix, a string. */
void log_stderr_sink(void *arg, enum log_level level, const char *text);

const char *log_level_name(enum log_level level);

/* The state of one call site's rate limit; all zero at first, guarded by the log's lock. */
struct log_site {
	uint64_t window_start_ns;
	uint32_t passed;
	uint32_t suppressed;
};

extern _Atomic int log_threshold; /* highest level that is wanted, -1 without a sink */

void log_emit(struct log_site *site, enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static inline bool log_wants(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&log_threshold, memory_order_relaxed);
}

#define LOG_AT(level, ...)                                        \
	do {                                                      \
		static struct log_site log_site_;                 \
		if (log_wants(level))                             \
			log_emit(&log_site_, level, __VA_ARGS__); \
	} while (0)

#define log_error(...) LOG_AT(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) LOG_AT(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
