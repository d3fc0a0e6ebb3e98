/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsx: random operations on one file, each compared with an image of it in memory.
 *
 *   fsx [-s SEED] [-n OPERATIONS] [-l LENGTH] [-d] FILE
 *
 * Buffered and (with -d) direct reads and writes, writes and reads through a mapping, truncation
 * both ways, holes, appends, fsync, msync, and closing and opening again. Every read is compared
 * when it is made, and the whole file at the end. The image is the truth: it changes only after the
 * operation on the file has succeeded. On a difference the last operations are printed, with the
 * seed that makes them again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECT_ALIGN 4096u
#define HISTORY 32
#define OP_MAX 65536u

static const char *path;
static int fd = -1, direct_fd = -1;
static uint8_t *image;	 /* max_len bytes; zero beyond size */
static uint8_t *scratch; /* OP_MAX + DIRECT_ALIGN bytes, aligned */
static size_t size, max_len = 1 << 20;
static uint64_t rng, seed = 1, op_number;
static char history[HISTORY][96];

static uint64_t random_u64(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static size_t random_below(size_t n)
{
	return n ? (size_t)(random_u64() % n) : 0;
}

static void give_up(const char *what)
{
	unsigned int i;

	printf("fsx: %s: %s\n", what, errno ? strerror(errno) : "wrong data");
	for (i = 0; i < HISTORY; i++) {
		const char *line = history[(op_number + 1 + i) % HISTORY];

		if (line[0])
			printf("  %s\n", line);
	}
	printf("fsx: seed %llu, operation %llu\n", (unsigned long long)seed,
	       (unsigned long long)op_number);
	exit(1);
}

static void note(const char *op, size_t offset, size_t length)
{
	snprintf(history[op_number % HISTORY], sizeof(history[0]), "%llu %s %zu+%zu (size %zu)",
		 (unsigned long long)op_number, op, offset, length, size);
}

static void compare(const uint8_t *got, size_t offset, size_t length)
{
	size_t i;

	if (memcmp(got, image + offset, length) == 0)
		return;
	for (i = 0; i < length && got[i] == image[offset + i]; i++)
		;
	printf("fsx: at %zu: read %02x, expected %02x\n", offset + i, got[i], image[offset + i]);
	errno = 0;
	give_up("compare");
}

static void open_files(bool direct)
{
	fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0)
		give_up("open");
	if (direct) {
		direct_fd = open(path, O_RDWR | O_DIRECT);
		if (direct_fd < 0)
			give_up("open for direct I/O");
	}
}

static void full_read(int from, uint8_t *buf, size_t length, size_t offset)
{
	size_t got = 0;

	while (got < length) {
		ssize_t n = pread(from, buf + got, length - got, (off_t)(offset + got));

		if (n == 0) {
			/* Direct reads of the last, partial block end at the end of the file. */
			errno = 0;
			if (offset + got < size)
				give_up("short read");
			memset(buf + got, 0, length - got);
			return;
		}
		if (n < 0)
			give_up("read");
		got += (size_t)n;
	}
}

/* ---- operations ------------------------------------------------------------------------------ */

static void fill_scratch(size_t length)
{
	uint64_t value = random_u64() | 1;
	size_t i;

	for (i = 0; i < length; i++)
		scratch[i] = (uint8_t)((value * (i / 8 + 1)) >> (i % 8 * 8));
}

static void op_read(int from, size_t offset, size_t length)
{
	full_read(from, scratch, length, offset);
	compare(scratch, offset, length);
}

static void op_write(int to, size_t offset, size_t length)
{
	size_t done = 0;

	fill_scratch(length);
	while (done < length) {
		ssize_t n = pwrite(to, scratch + done, length - done, (off_t)(offset + done));

		if (n <= 0)
			give_up("write");
		done += (size_t)n;
	}
	memcpy(image + offset, scratch, length);
	if (offset + length > size)
		size = offset + length;
}

static void op_truncate(size_t to)
{
	if (ftruncate(fd, (off_t)to) < 0)
		give_up("ftruncate");
	if (to < size)
		memset(image + to, 0, size - to);
	size = to;
}

static void op_punch(size_t offset, size_t length)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
		      (off_t)length) < 0) {
		if (errno == EOPNOTSUPP)
			return;
		give_up("punch");
	}
	memset(image + offset, 0, length);
}

