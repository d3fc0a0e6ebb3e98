/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * stamp: writes blocks over NBD whose contents tell what they are, and checks them after a crash.
 *
 *   stamp run URI STATE SEED PID MS    works on four connections until the server is gone; after
 *                                      MS milliseconds it kills the server PID with SIGKILL
 *                                      (counted from the first success, unless SEED is 4 n)
 *   stamp check URI STATE              reads everything and compares
 *   stamp fill URI SEED FROM TO        one connection, one write after another, numbers FROM to TO
 *   stamp prefix URI SEED TO MIN       the image must be that of fill 1 to P, MIN <= P <= TO
 *
 * Each 4 KiB block holds its own number, a sequence number that is never used twice, and words made
 * of the two, so a mixture of two writes, or a block in a wrong place, cannot pass.
 *
 * The model of run and check. For each block there is a list of the contents that it may have after
 * a crash, oldest first. An operation adds its content before it is sent. When a flush succeeds,
 * whatever is older than the last write that had been acknowledged when the flush was sent leaves
 * the list, on all connections: that is what multi-conn promises. A FUA write does so for its own
 * block alone. A discard adds zeros and never lets anything leave. What check reads becomes the
 * only allowed content: a block must not change again by another crash.
 *
 * Sixteen neighbours at a time belong to one of the threads, which has one request in flight;
 * flushes of any thread prune all lists, under the lock.
 */
#include <libnbd.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define WORDS (BLOCK / 8)
#define BLOCKS 8192
#define THREADS 4
#define LIST 24
#define RUN_BLOCKS 16
#define MAGIC UINT64_C(0x7661727665737470)

struct block {
	uint64_t base; /* how many have left the list */
	uint32_t n;
	uint32_t solid; /* index of the last acknowledged write or zero; only these let others go */
	uint64_t seq[LIST]; /* 0: zeros */
};

struct state {
	uint64_t next_seq;
	struct block block[BLOCKS];
};

struct worker {
	struct nbd_handle *nbd;
	unsigned int id;
	uint64_t rng;
	uint64_t ops, flushes;
	bool failed;
};

static struct state state;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards state */
static atomic_bool killed;
static sem_t started; /* posted for every operation that succeeds */

static void die(const char *what)
{
	fprintf(stderr, "stamp: %s: %s\n", what, nbd_get_error() ? nbd_get_error() : "");
	exit(2);
}

static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static uint64_t next_random(uint64_t *rng)
{
	*rng += UINT64_C(0x9e3779b97f4a7c15);
	return mix(*rng);
}

/* ---- contents -------------------------------------------------------------------------------- */

static void stamp(uint64_t *words, uint64_t block, uint64_t seq)
{
	uint64_t key = mix(block * UINT64_C(1000003) + seq);
	unsigned int i;

	words[0] = MAGIC;
	words[1] = block;
	words[2] = seq;
	for (i = 3; i < WORDS; i++)
		words[i] = mix(key + i);
}

/* The sequence number of a block's content, 0 for zeros; -1 after a message. */
static int64_t identify(const uint64_t *words, uint64_t block)
{
	uint64_t want[WORDS];
	unsigned int i;

	for (i = 0; i < WORDS && words[i] == 0; i++)
		;
	if (i == WORDS)
		return 0;
	stamp(want, block, words[2]);
	for (i = 0; i < WORDS; i++) {
		if (words[i] == want[i])
			continue;
		printf("block %llu: mixed or foreign: magic %s, block %llu, seq %llu, word %u is "
		       "wrong\n",
		       (unsigned long long)block, words[0] == MAGIC ? "ok" : "wrong",
		       (unsigned long long)words[1], (unsigned long long)words[2], i);
		return -1;
	}
	return (int64_t)words[2];
}

static struct nbd_handle *connect_to(const char *uri)
{
	struct nbd_handle *nbd = nbd_create();

	if (!nbd || nbd_connect_uri(nbd, uri) < 0)
		die(uri);
	if (nbd_get_size(nbd) < (int64_t)BLOCKS * BLOCK)
		die("the export is too small");
	return nbd;
}

/* ---- the model ------------------------------------------------------------------------------- */

/* Lets go of everything older than entry i. */
static void block_prune(struct block *b, uint32_t i)
{
	memmove(b->seq, b->seq + i, (b->n - i) * sizeof(b->seq[0]));
	b->base += i;
	b->n -= i;
	b->solid -= i;
}

/* Adds what an operation is about to write; false when a list is full. */
static bool begin(uint64_t first, unsigned int count, bool zeros, uint64_t *seqs)
{
	bool room = true;
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < count; i++)
		room = room && state.block[first + i].n < LIST;
	for (i = 0; i < count && room; i++) {
		struct block *b = &state.block[first + i];

		seqs[i] = zeros ? 0 : ++state.next_seq;
		b->seq[b->n++] = seqs[i];
	}
	pthread_mutex_unlock(&lock);
	return room;
}

