/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settings of a volume: the one table of their keys, kinds, bounds, defaults and explanations.
 * Reading and writing definitions, overriding, messages and the manual all walk this table.
 */
#ifndef VOLUME_SETTINGS_H
#define VOLUME_SETTINGS_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/size.h"
#include "base/uuid.h"
#include "boost/boost.h"
#include "lsvd/lsvd.h"
#include "wlog/wlog.h"

#define VOLUME_NAME_MAX 100
#define SETTING_TEXT_LEN (PATH_MAX + 256)

struct volume_config {
	char name[SETTING_TEXT_LEN]; /* of the definition, or the spec; not a setting */
	char type[16];
	uint64_t size_bytes;
	uint64_t block_bytes;
	char store[SETTING_TEXT_LEN];
	char backing[SETTING_TEXT_LEN];
	char cache[SETTING_TEXT_LEN];
	uint64_t cache_bytes;
	char template_name[VOLUME_NAME_MAX + 1];
	struct uuid uuid;
	bool format_cache;
	bool read_only;
	/* Of every type. */
	struct wlog_options log;
	uint64_t batch_age_ns;
	uint64_t retry_min_ns, retry_max_ns;
	uint64_t home_timeout_ns;
	bool hold;
	/* Of one type; what stands above is not looked for in these. */
	struct lsvd_options lsvd;
	struct boost_options boost;
	uint64_t given; /* bit i: table[i] was set */
};

enum setting_kind {
	SETTING_TEXT,       /* char[], max is its size */
	SETTING_BOOL,       /* bool: yes no true false on off 1 0 */
	SETTING_COUNT32,    /* uint32_t */
	SETTING_BYTES32,    /* uint32_t, base/size.h */
	SETTING_BYTES64,    /* uint64_t */
	SETTING_NS,         /* uint64_t, a duration */
	SETTING_US32,       /* uint32_t microseconds, a duration */
	SETTING_LOG2_BYTES, /* uint32_t: log2 of sectors; written as a size */
	SETTING_UUID,       /* struct uuid */
};

enum {
	SETTING_DEFINES = 1 << 0, /* fixed when the volume is created */
	SETTING_RUNNING = 1 << 1, /* can change while running */
	SETTING_CREATE = 1 << 2,  /* an order to varve_create(), not kept */
	SETTING_POWER2 = 1 << 3,
	SETTING_ONCE = 1 << 4,    /* for varve_create(), not kept; definitions may have it still */
};

/* What has a setting; 0 in the table is every type. */
enum {
	TYPE_LSVD = 1 << 0,
	TYPE_BOOST = 1 << 1,
	TYPE_BTT = 1 << 2,
	TYPES_LOG = TYPE_LSVD | TYPE_BOOST, /* that have a log before their home */
};

struct setting {
	const char *key;
	enum setting_kind kind;
	unsigned int flags;
	unsigned int types;
	size_t offset; /* in struct volume_config */
	uint64_t min, max;
	const char *help;
};

extern const struct setting settings_table[];
extern const unsigned int settings_count;

void settings_default(struct volume_config *cfg);

/* NULL when there is none. */
const struct setting *settings_find(const char *key, size_t key_len);

/* Sets one from its text; the error text names what is allowed. */
int settings_set(struct volume_config *cfg, const struct setting *setting, const char *value,
		 struct err *err);

/* Its value as text that settings_set() reads back. */
void settings_get(const struct volume_config *cfg, const struct setting *setting,
		  char text[SETTING_TEXT_LEN]);

/* Sets all of a NULL-terminated list of key=value; NULL is an empty list. */
int settings_apply(struct volume_config *cfg, const char *const *list, struct err *err);

/* Counts it as given, so that a definition that is written has it. */
void settings_mark(struct volume_config *cfg, const char *key);

bool settings_given(const struct volume_config *cfg, const char *key);

/* Whether volumes of the configuration's type have the setting. */
bool settings_has(const struct volume_config *cfg, const struct setting *setting);

/* That there is such a type, and that it has every setting that was given. */
int settings_check(const struct volume_config *cfg, struct err *err);

#endif
