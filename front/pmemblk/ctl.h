/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Entry points of libpmemblk's control calls: process-wide integers, set by pmemblk_ctl_set(), by
 * PMEMBLK_CONF ("name=value;name=value") and by the file that PMEMBLK_CONF_FILE names (the same,
 * and comments from # to the end of a line).
 */
#ifndef FRONT_PMEMBLK_CTL_H
#define FRONT_PMEMBLK_CTL_H

#include <stddef.h>

enum ctl_id {
	CTL_PREFAULT_AT_CREATE,
	CTL_PREFAULT_AT_OPEN,
	CTL_FALLOCATE_AT_CREATE,
	CTL_SDS_AT_CREATE,
	CTL_COPY_ON_WRITE_AT_OPEN,
	CTL_COUNT,
};

int ctl_value(enum ctl_id id);

/* -1: there is none of that name. */
int ctl_find(const char *name);

/* 0, or -1: the value has no meaning here. */
int ctl_set_value(enum ctl_id id, int value);

/* Reads the environment, once. NULL, or what is wrong with it: the same at every call. */
const char *ctl_load(void);

#endif
