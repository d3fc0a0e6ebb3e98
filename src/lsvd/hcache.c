/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The cache of object headers, which hold the checksums that a read is verified with.
 *
 * Headers are kept as they are on media, after obj_decode() has accepted them: no second form, and
 * a lookup is a bisection in the buffer. They are found by object number; the least recently used
 * ones that nobody refers to go when header_cache_bytes is passed.
 *
 * Invariants:
 *   1. an entry's buffer is immutable from READY on, and stays while it is referenced: readers use
 *      it without being entered;
 *   2. one get is in flight for one header; others that miss it meanwhile wait for the same one;
 *   3. references are bounded by the reads in flight (read.c), so memory is bounded by
 *      header_cache_bytes and what these hold.
 *
 * A transient error is tried again until home_timeout_ns; then, and for a header that is damaged or
 * missing, whoever waits gets -EIO and the next reader tries anew.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

struct hdr_ent {
	struct list_head lru; /* when READY and not referenced; else unset */
	struct hdr_ent *next; /* in the bucket */
	struct lsvd *l;
	uint64_t seq;
	uint32_t bytes, refs, epoch, data_sectors; /* as the object table has them */
	struct uuid volume_uuid; /* a copy: the superblock may be replaced meanwhile */
	bool ready;
	void *buf;
	struct list_head waits; /* struct hdr_wait.link */
	struct store_req req;
	struct timer timer;
	uint64_t since_ns;
	unsigned tries;
};

static void hcache_submit(struct hdr_ent *ent);

static struct hdr_ent **hcache_slot(struct lsvd *l, uint64_t seq)
{
	struct hdr_ent **at = &l->hcache.bucket[seq % HCACHE_BUCKETS];

	while (*at && (*at)->seq != seq)
		at = &(*at)->next;
	return at;
}

void hcache_init(struct lsvd *l)
{
	list_init(&l->hcache.lru);
}

static void hcache_drop(struct lsvd *l, struct hdr_ent *ent)
{
	struct hdr_ent **at = hcache_slot(l, ent->seq);

	*at = ent->next;
	l->hcache.bytes -= ent->bytes + sizeof(*ent);
	free(ent->buf);
	free(ent);
}

void hcache_free(struct lsvd *l)
{
	for (unsigned i = 0; i < HCACHE_BUCKETS; i++) {
		while (l->hcache.bucket[i])
			hcache_drop(l, l->hcache.bucket[i]);
	}
}

static void hcache_shrink(struct lsvd *l)
{
	while (l->hcache.bytes > l->opt.header_cache_bytes) {
		struct list_head *link = list_pop(&l->hcache.lru);

		if (!link)
			return;
		hcache_drop(l, list_entry(link, struct hdr_ent, lru));
	}
}

static struct hdr_ent *hcache_new(struct lsvd *l, uint64_t seq, uint32_t bytes)
{
	struct hdr_ent *ent = calloc(1, sizeof(*ent));

	if (!ent)
		return NULL;
	ent->l = l;
	ent->seq = seq;
	ent->bytes = bytes;
	list_init(&ent->waits);
	list_init(&ent->lru);
	*hcache_slot(l, seq) = ent;
	l->hcache.bytes += bytes + sizeof(*ent);
	return ent;
}

void hcache_add(struct lsvd *l, uint64_t seq, void *buf, uint32_t bytes)
{
	struct hdr_ent *ent = *hcache_slot(l, seq) ? NULL : hcache_new(l, seq, bytes);

	if (!ent) {
		free(buf);
		return;
	}
	ent->buf = buf;
	ent->ready = true;
	list_add_tail(&ent->lru, &l->hcache.lru);
	hcache_shrink(l);
}

const void *hcache_buf(const struct hdr_ent *ent)
{
	return ent->buf;
}

void hcache_put(struct lsvd *l, struct hdr_ent *ent)
{
	if (--ent->refs == 0) {
		list_add_tail(&ent->lru, &l->hcache.lru);
		hcache_shrink(l);
	}
}

/* ---- misses */

