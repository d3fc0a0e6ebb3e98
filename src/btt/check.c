/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checking and repairing a pool that nobody has open.
 *
 * Purpose. Opening is satisfied with what it needs; this looks at everything: both superblocks, the
 * saved list against the table, every entry, every claim.
 *
 * Data structure. Two bits for each block: claimed, and claimed again. A first pass over the table
 * sets them. Only if some block is claimed again is there a second one, which lists the claims to
 * such blocks: memory is in proportion to the damage. An entry that cannot be believed claims
 * nothing.
 *
 * Repairs. A superblock is written again from the other. An entry that is not valid, and both of
 * two claims, become error sectors: which of two sectors the data is of, nobody can tell, and to
 * give it out for the wrong one is worse than to say that it is lost. The first of the claims keeps
 * the block, the others get blocks that nobody claims. A list that does not agree with the table,
 * or any change of the table, makes the list count no more; the next opening scans.
 *
 * Durable when: before the first repair of an entry the table is durable as it was read, and the
 * list counts no more; each entry is durable by itself. So a repair that is cut short has repaired
 * some.
 *
 * Invariants.
 *  1. A repaired entry names a block that no valid entry names, or that it claimed first itself.
 *  2. There are enough of these: each sector without one leaves one unclaimed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "btt/btt_impl.h"

#define TEXT_BYTES 200

struct claim {
	uint64_t block, lba;
};

struct check {
	struct pmem *pm;
	const struct btt_check_options *opt;
	struct btt_check_result *result;
	struct btt_found found;
	_Atomic uint64_t *map;
	uint64_t salt;
	bool listed;	  /* the list counts on the medium */
	bool unlisted;	  /* it is not to be looked at any more */
	uint64_t *used;	  /* a bit for each block */
	uint64_t *shared; /* claimed more than once */
	uint64_t nshared; /* claims beyond the first */
	uint64_t next;	  /* no block before this one is free */
	struct claim *claims;
	uint64_t nclaims, claims_room;
};

struct page {
	struct check *c;
	uint64_t from, to; /* sectors */
};

/* Tells; whether it is to be repaired. */
static bool tell(struct check *c, enum btt_trouble trouble, uint64_t at, uint64_t other,
		 const char *text)
{
	const struct btt_problem problem = {
		.trouble = trouble,
		.at = at,
		.other = other,
		.text = text,
		.can_repair = trouble != BTT_ERROR_SECTOR,
	};
	bool wanted = c->opt->problem(c->opt->arg, &problem);

	if (trouble == BTT_ERROR_SECTOR) {
		c->result->error_sectors++;
		return false;
	}
	c->result->problems++;
	return wanted && c->opt->repair;
}

static int write_supers(struct check *c, bool listed)
{
	const struct btt_sb *sb = &c->found.sb;
	int r = btt_super_write(c->pm, &c->found.g, &c->found.uuid, ++c->found.seq,
				listed ? BTT_STATE_LISTED : 0, listed ? le32_get(sb->list_crc) : 0,
				!c->found.good[1]);

	if (!r && !listed)
		c->listed = false;
	return r;
}

static int flush_page(void *arg)
{
	const struct page *page = arg;

	pm_flush(page->c->pm, &page->c->map[page->from], 8 * (page->to - page->from));
	return 0;
}

/*
 * After a kill the table may show swaps that no fence has covered. What is free according to them
 * is given away here, so they must not be undone. A page that faults shows nothing.
 */
static int settle_table(struct check *c)
{
	struct page page = {.c = c};

	for (; page.to < c->found.g.nblock; page.from = page.to) {
		page.to = page.from + BTT_ENTRIES_IN_PAGE;
		page.to = page.to < c->found.g.nblock ? page.to : c->found.g.nblock;
		if (VARVE_STEP("btt.check_settle"))
			pm_guarded(flush_page, &page, NULL);
	}
	return pm_fence(c->pm);
}

/* Before the table changes, what it shows must be durable, and the list must not count. */
static int unlist(struct check *c)
{
	int r = c->unlisted ? 0 : settle_table(c);

	if (!r && c->listed && VARVE_STEP("btt.check_unlist"))
		r = write_supers(c, false);
	if (!r)
		c->unlisted = true;
	return r;
}

