/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A block device for a volume, made of two or three pieces:
 *
 *   kernel nbd      server --- nbd-client --- /dev/nbdN --- link
 *   everywhere      server --- nbdfuse (FILE) --- losetup (/dev/loopN) --- link
 *
 * The second needs no driver but fuse and loop. Flush, discard and write-zeroes pass through it; a
 * FUA write becomes a write and a flush. Direct I/O on the loop device keeps the page cache from
 * holding everything twice.
 *
 * Undoing runs the other way round, and every piece may be missing already: the server may have
 * been killed, nbdfuse ends itself when its server is gone, an administrator may have detached the
 * loop device, and its number may be somebody else's by now. So each step first looks whether the
 * piece is there and is ours (a loop device by its backing file, a process by its start time).
 */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cli.h"
#include "run.h"

#define HELPER_TIMEOUT_S 30
#define NBD_DEVICES 16

static const char *text_of(const json_t *record, const char *key)
{
	return json_string_value(json_object_get(record, key));
}

/* The first line of a small file of /sys, or "". */
static void read_line(const char *path, char *buf, size_t len)
{
	FILE *f = fopen(path, "re");

	buf[0] = '\0';
	if (!f)
		return;
	if (fgets(buf, (int)len, f))
		buf[strcspn(buf, "\n")] = '\0';
	fclose(f);
}

/* ---- what is there --------------------------------------------------------------------------- */

/* A mount table escapes blanks as \040 and the like. */
static bool same_mount_point(const char *escaped, const char *path)
{
	while (*escaped && *path) {
		char c = *escaped;

		if (c == '\\' && strlen(escaped) >= 4) {
			c = (char)((escaped[1] - '0') * 64 + (escaped[2] - '0') * 8 +
				   (escaped[3] - '0'));
			escaped += 3;
		}
		if (c != *path)
			return false;
		escaped++;
		path++;
	}
	return !*escaped && !*path;
}

/*
 * Looks through the mount table for a mount point, or with point NULL for a device; the mount point
 * found goes to ret.
 */
static bool find_mount(const char *point, dev_t dev, char *ret, size_t len)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096], where[PATH_MAX];
	unsigned int major, minor;
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*d %*d %u:%u %*s %4095s", &major, &minor, where) != 3)
			continue;
		found = point ? same_mount_point(where, point) : makedev(major, minor) == dev;
	}
	if (f)
		fclose(f);
	if (found && ret)
		snprintf(ret, len, "%s", where);
	return found;
}

/* The loop device of the record, if it still serves our file. */
static const char *live_loop(const json_t *record)
{
	const char *loop = text_of(record, "loop"), *file = text_of(record, "fuse");
	char path[128], backing[PATH_MAX];

	if (!loop || !file || strncmp(loop, "/dev/", 5) != 0)
		return NULL;
	snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", loop + 5);
	read_line(path, backing, sizeof(backing));
	/* After a lazy unmount the kernel shows the path relative to a root that is gone. */
	return backing[0] && (strcmp(backing, file) == 0 || strstr(file, backing)) ? loop : NULL;
}

static const char *live_nbd(const json_t *record)
{
	const char *nbd = text_of(record, "nbd");
	char path[128], pid[32];

	if (!nbd || strncmp(nbd, "/dev/", 5) != 0)
		return NULL;
	snprintf(path, sizeof(path), "/sys/block/%s/pid", nbd + 5);
	read_line(path, pid, sizeof(pid));
	return pid[0] ? nbd : NULL;
}

const char *device_path(const json_t *record)
{
	const char *loop = live_loop(record);

	return loop ? loop : live_nbd(record);
}

bool device_busy(const char *name, const json_t *record)
{
	const char *dev = device_path(record);
	char where[PATH_MAX];
	struct stat st;
	int fd;

	if (!dev)
		return false;
	if (stat(dev, &st) == 0 && find_mount(NULL, st.st_rdev, where, sizeof(where))) {
		cli_error("%s (%s) is mounted on %s; umount it first", name, dev, where);
		return true;
	}
	/* Mounts of other namespaces, partitions, swap, device mapper: all claim the device. */
	fd = open(dev, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0 && errno == EBUSY) {
		cli_error("%s (%s) is in use (mounted elsewhere, swap, or under another device); "
			  "end that first",
			  name, dev);
		return true;
	}
	if (fd >= 0)
		close(fd);
	return false;
}

