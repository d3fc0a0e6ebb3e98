/* SPDX-License-Identifier: BSD-3-Clause */
/* Looking at a log by itself, without the home that it belongs to. */
#ifndef VOLUME_LOGVIEW_H
#define VOLUME_LOGVIEW_H

#include "base/err.h"
#include "dev/dev.h"
#include "wlog/wlog.h"

#define LOGVIEW_SECTORS (UINT64_C(1) << 48) /* more than any volume has */

/*
 * Opens the log as recovery would, over a home that holds nothing, and calls visit entered.
 * Nothing is written, no right is taken. Not entered; synchronous.
 */
int logview_visit(struct dev *dev, void (*visit)(struct wlog *log, void *arg), void *arg,
		  struct err *err);

#endif
