/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The simulated block device: how requests travel. What they do to the platters, and what a
 * crash makes of it, is in sim_disk.c.
 *
 * A request is copied when it is submitted (struct sim_write, on the disk's list of flying
 * writes), so that a crash can decide about it after its owner's memory is gone, and so that an
 * owner who changes the memory of a request in flight is found out. It waits on dev->pending
 * until poll() or help() draws it, then takes effect all at once and is completed.
 *
 * Invariants
 *  1. The fault of a request is drawn at its submission, so "the nth write" counts submissions.
 *  2. A flush covers the writes acknowledged before its submission (priv.u64[PRIV_COVER]), no
 *     matter when it completes.
 *  3. Every step that changes what a crash could leave has passed sim_world_event() first.
 *  4. A dead device touches neither the disk nor any request except those that a blocked caller
 *     waits for, newest first: the owners of the older ones may be gone.
 *
 * Locks: none, one thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/sim_disk.h"

/* Where the device keeps its notes in req->priv. */
enum {
	PRIV_WRITE, /* ptr: struct sim_write */
	PRIV_DUE,   /* u64: not before */
	PRIV_COVER, /* u64: flush: everything acknowledged up to here */
	PRIV_FAULT, /* u64: enum sim_dev_fault + 1, or 0 */
	PRIV_ERROR, /* u64: the errno to report, positive */
};

struct sim_dev {
	struct dev dev;
	struct sim_disk *disk;
	uint64_t boot;
	bool killed;
	int sticky; /* the error of a failed flush */
	struct list_head pending;
	struct dev_counters counters;
};

static const struct dev_ops sim_dev_ops;

static struct sim_dev *to_sim(struct dev *dev)
{
	return container_of(dev, struct sim_dev, dev);
}

static bool is_dead(const struct sim_dev *sd)
{
	return sd->killed || sd->boot != sd->disk->boot || sd->disk->world->power_off;
}

static bool pass_event(struct sim_dev *sd)
{
	if (!sim_world_event(sd->disk->world))
		return false;
	sd->disk->events++;
	return true;
}

static bool changes_media(const struct dev_req *req)
{
	return req->op == DEV_WRITE || req->op == DEV_ZERO || req->op == DEV_DISCARD;
}

static int check(const struct sim_dev *sd, const struct dev_req *req)
{
	uint64_t align = req->op == DEV_READ ? DEV_SECTOR_BYTES : sd->dev.block_bytes;
	uint64_t sum = 0;

	if (req->op == DEV_FLUSH)
		return 0;
	if (req->op == DEV_DISCARD && !sd->dev.can_discard)
		return -EOPNOTSUPP;
	if (req->off_bytes % align || req->len_bytes % align)
		return -EINVAL;
	if (req->off_bytes > sd->dev.size_bytes ||
	    req->len_bytes > sd->dev.size_bytes - req->off_bytes)
		return -EINVAL;
	if (req->op != DEV_READ && req->op != DEV_WRITE)
		return 0;
	for (int i = 0; i < req->iovcnt; i++)
		sum += req->iov[i].iov_len;
	return sum == req->len_bytes ? 0 : -EINVAL;
}

/* Visits the request's memory beside len_bytes of buf. */
static void gather(const struct dev_req *req, uint8_t *buf)
{
	for (int i = 0; i < req->iovcnt; i++) {
		if (req->iov[i].iov_len)
			memcpy(buf, req->iov[i].iov_base, req->iov[i].iov_len);
		buf += req->iov[i].iov_len;
	}
}

static void scatter(const struct dev_req *req, const uint8_t *buf)
{
	for (int i = 0; i < req->iovcnt; i++) {
		if (req->iov[i].iov_len)
			memcpy(req->iov[i].iov_base, buf, req->iov[i].iov_len);
		buf += req->iov[i].iov_len;
	}
}

static bool same(const struct dev_req *req, const uint8_t *buf)
{
	for (int i = 0; i < req->iovcnt; i++) {
		if (req->iov[i].iov_len && memcmp(buf, req->iov[i].iov_base, req->iov[i].iov_len))
			return false;
		buf += req->iov[i].iov_len;
	}
	return true;
}

