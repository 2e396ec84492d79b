// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// failing_calls THREAD PROGRAM [ARG...]: executes PROGRAM in this process. On its thread THREAD (`main` for the first) two
// system calls that cannot fail do fail, once each: epoll_wait with EBADF and clock_gettime with EINVAL. Coracle and Rust's
// standard library panic then, so that a test sees what becomes of a panic on each kind of thread, and the product needs no
// switch for it.
//
// The thread main is spared until it has waited once: before that it only prepares.
//
// A filter stops every thread at these two calls, for a tracer that is a grandchild: the program remains the child of its
// parent. A static program takes no preloaded library, and reads clocks through the vDSO; the tracer hides that from it, and
// the system calls take its place.

#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "threads.h"

enum { MAX_THREADS = 256 };

static struct thread {
    pid_t id;
    int failed_wait, failed_clock;
} threads[MAX_THREADS];

static void fail(const char *what) {
    perror(what);
    _exit(125);
}

static struct thread *find(pid_t id) {
    for (struct thread *thread = threads; thread < threads + MAX_THREADS; thread++) {
        if (thread->id == 0)
            thread->id = id;
        if (thread->id == id)
            return thread;
    }
    fprintf(stderr, "failing_calls: more than %d threads\n", MAX_THREADS);
    _exit(125);
}

// The call that a thread is about to make fails with `error` instead: it is skipped, and its result is there already.
static void skip(pid_t id, struct user_regs_struct *registers, int error) {
    registers->orig_rax = -1;
    registers->rax = -error;
    if (ptrace(PTRACE_SETREGS, id, 0, registers) < 0)
        fail("failing_calls: PTRACE_SETREGS");
}

static void at_call(pid_t process, pid_t id, const char *wanted) {
    struct user_regs_struct registers;
    struct thread *thread = find(id);
    if (ptrace(PTRACE_GETREGS, id, 0, &registers) < 0 || !has_name(process, id, wanted))
        return;
    if (registers.orig_rax == SYS_clock_gettime) {
        if (thread->failed_clock || (id == process && !thread->failed_wait))
            return;
        thread->failed_clock = 1;
        skip(id, &registers, EINVAL);
    } else if (!thread->failed_wait) {
        thread->failed_wait = 1;
        skip(id, &registers, EBADF);
    }
}

// At the start of a program: the stack holds argc, argv, envp and the auxiliary vector.
static void hide_vdso(pid_t id) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, id, 0, &registers) < 0)
        fail("failing_calls: PTRACE_GETREGS");
    unsigned long at = registers.rsp;
    at += sizeof(long) * (2 + ptrace(PTRACE_PEEKDATA, id, at, 0));
    while (ptrace(PTRACE_PEEKDATA, id, at, 0) != 0)
        at += sizeof(long);
    at += sizeof(long);
    for (long type; (type = ptrace(PTRACE_PEEKDATA, id, at, 0)) != AT_NULL; at += 2 * sizeof(long)) {
        if (type == AT_SYSINFO_EHDR && ptrace(PTRACE_POKEDATA, id, at, AT_IGNORE) < 0)
            fail("failing_calls: PTRACE_POKEDATA");
    }
}

static void trace(pid_t process, const char *wanted) {
    int status;
    for (;;) {
        pid_t id = waitpid(-1, &status, __WALL);
        if (id < 0 && errno == EINTR)
            continue;
        if (id < 0)
            _exit(0);
        if (!WIFSTOPPED(status))
            continue;
        int signal = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_SECCOMP)
            at_call(process, id, wanted);
        else if (event == PTRACE_EVENT_EXEC && id == process)
            hide_vdso(id);
        if (event == PTRACE_EVENT_STOP && signal != SIGTRAP) {
            ptrace(PTRACE_LISTEN, id, 0, 0);
            continue;
        }
        // A stop by a signal that the thread is to get; by its start, an event or a call otherwise.
        ptrace(PTRACE_CONT, id, 0, event ? 0 : signal);
    }
}

static void filter(void) {
    struct sock_filter instructions[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_wait, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clock_gettime, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
    };
    struct sock_fprog program = {sizeof(instructions) / sizeof(*instructions), instructions};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        fail("failing_calls: seccomp");
}

int main(int count, char **words) {
    if (count < 3) {
        fprintf(stderr, "usage: failing_calls THREAD PROGRAM [ARG...]\n");
        return 125;
    }
    pid_t process = getpid();
    int ready[2];
    if (pipe(ready) < 0)
        fail("failing_calls: pipe");
    // The program has no child that it does not know of.
    pid_t child = fork();
    if (child == 0) {
        if (fork() != 0)
            _exit(0);
        setsid();
        long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP;
        if (ptrace(PTRACE_SEIZE, process, 0, options) < 0)
            fail("failing_calls: PTRACE_SEIZE");
        // Only the program may hold the streams of the test, and only it counts as one of the test's processes.
        for (char **variable = environ; *variable; variable++)
            memset(*variable, 0, strlen(*variable));
        if (write(ready[1], "", 1) != 1)
            fail("failing_calls: write");
        closefrom(0);
        trace(process, words[1]);
    }
    waitpid(child, NULL, 0);
    close(ready[1]);
    char byte;
    if (read(ready[0], &byte, 1) != 1)
        return 125;
    close(ready[0]);
    filter();
    execvp(words[2], words + 2);
    fail(words[2]);
}
