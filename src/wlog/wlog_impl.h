/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write log's inside, shared by its files:
 *
 *   sb.c      superblocks on media          codec.c   segment headers on media
 *   seg.c     segments and their buffers    write.c   reserve, fill, publish, waiting for space
 *   commit.c  device writes, flushes        space.c   forgetting, the tail, superblock writes
 *   read.c    reads                         replay.c  opening
 *   wlog.c    the life of a log, status     home.c   what the home takes, and may leave
 *   relog.c   writing once more what the home cannot take
 *
 * Everything in struct wlog is guarded by the host ("entered") but for what a comment excepts.
 */
#ifndef WLOG_WLOG_IMPL_H
#define WLOG_WLOG_IMPL_H

#include "base/extmap.h"
#include "wlog/wlog.h"
#include "wlog/wlog_layout.h"

/*
 * A segment's way. The numbers only go up; so do the states.
 *
 *   OPEN     takes records                            seg_open()
 *   CLOSED   has its place; records may be unfilled   seg_close()
 *   SEALED   header built, waits for the device       seg_seal()
 *   WRITING  at the device                            commit_write_next()
 *   WRITTEN  the device has acknowledged it           commit_written()
 *   DURABLE  a flush or FUA has covered it            commit_durable()
 *
 * A durable segment is destaged when its number is at most log->destaged_seg, and freed when a
 * superblock with a later tail is durable and nobody pins it.
 */
enum wlog_seg_state {
	SEG_OPEN,
	SEG_CLOSED,
	SEG_SEALED,
	SEG_WRITING,
	SEG_WRITTEN,
	SEG_DURABLE,
};

/*
 * Memory for data. Segments take consecutive 4 KiB pieces of it, so that many small ones share a
 * buffer. It can be used again when every segment in it is written and none is pinned in memory.
 */
struct wlog_buf {
	struct list_head link; /* log->bufs_free, or bufs_used in order of first use */
	struct list_head segs; /* struct wlog_seg.buf_link */
	void *mem;             /* segment_bytes, 4 KiB aligned; a part of log->buf_mem */
	uint32_t used_bytes;
	uint32_t unwritten; /* segments in it that are not WRITTEN yet */
	uint32_t pins;      /* memory pins of its segments */
	uint32_t home_pins; /* of these the home's */
};

/* In memory only, in wlog_rec_disk.flags: of a write without an end, it stands for nothing. */
#define WLOG_REC_VOID (1u << 7)

/* What a segment needs while it is on its way to the device; from SEALED to WRITTEN. */
struct seg_io {
	void *hdr;     /* the header as written */
	void *pad_hdr; /* the pad's, or NULL */
	struct wlog_seg *seg;
	uint32_t pending; /* device writes that are not done: the pad and the segment itself */
	bool fua;
	struct iovec iov[2];
	struct dev_req req, pad_req;
};

struct wlog_seg {
	uint64_t number;
	uint64_t first_lsn, last_lsn;
	uint64_t pos; /* of the header, in the ring; from CLOSED on */
	uint64_t pad_pos;
	uint64_t wall_ns;
	enum wlog_seg_state state;
	uint32_t header_bytes, data_bytes; /* on the device; from CLOSED on */
	uint32_t records, crcs, data_sectors;
	uint32_t unpublished; /* reserved and not yet published */
	uint32_t published;
	uint32_t pins;          /* readers and the home: the place on the device is kept */
	uint32_t mem_pins;      /* the data in memory is kept */
	uint32_t home_mem_pins; /* of these the home's: one at most */
	uint32_t home_pins;     /* of pins the home's */
	uint32_t pad_bytes;     /* of the pad before it, or 0 */
	uint32_t prev_crc; /* header CRC of the segment before it, and before its pad */
	uint32_t hdr_crc;
	bool last_resort; /* opened with space that data may not have (L9) */
	struct wlog_rec_disk *recs; /* immutable once sealed: readable when pinned, not entered */
	le32 *crc;                  /* behind the records, in the same allocation */
	struct wlog_buf *buf;       /* NULL: not in memory */
	uint32_t buf_off_bytes;
	struct list_head buf_link;
	struct seg_io *io; /* NULL but from SEALED to WRITTEN */
	struct wlog *log;
};

