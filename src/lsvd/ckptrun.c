/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The steps of a checkpoint while the volume is in use, and the deletion of old ones. ckpt.c says
 * what a checkpoint is and why the order is what it is.
 *
 *   ckpt_kick      one is due: by what has been written, or somebody waits for one
 *   ckpt_run       deferred, again and again: a slice of the walk          (not entered while it
 *                  computes the checksum of a finished object)
 *   ckpt_put       a part: the walk goes on meanwhile; the root: all parts are durable by then
 *   ckpt_to_super  root durable: waits for the superblock to be free, replaces it
 *   ckpt_replaced  superblock durable: waiters are told, the third-oldest goes to the trash
 *   trash_*        reads a root, deletes its parts but for those that a kept root refers to, then
 *                  the root itself; one request at a time
 *
 * Errors: puts and the superblock are tried again for ever (put.c, own.c). For want of memory the
 * attempt is given up and begun anew later. A deletion that fails for good leaves an object behind
 * that the next owner finds and deletes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

#define TRASH_TRIES 8
#define CKPT_RATIO 16 /* bytes written for each byte of a checkpoint, at least */

static void ckpt_run(struct work *work);
static void trash_root(struct lsvd *l, const struct root_ref *ref);

/* ---- writing */

static void ckpt_defer(struct lsvd *l)
{
	l->ckpt_work.run = ckpt_run;
	l->busy++;
	host_defer(l->host, &l->ckpt_work);
}

static uint64_t ckpt_covered(const struct lsvd *l)
{
	const struct root_ref *root = &l->sb.roots[l->good_root];

	return root->no ? root->covered_seq : 0;
}

/* Whoever waits may want to release next: garbage collection comes to a rest before. */
static void ckpt_waiters(struct lsvd *l)
{
	if (!gc_busy(l))
		drains_reached(&l->ckpt_waiters, ckpt_covered(l));
}

static bool ckpt_awaited(const struct lsvd *l)
{
	const struct drain *d;

	list_for_each_entry(d, &l->ckpt_waiters.waiting, struct drain, link)
	{
		if (d->lsn > ckpt_covered(l))
			return true;
	}
	return l->ckpt_forced;
}

/*
 * The entries of the pages that would be written. A page's range may hold a few more entries than
 * its part (65535 sectors at most are in one), hence about.
 */
uint64_t ckpt_cost_bytes(const struct lsvd *l)
{
	const uint64_t clean = pages_clean_entries(&l->pages[0]), all = extmap_count(&l->map);

	return (all > clean ? all - clean : 0) * sizeof(struct lsvd_ckpt_ext);
}

/* Enough has been written since the last one to pay for another (docs/DESIGN.md). */
static bool ckpt_worth(const struct lsvd *l)
{
	if (l->gc.paused && ckpt_covered(l) >= l->installed_data_seq)
		return false;
	if (l->since_ckpt >= l->opt.checkpoint_objects)
		return true;
	return l->since_bytes >= l->opt.checkpoint_bytes &&
	       l->since_bytes / CKPT_RATIO >= ckpt_cost_bytes(l);
}

static bool ckpt_due(struct lsvd *l)
{
	if (l->ckpt_active || !l->acquired || l->stopping || l->failed || !l->installed_seq)
		return false;
	if (l->ckpt_timer_set)
		return false;
	return ckpt_awaited(l) || ckpt_worth(l);
}

static void ckpt_retry_timer(struct timer *timer)
{
	struct lsvd *l = container_of(timer, struct lsvd, ckpt_timer);

	l->ckpt_timer_set = false;
	ckpt_kick(l);
}

/* Gives the attempt up, for want of memory; its parts are left to the next owner. */
static void ckpt_abandon(struct lsvd *l, int error)
{
	home_failed(l, error);
	ckpt_give_up(&l->ckpt);
	l->ckpt_active = l->ckpt_stalled = false;
	l->ckpt_timer.fn = ckpt_retry_timer;
	l->ckpt_timer_set = true;
	retry_set(l, &l->ckpt_timer, ++l->ckpt_tries);
}

static void ckpt_replaced(struct lsvd *l)
{
	const struct root_ref third = l->ckpt_third, bad = l->ckpt_bad;

	l->good_root = 0;
	l->st.checkpoints++;
	l->st.checkpoint_bytes += l->ckpt.bytes;
	ckpt_commit(&l->ckpt);
	ckpt_free(&l->ckpt);
	l->ckpt_active = false;
	l->ckpt_tries = 0;
	if (third.no)
		trash_root(l, &third);
	if (bad.no)
		trash_root(l, &bad);
	ckpt_waiters(l);
}

