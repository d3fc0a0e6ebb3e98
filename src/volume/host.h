/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The engine's host (base/host.h) at run time: a mutex, the clock, worker threads, a timer.
 *
 * One vhost drives one engine. Its owner fills in the callbacks, opens it, hands &vhost->host to
 * the engine, and calls host_enter()/host_leave() around the engine's functions.
 *
 * Delivery. host_leave() lets go of the mutex, then fills and publishes writes that got their
 * space late, kicks what was submitted, and calls the done() of what is ready. A done() that
 * leaves a host again, of this or another volume, does not recurse: what it makes ready waits in
 * a list of the thread, which the outermost delivery empties (the trampoline).
 *
 * Helping. A thread that is going to wait anyway begins a helping section: its host_leave() then
 * does not kick the cache device, since it will run the queued requests itself (vhost_help()).
 * See host.c, "who runs what is queued".
 *
 * Lock order: the vhost's mutex, then work_lock and the runtime's own locks. No two vhosts'
 * mutexes are ever held together.
 */
#ifndef VOLUME_HOST_H
#define VOLUME_HOST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/host.h"
#include "runtime/loop.h"
#include "runtime/workers.h"
#include "volume/sluice.h"

#define VHOST_PUMPS 4 /* deferred works of one volume that run at once */

struct vhost;

struct vhost_pump {
	struct work work;
	struct vhost *h;
	bool busy; /* work_lock */
};

struct vhost {
	struct host host; /* its lists: lock */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* somebody has left */
	unsigned int watchers;  /* lock: threads in vhost_wait() */
	unsigned int starting;  /* lock: who has left and is about to kick, and kick_work */
	unsigned int later;     /* lock: what kick_work is going to kick */
	struct work kick_work;
	struct sluice_dev *dev; /* the cache, or NULL */
	/* The home: one of the two. */
	struct sluice_store *store;
	struct sluice_dev *backing;
	_Atomic bool *home_queued; /* its flag; set by vhost_open() */

	/* The owner's. fill runs not entered, publish and tick entered. */
	void (*fill)(struct vhost *h, struct dev_req *req);
	void (*publish)(struct vhost *h, struct dev_req *req);
	void (*tick)(struct vhost *h);

	struct loop *loop;
	struct workers *workers;
	struct loop_timer timer;
	uint64_t wake_ns; /* lock: what the timer is set to; UINT64_MAX: not */
	_Atomic uint64_t random_state;

	pthread_mutex_t work_lock;
	struct list_head works;   /* work_lock */
	unsigned int works_alive; /* work_lock: queued or running */
	pthread_cond_t works_done;
	struct vhost_pump pumps[VHOST_PUMPS];
};

/* h is zeroed but for the callbacks. 0 or a negative errno. */
int vhost_open(struct vhost *h);

/* Nothing of the engine may be in flight. Waits for the timer and for deferred work. */
void vhost_close(struct vhost *h);

/* Entered: sleeps until somebody else has left, or until deadline_ns (UINT64_MAX: none). */
void vhost_wait(struct vhost *h, uint64_t deadline_ns);

/* Entered. Calls req->done(req) through the trampoline, after the caller has left. */
static inline void vhost_ready(struct vhost *h, struct dev_req *req)
{
	list_add_tail(&req->link, &h->host.ready);
}

/* Not entered: calls req->done(req), at once or, inside a delivery, after that. */
void vhost_deliver(struct dev_req *req);

/* Whether the calling thread is inside a done() that a host delivers: it must not sleep. */
bool vhost_delivering(void);

/*
 * The helping section of the calling thread; not nested. with_home: queued requests to the home are
 * left to this thread too, else they are kicked at once.
 */
void vhost_help_begin(struct vhost *h, bool with_home);
/* Runs one queued request to its end; false when there is none. */
bool vhost_help(struct vhost *h);
/* Kicks what this thread has submitted and not run: before it sleeps. */
void vhost_help_settle(struct vhost *h);
/* waited: else what is owed is handed to the loop, as by vhost_lazy(). */
void vhost_help_end(struct vhost *h, bool waited);

/*
 * Until set back, or a done() is called: what the calling thread's host_leave() has to kick is
 * kicked by the loop's thread. For writes that nobody waits for: handing a segment to the kernel
 * takes as long as some hundred small writes.
 */
void vhost_lazy(bool lazy);

#endif
