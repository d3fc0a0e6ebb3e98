/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Removable durability steps: how the crash tests are themselves tested.
 *
 *	if (VARVE_STEP("wlog.flush_before_ack"))
 *		dev_submit(dev, &flush);
 *
 * Every flush, fence and check that the promises rest on stands behind such a name, "room.step".
 * In an ordinary build the name costs nothing: the condition is constant. In a build with
 * -Dmutants=true the environment variable VARVE_MUTANT removes the one step that it names, and
 * tools/check-mutants expects a crash test to fail for each of them. A step whose removal no test
 * notices is either not needed or not tested.
 */
#ifndef BASE_MUTANT_H
#define BASE_MUTANT_H

#include <stdbool.h>

/* Any thread; the environment is read once. Exists only in a build with mutants. */
bool mutant_is_removed(const char *name);

#ifdef VARVE_MUTANTS
#define VARVE_STEP(name) (!mutant_is_removed("" name))
#else
/* Constant, and yet a name that is no string literal does not compile. */
#define VARVE_STEP(name) (sizeof("" name) > 0)
#endif

#endif
