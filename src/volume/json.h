/* SPDX-License-Identifier: BSD-3-Clause */
/* Short forms for making JSON. Memory that is missing leaves members out (jansson). */
#ifndef VOLUME_JSON_H
#define VOLUME_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "base/uuid.h"

static inline void json_put(json_t *to, const char *key, uint64_t value)
{
	json_object_set_new(to, key, json_integer((json_int_t)value));
}

static inline void json_put_uuid(json_t *to, const char *key, const struct uuid *uuid)
{
	char text[UUID_TEXT_LEN];

	json_object_set_new(to, key, json_string(uuid_to_text(uuid, text)));
}

#endif
