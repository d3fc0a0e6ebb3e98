/* SPDX-License-Identifier: BSD-3-Clause */
/* The test library's own test: what can be seen from inside. tests/tools/tap.sh sees the rest. */
#include "lib/tap.h"

#include <string.h>
#include <sys/stat.h>

TEST(checks_pass)
{
	CHECK(1 + 1 == 2);
	CHECK_EQ(2, 2);
	CHECK_STREQ("a", "a");
	CHECK_MEMEQ("abc", "abd", 2);
	CHECK_OK(0);
}

TEST(tmpdir_is_one_directory)
{
	struct stat st;

	CHECK_OK(stat(test_tmpdir(), &st));
	CHECK(S_ISDIR(st.st_mode));
	CHECK_STREQ(test_tmpdir(), test_tmpdir());
}

TEST(seed_is_stable)
{
	CHECK_EQ(test_seed(), test_seed());
}
