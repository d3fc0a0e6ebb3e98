/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Raw images in and out of volumes: what import and export share.
 *
 * One thread does everything but the volume's I/O: it reads and writes the image in order, and
 * keeps up to n_slots requests of request_bytes in flight on the volume (transfer.c). Memory is
 * bounded by their product. What is in struct transfer belongs to that thread; of a slot the fields
 * "done" and "rc" belong to whoever completes it until ring_oldest() has seen done, under struct
 * ring's lock.
 */
#ifndef CLI_TRANSFER_H
#define CLI_TRANSFER_H

#include <pthread.h>
#include <sys/stat.h>

#include "cli.h"

#define TRANSFER_BLOCK_BYTES 4096u	 /* zeros are looked for in such pieces of the image */
#define TRANSFER_HOLE_BYTES (64u << 10)	 /* a shorter hole of a volume is read, not skipped */
#define TRANSFER_SKIP_BYTES (256u << 20) /* holes are passed over in such steps */

/* ---- the image (transfer_image.c) ------------------------------------------------------------ */

struct image {
	const char *path; /* "-": a stream */
	int fd;
	bool stream;
	bool device;
	bool fresh;	     /* what was not written to it reads as zeros */
	uint64_t size_bytes; /* of a stream that is read: 0 */
	uint64_t mtime_ns, dev, ino;
	uint64_t segment_end; /* of the source's run of equal state that was looked at last */
	bool segment_data;
};

/* All return 0, or a negative errno after a message that names the file. */
int image_open_source(struct image *image, const char *path);
/* Created, or with force taken as it is; with resume it has to be there. Not changed yet. */
int image_open_target(struct image *image, const char *path, bool force, bool resume);
/* Makes it size_bytes long, of which what is from keep_bytes on reads as zeros, of a file. */
int image_prepare(struct image *image, uint64_t keep_bytes, uint64_t size_bytes);
/* The run of equal state from offset on, which is before the end. */
int image_segment(struct image *image, uint64_t offset, uint64_t *ret_end, bool *ret_data);
/* Reads all of it, unless a stream ends: *ret_bytes. -EINTR of a stream when transfer_stopped(). */
int image_read(struct image *image, void *buf, uint64_t offset, size_t bytes, size_t *ret_bytes);
int image_write(struct image *image, const void *buf, uint64_t offset, size_t bytes);
int image_zero(struct image *image, uint64_t offset, uint64_t bytes);
/* When it returns 0, what was written is durable, and so is the file's name. */
int image_sync(struct image *image);
/* -ESTALE after a message when the source is no longer as it was opened. */
int image_unchanged(const struct image *image);
void image_close(struct image *image);

/* ---- requests on the volume (transfer.c) ----------------------------------------------------- */

struct run {
	enum varve_op op;
	uint64_t offset, bytes;
};

struct transfer;

/* A piece of the image: its runs are done one after the other, those of other slots meanwhile. */
struct slot {
	struct varve_io io;
	struct iovec iov;
	struct transfer *transfer;
	uint8_t *buf; /* request_bytes, of the image from offset on */
	uint64_t offset, bytes;
	bool hole; /* it reads as zeros, and buf says nothing */
	struct run *runs;
	size_t n_runs, max_runs, next_run;
	bool done;
	int rc;
	uint64_t failed_offset;
};

struct ring {
	pthread_mutex_t lock; /* guards done, rc of slots in flight */
	pthread_cond_t finished;
	struct slot *slots;
	unsigned int head, used;
};

struct transfer_state {
	const char *what; /* "import", "export" */
	char *path;	  /* NULL: none is kept */
	bool exists;
	uint64_t offset; /* everything before it is durable in the target */
};

struct transfer {
	const char *name;
	struct varve_volume *volume;
	struct varve_info info;
	struct image image;
	struct transfer_state state;
	struct ring ring;
	struct cli_bar bar;
	size_t request_bytes;
	unsigned int n_slots;
	uint64_t rate, flush_bytes;
	bool force, resume, verify, verify_only, json;
	bool failed;	      /* a request, and it was told */
	bool target_zero;     /* import: the volume reads as zeros wherever nothing was written */
	uint64_t total_bytes; /* of the image */
	uint64_t resumed_bytes, copied_bytes, data_bytes, verified_bytes;
	uint64_t began_ns, pace_ns, paced_bytes;
};

