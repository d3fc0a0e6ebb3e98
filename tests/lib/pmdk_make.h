/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small pool as PMDK's libpmemblk would make it: one arena of MADE_BLOCKS blocks, all written,
 * with known damage to be done to it by tests. docs/SPEC-pmdk.md has the bytes.
 */
#ifndef TESTS_LIB_PMDK_MAKE_H
#define TESTS_LIB_PMDK_MAKE_H

#include "btt/pmdk_layout.h"

#define MADE_BLOCKS 24u
#define MADE_FREE 4u
#define MADE_BLOCK_BYTES 500u
#define MADE_STRIDE 512u
#define MADE_MAP_OFF (PMDK_DATA_OFF + PMDK_BLOCK + 4 * PMDK_BLOCK)
#define MADE_FLOG_OFF (MADE_MAP_OFF + PMDK_BLOCK)
#define MADE_INFO2_OFF (MADE_FLOG_OFF + PMDK_BLOCK)
#define MADE_BYTES (MADE_INFO2_OFF + PMDK_BLOCK)

/* Block n is in place n + MADE_FREE, filled with 'a' + n; places below are free. */
void pmdk_make(uint8_t pool[MADE_BYTES]);

/* Computes the checksum of a header or info block anew. */
void pmdk_seal(uint8_t *block);

void pmdk_set_map(uint8_t *pool, uint32_t block, uint32_t entry);
/* Slot 0 or 1 of a lane's pair. */
void pmdk_set_flog(uint8_t *pool, uint32_t lane, unsigned int slot, struct pmdk_flog flog);

#endif
