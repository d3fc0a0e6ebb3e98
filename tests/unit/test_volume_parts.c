/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The parts of a volume that stand by themselves: range locks and the table of settings.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/tap.h"
#include "volume/rangelock.h"
#include "volume/settings.h"

/* ---- range locks --------------------------------------------------------------------------- */

static int grants;

static void note_grant(struct range *range)
{
	CHECK(range->granted);
	grants++;
}

static struct range exclusive(uint64_t start, uint64_t end)
{
	return (struct range){.start = start, .end = end, .exclusive = true};
}

TEST(ranges_that_do_not_meet_are_granted)
{
	struct range a = exclusive(0, 512), b = exclusive(512, 1024);
	struct rangelock lock;

	rangelock_init(&lock);
	CHECK(rangelock_add(&lock, &a));
	CHECK(rangelock_add(&lock, &b));
	CHECK(rangelock_meets(&lock, 1023, 1024));
	CHECK(!rangelock_meets(&lock, 1024, 2048));
	rangelock_del(&lock, &a, note_grant);
	rangelock_del(&lock, &b, note_grant);
	CHECK(!rangelock_meets(&lock, 0, 2048));
	CHECK_EQ(grants, 0);
}

TEST(a_later_range_does_not_pass_an_earlier_one)
{
	struct range a = exclusive(0, 512), b = exclusive(0, 4096), c = exclusive(1024, 1536);
	struct rangelock lock;

	rangelock_init(&lock);
	CHECK(rangelock_add(&lock, &a));
	CHECK(!rangelock_add(&lock, &b));
	/* c would be free of a, but b came first. */
	CHECK(!rangelock_add(&lock, &c));
	rangelock_del(&lock, &a, note_grant);
	CHECK(b.granted && !c.granted);
	rangelock_del(&lock, &b, note_grant);
	CHECK(c.granted);
	CHECK_EQ(grants, 2);
	rangelock_del(&lock, &c, note_grant);
}

TEST(shared_ranges_share)
{
	struct range a = exclusive(0, 512), b = {.start = 0, .end = 512}, c = b;
	struct rangelock lock;

	rangelock_init(&lock);
	CHECK(rangelock_add(&lock, &a));
	CHECK(!rangelock_add(&lock, &b));
	CHECK(!rangelock_add(&lock, &c));
	rangelock_del(&lock, &a, note_grant);
	CHECK(b.granted && c.granted);
	/* Shared ones alone are met by nobody. */
	CHECK(!rangelock_meets(&lock, 0, 512));
	rangelock_del(&lock, &b, note_grant);
	rangelock_del(&lock, &c, note_grant);
}

TEST(what_exceeds_the_bound_waits_in_line)
{
	struct range ranges[RANGELOCK_MAX + 10];
	struct rangelock lock;

	rangelock_init(&lock);
	for (unsigned int i = 0; i < RANGELOCK_MAX + 10; i++) {
		ranges[i] = exclusive(i * 512, i * 512 + 512);
		CHECK_EQ(rangelock_add(&lock, &ranges[i]), i < RANGELOCK_MAX);
	}
	for (unsigned int i = 0; i < RANGELOCK_MAX + 10; i++) {
		CHECK(ranges[i].granted);
		rangelock_del(&lock, &ranges[i], note_grant);
	}
	CHECK_EQ(grants, 10);
	CHECK_EQ(lock.count, 0);
}

/* ---- settings ------------------------------------------------------------------------------ */

TEST(every_setting_reads_back_what_it_writes)
{
	struct volume_config *cfg = malloc(sizeof(*cfg)), *again = malloc(sizeof(*again));
	char text[SETTING_TEXT_LEN], text2[SETTING_TEXT_LEN];

	settings_default(cfg);
	settings_default(again);
	snprintf(cfg->store, sizeof(cfg->store), "dir:/a/b");
	snprintf(cfg->backing, sizeof(cfg->backing), "/b");
	snprintf(cfg->cache, sizeof(cfg->cache), "/c");
	snprintf(cfg->template_name, sizeof(cfg->template_name), "t");
	cfg->size_bytes = 1536 << 20;
	cfg->cache_bytes = 1 << 20;
	for (unsigned int i = 0; i < settings_count; i++) {
		const struct setting *setting = &settings_table[i];
		struct err err = ERR_INIT;
		int rc;

		settings_get(cfg, setting, text);
		rc = settings_set(again, setting, text, &err);
		test_note("%s = %s: %s", setting->key, text, err.text);
		CHECK_OK(rc);
		settings_get(again, setting, text2);
		CHECK_STREQ(text, text2);
		CHECK(settings_find(setting->key, strlen(setting->key)) == setting);
		CHECK(strlen(setting->help) > 5);
	}
	free(cfg);
	free(again);
}

static void refused(const char *text, const char *why)
{
	const char *const list[] = {text, NULL};
	struct volume_config *cfg = malloc(sizeof(*cfg)), *before = malloc(sizeof(*before));
	struct err err = ERR_INIT;

	settings_default(cfg);
	memcpy(before, cfg, sizeof(*cfg));
	CHECK_EQ(settings_apply(cfg, list, &err), -EINVAL);
	test_note("%s -> %s", text, err.text);
	CHECK(strstr(err.text, why) != NULL);
	CHECK_EQ(cfg->given, 0);
	CHECK(!memcmp(cfg, before, sizeof(*cfg)));
	free(cfg);
	free(before);
}

TEST(bad_values_are_refused_with_what_is_allowed)
{
	refused("size=12x", "a size such as");
	refused("size=", "a size such as");
	refused("block_size=1000", "a power of two");
	refused("block_size=8K", "512 to 4K");
	refused("buffers=3", "from 4 to 65536");
	refused("buffers=4K", "a number");
	refused("buffers=99999999999999999999", "a number");
	refused("batch_age=2", "a duration");
	refused("hold=maybe", "yes or no");
	refused("cache= /x", "without blanks");
	refused("colour=red", "unknown setting colour; there are: type size");
	refused("size", "KEY=VALUE");
	refused("batch_size=1G", "4K to 512M");
}
