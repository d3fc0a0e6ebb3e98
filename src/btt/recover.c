/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The scan of the table after a crash.
 *
 * Purpose. Who has which block is in the table alone: what no entry names is spare.
 *
 * Data structure. A bit for each block. Pieces of the table are scanned in any order, by any
 * threads; the bit that a second entry finds set is two sectors' claim to one block.
 *
 * Durable when: each piece is flushed and fenced by whoever scanned it, before the pool serves
 * anybody. If the process died and the machine did not, the table may show swaps that no fence has
 * covered; a reader will be told of them, and what a reader is told must survive.
 *
 * Invariants.
 *  1. Nothing is written. A crash during the scan changes nothing, and it can be done again.
 *  2. unused has the spares, and as many more blocks as entries are damaged.
 *
 * Errors. An entry that is not valid, or that cannot be read, is counted; its sector reads as an
 * error until it is written. Two claims are refused: to go on would let one sector's write destroy
 * another's data.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "btt/btt_impl.h"

#define PIECES_MAX 256u
#define WORD_BITS 64u

struct scan {
	struct btt *btt;
	uint64_t pages, pages_in_piece;
	_Atomic uint64_t *used;
	_Atomic uint64_t damaged;
	_Atomic uint64_t shared; /* a sector whose block another one has, too; BTT_NONE */
	_Atomic int error;
};

struct page_scan {
	struct scan *scan;
	uint64_t from, to; /* sectors */
	uint64_t damaged;
};

static void claim(struct page_scan *p, uint64_t word, uint64_t bits, uint64_t lba)
{
	if (bits &&
	    (atomic_fetch_or_explicit(&p->scan->used[word], bits, memory_order_relaxed) & bits))
		atomic_store(&p->scan->shared, lba);
}

/*
 * Bits of one word are claimed together: sectors that were written in order, or never, have
 * neighbouring blocks, and an atomic operation costs more than all the rest.
 */
static int scan_page(void *arg)
{
	struct page_scan *p = arg;
	struct btt *btt = p->scan->btt;
	uint64_t word = 0, bits = 0;

	for (uint64_t lba = p->from; lba < p->to; lba++) {
		const uint64_t entry = btt_load_entry(btt, lba);
		const uint64_t block = entry_block(entry);
		const uint64_t bit = UINT64_C(1) << block % WORD_BITS;

		if (!btt_valid(btt, entry, lba)) {
			p->damaged++;
			continue;
		}
		if (block / WORD_BITS != word || (bits & bit)) {
			claim(p, word, bits, lba);
			word = block / WORD_BITS;
			bits = 0;
		}
		bits |= bit;
	}
	claim(p, word, bits, p->to - 1);
	return 0;
}

static int flush_page(void *arg)
{
	const struct page_scan *p = arg;

	pm_flush(p->scan->btt->pm, &p->scan->btt->map[p->from], 8 * (p->to - p->from));
	return 0;
}

/* A page that faults is damaged as a whole. */
static void scan_one(struct scan *scan, uint64_t page)
{
	const uint64_t from = page * BTT_ENTRIES_IN_PAGE, end = scan->btt->g.nblock;
	struct page_scan p = {scan, from, from + BTT_ENTRIES_IN_PAGE, 0};

	p.to = p.to < end ? p.to : end;
	if (pm_guarded(scan_page, &p, NULL))
		p.damaged = p.to - p.from;
	else if (VARVE_STEP("btt.recover_flush"))
		pm_guarded(flush_page, &p, NULL);
	if (p.damaged) {
		log_error("btt: %llu of the entries of sectors %llu to %llu are damaged",
			  (unsigned long long)p.damaged, (unsigned long long)p.from,
			  (unsigned long long)p.to - 1);
		atomic_fetch_add_explicit(&scan->damaged, p.damaged, memory_order_relaxed);
	}
}

static void scan_piece(void *ctx, unsigned n)
{
	struct scan *scan = ctx;
	uint64_t page = n * scan->pages_in_piece, end = page + scan->pages_in_piece;
	int r;

	for (end = end < scan->pages ? end : scan->pages; page < end; page++)
		scan_one(scan, page);
	r = pm_fence(scan->btt->pm);
	if (r)
		atomic_store(&scan->error, r);
}

void btt_run_pieces(const struct btt_parallel *parallel, unsigned pieces,
		    void (*piece)(void *ctx, unsigned n), void *ctx)
{
	if (parallel && pieces > 1) {
		parallel->run(parallel->arg, pieces, piece, ctx);
		return;
	}
	for (unsigned i = 0; i < pieces; i++)
		piece(ctx, i);
}

/* The bits behind the last block count as used. */
static int list_unused(struct scan *scan, struct btt_scan *ret, struct err *err)
{
	const struct btt_geometry *g = &scan->btt->g;
	uint64_t at = 0;

	ret->damaged = atomic_load(&scan->damaged);
	ret->count = g->spares + ret->damaged;
	ret->unused = calloc(ret->count, sizeof(*ret->unused));
	if (!ret->unused)
		return err_sys(err, -ENOMEM, "list of %llu blocks", (unsigned long long)ret->count);
	for (uint64_t word = 0; word * WORD_BITS < g->blocks; word++) {
		uint64_t clear = ~atomic_load_explicit(&scan->used[word], memory_order_relaxed);

		if (g->blocks - word * WORD_BITS < WORD_BITS)
			clear &= (UINT64_C(1) << g->blocks % WORD_BITS) - 1;
		for (; clear && at < ret->count; clear &= clear - 1)
			ret->unused[at++] = word * WORD_BITS + (unsigned)__builtin_ctzll(clear);
	}
	/* Each valid entry took a block of its own, else there was a claim too many. */
	ret->count = at;
	return 0;
}

static int judge(struct scan *scan, struct btt_scan *ret, struct err *err)
{
	const uint64_t shared = atomic_load(&scan->shared);
	int r = atomic_load(&scan->error);

	if (r)
		return err_sys(err, r, "the table cannot be made durable");
	if (shared != BTT_NONE)
		return err_corrupt(err,
				   "the block of sector %llu belongs to another sector, too: "
				   "check and repair the pool",
				   (unsigned long long)shared);
	return list_unused(scan, ret, err);
}

int btt_recover(struct btt *btt, const struct btt_parallel *parallel, struct btt_scan *ret,
		struct err *err)
{
	struct scan scan = {.btt = btt};
	unsigned pieces;
	int r;

	atomic_init(&scan.shared, BTT_NONE);
	scan.pages = (btt->g.nblock + BTT_ENTRIES_IN_PAGE - 1) / BTT_ENTRIES_IN_PAGE;
	pieces = scan.pages < PIECES_MAX ? (unsigned)scan.pages : PIECES_MAX;
	scan.pages_in_piece = (scan.pages + pieces - 1) / pieces;
	scan.used = calloc(btt->g.blocks / WORD_BITS + 1, sizeof(*scan.used));
	if (!scan.used)
		return err_sys(err, -ENOMEM, "a bit for each of %llu blocks",
			       (unsigned long long)btt->g.blocks);
	btt_run_pieces(parallel, pieces, scan_piece, &scan);
	r = judge(&scan, ret, err);
	free(scan.used);
	return r;
}
