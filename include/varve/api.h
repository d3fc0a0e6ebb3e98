/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What every public header includes first.
 *
 * VARVE_API marks a function that libvarve.so exports. All else is compiled with hidden
 * visibility, so that a function without it cannot be called from outside by accident.
 */
#ifndef VARVE_API_H
#define VARVE_API_H

#define VARVE_API __attribute__((visibility("default")))

#endif
