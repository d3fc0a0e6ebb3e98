/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory in huge pages (hugemem.h): maps one page more than asked for, gives back what is over. */
#include "base/hugemem.h"

#include <stdint.h>
#include <sys/mman.h>

void *hugemem_alloc(size_t len)
{
	char *p = mmap(NULL, len + HUGEMEM_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t skip;

	if (p == MAP_FAILED)
		return NULL;
	skip = -(uintptr_t)p % HUGEMEM_PAGE;
	if (skip)
		munmap(p, skip);
	munmap(p + skip + len, HUGEMEM_PAGE - skip);
	/* Only a hint: without huge pages everything works, slower. */
	madvise(p + skip, len, MADV_HUGEPAGE);
	return p + skip;
}

void hugemem_free(void *mem, size_t len)
{
	if (mem)
		munmap(mem, len);
}