/* What a write keeps in dev_req.priv while the log has it. */
struct wlog_write {
	struct list_head pub; /* log->publishing */
	struct wlog_seg *seg; /* of the current portion */
	uint32_t rec;
	uint32_t portion;  /* sectors of the current portion */
	uint64_t done;     /* sectors of earlier portions */
	uint64_t since_ns; /* waiting, or a barrier: since when */
	uint64_t target;   /* a barrier: the segment that must be durable */
	bool filled;
	bool relog;           /* the log's own: no user's bytes */
	bool hit, hit_device; /* what it has overwritten: anything of the log's; on the device */
};

static_assert(sizeof(((struct wlog_sb *)0)->home) == WLOG_HOME_BYTES, "the home's bytes");
static_assert(sizeof(struct wlog_write) <= sizeof(((struct dev_req *)0)->priv), "fits priv");

static inline struct wlog_write *wlog_write_of(struct dev_req *req)
{
	return (struct wlog_write *)(void *)&req->priv;
}

#define WLOG_OFF_BITS 20 /* map values: segment number above, data sector below */
#define WLOG_TAG_BITS 2  /* of a constant: the record type */

/* Where the needed part of the ring begins, and what replay has to know to begin there. */
struct tail {
	uint64_t seg, pos;
	uint64_t lsn; /* the last one before it */
	uint32_t prev_crc;
};

struct wlog {
	struct host *host;
	struct dev *dev;
	struct wlog_home *home;
	struct wlog_options opt;
	bool started;
	int failed; /* the errno that ended writing, or 0 */

	/* Identity and place, as in the superblock. */
	struct wlog_identity id;
	uint64_t log_epoch, cut_seg;
	uint64_t ring_off, ring_bytes, device_bytes;
	uint64_t life_bytes;    /* before this opening */
	uint64_t written_bytes; /* since */

	/* LSNs. */
	uint64_t next_lsn, durable_lsn, destaged_lsn;
	uint64_t published_lsn;

	/*
	 * Segments tail_seg .. next_seg-1 are in segs[number & (segs_cap - 1)]. Of these
	 *   .. destaged_seg      the home has them
	 *   .. forgotten_seg     and the map no longer names them
	 *   .. durable_seg       survive a crash
	 *   .. whole_seg         and so does the end of every write in them
	 *   .. written_seg       are acknowledged by the device, without a gap
	 *   .. submitted_seg     are at the device
	 *   .. sealed_seg        have their header
	 *   .. closed_seg        have their place
	 */
	struct wlog_seg **segs;
	uint64_t segs_cap;
	uint64_t tail_seg, next_seg;
	uint64_t destaged_seg, forgotten_seg, whole_seg, durable_seg, written_seg, submitted_seg,
		sealed_seg, closed_seg;
	struct wlog_seg *open;
	uint64_t head_pos; /* where the next segment that closes goes */
	struct tail tail;  /* as in the durable superblock: space before it may be overwritten */
	uint32_t last_crc; /* header CRC of the last sealed segment */

	/* Limits that follow from the options. */
	uint32_t rec_max, header_max_bytes;
	uint64_t max_total_bytes; /* of a segment with its header */
	uint32_t max_io_sectors;

	struct extmap map;
	uint32_t unpublished;          /* records; map_reserved() keeps nodes for them */
	struct list_head publishing;   /* reserved writes in LSN order */
	struct list_head waiting;      /* writes without room, in order of arrival */
	struct list_head waiting_free; /* ZERO and DISCARD, which may use the last space (L9) */
	struct dev_req *partial;       /* the write whose next portion must come next */
	bool partial_waits;            /* for room */