/* What a discard leaves: what was there, zeros, or anything. */
static void fill_discard(struct sim_disk *disk, struct sim_write *w, uint64_t len_bytes)
{
	switch (sim_world_below(disk->world, 3)) {
	case 0:
		memcpy(w->data, disk->visible + w->off_bytes, len_bytes);
		break;
	case 1:
		memset(w->data, 0, len_bytes);
		break;
	default:
		rng_fill(&disk->world->rng, w->data, len_bytes);
	}
}

static int take_off(struct sim_dev *sd, struct dev_req *req)
{
	struct sim_write *w = sim_write_new(sd->disk, req->off_bytes, req->len_bytes);

	if (!w)
		return -ENOMEM;
	w->dev = &sd->dev;
	if (req->op == DEV_WRITE)
		gather(req, w->data);
	else if (req->op == DEV_ZERO)
		memset(w->data, 0, req->len_bytes);
	else
		fill_discard(sd->disk, w, req->len_bytes);
	req->priv.ptr[PRIV_WRITE] = w;
	return 0;
}

static void draw_fault(struct sim_dev *sd, struct dev_req *req)
{
	struct sim_target target = {req->op, req->off_bytes, req->len_bytes, NULL};
	struct sim_fault *f = sim_faults_strike(&sd->disk->faults, sd->disk->world, &target);

	if (!f)
		return;
	if (f->kind == SIM_DEV_DELAY)
		req->priv.u64[PRIV_DUE] += f->delay_ns;
	req->priv.u64[PRIV_FAULT] = (uint64_t)f->kind + 1;
	req->priv.u64[PRIV_ERROR] = (uint64_t)(f->error ? -f->error : EIO);
}

static void submit(struct dev *dev, struct dev_req *req)
{
	struct sim_dev *sd = to_sim(dev);
	struct sim_disk *disk = sd->disk;
	struct sim_world *world = disk->world;
	bool valid = check(sd, req) == 0;

	list_add_tail(&req->link, &sd->pending);
	memset(&req->priv, 0, sizeof(req->priv));
	req->result = 0;
	if (is_dead(sd))
		return;
	if (valid && changes_media(req) && !pass_event(sd))
		return;
	req->priv.u64[PRIV_DUE] = world->clock_ns + disk->opt.latency_ns;
	if (disk->opt.jitter_ns)
		req->priv.u64[PRIV_DUE] += sim_world_below(world, disk->opt.jitter_ns + 1);
	req->priv.u64[PRIV_COVER] = disk->seq;
	draw_fault(sd, req);
	if (!valid)
		req->result = check(sd, req);
	else if (changes_media(req))
		req->result = take_off(sd, req);
}

static void do_read(struct sim_dev *sd, struct dev_req *req)
{
	struct sim_disk *disk = sd->disk;

	if (req->priv.u64[PRIV_FAULT] == SIM_DEV_ERROR + 1) {
		req->result = -(int)req->priv.u64[PRIV_ERROR];
		return;
	}
	if (req->priv.u64[PRIV_FAULT] == SIM_DEV_ROT + 1 && req->len_bytes)
		sim_disk_rot(disk, req->off_bytes, req->len_bytes, 1);
	sim_disk_race(disk, req->off_bytes, req->len_bytes);
	scatter(req, disk->visible + req->off_bytes);
}

static void do_flush(struct sim_dev *sd, struct dev_req *req)
{
	if (sd->sticky) {
		req->result = sd->sticky;
	} else if (req->priv.u64[PRIV_FAULT] == SIM_DEV_ERROR + 1) {
		req->result = -(int)req->priv.u64[PRIV_ERROR];
		sd->sticky = req->result;
		sim_disk_flush_failed(sd->disk);
	} else if (req->priv.u64[PRIV_FAULT] != SIM_DEV_FLUSH_LIE + 1) {
		sim_disk_flush(sd->disk, req->priv.u64[PRIV_COVER]);
	}
}

static void misdirect(struct sim_dev *sd, struct sim_write *w)
{
	uint64_t len_bytes = w->sectors * DEV_SECTOR_BYTES;
	uint64_t places = (sd->dev.size_bytes - len_bytes) / sd->dev.block_bytes + 1;

	w->off_bytes = sim_world_below(sd->disk->world, places) * sd->dev.block_bytes;
	/* Reads may have seen some of it at the old place. */
	sd->disk->diverged = true;
}

