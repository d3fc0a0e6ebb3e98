/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The check of entries.
 *
 * Purpose. An entry is eight bytes, because that is what memory stores at once; so its checksum
 * must be inside. 24 bits are left beside 2^38 blocks, which at 512 bytes is all that a process can
 * map.
 *
 * Data structure. A CRC is linear: that of five bytes is the exclusive or of those of each byte
 * with zeros for the others. So one table for each place, and no step waits for another.
 *
 * The polynomial has at least distance 7 over 64 bits: tests/unit/test_btt_entry.c counts.
 */
#include "btt/entry.h"

#include <pthread.h>

uint32_t entry_crc_table[5][256];

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Bytes come lowest first, so a byte at place n is followed by 4 - n bytes of zeros. */
static uint32_t crc_of(uint32_t byte, unsigned place)
{
	uint32_t crc = byte << 16;

	for (unsigned bit = 0; bit < 8 * (5 - place); bit++)
		crc = (crc << 1 ^ (crc & 0x800000 ? BTT_CRC24_POLY : 0)) & 0xffffff;
	return crc;
}

static void make_tables(void)
{
	for (unsigned place = 0; place < 5; place++)
		for (uint32_t byte = 0; byte < 256; byte++)
			entry_crc_table[place][byte] = crc_of(byte, place);
}

void entry_tables_init(void)
{
	pthread_once(&once, make_tables);
}
