/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* file_operations run|alone DIRECTORY SEED COUNT | list|count DIRECTORY
 *
 * run: cases of system calls on files, then COUNT calls that follow from SEED, in the empty DIRECTORY. Each is one line: number,
 * call, result, and what it shows of the file. Nothing in a line depends on time or place, so that the lines of two file systems
 * can be compared. As root some calls are made as the users 1000 and 1001. Calls that a share of the host answers in its own way
 * come last, with `differs` in front. With `alone` there are neither these nor other users: what is left is the same for root in
 * a guest as for the user whose files it has.
 * list: each file below DIRECTORY. count: the number of its entries and a digest of their names, and of what is left after some
 * were removed between two calls of readdir. */
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

static void names(void)
{
    make("file");
    CALL("dir", mkdir("dir", 0755));
    CALL("link", symlink("file", "link"));
    CALL("loop", symlink("loop", "loop"));
    CALL("nowhere", symlink("missing/x", "nowhere"));
    CALL("up", symlink("..", "up"));
    /* The calls that take one name, each with every bad one. */
    const char *bad[] = {"", "file/x", "missing/x", "loop/x", "loop", "nowhere", "file/", "link/", "dir/", "dir/.", "dir/..",
                         "up/dir", ".", "..", long_name, longest_path, "dir", "file", "link"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *path = bad[i];
        struct stat status;
        struct statfs fs;
        char buffer[64];
        unsigned all = number;
        printf("bad name %u %.12s\n", i, path);
        CALL(NULL, stat(path, &status));
        CALL(NULL, lstat(path, &status));
        CALL(NULL, access(path, R_OK));
        CALL(NULL, mkdir(path, 0700));
        CALL(NULL, mknod(path, S_IFREG | 0600, 0));
        CALL(NULL, mkfifo(path, 0600));
        CALL(NULL, symlink("target", path));
        CALL(NULL, link("file", path));
        CALL(NULL, link(path, "new"));
        unlink("new");
        CALL(NULL, rename(path, "renamed"));
        rename("renamed", path);
        CALL(NULL, rename("file", path));
        if (access("file", F_OK))
            make("file");
        CALL(NULL, rename("dir", path));
        if (access("dir", F_OK))
            mkdir("dir", 0755);
        CALL(NULL, renameat2(AT_FDCWD, "file", AT_FDCWD, path, RENAME_NOREPLACE));
        if (access("file", F_OK))
            make("file");
        CALL(NULL, chmod(path, 0700));
        CALL(NULL, chown(path, -1, -1));
        CALL(NULL, lchown(path, -1, -1));
        CALL(NULL, truncate(path, 8));
        CALL(NULL, utimensat(AT_FDCWD, path, (struct timespec[2]){{7, 0}, {9, 0}}, AT_SYMLINK_NOFOLLOW));
        CALL(NULL, readlink(path, buffer, sizeof buffer));
        CALL(NULL, statfs(path, &fs));
        CALL(NULL, setxattr(path, "user.x", "v", 1, 0));
        int fd = try_open(path, O_RDONLY, 0);
        if (fd >= 0)
            close(fd);
        fd = try_open(path, O_RDWR | O_CREAT, 0600);
        if (fd >= 0)
            close(fd);
        fd = try_open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
        if (fd >= 0)
            close(fd);
        fd = try_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (fd >= 0)
            close(fd);
        CALL(NULL, rmdir(path));
        CALL(NULL, unlink(path));
        if (number == all)
            die("no calls");
        /* As before. */
        if (lstat("file", &status) || !S_ISREG(status.st_mode)) {
            rmdir("file"), unlink("file");
            make("file");
        }
        if (lstat("dir", &status) || !S_ISDIR(status.st_mode)) {
            unlink("dir");
            mkdir("dir", 0755);
        }
        chmod("dir", 0755), chmod("file", 0644);
        const char *links[][2] = {{"file", "link"}, {"loop", "loop"}, {"missing/x", "nowhere"}, {"..", "up"}};
        for (unsigned j = 0; j < 4; j++)
            if (lstat(links[j][1], &status) || !S_ISLNK(status.st_mode)) {
                rmdir(links[j][1]), unlink(links[j][1]);
                if (symlink(links[j][0], links[j][1]))
                    die("symlink");
            }
        unlink("renamed"), rmdir("renamed"), unlink(long_name), rmdir(long_name), unlink("missing"), unlink("target");
    }
    CALL(NULL, unlink("loop"));
    CALL(NULL, unlink("nowhere"));
    CALL(NULL, unlink("up"));
    CALL(NULL, unlink("link"));
    CALL(NULL, rmdir("dir"));
    CALL(NULL, unlink("file"));
    /* The longest name, and a component more than the kernel takes. */
    long_name[255] = 0;
    CALL(NULL, mknod(long_name, S_IFREG | 0600, 0));
    CALL(NULL, unlink(long_name));
    long_name[255] = 'n';
    char target[4097];
    memset(target, 't', sizeof target);
    for (int length = 4094; length <= 4096; length++) {
        target[length] = 0;
        line(symlink(target, "deep"), -1, "deep", "symlink of %d bytes", length);
        unlink("deep");
        target[length] = 't';
    }
}

