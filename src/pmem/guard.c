/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Faults of mapped memory become errors.
 *
 * Purpose. A page of a mapping that its medium cannot give raises SIGBUS in the thread that touches
 * it, at any load or store. A storage library inside other people's processes must neither die of
 * it nor take the signal away from its host.
 *
 * Data structure. Each thread has a stack of guards, in the frames of pm_guarded(); a guard is a
 * jump buffer. A list of regions says which addresses are ours; its nodes are never freed, only
 * used again, so that the handler may walk it at any moment.
 *
 * The handler jumps to the thread's innermost guard if the fault is a real one (not sent by
 * somebody, not about alignment) at an address of ours. An early warning about poison that nobody
 * has touched yet (BUS_MCEERR_AO) is dropped when it is about our memory: the touch will tell.
 * Everything else goes to the handler that was there before, with the mask that it asked for.
 *
 * Cost. Entering a guard is one sigsetjmp() without the signal mask, so without a system call: the
 * handler puts back the mask of the moment of the fault, which it is told, before it jumps.
 *
 * Invariants.
 *  1. guard_top is NULL or the frame of a pm_guarded() of this thread that has not returned.
 *  2. A region is in the list with its length from guard_add() to guard_remove().
 *  3. guard_previous is what the handler had been before ours, and changes only while ours is not
 *     installed. If somebody installs a handler above ours and does not take it away, ours stays
 *     installed below it after the last region has gone.
 *
 * Locks. guard_lock guards the list's changes and the installation. The handler takes none.
 */
#include "pmem/guard.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "pmem/pmem.h"

struct guard {
	sigjmp_buf env;
	struct guard *outer;
	const void *fault;
};

struct guard_region {
	_Atomic uintptr_t base;
	_Atomic size_t len_bytes; /* 0: the node is free */
	struct guard_region *next;
};

/* Initial-exec: a handler must not be what allocates a thread's variables. */
static _Thread_local struct guard *guard_top __attribute__((tls_model("initial-exec")));

static _Atomic(struct guard_region *) guard_regions;

static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned guard_count;  /* under guard_lock: regions in use */
static bool guard_installed;  /* under guard_lock */
static struct sigaction guard_previous;

static bool is_ours(const void *addr)
{
	/* Acquire: pairs with the release in guard_add(); a node is complete once it is seen. */
	struct guard_region *r = atomic_load_explicit(&guard_regions, memory_order_acquire);

	for (; r; r = r->next) {
		size_t len = atomic_load_explicit(&r->len_bytes, memory_order_acquire);
		uintptr_t base = atomic_load_explicit(&r->base, memory_order_relaxed);

		if ((uintptr_t)addr - base < len)
			return true;
	}
	return false;
}

/* As the kernel would have called the handler that was there before. */
static void call_previous(int sig, siginfo_t *info, void *context)
{
	sigset_t mask = guard_previous.sa_mask, old;

	if (!(guard_previous.sa_flags & SA_NODEFER))
		sigaddset(&mask, sig);
	sigprocmask(SIG_BLOCK, &mask, &old);
	if (guard_previous.sa_flags & SA_SIGINFO)
		guard_previous.sa_sigaction(sig, info, context);
	else
		guard_previous.sa_handler(sig);
	sigprocmask(SIG_SETMASK, &old, NULL);
}

/* A signal that somebody sent, as by kill(), is not repeated by going back to where it came. */
static bool is_sent(const siginfo_t *info)
{
	return info->si_code <= 0 || info->si_code == BUS_MCEERR_AO;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	const struct sigaction by_default = {.sa_handler = SIG_DFL};

	if ((guard_previous.sa_flags & SA_SIGINFO) ||
	    (guard_previous.sa_handler != SIG_DFL && guard_previous.sa_handler != SIG_IGN)) {
		call_previous(sig, info, context);
		return;
	}
	if (guard_previous.sa_handler == SIG_IGN && is_sent(info))
		return;
	/* The instruction is run again and faults again: a core that shows where it happened. */
	sigaction(sig, &by_default, NULL);
	if (is_sent(info))
		raise(sig);
}

