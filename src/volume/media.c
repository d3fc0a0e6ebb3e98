/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening stores and caches by the text that names them.
 *
 * Memory with a name outlives those who open it: a list of the process holds one reference to each
 * until the process ends, so that a test can close a volume and find it again.
 *
 * Invariant: a name stands in the list once for each kind, and is never taken off.
 *
 * Locks: named_lock guards the list.
 */
#include "volume/media.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "dev/file.h"
#include "dev/mem.h"
#include "store/dir.h"
#include "store/mem.h"
#include "volume/pool.h"

struct named {
	struct named *next;
	struct dev_mem_bytes *bytes;       /* of a cache, or NULL */
	struct store_mem_objects *objects; /* of a store, or NULL */
	char name[];
};

static pthread_mutex_t named_lock = PTHREAD_MUTEX_INITIALIZER;
static struct named *named_list;

bool media_is_mem(const char *text)
{
	return !strncmp(text, "mem:", 4);
}

bool media_is_none(const char *text)
{
	return !*text || !strcmp(text, "none");
}

const char *media_path(const char *text)
{
	return strncmp(text, "btt:", 4) ? text : text + 4;
}

static struct named *named_new(const char *name, uint64_t cache_bytes)
{
	struct named *n = calloc(1, sizeof(*n) + strlen(name) + 1);
	int rc;

	if (!n)
		return NULL;
	memcpy(n->name, name, strlen(name) + 1);
	rc = cache_bytes ? dev_mem_bytes_new(cache_bytes, &n->bytes)
			 : store_mem_objects_new(&n->objects);
	if (rc) {
		free(n);
		return NULL;
	}
	n->next = named_list;
	named_list = n;
	return n;
}

/* Finds or makes the memory; a store's with cache_bytes 0. NULL: no memory. */
static struct named *named_get(const char *name, uint64_t cache_bytes)
{
	struct named *n;

	pthread_mutex_lock(&named_lock);
	for (n = named_list; n; n = n->next)
		if (!strcmp(n->name, name) && !n->bytes == !cache_bytes)
			break;
	if (!n)
		n = named_new(name, cache_bytes);
	pthread_mutex_unlock(&named_lock);
	return n;
}

static int copy_object(char ret[STORE_KEY_MAX + 1], const char *name, const char *text,
		       struct err *err)
{
	const size_t len = strlen(name);

	if (!len || len > STORE_KEY_MAX)
		return err_set(err, -EINVAL, "store %s: no name of a volume at its end", text);
	memcpy(ret, name, len + 1);
	return 0;
}

static int open_mem_store(const char *text, struct store **ret, char object[STORE_KEY_MAX + 1],
			  struct err *err)
{
	const char *name = text + 4;
	struct named *n;
	int rc = copy_object(object, name, text, err);

	if (rc)
		return rc;
	n = named_get(name, 0);
	rc = n ? store_mem_open(n->objects, ret) : -ENOMEM;
	return rc ? err_sys(err, rc, "store %s", text) : 0;
}

int media_store_open(const char *text, struct store **ret, char ret_object[STORE_KEY_MAX + 1],
		     struct err *err)
{
	const char *path = strncmp(text, "dir:", 4) ? text : text + 4;
	const char *base = strrchr(path, '/');
	int rc;

	if (media_is_mem(text))
		return open_mem_store(text, ret, ret_object, err);
	if (path == text && strcspn(text, ":") < strcspn(text, "/"))
		return err_set(err, -EINVAL, "store %s: expected dir:/path/base or mem:NAME",
			       text);
	rc = copy_object(ret_object, base ? base + 1 : path, text, err);
	return rc ? rc : dir_store_open(path, NULL, ret, err);
}

static int open_mem_dev(const char *text, bool read_only, struct dev **ret, struct err *err)
{
	struct dev_mem_options opt = {.read_only = read_only};
	const char *name = strchr(text + 4, ':');
	char size[SIZE_TEXT_LEN];
	const size_t len = name ? (size_t)(name - text - 4) : strlen(text + 4);
	struct named *n;

	if (len >= sizeof(size))
		return err_set(err, -EINVAL, "%s: expected mem:SIZE or mem:SIZE:NAME", text);
	memcpy(size, text + 4, len);
	size[len] = '\0';
	if (size_parse(size, &opt.size_bytes) || !opt.size_bytes || opt.size_bytes % 4096)
		return err_set(err, -EINVAL,
			       "%s: expected mem:SIZE[:NAME], SIZE a multiple of 4K",
			       text);
	if (name) {
		n = named_get(text, opt.size_bytes);
		if (!n)
			return err_set(err, -ENOMEM, "%s: no memory", text);
		opt.bytes = n->bytes;
	}
	return dev_mem_open(&opt, ret, err);
}

static int open_dev(const char *text, unsigned int flags, uint64_t bytes, bool write_zeros,
		    struct dev **ret, bool *ret_created, struct err *err)
{
	struct dev_file_options opt = {.read_only = flags & MEDIA_READ_ONLY};
	struct err first = ERR_INIT;
	int rc;

	if (ret_created)
		*ret_created = false;
	if (media_is_mem(text))
		return open_mem_dev(text, opt.read_only, ret, err);
	if (media_path(text) != text)
		return pool_dev_open(media_path(text), flags, bytes, ret, ret_created, err);
	rc = dev_file_open(text, &opt, ret, &first);
	if (rc == -ENOENT && (flags & MEDIA_CREATE)) {
		opt.create = true;
		opt.write_zeros = write_zeros;
		opt.create_bytes = bytes;
		rc = dev_file_open(text, &opt, ret, err);
		if (!rc && ret_created)
			*ret_created = true;
		return rc;
	}
	return rc ? err_set(err, rc, "%s", err_text(&first, rc)) : 0;
}

int media_cache_open(const char *text, unsigned int flags, uint64_t bytes, struct dev **ret,
		     bool *ret_created, struct err *err)
{
	return open_dev(text, flags, bytes, true, ret, ret_created, err);
}

int media_backing_open(const char *text, unsigned int flags, uint64_t bytes, struct dev **ret,
		       struct err *err)
{
	return open_dev(text, flags, bytes, false, ret, NULL, err);
}

/* ---- what a name leads to ------------------------------------------------------------------ */

bool media_is_block(const char *text)
{
	struct stat st;

	return !media_is_mem(text) && !stat(media_path(text), &st) && S_ISBLK(st.st_mode);
}

bool media_same(const char *a, const char *b)
{
	struct stat sa, sb;

	if (media_is_mem(a) || media_is_mem(b))
		return !strcmp(a, b) && strchr(a + 4, ':');
	if (stat(media_path(a), &sa) || stat(media_path(b), &sb))
		return false;
	if (S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode))
		return sa.st_rdev == sb.st_rdev;
	return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

#define BLANK_BYTES (128u << 10)

bool media_is_blank(struct dev *dev)
{
	const size_t len = dev->size_bytes < BLANK_BYTES ? (size_t)dev->size_bytes : BLANK_BYTES;
	char *buf = calloc(1, BLANK_BYTES);
	bool blank = buf && !dev_pread(dev, buf, len, 0);

	for (size_t i = 0; blank && i < len; i++)
		blank = !buf[i];
	free(buf);
	return blank;
}
