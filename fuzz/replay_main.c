/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stands in for libFuzzer in an ordinary build: gives the empty input and each file of the
 * committed corpus (or the files named as arguments) to the fuzz target, as one TAP case.
 *
 * The target runs in this process; a crash is the failure, and the last "# input" line names the
 * file that did it.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	struct stat st;
	int ret = -1;

	if (!f || fstat(fileno(f), &st) != 0)
		goto out;
	/* Exactly as long as the input, so that a sanitizer sees a read past its end. */
	data = malloc((size_t)st.st_size + !st.st_size);
	if (!data || fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
		goto out;
	printf("# input %s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	ret = 0;
out:
	if (ret)
		printf("# cannot read %s\n", path);
	free(data);
	if (f)
		fclose(f);
	return ret;
}

static int is_visible(const struct dirent *d)
{
	return d->d_name[0] != '.';
}

static int replay_dir(const char *dir)
{
	struct dirent **list = NULL;
	int failed = 0;
	int n = scandir(dir, &list, is_visible, alphasort);

	for (int i = 0; i < n; i++) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
		failed |= replay_file(path);
		free(list[i]);
	}
	free(list);
	printf("# %d corpus files\n", n < 0 ? 0 : n);
	return failed;
}

int main(int argc, char **argv)
{
	uint8_t *empty = calloc(1, 1);
	int failed = empty == NULL;

	puts("1..1");
	if (argc > 1) {
		for (int i = 1; i < argc; i++)
			failed |= replay_file(argv[i]);
	} else if (empty) {
		LLVMFuzzerTestOneInput(empty, 0);
		failed = replay_dir(FUZZ_CORPUS);
	}
	printf("%s 1 - replay\n", failed ? "not ok" : "ok");
	free(empty);
	return failed ? 1 : 0;
}
