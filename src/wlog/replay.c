/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opening a log: from the tail along the chain of headers to the last write that counts (L4).
 *
 * A header counts if its CRC is right and it is what has to come next: this log's, the next number,
 * with the CRC of the header before it, with the right epoch (superblock, cut_seg), a later LSN,
 * and a length that stays in the ring. Only headers are read; data is verified just where it may
 * be torn, that is above the watermark, the highest LSN of which any header or the superblock says
 * that it was durable. Below it, checksums are verified when the data is read.
 *
 * The chain ends at the first header that does not count, or the first segment above the watermark
 * whose data is torn. That is the normal end, unless there is evidence that something durable stood
 * there: a number below cut_seg, a watermark above the last LSN in the chain or the superblock, or
 * a header further on, of this epoch, with such a watermark. Then the log is damaged and is
 * refused: to cut it there would lose flushed writes in silence.
 *
 * A write of several records that lacks its end is dropped. So it will be by every later recovery,
 * because the record that comes next does not say CONTINUED.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mutant.h"
#include "wlog/wlog_impl.h"

#define WINDOW_BYTES (1u << 20)
#define WINDOW_SPARSE_BYTES (64u << 10)
/* Segments longer than this are not worth reading through to get to the next header. */
#define SPARSE_BYTES (256u << 10)
/* How far behind the end evidence is sought: more is never left unflushed (commit.c), twice. */
#define EVIDENCE_BYTES (UINT64_C(160) << 20)

/* A window on the ring, and where the walk stands. */
struct scan {
	struct wlog *log;
	struct err *err;
	uint8_t *buf;
	uint64_t at, len; /* ring positions that the window holds */
	uint32_t want;    /* bytes to read next time */
	uint64_t pos, number, last_lsn, epoch, watermark, seen_lsn;
	uint32_t prev_crc;
	uint32_t pad_bytes;
};

/* Makes len bytes at pos readable in the window; they do not cross the end of the ring. */
static int window(struct scan *s, uint64_t pos, uint32_t len, const void **ret)
{
	const struct wlog *log = s->log;
	const uint64_t off = pos % log->ring_bytes;
	uint64_t bytes = s->want > len ? s->want : len;
	int rc;

	if (pos < s->at || pos + len > s->at + s->len) {
		if (bytes > log->ring_bytes - off)
			bytes = log->ring_bytes - off;
		if (bytes < len)
			return -EBADMSG;
		rc = dev_pread(log->dev, s->buf, bytes, log->ring_off + off);
		if (rc)
			return err_set(s->err, rc,
				       "cannot read the log at %llu; nothing was changed",
				       (unsigned long long)(log->ring_off + off));
		s->at = pos;
		s->len = bytes;
	}
	*ret = s->buf + (pos - s->at);
	return 0;
}

/* 0, -EBADMSG when there is no header of this log, or an I/O error. */
static int read_header(struct scan *s, uint64_t pos, struct seg_header *ret, const void **ret_hdr)
{
	int rc = window(s, pos, WLOG_BLOCK, ret_hdr);

	if (rc)
		return rc;
	rc = header_decode(*ret_hdr, WLOG_BLOCK, &s->log->id.log_uuid, ret);
	if (rc != -EAGAIN)
		return rc;
	rc = window(s, pos, ret->header_bytes, ret_hdr);
	if (rc)
		return rc;
	return header_decode(*ret_hdr, ret->header_bytes, &s->log->id.log_uuid, ret);
}

/* Whether the header is the one that has to come next. */
static bool counts(const struct scan *s, const struct seg_header *h)
{
	const struct wlog *log = s->log;
	const uint64_t total = (uint64_t)h->header_bytes + h->data_bytes;
	const uint64_t to_end = log->ring_bytes - s->pos % log->ring_bytes;
	const bool old = s->number < log->cut_seg;

	if (h->number != s->number || total > to_end ||
	    s->pos + total - log->tail.pos > log->ring_bytes)
		return false;
	if (h->prev_crc != s->prev_crc && VARVE_STEP("wlog.chain_crc"))
		return false;
	if ((old ? h->log_epoch >= log->log_epoch || h->log_epoch < s->epoch :
		   h->log_epoch != log->log_epoch) &&
	    VARVE_STEP("wlog.epoch_check"))
		return false;
	if (h->flags & WLOG_SEG_PAD)
		return total == to_end && !s->pad_bytes;
	return h->first_lsn > s->last_lsn;
}

