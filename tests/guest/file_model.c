/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* file_model FILE SEED COUNT: COUNT random accesses to FILE, by calls and through mappings, each compared with a copy in memory.
 * Prints the size and a digest of what the file must hold at the end. A difference ends it, with the last accesses. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_SIZE = 1 << 20, HISTORY = 20 };

static unsigned char model[MAX_SIZE], buffer[MAX_SIZE];
static size_t size;
static const char *path;
static int file;
static char history[HISTORY][80];
static unsigned long accesses;
static uint64_t state;

static unsigned pick(unsigned bound)
{
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % bound;
}

static void fail(const char *what, size_t at)
{
    printf("%s at %zu: %s\n", what, at, strerror(errno));
    for (unsigned long i = accesses > HISTORY ? accesses - HISTORY : 0; i < accesses; i++)
        printf("%lu %s\n", i, history[i % HISTORY]);
    exit(1);
}

static void note(const char *what, size_t from, size_t length)
{
    snprintf(history[accesses++ % HISTORY], sizeof history[0], "%s %zu+%zu of %zu", what, from, length, size);
}

static void compare(const unsigned char *found, size_t from, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (found[i] != model[from + i]) {
            printf("found %02x instead of %02x\n", found[i], model[from + i]);
            errno = 0;
            fail("difference", from + i);
        }
}

/* What is between the old end and the new one reads as zeroes. */
static void resize(size_t to)
{
    if (to > size)
        memset(model + size, 0, to - size);
    size = to;
}

/* Offsets are often at or near a page's edge. */
static size_t place(size_t end)
{
    size_t at = pick(end + 1);
    return pick(3) ? at : at & ~(size_t)4095;
}

static void fill(unsigned char *bytes, size_t length)
{
    unsigned char first = pick(256);
    for (size_t i = 0; i < length; i++)
        bytes[i] = first + i;
}

static void open_again(void)
{
    if (file >= 0 && close(file))
        fail("close", 0);
    file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        fail("open", 0);
}

static void access_mapping(int writes)
{
    if (size == 0)
        return;
    size_t from = place(size - 1), length = 1 + pick(size - from), start = from & ~(size_t)4095;
    if (length > 70000)
        length = 70000;
    note(writes ? "map write" : "map read", from, length);
    int protection = writes ? PROT_READ | PROT_WRITE : PROT_READ;
    unsigned char *mapped = mmap(NULL, from - start + length, protection, MAP_SHARED, file, start);
    if (mapped == MAP_FAILED)
        fail("mmap", start);
    if (writes) {
        fill(model + from, length);
        memcpy(mapped + (from - start), model + from, length);
        if (pick(3) == 0 && msync(mapped, from - start + length, pick(2) ? MS_SYNC : MS_ASYNC))
            fail("msync", from);
    } else {
        compare(mapped + (from - start), from, length);
    }
    if (munmap(mapped, from - start + length))
        fail("munmap", from);
}

static void one_access(void)
{
    size_t from = place(MAX_SIZE - 100000), length = 1 + pick(pick(2) ? 100000 : 6000);
    switch (pick(16)) {
    case 0 ... 2:
        note("write", from, length);
        if (from > size)
            resize(from);
        fill(model + from, length);
        if (pwrite(file, model + from, length, from) != (ssize_t)length)
            fail("pwrite", from);
        if (from + length > size)
            size = from + length;
        break;
    case 3 ... 5: {
        size_t there = from >= size ? 0 : size - from < length ? size - from : length;
        note("read", from, length);
        if (pread(file, buffer, length, from) != (ssize_t)there)
            fail("pread", from);
        compare(buffer, from, there);
        break;
    }
    case 6 ... 7:
        access_mapping(1);
        break;
    case 8:
        access_mapping(0);
        break;
    case 9: {
        size_t to = pick(4) ? place(size) : from;
        note("truncate", to, 0);
        if (pick(2) ? ftruncate(file, to) : truncate(path, to))
            fail("truncate", to);
        resize(to);
        break;
    }
    case 10:
        note("allocate", from, length);
        if (fallocate(file, 0, from, length))
            fail("fallocate", from);
        if (from + length > size)
            resize(from + length);
        break;
    case 11:
        note("punch", from, length);
        if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, length))
            fail("punch", from);
        if (from < size)
            memset(model + from, 0, size - from < length ? size - from : length);
        break;
    case 12: {
        if (size < 2)
            break;
        off_t in = pick(size / 2), out = size / 2 + pick(size / 2);
        size_t most = (size_t)(out - in) < size - in ? (size_t)(out - in) : size - in;
        length = length < most ? length : most;
        if (length == 0 || out + length > MAX_SIZE)
            break;
        note("copy", in, length);
        off_t read_at = in, written_at = out;
        for (size_t left = length; left;) {
            ssize_t moved = copy_file_range(file, &read_at, file, &written_at, left, 0);
            if (moved <= 0)
                fail("copy_file_range", in);
            left -= moved;
        }
        memmove(model + out, model + in, length);
        if (out + length > size)
            size = out + length;
        break;
    }
    case 13: {
        int appended = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        length = 1 + length % 5000;
        if (size + length > MAX_SIZE) {
            close(appended);
            break;
        }
        note("append", size, length);
        fill(model + size, length);
        if (write(appended, model + size, length) != (ssize_t)length || close(appended))
            fail("append", size);
        size += length;
        break;
    }
    case 14:
        note("sync", 0, 0);
        if ((pick(2) ? fsync(file) : fdatasync(file)) || posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED))
            fail("fsync", 0);
        break;
    default: {
        struct stat status;
        note("open again", 0, 0);
        open_again();
        if (fstat(file, &status) || status.st_size != (off_t)size) {
            printf("size %lld instead of %zu\n", (long long)status.st_size, size);
            fail("fstat", 0);
        }
    }
    }
}

int main(int count, char **words)
{
    if (count != 4)
        return 2;
    path = words[1];
    state = strtoull(words[2], NULL, 10);
    file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0)
        fail("open", 0);
    for (unsigned long left = strtoul(words[3], NULL, 10); left; left--)
        one_access();
    open_again();
    if (pread(file, buffer, MAX_SIZE, 0) != (ssize_t)size)
        fail("the last pread", 0);
    compare(buffer, 0, size);
    uint64_t digest = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; i++)
        digest = (digest ^ model[i]) * 0x100000001b3;
    printf("%zu %016lx\n", size, digest);
    return 0;
}
