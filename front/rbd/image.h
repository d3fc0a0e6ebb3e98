/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An open image: a volume, the delivery of its completions, and the order of its flushes.
 *
 * Whoever uses image->volume does so between image_enter() and image_leave(). Closing waits for
 * what has entered; so does opening the volume again (rbd_invalidate_cache), which also keeps
 * everybody out meanwhile.
 */
#ifndef RBD_IMAGE_H
#define RBD_IMAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <varve/varve.h>

#include "abi.h"
#include "deliver.h"
#include "name.h"
#include "order.h"

struct image {
	uint32_t magic;
	unsigned int generation; /* of the process that opened it (image.c) */
	char *name;		 /* name or spec */
	struct open_options options;

	/* The pointer changes only while nobody is entered. NULL: it could not be opened again. */
	struct varve_volume *volume;
	struct varve_info info; /* all but the size is constant */
	unsigned int order;	/* log2 of the object size that is told */
	_Atomic uint64_t size;
	_Atomic bool wrote; /* a write has succeeded: the writer's right is ours */

	_Alignas(CACHE_LINE) _Atomic uint64_t entered;
	_Atomic bool gate_closed;
	_Alignas(CACHE_LINE) _Atomic uint64_t left;
	_Atomic bool quiescing;
	pthread_mutex_t lock; /* guards the two flags against each other */
	pthread_cond_t changed;

	struct order flushes;
	struct deliver deliver;
};

/* The image behind a user's handle; NULL when there is none. */
struct image *image_from(rbd_image_t handle);

/* Whether a parent of this process opened it. */
bool image_is_foreign(const struct image *image);

/* 0; or -EOWNERDEAD in a child of the process that opened it, -EIO when it is not open any more. */
int image_enter(struct image *image);

/* count of those that entered are done. */
void image_leave(struct image *image, uint64_t count);

struct image *image_of_deliver(struct deliver *d);

/* After a write that succeeded: now this process has the writer's right. Entered; may take a
 * while, so not where a request is done. */
void image_wrote(struct image *image);

/* Entered: submits flushes that were held back, a list by next. */
void image_submit_all(struct image *image, struct completion *list);

/* Entered: reads the size anew. */
uint64_t image_learn_size(struct image *image);

/* As for rbd_discard: 0 and the length cut at the image's end, or -EINVAL when it begins beyond. */
int image_clip(struct image *image, uint64_t offset, uint64_t *length);

#endif
