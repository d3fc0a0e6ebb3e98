/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Simulated persistent memory: recording.
 *
 * Purpose. Real memory forgets a missing flush: the caches of a test machine never lose anything.
 * This memory knows for each word what is durable for certain and what may be.
 *
 * Data structure. base is what the code under test reads and writes. Beside it lie two copies:
 * recorded, what base must hold if every store came through the primitives, and durable, what every
 * crash leaves. Between the two, a list of all stores that are not fenced, in their order, chained
 * for each word from the newest to the oldest.
 *
 * A flush marks the stores of its lines. A fence makes the newest marked store of each word its
 * durable value, and forgets it and those before it; stores behind the flush stay. Copies are
 * marked at once. A store of what the word already holds is none: no crash can tell it.
 *
 * Invariants.
 *  1. recorded == base but between a primitive's store and its record, which on_point never sees,
 *     and in poisoned pages, which have no stores.
 *  2. For each word: durable, then the stores of its chain from the oldest, end in recorded.
 *  3. newest and the chains name stores below count, older ones at lower indices.
 *
 * Memory that runs out makes fences fail: a store cannot.
 *
 * Locks. None: one thread.
 */
#include "pmem/shadow_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/mutant.h"

static bool is_poisoned(const struct shadow *s, size_t word)
{
	return bitmap_test(s->poisoned, word * SHADOW_WORD_BYTES / SHADOW_PAGE_BYTES);
}

/* The word as base has it. */
static uint64_t word_now(const struct shadow *s, size_t word)
{
	uint64_t v;

	memcpy(&v, s->pm.base + word * SHADOW_WORD_BYTES, sizeof(v));
	return v;
}

static bool make_room(struct shadow *s)
{
	size_t room = s->room ? 2 * s->room : 256;
	struct shadow_store *stores;

	if (s->count < s->room)
		return true;
	stores = room < UINT32_MAX ? realloc(s->stores, room * sizeof(*stores)) : NULL;
	if (!stores) {
		if (!s->error)
			s->error = -ENOMEM;
		return false;
	}
	s->stores = stores;
	s->room = room;
	return true;
}

static void append(struct shadow *s, const struct shadow_store *store)
{
	struct shadow_store *at = &s->stores[s->count++];

	*at = *store;
	at->older = s->newest[store->word];
	if (!at->older)
		s->undurable++;
	s->newest[store->word] = (uint32_t)s->count;
}

/* Records what base holds now for each word of a range. */
static void record(struct shadow *s, size_t off, size_t len, bool copied)
{
	size_t end = (off + len + SHADOW_WORD_BYTES - 1) / SHADOW_WORD_BYTES;
	bool flushed = copied && VARVE_STEP("pmem.copy_flush");

	for (size_t w = off / SHADOW_WORD_BYTES; w < end; w++) {
		struct shadow_store store = {.value = word_now(s, w),
					     .word = (uint32_t)w,
					     .flushed = flushed,
					     .copied = copied};

		if (store.value == s->recorded[w]) {
			/* The older store of the same value is now as durable as this one. */
			if (flushed && s->newest[w])
				s->stores[s->newest[w] - 1].flushed = true;
			continue;
		}
		s->recorded[w] = store.value;
		if (make_room(s))
			append(s, &store);
	}
}

/* Looks for stores that came past the primitives; tells the first of a page, and adopts them. */
static void look_for_escapes(struct shadow *s)
{
	for (size_t off = 0; off < s->pm.len_bytes; off += SHADOW_PAGE_BYTES) {
		size_t len = s->pm.len_bytes - off;
		size_t w = off / SHADOW_WORD_BYTES;

		len = len < SHADOW_PAGE_BYTES ? len : SHADOW_PAGE_BYTES;
		if (is_poisoned(s, w) || !memcmp(s->pm.base + off, &s->recorded[w], len))
			continue;
		while (word_now(s, w) == s->recorded[w])
			w++;
		assert(s->opt.on_escape && "a store came past the primitives of pmem.h");
		s->opt.on_escape(&s->pm, w * SHADOW_WORD_BYTES, s->opt.arg);
		record(s, off, len, false);
	}
}

static void pass_point(struct shadow *s, enum pm_shadow_point point)
{
	assert(!s->in_point);
	if (point != PM_SHADOW_FENCE && !s->opt.every_primitive)
		return;
	look_for_escapes(s);
	if (!s->opt.on_point)
		return;
	s->in_point = true;
	s->opt.on_point(&s->pm, point, s->opt.arg);
	s->in_point = false;
}

static size_t offset_of(const struct shadow *s, const void *addr, size_t len)
{
	assert(pm_contains(&s->pm, addr, len));
	(void)len;
	return (size_t)((uintptr_t)addr - (uintptr_t)s->pm.base);
}

