/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Deleting objects that nothing names any more.
 *
 * An object of which no sector is live is not deleted then. While any kept checkpoint's map or
 * table names it, or rolling forward from one could ask for it, a crash may need it again. So:
 *
 *   live == 0 --> a checkpoint begins: the object leaves the table; neither its parts nor any later
 *   checkpoint's name it ("doomed, since checkpoint n") --> both kept roots are n or later
 *   --> no read that may have looked the object up is at work any more
 *   --> it has been doomed for gc_min_age, so that who looks on without owning the volume, and
 *       opened before, does not stumble at once
 *   --> a proof that the volume is still ours, asked for after all that --> delete
 *
 * Invariants:
 *   1. only objects that the beginning checkpoint covers are doomed: rolling forward from it, or
 *      from a later one, asks for none of them;
 *   2. an object that is doomed is named by nothing and will be named by nothing again: places are
 *      not used twice, and moves lead to newer objects only;
 *   3. what moved the data away is durable, for it was installed (destage.c), and counts for ever;
 *   4. a crash on the way loses the list, not the objects: the next owner finds them in its listing
 *      and not in its table, and dooms them anew. It may have loaded either root.
 *
 * Deletions are tried again like those of old checkpoints (ckptrun.c), one at a time. One that
 * fails for good leaves the object to the next owner.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

static int doom_add(struct lsvd *l, const struct doomed *d)
{
	struct dooms *ds = &l->dooms;

	if (ds->n == ds->cap) {
		const size_t cap = ds->cap ? ds->cap * 2 : 64;
		struct doomed *more = realloc(ds->d, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		ds->d = more;
		ds->cap = cap;
	}
	ds->d[ds->n++] = *d;
	ds->bytes += d->bytes;
	return 0;
}

void doom_sweep(struct lsvd *l, uint64_t ckpt_no)
{
	struct objtab *t = &l->objs;
	size_t kept = 0;

	for (size_t i = 0; i < t->n; i++) {
		const struct ckpt_obj *o = &t->o[i];
		const struct doomed d = {
			.key = {.kind = KEY_DATA, .seq = o->seq, .epoch = o->epoch},
			.bytes = o->header_bytes + (uint64_t)o->data_sectors * LSVD_SECTOR_BYTES,
			.since_no = ckpt_no,
			.since_ns = host_now_ns(l->host),
			.clock = l->rd_clock,
		};

		if (o->live_sectors || o->seq > l->installed_seq || doom_add(l, &d)) {
			t->o[kept++] = *o;
			continue;
		}
		pages_mark(pages_of(l, LSVD_PART_OBJECTS), o->seq, o->seq);
		l->total_sectors -= o->data_sectors;
	}
	t->n = kept;
	if (!VARVE_STEP("lsvd.checkpoint_before_delete"))
		doom_kick(l);
}

void doom_stray(struct lsvd *l, const struct key *key, uint64_t bytes)
{
	const struct doomed d = {
		.key = *key,
		.bytes = bytes,
		.since_no = l->next_ckpt_no,
		.since_ns = host_now_ns(l->host),
		.clock = l->rd_clock,
	};

	if (doom_add(l, &d))
		log_warn("%s: no memory: an object that is not needed is left behind", l->name);
}

/* Whether the kept checkpoints were made without it. */
static bool doom_excluded(const struct lsvd *l, const struct doomed *d)
{
	const struct root_ref *roots = l->sb.roots;

	if (!VARVE_STEP("lsvd.checkpoint_before_delete"))
		return true;
	if (roots[1].no && VARVE_STEP("lsvd.both_before_delete"))
		return roots[1].no >= d->since_no;
	return roots[0].no >= d->since_no;
}

size_t doom_waiting(const struct lsvd *l)
{
	size_t n = 0;

	for (size_t i = 0; i < l->dooms.n; i++)
		n += !doom_excluded(l, &l->dooms.d[i]);
	return n;
}

static bool doom_due(const struct lsvd *l, const struct doomed *d)
{
	if (!doom_excluded(l, d))
		return false;
	if (reads_oldest(l) <= d->clock && VARVE_STEP("lsvd.readers_before_delete"))
		return false;
	return host_now_ns(l->host) - d->since_ns >= l->opt.gc_min_age_ns ||
	       !VARVE_STEP("lsvd.age_before_delete");
}

/* Those at the front that may go: they are in the order in which they were doomed. */
static size_t doom_ready(const struct lsvd *l)
{
	size_t n = 0;

	while (n < l->dooms.n && doom_due(l, &l->dooms.d[n]))
		n++;
	return n;
}

static void doom_delete(struct lsvd *l, size_t n)
{
	struct dooms *ds = &l->dooms;

	for (size_t i = 0; i < n; i++) {
		ds->bytes -= ds->d[i].bytes;
		l->st.gc_deleted++;
		l->st.gc_deleted_bytes += ds->d[i].bytes;
		trash_add(l, &ds->d[i].key);
	}
	ds->n -= n;
	memmove(ds->d, ds->d + n, ds->n * sizeof(*ds->d));
	trash_kick(l);
}

void doom_kick(struct lsvd *l)
{
	size_t n;

	if (!l->acquired || l->stopping || l->failed)
		return;
	n = gc_resting(l) ? 0 : doom_ready(l);
	if (!n) {
		l->dooms.proof = 0;
		return;
	}
	if (!l->dooms.proof)
		l->dooms.proof = ++l->events;
	/* What became due since the proof was asked for was as much ours then. */
	if (l->proven >= l->dooms.proof || !VARVE_STEP("lsvd.own_before_delete")) {
		l->dooms.proof = 0;
		doom_delete(l, n);
	} else {
		own_prove(l);
	}
}
