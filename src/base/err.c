/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The error record (err.h). The first text wins, because it is nearest to the cause; prefixes are
 * put in front of it on the way up.
 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void err_clear(struct err *e)
{
	if (!e)
		return;
	e->code = 0;
	e->text[0] = 0;
}

int err_vset(struct err *e, int code, const char *fmt, va_list ap)
{
	if (e && !e->code) {
		e->code = code;
		vsnprintf(e->text, sizeof(e->text), fmt, ap);
	}
	return code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, code, fmt, ap);
	va_end(ap);
	return code;
}

int err_sys(struct err *e, int code, const char *fmt, ...)
{
	char reason[128];
	size_t len;
	va_list ap;

	if (!e || e->code)
		return code;
	va_start(ap, fmt);
	err_vset(e, code, fmt, ap);
	va_end(ap);
	len = strlen(e->text);
	snprintf(e->text + len, sizeof(e->text) - len, ": %s",
		 strerror_r(-code, reason, sizeof(reason)));
	return code;
}

int err_corrupt(struct err *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, -EBADMSG, fmt, ap);
	va_end(ap);
	return -EBADMSG;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char old[ERR_TEXT_LEN];
	va_list ap;
	size_t len;

	if (!e || !e->code)
		return e ? e->code : 0;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	len = strlen(e->text);
	snprintf(e->text + len, sizeof(e->text) - len, ": %.*s", (int)(sizeof(e->text) - len), old);
	return e->code;
}

const char *err_text(const struct err *e, int code)
{
	const char *desc = strerrordesc_np(code < 0 ? -code : code);

	if (e && e->code && e->text[0])
		return e->text;
	return desc ? desc : "unknown error";
}