static void do_write(struct sim_dev *sd, struct dev_req *req)
{
	struct sim_disk *disk = sd->disk;
	struct sim_write *w = req->priv.ptr[PRIV_WRITE];

	if (req->op == DEV_WRITE && !same(req, w->data))
		disk->scribbles++;
	if (sd->sticky) {
		req->result = sd->sticky;
		sim_write_land_part(disk, w);
		return;
	}
	switch (req->priv.u64[PRIV_FAULT]) {
	case SIM_DEV_ERROR + 1:
		req->result = -(int)req->priv.u64[PRIV_ERROR];
		sim_write_land_part(disk, w);
		return;
	case SIM_DEV_LOST + 1:
		sd->disk->diverged = true;
		sim_write_free(w);
		return;
	case SIM_DEV_MISDIRECT + 1:
		misdirect(sd, w);
		break;
	case SIM_DEV_ROT + 1:
		if (req->len_bytes)
			w->data[sim_world_below(disk->world, req->len_bytes)] ^= 1;
		break;
	default:
		break;
	}
	sim_write_land(disk, w, req->fua);
}

static void count(struct sim_dev *sd, const struct dev_req *req)
{
	struct dev_counters *c = &sd->counters;

	if (req->result)
		c->errors++;
	switch (req->op) {
	case DEV_READ:
		c->reads++;
		c->read_bytes += req->len_bytes;
		break;
	case DEV_WRITE:
	case DEV_ZERO:
		c->writes++;
		c->write_bytes += req->len_bytes;
		break;
	case DEV_FLUSH:
		c->flushes++;
		break;
	case DEV_DISCARD:
		c->discards++;
		c->discard_bytes += req->len_bytes;
		break;
	}
}

/* Returns false when the power went off before the request took effect. */
static bool complete(struct sim_dev *sd, struct dev_req *req)
{
	bool no_effect = req->result != 0;

	if (!no_effect && req->op != DEV_READ && !pass_event(sd))
		return false;
	/* on_event() may have killed this device. */
	if (is_dead(sd))
		return false;
	list_del(&req->link);
	if (!no_effect) {
		if (req->op == DEV_READ)
			do_read(sd, req);
		else if (req->op == DEV_FLUSH)
			do_flush(sd, req);
		else
			do_write(sd, req);
	}
	count(sd, req);
	req->done(req);
	return true;
}

/* One of the requests that are due, each equally likely; NULL when none is. */
static struct dev_req *draw_due(struct sim_dev *sd, uint64_t *ret_next_due_ns)
{
	uint64_t now_ns = sd->disk->world->clock_ns;
	struct dev_req *req;
	uint64_t due = 0, pick;

	*ret_next_due_ns = UINT64_MAX;
	list_for_each_entry(req, &sd->pending, struct dev_req, link) {
		uint64_t at = req->priv.u64[PRIV_DUE];

		due += at <= now_ns;
		if (at < *ret_next_due_ns)
			*ret_next_due_ns = at;
	}
	if (!due)
		return NULL;
	pick = sim_world_below(sd->disk->world, due);
	list_for_each_entry(req, &sd->pending, struct dev_req, link)
		if (req->priv.u64[PRIV_DUE] <= now_ns && pick-- == 0)
			break;
	return req;
}

/* Invariant 4. A blocked caller waits for what it submitted last. */
static int fail_newest(struct sim_dev *sd)
{
	struct list_head *last = list_last(&sd->pending);
	struct dev_req *req;

	if (!last)
		return 0;
	list_del(last);
	req = list_entry(last, struct dev_req, link);
	req->result = -ENODEV;
	req->done(req);
	return 1;
}

static int poll_one(struct dev *dev, bool wait)
{
	struct sim_dev *sd = to_sim(dev);
	struct dev_req *req;
	uint64_t next_due_ns;

	if (is_dead(sd))
		return wait ? fail_newest(sd) : 0;
	req = draw_due(sd, &next_due_ns);
	if (!req && wait && next_due_ns != UINT64_MAX) {
		sim_world_advance_to(sd->disk->world, next_due_ns);
		req = draw_due(sd, &next_due_ns);
	}
	if (!req)
		return 0;
	if (complete(sd, req))
		return 1;
	return wait ? fail_newest(sd) : 0;
}