static void directories(void)
{
    CALL("d", mkdir("d", 0));
    CALL("d", chmod("d", 0755));
    CALL("d/e", mkdir("d/e", 01777));
    CALL("d", mkdir("d", 0755));
    CALL("d", rmdir("d"));
    CALL(NULL, rmdir("d/e/.."));
    CALL(NULL, rmdir("d/e/."));
    CALL(NULL, unlink("d"));
    make("f");
    CALL("f", rename("d", "f"));
    CALL("d", rename("f", "d"));
    CALL("d/e", rename("d", "d/e/x"));
    CALL("d/e", rename("d", "d/e"));
    CALL("d", rename("d/e", "d"));
    CALL("g", mkdir("g", 0755));
    CALL("g", rename("d/e", "g"));
    CALL("g", rename("d", "g"));
    CALL("d", renameat2(AT_FDCWD, "g", AT_FDCWD, "f", RENAME_EXCHANGE));
    CALL("d", renameat2(AT_FDCWD, "g", AT_FDCWD, "missing", RENAME_EXCHANGE));
    CALL("d", renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_NOREPLACE));
    CALL("d", renameat2(AT_FDCWD, "f", AT_FDCWD, "new", RENAME_NOREPLACE));
    CALL("d", renameat2(AT_FDCWD, "f", AT_FDCWD, "new", RENAME_NOREPLACE | RENAME_EXCHANGE));
    CALL("new", renameat2(AT_FDCWD, "f", AT_FDCWD, "new", 1u << 7));
    CALL("new", renameat2(AT_FDCWD, "new", AT_FDCWD, "f", 0));
    int fd = try_open("f", O_RDONLY | O_DIRECTORY, 0);
    CALL_FD(fd, mkdirat(fd, "in", 0750));
    CALL_FD(fd, mkdirat(fd, "in/../in2", 0750));
    CALL_FD(fd, fchdir(fd));
    char path[PATH_MAX];
    CALL(".", mkdir("inner", 0700));
    CALL(NULL, rename("../f", "../h"));
    line(0, -1, ".", "getcwd %s", strrchr(getcwd(path, sizeof path), '/'));
    CALL("../h", chdir(".."));
    CALL_FD(fd, unlinkat(fd, "in2", AT_REMOVEDIR));
    CALL_FD(fd, unlinkat(fd, "in", 0));
    CALL_FD(fd, unlinkat(fd, "in", AT_REMOVEDIR));
    CALL_FD(fd, rmdir("h/inner"));
    CALL_FD(fd, rmdir("h"));
    CALL_FD(fd, mkdirat(fd, "in", 0750));
    CALL_FD(fd, openat(fd, "new", O_CREAT | O_WRONLY, 0644));
    CALL_FD(fd, fchmod(fd, 0711));
    CALL_FD(fd, fsync(fd));
    close(fd);
    rmdir("g"), unlink("g");
}

static void links(void)
{
    make("one");
    CALL("one", link("one", "two"));
    CALL("one", link("two", "three"));
    CALL("two", unlink("one"));
    CALL("two", chmod("two", 0600));
    CALL("three", truncate("three", 3));
    CALL("two", link("three", "two"));
    CALL("two", rename("two", "three"));
    CALL("two", unlink("two"));
    CALL("soft", symlink("three", "soft"));
    CALL("hardsoft", link("soft", "hardsoft"));
    CALL("hard", linkat(AT_FDCWD, "soft", AT_FDCWD, "hard", AT_SYMLINK_FOLLOW));
    CALL("three", lchown("soft", -1, -1));
    CALL("soft", utimensat(AT_FDCWD, "soft", (struct timespec[2]){{5, 6}, {7, 8}}, AT_SYMLINK_NOFOLLOW));
    CALL("soft", fchmodat(AT_FDCWD, "soft", 0600, AT_SYMLINK_NOFOLLOW));
    CALL("three", mkdir("ld", 0755));
    CALL("three", link("ld", "ld2"));
    CALL("three", rmdir("ld"));
    char target[16] = "";
    CALL("soft", readlink("soft", target, 3));
    CALL("three", unlink("hardsoft"));
    CALL("soft", unlink("three"));
    CALL("hard", truncate("soft", 0));
    CALL("hard", rename("soft", "hard"));
    CALL("hard", unlink("hard"));
    /* A file without a name is a file until it is closed. */
    int fd = try_open("gone", O_RDWR | O_CREAT | O_EXCL, 0640);
    CALL_FD(fd, write(fd, "0123456789", 10));
    CALL_FD(fd, unlink("gone"));
    CALL_FD(fd, fchmod(fd, 0604));
    CALL_FD(fd, ftruncate(fd, 20));
    CALL_FD(fd, futimens(fd, (struct timespec[2]){{1, 2}, {3, 4}}));
    CALL_FD(fd, pwrite(fd, "x", 1, 19));
    char buffer[32] = "";
    CALL_FD(fd, pread(fd, buffer, sizeof buffer, 5));
    line(0, fd, NULL, "content %s", buffer);
    CALL_FD(fd, fsetxattr(fd, "user.x", "v", 1, 0));
    CALL_FD(fd, fallocate(fd, 0, 0, 8192));
    CALL_FD(fd, fsync(fd));
    CALL("gone", linkat(AT_FDCWD, "/proc/self/fd/77", AT_FDCWD, "gone", AT_SYMLINK_FOLLOW));
    close(fd);
    /* One that another name keeps. */
    make("a1");
    fd = try_open("a1", O_RDWR, 0);
    CALL_FD(fd, link("a1", "a2"));
    CALL_FD(fd, unlink("a2"));
    CALL_FD(fd, fchmod(fd, 0611));
    CALL_FD(fd, rename("a1", "a3"));
    CALL_FD(fd, ftruncate(fd, 2));
    CALL("a3", chmod("a3", 0644));
    make("a4");
    CALL_FD(fd, rename("a4", "a3"));
    CALL_FD(fd, fchmod(fd, 0600));
    CALL("a3", unlink("a3"));
    close(fd);
}

