/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Emulated persistent memory under power cuts: at every persistence point of its disk, in
 * formatting and in recovery.
 *
 * The memory holds words that only ever grow. For each the oracle knows what was fenced and what
 * was stored, and an image may show nothing below the one nor above the other. Some neighbours of
 * every word are written once, fenced, and never again.
 */
#include <errno.h>
#include <string.h>

#include "base/rng.h"
#include "dev/sim.h"
#include "lib/crash_report.h"
#include "lib/tap.h"
#include "pmem/emu.h"

#define OFF 4096
#define UNITS 6
#define LEN (4096 * (2 + 2 * UNITS))
#define WORDS 40

struct oracle {
	uint64_t fenced[WORDS], flushed[WORDS], stored[WORDS];
	bool neighbours; /* have been fenced */
};

static struct sim_world world;
static struct sim_disk *disk;
static struct dev *dev;
static struct pmem *pm;
static struct oracle oracle;
static struct rng rng;

/* Where images are explored. */
static struct {
	struct sim_world world;
	struct sim_disk *disk;
} there;

static size_t place(const struct pmem *of, int i)
{
	return (of->len_bytes / WORDS * (size_t)i) & ~(size_t)7;
}

static _Atomic uint64_t *word(struct pmem *of, int i)
{
	return (_Atomic uint64_t *)(of->base + place(of, i));
}

static void neighbour_of(int i, uint8_t ret[40])
{
	for (int k = 0; k < 40; k++)
		ret[k] = (uint8_t)(i * 7 + k + 1);
}

/* The image must be one that o allows; what it shows is fenced from then on. */
static void check(struct pmem *of, struct oracle *o)
{
	uint8_t want[40];

	for (int i = 0; i < WORDS; i++) {
		uint64_t v = pm_load8(word(of, i));

		if (v < o->fenced[i] || v > o->stored[i])
			crash_fail("word %d is %llu, not in %llu to %llu", i, (unsigned long long)v,
				   (unsigned long long)o->fenced[i],
				   (unsigned long long)o->stored[i]);
		neighbour_of(i, want);
		if (o->neighbours && memcmp(of->base + place(of, i) + 8, want, sizeof(want)))
			crash_fail("what lies beside word %d was destroyed", i);
		o->fenced[i] = o->flushed[i] = o->stored[i] = v;
	}
}

/* One operation; false when the fence failed, as it does without power. */
static bool step(struct pmem *of, struct oracle *o, struct rng *r)
{
	int first = (int)rng_below(r, WORDS), n = 1 + (int)rng_below(r, 5);
	bool flush = rng_chance(r, 3, 4);

	for (int i = first; i < first + n && i < WORDS; i++) {
		o->stored[i]++;
		if (!flush) {
			pm_store8(of, word(of, i), o->stored[i]);
			continue;
		}
		o->flushed[i] = o->stored[i];
		pm_publish8(of, word(of, i), o->stored[i]);
	}
	if (!rng_chance(r, 1, 2))
		return true;
	if (pm_fence(of))
		return false;
	for (int i = 0; i < WORDS; i++)
		if (o->fenced[i] < o->flushed[i])
			o->fenced[i] = o->flushed[i];
	return true;
}

static int open_there(struct dev **ret_dev, struct pmem **ret)
{
	struct err err = ERR_INIT;
	int r;

	CHECK_OK(sim_dev_open(there.disk, ret_dev));
	r = pm_emu_open(*ret_dev, OFF, LEN, ret, NULL, &err);
	if (r) {
		if (!there.world.power_off)
			crash_fail("cannot be opened: %s", err.text);
		dev_close(*ret_dev);
	}
	return r;
}

