/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Varve: volumes whose small random writes are durable at the speed of the nearest durable medium.
 *
 * Units: offsets and lengths are bytes and may have any alignment; the unit of atomicity is the
 * volume's block (varve_info.block_bytes). Errors are negative errno values; varve_errmsg() has a
 * sentence on the last error of the calling thread: what failed, where, and what to do.
 *
 * Threads: every function may be called from any thread at any time, except that a volume must not
 * be closed while a call on it is running or a request of it is not done. fork(): a volume belongs
 * to the process that opened it; in a child every call on it fails with -EOWNERDEAD.
 */
#ifndef VARVE_VARVE_H
#define VARVE_VARVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VARVE_VERSION "0.1.0"

/* "0.1.0"; static. */
const char *varve_version(void);

/* The text of the calling thread's last error; valid until its next call; never NULL. */
const char *varve_errmsg(void);

/* Messages go to fn (level as in syslog: 3 error, 4 warning, 6 info); NULL silences. */
void varve_set_log(void (*fn)(void *arg, int level, const char *text), void *arg);

struct varve_volume;

/* ---- definitions -----------------------------------------------------------------------------
 *
 * A volume is defined by NAME in an INI file, /etc/varve/NAME.conf or ~/.config/varve/NAME.conf or
 * $VARVE_CONFIG_DIR/NAME.conf, or given whole by a spec: "CACHE,STORE" such as
 * "/ssd/cache.img,dir:/srv/objects/vm1". Keys and their values: varve.conf(5).
 */

/* Creates a volume as set by key=value strings (varve.conf(5): type, size, store, cache, ...),
 * NULL-terminated, and writes its definition. -EEXIST when the name or the objects exist,
 * -ENAMETOOLONG when a setting would be too long for its line of the definition. */
int varve_create(const char *name, const char *const *settings);

/* Removes the definition and, with data set, the volume's data too: of lsvd the objects, of boost
 * the cache's log; a boost volume's backing device is given back as it is, and holds everything.
 * The cache is unbound. -EBUSY when it is open anywhere, or, of boost, when only the cache holds
 * some of the data. */
int varve_delete(const char *name, bool data);

enum {
	VARVE_DELETE_KEEP_DATA = 1 << 0, /* the definition only */
	/* boost: what only the cache holds is written back first. */
	VARVE_DELETE_DRAIN = 1 << 1,
	/* boost: removes it although data that only the cache holds is lost, or what it knows of
	 * data that was lost before, or the cache or the backing device cannot be used any more. */
	VARVE_DELETE_FORCE = 1 << 2,
};

/*
 * The same with more to say. What a forced removal of a boost volume gave up is told as JSON text;
 * free() it: {"lost_bytes", "ranges" (their number), "list": [{"offset", "length"}, ...]}, or
 * {"unknown": true, "reason"} when the cache cannot be read; and "bad_bytes" that were lost to
 * damage before, if there are. ret_json may be NULL.
 */
int varve_delete_with(const char *name, unsigned int flags, char **ret_json);

/* The defined names, NULL-terminated; free with varve_free_names(). */
int varve_list(char ***ret_names);
void varve_free_names(char **names);

/* What the definition of NAME says, as JSON text; free() it: {"name", "type", "without_cache" (what
 * the home alone is worth), "settings": {KEY: VALUE as text, ...}}. Nothing is opened. */
int varve_definition(const char *name, char **ret_json);

/* Formats PATH (a file or block device) as a cache. settings: size, to create the file; uuid, the
 * volume that it is to serve, so that no other takes it (without it, the first that is written with
 * it); force=yes, to format what holds a log already. */
int varve_cache_create(const char *path, const char *const *settings);

/* ---- open ----------------------------------------------------------------------------------- */

enum {
	VARVE_OPEN_READ_ONLY = 1 << 0,
	/* Opens without the cache, from what the store holds: a prefix of the acknowledged writes.
	 * What the cache held is given up for ever at the first mutation. */
	VARVE_OPEN_DISCARD_CACHE = 1 << 1,
	/* Destaging waits until varve_message("hold 0"): for benchmarks and maintenance. */
	VARVE_OPEN_HOLD_DESTAGE = 1 << 2,
};

