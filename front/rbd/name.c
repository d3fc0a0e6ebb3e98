/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Names and options.
 *
 * An image's name is a volume's name. With a comma in it it is a spec, "CACHE,STORE". A program
 * that takes "rbd:POOL/NAMESPACE/IMAGE" apart at its slashes does that to the paths of a spec, too:
 * qemu makes of
 *
 *	rbd://mnt/cache,/mnt/vm     pool "", namespace "", image "mnt/cache,/mnt/vm"
 *	rbd:/mnt/cache,/mnt/vm      pool "", namespace "mnt", image "cache,/mnt/vm"
 *	rbd:dir/cache,dir/vm        pool "dir", namespace "cache,dir", image "vm"
 *
 * so a comma in any of the three says that they are put together again, with a slash between. An
 * image is a spec by itself when its cache part is absolute, has a scheme ("mem:64M"), is empty or
 * "none": that is what a program gives that asks for pool and image apart.
 *
 * Options are those of the cluster handle that are called varve_KEY, and before them those of the
 * environment variable VARVE_RBD_SET, KEY=VALUE with blanks between, for programs whose users
 * cannot reach the handle. read_only, discard_cache, hold_destage and control, yes or no, are about
 * the opening; every other KEY is a setting of varve.conf(5).
 */
#include "name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "report.h"

/* What VARVE_RBD_SET is read up to. */
#define ENV_MAX (64u << 10)

/* ---- names ----------------------------------------------------------------------------------- */

struct ioctx *ioctx_from(void *handle)
{
	struct ioctx *io = handle;

	if (!io)
		return NULL;
	if (io->magic == IOCTX_MAGIC && io->nspace)
		return io;
	report("this is not a pool handle of Varve's: was Ceph's librados.so.2 loaded beside "
	       "Varve's librbd.so.1? See librbd-varve(7)");
	return NULL;
}

bool name_is_spec(const char *name)
{
	return strchr(name, ',') != NULL;
}

static bool is_whole_spec(const char *image)
{
	const char *comma = strchr(image, ',');
	const char *colon = strchr(image, ':');

	if (!comma)
		return false;
	return image[0] == '/' || comma == image || (colon && colon < comma) ||
	       strncmp(image, "none,", 5) == 0;
}

static char *join(const char *pool, const char *nspace, const char *image)
{
	size_t len = strlen(pool) + strlen(nspace) + strlen(image) + 3;
	char *text = malloc(len);
	char *at = text;

	if (!text)
		return NULL;
	at = mempcpy(at, pool, strlen(pool));
	*at++ = '/';
	if (nspace[0]) {
		at = mempcpy(at, nspace, strlen(nspace));
		*at++ = '/';
	}
	memcpy(at, image, strlen(image) + 1);
	return text;
}

int name_resolve(const struct ioctx *io, const char *image, char **ret)
{
	bool split = name_is_spec(io->pool) || name_is_spec(io->nspace) || name_is_spec(image);
	char *name;

	if (split && !is_whole_spec(image))
		name = join(io->pool, io->nspace, image);
	else if (!split && io->nspace[0])
		return -ENOENT;
	else
		name = strdup(image);
	if (!name)
		return -ENOMEM;
	*ret = name;
	return 0;
}

bool name_begins_spec(const struct ioctx *io, const char *nspace)
{
	struct stat st;
	bool found;
	char *dir;

	if (name_is_spec(io->pool) || name_is_spec(nspace))
		return true;
	dir = join(io->pool, "", nspace);
	if (!dir)
		return false;
	found = nspace[0] && stat(dir, &st) == 0 && S_ISDIR(st.st_mode);
	free(dir);
	return found;
}

/* ---- options --------------------------------------------------------------------------------- */

static int parse_bool(const char *key, const char *value)
{
	static const char *const words[][2] = {
		{"no", "yes"}, {"0", "1"}, {"false", "true"}, {"off", "on"}};
	size_t i;

	for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcasecmp(value, words[i][0]) == 0)
			return 0;
		if (strcasecmp(value, words[i][1]) == 0)
			return 1;
	}
	report("%s=%s: expected yes or no", key, value);
	return -EINVAL;
}

int options_add(struct open_options *o, const char *key, const char *value)
{
	size_t n = 0;
	char **grown;

	while (o->settings && o->settings[n])
		n++;
	grown = realloc(o->settings, (n + 2) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	o->settings = grown;
	grown[n + 1] = NULL;
	grown[n] = malloc(strlen(key) + strlen(value) + 2);
	if (!grown[n])
		return -ENOMEM;
	memcpy(mempcpy(grown[n], key, strlen(key)), "=", 2);
	memcpy(grown[n] + strlen(key) + 1, value, strlen(value) + 1);
	return 0;
}

static int add_option(struct open_options *o, const char *key, const char *value)
{
	static const struct {
		const char *key;
		unsigned int flag;
	} flags[] = {
		{"read_only", VARVE_OPEN_READ_ONLY},
		{"discard_cache", VARVE_OPEN_DISCARD_CACHE},
		{"hold_destage", VARVE_OPEN_HOLD_DESTAGE},
	};
	size_t i;
	int on;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (strcmp(key, flags[i].key) != 0)
			continue;
		on = parse_bool(key, value);
		if (on < 0)
			return on;
		o->flags = on ? o->flags | flags[i].flag : o->flags & ~flags[i].flag;
		return 0;
	}
	if (strcmp(key, "control") == 0) {
		on = parse_bool(key, value);
		o->control = on > 0;
		return on < 0 ? on : 0;
	}
	return options_add(o, key, value);
}

static int add_environment(struct open_options *o)
{
	const char *env = getenv("VARVE_RBD_SET");
	char *copy, *word, *rest = NULL, *equals;
	int rc = 0;

	if (!env)
		return 0;
	if (strlen(env) > ENV_MAX) {
		report("VARVE_RBD_SET is longer than %u bytes", ENV_MAX);
		return -E2BIG;
	}
	copy = strdup(env);
	if (!copy)
		return -ENOMEM;
	for (word = strtok_r(copy, " \t\n", &rest); word && !rc;
	     word = strtok_r(NULL, " \t\n", &rest)) {
		equals = strchr(word, '=');
		if (!equals) {
			report("VARVE_RBD_SET: %s: expected KEY=VALUE, see varve.conf(5)", word);
			rc = -EINVAL;
			break;
		}
		*equals = '\0';
		rc = add_option(o, word, equals + 1);
	}
	free(copy);
	return rc;
}

int options_get(const struct cluster *cluster, struct open_options *ret)
{
	struct open_options o = {.control = true};
	unsigned int i;
	int rc;

	o.settings = calloc(1, sizeof(*o.settings));
	if (!o.settings)
		return -ENOMEM;
	rc = add_environment(&o);
	for (i = 0; i < cluster->n_options && !rc; i++)
		if (strncmp(cluster->options[i].name, "varve_", 6) == 0)
			rc = add_option(&o, cluster->options[i].name + 6,
					cluster->options[i].value);
	if (rc)
		options_free(&o);
	else
		*ret = o;
	return rc;
}

void options_free(struct open_options *o)
{
	char **s;

	for (s = o->settings; s && *s; s++)
		free(*s);
	free(o->settings);
	o->settings = NULL;
}