static void unnamed(void)
{
    CALL("td", mkdir("td", 0755));
    int fd = try_open("td", O_TMPFILE | O_RDWR, 0640);
    if (fd >= 0) {
        char path[32], buffer[16] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        CALL_FD(fd, write(fd, "unnamed", 7));
        CALL_FD(fd, fchmod(fd, 0604));
        CALL_FD(fd, ftruncate(fd, 5));
        CALL_FD(fd, pread(fd, buffer, sizeof buffer, 1));
        CALL_FD(fd, rmdir("td"));
        CALL("named", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
        CALL("named", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
        CALL_FD(fd, write(fd, "more", 4));
        close(fd);
        CALL("named", chmod("named", 0600));
        CALL("named", unlink("named"));
    }
    CALL("td", mkdir("td", 0755));
    fd = try_open("td", O_TMPFILE | O_WRONLY | O_EXCL, 0600);
    if (fd >= 0) {
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        CALL("named", linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
        close(fd);
    }
    fd = try_open("td", O_TMPFILE | O_RDONLY, 0600);
    fd = try_open("missing", O_TMPFILE | O_RDWR, 0600);
    make("plain");
    fd = try_open("plain", O_TMPFILE | O_RDWR, 0600);
    CALL("td", rmdir("td"));
}

static void data(void)
{
    char buffer[64], *volatile nothing = NULL;
    int fd = try_open("data", O_RDWR | O_CREAT | O_TRUNC, 0644), other;
    CALL_FD(fd, pwrite(fd, "abc", 3, 70000));
    CALL_FD(fd, lseek(fd, 0, SEEK_DATA) > 0);
    CALL_FD(fd, lseek(fd, 0, SEEK_HOLE));
    CALL_FD(fd, lseek(fd, 70003, SEEK_DATA));
    CALL_FD(fd, lseek(fd, 70001, SEEK_HOLE));
    CALL_FD(fd, lseek(fd, -1, SEEK_SET));
    CALL_FD(fd, lseek(fd, 5, SEEK_END));
    CALL_FD(fd, read(fd, buffer, 8));
    CALL_FD(fd, pread(fd, buffer, 8, -1));
    CALL_FD(fd, pwrite(fd, "x", 1, -1));
    CALL_FD(fd, pread(fd, buffer, 8, 69998));
    CALL_FD(fd, pread(fd, nothing, 8, 69998));
    CALL_FD(fd, pwrite(fd, nothing, 8, 0));
    CALL_FD(fd, ftruncate(fd, -1));
    CALL_FD(fd, truncate("data", -1));
    CALL_FD(fd, ftruncate(fd, 100));
    CALL_FD(fd, fallocate(fd, 0, 0, 5000));
    CALL_FD(fd, fallocate(fd, 0, -1, 5000));
    CALL_FD(fd, fallocate(fd, 0, 0, 0));
    CALL_FD(fd, fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 9000));
    CALL_FD(fd, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4, 4096));
    CALL_FD(fd, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 4, 4096));
    CALL_FD(fd, copy_file_range(fd, &(loff_t){0}, fd, &(loff_t){8192}, 4096, 0));
    CALL_FD(fd, copy_file_range(fd, &(loff_t){0}, fd, &(loff_t){10}, 4096, 0));
    other = try_open("data2", O_WRONLY | O_CREAT | O_APPEND, 0600);
    CALL_FD(other, write(other, "first", 5));
    CALL_FD(other, pwrite(other, "second", 6, 0));
    CALL_FD(other, copy_file_range(fd, &(loff_t){0}, other, NULL, 5, 0));
    CALL_FD(other, fcntl(other, F_SETFL, O_NONBLOCK));
    CALL_FD(other, pwrite(other, "third", 5, 1));
    CALL_FD(other, read(other, buffer, 1));
    CALL_FD(other, fcntl(other, F_SETFL, O_NONBLOCK | O_APPEND));
    CALL_FD(other, write(other, "end", 3));
    CALL_FD(other, sendfile(other, fd, &(off_t){0}, 10));
    close(other);
    other = try_open("data2", O_RDONLY, 0);
    memset(buffer, 0, sizeof buffer);
    CALL_FD(other, pread(other, buffer, 20, 0));
    line(0, other, NULL, "content %s", buffer);
    CALL_FD(other, write(other, "x", 1));
    CALL_FD(other, ftruncate(other, 1));
    CALL_FD(other, fallocate(other, 0, 0, 1));
    close(other);
    /* A page that was mapped through one descriptor is written through another, which appends. */
    other = try_open("mapped", O_WRONLY | O_CREAT | O_APPEND, 0600);
    CALL_FD(other, write(other, "0123456789", 10));
    int mapped = try_open("mapped", O_RDWR, 0);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0);
    if (page == MAP_FAILED)
        die("mmap");
    memcpy(page + 2, "MMM", 3);
    CALL_FD(mapped, msync(page, 4096, MS_SYNC));
    CALL_FD(other, write(other, "end", 3));
    munmap(page, 4096);
    memset(buffer, 0, sizeof buffer);
    CALL_FD(mapped, pread(mapped, buffer, sizeof buffer, 0));
    line(0, mapped, NULL, "content %s", buffer);
    close(mapped), close(other);
    /* Large files. */
    CALL_FD(fd, ftruncate(fd, 1ll << 40));
    CALL_FD(fd, pwrite(fd, "x", 1, (1ll << 40) + 5));
    CALL_FD(fd, pread(fd, buffer, 8, 1ll << 40));
    CALL_FD(fd, ftruncate(fd, 10));
    struct rlimit limit = {1000, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    CALL_FD(fd, pwrite(fd, "x", 1, 2000));
    CALL_FD(fd, ftruncate(fd, 2000));
    CALL_FD(fd, pwrite(fd, "xxxxxxxx", 8, 996));
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &limit);
    int directory = try_open(".", O_RDONLY, 0);
    CALL_FD(fd, read(directory, buffer, 8));
    CALL_FD(fd, ftruncate(directory, 8));
    close(directory);
    try_open(".", O_WRONLY, 0);
    try_open("data", O_RDONLY | O_CREAT | O_EXCL, 0600);
    other = try_open("data", O_RDONLY | O_TRUNC, 0);
    CALL_FD(fd, fdatasync(fd));
    close(other), close(fd);
}

