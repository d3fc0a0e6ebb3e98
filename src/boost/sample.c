/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Samples of the backing device: checksums of places that nobody else should have written to.
 *
 * The device has no room for a mark of ours, so the log remembers what some of its blocks hold:
 * the first and the last 64 KiB, where file systems and partition tables keep what changes at every
 * mount, and blocks drawn from a seed. A device that was written to without its cache, one that was
 * restored from a backup, or a cache that is an old copy, differs somewhere with a probability that
 * grows with how much was written.
 *
 * Invariants:
 *   1. what a sample says is true at the moment of destaged_lsn: those that a batch has touched are
 *      read again after its flush, and go into the same superblock as its end (batch.c);
 *   2. so a sample may be compared at open unless a record that is not home covers a part of it:
 *      of that the device may hold any state;
 *   3. what cannot be read is not known (valid is false), and no reason to refuse: a bad sector
 *      must not make the rest of the data unreadable. A device of which no sample can be read
 *      is refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/rng.h"
#include "boost/boost_impl.h"

static uint64_t sample_block(const struct state *state, uint32_t index)
{
	const uint64_t n = (state->backing_bytes + BOOST_SAMPLE_BYTES - 1) / BOOST_SAMPLE_BYTES;
	struct rng rng;
	uint64_t block = 0;

	if (index < BOOST_SAMPLES_EDGE)
		return index < n ? index : n - 1;
	if (index < 2 * BOOST_SAMPLES_EDGE)
		return n + index >= 2 * BOOST_SAMPLES_EDGE ? n + index - 2 * BOOST_SAMPLES_EDGE : 0;
	rng_seed(&rng, state->samples.seed);
	for (uint32_t i = 2 * BOOST_SAMPLES_EDGE; i <= index; i++)
		block = rng_below(&rng, n);
	return block;
}

uint64_t sample_off(const struct state *state, uint32_t index)
{
	return sample_block(state, index) * BOOST_SAMPLE_BYTES;
}

uint32_t sample_len(const struct state *state, uint32_t index)
{
	const uint64_t left = state->backing_bytes - sample_off(state, index);

	return left < BOOST_SAMPLE_BYTES ? (uint32_t)left : BOOST_SAMPLE_BYTES;
}

/* Whether the log has something to write back there. */
static bool sample_covered(struct boost *b, const struct state *state, uint32_t index)
{
	const uint64_t lba = sample_off(state, index) / DEV_SECTOR_BYTES;
	const uint64_t end = lba + sample_len(state, index) / DEV_SECTOR_BYTES;
	int type = 0;

	host_enter(b->host);
	for (uint64_t at = lba; at < end && !type;)
		at = wlog_extent(b->log, at, end, &type);
	host_leave(b->host);
	return type;
}

static int sample_read(struct boost *b, const struct state *state, uint32_t index, void *buf,
		       uint32_t *ret)
{
	const uint32_t len = sample_len(state, index);
	const int r = dev_pread(b->backing, buf, len, sample_off(state, index));

	if (!r)
		*ret = crc32c(0, buf, len);
	return r;
}

static void *sample_buf(void)
{
	return aligned_alloc(BOOST_SAMPLE_BYTES, BOOST_SAMPLE_BYTES);
}

static int samples_unreadable(int error, struct err *err)
{
	return err_sys(err, error, "cannot read the backing device");
}

int samples_take(struct boost *b, struct state *state, struct err *err)
{
	struct samples *s = &state->samples;
	uint32_t tried = 0, good = 0;
	void *buf = sample_buf();
	int error = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
		int r;

		s->valid[i] = false;
		if (sample_covered(b, state, i))
			continue;
		r = sample_read(b, state, i, buf, &s->crc[i]);
		s->valid[i] = r == 0;
		tried++;
		good += r == 0;
		if (r)
			error = r;
	}
	free(buf);
	return tried && !good ? samples_unreadable(error, err) : 0;
}

int samples_check(struct boost *b, const struct state *state, struct err *err)
{
	const struct samples *s = &state->samples;
	uint32_t tried = 0, good = 0;
	void *buf = sample_buf();
	int error = 0;

	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < BOOST_SAMPLES; i++) {
		uint32_t crc;
		int r;

		if (!s->valid[i] || sample_covered(b, state, i))
			continue;
		tried++;
		r = sample_read(b, state, i, buf, &crc);
		if (r) {
			error = r;
			log_warn("backing device: a sample at byte %llu cannot be read",
				 (unsigned long long)sample_off(state, i));
			continue;
		}
		good++;
		if (crc == s->crc[i] || !VARVE_STEP("boost.check_samples"))
			continue;
		free(buf);
		return err_set(err, -ESTALE,
			       "the backing device differs at byte %llu from what the cache knows "
			       "of it: it was written to without its cache, or the cache is an old "
			       "copy. What the cache holds must not be written over it; give that "
			       "up with --discard-cache, or bring the other device back",
			       (unsigned long long)sample_off(state, i));
	}
	free(buf);
	return tried && !good ? samples_unreadable(error, err) : 0;
}
