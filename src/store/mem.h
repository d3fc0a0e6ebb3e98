/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An object store in memory: for tests, and for volumes that need not outlive the process.
 *
 * Any number of threads. Requests wait in a queue until kick, help or poll runs them, on the
 * calling thread. The objects are reference counted by themselves, so that a store can be closed
 * and another opened on them, at the same time too; locks belong to them.
 */
#ifndef STORE_MEM_H
#define STORE_MEM_H

#include "store/store.h"

struct store_mem_objects;

/* Starts with one reference. */
int store_mem_objects_new(struct store_mem_objects **ret);
struct store_mem_objects *store_mem_objects_get(struct store_mem_objects *objects);
void store_mem_objects_put(struct store_mem_objects *objects);

/* The store takes a reference of its own. objects may be NULL: new ones. 0 or -ENOMEM. */
int store_mem_open(struct store_mem_objects *objects, struct store **ret);

#endif
