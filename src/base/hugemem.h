/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large memory that is touched at random: aligned to huge pages, and asked to be made of them, so
 * that it does not miss the TLB at each access. Where there are none it is ordinary memory.
 */
#ifndef BASE_HUGEMEM_H
#define BASE_HUGEMEM_H

#include <stddef.h>

#define HUGEMEM_PAGE ((size_t)2 << 20)

/* Zeroed, untouched; len is a multiple of HUGEMEM_PAGE. NULL when there is no memory. */
void *hugemem_alloc(size_t len);
void hugemem_free(void *mem, size_t len);

#endif
