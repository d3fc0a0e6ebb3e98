/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent memory behind one vtable: a mapping (pm_open(), below), emu.h on a block device,
 * shadow.h for crash tests. All have memory at base that is read by ordinary loads; what differs
 * is how a store becomes durable. (The names are pm_*, because libpmem has pmem_*.)
 *
 * Stores. Whatever is to be durable is stored by these, and by nothing else; shadow notices others.
 *
 *   pm_copy, pm_set   bulk; need no flush, only a fence. Not atomic, not even in 8 bytes. Weakly
 *                     ordered: until a fence, other threads too may see them after later stores
 *   pm_store8         8 bytes, aligned, atomic; release. Needs a flush of its line, then a fence
 *   pm_cas8           the same by compare and swap; acquire and release
 *   pm_publish8       pm_store8 and the flush
 *   pm_flush          starts the write-back of the lines of a range: what they held when it was
 *                     called, stored by whichever thread, is durable after this thread's next fence
 *   pm_fence          waits for this thread's copies and flushes. May fail, see below
 *   pm_persist        pm_flush, then pm_fence
 *
 * The order that makes a record appear as a whole or not at all:
 *
 *	pm_copy(pm, block, data, len);       data
 *	r = pm_fence(pm);                    fence: else the word could be durable before its data
 *	pm_publish8(pm, &entry, word);       publish
 *	r = pm_fence(pm);                    fence: only now may anybody be told
 *
 * What a crash leaves. A store that is covered by a fence is there. Any other may be there or not,
 * each aligned 8 bytes for itself, at any time and in any order: lines are evicted when the
 * processor likes. The order of stores to one line is not promised (a processor keeps it for
 * cached stores, a page that is written while it changes does not). What pm_store8 and pm_cas8
 * stored is never torn; a copy is, at any byte.
 *
 * Failure. Where a fence costs a system call (msync, emu) it may fail; the state of everything not
 * fenced before is then unknown, since what could not be written may no longer count as dirty. So
 * the error is sticky: every later fence fails with it until the memory is closed. The others
 * (cache lines, eADR, forced) never fail. Callers check always.
 *
 * Faults. A load or store of a page that the medium cannot give (poison, an I/O error, a file that
 * was cut short) raises SIGBUS. Inside pm_guarded() it becomes -EIO, elsewhere it goes to the
 * handler before ours, as a rule to the process's death. So every operation that an outside caller
 * starts enters a guard once (5 ns or so), and so does every scan at opening; single loads need
 * none of their own. pm_read() is guarded by itself. What the function in the guard held when it
 * faulted it does not give back: take locks and lanes outside, do not allocate inside, and write
 * what must be undone to memory that outlives it. Its unfenced stores are as after a crash.
 *
 * Threads. All but open and close from any thread at once. A fence covers its own thread's copies
 * and flushes alone. No function calls back. pm_fence may sleep (msync, emu): not under a lock that
 * others need quickly, unless they would wait for the same fence anyway.
 *
 * Fork: the child may close, and nothing else.
 */
#ifndef PMEM_PMEM_H
#define PMEM_PMEM_H

#include <libpmem.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mutant.h"

/* What a flush writes back at once, and the unit to keep apart what different threads write. */
#define PM_LINE_BYTES 64u

/* What base is aligned to at least, in every kind. */
#define PM_ALIGN_BYTES 4096u

/* How a store becomes durable. */
enum pm_mode {
	PM_CACHE_LINES, /* the lines are written back, then a fence */
	PM_EADR,        /* the caches are in the persistence domain: a fence */
	PM_MSYNC,       /* msync at the fence */
	PM_EMU,         /* writes and a flush of a block device at the fence */
	PM_SHADOW,      /* simulated */
};

struct pmem;

struct pmem_ops {
	const char *name;
	void (*copy)(struct pmem *pm, void *dst, const void *src, size_t len);
	void (*set)(struct pmem *pm, void *dst, int c, size_t len);
	void (*store8)(struct pmem *pm, _Atomic uint64_t *dst, uint64_t value);
	bool (*cas8)(struct pmem *pm, _Atomic uint64_t *dst, uint64_t *expected, uint64_t value);
	void (*flush)(struct pmem *pm, const void *addr, size_t len);
	int (*fence)(struct pmem *pm);
	void (*close)(struct pmem *pm);
};

struct pmem {
	const struct pmem_ops *ops;
	uint8_t *base;
	size_t len_bytes;
	enum pm_mode mode;
	bool forced;    /* the mode is what the user said, not what the mapping proves */
	bool read_only; /* stores to base fault */
	/*
	 * libpmem's instructions do it all (cache lines, eADR, forced): then the functions below
	 * call them without the vtable, whose functions do the same.
	 */
	bool direct;
};

/*
 * The environment, as libpmem reads it: PMEM_IS_PMEM_FORCE=1 makes any mapping count as persistent
 * memory, =0 none; PMEM_NO_FLUSH=1 says that the caches are persistent.
 */
enum pm_force {
	PM_FORCE_ENVIRONMENT, /* what the environment says; without it what the mapping proves */
	PM_FORCE_PROOF,       /* what the mapping proves, whatever the environment says */
	PM_FORCE_PMEM,        /* as PMEM_IS_PMEM_FORCE=1 */
	PM_FORCE_MSYNC,       /* as PMEM_IS_PMEM_FORCE=0 */
};

