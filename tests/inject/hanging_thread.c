// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// hanging_thread PID THREAD: stops the thread THREAD of the process, as a system call that does not return does. Prints one line
// once it has stopped, and ends when the thread ends.

#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "threads.h"

int main(int argc, char **argv) {
    if (argc != 3)
        return 1;
    pid_t thread = find_thread(atoi(argv[1]), argv[2]);
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