static void acknowledge(uint64_t first, unsigned int count, bool durable)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < count; i++) {
		struct block *b = &state.block[first + i];

		b->solid = b->n - 1; /* the owner has one request in flight: the newest is it */
		if (durable)
			block_prune(b, b->solid);
	}
	pthread_mutex_unlock(&lock);
}

/* For each block, what a flush that is sent now makes durable: counted from its first ever. */
static void snapshot_take(uint64_t *solid)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < BLOCKS; i++)
		solid[i] = state.block[i].base + state.block[i].solid;
	pthread_mutex_unlock(&lock);
}

static void snapshot_apply(const uint64_t *solid)
{
	unsigned int i;

	pthread_mutex_lock(&lock);
	for (i = 0; i < BLOCKS; i++) {
		struct block *b = &state.block[i];

		if (solid[i] > b->base)
			block_prune(b, (uint32_t)(solid[i] - b->base));
	}
	pthread_mutex_unlock(&lock);
}

/* ---- run ------------------------------------------------------------------------------------- */

static int do_flush(struct worker *w)
{
	uint64_t *solid = malloc(BLOCKS * sizeof(*solid));
	int rc;

	if (!solid)
		die("memory");
	snapshot_take(solid);
	rc = nbd_flush(w->nbd, 0);
	if (rc == 0) {
		snapshot_apply(solid);
		w->flushes++;
	}
	free(solid);
	return rc;
}

/* Changes some neighbours; r decides how. */
static int do_change(struct worker *w, uint64_t first, unsigned int count, uint64_t r)
{
	static _Thread_local uint64_t words[RUN_BLOCKS * WORDS];
	bool fua = r % 100 < 10, zero = r % 100 >= 90, trim = r % 100 >= 95;
	uint64_t seqs[RUN_BLOCKS], at = first * BLOCK, length = (uint64_t)count * BLOCK;
	unsigned int i;
	int rc;

	if (!begin(first, count, zero, seqs))
		return do_flush(w);
	if (trim) {
		/* Advisory: zeros, or as it was. So it lets nothing leave the lists. */
		return nbd_trim(w->nbd, length, at, 0);
	}
	if (zero) {
		rc = nbd_zero(w->nbd, length, at, r & 256 ? LIBNBD_CMD_FLAG_NO_HOLE : 0);
	} else {
		for (i = 0; i < count; i++)
			stamp(words + (size_t)i * WORDS, first + i, seqs[i]);
		rc = nbd_pwrite(w->nbd, words, length, at, fua ? LIBNBD_CMD_FLAG_FUA : 0);
	}
	if (rc == 0)
		acknowledge(first, count, fua);
	return rc;
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (;;) {
		uint64_t r = next_random(&w->rng), place = next_random(&w->rng);
		uint64_t group = place % (BLOCKS / RUN_BLOCKS / THREADS) * THREADS + w->id;
		unsigned int in = (place >> 32) % RUN_BLOCKS, count = 1;
		int rc;

		/* A small hot set too: blocks that are written over and over. */
		if (place >> 63)
			group = w->id;
		if ((r >> 32) % 4 == 0)
			count += (unsigned int)((r >> 40) % (RUN_BLOCKS - in));
		rc = (r >> 48) % 100 < 8 ? do_flush(w)
					 : do_change(w, group * RUN_BLOCKS + in, count, r);
		if (rc < 0) {
			w->failed = !atomic_load(&killed);
			if (w->failed)
				fprintf(stderr, "stamp: %s\n", nbd_get_error());
			break;
		}
		w->ops++;
		sem_post(&started);
	}
	return NULL;
}

static void load(const char *path)
{
	FILE *f = fopen(path, "r");
	unsigned int i;

	if (f) {
		if (fread(&state, sizeof(state), 1, f) != 1)
			die("state file");
		fclose(f);
		return;
	}
	for (i = 0; i < BLOCKS; i++)
		state.block[i].n = 1; /* zeros */
}

static void save(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f || fwrite(&state, sizeof(state), 1, f) != 1 || fclose(f) != 0)
		die("state file");
}

/* Not for ever: a server that answers nothing is killed all the same. */
static void wait_started(void)
{
	struct timespec limit;

	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 20;
	sem_timedwait(&started, &limit);
}

static int run(const char *uri, const char *path, uint64_t seed, pid_t pid, unsigned int ms)
{
	struct timespec delay = {ms / 1000, (long)(ms % 1000) * 1000000};
	struct worker workers[THREADS];
	pthread_t threads[THREADS];
	uint64_t ops = 0, flushes = 0;
	bool failed = false;
	unsigned int i;

	load(path);
	sem_init(&started, 0, 0);
	for (i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.id = i, .rng = mix(seed + i)};
		workers[i].nbd = connect_to(uri);
	}
	for (i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, work, &workers[i]);
	/* One time in four the kill may hit the first mutation, which takes the writer's right. */
	if (seed % 4)
		wait_started();
	nanosleep(&delay, NULL);
	atomic_store(&killed, true);
	kill(pid, SIGKILL);
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		nbd_close(workers[i].nbd);
		ops += workers[i].ops;
		flushes += workers[i].flushes;
		failed = failed || workers[i].failed;
	}
	save(path);
	printf("%llu operations, %llu flushes in %u ms\n", (unsigned long long)ops,
	       (unsigned long long)flushes, ms);
	return failed;
}

