/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A volume from the inside: what the files of this room share.
 *
 *	errmsg.c    the last error of a thread, log sink, version
 *	settings.c  the table of all settings; config.c their files; media.c opening what they name
 *	home.c      the types of volumes; home_*.c what each does
 *	volume.c    opening; settle.c drain and close; pause.c suspending; resize.c;
 *	            create.c, erase.c; acquire.c the writer's right
 *	io.c        requests: the hot path; slow.c those that are not aligned, or too long
 *	sync.c      calls that wait; host.c the engine's host; sluice.c, rangelock.c
 *	status.c, message.c, control.c, client.c, dump.c, check.c
 *
 * The life of a volume (vol->state, changed under the host's lock):
 *
 *	LOOKING --first mutation--> ACQUIRING --home.acquire--> WRITABLE --varve_close--> (freed)
 *	   ^                            |   \--the engine could not be opened again--> FAILED
 *	   +------ -EBUSY and the like -+
 *
 * While ACQUIRING no request is in the engine and none enters: all queue in vol->waiting. PAUSED,
 * which LOOKING and WRITABLE go to and come back from, does the same (pause.c).
 */
#ifndef VOLUME_VOLUME_H
#define VOLUME_VOLUME_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <varve/varve.h>

#include "base/err.h"
#include "volume/home.h"
#include "volume/host.h"
#include "volume/rangelock.h"
#include "volume/settings.h"

enum volume_state {
	VOLUME_LOOKING,
	VOLUME_ACQUIRING,
	VOLUME_WRITABLE,
	VOLUME_PAUSED, /* pause.c */
	VOLUME_FAILED,
};

/* Indices of varve_volume.inflight. */
enum {
	INFLIGHT_WRITE0, /* mutations, by the phase in which they began (slow.c) */
	INFLIGHT_WRITE1,
	INFLIGHT_OTHER,
	INFLIGHT_KINDS,
	INFLIGHT_NONE = INFLIGHT_KINDS,
};

struct control;

struct varve_volume {
	struct vhost h; /* its lock guards what says "locked" */
	struct volume_config cfg;
	unsigned int fork_generation;
	bool read_only;
	bool discard_cache;
	uint32_t block_bytes;
	bool discards; /* else they are done at once: the home has no use for them */
	_Atomic uint64_t size_bytes; /* volume_size() */
	uint64_t opened_ns;
	struct uuid uuid;
	struct home_cut cut;
	struct home *home; /* from opening to closing */

	/* Written only when no request is in the engine; read entered, or in WRITABLE. */
	bool engine; /* is open */
	struct wlog *log;
	_Atomic uint32_t max_io_bytes;

	_Atomic int state;          /* enum volume_state; changed locked */
	int failed;                 /* locked: why FAILED */
	struct list_head waiting;   /* locked: struct dev_req in vios */
	int paused_from;            /* locked: the state before PAUSED */
	bool suspended, quiet;      /* locked (pause.c) */
	struct work acquire_work;
	bool acquire_started;       /* locked */
	bool reopen_first;          /* locked: the engine has refused once and may be old */
	struct err acquire_err;     /* locked: why the last try was refused */

	_Atomic long inflight[INFLIGHT_KINDS];
	_Atomic bool watch;         /* somebody wants to know when a counter is zero */

	struct rangelock ranges;    /* locked */
	unsigned int phase;         /* locked: 0 or 1, of the writes that begin now */
	bool grace;                 /* locked: writes of the other phase are waited for */
	struct list_head grace_now, grace_next; /* locked: struct dev_req in vios */

	struct control *control;
	bool served; /* this process is the one that is asked: it has had a control socket */
};

struct vio_slow;

/* A request from the inside: lives in varve_io.reserved. */
struct vio {
	struct dev_req req; /* link: in one list at a time, the engine's or the volume's */
	struct varve_volume *vol;
	void (*go)(struct vio *v); /* starts it, again after it had to wait */
	struct vio_slow *slow;
	struct range range;
	uint8_t inflight;      /* index of the counter that counts it */
	bool sync;             /* a thread waits for it and may do the work itself */
	bool runs_acquire;     /* that thread has to run acquire_run() */
	bool refused;          /* ended because the right was not given: vol->acquire_err */
};

static_assert(sizeof(struct vio) <= sizeof(((struct varve_io *)NULL)->reserved), "vio too large");

static inline struct vio *vio_of(struct varve_io *io)
{
	return (struct vio *)(void *)io->reserved;
}

static inline struct varve_io *vio_io(struct vio *v)
{
	return (struct varve_io *)(void *)((char *)v - offsetof(struct varve_io, reserved));
}

static inline struct vio *vio_of_req(struct dev_req *req)
{
	return container_of(req, struct vio, req);
}

static inline struct varve_volume *volume_of_host(struct vhost *h)
{
	return container_of(h, struct varve_volume, h);
}

static inline void volume_enter(struct varve_volume *vol)
{
	host_enter(&vol->h.host);
}

static inline void volume_leave(struct varve_volume *vol)
{
	host_leave(&vol->h.host);
}

static inline bool volume_forked(const struct varve_volume *vol)
{
	extern _Atomic unsigned int volume_fork_generation;

	return vol->fork_generation !=
	       atomic_load_explicit(&volume_fork_generation, memory_order_relaxed);
}

/* The longest mutation that the engine takes at once. */
static inline uint32_t volume_max_io(const struct varve_volume *vol)
{
	return atomic_load_explicit(&vol->max_io_bytes, memory_order_relaxed);
}

/* Relaxed: a request that comes while it changes may see either; the engine's gate looks again. */
static inline uint64_t volume_size(const struct varve_volume *vol)
{
	return atomic_load_explicit(&vol->size_bytes, memory_order_relaxed);
}

/* ---- errmsg.c ------------------------------------------------------------------------------ */

/* The calling thread's record, cleared: for a public call to begin with. */
struct err *errmsg_begin(void);
/* Sets the record, if it has no text yet, and returns code. */
int errmsg_set(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* -EOWNERDEAD when the volume belongs to another process, else 0. */
int errmsg_check_owner(const struct varve_volume *vol);

/* ---- io.c ---------------------------------------------------------------------------------- */

/* Starts io; sync as in struct vio. */
void vio_start(struct varve_volume *vol, struct varve_io *io, bool sync);
/* Ends the request, through the trampoline; not entered. */
void vio_finish(struct vio *v, int result);
/* Entered: continues a request that had to wait, after the caller has left. */
void vio_resume_later(struct vio *v);
/* Entered: ends a request whose mutation was not allowed. */
void vio_refuse_later(struct vio *v, int error);
/* Starts the prepared v->req; not entered. For slow.c. */
void vio_go_read(struct vio *v);
void vio_go_mutate(struct vio *v);
/* Takes the request out of its counter; not entered. */
void vio_uncount(struct vio *v);
/* Entered: 1 go on, 0 queued, or a negative errno. */
int vio_gate_mutation(struct vio *v);
/* A range was granted: continues its owner. Entered. */
void vio_range_granted(struct range *range);
/* Gives back v->range; not entered. */
void vio_release_range(struct vio *v);

/* ---- slow.c -------------------------------------------------------------------------------- */

void slow_start(struct vio *v);
/* The engine has done a piece of a slow request; result in v->req.result. */
void slow_piece_done(struct vio *v);
/* Entered; a counter has become zero. */
void slow_grace_check(struct varve_volume *vol);

/* ---- acquire.c ----------------------------------------------------------------------------- */

/* Entered: begins it if it has not begun and nothing is in flight; defers, or flags v. */
void acquire_check(struct varve_volume *vol, struct vio *v);
/* Takes the writer's right; not entered. */
void acquire_run(struct varve_volume *vol);
/* The state after a try at the right, rc its error; starts what waited. Not entered. */
void acquire_end(struct varve_volume *vol, int rc, const struct err *err);
/* Entered: starts what waited again; with rc the mutations among it fail. */
void acquire_restart_waiting(struct varve_volume *vol, int rc);
/* Takes the writer's right without a mutation; waits; not entered. */
int volume_own(struct varve_volume *vol, struct err *err);
/* Enters once nobody is acquiring. -EIO or so, and not entered, when there is no engine. */
int volume_enter_settled(struct varve_volume *vol);
/* Opens the engine as cfg says; not entered. */
int volume_engine_open(struct varve_volume *vol, struct err *err);
/* Closes it; waits until nothing of it is in flight. */
void volume_engine_close(struct varve_volume *vol);

/* ---- the rest ------------------------------------------------------------------------------ */

/* Entered: what the engine says of itself, which a resize changes. */
void volume_learn(struct varve_volume *vol);

/* Somebody who may lose patience; NULL where one is taken: nobody. */
struct cancel {
	bool asked; /* locked */
};

/* Ends the wait that was given it with -ECANCELED; nothing else changes. Not entered. */
void volume_cancel(struct varve_volume *vol, struct cancel *cancel);

/* settle.c: drains, or writes a checkpoint; waits; not entered. */
int volume_drain(struct varve_volume *vol, const struct cancel *cancel);
int volume_checkpoint(struct varve_volume *vol);
int volume_gc(struct varve_volume *vol, const struct cancel *cancel);

/*
 * pause.c. -EBUSY: it is paused already; -ETIMEDOUT: requests do not end within home_timeout.
 * Not entered; they wait.
 */
int volume_pause(struct varve_volume *vol, const struct cancel *cancel);
void volume_unpause(struct varve_volume *vol);
/* A mutation or flush while paused, in WRITABLE before. */
int volume_paused_io(struct varve_volume *vol, enum dev_op op, uint64_t off_bytes,
		     uint64_t len_bytes);
int volume_suspend(struct varve_volume *vol, const struct cancel *cancel);
int volume_resume(struct varve_volume *vol); /* -EALREADY: it is not suspended */
bool volume_is_suspended(struct varve_volume *vol);

/* status.c: counters of a device, and what a segment buffer takes in a ring of that size. */
json_t *status_dev_json(struct dev *dev, const char *path);
uint64_t status_segment_bytes(uint64_t set_bytes, uint64_t ring_bytes);

/* As varve_message(), with a wait that can be ended. */
int message_run(struct varve_volume *vol, const char *text, const struct cancel *cancel,
		char **ret_json);
/* Whether a message is done at once: it is answered before those that wait. */
bool message_is_quick(const char *text);

/* control.c */
void control_stop(struct control *control);

#endif