static void times(void)
{
    make("t");
    const struct timespec values[] = {{0, 0},          {1, 999999999}, {1ll << 31, 5},      {-1, 500000000},
                                      {9999999999, 1}, {7, UTIME_OMIT}, {1234567890, 123456789}};
    for (unsigned i = 0; i < sizeof values / sizeof *values; i++) {
        struct stat status;
        long result = utimensat(AT_FDCWD, "t", (struct timespec[2]){values[i], values[(i + 1) % 7]}, 0);
        int error = errno;
        if (stat("t", &status))
            die("stat");
        errno = error;
        line(result, -1, "t", "utimensat %u: %lld.%09ld %lld.%09ld", i, (long long)status.st_atim.tv_sec,
             status.st_atim.tv_nsec, (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    }
    CALL("t", utimensat(AT_FDCWD, "t", (struct timespec[2]){{0, 1000000000}, {0, 0}}, 0));
    CALL("t", utimensat(AT_FDCWD, "t", (struct timespec[2]){{0, UTIME_OMIT}, {0, UTIME_OMIT}}, 0));
    CALL("t", utimensat(AT_FDCWD, "t", (struct timespec[2]){{0, UTIME_NOW}, {0, UTIME_NOW}}, 0));
    struct stat status;
    stat("t", &status);
    line(0, -1, "t", "now %d", llabs((long long)(status.st_mtim.tv_sec - time(NULL))) < 100);
    CALL(NULL, unlink("t"));
}

static void attributes(void)
{
    char value[64] = "", list[256];
    make("x");
    CALL("x", setxattr("x", "user.a", "value", 5, 0));
    CALL("x", setxattr("x", "user.a", "other", 5, XATTR_CREATE));
    CALL("x", setxattr("x", "user.b", "other", 5, XATTR_REPLACE));
    CALL("x", setxattr("x", "user.a", "second", 6, XATTR_REPLACE));
    CALL("x", setxattr("x", "user.a", "second", 6, 8));
    CALL("x", setxattr("x", "user.empty", "", 0, 0));
    CALL("x", setxattr("x", "user.", "v", 1, 0));
    CALL("x", setxattr("x", "nothing.a", "v", 1, 0));
    CALL("x", setxattr("x", "", "v", 1, 0));
    CALL("x", setxattr("x", long_name, "v", 1, 0));
    CALL("x", setxattr("x", "user.large", block, 65537, 0));
    CALL("x", getxattr("x", "user.a", value, 3));
    CALL("x", getxattr("x", "user.a", value, 0));
    CALL("x", getxattr("x", "user.a", value, sizeof value));
    CALL("x", getxattr("x", "user.none", value, sizeof value));
    CALL("x", getxattr("x", "user.empty", value, sizeof value));
    CALL("x", listxattr("x", list, 2));
    CALL("x", listxattr("x", list, 0) > 0);
    CALL("x", removexattr("x", "user.a"));
    CALL("x", removexattr("x", "user.a"));
    mkdir("xd", 0755), symlink("x", "xl"), mkfifo("xp", 0666);
    CALL("xd", setxattr("xd", "user.d", "v", 1, 0));
    CALL("xl", lsetxattr("xl", "user.l", "v", 1, 0));
    CALL("xl", lgetxattr("xl", "user.l", value, 8));
    CALL("xp", setxattr("xp", "user.p", "v", 1, 0));
    CALL("xp", getxattr("xp", "user.p", value, 8));
    rmdir("xd"), unlink("xl"), unlink("xp"), unlink("x");
}

/* A child asks for what this process has locked. */
static void ask(const char *path, short kind, off_t start, off_t length)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_RDWR);
        struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
        line(fcntl(fd, F_SETLK, &lock), -1, NULL, "child locks %d %lld %lld", kind, (long long)start, (long long)length);
        fcntl(fd, F_GETLK, &lock);
        line(0, -1, NULL, "child sees %d %lld %lld own %d", lock.l_type, (long long)lock.l_start, (long long)lock.l_len,
             lock.l_pid == getppid());
        line(flock(fd, LOCK_EX | LOCK_NB), -1, NULL, "child flock");
        fflush(stdout);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status)
        die("child");
    number += 3;
}

