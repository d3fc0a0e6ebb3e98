/* SPDX-License-Identifier: BSD-3-Clause */
/* A progress bar on stderr, for commands that take their time. */
#include "cli.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_WIDTH 40

void cli_bar_init(struct cli_bar *bar, bool wanted)
{
	*bar = (struct cli_bar){.on = wanted || isatty(STDERR_FILENO), .percent = -1};
}

void cli_bar_clear(struct cli_bar *bar)
{
	if (bar->on && bar->percent >= 0)
		fprintf(stderr, "\r%*s\r", BAR_WIDTH + 16, "");
	bar->percent = -1;
}

void cli_bar_show(struct cli_bar *bar, uint64_t done, uint64_t total)
{
	int percent = total ? (int)((double)done * 100.0 / (double)total) : 100;
	int i, full;

	percent = percent > 100 ? 100 : percent;
	if (!bar->on || percent == bar->percent)
		return;
	bar->percent = percent;
	full = percent * BAR_WIDTH / 100;
	fputs("\r[", stderr);
	for (i = 0; i < BAR_WIDTH; i++)
		fputc(i < full ? '#' : '.', stderr);
	fprintf(stderr, "] %3d %%", percent);
	fflush(stderr);
}