static bool help(struct dev *dev)
{
	return poll_one(dev, false) > 0;
}

static void kick(struct dev *dev)
{
	(void)dev;
}

static void counters(struct dev *dev, struct dev_counters *ret)
{
	*ret = to_sim(dev)->counters;
}

static int lock(struct dev *dev, struct err *err)
{
	struct sim_disk *disk = to_sim(dev)->disk;

	if (is_dead(to_sim(dev)))
		return err_set(err, -ENODEV, "simulated disk %u: no power", disk->id);
	if (disk->owner && disk->owner != dev)
		return err_set(err, -EBUSY, "simulated disk %u is in use by another opener",
			       disk->id);
	disk->owner = dev;
	return 0;
}

static void unlock(struct dev *dev)
{
	struct sim_dev *sd = to_sim(dev);

	/* After a crash the owner may be a new device that was given the same address. */
	if (sd->boot == sd->disk->boot && sd->disk->owner == dev)
		sd->disk->owner = NULL;
}

static void forgive(struct dev *dev)
{
	to_sim(dev)->sticky = 0;
}

static void identity(struct dev *dev, char *ret)
{
	memcpy(ret, to_sim(dev)->disk->opt.identity, DEV_IDENTITY_LEN);
	ret[DEV_IDENTITY_LEN - 1] = '\0';
}

static int resize_look(struct dev *dev)
{
	dev->size_bytes = to_sim(dev)->disk->opt.size_bytes;
	return 0;
}

static int resize(struct dev *dev, uint64_t size_bytes)
{
	struct sim_dev *sd = to_sim(dev);
	int r;

	if (is_dead(sd) || !pass_event(sd))
		return -ENODEV;
	r = sim_disk_grow(sd->disk, size_bytes);
	return r ? r : resize_look(dev);
}

static void close_dev(struct dev *dev)
{
	unlock(dev);
	free(to_sim(dev));
}

static const struct dev_ops sim_dev_ops = {
	.name = "sim",
	.submit = submit,
	.kick = kick,
	.help = help,
	.poll = poll_one,
	.counters = counters,
	.lock = lock,
	.unlock = unlock,
	.forgive = forgive,
	.identity = identity,
	.resize_look = resize_look,
	.resize = resize,
	.close = close_dev,
};

int sim_dev_open(struct sim_disk *disk, struct dev **ret)
{
	struct sim_dev *sd = calloc(1, sizeof(*sd));

	if (!sd)
		return -ENOMEM;
	sd->dev.ops = &sim_dev_ops;
	sd->dev.size_bytes = disk->opt.size_bytes;
	sd->dev.block_bytes = disk->opt.block_bytes;
	sd->dev.can_discard = !disk->opt.no_discard;
	sd->dev.can_zero = disk->opt.can_zero;
	sd->disk = disk;
	sd->boot = disk->boot;
	list_init(&sd->pending);
	*ret = &sd->dev;
	return 0;
}

void sim_dev_kill(struct dev *dev)
{
	struct sim_dev *sd = to_sim(dev);
	struct sim_write *w, *tmp;

	if (is_dead(sd)) {
		sd->killed = true;
		return;
	}
	list_for_each_entry_safe(w, tmp, &sd->disk->flying, struct sim_write, link)
		if (w->dev == dev)
			sim_write_land_part(sd->disk, w);
	unlock(dev);
	sd->killed = true;
}

uint64_t sim_dev_next_due_ns(struct dev *dev)
{
	struct sim_dev *sd = to_sim(dev);
	uint64_t next_due_ns = UINT64_MAX;
	struct dev_req *req;

	if (is_dead(sd))
		return UINT64_MAX;
	list_for_each_entry(req, &sd->pending, struct dev_req, link)
		if (req->priv.u64[PRIV_DUE] < next_due_ns)
			next_due_ns = req->priv.u64[PRIV_DUE];
	return next_due_ns;
}
