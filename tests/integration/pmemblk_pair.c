/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pmemblk_pair: one random sequence of calls on two implementations of libpmemblk, side by side.
 *
 *   pmemblk_pair OURS THEIRS DIR SEED CALLS
 *
 * OURS and THEIRS are paths of shared libraries; each works in a directory of its own below DIR, on
 * files of the same names. Every call is made on both, and result, errno of a failure, and data
 * are compared; the first difference is printed with the calls that led to it, and is the end.
 *
 * What is not compared, because it may differ: the number of blocks (valid blocks are chosen below
 * the smaller one, invalid ones beyond each library's own), message texts, and the bytes of files.
 *
 * Calls that end the process in the reference (opening an empty file) are not made.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)
#define MIN_POOL (16 * MIB + 8192)
#define FILES 4
#define POOLS 3
#define BLOCK_MAX 70000
#define TRAIL 40
#define TRAIL_LEN 160

struct side {
	const char *name;
	char dir[1024];
	void *pool[POOLS];
	size_t nblock[POOLS];
	uint8_t *buf;
	const char *(*check_version)(unsigned int major, unsigned int minor);
	const char *(*errormsg)(void);
	void *(*create)(const char *path, size_t bsize, size_t size, mode_t mode);
	void *(*open)(const char *path, size_t bsize);
	void (*close)(void *pool);
	int (*check)(const char *path, size_t bsize);
	size_t (*bsize)(void *pool);
	size_t (*nblocks)(void *pool);
	int (*read)(void *pool, void *buf, long long block);
	int (*write)(void *pool, const void *buf, long long block);
	int (*set_zero)(void *pool, long long block);
	int (*set_error)(void *pool, long long block);
	int (*ctl_get)(void *pool, const char *name, void *arg);
	int (*ctl_set)(void *pool, const char *name, void *arg);
	int (*ctl_exec)(void *pool, const char *name, void *arg);
};

static struct side sides[2] = {{.name = "ours"}, {.name = "theirs"}};
static char trail[TRAIL][TRAIL_LEN];
static unsigned int ncalls;
static uint64_t rng;
static bool open_file[POOLS];

static uint64_t rnd(uint64_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng % below;
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(trail[ncalls++ % TRAIL], TRAIL_LEN, fmt, ap);
	va_end(ap);
}

__attribute__((noreturn)) static void differ(const char *what, const char *a, const char *b)
{
	printf("after these calls:\n");
	for (unsigned int i = ncalls > TRAIL ? ncalls - TRAIL : 0; i < ncalls; i++)
		printf("  %s\n", trail[i % TRAIL]);
	printf("call %u: %s: ours %s, theirs %s\n", ncalls, what, a, b);
	exit(1);
}

/* A result and, if it is a failure, its errno. */
struct answer {
	long long result;
	int error;
};

static void compare(const char *what, const struct answer a[2])
{
	char text[2][64];

	for (int i = 0; i < 2; i++)
		snprintf(text[i], sizeof(text[i]), "%lld (%s)", a[i].result,
			 a[i].error ? strerrorname_np(a[i].error) : "-");
	if (a[0].result != a[1].result || a[0].error != a[1].error)
		differ(what, text[0], text[1]);
}

static void load(struct side *s, const char *path)
{
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);

	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
#define GET(field, symbol)                                                                         \
	do {                                                                                       \
		*(void **)&s->field = dlsym(lib, "pmemblk_" symbol);                               \
		if (!s->field) {                                                                   \
			fprintf(stderr, "%s: no pmemblk_" symbol "\n", path);                      \
			exit(2);                                                                   \
		}                                                                                  \
	} while (0)
	GET(check_version, "check_version");
	GET(errormsg, "errormsg");
	GET(create, "create");
	GET(open, "open");
	GET(close, "close");
	GET(check, "check");
	GET(bsize, "bsize");
	GET(nblocks, "nblock");
	GET(read, "read");
	GET(write, "write");
	GET(set_zero, "set_zero");
	GET(set_error, "set_error");
	GET(ctl_get, "ctl_get");
	GET(ctl_set, "ctl_set");
	GET(ctl_exec, "ctl_exec");
#undef GET
}

/* ---- files --------------------------------------------------------------------------------- */

static void path_of(const struct side *s, unsigned int file, char path[PATH_MAX])
{
	static const char *const odd[] = {"nodir/a", ".", "absent"};

	if (file < FILES)
		snprintf(path, PATH_MAX, "%s/f%u", s->dir, file);
	else
		snprintf(path, PATH_MAX, "%s/%s", s->dir, odd[(file - FILES) % 3]);
}

static bool is_empty(unsigned int file)
{
	char path[PATH_MAX];
	struct stat st;

	path_of(&sides[0], file, path);
	return !stat(path, &st) && S_ISREG(st.st_mode) && !st.st_size;
}

enum { ABSENT, ZEROS, SHORT, GARBAGE, TAIL_GARBAGE, KINDS };

