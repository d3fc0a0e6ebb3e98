/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pmemblk_calls: what a random sequence of calls does not reach in a libpmemblk.
 *
 *   pmemblk_calls LIB POOL WHAT
 *
 * WHAT: funcs    memory of a pool comes from and goes to the functions that were set
 *       messages each thread has its own, and a success leaves it
 *       fork     a child may close a pool, and nothing else
 *       sizes    prints prefault.at_open and fallocate.at_create, as the environment set them
 *       damage   a pool that is damaged is inconsistent, which is told in words
 *
 * The exit status is 0, or 1 and a line says what is wrong.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BSIZE 4096
#define POOL_BYTES 17000000

static const char *(*pool_errormsg)(void);
static void *(*pool_create)(const char *path, size_t bsize, size_t size, mode_t mode);
static void *(*pool_open)(const char *path, size_t bsize);
static void (*pool_close)(void *pool);
static int (*pool_check)(const char *path, size_t bsize);
static int (*pool_read)(void *pool, void *buf, long long block);
static int (*pool_write)(void *pool, const void *buf, long long block);
static int (*pool_ctl_get)(void *pool, const char *name, void *arg);
static void (*pool_set_funcs)(void *(*malloc_func)(size_t size), void (*free_func)(void *ptr),
			      void *(*realloc_func)(void *ptr, size_t size),
			      char *(*strdup_func)(const char *s));

static void *symbol(void *lib, const char *name)
{
	void *at = dlsym(lib, name);

	if (!at) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	return at;
}

static void load(const char *path)
{
	void *lib = dlopen(path, RTLD_NOW);

	if (!lib) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	*(void **)&pool_errormsg = symbol(lib, "pmemblk_errormsg");
	*(void **)&pool_create = symbol(lib, "pmemblk_create");
	*(void **)&pool_open = symbol(lib, "pmemblk_open");
	*(void **)&pool_close = symbol(lib, "pmemblk_close");
	*(void **)&pool_check = symbol(lib, "pmemblk_check");
	*(void **)&pool_read = symbol(lib, "pmemblk_read");
	*(void **)&pool_write = symbol(lib, "pmemblk_write");
	*(void **)&pool_ctl_get = symbol(lib, "pmemblk_ctl_get");
	*(void **)&pool_set_funcs = symbol(lib, "pmemblk_set_funcs");
}

static void expect(int ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "%s (errno %d, \"%s\")\n", what, errno, pool_errormsg());
	exit(1);
}

/* ---- funcs --------------------------------------------------------------------------------- */

static void *gave[64];
static int mallocs, frees, strangers;

static void *count_malloc(size_t size)
{
	void *p = malloc(size);

	if (mallocs < 64)
		gave[mallocs++] = p;
	return p;
}

static void count_free(void *p)
{
	int i = 0;

	while (i < mallocs && gave[i] != p)
		i++;
	strangers += p && i == mallocs;
	frees += p != NULL;
	free(p);
}

static void *no_malloc(size_t size)
{
	(void)size;
	errno = ENOMEM;
	return NULL;
}

static void funcs(const char *path)
{
	void *pool;

	pool_set_funcs(count_malloc, count_free, NULL, NULL);
	pool = pool_create(path, BSIZE, POOL_BYTES, 0600);
	expect(pool != NULL, "create");
	pool_close(pool);
	expect(mallocs > 0 && mallocs == frees && !strangers,
	       "the functions are not used in pairs");
	pool_set_funcs(no_malloc, count_free, NULL, NULL);
	errno = 0;
	expect(!pool_open(path, BSIZE) && errno == ENOMEM, "without memory");
	pool_set_funcs(NULL, NULL, NULL, NULL);
	pool = pool_open(path, BSIZE);
	expect(pool != NULL, "what failed for memory is held");
	pool_close(pool);
	expect(mallocs == frees, "functions that were taken back are used");
}

/* ---- messages ------------------------------------------------------------------------------ */