	/* Buffers. */
	struct wlog_buf *bufs;
	void *buf_mem; /* of all buffers */
	size_t buf_mem_bytes;
	struct list_head bufs_free, bufs_used;
	struct wlog_buf *open_buf;
	uint32_t bufs_home; /* with home pins */

	/* Commits. */
	struct list_head barriers; /* FLUSHes and published FUA writes, by arrival */
	uint32_t barrier_count, last_group;
	uint64_t commit_target; /* segment; 0: no commit is under way */
	uint64_t seal_target;   /* segment that wlog_seal() wants durable */
	bool published_part;    /* what was published last is a write without its end */
	bool seal_whole;        /* seal again when it has it */
	uint64_t flush_covers;
	bool flushing;
	struct dev_req flush_req;
	uint32_t writes_in_flight;
	uint64_t undurable_bytes; /* submitted and not durable, headers and pads included */

	/* The tail and the superblock. */
	struct work forget_work;
	bool forgetting;
	uint32_t forget_rec;
	bool sb_writing;
	uint32_t sb_slot;
	uint64_t sb_seq;
	struct tail sb_tail; /* in the superblock that is being written */
	struct wlog_sb *sb_mem;
	struct dev_req sb_req;

	uint32_t reads; /* that are not done */

	/* What is written once more (relog.c). */
	struct list_head relogs; /* the first is under way */
	bool relog_waits;        /* it has no room */
	uint32_t relog_works;    /* deferred */

	/* What the home keeps in the superblock, as it will be in the next one. */
	uint32_t home_bytes;
	uint8_t home_state[WLOG_HOME_BYTES];

	struct wlog_status st; /* counters */
};

/* ---- sb.c */

void sb_encode(const struct wlog *log, const struct tail *tail, bool clean, struct wlog_sb *sb);
void sb_sign(struct wlog_sb *sb); /* its checksum: what sb_encode() ends with */
int sb_decode(const void *block, uint64_t device_bytes, struct wlog_sb *ret, struct err *err);
/* The newest valid superblock and its slot. */
int sb_read(struct dev *dev, struct wlog_sb *ret, uint32_t *ret_slot, struct err *err);
void sb_load(struct wlog *log, const struct wlog_sb *sb, uint32_t slot);
int sb_write_sync(struct wlog *log, bool clean, bool both, struct err *err);

/* ---- codec.c */

/* The fields of a header, checked, in host form. */
struct seg_header {
	uint64_t log_epoch, number, first_lsn, last_lsn, watermark_lsn, wall_ns;
	uint32_t prev_crc, crc, header_bytes, data_bytes, records, crcs, flags;
};

uint32_t header_bytes_for(uint32_t records, uint32_t crcs);
/*
 * Checks as much as len_bytes allow: -EAGAIN with ret->header_bytes set when the header is
 * longer than that. -EBADMSG when it is none of this log.
 */
int header_decode(const void *buf, size_t len_bytes, const struct uuid *log_uuid,
		  struct seg_header *ret);
void header_encode(const struct wlog *log, const struct wlog_seg *seg, uint32_t prev_crc,
		   struct wlog_seg_hdr *hdr);
void pad_encode(const struct wlog *log, const struct wlog_seg *seg, uint32_t prev_crc,
		struct wlog_seg_hdr *hdr);
uint32_t header_crc(const struct wlog_seg_hdr *hdr);
/* Verifies a DATA record's checksums over its sectors [from, to), whole 4 KiB chunks, at data. */
bool rec_verify(const struct wlog_seg *seg, uint32_t rec, uint32_t from, uint32_t to,
		const void *data);

/* ---- seg.c */

