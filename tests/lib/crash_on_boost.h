/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The whole engine, log and in-place home, as a target of the crash harness.
 *
 * Beside the promises that the harness checks for all targets, what the backing disk holds without
 * its cache is checked at every crash: of each sector that the log has no newer copy of, what the
 * engine has reported to be home, durably (hole 6 of the published caches); and after a clean close
 * everything.
 */
#ifndef TESTS_LIB_CRASH_ON_BOOST_H
#define TESTS_LIB_CRASH_ON_BOOST_H

#include "boost/boost.h"
#include "lib/crash_session.h"

extern const struct crash_target crash_on_boost;

/* The options that a configuration stands for. */
void crash_boost_options(const struct crash_config *cfg, struct boost_options *opt);

/* The volume's UUID in a universe. */
struct uuid crash_boost_uuid(const struct crash_universe *u);

/* Formats a disk as a cache that is not bound yet. */
int crash_boost_format(struct crash_universe *u, struct sim_disk *disk, struct err *err);

#endif
