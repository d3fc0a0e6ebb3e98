/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * "Open this store, check it, read everything": the input is a list of edits to the objects of a
 * small volume. Each edit is four bytes: which object, where in it (two bytes, scaled), and what to
 * exclusive-or there; an edit with a zero there deletes the object or cuts it short. Headers get a
 * right checksum again if the lowest bit of the input's first byte is set.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lsvd_rig.h"
#include "lsvd/codec.h"
#include "lsvd/lsvd_check.h"
#include "tap_abort.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_EDITS 16

static void edit(struct lsvd_rig *rig, const uint8_t *e, bool seal)
{
	const size_t n = sim_bucket_count(rig->bucket);
	char key[STORE_KEY_MAX + 1];
	const void *body;
	struct obj_hdr h;
	uint8_t *bent;
	size_t len, at;

	if (!n)
		return;
	memcpy(key, sim_bucket_key(rig->bucket, e[0] % n),
	       strlen(sim_bucket_key(rig->bucket, e[0] % n)) + 1);
	body = sim_bucket_body(rig->bucket, key, &len);
	if (!len)
		return;
	at = (size_t)(e[1] | e[2] << 8) * len >> 16;
	bent = malloc(len);
	memcpy(bent, body, len);
	if (e[3])
		bent[at] ^= e[3];
	else
		len = at;
	if (seal && !obj_peek(bent, len, &h, NULL) && h.header_bytes <= len)
		obj_seal(bent);
	sim_bucket_lose(rig->bucket, key);
	if (len)
		store_put_new(rig->store, key, bent, len);
	free(bent);
}

static void read_all(struct lsvd_rig *rig)
{
	static uint8_t buf[1024 * DEV_SECTOR_BYTES];

	for (uint32_t lba = 0; lba < RIG_SECTORS; lba += 1024)
		rig_read(rig, lba, 1024, buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct lsvd_rig *rig = rig_new(1);
	struct lsvd_check check = {0};

	rig->opt.checkpoint_objects = 2;
	rig->opt.retry_min_ns = rig->opt.retry_max_ns = 1000;
	rig->opt.home_timeout_ns = 1000000;
	if (rig_open(rig))
		abort();
	for (unsigned i = 0; i < 24; i++) {
		rig_write(rig, i * 40, i % 3 ? 8 : 64);
		if (i % 4 == 3 && rig_drain(rig))
			abort();
	}
	rig_release(rig);
	for (size_t i = 0; i < MAX_EDITS && 1 + 4 * i + 4 <= size; i++)
		edit(rig, data + 1 + 4 * i, data[0] & 1);
	lsvd_check(rig->store, RIG_NAME, &check, NULL);
	if (!rig_look(rig, false, true)) {
		read_all(rig);
		rig_close(rig);
	}
	rig_free(rig);
	return 0;
}
