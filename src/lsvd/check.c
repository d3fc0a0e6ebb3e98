/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Verifying what the store holds. lsvd_check.h says what of.
 *
 *   check_checkpoints   both roots, with all their parts
 *   recover_store       the very code of opening; what it refuses is a problem, and ends the check
 *   check_places        the map's extents, sorted by object
 *   check_objects       each object that counts: header, data, and that the map's extents lie in
 *                       it where its header says
 *   check_older         the objects that the older checkpoint names are all there
 *
 * A problem names the LBA ranges that it affects: of a damaged chunk or a missing object those
 * that the map says are there; none if all of it has been overwritten since.
 */
#include "lsvd/lsvd_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "lsvd/lsvd_impl.h"

#define CHECK_BUF_BYTES (1u << 20)

struct check {
	struct lsvd_check *user;
	struct lsvd *l;
	struct listing list;
	struct partset parts; /* that the kept checkpoints refer to */
	struct extent *place; /* the map, sorted by value */
	size_t nplaces, at;   /* at: the first of the object that is being checked */
	uint64_t done_bytes, all_bytes;
	uint8_t *buf;
	char key[STORE_KEY_MAX + 1];
	struct obj_hdr hdr;
	void *hdr_buf;
};

static void check_problem(struct check *c, uint64_t lba, uint64_t sectors, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

static void check_problem(struct check *c, uint64_t lba, uint64_t sectors, const char *fmt, ...)
{
	char text[ERR_TEXT_LEN];
	const struct lsvd_problem p = {
		.object = c->key,
		.text = text,
		.lba = lba,
		.sectors = sectors,
	};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->user->problems++;
	if (c->user->problem)
		c->user->problem(c->user, &p);
}

static void check_progress(struct check *c, uint64_t bytes)
{
	c->done_bytes += bytes;
	if (c->user->progress)
		c->user->progress(c->user, c->done_bytes, c->all_bytes);
}

/* Errors that say something about the volume, not about the way to it. */
static bool check_is_finding(int error)
{
	return error == -EBADMSG || error == -ENOENT || error == -ERANGE || error == -ENOTSUP;
}

/* ---- checkpoints */

static int check_root(struct check *c, const struct root_ref *ref)
{
	const struct key key = {.kind = KEY_ROOT, .seq = ref->no, .epoch = ref->epoch};
	struct lsvd *l = c->l;
	struct err err = ERR_INIT;
	struct root_hdr root;
	void *buf, *part;
	int r = load_root(l->store, l->name, &l->sb.uuid, ref, &buf, &root, &err);

	key_format(c->key, l->name, &key);
	if (check_is_finding(r)) {
		check_problem(c, 0, 0, "%s", err_text(&err, r));
		return 0;
	}
	if (!r) {
		r = partset_of_root(&c->parts, buf, root.parts);
		if (r)
			free(buf);
	}
	if (r)
		return r;
	for (uint32_t i = 0; i < root.parts; i++) {
		struct part_ref p;

		root_part(buf, i, &p);
		err_clear(&err);
		r = load_part(l->store, l->name, &l->sb.uuid, &p, root.shard_sectors_log2, NULL,
			      &part, &err);
		if (!r)
			free(part);
		else if (check_is_finding(r))
			check_problem(c, 0, 0, "%s", err_text(&err, r));
		else
			break;
		r = 0;
	}
	free(buf);
	return r;
}

static int check_checkpoints(struct check *c, struct err *err)
{
	int r = super_read_sync(c->l->store, c->l->name, &c->l->sb, &c->l->sb_version, err);

	memcpy(c->key, c->l->name, sizeof(c->l->name));
	if (check_is_finding(r) && r != -ENOENT) {
		check_problem(c, 0, 0, "%s", err_text(err, r));
		return 1;
	}
	for (unsigned i = 0; !r && i < LSVD_ROOTS; i++) {
		if (c->l->sb.roots[i].no)
			r = check_root(c, &c->l->sb.roots[i]);
	}
	return r;
}

/* ---- the map, by object */

static int place_cmp(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->value < y->value ? -1 : x->value > y->value;
}

static int check_places(struct check *c)
{
	struct extmap_iter it;
	struct extent e;

	c->place = malloc((extmap_count(&c->l->map) + 1) * sizeof(*c->place));
	if (!c->place)
		return -ENOMEM;
	extmap_iter_init(&it, &c->l->map, 0);
	while (extmap_iter_next(&it, &e)) {
		if (e.value & EXTMAP_CONST) {
			c->user->error_sectors += e.sectors;
			check_problem(c, e.lba, e.sectors,
				      "the data was damaged on its way through "
				      "the cache; it reads as errors until it is written again");
		} else {
			c->place[c->nplaces++] = e;
		}
	}
	qsort(c->place, c->nplaces, sizeof(*c->place), place_cmp);
	return 0;
}

/* Tells a problem for each live range in [from, to) of the object's data, or one without any. */
static void check_affected(struct check *c, uint64_t seq, uint64_t from, uint64_t to,
			   const char *text)
{
	bool told = false;

	for (size_t i = c->at; i < c->nplaces && place_seq(c->place[i].value) == seq; i++) {
		const struct extent *e = &c->place[i];
		uint64_t first = place_sector(e->value), end = first + e->sectors;

		if (end <= from || first >= to)
			continue;
		if (first < from)
			first = from;
		if (end > to)
			end = to;
		check_problem(c, e->lba + (first - place_sector(e->value)), end - first, "%s",
			      text);
		told = true;
	}
	if (!told)
		check_problem(c, 0, 0, "%s (nothing in it is in use)", text);
}

/* ---- objects */

/* The map's extents of this object against its header. */
static void check_mapped(struct check *c, uint64_t seq)
{
	for (size_t i = c->at; i < c->nplaces && place_seq(c->place[i].value) == seq; i++) {
		const struct extent *e = &c->place[i];
		uint64_t at = 0;

		while (at < e->sectors) {
			const uint32_t sector = place_sector(e->value) + (uint32_t)at;
			struct obj_ext x;

			obj_find(c->hdr_buf, sector, &x);
			if (x.type != LSVD_EXT_DATA || sector >= x.data_sector + x.sectors ||
			    x.lba + (sector - x.data_sector) != e->lba + at) {
				check_problem(c, e->lba + at, e->sectors - at,
					      "the map names sector %u of the object, which holds "
					      "something else",
					      sector);
				break;
			}
			at += x.data_sector + x.sectors - sector;
		}
	}
}

static void check_chunks(struct check *c, const struct obj_ext *e, uint32_t from, uint32_t sectors)
{
	for (uint32_t at = 0; at < sectors; at += LSVD_CRC_SECTORS) {
		const uint32_t left = sectors - at;
		const uint32_t n = left < LSVD_CRC_SECTORS ? left : LSVD_CRC_SECTORS;
		const uint32_t want =
			obj_crc(c->hdr_buf, e->first_crc + (from + at) / LSVD_CRC_SECTORS);
		const uint64_t sector = e->data_sector + from + at;

		if (crc32c(0, c->buf + (size_t)at * LSVD_SECTOR_BYTES, n * LSVD_SECTOR_BYTES) !=
		    want)
			check_affected(c, c->hdr.seq, sector, sector + n,
				       "data does not match its checksum");
	}
}

/* The data of one extent, piece by piece. */
static int check_extent(struct check *c, const struct obj_ext *e)
{
	const uint32_t step = CHECK_BUF_BYTES / LSVD_SECTOR_BYTES;

	for (uint32_t at = 0; at < e->sectors; at += step) {
		const uint32_t left = e->sectors - at;
		const uint32_t n = left < step ? left : step;
		const uint64_t sector = e->data_sector + at;
		int r = store_get(c->l->store, c->key, c->buf, (size_t)n * LSVD_SECTOR_BYTES,
				  c->hdr.header_bytes + sector * LSVD_SECTOR_BYTES);

		if (check_is_finding(r))
			check_affected(c, c->hdr.seq, sector, sector + n, "data cannot be read");
		else if (r)
			return r;
		else
			check_chunks(c, e, at, n);
		check_progress(c, (uint64_t)n * LSVD_SECTOR_BYTES);
	}
	return 0;
}

static int check_object_sound(struct check *c, const struct ckpt_obj *obj)
{
	struct obj_ext e;
	int r = 0;

	if (c->hdr.header_bytes != obj->header_bytes ||
	    c->hdr.data_bytes != (uint64_t)obj->data_sectors * LSVD_SECTOR_BYTES)
		check_problem(c, 0, 0, "the checkpoint has other lengths of it");
	check_mapped(c, obj->seq);
	check_progress(c, c->hdr.header_bytes);
	for (uint32_t i = 0; !r && !c->user->headers_only && i < c->hdr.ext_count; i++) {
		obj_ext(c->hdr_buf, i, &e);
		if (e.type == LSVD_EXT_DATA)
			r = check_extent(c, &e);
	}
	c->user->objects++;
	c->user->bytes += c->hdr.header_bytes + c->hdr.data_bytes;
	return r;
}

static int check_object(struct check *c, const struct ckpt_obj *obj)
{
	const struct listed *e = listing_find(&c->list, obj->seq, obj->epoch);
	const struct key key = {.kind = KEY_DATA, .seq = obj->seq, .epoch = obj->epoch};
	struct err err = ERR_INIT;
	int r;

	key_format(c->key, c->l->name, &key);
	while (c->at < c->nplaces && place_seq(c->place[c->at].value) < obj->seq)
		c->at++;
	r = object_header(c->l->store, c->l->name, &c->l->sb.uuid, obj->seq, obj->epoch, e, NULL,
			  &c->hdr_buf, &c->hdr, &err);
	if (r == -ENOENT) {
		check_affected(c, obj->seq, 0, UINT64_MAX, "the object is missing");
		return 0;
	}
	if (check_is_finding(r)) {
		check_affected(c, obj->seq, 0, UINT64_MAX, err_text(&err, r));
		return 0;
	}
	if (r)
		return r;
	r = check_object_sound(c, obj);
	free(c->hdr_buf);
	return r;
}

static int check_objects(struct check *c)
{
	const struct objtab *t = &c->l->objs;
	int r = 0;

	for (size_t i = 0; i < t->n; i++) {
		c->all_bytes += t->o[i].header_bytes;
		if (!c->user->headers_only)
			c->all_bytes += (uint64_t)t->o[i].data_sectors * LSVD_SECTOR_BYTES;
	}
	check_progress(c, 0);
	for (size_t i = 0; !r && i < t->n; i++)
		r = check_object(c, &t->o[i]);
	return r;
}

/* ---- what the older checkpoint needs */

/* An object that its table names; it need not be in the newest one's. */
static int check_named(struct check *c, const struct ckpt_obj *obj)
{
	const struct key key = {.kind = KEY_DATA, .seq = obj->seq, .epoch = obj->epoch};
	struct store_req head = {.op = STORE_HEAD};
	int r;

	if (listing_find(&c->list, obj->seq, obj->epoch))
		return 0;
	key_format(c->key, c->l->name, &key);
	memcpy(head.key, c->key, sizeof(head.key));
	r = store_sync(c->l->store, &head);
	if (r != -ENOENT)
		return r;
	check_problem(c, 0, 0, "is missing, and the older checkpoint names it");
	return 0;
}

static int check_older_part(struct check *c, const struct part_ref *ref, uint32_t log2)
{
	void *buf;
	int r = load_part(c->l->store, c->l->name, &c->l->sb.uuid, ref, log2, NULL, &buf, NULL);

	if (r)
		return check_is_finding(r) ? 0 : r; /* told already */
	for (uint32_t i = 0; !r && i < ref->entries; i++) {
		struct ckpt_obj obj;

		part_obj(buf, i, &obj);
		r = check_named(c, &obj);
	}
	free(buf);
	return r;
}

static int check_older(struct check *c)
{
	const struct root_ref *ref = &c->l->sb.roots[1];
	struct root_hdr root;
	void *buf;
	int r;

	if (!ref->no)
		return 0;
	r = load_root(c->l->store, c->l->name, &c->l->sb.uuid, ref, &buf, &root, NULL);
	if (r)
		return check_is_finding(r) ? 0 : r;
	for (uint32_t i = 0; !r && i < root.parts; i++) {
		struct part_ref p;

		root_part(buf, i, &p);
		if (p.kind == LSVD_PART_OBJECTS)
			r = check_older_part(c, &p, root.shard_sectors_log2);
	}
	free(buf);
	return r;
}

/* ---- what counts for nothing */

static void check_leftovers(struct check *c)
{
	const struct root_ref *roots = c->l->sb.roots;

	for (size_t i = 0; i < c->list.n; i++) {
		const struct key *k = &c->list.e[i].key;
		const struct ckpt_obj *obj = objtab_find(&c->l->objs, k->seq);

		if (k->kind == KEY_DATA)
			c->user->stranded += !obj || obj->epoch != k->epoch;
		else if (k->kind == KEY_ROOT ? k->seq != roots[0].no && k->seq != roots[1].no
					     : !partset_has(&c->parts, k))
			c->user->leftovers++;
	}
}

/* ---- the whole */

static int check_run(struct check *c, struct err *err)
{
	struct lsvd *l = c->l;
	int r = check_checkpoints(c, err);

	if (r > 0)
		return 0;
	if (!r)
		r = listing_read(l->store, l->name, &c->list, err);
	if (r)
		return r;
	memcpy(c->key, l->name, sizeof(l->name));
	r = recover_store(l, err);
	if (check_is_finding(r)) {
		check_problem(c, 0, 0, "%s", err_text(err, r));
		return 0;
	}
	if (!r)
		r = check_places(c);
	if (!r)
		r = check_objects(c);
	if (!r)
		r = check_older(c);
	if (!r)
		check_leftovers(c);
	c->user->total_sectors = l->total_sectors;
	c->user->live_sectors = l->live_sectors;
	c->user->last_seq = l->installed_seq;
	c->user->last_lsn = l->installed_lsn;
	return r;
}

int lsvd_check(struct store *store, const char *name, struct lsvd_check *user, struct err *err)
{
	struct check c = {.user = user};
	struct lsvd_options opt;
	int r = -ENOMEM;

	if (!key_name_ok(name))
		return err_set(err, -ENOENT, "there is no volume \"%s\"", name);
	lsvd_options_default(&opt);
	c.l = lsvd_alloc(NULL, store, name, &opt);
	c.buf = malloc(CHECK_BUF_BYTES);
	if (c.l && c.buf)
		r = check_run(&c, err);
	if (r && err && !err->code)
		err_sys(err, r, "cannot check %s", name);
	partset_free(&c.parts);
	free(c.place);
	free(c.buf);
	listing_free(&c.list);
	lsvd_close(c.l);
	return r;
}
