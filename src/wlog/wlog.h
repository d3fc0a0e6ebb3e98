/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write log: a volume's writes go into a buffer, the buffer is sealed into a checksummed
 * segment, segments go one after the other to the cache device, and the home takes them from
 * there. docs/DESIGN.md has the rules L1 to L12, docs/SPEC-log.md the bytes.
 *
 * The log is an engine (base/host.h): every function is to be called entered unless its comment
 * says otherwise, and takes block requests (dev/dev.h) with 512-byte sectors as unit.
 *
 * Who acknowledges what:
 *   WRITE, ZERO, DISCARD   done when published: visible to reads, in memory only
 *   the same with fua      done when durable on the cache device
 *   FLUSH                  done when everything acknowledged before it was submitted is durable
 */
#ifndef WLOG_WLOG_H
#define WLOG_WLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/host.h"
#include "base/uuid.h"
#include "dev/dev.h"

struct wlog;
struct wlog_seg;
struct wlog_home;
struct wlog_piece;
struct wlog_read;

/* The largest write that is atomic; a record chain of this size must fit into the log. */
#define WLOG_MAX_IO_BYTES (32u << 20)

/* The most that a home may keep in the log's superblock. */
#define WLOG_HOME_BYTES 2048u

struct wlog_options {
	uint32_t segment_bytes;      /* data in a segment at most; 4 KiB to 8 MiB; default 1 MiB */
	uint32_t buffers;            /* segment buffers in memory, 4 at least; default 64 */
	uint32_t barrier_deadline_us; /* L8: how long a barrier may gather company; 0: not at all */
	uint32_t writes_in_flight;   /* segment writes at the device at once; default 8 */
	uint64_t full_timeout_ns;    /* P8: how long a write waits for space; 0: for ever */
};

void wlog_options_default(struct wlog_options *opt);

/* Who a log belongs to (P6). Written into its superblock, compared at open. */
struct wlog_identity {
	struct uuid log_uuid;    /* this cache device, new at each format */
	struct uuid volume_uuid; /* the volume and its home; null: not bound yet */
	uint64_t attach_epoch;   /* the last ownership of the volume that this log has seen */
};

/*
 * What sits below the log. The log calls these entered; the home must not call back into the log
 * from inside them (it sets a flag or defers work).
 */
struct wlog_home_ops {
	/*
	 * Reads piece->sectors at piece->lba into piece->buf, and calls wlog_piece_done() (not
	 * entered) once, never from inside. The data is what the home's map names at this moment.
	 */
	void (*read)(struct wlog_home *home, struct wlog_piece *piece);
	/*
	 * More has become durable, or the log wants space: take what wlog_next_durable() offers.
	 * urgent: writers are waiting for space, do not hold anything back to fill a batch.
	 */
	void (*destage)(struct wlog_home *home, bool urgent);
};

struct wlog_home {
	const struct wlog_home_ops *ops;
	uint64_t sectors; /* size of the volume */
};

/* A part of a read that the log does not hold. */
struct wlog_piece {
	uint64_t lba;
	uint32_t sectors;
	void *buf;
	int result;
	struct wlog_read *read; /* the log's */
	void *priv[4];          /* the home's */
};

void wlog_piece_done(struct wlog_piece *piece, int result); /* not entered */

/* ---- life --------------------------------------------------------------------------------- */

/* How a device is laid out as a log. */
struct wlog_format_options {
	struct wlog_identity id; /* log_uuid null: a new one is made */
	uint64_t first_lsn;      /* 0: random (L1) */
	uint64_t random;         /* a random number for it */
	bool force;              /* also when the device is not blank */
};

/*
 * Writes both superblocks. Refuses (-EEXIST) a device that carries a log, or anything else, unless
 * force, with a text that names what is there. Not entered; synchronous.
 */
int wlog_format(struct dev *dev, const struct wlog_format_options *opt, struct wlog_identity *ret,
		struct err *err);

