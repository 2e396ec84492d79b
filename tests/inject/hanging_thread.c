// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// hanging_thread PID THREAD: stops the thread THREAD of the process, as a system call that does not return does. Prints one line
// once it has stopped, and ends when the thread ends.

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

int main(int argc, char **argv) {
    if (argc != 3)
        return 1;
    char path[300], name[32];
    snprintf(path, sizeof path, "/proc/%s/task", argv[1]);
    DIR *threads = opendir(path);
    for (struct dirent *entry; threads && (entry = readdir(threads));) {
        pid_t thread = atoi(entry->d_name);
        snprintf(path, sizeof path, "/proc/%s/task/%s/comm", argv[1], entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        const char *line = fgets(name, sizeof name, file);
        fclose(file);
        if (!line || strcmp(strtok(name, "\n"), argv[2]))
            continue;
        int status;
        if (ptrace(PTRACE_SEIZE, thread, 0, 0) || ptrace(PTRACE_INTERRUPT, thread, 0, 0) ||
            waitpid(thread, &status, __WALL) != thread) {
            perror("ptrace");
            return 1;
        }
        puts("stopped");
        fflush(stdout);
        // The process cannot end before its tracer has reaped the thread.
        waitpid(thread, &status, __WALL);
        return 0;
    }
    return 1;
}