/* Faults before anything is changed, if the store would: so invariant 1 holds after a fault. */
static void touch(struct shadow *s, size_t off, size_t len)
{
	for (size_t at = off / SHADOW_PAGE_BYTES * SHADOW_PAGE_BYTES; at < off + len;
	     at += SHADOW_PAGE_BYTES)
		(void)atomic_load_explicit((const _Atomic uint8_t *)(s->pm.base + at),
					   memory_order_relaxed);
}

static void shadow_copy(struct pmem *pm, void *dst, const void *src, size_t len)
{
	struct shadow *s = to_shadow(pm);
	size_t off = offset_of(s, dst, len);

	if (!len)
		return;
	pass_point(s, PM_SHADOW_COPY);
	touch(s, off, len);
	memmove(dst, src, len);
	record(s, off, len, true);
	s->counters.copies++;
}

static void shadow_set(struct pmem *pm, void *dst, int c, size_t len)
{
	struct shadow *s = to_shadow(pm);
	size_t off = offset_of(s, dst, len);

	if (!len)
		return;
	pass_point(s, PM_SHADOW_COPY);
	touch(s, off, len);
	memset(dst, c, len);
	record(s, off, len, true);
	s->counters.copies++;
}

static void shadow_store8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t value)
{
	struct shadow *s = to_shadow(pm);
	size_t off = offset_of(s, dst, sizeof(*dst));

	assert(off % SHADOW_WORD_BYTES == 0);
	pass_point(s, PM_SHADOW_STORE);
	atomic_store_explicit(dst, value, memory_order_release);
	record(s, off, sizeof(*dst), false);
	s->counters.stores++;
}

static bool shadow_cas8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t *expected, uint64_t value)
{
	uint64_t now = atomic_load_explicit(dst, memory_order_acquire);

	if (now != *expected) {
		*expected = now;
		return false;
	}
	shadow_store8(pm, dst, value);
	return true;
}

static void shadow_flush(struct pmem *pm, const void *addr, size_t len)
{
	struct shadow *s = to_shadow(pm);
	size_t off = offset_of(s, addr, len), w, end;
	bool idle = true;

	if (!len)
		return;
	pass_point(s, PM_SHADOW_FLUSH);
	s->counters.flushes++;
	w = off / PM_LINE_BYTES * SHADOW_LINE_WORDS;
	end = (off + len + PM_LINE_BYTES - 1) / PM_LINE_BYTES * SHADOW_LINE_WORDS;
	for (; w < end && w < s->words; w++) {
		struct shadow_store *newest = s->newest[w] ? &s->stores[s->newest[w] - 1] : NULL;

		if (!newest || newest->flushed)
			continue;
		idle = false;
		/* Older ones need no mark: the fence forgets all that is behind a marked one. */
		if (VARVE_STEP("pmem.flush"))
			newest->flushed = true;
	}
	s->counters.idle_flushes += idle;
}

/*
 * Forgets the stores of each word up to its floor, and the floors; the others stay in their order.
 * In place: what is kept never lies behind where it comes from.
 */
static void compact(struct shadow *s)
{
	size_t old = s->count;

	for (size_t i = 0; i < old; i++)
		s->newest[s->stores[i].word] = 0;
	s->count = 0;
	s->undurable = 0;
	for (size_t i = 0; i < old; i++) {
		struct shadow_store store = s->stores[i];

		if (i >= s->floor[store.word])
			append(s, &store);
		else if (i + 1 == s->floor[store.word])
			s->floor[store.word] = 0;
	}
}

static void settle(struct shadow *s)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct shadow_store *store = &s->stores[i];

		if (!store->flushed)
			continue;
		s->durable[store->word] = store->value;
		s->floor[store->word] = (uint32_t)i + 1;
	}
	compact(s);
}

static int shadow_fence(struct pmem *pm)
{
	struct shadow *s = to_shadow(pm);
	bool any = false;

	pass_point(s, PM_SHADOW_FENCE);
	s->counters.fences++;
	if (!s->error && s->fail_error && s->fences_left-- == 0)
		s->error = s->fail_error;
	if (s->error)
		return s->error;
	for (size_t i = 0; i < s->count && !any; i++)
		any = s->stores[i].flushed;
	s->counters.idle_fences += !any;
	if (any && VARVE_STEP("pmem.fence"))
		settle(s);
	return 0;
}

static void shadow_free(struct shadow *s)
{
	guard_remove(s->region);
	if (s->pm.base)
		munmap(s->pm.base, s->map_bytes);
	free(s->recorded);
	free(s->durable);
	free(s->newest);
	free(s->floor);
	free(s->poisoned);
	free(s->stores);
	free(s);
}

static void shadow_close(struct pmem *pm)
{
	look_for_escapes(to_shadow(pm));
	shadow_free(to_shadow(pm));
}

static const struct pmem_ops shadow_ops = {
	.name = "shadow",
	.copy = shadow_copy,
	.set = shadow_set,
	.store8 = shadow_store8,
	.cas8 = shadow_cas8,
	.flush = shadow_flush,
	.fence = shadow_fence,
	.close = shadow_close,
};