/* What the superblocks say, without reading the log. Not entered; synchronous. */
struct wlog_info {
	struct wlog_identity id;
	uint64_t log_epoch;
	uint64_t sb_seq; /* changes with every superblock write: for "has anybody been here?" */
	uint64_t size_bytes, ring_bytes;
	uint64_t tail_lsn, watermark_lsn, destaged_lsn;
	uint64_t bytes_written; /* to the device, over its life */
	uint64_t sealed_wall_ns;
	uint32_t home_bytes; /* what the home keeps here; 0: nothing */
	uint8_t home[WLOG_HOME_BYTES];
	bool clean;
};

int wlog_probe(struct dev *dev, struct wlog_info *ret, struct err *err);

/*
 * Opens a log for looking: reads the superblocks, walks the chain, verifies what may be torn,
 * builds the index, and flushes the device so that what was found stays (L5). Writes nothing.
 * destaged_lsn is what the home holds already: records up to it are skipped (the larger of this and
 * the superblock's counts). Not entered; synchronous.
 *
 * -EBADMSG when the log is damaged below its watermark, -ENOENT when there is no log here.
 */
int wlog_open(struct host *host, struct dev *dev, struct wlog_home *home,
	      const struct wlog_options *opt, uint64_t destaged_lsn, struct wlog **ret,
	      struct err *err);

/*
 * Takes the log for writing after wlog_open: raises log_epoch, writes the superblock with the cut
 * behind which nothing old counts. -EAGAIN when somebody else has written to it since wlog_open:
 * close and open again. lsn_floor: the highest LSN that the
 * home knows (L1). Not entered; synchronous. After a failure only wlog_close() is allowed.
 */
int wlog_start(struct wlog *log, const struct wlog_identity *id, uint64_t lsn_floor,
	       struct err *err);

/*
 * Seals, flushes and, when everything is destaged, marks the log clean. Synchronous; not entered;
 * no request may be pending and no piece of the home's work in flight.
 */
int wlog_stop(struct wlog *log, struct err *err);
/* Nothing of the log's own is in flight or deferred: it may be closed. */
bool wlog_idle(const struct wlog *log);
void wlog_close(struct wlog *log); /* frees; writes nothing */

/*
 * What the home keeps in the log's superblock: home_bytes of an encoding of its own, at most
 * WLOG_HOME_BYTES. A change is durable with the next superblock that is written; none that says
 * that a segment is destaged (wlog_destaged) is older than a change made before that call. So a
 * home whose state follows from what it has destaged finds both of the same moment after a crash.
 * wlog_home_state returns the bytes, valid until the next change.
 */
const void *wlog_home_state(const struct wlog *log, uint32_t *ret_bytes);
void wlog_set_home_state(struct wlog *log, const void *state, uint32_t bytes);

/* The longest write that stays whole in a crash; longer ones are refused with -EINVAL. */
uint32_t wlog_max_io_bytes(const struct wlog *log);

const struct wlog_identity *wlog_identity(const struct wlog *log);
uint64_t wlog_last_lsn(const struct wlog *log);    /* the highest LSN given out or found */
uint64_t wlog_durable_lsn(const struct wlog *log); /* everything through it survives a crash */

/* ---- requests ----------------------------------------------------------------------------- */

/*
 * A WRITE, ZERO or DISCARD in three steps. The simulator cuts between them.
 *
 * wlog_reserve returns 1 when the request has its LSN and its room: the caller leaves, calls
 * wlog_fill() and then wlog_publish(). It returns 0 when the request has been queued for lack of
 * space: it will turn up in host->fills, for whoever leaves, to be filled and published the same
 * way. A negative errno: refused, the caller still owns it (-EIO: the log has failed, -EINVAL,
 * -ENOMEM).
 */