static int add_segment(struct scan *s, const struct seg_header *h, const void *hdr)
{
	struct wlog *log = s->log;
	const uint8_t *at = (const uint8_t *)hdr + sizeof(struct wlog_seg_hdr);
	struct wlog_seg *seg = seg_new(log, h->records, h->crcs);

	if (!seg)
		return -ENOMEM;
	memcpy(seg->recs, at, h->records * sizeof(*seg->recs) + h->crcs * sizeof(*seg->crc));
	seg->state = SEG_DURABLE;
	seg->first_lsn = h->first_lsn;
	seg->last_lsn = h->last_lsn;
	seg->wall_ns = h->wall_ns;
	seg->header_bytes = h->header_bytes;
	seg->data_bytes = h->data_bytes;
	seg->records = h->records;
	seg->crcs = h->crcs;
	seg->hdr_crc = h->crc;
	for (uint32_t i = 0; i < h->records; i++) {
		if (seg->recs[i].type == WLOG_DATA)
			seg->data_sectors += le32_get(seg->recs[i].sectors);
	}
	seg->pos = s->pos;
	seg->pad_bytes = s->pad_bytes;
	seg->pad_pos = s->pos - s->pad_bytes;
	seg->prev_crc = log->last_crc; /* before the pad, if there is one */
	if (seg_append(log, seg)) {
		seg_free(seg);
		return -ENOMEM;
	}
	return 0;
}

/* Walks the chain. The log then holds every segment whose header counts. */
static int walk(struct scan *s)
{
	struct wlog *log = s->log;
	struct seg_header h;
	const void *hdr;
	int rc;

	while (s->pos - log->tail.pos < log->ring_bytes) {
		uint64_t total;

		rc = read_header(s, s->pos, &h, &hdr);
		if (rc && rc != -EBADMSG)
			return rc;
		if (!rc && h.number == s->number && h.prev_crc == s->prev_crc &&
		    h.log_epoch > log->log_epoch)
			return err_corrupt(s->err,
					   "log: segment %llu is of epoch %llu, the superblock of "
					   "%llu: the newest superblock is lost",
					   (unsigned long long)h.number,
					   (unsigned long long)h.log_epoch,
					   (unsigned long long)log->log_epoch);
		if (rc || !counts(s, &h))
			return 0;
		total = (uint64_t)h.header_bytes + h.data_bytes;
		if (h.watermark_lsn > s->watermark)
			s->watermark = h.watermark_lsn;
		s->epoch = h.log_epoch;
		s->prev_crc = h.crc;
		if (h.flags & WLOG_SEG_PAD) {
			s->pad_bytes = (uint32_t)total;
			s->pos += total;
			continue;
		}
		rc = add_segment(s, &h, hdr);
		if (rc)
			return rc;
		s->want = total > SPARSE_BYTES ? WINDOW_SPARSE_BYTES : WINDOW_BYTES;
		s->pad_bytes = 0;
		s->pos += total;
		s->last_lsn = h.last_lsn;
		s->seen_lsn = h.last_lsn;
		s->number++;
		log->head_pos = s->pos;
		log->last_crc = h.crc;
	}
	return 0;
}

static bool data_intact(const struct wlog_seg *seg, const uint8_t *data)
{
	for (uint32_t i = 0; i < seg->records; i++) {
		const struct wlog_rec_disk *rec = &seg->recs[i];

		if (rec->type == WLOG_DATA &&
		    !rec_verify(seg, i, 0, le32_get(rec->sectors),
				data + le32_get(rec->data_sector) * DEV_SECTOR_BYTES))
			return false;
	}
	return true;
}

/* Drops the last segments down to `number`, which becomes the next one. */
static void cut(struct scan *s, uint64_t number)
{
	struct wlog *log = s->log;
	struct wlog_seg *seg = seg_get(log, number);

	log->head_pos = seg->pad_bytes ? seg->pad_pos : seg->pos;
	log->last_crc = seg->prev_crc;
	while (log->next_seg > number) {
		seg = seg_get(log, log->next_seg - 1);
		log->next_seg--;
		log->segs[seg->number & (log->segs_cap - 1)] = NULL;
		seg_free(seg);
	}
	s->number = number;
	s->last_lsn = number > log->tail_seg ? seg_get(log, number - 1)->last_lsn : log->tail.lsn;
}

