/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the crash harness prints when a test fails, and what it is told by the environment.
 *
 *	VARVE_CRASH_IMAGES  images in all programs together, 100000 by default; each case takes
 *	                    its share
 *	VARVE_SEED          without VARVE_CRASH_IMAGES: one run, of this seed alone, which is what
 *	                    a failure prints; with it: the first of the seeds
 */
#ifndef TESTS_LIB_CRASH_REPORT_H
#define TESTS_LIB_CRASH_REPORT_H

#include <stdbool.h>
#include <stdint.h>

/* A run begins: what a failure, a failed assertion or a signal prints from now on. */
void crash_begin(const char *test, uint64_t seed);

/* A line of the trace, of which the last ones are printed. */
void crash_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whether what follows belongs to an image; the trace of the last image is forgotten then. */
void crash_trace_image(bool image);

/* Fails the test, with what is needed to replay it. */
_Noreturn void crash_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A share of all images. */
uint64_t crash_images(uint32_t share_ppm);

/* The nth seed; ret_only: there is only this one. */
uint64_t crash_seed(uint64_t nth, bool *ret_only);

#endif
