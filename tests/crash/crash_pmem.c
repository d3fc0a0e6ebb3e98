/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent memory: the order "data, fence, publish, fence" under every crash that the simulated
 * memory knows, the same with each step left out, and the system calls of a real mapping, for which
 * the functions defined here stand in.
 */
#include <errno.h>
#include <fcntl.h>
#include <libpmem.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/rng.h"
#include "lib/tap.h"
#include "pmem/pmem.h"
#include "pmem/shadow.h"

#define SLOTS 4
#define DATA_BYTES 128
#define ENTRIES_AT 4096
#define LEN 8192

/*
 * What the stand-ins have seen: m a successful msync, f fsync of a file, d of a directory; of
 * libpmem c a copy, s a set, w a write-back, D the wait for all of them.
 */
static struct {
	char trace[64];
	const void *addr;
	size_t len;
	int msync_error, fsync_error;
	bool grant_sync; /* the kernel says that a mapping is the medium itself */
	int auto_flush;  /* the processor's caches are persistent */
} sys;

static void note(char c)
{
	size_t len = strlen(sys.trace);

	if (len + 1 < sizeof(sys.trace))
		sys.trace[len] = c;
}

int msync(void *addr, size_t len, int flags)
{
	CHECK_EQ(flags, MS_SYNC);
	sys.addr = addr;
	sys.len = len;
	if (sys.msync_error) {
		errno = sys.msync_error;
		return -1;
	}
	note('m');
	return (int)syscall(SYS_msync, addr, len, flags);
}