static void locks(void)
{
    make("lock");
    int fd = try_open("lock", O_RDWR, 0), other = try_open("lock", O_RDWR, 0), reader = try_open("lock", O_RDONLY, 0);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
    CALL_FD(fd, fcntl(fd, F_SETLK, &lock));
    ask("lock", F_WRLCK, 0, 10);
    ask("lock", F_WRLCK, 0, 11);
    ask("lock", F_RDLCK, 19, 0);
    lock.l_type = F_RDLCK;
    CALL_FD(fd, fcntl(fd, F_SETLK, &lock));
    ask("lock", F_RDLCK, 0, 0);
    ask("lock", F_WRLCK, 0, 0);
    lock.l_type = F_WRLCK;
    CALL_FD(reader, fcntl(reader, F_SETLK, &lock));
    lock.l_pid = 0;
    CALL_FD(fd, fcntl(fd, F_OFD_SETLK, &lock));
    CALL_FD(other, fcntl(other, F_OFD_SETLK, &lock));
    lock.l_start = 30;
    CALL_FD(fd, fcntl(fd, F_OFD_SETLK, &lock));
    CALL_FD(other, fcntl(other, F_OFD_SETLK, &lock));
    CALL_FD(fd, flock(fd, LOCK_SH | LOCK_NB));
    CALL_FD(other, flock(other, LOCK_SH | LOCK_NB));
    CALL_FD(other, flock(other, LOCK_EX | LOCK_NB));
    CALL_FD(fd, flock(fd, LOCK_UN));
    CALL_FD(other, flock(other, LOCK_EX | LOCK_NB));
    ask("lock", F_WRLCK, 100, 1);
    close(other);
    CALL_FD(fd, fcntl(fd, F_OFD_SETLK, &lock));
    close(fd), close(reader);
    CALL(NULL, unlink("lock"));
}

static void sockets(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CALL("socket", bind(listener, (void *)&address, sizeof address));
    CALL("socket", connect(client, (void *)&address, sizeof address));
    CALL("socket", listen(listener, 1));
    CALL("socket", connect(client, (void *)&address, sizeof address));
    int again = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CALL("socket", bind(again, (void *)&address, sizeof address));
    try_open("socket", O_RDONLY, 0);
    close(again), close(client), close(listener);
    CALL(NULL, unlink("socket"));
    CALL("pipe", mkfifo("pipe", 0622));
    CALL("pipe", mkfifo("pipe", 0622));
    try_open("pipe", O_WRONLY, 0);
    int reader = try_open("pipe", O_RDONLY, 0), writer = try_open("pipe", O_WRONLY, 0);
    CALL_FD(writer, write(writer, "x", 1));
    CALL_FD(reader, lseek(reader, 0, SEEK_SET));
    CALL("pipe", truncate("pipe", 0));
    close(reader), close(writer);
    CALL(NULL, unlink("pipe"));
    CALL("node", mknod("node", S_IFREG | 04755, 0));
    CALL("node", mknod("node2", S_IFDIR | 0755, 0));
    CALL(NULL, unlink("node"));
}

