/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log's device under a volume: writing it for long, reading it at random, opening it after a
 * kill, and emptying it into a directory.
 *
 *	sustained  4 KiB at random, 32 requests at once, nothing destaged, one flush at the end; the
 *	           peer writes the same amount with O_DIRECT in blocks of 1 MiB, eight at once, as
 *	           the log does
 *	read       4 KiB at random of what only the device has, 32 requests at once; the peer is fio
 *	           on the same file
 *	destage    1 MiB after the other, until the store has it; each byte is written twice, so the
 *	           peer is half the rate of plain writing
 *	open       after SIGKILL with 1 GiB in the log; the peer reads 1 GiB of the device
 *
 * bench_volume_log DIR [ROW]: files are made there. stdout: one row for each; stderr: notes.
 */
#include <liburing.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>

#include <varve/varve.h>

#include "base/rng.h"
#include "bench.h"

#define BLOCK 4096u
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define SPACE (4 * GIB)
#define DEPTH 32
#define PEER_DEPTH 8
#define READ_OPS 100000

static const char *dir;
static uint8_t *source;
static uint64_t sustained_bytes = 4 * GIB; /* VARVE_BENCH_GIB */

static void check(int rc)
{
	if (rc) {
		fprintf(stderr, "%s\n", varve_errmsg());
		exit(1);
	}
}

static void format_cache(const char *cache, const char *size)
{
	const char *const settings[] = {size, NULL};
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", dir, cache);
	unlink(path);
	check(varve_cache_create(path, settings));
}

static struct varve_volume *open_volume(const char *cache, const char *store, unsigned int flags)
{
	static const char *const settings[] = {"size=4G", NULL};
	struct varve_volume *vol;
	char spec[8192];

	snprintf(spec, sizeof(spec), "%s/%s,%s", dir, cache, store);
	check(varve_open_with(spec, flags, settings, &vol));
	return vol;
}

/* ---- many requests at once ----------------------------------------------------------------- */

/*
 * Reads are submitted again by their done(), as a server does that only passes on. Writes are
 * submitted by one thread, which sleeps when all are under way, as a program does that has data.
 */
struct stream {
	struct varve_volume *vol;
	struct rng rng;
	uint64_t blocks;    /* the part of the volume that the requests go to */
	enum varve_op op;
	_Atomic long left;  /* reads: to be submitted */
	_Atomic int flying; /* not done */
	sem_t idle;         /* posted by each write that is done */
};

struct request {
	struct varve_io io;
	struct iovec iov;
	struct stream *stream;
	struct rng rng; /* each has its own, so that threads share none */
	_Atomic bool busy;
};

static void start(struct request *r)
{
	r->io.op = r->stream->op;
	r->io.offset = rng_below(&r->rng, r->stream->blocks) * BLOCK;
	varve_submit(r->stream->vol, &r->io);
}

static void request_done(struct varve_io *io)
{
	struct request *r = io->user;
	struct stream *s = r->stream;

	if (io->result)
		bench_die("request", io->result);
	if (s->op == VARVE_READ && atomic_fetch_sub(&s->left, 1) > 0) {
		start(r);
		return;
	}
	atomic_store(&r->busy, false);
	atomic_fetch_sub(&s->flying, 1);
	sem_post(&s->idle);
}

static void run_writes(struct stream *s, struct request *r, uint64_t ops)
{
	unsigned int at = 0;

	while (ops) {
		struct request *next = &r[at++ % DEPTH];

		if (!atomic_load(&next->busy)) {
			atomic_store(&next->busy, true);
			atomic_fetch_add(&s->flying, 1);
			start(next);
			ops--;
		} else if (atomic_load(&s->flying) == DEPTH) {
			sem_wait(&s->idle);
		}
	}
}

static double run_stream(struct stream *s, uint64_t ops)
{
	struct request *r = calloc(DEPTH, sizeof(*r));
	uint8_t *bufs = bench_memory((size_t)DEPTH * BLOCK);
	const uint64_t begin = bench_now_ns();
	uint64_t spent;

	sem_init(&s->idle, 0, 0);
	for (int i = 0; i < DEPTH; i++) {
		rng_seed(&r[i].rng, rng_next(&s->rng));
		r[i].stream = s;
		r[i].iov = (struct iovec){bufs + (size_t)i * BLOCK, BLOCK};
		r[i].io = (struct varve_io){.length = BLOCK, .iov = &r[i].iov, .iovcnt = 1,
					    .done = request_done, .user = &r[i]};
	}
	if (s->op == VARVE_WRITE) {
		run_writes(s, r, ops);
	} else {
		atomic_store(&s->left, (long)ops - DEPTH);
		atomic_store(&s->flying, DEPTH);
		for (int i = 0; i < DEPTH; i++)
			start(&r[i]);
	}
	while (atomic_load(&s->flying))
		sem_wait(&s->idle);
	if (s->op == VARVE_WRITE)
		check(varve_flush(s->vol));
	spent = bench_now_ns() - begin;
	sem_destroy(&s->idle);
	free(r);
	free(bufs);
	return (double)ops * 1e9 / (double)spent;
}