/* Within the file: a mapping does not extend it. */
static void op_map(size_t offset, size_t length, bool write)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), begin = offset / page * page;
	uint8_t *map = mmap(NULL, offset + length - begin, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			    (off_t)begin);

	if (map == MAP_FAILED)
		give_up("mmap");
	if (write) {
		fill_scratch(length);
		memcpy(map + (offset - begin), scratch, length);
		memcpy(image + offset, scratch, length);
		if (random_below(4) == 0 && msync(map, offset + length - begin, MS_SYNC) < 0)
			give_up("msync");
	} else {
		memcpy(scratch, map + (offset - begin), length);
		compare(scratch, offset, length);
	}
	if (munmap(map, offset + length - begin) < 0)
		give_up("munmap");
}

static void op_reopen(void)
{
	bool direct = direct_fd >= 0;

	if (fsync(fd) < 0)
		give_up("fsync");
	if (close(fd) < 0 || (direct && close(direct_fd) < 0))
		give_up("close");
	direct_fd = -1;
	open_files(direct);
}

static void op_direct(size_t offset, size_t length, bool write)
{
	offset = offset / DIRECT_ALIGN * DIRECT_ALIGN;
	length = (length + DIRECT_ALIGN - 1) / DIRECT_ALIGN * DIRECT_ALIGN;
	if (offset + length > max_len / DIRECT_ALIGN * DIRECT_ALIGN || length > OP_MAX)
		return;
	note(write ? "direct write" : "direct read", offset, length);
	if (write)
		op_write(direct_fd, offset, length);
	else if (offset < size)
		op_read(direct_fd, offset, length);
}

static void step(void)
{
	size_t offset = random_below(max_len);
	size_t length = 1 + random_below(random_below(8) ? 8192 : OP_MAX - 1);
	size_t inside = random_below(size), in_length = length;
	unsigned int choice = (unsigned int)random_below(100);

	if (offset + length > max_len)
		length = max_len - offset;
	if (in_length > size - inside)
		in_length = size - inside;
	if (choice < 25) {
		note("write", offset, length);
		op_write(fd, offset, length);
	} else if (choice < 45 && in_length) {
		note("read", inside, in_length);
		op_read(fd, inside, in_length);
	} else if (choice < 60 && in_length) {
		note(choice & 1 ? "map write" : "map read", inside, in_length);
		op_map(inside, in_length, choice & 1);
	} else if (choice < 80 && direct_fd >= 0) {
		op_direct(offset, length, choice & 1);
	} else if (choice < 86) {
		note("truncate", random_below(4) ? offset : 0, 0);
		op_truncate(offset);
	} else if (choice < 91 && in_length) {
		note("punch", inside, in_length);
		op_punch(inside, in_length);
	} else if (choice < 95) {
		note("fsync", 0, 0);
		if (fsync(fd) < 0)
			give_up("fsync");
	} else if (choice < 96) {
		note("reopen", 0, 0);
		op_reopen();
	}
}

static void verify_all(void)
{
	struct stat st;
	size_t offset;

	if (fstat(fd, &st) < 0)
		give_up("fstat");
	errno = 0;
	if ((size_t)st.st_size != size)
		give_up("size");
	for (offset = 0; offset < size; offset += OP_MAX)
		op_read(fd, offset, size - offset < OP_MAX ? size - offset : OP_MAX);
}

int main(int argc, char **argv)
{
	uint64_t operations = 1000;
	bool direct = false;
	int c;

	while ((c = getopt(argc, argv, "s:n:l:d")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			operations = strtoull(optarg, NULL, 0);
		else if (c == 'l')
			max_len = strtoull(optarg, NULL, 0);
		else if (c == 'd')
			direct = true;
		else
			return 2;
	}
	if (optind + 1 != argc || max_len < OP_MAX) {
		fprintf(stderr, "usage: fsx [-s SEED] [-n OPERATIONS] [-l LENGTH] [-d] FILE\n");
		return 2;
	}
	path = argv[optind];
	rng = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	image = calloc(1, max_len + OP_MAX);
	scratch = aligned_alloc(DIRECT_ALIGN, OP_MAX + DIRECT_ALIGN);
	if (!image || !scratch)
		give_up("memory");
	open_files(direct);
	if (ftruncate(fd, 0) < 0)
		give_up("ftruncate");
	for (op_number = 1; op_number <= operations; op_number++)
		step();
	op_number--;
	verify_all();
	printf("fsx: %llu operations, seed %llu: ok\n", (unsigned long long)operations,
	       (unsigned long long)seed);
	return 0;
}