static void *fail_otherwise(void *path)
{
	char *ret = NULL;

	(void)path;
	if (!*pool_errormsg() && !pool_open("/nonexistent/pool", 0))
		ret = strdup(pool_errormsg());
	return ret;
}

static void messages(const char *path)
{
	void *pool = pool_create(path, BSIZE, POOL_BYTES, 0600), *theirs;
	static char buf[BSIZE];
	pthread_t thread;
	char mine[1024];

	expect(pool != NULL, "create");
	expect(pool_read(pool, buf, -1) == -1 && errno == EINVAL, "a negative block");
	snprintf(mine, sizeof(mine), "%s", pool_errormsg());
	expect(!!*mine, "no text");
	expect(!pthread_create(&thread, NULL, fail_otherwise, NULL) &&
		       !pthread_join(thread, &theirs), "thread");
	expect(theirs && strstr(theirs, "/nonexistent/pool"), "another thread's text");
	expect(!strcmp(mine, pool_errormsg()), "the text is another thread's");
	expect(!pool_write(pool, buf, 0) && !strcmp(mine, pool_errormsg()),
	       "a success changes the text");
	free(theirs);
	pool_close(pool);
}

/* ---- fork ---------------------------------------------------------------------------------- */

static void child(void *pool)
{
	static char buf[BSIZE];

	expect(pool_read(pool, buf, 1) == -1, "the child reads");
	expect(pool_write(pool, buf, 1) == -1 && *pool_errormsg(), "the child writes");
	pool_close(pool);
	_exit(0);
}

static void forked(const char *path)
{
	void *pool = pool_create(path, BSIZE, POOL_BYTES, 0600);
	static char buf[BSIZE] = "from before the fork", got[BSIZE];
	int status;
	pid_t pid;

	expect(pool && !pool_write(pool, buf, 1), "create and write");
	pid = fork();
	if (!pid)
		child(pool);
	expect(waitpid(pid, &status, 0) == pid && !status, "the child");
	expect(!pool_open(path, BSIZE) && errno == EWOULDBLOCK, "the child's close freed the pool");
	expect(!pool_read(pool, got, 1) && !memcmp(got, buf, BSIZE), "read after the fork");
	expect(!pool_write(pool, buf, 2), "write after the fork");
	pool_close(pool);
	expect(pool_check(path, BSIZE) == 1, "the pool is not sound");
}

/* ---- the rest ------------------------------------------------------------------------------ */

static void sizes(const char *path)
{
	void *pool = pool_create(path, BSIZE, POOL_BYTES, 0600);
	int prefault = -1, fallocate = -1;

	expect(pool != NULL, "create");
	expect(!pool_ctl_get(pool, "prefault.at_open", &prefault) &&
		       !pool_ctl_get(pool, "fallocate.at_create", &fallocate), "ctl_get");
	printf("%d %d\n", prefault, fallocate);
	pool_close(pool);
}

static void damage(const char *path)
{
	void *pool = pool_create(path, BSIZE, POOL_BYTES, 0600);
	FILE *file;

	expect(pool != NULL, "create");
	pool_close(pool);
	expect(pool_check(path, BSIZE) == 1, "a new pool is not sound");
	expect(pool_check(path, BSIZE / 2) == -1 && errno == EINVAL, "another block size");
	file = fopen(path, "r+");
	expect(file && !fseek(file, -BSIZE, SEEK_END) && fputc('!', file) == '!' && !fclose(file),
	       "damage");
	expect(!pool_check(path, BSIZE), "a damaged pool is sound");
	expect(strstr(pool_errormsg(), "superblock") != NULL,
	       "the text does not say what is damaged");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(const char *path);
	} tests[] = {{"funcs", funcs}, {"messages", messages}, {"fork", forked}, {"sizes", sizes},
		     {"damage", damage}};

	if (argc != 4) {
		fprintf(stderr, "usage: pmemblk_calls LIB POOL WHAT\n");
		return 2;
	}
	load(argv[1]);
	for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++) {
		if (!strcmp(tests[i].name, argv[3])) {
			tests[i].run(argv[2]);
			return 0;
		}
	}
	return 2;
}