static int check_supers(struct check *c)
{
	static const char *const names[] = {"first", "second"};
	int r = 0;

	for (int i = 0; i < 2 && !r; i++) {
		char text[TEXT_BYTES];

		if (c->found.good[i])
			continue;
		snprintf(text, sizeof(text),
			 "the %s superblock, at byte %llu, is damaged or old; "
			 "it can be written again from the other one",
			 names[i], (unsigned long long)c->found.at[i]);
		if (!tell(c, BTT_BAD_SUPERBLOCK, c->found.at[i], 0, text))
			continue;
		r = write_supers(c, c->listed);
		if (r)
			break;
		c->found.good[0] = c->found.good[1] = true;
		c->result->repaired++;
	}
	return r;
}

/* A block that nobody claims; the table cannot be without, see the invariants. */
static uint64_t free_block(struct check *c)
{
	c->next = bitmap_next_clear(c->used, c->next, c->found.g.blocks);
	if (c->next >= c->found.g.blocks)
		return BTT_NONE;
	bitmap_set(c->used, c->next);
	return c->next;
}

struct entry_io {
	struct check *c;
	uint64_t lba, entry;
};

static int read_entry(void *arg)
{
	struct entry_io *io = arg;

	io->entry = entry_disk(pm_load8(&io->c->map[io->lba]));
	return 0;
}

/* One entry, durable when this returns 0. */
static int write_entry(void *arg)
{
	const struct entry_io *io = arg;

	pm_publish8(io->c->pm, &io->c->map[io->lba], entry_disk(io->entry));
	return VARVE_STEP("btt.check_fence") ? pm_fence(io->c->pm) : 0;
}

/* Whether the entry can be read and is valid. */
static bool get_entry(struct check *c, uint64_t lba, uint64_t *ret)
{
	struct entry_io io = {c, lba, 0};

	if (pm_guarded(read_entry, &io, NULL) ||
	    !entry_valid(io.entry, lba, c->salt, c->found.g.blocks))
		return false;
	*ret = io.entry;
	return true;
}

static int put_error(struct check *c, uint64_t lba, uint64_t block)
{
	struct entry_io io = {c, lba, entry_make(lba, c->salt, block, BTT_ENTRY_ERROR)};
	int r = unlist(c);

	if (!r)
		r = pm_guarded(write_entry, &io, NULL);
	if (!r)
		c->result->repaired++;
	return r;
}

static void note_claims(struct check *c)
{
	for (uint64_t lba = 0; lba < c->found.g.nblock; lba++) {
		uint64_t entry, block;

		if (!get_entry(c, lba, &entry))
			continue;
		block = entry_block(entry);
		if (bitmap_test(c->used, block)) {
			bitmap_set(c->shared, block);
			c->nshared++;
		}
		bitmap_set(c->used, block);
		if (entry_state(entry) == BTT_ENTRY_ERROR)
			tell(c, BTT_ERROR_SECTOR, lba, 0,
			     "reading it is an error until it is "
			     "written again");
	}
}

static int add_claim(struct check *c, uint64_t block, uint64_t lba)
{
	if (c->nclaims == c->claims_room) {
		uint64_t room = c->claims_room ? 2 * c->claims_room : 64;
		struct claim *claims = realloc(c->claims, room * sizeof(*claims));

		if (!claims)
			return -ENOMEM;
		c->claims = claims;
		c->claims_room = room;
	}
	c->claims[c->nclaims++] = (struct claim){block, lba};
	return 0;
}

static int by_block(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->lba < y->lba ? -1 : x->lba > y->lba;
}

/* A claim beyond the first, which keeps the block. */
static int check_claim(struct check *c, const struct claim *first, const struct claim *also)
{
	char text[TEXT_BYTES];
	uint64_t block;
	int r;

	snprintf(text, sizeof(text),
		 "sectors %llu and %llu claim block %llu, and whose data it "
		 "holds nobody can tell; both can be made error sectors",
		 (unsigned long long)first->lba, (unsigned long long)also->lba,
		 (unsigned long long)first->block);
	if (!tell(c, BTT_SHARED_BLOCK, also->lba, first->lba, text))
		return 0;
	block = free_block(c);
	if (block == BTT_NONE)
		return -EBADMSG;
	r = put_error(c, first->lba, first->block);
	return r ? r : put_error(c, also->lba, block);
}

