/* SPDX-License-Identifier: BSD-3-Clause */
/* UUIDs (uuid.h), by libuuid. */
#include "base/uuid.h"

#include <errno.h>
#include <uuid/uuid.h>

struct uuid uuid_new(void)
{
	struct uuid u;

	uuid_generate_random(u.b);
	return u;
}

struct uuid uuid_from_bits(uint64_t hi, uint64_t lo)
{
	struct uuid u;

	for (int i = 0; i < 8; i++) {
		u.b[i] = (uint8_t)(hi >> (56 - 8 * i));
		u.b[8 + i] = (uint8_t)(lo >> (56 - 8 * i));
	}
	u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40); /* version 4: random */
	u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
	return u;
}

int uuid_from_text(const char *text, struct uuid *ret)
{
	struct uuid u;

	if (uuid_parse(text, u.b))
		return -EINVAL;
	*ret = u;
	return 0;
}

char *uuid_to_text(const struct uuid *u, char text[UUID_TEXT_LEN])
{
	uuid_unparse_lower(u->b, text);
	return text;
}
