/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of settings, and how a value is read, checked and written.
 *
 * Invariants
 *   1. Every key stands here once, and nowhere else as a list.
 *   2. What settings_get() writes, settings_set() reads back to the same value.
 *   3. settings_set() changes nothing when it fails.
 *
 * Locks: none; a struct volume_config belongs to its caller.
 */
#include "volume/settings.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "volume/home.h"

#define AT(field) offsetof(struct volume_config, field)

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)
#define MS UINT64_C(1000000)
#define SEC (MS * 1000)
#define DAY (SEC * 86400)

const struct setting settings_table[] = {
	{"type", SETTING_TEXT, SETTING_DEFINES, 0, AT(type), 1, 16,
	 "Kind of home: lsvd, a stream of objects; boost, a block device written in place; "
	 "btt, atomic blocks in persistent memory"},
	{"uuid", SETTING_UUID, 0, TYPE_BOOST, AT(uuid), 0, 0,
	 "The volume's identity, which its cache must have; made when it is created"},
	{"size", SETTING_BYTES64, SETTING_ONCE, 0, AT(size_bytes), 512, 131072 * TIB,
	 "Size of a new volume, or of a new backing file; a multiple of block_size"},
	{"block_size", SETTING_BYTES64, SETTING_DEFINES | SETTING_POWER2, 0, AT(block_bytes), 512,
	 4096, "Unit of atomicity"},
	{"store", SETTING_TEXT, 0, TYPE_LSVD, AT(store), 1, SETTING_TEXT_LEN,
	 "Where the objects are: dir:/path/base, /path/base, or mem:NAME"},
	{"backing", SETTING_TEXT, 0, TYPE_BOOST | TYPE_BTT, AT(backing), 1, SETTING_TEXT_LEN,
	 "The backing device: a file or block device, or mem:SIZE[:NAME]; of btt the pool"},
	{"cache", SETTING_TEXT, 0, 0, AT(cache), 1, SETTING_TEXT_LEN,
	 "The log's file or block device, btt:PATH, or mem:SIZE; none: only what the home holds, "
	 "read-only"},
	{"cache_size", SETTING_BYTES64, 0, TYPES_LOG, AT(cache_bytes), MIB, 64 * TIB,
	 "Size of a cache file that is to be created"},
	{"format_cache", SETTING_BOOL, SETTING_CREATE, TYPES_LOG, AT(format_cache), 0, 1,
	 "Format the cache even if it exists"},
	{"template", SETTING_TEXT, SETTING_CREATE, 0, AT(template_name), 1, VOLUME_NAME_MAX + 1,
	 "Settings that are read first, from NAME.template beside the definitions"},
	{"read_only", SETTING_BOOL, 0, 0, AT(read_only), 0, 1, "Refuse mutations"},
	{"segment_size", SETTING_BYTES32, 0, TYPES_LOG, AT(log.segment_bytes), 4 * KIB, 8 * MIB,
	 "Data in a segment of the log at most"},
	{"buffers", SETTING_COUNT32, 0, TYPES_LOG, AT(log.buffers), 4, 65536,
	 "Segment buffers in memory"},
	{"barrier_deadline", SETTING_US32, 0, TYPES_LOG, AT(log.barrier_deadline_us), 0, SEC,
	 "How long a flush may wait for company; 0: not at all"},
	{"writes_in_flight", SETTING_COUNT32, 0, TYPES_LOG, AT(log.writes_in_flight), 1, 256,
	 "Segment writes at the cache at once"},
	{"full_timeout", SETTING_NS, 0, TYPES_LOG, AT(log.full_timeout_ns), 0, 365 * DAY,
	 "How long a write waits for room in a full log before it fails; 0: for ever"},
	{"batch_size", SETTING_BYTES32, 0, TYPE_LSVD, AT(lsvd.batch_bytes), 4 * KIB, 512 * MIB,
	 "Data of an object"},
	{"batch_age", SETTING_NS, 0, TYPES_LOG, AT(batch_age_ns), MS, 365 * DAY,
	 "Age at which data goes to the home even if no batch is full"},
	{"puts_in_flight", SETTING_COUNT32, 0, TYPE_LSVD, AT(lsvd.puts_in_flight), 1, 64,
	 "Objects that are written to the store at once"},
	{"checkpoint_objects", SETTING_COUNT32, 0, TYPE_LSVD, AT(lsvd.checkpoint_objects), 1,
	 UINT32_MAX, "Objects between two checkpoints at most"},
	{"checkpoint_bytes", SETTING_BYTES64, 0, TYPE_LSVD, AT(lsvd.checkpoint_bytes), 4 * KIB,
	 64 * TIB, "Written to the store between two checkpoints at least"},
	{"checkpoint_part_size", SETTING_BYTES32, 0, TYPE_LSVD, AT(lsvd.checkpoint_part_bytes),
	 4 * KIB, 8 * MIB, "Size of a checkpoint's objects at most"},
	{"checkpoint_shard", SETTING_LOG2_BYTES, SETTING_POWER2, TYPE_LSVD,
	 AT(lsvd.shard_sectors_log2), MIB, 512 * TIB,
	 "Part of the volume that a checkpoint writes or leaves out as a whole"},
	{"header_cache", SETTING_BYTES64, 0, TYPE_LSVD, AT(lsvd.header_cache_bytes), 64 * KIB,
	 TIB, "Memory for object headers"},
	{"map_limit", SETTING_BYTES64, 0, TYPE_LSVD, AT(lsvd.map_limit_bytes), MIB, 64 * TIB,
	 "Memory for the map"},
	{"gc_policy", SETTING_COUNT32, 0, TYPE_LSVD, AT(lsvd.gc_policy), 0, 1,
	 "Which objects are emptied first: 0 those with least in them, 1 old ones rather than new"},
	{"gc_start", SETTING_COUNT32, 0, TYPE_LSVD, AT(lsvd.gc_start_percent), 1, 99,
	 "Percent of the objects' data in use below which garbage is collected"},
	{"gc_stop", SETTING_COUNT32, 0, TYPE_LSVD, AT(lsvd.gc_stop_percent), 1, 99,
	 "Percent of the objects' data in use above which it is not"},
	{"gc_min_age", SETTING_NS, 0, TYPE_LSVD, AT(lsvd.gc_min_age_ns), 0, 365 * DAY,
	 "How long an object is kept after nothing needs it any more"},
	{"gc_rate", SETTING_BYTES64, 0, TYPE_LSVD, AT(lsvd.gc_rate), 0, TIB,
	 "Bytes a second that are moved at most; 0: no limit"},
	{"nr_max_batched_migration", SETTING_COUNT32, SETTING_RUNNING, TYPE_BOOST,
	 AT(boost.nr_max_batched_migration), 1, 4096,
	 "Segments that are written back together, sorted"},
	{"allow_migrate", SETTING_BOOL, SETTING_RUNNING, TYPE_BOOST, AT(boost.allow_migrate), 0, 1,
	 "Write back without need; no: only when the log is full, or when told to"},
	{"backing_writes_in_flight", SETTING_COUNT32, 0, TYPE_BOOST, AT(boost.writes_in_flight),
	 1, 1024, "Writes at the backing device at once while data is written back"},
	{"retry_min", SETTING_NS, 0, TYPES_LOG, AT(retry_min_ns), 1000, DAY,
	 "First pause after an error of the home"},
	{"retry_max", SETTING_NS, 0, TYPES_LOG, AT(retry_max_ns), 1000, DAY,
	 "Longest pause after an error of the home"},
	{"home_timeout", SETTING_NS, 0, TYPES_LOG, AT(home_timeout_ns), MS, 365 * DAY,
	 "How long the home may fail before reads of it, drain and close give up"},
	{"hold", SETTING_BOOL, SETTING_RUNNING, TYPES_LOG, AT(hold), 0, 1,
	 "Keep everything in the log: nothing goes to the home"},
};