/*
 * Opens by name or spec. Takes no writer's right: that is taken at the first mutation, which fails
 * with -EBUSY when another process has it.
 */
int varve_open(const char *name_or_spec, unsigned int flags, struct varve_volume **ret);

/* As varve_open, with settings that override the definition's (NULL-terminated key=value). */
int varve_open_with(const char *name_or_spec, unsigned int flags, const char *const *settings,
		    struct varve_volume **ret);

/*
 * Flushes, destages, writes a checkpoint, marks cache and store clean, frees. When the store does
 * not answer within home_timeout the data stays in the cache, safe, and the error is returned; the
 * volume is freed in any case.
 */
int varve_close(struct varve_volume *volume);

struct varve_info {
	char name[256];
	char type[16];            /* "lsvd", "boost" */
	char uuid[37];
	uint64_t size_bytes;
	uint32_t block_bytes;     /* unit of atomicity */
	uint32_t optimal_bytes;   /* best alignment and multiple for speed */
	uint32_t max_atomic_bytes; /* a longer write may be cut between such pieces by a crash */
	bool read_only;
	/* Set by VARVE_OPEN_DISCARD_CACHE: where the image was cut. */
	bool cut;
	uint64_t cut_lsn, cut_wall_ns, cut_lost_bytes;
	bool cut_unknown;         /* boost: the cache cannot be read: nobody knows what is lost */
};

void varve_get_info(struct varve_volume *volume, struct varve_info *ret);

/* ---- requests ------------------------------------------------------------------------------- */

enum varve_op {
	VARVE_READ,
	VARVE_WRITE,
	VARVE_FLUSH,
	VARVE_DISCARD, /* the range reads as zeros or as it was, but always the same */
	VARVE_ZERO,    /* the range reads as zeros */
};

enum {
	VARVE_FUA = 1 << 0, /* done when durable */
};

/*
 * A request. The caller owns it and its buffers and leaves both alone from varve_submit() until
 * done() was called. Start from a zeroed struct.
 */
struct varve_io {
	enum varve_op op;
	unsigned int flags;
	uint64_t offset;
	uint64_t length;          /* READ, WRITE: at most the sum of iov */
	const struct iovec *iov;
	int iovcnt;
	int result;               /* 0 or a negative errno, valid in done() */
	void (*done)(struct varve_io *io);
	void *user;
	uint64_t reserved[48];    /* the library's */
};

/*
 * Starts a request; never blocks. done() is called exactly once, from any thread, and, when
 * nothing had to wait, before varve_submit() returns. It may submit again (no recursion: it is
 * called later then), but must not block. Errors are reported through done() too.
 */
void varve_submit(struct varve_volume *volume, struct varve_io *io);

/* Synchronous forms: 0 or a negative errno. They do their own device I/O on the calling thread. */
int varve_pread(struct varve_volume *volume, void *buf, size_t length, uint64_t offset);
int varve_pwrite(struct varve_volume *volume, const void *buf, size_t length, uint64_t offset,
		 unsigned int flags);
int varve_flush(struct varve_volume *volume);
int varve_discard(struct varve_volume *volume, uint64_t offset, uint64_t length,
		  unsigned int flags);
int varve_zero(struct varve_volume *volume, uint64_t offset, uint64_t length, unsigned int flags);

/* The run of equal state from offset: its length, and whether it holds data. */
int varve_extent(struct varve_volume *volume, uint64_t offset, uint64_t length,
		 uint64_t *ret_length, bool *ret_data);

/* ---- size ----------------------------------------------------------------------------------- */

enum {
	/* Allows a size that is less than the present one: what lies beyond is discarded. */
	VARVE_RESIZE_SHRINK = 1 << 0,
};

