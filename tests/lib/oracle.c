/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The array oracle; see oracle.h.
 *
 * The prefix check replays the history over the base and counts the sectors in which that differs
 * from the image; wherever the count is zero the image is a state of the history. This costs one
 * step for each sector ever written and needs no guess about which prefix it was.
 *
 * The sector check walks the history backwards for each sector and is used only where some write
 * has failed, whose sectors may or may not have reached the media.
 */
#include "lib/oracle.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SECTOR_BYTES 512u
#define SECTOR_WORDS (SECTOR_BYTES / 8)
#define STAMP_MAGIC UINT64_C(0x706d617473657661)

static bool say(struct oracle *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Appends to the text; returns false, so that predicates can return it. */
static bool say(struct oracle *o, const char *fmt, ...)
{
	size_t len = strlen(o->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(o->text + len, sizeof(o->text) - len, fmt, ap);
	va_end(ap);
	return false;
}

void oracle_init(struct oracle *o, uint64_t volume, uint32_t sectors)
{
	assert(sectors <= ORACLE_SECTORS_MAX);
	memset(o, 0, sizeof(*o));
	o->volume = volume;
	o->sectors = sectors;
	o->next_id = 1;
}

/* Only what is in use: a copy is made for every crash image. */
void oracle_copy(struct oracle *dst, const struct oracle *src)
{
	memcpy(dst, src, offsetof(struct oracle, order));
	memcpy(dst->order, src->order, src->n * sizeof(src->order[0]));
	memcpy(dst->writes, src->writes, src->count * sizeof(src->writes[0]));
	memcpy(dst->base, src->base, src->sectors * sizeof(src->base[0]));
	dst->text[0] = '\0';
}

bool oracle_has_room(const struct oracle *o)
{
	return o->count < ORACLE_WRITES_MAX;
}

uint64_t oracle_write(struct oracle *o, enum oracle_kind kind, uint32_t lba, uint32_t sectors)
{
	struct oracle_write *w = &o->writes[o->count++];

	assert(o->count <= ORACLE_WRITES_MAX && lba + sectors <= o->sectors);
	*w = (struct oracle_write){
		.id = o->next_id++, .lba = lba, .sectors = sectors, .kind = (uint8_t)kind};
	return w->id;
}

static void stamp_sector(uint64_t volume, uint64_t lba, uint64_t id, uint64_t *word)
{
	uint64_t x = (volume * 31 + lba) * UINT64_C(0x9e3779b97f4a7c15) + id;

	word[0] = STAMP_MAGIC;
	word[1] = volume;
	word[2] = lba;
	word[3] = id;
	for (unsigned int i = 4; i < SECTOR_WORDS; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		word[i] = x;
	}
}

void oracle_stamp(const struct oracle *o, uint64_t id, uint32_t lba, void *buf, uint32_t sectors)
{
	uint64_t word[SECTOR_WORDS];

	for (uint32_t i = 0; i < sectors; i++) {
		stamp_sector(o->volume, lba + i, id, word);
		memcpy((char *)buf + (size_t)i * SECTOR_BYTES, word, SECTOR_BYTES);
	}
}

/* Ids are consecutive from the first write after the base on. */
static struct oracle_write *find(const struct oracle *o, uint64_t id)
{
	uint64_t first = o->next_id - o->count;

	if (id < first || id >= o->next_id)
		return NULL;
	return (struct oracle_write *)(uintptr_t)&o->writes[id - first];
}

void oracle_sequence(struct oracle *o, uint64_t id, uint64_t lsn)
{
	struct oracle_write *w = find(o, id);

	if (!w || w->seq)
		return;
	o->order[o->n++] = (uint32_t)(w - o->writes);
	w->seq = o->n;
	w->lsn = lsn;
}

void oracle_acknowledge(struct oracle *o, uint64_t id)
{
	struct oracle_write *w = find(o, id);

	if (w)
		w->state = ORACLE_ACKNOWLEDGED;
}

void oracle_fail(struct oracle *o, uint64_t id)
{
	struct oracle_write *w = find(o, id);

	if (!w)
		return;
	w->state = ORACLE_FAILED;
	o->failed++;
}

uint32_t oracle_seq_of(const struct oracle *o, uint64_t id)
{
	const struct oracle_write *w = find(o, id);

	return w ? w->seq : 0;
}

static const struct oracle_write *at(const struct oracle *o, uint32_t seq)
{
	return &o->writes[o->order[seq - 1]];
}

uint32_t oracle_mark(const struct oracle *o)
{
	for (uint32_t seq = o->n; seq > 0; seq--)
		if (at(o, seq)->state == ORACLE_ACKNOWLEDGED)
			return seq;
	return 0;
}

void oracle_durable(struct oracle *o, uint32_t mark)
{
	if (mark > o->lo)
		o->lo = mark;
}

void oracle_destaged(struct oracle *o, uint32_t mark)
{
	oracle_durable(o, mark);
	if (mark > o->lo_home)
		o->lo_home = mark;
}

void oracle_destaged_lsn(struct oracle *o, uint64_t lsn)
{
	for (uint32_t seq = o->n; seq > o->lo_home; seq--) {
		if (at(o, seq)->lsn && at(o, seq)->lsn <= lsn) {
			oracle_destaged(o, seq);
			return;
		}
	}
}

uint64_t oracle_decode(struct oracle *o, uint32_t lba, const void *sector)
{
	uint64_t got[SECTOR_WORDS], want[SECTOR_WORDS];
	uint64_t any = 0;

	memcpy(got, sector, SECTOR_BYTES);
	if (got[0] != STAMP_MAGIC) {
		for (unsigned int i = 0; i < SECTOR_WORDS; i++)
			any |= got[i];
		if (!any)
			return 0;
		say(o, "lba %u: neither zeros nor a stamp\n", lba);
		return ORACLE_GARBAGE;
	}
	if (got[1] != o->volume || got[2] != lba) {
		say(o, "lba %u: holds volume %" PRIu64 " lba %" PRIu64 " write %" PRIu64 "\n", lba,
		    got[1], got[2], got[3]);
		return ORACLE_GARBAGE;
	}
	stamp_sector(o->volume, lba, got[3], want);
	if (memcmp(got, want, SECTOR_BYTES) != 0) {
		say(o, "lba %u: write %" PRIu64 ", but torn or rotten\n", lba, got[3]);
		return ORACLE_GARBAGE;
	}
	return got[3];
}

bool oracle_decode_all(struct oracle *o, const void *buf, uint64_t *ret_ids)
{
	bool ok = true;

	o->text[0] = '\0';
	for (uint32_t i = 0; i < o->sectors; i++) {
		ret_ids[i] = oracle_decode(o, i, (const char *)buf + (size_t)i * SECTOR_BYTES);
		ok = ok && ret_ids[i] != ORACLE_GARBAGE;
	}
	return ok;
}

static uint64_t value_of(const struct oracle_write *w)
{
	return w->kind == ORACLE_DATA ? w->id : 0;
}

/* The state after the first `end` writes. */
static void state_at(const struct oracle *o, uint32_t end, uint64_t *ids)
{
	memcpy(ids, o->base, o->sectors * sizeof(*ids));
	for (uint32_t seq = 1; seq <= end; seq++) {
		const struct oracle_write *w = at(o, seq);

		for (uint32_t i = 0; i < w->sectors; i++)
			ids[w->lba + i] = value_of(w);
	}
}

static const char *describe(const struct oracle *o, uint64_t id, char text[80])
{
	static const char *const states[] = {"submitted", "acknowledged", "failed"};
	const struct oracle_write *w = find(o, id);

	if (!id)
		snprintf(text, 80, "zeros");
	else if (w)
		snprintf(text, 80, "write %" PRIu64 " (no. %u, lba %u+%u, %s)", id, w->seq, w->lba,
			 w->sectors, states[w->state]);
	else
		snprintf(text, 80, "write %" PRIu64 " of another time", id);
	return text;
}

/* Says how the image differs from the nearest state that would have been right. */
static bool explain(struct oracle *o, const uint64_t *ids, uint32_t lo, uint32_t best)
{
	uint64_t want[ORACLE_SECTORS_MAX];
	unsigned int shown = 0;

	say(o, "the image is no prefix that ends in [%u, %u]; the nearest ends at %u:\n", lo, o->n,
	    best);
	state_at(o, best, want);
	for (uint32_t i = 0; i < o->sectors && shown < 8; i++) {
		char a[80], b[80];

		if (ids[i] == want[i])
			continue;
		say(o, "  lba %u: %s instead of %s\n", i, describe(o, ids[i], a),
		    describe(o, want[i], b));
		shown++;
	}
	return false;
}

bool oracle_check_prefix(struct oracle *o, const uint64_t *ids, uint32_t lo, uint32_t *ret_end)
{
	uint64_t now[ORACLE_SECTORS_MAX];
	uint32_t wrong = 0, best = lo, best_wrong = UINT32_MAX;
	bool found = false;

	memcpy(now, o->base, o->sectors * sizeof(now[0]));
	for (uint32_t i = 0; i < o->sectors; i++)
		wrong += now[i] != ids[i];
	for (uint32_t seq = 0;; seq++) {
		if (seq >= lo && wrong <= best_wrong) {
			best = seq;
			best_wrong = wrong;
			found = found || wrong == 0;
		}
		if (seq == o->n)
			break;
		const struct oracle_write *w = at(o, seq + 1);

		for (uint32_t lba = w->lba; lba < w->lba + w->sectors; lba++) {
			wrong -= now[lba] != ids[lba];
			now[lba] = value_of(w);
			wrong += now[lba] != ids[lba];
		}
	}
	if (ret_end)
		*ret_end = best;
	return found || explain(o, ids, lo, best);
}

static bool covers(const struct oracle_write *w, uint32_t lba)
{
	return lba >= w->lba && lba < w->lba + w->sectors;
}

/* Whether the sector may hold id, if 1..floor must not be undone there. */
static bool may_hold(const struct oracle *o, uint32_t lba, uint64_t id, uint32_t floor)
{
	for (uint32_t seq = o->n; seq > 0; seq--) {
		const struct oracle_write *w = at(o, seq);

		if (!covers(w, lba))
			continue;
		if (value_of(w) == id)
			return true;
		/* A failed write does not bind: it may have happened or not. */
		if (seq <= floor && w->state != ORACLE_FAILED)
			return false;
	}
	return o->base[lba] == id;
}

static bool check_floor(struct oracle *o, const uint64_t *ids, uint32_t lba, uint32_t floor)
{
	char text[80];

	return may_hold(o, lba, ids[lba], floor) ||
	       say(o, "lba %u: %s is older than what is durable (floor %u)\n", lba,
		   describe(o, ids[lba], text), floor);
}

bool oracle_check_sectors(struct oracle *o, const uint64_t *ids, uint32_t lo)
{
	bool ok = true;

	for (uint32_t i = 0; i < o->sectors; i++)
		ok = check_floor(o, ids, i, lo) && ok;
	return ok;
}

/*
 * A sector that the log holds in a newer copy need not go home in an older one. So where a later
 * write covers it the home may be as old as it likes.
 */
bool oracle_check_home(struct oracle *o, const uint64_t *ids, uint32_t lo_home)
{
	bool later[ORACLE_SECTORS_MAX] = {false};
	bool ok = true;

	for (uint32_t seq = lo_home + 1; seq <= o->n; seq++)
		memset(later + at(o, seq)->lba, true, at(o, seq)->sectors);
	for (uint32_t i = 0; i < o->sectors; i++)
		ok = check_floor(o, ids, i, later[i] ? 0 : lo_home) && ok;
	return ok;
}

void oracle_read_floor(const struct oracle *o, uint32_t lba, uint32_t sectors, uint32_t *floor)
{
	for (uint32_t i = 0; i < sectors; i++) {
		uint32_t seq = o->n;

		while (seq > 0 && !(covers(at(o, seq), lba + i) &&
				    at(o, seq)->state == ORACLE_ACKNOWLEDGED))
			seq--;
		floor[i] = seq;
	}
}

bool oracle_check_read(struct oracle *o, uint32_t lba, uint32_t sectors, const uint32_t *floor,
		       const void *buf)
{
	char text[80];

	o->text[0] = '\0';
	for (uint32_t i = 0; i < sectors; i++) {
		const char *sector = (const char *)buf + (size_t)i * SECTOR_BYTES;
		uint64_t id = oracle_decode(o, lba + i, sector);

		if (id == ORACLE_GARBAGE)
			return false;
		if (!may_hold(o, lba + i, id, floor[i]))
			return say(o, "read of lba %u: %s, but no. %u was acknowledged before\n",
				   lba + i, describe(o, id, text), floor[i]);
	}
	return true;
}

void oracle_recovered(struct oracle *o, uint32_t end, bool from_home)
{
	for (uint32_t seq = end + 1; seq <= o->n; seq++)
		o->writes[o->order[seq - 1]].seq = 0;
	o->n = end;
	o->lo = end;
	if (from_home || o->lo_home > end)
		o->lo_home = end;
}

void oracle_rebase(struct oracle *o, const uint64_t *ids)
{
	memcpy(o->base, ids, o->sectors * sizeof(*ids));
	o->count = 0;
	o->n = 0;
	o->lo = 0;
	o->lo_home = 0;
	o->failed = 0;
	o->text[0] = '\0';
}
