/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opens arbitrary bytes as a block translation table: reads all of it, writes some, checks it,
 * repairs it, and opens it again. So that the input gets past the checks, they are made right
 * first: of the superblocks always, of entries and of the saved list where the input says so. What
 * is behind them must then be caught by the bounds.
 *
 * Whatever the bytes: what can be opened can be written and read back, and what was repaired has no
 * problem.
 */
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "btt/btt_impl.h"
#include "pmem/shadow.h"

#define POOL_BYTES (16u * BTT_PAGE)
#define BLOCK_MAX 65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t block[BLOCK_MAX], got[BLOCK_MAX];

static void need(bool holds)
{
	if (!holds)
		abort();
}

/* Flags that the fuzzer may set in what a reader ignores. */
static bool wants(const uint8_t *byte)
{
	return *byte & 1;
}

static void fix_superblock(struct btt_sb *sb, struct btt_geometry *ret)
{
	sb->magic = le64_make(BTT_SB_MAGIC);
	sb->version = le32_make(BTT_VERSION);
	sb->incompat_flags = le32_make(0);
	if (!wants(&sb->reserved[0])) {
		btt_geometry_fit_spares(POOL_BYTES, 1 + le64_get(sb->block_bytes) % 5000,
					2 + le64_get(sb->spares) % 8, ret);
		sb->pool_bytes = le64_make(ret->pool_bytes);
		sb->block_bytes = le64_make(ret->block_bytes);
		sb->stride_bytes = le64_make(ret->stride_bytes);
		sb->nblock = le64_make(ret->nblock);
		sb->spares = le64_make(ret->spares);
		sb->map_off = le64_make(ret->map_off);
		sb->list_off = le64_make(ret->list_off);
		sb->data_off = le64_make(ret->data_off);
	}
	sb->crc = le32_make(0);
	sb->crc = le32_make(crc32c(0, sb, sizeof(*sb)));
}

/* Entries with the lowest bit of their last byte set get the check that they should have. */
static void fix_entries(uint8_t *at, uint64_t first, uint64_t count, uint64_t salt, uint64_t blocks)
{
	for (uint64_t i = 0; i < count; i++) {
		le64 entry;
		uint64_t v;

		memcpy(&entry, at + 8 * i, sizeof(entry));
		v = le64_get(entry);
		if (!(v >> 63))
			continue;
		entry = le64_make(
			entry_make(first + i, salt, entry_block(v) % blocks, entry_state(v)));
		memcpy(at + 8 * i, &entry, sizeof(entry));
	}
}

static void fix(uint8_t *mem)
{
	struct btt_sb *sb = (void *)mem;
	struct btt_geometry g = {0};
	struct uuid uuid;

	fix_superblock(sb, &g);
	if (!g.nblock)
		return;
	memcpy(uuid.b, sb->uuid, sizeof(uuid.b));
	fix_entries(mem + g.map_off, 0, g.nblock, btt_salt(&uuid), g.blocks);
	fix_entries(mem + g.list_off, g.nblock, g.spares, btt_salt(&uuid), g.blocks);
	if (wants(&sb->reserved[1]))
		sb->list_crc = le32_make(crc32c(0, mem + g.list_off, 8 * g.spares));
	fix_superblock(sb, &g);
	if (!wants(&sb->reserved[2]))
		memcpy(mem + POOL_BYTES - BTT_PAGE, mem, BTT_PAGE);
}

static void use(struct btt *btt, uint8_t fill)
{
	const uint64_t bytes = btt_block_bytes(btt);

	if (bytes > BLOCK_MAX)
		return;
	for (uint64_t lba = 0; lba < btt_nblock(btt); lba++) {
		btt_read(btt, lba, got);
		memset(block, fill + (int)lba, bytes);
		if (lba % 3 == 0 && !btt_write(btt, lba, block)) {
			need(!btt_read(btt, lba, got));
			need(!memcmp(got, block, bytes));
		}
	}
}

static bool yes(void *arg, const struct btt_problem *problem)
{
	(void)arg;
	need(problem->text);
	return true;
}

static void repair(struct pmem *pm)
{
	struct btt_check_options opt = {.repair = true, .problem = yes};
	struct btt_check_result result;
	struct btt *btt;

	if (btt_check(pm, &opt, &result, NULL))
		return;
	opt.repair = false;
	need(!btt_check(pm, &opt, &result, NULL));
	need(!result.problems);
	need(!btt_open(pm, NULL, &btt, NULL));
	use(btt, 0x40);
	need(!btt_close(btt));
	need(!btt_check(pm, &opt, &result, NULL));
	need(!result.problems);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t image[POOL_BYTES];
	const struct pm_shadow_options opt = {.len_bytes = POOL_BYTES, .image = image};
	struct pmem *pm;
	struct btt *btt;

	memset(image, 0, sizeof(image));
	/* The superblock's fields come first in the input; reserved bytes are three. */
	if (size < 123)
		return 0;
	memcpy(image, data, 123);
	data += 123;
	size -= 123;
	memcpy(image + BTT_PAGE, data, size < POOL_BYTES - BTT_PAGE ? size : POOL_BYTES - BTT_PAGE);
	fix(image);
	if (pm_shadow_open(&opt, &pm))
		return 0;
	if (!btt_open(pm, NULL, &btt, NULL)) {
		use(btt, 1);
		btt_close(btt);
	}
	if (!btt_open(pm, NULL, &btt, NULL)) {
		use(btt, 2);
		btt_abandon(btt);
	}
	repair(pm);
	pm_close(pm);
	return 0;
}