static int check_shared(struct check *c)
{
	uint64_t first = 0;
	int r = 0;

	for (uint64_t lba = 0; lba < c->found.g.nblock && !r; lba++) {
		uint64_t entry;

		if (get_entry(c, lba, &entry) && bitmap_test(c->shared, entry_block(entry)))
			r = add_claim(c, entry_block(entry), lba);
	}
	if (r)
		return r;
	qsort(c->claims, c->nclaims, sizeof(*c->claims), by_block);
	for (uint64_t i = 1; i < c->nclaims && !r; i++) {
		if (c->claims[i].block != c->claims[first].block)
			first = i;
		else
			r = check_claim(c, &c->claims[first], &c->claims[i]);
	}
	return r;
}

static int check_entry(struct check *c, uint64_t lba)
{
	char text[TEXT_BYTES];
	uint64_t entry, block;

	if (get_entry(c, lba, &entry))
		return 0;
	snprintf(text, sizeof(text),
		 "the entry of sector %llu, at byte %llu, is damaged; it can "
		 "be made an error sector",
		 (unsigned long long)lba, (unsigned long long)(c->found.g.map_off + 8 * lba));
	if (!tell(c, BTT_BAD_ENTRY, lba, 0, text))
		return 0;
	block = free_block(c);
	return block == BTT_NONE ? -EBADMSG : put_error(c, lba, block);
}

/* The spares are the blocks that nobody claims, no more and no less. */
static bool list_agrees(struct check *c, uint64_t *spares)
{
	if (btt_list_load(c->pm, &c->found, spares))
		return false;
	for (uint64_t i = 0; i < c->found.g.spares; i++) {
		if (bitmap_test(c->used, spares[i]))
			return false;
		bitmap_set(c->used, spares[i]);
	}
	return true;
}

static int check_list(struct check *c)
{
	uint64_t *spares;
	bool good;
	int r;

	if (!c->listed || c->unlisted)
		return 0;
	spares = calloc(c->found.g.spares, sizeof(*spares));
	if (!spares)
		return -ENOMEM;
	good = list_agrees(c, spares);
	free(spares);
	if (good || !tell(c, BTT_BAD_LIST, c->found.g.list_off, 0,
			  "the saved list of spare blocks does not agree with the table; it can be "
			  "dropped, and the next opening scans the table"))
		return 0;
	r = unlist(c);
	if (!r)
		c->result->repaired++;
	return r;
}

static int check_all(struct check *c)
{
	int r = check_supers(c);

	if (r)
		return r;
	note_claims(c);
	if (c->nshared)
		r = check_shared(c);
	for (uint64_t lba = 0; lba < c->found.g.nblock && !r; lba++)
		r = check_entry(c, lba);
	return r ? r : check_list(c);
}

int btt_check(struct pmem *pm, const struct btt_check_options *opt, struct btt_check_result *ret,
	      struct err *err)
{
	struct check c = {.pm = pm, .opt = opt, .result = ret};
	int r;

	*ret = (struct btt_check_result){0};
	if (opt->repair && pm->read_only)
		return err_set(err, -EROFS, "the memory is read-only");
	entry_tables_init();
	r = btt_super_find(pm, &c.found, err);
	if (r)
		return r;
	if (opt->block_bytes && opt->block_bytes != c.found.g.block_bytes)
		return err_set(err, -EINVAL, "the pool has blocks of %llu bytes, not %llu",
			       (unsigned long long)c.found.g.block_bytes,
			       (unsigned long long)opt->block_bytes);
	c.map = (_Atomic uint64_t *)(void *)(pm->base + c.found.g.map_off);
	c.salt = btt_salt(&c.found.uuid);
	c.listed = c.found.listed;
	ret->block_bytes = c.found.g.block_bytes;
	c.used = calloc(BITMAP_WORDS(c.found.g.blocks), sizeof(*c.used));
	c.shared = calloc(BITMAP_WORDS(c.found.g.blocks), sizeof(*c.shared));
	r = c.used && c.shared ? check_all(&c) : -ENOMEM;
	free(c.claims);
	free(c.shared);
	free(c.used);
	return r ? err_sys(err, r, "checking the pool") : 0;
}