int wlog_reserve(struct wlog *log, struct dev_req *req);
void wlog_fill(struct wlog *log, struct dev_req *req); /* not entered: copies and checksums */
void wlog_publish(struct wlog *log, struct dev_req *req);

/* Queues a FLUSH; it is done through host->ready. */
void wlog_flush(struct wlog *log, struct dev_req *req);

/*
 * A READ in two steps: begin looks everything up and starts what needs a device; copy, not
 * entered, takes what is in memory. The request is done through host->ready when every part is.
 */
void wlog_read_begin(struct wlog *log, struct dev_req *req);
void wlog_read_copy(struct wlog *log, struct dev_req *req); /* not entered */

/* Deadlines and timeouts; what host_wake_at() asked for. */
void wlog_tick(struct wlog *log);

/*
 * Seals what is open and makes it durable without a waiter: the destager's wish when data has
 * grown old, and the user's when he asks for a drain.
 */
void wlog_seal(struct wlog *log);

/* ---- what the home takes -------------------------------------------------------------------- */

/*
 * The first durable segment after the one numbered `after` (0: from the tail), or NULL. Only
 * segments that are durable are offered (L7), in order.
 */
struct wlog_seg *wlog_next_durable(struct wlog *log, uint64_t after);

/*
 * A pinned segment keeps its place on the device and, if its view shows it, its data in memory. It
 * may be pinned several times, and keeps both until the last of these pins is gone.
 */
void wlog_seg_pin(struct wlog *log, struct wlog_seg *seg);
void wlog_seg_unpin(struct wlog *log, struct wlog_seg *seg);

struct wlog_seg_view {
	uint64_t number;
	uint64_t first_lsn, last_lsn;
	uint64_t wall_ns;      /* when it was sealed */
	uint32_t records;
	uint32_t data_sectors;
	bool ends_whole;       /* the last record ends a write: a batch may be cut here */
	const void *data;      /* NULL: not in memory, see wlog_seg_load() */
};

void wlog_seg_view(const struct wlog_seg *seg, struct wlog_seg_view *ret);

enum wlog_rec_type {
	WLOG_DATA = 1,
	WLOG_ZERO = 2,
	WLOG_DISCARD = 3,
};

struct wlog_rec {
	uint64_t lsn;
	uint64_t lba;
	uint32_t sectors;
	enum wlog_rec_type type;
	bool continues;        /* the next record belongs to the same write */
	bool skip;             /* the home holds it already (found so at recovery) */
	uint32_t data_sector;  /* DATA: where in the segment's data */
	uint32_t first_crc;    /* DATA: index of the CRC32C of its first 4 KiB */
};

/* Records and checksums of a pinned segment; allowed when not entered. */
void wlog_seg_rec(const struct wlog_seg *seg, uint32_t index, struct wlog_rec *ret);
uint32_t wlog_seg_crc(const struct wlog_seg *seg, uint32_t index);

/*
 * Reads the data of a pinned segment from the device into buf (data_sectors long, 4 KiB aligned,
 * length rounded up to 4 KiB). Fills req and submits it; the caller sets req->done. The checksums
 * are not verified here.
 */
void wlog_seg_load(struct wlog *log, struct wlog_seg *seg, struct dev_req *req, void *buf);

/*
 * The home holds, durably, everything up to and including the segment, and reads of it find it
 * there. The log forgets the segment's entries, and frees its space by and by (L6).
 */
void wlog_destaged(struct wlog *log, uint64_t number);

/*
 * The run of equal state that begins at lba, up to end: WLOG_DATA, WLOG_ZERO (ZERO and DISCARD)
 * or 0 (the log does not hold it). Returns its end.
 */
uint64_t wlog_extent(struct wlog *log, uint64_t lba, uint64_t end, int *ret_type);

/*
 * Of the sectors from lba to end, which the home has found in the segment numbered `number` or in
 * one before it: the run that begins at lba and is, or is not (*ret), superseded: its newest copy
 * lies in a later segment that is durable (L7). Returns the run's end. What is superseded need not
 * go to the home: the later segment will take it there, and a crash finds it in the log.
 */
