/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket of an open volume; varve_control_start() begins it.
 *
 * One JSON object a line each way:
 *	{"command": "status"}                    {"ok": true, "status": {...}}
 *	{"command": "info"}                      {"ok": true, "info": {...}}
 *	{"command": "message", "text": "drain"}  {"ok": true, "answer": null}
 *	{"command": "flush"}, {"command": "drain"}
 * or {"ok": false, "error": "...", "errno": 16}. Answers come in the order of requests.
 */
#ifndef VOLUME_CONTROL_H
#define VOLUME_CONTROL_H

#include <jansson.h>

#define CONTROL_CLIENTS 16
#define CONTROL_LINE_MAX 65536     /* of a request */
#define CONTROL_ANSWER_MAX 1048576 /* what the client of an answer takes */
#define CONTROL_TIMEOUT_MS 10000   /* until a quick request must have been answered */

/* What varve_message() is to do, which may take long; NULL when the request is a quick one. */
const char *control_message_text(const json_t *request);

/* As varve_control_call(), with that in the place of CONTROL_TIMEOUT_MS. */
int control_call(const char *name, const char *request_json, unsigned int timeout_ms,
		 char **ret_json);

#endif
