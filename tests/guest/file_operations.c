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
#include "file_calls.h"
#include "file_data_cases.h"
#include "file_name_cases.h"

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
