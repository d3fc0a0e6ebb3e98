/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The whole engine, log and object stream, as a target of the crash harness.
 */
#ifndef TESTS_LIB_CRASH_ON_LSVD_H
#define TESTS_LIB_CRASH_ON_LSVD_H

#include "lib/crash_session.h"
#include "lsvd/lsvd.h"

#define CRASH_VOLUME "vol"

extern const struct crash_target crash_on_lsvd;

/* The options that a configuration stands for. */
void crash_lsvd_options(const struct crash_config *cfg, struct lsvd_options *opt);

#endif
