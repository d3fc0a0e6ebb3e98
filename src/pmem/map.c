/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent memory that is mapped: opening, and the primitives on it.
 *
 * Purpose. Stores into a mapping become durable in one of two ways, and only the kernel knows
 * which: if it grants MAP_SYNC, the mapping is the medium itself, and writing back cache lines is
 * enough (libpmem has the instructions of each processor, and knows when the caches themselves are
 * persistent). If it refuses, the mapping is the page cache, however fast the disk may be, and
 * msync alone makes it durable. The path says nothing: a file of a DAX file system may be one that
 * is not DAX, and virtio-pmem is persistent memory that needs its host to be asked.
 *
 * Data structure, for msync. One range that spans every flush since the last fence; a fence is one
 * msync of it. Between two dirty pages lie clean ones, which msync skips, or such as somebody is
 * about to flush anyway; to write these early costs less than a second msync, since each ends in a
 * commit of the file system and a flush of its device.
 *
 * Durable when: with cache lines, eADR and force, at the return of the fence after the flush or the
 * copy; with msync, at the return of the msync of a round that began after the flush (gather.c).
 * msync does not tell a torn sector: it is as good as the device is for its file system.
 *
 * Invariants.
 *  1. lo..hi covers everything noted in the current round; lo >= hi if there is nothing.
 *  2. sync_lo, sync_hi are the running round's alone.
 *
 * Locks. gather's, for lo and hi. The mapping is never touched under it: a fault could not unlock.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/list.h"
#include "base/mutant.h"
#include "pmem/gather.h"
#include "pmem/guard.h"
#include "pmem/map_impl.h"

struct mapping {
	struct pmem pm;
	struct map_file file;
	size_t page_bytes;
	size_t map_bytes; /* len_bytes in whole pages */
	struct guard_region *region;
	struct gather gather;
	bool gather_ready;
	size_t lo, hi;           /* offsets; under gather.lock */
	size_t sync_lo, sync_hi; /* of the round that runs */
};

static struct mapping *to_mapping(struct pmem *pm)
{
	return container_of(pm, struct mapping, pm);
}

static void direct_copy(struct pmem *pm, void *dst, const void *src, size_t len)
{
	(void)pm;
	pmem_memcpy_nodrain(dst, src, len);
}

static void direct_set(struct pmem *pm, void *dst, int c, size_t len)
{
	(void)pm;
	pmem_memset_nodrain(dst, c, len);
}

static void direct_flush(struct pmem *pm, const void *addr, size_t len)
{
	(void)pm;
	pmem_flush(addr, len);
}

static int direct_fence(struct pmem *pm)
{
	(void)pm;
	pmem_drain();
	return 0;
}

static void plain_store8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t value)
{
	(void)pm;
	atomic_store_explicit(dst, value, memory_order_release);
}

static bool plain_cas8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t *expected, uint64_t value)
{
	(void)pm;
	return atomic_compare_exchange_strong_explicit(dst, expected, value, memory_order_acq_rel,
						       memory_order_acquire);
}

static void msync_flush(struct pmem *pm, const void *addr, size_t len)
{
	struct mapping *m = to_mapping(pm);
	size_t off = (size_t)((uintptr_t)addr - (uintptr_t)pm->base);

	if (!len)
		return;
	gather_begin(&m->gather);
	if (m->lo >= m->hi) {
		m->lo = off;
		m->hi = off + len;
	}
	m->lo = off < m->lo ? off : m->lo;
	m->hi = off + len > m->hi ? off + len : m->hi;
	gather_end(&m->gather);
}

static void msync_copy(struct pmem *pm, void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	msync_flush(pm, dst, len);
}

static void msync_set(struct pmem *pm, void *dst, int c, size_t len)
{
	memset(dst, c, len);
	msync_flush(pm, dst, len);
}

static void msync_take(void *owner)
{
	struct mapping *m = owner;

	m->sync_lo = m->lo / m->page_bytes * m->page_bytes;
	m->sync_hi = m->hi;
	m->lo = 0;
	m->hi = 0;
}

static int msync_run(void *owner)
{
	struct mapping *m = owner;

	if (VARVE_STEP("pmem.msync") &&
	    msync(m->pm.base + m->sync_lo, m->sync_hi - m->sync_lo, MS_SYNC))
		return -errno;
	return 0;
}

static int msync_fence(struct pmem *pm)
{
	static const struct gather_ops ops = {.take = msync_take, .run = msync_run};
	struct mapping *m = to_mapping(pm);

	/* As the instruction would: other threads see what came before it before what follows. */
	atomic_thread_fence(memory_order_seq_cst);
	return gather_fence(&m->gather, &ops, m);
}

static void map_close(struct pmem *pm)
{
	struct mapping *m = to_mapping(pm);

	if (pm->base) {
		guard_remove(m->region);
		munmap(pm->base, m->map_bytes);
	}
	if (m->gather_ready)
		gather_destroy(&m->gather);
	map_file_close(&m->file);
	free(m);
}

