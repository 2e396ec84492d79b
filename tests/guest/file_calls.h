/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What file_operations.c has in common: a line for each call, and who makes it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static unsigned number;
static uid_t own_user;
static gid_t own_group;
static int is_alone;
/* The user that makes the calls; 0 is the one who started the program. */
static uid_t actor;
static char long_name[257], longest_path[4097], block[66000];

static void die(const char *what)
{
    perror(what);
    exit(2);
}

/* The caller's files are root's in a guest that an unprivileged user runs. */
static void show_owner(uid_t user, gid_t group)
{
    printf(user == own_user ? " own" : " %u", user);
    printf(group == own_group ? ":own" : ":%u", group);
}

static void show_status(const struct stat *status)
{
    printf(" [%06o n%lu", status->st_mode, (unsigned long)status->st_nlink);
    show_owner(status->st_uid, status->st_gid);
    if (!S_ISDIR(status->st_mode))
        printf(" %lld", (long long)status->st_size);
    printf("]");
}

/* One line: the call, its result, and the file at `path`, or of `fd`. */
static long line(long result, int fd, const char *path, const char *format, ...)
{
    int error = errno;
    struct stat status;
    va_list arguments;
    printf("%u ", number++);
    if (actor)
        printf("as %u ", actor);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf(" = %ld", result);
    if (result == -1)
        printf(" %s", strerrorname_np(error));
    if (path && lstat(path, &status) == 0)
        show_status(&status);
    else if (!path && fd >= 0 && fstat(fd, &status) == 0)
        show_status(&status);
    printf("\n");
    return result;
}

/* The number of a descriptor is not part of a line. */
static int opened(int fd, const char *path, int flags, unsigned mode)
{
    line(fd < 0 ? -1 : 0, fd, NULL, "open %.40s %o %o", path, flags, mode);
    return fd;
}

static int try_open(const char *path, int flags, unsigned mode)
{
    return opened(open(path, flags | O_CLOEXEC | O_NONBLOCK, mode), path, flags, mode);
}

#define CALL(path, call) line(call, -1, path, "%s", #call)
#define CALL_FD(fd, call) line(call, fd, NULL, "%s", #call)

static void become(uid_t user)
{
    if (is_alone || user == actor)
        return;
    if (setresuid(-1, 0, -1) || setresgid(-1, 0, -1) || setgroups(0, NULL))
        die("setresuid");
    if (user) {
        gid_t group = 1000;
        if (setgroups(1, &group) || setresgid(-1, user, -1) || setresuid(-1, user, -1))
            die("setresuid");
    }
    actor = user;
}

/* --- cases --- */

static void make(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, "content\n", 8) != 8)
        die(path);
    close(fd);
}
