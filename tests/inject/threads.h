// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// The threads of a process by their names. The one that the process began with is `main`, whatever its own name.

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

static inline int has_name(pid_t process, pid_t id, const char *wanted) {
    char path[64], name[32] = "";
    if (id == process)
        return strcmp(wanted, "main") == 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/comm", process, id);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    if (!fgets(name, sizeof name, file))
        name[0] = 0;
    fclose(file);
    name[strcspn(name, "\n")] = 0;
    return strcmp(name, wanted) == 0;
}

// The process ends with a message if there is no such thread.
static inline pid_t find_thread(pid_t process, const char *wanted) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", process);
    DIR *threads = opendir(path);
    for (struct dirent *entry; threads && (entry = readdir(threads));) {
        pid_t id = atoi(entry->d_name);
        if (id > 0 && has_name(process, id, wanted)) {
            closedir(threads);
            return id;
        }
    }
    fprintf(stderr, "no thread %s\n", wanted);
    exit(1);
}
