/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening, the store's half: superblock, checkpoint, rolling forward. Synchronous, writes nothing.
 *
 * The stream is what the windows of the superblock admit, in order of numbers. Rolling forward
 * begins behind the checkpoint and asks for one number after the other:
 *
 *   the number's window      -> the epoch in the key; behind a window's end, the next window's
 *                               first number
 *   the object is there      -> its header must be sound, this volume's, and name as predecessor
 *                               (prev_seq) the last data object that was applied: apply it
 *                               (a GC object moves data where the map still names its old place)
 *   it is not there          -> the end, unless a later object of the window names the last one
 *                               applied as its predecessor: then what is missing were no data
 *                               objects, and the gap is legal
 *   it is there but damaged  -> damage. Puts are atomic: a crash leaves no half objects. (Who
 *                               discards the cache accepts a cut, and may have it before the last
 *                               object, if that is the damaged one.)
 *
 * LIST only tells what to expect; stores may list late. That a number is missing is confirmed by
 * asking for the object itself.
 *
 * Invariants:
 *   1. the image is a prefix of the stream: nothing behind a hole is ever applied (P3). What lies
 *      there is stranded; its number is not used again, as the next owner begins behind the
 *      highest number listed, and its window ends before it;
 *   2. a hole within a closed window is damage: its owner's successor has seen the object;
 *   3. so is a stream that ends before last_seq, or before what the checkpoint reaches;
 *   4. rolling forward twice gives the same (nothing is written).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lsvd/lsvd_impl.h"

/* ---- listing */

struct listing_req {
	struct store_req req;
	struct listing *list;
	const char *name;
};

static int listing_entry(struct store_req *req, const char *text, uint64_t size_bytes)
{
	struct listing_req *lr = container_of(req, struct listing_req, req);
	struct listing *list = lr->list;
	struct key key;

	if (!key_parse(lr->name, text, &key))
		return 0;
	if (list->n == list->cap) {
		const size_t cap = list->cap ? list->cap * 2 : 256;
		struct listed *e = realloc(list->e, cap * sizeof(*e));

		if (!e)
			return -ENOMEM;
		list->e = e;
		list->cap = cap;
	}
	list->e[list->n++] = (struct listed){key, size_bytes};
	if (key.kind == KEY_DATA && key.seq > list->max_seq)
		list->max_seq = key.seq;
	return 0;
}

static int listed_cmp(const void *a, const void *b)
{
	const struct key *x = &((const struct listed *)a)->key;
	const struct key *y = &((const struct listed *)b)->key;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->part < y->part ? -1 : x->part > y->part;
}

int listing_read(struct store *store, const char *name, struct listing *ret, struct err *err)
{
	struct listing_req lr = {.list = ret, .name = name};
	const size_t len = strlen(name);
	int r;

	*ret = (struct listing){0};
	lr.req.op = STORE_LIST;
	lr.req.entry = listing_entry;
	memcpy(lr.req.key, name, len);
	lr.req.key[len] = '.';
	r = store_sync(store, &lr.req);
	if (r) {
		listing_free(ret);
		return err_sys(err, r, "cannot list the objects of %s", name);
	}
	if (ret->n)
		qsort(ret->e, ret->n, sizeof(*ret->e), listed_cmp);
	return 0;
}

void listing_free(struct listing *list)
{
	free(list->e);
	*list = (struct listing){0};
}