int device_sync(const char *name, const json_t *record)
{
	const json_t *fuse = json_object_get(record, "fuse_process");
	const char *dev = device_path(record);
	int fd, rc;

	if (!dev)
		return 0;
	if (fuse && !run_process_alive(fuse)) {
		cli_warn("%s: nbdfuse has died; what was written and not flushed is lost", name);
		return 0;
	}
	fd = open(dev, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		/* A read-only device has nothing to write back. */
		if (errno == EROFS || errno == EACCES || errno == EPERM)
			return 0;
		cli_error("%s: cannot open %s: %s", name, dev, strerror(errno));
		return -1;
	}
	rc = fsync(fd);
	if (rc < 0)
		cli_error("%s: writing back %s: %s", name, dev, strerror(errno));
	close(fd);
	return rc;
}

/* ---- build ----------------------------------------------------------------------------------- */

enum device_method device_best_method(void)
{
	const char *const modprobe[] = {"modprobe", "nbd", NULL};

	if (!run_has_program("nbd-client"))
		return DEVICE_FUSE;
	if (access("/dev/nbd0", F_OK) < 0 && run_has_program("modprobe"))
		run_program(modprobe, HELPER_TIMEOUT_S, NULL, NULL);
	return access("/dev/nbd0", F_OK) == 0 ? DEVICE_NBD : DEVICE_FUSE;
}

static int save(const char *name, json_t *record, const char *key, json_t *value)
{
	json_object_set_new(record, key, value);
	return run_save(name, "device", record);
}

/* nbdfuse writes its pid file when the file is ready to be used. */
static int wait_fuse(const struct device_options *opt, pid_t pid, const char *pid_file,
		     const char *log)
{
	uint64_t deadline = run_now_ms() + opt->timeout_s * UINT64_C(1000);

	for (;;) {
		struct stat st;

		if (stat(pid_file, &st) == 0 && st.st_size > 0)
			return 0;
		if (run_wait_gone(pid, 10, NULL)) {
			cli_error("%s: nbdfuse could not start; its log is %s", opt->name, log);
			return -1;
		}
		if (run_now_ms() >= deadline) {
			cli_error("%s: nbdfuse is not ready after %u s; its log is %s", opt->name,
				  opt->timeout_s, log);
			return -1;
		}
	}
}

/* The file that nbdfuse covers; made empty. */
static char *make_fuse_file(const char *name)
{
	char *dir = run_path(name, "fuse"), *file = cli_format("%s/disk", dir);
	int fd = -1;

	if (mkdir(dir, 0700) == 0 || errno == EEXIST)
		fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		cli_error("cannot make %s: %s", file, strerror(errno));
		free(file);
		file = NULL;
	} else {
		close(fd);
	}
	free(dir);
	return file;
}

static int start_fuse(const struct device_options *opt, json_t *record)
{
	char *pid_file = run_path(opt->name, "fuse.pid"), *log = run_path(opt->name, "log");
	char *file = make_fuse_file(opt->name);
	const char *argv[8];
	int n = 0, rc = -1;
	pid_t pid;

	if (!file || save(opt->name, record, "fuse", json_string(file)) < 0)
		goto out;
	unlink(pid_file);
	argv[n++] = "nbdfuse";
	argv[n++] = "-P";
	argv[n++] = pid_file;
	if (opt->read_only)
		argv[n++] = "-r";
	argv[n++] = file;
	argv[n++] = opt->uri;
	argv[n] = NULL;
	pid = run_daemon(argv, log);
	if (pid < 0 || save(opt->name, record, "fuse_process", run_process(pid)) < 0)
		goto out;
	rc = wait_fuse(opt, pid, pid_file, log);
out:
	unlink(pid_file);
	free(pid_file);
	free(log);
	free(file);
	return rc;
}

int device_add_fuse(const struct device_options *opt, json_t *record)
{
	char sector[16], *loop = NULL, *err = NULL;
	const char *argv[10];
	int n = 0, rc = -1;

	if (start_fuse(opt, record) < 0)
		return -1;
	/* The kernel must not believe that less than a block is atomic. */
	snprintf(sector, sizeof(sector), "%u", opt->block_bytes < 512 ? 512 : opt->block_bytes);
	argv[n++] = "losetup";
	argv[n++] = "--direct-io=on";
	argv[n++] = "--sector-size";
	argv[n++] = sector;
	if (opt->read_only)
		argv[n++] = "--read-only";
	argv[n++] = "--find";
	argv[n++] = "--show";
	argv[n++] = text_of(record, "fuse");
	argv[n] = NULL;
	if (run_program(argv, HELPER_TIMEOUT_S, &loop, &err) != 0)
		cli_error("%s: no loop device: %s", opt->name, err[0] ? err : "losetup failed");
	else
		rc = save(opt->name, record, "loop", json_string(loop));
	free(loop);
	free(err);
	return rc;
}

