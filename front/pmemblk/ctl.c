/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Control entry points (ctl.h).
 *
 * A fault in the environment is told by every later create and open: a library does not end the
 * process, and to go on as if nothing had been asked for would be worse.
 *
 * Locks: values are atomic; the environment is read under once.
 */
#include "ctl.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONF_MAX (64u << 10) /* bytes of a configuration file */

static const struct {
	const char *name;
	int initial;
} entries[CTL_COUNT] = {
	[CTL_PREFAULT_AT_CREATE] = {"prefault.at_create", 0},
	[CTL_PREFAULT_AT_OPEN] = {"prefault.at_open", 0},
	[CTL_FALLOCATE_AT_CREATE] = {"fallocate.at_create", 1},
	/* Accepted, because scripts set it to 0; here a pool never depends on it. */
	[CTL_SDS_AT_CREATE] = {"sds.at_create", 0},
	/* Can be asked for, and set to what it is. */
	[CTL_COPY_ON_WRITE_AT_OPEN] = {"copy_on_write.at_open", 0},
};

static _Atomic int values[CTL_COUNT];
static _Atomic bool is_set[CTL_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char fault[256];

int ctl_value(enum ctl_id id)
{
	return atomic_load_explicit(&is_set[id], memory_order_acquire)
		       ? atomic_load_explicit(&values[id], memory_order_relaxed)
		       : entries[id].initial;
}

int ctl_find(const char *name)
{
	for (int id = 0; id < CTL_COUNT; id++)
		if (!strcmp(entries[id].name, name))
			return id;
	return -1;
}

int ctl_set_value(enum ctl_id id, int value)
{
	if (id == CTL_COPY_ON_WRITE_AT_OPEN && value)
		return -1;
	atomic_store_explicit(&values[id], value, memory_order_relaxed);
	/* Release: pairs with the acquire in ctl_value(). */
	atomic_store_explicit(&is_set[id], true, memory_order_release);
	return 0;
}

static bool parse_value(const char *text, int *ret)
{
	char *end;
	long number;

	if (!strcmp(text, "y") || !strcmp(text, "yes") || !strcmp(text, "Y")) {
		*ret = 1;
		return true;
	}
	if (!strcmp(text, "n") || !strcmp(text, "no") || !strcmp(text, "N")) {
		*ret = 0;
		return true;
	}
	errno = 0;
	number = strtol(text, &end, 0);
	*ret = (int)number;
	return end != text && !*end && !errno && number >= INT_MIN && number <= INT_MAX;
}

/* One "name=value". */
static bool parse_entry(const char *from, char *entry)
{
	char *equals = strchr(entry, '=');
	int id, value;

	if (!equals) {
		snprintf(fault, sizeof(fault), "%s: \"%.80s\" is not name=value", from, entry);
		return false;
	}
	*equals = '\0';
	id = ctl_find(entry);
	if (id < 0)
		snprintf(fault, sizeof(fault), "%s: there is no entry point %.80s", from, entry);
	else if (!parse_value(equals + 1, &value) || ctl_set_value((enum ctl_id)id, value))
		snprintf(fault, sizeof(fault), "%s: %s cannot be \"%.80s\"", from,
			 entries[id].name, equals + 1);
	return !fault[0];
}

/* Takes out white space, and comments to the end of their line. */
static void strip(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		if (*from == '#') {
			from += strcspn(from, "\n");
			if (!*from)
				break;
		}
		if (!strchr(" \t\r\n", *from))
			*to++ = *from;
	}
	*to = '\0';
}

static void parse(const char *from, char *text)
{
	char *rest = text, *entry;

	strip(text);
	while ((entry = strsep(&rest, ";")))
		if (*entry && !parse_entry(from, entry))
			return;
}

static void parse_file(const char *path)
{
	FILE *file = fopen(path, "re");
	char *text = malloc(CONF_MAX + 1);
	size_t len = 0;

	if (file && text)
		len = fread(text, 1, CONF_MAX + 1, file);
	if (!file || !text || ferror(file) || len > CONF_MAX) {
		snprintf(fault, sizeof(fault), "PMEMBLK_CONF_FILE %.100s: %s", path,
			 len > CONF_MAX ? "too long" : strerror(errno));
	} else {
		text[len] = '\0';
		parse("PMEMBLK_CONF_FILE", text);
	}
	free(text);
	if (file)
		fclose(file);
}

static void load(void)
{
	const char *conf = getenv("PMEMBLK_CONF"), *path = getenv("PMEMBLK_CONF_FILE");
	char *copy = conf ? strdup(conf) : NULL;

	if (copy)
		parse("PMEMBLK_CONF", copy);
	else if (conf)
		snprintf(fault, sizeof(fault), "PMEMBLK_CONF: no memory");
	free(copy);
	if (path && *path && !fault[0])
		parse_file(path);
}

const char *ctl_load(void)
{
	pthread_once(&once, load);
	return fault[0] ? fault : NULL;
}