static void guard_handler(int sig, siginfo_t *info, void *context)
{
	int saved_errno = errno;
	bool ours = info->si_code > 0 && info->si_code != BUS_ADRALN && is_ours(info->si_addr);

	if (ours && info->si_code == BUS_MCEERR_AO)
		return;
	if (ours && guard_top) {
		guard_top->fault = info->si_addr;
		errno = saved_errno;
		/* As a return would: a handler above ours may have had signals blocked. */
		sigprocmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
		siglongjmp(guard_top->env, 1);
	}
	pass_on(sig, info, context);
	errno = saved_errno;
}

static int install(void)
{
	struct sigaction ours = {
		.sa_sigaction = guard_handler,
		.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK,
	};

	if (guard_installed)
		return 0;
	sigemptyset(&ours.sa_mask);
	/* First what was there: the handler may run the moment it is installed. */
	if (sigaction(SIGBUS, NULL, &guard_previous) || sigaction(SIGBUS, &ours, NULL))
		return -errno;
	guard_installed = true;
	return 0;
}

static void uninstall(void)
{
	struct sigaction now;

	if (sigaction(SIGBUS, NULL, &now) || !(now.sa_flags & SA_SIGINFO) ||
	    now.sa_sigaction != guard_handler)
		return;
	if (!sigaction(SIGBUS, &guard_previous, NULL))
		guard_installed = false;
}

static struct guard_region *region_get_locked(void)
{
	struct guard_region *first = atomic_load_explicit(&guard_regions, memory_order_relaxed);
	struct guard_region *r;

	for (r = first; r; r = r->next)
		if (!atomic_load_explicit(&r->len_bytes, memory_order_relaxed))
			return r;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->next = first;
	/* Release: pairs with the acquire in is_ours(). */
	atomic_store_explicit(&guard_regions, r, memory_order_release);
	return r;
}

int guard_add(const void *base, size_t len_bytes, struct guard_region **ret)
{
	struct guard_region *r;
	int error = 0;

	pthread_mutex_lock(&guard_lock);
	r = region_get_locked();
	error = r ? install() : -ENOMEM;
	if (!error) {
		atomic_store_explicit(&r->base, (uintptr_t)base, memory_order_relaxed);
		/* Release: pairs with the acquire in is_ours(). */
		atomic_store_explicit(&r->len_bytes, len_bytes, memory_order_release);
		guard_count++;
		*ret = r;
	}
	pthread_mutex_unlock(&guard_lock);
	return error;
}

void guard_remove(struct guard_region *region)
{
	if (!region)
		return;
	pthread_mutex_lock(&guard_lock);
	atomic_store_explicit(&region->len_bytes, 0, memory_order_release);
	if (--guard_count == 0)
		uninstall();
	pthread_mutex_unlock(&guard_lock);
}

int pm_guarded(int (*fn)(void *arg), void *arg, const void **ret_fault)
{
	struct guard guard;
	int r;

	guard.outer = guard_top;
	guard.fault = NULL;
	if (!sigsetjmp(guard.env, 0)) {
		guard_top = &guard;
		/* The handler, on this thread, must see the guard at every access from here. */
		atomic_signal_fence(memory_order_seq_cst);
		r = fn(arg);
	} else {
		r = -EIO;
	}
	atomic_signal_fence(memory_order_seq_cst);
	guard_top = guard.outer;
	if (ret_fault)
		*ret_fault = guard.fault;
	return r;
}

struct transfer {
	struct pmem *pm;
	void *dst;
	const void *src;
	size_t len;
};

static int copy_out(void *arg)
{
	struct transfer *t = arg;

	memcpy(t->dst, t->src, t->len);
	return 0;
}

int pm_read(const struct pmem *pm, void *dst, const void *src, size_t len)
{
	struct transfer t = {.dst = dst, .src = src, .len = len};

	if (!pm_contains(pm, src, len))
		return -EINVAL;
	return pm_guarded(copy_out, &t, NULL);
}

static int copy_in(void *arg)
{
	struct transfer *t = arg;

	pm_copy(t->pm, t->dst, t->src, t->len);
	return 0;
}

int pm_write(struct pmem *pm, void *dst, const void *src, size_t len)
{
	struct transfer t = {.pm = pm, .dst = dst, .src = src, .len = len};
	int r;

	if (!pm_contains(pm, dst, len))
		return -EINVAL;
	if (pm->read_only)
		return -EROFS;
	r = pm_guarded(copy_in, &t, NULL);
	/* The fence is outside the guard: it may hold a lock. */
	return r ? r : pm_fence(pm);
}