int device_add_nbd(const struct device_options *opt, json_t *record)
{
	char dev[32], path[64], pid[32], block[16], *err = NULL;
	int i, code = -1;

	snprintf(block, sizeof(block), "%u", opt->block_bytes < 512 ? 512 : opt->block_bytes);
	for (i = 0; i < NBD_DEVICES && code != 0; i++) {
		const char *argv[] = {"nbd-client",  "-unix", opt->socket,
				      dev,	     "-name", opt->name,
				      "-block-size", block,   opt->read_only ? "-readonly" : NULL,
				      NULL};

		snprintf(dev, sizeof(dev), "/dev/nbd%d", i);
		snprintf(path, sizeof(path), "/sys/block/nbd%d/pid", i);
		read_line(path, pid, sizeof(pid));
		if (pid[0] || access(dev, F_OK) < 0)
			continue;
		if (save(opt->name, record, "nbd", json_string(dev)) < 0)
			break;
		free(err);
		code = run_program(argv, HELPER_TIMEOUT_S, NULL, &err);
	}
	if (code != 0)
		cli_error("%s: no kernel NBD device: %s; try --method fuse", opt->name,
			  err && err[0] ? err : "none is free");
	free(err);
	return code == 0 ? 0 : -1;
}

int device_add_link(const struct device_options *opt, json_t *record)
{
	const char *dev = device_path(record);
	char *link = NULL, *temp;
	int rc = -1;

	if (!dev) {
		cli_error("%s: the device has gone again", opt->name);
		return -1;
	}
	if (!run_dir_is_private() && (mkdir("/dev/varve", 0755) == 0 || errno == EEXIST) &&
	    access("/dev/varve", W_OK) == 0)
		link = cli_format("/dev/varve/%s", opt->name);
	else
		link = run_path(opt->name, "dev");
	temp = cli_format("%s.new", link);
	unlink(temp);
	if (symlink(dev, temp) == 0 && rename(temp, link) == 0)
		rc = save(opt->name, record, "link", json_string(link));
	else
		cli_error("cannot make %s: %s", link, strerror(errno));
	free(temp);
	free(link);
	return rc;
}

/* ---- undo ------------------------------------------------------------------------------------ */

/* Runs "PROGRAM OPTION DEVICE" and tells of a failure. */
static int helper(const char *name, const char *program, const char *option, const char *dev)
{
	const char *argv[] = {program, option, dev, NULL};
	char *err = NULL;
	int code = run_program(argv, HELPER_TIMEOUT_S, NULL, &err);

	if (code != 0)
		cli_error("%s: %s %s %s: %s", name, program, option, dev,
			  err[0] ? err : "it failed");
	free(err);
	return code == 0 ? 0 : -1;
}

static int undo_fuse(const char *name, const json_t *record, unsigned int timeout_s)
{
	const json_t *process = json_object_get(record, "fuse_process");
	const char *file = text_of(record, "fuse");
	pid_t pid;

	if (file && find_mount(file, 0, NULL, 0) && umount2(file, UMOUNT_NOFOLLOW) < 0) {
		cli_error("%s: cannot unmount %s: %s", name, file, strerror(errno));
		return -1;
	}
	pid = run_process_alive(process);
	/* Unmounted, it ends by itself; one that never got to mount has to be told. */
	if (pid && !run_wait_gone(pid, 2000, NULL)) {
		kill(pid, SIGTERM);
		if (!run_wait_gone(pid, timeout_s * 1000, NULL)) {
			cli_error("%s: nbdfuse, process %d, does not end", name, (int)pid);
			return -1;
		}
	}
	if (file) {
		char *dir = run_path(name, "fuse");

		unlink(file);
		rmdir(dir);
		free(dir);
	}
	return 0;
}

/* Removes our link only if it still is ours. */
static void undo_link(const json_t *record)
{
	const char *link = text_of(record, "link");
	const char *loop = text_of(record, "loop"), *nbd = text_of(record, "nbd");
	char target[PATH_MAX];
	ssize_t n;

	if (!link)
		return;
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	if ((loop && strcmp(target, loop) == 0) || (nbd && strcmp(target, nbd) == 0))
		unlink(link);
}

int device_undo(const char *name, json_t *record, unsigned int timeout_s)
{
	const char *loop = live_loop(record), *nbd = live_nbd(record);

	if (loop && helper(name, "losetup", "--detach", loop) < 0)
		return -1;
	/* With other openers the kernel detaches later, at their last close. */
	if (loop && live_loop(record)) {
		cli_error("%s: %s is still open somewhere; close it and detach again", name, loop);
		return -1;
	}
	if (nbd && helper(name, "nbd-client", "-d", nbd) < 0)
		return -1;
	if (undo_fuse(name, record, timeout_s) < 0)
		return -1;
	undo_link(record);
	run_forget(name, "device");
	return 0;
}