/* Root durable, superblock free: name it. */
static void ckpt_to_super(struct lsvd *l)
{
	l->ckpt_super_wanted = false;
	l->sb_next = l->sb;
	/* A root that could not be loaded is not kept; the one that was takes its place. */
	l->ckpt_third = l->good_root == 0 ? l->sb.roots[1] : (struct root_ref){0};
	l->ckpt_bad = l->good_root == 0 ? (struct root_ref){0} : l->sb.roots[0];
	ckpt_super(&l->ckpt, &l->sb_next);
	if (!VARVE_STEP("lsvd.super_before_delete") && l->ckpt_third.no) {
		trash_root(l, &l->ckpt_third);
		l->ckpt_third.no = 0;
	}
	own_super(l, ckpt_replaced);
}

/*
 * Goes on with the walk, or lets it wait for a put: so many parts are in flight at once. For the
 * root all of them have to be durable.
 */
static void ckpt_go(struct lsvd *l)
{
	const bool root = l->ckpt.phase == CKPT_ROOT && VARVE_STEP("lsvd.parts_before_root");

	if (l->ckpt_nios >= (root ? 1 : l->opt.puts_in_flight))
		l->ckpt_stalled = true;
	else
		ckpt_defer(l);
}

/* The object in hand is on its way: a part; or it is durable: the root. Entered. */
static void ckpt_next(struct lsvd *l)
{
	const int r = ckpt_taken(&l->ckpt);

	if (r < 0) {
		ckpt_abandon(l, r);
	} else if (r) {
		l->ckpt_super_wanted = true;
		ckpt_kick(l);
	} else {
		ckpt_go(l);
	}
}

/* A part or root on its way. */
struct ckpt_io {
	struct oput put;
	struct iovec iov;
	bool last; /* the root, which is waited for */
};

static void ckpt_put_done(struct oput *put, int error)
{
	struct ckpt_io *io = container_of(put, struct ckpt_io, put);
	struct lsvd *l = put->l;

	host_enter(l->host);
	list_del(&put->link);
	l->ckpt_nios--;
	if (error) {
		lsvd_fail(l, error, "another object lies under a key of ours");
	} else if (io->last) {
		ckpt_next(l);
	} else if (l->ckpt_stalled) {
		l->ckpt_stalled = false;
		ckpt_go(l);
	}
	free(io->iov.iov_base);
	free(io);
	host_leave(l->host);
}

static void ckpt_put(struct lsvd *l)
{
	struct ckpt *ck = &l->ckpt;
	struct ckpt_io *io = calloc(1, sizeof(*io));

	if (!io) {
		ckpt_abandon(l, -ENOMEM);
		return;
	}
	io->iov = (struct iovec){ck->buf, ck->len_bytes};
	ck->buf = NULL;
	io->put.l = l;
	io->put.key = ck->key;
	io->put.iov = &io->iov;
	io->put.iovcnt = 1;
	io->put.len_bytes = ck->len_bytes;
	io->put.done = ckpt_put_done;
	io->last = ck->phase == CKPT_ROOT && VARVE_STEP("lsvd.root_before_super");
	list_add_tail(&io->put.link, &l->ckpt_ios);
	l->ckpt_nios++;
	oput_start(&io->put);
	if (!io->last)
		ckpt_next(l);
}

/* What close finds of puts that will never be done. */
void ckpt_drop(struct lsvd *l)
{
	struct list_head *link;

	while ((link = list_pop(&l->ckpt_ios))) {
		struct ckpt_io *io = list_entry(link, struct ckpt_io, put.link);

		free(io->iov.iov_base);
		free(io);
	}
	while ((link = list_pop(&l->trash)))
		free(list_entry(link, struct trash, link));
	free(l->trash_buf);
	ckpt_free(&l->ckpt);
	for (unsigned i = 0; i < 2; i++) {
		pages_free(&l->pages[i]);
		partset_free(&l->kept[i]);
	}
}

static void ckpt_run(struct work *work)
{
	struct lsvd *l = container_of(work, struct lsvd, ckpt_work);
	int r = 0;

	host_enter(l->host);
	if (!l->stopping && !l->failed)
		r = ckpt_step(&l->ckpt);
	host_leave(l->host);
	if (r > 0)
		ckpt_seal(&l->ckpt);
	host_enter(l->host);
	if (l->stopping || l->failed) {
		/* It ends here; what has been put is left to the next owner. */
	} else if (r < 0) {
		ckpt_abandon(l, r);
	} else if (r) {
		ckpt_put(l);
	} else {
		ckpt_go(l);
	}
	lsvd_exit(l);
}

