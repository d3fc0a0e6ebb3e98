/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The inside of a mapping, shared by map.c (primitives, opening) and map_file.c (what is mapped).
 */
#ifndef PMEM_MAP_IMPL_H
#define PMEM_MAP_IMPL_H

#include "pmem/pmem.h"

enum map_kind {
	KIND_FILE,
	KIND_BLOCK,
	KIND_DEVICE_DAX,
};

struct map_file {
	int fd;
	pid_t owner;  /* who holds the locks: the process that opened */
	int claim_fd; /* a block device: the kernel's claim; else -1 */
	enum map_kind kind;
	uint64_t size_bytes;
	size_t align_bytes; /* that its mappings want */
};

/* Opens or creates, locks, allocates. After an error nothing is left, not even a new file. */
int map_file_open(const char *path, const struct pm_options *opt, struct map_file *ret,
		  struct err *err);
void map_file_close(struct map_file *file);

#endif