/* What a mode gives to whom. */
static void users(void)
{
    if (is_alone)
        return;
    umask(0);
    mkdir("open", 0777), mkdir("sticky", 01777), mkdir("shut", 0700), mkdir("group", 02775);
    if (chown("group", 0, 1001))
        die("chown");
    make("open/root"), make("sticky/root"), make("shut/root");
    become(1000);
    CALL("open/own", mkdir("open/own", 0750));
    CALL("group", mkdir("group/own", 0750));
    CALL("open", close(open("open/mine", O_CREAT | O_WRONLY | O_CLOEXEC, 06755)) ? -1 : 0);
    line(0, -1, "open/mine", "made");
    CALL("sticky", close(open("sticky/mine", O_CREAT | O_WRONLY | O_CLOEXEC, 0666)) ? -1 : 0);
    struct stat status;
    CALL(NULL, stat("shut/root", &status));
    CALL(NULL, mkdir("shut/x", 0700));
    CALL("open/root", chmod("open/root", 0777));
    CALL("open/root", chown("open/root", 1000, -1));
    CALL("open/root", truncate("open/root", 0));
    CALL("open/root", utimensat(AT_FDCWD, "open/root", NULL, 0));
    CALL("open/root", setxattr("open/root", "user.x", "v", 1, 0));
    try_open("open/root", O_RDONLY, 0);
    try_open("open/root", O_RDWR, 0);
    CALL("open/mine", chown("open/mine", 1001, -1));
    CALL("open/mine", chown("open/mine", -1, 1000));
    CALL("open/mine", chown("open/mine", -1, 0));
    CALL("open/mine", chmod("open/mine", 06755));
    int fd = try_open("open/mine", O_WRONLY, 0);
    CALL_FD(fd, write(fd, "x", 1));
    CALL_FD(fd, fchmod(fd, 06755));
    CALL_FD(fd, ftruncate(fd, 0));
    CALL_FD(fd, fchmod(fd, 06755));
    CALL_FD(fd, fallocate(fd, 0, 0, 10));
    CALL_FD(fd, fchmod(fd, 02745));
    CALL_FD(fd, fchown(fd, -1, 1000));
    close(fd);
    CALL("sticky/root", unlink("sticky/root"));
    CALL("sticky/root", rename("sticky/root", "sticky/x"));
    CALL("open/root", rename("open/root", "sticky/root"));
    CALL("open/root", unlink("open/root"));
    CALL(NULL, link("shut/root", "open/l"));
    CALL("group/own", chmod("group/own", 02755));
    CALL("open/sgid", mkdir("open/sgid", 02777));
    become(1001);
    CALL("sticky/mine", unlink("sticky/mine"));
    CALL("open/mine", unlink("open/mine"));
    CALL(NULL, mkdir("open/own/x", 0700));
    CALL("group/second", mkdir("group/second", 0750));
    CALL(NULL, access("shut", X_OK));
    CALL(NULL, rmdir("open/sgid"));
    become(1000);
    fd = try_open("open/locked", O_CREAT | O_RDWR, 0);
    CALL_FD(fd, write(fd, "x", 1));
    close(fd);
    try_open("open/locked", O_RDONLY, 0);
    become(0);
    fd = try_open("open/locked", O_RDONLY, 0);
    close(fd);
    CALL("open/locked", chown("open/locked", 7, 8));
    CALL("open/locked", chmod("open/locked", 06711));
    CALL("open/locked", chown("open/locked", 9, 10));
    CALL("open/locked", chown("open/locked", -1, -1));
    CALL("open/locked", chown("open/locked", 4294967294u, 4294967294u));
    fd = try_open("open/locked", O_RDWR, 0);
    CALL_FD(fd, fchmod(fd, 06711));
    CALL_FD(fd, write(fd, "x", 1));
    close(fd);
    umask(022);
}

/* --- calls that follow from the seed --- */

static uint64_t state;

static unsigned pick(unsigned bound)
{
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % bound;
}

static char *random_path(char *path)
{
    static const char *ends[] = {"/", "/.", "/..", "/../a", "/../../../b"};
    *path = 0;
    /* The first three are directories more often than not. */
    for (unsigned depth = 1 + pick(3); depth; depth--) {
        strcat(path, *path ? "/" : "");
        strncat(path, &"abcdef"[pick(depth > 1 || !pick(3) ? 3 : 6)], 1);
    }
    unsigned special = pick(40);
    if (special < 5)
        strcat(path, ends[special]);
    else if (special == 5)
        strcpy(path, long_name);
    return path;
}

/* The owner keeps all rights, because the two sides may ignore modes for different users. Set-group-id has the group's execute
 * permission beside it: without that a write clears it on the host for some users, and never by the protocol of FUSE. */
static unsigned random_mode(void)
{
    unsigned mode = 0700 | pick(01000) | (pick(8) ? 0 : pick(8) << 9);
    return mode & 02000 ? mode | 010 : mode;
}

#define FILES 6
static int files[FILES] = {-1, -1, -1, -1, -1, -1};

static int compare(const void *one, const void *two)
{
    return strcmp(*(char *const *)one, *(char *const *)two);
}

static void list_names(const char *path)
{
    DIR *directory = opendir(path);
    char *all[64];
    unsigned count = 0;
    if (!directory) {
        line(-1, -1, NULL, "opendir %.40s", path);
        return;
    }
    for (struct dirent *entry; count < 64 && (entry = readdir(directory));) {
        if (asprintf(&all[count], "%s:%d", entry->d_name, entry->d_type) < 0)
            die("asprintf");
        count++;
    }
    closedir(directory);
    qsort(all, count, sizeof *all, compare);
    printf("%u readdir %.40s", number++, path);
    for (unsigned i = 0; i < count; i++) {
        printf(" %.10s", all[i]);
        free(all[i]);
    }
    printf("\n");
}

static unsigned long sum(const char *bytes, long length)
{
    unsigned long value = 5381;
    for (long i = 0; i < length; i++)
        value = value * 33 + (unsigned char)bytes[i];
    return value;
}

