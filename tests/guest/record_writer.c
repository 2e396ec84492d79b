// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// record_writer DIRECTORY LAST: checks that DIRECTORY has the records 1 to LAST, and continues with the next ones for ever. Each
// record is appended to the file `records`; every eighth is a file with its number as name, too. A line `record N` on standard
// output acknowledges a record: it, its file and the file's name were synced.

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORDS = 64, FILES = 8 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// Every word is the record's number, multiplied by its place.
static void fill(uint64_t *record, uint64_t number) {
    for (uint64_t place = 0; place < WORDS; place++)
        record[place] = number * (place + 1);
}

static void check(const char *path, off_t offset, uint64_t number) {
    uint64_t expected[WORDS], found[WORDS];
    fill(expected, number);
    int file = open(path, O_RDONLY);
    if (file < 0 || pread(file, found, sizeof found, offset) != sizeof found || memcmp(found, expected, sizeof found)) {
        printf("lost %lu\n", number);
        exit(1);
    }
    close(file);
}

static void sync_directory(void) {
    int directory = open(".", O_RDONLY | O_DIRECTORY);
    if (directory < 0 || fsync(directory))
        fail("fsync the directory");
    close(directory);
}

static void write_file(const uint64_t *record, uint64_t number) {
    char name[32], partial[40];
    snprintf(name, sizeof name, "%lu", number);
    snprintf(partial, sizeof partial, "%lu.partial", number);
    int file = open(partial, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0 || write(file, record, WORDS * sizeof *record) != WORDS * sizeof *record || fsync(file))
        fail(partial);
    close(file);
    if (rename(partial, name))
        fail(name);
    sync_directory();
}

int main(int count, char **words) {
    if (count != 3 || chdir(words[1]))
        fail("record_writer DIRECTORY LAST");
    uint64_t record[WORDS], last = strtoull(words[2], NULL, 10);
    for (uint64_t number = 1; number <= last; number++) {
        char name[32];
        snprintf(name, sizeof name, "%lu", number);
        check("records", (number - 1) * sizeof record, number);
        if (number % FILES == 0)
            check(name, 0, number);
    }
    int records = open("records", O_WRONLY | O_CREAT, 0644);
    if (records < 0)
        fail("records");
    sync_directory();
    for (uint64_t number = last + 1;; number++) {
        fill(record, number);
        if (pwrite(records, record, sizeof record, (number - 1) * sizeof record) != sizeof record || fsync(records))
            fail("records");
        if (number % FILES == 0)
            write_file(record, number);
        printf("record %lu\n", number);
        if (fflush(stdout))
            fail("standard output");
    }
}
