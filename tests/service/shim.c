/* Loaded into the service by LD_PRELOAD (volumes.rs): a file system as seen over a network that loses answers,
   and whose locks other hosts do not see. What it does is told by files in the directory $CKG_SHIM. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
	static _Thread_local char path[PATH_MAX];
	const char *directory = getenv("CKG_SHIM");
	if (!directory)
		return NULL;
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return access(path, F_OK) == 0 ? path : NULL;
}

/* The words of the file `name`: what is done, with which error, to paths that contain what. */
static int told(const char *name, const char *path, char *deed, int *error)
{
	char part[256] = "";
	const char *file = path_of(name);
	FILE *in = file ? fopen(file, "r") : NULL;
	if (!in)
		return 0;
	int count = fscanf(in, "%15s %d %255s", deed, error, part);
	fclose(in);
	return count == 3 && strstr(path, part) != NULL;
}

int rename(const char *from, const char *to)
{
	static int (*real)(const char *, const char *);
	char deed[16];
	int error;
	if (!real)
		real = dlsym(RTLD_NEXT, "rename");
	if (!told("rename", to, deed, &error))
		return real(from, to);
	if (!strcmp(deed, "done")) { /* it was done, and the answer is of another try */
		unlink(path_of("rename"));
		if (real(from, to))
			return -1;
	} else { /* somebody else comes first, and the answer does not say so */
		char reached[PATH_MAX + 16];
		snprintf(reached, sizeof reached, "%s/reached", getenv("CKG_SHIM"));
		close(open(reached, O_CREAT | O_WRONLY, 0600));
		while (!path_of("go"))
			usleep(2000);
	}
	errno = error;
	return -1;
}

int symlink(const char *target, const char *link)
{
	static int (*real)(const char *, const char *);
	const char *file = path_of("symlink");
	if (!real)
		real = dlsym(RTLD_NEXT, "symlink");
	if (!file || strstr(link, "private-keys") == NULL)
		return real(target, link);
	unlink(file); /* once: another request has made it, and a removal has taken it away again */
	errno = EEXIST;
	return -1;
}

int mkdir(const char *path, mode_t mode)
{
	int (*real)(const char *, mode_t) = dlsym(RTLD_NEXT, "mkdir");
	char deed[16];
	int error;
	if (!told("unwritable", path, deed, &error))
		return real(path, mode);
	errno = error; /* a disk that is full or read-only */
	return -1;
}

int flock(int file, int operation)
{
	static int (*real)(int, int);
	if (!real)
		real = dlsym(RTLD_NEXT, "flock");
	return path_of("unseen") ? 0 : real(file, operation);
}

static int open_by(const char *symbol, const char *path, int flags, mode_t mode)
{
	int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, symbol);
	const char *other = NULL;
	char deed[16];
	int error;
	if (flags & (O_WRONLY | O_RDWR | O_CREAT) && told("unwritable", path, deed, &error)) {
		errno = error;
		return -1;
	}
	if (!strcmp(path, "/proc/sys/kernel/random/boot_id"))
		other = path_of("boot_id");
	else if (!strcmp(path, "/etc/machine-id"))
		other = path_of("machine-id");
	return real(other ? other : path, flags, mode);
}

#define OPEN(name)                                                        \
	int name(const char *path, int flags, ...)                        \
	{                                                                 \
		va_list rest;                                             \
		va_start(rest, flags);                                    \
		mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
		va_end(rest);                                             \
		return open_by(#name, path, flags, mode);                 \
	}
OPEN(open)
OPEN(open64)

#define STATFS(name, type)                                                \
	int name(const char *path, struct type *found)                    \
	{                                                                 \
		int (*real)(const char *, struct type *) = dlsym(RTLD_NEXT, #name); \
		int result = real(path, found);                           \
		if (result == 0 && path_of("unseen"))                     \
			found->f_type = 0x6969; /* NFS */                 \
		return result;                                            \
	}
STATFS(statfs, statfs)
STATFS(statfs64, statfs64)