/* ---- peers --------------------------------------------------------------------------------- */

/* MiB a second of blocks of 1 MiB, one after the other, depth at once. */
static double plain(int fd, bool write, uint64_t bytes, unsigned int depth)
{
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	const uint64_t start = bench_now_ns();
	uint64_t at = 0, done = 0;
	uint8_t *buf = bench_memory(depth * MIB);

	if (io_uring_queue_init(depth, &ring, 0))
		bench_die("io_uring", EIO);
	while (done < bytes) {
		while (at < bytes && at - done < depth * MIB) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			uint8_t *mem = buf + at / MIB % depth * MIB;

			if (write)
				io_uring_prep_write(sqe, fd, mem, MIB, at);
			else
				io_uring_prep_read(sqe, fd, mem, MIB, at);
			at += MIB;
		}
		io_uring_submit(&ring);
		if (io_uring_wait_cqe(&ring, &cqe) || cqe->res != (int)MIB)
			bench_die("peer", EIO);
		io_uring_cqe_seen(&ring, cqe);
		done += MIB;
	}
	if (write && fdatasync(fd))
		bench_die("peer", errno);
	io_uring_queue_exit(&ring);
	free(buf);
	return (double)bytes / (double)MIB * 1e9 / (double)(bench_now_ns() - start);
}

static int peer_file(uint64_t bytes)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/peer.img", dir);
	return bench_file(path, bytes);
}

static void peer_close(int fd)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/peer.img", dir);
	close(fd);
	unlink(path);
}

/* ---- rows ---------------------------------------------------------------------------------- */

static double sustained_round(int round)
{
	const char *const force[] = {"force=yes", NULL};
	struct stream s = {.blocks = SPACE / BLOCK, .op = VARVE_WRITE};
	char path[4096];

	/* An empty log, on the same file. */
	snprintf(path, sizeof(path), "%s/long.img", dir);
	check(varve_cache_create(path, force));
	s.vol = open_volume("long.img", "mem:long", VARVE_OPEN_HOLD_DESTAGE);
	rng_seed(&s.rng, (uint64_t)round);
	return run_stream(&s, sustained_bytes / BLOCK) * BLOCK / (double)MIB;
}

static void bench_sustained(void)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	const int fd = peer_file(sustained_bytes);
	char size[64];

	snprintf(size, sizeof(size), "size=%llu",
		 (unsigned long long)(sustained_bytes + sustained_bytes / 8 + 256 * MIB));
	format_cache("long.img", size);
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		ours[i] = bench_in_child(sustained_round, i);
		theirs[i] = plain(fd, true, sustained_bytes, PEER_DEPTH);
	}
	bench_row("lsvd", "4K random write, sustained, log only", ours, "MiB/s",
		  "O_DIRECT 1M sequential, QD8", theirs, 0.85);
	peer_close(fd);
}

static double fio_read(const char *path)
{
	char command[8192];
	double iops = 0;
	FILE *out;

	/* Field 8 of the terse form is the read IOPS. */
	snprintf(command, sizeof(command),
		 "fio --name=peer --filename=%s --rw=randread --bs=4k --direct=1 --readonly "
		 "--ioengine=io_uring --iodepth=%d --size=1792M --offset=64M --number_ios=%d "
		 "--norandommap --output-format=terse --terse-version=3 | cut -d';' -f8",
		 path, DEPTH, READ_OPS);
	out = popen(command, "r");
	if (!out || fscanf(out, "%lf", &iops) != 1)
		bench_die("fio", EIO);
	pclose(out);
	return iops;
}

static double bench_read_row(int round)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	struct stream s = {.blocks = 2 * GIB / BLOCK, .op = VARVE_WRITE};
	char path[4096];

	format_cache("read.img", "size=3G");
	snprintf(path, sizeof(path), "%s/read.img", dir);
	s.vol = open_volume("read.img", "mem:read", VARVE_OPEN_HOLD_DESTAGE);
	rng_seed(&s.rng, 1);
	for (uint64_t at = 0; at < 2 * GIB; at += MIB)
		check(varve_pwrite(s.vol, source, MIB, at, 0));
	/* What is in the buffers afterwards lies outside of what is read. */
	for (uint64_t at = 3 * GIB; at < 3 * GIB + 128 * MIB; at += MIB)
		check(varve_pwrite(s.vol, source, MIB, at, 0));
	check(varve_flush(s.vol));
	s.op = VARVE_READ;
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		ours[i] = run_stream(&s, READ_OPS) / 1e3;
		theirs[i] = fio_read(path) / 1e3;
	}
	bench_row("lsvd", "4K random read of the log device, QD32", ours, "kIOPS",
		  "fio io_uring O_DIRECT", theirs, 0.85);
	return round;
}