/* Verifies what may be torn, in order, and cuts at the first that is. */
static int verify_tail(struct scan *s)
{
	struct wlog *log = s->log;
	uint64_t n = log->next_seg;

	while (n > log->tail_seg && seg_get(log, n - 1)->last_lsn > s->watermark)
		n--;
	for (; n < log->next_seg; n++) {
		const struct wlog_seg *seg = seg_get(log, n);
		const void *data = NULL;
		int rc = 0;

		s->want = WINDOW_BYTES;
		if (seg->data_bytes)
			rc = window(s, seg->pos + seg->header_bytes, seg->data_bytes, &data);
		if (rc)
			return rc;
		if (!data_intact(seg, data) && VARVE_STEP("wlog.replay_verify")) {
			cut(s, n);
			break;
		}
	}
	return 0;
}

static int damaged(struct scan *s, uint64_t evidence_lsn)
{
	return err_corrupt(s->err,
			   "log: segment %llu at device offset %llu is damaged, but LSN %llu was "
			   "durable and the log ends at %llu; the store still holds what had been "
			   "destaged (see --discard-cache)",
			   (unsigned long long)s->number,
			   (unsigned long long)(s->log->ring_off +
						s->log->head_pos % s->log->ring_bytes),
			   (unsigned long long)evidence_lsn, (unsigned long long)s->last_lsn);
}

/* Looks behind the end for headers that say that more was durable. */
static int seek_evidence(struct scan *s)
{
	struct wlog *log = s->log;
	const uint64_t left = log->ring_bytes - (log->head_pos - log->tail.pos);
	const uint64_t span = left < EVIDENCE_BYTES ? left : EVIDENCE_BYTES;

	s->want = WINDOW_BYTES;
	for (uint64_t ahead = 0; ahead < span; ahead += WLOG_BLOCK) {
		struct seg_header h;
		const void *hdr;
		const int rc = read_header(s, log->head_pos + ahead, &h, &hdr);

		if (rc && rc != -EBADMSG)
			return rc;
		if (rc || h.number < s->number || h.log_epoch != log->log_epoch)
			continue;
		if (h.last_lsn > s->seen_lsn)
			s->seen_lsn = h.last_lsn;
		if (h.watermark_lsn > s->last_lsn)
			return damaged(s, h.watermark_lsn);
	}
	return 0;
}

static int judge_end(struct scan *s)
{
	struct wlog *log = s->log;

	if (!VARVE_STEP("wlog.refuse_damage"))
		return 0;
	if (s->watermark > s->last_lsn)
		return damaged(s, s->watermark);
	if (s->number < log->cut_seg)
		return damaged(s, log->next_lsn);
	return seek_evidence(s);
}

/* A record's place in the log. */
struct place {
	uint64_t seg;
	uint32_t rec;
};

/* Marks the records in [from, to) as standing for nothing. */
static void void_records(struct wlog *log, struct place from, struct place to)
{
	for (uint64_t n = from.seg; n <= to.seg && n < log->next_seg; n++) {
		struct wlog_seg *seg = seg_get(log, n);
		const uint32_t end = n == to.seg ? to.rec : seg->records;

		for (uint32_t i = n == from.seg ? from.rec : 0; i < end; i++)
			seg->recs[i].flags |= WLOG_REC_VOID;
	}
}

static int no_beginning(struct scan *s, const struct wlog_seg *seg)
{
	return err_corrupt(s->err,
			   "log: segment %llu continues a write that does not begin in the log",
			   (unsigned long long)seg->number);
}

/*
 * Marks the writes that lack their end. The home may have taken the first segments of such a write,
 * which stand for nothing, so that the log now begins in its middle; it never does so with a write
 * that has an end.
 */
static int drop_incomplete(struct scan *s)
{
	struct wlog *log = s->log;
	struct place start = { 0, 0 }; /* of the write in the middle of which we are, if any */
	bool headless = false;

	for (struct place at = { log->tail_seg, 0 }; at.seg < log->next_seg; at.seg++) {
		const struct wlog_seg *seg = seg_get(log, at.seg);

		for (at.rec = 0; at.rec < seg->records; at.rec++) {
			const uint32_t flags = seg->recs[at.rec].flags;

			if (start.seg && !(flags & WLOG_REC_CONTINUED)) {
				void_records(log, start, at);
			} else if (!start.seg && (flags & WLOG_REC_CONTINUED) &&
				   seg->last_lsn > log->destaged_lsn) {
				if (at.rec || (at.seg > log->tail_seg &&
					       seg_get(log, at.seg - 1)->last_lsn >
						       log->destaged_lsn))
					return no_beginning(s, seg);
				headless = true;
				start = at;
			}
			if (!(flags & WLOG_REC_CONTINUED)) {
				headless = false;
				start = at;
			}
			if (!(flags & WLOG_REC_CONTINUES)) {
				if (headless)
					return no_beginning(s, seg);
				start.seg = 0;
			}
		}
	}
	if (start.seg)
		void_records(log, start, (struct place){ log->next_seg, 0 });
	return 0;
}