/* Recovery of the image, now and then cut itself; then more work, another cut, recovery again. */
static void explore(struct oracle o)
{
	struct dev *on;
	struct pmem *of;

	for (int generation = 0; generation < 3; generation++) {
		if (rng_chance(&rng, 1, 2))
			there.world.cut_at = there.world.events + 1 + rng_below(&rng, 12);
		while (open_there(&on, &of)) {
			CHECK_OK(sim_dev_crash(there.disk, &rng));
			sim_world_power_on(&there.world);
		}
		check(of, &o);
		for (int i = 0; i < 4 && step(of, &o, &rng); i++)
			;
		pm_close(of);
		/* The process dies, and perhaps the power goes too. */
		if (rng_chance(&rng, 2, 3) || there.world.power_off)
			CHECK_OK(sim_dev_crash(there.disk, &rng));
		else
			sim_dev_kill(on);
		dev_close(on);
		sim_world_power_on(&there.world);
	}
}

static void take_image(void)
{
	crash_trace_image(true);
	sim_world_init(&there.world, rng_next(&rng));
	CHECK_OK(sim_disk_new(&there.world, &(struct sim_disk_options){.size_bytes = 1 << 17},
			      &there.disk));
	CHECK_OK(sim_disk_image(disk, SIM_KEEP_RANDOM(rng_next(&rng)), there.disk));
	explore(oracle);
	sim_disk_free(there.disk);
	crash_trace_image(false);
}

static void on_event(struct sim_world *of, void *arg)
{
	(void)of;
	(void)arg;
	take_image();
}

static void start(uint64_t seed)
{
	const struct uuid uuid = uuid_from_bits(seed, 7);

	rng_seed(&rng, seed);
	memset(&oracle, 0, sizeof(oracle));
	sim_world_init(&world, seed);
	CHECK_OK(sim_disk_new(&world, &(struct sim_disk_options){.size_bytes = 1 << 17}, &disk));
	CHECK_OK(sim_dev_open(disk, &dev));
	CHECK_OK(pm_emu_format(dev, OFF, LEN, &uuid, NULL));
	CHECK_OK(pm_emu_open(dev, OFF, LEN, &pm, NULL, NULL));
}

static void finish(void)
{
	world.on_event = NULL;
	pm_close(pm);
	dev_close(dev);
	sim_disk_free(disk);
}

static void run(uint64_t seed)
{
	uint8_t buf[40];

	crash_begin("cuts_at_every_point", seed);
	start(seed);
	for (int i = 0; i < WORDS; i++) {
		neighbour_of(i, buf);
		pm_copy(pm, pm->base + place(pm, i) + 8, buf, sizeof(buf));
	}
	CHECK_OK(pm_fence(pm));
	oracle.neighbours = true;
	world.on_event = on_event;
	for (int i = 0; i < 20; i++) {
		CHECK(step(pm, &oracle, &rng));
		if (rng_chance(&rng, 1, 4))
			take_image();
	}
	finish();
}

TEST(cuts_at_every_point)
{
	uint64_t images = crash_images(10000), n = 0;
	bool only = false;

	/* About 150 images each. */
	do
		run(crash_seed(n, &only));
	while (!only && ++n * 150 < images);
}

/* What a process that was killed left in the cache of the disk is read, and may not vanish then. */
TEST(what_recovery_has_shown_stays)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		crash_begin("what_recovery_has_shown_stays", seed);
		start(seed);
		/* Batches that are written but not flushed: the fence fails at its flush. */
		CHECK_OK(sim_disk_fault(disk, &(struct sim_fault){.kind = SIM_DEV_ERROR,
								  .ops = 1u << DEV_WRITE,
								  .error = -EIO,
								  .nth = 3,
								  .times = 1}));
		for (int i = 0; i < WORDS; i++) {
			oracle.stored[i] = 1;
			pm_publish8(pm, word(pm, i), 1);
		}
		CHECK(pm_fence(pm) < 0);
		pm_close(pm);
		sim_dev_kill(dev);
		dev_close(dev);
		sim_disk_heal(disk);
		CHECK_OK(sim_dev_open(disk, &dev));
		CHECK_OK(pm_emu_open(dev, OFF, LEN, &pm, NULL, NULL));
		check(pm, &oracle);
		pm_close(pm);
		dev_close(dev);
		CHECK_OK(sim_disk_crash(disk, SIM_KEEP_NONE));
		CHECK_OK(sim_dev_open(disk, &dev));
		CHECK_OK(pm_emu_open(dev, OFF, LEN, &pm, NULL, NULL));
		check(pm, &oracle);
		finish();
	}
}