struct wlog_seg *seg_get(const struct wlog *log, uint64_t number);
struct wlog_seg *seg_of_value(const struct wlog *log, uint64_t value);
uint64_t seg_dev_off(const struct wlog *log, const struct wlog_seg *seg); /* of its data */
int seg_append(struct wlog *log, struct wlog_seg *seg);
struct wlog_seg *seg_new(struct wlog *log, uint32_t records, uint32_t crcs);
void seg_free(struct wlog_seg *seg);
void seg_io_free(struct wlog_seg *seg);
bool seg_space(const struct wlog *log, uint64_t data_sectors, bool begun);
struct wlog_seg *seg_open(struct wlog *log, uint64_t data_sectors, bool begun);
void seg_close(struct wlog *log);
void seg_seal_ready(struct wlog *log);
uint32_t seg_room_sectors(const struct wlog *log, const struct wlog_seg *seg);
uint32_t seg_rec_at(const struct wlog_seg *seg, uint32_t data_sector);
void *seg_data(const struct wlog_seg *seg);
void seg_mem_pin(struct wlog *log, struct wlog_seg *seg, bool home);
void seg_mem_unpin(struct wlog *log, struct wlog_seg *seg, bool home);
uint64_t rec_value(uint64_t number, const struct wlog_rec_disk *rec);

/* The number of the segment whose record a map value names. */
static inline uint64_t value_seg(uint64_t value)
{
	return value & EXTMAP_CONST ? (value & ~EXTMAP_CONST) >> WLOG_TAG_BITS :
				      value >> WLOG_OFF_BITS;
}

/* Whether no write goes on in the next segment. */
static inline bool seg_ends_whole(const struct wlog_seg *seg)
{
	const uint8_t flags = seg->recs[seg->records - 1].flags;

	return !(flags & WLOG_REC_CONTINUES) || (flags & WLOG_REC_VOID);
}

/* Counts a request as one of its kind (enum in wlog.h). */
static inline void log_count_io(struct wlog *log, const struct dev_req *req, unsigned int hit,
				bool all)
{
	const bool whole = (req->off_bytes | req->len_bytes) % WLOG_BLOCK == 0;

	log->st.io[hit | (req->op == DEV_WRITE ? WLOG_IO_WRITE : 0) |
		   (whole && all ? WLOG_IO_FULL : 0)]++;
}

/* ---- write.c */

void write_admit(struct wlog *log);
/* Whether a write to any of these sectors has its LSN and is not in the map yet. */
bool write_pending(struct wlog *log, uint64_t lba, uint64_t sectors);
/* Gives the log's own write its LSN and room, of what users may not have; false: there is none. */
bool write_reserve_own(struct wlog *log, struct dev_req *req);
bool write_starving(const struct wlog *log);
void write_fail_all(struct wlog *log, int error);
void write_tick(struct wlog *log, uint64_t now_ns);

/* ---- commit.c */

void commit_barrier(struct wlog *log, struct dev_req *req, uint64_t target);
void commit_run(struct wlog *log);
void commit_wish(struct wlog *log); /* what wlog_seal() asks for, by the next commit_run() */

/* ---- relog.c */

void relog_step(struct wlog *log);
bool relog_owns(const struct dev_req *req); /* no user's */

/* ---- space.c */

uint64_t space_free_bytes(const struct wlog *log);
void space_advance(struct wlog *log);
void space_forget(struct wlog *log);
void space_forget_run(struct work *work);
void space_tail_at(const struct wlog *log, uint64_t number, struct tail *ret);
void space_drop_tail(struct wlog *log, uint64_t tail_seg);

/* ---- replay.c */

int replay(struct wlog *log, const struct wlog_sb *sb, struct err *err);
/* -EAGAIN when the log has grown since replay(): somebody else has written to it. */
int replay_again(struct wlog *log, struct err *err);

/* ---- wlog.c */

/* Lets proceed what can: every event ends in it. */
void log_advance(struct wlog *log);
void log_complete(struct wlog *log, struct dev_req *req, int result);
void log_fail(struct wlog *log, int error, const char *what);
size_t iov_gather(const struct dev_req *req, uint64_t off_bytes, size_t len_bytes,
		  const void **ret);

#endif
