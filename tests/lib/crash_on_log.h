/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write log alone as a target of the crash harness, over a home in memory.
 *
 * The home is as simple as it can be: an array that takes whole groups of segments, all at once
 * and durably, and remembers the LSN that it has reached. It verifies the checksums of what it is
 * given, may be lazy, reads late, and checks that nothing reaches it that the log has not made
 * durable (L7).
 */
#ifndef TESTS_LIB_CRASH_ON_LOG_H
#define TESTS_LIB_CRASH_ON_LOG_H

#include "lib/crash_session.h"

extern const struct crash_target crash_on_log;

#endif