/*
 * Changes the size, durably when it returns 0; takes the writer's right. Requests that are in
 * flight end first, new ones wait meanwhile; those beyond the new end fail with -EINVAL from then
 * on. What is beyond the former end reads as zeros, also if it held data before an earlier
 * shrinking.
 *
 * new_bytes 0: as large as the medium has become. An lsvd volume has no other size than the one it
 * was given: for it that is -EINVAL. A boost volume's size is its backing device's: a file is made
 * longer or, with the flag, shorter; a block device is resized by its own tools first, and what it
 * has become is taken over (any other size is -EINVAL).
 *
 * A smaller size without the flag is refused with -EINVAL; the same size is fine. When an error is
 * returned the size is as varve_get_info() then says; of a shrinking that failed, what lies beyond
 * the new size may have been discarded already.
 */
int varve_resize(struct varve_volume *volume, uint64_t new_bytes, unsigned int flags);

/* ---- control -------------------------------------------------------------------------------- */

/*
 * Status as JSON text (object; varve(1) lists the fields); free() it.
 */
int varve_status(struct varve_volume *volume, char **ret_json);

/*
 * A message. Waits until it is done. The answer, JSON text, may be NULL; free() it.
 *
 *	flush        everything acknowledged is durable
 *	drain, drop_caches  everything acknowledged has reached the home
 *	checkpoint   (lsvd) the map, too
 *	gc           (lsvd) garbage is collected now, down to gc_stop, and deleted where it is old
 *	             enough
 *	suspend      new requests wait until the volume is resumed, those in flight end, everything
 *	             acknowledged is flushed to the cache, nothing is written back: when it is
 *	             answered nothing is written to either device, and copies of both that are made
 *	             now are a volume as after a crash. Requests that wait are neither lost nor
 *	             failed; drain and the like are refused with -EBUSY; closing resumes. A drain
 *	             that is under way ends first; -ETIMEDOUT, and the volume goes on, when what
 *	             is in flight does not end within home_timeout
 *	resume       ends that
 *	resize [SIZE] [shrink]  as varve_resize(); without SIZE as new_bytes 0
 *	clear_stat   the counters of requests by kind begin at 0 again
 *	KEY VALUE    for settings that can change while running: hold, and of boost allow_migrate,
 *	             nr_max_batched_migration
 */
int varve_message(struct varve_volume *volume, const char *text, char **ret_json);

/*
 * Serves status and messages on a unix socket, one JSON object a line each way
 * ({"command": "status"} -> {"ok": true, "status": {...}}). Default path:
 * $VARVE_RUN_DIR or /run/varve or $XDG_RUNTIME_DIR/varve, NAME.sock, mode 0600.
 */
int varve_control_start(struct varve_volume *volume, const char *path_or_null);

/*
 * Asks the process that has NAME open, over its control socket; free() the answer. -ENOENT when
 * nobody has. -ETIMEDOUT when it cannot be connected to within 10 s, or does not answer "status" or
 * "info" until then; "message", "flush" and "drain" are waited for as long as they take.
 */
int varve_control_call(const char *name, const char *request_json, char **ret_json);

/* ---- looking at media ----------------------------------------------------------------------- */

/* JSON text on what lies at a cache path, or on an object of a volume; free() it. what: "cache",
 * "log" (every segment), "superblock", "objects", "checkpoint", or an object's key. */
int varve_dump(const char *name_or_path, const char *what, char **ret_json);

/* Verifies everything that is at rest: store, checkpoints, log, and their agreement. problem() is
 * called for each finding. Returns the number of problems, or a negative errno. With repair, what
 * can be mended without guessing is, and counted all the same; -EOPNOTSUPP for types other than
 * btt, which mend themselves when they are opened for writing, or not at all. */
struct varve_check {
	void (*problem)(struct varve_check *check, const char *text);
	void (*progress)(struct varve_check *check, uint64_t done, uint64_t total);
	void *user;
	bool repair; /* of varve_check() alone: varve_btt_check() has an argument */
};

int varve_check(const char *name_or_spec, struct varve_check *check);

#ifdef __cplusplus
}
#endif

#endif