static int allocate(struct shadow *s)
{
	size_t pages = s->map_bytes / SHADOW_PAGE_BYTES;
	void *base;

	s->recorded = calloc(s->words, sizeof(*s->recorded));
	s->durable = calloc(s->words, sizeof(*s->durable));
	s->newest = calloc(s->words, sizeof(*s->newest));
	s->floor = calloc(s->words, sizeof(*s->floor));
	s->poisoned = calloc(BITMAP_WORDS(pages), sizeof(*s->poisoned));
	if (!s->recorded || !s->durable || !s->newest || !s->floor || !s->poisoned)
		return -ENOMEM;
	base = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (base == MAP_FAILED)
		return -errno;
	s->pm.base = base;
	return guard_add(base, s->map_bytes, &s->region);
}

int pm_shadow_open(const struct pm_shadow_options *opt, struct pmem **ret)
{
	struct shadow *s;
	int r;

	if (!opt->len_bytes || opt->len_bytes % SHADOW_WORD_BYTES ||
	    opt->len_bytes / SHADOW_WORD_BYTES >= UINT32_MAX)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->opt = *opt;
	s->words = opt->len_bytes / SHADOW_WORD_BYTES;
	s->map_bytes = (opt->len_bytes + SHADOW_PAGE_BYTES - 1) & ~(size_t)(SHADOW_PAGE_BYTES - 1);
	r = allocate(s);
	if (r) {
		shadow_free(s);
		return r;
	}
	if (opt->image) {
		memcpy(s->pm.base, opt->image, opt->len_bytes);
		memcpy(s->recorded, opt->image, opt->len_bytes);
		memcpy(s->durable, opt->image, opt->len_bytes);
	}
	s->opt.image = NULL;
	s->pm.ops = &shadow_ops;
	s->pm.len_bytes = opt->len_bytes;
	s->pm.mode = PM_SHADOW;
	*ret = &s->pm;
	return 0;
}

const uint8_t *pm_shadow_durable(const struct pmem *pm)
{
	return (const uint8_t *)to_shadow(pm)->durable;
}

size_t pm_shadow_undurable(const struct pmem *pm)
{
	return to_shadow(pm)->undurable;
}

void pm_shadow_counters(const struct pmem *pm, struct pm_shadow_counters *ret)
{
	*ret = to_shadow(pm)->counters;
}

void pm_shadow_fail_fence(struct pmem *pm, uint64_t n, int error)
{
	struct shadow *s = to_shadow(pm);

	s->fences_left = n;
	s->fail_error = error;
}

/* The range as whole pages. */
static int page_range(const struct shadow *s, size_t *off, size_t *len)
{
	size_t end = *off + *len;

	if (!*len || end < *off || end > s->pm.len_bytes)
		return -EINVAL;
	*off = *off / SHADOW_PAGE_BYTES * SHADOW_PAGE_BYTES;
	end = (end + SHADOW_PAGE_BYTES - 1) / SHADOW_PAGE_BYTES * SHADOW_PAGE_BYTES;
	*len = end - *off;
	return 0;
}

/* What pages hold and their history becomes zeros, durable. */
static void wipe(struct shadow *s, size_t off, size_t len)
{
	size_t w = off / SHADOW_WORD_BYTES, end = (off + len) / SHADOW_WORD_BYTES;

	end = end < s->words ? end : s->words;
	for (size_t i = w; i < end; i++)
		s->floor[i] = s->newest[i];
	compact(s);
	memset(&s->durable[w], 0, (end - w) * SHADOW_WORD_BYTES);
	memset(&s->recorded[w], 0, (end - w) * SHADOW_WORD_BYTES);
}

/* An empty file in place of the page: what lies behind the end of a file raises SIGBUS. */
int pm_shadow_poison(struct pmem *pm, size_t off_bytes, size_t len_bytes)
{
	struct shadow *s = to_shadow(pm);
	int r = page_range(s, &off_bytes, &len_bytes), fd;
	void *at;

	if (r)
		return r;
	fd = memfd_create("poison", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	look_for_escapes(s);
	at = mmap(s->pm.base + off_bytes, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		  fd, 0);
	r = at == MAP_FAILED ? -errno : 0;
	close(fd);
	if (r)
		return r;
	wipe(s, off_bytes, len_bytes);
	bitmap_set_range(s->poisoned, off_bytes / SHADOW_PAGE_BYTES,
			 (off_bytes + len_bytes) / SHADOW_PAGE_BYTES);
	return 0;
}

int pm_shadow_heal(struct pmem *pm, size_t off_bytes, size_t len_bytes)
{
	struct shadow *s = to_shadow(pm);
	int r = page_range(s, &off_bytes, &len_bytes);

	if (r)
		return r;
	look_for_escapes(s);
	if (mmap(s->pm.base + off_bytes, len_bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	bitmap_clear_range(s->poisoned, off_bytes / SHADOW_PAGE_BYTES,
			   (off_bytes + len_bytes) / SHADOW_PAGE_BYTES);
	wipe(s, off_bytes, len_bytes);
	return 0;
}
