/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The run directory and the processes that belong to it: paths, a lock for each volume, small JSON
 * records of what was started, and waiting for processes by event.
 */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

/* The run directory, made when it is missing; NULL after a message. */
const char *run_dir(void);

/* True when the user named it, so that nothing outside may be touched. */
bool run_dir_is_private(void);

/* A volume's name in file names: a name as it is, of a spec its last part. Free it. */
char *run_name(const char *name_or_spec);

/* RUN/NAME.SUFFIX; free it. Ends the program when there is no run directory. */
char *run_path(const char *name, const char *suffix);

/*
 * Holds off other commands that start or stop things for this volume. Returns a descriptor to be
 * closed, or -1 after a message. Not inherited by what is started.
 */
int run_lock(const char *name, unsigned int timeout_s);

/* ---- records --------------------------------------------------------------------------------- */

/* NULL when there is none; a record of an earlier boot is none. */
json_t *run_load(const char *name, const char *suffix);

/* Replaces it atomically. 0, or -1 after a message. */
int run_save(const char *name, const char *suffix, json_t *record);
void run_forget(const char *name, const char *suffix);

/* A process in a record: {"pid": ..., "start": ...}. The start time guards against reuse. */
json_t *run_process(pid_t pid);
pid_t run_process_alive(const json_t *process);

/* ---- processes ------------------------------------------------------------------------------- */

/*
 * Starts argv as a daemon in a session of its own, its output appended to the log. Returns the pid,
 * or -1 after a message. It is no child of ours.
 */
pid_t run_daemon(const char *const argv[], const char *log_path);

/* Waits until the process is gone: true when it is. Reaps it when it is a child of ours. */
bool run_wait_gone(pid_t pid, unsigned int timeout_ms, int *ret_status);

/*
 * Runs a program to its end, at most timeout_s. Returns its exit code, or -1 when it could not run
 * or was killed for taking too long. ret_out: the first line of stdout; ret_err: all of stderr,
 * trimmed. Both may be NULL; free them.
 */
int run_program(const char *const argv[], unsigned int timeout_s, char **ret_out, char **ret_err);

/* Whether a program of that name is in PATH. */
bool run_has_program(const char *name);

uint64_t run_now_ms(void);

#endif