int fsync(int fd)
{
	struct stat st;

	CHECK_OK(fstat(fd, &st));
	if (sys.fsync_error) {
		errno = sys.fsync_error;
		return -1;
	}
	note(S_ISDIR(st.st_mode) ? 'd' : 'f');
	return (int)syscall(SYS_fsync, fd);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (sys.grant_sync && (flags & MAP_SYNC))
		flags = MAP_SHARED;
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

int pmem_has_auto_flush(void)
{
	return sys.auto_flush;
}

void pmem_flush(const void *addr, size_t len)
{
	sys.addr = addr;
	sys.len = len;
	note('w');
}

void pmem_drain(void)
{
	note('D');
}

void *pmem_memcpy_nodrain(void *dst, const void *src, size_t len)
{
	note('c');
	return memcpy(dst, src, len);
}

void *pmem_memset_nodrain(void *dst, int c, size_t len)
{
	note('s');
	return memset(dst, c, len);
}

/* A step of the protocol that a test leaves out. */
enum omit {
	OMIT_NOTHING,
	OMIT_DATA_FENCE,
	OMIT_ENTRY_FLUSH,
	OMIT_LAST_FENCE,
	OMIT_PRIMITIVE, /* the data is stored by memcpy */
};

struct run {
	enum omit omit;
	bool by_publish;
	uint64_t acked[SLOTS];   /* the newest version of each slot that was acknowledged */
	uint64_t started[SLOTS]; /* that was begun */
	uint64_t images;
	unsigned broken; /* images that break a promise */
	unsigned escapes;
};

/* Each version of a slot has its own place for data, so that none is overwritten. */
static size_t data_at(int slot, uint64_t version)
{
	return ((size_t)slot * 8 + version % 8) * DATA_BYTES;
}

static void data_of(int slot, uint64_t version, uint8_t *ret)
{
	for (size_t i = 0; i < DATA_BYTES; i++)
		ret[i] = (uint8_t)(1 + (uint64_t)slot * 37 + version * 11 + i);
}

static int look(void *arg, const uint8_t *image, uint64_t n)
{
	struct run *run = arg;
	uint8_t want[DATA_BYTES];
	uint64_t entry[SLOTS];

	(void)n;
	run->images++;
	memcpy(entry, image + ENTRIES_AT, sizeof(entry));
	for (int i = 0; i < SLOTS; i++) {
		data_of(i, entry[i], want);
		run->broken += entry[i] < run->acked[i] || entry[i] > run->started[i] ||
			       (entry[i] && memcmp(image + data_at(i, entry[i]), want, DATA_BYTES));
	}
	return 0;
}

static void on_point(struct pmem *pm, enum pm_shadow_point point, void *arg)
{
	struct run *run = arg;
	const struct pm_shadow_plan plan = {.max = 64, .seed = test_seed() + run->images};

	(void)point;
	CHECK_OK(pm_shadow_images(pm, &plan, look, run, NULL, NULL));
}

static void on_escape(struct pmem *pm, size_t off_bytes, void *arg)
{
	(void)pm;
	(void)off_bytes;
	((struct run *)arg)->escapes++;
}

static void write_slot(struct pmem *pm, struct run *run, int slot)
{
	_Atomic uint64_t *entry = (_Atomic uint64_t *)(pm->base + ENTRIES_AT) + slot;
	uint64_t version = ++run->started[slot];
	uint8_t data[DATA_BYTES];

	data_of(slot, version, data);
	if (run->omit == OMIT_PRIMITIVE)
		memcpy(pm->base + data_at(slot, version), data, DATA_BYTES);
	else
		pm_copy(pm, pm->base + data_at(slot, version), data, DATA_BYTES);
	if (run->omit != OMIT_DATA_FENCE)
		CHECK_OK(pm_fence(pm));
	if (run->by_publish) {
		pm_publish8(pm, entry, version);
	} else {
		pm_store8(pm, entry, version);
		if (run->omit != OMIT_ENTRY_FLUSH)
			pm_flush(pm, entry, sizeof(*entry));
	}
	if (run->omit != OMIT_LAST_FENCE)
		CHECK_OK(pm_fence(pm));
	run->acked[slot] = version;
}

static struct run run_protocol(enum omit omit, bool by_publish)
{
	struct run run = {.omit = omit, .by_publish = by_publish};
	struct pm_shadow_options opt = {.len_bytes = LEN,
					.every_primitive = true,
					.on_point = on_point,
					.on_escape = on_escape,
					.arg = &run};
	struct pmem *pm;
	struct rng rng;

	rng_seed(&rng, test_seed());
	CHECK_OK(pm_shadow_open(&opt, &pm));
	for (int i = 0; i < 24; i++)
		write_slot(pm, &run, (int)rng_below(&rng, SLOTS));
	pm_close(pm);
	return run;
}

TEST(published_records_are_whole_and_acknowledged_ones_stay)
{
	CHECK_EQ(run_protocol(OMIT_NOTHING, false).broken, 0);
}

TEST(the_same_by_publish)
{
	struct run run = run_protocol(OMIT_NOTHING, true);

	CHECK_EQ(run.broken, 0);
	CHECK_EQ(run.escapes, 0);
	CHECK(run.images > 1000);
}

TEST(each_step_left_out_is_noticed)
{
	CHECK(run_protocol(OMIT_DATA_FENCE, false).broken > 0);
	CHECK(run_protocol(OMIT_DATA_FENCE, true).broken > 0);
	CHECK(run_protocol(OMIT_ENTRY_FLUSH, false).broken > 0);
	CHECK(run_protocol(OMIT_LAST_FENCE, false).broken > 0);
	CHECK(run_protocol(OMIT_LAST_FENCE, true).broken > 0);
	CHECK(run_protocol(OMIT_PRIMITIVE, true).escapes > 0);
}

static struct pmem *create(enum pm_force force)
{
	const struct pm_options opt = {.create = true, .create_bytes = 1 << 20, .force = force};
	struct err err = ERR_INIT;
	struct pmem *pm;
	char path[512];

	snprintf(path, sizeof(path), "%s/pool", test_tmpdir());
	if (pm_open(path, &opt, &pm, &err))
		FAIL("%s", err.text);
	return pm;
}

TEST(a_new_file_is_durable_with_its_name)
{
	pm_close(create(PM_FORCE_MSYNC));
	CHECK_STREQ(sys.trace, "fd");
}

TEST(a_file_that_cannot_be_made_durable_is_not_made)
{
	const struct pm_options opt = {.create = true, .create_bytes = 1 << 20};
	struct pmem *pm;
	struct stat st;
	char path[512];

	sys.fsync_error = EIO;
	snprintf(path, sizeof(path), "%s/pool", test_tmpdir());
	CHECK_EQ(pm_open(path, &opt, &pm, NULL), -EIO);
	CHECK(stat(path, &st) && errno == ENOENT);
}

TEST(a_fence_is_one_msync_of_all_that_was_flushed)
{
	struct pmem *pm = create(PM_FORCE_MSYNC);

	memset(&sys, 0, sizeof(sys));
	pm_copy(pm, pm->base + 70000, "a", 1);
	pm_publish8(pm, (_Atomic uint64_t *)(pm->base + 8192), 1);
	pm_set(pm, pm->base + 40000, 1, 5000);
	CHECK_STREQ(sys.trace, "");
	CHECK_OK(pm_fence(pm));
	CHECK_STREQ(sys.trace, "m");
	CHECK_EQ(sys.addr, pm->base + 8192);
	CHECK_EQ(sys.len, 70001 - 8192);
	/* There is nothing left to do, and then something again. */
	CHECK_OK(pm_fence(pm));
	CHECK_STREQ(sys.trace, "m");
	CHECK_OK(pm_persist(pm, pm->base + 100, 8));
	CHECK_STREQ(sys.trace, "mm");
	CHECK_EQ(sys.addr, pm->base);
	CHECK_EQ(sys.len, 108);
	pm_close(pm);
}

TEST(a_failed_msync_stays_failed)
{
	struct pmem *pm = create(PM_FORCE_MSYNC);

	sys.msync_error = EIO;
	CHECK_EQ(pm_persist(pm, pm->base, 8), -EIO);
	sys.msync_error = 0;
	memset(sys.trace, 0, sizeof(sys.trace));
	CHECK_EQ(pm_fence(pm), -EIO);
	CHECK_EQ(pm_persist(pm, pm->base, 8), -EIO);
	CHECK_STREQ(sys.trace, "");
	pm_close(pm);
}

/* Data, fence, publish, fence, as the processor gets them; nothing is asked of the file system. */
static void check_instructions(struct pmem *pm)
{
	memset(sys.trace, 0, sizeof(sys.trace));
	pm_copy(pm, pm->base + 4096, "data", 4);
	pm_set(pm, pm->base + 8192, 0, 100);
	CHECK_OK(pm_fence(pm));
	pm_publish8(pm, (_Atomic uint64_t *)pm->base, 1);
	CHECK_OK(pm_fence(pm));
	CHECK_STREQ(sys.trace, "csDwD");
	CHECK_EQ(sys.addr, pm->base);
	CHECK_EQ(sys.len, 8);
	CHECK_OK(pm_persist(pm, pm->base + 64, 300));
	CHECK_OK(pm_write(pm, pm->base, "data", 4));
	CHECK_STREQ(sys.trace, "csDwDwDcD");
	pm_close(pm);
}

TEST(forced_memory_is_written_back_and_not_synced)
{
	struct pmem *pm = create(PM_FORCE_PMEM);

	CHECK_STREQ(pm_mode_text(pm), "forced");
	CHECK(!pm_is_proven(pm));
	check_instructions(pm);
}

TEST(a_mapping_that_is_the_medium_is_proven)
{
	struct pmem *pm;

	sys.grant_sync = true;
	pm = create(PM_FORCE_PROOF);
	CHECK_EQ(pm->mode, PM_CACHE_LINES);
	CHECK_STREQ(pm_mode_text(pm), "cache lines");
	CHECK(pm_is_proven(pm));
	check_instructions(pm);
}

TEST(persistent_caches_are_told)
{
	struct pmem *pm;

	sys.grant_sync = true;
	sys.auto_flush = 1;
	pm = create(PM_FORCE_PROOF);
	CHECK_EQ(pm->mode, PM_EADR);
	CHECK_STREQ(pm_mode_text(pm), "eADR");
	CHECK(pm_is_proven(pm));
	check_instructions(pm);
}

TEST(persistent_caches_prove_nothing_of_a_page_cache)
{
	struct pmem *pm;

	sys.auto_flush = 1;
	pm = create(PM_FORCE_PROOF);
	CHECK_EQ(pm->mode, PM_MSYNC);
	pm_close(pm);
}