static void random_call(void)
{
    char one[600], two[600], value[64] = "";
    struct stat status;
    random_path(one), random_path(two);
    int slot = pick(FILES);
    for (unsigned i = 0; i < FILES && files[slot] < 0; i++)
        slot = (slot + 1) % FILES;
    int fd = files[slot];
    unsigned mode = random_mode(), size = pick(40000), offset = pick(100000);
    static const uid_t actors[] = {0, 0, 0, 1000, 1001};
    become(actors[pick(5)]);
    switch (pick(36)) {
    case 34 ... 35:
        one[0] = two[0], one[1] = 0;
        line(mkdir(one, mode), -1, one, "mkdir %.40s %o", one, mode);
        break;
    case 0 ... 3: {
        static const int kinds[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};
        static const int more[] = {O_TRUNC, O_APPEND, O_EXCL | O_CREAT, O_NOFOLLOW, O_DIRECTORY, O_PATH};
        slot = pick(FILES), fd = files[slot];
        int flags = kinds[pick(4)] | (pick(4) ? O_CREAT : 0) | (pick(3) ? 0 : more[pick(6)]);
        if (fd >= 0)
            close(fd);
        /* These two together are an error in newer kernels only. */
        if (flags & O_DIRECTORY)
            flags &= ~O_CREAT;
        files[slot] = try_open(one, flags, mode);
        break;
    }
    case 4:
        line(mkdir(one, mode), -1, one, "mkdir %.40s %o", one, mode);
        break;
    case 5:
        line(rmdir(one), -1, one, "rmdir %.40s", one);
        break;
    case 6:
        line(unlink(one), -1, one, "unlink %.40s", one);
        break;
    case 7:
        line(link(one, two), -1, two, "link %.40s %.40s", one, two);
        break;
    case 8:
        line(linkat(AT_FDCWD, one, AT_FDCWD, two, AT_SYMLINK_FOLLOW), -1, two, "link -L %.40s %.40s", one, two);
        break;
    case 9:
        line(symlink(two, one), -1, one, "symlink %.40s at %.40s", two, one);
        break;
    case 10: {
        long length = readlink(one, value, sizeof value - 1);
        line(length, -1, NULL, "readlink %.40s", one);
        break;
    }
    case 11 ... 12:
        line(rename(one, two), -1, two, "rename %.40s %.40s", one, two);
        break;
    case 13: {
        static const unsigned flags[] = {RENAME_NOREPLACE, RENAME_EXCHANGE};
        unsigned flag = flags[pick(2)];
        line(renameat2(AT_FDCWD, one, AT_FDCWD, two, flag), -1, two, "renameat2 %.40s %.40s %u", one, two, flag);
        break;
    }
    case 14:
        line(chmod(one, mode), -1, one, "chmod %.40s %o", one, mode);
        break;
    case 15:
        line(fchmod(fd, mode), fd, NULL, "fchmod %d %o", slot, mode);
        break;
    case 16: {
        uid_t user = is_alone ? (uid_t)-1 : pick(2) * 1000;
        gid_t group = is_alone ? (gid_t)-1 : pick(2) * 1000;
        line(lchown(one, user, group), -1, one, "lchown %.40s %d %d", one, user, group);
        break;
    }
    case 17: {
        uid_t user = is_alone ? (uid_t)-1 : pick(2) * 1001;
        line(fchown(fd, user, -1), fd, NULL, "fchown %d %d", slot, user);
        break;
    }
    case 18:
        line(truncate(one, offset), -1, one, "truncate %.40s %u", one, offset);
        break;
    case 19:
        line(ftruncate(fd, offset), fd, NULL, "ftruncate %d %u", slot, offset);
        break;
    case 20: {
        struct timespec times[2] = {{pick(1 << 30), pick(1000000000)}, {pick(1 << 30), pick(1000000000)}};
        long result = utimensat(AT_FDCWD, one, times, AT_SYMLINK_NOFOLLOW);
        long long seconds = 0;
        if (result == 0 && lstat(one, &status) == 0)
            seconds = status.st_mtim.tv_sec * 1000000000ll + status.st_mtim.tv_nsec;
        line(result, -1, one, "utimensat %.40s %lld", one, seconds);
        break;
    }
    case 21:
        line(faccessat(AT_FDCWD, one, mode & 7, AT_EACCESS), -1, NULL, "access %.40s %o", one, mode & 7);
        break;
    case 22:
        line(stat(one, &status), -1, one, "stat %.40s", one);
        break;
    case 23: {
        static const mode_t kinds[] = {S_IFREG, S_IFIFO, S_IFSOCK};
        mode_t kind = kinds[pick(3)];
        line(mknod(one, kind | mode, 0), -1, one, "mknod %.40s %o", one, kind | mode);
        break;
    }
    case 24: {
        int flags = pick(3);
        line(lsetxattr(one, "user.v", &state, size % 9, flags), -1, one, "setxattr %.40s %u %d", one, size % 9, flags);
        break;
    }
    case 25:
        line(lgetxattr(one, "user.v", value, size % 9), -1, NULL, "getxattr %.40s %u", one, size % 9);
        break;
    case 26:
        line(lremovexattr(one, "user.v"), -1, one, "removexattr %.40s", one);
        break;
    case 27 ... 28:
        for (unsigned i = 0; i < size; i++)
            block[i] = 'a' + (offset + i) % 26;
        line(pwrite(fd, block, size, offset), fd, NULL, "pwrite %d %u at %u", slot, size, offset);
        break;
    case 29 ... 30: {
        long length = pread(fd, block, size, offset);
        unsigned long content = sum(block, length);
        line(length, fd, NULL, "pread %d %u at %u: %lx", slot, size, offset, content);
        break;
    }
    case 31: {
        static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE};
        int kind = modes[pick(3)];
        line(fallocate(fd, kind, offset, size + 1), fd, NULL, "fallocate %d %d %u %u", slot, kind, offset, size + 1);
        break;
    }
    case 32: {
        int from = files[pick(FILES)];
        loff_t in = pick(50000), out = offset;
        line(copy_file_range(from, &in, fd, &out, size, 0), fd, NULL, "copy_file_range to %d", slot);
        break;
    }
    default:
        list_names(pick(3) ? one : ".");
    }
    become(0);
}