static const struct pmem_ops direct_ops = {
	.name = "direct",
	.copy = direct_copy,
	.set = direct_set,
	.store8 = plain_store8,
	.cas8 = plain_cas8,
	.flush = direct_flush,
	.fence = direct_fence,
	.close = map_close,
};

static const struct pmem_ops msync_ops = {
	.name = "msync",
	.copy = msync_copy,
	.set = msync_set,
	.store8 = plain_store8,
	.cas8 = plain_cas8,
	.flush = msync_flush,
	.fence = msync_fence,
	.close = map_close,
};

/* An address that is free and aligned, as a hint: where another thread was faster, any will do. */
static void *aligned_hint(size_t len, size_t align)
{
	void *at = mmap(NULL, len + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			-1, 0);

	if (at == MAP_FAILED)
		return NULL;
	munmap(at, len + align);
	return (void *)(((uintptr_t)at + align - 1) & ~(uintptr_t)(align - 1));
}

/* Maps it all. ret_proven: the kernel says that the mapping is the medium itself. */
static int map_all(struct mapping *m, const struct pm_options *opt, bool *ret_proven)
{
	int prot = PROT_READ | (opt->read_only ? 0 : PROT_WRITE);
	void *hint = aligned_hint(m->map_bytes, m->file.align_bytes);
	void *at = mmap(hint, m->map_bytes, prot, MAP_SHARED_VALIDATE | MAP_SYNC, m->file.fd, 0);

	*ret_proven = at != MAP_FAILED;
	/* EINVAL: a kernel so old that it does not know the flags. */
	if (at == MAP_FAILED && (errno == EOPNOTSUPP || errno == EINVAL))
		at = mmap(hint, m->map_bytes, prot, MAP_SHARED, m->file.fd, 0);
	if (at == MAP_FAILED)
		return -errno;
	/* A hint, which most file systems have no use for. */
	(void)madvise(at, m->map_bytes, MADV_HUGEPAGE);
	/* Where it cannot be done now it is done when the page is touched. */
	if (opt->prefault)
		(void)madvise(at, m->map_bytes,
			      opt->read_only ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
	m->pm.base = at;
	return 0;
}

static enum pm_force force_from_environment(void)
{
	const char *text = getenv("PMEM_IS_PMEM_FORCE");
	long v = text ? strtol(text, NULL, 10) : -1;

	if (v == 1)
		return PM_FORCE_PMEM;
	return v == 0 ? PM_FORCE_MSYNC : PM_FORCE_PROOF;
}

static void choose_mode(struct pmem *pm, enum pm_force force, bool proven)
{
	const char *no_flush = getenv("PMEM_NO_FLUSH");

	if (force == PM_FORCE_ENVIRONMENT)
		force = force_from_environment();
	pm->forced = force != PM_FORCE_PROOF;
	if (force == PM_FORCE_MSYNC || (force == PM_FORCE_PROOF && !proven)) {
		pm->mode = PM_MSYNC;
		pm->ops = &msync_ops;
		return;
	}
	pm->ops = &direct_ops;
	pm->direct = true;
	pm->mode = PM_CACHE_LINES;
	if (no_flush && !strcmp(no_flush, "1")) {
		pm->mode = PM_EADR;
		pm->forced = true;
	} else if (!no_flush && pmem_has_auto_flush() == 1) {
		pm->mode = PM_EADR;
	}
}

static int map_open(const char *path, const struct pm_options *opt, struct mapping *m,
		    struct err *err)
{
	bool proven;
	int r;

	m->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	m->pm.len_bytes = (size_t)m->file.size_bytes;
	m->map_bytes = (m->pm.len_bytes + m->page_bytes - 1) / m->page_bytes * m->page_bytes;
	m->pm.read_only = opt->read_only;
	r = gather_init(&m->gather);
	if (r)
		return err_sys(err, r, "%s", path);
	m->gather_ready = true;
	r = map_all(m, opt, &proven);
	if (r)
		return err_sys(err, r, "%s: cannot be mapped", path);
	r = guard_add(m->pm.base, m->map_bytes, &m->region);
	if (r)
		return err_sys(err, r, "%s: its faults cannot be caught", path);
	choose_mode(&m->pm, opt->force, proven);
	return 0;
}

int pm_open(const char *path, const struct pm_options *opt, struct pmem **ret, struct err *err)
{
	static const struct pm_options defaults;
	struct mapping *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_sys(err, -ENOMEM, "%s", path);
	if (!opt)
		opt = &defaults;
	r = map_file_open(path, opt, &m->file, err);
	if (r) {
		free(m);
		return r;
	}
	r = map_open(path, opt, m, err);
	if (r) {
		if (opt->create)
			unlink(path);
		map_close(&m->pm);
		return r;
	}
	*ret = &m->pm;
	return 0;
}

const char *pm_mode_text(const struct pmem *pm)
{
	switch (pm->mode) {
	case PM_MSYNC:
		return pm->forced ? "forced msync" : "msync";
	case PM_EMU:
		return "emu";
	case PM_SHADOW:
		return "shadow";
	case PM_EADR:
		return pm->forced ? "forced" : "eADR";
	default:
		return pm->forced ? "forced" : "cache lines";
	}
}
