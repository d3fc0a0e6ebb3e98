/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash harness of block translation tables: seeded schedules on simulated memory, with power
 * cuts at every named point.
 *
 * Threads are real, but only one runs at a time: it is stopped at each point of the protocol
 * (btt->point), and the scheduler draws who goes on. At points the harness takes crash images; each
 * is opened, judged, written to, closed or cut again. Threads die where they stand; the process
 * dies, and the pool is opened again on the memory as it is.
 *
 * The oracle is that of spin/btt.pml: each swap has a place in its sector's history, and `need` is
 * the oldest place that what has returned, of writes and of reads, allows a crash to leave.
 *
 * crash_report.h has the environment that says how many images, and which seeds.
 */
#ifndef TESTS_LIB_BTT_RIG_H
#define TESTS_LIB_BTT_RIG_H

#include <stdbool.h>
#include <stdint.h>

struct btt_rig_profile {
	const char *test;   /* the TEST's name, for the replay command */
	uint32_t share_ppm; /* of VARVE_CRASH_IMAGES */
	unsigned sectors;   /* that are used, few */
	unsigned threads;
	unsigned lanes; /* 0: as many as threads */
	unsigned ops;	/* of one program */
	unsigned read_percent;
	unsigned mark_percent;	/* set_zero and set_error */
	unsigned die_percent;	/* of points: the thread dies, once in a program */
	unsigned kill_percent;	/* of points: the process dies */
	unsigned images;	/* at a point, at most */
	unsigned image_percent; /* of points */
	unsigned generations;	/* images within images */
	bool close;		/* programs close and open in order, too */
	bool protect;		/* readers protect their block at once */
};

/* As many seeds as the share of images takes, up to the first failure. */
void btt_rig_run(const struct btt_rig_profile *profile);

#endif