/* Puts the same file into both directories. */
static void make_file(unsigned int file, unsigned int kind)
{
	char path[PATH_MAX];

	note("file f%u: kind %u", file, kind);
	for (int i = 0; i < 2; i++) {
		int fd;

		path_of(&sides[i], file, path);
		unlink(path);
		if (kind == ABSENT)
			continue;
		fd = open(path, O_CREAT | O_RDWR, 0600);
		if (fd < 0 || ftruncate(fd, kind == SHORT ? 100 : (off_t)(20 * MIB)))
			exit(2);
		if (kind == GARBAGE && pwrite(fd, "garbagegarbage", 14, 0) != 14)
			exit(2);
		if (kind == TAIL_GARBAGE && pwrite(fd, "garbagegarbage", 14, 1 << 20) != 14)
			exit(2);
		close(fd);
	}
}

/* The reference leaves half a header in a file that it could not take. */
static void remove_file(unsigned int file)
{
	char path[PATH_MAX];

	note("file %u: removed", file);
	for (int i = 0; i < 2; i++) {
		path_of(&sides[i], file, path);
		unlink(path);
	}
}

/* ---- calls --------------------------------------------------------------------------------- */

static size_t some_bsize(void)
{
	static const size_t sizes[] = {0,    1,     100,   511,   512,        513,
				       520,  768,   1024,  4096,  4097,       16384,
				       8192, 65536, 30000, 65536, 1ULL << 32, (1ULL << 32) - 1};

	return sizes[rnd(sizeof(sizes) / sizeof(sizes[0]))];
}

static void took(unsigned int slot, void *const pool[2])
{
	for (int i = 0; i < 2; i++) {
		sides[i].pool[slot] = pool[i];
		sides[i].nblock[slot] = sides[i].nblocks(pool[i]);
		if (!sides[i].nblock[slot])
			differ("nblock", "0?", "0?");
	}
	open_file[slot] = true;
	if (sides[0].bsize(pool[0]) != sides[1].bsize(pool[1]))
		differ("bsize", "another", "one");
}

static void do_create(unsigned int slot)
{
	static const size_t sizes[] = {0, 0, 0, 1, MIN_POOL - 1, MIN_POOL, 20 * MIB, 33 * MIB};
	const unsigned int file = (unsigned int)rnd(FILES + 3);
	const size_t size = sizes[rnd(sizeof(sizes) / sizeof(sizes[0]))];
	const size_t bsize = some_bsize();
	struct answer a[2];
	void *pool[2];
	char path[PATH_MAX];

	note("create(%u, bsize %zu, size %zu)", file, bsize, size);
	for (int i = 0; i < 2; i++) {
		path_of(&sides[i], file, path);
		errno = 0;
		pool[i] = sides[i].create(path, bsize, size, 0600);
		a[i] = (struct answer){!!pool[i], pool[i] ? 0 : errno};
	}
	compare("create", a);
	if (pool[0])
		took(slot, pool);
	else if (!size && a[0].error == EINVAL)
		remove_file(file);
}

static void do_open(unsigned int slot)
{
	const unsigned int file = (unsigned int)rnd(FILES + 3);
	const size_t bsize = rnd(2) ? 0 : some_bsize();
	struct answer a[2];
	void *pool[2];
	char path[PATH_MAX];

	if (is_empty(file))
		return;
	note("open(%u, bsize %zu)", file, bsize);
	for (int i = 0; i < 2; i++) {
		path_of(&sides[i], file, path);
		errno = 0;
		pool[i] = sides[i].open(path, bsize);
		a[i] = (struct answer){!!pool[i], pool[i] ? 0 : errno};
	}
	compare("open", a);
	if (pool[0])
		took(slot, pool);
}

static void do_check(void)
{
	const unsigned int file = (unsigned int)rnd(FILES + 3);
	const size_t bsize = rnd(2) ? 0 : some_bsize();
	struct answer a[2];
	char path[PATH_MAX];

	if (is_empty(file))
		return;
	note("check(%u, bsize %zu)", file, bsize);
	for (int i = 0; i < 2; i++) {
		path_of(&sides[i], file, path);
		errno = 0;
		a[i].result = sides[i].check(path, bsize);
		a[i].error = a[i].result < 0 ? errno : 0;
	}
	compare("check", a);
}

static void do_close(unsigned int slot)
{
	note("close(slot %u)", slot);
	for (int i = 0; i < 2; i++)
		sides[i].close(sides[i].pool[slot]);
	open_file[slot] = false;
}

