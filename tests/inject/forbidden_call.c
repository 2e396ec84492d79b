// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// forbidden_call PID THREAD NUMBER: the next system call of the thread THREAD of the process is the one with this number instead,
// with the arguments of the replaced one. Filters of the thread see the new number. Prints one line once the call is made.

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

static pid_t find(const char *process, const char *wanted) {
    char path[300], name[32];
    snprintf(path, sizeof path, "/proc/%s/task", process);
    DIR *threads = opendir(path);
    for (struct dirent *entry; threads && (entry = readdir(threads));) {
        if (strcmp(wanted, "main") == 0 && strcmp(entry->d_name, process) == 0)
            return atoi(entry->d_name);
        snprintf(path, sizeof path, "/proc/%s/task/%s/comm", process, entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        const char *line = fgets(name, sizeof name, file);
        fclose(file);
        if (line && strcmp(strtok(name, "\n"), wanted) == 0 && strcmp(entry->d_name, process) != 0)
            return atoi(entry->d_name);
    }
    fprintf(stderr, "forbidden_call: no thread %s\n", wanted);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 1;
    pid_t thread = find(argv[1], argv[2]);
    if (ptrace(PTRACE_SEIZE, thread, 0, PTRACE_O_TRACESYSGOOD) || ptrace(PTRACE_INTERRUPT, thread, 0, 0)) {
        perror("ptrace");
        return 1;
    }
    for (int status; waitpid(thread, &status, __WALL) == thread && WIFSTOPPED(status);) {
        struct user_regs_struct registers;
        int is_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
        // The entry: the kernel has put -ENOSYS into the place of the result.
        if (is_call && ptrace(PTRACE_GETREGS, thread, 0, &registers) == 0 && (long)registers.rax == -38) {
            registers.orig_rax = strtoul(argv[3], NULL, 0);
            if (ptrace(PTRACE_SETREGS, thread, 0, &registers) || ptrace(PTRACE_DETACH, thread, 0, 0)) {
                perror("ptrace");
                return 1;
            }
            puts("made");
            return 0;
        }
        int is_stop = is_call || status >> 16 != 0;
        ptrace(PTRACE_SYSCALL, thread, 0, is_stop ? 0 : WSTOPSIG(status));
    }
    return 1;
}
