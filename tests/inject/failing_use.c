// SPDX-License-Identifier: Apache-2.0 OR MIT
//
// failing_use CALL[,CALL...] USE ERRNO REPORT PROGRAM [ARG...]: executes PROGRAM in this process. Its use number USE (from 1) of
// the system calls with these numbers, on whichever thread, fails with ERRNO and is not made; with 0 none fails. The file REPORT
// gets one line: the uses that there were, and the thread of the one that failed, or `-`. If USE is `1/N:THREAD`, one of N uses on
// the thread THREAD fails, at random, and REPORT gets how many did, and the thread.
//
// A filter passes the call to a supervisor (seccomp's user notification), a grandchild: the program remains the child of its
// parent, and has no child that it does not know of. Other processes that the program starts make the call undisturbed.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CALLS 16

// Between program and supervisor, which share memory so that they need no system call.
struct shared {
    atomic_int is_seized, listener, is_taken;
};

static void fail(const char *what) {
    perror(what);
    _exit(125);
}

static void read_name(pid_t process, pid_t thread, char *name, size_t size) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", process, thread);
    FILE *file = fopen(path, "r");
    if (!file || !fgets(name, size, file))
        snprintf(name, size, "?");
    if (file)
        fclose(file);
    name[strcspn(name, "\n")] = 0;
}

// Whether a use is one of those that fail, and how many were examined.
static int is_failing(const char *use, pid_t process, pid_t thread, char *name, size_t size, long *uses) {
    static unsigned random = 1;
    unsigned one_of;
    char wanted[32];
    if (sscanf(use, "1/%u:%31s", &one_of, wanted) != 2) {
        if (++*uses != atol(use))
            return 0;
        read_name(process, thread, name, size);
        return 1;
    }
    read_name(process, thread, name, size);
    // Xorshift.
    random ^= random << 13, random ^= random >> 17, random ^= random << 5;
    int fails = strcmp(name, wanted) == 0 && random % one_of == 0;
    snprintf(name, size, "%s", wanted);
    *uses += fails;
    return fails;
}

static void supervise(int listener, pid_t process, const char *use, int error, int report) {
    char name[32] = "-";
    long uses = 0;
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    while (poll(&ready, 1, -1) >= 0 && !(ready.revents & POLLHUP)) {
        struct seccomp_notif call = {0};
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0)
            continue;
        struct seccomp_notif_resp answer = {.id = call.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        // Adding one to an eventfd cannot fail, and a wake-up that is lost would only show that.
        int is_event = call.data.nr == SYS_write && call.data.args[2] == 8;
        // Signal 0 only asks whether the thread is one of the program's.
        int is_own = !is_event && syscall(SYS_tgkill, process, call.pid, 0) == 0;
        if (is_own && is_failing(use, process, call.pid, name, sizeof(name), &uses)) {
            answer.flags = 0;
            answer.error = -error;
        }
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    dprintf(report, "%ld %s\n", uses, name);
}

static int filter(char *calls) {
    struct sock_filter instructions[2 * MAX_CALLS + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    int count = 1;
    for (char *call = strtok(calls, ","); call && count <= 2 * MAX_CALLS; call = strtok(NULL, ",")) {
        struct sock_filter equal = BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, strtoul(call, NULL, 0), 0, 1);
        struct sock_filter notify = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
        instructions[count++] = equal;
        instructions[count++] = notify;
    }
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    instructions[count++] = allow;
    struct sock_fprog program = {count, instructions};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        fail("failing_use: no_new_privs");
    // Otherwise a signal makes the kernel repeat the call, and it would be counted twice.
    long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

int main(int count, char **words) {
    if (count < 6) {
        fprintf(stderr, "usage: failing_use CALL[,CALL...] USE ERRNO REPORT PROGRAM [ARG...]\n");
        return 125;
    }
    pid_t process = getpid();
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int report = open(words[4], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (shared == MAP_FAILED || report < 0)
        fail("failing_use");
    shared->listener = -1;
    // They share descriptors until the supervisor has the listener.
    pid_t child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        if (syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0) != 0)
            _exit(0);
        setsid();
        // Only the program counts as one of the test's processes.
        for (char **variable = environ; *variable; variable++)
            memset(*variable, 0, strlen(*variable));
        shared->is_seized = 1;
        while (shared->listener < 0)
            sched_yield();
        int listener = fcntl(shared->listener, F_DUPFD_CLOEXEC, 1000);
        report = fcntl(report, F_DUPFD_CLOEXEC, 1000);
        syscall(SYS_close_range, 0, 0, CLOSE_RANGE_UNSHARE);
        syscall(SYS_close_range, 0, 999, 0);
        shared->is_taken = 1;
        supervise(listener, process, words[2], atoi(words[3]), report);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    while (!shared->is_seized)
        sched_yield();
    int listener = filter(words[1]);
    if (listener < 0)
        fail("failing_use: seccomp");
    shared->listener = listener;
    // From here on the call may be the one that fails.
    while (!shared->is_taken)
        ;
    execv(words[5], words + 5);
    fail(words[5]);
}
