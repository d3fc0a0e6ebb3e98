/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who calls: threads, whether they live, and whether this is still the process that opened.
 *
 * Data structure. One page that the kernel empties in a forked child holds a number. A pool
 * remembers the number it was opened under; in the child it is zero, or another one if a pool has
 * been opened there since. The counter behind it is inherited, so a child never uses a number of
 * its parent's. A thread's ID is kept with the number under which it was asked for, since the
 * thread that forks has another in the child.
 *
 * Locks. once alone; the rest is atomic.
 */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "btt/btt_impl.h"

atomic_uint btt_fence_word;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic(_Atomic uint32_t *) fork_page;
static _Atomic uint32_t fork_count;
static _Atomic uint32_t threads_seen;

/* Initial-exec: in a library, too, it is one load away. */
static _Thread_local struct {
	uint32_t fork_id;
	uint32_t id;
	unsigned hint;
} self __attribute__((tls_model("initial-exec")));

/* Acquire: pairs with the release in make_page(). */
static _Atomic uint32_t *the_page(void)
{
	return atomic_load_explicit(&fork_page, memory_order_acquire);
}

static void child_forgets(void)
{
	atomic_store_explicit(the_page(), 0, memory_order_relaxed);
}

static void make_page(void)
{
	void *page =
		mmap(NULL, BTT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return;
	/* A kernel that cannot, or valgrind: then fork() itself must tell. */
	if (madvise(page, BTT_PAGE, MADV_WIPEONFORK) && pthread_atfork(NULL, NULL, child_forgets))
		munmap(page, BTT_PAGE);
	else
		atomic_store_explicit(&fork_page, page, memory_order_release);
}

/* Several threads may come here at once: the first one's number holds. */
static uint32_t first_fork_id(_Atomic uint32_t *page)
{
	uint32_t none = 0, id;

	do {
		id = atomic_fetch_add_explicit(&fork_count, 1, memory_order_relaxed) + 1;
	} while (!id);
	if (atomic_compare_exchange_strong_explicit(page, &none, id, memory_order_relaxed,
						    memory_order_relaxed))
		return id;
	return none;
}

uint32_t btt_fork_id(void)
{
	_Atomic uint32_t *page = the_page();
	uint32_t id = page ? atomic_load_explicit(page, memory_order_relaxed) : 0;

	if (__builtin_expect(id != 0, 1))
		return id;
	pthread_once(&once, make_page);
	page = the_page();
	return page ? first_fork_id(page) : 0;
}

uint32_t btt_thread_id(unsigned **ret_hint)
{
	uint32_t fork_id = btt_fork_id();

	if (__builtin_expect(self.fork_id != fork_id, 0)) {
		self.fork_id = fork_id;
		self.id = (uint32_t)syscall(SYS_gettid);
		self.hint = atomic_fetch_add_explicit(&threads_seen, 1, memory_order_relaxed);
	}
	*ret_hint = &self.hint;
	return self.id;
}

bool btt_thread_is_dead(uint32_t id)
{
	return syscall(SYS_tgkill, getpid(), id, 0) < 0 && errno == ESRCH;
}

int btt_lock_init(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;
	int r = pthread_mutexattr_init(&attr);

	if (r)
		return -r;
	r = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	if (!r)
		r = pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
	return -r;
}

/* What the locks guard is always usable: who died with one leaves at most a block in no list. */
void btt_lock(pthread_mutex_t *lock)
{
	if (pthread_mutex_lock(lock) == EOWNERDEAD)
		pthread_mutex_consistent(lock);
}
