/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names of objects.
 *
 * Invariants:
 *   1. A key is told apart from every other key, and from every volume's name, by its form alone:
 *      a volume may not have a name that ends like an object's key, so that the objects of a volume
 *      "a" and a volume "a.b" beside it never meet, though their keys share a prefix.
 *   2. The epoch is part of the key: two owners never write the same key, so that a late put of a
 *      former owner changes nothing that the present one wrote.
 *   3. Keys of one volume and kind sort by number: 16 digits, with leading zeros.
 */
#include <stdio.h>
#include <string.h>

#include "lsvd/codec.h"

static bool key_char_ok(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

/* Exactly so many lower-case hexadecimal digits. */
static bool key_hex(const char **at, unsigned digits, uint64_t *ret)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < digits; i++) {
		const char c = (*at)[i];

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*at += digits;
	*ret = v;
	return true;
}

/* What follows "NAME.". */
static bool key_parse_tail(const char *at, struct key *ret)
{
	struct key key = {.kind = KEY_DATA};
	uint64_t epoch, part;

	if (*at == 'c' || *at == 'r')
		key.kind = *at++ == 'c' ? KEY_PART : KEY_ROOT;
	if (!key_hex(&at, 16, &key.seq) || *at++ != '.' || !key_hex(&at, 8, &epoch))
		return false;
	key.epoch = (uint32_t)epoch;
	if (key.kind == KEY_PART) {
		if (*at++ != '.' || !key_hex(&at, 4, &part))
			return false;
		key.part = (uint32_t)part;
	}
	if (*at || !key.seq || (key.kind == KEY_DATA && key.seq > LSVD_SEQ_MAX))
		return false;
	*ret = key;
	return true;
}

bool key_name_ok(const char *name)
{
	const size_t len = strlen(name);
	struct key key;

	if (!len || len > LSVD_NAME_MAX || name[0] == '.' || name[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!key_char_ok(name[i]))
			return false;
		if (name[i] == '.' && key_parse_tail(name + i + 1, &key))
			return false;
	}
	return true;
}

void key_format(char ret[STORE_KEY_MAX + 1], const char *name, const struct key *key)
{
	const size_t size = STORE_KEY_MAX + 1;
	const unsigned long long seq = key->seq;

	if (key->kind == KEY_DATA)
		snprintf(ret, size, "%s.%016llx.%08x", name, seq, key->epoch);
	else if (key->kind == KEY_ROOT)
		snprintf(ret, size, "%s.r%016llx.%08x", name, seq, key->epoch);
	else
		snprintf(ret, size, "%s.c%016llx.%08x.%04x", name, seq, key->epoch,
			 key->part & 0xffff);
}

bool key_parse(const char *name, const char *text, struct key *ret)
{
	const size_t len = strlen(name);

	return strncmp(text, name, len) == 0 && text[len] == '.' &&
	       key_parse_tail(text + len + 1, ret);
}
