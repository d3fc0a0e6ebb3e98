/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Simulated persistent memory: what a crash leaves.
 *
 * Purpose. From the stores that are not fenced, the images that a crash may leave: all of them
 * where they are few, a sample that finds bugs soon where they are not.
 *
 * Data structure. Each word with stores becomes a slot: a list of the different values that it may
 * have, its durable one first, then in the order of the stores. All words outside the plan's range
 * are one more slot with two values, the durable ones and the newest. An image is a choice for each
 * slot, written over one scratch copy of the durable bytes and taken back after use.
 *
 * Slots are in the order of their addresses, so that those of one line are neighbours: a line is a
 * run of slots. The sample begins with what single missing or surplus flushes look like (one line
 * alone, all but one line), goes on with prefixes of the stores, which is what missing fences look
 * like, and with random choices, in which copies may also be torn within a word.
 *
 * Invariants.
 *  1. Between two images the scratch copy equals the durable bytes.
 *  2. Values of a slot are in the order of their stores; ages of a slot rise.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "pmem/shadow_impl.h"

#define IMAGE_COMPARE_MAX 64 /* values of one word that are compared with each other */

struct value {
	uint64_t value;
	uint64_t age; /* 0: durable; else 1 + the number of its store */
	bool copied;
};

struct slot {
	uint32_t word;
	uint32_t line; /* which run of slots it is in */
	size_t first;  /* in values */
	uint32_t count;
	uint32_t choice;
};

struct images {
	const struct shadow *s;
	const struct pm_shadow_plan *plan;
	struct rng rng;
	struct slot *slots;
	size_t slot_count;
	size_t line_count;
	struct value *values;
	size_t value_count;
	uint32_t *others; /* words outside the range */
	size_t other_count;
	bool others_new;
	uint64_t *scratch;
	bool tear; /* copies may be torn in this image */
};

