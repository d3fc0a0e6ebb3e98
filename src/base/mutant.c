/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The run-time half of VARVE_STEP, empty in ordinary builds: a shipped library holds no switch that
 * turns durability off.
 */
#include "base/mutant.h"

#ifdef VARVE_MUTANTS

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t mutant_once = PTHREAD_ONCE_INIT;
static const char *mutant_removed; /* set under mutant_once, then constant */

static void mutant_read_environment(void)
{
	const char *name = getenv("VARVE_MUTANT");

	mutant_removed = name ? name : "";
}

bool mutant_is_removed(const char *name)
{
	pthread_once(&mutant_once, mutant_read_environment);
	return strcmp(name, mutant_removed) == 0;
}

#endif