void ckpt_kick(struct lsvd *l)
{
	if (l->ckpt_super_wanted && !l->sb_busy && !l->stopping && !l->failed)
		ckpt_to_super(l);
	ckpt_waiters(l);
	if (!ckpt_due(l))
		return;
	l->since_ckpt = l->since_bytes = 0;
	l->ckpt_active = true;
	l->ckpt_forced = false;
	doom_sweep(l, l->next_ckpt_no);
	if (ckpt_begin(l, &l->ckpt))
		ckpt_abandon(l, -ENOMEM);
	else
		ckpt_defer(l);
}

/* ---- deleting */

static void trash_submit(struct lsvd *l);

static void trash_push(struct lsvd *l, const struct key *key, const struct root_ref *ref, bool last)
{
	struct trash *t = calloc(1, sizeof(*t));

	if (!t) {
		log_warn("%s: no memory: an object of an old checkpoint is left behind", l->name);
		return;
	}
	key_format(t->key, l->name, key);
	if (ref)
		t->ref = *ref;
	if (last)
		list_add_tail(&t->link, &l->trash);
	else
		list_add(&t->link, &l->trash);
}

void trash_add(struct lsvd *l, const struct key *key)
{
	trash_push(l, key, NULL, true);
}

static void trash_root(struct lsvd *l, const struct root_ref *ref)
{
	const struct key key = {.kind = KEY_ROOT, .seq = ref->no, .epoch = ref->epoch};

	trash_push(l, &key, ref, true);
	trash_kick(l);
}

static void trash_timer(struct timer *timer)
{
	struct lsvd *l = container_of(timer, struct lsvd, trash_timer);

	if (!l->failed)
		trash_submit(l);
}

/*
 * The root has been read: its parts go first, so that it can be found again should we die on the
 * way. One that cannot be read is deleted by itself.
 */
static void trash_found(struct lsvd *l, struct trash *t)
{
	const size_t bytes = t->ref.bytes;
	struct root_hdr root;
	struct obj_hdr hdr;

	t->ref.no = 0;
	if (root_decode(l->trash_buf, bytes, &hdr, &root, NULL) || hdr.crc != t->ref.crc)
		return;
	for (uint32_t i = 0; i < root.parts; i++) {
		struct part_ref p;
		struct key key = {.kind = KEY_PART};

		root_part(l->trash_buf, i, &p);
		key.seq = p.no;
		key.epoch = p.epoch;
		key.part = p.part;
		/* Newer checkpoints go on referring to what has not changed. */
		if ((partset_has(&l->kept[0], &key) || partset_has(&l->kept[1], &key)) &&
		    VARVE_STEP("lsvd.shared_parts_stay"))
			continue;
		trash_push(l, &key, NULL, false);
	}
}

static void trash_done(struct store_req *req)
{
	struct lsvd *l = container_of(req, struct lsvd, trash_req);
	struct trash *t;
	const int error = req->result;

	host_enter(l->host);
	t = list_first_entry(&l->trash, struct trash, link);
	l->trash_busy = false;
	if (error && store_transient(error) && ++l->trash_tries < TRASH_TRIES && !l->stopping) {
		l->trash_busy = true;
		l->trash_timer.fn = trash_timer;
		retry_set(l, &l->trash_timer, l->trash_tries);
	} else if (l->trash_buf && !error) {
		trash_found(l, t);
	} else {
		if (error && error != -ENOENT)
			log_warn("%s: cannot delete object %s of an old checkpoint: %s", l->name,
				 t->key, err_text(NULL, error));
		list_del(&t->link);
		free(t);
	}
	free(l->trash_buf);
	l->trash_buf = NULL;
	trash_kick(l);
	lsvd_exit(l);
}

static void trash_submit(struct lsvd *l)
{
	const struct trash *t = list_first_entry(&l->trash, struct trash, link);
	struct store_req *req = &l->trash_req;

	memcpy(req->key, t->key, sizeof(req->key));
	req->op = STORE_DELETE;
	req->done = trash_done;
	if (t->ref.no)
		l->trash_buf = malloc(t->ref.bytes);
	if (l->trash_buf) {
		req->op = STORE_GET;
		req->off_bytes = 0;
		req->len_bytes = t->ref.bytes;
		req->one = (struct iovec){l->trash_buf, t->ref.bytes};
		req->iov = &req->one;
		req->iovcnt = 1;
	}
	l->busy++;
	store_submit(l->store, req);
}

void trash_kick(struct lsvd *l)
{
	if (l->trash_busy || list_empty(&l->trash) || !l->acquired || l->stopping || l->failed)
		return;
	l->trash_busy = true;
	l->trash_tries = 0;
	trash_submit(l);
}