static uint64_t times(uint64_t a, uint64_t b)
{
	uint64_t r;

	return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

/* Whether the slot has the value already; a word that was stored very often is not searched. */
static bool has_value(const struct images *im, const struct slot *slot, uint64_t value)
{
	if (slot->count > IMAGE_COMPARE_MAX)
		return false;
	for (size_t i = slot->first; i < slot->first + slot->count; i++)
		if (im->values[i].value == value)
			return true;
	return false;
}

static void add_value(struct images *im, struct slot *slot, const struct value *v)
{
	if (slot->count && has_value(im, slot, v->value))
		return;
	im->values[im->value_count++] = *v;
	slot->count++;
}

/* The chain goes from the newest to the oldest; values go the other way. */
static void fill_slot(struct images *im, struct slot *slot)
{
	const struct shadow *s = im->s;
	size_t n = 0, at;

	for (uint32_t i = s->newest[slot->word]; i; i = s->stores[i - 1].older)
		n++;
	slot->first = im->value_count;
	add_value(im, slot, &(struct value){.value = s->durable[slot->word]});
	/* Room for all was counted; the newest go to the far end first and then move down. */
	at = im->value_count + n;
	for (uint32_t i = s->newest[slot->word]; i; i = s->stores[i - 1].older) {
		const struct shadow_store *store = &s->stores[i - 1];

		im->values[--at] = (struct value){store->value, i, store->copied};
	}
	for (size_t i = 0; i < n; i++, at++) {
		struct value v = im->values[at];

		add_value(im, slot, &v);
	}
}

static bool in_range(const struct images *im, uint32_t word)
{
	size_t off = (size_t)word * SHADOW_WORD_BYTES;

	return !im->plan->to_bytes || (off >= im->plan->from_bytes && off < im->plan->to_bytes);
}

static int by_word(const void *a, const void *b)
{
	const struct slot *x = a, *y = b;

	return (x->word > y->word) - (x->word < y->word);
}

static void number_lines(struct images *im)
{
	for (size_t i = 0; i < im->slot_count; i++) {
		struct slot *slot = &im->slots[i];

		if (i && slot[-1].word / SHADOW_LINE_WORDS != slot->word / SHADOW_LINE_WORDS)
			im->line_count++;
		slot->line = (uint32_t)im->line_count;
	}
	im->line_count += im->slot_count > 0;
}

static void images_free(struct images *im)
{
	free(im->slots);
	free(im->values);
	free(im->others);
	free(im->scratch);
}

static int images_init(struct images *im, const struct shadow *s, const struct pm_shadow_plan *plan)
{
	memset(im, 0, sizeof(*im));
	im->s = s;
	im->plan = plan;
	rng_seed(&im->rng, plan->seed);
	im->slots = calloc(s->undurable + 1, sizeof(*im->slots));
	im->values = calloc(s->undurable + s->count + 1, sizeof(*im->values));
	im->others = calloc(s->undurable + 1, sizeof(*im->others));
	im->scratch = malloc(s->words * SHADOW_WORD_BYTES);
	if (!im->slots || !im->values || !im->others || !im->scratch) {
		images_free(im);
		return -ENOMEM;
	}
	memcpy(im->scratch, s->durable, s->words * SHADOW_WORD_BYTES);
	for (size_t i = 0; i < s->count; i++) {
		if (s->stores[i].older)
			continue;
		if (in_range(im, s->stores[i].word))
			im->slots[im->slot_count++].word = s->stores[i].word;
		else
			im->others[im->other_count++] = s->stores[i].word;
	}
	qsort(im->slots, im->slot_count, sizeof(*im->slots), by_word);
	number_lines(im);
	for (size_t i = 0; i < im->slot_count; i++)
		fill_slot(im, &im->slots[i]);
	return 0;
}

static uint64_t possible(const struct images *im)
{
	uint64_t n = im->other_count ? 2 : 1;

	for (size_t i = 0; i < im->slot_count; i++)
		n = times(n, im->slots[i].count);
	return n;
}

/* A copy tears at any byte: part of this value, the rest of one before it. */
static uint64_t torn(struct images *im, const struct slot *slot, const struct value *v)
{
	uint64_t before = im->values[slot->first + rng_below(&im->rng, slot->choice)].value;
	uint64_t mask = UINT64_MAX << (8 * rng_between(&im->rng, 1, 7));

	if (rng_chance(&im->rng, 1, 2))
		mask = ~mask;
	return (v->value & mask) | (before & ~mask);
}

static int show(struct images *im, int (*fn)(void *arg, const uint8_t *image, uint64_t n),
		void *arg, uint64_t n)
{
	const struct shadow *s = im->s;
	int r;

	for (size_t i = 0; i < im->slot_count; i++) {
		const struct slot *slot = &im->slots[i];
		const struct value *v = &im->values[slot->first + slot->choice];
		bool tear = im->tear && v->copied && slot->choice && rng_chance(&im->rng, 1, 16);

		im->scratch[slot->word] = tear ? torn(im, slot, v) : v->value;
	}
	for (size_t i = 0; im->others_new && i < im->other_count; i++)
		im->scratch[im->others[i]] = s->recorded[im->others[i]];
	r = fn(arg, (const uint8_t *)im->scratch, n);
	for (size_t i = 0; i < im->slot_count; i++)
		im->scratch[im->slots[i].word] = s->durable[im->slots[i].word];
	for (size_t i = 0; im->others_new && i < im->other_count; i++)
		im->scratch[im->others[i]] = s->durable[im->others[i]];
	return r;
}

/* The next of all choices, as an odometer; false after the last. */
static bool next_choice(struct images *im)
{
	for (size_t i = 0; i < im->slot_count; i++) {
		if (++im->slots[i].choice < im->slots[i].count)
			return true;
		im->slots[i].choice = 0;
	}
	im->others_new = !im->others_new && im->other_count;
	return im->others_new;
}

static uint32_t newest(const struct slot *slot)
{
	return slot->count - 1;
}

/* Slots of the line get one end of their history, all others the other. */
static void choose_line(struct images *im, size_t line, bool line_new)
{
	for (size_t i = 0; i < im->slot_count; i++) {
		struct slot *slot = &im->slots[i];

		slot->choice = (slot->line == line) == line_new ? newest(slot) : 0;
	}
}

static void choose_prefix(struct images *im)
{
	uint64_t age = rng_below(&im->rng, im->s->count + 1);
	bool strays = rng_chance(&im->rng, 1, 2);

	for (size_t i = 0; i < im->slot_count; i++) {
		struct slot *slot = &im->slots[i];

		slot->choice = newest(slot);
		while (slot->choice && im->values[slot->first + slot->choice].age > age)
			slot->choice--;
		if (strays && rng_chance(&im->rng, 1, 8))
			slot->choice = (uint32_t)rng_below(&im->rng, slot->count);
	}
}

static void choose_lines(struct images *im)
{
	uint64_t chance = rng_between(&im->rng, 1, 7);
	uint32_t line = UINT32_MAX;
	bool line_new = false;

	for (size_t i = 0; i < im->slot_count; i++) {
		struct slot *slot = &im->slots[i];

		if (slot->line != line)
			line_new = rng_chance(&im->rng, chance, 8);
		line = slot->line;
		slot->choice = line_new ? newest(slot) : 0;
	}
}

static void choose_words(struct images *im)
{
	for (size_t i = 0; i < im->slot_count; i++)
		im->slots[i].choice = (uint32_t)rng_below(&im->rng, im->slots[i].count);
}

static void choose_random(struct images *im)
{
	im->tear = rng_chance(&im->rng, 1, 2);
	switch (rng_below(&im->rng, 3)) {
	case 0:
		choose_prefix(im);
		break;
	case 1:
		choose_lines(im);
		break;
	default:
		choose_words(im);
	}
}

/* The nth image of a sample of max. */
static void choose(struct images *im, uint64_t n, uint64_t max)
{
	uint64_t plain = 2 * im->line_count;
	bool fits = plain <= max / 2;

	im->tear = false;
	im->others_new = n == 1 || (n > 1 && rng_chance(&im->rng, 1, 2));
	if (n < 2) {
		choose_line(im, SIZE_MAX, n == 0);
	} else if (n < 2 + (fits ? plain : max / 4)) {
		uint64_t pick = fits ? n - 2 : rng_below(&im->rng, plain);

		choose_line(im, pick / 2, pick % 2 == 0);
	} else {
		choose_random(im);
	}
}

int pm_shadow_images(struct pmem *pm, const struct pm_shadow_plan *plan,
		     int (*fn)(void *arg, const uint8_t *image, uint64_t n), void *arg,
		     uint64_t *ret_images, bool *ret_exhaustive)
{
	struct images im;
	uint64_t n = 0;
	bool all;
	int r;

	if (!plan->max)
		return -EINVAL;
	r = images_init(&im, to_shadow(pm), plan);
	if (r)
		return r;
	all = possible(&im) <= plan->max;
	if (all) {
		do {
			r = show(&im, fn, arg, n++);
		} while (!r && next_choice(&im));
	} else {
		while (!r && n < plan->max) {
			choose(&im, n, plan->max);
			r = show(&im, fn, arg, n++);
		}
	}
	images_free(&im);
	if (ret_images)
		*ret_images = n;
	if (ret_exhaustive)
		*ret_exhaustive = all;
	return r;
}

uint64_t pm_shadow_possible(const struct pmem *pm)
{
	const struct pm_shadow_plan plan = {.max = 1};
	struct images im;
	uint64_t n;

	if (images_init(&im, to_shadow(pm), &plan))
		return UINT64_MAX;
	n = possible(&im);
	images_free(&im);
	return n;
}
