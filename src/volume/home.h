/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies below a volume's log, behind one vtable: lsvd, a stream of objects in a store; boost, a
 * block device that is written in place. Or, instead of log and home: btt, a pool of atomic blocks.
 * The table of types is in home.c; no other file of this room, but for the adapters home_*.c and
 * the table of settings, knows one type from another.
 *
 * Life: media_open() opens what the configuration names beside the cache and returns the home;
 * open() the engine over it, close() that again, as often as need be; media_close() frees.
 * Between open() and close() the volume's host drives the engine.
 *
 * Calls are entered (base/host.h) or not, as their groups below say.
 */
#ifndef VOLUME_HOME_H
#define VOLUME_HOME_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "dev/dev.h"
#include "volume/settings.h"
#include "wlog/drain.h"
#include "wlog/wlog.h"

struct varve_check;
struct varve_volume;
struct vhost;

struct home {
	const struct home_ops *ops;
	struct varve_volume *vol;
};

/* Where the image was cut when a cache was discarded. */
struct home_cut {
	uint64_t lsn, wall_ns, lost_bytes;
	bool unknown; /* nobody knows what was lost */
};

struct home_facts {
	struct uuid uuid;
	uint64_t size_bytes;
	uint32_t block_bytes;
	bool discards; /* false: a discard would not free anything, and is not logged */
};

#define HOME_REASONS 4

/* A copy of the engine's numbers, taken entered; the text is made of it later. */
struct home_look {
	struct wlog_status log;
	bool has_log, acquired, hold;
	int home_error; /* that the home is failing with now, or 0 */
	int failed;     /* why the engine has stopped, or 0 */
	uint64_t memory_bytes; /* the home's own */
	const char *reasons[HOME_REASONS]; /* what else is not well; NULL: nothing more */
	union {
		uint64_t align;
		char bytes[2048]; /* the adapter's */
	} own;
};

/* What is done to a volume's media while nobody has it open. */
struct home_erase {
	const struct volume_config *cfg;
	bool data;  /* the volume's own data or log goes, not the definition alone */
	bool drain; /* what only the cache holds is written back first */
	bool force; /* what only the cache holds, or cannot be reached, is given up */
	json_t *told; /* an object: what was lost */
};

struct home_ops {
	const char *type;
	const char *home; /* what it calls its home: "store" */
	const char *promise; /* what an image without its cache is; NULL: there is no cache */
	bool no_log; /* no cache, no log: run() does it all */
	bool repairs; /* check() heeds varve_check.repair */

	/* ---- not entered: configurations and media */

	/* Whether the configuration says all that opening needs. */
	int (*configured)(const struct volume_config *cfg, struct err *err);
	/* What follows the comma of "CACHE,..."; 1: not this type's. */
	int (*spec)(const char *text, struct volume_config *cfg, struct err *err);
	/* Sets vol->home, and one of vol->h.store and vol->h.backing. */
	int (*media_open)(struct varve_volume *vol, struct err *err);
	void (*media_close)(struct home *home);

	/*
	 * Creating. check: before anything is touched; completes cfg. make: what belongs to the
	 * home, *ret_made tells whether something is there that unmake should remove.
	 */
	int (*create_check)(struct volume_config *cfg, struct err *err);
	int (*create_make)(struct volume_config *cfg, bool *ret_made, struct err *err);
	void (*create_unmake)(const struct volume_config *cfg);
	int (*erase)(struct home_erase *erase, struct err *err);

	/* Problems of what is at rest below the log; vol is open for reading only. */
	int (*check)(const struct volume_config *cfg, struct varve_check *check, struct err *err);
	/* The ranges that a check reads through the volume: the run at or after lba. */
	uint64_t (*check_run)(struct home *home, uint64_t lba, uint64_t end, bool *ret_read);
	/* What a log says of the home that it belongs to; NULL: nothing. */
	void (*tell_cache)(const struct wlog_info *info, json_t *top);
	int (*dump)(const struct volume_config *cfg, const char *what, json_t **ret,
		    struct err *err);

	/* ---- not entered, synchronous: the engine */

	int (*open)(struct home *home, bool discard_cache, struct home_cut *ret_cut,
		    struct err *err);
	int (*acquire)(struct home *home, struct err *err);
	int (*release)(struct home *home, struct err *err);
	void (*close)(struct home *home);

	/*
	 * Of a type without a log: runs a request, on the calling thread, to its end; what has
	 * returned 0 is durable. Any thread. may_sleep: not for a thread that must not wait.
	 */
	int (*run)(struct home *home, struct dev_req *req);
	bool (*may_sleep)(struct home *home);

	/* ---- entered */

	bool (*acquired)(struct home *home);
	struct wlog *(*log)(struct home *home);
	void (*read)(struct home *home, struct dev_req *req); /* while there is no log */
	void (*tick)(struct home *home);
	/* What can change while running; hold apart, since a suspension needs it too. */
	void (*set)(struct home *home, const struct volume_config *cfg);
	void (*hold)(struct home *home, bool hold);
	void (*clear_stat)(struct home *home);
	void (*drain)(struct home *home, struct drain *drain);
	/* 0: it was still waiting, and its done() never comes. */
	int (*drain_cancel)(struct home *home, struct drain *drain);
	void (*checkpoint)(struct home *home, struct drain *drain); /* NULL: there are none */
	void (*gc)(struct home *home, struct drain *drain); /* NULL: there is no garbage */
	/*
	 * Changes the size; paused, and of a shrinking nothing is left beyond. NULL: the size is
	 * the medium's, see resize_media.
	 */
	void (*resize)(struct home *home, uint64_t bytes, struct drain *drain);
	void (*stop)(struct home *home);
	bool (*idle)(struct home *home);
	uint64_t (*extent)(struct home *home, uint64_t lba, uint64_t end, bool *ret_data);
	void (*facts)(struct home *home, struct home_facts *ret);
	void (*look)(struct home *home, struct home_look *ret);

	/* ---- not entered: the size */

	/* Whether it can be *bytes; 0 becomes what the medium has. */
	int (*resize_check)(struct home *home, uint64_t *bytes, struct err *err);
	/* Gives the medium that size; the engine is closed. */
	int (*resize_media)(struct home *home, uint64_t bytes, struct err *err);

	/* ---- not entered: text */

	void (*tell)(struct home *home, const struct home_look *look, json_t *top);
};

extern const struct home_ops home_lsvd;
extern const struct home_ops home_boost;
extern const struct home_ops home_btt;

/* NULL: there is no such type. */
const struct home_ops *home_find(const char *type);
/* Of a configuration whose type was found to be one. */
const struct home_ops *home_of(const struct volume_config *cfg);
/* "lsvd, boost" */
const char *home_types(char text[64]);
/* What a log says of its home, whatever type that has. */
void home_tell_cache(const struct wlog_info *info, json_t *top);
/* As home_ops.spec, of whatever type the text is; sets the type too. */
int home_spec(const char *text, struct volume_config *cfg, struct err *err);

#endif