/* Few blocks, so that they are met again; and now and then one that does not exist. */
static void some_block(unsigned int slot, long long ret[2])
{
	const size_t n0 = sides[0].nblock[slot], n1 = sides[1].nblock[slot];
	const size_t common = n0 < n1 ? n0 : n1;
	const uint64_t kind = rnd(20);
	const long long beyond = (long long)rnd(3);

	for (int i = 0; i < 2; i++) {
		if (kind == 0)
			ret[i] = (long long)sides[i].nblock[slot] + beyond;
		else if (kind == 1)
			ret[i] = -1 - beyond;
		else if (kind == 2)
			ret[i] = LLONG_MAX - beyond;
	}
	if (kind > 2) {
		ret[0] = (long long)(rnd(8) ? rnd(16) : common - 1 - rnd(4));
		ret[1] = ret[0];
	}
}

static void do_block(unsigned int slot)
{
	static const char *const names[] = {"read", "write", "set_zero", "set_error"};
	static const unsigned int mix[] = {0, 0, 0, 0, 1, 1, 1, 2, 3};
	const unsigned int op = mix[rnd(sizeof(mix) / sizeof(mix[0]))];
	const size_t len = sides[0].bsize(sides[0].pool[slot]);
	const uint8_t fill = (uint8_t)rnd(256);
	struct answer a[2];
	long long block[2];

	some_block(slot, block);
	note("%s(slot %u, block %lld / %lld, fill %u)", names[op], slot, block[0], block[1], fill);
	for (int i = 0; i < 2; i++) {
		struct side *s = &sides[i];
		void *pool = s->pool[slot];

		memset(s->buf, op == 1 ? fill : 0xee, len);
		if (op == 1)
			s->buf[len / 2] ^= 0x55;
		errno = 0;
		a[i].result = op == 0   ? s->read(pool, s->buf, block[i])
			      : op == 1 ? s->write(pool, s->buf, block[i])
			      : op == 2 ? s->set_zero(pool, block[i])
					: s->set_error(pool, block[i]);
		a[i].error = a[i].result ? errno : 0;
	}
	compare(names[op], a);
	if (!a[0].result && memcmp(sides[0].buf, sides[1].buf, len))
		differ("data read", "one", "another");
}

static void do_ctl(void)
{
	static const char *const names[] = {"prefault.at_open", "prefault.at_create",
					    "fallocate.at_create", "no.such", "prefault", ""};
	const char *name = names[rnd(sizeof(names) / sizeof(names[0]))];
	const unsigned int op = (unsigned int)rnd(3);
	const int value = (int)rnd(2);
	struct answer a[2];
	int arg[2];

	note("ctl %u (%s, %d)", op, name, value);
	for (int i = 0; i < 2; i++) {
		struct side *s = &sides[i];

		arg[i] = value;
		errno = 0;
		a[i].result = op == 0   ? s->ctl_get(NULL, name, &arg[i])
			      : op == 1 ? s->ctl_set(NULL, name, &arg[i])
					: s->ctl_exec(NULL, name, &arg[i]);
		a[i].error = a[i].result ? errno : 0;
	}
	compare("ctl", a);
	if (arg[0] != arg[1])
		differ("ctl value", "one", "another");
}

static void do_version(void)
{
	const unsigned int major = (unsigned int)rnd(3), minor = (unsigned int)rnd(4);

	note("check_version(%u, %u)", major, minor);
	if (!sides[0].check_version(major, minor) != !sides[1].check_version(major, minor))
		differ("check_version", "one", "another");
}

static void step(void)
{
	const unsigned int slot = (unsigned int)rnd(POOLS);
	const uint64_t kind = rnd(100);

	if (kind < 2) {
		do_version();
	} else if (kind < 4) {
		do_ctl();
	} else if (kind < 6) {
		do_check();
	} else if (!open_file[slot]) {
		/* A file that is open keeps its name: it is nobody's to replace. */
		const bool idle = !open_file[0] && !open_file[1] && !open_file[2];

		if (idle && rnd(2))
			make_file((unsigned int)rnd(FILES), (unsigned int)rnd(KINDS));
		if (rnd(2))
			do_create(slot);
		else
			do_open(slot);
	} else if (kind < 10) {
		do_close(slot);
	} else {
		do_block(slot);
	}
}

int main(int argc, char **argv)
{
	unsigned long calls;

	if (argc != 6) {
		fprintf(stderr, "usage: pmemblk_pair OURS THEIRS DIR SEED CALLS\n");
		return 2;
	}
	for (int i = 0; i < 2; i++) {
		struct side *s = &sides[i];

		load(s, argv[1 + i]);
		snprintf(s->dir, sizeof(s->dir), "%s/%s", argv[3], s->name);
		s->buf = malloc(BLOCK_MAX);
		if (!s->buf || (mkdir(s->dir, 0700) && errno != EEXIST))
			return 2;
	}
	rng = strtoull(argv[4], NULL, 10) * 2654435761u + 88172645463325252u;
	calls = strtoul(argv[5], NULL, 10);
	while (ncalls < calls)
		step();
	for (unsigned int slot = 0; slot < POOLS; slot++)
		if (open_file[slot])
			do_close(slot);
	printf("%lu calls, no difference\n", calls);
	return 0;
}
