// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// forbidden_call PID THREAD NUMBER: the next system call of the thread THREAD of the process is the one with this number instead,
// with the arguments of the replaced one. Filters of the thread see the new number. Prints one line once the call is made.

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "threads.h"

int main(int argc, char **argv) {
    if (argc != 4)
        return 1;
    pid_t thread = find_thread(atoi(argv[1]), argv[2]);
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