/* Enters into the map what the home does not hold yet. */
static int build_map(struct wlog *log, struct err *err)
{
	log->destaged_seg = log->tail_seg - 1;
	for (uint64_t n = log->tail_seg; n < log->next_seg; n++) {
		const struct wlog_seg *seg = seg_get(log, n);

		if (seg->last_lsn <= log->destaged_lsn) {
			log->destaged_seg = n;
			continue;
		}
		for (uint32_t i = 0; i < seg->records; i++) {
			const struct wlog_rec_disk *rec = &seg->recs[i];
			int rc;

			if (rec->flags & WLOG_REC_VOID)
				continue;
			if (le48_get(rec->lba) + le32_get(rec->sectors) > log->home->sectors)
				return err_corrupt(err,
						   "log: segment %llu writes beyond the end of the "
						   "volume; has that shrunk?",
						   (unsigned long long)n);
			rc = extmap_insert(&log->map, le48_get(rec->lba), le32_get(rec->sectors),
					   rec_value(n, rec));
			if (rc)
				return rc;
		}
	}
	log->forgotten_seg = log->destaged_seg;
	return 0;
}

/* Large enough for any segment: verify_tail() looks at whole ones. */
#define SCAN_BYTES (WLOG_HEADER_MAX_BYTES + WLOG_DATA_MAX_BYTES)

static int scan_init(struct scan *s, struct wlog *log, struct err *err)
{
	*s = (struct scan){ .log = log, .err = err, .want = WINDOW_BYTES };
	return posix_memalign((void **)&s->buf, WLOG_BLOCK, SCAN_BYTES) ? -ENOMEM : 0;
}

int replay(struct wlog *log, const struct wlog_sb *sb, struct err *err)
{
	struct scan s;
	int rc = scan_init(&s, log, err);

	if (rc)
		return rc;
	s.pos = log->head_pos = log->tail.pos;
	s.number = log->tail.seg;
	s.last_lsn = log->tail.lsn;
	s.prev_crc = log->last_crc = log->tail.prev_crc;
	s.watermark = le64_get(sb->watermark_lsn);
	rc = walk(&s);
	if (!rc)
		rc = verify_tail(&s);
	if (!rc)
		rc = judge_end(&s);
	if (!rc)
		rc = drop_incomplete(&s);
	if (!rc)
		rc = build_map(log, err);
	free(s.buf);
	if (rc)
		return rc;
	if (s.seen_lsn >= log->next_lsn)
		log->next_lsn = s.seen_lsn + 1;
	log->durable_lsn = s.last_lsn;
	log->published_lsn = s.last_lsn;
	log->durable_seg = log->written_seg = log->submitted_seg = log->next_seg - 1;
	log->sealed_seg = log->closed_seg = log->whole_seg = log->next_seg - 1;
	return 0;
}

/*
 * Whoever writes takes the log as it was when he looked. If another has written to it since (and
 * died, or there would be no right to take), cutting it at the end that was found then would lose
 * what the other made durable.
 */
int replay_again(struct wlog *log, struct err *err)
{
	const uint64_t next_seg = log->next_seg;
	struct wlog_sb sb;
	uint32_t slot;
	struct scan s;
	int rc = sb_read(log->dev, &sb, &slot, err);

	if (!rc)
		rc = scan_init(&s, log, err);
	if (rc)
		return rc;
	s.pos = log->head_pos;
	s.number = next_seg;
	s.last_lsn = log->durable_lsn;
	s.prev_crc = log->last_crc;
	s.watermark = log->durable_lsn;
	rc = le64_get(sb.sb_seq) == log->sb_seq ? walk(&s) : -EAGAIN;
	if (!rc)
		rc = verify_tail(&s);
	free(s.buf);
	if (rc == -EAGAIN || (!rc && log->next_seg != next_seg))
		return err_set(err, -EAGAIN, "the log has been written to since it was opened");
	return rc;
}
