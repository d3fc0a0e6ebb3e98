/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whose faults pm_guarded() turns into -EIO: the regions that are registered here. The process's
 * SIGBUS handler is ours while there is one.
 */
#ifndef PMEM_GUARD_H
#define PMEM_GUARD_H

#include <stddef.h>

struct guard_region;

/* Any thread. 0 or a negative errno. */
int guard_add(const void *base, size_t len_bytes, struct guard_region **ret);

/* region NULL: nothing. Nobody may be using the memory any more. */
void guard_remove(struct guard_region *region);

#endif
