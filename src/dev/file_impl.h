/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the file device share: file.c (queue and vtable), file_io.c (one request),
 * file_open.c (opening, creating, geometry), file_identity.c, file_lock.c. Nobody else includes
 * this, but for tests.
 */
#ifndef DEV_FILE_IMPL_H
#define DEV_FILE_IMPL_H

#include <sys/stat.h>

#include "dev/file.h"
#include "dev/gate.h"
#include "runtime/loop.h"

#define FILE_SLOTS 256             /* requests with the loop at once */
#define FILE_BOUNCE_BYTES 262144u  /* of one bounce buffer */
#define FILE_BOUNCES 32            /* of a device */
#define FILE_ZERO_BYTES 65536u     /* zeros are written from one buffer, many times at once */
#define FILE_ZERO_IOVS 16

struct file_bounce;

enum file_stage {
	FILE_WHOLE,   /* the caller's vector as it is, or no data at all */
	FILE_BOUNCED, /* piece by piece through fio->bounce */
	FILE_ZEROS,   /* piece by piece from the buffer of zeros */
	FILE_FUA,     /* the flush behind a zero or discard */
};

/* A started request, or a group of flushes that one fdatasync answers. */
struct file_io {
	struct loop_io io;
	struct list_head link;
	struct dev_file *file;
	struct dev_req *req;       /* NULL: the flushes */
	struct list_head flushes;  /* dev_req */
	struct file_bounce *bounce;
	enum file_stage stage;
	bool own_slot;             /* false: lives on a helper's stack */
	bool syncs;                /* holds file->syncing */
	int result;
	uint64_t at_bytes;         /* BOUNCED, ZEROS: of the request, done so far */
	uint64_t piece_bytes;      /* what the step under way adds to that */
	struct iovec iov[FILE_ZERO_IOVS];
};

struct dev_file {
	struct dev dev;
	struct dev_gate gate;
	struct loop *loop;
	char *path;
	int fd;
	int claim_fd;              /* block devices: the O_EXCL claim of lock(); else -1 */
	bool direct;
	bool is_block;
	uint32_t io_align;
	uint32_t mem_align;
	atomic_int sticky;         /* set by the first failed flush or fua write; see forgive */

	/* Under gate.lock. */
	struct list_head queue;    /* dev_req, not started: all but flushes */
	struct list_head flushes;  /* dev_req, not started */
	struct list_head slots;    /* file_io, free */
	struct list_head bounces;  /* file_bounce, free */
	unsigned bounces_made;
	uint64_t last_seq;
	bool syncing;              /* see invariant 3 of file.c */
	bool want_kick;            /* a kick has found requests that could not start yet */
	struct file_io *all_slots;
};

/* file_io.c */

/* The queue's use of the scratch in a request. */
#define FILE_PRIV_SEQ 0
#define FILE_PRIV_BOUNCED 1
#define FILE_PRIV_CHECK 2

bool file_io_must_bounce(const struct dev_file *file, const struct dev_req *req);

/*
 * Sets up the first step in fio->io, or returns false with fio->result: finished. next is called
 * when a step is over (io.result) and returns true when it has set up another one.
 */
bool file_io_begin(struct file_io *fio);
bool file_io_next(struct file_io *fio);

struct file_bounce *file_bounce_new(void);
void file_bounce_free_all(struct list_head *bounces);
struct list_head *file_bounce_link(struct file_bounce *bounce);
struct file_bounce *file_bounce_of(struct list_head *link);

/* file_open.c */

extern const struct dev_ops file_ops;

/* Opens, creates, and fills in what describes the file. On failure the caller closes fd. */
int file_setup(struct dev_file *file, const struct dev_file_options *opt, struct err *err);

/* dev->size_bytes as the kernel says it now; 0 or a negative errno, and then it is as it was. */
int file_resize_look(struct dev *dev);
int file_resize(struct dev *dev, uint64_t size_bytes);

/* file_identity.c */

void file_identity(struct dev *dev, char *ret);
/* Of a block device, with sysfs mounted there: for tests too. */
void file_identity_at(const char *sysfs, dev_t rdev, char *ret);

/* file_lock.c */

int file_lock(struct dev *dev, struct err *err);
void file_unlock(struct dev *dev);

#endif