/* Formatting over an old memory, cut: the old one as it was, none, or the new one. */
static void check_format_image(void)
{
	struct err err = ERR_INIT;
	struct uuid uuid;
	struct pmem *of;
	struct dev *on;
	int r;

	sim_world_init(&there.world, rng_next(&rng));
	CHECK_OK(sim_disk_new(&there.world, &(struct sim_disk_options){.size_bytes = 1 << 17},
			      &there.disk));
	CHECK_OK(sim_disk_image(disk, SIM_KEEP_RANDOM(rng_next(&rng)), there.disk));
	CHECK_OK(sim_dev_open(there.disk, &on));
	r = pm_emu_open(on, OFF, LEN, &of, &uuid, &err);
	if (r && r != -ENODEV)
		crash_fail("a cut in formatting leaves: %s", err.text);
	if (!r) {
		uint8_t want = uuid.b[15] == 7 ? 5 : 0;

		for (size_t i = 0; i < of->len_bytes; i++)
			if (of->base[i] != want)
				crash_fail("byte %zu is %d, not %d", i, of->base[i], want);
		pm_close(of);
	}
	dev_close(on);
	sim_disk_free(there.disk);
}

static void on_format_event(struct sim_world *of, void *arg)
{
	(void)of;
	(void)arg;
	for (int i = 0; i < 8; i++)
		check_format_image();
}

TEST(formatting_is_cut)
{
	for (uint64_t seed = 1; seed <= 12; seed++) {
		const struct uuid uuid = uuid_from_bits(seed, 8);
		struct uuid found;

		crash_begin("formatting_is_cut", seed);
		start(seed);
		/* Twice: the newest copies are then where the new zeros go. */
		for (int i = 4; i <= 5; i++) {
			pm_set(pm, pm->base, i, pm->len_bytes);
			CHECK_OK(pm_fence(pm));
		}
		pm_close(pm);
		world.on_event = on_format_event;
		CHECK_OK(pm_emu_format(dev, OFF, LEN, &uuid, NULL));
		world.on_event = NULL;
		dev_close(dev);
		CHECK_OK(sim_disk_crash(disk, SIM_KEEP_NONE));
		CHECK_OK(sim_dev_open(disk, &dev));
		CHECK_OK(pm_emu_open(dev, OFF, LEN, &pm, &found, NULL));
		CHECK(uuid_equal(&uuid, &found));
		finish();
	}
}

/* Once it is freed no cut brings it back. */
TEST(what_was_freed_stays_free)
{
	for (uint64_t seed = 1; seed <= 8; seed++) {
		const struct uuid uuid = uuid_from_bits(seed, 9);
		struct err err = ERR_INIT;

		crash_begin("what_was_freed_stays_free", seed);
		start(seed);
		pm_close(pm);
		CHECK_OK(pm_emu_free(dev, OFF, LEN, &err));
		dev_close(dev);
		CHECK_OK(sim_disk_crash(disk, SIM_KEEP_NONE));
		CHECK_OK(sim_dev_open(disk, &dev));
		CHECK_EQ(pm_emu_open(dev, OFF, LEN, &pm, NULL, &err), -ENODEV);
		CHECK_OK(pm_emu_format(dev, OFF, LEN, &uuid, NULL));
		CHECK_OK(pm_emu_open(dev, OFF, LEN, &pm, NULL, NULL));
		finish();
	}
}