struct pm_options {
	bool read_only;
	bool create;           /* make a regular file; -EEXIST if the name is taken */
	uint64_t create_bytes; /* create: its size, > 0; allocated, durable, and zeros */
	mode_t mode;           /* create: its permissions; 0: 0600 */
	/*
	 * Holes are left as they are. Without it every hole of a regular file is filled when it is
	 * opened for writing, so that a full file system is -ENOSPC now and no fault later.
	 */
	bool sparse;
	bool prefault; /* map every page now, not when it is first touched */
	enum pm_force force;
};

/*
 * Maps a regular file, a device-dax or a block device, whole. How stores become durable is chosen
 * by what the mapping proves: with MAP_SYNC (a DAX file system, device-dax) cache lines or eADR,
 * else msync.
 * It is held exclusively (shared, if read-only) against every other opening by this, by dev/file
 * and by libpmem's tools, in this process or another.
 * base is aligned to 2 MiB. opt NULL: the defaults. After -ENOSPC and the like no file is left.
 *
 * -EBUSY in use; -EEXIST, -ENOENT, -EACCES; -ENOSPC; -EINVAL an empty file, or of a kind that
 * cannot be mapped; each with its text.
 */
int pm_open(const char *path, const struct pm_options *opt, struct pmem **ret, struct err *err);

/* Gives back the mapping and the lock. It is no fence. pm NULL: nothing. */
static inline void pm_close(struct pmem *pm)
{
	if (pm)
		pm->ops->close(pm);
}

/* "cache lines", "eADR", "msync", "forced", "forced msync", "emu", "shadow": for status. */
const char *pm_mode_text(const struct pmem *pm);

/* Whether an acknowledged store survives a power cut by proof: not by force, not simulated. */
static inline bool pm_is_proven(const struct pmem *pm)
{
	return !pm->forced && pm->mode != PM_SHADOW;
}

/* Whether [addr, addr + len) lies in the memory. */
static inline bool pm_contains(const struct pmem *pm, const void *addr, size_t len)
{
	uintptr_t off = (uintptr_t)addr - (uintptr_t)pm->base;

	return off <= pm->len_bytes && len <= pm->len_bytes - off;
}

/* Non-temporal above 256 bytes, else stores with their flush: in both cases a fence is missing. */
static inline void pm_copy(struct pmem *pm, void *dst, const void *src, size_t len)
{
	if (pm->direct)
		pmem_memcpy_nodrain(dst, src, len);
	else
		pm->ops->copy(pm, dst, src, len);
}

static inline void pm_set(struct pmem *pm, void *dst, int c, size_t len)
{
	if (pm->direct)
		pmem_memset_nodrain(dst, c, len);
	else
		pm->ops->set(pm, dst, c, len);
}

static inline void pm_flush(struct pmem *pm, const void *addr, size_t len)
{
	if (!pm->direct)
		pm->ops->flush(pm, addr, len);
	else if (VARVE_STEP("pmem.write_back"))
		pmem_flush(addr, len);
}

/* 0 or a negative errno, which stays. */
static inline int pm_fence(struct pmem *pm)
{
	if (!pm->direct)
		return pm->ops->fence(pm);
	if (VARVE_STEP("pmem.drain"))
		pmem_drain();
	return 0;
}

static inline int pm_persist(struct pmem *pm, const void *addr, size_t len)
{
	pm_flush(pm, addr, len);
	return pm_fence(pm);
}

static inline uint64_t pm_load8(const _Atomic uint64_t *src)
{
	return atomic_load_explicit(src, memory_order_acquire);
}

static inline void pm_store8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t value)
{
	if (pm->mode != PM_SHADOW)
		atomic_store_explicit(dst, value, memory_order_release);
	else
		pm->ops->store8(pm, dst, value);
}

/* True when *dst was *expected and is value now; else *expected is what it was. Never spurious. */
static inline bool pm_cas8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t *expected,
			   uint64_t value)
{
	if (pm->mode != PM_SHADOW)
		return atomic_compare_exchange_strong_explicit(
			dst, expected, value, memory_order_acq_rel, memory_order_acquire);
	return pm->ops->cas8(pm, dst, expected, value);
}

static inline void pm_publish8(struct pmem *pm, _Atomic uint64_t *dst, uint64_t value)
{
	pm_store8(pm, dst, value);
	if (VARVE_STEP("pmem.publish_flush"))
		pm_flush(pm, dst, sizeof(*dst));
}

/*
 * Calls fn(arg) and returns what it returns, or -EIO if it touched a page of any memory of this
 * room that its medium could not give; ret_fault, which may be NULL, is then the address, else
 * NULL. fn is left where it was, as by longjmp. Guards nest: the innermost one of the thread
 * counts. Some memory must be open.
 */
int pm_guarded(int (*fn)(void *arg), void *arg, const void **ret_fault);

/* Copies out of the memory, guarded: 0, or -EIO, and dst may then hold anything. */
int pm_read(const struct pmem *pm, void *dst, const void *src, size_t len);

/* Copies into it and fences, guarded: 0 when it is durable. */
int pm_write(struct pmem *pm, void *dst, const void *src, size_t len);

#endif
