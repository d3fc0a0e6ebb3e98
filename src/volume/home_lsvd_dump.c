/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies in the store of an lsvd volume, as JSON: lsvd tells keys and values (lsvd/lsvd_dump.h).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lsvd/lsvd_dump.h"
#include "volume/home_lsvd.h"
#include "volume/media.h"

#define DEPTH_MAX 16

/* lsvd tells keys and values; this makes JSON of them. */
struct teller {
	struct lsvd_dump dump;
	json_t *open[DEPTH_MAX]; /* borrowed, but for the first */
	unsigned int depth;
};

static struct teller *to_teller(struct lsvd_dump *dump)
{
	return container_of(dump, struct teller, dump);
}

static void tell(struct lsvd_dump *dump, const char *key, json_t *value)
{
	json_t *to = to_teller(dump)->open[to_teller(dump)->depth];

	if (key && json_is_object(to))
		json_object_set_new(to, key, value);
	else
		json_array_append_new(to, value);
}

static void tell_string(struct lsvd_dump *dump, const char *key, const char *value)
{
	tell(dump, key, json_string(value));
}

static void tell_number(struct lsvd_dump *dump, const char *key, uint64_t value)
{
	tell(dump, key, json_integer((json_int_t)value));
}

static void tell_begin(struct lsvd_dump *dump, const char *key, bool array)
{
	struct teller *t = to_teller(dump);
	json_t *value = array ? json_array() : json_object();

	/* The outermost one of a listing has nothing around it. */
	if (!t->open[0]) {
		t->open[0] = value;
		return;
	}
	tell(dump, key, value);
	assert(t->depth + 1 < DEPTH_MAX);
	t->open[++t->depth] = value;
}

static void tell_end(struct lsvd_dump *dump)
{
	struct teller *t = to_teller(dump);

	if (t->depth)
		t->depth--;
}

int home_lsvd_dump(const struct volume_config *cfg, const char *what, json_t **ret,
		   struct err *err)
{
	struct teller t = {
		.dump = {.string = tell_string, .number = tell_number, .begin = tell_begin,
			 .end = tell_end},
	};
	char object[STORE_KEY_MAX + 1];
	struct store *store;
	int rc = media_store_open(cfg->store, &store, object, err);

	if (rc)
		return rc;
	rc = lsvd_dump(store, object, what, &t.dump, err);
	store_close(store);
	/* A damaged object is told as far as it can be read: that is a dump, too. */
	if (rc && !(rc == -EBADMSG && t.open[0])) {
		json_decref(t.open[0]);
		return rc;
	}
	*ret = t.open[0];
	return 0;
}