uint64_t wlog_superseded(struct wlog *log, uint64_t lba, uint64_t end, uint64_t number,
			 bool *ret);

/*
 * L9: the home cannot write some sectors that it found in a durable segment, and would hold up the
 * tail for ever. What the map still names in that segment of the range is written once more, at the
 * head; then the range is superseded (wlog_superseded), and nothing of it keeps the segment from
 * being counted as destaged. The home gets it again with the later segment.
 *
 * done comes once, not entered, when the range is superseded, or with an error: what could not be
 * read or verified (-EIO), the log's failure, -ECANCELED. Those that wait are served one after the
 * other, each a record of a segment's length at a time, from the space that writes may not have.
 *
 * To write an old sector after a newer other one breaks the order of writes: this is for homes that
 * promise no prefix (P3).
 */
struct wlog_relog {
	/* The caller's, until done(). */
	uint64_t number; /* of the segment; not destaged yet */
	uint64_t lba, sectors;
	void (*done)(struct wlog_relog *relog, int error);
	/* The log's. */
	struct list_head link;
	struct wlog *log;
	struct work work;
	struct dev_req req;
	void *buf;
	uint64_t run_lba, run_value;
	uint32_t run_sectors;
	int state, result;
};

/* -ENOMEM, -EROFS (not started) or the log's failure: refused, done() will not come. */
int wlog_relog(struct wlog *log, struct wlog_relog *relog);
/* Before done(): it comes soon, with -ECANCELED unless it was over already. */
void wlog_relog_cancel(struct wlog *log, struct wlog_relog *relog);

/*
 * The home has stopped for good (it was fenced): nobody waits for it any more. Every waiting and
 * every later write and flush ends with error; reads go on.
 */
void wlog_fail(struct wlog *log, int error);

/* ---- looking ------------------------------------------------------------------------------ */

/*
 * Requests by kind, an index of wlog_status.io: bits of write, hit (the log held some of the
 * range), in memory (all that it held), full (whole 4 KiB blocks, and of a read: the log held all).
 * WRITEs are counted when they are published, READs when they begin; zeros are in memory. ZERO and
 * DISCARD are neither. BUFFER without HIT and a READ that is FULL without HIT cannot be.
 */
enum {
	WLOG_IO_WRITE = 1 << 0,
	WLOG_IO_HIT = 1 << 1,
	WLOG_IO_BUFFER = 1 << 2,
	WLOG_IO_FULL = 1 << 3,
	WLOG_IO_KINDS = 1 << 4,
};

struct wlog_status {
	struct wlog_identity id;
	uint64_t log_epoch;
	uint64_t ring_bytes, used_bytes;
	uint64_t segments, buffers, buffers_dirty;
	uint64_t next_lsn, published_lsn, durable_lsn, destaged_lsn;
	uint64_t map_extents, map_bytes;
	uint64_t user_bytes;      /* accepted by writes since open */
	uint64_t device_bytes;    /* written to the cache device since open */
	uint64_t device_bytes_life;
	uint64_t seals, seals_partial, flushes, barriers, deadline_overruns;
	uint64_t waiting;         /* requests queued for space */
	uint64_t read_hits_memory, read_hits_device, read_misses; /* sectors */
	uint64_t io[WLOG_IO_KINDS]; /* requests since open, or since wlog_clear_stat() */
	uint64_t head_seg, durable_seg, destaged_seg; /* numbers: the open one or the next; ... */
	uint32_t head_sectors; /* data in the open segment */
	uint64_t relogged_bytes;  /* written once more, since the home could not (wlog_relog) */
	int failed;               /* 0, or the errno that stopped the log */
};

void wlog_status(const struct wlog *log, struct wlog_status *ret);
void wlog_clear_stat(struct wlog *log); /* io[] */

#endif