static void bench_read(void)
{
	bench_in_child(bench_read_row, 0);
}

static void bench_destage(void)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	const uint64_t bytes = GIB;
	const int fd = peer_file(bytes);

	format_cache("seq.img", "size=2G");
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		char path[4096];
		const char *settings[5] = {"size=4G", NULL, path, "format_cache=yes", NULL};
		char store[4200], name[32];
		struct varve_volume *vol;
		uint64_t start;

		snprintf(path, sizeof(path), "cache=%s/seq.img", dir);
		snprintf(name, sizeof(name), "bench-seq%d", i);
		snprintf(store, sizeof(store), "store=dir:%s/%s", dir, name);
		settings[1] = store;
		check(varve_create(name, settings));
		check(varve_open(name, 0, &vol));
		start = bench_now_ns();
		for (uint64_t at = 0; at < bytes; at += MIB)
			check(varve_pwrite(vol, source, MIB, at, 0));
		check(varve_message(vol, "drain", NULL));
		ours[i] = (double)(bytes / MIB) * 1e9 / (double)(bench_now_ns() - start);
		check(varve_close(vol));
		check(varve_delete(name, true));
		theirs[i] = plain(fd, true, bytes, PEER_DEPTH) / 2;
	}
	bench_row("lsvd", "1M sequential write until destaged", ours, "MiB/s",
		  "half of the disk's sequential rate", theirs, 0.8);
	peer_close(fd);
}

/* In a process that is killed: a gibibyte that only the log has. */
static void leave_dirty(void)
{
	const pid_t pid = fork();
	int status;

	if (!pid) {
		struct varve_volume *vol;
		struct rng rng;

		check(varve_open("bench-open", VARVE_OPEN_HOLD_DESTAGE, &vol));
		rng_seed(&rng, 7);
		for (uint64_t i = 0; i < GIB / BLOCK; i++)
			check(varve_pwrite(vol, source, BLOCK,
					   rng_below(&rng, SPACE / BLOCK) * BLOCK, 0));
		check(varve_flush(vol));
		raise(SIGKILL);
	}
	waitpid(pid, &status, 0);
	if (!WIFSIGNALED(status))
		bench_die("child", ECHILD);
}

static void bench_open(void)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	char cache[4200], store[4200], path[4096];
	const char *const settings[] = {"size=4G", cache, store, "cache_size=2G", NULL};
	struct varve_volume *vol;
	int fd;

	snprintf(path, sizeof(path), "%s/open.img", dir);
	unlink(path);
	snprintf(cache, sizeof(cache), "cache=%s", path);
	snprintf(store, sizeof(store), "store=dir:%s/bench-open", dir);
	check(varve_create("bench-open", settings));
	leave_dirty();
	fd = open(path, O_RDONLY | O_DIRECT);
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		const uint64_t start = bench_now_ns();

		check(varve_open("bench-open", VARVE_OPEN_HOLD_DESTAGE, &vol));
		ours[i] = 1e9 / (double)(bench_now_ns() - start);
		/* Without a mutation no right was taken: it is as dirty as before. */
		check(varve_close(vol));
		theirs[i] = plain(fd, false, GIB, PEER_DEPTH) / 1024;
	}
	close(fd);
	bench_row("lsvd", "open after SIGKILL with 1 GiB in the log", ours, "1/s",
		  "reading 1 GiB of the device", theirs, 0.8);
	check(varve_delete("bench-open", true));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} rows[] = {{"sustained", bench_sustained}, {"read", bench_read},
		    {"destage", bench_destage}, {"open", bench_open}};
	const char *gib = getenv("VARVE_BENCH_GIB");

	dir = argc > 1 ? argv[1] : ".";
	if (gib && strtoull(gib, NULL, 10) > 0)
		sustained_bytes = strtoull(gib, NULL, 10) * GIB;
	source = bench_memory(MIB);
	for (size_t i = 0; i < MIB; i++)
		source[i] = (uint8_t)(i * 2654435761u >> 24);
	setenv("VARVE_CONFIG_DIR", dir, 1);
	for (unsigned int i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (argc < 3 || !strcmp(argv[2], rows[i].name))
			rows[i].run();
	free(source);
	return 0;
}