/* ---- check ----------------------------------------------------------------------------------- */

static bool check_block(uint64_t number, const uint64_t *words)
{
	struct block *b = &state.block[number];
	int64_t seq = identify(words, number);
	uint32_t i;

	if (seq < 0)
		return false;
	for (i = 0; i < b->n; i++)
		if (b->seq[i] == (uint64_t)seq)
			break;
	if (i == b->n) {
		printf("block %llu: has %lld, allowed:", (unsigned long long)number,
		       (long long)seq);
		for (i = 0; i < b->n; i++)
			printf(" %llu", (unsigned long long)b->seq[i]);
		printf(" (%s)\n", seq > (int64_t)state.next_seq ? "never written"
				  : (uint64_t)seq < b->seq[0]	? "lost a durable write"
								: "wrong");
		return false;
	}
	b->seq[0] = (uint64_t)seq;
	b->n = 1;
	b->solid = 0;
	return true;
}

static int check(const char *uri, const char *path)
{
	static uint64_t words[RUN_BLOCKS * WORDS];
	struct nbd_handle *nbd = connect_to(uri);
	unsigned int bad = 0, i, k;

	load(path);
	for (i = 0; i < BLOCKS; i += RUN_BLOCKS) {
		if (nbd_pread(nbd, words, sizeof(words), (uint64_t)i * BLOCK, 0) < 0)
			die("read");
		for (k = 0; k < RUN_BLOCKS; k++)
			bad += !check_block(i + k, words + (size_t)k * WORDS);
	}
	nbd_close(nbd);
	if (bad)
		printf("%u of %u blocks are wrong\n", bad, BLOCKS);
	else
		save(path);
	return bad != 0;
}

/* ---- fill and prefix ------------------------------------------------------------------------- */

static uint64_t fill_block(uint64_t seed, uint64_t seq)
{
	return mix(seed ^ (seq << 20)) % BLOCKS;
}

static int fill(const char *uri, uint64_t seed, uint64_t from, uint64_t to)
{
	struct nbd_handle *nbd = connect_to(uri);
	uint64_t words[WORDS], seq;

	for (seq = from; seq <= to; seq++) {
		uint64_t block = fill_block(seed, seq);

		stamp(words, block, seq);
		if (nbd_pwrite(nbd, words, BLOCK, block * BLOCK, 0) < 0) {
			printf("write %llu: %s\n", (unsigned long long)seq, nbd_get_error());
			return 1;
		}
	}
	if (nbd_flush(nbd, 0) < 0) {
		printf("flush: %s\n", nbd_get_error());
		return 1;
	}
	nbd_close(nbd);
	return 0;
}

static int prefix(const char *uri, uint64_t seed, uint64_t to, uint64_t min)
{
	static uint64_t words[RUN_BLOCKS * WORDS], want[BLOCKS], have[BLOCKS];
	struct nbd_handle *nbd = connect_to(uri);
	uint64_t last = 0, seq;
	unsigned int i, k, bad = 0;

	for (i = 0; i < BLOCKS; i += RUN_BLOCKS) {
		if (nbd_pread(nbd, words, sizeof(words), (uint64_t)i * BLOCK, 0) < 0)
			die("read");
		for (k = 0; k < RUN_BLOCKS; k++) {
			int64_t found = identify(words + (size_t)k * WORDS, i + k);

			if (found < 0)
				return 1;
			have[i + k] = (uint64_t)found;
			if (have[i + k] > last)
				last = have[i + k];
		}
	}
	for (seq = 1; seq <= last; seq++)
		want[fill_block(seed, seq)] = seq;
	for (i = 0; i < BLOCKS; i++) {
		if (have[i] == want[i])
			continue;
		printf("block %u: has %llu, the prefix up to %llu has %llu\n", i,
		       (unsigned long long)have[i], (unsigned long long)last,
		       (unsigned long long)want[i]);
		bad++;
	}
	printf("prefix %llu of %llu\n", (unsigned long long)last, (unsigned long long)to);
	if (last < min || last > to)
		printf("expected at least %llu\n", (unsigned long long)min);
	nbd_close(nbd);
	return bad || last < min || last > to;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 7 && !strcmp(argv[1], "run"))
		return run(argv[2], argv[3], strtoull(argv[4], NULL, 0),
			   (pid_t)strtol(argv[5], NULL, 10),
			   (unsigned int)strtoul(argv[6], NULL, 10));
	if (argc == 4 && !strcmp(argv[1], "check"))
		return check(argv[2], argv[3]);
	if (argc == 6 && !strcmp(argv[1], "fill"))
		return fill(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
			    strtoull(argv[5], NULL, 0));
	if (argc == 6 && !strcmp(argv[1], "prefix"))
		return prefix(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
			      strtoull(argv[5], NULL, 0));
	fprintf(stderr, "usage: stamp run|check|fill|prefix ...\n");
	return 2;
}
