/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where the extent map's nodes come from.
 *
 * A pool hands out nodes of one size.  It gets them in chunks, which grow with the map: a small
 * map has a few nodes in a small one, a large map has chunks of 2 MiB, aligned so that each can be
 * one huge page.  A random lookup in a large map would else miss the TLB at each level.
 *
 * Nodes never go back from a pool before the map is cleared; what a change gave back, the next
 * change takes.  That makes it possible to promise nodes: extmap_pool_reserve is the only place
 * that can fail, and it is called before a change begins.
 *
 * Invariants:
 * 1. nfree is the length of the free list plus nfresh; total counts these and those in use.
 * 2. The descriptor of a chunk is at its end, so that nodes are aligned like the chunk.
 * 3. The map's bytes are the sum of the chunks' lengths, of both pools.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/extmap_impl.h"
#include "base/hugemem.h"

struct extmap_chunk {
	struct extmap_chunk *next;
	void *start;
	size_t len;
};

enum {
	ALIGN = 64,
	TRAILER = 64,
	HUGE_LEN = HUGEMEM_PAGE,
};

static_assert(sizeof(struct extmap_chunk) <= TRAILER, "a chunk's descriptor fits");

static void *default_alloc(void *arg, size_t align, size_t len)
{
	(void)arg;
	return len >= HUGE_LEN ? hugemem_alloc(len) : aligned_alloc(align, len);
}

static void default_free(void *arg, void *ptr, size_t len)
{
	(void)arg;
	if (len >= HUGE_LEN)
		hugemem_free(ptr, len);
	else
		free(ptr);
}

const struct extmap_alloc extmap_default_alloc = {default_alloc, default_free, NULL};

/* The fresh nodes of the chunk before join the free list: only one chunk has fresh ones. */
static void retire_fresh(struct extmap_pool *pool)
{
	while (pool->nfresh > 0) {
		void *node = pool->fresh;

		pool->fresh += pool->node_size;
		pool->nfresh--;
		memcpy(node, &pool->free, sizeof(pool->free));
		pool->free = node;
	}
}

static int add_chunk(struct extmap *m, struct extmap_pool *pool, size_t nodes)
{
	size_t len = nodes * pool->node_size + TRAILER;
	struct extmap_chunk *chunk;
	char *start;

	/* A length near a huge page becomes one. */
	if (len > HUGE_LEN - pool->node_size)
		len = HUGE_LEN;
	nodes = (len - TRAILER) / pool->node_size;
	if (m->limit_bytes && (m->bytes > m->limit_bytes || len > m->limit_bytes - m->bytes))
		return -ENOMEM;
	start = m->alloc.alloc(m->alloc.arg, len == HUGE_LEN ? HUGE_LEN : ALIGN, len);
	if (!start)
		return -ENOMEM;
	chunk = (struct extmap_chunk *)(void *)(start + len - TRAILER);
	*chunk = (struct extmap_chunk){pool->chunks, start, len};
	pool->chunks = chunk;
	m->bytes += len;
	retire_fresh(pool);
	pool->fresh = start;
	pool->nfresh = nodes;
	pool->nfree += nodes;
	pool->total += nodes;
	return 0;
}

int extmap_pool_reserve(struct extmap *m, struct extmap_pool *pool, size_t n)
{
	const size_t most = (HUGE_LEN - TRAILER) / pool->node_size;

	while (pool->nfree < n) {
		size_t need = n - pool->nfree < most ? n - pool->nfree : most;
		size_t want = pool->total / 2 > need ? pool->total / 2 : need;

		if (want > most)
			want = most;
		if (add_chunk(m, pool, want) != 0 &&
		    (want == need || add_chunk(m, pool, need) != 0))
			return -ENOMEM;
	}
	return 0;
}

void *extmap_pool_get(struct extmap_pool *pool)
{
	void *node = pool->free;

	assert(pool->nfree > 0);
	pool->nfree--;
	if (node) {
		memcpy(&pool->free, node, sizeof(pool->free));
	} else {
		node = pool->fresh;
		pool->fresh += pool->node_size;
		pool->nfresh--;
	}
	return node;
}

void extmap_pool_put(struct extmap_pool *pool, void *node)
{
	memcpy(node, &pool->free, sizeof(pool->free));
	pool->free = node;
	pool->nfree++;
}

void extmap_pool_clear(struct extmap *m, struct extmap_pool *pool)
{
	struct extmap_chunk *chunk = pool->chunks;

	while (chunk) {
		struct extmap_chunk *next = chunk->next;

		m->bytes -= chunk->len;
		m->alloc.free(m->alloc.arg, chunk->start, chunk->len);
		chunk = next;
	}
	*pool = (struct extmap_pool){.node_size = pool->node_size};
}
