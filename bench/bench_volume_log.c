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
#include <signal.h>

#include "bench_stream.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define SPACE (4 * GIB)
#define PEER_DEPTH 8
#define READ_OPS 100000

static const char *dir;
static uint8_t *source;
static uint64_t sustained_bytes = 4 * GIB; /* VARVE_BENCH_GIB */

static struct varve_volume *open_volume(const char *cache, const char *store, unsigned int flags)
{
	static const char *const settings[] = {"size=4G", NULL};
	struct varve_volume *vol;
	char spec[8192];

	snprintf(spec, sizeof(spec), "%s/%s,%s", dir, cache, store);
	bench_check(varve_open_with(spec, flags, settings, &vol));
	return vol;
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
	struct bench_stream s = {.blocks = SPACE / BENCH_BLOCK, .op = VARVE_WRITE};
	char path[4096];

	/* An empty log, on the same file. */
	snprintf(path, sizeof(path), "%s/long.img", dir);
	bench_check(varve_cache_create(path, force));
	s.vol = open_volume("long.img", "mem:long", VARVE_OPEN_HOLD_DESTAGE);
	rng_seed(&s.rng, (uint64_t)round);
	return bench_stream(&s, sustained_bytes / BENCH_BLOCK) * BENCH_BLOCK / (double)MIB;
}

static void bench_sustained(void)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	const int fd = peer_file(sustained_bytes);
	char size[64];

	snprintf(size, sizeof(size), "size=%llu",
		 (unsigned long long)(sustained_bytes + sustained_bytes / 8 + 256 * MIB));
	bench_format_cache(dir, "long.img", size);
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
	char options[8192];

	snprintf(options, sizeof(options),
		 "--filename=%s --rw=randread --bs=4k --direct=1 --readonly --ioengine=io_uring "
		 "--iodepth=%d --size=1792M --offset=64M --number_ios=%d --norandommap",
		 path, BENCH_DEPTH, READ_OPS);
	return bench_fio(options, BENCH_FIO_READ_IOPS);
}

static double bench_read_row(int round)
{
	double ours[BENCH_ROUNDS], theirs[BENCH_ROUNDS];
	struct bench_stream s = {.blocks = 2 * GIB / BENCH_BLOCK, .op = VARVE_WRITE};
	char path[4096];

	bench_format_cache(dir, "read.img", "size=3G");
	snprintf(path, sizeof(path), "%s/read.img", dir);
	s.vol = open_volume("read.img", "mem:read", VARVE_OPEN_HOLD_DESTAGE);
	rng_seed(&s.rng, 1);
	for (uint64_t at = 0; at < 2 * GIB; at += MIB)
		bench_check(varve_pwrite(s.vol, source, MIB, at, 0));
	/* What is in the buffers afterwards lies outside of what is read. */
	for (uint64_t at = 3 * GIB; at < 3 * GIB + 128 * MIB; at += MIB)
		bench_check(varve_pwrite(s.vol, source, MIB, at, 0));
	bench_check(varve_flush(s.vol));
	s.op = VARVE_READ;
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		ours[i] = bench_stream(&s, READ_OPS) / 1e3;
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

	bench_format_cache(dir, "seq.img", "size=2G");
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
		bench_check(varve_create(name, settings));
		bench_check(varve_open(name, 0, &vol));
		start = bench_now_ns();
		for (uint64_t at = 0; at < bytes; at += MIB)
			bench_check(varve_pwrite(vol, source, MIB, at, 0));
		bench_check(varve_message(vol, "drain", NULL));
		ours[i] = (double)(bytes / MIB) * 1e9 / (double)(bench_now_ns() - start);
		bench_check(varve_close(vol));
		bench_check(varve_delete(name, true));
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

		bench_check(varve_open("bench-open", VARVE_OPEN_HOLD_DESTAGE, &vol));
		rng_seed(&rng, 7);
		for (uint64_t i = 0; i < GIB / BENCH_BLOCK; i++)
			bench_check(varve_pwrite(vol, source, BENCH_BLOCK,
						 rng_below(&rng, SPACE / BENCH_BLOCK) * BENCH_BLOCK,
						 0));
		bench_check(varve_flush(vol));
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
	bench_check(varve_create("bench-open", settings));
	leave_dirty();
	fd = open(path, O_RDONLY | O_DIRECT);
	for (int i = 0; i < BENCH_ROUNDS; i++) {
		const uint64_t start = bench_now_ns();

		bench_check(varve_open("bench-open", VARVE_OPEN_HOLD_DESTAGE, &vol));
		ours[i] = 1e9 / (double)(bench_now_ns() - start);
		/* Without a mutation no right was taken: it is as dirty as before. */
		bench_check(varve_close(vol));
		theirs[i] = plain(fd, false, GIB, PEER_DEPTH) / 1024;
	}
	close(fd);
	bench_row("lsvd", "open after SIGKILL with 1 GiB in the log", ours, "1/s",
		  "reading 1 GiB of the device", theirs, 0.8);
	bench_check(varve_delete("bench-open", true));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} rows[] = {{"sustained", bench_sustained},
		    {"read", bench_read},
		    {"destage", bench_destage},
		    {"open", bench_open}};
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
