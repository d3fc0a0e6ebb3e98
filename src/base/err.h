/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The error record: what a negative errno cannot say.
 *
 * A library function that can fail in more than one interesting way takes a struct err *, returns
 * a negative errno, and records a text that says what failed, where, and what to do.  Only a front
 * prints it.  Every function here accepts a NULL record.
 *
 *	if (le32_get(sb->magic) != MAGIC)
 *		return err_corrupt(e, "%s: superblock %d: bad magic", path, i);
 *	...
 *	return err_prefix(e, "opening cache %s", path);
 *
 * The first record wins: err_set on a record that is already set keeps the text and code that are
 * there, as they are nearer to the cause, and returns the code it was given.  A caller that
 * recovers from an error and goes on calls err_clear.  A record belongs to one thread at a time.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdarg.h>

#define ERR_TEXT_LEN 512

struct err {
	int code; /* negative errno, 0 while nothing is recorded */
	char text[ERR_TEXT_LEN];
};

#define ERR_INIT      \
	{             \
		0, "" \
	}

void err_clear(struct err *e);

/* Records and returns @code, a negative errno; the text is cut to fit. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int err_vset(struct err *e, int code, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));

/* As err_set, with ": <text of the errno>" behind the message. */
int err_sys(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Invalid media or objects: -EBADMSG.  The text must name the place. */
int err_corrupt(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<message>: " in front of what is recorded, if anything is; returns the recorded code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The recorded text, or the errno's text when @code comes without one.  Never NULL. */
const char *err_text(const struct err *e, int code);

#endif
