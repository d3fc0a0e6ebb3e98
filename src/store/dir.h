/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An object store in a directory of a local or network file system.
 *
 * The store at /path/base holds the objects whose keys are base or begin with "base.":
 *
 *	/path/base              the object with the key "base" (the superblock), for people to read
 *	/path/base.d/5f/KEY     all others; 5f is the last byte of the CRC-32C of the key, in hex
 *	/path/base.lock         who has the writer's right: "pid host"
 *
 * The version of an object is its modification time in nanoseconds. The store sets it by itself
 * and, when it replaces an object, to more than it was; so whoever edits, touches or restores the
 * superblock by hand changes its version, and a writer at work is fenced off. (A hash of the
 * contents would let an old superblock come back unnoticed; extended attributes or a second file
 * get lost in copies.)
 *
 * Every file system will do that has rename, fsync and open-file-description locks, and stores
 * modification times to at least two seconds. Links and O_TMPFILE are used where they exist.
 */
#ifndef STORE_DIR_H
#define STORE_DIR_H

#include "store/store.h"

struct dir_store_options {
	unsigned threads; /* that run requests after a kick; 0: 4 */
};

/*
 * path is /path/base, absolute or not; /path must exist. Creates nothing and changes nothing: that
 * is left to the first put and to lock(). opt may be NULL.
 *
 * -EINVAL the base is no valid key, or ends in ".d" or ".lock"; -ENOENT, -ENOTDIR, -EACCES, ...
 * about the directory; each with a text.
 *
 * lock() takes the base only. It also removes temporary files older than an hour, which a writer
 * left behind on a file system without O_TMPFILE.
 */
int dir_store_open(const char *path, const struct dir_store_options *opt, struct store **ret,
		   struct err *err);

#endif
