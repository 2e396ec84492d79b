/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Cases of file_operations.c: data, times, attributes, locks, sockets and users. */
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
