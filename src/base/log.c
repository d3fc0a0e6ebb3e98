/* SPDX-License-Identifier: BSD-3-Clause */
/* The log (log.h). One lock guards the sink and every call site's rate limit. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

_Atomic int log_threshold = -1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static log_sink_fn *sink;
static void *sink_arg;
static enum log_level wanted = LOG_LEVEL_INFO;

static void set_threshold_locked(void)
{
	atomic_store_explicit(&log_threshold, sink ? (int)wanted : -1, memory_order_relaxed);
}

void log_set_sink(log_sink_fn *fn, void *arg)
{
	pthread_mutex_lock(&lock);
	sink = fn;
	sink_arg = arg;
	set_threshold_locked();
	pthread_mutex_unlock(&lock);
}

void log_set_level(enum log_level level)
{
	pthread_mutex_lock(&lock);
	wanted = level;
	set_threshold_locked();
	pthread_mutex_unlock(&lock);
}

const char *log_level_name(enum log_level level)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	return (unsigned int)level < 4 ? names[level] : "?";
}

void log_stderr_sink(void *arg, enum log_level level, const char *text)
{
	fprintf(stderr, "%s: %s: %s\n", (const char *)arg, log_level_name(level), text);
}

/* Whether the site may speak now; how many it had to keep back. */
static bool site_passes_locked(struct log_site *site, uint32_t *ret_suppressed)
{
	struct timespec ts;
	uint64_t now_ns;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	*ret_suppressed = 0;
	if (!site->window_start_ns || now_ns - site->window_start_ns > LOG_WINDOW_NS) {
		*ret_suppressed = site->suppressed;
		site->window_start_ns = now_ns;
		site->passed = 0;
		site->suppressed = 0;
	}
	if (site->passed >= LOG_BURST) {
		site->suppressed++;
		return false;
	}
	site->passed++;
	return true;
}

void log_emit(struct log_site *site, enum log_level level, const char *fmt, ...)
{
	char text[LOG_TEXT_LEN];
	uint32_t suppressed = 0;
	va_list ap;
	int len;

	pthread_mutex_lock(&lock);
	if (!sink || (level != LOG_LEVEL_DEBUG && !site_passes_locked(site, &suppressed)))
		goto out;
	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (suppressed && len >= 0 && (size_t)len < sizeof(text))
		snprintf(text + len, sizeof(text) - (size_t)len, " (%u like it were kept back)",
			 suppressed);
	sink(sink_arg, level, text);
out:
	pthread_mutex_unlock(&lock);
}