/* The first data object listed at or behind (seq, epoch), or NULL. */
static const struct listed *listing_from(const struct listing *list, uint64_t seq, uint32_t epoch)
{
	const struct listed want = {.key = {.kind = KEY_DATA, .seq = seq, .epoch = epoch}};
	size_t lo = 0, hi = list->n;

	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;

		if (listed_cmp(&list->e[mid], &want) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < list->n && list->e[lo].key.kind == KEY_DATA ? &list->e[lo] : NULL;
}

const struct listed *listing_find(const struct listing *list, uint64_t seq, uint32_t epoch)
{
	const struct listed *e = listing_from(list, seq, epoch);

	return e && e->key.seq == seq && e->key.epoch == epoch ? e : NULL;
}

/* The first listed object behind seq that the window admits, or NULL. */
static const struct listed *listing_behind(const struct listing *list, uint64_t seq,
					   const struct epoch_end *win)
{
	const struct listed *e = listing_from(list, seq + 1, 0);
	const struct listed *end = list->e + list->n;

	for (; e && e < end && e->key.kind == KEY_DATA && e->key.seq <= win->end_seq; e++) {
		if (e->key.epoch == win->epoch)
			return e;
	}
	return NULL;
}

/* ---- one header */

/* first: what has been read ahead, or NULL; taken over in any case. */
static int header_read(struct store *store, const char *text, uint64_t size_bytes, uint8_t *first,
		       void **ret_buf, size_t *ret_len, struct err *err)
{
	size_t len = header_first_bytes(size_bytes);
	uint8_t *buf = first ? first : malloc(len + !len), *more;
	struct obj_hdr hdr;
	int r = buf ? 0 : -ENOMEM;

	if (!r && !first)
		r = store_get(store, text, buf, len, 0);
	if (!r)
		r = obj_peek(buf, len, &hdr, err);
	if (!r && (hdr.header_bytes > size_bytes || hdr.header_bytes > LSVD_HEADER_MAX_BYTES ||
		   hdr.header_bytes + hdr.data_bytes != size_bytes))
		r = err_corrupt(err, "is %llu bytes long, which its header contradicts",
				(unsigned long long)size_bytes);
	if (!r && hdr.header_bytes > len) {
		more = realloc(buf, hdr.header_bytes);
		if (more)
			buf = more;
		r = more ? store_get(store, text, buf + len, hdr.header_bytes - len, len) : -ENOMEM;
		len = hdr.header_bytes;
	}
	if (r) {
		free(buf);
		return r;
	}
	*ret_buf = buf;
	*ret_len = len;
	return 0;
}

static int header_once(struct store *store, const char *text, uint64_t size_bytes, uint8_t *first,
		       const struct uuid *uuid, const struct key *key, void **ret_buf,
		       struct obj_hdr *ret, struct err *err)
{
	void *buf = NULL;
	size_t len = 0;
	int r = header_read(store, text, size_bytes, first, &buf, &len, err);

	if (r == -ERANGE)
		return err_corrupt(err, "is shorter than it should be");
	if (r)
		return r;
	r = obj_decode(buf, len, ret, err);
	if (!r && (ret->seq != key->seq || ret->epoch != key->epoch ||
		   !uuid_equal(&ret->volume_uuid, uuid)))
		r = err_corrupt(err, "header is another object's");
	if (r)
		free(buf);
	else
		*ret_buf = buf;
	return r;
}

int object_header(struct store *store, const char *name, const struct uuid *uuid, uint64_t seq,
		  uint32_t epoch, const struct listed *listed, void *first, void **ret_buf,
		  struct obj_hdr *ret, struct err *err)
{
	const struct key key = {.kind = KEY_DATA, .seq = seq, .epoch = epoch};
	struct store_req head = {.op = STORE_HEAD};
	uint64_t size_bytes = listed ? listed->size_bytes : 0;
	char text[STORE_KEY_MAX + 1];
	struct err e = ERR_INIT;
	int r = 0;

	key_format(text, name, &key);
	memcpy(head.key, text, sizeof(text));
	if (!listed) {
		r = store_sync(store, &head);
		size_bytes = head.size_bytes;
	}
	if (!r)
		r = header_once(store, text, size_bytes, first, uuid, &key, ret_buf, ret, &e);
	if (r == -EBADMSG) {
		/* What was garbled on its way is sound the next time; what is rotten is not. */
		err_clear(&e);
		r = header_once(store, text, size_bytes, NULL, uuid, &key, ret_buf, ret, &e);
	}
	if (!r || r == -ENOENT)
		return r;
	return err_set(err, r, "object %s: %s", text, err_text(&e, r));
}

/* ---- rolling forward */

struct roll {
	struct lsvd *l;
	struct listing list;
	uint64_t seq; /* the last number that is accounted for */
	const struct epoch_end *win;
	struct ahead *ahead;
	void *hdr;
	struct obj_hdr h;
};

/* What ahead.c reads: the data objects as they are listed. */
static size_t roll_want(const void *arg, size_t index, char key[STORE_KEY_MAX + 1])
{
	const struct roll *ro = arg;
	const struct listed *e = &ro->list.e[index];

	if (index >= ro->list.n || e->key.kind != KEY_DATA)
		return 0;
	key_format(key, ro->l->name, &e->key);
	return header_first_bytes(e->size_bytes);
}

/* The header of number seq in the window, confirmed against the store. 1: there is none. */
static int roll_get(struct roll *ro, uint64_t seq, struct err *err)
{
	struct lsvd *l = ro->l;
	const struct listed *e = listing_find(&ro->list, seq, ro->win->epoch);
	int r;

	if (!e && !VARVE_STEP("lsvd.confirm_hole"))
		return 1;
	r = object_header(l->store, l->name, &l->sb.uuid, seq, ro->win->epoch, e,
			  e ? ahead_take(ro->ahead, (size_t)(e - ro->list.e)) : NULL, &ro->hdr,
			  &ro->h, err);
	return r == -ENOENT ? 1 : r;
}

static bool roll_follows(const struct roll *ro)
{
	return ro->h.prev_seq == ro->l->installed_data_seq;
}

/* Nothing has number seq. 0: a legal gap, the object behind it is in hand. 1: the end. */
static int roll_hole(struct roll *ro, uint64_t seq, struct err *err)
{
	const struct listed *e = listing_behind(&ro->list, seq, ro->win);
	int r;

	if (e) {
		r = roll_get(ro, e->key.seq, err);
		if (!r && roll_follows(ro))
			return 0;
		if (!r)
			free(ro->hdr);
		if (r < 0 && r != -EBADMSG)
			return r;
		err_clear(err);
	}
	if (ro->win->end_seq == LSVD_SEQ_OPEN)
		return 1;
	return err_corrupt(err,
			   "%s: object %llu of epoch %u is missing, which a later owner has "
			   "seen",
			   ro->l->name, (unsigned long long)seq, ro->win->epoch);
}

/* A damaged object is the end only for who accepts that, and only if it is the last one. */
static int roll_damaged(struct roll *ro, uint64_t seq, int error, struct err *err)
{
	if (error != -EBADMSG || !ro->l->discard || ro->win->end_seq != LSVD_SEQ_OPEN ||
	    listing_behind(&ro->list, seq, ro->win))
		return error;
	log_warn("%s: the last object is damaged and not used: %s", ro->l->name,
		 err_text(err, error));
	err_clear(err);
	return 1;
}

static int roll_install(struct roll *ro)
{
	struct obj_moves moves = {0};
	struct obj_move mv;
	int r = 0;

	if (ro->h.type != LSVD_TYPE_GC)
		return map_install(ro->l, ro->hdr, ro->h.seq, 0, ro->h.ext_count, false);
	while (!r && obj_next_move(ro->hdr, &moves, &mv))
		r = map_move(ro->l, &mv, false);
	return r;
}

static int roll_apply(struct roll *ro, struct err *err)
{
	struct lsvd *l = ro->l;
	const struct ckpt_obj obj = {
		.seq = ro->h.seq,
		.epoch = ro->h.epoch,
		.header_bytes = ro->h.header_bytes,
		.data_sectors = (uint32_t)(ro->h.data_bytes / LSVD_SECTOR_BYTES),
		.type = ro->h.type,
	};
	int r = objtab_add(&l->objs, &obj);

	pages_mark(pages_of(l, LSVD_PART_OBJECTS), obj.seq, obj.seq);
	if (!r)
		r = roll_install(ro);
	if (r)
		return err_set(err, r, "no memory for the map of %s (limit %llu bytes)", l->name,
			       (unsigned long long)l->opt.map_limit_bytes);
	ro->seq = l->installed_seq = obj.seq;
	if (obj.type == LSVD_TYPE_GC)
		return 0;
	l->installed_data_seq = obj.seq;
	if (ro->h.last_lsn > l->installed_lsn)
		l->installed_lsn = ro->h.last_lsn;
	l->installed_wall_ns = ro->h.wall_ns;
	return 0;
}

/* 0: one more object has been applied; 1: that was the end. */
static int roll_step(struct roll *ro, struct err *err)
{
	uint64_t seq = ro->seq + 1;
	int r;

	ro->win = super_window(&ro->l->sb, seq);
	if (!ro->win)
		return 1;
	if (seq < ro->win->first_seq)
		seq = ro->win->first_seq;
	r = roll_get(ro, seq, err);
	if (r == 1)
		r = roll_hole(ro, seq, err);
	else if (r)
		r = roll_damaged(ro, seq, r, err);
	if (r)
		return r;
	if (!roll_follows(ro) && VARVE_STEP("lsvd.follow_prev_seq"))
		r = err_corrupt(err, "%s: object %llu follows object %llu, but %llu was the last",
				ro->l->name, (unsigned long long)ro->h.seq,
				(unsigned long long)ro->h.prev_seq,
				(unsigned long long)ro->l->installed_data_seq);
	else
		r = roll_apply(ro, err);
	free(ro->hdr);
	return r;
}

/* ---- the whole */

static void recover_start_from(struct lsvd *l, const struct root_hdr *root)
{
	l->installed_seq = root->covered_seq;
	l->installed_data_seq = root->covered_data_seq;
	l->installed_lsn = root->covered_lsn;
	l->installed_wall_ns = root->covered_wall_ns;
}

/* What the stream must reach, or it has lost objects. */
static int recover_check_reach(const struct lsvd *l, const struct root_hdr *root, struct err *err)
{
	if (l->installed_seq < root->reach_seq)
		return err_corrupt(err,
				   "%s: the objects end with %llu, but the checkpoint names "
				   "objects up to %llu",
				   l->name, (unsigned long long)l->installed_seq,
				   (unsigned long long)root->reach_seq);
	if (l->installed_seq < l->sb.last_seq)
		return err_corrupt(err, "%s: the objects end with %llu, but there were %llu",
				   l->name, (unsigned long long)l->installed_seq,
				   (unsigned long long)l->sb.last_seq);
	return 0;
}

/* Numbers that nobody has used: behind everything that is listed, stranded or not. */
static int recover_next_numbers(struct lsvd *l, const struct listing *list, struct err *err)
{
	l->next_seq = l->installed_seq;
	if (list->max_seq > l->next_seq)
		l->next_seq = list->max_seq;
	for (uint32_t i = 0; i < l->sb.end_count; i++) {
		if (l->sb.ends[i].first_seq > l->next_seq)
			l->next_seq = l->sb.ends[i].first_seq;
	}
	l->next_seq++;
	if (l->next_seq >= LSVD_SEQ_MAX)
		return err_set(err, -EOVERFLOW, "%s: there are no object numbers left", l->name);
	l->next_ckpt_no = l->sb.roots[0].no;
	for (size_t i = 0; i < list->n; i++) {
		const struct key *k = &list->e[i].key;

		if (k->kind != KEY_DATA && k->seq > l->next_ckpt_no && k->seq < UINT64_MAX / 2)
			l->next_ckpt_no = k->seq;
	}
	l->next_ckpt_no++;
	l->data_seq = l->installed_data_seq;
	l->reach_seq = l->installed_seq;
	l->closed_lsn = l->installed_lsn;
	return 0;
}

int recover_store(struct lsvd *l, struct err *err)
{
	struct roll ro = {.l = l};
	struct root_hdr root;
	int r = super_read_sync(l->store, l->name, &l->sb, &l->sb_version, err);

	if (r)
		return r;
	l->home.sectors = l->sb.size_bytes / LSVD_SECTOR_BYTES;
	/*
	 * The list first: what is put between the two is behind what we load, and is found or
	 * not; what the list has and a newer checkpoint has deleted makes loading fail, loudly.
	 */
	r = listing_read(l->store, l->name, &ro.list, err);
	if (!r)
		r = load_checkpoint(l, &root, err);
	if (r)
		goto out;
	recover_start_from(l, &root);
	ro.seq = root.covered_seq;
	ro.ahead = ahead_new(l->store, roll_want, &ro);
	do
		r = roll_step(&ro, err);
	while (!r);
	if (r > 0)
		r = recover_check_reach(l, &root, err);
	if (!r)
		r = recover_next_numbers(l, &ro.list, err);
	if (!r)
		r = map_count_live(l, err);
out:
	ahead_free(ro.ahead);
	listing_free(&ro.list);
	return r;
}

int recover_confirm(struct lsvd *l, struct listing *list, struct err *err)
{
	struct roll ro = {.l = l, .seq = l->installed_seq};
	uint64_t seq = l->installed_seq + 1;
	struct obj_hdr hdr;
	void *buf;
	int r = listing_read(l->store, l->name, list, err);

	if (r)
		return r;
	if (list->max_seq >= l->next_seq)
		l->next_seq = list->max_seq + 1;
	ro.win = super_window(&l->sb, seq);
	if (!ro.win)
		return 0;
	if (seq < ro.win->first_seq)
		seq = ro.win->first_seq;
	r = object_header(l->store, l->name, &l->sb.uuid, seq, ro.win->epoch, NULL, NULL, &buf,
			  &hdr, err);
	if (!r)
		free(buf);
	if (r == -ENOENT) /* the end is still the end */
		return 0;
	if (r == -EBADMSG && l->discard) {
		err_clear(err); /* the damaged last object that was accepted to be lost */
		return 0;
	}
	return r ? r : 1;
}
