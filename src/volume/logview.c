/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A log without its home: a host and a home that have nothing to do, for the time of one look.
 *
 * Locks: none; the host belongs to the call.
 */
#include "volume/logview.h"

#include <errno.h>
#include <stdlib.h>

#include "volume/host.h"

static void home_read(struct wlog_home *home, struct wlog_piece *piece)
{
	/* Nobody reads through this log. */
	(void)home;
	(void)piece;
}

static void home_destage(struct wlog_home *home, bool urgent)
{
	(void)home;
	(void)urgent;
}

static void no_request(struct vhost *h, struct dev_req *req)
{
	(void)h;
	(void)req;
}

static void no_tick(struct vhost *h)
{
	(void)h;
}

static int visit_log(struct vhost *h, void (*visit)(struct wlog *log, void *arg), void *arg,
		     struct err *err)
{
	static const struct wlog_home_ops ops = {.read = home_read, .destage = home_destage};
	struct wlog_home home = {.ops = &ops, .sectors = LOGVIEW_SECTORS};
	struct wlog_options opt;
	struct wlog *log;
	int rc;

	wlog_options_default(&opt);
	rc = wlog_open(&h->host, &h->dev->dev, &home, &opt, 0, &log, err);
	if (rc)
		return rc;
	host_enter(&h->host);
	visit(log, arg);
	host_leave(&h->host);
	wlog_close(log);
	return 0;
}

int logview_visit(struct dev *dev, void (*visit)(struct wlog *log, void *arg), void *arg,
		  struct err *err)
{
	struct vhost *h = calloc(1, sizeof(*h));
	int rc = -ENOMEM;

	if (!h)
		return rc;
	h->fill = no_request;
	h->publish = no_request;
	h->tick = no_tick;
	rc = sluice_dev_new(dev, &h->dev);
	if (!rc) {
		rc = vhost_open(h);
		if (!rc) {
			rc = visit_log(h, visit, arg, err);
			vhost_close(h);
		}
		free(h->dev); /* the sluice alone: the device is the caller's */
	}
	free(h);
	return rc;
}