/* --- the tree --- */

static void list_tree(const char *path)
{
    struct stat status;
    char value[64];
    if (lstat(path, &status))
        die(path);
    printf("%.60s", path);
    show_status(&status);
    if (S_ISLNK(status.st_mode)) {
        char target[4097] = "";
        if (readlink(path, target, sizeof target) < 0)
            die(path);
        printf(" -> %.60s", target);
    } else if (S_ISREG(status.st_mode)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        unsigned long all = 0;
        for (long length; fd >= 0 && (length = read(fd, block, sizeof block)) > 0;)
            all = all * 31 + sum(block, length);
        close(fd);
        printf(" %lx", all);
    }
    long length = S_ISLNK(status.st_mode) ? -1 : getxattr(path, "user.v", value, sizeof value);
    if (length >= 0)
        printf(" xattr %ld", length);
    printf("\n");
    if (!S_ISDIR(status.st_mode))
        return;
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *inner;
        if (strcmp(entries[i]->d_name, ".") && strcmp(entries[i]->d_name, "..")) {
            if (asprintf(&inner, "%s/%s", path, entries[i]->d_name) < 0)
                die("asprintf");
            list_tree(inner);
            free(inner);
        }
        free(entries[i]);
    }
    free(entries);
}

static void count_entries(void)
{
    DIR *directory = opendir(".");
    if (!directory)
        die("opendir");
    for (int pass = 0; pass < 2; pass++) {
        unsigned long entries = 0, names = 0;
        errno = 0;
        for (struct dirent *entry; (entry = readdir(directory)); entries++) {
            names ^= sum(entry->d_name, strlen(entry->d_name));
            /* Those that were returned already. */
            if (pass == 0 && strncmp(entry->d_name, "removed", 7) == 0 && unlink(entry->d_name))
                die(entry->d_name);
        }
        if (errno)
            die("readdir");
        printf("%lu %lx\n", entries, names);
        rewinddir(directory);
    }
}

/* Each has its reason in the test. */
static void differences(void)
{
    make("w");
    printf("differs ");
    CALL(NULL, mknod("device", S_IFCHR | 0600, 0x103));
    printf("differs ");
    CALL(NULL, renameat2(AT_FDCWD, "w", AT_FDCWD, "w2", RENAME_WHITEOUT));
    make("x");
    printf("differs ");
    CALL(NULL, setxattr("x", "trusted.x", "v", 1, 0));
    unlink("device"), unlink("w"), unlink("w2"), unlink("x");
}

int main(int count, char **words)
{
    if (count < 3 || chdir(words[2]))
        die("DIRECTORY");
    umask(022);
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    own_user = geteuid(), own_group = getegid();
    memset(long_name, 'n', 256);
    memset(longest_path, 'p', 4096);
    for (unsigned i = 200; i < 4096; i += 200)
        longest_path[i] = '/';
    if (strcmp(words[1], "list") == 0) {
        list_tree(".");
        return 0;
    }
    if (strcmp(words[1], "count") == 0) {
        count_entries();
        return 0;
    }
    if (count != 5)
        die("SEED COUNT");
    is_alone = strcmp(words[1], "alone") == 0;
    if (!is_alone && own_user)
        die("run needs root");
    /* `..` stays in the directory. */
    if (mkdir("in", 0755) || mkdir("in/in", 0755) || chdir("in/in"))
        die("in");
    names(), directories(), links(), unnamed(), data(), times(), attributes(), locks(), sockets(), users();
    if (mkdir("random", 0777) || mkdir("random/in", 0777) || chmod("random", 0777) || chmod("random/in", 0777) ||
        chdir("random/in"))
        die("random");
    state = strtoull(words[3], NULL, 10);
    for (unsigned left = strtoul(words[4], NULL, 10); left; left--)
        random_call();
    if (chdir("../.."))
        die("..");
    if (!is_alone)
        differences();
    return 0;
}
