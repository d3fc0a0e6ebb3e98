/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "Read this as a pool of PMDK's libpmemblk": the input is a list of edits to a small sound pool,
 * three bytes each (where, and what is put there), whose checksums are then made right again.
 */
#include <string.h>

#include "btt/pmdk.h"
#include "lib/pmdk_make.h"
#include "pmem/shadow.h"

#define EDIT_BYTES 4
#define MAX_EDITS 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const struct pmem *pm)
{
	uint8_t buf[PMDK_BLOCK];
	struct err err = ERR_INIT;
	struct pmdk_pool *pool;
	enum pmdk_state state;

	if (pmdk_open(pm, &pool, &err))
		return;
	if (pmdk_block_bytes(pool) <= sizeof(buf))
		for (uint64_t n = 0; n < pmdk_blocks(pool); n++)
			(void)pmdk_read(pool, n, buf, &state, &err);
	pmdk_close(pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[MADE_BYTES];
	struct pmem *pm;

	pmdk_make(bytes);
	for (size_t i = 0; i < MAX_EDITS && (i + 1) * EDIT_BYTES <= size; i++) {
		const uint8_t *e = data + i * EDIT_BYTES;
		/* Most of what matters is at the start of a 4 KiB block. */
		const size_t at = (size_t)e[0] % (MADE_BYTES / PMDK_BLOCK) * PMDK_BLOCK +
				  (e[1] | (size_t)(e[2] & 15) << 8);

		bytes[at] = e[3];
	}
	if (size % 2) {
		pmdk_seal(bytes);
		pmdk_seal(bytes + PMDK_DATA_OFF);
		pmdk_seal(bytes + MADE_INFO2_OFF);
	}
	if (pm_shadow_open(&(struct pm_shadow_options){.image = bytes, .len_bytes = MADE_BYTES},
			   &pm))
		return 0;
	read_all(pm);
	pm_close(pm);
	return 0;
}