/* The options that both have; they begin a command's table. */
/* clang-format off */
#define TRANSFER_OPTIONS                                                                        \
	{"resume", 0, NULL, "go on where it was cut short"},                                    \
	{"force", 'f', NULL, "overwrite what the target holds"},                                \
	{"verify", 0, NULL, "read everything back and compare"},                                \
	{"verify-only", 0, NULL, "copy nothing, compare"},                                      \
	{"rate", 0, "SIZE", "move at most so many bytes in a second"},                          \
	{"requests", 0, "N", "requests in flight, 1 to 256 (8)"},                               \
	{"request-size", 0, "SIZE", "of each, 4K to 64M (1M)"},                                 \
	{"flush-every", 0, "SIZE", "copied between two flushes (1G)"},                          \
	{"state", 0, "FILE", "where it is kept how far it is"},                                 \
	{"set", 0, "KEY=VALUE", "override a setting of the volume; may be repeated"},           \
	{"json", 'j', NULL, "print JSON"},                                                      \
	{"progress", 'p', NULL, "show a progress bar even when stderr is no terminal"}
/* clang-format on */

/* 0, or CLI_USAGE or CLI_FAILED after a message. Whatever they made is undone by transfer_end(). */
int transfer_options(struct transfer *t, const struct cli_args *args);
int transfer_open_volume(struct transfer *t, const struct cli_args *args, unsigned int flags);
/* The volume's own media are no image of it, --force or not. */
int transfer_apart(const struct transfer *t, const char *path);
int transfer_begin(struct transfer *t);
/* Closes everything. rc as given, or CLI_FAILED when closing the volume failed. */
int transfer_end(struct transfer *t, int rc);
/* Says how it went. */
void transfer_report(struct transfer *t);

/* A signal asked to stop: what is in flight ends, the state is saved. */
bool transfer_stopped(void);
/* CLI_FAILED, after a message on how to go on. */
int transfer_cut(const struct transfer *t);

/* Moved so much: waits as --rate says, shows the bar. */
void transfer_pace(struct transfer *t, uint64_t bytes);
void transfer_show(struct transfer *t, uint64_t done);
uint64_t transfer_now_ns(void);

bool transfer_all_zero(const uint8_t *buf, size_t bytes);
/* The end of the run of blocks from offset on, all zeros or all not, at most end. */
uint64_t transfer_zero_run(const struct slot *slot, uint64_t offset, bool *ret_zero);

/* A free slot, or NULL when all are in flight. */
struct slot *ring_take(struct transfer *t, uint64_t offset, uint64_t bytes);
void ring_add(struct slot *slot, enum varve_op op, uint64_t offset, uint64_t bytes);
void ring_start(struct slot *slot);
/* The oldest, done, or NULL when none is in flight. A failure is told, and returned by *ret_rc. */
struct slot *ring_oldest(struct transfer *t, int *ret_rc);
void ring_drop(struct transfer *t); /* the oldest is free again */
/* Waits for all; 0 or a negative errno after a message. */
int ring_drain(struct transfer *t);

/*
 * Reads the volume from one offset to another, in order; fn gets each piece and returns 0, or
 * anything else, which ends it and is returned. -EINTR when transfer_stopped().
 */
int transfer_scan(struct transfer *t, uint64_t from, uint64_t to,
		  int (*fn)(struct transfer *t, struct slot *slot));

/* Compares the image with the volume. 0; 1 after a message on the first difference; -errno. */
int transfer_compare(struct transfer *t);
/* After a copy, or instead of one. An exit code. */
int transfer_verify(struct transfer *t);

/* ---- how far it is (transfer_state.c) -------------------------------------------------------- */

/* Whether there is one, and should be. 0 or CLI_FAILED. */
int state_find(struct transfer *t);
/* To resume: reads it, and holds it against the volume and the image. 0 or CLI_FAILED. */
int state_load(struct transfer *t);
/* To be called when everything before offset is durable; durable itself when it returns 0. */
int state_save(struct transfer *t, uint64_t offset);
void state_remove(struct transfer *t);

#endif