/* Entered: everybody who waits gets a reference, or the error. */
static void hcache_settle(struct hdr_ent *ent, int error)
{
	struct lsvd *l = ent->l;
	struct list_head waits, *link;

	list_init(&waits);
	list_splice_tail(&ent->waits, &waits);
	if (error) {
		hcache_drop(l, ent);
		ent = NULL;
	} else {
		ent->ready = true;
		ent->refs = (uint32_t)list_count(&waits);
	}
	while ((link = list_pop(&waits))) {
		struct hdr_wait *w = list_entry(link, struct hdr_wait, link);

		w->ent = ent;
		w->error = error;
		w->ready(w);
	}
}

static void hcache_timer(struct timer *timer)
{
	hcache_submit(container_of(timer, struct hdr_ent, timer));
}

/* Whether what was read is this object's header. Not entered. */
static int hcache_check(const struct hdr_ent *ent, const char *key)
{
	struct err err = ERR_INIT;
	struct obj_hdr hdr;
	int r = obj_decode(ent->buf, ent->bytes, &hdr, &err);

	if (!r &&
	    (hdr.seq != ent->seq || hdr.epoch != ent->epoch || hdr.header_bytes != ent->bytes ||
	     hdr.data_bytes != (uint64_t)ent->data_sectors * DEV_SECTOR_BYTES ||
	     !uuid_equal(&hdr.volume_uuid, &ent->volume_uuid)))
		r = err_corrupt(&err, "header is another object's");
	if (r)
		log_error("object %s: %s", key, err_text(&err, r));
	return r ? -EIO : 0;
}

static void hcache_done(struct store_req *req)
{
	struct hdr_ent *ent = container_of(req, struct hdr_ent, req);
	struct lsvd *l = ent->l;
	int error = req->result;
	bool again;

	if (!error)
		error = hcache_check(ent, req->key);
	else if (!store_transient(error))
		log_error("object %s: cannot read the header: %s", req->key, err_text(NULL, error));
	host_enter(l->host);
	again = error && store_transient(error) && !l->failed && !l->stopping &&
		host_now_ns(l->host) - ent->since_ns < l->opt.home_timeout_ns;
	/* A header that was garbled on its way deserves one more look; a rotten one, no more. */
	if (again && !req->result)
		again = ent->tries == 0;
	if (again) {
		ent->timer.fn = hcache_timer;
		retry_set(l, &ent->timer, ++ent->tries);
	} else {
		hcache_settle(ent, error ? -EIO : 0);
	}
	lsvd_exit(l);
}

static void hcache_submit(struct hdr_ent *ent)
{
	struct lsvd *l = ent->l;
	const struct key key = {.kind = KEY_DATA, .seq = ent->seq, .epoch = ent->epoch};
	struct store_req *req = &ent->req;

	req->op = STORE_GET;
	key_format(req->key, l->name, &key);
	req->off_bytes = 0;
	req->len_bytes = ent->bytes;
	req->one.iov_base = ent->buf;
	req->one.iov_len = ent->bytes;
	req->iov = &req->one;
	req->iovcnt = 1;
	req->done = hcache_done;
	l->busy++;
	store_submit(l->store, req);
}

int hcache_get(struct lsvd *l, uint64_t seq, struct hdr_wait *wait)
{
	struct hdr_ent *ent = *hcache_slot(l, seq);
	const struct ckpt_obj *obj;

	if (ent && ent->ready) {
		if (ent->refs++ == 0)
			list_del(&ent->lru);
		wait->ent = ent;
		return 0;
	}
	if (!ent) {
		obj = objtab_find(&l->objs, seq);
		if (!obj)
			return -EIO;
		ent = hcache_new(l, seq, obj->header_bytes);
		if (!ent)
			return -ENOMEM;
		ent->epoch = obj->epoch;
		ent->data_sectors = obj->data_sectors;
		ent->volume_uuid = l->sb.uuid;
		ent->buf = malloc(ent->bytes);
		if (!ent->buf) {
			hcache_drop(l, ent);
			return -ENOMEM;
		}
		ent->since_ns = host_now_ns(l->host);
		hcache_submit(ent);
	}
	list_add_tail(&wait->link, &ent->waits);
	return 1;
}
