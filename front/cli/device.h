/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kernel block devices on top of an NBD server, and undoing them piece by piece. Callers hold the
 * volume's lock.
 *
 * The record, NAME.device; each member is there from just before its piece is made until it is
 * undone:
 *   {"fuse": "FILE", "fuse_process": {...}, "loop": "/dev/loopN", "nbd": "/dev/nbdN",
 *    "link": "PATH"}
 */
#ifndef CLI_DEVICE_H
#define CLI_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

struct device_options {
	const char *name; /* run_name() */
	const char *uri;
	const char *socket;
	uint32_t block_bytes;
	bool read_only;
	unsigned int timeout_s;
};

enum device_method {
	DEVICE_AUTO,
	DEVICE_NBD,
	DEVICE_FUSE
};

/* DEVICE_NBD where the kernel has the driver and nbd-client is installed. */
enum device_method device_best_method(void);

/* Build on the record, saving it at each step. 0, or -1 after a message. */
int device_add_fuse(const struct device_options *opt, json_t *record);
int device_add_nbd(const struct device_options *opt, json_t *record);
int device_add_link(const struct device_options *opt, json_t *record);

/* The device's path: /dev/loopN or /dev/nbdN; NULL when the record has none that still exists. */
const char *device_path(const json_t *record);

/* Whether somebody uses the device: mounted, swapped on, opened exclusively. Says who. */
bool device_busy(const char *name, const json_t *record);

/* Writes back what the kernel holds. 0, or -1 after a message. */
int device_sync(const char *name, const json_t *record);

/* Undoes every piece that is left and removes the record. 0, or -1 after a message. */
int device_undo(const char *name, json_t *record, unsigned int timeout_s);

#endif
