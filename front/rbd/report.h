/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Texts for people. librbd's interface has numbers alone, and qemu shows its users no more than
 * "Invalid argument"; the sentence that says what to do goes to stderr. VARVE_RBD_QUIET=1 in the
 * environment turns it off.
 */
#ifndef RBD_REPORT_H
#define RBD_REPORT_H

void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Lets the library's own warnings and errors come out here, too. */
void report_start(void);

#endif