const unsigned int settings_count = sizeof(settings_table) / sizeof(settings_table[0]);

static_assert(sizeof(settings_table) / sizeof(settings_table[0]) <= 64, "bits of given");

void settings_default(struct volume_config *cfg)
{
	memset(cfg, 0, sizeof(*cfg));
	snprintf(cfg->type, sizeof(cfg->type), "lsvd");
	cfg->block_bytes = 512;
	lsvd_options_default(&cfg->lsvd);
	boost_options_default(&cfg->boost);
	wlog_options_default(&cfg->log);
	cfg->batch_age_ns = cfg->lsvd.batch_age_ns;
	cfg->retry_min_ns = cfg->lsvd.retry_min_ns;
	cfg->retry_max_ns = cfg->lsvd.retry_max_ns;
	cfg->home_timeout_ns = cfg->lsvd.home_timeout_ns;
}

const struct setting *settings_find(const char *key, size_t key_len)
{
	for (unsigned int i = 0; i < settings_count; i++)
		if (strlen(settings_table[i].key) == key_len &&
		    !memcmp(settings_table[i].key, key, key_len))
			return &settings_table[i];
	return NULL;
}

/* ---- values -------------------------------------------------------------------------------- */

static int parse_bool(const char *value, uint64_t *ret)
{
	static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!strcasecmp(value, words[i])) {
			*ret = i & 1;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_count(const char *value, uint64_t *ret)
{
	/* A count is a size without a suffix. */
	return value[0] && !value[strspn(value, "0123456789")] ? size_parse(value, ret) : -EINVAL;
}

static int parse_number(const struct setting *setting, const char *value, uint64_t *ret)
{
	switch (setting->kind) {
	case SETTING_BOOL:
		return parse_bool(value, ret);
	case SETTING_COUNT32:
		return parse_count(value, ret);
	case SETTING_NS:
	case SETTING_US32:
		return duration_parse(value, ret);
	default:
		return size_parse(value, ret);
	}
}

static char *format_number(const struct setting *setting, uint64_t value, char *text)
{
	switch (setting->kind) {
	case SETTING_BOOL:
		snprintf(text, SIZE_TEXT_LEN, "%s", value ? "yes" : "no");
		return text;
	case SETTING_COUNT32:
		snprintf(text, SIZE_TEXT_LEN, "%llu", (unsigned long long)value);
		return text;
	case SETTING_NS:
	case SETTING_US32:
		return duration_format(value, text);
	default:
		return size_format(value, text);
	}
}

/* What may stand there, for an error. */
static int refuse(const struct setting *setting, const char *value, struct err *err)
{
	char lo[SIZE_TEXT_LEN], hi[SIZE_TEXT_LEN];

	if (setting->kind == SETTING_BOOL)
		return err_set(err, -EINVAL, "%s = %s: expected yes or no", setting->key, value);
	return err_set(err, -EINVAL, "%s = %s: expected %s%s from %s to %s", setting->key, value,
		       setting->flags & SETTING_POWER2 ? "a power of two, " : "",
		       setting->kind == SETTING_COUNT32 ? "a number"
		       : setting->kind == SETTING_NS || setting->kind == SETTING_US32
			       ? "a duration such as 500ms or 2s,"
			       : "a size such as 64K or 8M,",
		       format_number(setting, setting->min, lo),
		       format_number(setting, setting->max, hi));
}

static void store_number(struct volume_config *cfg, const struct setting *setting,
			 uint64_t value)
{
	char *at = (char *)cfg + setting->offset;

	switch (setting->kind) {
	case SETTING_BOOL:
		*(bool *)(void *)at = value;
		break;
	case SETTING_BYTES64:
	case SETTING_NS:
		*(uint64_t *)(void *)at = value;
		break;
	case SETTING_US32:
		*(uint32_t *)(void *)at = (uint32_t)(value / 1000);
		break;
	case SETTING_LOG2_BYTES:
		*(uint32_t *)(void *)at = (uint32_t)__builtin_ctzll(value / DEV_SECTOR_BYTES);
		break;
	default:
		*(uint32_t *)(void *)at = (uint32_t)value;
	}
}

static uint64_t load_number(const struct volume_config *cfg, const struct setting *setting)
{
	const char *at = (const char *)cfg + setting->offset;

	switch (setting->kind) {
	case SETTING_BOOL:
		return *(const bool *)(const void *)at;
	case SETTING_BYTES64:
	case SETTING_NS:
		return *(const uint64_t *)(const void *)at;
	case SETTING_US32:
		return *(const uint32_t *)(const void *)at * UINT64_C(1000);
	case SETTING_LOG2_BYTES:
		return (uint64_t)DEV_SECTOR_BYTES << *(const uint32_t *)(const void *)at;
	default:
		return *(const uint32_t *)(const void *)at;
	}
}

static int set_text(struct volume_config *cfg, const struct setting *setting, const char *value,
		    struct err *err)
{
	const size_t len = strlen(value);

	/* What the file format would change or cut off could not be read back. */
	if (len < setting->min || len >= setting->max || strpbrk(value, "\r\n") ||
	    strstr(value, " ;") || strchr(" \t;#", value[0]) || strchr(" \t", value[len - 1]))
		return err_set(err, -EINVAL,
			       "%s = %s: expected 1 to %llu characters of one line, without "
			       "blanks around them or a ' ;'",
			       setting->key, value, (unsigned long long)setting->max - 1);
	memcpy((char *)cfg + setting->offset, value, len + 1);
	return 0;
}

static int set_number(struct volume_config *cfg, const struct setting *setting, const char *value,
		      struct err *err)
{
	uint64_t number;

	if (parse_number(setting, value, &number) || number < setting->min ||
	    number > setting->max ||
	    ((setting->flags & SETTING_POWER2) && (number & (number - 1))))
		return refuse(setting, value, err);
	store_number(cfg, setting, number);
	return 0;
}

static int set_uuid(struct volume_config *cfg, const struct setting *setting, const char *value,
		    struct err *err)
{
	struct uuid uuid;

	if (uuid_from_text(value, &uuid))
		return err_set(err, -EINVAL,
			       "%s = %s: expected a UUID such as "
			       "01234567-89ab-cdef-0123-456789abcdef",
			       setting->key, value);
	memcpy((char *)cfg + setting->offset, &uuid, sizeof(uuid));
	return 0;
}

int settings_set(struct volume_config *cfg, const struct setting *setting, const char *value,
		 struct err *err)
{
	const int rc = setting->kind == SETTING_TEXT   ? set_text(cfg, setting, value, err)
		       : setting->kind == SETTING_UUID ? set_uuid(cfg, setting, value, err)
						       : set_number(cfg, setting, value, err);

	if (!rc)
		cfg->given |= UINT64_C(1) << (setting - settings_table);
	return rc;
}

void settings_get(const struct volume_config *cfg, const struct setting *setting,
		  char text[SETTING_TEXT_LEN])
{
	if (setting->kind == SETTING_TEXT)
		snprintf(text, SETTING_TEXT_LEN, "%s", (const char *)cfg + setting->offset);
	else if (setting->kind == SETTING_UUID)
		uuid_to_text((const struct uuid *)(const void *)((const char *)cfg +
								 setting->offset),
			     text);
	else
		format_number(setting, load_number(cfg, setting), text);
}

/* ---- lists --------------------------------------------------------------------------------- */

static int unknown(const struct volume_config *cfg, const char *key, int key_len,
		   struct err *err)
{
	char known[600];
	size_t at = 0;

	for (unsigned int i = 0; i < settings_count && at < sizeof(known); i++)
		if (settings_has(cfg, &settings_table[i]))
			at += (size_t)snprintf(known + at, sizeof(known) - at, "%s%s",
					       i ? " " : "", settings_table[i].key);
	return err_set(err, -EINVAL, "unknown setting %.*s; there are: %s", key_len, key, known);
}

int settings_apply(struct volume_config *cfg, const char *const *list, struct err *err)
{
	for (; list && *list; list++) {
		const char *equals = strchr(*list, '=');
		const struct setting *setting;
		int rc;

		if (!equals)
			return err_set(err, -EINVAL, "%s: expected KEY=VALUE", *list);
		setting = settings_find(*list, (size_t)(equals - *list));
		if (!setting)
			return unknown(cfg, *list, (int)(equals - *list), err);
		rc = settings_set(cfg, setting, equals + 1, err);
		if (rc)
			return rc;
	}
	return 0;
}

void settings_mark(struct volume_config *cfg, const char *key)
{
	cfg->given |= UINT64_C(1) << (settings_find(key, strlen(key)) - settings_table);
}

bool settings_given(const struct volume_config *cfg, const char *key)
{
	const struct setting *setting = settings_find(key, strlen(key));

	return setting && (cfg->given >> (setting - settings_table) & 1);
}

/* ---- types --------------------------------------------------------------------------------- */

static const struct {
	unsigned int bit;
	const char *type;
} type_bits[] = {
	{TYPE_LSVD, "lsvd"},
	{TYPE_BOOST, "boost"},
	{TYPE_BTT, "btt"},
};

bool settings_has(const struct volume_config *cfg, const struct setting *setting)
{
	for (unsigned int i = 0; i < sizeof(type_bits) / sizeof(type_bits[0]); i++)
		if (!strcmp(type_bits[i].type, cfg->type))
			return !setting->types || (setting->types & type_bits[i].bit);
	return !setting->types;
}

/* The type that has a setting which not all have. */
static const char *type_of(const struct setting *setting)
{
	unsigned int i = 0;

	while (!(setting->types & type_bits[i].bit))
		i++;
	return type_bits[i].type;
}

int settings_check(const struct volume_config *cfg, struct err *err)
{
	char types[64];

	if (!home_find(cfg->type))
		return err_set(err, -EINVAL, "type = %s: there are: %s", cfg->type,
			       home_types(types));
	for (unsigned int i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];

		if ((cfg->given >> i & 1) && !settings_has(cfg, setting))
			return err_set(err, -EINVAL,
				       "%s is a setting of %s volumes, and this one's type is %s: "
				       "leave it out, or set the type",
				       setting->key,
				       type_of(setting), cfg->type);
	}
	return 0;
}
