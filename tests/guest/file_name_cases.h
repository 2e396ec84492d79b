/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Cases of file_operations.c: names, directories, links and files without a name. */
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
