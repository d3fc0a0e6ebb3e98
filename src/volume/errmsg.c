/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the public functions say besides a number: the last error of each thread, the log's sink,
 * the version.
 *
 * One struct err for each thread; a public call that can fail begins by clearing it. The sink of
 * base/log.h has an enum of its own, which is translated to syslog's numbers here.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/log.h"
#include "volume/volume.h"

static __thread struct err last_error;

/* Guarded by the log's lock: log_set_sink() orders it before the sink's first call. */
static struct {
	void (*fn)(void *arg, int level, const char *text);
	void *arg;
} user_sink;

struct err *errmsg_begin(void)
{
	err_clear(&last_error);
	return &last_error;
}

int errmsg_set(int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(&last_error, code, fmt, ap);
	va_end(ap);
	return code;
}

int errmsg_check_owner(const struct varve_volume *vol)
{
	errmsg_begin();
	if (!volume_forked(vol))
		return 0;
	return errmsg_set(-EOWNERDEAD, "volume %s belongs to the process that opened it",
			  vol->cfg.name);
}

const char *varve_errmsg(void)
{
	return last_error.code ? err_text(&last_error, last_error.code) : "";
}

const char *varve_version(void)
{
	return VARVE_VERSION;
}

static void pass_on(void *arg, enum log_level level, const char *text)
{
	static const int syslog_level[] = {
		[LOG_LEVEL_ERROR] = 3,
		[LOG_LEVEL_WARN] = 4,
		[LOG_LEVEL_INFO] = 6,
		[LOG_LEVEL_DEBUG] = 7,
	};

	(void)arg;
	user_sink.fn(user_sink.arg, syslog_level[level], text);
}

void varve_set_log(void (*fn)(void *arg, int level, const char *text), void *arg)
{
	/* Off first: when this has returned nobody is in pass_on() any more. */
	log_set_sink(NULL, NULL);
	user_sink.fn = fn;
	user_sink.arg = arg;
	if (fn)
		log_set_sink(pass_on, NULL);
}
